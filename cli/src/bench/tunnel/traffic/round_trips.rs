//! Round trips, summed up.

use std::time::Duration;

/// What was found out by asking for a while.
#[derive(Debug)]
pub(in crate::bench::tunnel) struct RoundTrips {
    /// Microseconds, in rising order.
    sorted: Vec<f64>,
    /// Requests without an answer in time.
    pub(in crate::bench::tunnel) lost: u64,
}

impl RoundTrips {
    pub(in crate::bench::tunnel) fn new(times: Vec<Duration>, lost: u64) -> Self {
        let mut sorted: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1e6).collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted, lost }
    }

    /// The time that so much of a hundred round trips stay within, in microseconds: the nearest-rank percentile.
    pub(in crate::bench::tunnel) fn percentile(&self, percent: u32) -> Option<f64> {
        let rank = (self.sorted.len() as u64 * u64::from(percent)).div_ceil(100).max(1);
        self.sorted.get(rank as usize - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let of = |last: u64| RoundTrips::new((1..=last).rev().map(Duration::from_micros).collect(), 0);
        let near = |found: Option<f64>, wanted: f64| found.is_some_and(|found| (found - wanted).abs() < 1e-6);
        for (last, percent, wanted) in [(100, 1, 1.0), (100, 50, 50.0), (100, 99, 99.0), (3, 50, 2.0), (3, 99, 3.0)] {
            assert!(near(of(last).percentile(percent), wanted), "{percent} of {last}");
        }
        assert_eq!(of(0).percentile(50), None);
    }
}

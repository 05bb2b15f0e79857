//! How often and how long something is measured, and the clock and the counters around it.
//!
//! Samples of different subjects are taken in turn, so that a machine that is slow for a while is slow for all of them.

use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::allocations::Allocations;
use super::model::{Axis, Better, Measure, Point, Series};
use crate::failure::{Failure, Outcome};

/// Options of the benchmarks that run in memory.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Sampling {
    /// Samples of each figure; the table shows their median and how far they lie apart
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// How long one sample takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.15", value_parser = parse_duration)]
    duration: Duration,
    /// Two very short runs: shows that it works, and tells little about speed
    #[arg(long, conflicts_with_all = ["runs", "duration"])]
    quick: bool,
}

impl Sampling {
    /// Samples of each figure.
    pub(super) fn runs(&self) -> u16 {
        if self.quick { 2 } else { self.runs }
    }

    /// How long one sample takes.
    pub(super) fn duration(&self) -> Duration {
        if self.quick { QUICK } else { self.duration }
    }

    /// How it was measured, for the report's notes.
    pub(super) fn note(&self) -> String {
        let (runs, milliseconds) = (self.runs(), self.duration().as_secs_f64() * 1e3);
        let quick = if self.quick { " Quick runs: the figures are noise." } else { "" };
        format!(
            "One thread; {runs} samples of {milliseconds:.0} ms each, taken in turn for all subjects and places. Times and \
             rates are of the processor's time.{quick}"
        )
    }
}

/// What one direction of a sample has cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Packets that went through.
    pub(super) packets: u64,
    time: Duration,
    allocations: u64,
}

impl Cost {
    /// Does a batch of work and adds what it costs; `work` returns its packets.
    pub(super) fn add(&mut self, work: impl FnOnce() -> Outcome<u64>) -> Outcome {
        let before = Allocations::now();
        let begun = processor_time()?;
        let packets = work()?;
        self.time += processor_time()?.saturating_sub(begun).saturating_sub(clock_time());
        self.allocations += Allocations::now().made.wrapping_sub(before.made);
        self.packets += packets;
        Ok(())
    }

    /// The processor's time for each packet.
    pub(super) fn nanoseconds(&self) -> f64 {
        self.time.as_nanos() as f64 / self.packets.max(1) as f64
    }

    /// Packets in a second of the processor's time.
    pub(super) fn rate(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        if seconds > 0.0 { self.packets as f64 / seconds } else { 0.0 }
    }

    /// Allocations for each packet.
    pub(super) fn allocations(&self) -> f64 {
        self.allocations as f64 / self.packets.max(1) as f64
    }
}

/// What the processor has spent on this thread. It stands still while others run, so a busy machine makes a sample less
/// wrong than the clock on the wall would.
fn processor_time() -> Outcome<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map(Duration::from).map_err(|error| Failure::failed(format!("the processor's time is not to be had: {error}")))
}

/// What asking for it costs, which would be a few percent of a small batch.
fn clock_time() -> Duration {
    static TIME: OnceLock<Duration> = OnceLock::new();
    *TIME.get_or_init(|| {
        let once = || {
            let begun = processor_time().ok()?;
            Some(processor_time().ok()?.saturating_sub(begun))
        };
        (0..1000).filter_map(|_| once()).min().unwrap_or_default()
    })
}

/// A measure that is filled sample by sample.
#[derive(Debug)]
pub(super) struct Recorder(Measure);

impl Recorder {
    pub(super) fn new(key: &str, title: &str, unit: &str, better: Better, x: Option<Axis>) -> Self {
        let (key, title, unit) = (key.to_owned(), title.to_owned(), unit.to_owned());
        Self(Measure { key, title, unit, better, x, series: Vec::new() })
    }

    /// Adds a sample of a subject at a place.
    pub(super) fn add(&mut self, subject: &str, x: Option<f64>, sample: f64) {
        let series = &mut self.0.series;
        let index = series.iter().position(|series| series.subject == subject).unwrap_or_else(|| {
            series.push(Series { subject: subject.to_owned(), points: Vec::new() });
            series.len() - 1
        });
        let points = &mut series[index].points;
        match points.iter_mut().find(|point| point.x == x) {
            Some(point) => point.samples.push(sample),
            None => points.push(Point { x, samples: vec![sample] }),
        }
    }

    /// The measure, each line by rising `x`.
    pub(super) fn finish(mut self) -> Measure {
        for series in &mut self.0.series {
            series.points.sort_by(|a, b| a.x.partial_cmp(&b.x).unwrap_or(std::cmp::Ordering::Equal));
        }
        self.0
    }
}

/// Reads how long a sample takes. Beyond ten seconds an engine that only sends would ask its peer for a sign of life,
/// and no longer do the work that is measured alone.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.001..=10.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds from 0.001 to 10, like 0.5".to_owned())
}

/// A sample of a quick run.
const QUICK: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_within_bounds() {
        assert_eq!(parse_duration("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "-1", "11", "NaN", "soon"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn costs_are_counted_for_each_packet() {
        let mut cost = Cost::default();
        assert_eq!((cost.nanoseconds(), cost.rate(), cost.allocations()), (0.0, 0.0, 0.0));
        let work = || {
            let _kept = std::hint::black_box([Box::new(1), Box::new(2)]);
            // Far more than asking for the time costs.
            std::hint::black_box((0..1_000_000_u64).fold(0, |sum, number| std::hint::black_box(sum ^ number)));
            Ok(4)
        };
        cost.add(work).unwrap();
        cost.add(|| Err(Failure::failed("work"))).unwrap_err();
        assert_eq!((cost.packets, cost.allocations()), (4, 0.5));
        assert!(cost.nanoseconds() > 0.0 && (cost.rate() * cost.nanoseconds() - 1e9).abs() < 1e4);
    }

    #[test]
    fn samples_are_sorted_by_place_and_kept_in_order() {
        let mut recorder = Recorder::new("key", "Title", "unit", Better::Lower, None);
        for (subject, x, sample) in [("a", 2.0, 1.0), ("a", 1.0, 5.0), ("b", 1.0, 3.0), ("a", 2.0, 0.0)] {
            recorder.add(subject, Some(x), sample);
        }
        let measure = recorder.finish();
        let points = |index: usize| -> Vec<_> {
            measure.series[index].points.iter().map(|point| (point.x, point.samples.clone())).collect()
        };
        assert_eq!(points(0), [(Some(1.0), vec![5.0]), (Some(2.0), vec![1.0, 0.0])]);
        assert_eq!(points(1), [(Some(1.0), vec![3.0])]);
    }
}

//! Samples on their way into the report.

use crate::bench::model::{Axis, Better, Measure, Point, Series};

/// What can be measured; the report has it in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Tcp1,
    Tcp4,
    TcpBoth,
    Tcp6,
    Cpu1,
    Cpu4,
    Memory,
    UdpBest,
    UdpDelivered,
    UdpLoss,
    UdpFlood,
    UdpFloodLoss,
    Idle50,
    Idle99,
    Load50,
    Load99,
}

impl What {
    /// Key, title and unit.
    const fn words(self) -> [&'static str; 3] {
        match self {
            Self::Tcp1 => ["tcp-1", "TCP, 1 stream", "Gbit/s"],
            Self::Tcp4 => ["tcp-4", "TCP, 4 streams", "Gbit/s"],
            Self::TcpBoth => ["tcp-both", "TCP, both directions at once, sum", "Gbit/s"],
            Self::Tcp6 => ["tcp6-1", "TCP over IPv6, 1 stream", "Gbit/s"],
            Self::Cpu1 => ["cpu-tcp-1", "Processor time of both engines, TCP, 1 stream", "s/GB"],
            Self::Cpu4 => ["cpu-tcp-4", "Processor time of both engines, TCP, 4 streams", "s/GB"],
            Self::Memory => ["memory", "Peak memory of the larger engine, TCP, 4 streams", "MiB"],
            Self::UdpBest => ["udp-best", "UDP, 64 B: most packets delivered at any load", "packets/s"],
            Self::UdpDelivered => ["udp-delivered", "UDP, 64 B: packets delivered", "packets/s"],
            Self::UdpLoss => ["udp-loss", "UDP, 64 B: loss", "%"],
            Self::UdpFlood => ["udp-flood", "UDP, 64 B, as many as can be sent: packets delivered", "packets/s"],
            Self::UdpFloodLoss => ["udp-flood-loss", "UDP, 64 B, as many as can be sent: loss", "%"],
            Self::Idle50 => ["latency-idle-p50", "Round trip, idle, median", "µs"],
            Self::Idle99 => ["latency-idle-p99", "Round trip, idle, 99 % within", "µs"],
            Self::Load50 => ["latency-load-p50", "Round trip beside 1 TCP stream, median", "µs"],
            Self::Load99 => ["latency-load-p99", "Round trip beside 1 TCP stream, 99 % within", "µs"],
        }
    }

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        let [_, title, _] = self.words();
        title
    }

    const fn better(self) -> Better {
        match self {
            Self::Tcp1 | Self::Tcp4 | Self::TcpBoth | Self::Tcp6 => Better::Higher,
            Self::UdpBest | Self::UdpDelivered | Self::UdpFlood => Better::Higher,
            _ => Better::Lower,
        }
    }

    fn axis(self) -> Option<Axis> {
        matches!(self, Self::UdpDelivered | Self::UdpLoss).then(|| Axis {
            title: "offered load".to_owned(),
            unit: "packets/s".to_owned(),
            logarithmic: true,
        })
    }
}

/// All samples so far.
#[derive(Debug, Default)]
pub(super) struct Record(Vec<(What, Measure)>);

impl Record {
    /// Adds a sample.
    pub(super) fn add(&mut self, what: What, subject: &str, sample: f64) {
        self.add_at(what, subject, None, sample);
    }

    /// Adds a sample at a place on the measure's axis.
    pub(super) fn add_at(&mut self, what: What, subject: &str, x: Option<f64>, sample: f64) {
        let at = self.0.binary_search_by_key(&what, |(what, _)| *what).unwrap_or_else(|at| {
            let [key, title, unit] = what.words().map(str::to_owned);
            let measure = Measure { key, title, unit, better: what.better(), x: what.axis(), series: Vec::new() };
            self.0.insert(at, (what, measure));
            at
        });
        let all = &mut self.0[at].1.series;
        let series = find_or_add(
            all,
            |series| series.subject == subject,
            || Series { subject: subject.to_owned(), points: Vec::new() },
        );
        let point = find_or_add(&mut series.points, |point| point.x == x, || Point { x, samples: Vec::new() });
        point.samples.push(sample);
    }

    /// What the report shows.
    pub(super) fn measures(self) -> Vec<Measure> {
        self.0.into_iter().map(|(_, measure)| measure).collect()
    }
}

fn find_or_add<T>(all: &mut Vec<T>, is_it: impl FnMut(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let at = all.iter().position(is_it).unwrap_or_else(|| {
        all.push(make());
        all.len() - 1
    });
    &mut all[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_find_their_places() {
        let mut record = Record::default();
        for (subject, sample) in [("a", 1.0), ("b", 2.0), ("a", 3.0), ("b", 4.0)] {
            record.add(What::Idle50, subject, sample);
            record.add_at(What::UdpLoss, subject, Some(10.0), sample);
            record.add_at(What::UdpLoss, subject, Some(20.0), -sample);
        }
        let measures = record.measures();
        assert_eq!(
            measures.iter().map(|found| found.key.as_str()).collect::<Vec<_>>(),
            ["udp-loss", "latency-idle-p50"]
        );
        assert!(measures[0].x.is_some() && measures[1].x.is_none());
        let [a, b] = measures[0].series.as_slice() else { panic!("{measures:?}") };
        assert_eq!((a.subject.as_str(), b.subject.as_str()), ("a", "b"));
        assert_eq!((a.points[1].x, a.points[1].samples.as_slice()), (Some(20.0), [-1.0, -3.0].as_slice()));
        assert_eq!(measures[1].series[1].points[0].samples, [2.0, 4.0]);
    }
}

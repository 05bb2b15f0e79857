//! What a benchmark found out, free of how it was measured and of how it is shown.
//!
//! Every benchmark fills one [`Report`]; the table, `--json` and the charts all read it, so a new benchmark needs no new
//! output and a new output works for all of them. Samples are kept one by one: medians and spreads are computed where
//! they are shown, and whoever reads the JSON can compute others.
//!
//! The JSON document is this model field by field, with the figures that [`Point`] computes added. Fields are only ever
//! added to it.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

/// One run of `adit bench`.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(test, derive(PartialEq, serde::Deserialize))]
pub(crate) struct Report {
    /// `engine`, `tunnel` or `scale`.
    pub(crate) benchmark: String,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What was compared, the one that others are compared with first.
    pub(crate) subjects: Vec<Subject>,
    /// What was measured, in the order in which it is shown.
    pub(crate) measures: Vec<Measure>,
    /// What a reader has to know: how it was measured, what was left out and why, what failed.
    pub(crate) notes: Vec<String>,
}

/// The machine that a benchmark ran on.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(test, derive(PartialEq, serde::Deserialize))]
pub(crate) struct Machine {
    /// The processor's own name.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// Main memory, in bytes.
    pub(crate) memory: u64,
    /// Operating system and its version.
    pub(crate) kernel: String,
    /// Adit's own version.
    pub(crate) adit: String,
}

/// One of the things compared.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(test, derive(PartialEq, serde::Deserialize))]
pub(crate) struct Subject {
    /// Short, and unique in the report.
    pub(crate) name: String,
    /// What it says when it is asked for its version, or what else identifies it.
    pub(crate) version: Option<String>,
}

/// One quantity, of all subjects.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(test, derive(PartialEq, serde::Deserialize))]
pub(crate) struct Measure {
    /// For file names and programs: lower case, digits and `-`.
    pub(crate) key: String,
    /// For people: `TCP, 1 stream`.
    pub(crate) title: String,
    /// The unit of all samples: `Gbit/s`.
    pub(crate) unit: String,
    /// Which direction is good.
    pub(crate) better: Better,
    /// What the points' `x` means; `None` for a measure with one point a subject.
    pub(crate) x: Option<Axis>,
    /// One for each subject that was measured.
    pub(crate) series: Vec<Series>,
}

/// Which of two samples is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Rates.
    Higher,
    /// Times, bytes, losses.
    Lower,
}

/// What is varied in a measure.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(test, derive(PartialEq, serde::Deserialize))]
pub(crate) struct Axis {
    /// `offered load`.
    pub(crate) title: String,
    /// `packets/s`.
    pub(crate) unit: String,
    /// Whether equal ratios are equal distances in a chart.
    pub(crate) logarithmic: bool,
}

/// The samples of one subject.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(test, derive(PartialEq, serde::Deserialize))]
pub(crate) struct Series {
    /// [`Subject::name`].
    pub(crate) subject: String,
    /// By rising `x`, or a single one.
    pub(crate) points: Vec<Point>,
}

/// The samples of one subject at one place. The JSON document has `median`, `min` and `max` beside them, each `null`
/// without samples.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(PartialEq, serde::Deserialize))]
pub(crate) struct Point {
    /// The place on [`Measure::x`].
    pub(crate) x: Option<f64>,
    /// One a run, in the order in which they were measured.
    pub(crate) samples: Vec<f64>,
}

impl Point {
    /// The median, or nothing without samples.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len().is_multiple_of(2) {
            Some((sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0)
        } else {
            sorted.get(middle).copied()
        }
    }

    /// The lowest and the highest sample.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        let low = self.samples.iter().copied().min_by(f64::total_cmp)?;
        let high = self.samples.iter().copied().max_by(f64::total_cmp)?;
        Some((low, high))
    }
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let range = self.range();
        let mut point = serializer.serialize_struct("Point", 5)?;
        point.serialize_field("x", &self.x)?;
        point.serialize_field("median", &self.median())?;
        point.serialize_field("min", &range.map(|(low, _)| low))?;
        point.serialize_field("max", &range.map(|(_, high)| high))?;
        point.serialize_field("samples", &self.samples)?;
        point.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        let point = |samples: &[f64]| Point { x: None, samples: samples.to_vec() };
        assert_eq!(point(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(point(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(point(&[]).median(), None);
        assert_eq!(point(&[3.0, 1.0, 2.0]).range(), Some((1.0, 3.0)));
        assert_eq!(point(&[]).range(), None);
    }
}

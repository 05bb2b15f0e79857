//! The counts that a change is compared with, and the verdict.
//!
//! Counts are those of one environment: compiler, C library, processor features. In that environment more than
//! [`LIMIT`] fails. In another one the same source counts otherwise, and a limit that a compiler's release can pass by
//! itself would make a clean tree red; so there the limit is [`OTHER_LIMIT`], and the difference is named. What is
//! missing on either side fails everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Counts, and what they depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// What chooses the code: compiler, C library, processor features.
    pub(crate) environment: BTreeMap<String, String>,
    /// Instructions each time, by operation.
    pub(crate) instructions: BTreeMap<String, f64>,
}

/// Two sets of counts side by side.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    /// What is different in the environment.
    pub(crate) environment: Vec<String>,
    /// The share of instructions more that fails, 0.1 for 10 %.
    pub(crate) limit: f64,
    /// Every operation that either side has, by name.
    pub(crate) rows: Vec<Row>,
}

/// One operation.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) operation: String,
    /// Instructions each time now.
    pub(crate) instructions: Option<f64>,
    /// Instructions each time in the baseline.
    pub(crate) baseline: Option<f64>,
    pub(crate) verdict: Verdict,
}

/// What to say of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// No more than the limit allows.
    Within,
    /// More than that: fails.
    More,
    /// Less by more than [`LIMIT`]: good, and the baseline should know.
    Less,
    /// Not in the baseline: fails, for nothing would watch it.
    New,
    /// Only in the baseline: fails, for it may have been lost by mistake.
    Gone,
}

impl Baseline {
    /// Reads the file that [`write`](Self::write) wrote.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!("{}: cannot be read; `cargo xtask instructions --bless` makes it", file.display())
        })?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }

    /// Writes the file: an operation a line, in order, so that a change of one is a change of one line.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("cannot write JSON")?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| file.display().to_string())
    }
}

impl Comparison {
    pub(crate) fn new(baseline: &Baseline, current: &Baseline) -> Self {
        let environment = differences(&baseline.environment, &current.environment);
        let limit = if environment.is_empty() { LIMIT } else { OTHER_LIMIT };
        let operations: BTreeSet<&String> = baseline.instructions.keys().chain(current.instructions.keys()).collect();
        let row = |operation: &String| {
            let before = baseline.instructions.get(operation).copied();
            let now = current.instructions.get(operation).copied();
            let verdict = match (before, now) {
                (Some(before), Some(now)) if now > before * (1.0 + limit) => Verdict::More,
                (Some(before), Some(now)) if now < before * (1.0 - LIMIT) => Verdict::Less,
                (Some(_), Some(_)) => Verdict::Within,
                (None, _) => Verdict::New,
                (Some(_), None) => Verdict::Gone,
            };
            Row { operation: operation.clone(), instructions: now, baseline: before, verdict }
        };
        Self { rows: operations.into_iter().map(row).collect(), environment, limit }
    }

    /// A sentence for each operation that fails.
    pub(crate) fn failures(&self) -> Vec<String> {
        let sentence = |row: &Row| {
            let Row { operation, .. } = row;
            match (row.verdict, row.baseline, row.instructions) {
                (Verdict::More, Some(before), Some(now)) => Some(format!(
                    "{operation}: {now:.1} instructions, {:.1} % more than {before:.1}; the limit is {:.0} %",
                    100.0 * (now / before - 1.0),
                    100.0 * self.limit
                )),
                (Verdict::New, ..) => Some(format!("{operation}: not in the baseline")),
                (Verdict::Gone, ..) => Some(format!("{operation}: in the baseline, but not measured any more")),
                _ => None,
            }
        };
        self.rows.iter().filter_map(sentence).collect()
    }
}

fn differences(baseline: &BTreeMap<String, String>, current: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<&String> = baseline.keys().chain(current.keys()).collect();
    let value = |map: &BTreeMap<String, String>, key| map.get(key).map_or("unknown", String::as_str).to_owned();
    keys.into_iter()
        .map(|key| (key, value(baseline, key), value(current, key)))
        .filter(|(_, before, now)| before != now)
        .map(|(key, before, now)| format!("{key} is {now}, the baseline's was {before}"))
        .collect()
}

/// The share of instructions more that fails in the environment of the baseline.
pub(crate) const LIMIT: f64 = 0.10;

/// The same in another environment. Counts of rustc 1.95 and a nightly 1.97 lay within 1.5 % of each other, and within
/// 5 % on a C library that was told of no AVX; this leaves room for a compiler that inlines something else.
const OTHER_LIMIT: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, counts: &[(&str, f64)]) -> Baseline {
        Baseline {
            environment: [("rustc".to_owned(), rustc.to_owned())].into(),
            instructions: counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        }
    }

    fn verdict(before: f64, now: f64, same: bool) -> (Verdict, usize) {
        let other = if same { "1" } else { "2" };
        let comparison = Comparison::new(&counts("1", &[("seal", before)]), &counts(other, &[("seal", now)]));
        (comparison.rows[0].verdict, comparison.failures().len())
    }

    #[test]
    fn more_than_a_tenth_fails() {
        assert_eq!(verdict(1000.0, 1110.0, true), (Verdict::More, 1));
        assert_eq!(verdict(1000.0, 1090.0, true), (Verdict::Within, 0));
        assert_eq!(verdict(1000.0, 1000.0, true), (Verdict::Within, 0));
    }

    #[test]
    fn less_is_told_and_passes() {
        assert_eq!(verdict(1000.0, 890.0, true), (Verdict::Less, 0));
        assert_eq!(verdict(1000.0, 910.0, true), (Verdict::Within, 0));
    }

    #[test]
    fn in_another_environment_more_is_allowed() {
        assert_eq!(verdict(1000.0, 1110.0, false), (Verdict::Within, 0));
        assert_eq!(verdict(1000.0, 1240.0, false), (Verdict::Within, 0));
        assert_eq!(verdict(1000.0, 1260.0, false), (Verdict::More, 1));
        let other = Comparison::new(&counts("1", &[]), &counts("2", &[]));
        assert_eq!(other.environment, ["rustc is 2, the baseline's was 1"]);
    }

    #[test]
    fn what_is_missing_on_either_side_fails_everywhere() {
        for rustc in ["1", "2"] {
            let comparison =
                Comparison::new(&counts("1", &[("a", 1.0), ("b", 1.0)]), &counts(rustc, &[("b", 1.0), ("c", 1.0)]));
            let verdicts: Vec<_> = comparison.rows.iter().map(|row| row.verdict).collect();
            assert_eq!(verdicts, [Verdict::Gone, Verdict::Within, Verdict::New]);
            assert_eq!(comparison.failures().len(), 2, "{:?}", comparison.failures());
        }
    }

    #[test]
    fn the_file_keeps_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("instructions.json");
        let written = counts("rustc 1.95.0 (59807616e 2026-04-14)", &[("seal/64", 259.1), ("open/64", 300.0)]);
        written.write(&file).unwrap();
        assert_eq!(Baseline::read(&file).unwrap(), written);
        std::fs::write(&file, "{\"environment\": {}, \"instruction\": {}}").unwrap();
        let error = Baseline::read(&file).unwrap_err();
        assert!(format!("{error:#}").contains("instruction"), "{error:#}");
    }
}

//! What people and programs get to see of a report: tables, a JSON document, charts and a page.

mod chart;
mod folder;
mod number;
mod page;
mod table;

use std::io::Write as _;

pub(super) use folder::Folder;

use super::model::{Axis, Measure, Report};
use crate::failure::{Failure, Outcome, tell};

/// Shows a report on standard output, and writes it to the folder first if there is one.
pub(super) fn show(report: &Report, json: bool, folder: Option<&Folder>) -> Outcome {
    let page = folder.map(|folder| folder.write(report)).transpose()?;
    let mut text = if json {
        let mut text = serde_json::to_string_pretty(report).map_err(Failure::failed)?;
        text.push('\n');
        text
    } else {
        table::text(report)
    };
    if let Some(page) = page {
        let line = format!("The report is in {}", page.display());
        if json { tell(line) } else { text += &format!("{line}\n") }
    }
    Ok(anstream::stdout().write_all(text.as_bytes())?)
}

/// What the figures in a table mean; `first` is whom ratios are to.
fn legend(first: Option<&str>) -> String {
    let ratio = first.map(|first| format!("; × is the ratio to {first}")).unwrap_or_default();
    format!("Medians, ± half of the range{ratio}; ↑ higher is better, ↓ lower is better")
}

impl Axis {
    /// What is varied, with its unit unless that says it already.
    fn name(&self) -> String {
        if self.unit.is_empty() || self.unit == self.title {
            self.title.clone()
        } else {
            format!("{} [{}]", self.title, self.unit)
        }
    }
}

/// Every `x` that has samples of any subject, rising.
fn places(measure: &Measure) -> Vec<f64> {
    let points = measure.series.iter().flat_map(|series| &series.points);
    let mut places: Vec<f64> = points.filter(|point| !point.samples.is_empty()).filter_map(|point| point.x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

/// The machine's memory, as it is sold.
fn memory(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

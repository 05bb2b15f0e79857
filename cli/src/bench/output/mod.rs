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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::model::{Better, Machine, Point, Series, Subject};

    /// Two subjects, a measure without and one with an axis; one subject has no version, and one lacks a point.
    pub(super) fn report() -> Report {
        let point = |x, samples: &[f64]| Point { x, samples: samples.to_vec() };
        let series = |subject: &str, points| Series { subject: subject.to_owned(), points };
        Report {
            benchmark: "tunnel".to_owned(),
            machine: Machine {
                cpu: "Some <CPU> & more".to_owned(),
                cores: 2,
                memory: 8 << 30,
                kernel: "Linux 6.1, \"Debian\"".to_owned(),
                adit: "0.1.0".to_owned(),
            },
            subjects: vec![
                Subject { name: "adit".to_owned(), version: None },
                Subject { name: "wg<go>".to_owned(), version: Some("v1\u{1b}[31m".to_owned()) },
            ],
            measures: vec![
                Measure {
                    key: "tcp-1".to_owned(),
                    title: "TCP, 1 stream".to_owned(),
                    unit: "Gbit/s".to_owned(),
                    better: Better::Higher,
                    x: None,
                    series: vec![
                        series("adit", vec![point(None, &[5.0, 5.5, 4.5])]),
                        series("wg<go>", vec![point(None, &[2.5, 2.4, 2.6])]),
                    ],
                },
                Measure {
                    key: "loss".to_owned(),
                    title: "UDP, 64 B: loss".to_owned(),
                    unit: "%".to_owned(),
                    better: Better::Lower,
                    x: Some(Axis { title: "offered load".to_owned(), unit: "packets/s".to_owned(), logarithmic: true }),
                    series: vec![
                        series("adit", vec![point(Some(10_000.0), &[0.0, 0.0]), point(Some(100_000.0), &[1.0, 2.0])]),
                        series("wg<go>", vec![point(Some(10_000.0), &[0.0, 0.5]), point(Some(50_000.0), &[])]),
                    ],
                },
            ],
            notes: vec!["<b>not bold</b>".to_owned()],
        }
    }

    #[test]
    fn the_document_has_every_sample_and_what_is_computed_of_them() {
        let report = report();
        let text = serde_json::to_string_pretty(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let point = &json["measures"][0]["series"][0]["points"][0];
        let expected =
            serde_json::json!({"x": null, "median": 5.0, "min": 4.5, "max": 5.5, "samples": [5.0, 5.5, 4.5]});
        assert_eq!(point, &expected);
        let empty = &json["measures"][1]["series"][1]["points"][1];
        assert_eq!(empty, &serde_json::json!({"x": 5e4, "median": null, "min": null, "max": null, "samples": []}));
        assert_eq!(json["measures"][1]["better"], "lower");
        assert_eq!(json["measures"][1]["x"]["logarithmic"], true);
    }
}

//! One chart a measure: bars with whiskers where there is one figure a subject, lines with bands where something varies.
//!
//! Every chart begins at zero and shows the median with the lowest and the highest sample. A subject has the same
//! colour and mark in all charts of a report.

mod axis;
mod bars;
pub(super) mod canvas;
mod lines;

use crate::bench::model::{Better, Measure, Point, Report};
use canvas::{Anchor, Canvas};

use super::number::short;

/// Draws a measure of a report as an SVG document, or as an element for a page that has [`canvas::STYLE`].
pub(super) fn svg(report: &Report, measure: &Measure, alone: bool) -> String {
    let mut canvas = Canvas::default();
    let better = match measure.better {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
    };
    let title = canvas::fit(&measure.title, 16.0, WIDTH - 2.0 * MARGIN);
    canvas.text((MARGIN, 30.0), Anchor::Start, "title", &title);
    let subtitle = canvas::fit(&format!("{}, {better}", measure.unit), 12.0, WIDTH - 2.0 * MARGIN);
    canvas.text((MARGIN, 49.0), Anchor::Start, "faint", &subtitle);
    let bottom = match &measure.x {
        None => bars::draw(&mut canvas, report, measure, TOP),
        Some(axis) => lines::draw(&mut canvas, report, measure, axis, TOP),
    };
    let machine = &report.machine;
    let foot = format!("{}; Adit {}, {}, {}", runs(measure), machine.adit, machine.cpu, machine.kernel);
    let foot = canvas::fit(&foot, 12.0, WIDTH - 2.0 * MARGIN);
    canvas.text((MARGIN, bottom + 26.0), Anchor::Start, "faint", &foot);
    let spoken = format!("{}, {}, {better}", measure.title, measure.unit);
    canvas.finish(WIDTH, bottom + 42.0, &spoken, alone)
}

/// What the bars and whiskers are.
fn runs(measure: &Measure) -> String {
    let samples = measure.series.iter().flat_map(|series| &series.points).map(|point| point.samples.len());
    match samples.max() {
        Some(most @ 2..) => format!("Median, lowest and highest of {most} runs"),
        _ => "One run".to_owned(),
    }
}

/// The number of a subject in the report, which is that of its colour.
fn number(report: &Report, subject: &str) -> usize {
    report.subjects.iter().position(|other| other.name == subject).unwrap_or(report.subjects.len())
}

/// The median and the range of a point that has samples, none of which is beyond what can be drawn.
fn drawable(point: &Point) -> Option<Drawable> {
    let ((low, high), median) = (point.range()?, point.median()?);
    (low.is_finite() && high.is_finite()).then_some(Drawable { low, median, high })
}

/// What is drawn of a point.
#[derive(Debug, Clone, Copy)]
struct Drawable {
    low: f64,
    median: f64,
    high: f64,
}

impl Drawable {
    /// For whoever points at it.
    fn about(&self, name: &str, unit: &str) -> String {
        let Self { low, median, high } = self;
        format!("{name}: {} {unit} ({} to {})", short(*median), short(*low), short(*high))
    }
}

/// Width of every chart, in its own unit: CSS pixels if it is not scaled.
const WIDTH: f64 = 760.0;

/// Left and right of everything.
const MARGIN: f64 = 20.0;

/// Where the drawing begins, below title and unit.
const TOP: f64 = 66.0;

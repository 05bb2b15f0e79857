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

/// Draws a measure of a report as an SVG document, which is an element that a page can hold as well.
pub(super) fn svg(report: &Report, measure: &Measure) -> String {
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
    canvas.finish(WIDTH, bottom + 42.0, &spoken)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::output::tests::report;

    /// Everything that a chart writes, and that it is XML at all.
    fn texts(svg: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(svg).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "svg");
        let texts = document.descendants().filter(|node| node.has_tag_name((NAMESPACE, "text")));
        texts.filter_map(|node| node.text().map(str::to_owned)).collect()
    }

    /// How many elements of a class there are.
    fn count(svg: &str, class: &str) -> usize {
        let document = roxmltree::Document::parse(svg).unwrap();
        document.descendants().filter(|node| node.attribute("class") == Some(class)).count()
    }

    const NAMESPACE: &str = "http://www.w3.org/2000/svg";

    #[test]
    fn bars_have_names_numbers_and_colours_of_their_own() {
        let report = report();
        let svg = svg(&report, &report.measures[0]);
        let texts = texts(&svg);
        for text in ["TCP, 1 stream", "Gbit/s, higher is better", "adit", "wg<go>", "5.00", "2.50", "0", "6"] {
            assert!(texts.iter().any(|found| found == text), "{text} expected in {texts:?}");
        }
        assert!(texts.iter().any(|text| text.contains("3 runs") && text.contains("Some <CPU> & more")), "{texts:?}");
        assert_eq!((count(&svg, "f0"), count(&svg, "f1"), count(&svg, "whisker")), (1, 1, 6));
        assert!(svg.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn a_bar_is_as_long_as_its_median() {
        let report = report();
        let svg = svg(&report, &report.measures[0]);
        let document = roxmltree::Document::parse(&svg).unwrap();
        let width = |class: &str| -> f64 {
            let bar = document.descendants().find(|node| node.attribute("class") == Some(class)).unwrap();
            bar.attribute("width").unwrap().parse().unwrap()
        };
        assert!((width("f0") / width("f1") - 2.0).abs() < 0.01);
    }

    #[test]
    fn lines_have_a_band_a_mark_for_each_point_and_a_name() {
        let report = report();
        let svg = svg(&report, &report.measures[1]);
        let texts = texts(&svg);
        for text in ["offered load [packets/s], logarithmic scale", "adit", "wg<go>", "10 k", "100 k"] {
            assert!(texts.iter().any(|found| found == text), "{text} expected in {texts:?}");
        }
        assert!(!texts.iter().any(|text| text == "50 k"), "nobody was measured there");
        assert_eq!(["b0", "s0", "f0", "b1", "s1", "f1"].map(|class| count(&svg, class)), [1, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn whatever_was_measured_can_be_drawn() {
        let mut report = report();
        for samples in [vec![], vec![f64::NAN], vec![f64::INFINITY], vec![0.0], vec![-5.0, -1.0], vec![1e300]] {
            for measure in &mut report.measures {
                for point in measure.series.iter_mut().flat_map(|series| &mut series.points) {
                    point.samples = samples.clone();
                }
            }
            for x in [Some(0.0), Some(-1.0), Some(f64::NAN), Some(7.0)] {
                report.measures[1].series[0].points[0].x = x;
                for measure in &report.measures {
                    let drawn = svg(&report, measure);
                    assert!(texts(&drawn).contains(&measure.title), "{samples:?}");
                    assert!(!drawn.contains("NaN") && !drawn.contains("inf "), "{samples:?}: {drawn}");
                }
            }
        }
        report.measures[0].series.clear();
        assert!(texts(&svg(&report, &report.measures[0])).contains(&"not measured".to_owned()));
    }

    #[test]
    fn long_names_stay_inside() {
        let mut report = report();
        let long = "an engine with a very long name that nobody can say at once".repeat(3);
        report.subjects[1].name.clone_from(&long);
        report.measures[0].title.clone_from(&long);
        for measure in &mut report.measures {
            measure.series[1].subject.clone_from(&long);
        }
        for measure in &report.measures {
            let texts = texts(&svg(&report, measure));
            assert!(texts.iter().all(|text| canvas::text_width(text, 12.0) < WIDTH), "{texts:?}");
            assert!(texts.iter().any(|text| text.starts_with("an engine") && text.ends_with('…')), "{texts:?}");
        }
    }
}

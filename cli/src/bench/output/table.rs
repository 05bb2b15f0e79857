//! A report as tables for a terminal: a row for each place that was measured, a column for each subject.
//!
//! Measures without an axis share one table; each of the others has its own.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use super::number::{printable, ratio, short, spread, tick};
use crate::bench::model::{Better, Measure, Point, Report};

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!("adit bench {}\n", printable(&report.benchmark));
    let memory = super::memory(machine.memory);
    let cores = machine.cores;
    for (label, value) in [
        ("machine", format!("{}, {cores} cores, {memory}", machine.cpu)),
        ("system", machine.kernel.clone()),
        ("version", format!("adit {}", machine.adit)),
    ] {
        text += &format!("  {label:<LABEL$}{}\n", printable(&value));
    }
    for subject in report.subjects.iter().filter_map(|subject| Some((&subject.name, subject.version.as_ref()?))) {
        text += &format!("  {:<LABEL$}{}\n", printable(subject.0), printable(subject.1));
    }

    let (single, varied): (Vec<_>, Vec<_>) = report.measures.iter().partition(|measure| measure.x.is_none());
    if !single.is_empty() {
        let rows = single.iter().map(|measure| Row {
            label: format!("{} [{}]{}", measure.title, measure.unit, arrow(measure.better)),
            points: report.subjects.iter().map(|subject| point(measure, &subject.name, None)).collect(),
        });
        text += &format!("\n{}\n", table("", report, &rows.collect::<Vec<_>>()));
    }
    for measure in varied {
        let Some(axis) = &measure.x else { continue };
        text += &format!("\n{} [{}]{}\n", printable(&measure.title), printable(&measure.unit), arrow(measure.better));
        let rows = super::places(measure).into_iter().map(|x| Row {
            label: tick(x),
            points: report.subjects.iter().map(|subject| point(measure, &subject.name, Some(x))).collect(),
        });
        let heading = axis.name();
        text += &format!("{}\n", table(&heading, report, &rows.collect::<Vec<_>>()));
    }

    let first = report.subjects.first().filter(|_| report.subjects.len() > 1);
    text += &format!("\n{}\n", super::legend(first.map(|subject| printable(&subject.name)).as_deref()));
    for note in &report.notes {
        text += &format!("- {}\n", printable(note));
    }
    text
}

/// One line of a table.
struct Row<'a> {
    label: String,
    /// One a subject.
    points: Vec<Option<&'a Point>>,
}

/// Draws a table; `heading` stands above the labels. Subjects that no row has anything of are left out.
fn table(heading: &str, report: &Report, rows: &[Row<'_>]) -> Table {
    let measured: Vec<usize> =
        (0..report.subjects.len()).filter(|column| rows.iter().any(|row| row.points[*column].is_some())).collect();
    let mut table = Table::new();
    // Widths are those of the content: a table that is piped into a file looks the same everywhere.
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    let names = measured.iter().map(|column| printable(&report.subjects[*column].name));
    table.set_header(
        [Cell::new(printable(heading))]
            .into_iter()
            .chain(names.map(|name| Cell::new(name).set_alignment(CellAlignment::Right))),
    );
    let columns: Vec<Vec<String>> = measured.iter().map(|column| aligned(rows, *column)).collect();
    for (index, row) in rows.iter().enumerate() {
        let cells = columns.iter().map(|column| Cell::new(&column[index]).set_alignment(CellAlignment::Right));
        table.add_row([Cell::new(printable(&row.label))].into_iter().chain(cells));
    }
    table
}

/// One subject's cells: median, spread, ratio, each below its like.
fn aligned(rows: &[Row<'_>], column: usize) -> Vec<String> {
    let parts: Vec<[String; 3]> = rows
        .iter()
        .map(|row| {
            let Some((point, median)) = row.points[column].and_then(|point| Some((point, point.median()?))) else {
                return ["–".to_owned(), String::new(), String::new()];
            };
            let base = row.points.first().copied().flatten().filter(|_| column > 0).and_then(Point::median);
            let ratio = base.and_then(|base| ratio(median, base));
            [short(median), spread(point).unwrap_or_default(), ratio.unwrap_or_default()]
        })
        .collect();
    let width = |part: usize| parts.iter().map(|parts| parts[part].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let cell = |parts: &[String; 3]| {
        let shown = parts.iter().zip(widths).filter(|(_, width)| *width > 0);
        shown.map(|(part, width)| format!("{part:>width$}")).collect::<Vec<_>>().join(" ")
    };
    parts.iter().map(cell).collect()
}

/// The samples of a subject at a place.
fn point<'a>(measure: &'a Measure, subject: &str, x: Option<f64>) -> Option<&'a Point> {
    let series = measure.series.iter().find(|series| series.subject == subject)?;
    series.points.iter().find(|point| point.x == x && !point.samples.is_empty())
}

/// Which way is good.
fn arrow(better: Better) -> &'static str {
    match better {
        Better::Higher => " ↑",
        Better::Lower => " ↓",
    }
}

/// A line below the head, and no others.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Characters of a label, the space behind it included.
const LABEL: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::output::tests::report;

    #[test]
    fn a_table_shows_median_spread_and_ratio() {
        let lines: Vec<String> = text(&report()).lines().map(|line| line.trim_end().to_owned()).collect();
        let expected = [
            "adit bench tunnel",
            "  machine     Some <CPU> & more, 2 cores, 8.0 GiB",
            "  system      Linux 6.1, \"Debian\"",
            "  version     adit 0.1.0",
            "  wg<go>      v1\u{fffd}[31m",
            "",
            "                                  adit            wg<go>",
            "─────────────────────────────────────────────────────────",
            " TCP, 1 stream [Gbit/s] ↑   5.00 ±10 %   2.50 ±4 % ×0.50",
            "",
            "UDP, 64 B: loss [%] ↓",
            " offered load [packets/s]         adit         wg<go>",
            "──────────────────────────────────────────────────────",
            " 10 k                          0         0.250 ±100 %",
            " 100 k                      1.50 ±33 %       –",
            "",
            "Medians, ± half of the range; × is the ratio to adit; ↑ higher is better, ↓ lower is better",
            "- <b>not bold</b>",
        ];
        assert_eq!(lines.join("\n"), expected.join("\n"));
    }

    #[test]
    fn who_was_not_measured_has_no_column() {
        let mut report = report();
        for measure in &mut report.measures {
            measure.series.retain(|series| series.subject == "adit");
        }
        let text = text(&report);
        assert!(!text.contains("×0") && text.matches("wg<go>").count() == 1, "{text}");
        report.measures.clear();
        assert!(super::text(&report).contains("adit bench tunnel"));
    }
}

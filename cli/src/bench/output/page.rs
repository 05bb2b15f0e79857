//! A report as one HTML page that needs nothing but itself: charts inline, no script, nothing fetched.

use super::chart::{self, canvas};
use super::number::{ratio, short, spread, tick};
use super::{legend, memory, places};
use crate::bench::model::{Axis, Measure, Report};
use canvas::escape;

/// The page.
pub(super) fn html(report: &Report) -> String {
    let title = escape(&format!("adit bench {}", report.benchmark));
    let machine = &report.machine;
    let mut facts: Vec<(&str, String)> = vec![
        ("Machine", format!("{}, {} cores, {}", machine.cpu, machine.cores, memory(machine.memory))),
        ("System", machine.kernel.clone()),
        ("Version", format!("adit {}", machine.adit)),
    ];
    facts.extend(report.subjects.iter().filter_map(|subject| Some((subject.name.as_str(), subject.version.clone()?))));
    let facts: String =
        facts.iter().map(|(label, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(label), escape(value))).collect();
    let notes: String = report.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
    let notes = if notes.is_empty() { notes } else { format!("<h2>Notes</h2>\n<ul>\n{notes}</ul>\n") };
    let measures: String = report.measures.iter().map(|measure| section(report, measure)).collect();
    let first = report.subjects.first().filter(|_| report.subjects.len() > 1);
    let legend = escape(&legend(first.map(|subject| subject.name.as_str())));
    format!(
        "<!DOCTYPE html>\n{MARK}\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<dl>\n{facts}</dl>\n\
         {measures}<p class=\"legend\">{legend}</p>\n{notes}</main>\n</body>\n</html>\n"
    )
}

/// A chart and, folded away, its figures.
fn section(report: &Report, measure: &Measure) -> String {
    let subjects: Vec<_> = measure.series.iter().collect();
    let heads: String = subjects.iter().map(|series| format!("<th>{}</th>", escape(&series.subject))).collect();
    let axis = measure.x.as_ref().map(Axis::name).unwrap_or_default();
    let rows: Vec<Option<f64>> = match &measure.x {
        None => vec![None],
        Some(_) => places(measure).into_iter().map(Some).collect(),
    };
    let median = |index: usize, x| {
        let point = subjects.get(index)?.points.iter().find(|point| point.x == x)?;
        Some((point, point.median()?))
    };
    // Ratios are to the report's first subject, wherever it is among the series.
    let base =
        report.subjects.first().and_then(|first| subjects.iter().position(|series| series.subject == first.name));
    let cell = |index: usize, x| {
        let Some((point, value)) = median(index, x) else { return "<td>–</td>".to_owned() };
        let base = base.filter(|base| *base != index).and_then(|base| median(base, x));
        let ratio = base.and_then(|(_, base)| ratio(value, base)).unwrap_or_default();
        let spread = spread(point).unwrap_or_default();
        format!("<td>{} <small>{spread} {ratio}</small></td>", escape(&short(value)))
    };
    let body: String = rows
        .iter()
        .map(|x| {
            let label = x.map(tick).unwrap_or_default();
            let cells: String = (0..subjects.len()).map(|index| cell(index, *x)).collect();
            format!("<tr><th>{label}</th>{cells}</tr>\n")
        })
        .collect();
    format!(
        "<section id=\"{}\">\n{}<details><summary>Figures, in {}</summary>\n<table>\n<tr><th>{}</th>{heads}</tr>\n\
         {body}</table></details>\n</section>\n",
        escape(&measure.key),
        chart::svg(report, measure),
        escape(&measure.unit),
        escape(&axis),
    )
}

/// Every file of a report has this at its beginning, so that no other file is ever replaced.
pub(super) const MARK: &str = "<!-- Made by adit bench; the next report replaces this file. -->";

const PAGE_STYLE: &str = "\
body{margin:0;background:#f4f5f7;color:#222;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
main{max-width:800px;margin:0 auto;padding:24px 16px 48px}\
h1{font-size:26px;margin:0 0 8px}h2{font-size:19px;margin:32px 0 8px}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0 0 24px}\
dt{color:#666}dd{margin:0;overflow-wrap:anywhere}\
section{margin:0 0 20px}svg{display:block;max-width:100%;height:auto}\
summary{cursor:pointer;color:#666;margin:4px 0}\
details{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:3px 12px;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
small,.legend{color:#666}\
@media(prefers-color-scheme:dark){body{background:#0d0e11;color:#dfe1e5}dt,summary,small,.legend{color:#9aa0a8}\
th,td{border-color:#2b2f36}}\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::output::tests::report;

    #[test]
    fn the_page_holds_everything_and_needs_nothing() {
        let page = html(&report());
        for text in
            ["TCP, 1 stream", "UDP, 64 B: loss", "wg&lt;go&gt;", "&lt;b&gt;not bold&lt;/b&gt;", "×0.50", "±10 %"]
        {
            assert!(page.contains(text), "{text} expected in {page}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        for wrong in ["<b>", "wg<go>", "\u{1b}", "<script", "href", "src=", "url(", "@import"] {
            assert!(!page.contains(wrong), "{wrong}");
        }
        let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("://"), "nothing is fetched");
    }

    #[test]
    fn the_page_is_well_formed() {
        // As XML, once the elements that HTML leaves open are closed.
        let page = html(&report()).replace("<!DOCTYPE html>\n", "");
        let mut closed = String::new();
        for line in page.lines() {
            closed += line;
            if line.starts_with("<meta") {
                closed += "</meta>";
            }
        }
        let document = roxmltree::Document::parse(&closed).unwrap();
        assert_eq!(document.descendants().filter(|node| node.has_tag_name("section")).count(), 2);
    }
}

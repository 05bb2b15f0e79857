//! SVG written by hand: texts, lines and shapes in one unit, escaped, with colours that follow the reader's theme.
//!
//! Colours are classes of one style sheet, so that a chart looks right on a light and on a dark page. They are those of
//! Okabe and Ito, "Color Universal Design" (2008), which people with any colour vision can tell apart.

use std::fmt::Write as _;

use crate::bench::output::number::printable;

/// A drawing of a fixed width that grows downwards.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    body: String,
}

/// Which end of a text is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    /// Writes one line of text on the baseline `y`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        self.push(format_args!(r#"<text x="{x:.1}" y="{y:.1}"{anchor} class="{class}">{}</text>"#, escape(text)));
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.push(format_args!(r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#));
    }

    /// A bar from the left; `about` shows when it is pointed at.
    pub(super) fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str, about: &str) {
        let about = escape(about);
        self.push(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" class="{class}"><title>{about}</title></rect>"#
        ));
    }

    /// Joins points by straight lines.
    pub(super) fn path(&mut self, points: impl Iterator<Item = (f64, f64)>, closed: bool, class: &str) {
        let mut path = String::new();
        for (index, (x, y)) in points.enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _infallible = write!(path, "{command}{x:.1} {y:.1}");
        }
        let end = if closed { "Z" } else { "" };
        self.push(format_args!(r#"<path d="{path}{end}" class="{class}"/>"#));
    }

    /// The mark of a subject's points, of a shape and colour of its own.
    pub(super) fn mark(&mut self, (x, y): (f64, f64), subject: usize, about: &str) {
        let shape = match subject % SHAPES {
            0 => format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#),
            1 => format!(r#"<rect x="{:.1}" y="{:.1}" width="6.4" height="6.4"/>"#, x - 3.2, y - 3.2),
            2 => format!(r#"<path d="M{x:.1} {:.1}l4.2 7.2h-8.4z"/>"#, y - 4.6),
            _ => format!(r#"<path d="M{x:.1} {:.1}l4.4 4.4l-4.4 4.4l-4.4 -4.4z"/>"#, y - 4.4),
        };
        let (class, about) = (class('f', subject), escape(about));
        self.push(format_args!(r#"<g class="{class}"><title>{about}</title>{shape}</g>"#));
    }

    /// The drawing as an element. It has its style sheet in it, so that it is the same alone and in a page.
    pub(super) fn finish(self, width: f64, height: f64, title: &str) -> String {
        let title = escape(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"adit-chart\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{width:.0}\" height=\"{height:.0}\" rx=\"6\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _infallible = writeln!(self.body, "{element}");
    }
}

/// The class of a subject's lines or areas.
pub(super) fn class(kind: char, subject: usize) -> String {
    format!("{kind}{}", subject % COLOURS.len())
}

/// Makes a text harmless in XML and HTML, as content and as a quoted attribute.
pub(in crate::bench::output) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// About how wide a text is. Nobody knows which font the reader has; common sans-serif ones differ by a tenth.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if c.is_ascii() { 0.58 } else { 0.8 }).sum::<f64>() * size
}

/// Shortens a text to a width.
pub(super) fn fit(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut short = text.to_owned();
    while !short.is_empty() && text_width(&short, size) + size > width {
        short.pop();
    }
    short.trim_end().to_owned() + "…"
}

/// Marks of different shapes, after which they begin anew.
const SHAPES: usize = 4;

/// The colours on a light page: blue, vermilion, bluish green, reddish purple, orange, sky blue, grey. Yellow is left
/// out, which is not seen on white, and so is black, which is the text's.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#767676"];

/// The style sheet of all charts. fN fills, sN draws and bN makes the band of the subject number N.
const STYLE: &str = "\
.adit-chart{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','DejaVu Sans',sans-serif}\
.adit-chart .paper{fill:#fff}\
.adit-chart text{fill:#3d3d3d;font-size:12px}\
.adit-chart .title{fill:#111;font-size:16px;font-weight:600}\
.adit-chart .faint{fill:#6a6a6a}\
.adit-chart .name{fill:#111;font-size:13px}\
.adit-chart .grid{stroke:#e4e4e4}\
.adit-chart .axis{stroke:#8a8a8a}\
.adit-chart .whisker{stroke:#222;stroke-width:1.5}\
.adit-chart .leader{stroke:#b0b0b0}\
.f0{fill:#0072b2}.f1{fill:#d55e00}.f2{fill:#009e73}.f3{fill:#cc79a7}.f4{fill:#e69f00}.f5{fill:#56b4e9}.f6{fill:#767676}\
.b0,.b1,.b2,.b3,.b4,.b5,.b6{fill-opacity:.18}\
.b0{fill:#0072b2}.b1{fill:#d55e00}.b2{fill:#009e73}.b3{fill:#cc79a7}.b4{fill:#e69f00}.b5{fill:#56b4e9}.b6{fill:#767676}\
.s0,.s1,.s2,.s3,.s4,.s5,.s6{fill:none;stroke-width:2;stroke-linejoin:round}\
.s0{stroke:#0072b2}.s1{stroke:#d55e00}.s2{stroke:#009e73}.s3{stroke:#cc79a7}.s4{stroke:#e69f00}.s5{stroke:#56b4e9}\
.s6{stroke:#767676}\
@media(prefers-color-scheme:dark){\
.adit-chart .paper{fill:#16181c}\
.adit-chart text{fill:#c9ccd1}\
.adit-chart .title,.adit-chart .name{fill:#f2f3f5}\
.adit-chart .faint{fill:#9aa0a8}\
.adit-chart .grid{stroke:#2b2f36}\
.adit-chart .axis{stroke:#6d737c}\
.adit-chart .whisker{stroke:#eee}\
.adit-chart .leader{stroke:#555b64}\
.f0,.b0{fill:#4aa8e0}.s0{stroke:#4aa8e0}\
.b0,.b1,.b2,.b3,.b4,.b5,.b6{fill-opacity:.25}\
}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_is_in_the_style_sheet_thrice() {
        for (number, colour) in COLOURS.iter().enumerate() {
            for rule in [format!(".f{number}{{fill:{colour}}}"), format!(".b{number}{{fill:{colour}}}")] {
                assert!(STYLE.contains(&rule), "{rule}");
            }
            assert!(STYLE.contains(&format!(".s{number}{{stroke:{colour}}}")), "{number}");
        }
    }

    #[test]
    fn texts_are_escaped_and_fitted() {
        assert_eq!(escape("a<b>&\"c'\u{7}"), "a&lt;b&gt;&amp;&quot;c&#39;\u{fffd}");
        assert_eq!(fit("short", 12.0, 100.0), "short");
        let long = fit(&"long ".repeat(40), 12.0, 100.0);
        assert!(long.ends_with('…') && text_width(&long, 12.0) <= 100.0, "{long}");
        assert_eq!(fit("xx", 12.0, 0.0), "…");
    }
}

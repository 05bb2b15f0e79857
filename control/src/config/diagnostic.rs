//! What is wrong with a configuration, where, and what would be right.
//!
//! Readers report findings by byte offset into a [`Report`]; lines and columns are counted once, at the end, in one
//! pass over the text. A report keeps a bounded number of findings and counts the rest, so that a broken file of many
//! megabytes does not become many more megabytes of complaints. The value of a secret is never given to a report.

use std::fmt;
use std::io;

use serde::Serialize;

/// One error or warning about a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the file can be used in spite of it.
    pub severity: Severity,
    /// The name of the source, as the caller gave it: most often a path.
    pub file: String,
    /// The line, from 1; `None` if the whole file is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, from 1; `None` if the whole file is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The key as the format names it: `AllowedIPs`, or `peer[1].allowed_ips[0]` in TOML and JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What was found, quoted and shortened; never the value of a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What is allowed instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is used; its writer should look at this.
    Warning,
}

/// A configuration that cannot be used: everything that is wrong with it, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    diagnostics: Vec<Diagnostic>,
    /// Findings beyond the limit, which are counted and not kept.
    omitted: usize,
    #[serde(skip)]
    io: Option<io::ErrorKind>,
}

/// Collects findings while a text is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    omitted: usize,
    failed: bool,
}

/// A diagnostic that does not know its line yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Finding {
    offset: Option<usize>,
    key: Option<String>,
    message: String,
    found: Option<String>,
    allowed: Option<String>,
    suggestion: Option<String>,
    related: Option<usize>,
}

impl ConfigError {
    /// Everything that was found, warnings included, in the order of the file.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many findings were counted and not kept.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Why the file could not be read, if that was the error.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.io
    }

    /// An error about a file as a whole.
    pub(super) fn file(source_name: &str, message: String, io: Option<io::ErrorKind>) -> Self {
        let diagnostic = Finding::whole(message).locate(Severity::Error, source_name, &mut Lines::new(""));
        Self { diagnostics: vec![diagnostic], omitted: 0, io }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        write!(f, ": {}: ", self.severity)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        match (&self.found, &self.allowed) {
            (Some(found), Some(allowed)) => write!(f, "; found {found}, allowed {allowed}")?,
            (Some(found), None) => write!(f, "; found {found}")?,
            (None, Some(allowed)) => write!(f, "; allowed {allowed}")?,
            (None, None) => {}
        }
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

impl Report {
    /// Counts an error if no more are told, and says whether it did: finding the right words takes longer than reading on.
    pub(super) fn omits_error(&mut self) -> bool {
        let omits = self.errors.len() >= MAX_FINDINGS;
        self.omitted += usize::from(omits);
        omits
    }

    pub(super) fn error(&mut self, finding: Finding) {
        self.failed = true;
        if self.errors.len() < MAX_FINDINGS { self.errors.push(finding) } else { self.omitted += 1 }
    }

    pub(super) fn warning(&mut self, finding: Finding) {
        if self.warnings.len() < MAX_FINDINGS { self.warnings.push(finding) } else { self.omitted += 1 }
    }

    /// Whether anything makes the configuration unusable.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Counts the lines of `text` and hands out warnings, or everything if there are errors.
    pub(super) fn finish(self, source_name: &str, text: &str) -> Result<Vec<Diagnostic>, ConfigError> {
        let errors = self.errors.into_iter().map(|finding| (Severity::Error, finding));
        let warnings = self.warnings.into_iter().map(|finding| (Severity::Warning, finding));
        let mut findings: Vec<_> = errors.chain(warnings).collect();
        findings.sort_by_key(|(_, finding)| finding.offset);
        let mut lines = Lines::new(text);
        let located = findings.into_iter().map(|(severity, finding)| finding.locate(severity, source_name, &mut lines));
        let diagnostics = located.collect();
        if self.failed { Err(ConfigError { diagnostics, omitted: self.omitted, io: None }) } else { Ok(diagnostics) }
    }
}

impl Finding {
    pub(super) fn at(offset: usize, message: impl Into<String>) -> Self {
        Self { offset: Some(offset), message: message.into(), ..Self::default() }
    }

    /// A finding about the file as a whole.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    pub(super) fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Quotes what was found: escaped, so that no control character reaches a terminal or a log, and shortened.
    pub(super) fn found(mut self, text: &str) -> Self {
        self.found = Some(quote(text));
        self
    }

    pub(super) fn found_kind(mut self, kind: &str) -> Self {
        self.found = Some(kind.to_owned());
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(Into::into);
        self
    }

    /// Adds « at line N» to the message, N being the line of `offset`.
    pub(super) fn related(mut self, offset: usize) -> Self {
        self.related = Some(offset);
        self
    }

    fn locate(self, severity: Severity, source_name: &str, lines: &mut Lines<'_>) -> Diagnostic {
        let place = self.offset.map(|offset| lines.place(offset));
        let mut message = self.message;
        if let Some(offset) = self.related {
            message.push_str(&format!(" at line {}", lines.line(offset) + 1));
        }
        Diagnostic {
            severity,
            file: source_name.to_owned(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            key: self.key,
            message,
            found: self.found,
            allowed: self.allowed,
            suggestion: self.suggestion,
        }
    }
}

/// Turns byte offsets into lines and columns.
struct Lines<'a> {
    text: &'a str,
    /// Offset of the first byte of every line; built when the first place is asked for.
    starts: Vec<usize>,
    /// The last place, so that many findings in one long line do not count it from its start again and again.
    last: (usize, usize, u32),
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, starts: Vec::new(), last: (usize::MAX, 0, 0) }
    }

    /// The line of an offset, from 0.
    fn line(&mut self, offset: usize) -> usize {
        if self.starts.is_empty() {
            self.starts.push(0);
            self.starts.extend(self.text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1));
        }
        self.starts.partition_point(|&start| start <= offset) - 1
    }

    /// The line and the column of an offset, both from 1; offsets come in ascending order.
    fn place(&mut self, offset: usize) -> (u32, u32) {
        let line = self.line(offset);
        let (last_line, last_offset, last_column) = self.last;
        let (from, before) = if last_line == line { (last_offset, last_column) } else { (self.starts[line], 0) };
        let bytes = self.text.as_bytes();
        let passed = &bytes[from.min(bytes.len())..offset.max(from).min(bytes.len())];
        // Characters are counted by the bytes that start one, so that no offset can be wrong.
        let column = before + passed.iter().filter(|&&byte| byte & 0xC0 != 0x80).count() as u32;
        self.last = (line, offset.max(from), column);
        (line as u32 + 1, column + 1)
    }
}

/// Quotes a text for a message: escaped, so that no control character reaches a terminal or a log, and shortened.
pub(super) fn quote(text: &str) -> String {
    let short: String = text.chars().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(MAX_QUOTED).is_some() { "…" } else { "" };
    format!("\"{short}{more}\"")
}

/// Errors kept of one file, and warnings kept of one file: more than anybody reads.
pub(super) const MAX_FINDINGS: usize = 1000;

/// Characters of a value that a message shows.
const MAX_QUOTED: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_lines() {
        let text = "\u{feff}aä\nbö ü x\n\nz";
        let mut lines = Lines::new(text);
        let offset = |needle: &str| text.find(needle).unwrap();
        assert_eq!(lines.place(0), (1, 1));
        assert_eq!(lines.place(offset("ä")), (1, 3));
        assert_eq!(lines.place(offset("ö")), (2, 2));
        assert_eq!(lines.place(offset("ü")), (2, 4));
        assert_eq!(lines.place(offset("x")), (2, 6));
        assert_eq!(lines.place(offset("z")), (4, 1));
        assert_eq!(lines.place(text.len()), (4, 2));
        assert_eq!(lines.place(text.len() + 10), (4, 2), "past the end is the end");
    }

    #[test]
    fn every_part_has_its_place_in_the_text() {
        let mut report = Report::default();
        report.error(Finding::at(3, "no good").key("Key").found("a\nb").allowed("c").suggest(Some("d")).related(0));
        report.warning(Finding::at(0, "hm"));
        let error = report.finish("f.conf", "ab\ncd").unwrap_err();
        let expected = "f.conf:1:1: warning: hm\n\
            f.conf:2:1: error: Key: no good at line 1; found \"a\\nb\", allowed c; did you mean d?";
        assert_eq!(error.to_string(), expected);
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(json["diagnostics"][1]["severity"], "error");
        assert_eq!(json["diagnostics"][1]["column"], 1);
        assert_eq!(json["diagnostics"][0].get("found"), None);
    }

    #[test]
    fn findings_beyond_the_limit_are_counted() {
        let mut report = Report::default();
        for _ in 0..MAX_FINDINGS + 7 {
            report.error(Finding::at(0, "x"));
        }
        let error = report.finish("f", "").unwrap_err();
        assert_eq!((error.diagnostics().len(), error.omitted()), (MAX_FINDINGS, 7));
        assert!(error.to_string().ends_with("\nand 7 more"));
    }

    #[test]
    fn long_values_are_shortened() {
        assert_eq!(quote(&"ä".repeat(61)), format!("\"{}…\"", "ä".repeat(60)));
        assert_eq!(quote("a\u{1b}[31m"), "\"a\\u{1b}[31m\"");
    }
}

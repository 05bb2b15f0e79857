//! Standard output and error of the demo: findings as lines or as one document, and how far the transfer is.
//!
//! Standard output carries findings only, progress goes to standard error.

use std::io::Write;

use owo_colors::OwoColorize;

use super::report::{Report, rate, size};
use crate::failure::{Failure, Outcome};
use crate::progress::Meter;

/// Where findings go.
pub(super) struct Ui {
    json: bool,
    meter: Meter,
    /// Bytes of the transfer.
    total: u64,
}

impl Ui {
    pub(super) fn new(json: bool) -> Self {
        Self { json, meter: Meter::none(), total: 0 }
    }

    /// Prints the first line.
    pub(super) fn title(&self) -> Outcome {
        self.print("adit demo: two engines, joined over real UDP")
    }

    /// Prints a finding, unless it is to be part of a document.
    pub(super) fn line(&self, label: &str, text: &str) -> Outcome {
        self.print(&format!("  {label:<LABEL$}{text}"))
    }

    /// Prints the verdict, or the whole document.
    pub(super) fn end(&self, report: &Report) -> Outcome {
        if !self.json {
            return if report.ok {
                self.line("result", &"everything held".green().to_string())
            } else {
                self.line("result", &"it did not hold".red().to_string())
            };
        }
        let mut text = serde_json::to_string_pretty(report).map_err(Failure::failed)?;
        text.push('\n');
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }

    /// Begins to show progress towards `total` bytes.
    pub(super) fn begin(&mut self, total: u64) {
        self.total = total;
        self.meter = Meter::new(total, BAR, self.json);
    }

    /// Shows that so many bytes are there.
    pub(super) fn progress(&mut self, bytes: u64) {
        let total = self.total;
        self.meter.at(bytes, |since| {
            let rate = rate(bytes as f64 * 8.0 / since.as_secs_f64());
            format!("  {:<LABEL$}{} of {} so far, {rate}", "", size(bytes), size(total))
        });
    }

    /// Takes the bar away.
    pub(super) fn finish(&mut self) {
        self.meter.finish();
    }

    fn print(&self, text: &str) -> Outcome {
        if !self.json {
            writeln!(anstream::stdout(), "{text}")?;
        }
        Ok(())
    }
}

/// Characters of a label, the space after it included.
const LABEL: usize = 12;

/// indicatif's template; the margin is that of the lines.
const BAR: &str = "  transfer    {bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";

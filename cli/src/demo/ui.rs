//! Standard output and error of the demo: findings as lines or as one document, and how far the transfer is.
//!
//! Standard output carries findings only, progress goes to standard error: a bar on a terminal, a line now and then
//! elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;

use super::report::{Report, rate, size};
use crate::failure::{Failure, Outcome, tell};

/// Where findings go.
pub(super) struct Ui {
    json: bool,
    progress: Progress,
}

enum Progress {
    None,
    Bar(ProgressBar),
    Lines { begun: Instant, next: Instant, total: u64 },
}

impl Ui {
    pub(super) fn new(json: bool) -> Self {
        Self { json, progress: Progress::None }
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
        self.progress = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                bar.set_style(style);
            }
            Progress::Bar(bar)
        } else if self.json {
            Progress::None
        } else {
            let begun = Instant::now();
            Progress::Lines { begun, next: begun + LINE_EVERY, total }
        };
    }

    /// Shows that so many bytes are there.
    pub(super) fn progress(&mut self, bytes: u64) {
        match &mut self.progress {
            Progress::None => {}
            Progress::Bar(bar) => bar.set_position(bytes),
            Progress::Lines { begun, next, total } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + LINE_EVERY;
                    let rate = rate(bytes as f64 * 8.0 / (now - *begun).as_secs_f64());
                    tell(format_args!("  {:<LABEL$}{} of {} so far, {rate}", "", size(bytes), size(*total)));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&mut self) {
        if let Progress::Bar(bar) = std::mem::replace(&mut self.progress, Progress::None) {
            bar.finish_and_clear();
        }
    }

    fn print(&self, text: &str) -> Outcome {
        if !self.json {
            writeln!(anstream::stdout(), "{text}")?;
        }
        Ok(())
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Characters of a label, the space after it included.
const LABEL: usize = 12;

/// indicatif's template; the margin is that of the lines.
const BAR: &str = "  transfer    {bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";

/// How often a line tells the progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

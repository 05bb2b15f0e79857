//! How far a long run is, on standard error: a bar on a terminal, a line now and then elsewhere, nothing beside a
//! document that a program reads.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::tell;

/// A bar or lines; taken away when dropped.
#[derive(Debug)]
pub(crate) struct Meter {
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { begun: Instant, next: Instant },
}

impl Meter {
    /// Shows nothing.
    pub(crate) const fn none() -> Self {
        Self { shown: Shown::Nothing }
    }

    /// Begins at zero of `total`. `template` is indicatif's; `quiet` is for where lines would not be welcome.
    pub(crate) fn new(total: u64, template: &str, quiet: bool) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            Shown::Bar(bar)
        } else if quiet {
            Shown::Nothing
        } else {
            let begun = Instant::now();
            Shown::Lines { begun, next: begun + LINE_EVERY }
        };
        Self { shown }
    }

    /// Shows that so much is done. `line` is given the time since the beginning, and is asked only when it is time for
    /// a line.
    pub(crate) fn at(&mut self, position: u64, line: impl FnOnce(Duration) -> String) {
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.set_position(position),
            Shown::Lines { begun, next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + LINE_EVERY;
                    tell(line(now - *begun));
                }
            }
        }
    }

    /// Sets the text of a bar.
    pub(crate) fn say(&self, what: &str) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_message(what.to_owned());
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Shown::Bar(bar) = std::mem::replace(&mut self.shown, Shown::Nothing) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.finish();
    }
}

/// How often a line tells the progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How often a bar is drawn while nothing happens, so that its time goes on.
const TICK: Duration = Duration::from_millis(500);

//! `adit bench`: what this machine can do, measured the same way for every engine.
//!
//! A benchmark fills a [`model::Report`] while it tells a [`Progress`] how far it is; how either is shown is not its
//! business. An interrupted run has no report.

pub(crate) mod allocations;
#[cfg(target_os = "linux")]
pub(crate) mod carrier;
pub(crate) mod engine;
mod machine;
pub(crate) mod model;
mod node;
mod output;
mod plain;
pub(crate) mod sampling;
pub(crate) mod scale;
pub(crate) mod tunnel;

use std::sync::Arc;

use crate::args::{Bench, BenchWhat};
use crate::failure::Outcome;
use crate::progress::Meter;
use crate::watch::Watch;
use output::Folder;

/// How far a benchmark is, for whoever waits.
pub(crate) trait Progress {
    /// The benchmark consists of so many steps in all.
    fn begin(&mut self, steps: u64);

    /// The next step begins, and this is what it does.
    fn step(&mut self, what: &str);
}

/// Runs what was asked for, and shows what it found.
pub(crate) fn run(options: &Bench) -> Outcome {
    let name = match &options.what {
        #[cfg(target_os = "linux")]
        BenchWhat::Carrier(options) => return carrier::run(options),
        BenchWhat::Engine(_) => "engine",
        BenchWhat::Tunnel(_) => "tunnel",
        BenchWhat::Scale(_) => "scale",
    };
    let folder = options.report.as_deref().map(|path| Folder::open(path, name)).transpose()?;
    let watch = Arc::new(Watch::install()?);
    let mut steps = Steps::new(options.json);
    let report = match &options.what {
        #[cfg(target_os = "linux")]
        BenchWhat::Carrier(_) => return Ok(()),
        BenchWhat::Engine(options) => engine::run(options, &watch, &mut steps)?,
        BenchWhat::Tunnel(options) => tunnel::run(options, &watch, &mut steps)?,
        BenchWhat::Scale(options) => scale::run(options, &watch, &mut steps)?,
    };
    steps.finish();
    // Whoever interrupts at the very end has interrupted too.
    watch.check()?;
    output::show(&report, options.json, folder.as_ref())
}

/// Progress as a bar or as lines.
struct Steps {
    quiet: bool,
    meter: Meter,
    total: u64,
    begun: u64,
}

impl Steps {
    fn new(quiet: bool) -> Self {
        Self { quiet, meter: Meter::none(), total: 0, begun: 0 }
    }

    fn finish(&mut self) {
        self.meter.finish();
    }
}

impl Progress for Steps {
    fn begin(&mut self, steps: u64) {
        (self.total, self.begun) = (steps, 0);
        self.meter = Meter::new(steps, BAR, self.quiet);
    }

    fn step(&mut self, what: &str) {
        let (done, total) = (self.begun, self.total);
        self.begun += 1;
        self.meter.say(what);
        self.meter.at(done, |_| format!("  {done} of {total} steps done, now {what}"));
    }
}

/// indicatif's template.
const BAR: &str = "  {bar:32} {pos} of {len}, {eta} left, now {msg}";

//! `adit bench`: what this machine can do, measured the same way for every engine.
//!
//! A benchmark fills a [`model::Report`] while it tells a [`Progress`] how far it is; how either is shown is not its
//! business.

mod machine;
pub(crate) mod model;
pub(crate) mod tunnel;

use std::sync::Arc;

use crate::args::{Bench, BenchWhat};
use crate::failure::{Failure, Outcome};
use crate::watch::Watch;

/// How far a benchmark is, for whoever waits.
pub(crate) trait Progress {
    /// The benchmark consists of so many steps in all.
    fn begin(&mut self, steps: u64);

    /// The next step begins, and this is what it does.
    fn step(&mut self, what: &str);
}

/// Runs what was asked for, and shows what it found.
pub(crate) fn run(options: &Bench) -> Outcome {
    struct Silent;
    impl Progress for Silent {
        fn begin(&mut self, _steps: u64) {}
        fn step(&mut self, _what: &str) {}
    }
    let watch = Arc::new(Watch::install()?);
    let report = match &options.what {
        BenchWhat::Tunnel(options) => tunnel::run(options, &watch, &mut Silent)?,
    };
    let text = serde_json::to_string_pretty(&report).map_err(Failure::failed)?;
    anstream::println!("{text}");
    Ok(())
}

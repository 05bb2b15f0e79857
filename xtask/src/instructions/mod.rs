//! `cargo xtask instructions`: counts the instructions of the operations in benches/benches/instructions.rs under
//! callgrind and compares them with benches/instructions.json.
//!
//! A count has no noise, so continuous integration can fail on it where a time would only tell how busy the machine was.
//! It says nothing about caches and memory: claims about speed are for `cargo bench`. `callgrind` runs the program and
//! reads the counts, `baseline` judges them; this prints.

mod baseline;
mod callgrind;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::baseline::{Baseline, Comparison, Row, Verdict};
use crate::command;
use crate::step::Context;

/// Options of `cargo xtask instructions`.
#[derive(Debug, Default, Args)]
pub(crate) struct InstructionsArgs {
    /// Write the counts to the baseline, benches/instructions.json, instead of comparing.
    #[arg(long)]
    pub(crate) bless: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Counts, and compares or blesses.
///
/// # Errors
/// An operation takes more instructions than its baseline allows, is new or is gone; or nothing could be counted.
pub(crate) fn run(context: &Context, args: &InstructionsArgs) -> Result<()> {
    if let Some(reason) = unavailable() {
        bail!("instructions cannot be counted: {reason}");
    }
    let file = context.root.join(BASELINE);
    let current = callgrind::count(context)?;
    if args.bless {
        current.write(&file)?;
        println!("{BASELINE}: {} operations", current.instructions.len());
        return Ok(());
    }
    let comparison = Comparison::new(&Baseline::read(&file)?, &current);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&comparison).context("cannot write JSON")?);
    } else {
        table(&comparison);
    }
    let wrong = comparison.failures();
    if !wrong.is_empty() {
        bail!(
            "{}\n    if that is meant, run `cargo xtask instructions --bless` and commit {BASELINE}",
            wrong.join("\n    ")
        );
    }
    Ok(())
}

/// Why instructions cannot be counted on this machine, if they cannot.
pub(crate) fn unavailable() -> Option<&'static str> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Some("the baseline is that of Linux on x86-64");
    }
    command::find("valgrind").is_none().then_some("valgrind is not installed: run `cargo xtask setup`")
}

fn table(comparison: &Comparison) {
    let width = comparison.rows.iter().map(|row| row.operation.len()).max().unwrap_or_default();
    println!("    {:width$} {:>12} {:>12} {:>9}", "operation", "instructions", "baseline", "more");
    for Row { operation, instructions, baseline, verdict } in &comparison.rows {
        let number = |n: &Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.1}"));
        let more = match (instructions, baseline) {
            (Some(now), Some(before)) => format!("{:+.1} %", 100.0 * (now / before - 1.0)),
            _ => String::new(),
        };
        let remark = match verdict {
            Verdict::Within => "",
            Verdict::More => "  MORE",
            Verdict::Less => "  less: bless it, so that it stays so",
            Verdict::New => "  NEW: not in the baseline",
            Verdict::Gone => "  GONE: only in the baseline",
        };
        println!("    {operation:width$} {:>12} {:>12} {more:>9}{remark}", number(instructions), number(baseline));
    }
    for difference in &comparison.environment {
        println!("    OTHER ENVIRONMENT: {difference}");
    }
    if !comparison.environment.is_empty() {
        println!(
            "    OTHER ENVIRONMENT: counts move with it, so only {:.0} % more than the baseline fails here, not {:.0} %",
            100.0 * comparison.limit,
            100.0 * baseline::LIMIT
        );
    }
}

/// Where the counts are that a change is compared with, from the root of the workspace.
const BASELINE: &str = "benches/instructions.json";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_baseline_in_the_repository_is_read() {
        let baseline = Baseline::read(&crate::workspace_root().join(BASELINE)).unwrap();
        assert!(baseline.instructions.contains_key("handle_tun/1420"), "{:?}", baseline.instructions.keys());
        assert!(baseline.environment.contains_key("rustc"), "{:?}", baseline.environment);
        let same = Comparison::new(&baseline, &baseline);
        assert_eq!(same.failures(), Vec::<String>::new());
    }

    #[test]
    fn a_missing_baseline_says_how_to_make_one() {
        let error = Baseline::read(Path::new("no/such/file.json")).unwrap_err();
        assert!(format!("{error:#}").contains("--bless"), "{error:#}");
    }
}

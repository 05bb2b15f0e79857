//! Builds and runs the program that does the operations, and reads what callgrind counted.
//!
//! Callgrind counts inside one function of the program and writes a file each time it returns, so the program needs
//! neither Valgrind's headers nor unsafe code to talk to it. The n-th file belongs to the n-th line `measured`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use super::baseline::Baseline;
use crate::command;
use crate::step::Context;

/// Counts the instructions of all operations.
pub(crate) fn count(context: &Context) -> Result<Baseline> {
    let program = build(context)?;
    let folder = tempfile::tempdir_in(&context.temporary).context("temporary folder")?;
    let told = run(context, &program, folder.path())?;
    let mut report = Report::parse(&told)?;
    let total = |number: usize| total(&folder.path().join(format!("{COUNTS}.{number}")));
    let totals = (1..=report.measured.len()).map(total).collect::<Result<Vec<u64>>>()?;
    // One more would mean that files and lines do not belong together.
    if folder.path().join(format!("{COUNTS}.{}", totals.len() + 1)).exists() {
        bail!("callgrind counted more often than the program says");
    }
    report.environment.insert("rustc".into(), command::output(Command::new(rustc()).arg("--version"))?.trim().into());
    let libc = command::output(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    report.environment.insert("libc".into(), libc.map_or_else(|_| "unknown".into(), |text| text.trim().into()));
    let instructions = report.each(&totals)?;
    Ok(Baseline { environment: report.environment, instructions })
}

/// Builds the program like a release and returns its file.
fn build(context: &Context) -> Result<PathBuf> {
    let mut build = context.cargo();
    build.args(["build", "--package", "adit-benches", "--profile", "bench", "--bench", TARGET]);
    build.args(["--message-format", "json-render-diagnostics"]);
    // It has a name only while it is open, so that nothing is left however this ends.
    let messages = tempfile::NamedTempFile::new_in(&context.temporary).context("temporary file")?;
    build.stdout(messages.reopen().context("temporary file")?);
    command::run_silently(&mut build, BUILD_LIMIT)?;
    let said = std::fs::read(messages.path()).context("what cargo said")?;
    Message::parse_stream(said.as_slice())
        .filter_map(|message| match message {
            Ok(Message::CompilerArtifact(artifact)) if artifact.target.name == TARGET => artifact.executable,
            _ => None,
        })
        .last()
        .map(Into::into)
        .with_context(|| format!("cargo built no benchmark `{TARGET}`"))
}

/// Runs `program` under callgrind and returns what it told; the counts are files in `folder`.
fn run(context: &Context, program: &Path, folder: &Path) -> Result<String> {
    let told = folder.join("told");
    let mut valgrind = Command::new(command::find("valgrind").context("valgrind is not installed")?);
    valgrind.current_dir(folder).env(command::MARK, &context.mark).stdin(Stdio::null());
    valgrind.args(["--tool=callgrind", "--quiet"]);
    valgrind.arg(format!("--callgrind-out-file={}", folder.join(COUNTS).display()));
    valgrind.args([format!("--toggle-collect={MEASURED}"), format!("--dump-after={MEASURED}")]);
    valgrind.arg(program).stdout(File::create(&told).context("temporary file")?);
    command::run_silently(&mut valgrind, RUN_LIMIT)?;
    std::fs::read_to_string(&told).context("what the program told")
}

/// The instructions in one of callgrind's files (Valgrind manual, "Callgrind Format Specification").
fn total(file: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{}: callgrind counted less often than the program says", file.display()))?;
    let value = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let value = value.with_context(|| format!("{}: has no line `totals:`", file.display()))?;
    value.trim().parse().with_context(|| format!("{}: totals: {value}", file.display()))
}

/// What the program told.
#[derive(Debug, Default, PartialEq)]
struct Report {
    environment: BTreeMap<String, String>,
    measured: Vec<Measured>,
}

/// A line `measured NAME TIMES [less NAME]`.
#[derive(Debug, PartialEq)]
struct Measured {
    name: String,
    times: u64,
    less: Option<String>,
}

impl Report {
    fn parse(text: &str) -> Result<Self> {
        let mut report = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["environment", key, ref value @ ..] => {
                    report.environment.insert(key.to_owned(), value.join(" "));
                }
                ["measured", name, times, ref rest @ ..] => {
                    let times = times
                        .parse()
                        .ok()
                        .filter(|times| *times > 0)
                        .with_context(|| format!("`{line}`: not a count"))?;
                    let less = match rest {
                        [] => None,
                        ["less", other] => Some((*other).to_owned()),
                        _ => bail!("the program told `{line}`"),
                    };
                    report.measured.push(Measured { name: name.to_owned(), times, less });
                }
                _ => bail!("the program told `{line}`"),
            }
        }
        Ok(report)
    }

    /// Instructions each time, by operation, to a tenth. What was counted only to be taken off others is left out: it is
    /// code that was chosen by the processor.
    fn each(&self, totals: &[u64]) -> Result<BTreeMap<String, f64>> {
        let each = |of: &str| {
            let at = self.measured.iter().position(|one| one.name == of);
            let (one, total) = at.and_then(|at| self.measured.get(at).zip(totals.get(at)))?;
            Some(*total as f64 / one.times as f64)
        };
        let mut counts = BTreeMap::new();
        for Measured { name, less, .. } in &self.measured {
            if self.measured.iter().any(|other| other.less.as_ref() == Some(name)) {
                continue;
            }
            let all = each(name).with_context(|| format!("{name}: not counted"))?;
            let off = less.as_deref().map_or(Some(0.0), each);
            let off = off.with_context(|| format!("{name}: what is to be taken off was not counted"))?;
            if all <= off {
                bail!(
                    "{name}: took {all} instructions, and {off} were to be taken off: it does not contain that operation"
                );
            }
            if counts.insert(name.clone(), (10.0 * (all - off)).round() / 10.0).is_some() {
                bail!("{name}: measured twice");
            }
        }
        if counts.is_empty() {
            bail!("the program measured nothing");
        }
        Ok(counts)
    }
}

fn rustc() -> std::ffi::OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// The benchmark, and the function in it that callgrind counts in.
const TARGET: &str = "instructions";
const MEASURED: &str = "adit_measured";

/// Name of callgrind's files, which it numbers.
const COUNTS: &str = "counts";

/// A cold build on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The run takes some seconds.
const RUN_LIMIT: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str =
        "environment processor sse2,avx2\nmeasured cipher 10\nmeasured seal 10 less cipher\nmeasured parse 1000\n";

    #[test]
    fn the_cipher_is_taken_off_and_not_compared() {
        let report = Report::parse(TOLD).unwrap();
        assert_eq!(report.environment["processor"], "sse2,avx2");
        let counts = report.each(&[10_000, 12_594, 54_022]).unwrap();
        assert_eq!(counts, [("parse".to_owned(), 54.0), ("seal".to_owned(), 259.4)].into());
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for told in ["measured seal", "measured seal 0", "measured seal many", "measured seal 1 more cipher", "seal 1"]
        {
            Report::parse(told).unwrap_err();
        }
        let report = Report::parse(TOLD).unwrap();
        report.each(&[10_000, 10_000, 1]).unwrap_err();
        report.each(&[10_000, 12_000]).unwrap_err();
        Report::parse("measured seal 1 less cipher").unwrap().each(&[1]).unwrap_err();
        Report::parse("measured seal 1\nmeasured seal 1").unwrap().each(&[1, 1]).unwrap_err();
        Report::default().each(&[]).unwrap_err();
    }

    #[test]
    fn totals_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("counts.1");
        std::fs::write(&file, "# callgrind format\nevents: Ir\n\nfn=(1) f\n0 12\n\ntotals: 54022\n").unwrap();
        assert_eq!(total(&file).unwrap(), 54022);
        std::fs::write(&file, "# callgrind format\nevents: Ir\n").unwrap();
        total(&file).unwrap_err();
        total(&folder.path().join("counts.2")).unwrap_err();
    }
}

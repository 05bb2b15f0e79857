//! `cargo xtask host`: compiles ffi/tests/host.c, a VPN host in C, and runs its scenarios in every way that finds faults.
//!
//! Plainly, with the static and with the shared library; under valgrind; and with both sides compiled for AddressSanitizer
//! and for ThreadSanitizer ([`sanitizer`]). Which scenarios each of them runs, and how often, is a table at the end: together
//! they take the time that `cargo xtask test` has for them. What only time shows, and what is only measured, has options.

mod compile;
mod sanitizer;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::step::{Context, Skipped};
use crate::{command, ffi};
use compile::{Library, compile};
use sanitizer::Sanitizer;

/// Options of `cargo xtask host`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HostArgs {
    /// Only start and stop, N times, with flat memory, descriptors and threads; the short form does it some hundred times.
    #[arg(long, value_name = "N", conflicts_with_all = ["throughput", "random"])]
    pub(crate) churn: Option<u32>,
    /// Only measure the library as it is shipped: sizes, growth of memory, throughput of callbacks and descriptors.
    #[arg(long, conflicts_with = "random")]
    pub(crate) throughput: bool,
    /// Only call functions at random from several threads for so many seconds, with both sanitizers.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) random: Option<u32>,
}

/// Compiles the host with the static library. Later steps find it by `ADIT_HOST`.
///
/// # Errors
/// It does not compile.
pub(crate) fn build(context: &Context) -> Result<()> {
    let host = compile(context, "static", Library::Packaged("libadit.a"), &[])?;
    println!("    {}", host.display());
    context.env.borrow_mut().push(("ADIT_HOST", host.display().to_string()));
    Ok(())
}

/// Runs the host with the static library, then a part of it with the shared one.
///
/// # Errors
/// It does not compile, or a promise of the header is broken.
pub(crate) fn plain(context: &Context) -> Result<()> {
    let of_static = compile(context, "static", Library::Packaged("libadit.a"), &[])?;
    scenarios(context, &Runner::plain(&of_static), PLAIN)?;
    let of_shared = compile(context, "shared", Library::Packaged("libadit.so"), &[])?;
    scenarios(context, &Runner::plain(&of_shared), SHARED)
}

/// Runs the host under valgrind.
///
/// # Errors
/// As [`plain`], or valgrind has found something. [`Skipped`] if there is no valgrind.
pub(crate) fn memcheck(context: &Context) -> Result<()> {
    let Some(valgrind) = command::find("valgrind") else {
        return Err(Skipped::because("THE C HOST WAS NOT RUN UNDER VALGRIND: it is not installed"));
    };
    let host = compile(context, "static", Library::Packaged("libadit.a"), &[])?;
    let suppressions = context.root.join(SUPPRESSIONS);
    let mut words: Vec<String> = VALGRIND.iter().map(|word| (*word).to_owned()).collect();
    words.push(format!("--suppressions={}", suppressions.display()));
    words.push(host.display().to_string());
    scenarios(context, &Runner { program: valgrind, words, env: Vec::new() }, MEMCHECK)
}

/// Compiles both sides for AddressSanitizer and runs the host.
///
/// # Errors
/// As [`plain`], or the sanitizer has found something. [`Skipped`] if the compilers lack it.
pub(crate) fn address(context: &Context) -> Result<()> {
    sanitized(context, &sanitizer::ADDRESS, ADDRESS)
}

/// Compiles both sides and Rust's standard library for ThreadSanitizer and runs the host.
///
/// # Errors
/// As [`address`].
pub(crate) fn thread(context: &Context) -> Result<()> {
    sanitized(context, &sanitizer::THREAD, THREAD)
}

/// Packages the library as tests use it.
///
/// # Errors
/// As [`ffi::package`].
pub(crate) fn package(context: &Context) -> Result<()> {
    let build = ["build", "--package", "adit-ffi", "--lib", "--features", "adit-ffi/test-symbols"];
    ffi::package(context, ffi::Profile::Dev, ffi::Scope::Tests(&build)).map(drop)
}

/// Starts and stops `rounds` times.
///
/// # Errors
/// As [`plain`].
pub(crate) fn churn(context: &Context, rounds: u32) -> Result<()> {
    let host = compile(context, "static", Library::Packaged("libadit.a"), &[])?;
    run(context, &Runner::plain(&host), &["--rounds", &rounds.to_string(), "churn"], LONG)
}

/// Calls at random for `seconds`, with either sanitizer.
///
/// # Errors
/// As [`address`].
pub(crate) fn random(context: &Context, seconds: u32) -> Result<()> {
    let seed = std::process::id();
    let limit = Duration::from_secs(seconds.into()) + LIMIT;
    for sanitizer in [&sanitizer::ADDRESS, &sanitizer::THREAD] {
        let runner = built(context, sanitizer)?;
        let words = ["--unmeasured", "--seed", &seed.to_string(), "--seconds", &seconds.to_string(), "threads"];
        run(context, &runner, &words, limit)?;
    }
    Ok(())
}

/// Measures the library that is shipped.
///
/// # Errors
/// As [`plain`]; callbacks carry too little, or memory grows too much.
pub(crate) fn measure(context: &Context) -> Result<()> {
    let package = ffi::package(context, ffi::Profile::Release, ffi::Scope::Alone)?;
    let host = compile(context, "release", Library::Packaged("libadit.a"), &["-O2"])?;
    let stripped = host.with_extension("stripped");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&stripped).arg(&host);
    command::run_silently(&mut strip, LIMIT)?;
    // What the host itself is made of, without the library: the same program linked with the shared one.
    let shared = compile(context, "release-shared", Library::Packaged("libadit.so"), &["-O2", "-s"])?;
    let size = |file: &Path| -> Result<f64> {
        let bytes = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
        Ok(bytes as f64 / f64::from(1 << 20))
    };
    println!("    libadit.a, stripped:                {:.2} MiB", size(&package.lib.join("libadit.a"))?);
    println!("    host with libadit.a, stripped:      {:.2} MiB", size(&stripped)?);
    println!("    host without the library, stripped: {:.2} MiB", size(&shared)?);
    let runner = Runner::plain(&host);
    run(context, &runner, &["--seconds", "10", "memory"], LIMIT)?;
    run(context, &runner, &["--seconds", "5", "throughput"], LIMIT)
}

/// A program that runs the host, or the host itself.
struct Runner {
    program: PathBuf,
    words: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl Runner {
    fn plain(host: &Path) -> Self {
        Self { program: host.to_path_buf(), words: Vec::new(), env: Vec::new() }
    }
}

/// A set of scenarios with the options that they run with.
type Set = &'static [(&'static [&'static str], &'static [&'static str])];

fn sanitized(context: &Context, sanitizer: &Sanitizer, set: Set) -> Result<()> {
    scenarios(context, &built(context, sanitizer)?, set)
}

fn built(context: &Context, sanitizer: &Sanitizer) -> Result<Runner> {
    let library = sanitizer.build(context)?;
    let host = compile(context, sanitizer.name, Library::File(&library), &[sanitizer.flag])?;
    Ok(Runner { env: vec![(sanitizer.variable, sanitizer.options.to_owned())], ..Runner::plain(&host) })
}

fn scenarios(context: &Context, runner: &Runner, set: Set) -> Result<()> {
    set.iter().try_for_each(|(options, names)| run(context, runner, &[*options, *names].concat(), LIMIT))
}

fn run(context: &Context, runner: &Runner, words: &[&str], limit: Duration) -> Result<()> {
    let mut host = Command::new(&runner.program);
    host.args(&runner.words).args(words).envs(runner.env.iter().map(|(name, value)| (name, value)));
    // The panics that it asks for would fill the screen.
    host.env("RUST_BACKTRACE", "0");
    host.env(command::MARK, &context.mark).env("TMPDIR", &context.temporary);
    if let Some((_, lib)) = context.env.borrow().iter().rfind(|(name, _)| *name == "ADIT_FFI_LIB") {
        host.env("LD_LIBRARY_PATH", lib);
    }
    match command::status(&mut host, limit)?.code() {
        Some(0) => Ok(()),
        // What is skipped has said why; there is no namespace or no device.
        Some(SKIPPED) => Ok(()),
        Some(code) => bail!("the host ended with {code}: {}", words.join(" ")),
        None => bail!("the host was killed: {}", words.join(" ")),
    }
}

/// The host's exit code if the machine lacks something.
const SKIPPED: i32 = 77;

/// Reports that are no faults, each with its reason.
const SUPPRESSIONS: &str = "ffi/tests/host/valgrind.supp";

const VALGRIND: &[&str] = &[
    "--quiet",
    "--error-exitcode=99",
    "--leak-check=full",
    "--show-leak-kinds=definite,indirect,possible",
    "--errors-for-leak-kinds=definite,indirect,possible",
    "--fair-sched=yes",
    "--num-callers=30",
];

const PLAIN: Set = &[
    (&["--rounds", "20"], &["pair", "arguments", "limits", "order", "callbacks", "log", "panic"]),
    (&["--seconds", "2"], &["threads", "devices"]),
    (&["--rounds", "500"], &["churn"]),
    (&["--seconds", "2"], &["memory"]),
    (&["--seconds", "1"], &["throughput"]),
];

const SHARED: Set = &[(&["--rounds", "2"], &["pair", "arguments", "callbacks", "panic"])];

const MEMCHECK: Set =
    &[(&["--unmeasured", "--rounds", "2", "--seconds", "2"], &["pair", "arguments", "callbacks", "panic", "threads"])];

const ADDRESS: Set = &[
    (&["--unmeasured", "--rounds", "5"], &["pair", "arguments", "limits", "order", "callbacks", "log", "panic"]),
    (&["--unmeasured", "--rounds", "50", "--seconds", "5"], &["churn", "threads", "devices"]),
];

const THREAD: Set = &[
    (&["--unmeasured", "--rounds", "5"], &["pair", "order", "callbacks", "log", "panic"]),
    (&["--unmeasured", "--rounds", "50", "--seconds", "5"], &["churn", "threads", "devices"]),
];

/// A set of scenarios on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// Ten thousand rounds and more.
const LONG: Duration = Duration::from_secs(3600);

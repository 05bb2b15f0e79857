//! The tasks as lists of steps. To add a step, add it to a list.
//!
//! Two builds are kept apart on purpose: `tests/sim` gives the WireGuard library a simulated clock by a Cargo feature,
//! and Cargo unifies features over everything that one command builds. It has its own commands and its own target
//! folder, so a real binary never gets a clock that stands still.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::host::HostArgs;
use crate::instructions::{self, InstructionsArgs};
use crate::leaks::Snapshot;
use crate::step::{self, Context, Needs, Step, Work};
use crate::{RoutingArgs, TestArgs, apple, arch, build, command, ffi, host, leaks, setup};

/// `cargo xtask setup`.
pub(crate) fn setup(root: &Path) -> Result<()> {
    let outcome = setup::run()?;
    apple::prepare(root);
    outcome.required()
}

/// `cargo xtask test`.
pub(crate) fn test(root: &Path, args: &TestArgs) -> Result<()> {
    with_context(root, |context| {
        let mut steps = Vec::new();
        if !args.no_setup {
            steps.push(function("programs that the tests need", Needs::Nothing, |context| set_up(&context.root)));
        }
        steps.extend(form());
        steps.push(function(APPLE, Needs::Nothing, apple::run));
        let count = |context: &Context| instructions::run(context, &InstructionsArgs::default());
        steps.push(function("instruction counts", Needs::Valgrind, count));
        steps.extend(tests(Runner::found(), args.filter.as_deref()));
        step::run(context, &steps, args.keep_going)
    })
}

/// `cargo xtask ffi`.
pub(crate) fn ffi(root: &Path, release: bool) -> Result<()> {
    let profile = if release { ffi::Profile::Release } else { ffi::Profile::Dev };
    with_context(root, |context| {
        let package = move |context: &Context| ffi::package(context, profile, ffi::Scope::Alone).map(drop);
        step::run(context, &[function(LIBRARIES, Needs::Nothing, package)], false)
    })
}

/// `cargo xtask host`.
pub(crate) fn host(root: &Path, args: &HostArgs) -> Result<()> {
    with_context(root, |context| {
        let package = || function(LIBRARIES, Needs::Nothing, host::package);
        let steps = match *args {
            HostArgs { churn: Some(rounds), .. } => {
                vec![
                    package(),
                    function("starts and stops", Needs::Nothing, move |context| host::churn(context, rounds)),
                ]
            }
            HostArgs { random: Some(seconds), .. } => {
                let work = move |context: &Context| host::random(context, seconds);
                vec![function("random calls from several threads", Needs::Nothing, work)]
            }
            HostArgs { throughput: true, .. } => vec![function("what it costs", Needs::Nothing, host::measure)],
            _ => {
                [package(), function("a host in C", Needs::Nothing, host::build)].into_iter().chain(c_host()).collect()
            }
        };
        step::run(context, &steps, true)
    })
}

/// `cargo xtask apple`.
pub(crate) fn apple(root: &Path) -> Result<()> {
    with_context(root, |context| {
        apple::prepare(&context.root);
        step::run(context, &[function(APPLE, Needs::Nothing, apple::run)], false)
    })
}

/// `cargo xtask repeat`.
pub(crate) fn repeat(root: &Path, times: u32, filter: Option<&str>) -> Result<()> {
    let mut failed = Vec::new();
    for round in 1..=times {
        let begun = Instant::now();
        let result = with_context(root, |context| step::run(context, &tests(Runner::found(), filter), true));
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("\n##### round {round} of {times}: passed, {seconds:.1} s"),
            Err(error) => {
                println!("\n##### round {round} of {times}: FAILED, {seconds:.1} s: {error:#}");
                failed.push(round);
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} of {times} rounds failed: {failed:?}", failed.len());
    }
    println!("all {times} rounds passed");
    Ok(())
}

/// `cargo xtask soak`.
pub(crate) fn soak(root: &Path, gib: u32, seed: Option<u64>) -> Result<()> {
    with_context(root, |context| {
        let build = ["test", "-p", SIM, "--release", "--target-dir", SIM_TARGET, "--test", "flow"];
        let name = &ignored_test(context, &build, SOAK_TEST)?;
        let mut args = words(&build);
        args.extend(words(&["--", "--ignored", "--exact", name, "--nocapture"]));
        let mut env = vec![("ADIT_SOAK_GIB", gib.to_string())];
        env.extend(seed.map(|seed| ("ADIT_SOAK_SEED", seed.to_string())));
        // A machine that needs longer than this for a gibibyte is not working on it.
        let limit = SOAK_LIMIT_PER_GIB * gib + LIMIT;
        let title = "a long flow through two simulated engines";
        step::run(context, &[Step { title, needs: Needs::Nothing, work: Work::Cargo { args, env, limit } }], false)
    })
}

/// `cargo xtask soak-tunnel`.
pub(crate) fn soak_tunnel(root: &Path, minutes: u32) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "a tunnel between network namespaces needs root: run the same command with sudo or in a container as root"
        );
    }
    with_context(root, |context| {
        let build = ["test", "-p", SCENARIOS, "--release", "--test", "soak"];
        let name = ignored_test(context, &build, SOAK_TUNNEL_TEST)?;
        let mut args = words(&build);
        args.extend(words(&["--", "--ignored", "--exact", &name, "--nocapture"]));
        let env = vec![("ADIT_SOAK_MINUTES", minutes.to_string())];
        let limit = Duration::from_secs(60) * minutes + LIMIT;
        let before = Snapshot::take();
        let left = move |context: &Context| leaks::check(context, &before);
        let steps = [
            function("build adit, optimised", Needs::Nothing, |context| {
                build_adit(context, &[&ADIT[..], &["--release"]].concat())
            }),
            Step { title: "a mixed load through a tunnel", needs: Needs::Root, work: Work::Cargo { args, env, limit } },
            function("nothing is left behind", Needs::EvenAfterFailure, left),
        ];
        step::run(context, &steps, false)
    })
}

/// `cargo xtask routing`.
pub(crate) fn routing(root: &Path, args: &RoutingArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("routes in network namespaces need root: run the same command with sudo or in a container as root");
    }
    with_context(root, |context| {
        let mut shared: Vec<(&str, String)> =
            args.seed.map(|seed| ("ADIT_SEED", seed.to_string())).into_iter().collect();
        shared.push(("ADIT_FLAPS", args.flaps.to_string()));
        shared.push(("ADIT_KILLS", args.kills.to_string()));
        shared.push(("ADIT_CONFIGURATIONS", args.configurations.to_string()));
        let run = |title, package, test| {
            // One scenario after the other: what is measured is how they stand long runs, not how they share a processor.
            let args =
                ["test", "--package", package, "--test", test, "--", "--ignored", "--nocapture", "--test-threads=1"];
            Step {
                title,
                needs: Needs::Root,
                work: Work::Cargo { args: words(&args), env: shared.clone(), limit: LIMIT },
            }
        };
        let before = Snapshot::take();
        let left = move |context: &Context| leaks::check(context, &before);
        let steps = [
            function("build adit", Needs::Nothing, |context| build_adit(context, &ADIT)),
            run("the model, an oracle and the kernel agree", "adit-control", "route_model"),
            run("nothing leaks", SCENARIOS, "leaks"),
            run("whatever is killed is undone", SCENARIOS, "killed"),
            function("nothing is left behind", Needs::EvenAfterFailure, left),
        ];
        step::run(context, &steps, true)
    })
}

/// The full name of the ignored test `name` of what `build` builds: a name that matches nothing would run no test and
/// pass, so it is looked up first.
fn ignored_test(context: &Context, build: &[&str], name: &str) -> Result<String> {
    let list = command::output(context.cargo().args(build).args(["--", "--list", "--ignored"]))?;
    let mut names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let found = names.find(|found| found.rsplit("::").next() == Some(name));
    found.map(str::to_owned).with_context(|| format!("`cargo {}` has no ignored test {name}", build.join(" ")))
}

/// Runs the fuzz targets one after the other; what they find and learn stays in tests/fuzz.
///
/// # Errors
/// A target found something, does not build, or is none.
pub(crate) fn fuzz(root: &Path, seconds: u32, only: Option<&str>) -> Result<()> {
    let chosen: Vec<_> = FUZZ_TARGETS.iter().filter(|target| only.is_none_or(|only| only == **target)).collect();
    if chosen.is_empty() {
        bail!("there is no target {}: there are {}", only.unwrap_or_default(), FUZZ_TARGETS.join(", "));
    }
    for target in chosen {
        // cargo-fuzz wants a nightly toolchain, whichever this task itself was built with.
        let mut command = std::process::Command::new("rustup");
        command.current_dir(root).args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", "tests/fuzz", target]);
        let seeds = format!("tests/fuzz/seeds/{target}");
        if root.join(&seeds).is_dir() {
            // What it learns goes into the first folder, which is the one that it takes if none is named.
            let corpus = format!("tests/fuzz/corpus/{target}");
            std::fs::create_dir_all(root.join(&corpus)).context(corpus.clone())?;
            command.args([corpus, seeds]);
        }
        command.args(["--", &format!("-max_total_time={seconds}"), "-max_len=4096"]);
        command::run(&mut command, Duration::from_secs(seconds.into()) + LIMIT)?;
    }
    Ok(())
}

/// `cargo xtask instructions`.
pub(crate) fn instructions(root: &Path, args: &InstructionsArgs) -> Result<()> {
    with_context(root, |context| instructions::run(context, args))
}

/// The binaries of tests/fuzz.
const FUZZ_TARGETS: [&str; 5] = ["config", "uapi", "engine", "offload", "abi"];

/// What runs the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    /// cargo-nextest: a process and a time limit for each test (.config/nextest.toml).
    Nextest,
    /// Cargo's own, on a machine that has nothing else: one time limit for all.
    Cargo,
}

impl Runner {
    fn found() -> Self {
        if command::find("cargo-nextest").is_some() { Self::Nextest } else { Self::Cargo }
    }

    /// The arguments of `cargo` that run tests of the packages that `scope` selects.
    fn args(self, scope: &[&str], ignored: bool, filter: Option<&str>) -> Vec<String> {
        let mut args = match self {
            Self::Nextest => words(&["nextest", "run", "--no-tests=pass"]),
            // Not doc tests, which have their own step, and not benchmarks, which take long.
            Self::Cargo => words(&["test", "--no-fail-fast", "--lib", "--bins", "--tests"]),
        };
        args.extend(words(scope));
        match (self, ignored) {
            (Self::Nextest, true) => args.extend(words(&["--profile", "waiting", "--run-ignored", "only"])),
            (Self::Cargo, true) => args.extend(words(&["--", "--ignored"])),
            (_, false) => {}
        }
        if let Some(filter) = filter {
            let split = (self == Self::Cargo && !ignored).then_some("--");
            args.extend(split.into_iter().chain([filter]).map(str::to_owned));
        }
        args
    }
}

/// Checks of the form: they need no privileges and change nothing.
fn form() -> Vec<Step> {
    let clippy = |title, scope: &[&str], targets: &[&str]| {
        cargo(title, &[&["clippy"], scope, targets, &["--", "-D", "warnings"]].concat())
    };
    let docs = |title, scope: &[&str]| {
        let warnings = vec![("RUSTDOCFLAGS", "-Dwarnings".to_owned())];
        cargo_with(title, words(&[&["doc", "--no-deps", "--document-private-items"], scope].concat()), warnings)
    };
    let all = &["--all-targets"][..];
    vec![
        cargo("format", &["fmt", "--all", "--check"]),
        clippy("clippy", REAL, all),
        // Without the features that others ask for, above all the tests.
        clippy("clippy, what is shipped", SHIPPED, &[]),
        clippy("clippy, simulation", SIMULATED, all),
        clippy("clippy, tasks", TASKS, all),
        docs("documentation", REAL),
        docs("documentation, simulation", SIMULATED),
        docs("documentation, tasks", TASKS),
        function("direction of dependencies", Needs::Nothing, arch::check),
    ]
}

/// All tests: those without privileges first, for they are quick and say most.
fn tests(runner: Runner, filter: Option<&str>) -> Vec<Step> {
    let before = Snapshot::take();
    let run = |title, needs, scope: &[&str], ignored| {
        let work = Work::Cargo { args: runner.args(scope, ignored, filter), env: Vec::new(), limit: LIMIT };
        Step { title, needs, work }
    };
    let tested = &[REAL, WITH_TEST_SYMBOLS].concat()[..];
    let mut steps = vec![
        function("build adit and the tests", Needs::Nothing, |context| build_adit(context, &tests_too())),
        function(LIBRARIES, Needs::Nothing, |context| {
            ffi::package(context, ffi::Profile::Dev, ffi::Scope::Tests(&tests_too())).map(drop)
        }),
    ];
    steps.push(function("a host in C", Needs::Nothing, host::build));
    if filter.is_none() {
        steps.extend(c_host());
    }
    steps.extend([
        run("tests without privileges", Needs::Nothing, tested, false),
        run("tests in simulated time", Needs::Nothing, SIMULATED, false),
        run("tests of the tasks", Needs::Nothing, TASKS, false),
    ]);
    if filter.is_none() {
        steps.push(cargo("examples in the documentation", &[&["test", "--doc"], REAL, WITH_TEST_SYMBOLS].concat()));
    }
    steps.push(run("tests in network namespaces", Needs::Root, tested, true));
    let left = move |context: &Context| leaks::check(context, &before);
    steps.push(function("nothing is left behind", Needs::EvenAfterFailure, left));
    steps
}

/// The host in C in all its forms.
fn c_host() -> Vec<Step> {
    vec![
        function("the host's scenarios", Needs::Nothing, host::plain),
        function("the host's scenarios, valgrind", Needs::Nothing, host::memcheck),
        function("the host's scenarios, AddressSanitizer", Needs::Nothing, host::address),
        function("the host's scenarios, ThreadSanitizer", Needs::Nothing, host::thread),
    ]
}

/// Compiles what [`tests`] runs, and what it starts, exactly as the runner would.
fn tests_too() -> Vec<&'static str> {
    [&["build"], REAL, WITH_TEST_SYMBOLS, &["--lib", "--bins", "--tests"]].concat()
}

/// Installs what is missing; what cannot be installed is told, and the tests that need it tell again.
fn set_up(root: &Path) -> Result<()> {
    if let setup::Outcome::Missing { packages, how } = setup::run()? {
        println!("    still missing: {}; {how}", packages.join(" "));
    }
    apple::prepare(root);
    Ok(())
}

/// Builds the command and tells the tests by `ADIT_BIN` where it is, so that they need not build it themselves.
fn build_adit(context: &Context, args: &[&str]) -> Result<()> {
    let file = build::run(context, args)?.program("adit")?;
    println!("    {}", file.display());
    context.env.borrow_mut().push(("ADIT_BIN", file.display().to_string()));
    Ok(())
}

/// Makes the mark and the temporary folder of one run, and removes the folder afterwards.
fn with_context(root: &Path, work: impl FnOnce(&Context) -> Result<()>) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("adit-xtask-").tempdir().context("temporary folder")?;
    let name = temporary.path().file_name().unwrap_or_default().to_string_lossy();
    let context = Context {
        root: root.to_path_buf(),
        mark: format!("{}-{name}", std::process::id()),
        temporary: temporary.path().to_path_buf(),
        env: RefCell::default(),
    };
    work(&context)
}

fn function(title: &'static str, needs: Needs, work: impl Fn(&Context) -> Result<()> + 'static) -> Step {
    Step { title, needs, work: Work::Function(Box::new(work)) }
}

fn cargo(title: &'static str, args: &[&str]) -> Step {
    cargo_with(title, words(args), Vec::new())
}

fn cargo_with(title: &'static str, args: Vec<String>, env: Vec<(&'static str, String)>) -> Step {
    Step { title, needs: Needs::Nothing, work: Work::Cargo { args, env, limit: LIMIT } }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Everything with a real clock. The tasks are apart, as they are built: their dependencies have features that would
/// make others be compiled again.
const REAL: &[&str] = &["--workspace", "--exclude", SIM, "--exclude", "xtask"];

/// What others get.
const SHIPPED: &[&str] = &["--package", "adit-cli", "--package", "adit-ffi"];

/// This program.
const TASKS: &[&str] = &["--package", "xtask"];

/// Builds the command alone.
const ADIT: [&str; 5] = ["build", "--package", "adit-cli", "--bin", "adit"];

/// Functions of the C library that only its tests call.
const WITH_TEST_SYMBOLS: &[&str] = &["--features", "adit-ffi/test-symbols"];

/// What has a simulated clock, in its own target folder.
const SIMULATED: &[&str] = &["--package", SIM, "--target-dir", SIM_TARGET];

const SIM: &str = "adit-sim";
const SIM_TARGET: &str = "target-sim";

/// The test that `cargo xtask soak` runs.
const SOAK_TEST: &str = "ten_gib_flow";

/// Titles of steps that are tasks, too.
const LIBRARIES: &str = "ffi libraries and symbols";
const APPLE: &str = "Apple targets";

const SCENARIOS: &str = "adit-tests";

/// The test that `cargo xtask soak-tunnel` runs.
const SOAK_TUNNEL_TEST: &str = "a_mixed_load_for_long";

/// One step with a cold build on a slow machine.
const LIMIT: Duration = Duration::from_secs(30 * 60);

const SOAK_LIMIT_PER_GIB: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_reach_either_runner() {
        let scope = ["--package", "x"];
        let args = |runner: Runner, ignored| runner.args(&scope, ignored, Some("ping")).join(" ");
        assert_eq!(args(Runner::Nextest, false), "nextest run --no-tests=pass --package x ping");
        assert_eq!(
            args(Runner::Nextest, true),
            "nextest run --no-tests=pass --package x --profile waiting --run-ignored only ping"
        );
        assert_eq!(args(Runner::Cargo, false), "test --no-fail-fast --lib --bins --tests --package x -- ping");
        assert_eq!(args(Runner::Cargo, true), "test --no-fail-fast --lib --bins --tests --package x -- --ignored ping");
    }

    #[test]
    fn no_command_builds_the_simulation_together_with_the_rest() {
        for step in form().iter().chain(&tests(Runner::Nextest, None)).chain(&tests(Runner::Cargo, None)) {
            let Work::Cargo { args, .. } = &step.work else { continue };
            let has = |word: &str| args.iter().any(|arg| arg == word);
            let simulation = args.windows(2).any(|pair| pair == ["--package", SIM]);
            let excluded = args.windows(2).any(|pair| pair == ["--exclude", SIM]);
            assert_eq!(simulation, has(SIM_TARGET), "{}: {args:?}", step.title);
            assert!(!has("--workspace") || excluded, "{}: {args:?}", step.title);
        }
    }
}

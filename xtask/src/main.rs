//! Tasks of the Adit workspace: `cargo xtask setup`, `test`, `ffi`, `apple`, `repeat`, `soak`, `soak-tunnel`, `routing`,
//! `fuzz` and `instructions`.
//!
//! What continuous integration runs is exactly what a developer runs. A task is a list of [`step::Step`]s in
//! [`tasks`]; the runner gives each a header, a time limit and a line in the summary. Nothing here knows how Adit works
//! inside, and nothing of Adit depends on it.
#![allow(clippy::print_stdout, reason = "a task runner talks on standard output")]

mod apple;
mod arch;
mod build;
mod command;
mod ffi;
mod host;
mod instructions;
mod leaks;
mod setup;
mod step;
mod symbols;
mod tasks;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, tests and long runs of the Adit workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the tests and the demo need from the operating system, only where it is missing.
    Setup,
    /// Set up, check the form (fmt, clippy, docs, dependencies) and run all tests.
    Test(TestArgs),
    /// Package the C library in target/ffi: header, static and shared library, and check which names they show.
    Ffi {
        /// Optimised and stripped of debug information.
        #[arg(long)]
        release: bool,
    },
    /// Run ffi/tests/host.c, a VPN host in C: plainly, under valgrind, AddressSanitizer and ThreadSanitizer.
    Host(host::HostArgs),
    /// Compile the command for macOS and the C library for macOS and iOS, each warning an error; install what that takes.
    Apple,
    /// Run all tests N times in a row and report how often they passed.
    Repeat {
        /// How often.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        times: u32,
        /// Run only the tests whose name contains this text.
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
    },
    /// Push a long flow through two simulated engines with loss, reordering and rekeys; optimised build.
    Soak {
        /// Length of the flow, in GiB.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        gib: u32,
        /// Seed of the simulated link; the test's own if absent.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Carry a mixed load through a tunnel between two namespaces, and watch memory and descriptors; optimised build.
    SoakTunnel {
        /// Length, in minutes.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
        minutes: u32,
    },
    /// Run the long form of the routing scenarios: flaps of the underlay, kills at random moments, random configurations.
    Routing(RoutingArgs),
    /// Feed any bytes to the parsers and the engine; takes a nightly toolchain and cargo-fuzz.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Only this target of tests/fuzz.
        target: Option<String>,
    },
    /// Count the instructions of the hot operations under callgrind and compare them with benches/instructions.json.
    Instructions(instructions::InstructionsArgs),
}

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
struct TestArgs {
    /// Do not install anything.
    #[arg(long)]
    no_setup: bool,
    /// Run only the tests whose name contains this text; the other checks run all the same.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run the remaining steps after one has failed; the exit code still tells.
    #[arg(long)]
    keep_going: bool,
}

/// Options of `cargo xtask routing`.
#[derive(Debug, clap::Args)]
struct RoutingArgs {
    /// How often the underlay goes down and up while nothing may leak, in each mode.
    #[arg(long, default_value_t = 1000)]
    flaps: u32,
    /// How often a tunnel is killed, over all commands.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(3..))]
    kills: u32,
    /// How many random configurations are compared with the kernel, 200 destinations each.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..))]
    configurations: u32,
    /// Seed of everything that is random; another one each time if absent.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let root = workspace_root();
    let passed = match cli.task {
        Task::Setup => tasks::setup(&root),
        Task::Test(args) => tasks::test(&root, &args),
        Task::Ffi { release } => tasks::ffi(&root, release),
        Task::Host(args) => tasks::host(&root, &args),
        Task::Apple => tasks::apple(&root),
        Task::Repeat { times, filter } => tasks::repeat(&root, times, filter.as_deref()),
        Task::Soak { gib, seed } => tasks::soak(&root, gib, seed),
        Task::SoakTunnel { minutes } => tasks::soak_tunnel(&root, minutes),
        Task::Routing(args) => tasks::routing(&root, &args),
        Task::Fuzz { seconds, target } => tasks::fuzz(&root, seconds, target.as_deref()),
        Task::Instructions(args) => tasks::instructions(&root, &args),
    };
    match passed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: the parent of this package, wherever the command was typed.
fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_in_the_readme_and_the_guide_are_taken() {
        let mut found = 0;
        for name in ["README.md", "CONTRIBUTING.md"] {
            let text =
                std::fs::read_to_string(workspace_root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            // In a block as a line of its own, in a text between backquotes; `N` and `NAME` stand for something.
            let in_text = text.split('`').skip(1).step_by(2);
            let commands = text.lines().chain(in_text).filter_map(|part| part.strip_prefix("cargo xtask "));
            for command in commands.filter(|command| !command.starts_with('…')) {
                let words = command.split(" #").next().unwrap_or_default().split_whitespace();
                let words = words.map(|word| if word == "N" { "2" } else { word });
                let parsed = Cli::try_parse_from(["cargo xtask"].into_iter().chain(words));
                parsed.unwrap_or_else(|error| panic!("{name}: cargo xtask {command}\n{error}"));
                found += 1;
            }
        }
        assert!(found >= 3, "only {found} commands were found");
        assert!(Cli::try_parse_from(["cargo xtask", "fly"]).is_err());
    }
}

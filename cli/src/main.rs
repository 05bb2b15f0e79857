//! The `adit` command: reads the command line, does one thing, and ends with a documented exit code.

mod args;
mod bench;
mod check;
mod control;
mod demo;
#[cfg(target_os = "linux")]
mod doctor;
#[cfg(target_os = "linux")]
mod explain;
mod failure;
mod keys;
mod locate;
mod logging;
mod manual;
#[cfg(target_os = "linux")]
mod netns;
mod progress;
#[cfg(target_os = "linux")]
mod routes;
mod status;
mod up;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Colour, Command};
use failure::{Kind, Outcome};

/// Counts what is allocated, for `adit bench`.
#[global_allocator]
static ALLOCATOR: bench::allocations::Counting = bench::allocations::Counting;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.global.color {
        Colour::Auto => {}
        Colour::Always => anstream::ColorChoice::Always.write_global(),
        Colour::Never => anstream::ColorChoice::Never.write_global(),
    }
    match logging::init(&cli.global).and_then(|()| run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.kind != Kind::NobodyReads {
                failure::tell(format_args!("{}: {}", owo_colors::OwoColorize::red(&"error"), failure.message));
            }
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Check(options) => check::run(&options),
        Command::Genkey => keys::genkey(),
        Command::Genpsk => keys::genpsk(),
        Command::Pubkey => keys::pubkey(),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { dir } => manual::man(dir.as_deref()),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        tunnels => run_tunnels(tunnels, &cli.global),
    }
}

/// What has to do with the tunnels of this machine.
fn run_tunnels(command: Command, global: &args::Global) -> Outcome {
    match command {
        Command::Up(options) => up::run(&options, global),
        Command::Down(options) => control::down(&options),
        Command::Reload(options) => control::reload(&options),
        Command::Recover(options) => control::recover_all(&options),
        Command::Status(options) => status::run(&options),
        other => look(other),
    }
}

/// What looks at the host's routing and firewall.
#[cfg(target_os = "linux")]
fn look(command: Command) -> Outcome {
    match command {
        Command::Doctor(options) => doctor::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Routes(options) => routes::run(&options),
        other => Err(failure::Failure::failed(format!("{other:?} has nothing to do with tunnels"))),
    }
}

/// Nobody knows other kernels well enough to explain them.
#[cfg(not(target_os = "linux"))]
fn look(_command: Command) -> Outcome {
    Err(failure::Failure::failed(
        "doctor, explain and routes know Linux's routing only so far; here, `adit status` shows tunnels, and \
         `netstat -rn` and `scutil --dns` what they have changed",
    ))
}

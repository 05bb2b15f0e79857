//! The `adit` command: reads the command line, does one thing, and ends with a documented exit code.

mod args;
mod failure;
mod keys;
mod logging;
mod manual;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Colour, Command};
use failure::Outcome;

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
            anstream::eprintln!("{}: {}", owo_colors::OwoColorize::red(&"error"), failure.message);
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Genkey => keys::genkey(),
        Command::Genpsk => keys::genpsk(),
        Command::Pubkey => keys::pubkey(),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { dir } => manual::man(dir.as_deref()),
        other => Err(failure::Failure::failed(format!("{other:?}"))),
    }
}

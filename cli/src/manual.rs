//! `completions` and `man`, made from the command line's own description.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::{Failure, Outcome};

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "adit", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}

/// Prints the manual page of `adit`, or writes the pages of all commands.
pub(crate) fn man(dir: Option<&Path>) -> Outcome {
    let Some(dir) = dir else {
        clap_mangen::Man::new(Cli::command()).section("8").render(&mut io::stdout())?;
        return Ok(());
    };
    std::fs::create_dir_all(dir).map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
    let mut command = Cli::command();
    command.build();
    write_pages(&command, "adit", dir)
}

fn write_pages(command: &clap::Command, name: &str, dir: &Path) -> Outcome {
    let path = dir.join(format!("{name}.8"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).section("8").render(&mut page)?;
    std::fs::write(&path, page).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}

//! Runs `cargo build` and tells which files came out of it.
//!
//! What the tests start (`adit`, the C libraries) is compiled together with them. Cargo unites the features of all that
//! one command compiles, so a separate command would compile most dependencies a second time, with fewer features.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Artifact, Message};

use crate::step::Context;

/// What Cargo compiled, except tests.
#[derive(Debug)]
pub(crate) struct Built(Vec<Artifact>);

/// Compiles what `args` select.
///
/// # Errors
/// It does not compile.
pub(crate) fn run(context: &Context, args: &[&str]) -> Result<Built> {
    run_with(context, args, &[])
}

/// The same with environment variables.
pub(crate) fn run_with(context: &Context, args: &[&str], env: &[(&str, &str)]) -> Result<Built> {
    let mut cargo = context.cargo();
    cargo.envs(env.iter().copied());
    // After the name of the command, for what follows `--` is rustc's.
    let (command, rest) = args.split_first().context("no command of cargo")?;
    cargo.args([command, "--message-format", "json-render-diagnostics"]).args(rest).stderr(Stdio::inherit());
    let output = cargo.output().context("cargo")?;
    if !output.status.success() {
        bail!("`cargo {}`: {}", args.join(" "), output.status);
    }
    let artifacts = Message::parse_stream(output.stdout.as_slice()).filter_map(|message| match message {
        Ok(Message::CompilerArtifact(artifact)) if !artifact.profile.test => Some(artifact),
        _ => None,
    });
    Ok(Built(artifacts.collect()))
}

impl Built {
    /// The program `name`.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let found = self.0.iter().filter(|artifact| artifact.target.name == name);
        let found = found.filter_map(|artifact| artifact.executable.clone()).next_back();
        found.map(Into::into).with_context(|| format!("cargo built no program {name}"))
    }

    /// The file of the library `name` whose name ends with `extension`.
    pub(crate) fn library(&self, name: &str, extension: &str) -> Result<PathBuf> {
        let mut files =
            self.0.iter().filter(|artifact| artifact.target.name == name).flat_map(|found| &found.filenames);
        let found = files.rfind(|file| file.extension() == Some(extension));
        found.map(Into::into).with_context(|| format!("cargo built no library {name} with the extension .{extension}"))
    }
}

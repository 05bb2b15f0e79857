//! `cargo xtask apple`: compiles the command and the C library for macOS, and the library for iOS, on Linux.
//!
//! A change that only Apple's platforms notice must not wait for somebody with a Mac. So everything is compiled by
//! clippy's own compiler, which finds what rustc and clippy find in one pass, each warning being an error, and linked by
//! Zig. What comes out is looked at ([`inspect`]): the platform, the processor and the functions of the ABI. It is not
//! run, for nothing here could, and not shipped: the profile `apple` does not optimise. [`toolchain`] finds or gets the
//! compilers; on a Mac they are Apple's.

mod inspect;
mod sdk;
mod toolchain;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;
use cargo_metadata::diagnostic::DiagnosticLevel;

use self::inspect::{Kind, Platform};
use self::sdk::Sdk;
use self::toolchain::{Toolchain, Zig};
use crate::step::{Context, Skipped};
use crate::symbols;

/// Installs what [`run`] needs, where it is missing: targets of rustup or packages of Debian, and Zig below target/.
///
/// What cannot be had is told, and [`run`] skips itself then.
pub(crate) fn prepare(root: &Path) {
    match toolchain::install(root) {
        Ok(how) => println!("    Apple's targets: {how}"),
        Err(error) => println!("    APPLE'S TARGETS WILL NOT BE COMPILED: {error:#}"),
    }
}

/// Compiles everything and looks at it.
///
/// # Errors
/// A compiler warns, or what comes out is not for the platform that it should be for. [`Skipped`] if there is no compiler
/// for Apple's targets.
pub(crate) fn run(context: &Context) -> Result<()> {
    let toolchain = Toolchain::find().and_then(|found| Ok((found, Zig::find(&context.root)?)));
    let (toolchain, zig) = toolchain
        .map_err(|error| Skipped::because(format!("NOTHING WAS COMPILED FOR APPLE'S PLATFORMS: {error:#}")))?;
    println!("    {toolchain}");
    let sdk = Sdk::write(&context.root.join(FOLDER), &zig)?;

    let mac = compile(context, &toolchain, &zig, &sdk, &MAC)?;
    let of_mac = functions(context, &mac, Platform::MacOs)?;
    inspect::file(&context.root, &only(&mac, |file| file.ends_with("adit"))?, Kind::Program, Platform::MacOs)?;
    inspect::file(&context.root, &only(&mac, |file| has(file, "dylib"))?, Kind::Library, Platform::MacOs)?;

    let ios = compile(context, &toolchain, &zig, &sdk, &IOS)?;
    let of_ios = functions(context, &ios, Platform::Ios)?;
    if of_mac != of_ios {
        let other: Vec<_> = of_mac.symmetric_difference(&of_ios).collect();
        bail!("macOS and iOS get different functions: {other:?}");
    }
    println!("    both libraries offer the same {} functions", of_ios.len());
    Ok(())
}

/// One target and what is compiled for it.
#[derive(Debug)]
pub(crate) struct Target {
    /// Rust's name.
    pub(crate) triple: &'static str,
    packages: &'static [&'static str],
}

/// The command and the library.
pub(crate) const MAC: Target = Target { triple: "aarch64-apple-darwin", packages: &["adit-cli", "adit-ffi"] };

/// The library alone: there is no command line.
pub(crate) const IOS: Target = Target { triple: "aarch64-apple-ios", packages: &["adit-ffi"] };

/// Compiles for `target`, prints what the compiler says about Adit, and returns the files of the packages.
fn compile(context: &Context, toolchain: &Toolchain, zig: &Zig, sdk: &Sdk, target: &Target) -> Result<Vec<PathBuf>> {
    let mut command = match zig {
        // cargo-zigbuild knows what Zig's linker for macOS wants to hear. Zig has no libraries of iOS to link with.
        Zig::Python { zigbuild, python, .. } if target.triple == MAC.triple => {
            let mut command = context.command(zigbuild);
            command.arg("zigbuild").env("CARGO_ZIGBUILD_PYTHON_PATH", python);
            command
        }
        _ => {
            let mut command = context.command(&toolchain.cargo);
            command.arg("build");
            command
        }
    };
    toolchain.set(&mut command);
    sdk.set(&mut command, target);
    command.args(["--target", target.triple, "--target-dir", FOLDER, "--profile", "apple", "--message-format", "json"]);
    command.args(target.packages.iter().flat_map(|package| ["--package", package]));
    println!("    $ {} for {}", target.packages.join(" and "), target.triple);
    let output = command.stderr(Stdio::inherit()).output().context("cargo")?;

    let mut complaints = BTreeSet::new();
    let mut files = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        match message.context("what cargo writes")? {
            Message::CompilerMessage(found) => {
                // What has no code is not about ours: rustc looks for Xcode.
                let said = found.message;
                let counts = match said.level {
                    DiagnosticLevel::Error | DiagnosticLevel::Ice => true,
                    DiagnosticLevel::Warning => said.code.is_some() && is_ours(&found.package_id.repr),
                    _ => false,
                };
                // Two targets of a package may share a file, of which the same is said then.
                if counts {
                    complaints.insert(said.rendered.unwrap_or(said.message));
                }
            }
            Message::CompilerArtifact(artifact) if is_ours(&artifact.package_id.repr) => {
                files.extend(artifact.filenames.into_iter().map(PathBuf::from));
            }
            _ => {}
        }
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    if !output.status.success() {
        bail!("{}: {}", target.triple, output.status);
    }
    if !complaints.is_empty() {
        bail!("{}: {} warnings, each of which is an error", target.triple, complaints.len());
    }
    Ok(files)
}

/// Whether a package is one of the workspace, whose warnings are ours.
fn is_ours(package: &str) -> bool {
    package.starts_with("path+file:")
}

/// Looks at the static library among `files` and returns the functions of the ABI in it.
fn functions(context: &Context, files: &[PathBuf], platform: Platform) -> Result<BTreeSet<String>> {
    let archive = only(files, |file| has(file, "a"))?;
    inspect::file(&context.root, &archive, Kind::Archive, platform)?;
    let data = std::fs::read(&archive).with_context(|| archive.display().to_string())?;
    let names = symbols::of_the_abi(symbols::defined(&data)?);
    if names.is_empty() {
        bail!("{} has no function of the ABI", archive.display());
    }
    Ok(names)
}

fn only(files: &[PathBuf], wanted: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    files.iter().find(|file| wanted(file)).cloned().with_context(|| format!("cargo did not build it: {files:?}"))
}

fn has(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

/// Everything of this task is below it; remove it, and the next run begins from nothing.
const FOLDER: &str = "target/apple";

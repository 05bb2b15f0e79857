//! Compiles the host with the system's C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::command;
use crate::step::{Context, Skipped};

/// What the host is linked with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Library<'a> {
    /// This file of the folder that `ADIT_FFI_LIB` names.
    Packaged(&'a str),
    /// This one.
    File(&'a Path),
}

/// Compiles ffi/tests/host.c and the files next to it, each warning being an error, and links them.
///
/// # Errors
/// It does not compile. [`Skipped`] if this is not Linux.
pub(crate) fn compile(context: &Context, name: &str, library: Library<'_>, flags: &[&str]) -> Result<PathBuf> {
    if !cfg!(target_os = "linux") {
        return Err(Skipped::because("the C host uses namespaces and tun devices of Linux"));
    }
    let tests = context.root.join("ffi/tests");
    let folder = context.root.join("target/host");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let host = folder.join(format!("host-{name}"));
    let library = match library {
        Library::File(file) => file.to_path_buf(),
        Library::Packaged(file) => {
            let env = context.env.borrow();
            let lib = env.iter().rfind(|(name, _)| *name == "ADIT_FFI_LIB").context("the library is not packaged")?;
            Path::new(&lib.1).join(file)
        }
    };
    let mut cc = Command::new("cc");
    cc.args(FLAGS).args(flags).arg("-I").arg(context.root.join("ffi/include")).arg("-I").arg(&tests);
    // What is shipped has no functions for tests.
    if !name.starts_with("release") {
        cc.arg("-DADIT_TEST_SYMBOLS");
    }
    cc.arg("-o").arg(&host).args(sources(&tests)?).arg(library).args(SYSTEM_LIBRARIES);
    command::run_silently(&mut cc, LIMIT)?;
    Ok(host)
}

fn sources(tests: &Path) -> Result<Vec<PathBuf>> {
    let parts = tests.join("host");
    let entries = std::fs::read_dir(&parts).with_context(|| parts.display().to_string())?;
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().context("a source")?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "c"));
    files.sort();
    files.insert(0, tests.join("host.c"));
    Ok(files)
}

const FLAGS: &[&str] = &[
    "-std=c99",
    "-D_GNU_SOURCE",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Werror",
    "-fno-omit-frame-pointer",
];

const SYSTEM_LIBRARIES: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

const LIMIT: Duration = Duration::from_secs(300);

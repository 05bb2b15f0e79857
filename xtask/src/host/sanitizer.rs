//! The library as the sanitizers of the C compiler check it.
//!
//! rustc marks memory accesses as LLVM's sanitizers want it, and GCC's runtime, which is made of the same sources, watches
//! them together with those of the host. The compiler is the one that compiles everything else; RUSTC_BOOTSTRAP lets it take
//! the options, which are not stable. For ThreadSanitizer the standard library is compiled as well: what it does with
//! threads and locks would be unknown otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::step::{Context, Skipped};
use crate::{build, command};

/// One of the sanitizers.
#[derive(Debug)]
pub(crate) struct Sanitizer {
    /// rustc's name for it.
    pub(crate) name: &'static str,
    /// The flag of the C compiler.
    pub(crate) flag: &'static str,
    /// The environment variable with the options of its runtime.
    pub(crate) variable: &'static str,
    pub(crate) options: &'static str,
    standard_library: bool,
}

/// Accesses to memory that is not there any more or never was, and leaks.
pub(crate) const ADDRESS: Sanitizer = Sanitizer {
    name: "address",
    flag: "-fsanitize=address",
    variable: "ASAN_OPTIONS",
    options: "exitcode=99:detect_leaks=1:detect_stack_use_after_return=1",
    standard_library: false,
};

/// Accesses of two threads that nothing orders, and locks that are taken in different orders.
pub(crate) const THREAD: Sanitizer = Sanitizer {
    name: "thread",
    flag: "-fsanitize=thread",
    variable: "TSAN_OPTIONS",
    options: "exitcode=99:halt_on_error=1:second_deadlock_stack=1:history_size=4",
    standard_library: true,
};

impl Sanitizer {
    /// Compiles the static library, in a target folder of its own.
    ///
    /// # Errors
    /// It does not compile. [`Skipped`] if the compilers lack the sanitizer.
    pub(crate) fn build(&self, context: &Context) -> Result<PathBuf> {
        self.probe(context)?;
        let triple = target()?;
        if self.standard_library {
            standard_library(context)?;
        }
        let folder = format!("target/sanitizer/{}", self.name);
        let mut args = vec!["rustc", "--package", "adit-ffi", "--lib", "--crate-type", "staticlib"];
        args.extend(["--features", "test-symbols", "--profile", "sanitized", "--target", &triple]);
        args.extend(["--target-dir", &folder]);
        if self.standard_library {
            args.extend(["-Z", "build-std=std,panic_unwind"]);
        }
        let flags = format!("-Zsanitizer={} -Cforce-frame-pointers=yes", self.name);
        let built = build::run_with(context, &args, &[("RUSTFLAGS", &flags), ("RUSTC_BOOTSTRAP", "1")])?;
        built.library("adit_ffi", "a")
    }

    /// Whether a C program that is compiled for it runs.
    fn probe(&self, context: &Context) -> Result<()> {
        let folder = tempfile::tempdir_in(&context.temporary).context("temporary folder")?;
        let (source, program) = (folder.path().join("probe.c"), folder.path().join("probe"));
        std::fs::write(&source, "int main(void) { return 0; }\n").context("probe.c")?;
        let mut cc = Command::new("cc");
        cc.arg(self.flag).arg("-o").arg(&program).arg(&source);
        let works = command::output(&mut cc).and_then(|_| command::output(&mut Command::new(&program)));
        works.map(drop).map_err(|error| {
            let name = self.name.to_uppercase();
            Skipped::because(format!("THE C HOST WAS NOT RUN WITH THE {name} SANITIZER: {error:#}"))
        })
    }
}

/// The target of the compiler that is used, which is named so that build scripts and macros are compiled without a sanitizer.
fn target() -> Result<String> {
    let text = command::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

/// Gets the sources of the standard library, if they are not there.
fn standard_library(context: &Context) -> Result<()> {
    let there = || -> Result<bool> {
        let root = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        Ok(Path::new(root.trim()).join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file())
    };
    if there()? {
        return Ok(());
    }
    let missing =
        "THE C HOST WAS NOT RUN WITH THE THREAD SANITIZER: the sources of Rust's standard library are missing";
    if command::find("rustup").is_none() {
        return Err(Skipped::because(format!("{missing}, and there is no rustup to get them")));
    }
    let mut rustup = Command::new("rustup");
    rustup.current_dir(&context.root).args(["component", "add", "rust-src"]);
    let added = command::run(&mut rustup, super::LIMIT);
    if there()? { Ok(()) } else { Err(Skipped::because(format!("{missing}: {added:?}"))) }
}

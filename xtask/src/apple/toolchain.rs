//! Finds, and installs where it may, the compilers for Apple's targets.
//!
//! On Linux Rust comes in one of two ways. The toolchain that runs this has the standard library of the targets, which
//! `rustup target add` gets; or Debian's rustc with the source of the standard library compiles it along. C is compiled,
//! and everything linked, by Zig, which PyPI has as `ziglang`, together with `cargo-zigbuild`, which knows how to call it.
//! On a Mac there is Xcode. Only rustup and apt change anything outside of target/.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::{FOLDER, IOS, MAC};
use crate::command;
use crate::setup;

/// Rust with clippy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// Cargo's file.
    pub(crate) cargo: PathBuf,
    rustc: PathBuf,
    /// Clippy's compiler: rustc that complains more.
    clippy: PathBuf,
    /// Whether the standard library is compiled along.
    from_source: bool,
    version: String,
}

impl Toolchain {
    /// The one that has the standard library for Apple's targets, or Debian's, which can compile it.
    ///
    /// # Errors
    /// Neither is there; the text says what either lacks.
    pub(crate) fn find() -> Result<Self> {
        Self::running().or_else(|running| {
            Self::debian().map_err(|debian| anyhow!("Rust's own toolchain: {running:#}; Debian's: {debian:#}"))
        })
    }

    /// The toolchain that this was compiled with and is run by.
    fn running() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
        let rustc = std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from);
        let sysroot = sysroot(&rustc)?;
        for target in [&MAC, &IOS] {
            let library = sysroot.join("lib/rustlib").join(target.triple).join("lib");
            if !library.is_dir() {
                bail!("has no standard library for {}", target.triple);
            }
        }
        Self::new(cargo, rustc, sysroot.join("bin/clippy-driver"), false)
    }

    /// That of Debian's packages.
    fn debian() -> Result<Self> {
        let bin = Path::new("/usr/bin");
        let (cargo, rustc) = (bin.join("cargo"), bin.join("rustc"));
        for file in [&cargo, &rustc] {
            if !file.is_file() {
                bail!("there is no {}", file.display());
            }
        }
        let source = sysroot(&rustc)?.join("lib/rustlib/src/rust/library/Cargo.lock");
        if !source.is_file() {
            bail!("there is no {}", source.display());
        }
        Self::new(cargo, rustc, bin.join("clippy-driver"), true)
    }

    fn new(cargo: PathBuf, rustc: PathBuf, clippy: PathBuf, from_source: bool) -> Result<Self> {
        if !clippy.is_file() {
            bail!("there is no {}", clippy.display());
        }
        let version = command::output(Command::new(&rustc).arg("--version"))?.trim().to_owned();
        Ok(Self { cargo, rustc, clippy, from_source, version })
    }

    /// Makes a command of Cargo's use this toolchain, and clippy for the packages of the workspace.
    pub(crate) fn set(&self, command: &mut Command) {
        command.env("CARGO", &self.cargo).env("RUSTC", &self.rustc).env("RUSTC_WORKSPACE_WRAPPER", &self.clippy);
        if self.from_source {
            // The features of a nightly toolchain, of which only this one is used.
            command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
            // Set by rustup, for its own toolchains.
            command.env_remove("RUSTUP_TOOLCHAIN");
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let library = if self.from_source { "compiled along" } else { "ready" };
        write!(f, "{}, {}, standard library {library}", self.version, self.rustc.display())
    }
}

/// What compiles C and links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Zig {
    /// The packages of PyPI.
    Python {
        /// Zig itself.
        zig: PathBuf,
        /// Its headers of macOS.
        headers: PathBuf,
        /// cargo-zigbuild.
        zigbuild: PathBuf,
        /// The Python that they are installed for.
        python: PathBuf,
    },
    /// This is a Mac, whose Xcode does it.
    Xcode,
}

impl Zig {
    /// Zig below the folder of this task, or that of the system's Python.
    ///
    /// # Errors
    /// There is none, or an old one.
    pub(crate) fn find(root: &Path) -> Result<Self> {
        if cfg!(target_os = "macos") {
            return Ok(Self::Xcode);
        }
        Self::of(&root.join(PYTHON)).or_else(|_| Self::of(Path::new("python3")))
    }

    fn of(python: &Path) -> Result<Self> {
        let found = command::output(Command::new(python).args(["-c", WHERE]))
            .context("there is no Zig: `cargo xtask setup` installs it")?;
        let mut lines = found.lines().map(PathBuf::from);
        let (Some(package), Some(scripts), Some(python)) = (lines.next(), lines.next(), lines.next()) else {
            bail!("{}: {found}", python.display());
        };
        let zig = package.join("zig");
        let headers = package.join("lib/libc/include/any-darwin-any");
        let zigbuild = scripts.join("cargo-zigbuild");
        for file in [&zig, &headers, &zigbuild] {
            if !file.exists() {
                bail!("there is no {}", file.display());
            }
        }
        Ok(Self::Python { zig, headers, zigbuild, python })
    }
}

/// Installs what is missing, and says what there is then.
///
/// # Errors
/// Neither way can be had here.
pub(crate) fn install(root: &Path) -> Result<String> {
    if let Err(missing) = Toolchain::find() {
        println!("    {missing:#}");
        let added = add_targets();
        if let Err(error) = added.and_then(|()| Toolchain::running()) {
            println!("    {error:#}");
            setup::install_packages(DEBIAN)?;
        }
    }
    let toolchain = Toolchain::find()?;
    if Zig::find(root).is_err() {
        install_zig(root)?;
    }
    Zig::find(root)?;
    Ok(toolchain.to_string())
}

/// Adds the targets to the toolchain that runs this.
fn add_targets() -> Result<()> {
    let rustup = command::find("rustup").context("there is no rustup")?;
    // RUSTUP_TOOLCHAIN is set where a toolchain of rustup runs this, so that it is the one that gets them.
    command::run(Command::new(rustup).args(["target", "add", MAC.triple, IOS.triple]), LIMIT)
}

/// Installs Zig into a Python environment of its own, which a system that guards its Python's packages allows.
fn install_zig(root: &Path) -> Result<()> {
    let place = root.join(FOLDER).join("python");
    let environment = || command::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place), LIMIT);
    if let Err(error) = environment() {
        // Debian keeps this part of Python in a package of its own.
        println!("    {error:#}");
        setup::install_packages(&["python3-venv"])?;
        environment()?;
    }
    let mut pip = Command::new(root.join(PYTHON));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(ZIG_PACKAGES);
    command::run(&mut pip, LIMIT)
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    Ok(command::output(Command::new(rustc).args(["--print", "sysroot"]))?.trim().into())
}

/// Debian's packages: the compiler, Cargo, the source of the standard library and clippy.
const DEBIAN: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];

/// PyPI's packages.
const ZIG_PACKAGES: [&str; 2] = ["ziglang==0.17.0", "cargo-zigbuild==0.24.0"];

/// Python of the environment of this task.
const PYTHON: &str = "target/apple/python/bin/python";

/// Prints where the packages are, and the Python itself.
const WHERE: &str = "import os, sys, sysconfig, ziglang
print(os.path.dirname(ziglang.__file__), sysconfig.get_path('scripts'), sys.executable, sep='\\n')";

/// Packages of a hundred megabytes come over slow lines, too.
const LIMIT: Duration = Duration::from_secs(600);

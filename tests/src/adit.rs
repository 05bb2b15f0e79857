//! The `adit` command under test.
//!
//! Cargo tells tests where a binary is only within the binary's own package. `cargo xtask test` builds the command first
//! and passes its path in `ADIT_BIN`; without that variable, as in a plain `cargo test -p adit-tests -- --ignored`, it is
//! built here, once, in the profile of the test itself.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};

/// The path of the `adit` executable.
///
/// # Errors
/// If `ADIT_BIN` names no file, or it cannot be built.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ADIT_BIN").map(PathBuf::from) {
        ensure!(path.is_file(), "ADIT_BIN names no file: {}", path.display());
        return Ok(path);
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("workspace")?.join("Cargo.toml");
    let mut build = escargot::CargoBuild::new().manifest_path(manifest).package("adit-cli").bin("adit");
    if !cfg!(debug_assertions) {
        build = build.release();
    }
    Ok(build.run().context("cargo build --package adit-cli")?.path().to_path_buf())
}

//! Checks that dependencies point one way: `cli, ffi -> control -> tun -> core`, and what core may not name.
//!
//! The rules are tables at the end of this file. They look at what Cargo says and at the words of the source, so they
//! hold for every target and feature, not only for those that this machine builds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Dependency, DependencyKind, MetadataCommand};

use crate::command;
use crate::step::Context;

/// Runs all checks and reports every violation at once.
pub(crate) fn check(context: &Context) -> Result<()> {
    let mut wrong = Vec::new();
    directions(&context.root, &mut wrong)?;
    let core = tree(context, &["-p", "adit-core", "-e", "normal", "--all-features", "--target", "all"])?;
    wrong.extend(banned(&core, CORE_BANS).into_iter().map(|name| format!("adit-core depends on {name}")));
    for package in REAL_CLOCKS {
        let tree = tree(context, &["-p", package, "-e", "normal,build", "--target", "all"])?;
        wrong.extend(banned(&tree, &["mock_instant"]).into_iter().map(|_| format!("{package} has a simulated clock")));
    }
    wrong.extend(source(&context.root)?);
    if !wrong.is_empty() {
        bail!("\n    {}", wrong.join("\n    "));
    }
    println!("    dependencies point one way; adit-core names none of {}", CORE_BANS.join(", "));
    Ok(())
}

/// Compares the dependencies between the workspace's packages with [`MAY_USE`].
fn directions(root: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec().context("cargo metadata")?;
    let members: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    for package in &metadata.packages {
        // Its own tests may use the harness, which knows the command only by its file.
        let uses_harness =
            |dependency: &&Dependency| dependency.kind == DependencyKind::Development && dependency.name == HARNESS;
        // With more features than it has for others.
        let uses_itself = |dependency: &&Dependency| {
            dependency.kind == DependencyKind::Development && dependency.name == *package.name
        };
        let used = package.dependencies.iter().filter(|found| !uses_harness(found) && !uses_itself(found));
        let used = used.map(|dependency| dependency.name.as_str());
        wrong.extend(forbidden(package.name.as_str(), used.filter(|name| members.contains(name))));
    }
    Ok(())
}

fn forbidden<'a>(package: &str, used: impl Iterator<Item = &'a str>) -> Vec<String> {
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == package) else {
        return vec![format!("{package} is not in the table of xtask/src/arch.rs: say what it may use")];
    };
    used.filter(|name| !allowed.contains(name)).map(|name| format!("{package} must not depend on {name}")).collect()
}

/// The names of the packages that `cargo tree` lists.
fn tree(context: &Context, args: &[&str]) -> Result<BTreeSet<String>> {
    let mut cargo = context.cargo();
    cargo.args(["tree", "--locked", "--prefix", "none", "--format", "{p}"]).args(args);
    let text = command::output(&mut cargo)?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn banned<'a>(tree: &BTreeSet<String>, bans: &[&'a str]) -> Vec<&'a str> {
    bans.iter().filter(|name| tree.contains(**name)).copied().collect()
}

/// Looks for words that only one file may contain, and for those that must be there.
fn source(root: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let fence = root.join(BORINGTUN_FENCE);
    for package in ["core", "tun", "control", "ffi", "cli"] {
        for file in rust_files(&root.join(package).join("src"))? {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            if file != fence && names_boringtun(&text) {
                let file = file.strip_prefix(root).unwrap_or(&file);
                wrong.push(format!("{} names boringtun; only {BORINGTUN_FENCE} may", file.display()));
            }
        }
    }
    let core = std::fs::read_to_string(root.join("core/src/lib.rs")).context("core/src/lib.rs")?;
    if !core.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]") {
        wrong.push("core/src/lib.rs lacks #![forbid(unsafe_code)]".into());
    }
    Ok(wrong)
}

/// Whether code, as opposed to a comment, uses the crate.
fn names_boringtun(text: &str) -> bool {
    let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    code.into_iter().any(|line| line.contains("boringtun::") || line.contains("extern crate boringtun"))
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Which packages of the workspace a package may name, for building and for its tests.
const MAY_USE: &[(&str, &[&str])] = &[
    ("adit-core", &[]),
    ("adit-tun", &["adit-core"]),
    ("adit-control", &["adit-core", "adit-tun"]),
    ("adit-ffi", &["adit-core", "adit-tun", "adit-control"]),
    ("adit-cli", &["adit-core", "adit-tun", "adit-control"]),
    ("adit-tests", &["adit-core", "adit-tun", "adit-control", "adit-ffi", "adit-cli"]),
    ("adit-sim", &["adit-core", "adit-tun", "adit-control"]),
    ("adit-benches", &["adit-core", "adit-tun", "adit-control", "adit-ffi", "adit-tests"]),
    ("xtask", &[]),
];

/// The package of the tests' harness, which every package may use for its tests.
const HARNESS: &str = "adit-tests";

/// What core must not depend on, whatever the feature or the target: everything that does input and output.
const CORE_BANS: &[&str] = &["tokio", "mio", "socket2", "tun-rs"];

/// Packages whose binaries run for real and must have a clock that does.
const REAL_CLOCKS: &[&str] = &["adit-core", "adit-tun", "adit-control", "adit-ffi", "adit-cli", "adit-tests"];

/// The only file that knows the library of WireGuard's cryptography.
const BORINGTUN_FENCE: &str = "core/src/wg/peer.rs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_against_the_direction_is_told() {
        assert!(forbidden("adit-tun", ["adit-core"].into_iter()).is_empty());
        assert_eq!(forbidden("adit-core", ["adit-tun"].into_iter()), ["adit-core must not depend on adit-tun"]);
        assert_eq!(forbidden("adit-cli", ["adit-tests"].into_iter()), ["adit-cli must not depend on adit-tests"]);
        assert_eq!(forbidden("adit-new", [].into_iter()).len(), 1, "a package without a rule is told");
    }

    #[test]
    fn bans_match_whole_names() {
        let tree: BTreeSet<String> = ["tokio-util", "mio"].map(str::to_owned).into();
        assert_eq!(banned(&tree, CORE_BANS), ["mio"]);
    }

    #[test]
    fn comments_may_name_what_code_may_not() {
        assert!(!names_boringtun("/// Like boringtun::noise, but fenced.\nfn f() {}"));
        assert!(names_boringtun("    use boringtun::noise::Tunn;"));
    }
}

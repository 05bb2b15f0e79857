//! `include/adit.h` is what cbindgen makes of the sources, it compiles as C and as C++, and so does every example.
//!
//! `ADIT_BLESS=1 cargo test -p adit-ffi --test header` writes the header anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_header_is_that_of_the_sources() {
    let path = header_path();
    let made = generate();
    if std::env::var_os("ADIT_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let place = made.lines().zip(kept.lines()).position(|(made, kept)| made != kept);
    assert!(
        made == kept,
        "ffi/include/adit.h is not what the sources make, from line {}; \
         `ADIT_BLESS=1 cargo test -p adit-ffi --test header` writes it anew",
        place.unwrap_or_else(|| made.lines().count().min(kept.lines().count())) + 1
    );
}

#[test]
fn the_header_compiles_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("alone.c");
    // Twice, for the guard.
    std::fs::write(&alone, "#include <adit.h>\n#include <adit.h>\ntypedef AditResult no_empty_file;\n").unwrap();
    let example = root().join("examples/minimal.c");
    for source in [&alone, &example] {
        compile("gcc", &["-std=c99", "-xc"], source);
        compile("g++", &["-std=c++17", "-xc++"], source);
    }
}

#[test]
fn every_example_is_the_one_that_compiles() {
    let example = std::fs::read_to_string(root().join("examples/minimal.c")).unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("```c\n{example}```\n")), "the README shows examples/minimal.c as it is");
}

#[test]
fn every_function_says_its_contract() {
    let header = generate();
    let mut functions = 0;
    for (documentation, declaration) in declarations(&header) {
        functions += 1;
        for heading in ["Thread:", "Ownership", "ifetime:", "Errors:"] {
            assert!(documentation.contains(heading), "{declaration} lacks «{heading}»");
        }
        assert!(declaration.contains(" adit_") || declaration.contains("*adit_"), "{declaration}");
    }
    assert!(functions > 25, "only {functions} functions were found");
}

/// The functions of a header, each with its comment.
fn declarations(header: &str) -> impl Iterator<Item = (&str, &str)> {
    let comments = header.split("/**").skip(1).filter_map(|part| part.split_once("*/"));
    comments.filter_map(|(comment, code)| {
        let declaration = code.trim_start().split(';').next()?;
        let function =
            declaration.contains('(') && !declaration.starts_with("typedef") && !declaration.starts_with('#');
        function.then_some((comment, declaration))
    })
}

fn generate() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    config.header = Some(preamble());
    let sources = SOURCES.iter().map(|name| root().join("src").join(name));
    let builder = sources.fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src);
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

/// The comment at the top: what cannot be said at one function, and the example.
fn preamble() -> String {
    let text = std::fs::read_to_string(root().join("header.txt")).unwrap();
    let example = std::fs::read_to_string(root().join("examples/minimal.c")).unwrap();
    let example: String = example.lines().map(|line| format!("    {line}\n")).collect();
    let lines = text.lines().chain(example.lines());
    let body: String = lines.map(|line| format!(" * {line}").trim_end().to_owned() + "\n").collect();
    format!("/*\n{body} */")
}

fn compile(compiler: &str, flags: &[&str], source: &Path) {
    let output = Command::new(compiler)
        .args(flags)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-I"])
        .args([root().join("include").as_os_str(), source.as_os_str()] as [&OsStr; 2])
        .output()
        .unwrap_or_else(|error| panic!("{compiler} cannot be run ({error}); `cargo xtask setup` installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{compiler} {}:\n{said}", source.display());
}

fn header_path() -> PathBuf {
    root().join("include/adit.h")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources with declarations of the ABI, in the header's order.
const SOURCES: &[&str] = &[
    "version.rs",
    "result.rs",
    "text.rs",
    "log.rs",
    "options.rs",
    "configuration.rs",
    "event.rs",
    "packets.rs",
    "stats.rs",
    "tunnel.rs",
    "tunnel/run.rs",
    "tunnel/inject.rs",
    "tunnel/inputs.rs",
    "tunnel/readings.rs",
    "key.rs",
];

//! `cargo xtask ffi`: what a developer in C links, in target/ffi: the header, one static and one shared library, and a
//! description for pkg-config.
//!
//! Rust's own static library holds hundreds of objects with thousands of global names. Here it becomes a single object in
//! which only the functions of the ABI are global, so that it can stand next to any other library in one program. The
//! shared library is the one that rustc links. Both are read again afterwards ([`crate::symbols`]), and a program that
//! refers to every function is linked with each of them and run. The libraries for Apple's platforms are not made here:
//! on Linux `cargo xtask apple` only compiles them, and an XCFramework takes Apple's tools.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::command;
use crate::step::{Context, Skipped};
use crate::symbols;

/// How the libraries are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests: with debug information and assertions.
    Dev,
    /// As they are shipped: optimised and stripped of debug information.
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Which crates the libraries are compiled with, which decides about the features of the ones they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope<'a> {
    /// Their own ones: what is shipped.
    Alone,
    /// This command of Cargo compiles them together with all tests, so that nothing is compiled twice. It may switch on
    /// the feature `test-symbols`, and the libraries offer the functions that only tests call.
    Tests(&'a [&'a str]),
}

/// What there is after [`package`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    /// The folder of adit.h.
    pub(crate) include: PathBuf,
    /// The folder of the libraries.
    pub(crate) lib: PathBuf,
    /// The functions that they offer.
    pub(crate) functions: BTreeSet<String>,
}

/// Compiles and packages the libraries, and checks what they show.
///
/// Later steps find them by `ADIT_FFI_INCLUDE` and `ADIT_FFI_LIB`.
///
/// # Errors
/// They do not compile, show a name that is not of the ABI, offer different functions, or cannot be linked by `cc` with
/// the system's libraries alone.
pub(crate) fn package(context: &Context, profile: Profile, scope: Scope<'_>) -> Result<Package> {
    if !cfg!(target_os = "linux") {
        return Err(Skipped::because("the libraries are packaged on Linux; Apple's platforms have an XCFramework"));
    }
    let soname = format!("link-arg=-Wl,-soname,{SHARED}");
    let mut args = match scope {
        Scope::Alone => vec!["rustc", "--package", PACKAGE, "--lib"],
        Scope::Tests(build) => build.to_vec(),
    };
    if profile == Profile::Release {
        args.push("--release");
    }
    if scope == Scope::Alone {
        args.extend(["--", "-C", &soname]);
    }
    let built = build::run(context, &args)?;
    let folder = context.root.join("target/ffi").join(profile.folder());
    let (include, lib) = (folder.join("include"), folder.join("lib"));
    for folder in [&include, &lib.join("pkgconfig")] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    copy(&context.root.join(HEADER), &include.join("adit.h"))?;
    write(&lib.join("pkgconfig/adit.pc"), &pkg_config())?;

    let allowed =
        |name: &str| symbols::is_of_the_abi(name) && (scope != Scope::Alone || !name.starts_with(TEST_PREFIX));
    let shared = lib.join(SHARED);
    copy(&built.library(LIBRARY, "so")?, &shared)?;
    let functions = symbols::check(&shared, allowed)?;
    let of = lib.join(STATIC);
    one_object(context, &built.library(LIBRARY, "a")?, &functions, profile, &of)?;
    let of_static = symbols::check(&of, allowed)?;
    if functions != of_static {
        bail!("the libraries differ: {:?}", functions.symmetric_difference(&of_static).collect::<Vec<_>>());
    }
    if profile == Profile::Release {
        command::run_silently(Command::new("strip").arg("--strip-unneeded").arg(&shared), LIMIT)?;
    }
    let package = Package { include, lib, functions };
    links(context, &package)?;
    report(context, &package, profile)?;
    let mut env = context.env.borrow_mut();
    env.push(("ADIT_FFI_INCLUDE", package.include.display().to_string()));
    env.push(("ADIT_FFI_LIB", package.lib.display().to_string()));
    drop(env);
    Ok(package)
}

/// Makes a library of one object from `archive`, in which `functions` are global and nothing else is.
fn one_object(
    context: &Context,
    archive: &Path,
    functions: &BTreeSet<String>,
    profile: Profile,
    library: &Path,
) -> Result<()> {
    let folder = tempfile::tempdir_in(&context.temporary).context("temporary folder")?;
    let object = folder.path().join("adit.o");
    // What no function of the ABI reaches is left out, as the linker of the program would do it.
    let mut ld = Command::new("ld");
    ld.args(["-r", "--gc-sections", "-o"]).arg(&object);
    ld.args(functions.iter().flat_map(|name| ["-u", name])).arg(archive);
    command::run_silently(&mut ld, LIMIT)?;

    let mut objcopy = Command::new("objcopy");
    objcopy.args(functions.iter().map(|name| format!("--keep-global-symbol={name}")));
    // The standard library carries its code a second time, for optimisers of Rust; joined, it only confuses the tools.
    objcopy.args(["--remove-section=.llvmbc", "--remove-section=.llvmcmd"]);
    if profile == Profile::Release {
        objcopy.args(["--strip-debug", "--strip-unneeded"]);
    }
    command::run_silently(objcopy.arg(&object), LIMIT)?;

    // `ar` adds to an archive that is there; this one has a single member.
    if library.exists() {
        std::fs::remove_file(library).with_context(|| library.display().to_string())?;
    }
    command::run_silently(Command::new("ar").arg("rcsD").arg(library).arg(&object), LIMIT)
}

/// Links a program that refers to every function with each of the libraries, and runs it.
fn links(context: &Context, package: &Package) -> Result<()> {
    let folder = tempfile::tempdir_in(&context.temporary).context("temporary folder")?;
    let source = folder.path().join("all.c");
    write(&source, &program(&package.functions))?;
    for library in [STATIC, SHARED] {
        let file = folder.path().join("all");
        let mut cc = Command::new("cc");
        cc.arg("-o").arg(&file).arg(&source).arg(package.lib.join(library)).args(SYSTEM_LIBRARIES);
        command::run_silently(&mut cc, LIMIT).with_context(|| format!("{library} cannot be linked"))?;
        let mut run = Command::new(&file);
        run.env("LD_LIBRARY_PATH", &package.lib).env(command::MARK, &context.mark);
        command::run_silently(&mut run, LIMIT).with_context(|| format!("a program with {library}"))?;
    }
    Ok(())
}

/// A program that fails unless it was linked with all `functions`.
fn program(functions: &BTreeSet<String>) -> String {
    let declared: String = functions.iter().map(|name| format!("extern char {name}[];\n")).collect();
    let listed: String = functions.iter().map(|name| format!("    {name},\n")).collect();
    format!(
        "{declared}static char *const all[] = {{\n{listed}}};\nint main(void) {{\n    \
         for (unsigned i = 0; i < sizeof all / sizeof *all; i++)\n        if (!*(char *const volatile *)&all[i]) return 1;\n    \
         return 0;\n}}\n"
    )
}

fn report(context: &Context, package: &Package, profile: Profile) -> Result<()> {
    let shown = package.lib.parent().unwrap_or(&package.lib);
    println!(
        "    {}: {} functions",
        shown.strip_prefix(&context.root).unwrap_or(shown).display(),
        package.functions.len()
    );
    for name in [STATIC, SHARED] {
        let bytes = std::fs::metadata(package.lib.join(name)).with_context(|| name.to_owned())?.len();
        let remark = if profile == Profile::Release { "stripped" } else { "with debug information" };
        println!("    {name:10} {:>8.1} KiB, {remark}", bytes as f64 / 1024.0);
    }
    Ok(())
}

/// The description for pkg-config; the folder may be moved to wherever it is wanted.
fn pkg_config() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let private = SYSTEM_LIBRARIES.join(" ");
    format!(
        "prefix=${{pcfiledir}}/../..\nincludedir=${{prefix}}/include\nlibdir=${{prefix}}/lib\n\nName: adit\n\
         Description: WireGuard packet tunnels\nVersion: {version}\nCflags: -I${{includedir}}\nLibs: -L${{libdir}} -ladit\n\
         Libs.private: {private}\n"
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map(drop).with_context(|| format!("{} to {}", from.display(), to.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

const PACKAGE: &str = "adit-ffi";
const LIBRARY: &str = "adit_ffi";
const HEADER: &str = "ffi/include/adit.h";
const STATIC: &str = "libadit.a";
const SHARED: &str = "libadit.so";

/// How the functions for tests begin; nothing that is shipped has one.
const TEST_PREFIX: &str = "adit_test_";

/// What a program links besides the static library.
const SYSTEM_LIBRARIES: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

/// Linking takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

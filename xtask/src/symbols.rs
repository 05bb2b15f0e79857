//! Which names a library shows to the program that links it.
//!
//! A C program has one space of names, and a library that puts `memcpy_fast` or `log` into it breaks somebody's build. So
//! Adit's libraries may define `adit_` names and no others. Objects, archives of objects, and shared libraries are read;
//! ELF and Mach-O. What a library only uses is none of its names, and what it hides counts where it can still collide:
//! a hidden symbol of an object does, one of a shared library is not to be seen. Nothing here changes a file.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use object::read::archive::ArchiveFile;
use object::{BinaryFormat, File, Object as _, ObjectKind, ObjectSymbol as _};

/// The names that the library in `path` offers; an error if one of them is not of the ABI, or if there is none.
///
/// `allowed` tells the names of the ABI from others.
pub(crate) fn check(path: &Path, allowed: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
    let data = std::fs::read(path).with_context(|| path.display().to_string())?;
    let names = defined(&data).with_context(|| path.display().to_string())?;
    let leaked: Vec<&str> = names.iter().map(String::as_str).filter(|name| !allowed(name)).collect();
    if !leaked.is_empty() {
        let some = leaked[..leaked.len().min(SHOWN)].join(" ");
        bail!("{} shows {} symbols that are not of the ABI: {some}", path.display(), leaked.len());
    }
    if names.is_empty() {
        bail!("{} offers nothing", path.display());
    }
    Ok(names)
}

/// The names of the ABI in `names`, among whatever else there is.
pub(crate) fn of_the_abi(names: BTreeSet<String>) -> BTreeSet<String> {
    names.into_iter().filter(|name| is_of_the_abi(name)).collect()
}

/// Whether a name is one that Adit's libraries may show.
pub(crate) fn is_of_the_abi(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Every name that an object, an archive of objects or a shared library defines for others, as C spells it.
///
/// # Errors
/// The bytes are none of these, or cut off.
pub(crate) fn defined(data: &[u8]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    each_object(data, |file| {
        let shared = file.kind() == ObjectKind::Dynamic && file.format() == BinaryFormat::Elf;
        let symbols: Vec<_> = if shared { file.dynamic_symbols().collect() } else { file.symbols().collect() };
        for symbol in symbols.iter().filter(|symbol| symbol.is_global() && !symbol.is_undefined()) {
            let name = symbol.name().context("a symbol's name")?;
            names.insert(c_name(file.format(), name).to_owned());
        }
        Ok(())
    })?;
    Ok(names)
}

/// Calls `look` with the object in `data`, or with each one of an archive.
pub(crate) fn each_object(data: &[u8], mut look: impl FnMut(&File<'_>) -> Result<()>) -> Result<()> {
    if !data.starts_with(ARCHIVE) {
        return look(&File::parse(data).context("not an object file")?);
    }
    let archive = ArchiveFile::parse(data).context("not an archive")?;
    for member in archive.members() {
        let member = member.context("a member of the archive")?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        let bytes = member.data(data).with_context(|| name.clone())?;
        // rustc puts a note about itself into the libraries it makes for its own use; a linker skips it as we do.
        if !name.ends_with(".rmeta") {
            File::parse(bytes).context("not an object file").and_then(|file| look(&file)).context(name)?;
        }
    }
    Ok(())
}

/// Takes off the underscore that Apple's compilers put before the names of C.
fn c_name(format: BinaryFormat, name: &str) -> &str {
    if format == BinaryFormat::MachO { name.strip_prefix('_').unwrap_or(name) } else { name }
}

const PREFIX: &str = "adit_";

/// The first bytes of every archive.
const ARCHIVE: &[u8] = b"!<arch>\n";

/// How many leaked names an error lists: the first ones say where they come from.
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// Compiles `code` with the arguments of `cc`, and returns the file.
    fn compiled(folder: &Path, name: &str, code: &str, args: &[&str]) -> std::path::PathBuf {
        let file = folder.join(name);
        let mut cc = Command::new("cc");
        let mut child =
            cc.args(args).args(["-xc", "-", "-o"]).arg(&file).stdin(Stdio::piped()).spawn().expect("a C compiler");
        child.stdin.take().unwrap().write_all(code.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{code}");
        file
    }

    fn archived(folder: &Path, object: &Path) -> std::path::PathBuf {
        let file = folder.join("lib.a");
        assert!(Command::new("ar").arg("rc").args([&file, object]).status().unwrap().success());
        file
    }

    fn outcome(path: &Path) -> Result<Vec<String>> {
        check(path, is_of_the_abi).map(|names| names.into_iter().collect())
    }

    const CLEAN: &str =
        "extern int used(int); static int own(int x) { return used(x); } int adit_a(int x) { return own(x); }
        int adit_state = 3;";

    #[test]
    fn what_is_used_or_static_is_no_leak() {
        let folder = tempfile::tempdir().unwrap();
        let object = compiled(folder.path(), "clean.o", CLEAN, &["-c"]);
        assert_eq!(outcome(&object).unwrap(), ["adit_a", "adit_state"]);
        assert_eq!(outcome(&archived(folder.path(), &object)).unwrap(), ["adit_a", "adit_state"]);
    }

    #[test]
    fn each_kind_of_leak_is_told() {
        let leaks = [
            ("helper", "int helper(void) { return 1; }"),
            ("table", "int table[4] = { 1 };"),
            ("tentative", "int tentative;"),
            ("weak", "__attribute__((weak)) int weak(void) { return 1; }"),
            ("hidden", "__attribute__((visibility(\"hidden\"))) int hidden(void) { return 1; }"),
            ("a_label", "__asm__(\".globl a_label\\na_label:\\n.globl _a_label\\n_a_label:\\n\");"),
        ];
        for (name, code) in leaks {
            let folder = tempfile::tempdir().unwrap();
            let object = compiled(folder.path(), "leak.o", &format!("{CLEAN}\n{code}"), &["-c", "-fcommon"]);
            for file in [&object, &archived(folder.path(), &object)] {
                let error = outcome(file).unwrap_err().to_string();
                assert!(error.contains(name), "{name}: {error}");
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_shared_library_shows_what_its_dynamic_table_names() {
        let folder = tempfile::tempdir().unwrap();
        let hidden =
            format!("{CLEAN}\n__attribute__((visibility(\"hidden\"))) int helper(void) {{ return adit_a(1); }}");
        let library = compiled(folder.path(), "hidden.so", &hidden, &["-shared", "-fPIC"]);
        assert_eq!(outcome(&library).unwrap(), ["adit_a", "adit_state"]);
        let leak = format!("{CLEAN}\nint helper(void) {{ return adit_a(1); }}");
        let library = compiled(folder.path(), "leak.so", &leak, &["-shared", "-fPIC"]);
        let error = outcome(&library).unwrap_err().to_string();
        assert!(error.ends_with("not of the ABI: helper"), "{error}");
    }

    #[test]
    fn nothing_to_offer_is_an_error_and_so_is_no_library() {
        let folder = tempfile::tempdir().unwrap();
        let object = compiled(folder.path(), "empty.o", "static int own; int *f(void); int *g = 0;", &["-c"]);
        assert!(outcome(&object).unwrap_err().to_string().contains("not of the ABI: g"));
        let object = compiled(folder.path(), "none.o", "extern int used;", &["-c"]);
        assert!(outcome(&object).unwrap_err().to_string().ends_with("offers nothing"));
        defined(b"!<arch>\nnot an archive").unwrap_err();
        defined(b"").unwrap_err();
        outcome(&folder.path().join("no-such-file")).unwrap_err();
    }

    #[test]
    fn apples_underscore_is_not_part_of_a_name() {
        assert_eq!(c_name(BinaryFormat::MachO, "_adit_version"), "adit_version");
        assert_eq!(c_name(BinaryFormat::Elf, "_adit_version"), "_adit_version");
    }
}

//! The files that stand in for Apple's SDK when Zig compiles and links.
//!
//! Nothing of Apple's is here: a script that calls Zig as the C compiler of iOS, and for the frameworks that the command
//! calls, lists of the functions it may call, which is all that a linker wants to know. A program that calls another one
//! does not link; add it to the table at the end.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::toolchain::Zig;
use super::{IOS, MAC, Target};

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sdk {
    /// Written by us, below this folder, which must be absolute.
    Ours(PathBuf),
    /// Apple's own, which its compilers find.
    Apples,
}

impl Sdk {
    /// Writes the files into `folder`, where `zig` needs them.
    pub(crate) fn write(folder: &Path, zig: &Zig) -> Result<Self> {
        let Zig::Python { zig, headers, .. } = zig else { return Ok(Self::Apples) };
        for framework in FRAMEWORKS {
            let place = folder.join(FRAMEWORK_FOLDER).join(format!("{}.framework", framework.name));
            write(&place.join(format!("{}.tbd", framework.name)), &framework.description())?;
        }
        std::fs::create_dir_all(folder.join(IOS_SDK)).context(IOS_SDK)?;
        let script = folder.join(IOS_CC);
        write(&script, &compiler_of_ios(zig, headers))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).with_context(|| script.display().to_string())?;
        Ok(Self::Ours(folder.to_path_buf()))
    }

    /// Tells `command`, which compiles for `target`, about the files.
    pub(crate) fn set(&self, command: &mut Command, target: &Target) {
        command.env("MACOSX_DEPLOYMENT_TARGET", OLDEST_MACOS).env("IPHONEOS_DEPLOYMENT_TARGET", OLDEST_IOS);
        let Self::Ours(folder) = self else { return };
        command.env("ZIG_GLOBAL_CACHE_DIR", folder.join("zig-cache"));
        command.env("ZIG_LOCAL_CACHE_DIR", folder.join("zig-cache"));
        command.env("CARGO_ZIGBUILD_CACHE_DIR", folder);
        if target.triple == IOS.triple {
            command.env("SDKROOT", folder.join(IOS_SDK));
            command.env("CC_aarch64_apple_ios", folder.join(IOS_CC));
            command.env("CARGO_TARGET_AARCH64_APPLE_IOS_LINKER", folder.join(IOS_CC));
            command.env("CARGO_TARGET_AARCH64_APPLE_IOS_RUSTFLAGS", UNSTRIPPED);
        } else if target.triple == MAC.triple {
            let flags = format!("{UNSTRIPPED} -Lframework={}", folder.join(FRAMEWORK_FOLDER).display());
            command.env("CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS", flags);
        }
    }
}

/// The script that rustc and the `cc` crate call for iOS.
///
/// Zig compiles for iOS with the headers that it has for macOS, whose C library is the same. It has nothing to link with,
/// and nothing wants to be linked: the shared libraries of some packages are made for nobody, so their files stay empty.
fn compiler_of_ios(zig: &Path, headers: &Path) -> String {
    let (zig, headers) = (quoted(zig), quoted(headers));
    format!(
        r#"#!/bin/sh
# Written by `cargo xtask apple`: the C compiler of iOS, which leaves what would be linked empty.
link=yes
file=
count=$#
while [ "$count" -gt 0 ]; do
    word=$1
    shift
    count=$((count - 1))
    case $word in
        -arch | -isysroot | -target) shift; count=$((count - 1)) ;;
        --target=* | -m*-version-min=* | -gfull) ;;
        -o) file=$1; set -- "$@" "$word" ;;
        -c | -E | -S | -\? | --version) link=no; set -- "$@" "$word" ;;
        *) set -- "$@" "$word" ;;
    esac
done
if [ "$link" = yes ] && [ -n "$file" ]; then
    : > "$file"
    exit
fi
exec {zig} cc -target aarch64-ios.{OLDEST_IOS} -isystem {headers} "$@"
"#
    )
}

/// As one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // A file that is newer than what was made with it would be a reason to make that again.
    if std::fs::read_to_string(file).is_ok_and(|found| found == text) {
        return Ok(());
    }
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

/// A framework of macOS, and what may be called in it.
#[derive(Debug)]
struct Framework {
    name: &'static str,
    symbols: &'static [&'static str],
}

impl Framework {
    /// The text of its .tbd file, the format that linkers read instead of a library.
    fn description(&self) -> String {
        let name = self.name;
        let symbols: Vec<String> = self.symbols.iter().map(|symbol| format!("_{symbol}")).collect();
        let symbols = symbols.join(", ");
        format!(
            "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\n\
             install-name: '/System/Library/Frameworks/{name}.framework/Versions/A/{name}'\n\
             exports:\n  - targets: [ arm64-macos ]\n    symbols: [ {symbols} ]\n...\n"
        )
    }
}

/// The oldest systems that the libraries are for: from iOS 15 on a packet tunnel may use 50 MiB, before that 15.
const OLDEST_IOS: &str = "15.0";
const OLDEST_MACOS: &str = "12.0";

/// Debian's rustc has no program to strip what it links for Apple; Cargo asks for it whatever the profile says.
const UNSTRIPPED: &str = "-Cstrip=none";

const FRAMEWORK_FOLDER: &str = "MacOSX.sdk/System/Library/Frameworks";
const IOS_SDK: &str = "iPhoneOS.sdk";
const IOS_CC: &str = "ios-cc";

/// What the packages that `adit` uses on macOS call.
const FRAMEWORKS: &[Framework] = &[
    Framework {
        name: "CoreFoundation",
        symbols: &[
            "CFArrayCreate",
            "CFArrayGetCount",
            "CFArrayGetTypeID",
            "CFArrayGetValueAtIndex",
            "CFBooleanGetTypeID",
            "CFBooleanGetValue",
            "CFCopyDescription",
            "CFDataCreate",
            "CFDataGetBytePtr",
            "CFDataGetLength",
            "CFDataGetTypeID",
            "CFDictionaryAddValue",
            "CFDictionaryContainsKey",
            "CFDictionaryCreate",
            "CFDictionaryCreateMutable",
            "CFDictionaryGetCount",
            "CFDictionaryGetKeysAndValues",
            "CFDictionaryGetTypeID",
            "CFDictionaryGetValue",
            "CFDictionaryGetValueIfPresent",
            "CFDictionarySetValue",
            "CFEqual",
            "CFErrorCopyDescription",
            "CFErrorGetCode",
            "CFErrorGetTypeID",
            "CFGetTypeID",
            "CFHash",
            "CFNumberCreate",
            "CFNumberGetTypeID",
            "CFNumberGetValue",
            "CFPropertyListCreateDeepCopy",
            "CFRelease",
            "CFRetain",
            "CFRunLoopAddSource",
            "CFRunLoopGetCurrent",
            "CFRunLoopGetMain",
            "CFRunLoopGetTypeID",
            "CFRunLoopRemoveSource",
            "CFRunLoopRun",
            "CFRunLoopRunInMode",
            "CFRunLoopSourceGetTypeID",
            "CFRunLoopSourceInvalidate",
            "CFRunLoopStop",
            "CFRunLoopWakeUp",
            "CFShow",
            "CFStringCreateWithBytes",
            "CFStringCreateWithBytesNoCopy",
            "CFStringGetBytes",
            "CFStringGetCString",
            "CFStringGetCStringPtr",
            "CFStringGetLength",
            "CFStringGetTypeID",
            "kCFAllocatorDefault",
            "kCFAllocatorNull",
            "kCFBooleanFalse",
            "kCFBooleanTrue",
            "kCFRunLoopCommonModes",
            "kCFRunLoopDefaultMode",
            "kCFTypeArrayCallBacks",
            "kCFTypeDictionaryKeyCallBacks",
            "kCFTypeDictionaryValueCallBacks",
        ],
    },
    Framework {
        name: "SystemConfiguration",
        symbols: &[
            "SCCopyLastError",
            "SCDynamicStoreAddTemporaryValue",
            "SCDynamicStoreAddValue",
            "SCDynamicStoreCopyKeyList",
            "SCDynamicStoreCopyMultiple",
            "SCDynamicStoreCopyNotifiedKeys",
            "SCDynamicStoreCopyValue",
            "SCDynamicStoreCreate",
            "SCDynamicStoreCreateRunLoopSource",
            "SCDynamicStoreCreateWithOptions",
            "SCDynamicStoreGetTypeID",
            "SCDynamicStoreNotifyValue",
            "SCDynamicStoreRemoveValue",
            "SCDynamicStoreSetDispatchQueue",
            "SCDynamicStoreSetMultiple",
            "SCDynamicStoreSetNotificationKeys",
            "SCDynamicStoreSetValue",
            "SCError",
            "SCErrorString",
            "kSCDynamicStoreUseSessionKeys",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_whatever_is_in_them() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    /// Runs the script with `echo` in place of Zig.
    fn script(words: &[&str]) -> (String, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cc");
        write(&file, &compiler_of_ios(Path::new("/bin/echo"), Path::new("/headers"))).unwrap();
        let output = Command::new("sh").arg(&file).args(words).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), folder)
    }

    #[test]
    fn the_compiler_of_ios_gets_what_it_knows_and_no_more() {
        let words =
            ["-arch", "arm64", "--target=arm64-apple-ios", "-isysroot", "/x", "-O2", "-c", "a b.c", "-o", "a.o"];
        let (said, _folder) = script(&words);
        assert_eq!(said.trim_end(), "cc -target aarch64-ios.15.0 -isystem /headers -O2 -c a b.c -o a.o");
    }

    #[test]
    fn what_would_be_linked_for_ios_stays_empty() {
        let (said, folder) = script(&["-dynamiclib", "a.o", "-o", "lib.dylib"]);
        assert_eq!(said, "");
        assert_eq!(std::fs::metadata(folder.path().join("lib.dylib")).unwrap().len(), 0);
    }

    #[test]
    fn a_framework_lists_its_functions_as_the_linker_calls_them() {
        let framework = Framework { name: "Some", symbols: &["SomeFunction", "kSome"] };
        let text = framework.description();
        assert!(text.contains("Frameworks/Some.framework/"), "{text}");
        assert!(text.contains("symbols: [ _SomeFunction, _kSome ]"), "{text}");
    }
}

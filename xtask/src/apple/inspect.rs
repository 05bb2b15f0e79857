//! Looks at compiled files: are they what Apple's tools would take, for the platform that was meant?

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use object::macho::{LC_VERSION_MIN_IPHONEOS, LC_VERSION_MIN_MACOSX, PLATFORM_IOS, PLATFORM_MACOS, Version};
use object::read::macho::LoadCommandVariant;
use object::{Architecture, File, Object as _, ObjectKind};

use crate::symbols;

/// Where a file can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Platform {
    MacOs,
    Ios,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A program.
    Program,
    /// A shared library.
    Library,
    /// An archive of objects.
    Archive,
}

/// Prints a line about the file.
///
/// # Errors
/// It is not Mach-O, not for arm64, or not for `platform`, or one object of the archive is not.
pub(crate) fn file(root: &Path, path: &Path, kind: Kind, platform: Platform) -> Result<()> {
    let shown = path.strip_prefix(root).unwrap_or(path).display();
    let data = std::fs::read(path).with_context(|| shown.to_string())?;
    let mut from = Version(0);
    let mut objects = 0;
    symbols::each_object(&data, |file| {
        from = from.max(look(file, kind, platform)?);
        objects += 1;
        Ok(())
    })
    .with_context(|| shown.to_string())?;
    let what = match kind {
        Kind::Program => "executable".to_owned(),
        Kind::Library => "shared library".to_owned(),
        Kind::Archive if objects == 0 => bail!("{shown} is an empty archive"),
        Kind::Archive => format!("archive of {objects} objects"),
    };
    let name = platform.name();
    let from = format!("{}.{}", from.major(), from.minor());
    let mebibytes = data.len() as f64 / f64::from(1 << 20);
    println!("    {shown}: Mach-O 64-bit arm64 {what} for {name} {from} and later, {mebibytes:.1} MiB, not optimised");
    Ok(())
}

/// Checks one file and returns from which version of the system on it runs.
fn look(file: &File<'_>, kind: Kind, platform: Platform) -> Result<Version> {
    let File::MachO64(mach) = file else { bail!("{:?} instead of 64-bit Mach-O", file.format()) };
    if file.architecture() != Architecture::Aarch64 {
        bail!("for {:?} instead of arm64", file.architecture());
    }
    if file.kind() != kind.of_object() {
        bail!("{:?} instead of {:?}", file.kind(), kind.of_object());
    }
    let mut commands = mach.macho_load_commands().context("load commands")?;
    while let Some(command) = commands.next().context("load commands")? {
        let (found, oldest) = match command.variant().context("load commands")? {
            LoadCommandVariant::BuildVersion(build, _) => {
                (build.platform.get(mach.endian()), build.minos.get(mach.endian()))
            }
            // What came before LC_BUILD_VERSION; Rust's standard library for iOS 10 still has it.
            LoadCommandVariant::VersionMin(version) => {
                let platform = match command.cmd() {
                    LC_VERSION_MIN_MACOSX => PLATFORM_MACOS,
                    LC_VERSION_MIN_IPHONEOS => PLATFORM_IOS,
                    other => bail!("for the platform of load command {other:?} instead of {}", platform.name()),
                };
                (platform, version.version.get(mach.endian()))
            }
            _ => continue,
        };
        if found != platform.number() {
            bail!("for {found:?} instead of {}", platform.name());
        }
        return Ok(oldest);
    }
    bail!("no load command says for which platform it is")
}

impl Platform {
    fn name(self) -> &'static str {
        match self {
            Self::MacOs => "macOS",
            Self::Ios => "iOS",
        }
    }

    /// The number in the load command LC_BUILD_VERSION of <mach-o/loader.h>.
    fn number(self) -> object::macho::Platform {
        match self {
            Self::MacOs => PLATFORM_MACOS,
            Self::Ios => PLATFORM_IOS,
        }
    }
}

impl Kind {
    fn of_object(self) -> ObjectKind {
        match self {
            Self::Program => ObjectKind::Executable,
            Self::Library => ObjectKind::Dynamic,
            Self::Archive => ObjectKind::Relocatable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: u32 = 0x0100_000c;
    const X86_64: u32 = 0x0100_0007;
    const OBJECT: u32 = 1;
    const PROGRAM: u32 = 2;
    const BUILD_VERSION: u32 = 0x32;
    const VERSION_MIN_IPHONEOS: u32 = 0x25;

    /// A header and one load command, for version 15.2 of `platform`.
    fn mach_o(processor: u32, kind: u32, command: u32, platform: u32) -> Vec<u8> {
        let (version, sdk) = (15 << 16 | 2 << 8, 0);
        let load = if command == BUILD_VERSION {
            vec![command, 24, platform, version, sdk, 0]
        } else {
            vec![command, 16, version, sdk]
        };
        let header = [0xfeed_facf, processor, 0, kind, 1, 4 * load.len() as u32, 0, 0];
        header.iter().chain(&load).flat_map(|word| word.to_le_bytes()).collect()
    }

    fn looked(data: &[u8]) -> Result<Version> {
        look(&File::parse(data).unwrap(), Kind::Archive, Platform::Ios)
    }

    #[test]
    fn either_load_command_says_the_platform() {
        assert_eq!(looked(&mach_o(ARM64, OBJECT, BUILD_VERSION, 2)).unwrap().major(), 15);
        assert_eq!(looked(&mach_o(ARM64, OBJECT, VERSION_MIN_IPHONEOS, 0)).unwrap().minor(), 2);
    }

    #[test]
    fn what_is_for_something_else_is_told() {
        let told = |data: &[u8], word: &str| {
            let error = looked(data).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        told(&mach_o(ARM64, OBJECT, BUILD_VERSION, 1), "instead of iOS");
        told(&mach_o(ARM64, OBJECT, 0x24, 0), "instead of iOS");
        told(&mach_o(X86_64, OBJECT, BUILD_VERSION, 2), "instead of arm64");
        told(&mach_o(ARM64, PROGRAM, BUILD_VERSION, 2), "instead of Relocatable");
        told(&mach_o(ARM64, OBJECT, 0x7fff, 0), "no load command");
        let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if cfg!(target_os = "linux") {
            told(&elf, "instead of 64-bit Mach-O");
        }
    }
}

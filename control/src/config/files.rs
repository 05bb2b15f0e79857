//! Configurations as files: what is read, how much of it, and who else can read it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::diagnostic::{ConfigError, Diagnostic, Severity};
use super::model::Config;
use super::{Format, MAX_LENGTH, parse_bytes};

/// A configuration and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What its writer should look at.
    pub warnings: Vec<Diagnostic>,
    /// The path, as it was given.
    pub path: PathBuf,
    /// How it was written.
    pub format: Format,
}

/// Reads a configuration file; its format is that of its extension: `.toml`, `.json`, and wg-quick's for all others.
///
/// The path may name a pipe, which is read to its end.
///
/// # Errors
/// A file that cannot be read ([`ConfigError::io_kind`] says why), that is longer than [`MAX_LENGTH`] bytes, or in
/// which something is wrong.
pub fn load(path: impl AsRef<Path>) -> Result<Loaded, ConfigError> {
    let path = path.as_ref();
    let format = Format::from_path(path);
    let name = path.display().to_string();
    let unreadable =
        |error: io::Error| ConfigError::file(&name, format!("cannot be read: {error}"), Some(error.kind()));
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    // One byte more than is allowed tells a file that is too long, and room up front keeps keys from being copied about.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.min(MAX_LENGTH as u64 + 1) as usize));
    file.by_ref().take(MAX_LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let (config, mut warnings) = parse_bytes(&bytes, format, &name)?;
    if is_world_accessible(&file, path) {
        warnings.insert(0, world_accessible(name.clone()));
    }
    Ok(Loaded { config, warnings, path: path.to_owned(), format })
}

/// The name of the interface that wg-quick(8) gives to a file: its stem, if that is 1 to 15 letters, digits and `_=+.-`
/// and names no folder.
#[must_use]
pub fn interface_name(path: &Path) -> Option<&str> {
    let name = path.file_stem()?.to_str()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    let valid = (1..=15).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != "..";
    valid.then_some(name)
}

fn world_accessible(file: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        file,
        line: None,
        column: None,
        key: None,
        message: "every user of this machine can reach this file, which holds a private key".to_owned(),
        found: None,
        allowed: Some("mode 0600".to_owned()),
        suggestion: None,
    }
}

/// wg-quick's rule: others have a permission on the file that they have on its folder too.
#[cfg(unix)]
fn is_world_accessible(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let folder = path.canonicalize().ok().and_then(|path| path.parent()?.metadata().ok());
    let Ok(file) = file.metadata() else { return false };
    // A folder that cannot be looked at is taken for an open one: the file's own mode decides.
    file.is_file() && file.mode() & folder.map_or(0o007, |folder| folder.mode()) & 0o007 != 0
}

#[cfg(not(unix))]
fn is_world_accessible(_file: &File, _path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "[Interface]\nPrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEA=\n";

    #[test]
    fn a_file_that_is_not_there_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = load(folder.path().join("wg0.conf")).unwrap_err();
        assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound));
        let text = error.to_string();
        assert!(text.contains("wg0.conf: error: cannot be read: No such file"), "{text}");
        assert_eq!(load(folder.path()).unwrap_err().io_kind(), Some(io::ErrorKind::IsADirectory));
    }

    #[test]
    fn a_file_without_end_is_too_long() {
        let error = load("/dev/zero").unwrap_err().to_string();
        assert!(error.contains("longer than 16 MiB"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn others_must_reach_both_the_file_and_its_folder() {
        use std::fs::{Permissions, set_permissions, write};
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.conf");
        write(&path, CONF).unwrap();
        let cases = [(0o600, 0o755, 0), (0o644, 0o755, 1), (0o644, 0o700, 0), (0o640, 0o755, 0), (0o602, 0o755, 0)];
        for (file_mode, folder_mode, expected) in cases {
            set_permissions(&path, Permissions::from_mode(file_mode)).unwrap();
            set_permissions(folder.path(), Permissions::from_mode(folder_mode)).unwrap();
            let loaded = load(&path).unwrap();
            assert_eq!(loaded.warnings.len(), expected, "file {file_mode:o}, folder {folder_mode:o}");
            assert_eq!((loaded.format, loaded.path), (Format::Conf, path.clone()));
        }
    }

    #[test]
    fn names_follow_wg_quick() {
        let name = |path: &'static str| interface_name(Path::new(path));
        assert_eq!(name("/etc/wireguard/wg0.conf"), Some("wg0"));
        assert_eq!(name("a-b_c=d+e.f.toml"), Some("a-b_c=d+e.f"));
        for path in ["sixteen-letters-.conf", "with blank.conf", "ä.conf", "/", ".."] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}

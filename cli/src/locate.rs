//! Which tunnel is meant: a file, or a name to look for where wg-quick and Adit keep their files.

use std::path::{Path, PathBuf};

use adit_control::config;

use crate::failure::{Failure, Kind, Outcome};

/// Where names are looked for, in this order.
#[cfg(not(target_os = "macos"))]
const DIRECTORIES: [&str; 2] = ["/etc/wireguard", "/etc/adit"];
/// Where names are looked for, in this order: Homebrew's folders are where wg-quick(8) is told to look on macOS.
#[cfg(target_os = "macos")]
const DIRECTORIES: [&str; 4] =
    ["/etc/wireguard", "/usr/local/etc/wireguard", "/opt/homebrew/etc/wireguard", "/etc/adit"];

/// What a configuration may be written in.
const EXTENSIONS: [&str; 3] = ["conf", "toml", "json"];

/// What a name may be, as wg-quick(8) has it.
pub(crate) const NAMES: &str = "an interface's name is 1 to 15 of the characters A-Z a-z 0-9 _ = + . -";

/// The file that is meant, and the name of its tunnel.
pub(crate) fn file(argument: &str) -> Outcome<(PathBuf, String)> {
    let path = if is_path(argument) { PathBuf::from(argument) } else { find(argument)? };
    let name = config::interface_name(&path).map(str::to_owned).ok_or_else(|| {
        let message = format!(
            "{}: a tunnel is named after its file, and {NAMES}; rename the file, or give --interface NAME",
            path.display()
        );
        Failure::new(Kind::Configuration, message)
    })?;
    Ok((path, name))
}

/// The name of the tunnel that is meant, whether or not its file is still there.
pub(crate) fn name(argument: &str) -> Outcome<String> {
    if is_path(argument) { Ok(file(argument)?.1) } else { Ok(argument.to_owned()) }
}

fn is_path(argument: &str) -> bool {
    argument.contains('/') || Path::new(argument).extension().is_some_and(|ext| EXTENSIONS.iter().any(|e| ext == *e))
}

fn find(name: &str) -> Outcome<PathBuf> {
    let candidates =
        || DIRECTORIES.iter().flat_map(|dir| EXTENSIONS.map(|ext| Path::new(dir).join(format!("{name}.{ext}"))));
    for path in candidates() {
        match path.try_exists() {
            Ok(true) => return Ok(path),
            // wg-quick's folder is closed to others, who must not be told that there is nothing.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let message = format!("cannot look for {}: {error}; root may, or give the file's path", path.display());
                return Err(Failure::new(Kind::NotPermitted, message));
            }
            _ => {}
        }
    }
    let looked: Vec<_> = candidates().map(|path| path.display().to_string()).collect();
    Err(Failure::new(Kind::NotFound, format!("there is no tunnel `{name}`: looked for {}", looked.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_names_are_told_apart() {
        assert_eq!(file("./office.conf").unwrap(), (PathBuf::from("./office.conf"), "office".to_owned()));
        assert_eq!(file("wg0.toml").unwrap().1, "wg0");
        assert_eq!(name("wg0").unwrap(), "wg0");
        assert_eq!(name("/etc/wireguard/wg0.conf").unwrap(), "wg0");
        let missing = file("no-such-tunnel").unwrap_err();
        assert_eq!(missing.kind, Kind::NotFound);
        assert!(missing.message.contains("/etc/wireguard/no-such-tunnel.conf"), "{}", missing.message);
        assert_eq!(file("./a name that is too long.conf").unwrap_err().kind, Kind::Configuration);
    }
}

//! Files and directories that exist for a moment only, until they are renamed to what they shall be.
//!
//! Each bears the process that made it in its name, so that what a killed one has left can be told from what a living one
//! is about to rename, and be removed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

/// Makes a file with mode 0600 that is removed when dropped.
pub(crate) fn file_in(dir: &Path) -> io::Result<NamedTempFile> {
    Builder::new().prefix(&prefix(std::process::id())).tempfile_in(dir)
}

/// Makes a directory with mode 0700 that is removed when dropped.
pub(crate) fn dir_in(dir: &Path) -> io::Result<TempDir> {
    Builder::new().prefix(&prefix(std::process::id())).permissions(Permissions::from_mode(0o700)).tempdir_in(dir)
}

/// Removes what processes have left in a directory that are gone. That something cannot be removed is no reason not to
/// go on: it is in nobody's way.
pub(crate) fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().and_then(maker).is_none_or(is_alive) {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        if let Err(error) = removed {
            tracing::debug!(path = %entry.path().display(), %error, "a leftover file stays");
        }
    }
}

fn prefix(pid: u32) -> String {
    format!("{MARK}{pid}-")
}

/// The process in a name of ours.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(MARK)?.split_once('-')?.0.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    match i32::try_from(pid) {
        // A process of somebody else's is alive, too.
        Ok(pid) => nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH),
        Err(_) => false,
    }
}

const MARK: &str = ".adit-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_processes_left_goes_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (file_in(dir.path()).unwrap(), dir_in(dir.path()).unwrap());
        // Above the highest process id that Linux gives (PID_MAX_LIMIT, linux/threads.h).
        let dead = prefix(4_194_305);
        fs::write(dir.path().join(format!("{dead}a")), "secret").unwrap();
        fs::create_dir(dir.path().join(format!("{dead}b"))).unwrap();
        fs::write(dir.path().join(format!("{dead}b/s")), "").unwrap();
        for other in ["adit0.journal", ".adit-", ".adit-x-1", ".tmpabc"] {
            fs::write(dir.path().join(other), "").unwrap();
        }
        sweep(dir.path());
        assert!(file.path().exists() && folder.path().exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        sweep(&dir.path().join("none"));
    }
}

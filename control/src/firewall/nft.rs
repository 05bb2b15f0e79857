//! Runs `nft`, the program by which nftables is told what to do, with JSON (libnftables-json(5)) in and out.
//!
//! It works in the network namespace of the thread that starts it, so this belongs on a runtime of one thread. It is looked
//! for in PATH and where distributions keep it, for a service's PATH often lacks /usr/sbin; folders that PATH names
//! relative to the current one are passed over.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nftables::schema::Nftables;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::FirewallError;

/// One run of `nft`.
pub(super) struct Nft<'a> {
    /// What it is for, as an error has it: "remove the firewall of adt0".
    pub(super) action: &'a str,
    /// How long it may take.
    pub(super) limit: Duration,
}

impl Nft<'_> {
    /// Has it do what commands say, as one transaction, and returns what it prints.
    pub(super) async fn load(&self, commands: &Nftables<'_>, options: &[&str]) -> Result<Vec<u8>, FirewallError> {
        let input = serde_json::to_vec(commands).map_err(|error| self.unintelligible(&error))?;
        self.run(&[options, &["-f", "-"]].concat(), &input).await
    }

    /// Runs it with arguments behind `-j` and with what it reads, and returns what it prints.
    pub(super) async fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, FirewallError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = find(&path).ok_or(FirewallError::NoProgram)?;
        self.run_program(&program, &[&["-j"], arguments].concat(), input).await
    }

    /// Runs a program within the time limit, with bounded output; it is killed when this is dropped.
    async fn run_program(&self, program: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, FirewallError> {
        let failed = |source| FirewallError::Run { program: program.to_owned(), source };
        let mut child = Command::new(program)
            .args(arguments)
            // Errors are told apart by their text.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that ends before it has read all says why on stderr.
                let _broken_pipe = stdin.write_all(input).await;
            }
        };
        let work = async { tokio::join!(feed, read(stdout, MAX_OUTPUT), read(stderr, MAX_COMPLAINT), child.wait()) };
        let Ok(((), output, complaint, status)) = tokio::time::timeout(self.limit, work).await else {
            return Err(FirewallError::Timeout { action: self.action.to_owned(), limit: self.limit });
        };
        let status = status.map_err(failed)?;
        if status.success() {
            return output.map_err(failed);
        }
        let complaint = complaint.unwrap_or_default();
        let message = match in_one_line(&String::from_utf8_lossy(&complaint)) {
            // A listing that is not permitted fails without a word.
            message if message.is_empty() && !nix::unistd::geteuid().is_root() => {
                return Err(FirewallError::Permission { action: self.action.to_owned() });
            }
            message if message.is_empty() => format!("`nft` gave no reason ({status})"),
            message => message,
        };
        Err(self.refusal(program, message))
    }

    /// What JSON that cannot be read or written becomes.
    pub(super) fn unintelligible(&self, error: &serde_json::Error) -> FirewallError {
        FirewallError::Answer { action: self.action.to_owned(), message: error.to_string() }
    }

    fn refusal(&self, program: &Path, message: String) -> FirewallError {
        let action = self.action.to_owned();
        let says = |signs: &[&str]| signs.iter().any(|sign| message.contains(sign));
        if says(&["Operation not permitted"]) {
            FirewallError::Permission { action }
        } else if says(&["JSON support not compiled"]) {
            FirewallError::NoJson { program: program.to_owned() }
        } else if says(&["not supported", "No such file or directory", "cache initialization failed"]) {
            FirewallError::Kernel { action, message }
        } else {
            FirewallError::Refused { action, message }
        }
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// `nft` quotes what it did not like, in lines of their own; the first words say what is wrong.
fn in_one_line(complaint: &str) -> String {
    let lines = complaint.lines().map(|line| line.trim().trim_start_matches("internal:0:0-0: "));
    let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    match line.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn find(path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .chain(USUAL_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join("nft"))
        .find(|program| is_executable(program))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

const USUAL_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/run/current-system/sw/bin"];

/// Longest listing that is read, in bytes: half a million IPv6 prefixes.
const MAX_OUTPUT: u64 = 64 << 20;

/// Longest complaint that is read, in bytes.
const MAX_COMPLAINT: u64 = 64 << 10;

/// Longest complaint that is shown, in characters.
const MAX_MESSAGE: usize = 400;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn refused(complaint: &str) -> FirewallError {
        let nft = Nft { action: "set up the firewall of adt0", limit: Duration::from_secs(1) };
        nft.refusal(Path::new("/usr/sbin/nft"), in_one_line(complaint))
    }

    #[test]
    fn each_kind_of_refusal_says_what_helps() {
        let text = |complaint: &str| refused(complaint).to_string();
        let complaint = "netlink: Error: cache initialization failed: Operation not permitted (you must be root)\n";
        assert!(refused(complaint).is_permission() && text(complaint).contains("CAP_NET_ADMIN"), "{}", text(complaint));
        for complaint in [
            "Unable to initialize Netlink socket: Protocol not supported",
            "netlink: Error: cache initialization failed: Invalid argument",
            "internal:0:0-0: Error: Could not process rule: No such file or directory\n\n\n",
        ] {
            assert!(refused(complaint).is_unavailable() && text(complaint).contains("modules"), "{}", text(complaint));
        }
        let no_json = "Error: JSON support not compiled-in\n";
        assert!(matches!(refused(no_json), FirewallError::NoJson { .. }), "{}", text(no_json));
        let other = "internal:0:0-0: Error: Could not process rule: Device or resource busy\n\n^^^\n";
        assert_eq!(
            text(other),
            "cannot set up the firewall of adt0: Error: Could not process rule: Device or resource busy; ^^^"
        );
        assert!(text(&"é".repeat(70_000)).chars().count() < 500);
    }

    /// What becomes of a shell's commands in place of `nft`.
    async fn ran(commands: &str, input: &[u8], limit: Duration) -> Result<Vec<u8>, FirewallError> {
        let nft = Nft { action: "try", limit };
        nft.run_program(Path::new("/bin/sh"), &["-c", commands], input).await
    }

    #[tokio::test]
    async fn a_program_is_fed_and_read_whatever_it_does() {
        let long = vec![b'x'; 1 << 20];
        assert_eq!(ran("cat", &long, PATIENCE).await.unwrap(), long);
        let refused = ran("echo no >&2; exit 3", &long, PATIENCE).await.unwrap_err();
        assert_eq!(refused.to_string(), "cannot try: no", "it does not read what it is given");
        let silent = ran("exit 3", b"", PATIENCE).await.unwrap_err();
        assert!(silent.to_string().contains("gave no reason (exit status: 3)"), "{silent}");
        let endless = ran("exec yes >&2", b"", PATIENCE).await.unwrap_err();
        assert!(endless.to_string().len() < 2 * MAX_MESSAGE, "{endless}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_given_up() {
        let hung = ran("exec sleep 600", &vec![b'x'; 1 << 20], Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(hung, FirewallError::Timeout { .. }), "{hung}");
        let absent = Nft { action: "try", limit: PATIENCE };
        let absent = absent.run_program(Path::new("/nowhere/nft"), &[], b"").await.unwrap_err();
        assert_eq!(absent.to_string(), "cannot run /nowhere/nft: No such file or directory (os error 2)");
    }

    #[test]
    fn the_program_is_found_in_path_first_and_never_in_a_relative_folder() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("nft");
        let in_folder = || find(folder.path().as_os_str()).filter(|found| *found == program);
        assert_eq!(in_folder(), None, "not there");
        std::fs::write(&program, "").unwrap();
        assert_eq!(in_folder(), None, "not executable");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(in_folder(), Some(program.clone()));
        let relative = find(OsStr::new(".:bin:"));
        assert!(relative.is_none_or(|found| found.is_absolute()));
    }
}

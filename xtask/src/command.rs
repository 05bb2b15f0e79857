//! Child processes with a time limit, and the mark by which all their descendants are recognised.
//!
//! A child stays in the process group of the terminal, so that Ctrl-C ends everything as a developer expects. When the
//! limit is over, everything that carries the mark is ended, not only the direct child: a test runner that is killed
//! would leave its tests, and these their peers, behind.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The environment variable that marks every process of one run of the tests.
pub(crate) const MARK: &str = "ADIT_TEST_RUN";

/// Runs `command` with standard streams inherited; fails if it fails or is not done within `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    println!("    $ {}", describe(command));
    run_silently(command, limit)
}

/// Runs `command` with standard streams inherited and tells how it ended; fails if it is not done within `limit`.
pub(crate) fn status(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let text = describe(command);
    println!("    $ {text}");
    wait(command, limit).with_context(|| format!("`{text}`"))
}

/// The same as [`run`] without a line about it on standard output.
pub(crate) fn run_silently(command: &mut Command, limit: Duration) -> Result<()> {
    let text = describe(command);
    let status = wait(command, limit).with_context(|| format!("`{text}`"))?;
    if !status.success() {
        bail!("`{text}`: {status}");
    }
    Ok(())
}

/// Runs `command` and returns what it wrote to standard output; fails if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let text = describe(command);
    let output = command.output().with_context(|| format!("cannot start `{text}`"))?;
    if !output.status.success() {
        bail!("`{text}`: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of `{text}`"))
}

/// The processes whose environment carries `mark`, without this one.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    let carries = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
    };
    processes().into_iter().filter(|pid| *pid != std::process::id()).filter(carries).collect()
}

/// All process ids; empty where there is no /proc.
pub(crate) fn processes() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The file of `name` in the search path or in the folders of system commands, which a user's path often lacks.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn wait(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let mark = command.get_envs().find(|(key, _)| *key == OsStr::new(MARK)).and_then(|(_, value)| value);
    let mark = mark.map(|value| value.to_string_lossy().into_owned());
    let mut child = command.spawn().context("cannot start")?;
    let pid = child.id();
    let (done, waiting) = channel();
    std::thread::spawn(move || {
        // Nobody listens any more if the main thread has given up.
        let _ = done.send(child.wait());
    });
    match waiting.recv_timeout(limit) {
        Ok(status) => status.context("cannot wait"),
        Err(RecvTimeoutError::Disconnected) => bail!("the thread that waits for it ended"),
        Err(RecvTimeoutError::Timeout) => {
            end(pid, Signal::SIGTERM);
            // The thread reaps the child, so its id stays its own until this returns.
            if waiting.recv_timeout(GRACE).is_err() {
                end(pid, Signal::SIGKILL);
            }
            for pid in mark.iter().flat_map(|mark| marked(mark)) {
                end(pid, Signal::SIGKILL);
            }
            bail!("not done after {} s: ended", limit.as_secs())
        }
    }
}

fn end(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_command_that_fails_or_is_absent_is_an_error() {
        let limit = Duration::from_secs(10);
        run(&mut Command::new("true"), limit).unwrap();
        let error = run(Command::new("sh").args(["-c", "exit 3"]), limit).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error:#}");
        run(&mut Command::new("no-such-command-anywhere"), limit).unwrap_err();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_limit_ends_descendants_too() {
        let mark = format!("command-test-{}", std::process::id());
        let begun = Instant::now();
        let mut shell = Command::new("sh");
        // The grandchild is in a session of its own: only the mark finds it.
        shell.args(["-c", "setsid sleep 600 & sleep 600"]).env(MARK, &mark);
        let error = run(&mut shell, Duration::from_millis(500)).unwrap_err();
        assert!(format!("{error:#}").contains("not done after"), "{error:#}");
        assert!(begun.elapsed() < Duration::from_secs(60));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !marked(&mark).is_empty() {
            assert!(Instant::now() < deadline, "still there: {:?}", marked(&mark));
            std::thread::yield_now();
        }
    }

    #[test]
    fn find_knows_the_shell() {
        assert!(find("sh").is_some());
        assert!(find("no-such-command-anywhere").is_none());
    }
}

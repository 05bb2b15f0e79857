//! An engine as a process in a host's namespaces: started, looked at, and ended whatever happens.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::ClockId;
use nix::unistd::Pid;

use super::hosts::FOLDER;
use super::options;
use crate::failure::{Failure, Outcome};
use crate::netns::Namespace;
use crate::watch::Watch;

/// A process that we have started. Dropping it ends it, and those that it has started itself.
pub(super) struct Process {
    child: Child,
    pid: Pid,
    /// Standard output and error, in a file that has no name any more when its host is gone.
    output: File,
}

impl Process {
    /// Starts a command on a host. `label` names the file of its output.
    ///
    /// # Errors
    /// The program is not found or cannot be executed.
    pub(super) fn start(host: &Namespace, watch: &Watch, command: &[String], label: &str) -> Outcome<Self> {
        let [program, arguments @ ..] = command else { return Err(Failure::failed("no command")) };
        let path = locate(program)?;
        let (arguments, label, name) = (arguments.to_vec(), label.to_owned(), program.clone());
        host.run(watch, "the start", move || {
            let mut create = OpenOptions::new();
            create.read(true).append(true).create_new(true).mode(0o600);
            let output = create.open(format!("{FOLDER}/{label}.out"))?;
            let mut command = Command::new(&path);
            command.arg0(&name).args(arguments).env_remove("ADIT_LOG");
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
            // A terminal's Ctrl-C is for us; we end it in good order.
            command.process_group(0);
            // SAFETY: between fork and exec only what is async-signal-safe may be called (fork(2)); prctl(2) is a bare
            // system call, and neither allocates nor locks.
            unsafe {
                command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
            }
            let child = command.spawn().map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
            let pid = Pid::from_raw(child.id().cast_signed());
            Ok(Self { child, pid, output })
        })
    }

    /// Fails if it has ended.
    pub(super) fn check(&self) -> Outcome {
        let how = match self.state() {
            WaitStatus::StillAlive => return Ok(()),
            WaitStatus::Exited(_, code) => format!("exit status {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("signal {signal}"),
            other => format!("{other:?}"),
        };
        Err(Failure::failed(format!("it has ended too early, with {how}{}", self.told())))
    }

    /// Waits until it ends by itself, and returns what it has printed; nothing if it does not end in time.
    pub(super) fn output(self, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        while self.state() == WaitStatus::StillAlive {
            if Instant::now() >= end {
                return None;
            }
            thread::park_timeout(POLL);
        }
        self.tail()
    }

    /// Processor time of all of its threads so far.
    pub(super) fn cpu(&self) -> Outcome<Duration> {
        let time = ClockId::pid_cpu_clock_id(self.pid).and_then(ClockId::now);
        time.map(Duration::from).map_err(|errno| Failure::failed(format!("its processor time: {}", errno.desc())))
    }

    /// The most memory that it has had resident, in bytes (proc_pid_status(5), VmHWM).
    pub(super) fn peak_memory(&self) -> Outcome<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(&path).map_err(|error| Failure::failed(format!("{path}: {error}")))?;
        high_water(&status).ok_or_else(|| Failure::failed(format!("{path} has no VmHWM")))
    }

    /// Asks it, and whatever it has started, to end; dropping it waits for that.
    pub(super) fn ask_to_end(&self) {
        self.signal(Signal::SIGTERM);
    }

    fn signal(&self, signal: Signal) {
        // Its group has its id, which is still its own: only dropping it waits for it in such a way that the kernel may
        // give the id to others.
        let _gone_already = killpg(self.pid, signal);
    }

    /// Whether it has ended, without letting go of its id.
    fn state(&self) -> WaitStatus {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        // It can only fail for a process that is not ours.
        waitid(Id::Pid(self.pid), flags).unwrap_or(WaitStatus::Exited(self.pid, -1))
    }

    /// The last lines that it has printed, as part of a sentence.
    pub(super) fn told(&self) -> String {
        match self.tail() {
            Some(text) if !text.trim().is_empty() => {
                let lines: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
                format!("; it said last:\n  {}", lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  "))
            }
            _ => "; it said nothing".to_owned(),
        }
    }

    fn tail(&self) -> Option<String> {
        let len = self.output.metadata().ok()?.len();
        let mut bytes = vec![0; len.min(TAIL) as usize];
        self.output.read_exact_at(&mut bytes, len - len.min(TAIL)).ok()?;
        Some(printable(&String::from_utf8_lossy(&bytes)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.ask_to_end();
        let end = Instant::now() + PATIENCE;
        while self.state() == WaitStatus::StillAlive && Instant::now() < end {
            thread::park_timeout(POLL);
        }
        self.signal(Signal::SIGKILL);
        if let Err(error) = self.child.wait() {
            tracing::error!(%error, pid = %self.pid, "an engine does not end");
        }
    }
}

/// The program's path, in a form that the host's own /run does not hide.
fn locate(program: &str) -> Outcome<PathBuf> {
    let path = options::find(program).ok_or_else(|| {
        let place = if program.contains('/') { "is no program that can be executed" } else { "is not found in PATH" };
        Failure::failed(format!("`{program}` {place}"))
    })?;
    let path = std::path::absolute(&path)?;
    let hidden = ["/run", "/var/run", "/var/lib"].iter().any(|folder| path.starts_with(folder));
    Ok(if hidden { path.canonicalize()? } else { path })
}

/// Reads VmHWM, in bytes. The kernel says kB and means 1024 bytes.
fn high_water(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Without what would drive a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

/// How long an engine may take to end by itself; nothing that it would put in order outlives its host.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the end of a process is looked for.
const POLL: Duration = Duration::from_millis(5);

/// What is read of a process's output, in bytes, and shown of it, in lines.
const TAIL: u64 = 4096;
const TAIL_LINES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read() {
        let status = "VmPeak:\t  100 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(high_water(status), Some(2 << 20));
        assert_eq!(high_water("VmRSS:\t1 kB\n"), None);
        assert!(high_water(&std::fs::read_to_string("/proc/self/status").unwrap()).unwrap() > 1 << 20);
    }

    #[test]
    fn output_cannot_drive_a_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\r\nc\u{7}"), "a[31mb\nc");
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(locate("sh").unwrap().is_absolute());
        assert!(locate("no-such-program-here").unwrap_err().message.contains("not found in PATH"));
        assert!(locate("/etc/passwd").unwrap_err().message.contains("is no program"));
    }
}

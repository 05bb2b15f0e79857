//! Network namespaces that vanish with their guard, and with them the processes that were started in them.
//!
//! Processes are marked by an environment variable, so that dropping a namespace ends what the harness started there,
//! daemons included, and nothing else: a shell that a developer opened in it to look around survives.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{self, Process};
use crate::wait::eventually;
use crate::{names, tools};

/// A network namespace with its loopback up and without duplicate address detection; deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace whose name ends in `label`.
    ///
    /// The first call of a process also removes what earlier runs left behind.
    ///
    /// # Errors
    /// Without root, without `ip`, or if the kernel refuses.
    pub fn new(label: &str) -> Result<Self> {
        static JANITOR: Once = Once::new();
        tools::require_root()?;
        JANITOR.call_once(remove_abandoned);
        let name = names::namespace(label);
        process::run(Command::new("ip").args(["netns", "add", &name]))?;
        // From here on a failure drops the guard, which deletes the namespace.
        let namespace = Self { name };
        // No address in here is anybody else's. The check costs a second, and until it is over a router cannot ask for
        // neighbours, for it does so from its link-local address.
        for which in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{which}/accept_dad"), "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip WORDS` in the namespace; the words are split at white space.
    ///
    /// # Errors
    /// If the command fails; with what it wrote.
    pub fn ip(&self, words: &str) -> Result<String> {
        process::run(Command::new("ip").args(["-n", &self.name]).args(words.split_whitespace()))
    }

    /// A command that will run in the namespace, for callers that want to set more than arguments.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).env(MARK, &self.name);
        command
    }

    /// Runs a program in the namespace to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// If it cannot be started, fails, or takes longer than [`process::RUN_LIMIT`]; with what it wrote.
    pub fn exec<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
        process::run(self.command(program).args(args))
    }

    /// Starts a program in the namespace that is ended when its guard is dropped.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Result<Process> {
        Process::start(program, self.command(program).args(args))
    }

    /// Runs `work` on a thread of its own that has entered the namespace: sockets made there belong to it.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = std::fs::File::open(self.path()).with_context(|| self.path().display().to_string())?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).context("setns")?;
                Ok(work())
            });
            thread.join().map_err(|_| anyhow!("the thread in {} panicked", self.name))?
        })
    }

    /// Starts `work` on a thread of its own that has entered the namespace: for what goes on while the test does
    /// something else.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn spawn_thread(&self, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
        let file = std::fs::File::open(self.path()).with_context(|| self.path().display().to_string())?;
        let (entered, result) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let inside = setns(file, CloneFlags::CLONE_NEWNET);
            let _unheard = entered.send(inside);
            if inside.is_ok() {
                work();
            }
        });
        result.recv().context("the thread has ended")?.context("setns")?;
        Ok(thread)
    }

    /// Sets a value below /proc/sys/net, such as `ipv4/ip_forward`, for this namespace.
    ///
    /// # Errors
    /// If there is no such value or it refuses `value`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        // The kernel shows each thread the values of its own namespace.
        self.enter(|| std::fs::write(&path, value))?.with_context(|| path.display().to_string())
    }

    /// The ids of all processes in the namespace.
    ///
    /// # Errors
    /// If `ip netns pids` fails.
    pub fn pids(&self) -> Result<Vec<u32>> {
        pids(&self.name)
    }

    fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("cannot remove namespace {}: {error:#}", self.name);
        }
    }
}

/// Removes namespaces, links, control sockets and journals of runs whose process is gone.
///
/// A run that was killed cannot clean up; the next one does it here. Failures are no failure of the caller.
pub fn remove_abandoned() {
    for name in entries(FOLDER).into_iter().filter(|name| names::is_abandoned(name)) {
        if let Err(error) = remove(&name) {
            eprintln!("cannot remove abandoned namespace {name}: {error:#}");
        }
    }
    for name in entries("/sys/class/net").into_iter().filter(|name| names::is_abandoned(name)) {
        let _ = process::run(Command::new("ip").args(["link", "delete", &name]));
    }
    for folder in [crate::wg::SOCKET_FOLDER, crate::adit::RUNTIME] {
        for name in entries(folder).into_iter().filter(|name| names::is_abandoned(name)) {
            let _ = std::fs::remove_file(Path::new(folder).join(name));
        }
    }
}

/// Ends the marked processes of a namespace, then deletes it.
fn remove(name: &str) -> Result<()> {
    let marked = || -> Vec<u32> {
        let all = pids(name).unwrap_or_default();
        all.into_iter().filter(|pid| process::has_variable(*pid, MARK, name)).collect()
    };
    for (signal, patience) in [(Signal::SIGTERM, Duration::from_secs(3)), (Signal::SIGKILL, Duration::from_secs(3))] {
        for pid in marked() {
            if let Ok(pid) = i32::try_from(pid) {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
        if eventually("processes to end", patience, || marked().is_empty()).is_ok() {
            break;
        }
    }
    process::run(Command::new("ip").args(["netns", "delete", name]))?;
    let left = marked();
    if !left.is_empty() {
        bail!("processes survived SIGKILL: {left:?}");
    }
    Ok(())
}

fn pids(name: &str) -> Result<Vec<u32>> {
    let text = process::run(Command::new("ip").args(["netns", "pids", name]))?;
    text.split_whitespace().map(|word| word.parse().with_context(|| format!("`ip netns pids`: {word}"))).collect()
}

fn entries(folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The environment variable of processes that the harness starts; its value is the namespace's name.
const MARK: &str = "ADIT_TEST_NAMESPACE";

/// Where ip-netns(8) keeps namespaces.
const FOLDER: &str = "/run/netns";

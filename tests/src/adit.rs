//! The `adit` command under test: where it is, and a tunnel that it runs.
//!
//! Cargo tells tests where a binary is only within the binary's own package. `cargo xtask test` builds the command first
//! and passes its path in `ADIT_BIN`; without that variable, as in a plain `cargo test -p adit-tests -- --ignored`, it is
//! built here, once, in the profile of the test itself.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use adit_core::PublicKey;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::netns::Namespace;
use crate::process::{self, Finished, Process};
use crate::quick::Quick;
use crate::status::Status;
use crate::wait::eventually;
use crate::{names, wg};

/// The path of the `adit` executable.
///
/// # Errors
/// If `ADIT_BIN` names no file, or it cannot be built.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

/// Runs `adit ARGS` to its end, whatever its status. Tunnels are found from any namespace, for their sockets are files.
///
/// # Errors
/// If it cannot be started or does not end.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Finished> {
    process::finish(Command::new(binary()?).args(args), "", process::RUN_LIMIT)
}

/// Runs `adit ARGS` in `namespace` to its end, whatever its status: what undoes a tunnel's changes works where they are.
///
/// # Errors
/// If it cannot be started or does not end.
pub fn run_in<S: AsRef<OsStr>>(namespace: &Namespace, args: impl IntoIterator<Item = S>) -> Result<Finished> {
    process::finish(namespace.command(binary()?).args(args), "", process::RUN_LIMIT)
}

/// A tunnel of the `adit` command with its file; ended on drop.
#[derive(Debug)]
pub struct Adit {
    name: String,
    namespace: String,
    // Dropped before the folder, which holds its file.
    process: Runs,
    /// What `adit up` is told besides the file.
    options: Vec<String>,
    /// What it logs.
    log: &'static str,
    /// The command that it is run by, if any.
    wrapper: Vec<&'static str>,
    folder: tempfile::TempDir,
    /// Every key that its files have had.
    keys: Vec<PublicKey>,
    /// What lines of level ERROR may say.
    expected: Vec<String>,
}

/// How it runs.
#[derive(Debug)]
enum Runs {
    Not,
    Foreground(Process),
    /// By its process id.
    Daemon(u32),
}

impl Adit {
    /// Writes `config` to a file and runs `adit up --foreground` on it in `namespace` until the tunnel is up.
    ///
    /// # Errors
    /// If it does not come up; with what it said.
    pub fn start(namespace: &Namespace, config: &Quick) -> Result<Self> {
        let mut adit = Self::launch(namespace, config)?;
        adit.wait_up()?;
        Ok(adit)
    }

    /// Like [`Adit::start`] with options for `adit up`, such as `--no-offload`.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(namespace: &Namespace, config: &Quick, options: &[&str]) -> Result<Self> {
        let mut adit = Self::new(namespace, config)?;
        adit.options = options.iter().map(|option| (*option).to_owned()).collect();
        adit.launch_again(namespace)?;
        adit.wait_up()?;
        Ok(adit)
    }

    /// Like [`Adit::start`] by a command that runs another one, which is its last arguments, as `env` does.
    ///
    /// # Errors
    /// As there.
    pub fn start_in(namespace: &Namespace, config: &Quick, wrapper: &[&'static str]) -> Result<Self> {
        let mut adit = Self::new(namespace, config)?;
        adit.wrapper = wrapper.to_vec();
        adit.launch_again(namespace)?;
        adit.wait_up()?;
        Ok(adit)
    }

    /// Runs `adit up --foreground` on a configuration that does not come up, by a command as for [`Adit::start_in`], and
    /// makes sure that nothing is left of it.
    ///
    /// # Errors
    /// If it comes up, which is noticed after [`process::RUN_LIMIT`], or something is left.
    pub fn refused(namespace: &Namespace, config: &Quick, wrapper: &[&'static str]) -> Result<Finished> {
        let mut adit = Self::new(namespace, config)?;
        adit.wrapper = wrapper.to_vec();
        let finished = process::finish(&mut adit.up(namespace)?, "", process::RUN_LIMIT)?;
        ensure!(adit.left().is_empty(), "left behind: {:?}\n{finished:?}", adit.left());
        Ok(finished)
    }

    /// The command that runs it in the foreground.
    fn up(&self, namespace: &Namespace) -> Result<Command> {
        let binary = binary()?;
        let mut up = match self.wrapper.split_first() {
            Some((program, args)) => {
                let mut wrapped = namespace.command(program);
                wrapped.args(args).arg(binary);
                wrapped
            }
            None => namespace.command(binary),
        };
        up.args(["--log-format", "json", "--log", self.log, "up", "--foreground"]).args(&self.options).arg(self.path());
        Ok(up)
    }

    /// Like [`Adit::start`] with a short log, for scenarios in which much cannot be sent.
    ///
    /// # Errors
    /// As there.
    pub fn start_quietly(namespace: &Namespace, config: &Quick) -> Result<Self> {
        let mut adit = Self::new(namespace, config)?;
        adit.log = "info,adit_control=debug";
        adit.launch_again(namespace)?;
        adit.wait_up()?;
        Ok(adit)
    }

    /// Like [`Adit::start`] without waiting: for two ends that wait for each other. [`Adit::wait_up`] does the rest.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(namespace: &Namespace, config: &Quick) -> Result<Self> {
        let mut adit = Self::new(namespace, config)?;
        adit.launch_again(namespace)?;
        Ok(adit)
    }

    /// Runs `adit up`, which becomes a daemon and returns when the tunnel is up.
    ///
    /// # Errors
    /// If it fails; with what it said.
    pub fn daemon(namespace: &Namespace, config: &Quick) -> Result<Self> {
        let mut adit = Self::new(namespace, config)?;
        let mut up = namespace.command(binary()?);
        up.args(["--log-format", "json", "--log", LOG, "up"]).arg(adit.path());
        let said = process::finish(&mut up, "", process::RUN_LIMIT)?.success()?;
        // From here on the namespace's guard ends it, whatever happens.
        let pid = adit.status()?.json.pointer("/pid").and_then(Value::as_u64).context("status has no pid")?;
        ensure!(said.contains(&format!("process {pid}")), "the daemon is process {pid}: {said}");
        adit.process = Runs::Daemon(u32::try_from(pid)?);
        Ok(adit)
    }

    fn new(namespace: &Namespace, config: &Quick) -> Result<Self> {
        let mut adit = Self {
            name: names::link("adi"),
            namespace: namespace.name().to_owned(),
            process: Runs::Not,
            options: Vec::new(),
            log: LOG,
            wrapper: Vec::new(),
            folder: tempfile::tempdir()?,
            keys: Vec::new(),
            expected: Vec::new(),
        };
        adit.write(config)?;
        Ok(adit)
    }

    /// Runs `adit up --foreground` on its file once more, after it has ended; without waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch_again(&mut self, namespace: &Namespace) -> Result<()> {
        let mut up = self.up(namespace)?;
        self.process = Runs::Foreground(Process::start(&format!("adit up {}", self.name), &mut up)?);
        Ok(())
    }

    /// Waits until a tunnel that was launched is up.
    ///
    /// # Errors
    /// If it does not come up; with what it said.
    pub fn wait_up(&mut self) -> Result<()> {
        self.wait_for_line("\"tunnel is up\"")?;
        Ok(())
    }

    /// Waits for a log line that contains `text` and was not seen by an earlier call.
    ///
    /// # Errors
    /// If it does not come; with what was said.
    pub fn wait_for_line(&mut self, text: &str) -> Result<String> {
        self.process()?.wait_for_line(text, PATIENCE)
    }

    /// Writes another configuration to its file; nobody is told.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, config: &Quick) -> Result<()> {
        self.keys.push(config.wg.private_key.public_key());
        self.write_text(&config.to_text())
    }

    /// Writes any text to its file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_text(&self, text: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(self.path(), text)?;
        Ok(std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(0o600))?)
    }

    /// The interface's name, which is also the tunnel's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.conf", self.name))
    }

    /// The process that runs in the foreground, for its output and for signals.
    ///
    /// # Errors
    /// If it does not run, or as a daemon.
    pub fn process(&mut self) -> Result<&mut Process> {
        match &mut self.process {
            Runs::Foreground(process) => Ok(process),
            other => bail!("{} is no process of this test: {other:?}", self.name),
        }
    }

    /// What `adit status NAME --json` says.
    ///
    /// # Errors
    /// If it fails or is no JSON.
    pub fn status(&self) -> Result<Status> {
        let text = run(["status", &self.name, "--json"])?.success()?;
        Ok(Status { json: serde_json::from_str(&text).with_context(|| text.clone())? })
    }

    /// Runs `adit reload NAME`.
    ///
    /// # Errors
    /// If it fails; with what it said.
    pub fn reload(&self) -> Result<()> {
        run(["reload", &self.name])?.success().map(drop)
    }

    /// Ends it with SIGTERM, or a daemon with `adit down`, and makes sure that nothing of it is left.
    ///
    /// # Errors
    /// If it does not end well, has logged an error, or left something behind.
    pub fn stop(&mut self) -> Result<()> {
        let log = match std::mem::replace(&mut self.process, Runs::Not) {
            Runs::Not => bail!("{} does not run", self.name),
            Runs::Foreground(mut process) => {
                let status = process.stop(PATIENCE)?;
                ensure!(status.success(), "{status}\n{process}");
                process.output()
            }
            Runs::Daemon(pid) => {
                let log = std::fs::read_to_string(Path::new(RUNTIME).join(format!("{}.log", self.name)))?;
                run(["down", &self.name])?.success().with_context(|| log.clone())?;
                eventually("the daemon to end", PATIENCE, || !process::is_alive(pid))?;
                log
            }
        };
        self.ended_cleanly(&log)
    }

    /// Waits until it ends by itself, which is a failure, and makes sure that nothing of it is left.
    ///
    /// # Errors
    /// If it does not end, ends well, has logged an error that was not expected, or left something behind; and else
    /// there is what it said, which is the result.
    pub fn fails(&mut self) -> Result<String> {
        let (log, said) = self.ends_by_itself()?;
        self.ended_cleanly(&log)?;
        Ok(said)
    }

    /// Like [`Adit::fails`], for one that leaves the host closed: of it there is its journal, and nothing else.
    ///
    /// # Errors
    /// As there.
    pub fn fails_closed(&mut self) -> Result<String> {
        let (log, said) = self.ends_by_itself()?;
        self.no_errors(&log)?;
        let left = self.left();
        ensure!(matches!(&left[..], [journal] if journal.ends_with(".journal")), "{left:?}\n{log}");
        Ok(said)
    }

    /// What it has logged, and what it said beside that, when it has failed.
    fn ends_by_itself(&mut self) -> Result<(String, String)> {
        let process = self.process()?;
        let status = process.wait_exit(PATIENCE)?;
        ensure!(status.code() == Some(1), "{status}\n{process}");
        let log = process.output();
        self.process = Runs::Not;
        let (lines, last): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with('{'));
        Ok((lines.join("\n"), last.join("\n")))
    }

    fn ended_cleanly(&self, log: &str) -> Result<()> {
        self.no_errors(log)?;
        let left = self.left();
        ensure!(left.is_empty(), "{} has left behind: {left:?}\n{log}", self.name);
        Ok(())
    }

    fn no_errors(&self, log: &str) -> Result<()> {
        let expected = |line: &str| self.expected.iter().any(|text| line.contains(text));
        let errors: Vec<&str> = log.lines().filter(|line| is_error(line) && !expected(line)).collect();
        ensure!(errors.is_empty(), "{} has logged errors:\n{}\n---\n{log}", self.name, errors.join("\n"));
        Ok(())
    }

    /// Waits for an error with `text` in the log, which is none that fails the test from now on.
    ///
    /// # Errors
    /// If it does not come; with what was said.
    pub fn expect_error(&mut self, text: &str) -> Result<String> {
        self.expected.push(text.to_owned());
        self.wait_for_line(text)
    }

    /// Kills it, as the kernel does when memory is short: nothing can be undone.
    ///
    /// # Errors
    /// If it does not run in the foreground, or had logged an error.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process()?;
        process.signal(Signal::SIGKILL)?;
        process.wait_exit(PATIENCE)?;
        let log = process.output();
        self.process = Runs::Not;
        self.no_errors(&log)
    }

    /// What there is of it on the machine: its interface, sockets, journal and log.
    pub fn left(&self) -> Vec<String> {
        let mut left = self.files();
        left.extend(Some(wg::socket(&self.name)).filter(|socket| socket.exists()));
        let mut left: Vec<_> = left.into_iter().map(|path| path.display().to_string()).collect();
        let mut look = Command::new("ip");
        if process::run(look.args(["-n", &self.namespace, "link", "show", &self.name])).is_ok() {
            left.push(format!("interface {}", self.name));
        }
        left
    }

    /// Its files among those of all tunnels, with those that had no name of their own yet when it was killed.
    fn files(&self) -> Vec<PathBuf> {
        let unfinished = format!(".{}:", self.name);
        let is_own = |path: &PathBuf| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.starts_with(&unfinished) || path.file_stem().is_some_and(|stem| stem == self.name.as_str())
        };
        let entries = std::fs::read_dir(RUNTIME).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(is_own).collect()
    }
}

impl Drop for Adit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(Path::new(RUNTIME).join(format!("{}.log", self.name)));
            log.iter().for_each(|log| eprintln!("--- log of {}\n{log}---", self.name));
        }
        if let Runs::Daemon(_) = self.process {
            let _ = run(["down", &self.name]);
        }
        self.process = Runs::Not;
        // After a clean end there is nothing but the timestamps, which outlive a tunnel on purpose.
        let timestamps = self.keys.iter().map(|key| Path::new(STATE).join(format!("{}.timestamp", key.to_hex())));
        for file in self.files().into_iter().chain(timestamps) {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Whether a line of the JSON log is of level ERROR, or is no line of the log: a panic, for instance.
fn is_error(line: &str) -> bool {
    // What is odd in a file is told in a person's words: FILE:LINE:COLUMN: warning: KEY: WHAT.
    if line.contains(".conf:") && line.contains(": warning: ") {
        return false;
    }
    let level = serde_json::from_str::<Value>(line).ok();
    let level = level.as_ref().and_then(|line| line.pointer("/level")).and_then(Value::as_str);
    !matches!(level, Some("TRACE" | "DEBUG" | "INFO" | "WARN"))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ADIT_BIN").map(PathBuf::from) {
        ensure!(path.is_file(), "ADIT_BIN names no file: {}", path.display());
        return Ok(path);
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("workspace")?.join("Cargo.toml");
    let mut build = escargot::CargoBuild::new().manifest_path(manifest).package("adit-cli").bin("adit");
    if !cfg!(debug_assertions) {
        build = build.release();
    }
    Ok(build.run().context("cargo build --package adit-cli")?.path().to_path_buf())
}

/// What tunnels under test log.
const LOG: &str = "info,adit_core=debug,adit_tun=debug,adit_control=debug";

/// How long a tunnel may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where tunnels keep their sockets, journals and logs while they run (`adit up`, FILES).
pub(crate) const RUNTIME: &str = "/run/adit";

/// Where tunnels keep what outlives them.
const STATE: &str = "/var/lib/adit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_are_told_from_other_lines() {
        for harmless in [r#"{"level":"INFO","message":"tunnel is up"}"#, r#"{"level":"WARN","message":"an ERROR"}"#] {
            assert!(!is_error(harmless), "{harmless}");
        }
        assert!(!is_error("/tmp/x/wg0.conf:3:14: warning: KillSwitch: no default route is allowed"));
        for bad in [r#"{"level":"ERROR","message":"x"}"#, "thread 'main' panicked at x.rs:1:1:"] {
            assert!(is_error(bad), "{bad}");
        }
    }
}

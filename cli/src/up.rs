//! `adit up`: in the foreground, or as a daemon whose start is watched until it is ready or has failed.
//!
//! The daemon is this program once more, in a session of its own. Until it is ready the two are joined by a pipe, over
//! which it tells how its start went; so the command that a person typed ends with the daemon's own error and exit code.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use adit_control::api::{self, ApiClient};
use adit_control::config::{self, Loaded};
use adit_control::tunnel::{self, Directories, Options, Progress, Tunnel, TunnelError};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::args::{Global, Up};
use crate::check;
use crate::failure::{Failure, Kind, Outcome, tell};
use crate::progress::Meter;
use crate::{locate, logging};

/// How long a start may take, not counting the waits that the command line sets: hooks have 120 s each.
const START_LIMIT: Duration = Duration::from_secs(600);

/// How long a start that is given up may take to undo what it did.
const END_LIMIT: Duration = Duration::from_secs(30);

#[cfg(target_os = "macos")]
const PRIVILEGES: &str = "bringing a tunnel up takes root";
#[cfg(not(target_os = "macos"))]
const PRIVILEGES: &str = "bringing a tunnel up takes root, or CAP_NET_ADMIN, /dev/net/tun and a writable /run/adit";

/// So many changes take more than a moment.
const MANY: u64 = 5000;

const BAR: &str = "{bar:30} {pos} of {len} settings applied";

/// Longest report of a daemon in bytes: a thousand errors of a configuration fit.
const MAX_REPORT: u64 = 1 << 20;

/// What a daemon tells the command that started it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// So many of so many changes are made.
    Progress { done: u64, total: u64 },
    /// The tunnel is up.
    Ready { pid: u32 },
    /// It is not, and why.
    Failed(Failure),
}

/// Brings a tunnel up.
pub(crate) fn run(options: &Up, global: &Global) -> Outcome {
    let (path, name) = target(options)?;
    // An error in the file is told at once, before anything is started.
    let loaded = config::load(&path).map_err(|error| check::failure(&path, &error))?;
    if options.report_ready {
        return serve(options, path, name, loaded);
    }
    loaded.warnings.iter().for_each(tell);
    let runtime = runtime()?;
    runtime.block_on(refuse_running(&name))?;
    if options.foreground {
        drop(runtime);
        serve(options, path, name, loaded)
    } else {
        runtime.block_on(daemon(options, global, &path, &name))
    }
}

fn target(options: &Up) -> Outcome<(PathBuf, String)> {
    match &options.interface {
        None => locate::file(&options.tunnel),
        Some(name) => {
            if config::interface_name(Path::new(&format!("{name}.conf"))) != Some(name) {
                let message = format!("--interface {name}: {}", locate::NAMES);
                return Err(Failure::new(Kind::Usage, message));
            }
            let path = match locate::file(&options.tunnel) {
                Err(failure) if failure.kind == Kind::Configuration => PathBuf::from(&options.tunnel),
                found => found?.0,
            };
            Ok((path, name.clone()))
        }
    }
}

/// Fails if the tunnel is up; one that comes up a moment later is found by the daemon.
async fn refuse_running(name: &str) -> Outcome {
    let version = async { ApiClient::connect(Path::new(api::SOCKET_DIR), name).await?.version().await }.await;
    match version {
        Ok((_, pid)) => {
            let message = format!(
                "the tunnel {name} is up already, as process {pid}: `adit reload {name}` applies a changed file, \
                 `adit down {name}` ends it"
            );
            Err(Failure::new(Kind::Exists, message))
        }
        Err(_) => Ok(()),
    }
}

/// Starts this program again as a daemon and waits for its report; an interrupt meanwhile is passed on to it.
async fn daemon(options: &Up, global: &Global, path: &Path, name: &str) -> Outcome {
    let log_file = log_file(global, name)?;
    if !path.is_file() {
        let message = format!("{}: a daemon reads its file again; what is no file needs --foreground", path.display());
        return Err(Failure::new(Kind::Configuration, message));
    }
    let path = std::fs::canonicalize(path)?;
    let mut signals = Signals::new()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--log")
        .arg(&global.log)
        .arg("--log-format")
        .arg(match global.log_format {
            crate::args::LogFormat::Human => "human",
            crate::args::LogFormat::Json => "json",
        })
        .arg("--log-file")
        .arg(&log_file)
        .args(["up", "--report-ready", "--interface", name])
        .args(["--handshake-wait", &options.handshake_wait.to_string()])
        .args(["--resolve-wait", &options.resolve_wait.to_string()])
        .args(options.no_offload.then_some("--no-offload"))
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id().ok_or_else(|| Failure::failed("the daemon has no process id"))?;
    let stdout = child.stdout.take().ok_or_else(|| Failure::failed("the daemon has no output"))?;
    let mut report = BufReader::new(stdout.take(MAX_REPORT)).lines();
    let limit = START_LIMIT + Duration::from_secs(options.resolve_wait + options.handshake_wait);
    let line = {
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let mut meter = None;
        loop {
            tokio::select! {
                line = report.next_line() => {
                    let line = line?.unwrap_or_default();
                    match serde_json::from_str(&line) {
                        Ok(Report::Progress { done, total }) => show(&mut meter, done, total),
                        _ => break Ok(line),
                    }
                }
                told = signals.next() => if let Told::End = told {
                    break Err(Failure::new(Kind::Interrupted, format!("interrupted: {name} was not brought up")));
                },
                () = &mut deadline => {
                    let text = format!("{name} did not come up within {} s; see {}", limit.as_secs(), log_file.display());
                    break Err(Failure::failed(text));
                }
            }
        }
    };
    let line = match line {
        Ok(line) => line,
        Err(failure) => {
            end(&mut child, pid).await?;
            return Err(failure);
        }
    };
    match serde_json::from_str(&line) {
        Ok(Report::Ready { pid }) => {
            writeln!(io::stdout(), "{name} is up (process {pid}, log {})", log_file.display())?;
            Ok(())
        }
        Ok(Report::Failed(failure)) => {
            child.wait().await?;
            Err(failure)
        }
        Ok(Report::Progress { .. }) | Err(_) => {
            let status = child.wait().await?;
            Err(Failure::failed(format!(
                "process {pid} ended with {status} before the tunnel was up; see {}",
                log_file.display()
            )))
        }
    }
}

/// Shows how many changes are made, if they are so many that this takes time.
fn show(meter: &mut Option<Meter>, done: u64, total: u64) {
    if total >= MANY {
        let meter = meter.get_or_insert_with(|| Meter::new(total, BAR, false));
        meter.at(done, |_| format!("{done} of {total} settings are applied"));
    }
}

/// Where the daemon logs: a path that is right in any folder, to a file that can be written.
fn log_file(global: &Global, name: &str) -> Outcome<PathBuf> {
    let path = match &global.log_file {
        Some(path) => std::path::absolute(path)?,
        None => default_log(name).into(),
    };
    let folder = path.parent().filter(|_| global.log_file.is_none());
    folder.map_or(Ok(()), std::fs::create_dir_all).and_then(|()| logging::open(&path)).map_err(|error| {
        let help =
            if error.kind() == io::ErrorKind::PermissionDenied { format!("; {PRIVILEGES}") } else { String::new() };
        Failure { message: format!("{}: {error}{help}", path.display()), ..error.into() }
    })?;
    Ok(path)
}

/// Where a daemon logs if the command line does not say.
fn default_log(name: &str) -> String {
    format!("{}/{name}.log", api::SOCKET_DIR)
}

/// Asks a daemon to end and waits until it has undone what it did.
async fn end(child: &mut Child, pid: u32) -> Outcome {
    if let Some(pid) = i32::try_from(pid).ok().filter(|_| child.id().is_some()) {
        // It may have ended meanwhile.
        let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    match tokio::time::timeout(END_LIMIT, child.wait()).await {
        Ok(status) => status.map(drop).map_err(Failure::from),
        Err(_) => Err(Failure::failed(format!("process {pid} was told to end, and is still at it"))),
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Serves the tunnel in this process until it is told to end.
fn serve(options: &Up, path: PathBuf, name: String, loaded: Loaded) -> Outcome {
    if options.report_ready {
        // A session of its own: the terminal's signals are not for the daemon. Fails only if it has one already.
        let _has_one = nix::unistd::setsid();
        // No file system is kept from being unmounted.
        std::env::set_current_dir("/")?;
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "this is a bug in Adit")));
    }
    let runtime = runtime()?;
    let result = runtime.block_on(serve_async(options, path, name, loaded));
    // A lookup that hangs in the system's resolver must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let (Err(failure), true) = (&result, options.report_ready) {
        tracing::error!("{}", failure.message);
        report(&Report::Failed(failure.clone()))?;
    }
    result
}

async fn serve_async(options: &Up, path: PathBuf, name: String, loaded: Loaded) -> Outcome {
    if options.report_ready && !loaded.warnings.is_empty() {
        tracing::warn!(count = loaded.warnings.len(), "the configuration has warnings; `adit check` shows them");
    }
    let mut signals = Signals::new()?;
    let cancel = Arc::new(Notify::new());
    let (progress, mut applied) = watch::channel(Progress::default());
    let start = Tunnel::start(Options {
        name: name.clone(),
        path,
        config: loaded.config,
        resolve_wait: Duration::from_secs(options.resolve_wait),
        handshake_wait: Duration::from_secs(options.handshake_wait),
        offload: !options.no_offload,
        directories: Directories::default(),
        progress,
        cancel: Arc::clone(&cancel),
    });
    let mut tunnel = {
        tokio::pin!(start);
        let mut meter = None;
        loop {
            tokio::select! {
                started = &mut start => break started.map_err(|error| failure(&error))?,
                Ok(()) = applied.changed() => {
                    let Progress { done, total } = *applied.borrow_and_update();
                    let (done, total) = (done as u64, total as u64);
                    match options.report_ready {
                        true => report(&Report::Progress { done, total })?,
                        false => show(&mut meter, done, total),
                    }
                }
                // A reload before the tunnel is up would read the same file again.
                told = signals.next() => if let Told::End = told {
                    cancel.notify_one();
                },
            }
        }
    };
    if options.report_ready {
        report(&Report::Ready { pid: std::process::id() })?;
        let_go_of_stdout()?;
    }
    until_told(&mut tunnel, &mut signals).await;
    let stopped = tunnel.stop().await.map_err(|error| failure(&error));
    if options.report_ready && stopped.is_ok() {
        remove_default_log(&name);
    }
    stopped
}

/// Removes the log that nobody asked for, after a clean end; after any other it tells what happened.
fn remove_default_log(name: &str) {
    let path = default_log(name);
    for file in [format!("{path}.1"), path] {
        // It is not there if the command line named another one.
        let _elsewhere = std::fs::remove_file(file);
    }
}

/// Waits for a reason to end: a signal, a request, or that the tunnel has ended by itself.
async fn until_told(tunnel: &mut Tunnel, signals: &mut Signals) {
    loop {
        tokio::select! {
            _ended = tunnel.wait() => return,
            told = signals.next() => match told {
                Told::End => return,
                Told::Reload => match tunnel.reload().await {
                    Ok(notes) if notes.is_empty() => {}
                    Ok(notes) => tracing::warn!(notes = %notes.join("; "), "the configuration was reloaded, with reservations"),
                    Err(error) => tracing::error!(%error, "the configuration was not reloaded; the tunnel goes on as it was"),
                },
            },
        }
    }
}

/// The signals that mean something.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::End,
            _ = self.terminate.recv() => Told::End,
            _ = self.reload.recv() => Told::Reload,
        }
    }
}

/// What a signal means.
enum Told {
    /// SIGINT or SIGTERM: take the tunnel down.
    End,
    /// SIGHUP: read the file again.
    Reload,
}

fn report(report: &Report) -> Outcome {
    let line = serde_json::to_string(report).map_err(Failure::failed)?;
    // The command that waits may have been interrupted; the daemon goes on.
    let mut stdout = io::stdout();
    let _gone = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    Ok(())
}

/// Points standard output to nowhere, so that the pipe closes.
fn let_go_of_stdout() -> Outcome {
    let null = File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null).map_err(io::Error::from)?;
    Ok(())
}

/// The exit code's meaning of a tunnel that could not be.
pub(crate) fn failure(error: &TunnelError) -> Failure {
    let kind = match error.kind() {
        tunnel::Kind::Configuration => Kind::Configuration,
        tunnel::Kind::Permission => Kind::NotPermitted,
        tunnel::Kind::Exists => Kind::Exists,
        tunnel::Kind::Network => Kind::Network,
        tunnel::Kind::Stopped => Kind::Interrupted,
        tunnel::Kind::Other => Kind::Failed,
    };
    match error {
        TunnelError::Stopping => Failure::new(kind, "interrupted before the tunnel was up; what was begun is undone"),
        error if kind == Kind::NotPermitted => Failure::new(kind, format!("{error}; {PRIVILEGES}")),
        error => Failure::new(kind, error),
    }
}

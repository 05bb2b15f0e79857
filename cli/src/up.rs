//! `adit up`: in the foreground, or as a daemon whose start is watched until it is ready or has failed.
//!
//! The daemon is this program once more, in a session of its own. Until it is ready the two are joined by a pipe, over
//! which it tells how its start went; so the command that a person typed ends with the daemon's own error and exit code.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use adit_control::config::{self, Loaded};
use adit_control::tunnel::{self, Directories, Ended, Options, Tunnel, TunnelError};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::args::{Global, Up};
use crate::check;
use crate::failure::{Failure, Kind, Outcome};
use crate::locate;

/// Where a daemon logs if the command line does not say; `%` stands for the tunnel's name.
const DEFAULT_LOG: &str = "/run/adit/%.log";

/// A daemon that has not said anything after this long is not coming up; hooks and names have limits of their own.
const START_LIMIT: Duration = Duration::from_secs(300);

/// What a daemon tells the command that started it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// The tunnel is up.
    Ready { pid: u32 },
    /// It is not, and why.
    Failed(Failure),
}

/// Brings a tunnel up.
pub(crate) fn run(options: &Up, global: &Global) -> Outcome {
    let (path, name) = target(options)?;
    // An error in the file is told at once, before anything is started.
    let loaded = config::load(&path).map_err(|error| Failure::new(check::failure_kind(&error), error))?;
    if !options.report_ready {
        for warning in &loaded.warnings {
            anstream::eprintln!("{warning}");
        }
    }
    if options.foreground || options.report_ready {
        serve(options, path, name, loaded)
    } else {
        daemon(options, global, &path, &name)
    }
}

fn target(options: &Up) -> Outcome<(PathBuf, String)> {
    match &options.interface {
        None => locate::file(&options.tunnel),
        Some(name) => {
            let path = match locate::file(&options.tunnel) {
                Err(failure) if failure.kind == Kind::Configuration => PathBuf::from(&options.tunnel),
                found => found?.0,
            };
            Ok((path, name.clone()))
        }
    }
}

/// Starts this program again as a daemon and waits for its report.
fn daemon(options: &Up, global: &Global, path: &std::path::Path, name: &str) -> Outcome {
    let log_file = global.log_file.clone().unwrap_or_else(|| DEFAULT_LOG.replace('%', name).into());
    if let Some(dir) = log_file.parent().filter(|_| global.log_file.is_none()) {
        std::fs::create_dir_all(dir)
            .map_err(|error| Failure { message: format!("{}: {error}", dir.display()), ..error.into() })?;
    }
    let path = std::fs::canonicalize(path)?;
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
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id();
    let stdout = child.stdout.take().ok_or_else(|| Failure::failed("the daemon has no output"))?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line).map(|_| line);
        // Nobody waits any more if the limit is over.
        let _late = sender.send(read);
    });
    let line = match receiver.recv_timeout(START_LIMIT) {
        Ok(line) => line?,
        Err(_) => {
            child.kill()?;
            return Err(Failure::failed(format!(
                "process {pid} did not come up within {} s; see {}",
                START_LIMIT.as_secs(),
                log_file.display()
            )));
        }
    };
    match serde_json::from_str(&line) {
        Ok(Report::Ready { pid }) => {
            writeln!(io::stdout(), "{name} is up (process {pid}, log {})", log_file.display())?;
            Ok(())
        }
        Ok(Report::Failed(failure)) => {
            child.wait()?;
            Err(failure)
        }
        Err(_) => {
            let status = child.wait()?;
            Err(Failure::failed(format!(
                "process {pid} ended with {status} before the tunnel was up; see {}",
                log_file.display()
            )))
        }
    }
}

/// Serves the tunnel in this process until it is told to end.
fn serve(options: &Up, path: PathBuf, name: String, loaded: Loaded) -> Outcome {
    if options.report_ready {
        // A session of its own: the terminal's signals are not for the daemon. Fails only if it has one already.
        let _has_one = nix::unistd::setsid();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve_async(options, path, name, loaded));
    // A lookup that hangs in the system's resolver must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let (Err(failure), true) = (&result, options.report_ready) {
        report(&Report::Failed(failure.clone()))?;
    }
    result
}

async fn serve_async(options: &Up, path: PathBuf, name: String, loaded: Loaded) -> Outcome {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::new()?;
    let cancel = Arc::new(Notify::new());
    let start = Tunnel::start(Options {
        name: name.clone(),
        path,
        config: loaded.config,
        handshake_wait: Duration::from_secs(options.handshake_wait),
        directories: Directories::default(),
        cancel: Arc::clone(&cancel),
    });
    let mut tunnel = {
        tokio::pin!(start);
        loop {
            tokio::select! {
                started = &mut start => break started.map_err(|error| failure(&error))?,
                // A reload before the tunnel is up would read the same file again.
                Told::End = signals.next() => cancel.notify_one(),
            }
        }
    };
    if options.report_ready {
        report(&Report::Ready { pid: std::process::id() })?;
        let_go_of_stdout()?;
    }
    let ended = until_told(&mut tunnel, &mut signals).await;
    let stopped = tunnel.stop().await.map_err(|error| failure(&error));
    if options.report_ready && stopped.is_ok() {
        remove_default_log(&name);
    }
    match ended {
        Some(Ended::PumpEnded) => stopped.and(Err(Failure::failed("the device is gone: somebody has removed it"))),
        _ => stopped,
    }
}

/// Removes the log that nobody asked for, after a clean end; after any other it tells what happened.
fn remove_default_log(name: &str) {
    let path = DEFAULT_LOG.replace('%', name);
    for file in [format!("{path}.1"), path] {
        // It is not there if the command line named another one.
        let _elsewhere = std::fs::remove_file(file);
    }
}

/// Waits for a reason to end; `None` is a signal.
async fn until_told(tunnel: &mut Tunnel, signals: &mut Signals) -> Option<Ended> {
    loop {
        tokio::select! {
            ended = tunnel.wait() => return Some(ended),
            told = signals.next() => match told {
                Told::End => return None,
                Told::Reload => match tunnel.reload().await {
                    Ok(notes) => notes.iter().for_each(|note| tracing::warn!("{note}")),
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
        tunnel::Kind::Other => Kind::Failed,
    };
    Failure::new(kind, error)
}

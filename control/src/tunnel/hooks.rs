//! `PreUp`, `PostUp`, `PreDown` and `PostDown`: commands of the configuration, run by a shell as wg-quick(8) does.
//!
//! Only the shell is waited for: what a hook leaves in the background goes on, and what it prints is logged as long as the
//! tunnel lives. A hook that takes too long, or whose start is given up, is ended with all that it started.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::TunnelError;
use crate::redact;

/// How long one hook may take. wg-quick sets no limit, but a start has to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long to wait for the last of a finished hook's output; it is longer only if something in the background holds it.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// wg-quick evaluates hooks in bash; a host without it gets its plain shell.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Longest line of a hook's output that is logged as one, in bytes.
const MAX_LINE: usize = 4096;

/// Runs hooks in order and stops at the first that fails.
pub(super) async fn run(hook: &'static str, commands: &[String], interface: &str) -> Result<(), TunnelError> {
    for command in commands {
        run_one(hook, command, interface).await?;
    }
    Ok(())
}

/// Runs all hooks on the way down, whatever becomes of them; the first failure is returned.
pub(super) async fn run_all(hook: &'static str, commands: &[String], interface: &str) -> Result<(), TunnelError> {
    let mut result = Ok(());
    for command in commands {
        if let Err(error) = run_one(hook, command, interface).await {
            tracing::warn!(hook, "a hook failed; the way down goes on");
            tracing::debug!(%error, "hook");
            result = result.and(Err(error));
        }
    }
    result
}

async fn run_one(hook: &'static str, command: &str, interface: &str) -> Result<(), TunnelError> {
    let failed = |outcome: String| TunnelError::Hook { hook, command: redact::keys(command).into_owned(), outcome };
    let text = command.replace("%i", interface);
    tracing::info!(hook, "run");
    tracing::debug!(hook, command = %redact::keys(&text), "command");
    let shell = SHELLS.into_iter().find(|shell| std::path::Path::new(shell).exists()).unwrap_or("sh");
    let mut child = Command::new(shell)
        .arg("-c")
        .arg(&text)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("could not be started: {error}")))?;
    let mut output = JoinSet::new();
    output.spawn(log_lines(hook, child.stdout.take()));
    output.spawn(log_lines(hook, child.stderr.take()));
    let mut group = Group::of(&child);
    let waited = tokio::time::timeout(PATIENCE, child.wait()).await;
    if waited.is_ok() {
        group.release();
        let drained = async { while output.join_next().await.is_some() {} };
        // Whatever is in the background keeps a reader, lest it die of a closed pipe.
        let _in_background = tokio::time::timeout(LAST_WORDS, drained).await;
    }
    output.detach_all();
    match waited {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("ended with {status}"))),
        Ok(Err(error)) => Err(failed(format!("could not be waited for: {error}"))),
        Err(_) => Err(failed(format!("did not end within {} s", PATIENCE.as_secs()))),
    }
}

/// The process group of a hook, which is ended on drop unless the hook has ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw))
    }

    fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended meanwhile; its id is not given away before the child is waited for.
            let _gone = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Logs what a hook prints, without keys and addresses.
async fn log_lines(hook: &'static str, output: Option<impl AsyncRead + Unpin>) {
    let Some(mut output) = output else { return };
    let mut buffer = [0; MAX_LINE];
    let mut filled = 0;
    while let Ok(read @ 1..) = output.read(&mut buffer[filled..]).await {
        filled += read;
        let mut start = 0;
        while let Some(length) = buffer[start..filled].iter().position(|byte| *byte == b'\n') {
            log_line(hook, &buffer[start..start + length]);
            start += length + 1;
        }
        if start == 0 && filled == buffer.len() {
            log_line(hook, &buffer);
            start = filled;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
    if filled > 0 {
        log_line(hook, &buffer[..filled]);
    }
}

fn log_line(hook: &'static str, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    tracing::info!(hook, output = %redact::addresses(&redact::keys(line.trim_end())), "printed");
}

//! `PreUp`, `PostUp`, `PreDown` and `PostDown`: commands of the configuration, run by a shell as wg-quick(8) does.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use super::TunnelError;

/// How long one hook may take. wg-quick sets no limit, but a start has to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// wg-quick evaluates hooks in bash; a host without it gets its plain shell.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

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
            tracing::warn!(%error, "a hook failed");
            result = result.and(Err(error));
        }
    }
    result
}

async fn run_one(hook: &'static str, command: &str, interface: &str) -> Result<(), TunnelError> {
    let failed = |outcome: String| TunnelError::Hook { hook, command: command.to_owned(), outcome };
    let text = command.replace("%i", interface);
    tracing::info!(hook, command = %text, "run");
    let shell = SHELLS.into_iter().find(|shell| std::path::Path::new(shell).exists()).unwrap_or("sh");
    let mut child = Command::new(shell)
        .arg("-c")
        .arg(&text)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("could not be started: {error}")))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        // A hook may leave a program in the background that holds its output; only the shell itself is waited for.
        tokio::select! {
            status = child.wait() => status,
            () = async { tokio::join!(log_lines(hook, stdout), log_lines(hook, stderr)); std::future::pending().await } => unreachable!(),
        }
    };
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("ended with {status}"))),
        Ok(Err(error)) => Err(failed(format!("could not be waited for: {error}"))),
        Err(_) => {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // The shell's whole process group, which is its own.
                let _gone =
                    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            Err(failed(format!("did not end within {} s", PATIENCE.as_secs())))
        }
    }
}

/// Logs what a hook prints.
async fn log_lines(hook: &'static str, output: Option<impl AsyncRead + Unpin>) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        tracing::info!(hook, "{}", String::from_utf8_lossy(&line).trim_end());
    }
}

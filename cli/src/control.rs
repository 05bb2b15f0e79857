//! `down`, `reload` and `recover`: short conversations with running tunnels and with what dead ones left.

use std::future::Future;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use adit_control::api::{self, ApiClient, ClientError};
use adit_control::journal::Journal;
use adit_control::recover::{Recovered, candidates, recover};
use adit_control::route::RouteError;
use adit_control::{socket, uapi};

use crate::args::{Named, Recover};
use crate::failure::{Failure, Kind, Outcome, tell};
use crate::locate;

/// How long a tunnel may take to undo everything; its hooks may take 120 s each.
const DOWN_LIMIT: Duration = Duration::from_secs(300);

/// Brings a tunnel down; one that was killed is undone.
pub(crate) fn down(options: &Named) -> Outcome {
    let name = locate::name(&options.tunnel)?;
    block_on(async {
        match ApiClient::connect(Path::new(api::SOCKET_DIR), &name).await {
            Ok(client) => match end(client).await {
                Ok(pid) => nothing_left(&name, pid),
                Err(error) => Err(client_failure(&name, &error).await),
            },
            Err(error) if error.is_not_running() => match recover(Path::new(api::SOCKET_DIR), &name).await {
                Ok(Some(Recovered::Undone)) => {
                    writeln!(io::stdout(), "{name} was not running; what it had left behind is undone")?;
                    Ok(())
                }
                Ok(Some(Recovered::Running { pid, .. })) => {
                    Err(Failure::failed(format!("{name} is running as process {pid}, and does not answer")))
                }
                Ok(None) => Err(not_running(&name).await),
                Err(error) => Err(route_failure(&error)),
            },
            Err(error) => Err(client_failure(&name, &error).await),
        }
    })
}

/// Brings the tunnel down and returns the process that it was.
async fn end(mut client: ApiClient) -> Result<u32, ClientError> {
    let (_, pid) = client.version().await?;
    client.down(DOWN_LIMIT).await?;
    Ok(pid)
}

/// Fails if the process has left its journal: then it could not undo everything, or was killed.
fn nothing_left(name: &str, pid: u32) -> Outcome {
    let left = Journal::load(Path::new(api::SOCKET_DIR), name).map_err(Failure::failed)?;
    if left.is_some_and(|journal| journal.owner().pid == pid) {
        return Err(Failure::failed(format!(
            "{name} has ended and could not undo everything; its log tells why, and `adit recover {name}` tries again"
        )));
    }
    Ok(())
}

/// Has a tunnel read its file again.
pub(crate) fn reload(options: &Named) -> Outcome {
    let name = locate::name(&options.tunnel)?;
    block_on(async {
        let asked = async { ApiClient::connect(Path::new(api::SOCKET_DIR), &name).await?.reload().await }.await;
        let notes = match asked {
            Ok(notes) => notes,
            Err(error) => return Err(client_failure(&name, &error).await),
        };
        for note in notes {
            tell(note);
        }
        Ok(())
    })
}

/// Undoes what dead tunnels left behind.
pub(crate) fn recover_all(options: &Recover) -> Outcome {
    let dir = Path::new(api::SOCKET_DIR);
    let names = match &options.name {
        Some(name) => vec![locate::name(name)?],
        None => candidates(dir).map_err(Failure::failed)?,
    };
    block_on(async {
        let mut result = Ok(());
        for name in &names {
            match recover(dir, name).await {
                Ok(Some(Recovered::Undone)) => writeln!(io::stdout(), "{name}: undone")?,
                Ok(Some(Recovered::Running { pid, .. })) => {
                    writeln!(io::stdout(), "{name}: running as process {pid}, nothing to undo")?;
                }
                Ok(None) => writeln!(io::stdout(), "{name}: left nothing behind")?,
                Err(error) => result = Err(route_failure(&error)),
            }
        }
        if names.is_empty() {
            writeln!(io::stdout(), "no tunnel has left anything behind")?;
        }
        result
    })
}

/// Runs one conversation.
pub(crate) fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// What went wrong in a conversation with a tunnel.
pub(crate) async fn client_failure(name: &str, error: &ClientError) -> Failure {
    match error {
        error if error.is_not_running() => not_running(name).await,
        ClientError::Forbidden { .. } => Failure::new(Kind::NotPermitted, error),
        ClientError::BadConfiguration { reason } => {
            let message = format!("the file is wrong, and the tunnel {name} goes on as it was\n{reason}");
            Failure::new(Kind::Configuration, message)
        }
        ClientError::Name { .. } => Failure::new(Kind::NotFound, error),
        error => Failure::failed(error),
    }
}

/// That there is no such tunnel.
pub(crate) async fn not_running(name: &str) -> Failure {
    // That this cannot be told is no news for somebody who asked about a tunnel of Adit's.
    let others = socket::list(Path::new(uapi::SOCKET_DIR)).await.unwrap_or_default();
    let message = if others.iter().any(|other| other == name) {
        format!("{name} is not a tunnel of Adit's: another program made it; `wg show {name}` shows it")
    } else {
        format!("the tunnel {name} is not up")
    };
    Failure::new(Kind::NotFound, message)
}

fn route_failure(error: &RouteError) -> Failure {
    let kind = if error.is_permission() { Kind::NotPermitted } else { Kind::Failed };
    Failure::new(kind, error)
}

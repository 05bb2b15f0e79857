//! What an earlier run of the same name has left behind, and what of it stays in force until the new run has its own.
//!
//! A full tunnel whose process was killed, or whose device was removed, leaves the host closed on purpose. If the next
//! start undid that first, traffic would leave in the clear until its own rules are there, which takes as long as names,
//! hooks and a handshake take. So the new run takes the journal over with everything in it that keeps the host closed;
//! `route::apply` lets go of what is not wanted any more when the new settings are in force. A start that fails leaves the
//! host as closed as it found it.

use std::path::Path;

use super::TunnelError;
use crate::journal::{Journal, JournalError};
use crate::recover::{Recovered, recover};
use crate::route::{self, RouteError};

/// The journal of a new run.
#[derive(Debug)]
pub(super) struct Inheritance {
    /// Owned by this process.
    pub(super) journal: Journal,
    /// Whether an earlier run has left the host closed.
    pub(super) closed: bool,
    /// The mark that datagrams need to get out of a closed host until the new settings are applied.
    pub(super) mark: Option<u32>,
}

/// Fails if the tunnel is running.
///
/// # Errors
/// [`JournalError::Exists`], or the journal cannot be read.
pub(super) fn refuse_running(dir: &Path, name: &str) -> Result<(), TunnelError> {
    match Journal::load(dir, name)? {
        Some(journal) if journal.owner_alive() => {
            let (pid, path) = (journal.owner().pid, journal.path().to_owned());
            Err(JournalError::Exists { name: name.to_owned(), path, pid, alive: true }.into())
        }
        _ => Ok(()),
    }
}

/// Makes the journal of a new run. What a dead one has left is undone, but for what keeps the host closed.
///
/// The caller holds the tunnel's control socket, so that of two starts only one comes here.
///
/// # Errors
/// The journal's owner is alive, or something could not be undone.
pub(super) async fn inherit(dir: &Path, name: &str) -> Result<Inheritance, TunnelError> {
    refuse_running(dir, name)?;
    if let Some(mut journal) = Journal::load(dir, name)?.filter(route::keeps_closed) {
        journal.adopt()?;
        route::undo_but_stay_closed(&mut journal).await?;
        tracing::warn!(tunnel = name, "an earlier run has left the host closed; it stays so until the tunnel is up");
        let mark = route::mark_in_force(&journal);
        return Ok(Inheritance { journal, closed: true, mark });
    }
    match recover(dir, name).await {
        Ok(Some(Recovered::Running { pid, path })) => {
            return Err(JournalError::Exists { name: name.to_owned(), path, pid, alive: true }.into());
        }
        Ok(Some(Recovered::Undone)) => tracing::warn!(tunnel = name, "what an earlier run had left behind is undone"),
        Ok(None) => {}
        Err(RouteError::Journal(error)) => return Err(error.into()),
        Err(error) => return Err(error.into()),
    }
    Ok(Inheritance { journal: Journal::create(dir, name)?, closed: false, mark: None })
}

/// Undoes what a start has changed until it failed. If it found the host closed and `stay_closed`, what keeps it closed
/// stays, and so does the journal.
pub(super) async fn forget(mut journal: Journal, stay_closed: bool) {
    let closed = stay_closed && route::keeps_closed(&journal);
    let undone = if closed { route::undo_but_stay_closed(&mut journal).await } else { route::undo(&mut journal).await };
    match undone {
        Ok(()) if closed => {}
        Ok(()) => {
            if let Err(error) = journal.remove() {
                tracing::error!(%error, "the journal could not be removed");
            }
        }
        Err(error) => tracing::error!(%error, "not everything could be undone; `adit recover` tries again"),
    }
}

/// Adds to the error of a start that the host is closed, if it is.
pub(super) fn with_closed(dir: &Path, name: &str, error: TunnelError) -> TunnelError {
    let own = |journal: &Journal| journal.owner().pid == std::process::id() || !journal.owner_alive();
    match Journal::load(dir, name) {
        Ok(Some(journal)) if own(&journal) && route::keeps_closed(&journal) => {
            TunnelError::StillClosed { name: name.to_owned(), cause: Box::new(error) }
        }
        _ => error,
    }
}

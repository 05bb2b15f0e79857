//! Undoes what tunnels left behind whose process was killed.

use std::path::{Path, PathBuf};

use crate::journal::{Journal, JournalError};
use crate::route::{self, RouteError};
use crate::{scratch, socket, uapi};

/// What became of one journal.
#[derive(Debug)]
pub enum Recovered {
    /// Its changes were undone.
    Undone,
    /// Its tunnel is running, so there is nothing to undo.
    Running {
        /// The tunnel's process.
        pid: u32,
        /// Its journal.
        path: PathBuf,
    },
}

/// Undoes what the tunnel `name` left behind; `None` if it left nothing.
///
/// # Errors
/// What could not be read or undone; it stays in the journal.
pub async fn recover(dir: &Path, name: &str) -> Result<Option<Recovered>, RouteError> {
    let Some(mut journal) = Journal::load(dir, name)? else {
        remove_dead_sockets(dir, name).await;
        return Ok(None);
    };
    if journal.owner_alive() {
        return Ok(Some(Recovered::Running { pid: journal.owner().pid, path: journal.path().to_owned() }));
    }
    route::undo(&mut journal).await?;
    journal.remove()?;
    remove_dead_sockets(dir, name).await;
    Ok(Some(Recovered::Undone))
}

/// Removes the tunnel's control sockets, and what was just being written. Its own socket is older than its journal and therefore not in it, and a process that is
/// killed on its last step has removed the journal already, and that of wg(8) not yet.
async fn remove_dead_sockets(dir: &Path, name: &str) {
    for dir in [dir, Path::new(uapi::SOCKET_DIR)] {
        scratch::sweep(dir);
        if let Err(error) = socket::remove_dead(dir, name).await {
            tracing::warn!(%error, "the control socket of a process that is gone could not be removed");
        }
    }
}

/// Removes what killed processes have left that no journal tells of: files that were about to be renamed, and control
/// sockets of tunnels that had removed their journal already.
pub async fn sweep(dir: &Path) {
    scratch::sweep(dir);
    scratch::sweep(Path::new(uapi::SOCKET_DIR));
    for name in socket::names(dir).unwrap_or_default() {
        remove_dead_sockets(dir, &name).await;
    }
}

/// The tunnels that have a journal, running or not.
///
/// # Errors
/// The directory cannot be read.
pub fn candidates(dir: &Path) -> Result<Vec<String>, JournalError> {
    Journal::list(dir)
}

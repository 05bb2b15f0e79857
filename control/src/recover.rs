//! Undoes what tunnels left behind whose process was killed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::journal::{Journal, JournalError};
use crate::route::{self, RouteError};
use crate::{socket, uapi};

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
        remove_the_rest(dir, name).await;
        return Ok(None);
    };
    if journal.owner_alive() {
        return Ok(Some(Recovered::Running { pid: journal.owner().pid, path: journal.path().to_owned() }));
    }
    route::undo(&mut journal).await?;
    journal.remove()?;
    remove_the_rest(dir, name).await;
    Ok(Some(Recovered::Undone))
}

/// Removes what of the tunnel's is not in its journal. Its own control socket is older than that, and a process that is
/// killed on its last step has removed the journal already, and the socket of wg(8) not yet. A file that was just being
/// written has no name yet that anybody knows.
async fn remove_the_rest(dir: &Path, name: &str) {
    for dir in [dir, Path::new(uapi::SOCKET_DIR)] {
        if let Err(error) = socket::remove_dead(dir, name).await {
            tracing::warn!(%error, "the control socket of a process that is gone could not be removed");
        }
        match socket::remove_unfinished(dir, name) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(%error, "a file that was not finished could not be removed");
            }
            _ => {}
        }
    }
}

/// The tunnels that have a journal, running or not.
///
/// # Errors
/// The directory cannot be read.
pub fn candidates(dir: &Path) -> Result<Vec<String>, JournalError> {
    Journal::list(dir)
}

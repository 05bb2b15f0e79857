//! Undoes what tunnels left behind whose process was killed.

use std::path::Path;

use crate::journal::{Journal, JournalError};
use crate::route::{self, RouteError};

/// What became of one journal.
#[derive(Debug)]
pub enum Recovered {
    /// Its changes were undone.
    Undone,
    /// Its tunnel is running, so there is nothing to undo.
    Running {
        /// The tunnel's process.
        pid: u32,
    },
}

/// Undoes what the tunnel `name` left behind; `None` if it left nothing.
///
/// # Errors
/// What could not be read or undone; it stays in the journal.
pub async fn recover(dir: &Path, name: &str) -> Result<Option<Recovered>, RouteError> {
    let Some(mut journal) = Journal::load(dir, name)? else { return Ok(None) };
    if journal.owner_alive() {
        return Ok(Some(Recovered::Running { pid: journal.owner().pid }));
    }
    route::undo(&mut journal).await?;
    journal.remove()?;
    Ok(Some(Recovered::Undone))
}

/// The tunnels that have a journal, running or not.
///
/// # Errors
/// The directory cannot be read.
pub fn candidates(dir: &Path) -> Result<Vec<String>, JournalError> {
    Journal::list(dir)
}

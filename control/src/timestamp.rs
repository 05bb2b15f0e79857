//! The newest handshake timestamp, kept over restarts.
//!
//! A peer takes an initiation that is not newer than the last one for a replay (whitepaper section 5.1). On a machine
//! whose clock was set back, or that has none, a restarted tunnel would be mute until the clock has caught up; with what
//! is kept here the engine knows that this is so, waits for a small gap and says so about a large one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_core::{PublicKey, Snapshot};

use crate::scratch;

/// Reads the newest timestamp that an interface with this key may have used.
pub(crate) fn load(dir: &Path, own: &PublicKey) -> Option<SystemTime> {
    let text = std::fs::read_to_string(path(dir, own)).ok()?;
    let (seconds, nanos) = text.trim().split_once('.')?;
    UNIX_EPOCH
        .checked_add(Duration::new(seconds.parse().ok()?, nanos.parse::<u32>().ok().filter(|n| *n < 1_000_000_000)?))
}

/// Writes the newest timestamp down. That this fails is no reason not to have a tunnel.
pub(crate) fn store(dir: &Path, snapshot: &Snapshot) {
    let (Some(key), Some(newest)) = (&snapshot.private_key, snapshot.newest_timestamp) else { return };
    let Ok(since) = newest.duration_since(UNIX_EPOCH) else { return };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let mut file = scratch::file_in(dir)?;
        write!(file, "{}.{:09}", since.as_secs(), since.subsec_nanos())?;
        file.persist(path(dir, &key.public_key()))?;
        Ok(())
    };
    if let Err(error) = write() {
        tracing::debug!(%error, "the newest handshake timestamp was not kept");
    }
}

/// Timestamps count for each static key, so the file bears the key's name: hexadecimal, for base64 has slashes.
fn path(dir: &Path, own: &PublicKey) -> PathBuf {
    dir.join(format!("{}.timestamp", own.to_hex()))
}

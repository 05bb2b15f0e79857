//! What a running tunnel says of itself: the parts of `adit status NAME --json` that scenarios look at.

use adit_core::PublicKey;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What `adit status NAME --json` says.
#[derive(Debug, Clone)]
pub struct Status {
    /// All of it.
    pub json: Value,
}

impl Status {
    /// The number at `pointer`, which is a JSON pointer (RFC 6901).
    ///
    /// # Errors
    /// If there is none.
    pub fn number(&self, pointer: &str) -> Result<u64> {
        number(&self.json, pointer)
    }

    /// The part on the peer with `key`.
    ///
    /// # Errors
    /// If there is none.
    pub fn peer(&self, key: &PublicKey) -> Result<PeerStatus<'_>> {
        let key = key.to_string();
        let peers = self.json.pointer("/peers").and_then(Value::as_array).context("no list of peers")?;
        let found = peers.iter().find(|peer| peer.pointer("/public_key").and_then(Value::as_str) == Some(&key));
        found.map(PeerStatus).with_context(|| format!("no peer {key} in {:#}", self.json))
    }

    /// Fails if a packet was dropped by the engine or on a peer's account, for whatever reason.
    ///
    /// # Errors
    /// With the reasons and their counts.
    pub fn no_drops(&self) -> Result<()> {
        let peers = self.json.pointer("/peers").and_then(Value::as_array).context("no list of peers")?;
        for part in std::iter::once(&self.json).chain(peers) {
            let drops = part.pointer("/drops").and_then(Value::as_object).context("no drops")?;
            ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
        }
        Ok(())
    }
}

/// What `adit status NAME --json` says on one peer.
#[derive(Debug, Clone, Copy)]
pub struct PeerStatus<'a>(&'a Value);

impl PeerStatus<'_> {
    /// Where the peer is, as it is printed; empty if that is not known.
    pub fn endpoint(&self) -> &str {
        self.0.pointer("/endpoint").and_then(Value::as_str).unwrap_or_default()
    }

    /// Seconds since the last handshake, if there was one.
    pub fn handshake_age(&self) -> Option<f64> {
        self.0.pointer("/latest_handshake_age_s").and_then(Value::as_f64)
    }

    /// The number at `pointer`, which is a JSON pointer (RFC 6901).
    ///
    /// # Errors
    /// If there is none.
    pub fn number(&self, pointer: &str) -> Result<u64> {
        number(self.0, pointer)
    }
}

fn number(json: &Value, pointer: &str) -> Result<u64> {
    json.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no number {pointer} in {json:#}"))
}

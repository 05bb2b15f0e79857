//! The answer to `get=1`: written from a snapshot of the engine, read back into a [`DeviceState`].
//!
//! The order of the keys is wireguard-go's. Like there, `preshared_key` is always written, as zeros if there is none.
//! Reading is lenient about keys it does not know, since it meets other implementations, and strict about the others.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_core::{PeerStats, PresharedKey, PrivateKey, PublicKey, Snapshot};
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::codec::{ScopeIndex, endpoint};
use super::errno::UapiErrno;
use super::{ALLOWED_IP_TEXT, NO_KEY, PEER_TEXT, digits, push, push_key};

/// What `get=1` is answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct GetReply {
    /// The engine's state.
    pub snapshot: Snapshot,
    /// The wall clock's reading at the moment `snapshot.at`; handshakes are dated from it.
    pub wall: SystemTime,
    /// The UDP port; not written while nothing is bound.
    pub listen_port: Option<u16>,
    /// The mark of outgoing datagrams; not written if 0.
    pub fwmark: u32,
}

impl GetReply {
    /// Writes the answer with `errno=0` and the blank line. The text holds secrets and is wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        let peers = &self.snapshot.peers;
        let prefixes: usize = peers.iter().map(|peer| peer.allowed_ips.len()).sum();
        let capacity = PEER_TEXT * (peers.len() + 1) + ALLOWED_IP_TEXT * prefixes;
        let mut text = Zeroizing::new(String::with_capacity(capacity));
        if let Some(key) = &self.snapshot.private_key {
            push_key(&mut text, "private_key", key.as_bytes());
        }
        if let Some(port) = self.listen_port.filter(|port| *port != 0) {
            push(&mut text, "listen_port", port);
        }
        if self.fwmark != 0 {
            push(&mut text, "fwmark", self.fwmark);
        }
        for peer in peers {
            self.push_peer(&mut text, peer);
        }
        text.push_str("errno=0\n\n");
        text
    }

    fn push_peer(&self, text: &mut String, peer: &PeerStats) {
        push_key(text, "public_key", peer.public_key.as_bytes());
        push_key(text, "preshared_key", peer.preshared_key.as_ref().map_or(&NO_KEY, PresharedKey::as_bytes));
        push(text, "protocol_version", 1);
        if let Some(endpoint) = peer.endpoint {
            push(text, "endpoint", endpoint);
        }
        let handshake = peer.last_handshake.map_or(Duration::ZERO, |at| self.since_epoch(at));
        push(text, "last_handshake_time_sec", handshake.as_secs());
        push(text, "last_handshake_time_nsec", handshake.subsec_nanos());
        push(text, "tx_bytes", peer.traffic.tx_bytes);
        push(text, "rx_bytes", peer.traffic.rx_bytes);
        push(text, "persistent_keepalive_interval", peer.persistent_keepalive);
        for net in &peer.allowed_ips {
            push(text, "allowed_ip", net);
        }
    }

    /// When `at` was, by the wall clock. A clock that stands before 1970 gives zero, which reads as «never».
    fn since_epoch(&self, at: Instant) -> Duration {
        let age = self.snapshot.at.saturating_duration_since(at);
        self.wall.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age)
    }
}

/// A device as its UAPI socket describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceState {
    /// The private key, if one is set.
    pub private_key: Option<PrivateKey>,
    /// The UDP port, if one is bound.
    pub listen_port: Option<u16>,
    /// The mark of outgoing datagrams; 0 if off.
    pub fwmark: u32,
    /// The peers, in the order in which they were told.
    pub peers: Vec<PeerState>,
}

/// A peer as a UAPI socket describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerState {
    /// The peer's public key.
    pub public_key: PublicKey,
    /// The preshared key, if one is set.
    pub preshared_key: Option<PresharedKey>,
    /// Where the peer is.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was, by the wall clock of the machine.
    pub last_handshake: Option<SystemTime>,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
    /// Seconds between persistent keepalives; 0 is off.
    pub persistent_keepalive: u16,
    /// The prefixes that are the peer's.
    pub allowed_ips: Vec<IpNet>,
}

impl PeerState {
    fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            preshared_key: None,
            endpoint: None,
            last_handshake: None,
            tx_bytes: 0,
            rx_bytes: 0,
            persistent_keepalive: 0,
            allowed_ips: Vec::new(),
        }
    }
}

/// Reads an answer to `get=1` line by line.
#[derive(Debug)]
pub struct ReplyParser {
    state: DeviceState,
    scope: ScopeIndex,
    errno: Option<UapiErrno>,
    /// Seconds and nanoseconds of the current peer's last handshake, which come on lines of their own.
    handshake: (u64, u32),
}

impl ReplyParser {
    /// Expects the first line of an answer.
    pub fn new(scope: ScopeIndex) -> Self {
        Self { state: DeviceState::default(), scope, errno: None, handshake: (0, 0) }
    }

    /// Takes one line without its line feed. Returns the outcome once it was the blank line at the end.
    ///
    /// # Errors
    /// The name of the key whose value cannot be read, or what else is wrong. No value is in it.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Result<DeviceState, UapiErrno>>, String> {
        if line.is_empty() {
            return match self.errno.take() {
                None => Err("the answer has no errno line".into()),
                Some(errno) if errno.code() == 0 => Ok(Some(Ok(std::mem::take(&mut self.state)))),
                Some(errno) => Ok(Some(Err(errno))),
            };
        }
        let pair = str::from_utf8(line).ok().and_then(|line| line.split_once('='));
        let (key, value) = pair.ok_or("a line is not «key=value»")?;
        self.pair(key, value).ok_or_else(|| format!("the value of {key} cannot be read"))?;
        Ok(None)
    }

    fn pair(&mut self, key: &str, value: &str) -> Option<()> {
        let state = &mut self.state;
        match (key, state.peers.last_mut()) {
            ("errno", _) => self.errno = Some(UapiErrno::from_code(value.parse().ok()?)),
            ("public_key", _) => {
                state.peers.push(PeerState::new(PublicKey::from_hex(value).ok()?));
                self.handshake = (0, 0);
            }
            ("private_key", None) => {
                let bytes = PresharedKey::from_hex(value).ok()?;
                state.private_key = (bytes.as_bytes() != &NO_KEY).then(|| PrivateKey::from_bytes(*bytes.as_bytes()));
            }
            ("listen_port", None) => state.listen_port = Some(digits(value)?).filter(|port| *port != 0),
            ("fwmark", None) => state.fwmark = digits(value)?,
            ("preshared_key", Some(peer)) => {
                peer.preshared_key = Some(PresharedKey::from_hex(value).ok()?).filter(|key| key.as_bytes() != &NO_KEY);
            }
            ("endpoint", Some(peer)) => peer.endpoint = Some(endpoint(value, self.scope)?),
            ("last_handshake_time_sec", Some(peer)) => {
                self.handshake.0 = digits(value)?;
                peer.last_handshake = moment(self.handshake)?;
            }
            ("last_handshake_time_nsec", Some(peer)) => {
                self.handshake.1 = digits(value).filter(|nanos| *nanos < 1_000_000_000)?;
                peer.last_handshake = moment(self.handshake)?;
            }
            ("tx_bytes", Some(peer)) => peer.tx_bytes = digits(value)?,
            ("rx_bytes", Some(peer)) => peer.rx_bytes = digits(value)?,
            ("persistent_keepalive_interval", Some(peer)) => peer.persistent_keepalive = digits(value)?,
            ("allowed_ip", Some(peer)) => peer.allowed_ips.push(value.parse().ok()?),
            _ => {}
        }
        Some(())
    }
}

/// The moment on the wall clock, `Some(None)` for the zeros that stand for «never», `None` beyond the clock's range.
fn moment((secs, nanos): (u64, u32)) -> Option<Option<SystemTime>> {
    let since = Duration::new(secs, nanos);
    if since.is_zero() { Some(None) } else { UNIX_EPOCH.checked_add(since).map(Some) }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;

//! Counters: of the whole engine, of each peer, and of every way a packet can be lost.

use std::net::SocketAddr;
use std::time::Instant;

use ipnet::IpNet;

use crate::error::DropReason;
use crate::key::{PresharedKey, PublicKey};

/// Number of drop reasons.
const REASONS: usize = DropReason::ALL.len();

/// One counter for each [`DropReason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drops([u64; REASONS]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; REASONS])
    }
}

impl Drops {
    /// Counts one drop.
    pub fn count(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts `n` drops.
    pub fn add(&mut self, reason: DropReason, n: u64) {
        self.0[reason as usize] += n;
    }

    /// How often `reason` was counted.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The reasons that were counted at least once, in the order of [`DropReason::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.get(*reason))).filter(|(_, count)| *count > 0)
    }

    /// All drops together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Traffic in one engine or of one peer. Bytes are UDP payload on the underlay's side, as wg(8) shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// IP packets taken from the host and sealed.
    pub packets_out: u64,
    /// IP packets opened and given to the host.
    pub packets_in: u64,
    /// Bytes of datagrams sent, handshakes and keepalives included.
    pub tx_bytes: u64,
    /// Bytes of authentic datagrams received, handshakes and keepalives included.
    pub rx_bytes: u64,
    /// Handshake initiations and responses sent.
    pub handshakes_sent: u64,
    /// Valid handshake initiations and responses received.
    pub handshakes_received: u64,
    /// Keepalives sent, passive and persistent.
    pub keepalives_sent: u64,
    /// Keepalives received.
    pub keepalives_received: u64,
}

/// Counters of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Traffic of all peers, those removed meanwhile included.
    pub traffic: Traffic,
    /// Everything that went nowhere.
    pub drops: Drops,
    /// How often `handle_timeout` found something due.
    pub timer_runs: u64,
    /// Bytes of packets that wait for a handshake now.
    pub staged_bytes: usize,
    /// Cookie replies sent because there were too many handshake messages.
    pub cookies_sent: u64,
}

/// One peer as `wg show` and `adit status` see it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStats {
    /// The peer's public key.
    pub public_key: PublicKey,
    /// Present if a preshared key is set.
    pub preshared_key: Option<PresharedKey>,
    /// Where datagrams to this peer go.
    pub endpoint: Option<SocketAddr>,
    /// When the current session's handshake was completed.
    pub last_handshake: Option<Instant>,
    /// The round trip of the last handshake that this side began.
    pub handshake_round_trip: Option<std::time::Duration>,
    /// Seconds between persistent keepalives; 0 is off.
    pub persistent_keepalive: u16,
    /// The prefixes that are this peer's, shortest first.
    pub allowed_ips: Vec<IpNet>,
    /// The peer's traffic.
    pub traffic: Traffic,
    /// What was dropped on this peer's account.
    pub drops: Drops,
    /// Whether there is a session that packets can be sealed with now.
    pub has_session: bool,
}

/// Everything that can be asked of an engine, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The moment, on the clock that the shell feeds to the engine.
    pub at: Instant,
    /// The interface's private key, if one is set: the UAPI protocol shows it to root.
    pub private_key: Option<crate::key::PrivateKey>,
    /// The tunnel's MTU, in bytes.
    pub mtu: usize,
    /// Counters of the engine.
    pub engine: EngineStats,
    /// The newest timestamp that an initiation may have carried.
    pub newest_timestamp: Option<std::time::SystemTime>,
    /// The peers, in the order of their public keys.
    pub peers: Vec<PeerStats>,
}

//! One peer: its keys and cryptographic state, and what the protocol leaves to its host.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use super::peer::Tunnel;
use super::staged::StagedQueue;
use super::timers::Timers;
use crate::key::{PresharedKey, PublicKey};
use crate::sink::{Ecn, Transmit};
use crate::stats::{Drops, Traffic};

/// Where a peer is reached, and from which own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
}

impl Path {
    pub(crate) fn transmit(self, ecn: Ecn) -> Transmit {
        Transmit { remote: self.remote, local: self.local, ecn }
    }
}

/// One peer of the engine.
pub(crate) struct Peer {
    pub(crate) public_key: PublicKey,
    pub(crate) preshared_key: Option<PresharedKey>,
    /// `None` while the interface has no private key.
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) path: Option<Path>,
    pub(crate) timers: Timers,
    pub(crate) staged: StagedQueue,
    pub(crate) traffic: Traffic,
    pub(crate) drops: Drops,
    pub(crate) last_handshake: Option<Instant>,
    /// When the last initiation was sent.
    pub(crate) initiated: Option<Instant>,
    pub(crate) round_trip: Option<Duration>,
    /// When the deadline queue has this peer down.
    pub(crate) scheduled: Option<Instant>,
    /// No initiation may carry a timestamp before this.
    pub(crate) timestamp_floor: Option<SystemTime>,
    /// When initiations were first held back for the sake of the timestamp.
    pub(crate) held_since: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            preshared_key: None,
            tunnel: None,
            path: None,
            timers: Timers::default(),
            staged: StagedQueue::default(),
            traffic: Traffic::default(),
            drops: Drops::default(),
            last_handshake: None,
            initiated: None,
            round_trip: None,
            scheduled: None,
            timestamp_floor: None,
            held_since: None,
        }
    }

    pub(crate) fn has_session(&self) -> bool {
        self.tunnel.as_ref().is_some_and(Tunnel::has_session)
    }
}

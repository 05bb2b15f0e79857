//! What the engine is told to be: typed, and already valid.

use std::net::SocketAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// The smallest tunnel MTU, in bytes: IPv4's minimum (RFC 791). Below 1280 the host gives up IPv6 on the device itself.
pub const MIN_MTU: usize = 68;

/// The largest tunnel MTU, in bytes: the payload of the longest UDP datagram over IPv4, less WireGuard's 32 bytes.
pub const MAX_MTU: usize = 65_507 - 32;

/// Bounds on what an engine may hold, so that no input makes it grow without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Peers, at most 2^24 - 1 (the receiver index has 24 bits for the peer).
    pub max_peers: usize,
    /// Packets that wait for one peer's handshake: 128, as in the kernel (drivers/net/wireguard, MAX_STAGED_PACKETS).
    pub staged_packets: usize,
    /// Bytes that wait for handshakes, over all peers.
    pub staged_bytes: usize,
    /// Handshake messages a second above which cookies are asked for (boringtun's own device uses 100).
    pub handshakes_per_second: u64,
    /// Events kept for a shell that does not poll.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_peers: 1 << 16, staged_packets: 128, staged_bytes: 1 << 20, handshakes_per_second: 100, events: 256 }
    }
}

/// How a new engine starts.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The tunnel's MTU in bytes, [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: usize,
    /// Bounds.
    pub limits: Limits,
    /// Seeds jitter and receiver indices; from a real random source outside of tests.
    pub seed: u64,
    /// No initiation is sent with a timestamp at or before this moment: the newest one that an earlier engine with the
    /// same private key may have used. Peers drop initiations that are not newer than the last (whitepaper section 5.1).
    pub timestamp_floor: Option<SystemTime>,
    /// Drop packets whose flow does not know ECN when the underlay marked congestion, as RFC 6040 demands. Off by
    /// default, as in Linux (net/wireguard ignores the advice): some middleboxes mark such packets.
    pub strict_ecn: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { mtu: 1420, limits: Limits::default(), seed: 0, timestamp_floor: None, strict_ecn: false }
    }
}

/// A change of the configuration; what is not named stays. The semantics are those of the UAPI `set` operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// `Some(None)` removes the private key.
    pub private_key: Option<Option<PrivateKey>>,
    /// Remove all peers that `peers` does not name first.
    pub replace_peers: bool,
    /// Peers to add, change or remove, in order.
    pub peers: Vec<PeerUpdate>,
}

/// A change of one peer; what is not named stays.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerUpdate {
    /// Which peer.
    pub public_key: PublicKey,
    /// Remove it.
    pub remove: bool,
    /// Change it only if it is there already.
    pub update_only: bool,
    /// `Some(None)` removes the preshared key.
    pub preshared_key: Option<Option<PresharedKey>>,
    /// Where to reach it.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 turns them off.
    pub persistent_keepalive: Option<u16>,
    /// Forget its allowed IPs first.
    pub replace_allowed_ips: bool,
    /// Prefixes to give to it (taking them from whichever peer has them) or to take away, in order.
    pub allowed_ips: Vec<AllowedIpChange>,
}

/// One prefix, given or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedIpChange {
    /// The prefix; host bits are ignored.
    pub net: IpNet,
    /// Take it away instead of giving it.
    pub remove: bool,
}

impl PeerUpdate {
    /// A change that names only the peer, which is enough to add it.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }

    /// Gives prefixes to the peer.
    #[must_use]
    pub fn allow(mut self, nets: impl IntoIterator<Item = IpNet>) -> Self {
        self.allowed_ips.extend(nets.into_iter().map(|net| AllowedIpChange { net, remove: false }));
        self
    }

    /// Sets the endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: SocketAddr) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Sets the persistent keepalive, in seconds.
    #[must_use]
    pub fn keepalive(mut self, seconds: u16) -> Self {
        self.persistent_keepalive = Some(seconds);
        self
    }

    /// Sets the preshared key.
    #[must_use]
    pub fn preshared(mut self, key: PresharedKey) -> Self {
        self.preshared_key = Some(Some(key));
        self
    }
}

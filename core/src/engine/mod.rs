//! The engine: one state machine, owned by value by one loop.
//!
//! `outbound` is the way of a packet from the host to the underlay, `inbound` the way back, `upkeep` what time asks for,
//! `command` what the shell asks for. Each is an `impl` of [`Engine`], whose contract stands on the type. `endpoints` knows
//! the tunnel's own datagrams when they come back into it.

mod command;
mod endpoints;
mod inbound;
mod outbound;
mod upkeep;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

pub use command::Command;

use self::endpoints::Endpoints;
use crate::config::EngineConfig;
use crate::error::{CommandError, DropReason};
use crate::event::Event;
use crate::route::AllowedIps;
use crate::stats::{EngineStats, PeerStats, Snapshot};
use crate::wg::peer::Identity;
use crate::wg::staged::StagingBudget;
use crate::wg::state::{Path, Peer};
use crate::wg::table::{PeerId, PeerTable};

/// A WireGuard interface without the interface: peers, their sessions, and the way of every packet between them.
///
/// There are four kinds of methods.
///
/// - **Inputs**, `handle_*`: something happened. [`handle_tun`](Self::handle_tun): the host wants to send a packet.
///   [`handle_udp`](Self::handle_udp): a datagram arrived. [`handle_timeout`](Self::handle_timeout): time has passed.
///   [`handle_command`](Self::handle_command): the shell wants something changed.
/// - **Outputs** go into the two sinks of [`Outputs`] while an input is handled: datagrams for the underlay, packets for
///   the host. A sink that is full is a counted drop, never an error.
/// - **Questions**, `poll_*`: [`poll_timeout`](Self::poll_timeout) says when `handle_timeout` wants to be called,
///   [`poll_event`](Self::poll_event) what the shell may want to know.
/// - **Views**: [`snapshot`](Self::snapshot), [`stats`](Self::stats), [`mtu`](Self::mtu).
///
/// The shell's loop is: `handle_timeout` if [`poll_timeout`](Self::poll_timeout) lies in the past; commands; events until
/// `None`; send what the sinks hold; a batch of datagrams; a batch of packets; wait for input or for `poll_timeout`,
/// which has to be asked again after every input.
///
/// `now` never goes backwards from one call to the next; if it does, nothing breaks but timers fire late. It has to
/// count the time that the machine sleeps, for keys end by the clock of the world and not by that of the processor.
/// After a gap the first call, whichever it is, ends what has expired before it does its own work.
///
/// No input panics or returns an error because of what a packet or a datagram holds: it is a [`Verdict`], and what went
/// nowhere is counted under a [`DropReason`].
pub struct Engine {
    identity: Option<Identity>,
    peers: PeerTable,
    allowed: AllowedIps<PeerId>,
    shared: Shared,
}

/// What the engine has beside its peers; apart, so that one peer and this can be borrowed at the same time.
pub(crate) struct Shared {
    config: EngineConfig,
    stats: EngineStats,
    staging: StagingBudget,
    /// Those of all peers' paths: [`Shared::set_path`] is the only way to change one.
    endpoints: Endpoints,
    events: EventQueue,
    rng: fastrand::Rng,
    /// New peers begin with this floor: what the configuration says, and the timestamps sent to peers that are gone.
    timestamp_floor: Option<SystemTime>,
    /// Newest timestamp that any initiation with the private key may have carried, but for the floors of the peers.
    newest_timestamp: Option<SystemTime>,
    /// Whether timers are not looked after: the machine is about to sleep, or has woken for a moment only.
    suspended: bool,
}

/// The sinks of one call: `network` for datagrams, `device` for IP packets.
#[derive(Debug)]
pub struct Outputs<'a, N, P> {
    /// Takes datagrams for the underlay.
    pub network: &'a mut N,
    /// Takes IP packets for the host.
    pub device: &'a mut P,
}

/// Where a datagram came from, and which own address it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The sender.
    pub remote: SocketAddr,
    /// The own address, if the socket can tell.
    pub local: Option<IpAddr>,
}

/// What became of a packet or a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It went on, sealed or opened.
    Forwarded,
    /// It waits for a handshake.
    Staged,
    /// It was a message of the protocol itself.
    Consumed,
    /// It went nowhere, and was counted.
    Dropped(DropReason),
}

/// When [`Engine::handle_timeout`] wants to be called, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// For log lines.
    pub reason: &'static str,
}

impl Engine {
    /// Makes an engine without a private key and without peers; [`Command::Update`] brings both.
    ///
    /// # Errors
    /// [`CommandError::Mtu`] if the MTU is out of range.
    pub fn new(mut config: EngineConfig) -> Result<Self, CommandError> {
        command::check_mtu(config.mtu)?;
        // Receiver indices have room for so many peers; half of it keeps the search for a free one short.
        config.limits.max_peers = config.limits.max_peers.min(1 << 23);
        Ok(Self {
            identity: None,
            peers: PeerTable::default(),
            allowed: AllowedIps::new(),
            shared: Shared {
                stats: EngineStats::default(),
                staging: StagingBudget { used: 0, limit: config.limits.staged_bytes },
                endpoints: Endpoints::new(),
                events: EventQueue { queue: VecDeque::new(), limit: config.limits.events, lost: 0 },
                rng: fastrand::Rng::with_seed(config.seed),
                timestamp_floor: config.timestamp_floor,
                newest_timestamp: config.timestamp_floor,
                suspended: false,
                config,
            },
        })
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None` if only an input changes anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if self.shared.suspended {
            return None;
        }
        let (at, id) = self.peers.next_deadline()?;
        let reason = self.peers.get(id).and_then(|peer| peer.timers.next()).map_or("timer", |(_, due)| due.name());
        Some(Deadline { at, reason })
    }

    /// The oldest event that was not polled yet.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop()
    }

    /// The tunnel's MTU, in bytes.
    pub fn mtu(&self) -> usize {
        self.shared.config.mtu
    }

    /// The counters of the engine.
    pub fn stats(&self) -> EngineStats {
        EngineStats { staged_bytes: self.shared.staging.used, ..self.shared.stats }
    }

    /// Counts a drop that the shell made: a full queue, a device or socket that refused.
    pub fn count_drops(&mut self, reason: DropReason, count: u64) {
        self.shared.stats.drops.add(reason, count);
    }

    /// The newest timestamp that an initiation of this engine may have carried, for [`EngineConfig::timestamp_floor`] of
    /// the next one.
    pub fn newest_timestamp(&self) -> Option<SystemTime> {
        self.peers.iter().filter_map(|(_, peer)| peer.timestamp_floor).chain(self.shared.newest_timestamp).max()
    }

    /// When the newest handshake of any peer was completed, and its round trip if this side began it. Unlike a
    /// [`snapshot`](Self::snapshot) it costs nothing for allowed IPs.
    pub fn newest_handshake(&self) -> Option<(Instant, Option<Duration>)> {
        self.peers
            .iter()
            .filter_map(|(_, peer)| Some((peer.last_handshake?, peer.round_trip)))
            .max_by_key(|(at, _)| *at)
    }

    /// Whether any peer has a session that packets can be sealed with.
    pub fn has_session(&self) -> bool {
        self.peers.iter().any(|(_, peer)| peer.has_session())
    }

    /// Everything that can be told about the engine and its peers. Its cost grows with the number of allowed IPs.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut allowed: Vec<_> = self.allowed.iter().map(|(net, id)| (id, net)).collect();
        allowed.sort_by_key(|(id, net)| (*id, net.addr().is_ipv6(), net.prefix_len(), net.addr()));
        let mut peers: Vec<_> = self
            .peers
            .iter()
            .map(|(id, peer)| {
                let from = allowed.partition_point(|(owner, _)| *owner < id);
                let to = allowed.partition_point(|(owner, _)| *owner <= id);
                PeerStats {
                    public_key: peer.public_key,
                    preshared_key: peer.preshared_key.clone(),
                    endpoint: peer.path.map(|path| path.remote),
                    last_handshake: peer.last_handshake,
                    handshake_round_trip: peer.round_trip,
                    persistent_keepalive: peer.timers.persistent(),
                    allowed_ips: allowed[from..to].iter().map(|(_, net)| *net).collect(),
                    traffic: peer.traffic,
                    drops: peer.drops,
                    has_session: peer.has_session(),
                }
            })
            .collect();
        peers.sort_by_key(|peer| peer.public_key);
        Snapshot {
            at: now,
            private_key: self.identity.as_ref().map(Identity::private_key),
            mtu: self.shared.config.mtu,
            engine: self.stats(),
            newest_timestamp: self.newest_timestamp(),
            peers,
        }
    }

    /// Counts a drop that belongs to no peer.
    fn dropped(&mut self, reason: DropReason) -> Verdict {
        self.dropped_many(reason, 1)
    }

    /// Counts drops that belong to no peer.
    fn dropped_many(&mut self, reason: DropReason, count: u64) -> Verdict {
        self.shared.stats.drops.add(reason, count);
        Verdict::Dropped(reason)
    }
}

impl Shared {
    /// Counts a drop on a peer's account.
    fn dropped(&mut self, peer: &mut Peer, reason: DropReason) -> Verdict {
        self.dropped_many(peer, reason, 1);
        Verdict::Dropped(reason)
    }

    /// Changes where a peer is reached, and says where it was.
    fn set_path(&mut self, peer: &mut Peer, path: Option<Path>) -> Option<Path> {
        let before = std::mem::replace(&mut peer.path, path);
        if let Some(before) = before {
            self.endpoints.remove(before.remote);
        }
        if let Some(path) = path {
            self.endpoints.add(path.remote);
        }
        before
    }

    fn dropped_many(&mut self, peer: &mut Peer, reason: DropReason, count: u64) {
        self.stats.drops.add(reason, count);
        peer.drops.add(reason, count);
    }

    /// A random pause below the largest jitter of handshake retries.
    fn jitter(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(..crate::wg::timers::REKEY_JITTER_MS))
    }
}

/// Counts something both for the peer and for the engine.
macro_rules! count {
    ($shared:expr, $peer:expr, $field:ident, $n:expr) => {{
        let n = $n as u64;
        $shared.stats.traffic.$field += n;
        $peer.traffic.$field += n;
    }};
}
pub(crate) use count;

/// Events that wait for the shell, bounded.
#[derive(Debug)]
struct EventQueue {
    queue: VecDeque<Event>,
    limit: usize,
    lost: u64,
}

impl EventQueue {
    fn push(&mut self, event: Event) {
        if self.queue.len() < self.limit {
            self.queue.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.queue.pop_front();
        if event.is_none() && self.lost > 0 {
            return Some(Event::EventsLost { count: std::mem::take(&mut self.lost) });
        }
        event
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("peers", &self.peers.len())
            .field("allowed", &self.allowed)
            .field("mtu", &self.shared.config.mtu)
            .finish_non_exhaustive()
    }
}

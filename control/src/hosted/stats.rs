//! Numbers and diagnostics of a tunnel in a host's hands. No type here has a field that could hold a secret.

use std::time::Instant;

use adit_core::{PeerStats, PublicKey};
use adit_tun::handle::{PumpCounters, PumpSnapshot};
use serde::Serialize;

use super::settings::HostSettings;
use crate::session::{NetworkPath, State};

/// Numbers that are worth showing all the time. Counters begin at zero with each start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HostedStats {
    /// The state.
    pub state: State,
    /// Milliseconds since the tunnel came up; 0 if it is not up.
    pub uptime_ms: u64,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
    /// IP packets taken from the host and sealed.
    pub packets_out: u64,
    /// IP packets opened and given to the host.
    pub packets_in: u64,
    /// Packets and datagrams that went nowhere, for whatever reason.
    pub drops: u64,
    /// Of those, packets for the host that found no room because it did not keep up.
    pub output_dropped: u64,
    /// Injected packets that found no room.
    pub inject_no_room: u64,
    /// Times that the host was called, in the tunnel's whole life.
    pub callbacks: u64,
    /// Handshake initiations and responses sent.
    pub handshakes: u64,
    /// Milliseconds since the newest handshake was completed.
    pub last_handshake_age_ms: Option<u64>,
    /// The round trip of the newest handshake in microseconds, if this side began it.
    pub handshake_rtt_us: Option<u64>,
    /// Bytes that are allocated for packets: all of it while the packet loop runs, nothing otherwise.
    pub packet_memory_bytes: u64,
    /// The most that may be allocated for packets.
    pub packet_memory_budget: u64,
    /// Bytes of packets that wait: for a handshake, for the tunnel, or for the host.
    pub queued_bytes: u64,
    /// Sockets made.
    pub sockets_created: u64,
    /// Sockets made anew because the network changed or they were broken.
    pub rebinds: u64,
    /// How often the packet loop slept and was woken.
    pub wakeups: u64,
}

/// What may be shown of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Redaction {
    /// All but secrets, which are never shown.
    #[default]
    Secrets,
    /// No addresses, names or public keys either.
    Addresses,
}

/// Everything that helps to understand what a tunnel does, and did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnostics {
    /// The version of Adit.
    pub version: &'static str,
    /// The tunnel's name.
    pub name: String,
    /// The state.
    pub state: State,
    /// The network below, as the host reported it last.
    pub path: Option<NetworkPath>,
    /// Numbers.
    pub stats: HostedStats,
    /// Packets and datagrams that went nowhere, by the reason's name.
    pub drops: Vec<DropCount>,
    /// The peers, in the order of their public keys.
    pub peers: Vec<PeerDiagnostics>,
    /// What the host is to apply, or how much of it there is.
    pub settings: SettingsDiagnostics,
    /// What was decided last, oldest first.
    pub history: Vec<HistoryEntry>,
}

/// A drop reason and how often it was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DropCount {
    /// The reason's name.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerDiagnostics {
    /// The public key, or the peer's number where it is not shown.
    pub peer: String,
    /// Where datagrams to it go; where addresses are not shown, only the family.
    pub endpoint: Option<String>,
    /// How many prefixes are the peer's.
    pub allowed_ips: usize,
    /// Whether packets can be sealed for it now.
    pub has_session: bool,
    /// Milliseconds since its last handshake.
    pub last_handshake_age_ms: Option<u64>,
    /// Bytes of UDP payload sent to it.
    pub tx_bytes: u64,
    /// Bytes of UDP payload received from it.
    pub rx_bytes: u64,
}

/// The settings, or how much of them there is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SettingsDiagnostics {
    /// The settings themselves.
    Shown(Box<HostSettings>),
    /// Numbers of what they hold.
    Counted {
        /// Addresses.
        addresses: usize,
        /// Included routes.
        included_routes: usize,
        /// Excluded routes.
        excluded_routes: usize,
        /// DNS servers.
        dns_servers: usize,
        /// The MTU in bytes.
        mtu: u16,
        /// Codes of the warnings.
        warnings: Vec<&'static str>,
    },
}

/// Something that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// Milliseconds before now.
    pub age_ms: u64,
    /// What.
    pub what: String,
}

impl HostedStats {
    /// Fills in what the packet loop counts.
    pub(super) fn count(&mut self, counters: &PumpCounters) {
        let (engine, traffic) = (&counters.engine, &counters.engine.stats.traffic);
        let since = |at: Instant| millis(counters.at.saturating_duration_since(at));
        self.tx_bytes = traffic.tx_bytes;
        self.rx_bytes = traffic.rx_bytes;
        self.packets_out = traffic.packets_out;
        self.packets_in = traffic.packets_in;
        self.drops = engine.stats.drops.total();
        self.output_dropped = engine.stats.drops.get(adit_core::DropReason::WriteFailed)
            + engine.stats.drops.get(adit_core::DropReason::WriteQueueFull);
        self.handshakes = traffic.handshakes_sent;
        self.last_handshake_age_ms = engine.last_handshake.map(since);
        self.handshake_rtt_us =
            engine.handshake_round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        self.queued_bytes += engine.stats.staged_bytes as u64;
        self.sockets_created = counters.socket.sockets_created;
        self.rebinds = counters.pump.rebinds;
        self.wakeups = counters.pump.wakeups;
    }
}

impl SettingsDiagnostics {
    pub(super) fn new(settings: HostSettings, redaction: Redaction) -> Self {
        match redaction {
            Redaction::Secrets => Self::Shown(Box::new(settings)),
            Redaction::Addresses => Self::Counted {
                addresses: settings.addresses.len(),
                included_routes: settings.included_routes.len(),
                excluded_routes: settings.excluded_routes.len(),
                dns_servers: settings.dns.map_or(0, |dns| dns.servers.len()),
                mtu: settings.mtu,
                warnings: settings.warnings.iter().map(|warning| warning.code).collect(),
            },
        }
    }
}

/// The drops and the peers of a snapshot.
pub(super) fn of_snapshot(snapshot: &PumpSnapshot, redaction: Redaction) -> (Vec<DropCount>, Vec<PeerDiagnostics>) {
    let drops = snapshot.engine.engine.drops.iter();
    let drops = drops.map(|(reason, count)| DropCount { reason: reason.name(), count }).collect();
    let peers = snapshot.engine.peers.iter().enumerate();
    let peers = peers.map(|(index, peer)| PeerDiagnostics {
        peer: match redaction {
            Redaction::Secrets => PublicKey::to_string(&peer.public_key),
            Redaction::Addresses => format!("peer {}", index + 1),
        },
        endpoint: endpoint(peer, redaction),
        allowed_ips: peer.allowed_ips.len(),
        has_session: peer.has_session,
        last_handshake_age_ms: peer.last_handshake.map(|at| millis(snapshot.engine.at.saturating_duration_since(at))),
        tx_bytes: peer.traffic.tx_bytes,
        rx_bytes: peer.traffic.rx_bytes,
    });
    (drops, peers.collect())
}

fn endpoint(peer: &PeerStats, redaction: Redaction) -> Option<String> {
    peer.endpoint.map(|endpoint| match redaction {
        Redaction::Secrets => endpoint.to_string(),
        Redaction::Addresses if endpoint.is_ipv4() => "IPv4".to_owned(),
        Redaction::Addresses => "IPv6".to_owned(),
    })
}

/// Whole milliseconds.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! What `adit status` shows, as data. It has no field that could hold a secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use adit_core::stats::{Drops, Traffic};
use adit_core::{EngineStats, PeerStats, PrivateKey, PublicKey, Snapshot};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::RoutingReport;

/// What the engine does not know about the tunnel it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelFacts {
    /// The tunnel's name.
    pub name: String,
    /// The interface's name.
    pub ifname: String,
    /// The process.
    pub pid: u32,
    /// How long the tunnel has been up.
    pub uptime: Duration,
    /// The UDP port, if one is bound.
    pub listen_port: Option<u16>,
    /// The mark of outgoing datagrams; 0 if off.
    pub fwmark: u32,
    /// The file that it was configured from.
    pub config: Option<PathBuf>,
    /// How many changes of its routing by others were repaired.
    pub repairs: u64,
    /// The settings in force that concern the host, if they can be told.
    pub routing: Option<RoutingReport>,
}

/// A tunnel at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The tunnel's name.
    pub name: String,
    /// The interface's name, where it is not the tunnel's: macOS gives interfaces numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The process.
    pub pid: u32,
    /// Seconds since the tunnel came up.
    pub uptime_s: f64,
    /// The interface's own public key, if it has a private key.
    pub public_key: Option<PublicKey>,
    /// The UDP port, if one is bound.
    pub listen_port: Option<u16>,
    /// The mark of outgoing datagrams; 0 if off.
    pub fwmark: u32,
    /// The tunnel's MTU in bytes.
    pub mtu: usize,
    /// The file that it was configured from.
    pub config: Option<PathBuf>,
    /// How many changes that others had made to the tunnel's addresses, routes and rules were repaired.
    #[serde(default)]
    pub repairs: u64,
    /// The settings in force that concern the host. `None` if the tunnel is about to end, or older than this field.
    #[serde(default)]
    pub routing: Option<RoutingReport>,
    /// Counters of all peers together, those removed meanwhile included.
    pub engine: EngineCounters,
    /// Drops by the reason's name; reasons that never occurred are not listed.
    pub drops: BTreeMap<String, u64>,
    /// The peers, in the order of their public keys.
    pub peers: Vec<PeerReport>,
}

/// Counters of a whole engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineCounters {
    /// IP packets taken from the host and sealed.
    pub packets_out: u64,
    /// IP packets opened and given to the host.
    pub packets_in: u64,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
    /// Handshake initiations and responses sent.
    pub handshakes_sent: u64,
    /// Valid handshake initiations and responses received.
    pub handshakes_received: u64,
    /// Keepalives sent.
    pub keepalives_sent: u64,
    /// Keepalives received.
    pub keepalives_received: u64,
    /// How often a timer had something to do.
    pub timer_runs: u64,
    /// Bytes of packets that wait for a handshake.
    pub staged_bytes: usize,
    /// Cookie replies sent under load.
    pub cookies_sent: u64,
}

/// A peer at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The peer's public key.
    pub public_key: PublicKey,
    /// Where the peer is.
    pub endpoint: Option<SocketAddr>,
    /// The prefixes that are the peer's.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds since the current session's handshake was completed.
    pub latest_handshake_age_s: Option<f64>,
    /// Round trip of the last handshake that this side began, in milliseconds.
    pub handshake_rtt_ms: Option<f64>,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// IP packets opened and given to the host.
    pub packets_in: u64,
    /// IP packets taken from the host and sealed.
    pub packets_out: u64,
    /// Seconds between persistent keepalives; 0 is off.
    pub persistent_keepalive: u16,
    /// Drops on this peer's account, by the reason's name.
    pub drops: BTreeMap<String, u64>,
    /// Whether packets can be sealed now.
    pub has_session: bool,
    /// Whether a preshared key is set; which one is not told.
    #[serde(default)]
    pub has_preshared_key: bool,
}

impl From<(&Snapshot, TunnelFacts)> for StatusReport {
    fn from((snapshot, facts): (&Snapshot, TunnelFacts)) -> Self {
        Self {
            interface: Some(facts.ifname).filter(|ifname| *ifname != facts.name),
            name: facts.name,
            pid: facts.pid,
            uptime_s: facts.uptime.as_secs_f64(),
            public_key: snapshot.private_key.as_ref().map(PrivateKey::public_key),
            listen_port: facts.listen_port,
            fwmark: facts.fwmark,
            mtu: snapshot.mtu,
            // JSON has no form for a path that is not UTF-8, and one odd byte must not cost the whole report.
            config: facts.config.map(|path| path.to_string_lossy().into_owned().into()),
            repairs: facts.repairs,
            routing: facts.routing,
            engine: (&snapshot.engine).into(),
            drops: by_name(&snapshot.engine.drops),
            peers: snapshot.peers.iter().map(|peer| PeerReport::new(peer, snapshot.at)).collect(),
        }
    }
}

impl From<&EngineStats> for EngineCounters {
    fn from(stats: &EngineStats) -> Self {
        let Traffic {
            packets_out,
            packets_in,
            tx_bytes,
            rx_bytes,
            handshakes_sent,
            handshakes_received,
            keepalives_sent,
            keepalives_received,
        } = stats.traffic;
        Self {
            packets_out,
            packets_in,
            tx_bytes,
            rx_bytes,
            handshakes_sent,
            handshakes_received,
            keepalives_sent,
            keepalives_received,
            timer_runs: stats.timer_runs,
            staged_bytes: stats.staged_bytes,
            cookies_sent: stats.cookies_sent,
        }
    }
}

impl PeerReport {
    fn new(peer: &PeerStats, now: Instant) -> Self {
        let age = peer.last_handshake.map(|at| now.saturating_duration_since(at).as_secs_f64());
        Self {
            public_key: peer.public_key,
            endpoint: peer.endpoint,
            allowed_ips: peer.allowed_ips.clone(),
            latest_handshake_age_s: age,
            handshake_rtt_ms: peer.handshake_round_trip.map(|trip| trip.as_secs_f64() * 1e3),
            rx_bytes: peer.traffic.rx_bytes,
            tx_bytes: peer.traffic.tx_bytes,
            packets_in: peer.traffic.packets_in,
            packets_out: peer.traffic.packets_out,
            persistent_keepalive: peer.persistent_keepalive,
            drops: by_name(&peer.drops),
            has_session: peer.has_session,
            has_preshared_key: peer.preshared_key.is_some(),
        }
    }
}

fn by_name(drops: &Drops) -> BTreeMap<String, u64> {
    drops.iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{DropReason, PresharedKey};

    #[test]
    fn a_report_tells_the_snapshot_without_its_secrets() {
        let private = PrivateKey::from_bytes([7; 32]);
        let preshared = PresharedKey::from_bytes([9; 32]);
        let at = Instant::now() + Duration::from_secs(1000);
        let mut drops = Drops::default();
        drops.add(DropReason::SpoofedSource, 3);
        let peer = PeerStats {
            public_key: PublicKey::from_bytes([5; 32]),
            preshared_key: Some(preshared.clone()),
            endpoint: Some("192.0.2.1:51820".parse().unwrap()),
            last_handshake: Some(at - Duration::from_millis(1500)),
            handshake_round_trip: Some(Duration::from_micros(12_500)),
            persistent_keepalive: 25,
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
            traffic: Traffic { rx_bytes: 1, tx_bytes: 2, packets_in: 3, packets_out: 4, ..Traffic::default() },
            drops,
            has_session: true,
        };
        let engine = EngineStats { drops, cookies_sent: 8, ..EngineStats::default() };
        let snapshot = Snapshot {
            at,
            private_key: Some(private.clone()),
            mtu: 1420,
            engine,
            newest_timestamp: None,
            peers: vec![peer],
        };
        let facts = TunnelFacts {
            name: "adit0".into(),
            ifname: "adit0".into(),
            pid: 42,
            uptime: Duration::from_millis(2500),
            listen_port: Some(51820),
            fwmark: 7,
            config: Some("/etc/adit/adit0.conf".into()),
            repairs: 3,
            routing: Some(RoutingReport { kill_switch: true, ..RoutingReport::default() }),
        };
        let report = StatusReport::from((&snapshot, facts));

        let text = serde_json::to_string(&report).unwrap();
        for secret in [private.to_base64(), private.to_hex(), preshared.to_base64(), preshared.to_hex()] {
            assert!(!text.contains(&secret));
        }
        assert_eq!(serde_json::from_str::<StatusReport>(&text).unwrap(), report);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["public_key"], private.public_key().to_base64());
        assert_eq!(json["uptime_s"], 2.5);
        assert_eq!(json["drops"], serde_json::json!({"spoofed_source": 3}));
        assert_eq!(json["repairs"], 3);
        assert_eq!(json["routing"]["kill_switch"], true);
        assert_eq!(json["engine"]["cookies_sent"], 8);
        assert_eq!(json["peers"][0]["latest_handshake_age_s"], 1.5);
        assert_eq!(json["peers"][0]["handshake_rtt_ms"], 12.5);
        assert_eq!(json["peers"][0]["has_preshared_key"], true);
        assert_eq!(json["peers"][0]["endpoint"], "192.0.2.1:51820");
    }
}

//! What a configuration says, typed and already valid, whatever it was written in.
//!
//! The three readers end here and the three writers start here, so nothing in this file knows a file format. It holds
//! what the user asked for; what follows from it (derived MTU, routes, resolved endpoints) is decided elsewhere.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use adit_core::{PeerUpdate, PresharedKey, PrivateKey, PublicKey, Update};
use ipnet::IpNet;

use super::endpoint::Endpoint;
use crate::settings::Wanted;

/// A whole configuration: one interface and its peers.
///
/// Values that [`parse`](super::parse) returns keep every rule of the readers; whoever builds one by hand keeps them
/// by hand (hooks without `#` and control characters, masked prefixes, none of them both allowed and excluded, no
/// public key twice).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// This end of the tunnel.
    pub interface: Interface,
    /// The other ends, in the order of the file.
    pub peers: Vec<Peer>,
}

/// This end of the tunnel: the `[Interface]` section of wg(8) and wg-quick(8).
#[derive(Debug, Clone, PartialEq)]
pub struct Interface {
    /// The key that peers know this end by; `None` leaves it to somebody else, most often a hook that calls wg(8).
    pub private_key: Option<PrivateKey>,
    /// UDP port to listen on; `None` or 0 lets the system choose.
    pub listen_port: Option<u16>,
    /// Mark of the tunnel's own datagrams (SO_MARK): `None` is not said, `Some(0)` is `off`.
    pub fwmark: Option<u32>,
    /// Addresses of the interface with the prefix of their network; host bits are kept.
    pub addresses: Vec<IpNet>,
    /// DNS servers to use while the tunnel is up.
    pub dns: Vec<IpAddr>,
    /// DNS search domains, which wg-quick takes from the same key as the servers.
    pub dns_search: Vec<String>,
    /// MTU in bytes, [`MIN_MTU`] to [`MAX_MTU`]; `None` derives it from the underlay.
    pub mtu: Option<u16>,
    /// Where the routes to the allowed IPs go.
    pub table: Table,
    /// What stays outside of the tunnel though an allowed IP holds it, down to the next longer allowed IP; host bits
    /// are zero.
    pub excluded_ips: Vec<IpNet>,
    /// Whether the private and link-local networks that this machine is connected to stay outside of the tunnel; `None`
    /// is not said: they do unless there is a kill switch.
    pub exclude_local_networks: Option<bool>,
    /// Whether whatever would leave outside of the tunnel is refused, but for exclusions and the tunnel's datagrams.
    pub kill_switch: bool,
    /// Shell commands before the interface comes up; `%i` stands for its name.
    pub pre_up: Vec<String>,
    /// Shell commands after the interface came up.
    pub post_up: Vec<String>,
    /// Shell commands before the interface goes down.
    pub pre_down: Vec<String>,
    /// Shell commands after the interface went down.
    pub post_down: Vec<String>,
    /// Write the running configuration back to the file on the way down.
    pub save_config: bool,
}

/// Another end of the tunnel: a `[Peer]` section of wg(8).
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// The peer's name and key.
    pub public_key: PublicKey,
    /// Symmetric key mixed into the handshake.
    pub preshared_key: Option<PresharedKey>,
    /// What may come from the peer and is sent to it; host bits are zero.
    pub allowed_ips: Vec<IpNet>,
    /// Where to reach it; `None` waits until it calls.
    pub endpoint: Option<Endpoint>,
    /// Seconds between keepalives; `None` is not said, `Some(0)` is `off`, and both are off.
    pub persistent_keepalive: Option<u16>,
}

/// The routing table for the routes to the allowed IPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Table {
    /// The main table, and a table of the tunnel's own for default routes (wg-quick(8), `Table = auto`).
    #[default]
    Auto,
    /// No routes at all.
    Off,
    /// This table, 1 to 4294967295.
    Number(u32),
}

impl Config {
    /// What the host must apply for it, given the addresses of its endpoints.
    #[must_use]
    pub fn wanted(&self, endpoints: Vec<SocketAddr>) -> Wanted {
        let interface = &self.interface;
        Wanted {
            addresses: interface.addresses.clone(),
            allowed_ips: self.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied()).collect(),
            excluded_ips: interface.excluded_ips.clone(),
            exclude_local_networks: interface.exclude_local_networks,
            kill_switch: interface.kill_switch,
            names_dns_servers: !interface.dns.is_empty(),
            mtu: interface.mtu,
            table: interface.table.into(),
            fwmark: interface.fwmark,
            endpoints,
        }
    }

    /// What the engine must be told to be configured like this, and like nothing else.
    ///
    /// `resolve` gives the address of an endpoint; a peer whose endpoint it does not know is added without one, which
    /// keeps the endpoint that the engine may have for it. Without a private key, the engine keeps the one that it has: a
    /// hook may have set it already.
    #[must_use]
    pub fn update(&self, resolve: impl Fn(&Endpoint) -> Option<SocketAddr>) -> Update {
        let peers = self.peers.iter().map(|peer| {
            let mut update = PeerUpdate::new(peer.public_key).allow(peer.allowed_ips.iter().copied());
            update.replace_allowed_ips = true;
            update.preshared_key = Some(peer.preshared_key.clone());
            update.persistent_keepalive = Some(peer.persistent_keepalive.unwrap_or(0));
            update.endpoint = peer.endpoint.as_ref().and_then(&resolve);
            update
        });
        Update {
            private_key: self.interface.private_key.clone().map(Some),
            replace_peers: true,
            peers: peers.collect(),
        }
    }

    /// The endpoints whose host is a name, each once, in the order of the file: what must be resolved before a start.
    #[must_use]
    pub fn named_endpoints(&self) -> Vec<&Endpoint> {
        let mut seen = HashSet::new();
        let endpoints = self.peers.iter().filter_map(|peer| peer.endpoint.as_ref());
        endpoints.filter(|endpoint| endpoint.socket_addr().is_none() && seen.insert(*endpoint)).collect()
    }
}

impl Interface {
    /// An interface with a key, or with none yet, and nothing else said.
    #[must_use]
    pub fn new(private_key: impl Into<Option<PrivateKey>>) -> Self {
        Self {
            private_key: private_key.into(),
            listen_port: None,
            fwmark: None,
            addresses: Vec::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            mtu: None,
            table: Table::Auto,
            excluded_ips: Vec::new(),
            exclude_local_networks: None,
            kill_switch: false,
            pre_up: Vec::new(),
            post_up: Vec::new(),
            pre_down: Vec::new(),
            post_down: Vec::new(),
            save_config: false,
        }
    }
}

impl Peer {
    /// A peer with a key and nothing else said.
    #[must_use]
    pub fn new(public_key: PublicKey) -> Self {
        Self { public_key, preshared_key: None, allowed_ips: Vec::new(), endpoint: None, persistent_keepalive: None }
    }
}

/// The smallest MTU a file may ask for, in bytes: what every IPv4 host must be able to receive (RFC 791 section 3.1).
pub const MIN_MTU: u16 = 576;

/// The largest MTU a file may ask for, in bytes: the engine's own limit.
pub const MAX_MTU: u16 = {
    assert!(adit_core::config::MAX_MTU <= u16::MAX as usize);
    adit_core::config::MAX_MTU as u16
};

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut silent = Peer::new(PublicKey::from_bytes([1; 32]));
        silent.allowed_ips = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut named = Peer::new(PublicKey::from_bytes([2; 32]));
        named.endpoint = Some("vpn.example.com:51820".parse().unwrap());
        named.preshared_key = Some(PresharedKey::from_bytes([9; 32]));
        named.persistent_keepalive = Some(25);
        let mut same = Peer::new(PublicKey::from_bytes([3; 32]));
        same.endpoint = named.endpoint.clone();
        let mut literal = Peer::new(PublicKey::from_bytes([4; 32]));
        literal.endpoint = Some("192.0.2.1:1".parse().unwrap());
        let interface = Interface::new(PrivateKey::from_bytes([7; 32]));
        Config { interface, peers: vec![silent, named, same, literal] }
    }

    #[test]
    fn update_replaces_everything() {
        let config = config();
        let address = "198.51.100.9:51820".parse().unwrap();
        let update = config.update(|endpoint| endpoint.socket_addr().or(Some(address)));
        assert!(update.replace_peers);
        assert_eq!(update.private_key, Some(config.interface.private_key.clone()));
        assert!(update.peers.iter().all(|peer| peer.replace_allowed_ips && !peer.remove && !peer.update_only));
        assert_eq!(update.peers[0].preshared_key, Some(None), "an absent key is taken away");
        assert_eq!(update.peers[0].persistent_keepalive, Some(0), "an absent keepalive is turned off");
        assert_eq!(update.peers[0].endpoint, None);
        let allowed: Vec<_> = update.peers[0].allowed_ips.iter().map(|change| (change.net, change.remove)).collect();
        assert_eq!(allowed, [(config.peers[0].allowed_ips[0], false), (config.peers[0].allowed_ips[1], false)]);
        assert_eq!(update.peers[1].preshared_key, Some(Some(PresharedKey::from_bytes([9; 32]))));
        assert_eq!(update.peers[1].persistent_keepalive, Some(25));
        assert_eq!(update.peers[1].endpoint, Some(address));
        assert_eq!(update.peers[3].endpoint, Some("192.0.2.1:1".parse().unwrap()));
    }

    #[test]
    fn a_name_that_several_peers_share_is_resolved_once() {
        let config = config();
        let names: Vec<_> = config.named_endpoints().into_iter().map(ToString::to_string).collect();
        assert_eq!(names, ["vpn.example.com:51820"]);
    }

    #[test]
    fn secrets_do_not_print() {
        let text = format!("{:?}", config());
        assert!(text.contains("PrivateKey(redacted)") && text.contains("PresharedKey(redacted)"), "{text}");
        assert!(!text.contains(&PresharedKey::from_bytes([9; 32]).to_base64()));
    }
}

//! Writes a configuration as TOML or JSON.

use serde::Serialize;
use zeroize::Zeroizing;

use adit_core::{PresharedKey, PrivateKey, PublicKey};
use ipnet::IpNet;

use super::model::{Config, Interface, Peer, Table};

/// The configuration as TOML; the text holds its secrets and is wiped when dropped.
pub(super) fn toml(config: &Config) -> Zeroizing<String> {
    Zeroizing::new(toml::to_string(&Document::new(config)).expect("tables of strings and 32-bit numbers are TOML"))
}

/// The configuration as indented JSON; the text holds its secrets and is wiped when dropped.
pub(super) fn json(config: &Config) -> Zeroizing<String> {
    let mut text =
        serde_json::to_string_pretty(&Document::new(config)).expect("string keys and finite numbers are JSON");
    text.push('\n');
    Zeroizing::new(text)
}

#[derive(Serialize)]
struct Document<'a> {
    interface: InterfaceTable<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peer: Vec<PeerTable<'a>>,
}

#[derive(Serialize)]
struct InterfaceTable<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<&'a PrivateKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fwmark: Option<NumberOrWord>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    addresses: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dns: &'a [std::net::IpAddr],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dns_search: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<NumberOrWord>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    excluded_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_local_networks: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    kill_switch: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pre_up: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    post_up: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pre_down: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    post_down: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    save_config: bool,
}

#[derive(Serialize)]
struct PeerTable<'a> {
    public_key: &'a PublicKey,
    #[serde(skip_serializing_if = "Option::is_none")]
    preshared_key: Option<&'a PresharedKey>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent_keepalive: Option<NumberOrWord>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum NumberOrWord {
    Number(u32),
    Word(&'static str),
}

impl NumberOrWord {
    /// Zero is `off`.
    fn or_off(number: u32) -> Self {
        if number == 0 { Self::Word("off") } else { Self::Number(number) }
    }
}

impl<'a> Document<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            interface: InterfaceTable::new(&config.interface),
            peer: config.peers.iter().map(PeerTable::new).collect(),
        }
    }
}

impl<'a> InterfaceTable<'a> {
    fn new(interface: &'a Interface) -> Self {
        Self {
            private_key: interface.private_key.as_ref(),
            listen_port: interface.listen_port,
            fwmark: interface.fwmark.map(NumberOrWord::or_off),
            addresses: &interface.addresses,
            dns: &interface.dns,
            dns_search: &interface.dns_search,
            mtu: interface.mtu,
            table: match interface.table {
                Table::Auto => None,
                Table::Off => Some(NumberOrWord::Word("off")),
                Table::Number(number) => Some(NumberOrWord::Number(number)),
            },
            excluded_ips: &interface.excluded_ips,
            exclude_local_networks: interface.exclude_local_networks,
            kill_switch: interface.kill_switch,
            pre_up: &interface.pre_up,
            post_up: &interface.post_up,
            pre_down: &interface.pre_down,
            post_down: &interface.post_down,
            save_config: interface.save_config,
        }
    }
}

impl<'a> PeerTable<'a> {
    fn new(peer: &'a Peer) -> Self {
        Self {
            public_key: &peer.public_key,
            preshared_key: peer.preshared_key.as_ref(),
            allowed_ips: &peer.allowed_ips,
            endpoint: peer.endpoint.as_ref().map(ToString::to_string),
            persistent_keepalive: peer.persistent_keepalive.map(|seconds| NumberOrWord::or_off(seconds.into())),
        }
    }
}

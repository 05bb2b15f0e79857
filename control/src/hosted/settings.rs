//! What a host must apply for a tunnel, in the terms of Apple's packet tunnel providers. Pure.
//!
//! The system that this runs on is not looked at: a host knows more about it. What is known to go wrong with settings that
//! look right comes with them as warnings (`adit_core::route::lint_apple`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use adit_core::route::{AppleDns, AppleLint, ApplePlatform, AppleSettings, AppleUnderlay, SystemTable, lint_apple};
use ipnet::IpNet;
use serde::Serialize;

use crate::config::{Config, Table};
use crate::session::NetworkPath;

/// The settings that a host applies, most often as an `NEPacketTunnelNetworkSettings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostSettings {
    /// The interface's addresses with the prefixes of their networks. Apple's systems take no IPv6 prefix that is longer
    /// than /120: give them that one for an address with /128.
    pub addresses: Vec<IpNet>,
    /// What goes into the tunnel.
    pub included_routes: Vec<IpNet>,
    /// What does not, although an included prefix holds it; the longest prefix decides.
    pub excluded_routes: Vec<IpNet>,
    /// Names.
    pub dns: Option<HostDns>,
    /// The interface's MTU in bytes.
    pub mtu: u16,
    /// The address of the first peer with an endpoint, or 127.0.0.1: a system wants one, and only shows it.
    pub remote_address: IpAddr,
    /// Whether connected networks are to stay outside of the tunnel; `None` is not said.
    pub exclude_local_networks: Option<bool>,
    /// What will not do what it seems to say.
    pub warnings: Vec<Warning>,
}

/// `NEDNSSettings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostDns {
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// The names that the servers are asked for; an empty one stands for all.
    pub match_domains: Vec<String>,
    /// Suffixes for names of one label.
    pub search_domains: Vec<String>,
    /// Whether match domains are kept out of the search list.
    pub match_domains_no_search: bool,
}

/// Something that a host may want to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// For programs; stays the same.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// What is not in a configuration and has a say in the settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The MTU in bytes if the configuration names none.
    pub(super) default_mtu: u16,
    /// Whose faults the warnings are about.
    pub(super) platform: ApplePlatform,
    /// The network below, if it was reported.
    pub(super) path: Option<&'a NetworkPath>,
    /// The endpoints' addresses, as far as they are known.
    pub(super) endpoints: &'a [SocketAddr],
}

impl HostSettings {
    /// Derives the settings from a configuration.
    pub(super) fn new(config: &Config, surroundings: Surroundings<'_>) -> Self {
        let interface = &config.interface;
        let mut included = Vec::new();
        if interface.table != Table::Off {
            let mut seen = std::collections::HashSet::new();
            let allowed = config.peers.iter().flat_map(|peer| &peer.allowed_ips).copied();
            included.extend(allowed.filter(|net| seen.insert(*net)));
        }
        let dns = (!interface.dns.is_empty() || !interface.dns_search.is_empty()).then(|| HostDns {
            servers: interface.dns.clone(),
            // As with WireGuard's own apps, the tunnel's servers are asked for every name, split tunnel or not; with that
            // they are the default resolver, whose search domains are searched.
            match_domains: vec![String::new()],
            search_domains: interface.dns_search.clone(),
            match_domains_no_search: false,
        });
        let mut settings = Self {
            addresses: interface.addresses.clone(),
            included_routes: included,
            excluded_routes: if interface.table == Table::Off { Vec::new() } else { interface.excluded_ips.clone() },
            dns,
            mtu: interface.mtu.unwrap_or(surroundings.default_mtu),
            remote_address: surroundings
                .endpoints
                .first()
                .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |endpoint| endpoint.ip().to_canonical()),
            exclude_local_networks: interface.exclude_local_networks,
            warnings: Vec::new(),
        };
        settings.warnings = settings.lint(surroundings);
        settings.warnings.extend(not_done(config));
        settings
    }

    fn lint(&self, surroundings: Surroundings<'_>) -> Vec<Warning> {
        let apple = AppleSettings {
            addresses: self.addresses.clone(),
            included: self.included_routes.clone(),
            excluded: self.excluded_routes.clone(),
            tunnel_remote_addresses: surroundings.endpoints.iter().map(SocketAddr::ip).collect(),
            include_all_networks: false,
            enforce_routes: false,
            exclude_local_networks: self.exclude_local_networks.unwrap_or(true),
            exclude_cellular_services: true,
            exclude_apns: true,
            exclude_device_communication: true,
            dns: self.dns.as_ref().map(|dns| AppleDns {
                servers: dns.servers.clone(),
                search_domains: dns.search_domains.clone(),
                match_domains: Some(dns.match_domains.clone()),
                match_domains_no_search: dns.match_domains_no_search,
            }),
            is_connected: true,
        };
        let underlay = AppleUnderlay {
            platform: surroundings.platform,
            // A network that was not reported is given the benefit of the doubt.
            has_ipv6_default: surroundings.path.is_none_or(|path| path.ipv6),
            table: SystemTable::default(),
        };
        let found = lint_apple(&apple, &underlay);
        // Nearly every WireGuard configuration has a /128, and a host knows what to make of it.
        let found = found.iter().filter(|lint| !matches!(lint, AppleLint::PrefixTooLong { .. }));
        found.map(|lint| Warning { code: lint.name(), message: lint.message() }).collect()
    }
}

/// What the configuration asks for and a tunnel in a host's hands does not do.
fn not_done(config: &Config) -> Vec<Warning> {
    let interface = &config.interface;
    let hooks = [&interface.pre_up, &interface.post_up, &interface.pre_down, &interface.post_down];
    let cases = [
        (
            hooks.iter().any(|hooks| !hooks.is_empty()),
            "hooks-ignored",
            "PreUp, PostUp, PreDown and PostDown are not run in an app extension.",
        ),
        (
            interface.kill_switch,
            "kill-switch-is-the-hosts",
            "KillSwitch is up to the app here: set includeAllNetworks on the VPN's configuration (NEVPNProtocol), which drops \
             everything while the tunnel is not connected.",
        ),
        (
            matches!(interface.table, Table::Number(_)),
            "table-ignored",
            "Table = a number is ignored: an app extension has no routing tables to choose from.",
        ),
        (
            interface.fwmark.is_some_and(|mark| mark != 0) && !cfg!(target_os = "linux"),
            "fwmark-ignored",
            "FwMark is ignored: this system has no marks, and keeps the provider's own traffic out of the tunnel by itself.",
        ),
        (
            interface.save_config,
            "save-config-ignored",
            "SaveConfig is ignored: the configuration is the app's to keep.",
        ),
    ];
    let cases = cases.into_iter().filter(|(applies, ..)| *applies);
    cases.map(|(_, code, message)| Warning { code, message: message.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::{Format, parse};

    fn settings(interface: &str, peer: &str) -> HostSettings {
        let key = "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=";
        let text = format!("[Interface]\nPrivateKey = {key}\n{interface}\n[Peer]\nPublicKey = {key}\n{peer}\n");
        let (config, _) = parse(&text, Format::Conf, "test.conf").unwrap();
        let endpoints = ["192.0.2.7:51820".parse().unwrap()];
        let platform = ApplePlatform::Ios;
        HostSettings::new(&config, Surroundings { default_mtu: 1280, platform, path: None, endpoints: &endpoints })
    }

    fn codes(settings: &HostSettings) -> Vec<&str> {
        settings.warnings.iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn a_full_tunnel_with_everything_said() {
        let settings = settings(
            "Address = 10.0.0.2/32, fd00::2/64\nDNS = 10.0.0.1, corp.example\nExcludedIPs = 192.168.0.0/16",
            "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = vpn.example:51820",
        );
        let json = serde_json::to_value(&settings).unwrap();
        let expected = serde_json::json!({
            "addresses": ["10.0.0.2/32", "fd00::2/64"],
            "included_routes": ["0.0.0.0/0", "::/0"],
            "excluded_routes": ["192.168.0.0/16"],
            "dns": {
                "servers": ["10.0.0.1"],
                "match_domains": [""],
                "search_domains": ["corp.example"],
                "match_domains_no_search": false,
            },
            "mtu": 1280,
            "remote_address": "192.0.2.7",
            "exclude_local_networks": null,
            "warnings": [],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn what_goes_wrong_silently_elsewhere_is_said() {
        let half = settings("Address = 10.0.0.2/32, fd00::2/128", "AllowedIPs = 0.0.0.0/0");
        assert_eq!(codes(&half), ["ipv6-default-missing"]);
        let outside = settings("Address = 10.0.0.2/32\nDNS = 8.8.8.8", "AllowedIPs = 10.0.0.0/8");
        assert_eq!(codes(&outside), ["dns-server-outside"]);
        let hooks = settings("Address = 10.0.0.2/32\nPostUp = true\nTable = 7", "AllowedIPs = 10.0.0.0/8");
        assert_eq!(codes(&hooks), ["hooks-ignored", "table-ignored"]);
    }

    #[test]
    fn without_routes_nothing_is_included_or_excluded() {
        let off = settings("Address = 10.0.0.2/32\nTable = off\nMTU = 1400", "AllowedIPs = 10.0.0.0/8, 10.0.0.0/8");
        assert_eq!((off.included_routes.len(), off.mtu, off.dns), (0, 1400, None));
    }
}

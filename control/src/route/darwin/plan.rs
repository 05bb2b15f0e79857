//! The changes that settings need on macOS, as a pure function of the settings and of the table without the tunnel.
//!
//! There is one table, and in it the longest prefix wins: so a route of the system that is longer than the tunnel's keeps
//! winning, and one that is equal stays where it is, since the kernel takes no second one. A default route becomes two
//! halves, which are longer than the system's default and leave it alone.
//!
//! An exception is a route that leads where the system would lead without the tunnel: the same router, the same link, or
//! an error if there is no way. Taking it out of the tunnel's prefixes instead (`adit_core::route::complement`) would need
//! nobody to follow the router, but what is left of the tunnel's prefixes is longer than they were: 0.0.0.0/0 without one
//! host of the local network has pieces inside that network, which would win over its own route.

use std::collections::BTreeSet;

use adit_core::route::AllowedIps;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::message::Gateway;
use super::table::{Row, Table};
use crate::journal::{Address, Device, Entry, Route, Via};
use crate::route::{PulledOut, RouteError};
use crate::settings::{Family, Place, Settings, TABLE_MAIN, Way};

/// What the settings need on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes, in the order in which they are made: an exception before what it is an exception of.
    pub changes: Vec<Entry>,
    /// Prefixes of the tunnel that the system has a route of its own to, which stays.
    pub ties: Vec<IpNet>,
}

/// Plans the changes for a tunnel's interface. `system` is the table without the tunnel ([`Table::without`]).
#[must_use]
pub fn plan(settings: &Settings, device: &Device, system: &Table) -> Plan {
    let addresses = settings.addresses.iter().map(|&address| Address { device: device.clone(), address });
    let mut changes: Vec<Entry> = addresses.map(Entry::Address).collect();
    changes.push(Entry::Up(device.clone()));

    let excluded = excluded(settings);
    let mut into_tunnel = tunnel_prefixes(settings);
    into_tunnel.retain(|net| !excluded.contains(net));
    let (ties, into_tunnel): (Vec<IpNet>, Vec<IpNet>) =
        into_tunnel.into_iter().partition(|net| system.covering(net).is_some_and(|row| row.destination == *net));
    let entry = |destination, via| Entry::Route(Route { destination, table: TABLE_MAIN, via, metric: None });
    let mut captures = AllowedIps::new();
    into_tunnel.iter().for_each(|net| captures.insert(*net, net.prefix_len()));
    for net in longest_first(excluded.into_iter()) {
        let mut captured = None;
        // Shortest first, so that the last one is the longest around the exception.
        captures
            .covering(net.addr(), |length| captured = Some(length).filter(|it| *it < net.prefix_len()).or(captured));
        let theirs = system.covering(&net);
        if captured.is_some_and(|length| theirs.is_none_or(|row| row.destination.prefix_len() < length)) {
            changes.push(entry(net, beside(theirs, system)));
        }
    }
    changes
        .extend(longest_first(into_tunnel.into_iter()).into_iter().map(|net| entry(net, Via::Device(device.clone()))));
    Plan { changes, ties }
}

/// Refuses what macOS has no means for, by the name of the key: less protection than was asked for is no protection.
///
/// # Errors
/// [`RouteError::Unsupported`].
pub fn refuse(settings: &Settings) -> Result<(), RouteError> {
    let unsupported = |key: String, reason| Err(RouteError::Unsupported { key, reason });
    let table = settings.routes.iter().find_map(|route| match route.place {
        Place::Table(number) if number != TABLE_MAIN => Some(number),
        _ => None,
    });
    if settings.firewall.as_ref().is_some_and(|firewall| firewall.kill_switch.is_some()) {
        return unsupported("KillSwitch".into(), "Adit does not know macOS's firewall");
    }
    if let Some(mark) = settings.fwmark {
        return unsupported(format!("FwMark = {mark}"), "macOS has no packet marks; sockets are bound to an interface");
    }
    if let Some(number) = table {
        return unsupported(format!("Table = {number}"), "macOS has one routing table: leave it out, or say off");
    }
    if settings.policy.is_some_and(|policy| !policy.main_first) && settings.local_networks.is_none() {
        return unsupported(
            "ExcludeLocalNetworks = off".into(),
            "macOS has one routing table, in which the routes to local networks win over the tunnel's",
        );
    }
    Ok(())
}

/// Whether the tunnel's own datagrams could be routed into it, so that its sockets must be bound to another interface.
#[must_use]
pub fn needs_binding(settings: &Settings) -> bool {
    settings.policy.is_some()
        || settings.routes.iter().any(|route| route.way == Way::Tunnel && route.net.prefix_len() == 0)
}

/// Routes of the system that take traffic out of a full tunnel, because they are longer than its own.
#[must_use]
pub fn pulled_out(settings: &Settings, system: &Table) -> Vec<PulledOut> {
    if settings.policy.is_none() {
        return Vec::new();
    }
    let (excluded, ours) = (excluded(settings), tunnel_prefixes(settings));
    let physical = |row: &&Row| system.by_index(row.index).is_some_and(super::table::Interface::is_physical);
    let takes = |row: &&Row| {
        let net = row.destination;
        !row.is_scoped
            && net.prefix_len() > 0
            && !is_local_by_nature(&net)
            && ours.iter().any(|own| own.contains(&net))
            && !excluded.iter().any(|excluded| excluded.contains(&net))
    };
    let found = system.routes.iter().filter(physical).filter(takes).map(|row| PulledOut {
        net: row.destination,
        interface: Some(row.index),
        connected: matches!(row.gateway, Gateway::Interface(_)),
    });
    found.collect()
}

/// Whether names that have only IPv6 addresses will not be found: macOS asks for them only if some service has an IPv6
/// default route (configd's `service_is_routable`), and a tunnel that carries some IPv6 gives it none.
#[must_use]
pub fn hides_ipv6_names(settings: &Settings, system: &Table) -> bool {
    let has_default = system.routes.iter().any(|row| {
        row.destination.prefix_len() == 0 && row.destination.addr().is_ipv6() && row.gateway != Gateway::Reject
    });
    settings.carries(Family::Ipv6) && !has_default
}

/// The prefixes that lead into the tunnel, as routes: those of the settings, halves for a default one, and the networks of
/// the interface's addresses, to which Linux makes routes by itself and macOS none on a point-to-point interface.
fn tunnel_prefixes(settings: &Settings) -> BTreeSet<IpNet> {
    let mut nets = BTreeSet::new();
    let wanted = settings.routes.iter().filter(|route| route.way == Way::Tunnel).map(|route| route.net);
    let connected = settings.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len()).map(IpNet::trunc);
    for net in wanted.chain(connected) {
        if net.prefix_len() > 0 {
            nets.insert(net);
        } else {
            nets.extend(halves(&net));
        }
    }
    nets
}

/// The exceptions. Link-local addresses need none: each link has a route of its own to fe80::/64.
fn excluded(settings: &Settings) -> BTreeSet<IpNet> {
    let nets = settings.routes.iter().filter(|route| route.way == Way::Underlay).map(|route| route.net);
    nets.filter(|net| !is_local_by_nature(net)).collect()
}

/// Where the system's own route leads.
fn beside(route: Option<&Row>, system: &Table) -> Via {
    match route.map(|row| (row.gateway, row.index)) {
        Some((Gateway::Router { address, .. }, index)) => Via::Gateway { address, device: system.device(index) },
        Some((Gateway::Interface(_), index)) => Via::Device(system.device(index)),
        Some((Gateway::Reject, _)) | None => Via::Unreachable,
    }
}

fn halves(net: &IpNet) -> impl Iterator<Item = IpNet> + use<> {
    let halves = match net {
        IpNet::V4(_) => [0, 1 << 31].map(|bits| Ipv4Net::new(bits.into(), 1).map(IpNet::V4)),
        IpNet::V6(_) => [0, 1 << 127].map(|bits| Ipv6Net::new(bits.into(), 1).map(IpNet::V6)),
    };
    halves.into_iter().flatten()
}

/// Link-local and multicast prefixes, which every interface has routes of its own to.
fn is_local_by_nature(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.prefix_len() >= 4 && net.network().is_multicast() || LINK_LOCAL_V4.contains(net),
        IpNet::V6(net) => net.prefix_len() >= 8 && net.network().is_multicast() || LINK_LOCAL_V6.contains(net),
    }
}

fn longest_first(nets: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut nets: Vec<_> = nets.collect();
    nets.sort_by_key(|net| std::cmp::Reverse(net.prefix_len()));
    nets
}

/// RFC 3927.
const LINK_LOCAL_V4: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(169, 254, 0, 0), 16);
/// RFC 4291 section 2.4.
const LINK_LOCAL_V6: Ipv6Net = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

#[cfg(test)]
mod tests;

//! What the host must apply so that a tunnel carries its traffic: addresses, MTU, routes, policy routing, firewall.
//!
//! Pure: plain values in, plain values out. It asks no kernel, so it knows neither which routing table is free nor what
//! the underlay's MTU is nor which networks are connected; it says what is wanted and `route` finds the rest.
//!
//! There are two ways of routing ([`Policy::main_first`] tells them apart).
//!
//! - *Plain* is wg-quick(8): `Table = off` wants no routes, a table number wants all routes in that table and no rules, and
//!   otherwise every allowed IP becomes a route in the main table, unless it is a default route, which turns on policy
//!   routing for its family. Routes of others in the main table that are more specific than a default one keep winning.
//! - *Strict* is for whoever uses one of Adit's own keys (`ExcludedIPs`, `ExcludeLocalNetworks`, `KillSwitch`), and for an
//!   endpoint that lies in a prefix of the tunnel, which would loop otherwise. All routes are in a table of the tunnel's
//!   own that is looked up before the main one, so nothing there can pull traffic out. An exception is a `throw` route
//!   (ip-route(8)): the look-up goes on in the main table, as if there were no tunnel, whatever the gateway is by then.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The settings of a tunnel that concern the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The interface's own addresses, host bits kept: `10.0.0.2/24` is the address 10.0.0.2 in the network 10.0.0.0/24.
    pub addresses: Vec<IpNet>,
    /// The allowed IPs of all peers; host bits are ignored.
    pub allowed_ips: Vec<IpNet>,
    /// What leaves by the underlay although an allowed IP covers it; host bits are ignored.
    pub excluded_ips: Vec<IpNet>,
    /// Whether connected networks stay reachable; `None` is not said: they do unless there is a kill switch.
    pub exclude_local_networks: Option<bool>,
    /// Whether nothing may leave but by the tunnel.
    pub kill_switch: bool,
    /// Whether the configuration names DNS servers, so that those of the local network have no part in it.
    pub names_dns_servers: bool,
    /// MTU in bytes as configured, or `None` to derive it from the underlay's.
    pub mtu: Option<u16>,
    /// Where routes go.
    pub table: RouteTable,
    /// The mark of the tunnel's own UDP packets as configured; 0 means the same as `None`, as in wg(8).
    pub fwmark: Option<u32>,
    /// The resolved endpoints of all peers.
    pub endpoints: Vec<SocketAddr>,
}

/// The `Table` of wg-quick(8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTable {
    /// The main table, and policy routing for default routes.
    #[default]
    Auto,
    /// No routes at all.
    Off,
    /// All routes, default routes included, in this table and no rules. 0 means main, as for the kernel.
    Number(u32),
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What the host must apply; made by [`Settings::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of the interface, in the order given, without repetitions.
    pub addresses: Vec<IpNet>,
    /// Where the interface's MTU comes from.
    pub mtu: MtuSource,
    /// Routes in the order in which they are to be added: what stops traffic first, then longest prefix first.
    pub routes: Vec<Route>,
    /// Policy routing, if the tunnel needs it.
    pub policy: Option<Policy>,
    /// Where exceptions for connected networks go, if they are asked for; `route` finds out which there are.
    pub local_networks: Option<Place>,
    /// What the firewall has to do, if anything.
    pub firewall: Option<FirewallSettings>,
    /// The mark of the tunnel's own packets, or `None` to choose the number of the table.
    pub fwmark: Option<u32>,
    /// The table of the tunnel's own, if it needs one.
    pub table: TablePreference,
}

/// Where the MTU of the interface comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtuSource {
    /// Bytes, as configured.
    Fixed(u16),
    /// The underlay's MTU towards these endpoints, less WireGuard's overhead.
    DeriveFromUnderlay {
        /// The endpoints, ports cleared (an IPv6 one may have a scope); none means the default route's MTU.
        endpoints: Vec<SocketAddr>,
        /// The mark with which the tunnel sends, so that the lookup takes the route that its packets take.
        fwmark: Option<u32>,
    },
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// The destination, host bits cleared.
    pub net: IpNet,
    /// The table.
    pub place: Place,
    /// Where it leads.
    pub way: Way,
}

/// The table of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The table with this number.
    Table(u32),
    /// The tunnel's own table, whose number is found when the settings are applied.
    Own,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Into the tunnel.
    Tunnel,
    /// Out of the tunnel's table: the next rule decides (`throw`).
    Underlay,
    /// Nowhere, if the tunnel's route to the same destination is gone (`unreachable`).
    Nowhere,
}

/// Policy routing: everything that is not the tunnel's own traffic is looked up in the tunnel's own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether IPv4 is.
    pub ipv4: bool,
    /// Whether IPv6 is.
    pub ipv6: bool,
    /// Whether routes of the main table that are no default ones are looked at before: wg-quick's way.
    pub main_first: bool,
}

/// What the firewall has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallSettings {
    /// Whether packets to the tunnel's addresses are kept out of other interfaces, and answers to the tunnel's own packets
    /// carry its mark, so that a strict reverse path filter lets them pass: what wg-quick does for a full tunnel.
    pub reply_protection: bool,
    /// What may leave beside the tunnel, if nothing else may.
    pub kill_switch: Option<KillSwitchSettings>,
}

/// The exceptions of a kill switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillSwitchSettings {
    /// Prefixes that may be reached beside the tunnel.
    pub excluded: Vec<IpNet>,
    /// Whether connected networks may be, too.
    pub local_networks: bool,
    /// Whether those are closed for DNS.
    pub no_local_dns: bool,
}

/// Which table a tunnel wants for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TablePreference {
    /// The first one from [`FIRST_TABLE`] on that nothing uses.
    FirstFree,
    /// Exactly this one.
    Number(u32),
}

impl Settings {
    /// Derives what to apply from what is wanted.
    #[must_use]
    pub fn new(wanted: &Wanted) -> Self {
        let fwmark = wanted.fwmark.filter(|&mark| mark != 0);
        let addresses = without_repetitions(wanted.addresses.iter().copied());
        let allowed = without_repetitions(wanted.allowed_ips.iter().map(IpNet::trunc));
        let excluded = without_repetitions(wanted.excluded_ips.iter().map(IpNet::trunc));
        // As with wg-quick the local network stays reachable, unless that was declined or everything is to be closed.
        let local = wanted.exclude_local_networks.unwrap_or(!wanted.kill_switch);
        let asked = wanted.exclude_local_networks.is_some() || wanted.kill_switch || !excluded.is_empty();
        let mut policy = None;
        let mut local_networks = None;
        let mut routes = match wanted.table {
            RouteTable::Off => Vec::new(),
            // An exception is an escape from a table to the ones behind it, and behind main there is nothing.
            RouteTable::Number(0 | TABLE_MAIN) => {
                allowed.iter().map(|&net| route(net, Place::Table(TABLE_MAIN), Way::Tunnel)).collect()
            }
            RouteTable::Number(number) => {
                let place = Place::Table(number);
                local_networks = Some(place).filter(|_| asked && local);
                let tunnel = allowed.iter().map(|&net| route(net, place, Way::Tunnel));
                let exceptions = excluded.iter().map(|&net| route(net, place, Way::Underlay));
                tunnel.chain(exceptions).chain(link_local(&allowed, place).filter(|_| asked)).collect()
            }
            RouteTable::Auto if asked || loops(&allowed, &wanted.endpoints) => {
                policy = Policy::of(&allowed, false);
                local_networks = Some(Place::Own).filter(|_| local);
                strict(&allowed, &excluded, wanted.kill_switch)
            }
            RouteTable::Auto => {
                let (defaults, others): (Vec<_>, Vec<_>) = allowed.iter().partition(|net| net.prefix_len() == 0);
                policy = Policy::of(&defaults, true);
                plain(&defaults, &others, &addresses)
            }
        };
        routes.sort_by_key(|route| (route.way != Way::Nowhere, Reverse(route.net.prefix_len())));
        let kill_switch = wanted.kill_switch.then_some(KillSwitchSettings {
            excluded,
            local_networks: local,
            no_local_dns: wanted.names_dns_servers,
        });
        let firewall = (policy.is_some() || kill_switch.is_some())
            .then(|| FirewallSettings { reply_protection: policy.is_some(), kill_switch });
        let mtu = match wanted.mtu {
            Some(bytes) => MtuSource::Fixed(bytes),
            None => MtuSource::DeriveFromUnderlay {
                endpoints: without_repetitions(wanted.endpoints.iter().map(without_port)),
                fwmark,
            },
        };
        // wg-quick uses the mark's number for the table too. A mark that is the number of one of the kernel's own tables
        // is a fine mark, but a tunnel's routes in the main or local table would cut the host off.
        let table = match fwmark {
            Some(mark) if !(TABLE_DEFAULT..=TABLE_LOCAL).contains(&mark) => TablePreference::Number(mark),
            _ => TablePreference::FirstFree,
        };
        Self { addresses, mtu, routes, policy, local_networks, firewall, fwmark, table }
    }

    /// Whether the tunnel carries a family: it has an address or a route of it.
    #[must_use]
    pub fn carries(&self, family: Family) -> bool {
        let routes = self.routes.iter().filter(|route| route.way == Way::Tunnel).map(|route| &route.net);
        self.addresses.iter().chain(routes).any(|net| Family::of(net) == family)
    }

    /// Whether the tunnel's own packets must carry a mark for its rules to tell them from others.
    #[must_use]
    pub fn needs_mark(&self) -> bool {
        self.policy.is_some() || self.firewall.as_ref().is_some_and(|firewall| firewall.kill_switch.is_some())
    }
}

impl Policy {
    /// The families that are looked up in the tunnel's own table.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        [(self.ipv4, Family::Ipv4), (self.ipv6, Family::Ipv6)]
            .into_iter()
            .filter_map(|(on, f)| on.then_some(f))
            .collect()
    }

    /// Policy routing for the families of these prefixes, if there are any.
    fn of(nets: &[IpNet], main_first: bool) -> Option<Self> {
        let has = |family| nets.iter().any(|net| Family::of(net) == family);
        (!nets.is_empty()).then(|| Self { ipv4: has(Family::Ipv4), ipv6: has(Family::Ipv6), main_first })
    }
}

impl Family {
    /// The family of a network.
    #[must_use]
    pub fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::Ipv4,
            IpNet::V6(_) => Self::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

fn route(net: IpNet, place: Place, way: Way) -> Route {
    Route { net, place, way }
}

/// wg-quick's routes: default ones in the tunnel's own table, the others in main.
fn plain(defaults: &[IpNet], others: &[IpNet], addresses: &[IpNet]) -> Vec<Route> {
    let connected: Vec<IpNet> = addresses.iter().filter_map(connected_route).collect();
    let missing = others.iter().filter(|net| !connected.iter().any(|on_link| on_link.contains(*net)));
    let stops = defaults.iter().map(|&net| route(net, Place::Own, Way::Nowhere));
    let tunnel = defaults.iter().map(|&net| route(net, Place::Own, Way::Tunnel));
    stops.chain(tunnel).chain(missing.map(|&net| route(net, Place::Table(TABLE_MAIN), Way::Tunnel))).collect()
}

/// All routes in the tunnel's own table, exceptions included.
fn strict(allowed: &[IpNet], excluded: &[IpNet], kill_switch: bool) -> Vec<Route> {
    // A table is looked up for the families that the tunnel has prefixes of; in the other one there is nothing to except.
    let has = |family| allowed.iter().any(|net| Family::of(net) == family);
    let exceptions = excluded.iter().filter(|net| has(Family::of(net)));
    let stopped = allowed.iter().filter(|net| kill_switch || net.prefix_len() == 0);
    stopped
        .map(|&net| route(net, Place::Own, Way::Nowhere))
        .chain(allowed.iter().map(|&net| route(net, Place::Own, Way::Tunnel)))
        .chain(exceptions.map(|&net| route(net, Place::Own, Way::Underlay)))
        .chain(link_local(allowed, Place::Own))
        .collect()
}

/// The exception for fe80::/10, whose addresses mean something on their interface only (RFC 4291 section 2.5.6).
fn link_local(allowed: &[IpNet], place: Place) -> impl Iterator<Item = Route> + use<> {
    let net = IpNet::V6(LINK_LOCAL);
    let ipv6 = allowed.iter().any(|net| Family::of(net) == Family::Ipv6) && !allowed.contains(&net);
    ipv6.then(|| route(net, place, Way::Underlay)).into_iter()
}

/// Whether packets to an endpoint would go into the tunnel although they look up the main table.
fn loops(allowed: &[IpNet], endpoints: &[SocketAddr]) -> bool {
    let specific = || allowed.iter().filter(|net| net.prefix_len() > 0);
    endpoints.iter().any(|endpoint| specific().any(|net| net.contains(&endpoint.ip().to_canonical())))
}

/// The route that the kernel itself adds for an address of an interface that is up, if it adds one.
///
/// `fib_add_ifaddr` (net/ipv4/fib_frontend.c) adds none for a /32 and none in 0.0.0.0/8; `inet6_addr_add`
/// (net/ipv6/addrconf.c) adds one for every prefix length.
fn connected_route(address: &IpNet) -> Option<IpNet> {
    match address {
        IpNet::V4(net) if net.prefix_len() == 32 || net.network().octets()[0] == 0 => None,
        _ => Some(address.trunc()),
    }
}

fn without_port(endpoint: &SocketAddr) -> SocketAddr {
    let scope = if let SocketAddr::V6(v6) = endpoint { v6.scope_id() } else { 0 };
    match endpoint.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, 0)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, 0, 0, scope).into(),
    }
}

fn without_repetitions<T: std::hash::Hash + Eq + Copy>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(*item)).collect()
}

/// The table from which a tunnel looks for a free one, as wg-quick does (WireGuard's port).
pub const FIRST_TABLE: u32 = 51820;
/// RT_TABLE_DEFAULT, linux/rtnetlink.h.
pub const TABLE_DEFAULT: u32 = 253;
/// RT_TABLE_MAIN, linux/rtnetlink.h.
pub const TABLE_MAIN: u32 = 254;
/// RT_TABLE_LOCAL, linux/rtnetlink.h.
pub const TABLE_LOCAL: u32 = 255;

/// Link-local addresses (RFC 4291 section 2.4).
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

#[cfg(test)]
mod tests;

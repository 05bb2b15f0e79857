//! What the host must apply so that a tunnel carries its traffic: addresses, MTU, routes and policy routing.
//!
//! Pure: plain values in, plain values out. It asks no kernel, so it knows neither which routing table is free nor what
//! the underlay's MTU is; it says what is wanted and `route` finds the numbers.
//!
//! The rules are those of wg-quick(8): `Table = off` wants no routes, a table number wants all routes in that table and no
//! rules, and otherwise every allowed IP becomes a route in the main table, unless it is a default route, which
//! turns on policy routing for its family.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The settings of a tunnel that concern the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The interface's own addresses, host bits kept: `10.0.0.2/24` is the address 10.0.0.2 in the network 10.0.0.0/24.
    pub addresses: Vec<IpNet>,
    /// The allowed IPs of all peers; host bits are ignored.
    pub allowed_ips: Vec<IpNet>,
    /// MTU in bytes as configured, or `None` to derive it from the underlay's.
    pub mtu: Option<u16>,
    /// Where routes go.
    pub table: RouteTable,
    /// The mark of the tunnel's own UDP packets as configured; 0 means the same as `None`, as in wg(8).
    pub fwmark: Option<u32>,
    /// The resolved endpoints of all peers, for the MTU.
    pub endpoints: Vec<SocketAddr>,
}

/// The `Table` of wg-quick(8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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
    /// Routes through the interface, longest prefix first, without default routes of a full tunnel.
    pub routes: Vec<Route>,
    /// Policy routing, if an allowed IP is a default route and the table is chosen automatically.
    pub full_tunnel: Option<FullTunnel>,
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

/// A route through the tunnel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// The destination, host bits cleared.
    pub net: IpNet,
    /// The routing table, or `None` for main.
    pub table: Option<u32>,
}

/// Policy routing: everything that is not the tunnel's own traffic and has no route more specific than a default one goes
/// into the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullTunnel {
    /// Whether 0.0.0.0/0 is an allowed IP.
    pub ipv4: bool,
    /// Whether ::/0 is an allowed IP.
    pub ipv6: bool,
    /// The mark of the tunnel's own packets, or `None` to choose the number of the table.
    pub fwmark: Option<u32>,
    /// The table that holds the tunnel's default routes.
    pub table: TablePreference,
}

/// Which table a full tunnel wants.
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
        let mut nets = without_repetitions(wanted.allowed_ips.iter().map(IpNet::trunc));
        nets.sort_by_key(|net| Reverse(net.prefix_len()));

        let mut full_tunnel = None;
        let routes = match wanted.table {
            RouteTable::Off => Vec::new(),
            RouteTable::Number(number) => {
                let table = Some(number).filter(|&n| n != 0 && n != TABLE_MAIN);
                nets.into_iter().map(|net| Route { net, table }).collect()
            }
            RouteTable::Auto => {
                let (defaults, others): (Vec<_>, Vec<_>) = nets.into_iter().partition(|net| net.prefix_len() == 0);
                full_tunnel = FullTunnel::for_defaults(&defaults, fwmark);
                let connected: Vec<IpNet> = addresses.iter().filter_map(connected_route).collect();
                others
                    .into_iter()
                    .filter(|net| !connected.iter().any(|on_link| on_link.contains(net)))
                    .map(|net| Route { net, table: None })
                    .collect()
            }
        };
        let mtu = match wanted.mtu {
            Some(bytes) => MtuSource::Fixed(bytes),
            None => MtuSource::DeriveFromUnderlay {
                endpoints: without_repetitions(wanted.endpoints.iter().map(without_port)),
                fwmark,
            },
        };
        Self { addresses, mtu, routes, full_tunnel }
    }

    /// Whether the tunnel carries a family: it has an address or a route of it.
    #[must_use]
    pub fn carries(&self, family: Family) -> bool {
        self.addresses.iter().chain(self.routes.iter().map(|r| &r.net)).any(|net| Family::of(net) == family)
            || self.full_tunnel.is_some_and(|full| full.families().contains(&family))
    }
}

impl FullTunnel {
    /// The families whose default route goes into the tunnel.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        [(self.ipv4, Family::Ipv4), (self.ipv6, Family::Ipv6)]
            .into_iter()
            .filter_map(|(on, f)| on.then_some(f))
            .collect()
    }

    fn for_defaults(defaults: &[IpNet], fwmark: Option<u32>) -> Option<Self> {
        let has = |family| defaults.iter().any(|net| Family::of(net) == family);
        // wg-quick uses the mark's number for the table too. A mark that is the number of one of the kernel's own tables
        // is a fine mark, but a tunnel's default route in the main or local table would cut the host off.
        let table = match fwmark {
            Some(mark) if !(TABLE_DEFAULT..=TABLE_LOCAL).contains(&mark) => TablePreference::Number(mark),
            _ => TablePreference::FirstFree,
        };
        (!defaults.is_empty()).then(|| Self { ipv4: has(Family::Ipv4), ipv6: has(Family::Ipv6), fwmark, table })
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

/// The table from which a full tunnel looks for a free one, as wg-quick does (WireGuard's port).
pub const FIRST_TABLE: u32 = 51820;
/// RT_TABLE_DEFAULT, linux/rtnetlink.h.
pub const TABLE_DEFAULT: u32 = 253;
/// RT_TABLE_MAIN, linux/rtnetlink.h.
pub const TABLE_MAIN: u32 = 254;
/// RT_TABLE_LOCAL, linux/rtnetlink.h.
pub const TABLE_LOCAL: u32 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn wanted(addresses: &[&str], allowed_ips: &[&str]) -> Wanted {
        Wanted { addresses: nets(addresses), allowed_ips: nets(allowed_ips), ..Wanted::default() }
    }

    fn routes(settings: &Settings) -> Vec<String> {
        settings
            .routes
            .iter()
            .map(|route| match route.table {
                None => route.net.to_string(),
                Some(table) => format!("{}@{table}", route.net),
            })
            .collect()
    }

    #[test]
    fn allowed_ips_become_routes_longest_prefix_first() {
        let settings =
            Settings::new(&wanted(&["10.0.0.2/32"], &["10.0.0.0/8", "192.168.7.9/24", "fd00::/48", "10.1.1.1/32"]));
        assert_eq!(routes(&settings), ["fd00::/48", "10.1.1.1/32", "192.168.7.0/24", "10.0.0.0/8"]);
        assert_eq!(settings.full_tunnel, None);
    }

    #[test]
    fn repeated_prefixes_make_one_route() {
        let settings = Settings::new(&wanted(&["10.0.0.2/32", "10.0.0.2/32"], &["10.9.0.0/16", "10.9.1.2/16"]));
        assert_eq!(routes(&settings), ["10.9.0.0/16"]);
        assert_eq!(settings.addresses, nets(&["10.0.0.2/32"]));
    }

    #[test]
    fn a_prefix_that_is_on_link_already_needs_no_route() {
        let allowed = ["10.0.0.0/24", "10.0.0.77/32", "10.0.0.0/16", "fd00::/64", "fd00::5/128", "fd00::/56"];
        let settings = Settings::new(&wanted(&["10.0.0.2/24", "fd00::2/64"], &allowed));
        assert_eq!(routes(&settings), ["fd00::/56", "10.0.0.0/16"]);
    }

    #[test]
    fn a_host_address_covers_nothing_in_ipv4_and_itself_in_ipv6() {
        let settings = Settings::new(&wanted(&["10.0.0.2/32", "fd00::2/128"], &["10.0.0.2/32", "fd00::2/128"]));
        assert_eq!(routes(&settings), ["10.0.0.2/32"]);
    }

    #[test]
    fn default_routes_turn_on_policy_routing_for_their_family_only() {
        let settings = Settings::new(&wanted(&[], &["0.0.0.0/0", "10.0.0.0/8", "fd00::/8"]));
        assert_eq!(routes(&settings), ["10.0.0.0/8", "fd00::/8"]);
        let full = settings.full_tunnel.unwrap();
        assert_eq!(full.families(), [Family::Ipv4]);
        assert_eq!((full.fwmark, full.table), (None, TablePreference::FirstFree));

        let both = Settings::new(&wanted(&[], &["::/0", "0.0.0.0/0"])).full_tunnel.unwrap();
        assert_eq!(both.families(), [Family::Ipv4, Family::Ipv6]);
    }

    #[test]
    fn two_halves_are_plain_routes() {
        let settings = Settings::new(&wanted(&[], &["0.0.0.0/1", "128.0.0.0/1"]));
        assert_eq!(routes(&settings), ["0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(settings.full_tunnel, None);
    }

    #[test]
    fn a_configured_mark_is_the_table_too_unless_the_kernel_owns_that_table() {
        for (mark, table, fwmark) in [
            (Some(1234), TablePreference::Number(1234), Some(1234)),
            (Some(0), TablePreference::FirstFree, None),
            (Some(254), TablePreference::FirstFree, Some(254)),
            (Some(252), TablePreference::Number(252), Some(252)),
        ] {
            let settings = Settings::new(&Wanted { fwmark: mark, ..wanted(&[], &["0.0.0.0/0"]) });
            let full = settings.full_tunnel.unwrap();
            assert_eq!((full.table, full.fwmark), (table, fwmark), "mark {mark:?}");
        }
    }

    #[test]
    fn a_table_number_takes_every_route_and_no_rules() {
        let allowed = ["0.0.0.0/0", "10.0.0.0/24"];
        let settings = Settings::new(&Wanted { table: RouteTable::Number(1000), ..wanted(&["10.0.0.2/24"], &allowed) });
        assert_eq!(routes(&settings), ["10.0.0.0/24@1000", "0.0.0.0/0@1000"]);
        assert_eq!(settings.full_tunnel, None);

        for main in [0, 254] {
            let settings = Settings::new(&Wanted { table: RouteTable::Number(main), ..wanted(&[], &allowed) });
            assert_eq!(routes(&settings), ["10.0.0.0/24", "0.0.0.0/0"]);
        }
    }

    #[test]
    fn table_off_wants_no_routes() {
        let settings = Settings::new(&Wanted { table: RouteTable::Off, ..wanted(&["10.0.0.2/24"], &["0.0.0.0/0"]) });
        assert_eq!((settings.routes.len(), settings.full_tunnel), (0, None));
        assert_eq!(settings.addresses, nets(&["10.0.0.2/24"]));
    }

    #[test]
    fn the_mtu_is_fixed_or_derived_from_each_endpoint_once() {
        let fixed = Settings::new(&Wanted { mtu: Some(1380), ..Wanted::default() });
        assert_eq!(fixed.mtu, MtuSource::Fixed(1380));

        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let endpoints = parsed(&["192.0.2.1:51820", "[::ffff:192.0.2.1]:7", "[2001:db8::1]:9", "[fe80::1%3]:9"]);
        let derived = Settings::new(&Wanted { endpoints, fwmark: Some(7), ..Wanted::default() });
        let endpoints = parsed(&["192.0.2.1:0", "[2001:db8::1]:0", "[fe80::1%3]:0"]);
        assert_eq!(derived.mtu, MtuSource::DeriveFromUnderlay { endpoints, fwmark: Some(7) });
    }

    #[test]
    fn a_family_is_carried_by_address_route_or_default() {
        let carries = |addresses: &[&str], allowed: &[&str]| {
            let settings = Settings::new(&wanted(addresses, allowed));
            (settings.carries(Family::Ipv4), settings.carries(Family::Ipv6))
        };
        assert_eq!(carries(&["10.0.0.1/32"], &[]), (true, false));
        assert_eq!(carries(&[], &["fd00::/8"]), (false, true));
        assert_eq!(carries(&["10.0.0.1/32"], &["::/0"]), (true, true));
        assert_eq!(carries(&[], &[]), (false, false));
    }
}

//! A route, as the kernel shows it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    self, RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags, RouteVia,
};
use serde::{Serialize, Serializer};

use super::super::routes::PROTOCOL_NUMBER;
use crate::journal::Device;

/// A route of any table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelRoute {
    /// The destinations.
    pub destination: IpNet,
    /// The sources that it is for, if not all (IPv6 only).
    pub source: Option<IpNet>,
    /// The table.
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Where it leads: one, or several that share the load; none for a kind that leads nowhere.
    pub hops: Vec<Hop>,
    /// The lowest of equal prefixes wins.
    pub metric: u32,
    /// The type of service that it is for; 0 is all.
    pub tos: u8,
    /// Who made it.
    pub protocol: Protocol,
    /// The source address that it proposes.
    pub preferred_source: Option<IpAddr>,
    /// How far its destinations are (IPv4 only; IPv6 says [`RouteScope::Universe`]).
    pub scope: RouteScope,
    /// The MTU of its own, in bytes.
    pub mtu: Option<u32>,
    /// Whether it carries Adit's protocol number.
    pub is_ours: bool,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// The router, if the destination is not on the link.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub device: Option<Device>,
    /// Whether the kernel passes over it: its interface is down, or has no carrier and the host ignores such routes.
    pub is_dead: bool,
}

/// What a route does (rtnetlink(7), `rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RouteKind {
    /// Sends on.
    Unicast,
    /// Delivers on the host.
    Local,
    /// Delivers on the host and sends as a broadcast.
    Broadcast,
    /// Delivers on the host, one of several that do.
    Anycast,
    /// Sends to a multicast group.
    Multicast,
    /// Drops silently.
    Blackhole,
    /// Refuses: host unreachable.
    Unreachable,
    /// Refuses: prohibited.
    Prohibit,
    /// Sends the look-up on to the next rule.
    Throw,
    /// Something newer.
    Other,
}

/// How far destinations are (rtnetlink(7), `rtm_scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RouteScope {
    /// Anywhere.
    Universe,
    /// Within the site.
    Site,
    /// On the link.
    Link,
    /// On the host.
    Host,
    /// Nowhere.
    Nowhere,
    /// A number of the user's.
    Other,
}

/// Who made a route or a rule (rtnetlink(7), `rtm_protocol`): a number, shown and serialized as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl KernelRoute {
    /// Whether one of its hops leaves by the interface with this number.
    #[must_use]
    pub fn leads_to(&self, index: u32) -> bool {
        self.hops.iter().any(|hop| hop.device.as_ref().is_some_and(|device| device.index == index))
    }

    /// Whether the kernel made it for an address of the interface, or a router has announced it as on-link (RFC 4861 section
    /// 6.3.4), so that it is a connected network.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let by_kernel = match self.destination {
            IpNet::V4(_) => self.protocol == Protocol::KERNEL,
            IpNet::V6(_) => matches!(self.protocol, Protocol::KERNEL | Protocol::RA),
        };
        by_kernel
            && self.kind == RouteKind::Unicast
            && matches!(&self.hops[..], [Hop { gateway: None, .. }])
            && self.destination.prefix_len() > 0
    }
}

impl Protocol {
    /// Routes that an ICMP redirect made.
    pub const REDIRECT: Self = Self(1);
    /// Routes and rules that the kernel made.
    pub const KERNEL: Self = Self(2);
    /// What was made at boot, and what `ip route` makes without being told more.
    pub const BOOT: Self = Self(3);
    /// What an administrator made.
    pub const STATIC: Self = Self(4);
    /// Routes from router advertisements.
    pub const RA: Self = Self(9);
    /// Routes from DHCP.
    pub const DHCP: Self = Self(16);
    /// Adit's.
    pub const ADIT: Self = Self(PROTOCOL_NUMBER);
}

impl RouteKind {
    /// Whether a packet that meets it goes no further: it is dropped or refused.
    #[must_use]
    pub fn stops(self) -> bool {
        matches!(self, Self::Blackhole | Self::Unreachable | Self::Prohibit)
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unicast => "unicast",
            Self::Local => "local",
            Self::Broadcast => "broadcast",
            Self::Anycast => "anycast",
            Self::Multicast => "multicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
            Self::Throw => "throw",
            Self::Other => "other",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find_map(|(protocol, name)| (protocol == self).then_some(*name));
        match name {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// As `ip route show` writes it.
impl fmt::Display for KernelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != RouteKind::Unicast {
            write!(f, "{} ", self.kind)?;
        }
        match self.destination.prefix_len() {
            0 => f.write_str("default")?,
            len if len == self.destination.max_prefix_len() => write!(f, "{}", self.destination.addr())?,
            _ => write!(f, "{}", self.destination)?,
        }
        if let Some(source) = self.source {
            write!(f, " from {source}")?;
        }
        // IPv6 shows the loopback interface on routes that lead nowhere.
        let leads = !self.kind.stops() && self.kind != RouteKind::Throw;
        for hop in self.hops.iter().filter(|_| leads) {
            if self.hops.len() > 1 {
                f.write_str(" nexthop")?;
            }
            if let Some(gateway) = hop.gateway {
                write!(f, " via {gateway}")?;
            }
            if let Some(device) = &hop.device {
                write!(f, " dev {}", device.name)?;
            }
        }
        Ok(())
    }
}

pub(super) fn parse(message: &RouteMessage, device: &dyn Fn(u32) -> Device) -> Option<KernelRoute> {
    let header = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut destination, mut source) = (unspecified, unspecified);
    let mut route = KernelRoute {
        destination: unspecified.into(),
        source: None,
        table: u32::from(header.table),
        kind: header.kind.into(),
        hops: Vec::new(),
        metric: 0,
        tos: header.tos,
        protocol: Protocol(header.protocol.into()),
        preferred_source: None,
        scope: header.scope.into(),
        mtu: None,
        is_ours: u8::from(header.protocol) == PROTOCOL_NUMBER,
    };
    let (mut gateway, mut interface) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Source(address) => source = ip(address)?,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(address) => route.preferred_source = ip(address),
            RouteAttribute::Metrics(metrics) => route.mtu = metrics.iter().find_map(mtu),
            RouteAttribute::Oif(index) => interface = Some(device(*index)),
            RouteAttribute::MultiPath(hops) => route.hops = hops.iter().map(|next| hop(next, device)).collect(),
            other => gateway = gateway.or_else(|| via(other)),
        }
    }
    if route.hops.is_empty() && (gateway.is_some() || interface.is_some()) {
        let is_dead = header.flags.contains(route::RouteFlags::Dead);
        route.hops.push(Hop { gateway, device: interface, is_dead });
    }
    route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    if header.source_prefix_length > 0 {
        route.source = IpNet::new(source, header.source_prefix_length).ok();
    }
    Some(route)
}

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// The router that an attribute names; one of the other family stands in an attribute of its own (RFC 5549).
pub(super) fn via(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    }
}

pub(super) fn mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
        _ => None,
    }
}

fn hop(next: &RouteNextHop, device: &dyn Fn(u32) -> Device) -> Hop {
    Hop {
        gateway: next.attributes.iter().find_map(via),
        device: (next.interface_index != 0).then(|| device(next.interface_index)),
        is_dead: next.flags.contains(RouteNextHopFlags::Dead),
    }
}

impl From<route::RouteType> for RouteKind {
    fn from(kind: route::RouteType) -> Self {
        match kind {
            route::RouteType::Unicast => Self::Unicast,
            route::RouteType::Local => Self::Local,
            route::RouteType::Broadcast => Self::Broadcast,
            route::RouteType::Anycast => Self::Anycast,
            route::RouteType::Multicast => Self::Multicast,
            route::RouteType::BlackHole => Self::Blackhole,
            route::RouteType::Unreachable => Self::Unreachable,
            route::RouteType::Prohibit => Self::Prohibit,
            route::RouteType::Throw => Self::Throw,
            _ => Self::Other,
        }
    }
}

impl From<route::RouteScope> for RouteScope {
    fn from(scope: route::RouteScope) -> Self {
        match scope {
            route::RouteScope::Universe => Self::Universe,
            route::RouteScope::Site => Self::Site,
            route::RouteScope::Link => Self::Link,
            route::RouteScope::Host => Self::Host,
            route::RouteScope::NoWhere => Self::Nowhere,
            _ => Self::Other,
        }
    }
}

/// The names that ip(8) gives to the protocols that a host commonly has, and ours.
const NAMES: [(Protocol, &str); 9] = [
    (Protocol(0), "unspec"),
    (Protocol::REDIRECT, "redirect"),
    (Protocol::KERNEL, "kernel"),
    (Protocol::BOOT, "boot"),
    (Protocol::STATIC, "static"),
    (Protocol::RA, "ra"),
    (Protocol::DHCP, "dhcp"),
    (Protocol(42), "babel"),
    (Protocol::ADIT, "adit"),
];

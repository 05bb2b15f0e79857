//! Routes of one table, in both families: adding, removing, listing.
//!
//! Routes of ours carry [`PROTOCOL`], and only routes that carry it are ever removed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;
use crate::journal::{Route, Via};
use crate::route::error::{Reason, RouteError};
use crate::settings::Family;

/// A route that exists.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) message: RouteMessage,
}

/// What tells the routes of one table apart, whoever added them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) destination: IpNet,
    pub(super) via: KeyVia,
    pub(super) metric: u32,
}

/// Where a route leads, as far as it tells routes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum KeyVia {
    Interface(u32),
    Unreachable,
    Throw,
    /// Something that no route of ours is: several interfaces, a blackhole.
    Other,
}

impl Key {
    pub(super) fn of(route: &Route) -> Self {
        let default = match Family::of(&route.destination) {
            Family::Ipv4 => 0,
            Family::Ipv6 => IPV6_METRIC,
        };
        let via = match &route.via {
            Via::Device(device) => KeyVia::Interface(device.index),
            Via::Gateway { .. } => KeyVia::Other,
            Via::Unreachable => KeyVia::Unreachable,
            Via::Throw => KeyVia::Throw,
        };
        Self { destination: route.destination, via, metric: route.metric.unwrap_or(default) }
    }
}

/// Adds routes, a result each; it is no error if the very same exists.
pub(super) async fn add_all(netlink: &Netlink, routes: &[&Route]) -> Vec<Result<(), RouteError>> {
    let requests = routes.iter().map(|route| RouteNetlinkMessage::NewRoute(message(route))).collect();
    let answers = netlink.create_all(requests).await;
    let mut results = Vec::with_capacity(routes.len());
    for (route, answer) in routes.iter().zip(answers) {
        results.push(added(netlink, route, answer).await);
    }
    results
}

async fn added(netlink: &Netlink, route: &Route, answer: Result<(), Reason>) -> Result<(), RouteError> {
    match answer {
        Ok(()) => Ok(()),
        Err(Reason::Errno(Errno::EEXIST)) => {
            let found = list(netlink, Family::of(&route.destination), route.table, None).await?;
            let same = found.iter().any(|found| found.key == Key::of(route));
            if same { Ok(()) } else { Err(RouteError::Conflict { object: describe(route) }) }
        }
        Err(reason) => Err(RouteError::Kernel { action: "add", object: describe(route), reason }),
    }
}

/// Removes routes of ours, a result each; it is no error if a route or its interface is gone.
pub(super) async fn remove_all(netlink: &Netlink, routes: &[&Route]) -> Vec<Result<(), RouteError>> {
    let requests = routes.iter().map(|route| RouteNetlinkMessage::DelRoute(message(route))).collect();
    let answers = netlink.change_all(requests).await;
    let results = routes.iter().zip(answers).map(|(route, answer)| match answer {
        Ok(()) | Err(Reason::Errno(Errno::ESRCH | Errno::ENOENT | Errno::ENODEV | Errno::ENETDOWN)) => Ok(()),
        Err(reason) => Err(RouteError::Kernel { action: "remove", object: describe(route), reason }),
    });
    results.collect()
}

/// The routes of a table, of one family, through one interface if one is given.
pub(super) async fn list(
    netlink: &Netlink,
    family: Family,
    table: u32,
    interface: Option<u32>,
) -> Result<Vec<Found>, RouteError> {
    let mut filter = RouteMessage::default();
    filter.header.address_family = address_family(family);
    filter.attributes.push(RouteAttribute::Table(table));
    filter.attributes.extend(interface.map(RouteAttribute::Oif));
    let answers = netlink.list(RouteNetlinkMessage::GetRoute(filter)).await.map_err(|reason| RouteError::Kernel {
        action: "list",
        object: format!("the {family} routes of table {table}"),
        reason,
    })?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) if table_of(&message) == table => parse(message),
            _ => None,
        })
        .filter(|found| found.message.header.address_family == address_family(family))
        .filter(|found| interface.is_none_or(|index| found.key.via == KeyVia::Interface(index)))
        .collect())
}

pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = address_family(Family::of(&route.destination));
    header.destination_prefix_length = route.destination.prefix_len();
    header.protocol = PROTOCOL;
    // A table above 255 has its number in the attribute alone.
    header.table = u8::try_from(route.table).unwrap_or(0);
    (header.kind, header.scope) = match (&route.via, &route.destination) {
        (Via::Unreachable, _) => (RouteType::Unreachable, RouteScope::Universe),
        // A gateway is looked for in routes of link scope only (fib_check_nh, net/ipv4/fib_semantics.c). One that is wider
        // would be passed over then, and a gateway in an exception be found behind the tunnel.
        (Via::Throw, IpNet::V4(_)) => (RouteType::Throw, RouteScope::Link),
        (Via::Throw, IpNet::V6(_)) => (RouteType::Throw, RouteScope::Universe),
        (Via::Device(_), IpNet::V4(_)) => (RouteType::Unicast, RouteScope::Link),
        (Via::Device(_), IpNet::V6(_)) | (Via::Gateway { .. }, _) => (RouteType::Unicast, RouteScope::Universe),
    };
    message.attributes.push(RouteAttribute::Table(route.table));
    message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    if let Via::Device(device) | Via::Gateway { device, .. } = &route.via {
        message.attributes.push(RouteAttribute::Oif(device.index));
    }
    if let Via::Gateway { address, .. } = &route.via {
        message.attributes.push(RouteAttribute::Gateway((*address).into()));
    }
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

fn parse(message: RouteMessage) -> Option<Found> {
    let mut ip: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut interface = None;
    let mut metric = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => ip = (*v4).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => ip = (*v6).into(),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    // IPv6 shows the loopback interface on routes that lead to none.
    let via = match (message.header.kind, interface) {
        (RouteType::Unreachable, _) => KeyVia::Unreachable,
        (RouteType::Throw, _) => KeyVia::Throw,
        (RouteType::Unicast | RouteType::Local, Some(index)) => KeyVia::Interface(index),
        _ => KeyVia::Other,
    };
    let destination = IpNet::new(ip, message.header.destination_prefix_length).ok()?;
    Some(Found { key: Key { destination, via, metric }, message })
}

fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or(u32::from(message.header.table))
}

fn describe(route: &Route) -> String {
    let Route { destination, table, .. } = route;
    match &route.via {
        Via::Device(device) => format!("the route {destination} dev {} table {table}", device.name),
        Via::Gateway { address, device } => {
            format!("the route {destination} via {address} dev {} table {table}", device.name)
        }
        Via::Unreachable => format!("the route unreachable {destination} table {table}"),
        Via::Throw => format!("the route throw {destination} table {table}"),
    }
}

/// Adit's routing protocol number, shown by `ip route` and `ip rule` as `proto 173`.
///
/// From 128 on numbers are for programs (linux/rtnetlink.h); no program listed in iproute2's `rt_protos` has this one.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(PROTOCOL_NUMBER);
/// The number of [`PROTOCOL`].
pub(super) const PROTOCOL_NUMBER: u8 = 173;
/// IP6_RT_PRIO_USER, the metric of IPv6 routes that were added without one (linux/ipv6_route.h).
const IPV6_METRIC: u32 = 1024;

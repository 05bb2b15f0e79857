//! The MTU that the underlay leaves to the tunnel.
//!
//! As wg-quick does, it takes the MTU of the route to each endpoint (of the path, if the kernel knows a smaller one), or of
//! the default route if no endpoint answers, or 1500, and leaves the rest to `mtu::inner`. Where endpoints differ it takes the
//! smallest, since all peers share the interface; wg-quick takes the largest. The result is never below 576, or below 1280
//! if the tunnel carries IPv6, which does not work on less: then the outer datagrams are fragmented.

use std::net::{IpAddr, SocketAddr};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteType};

use super::netlink::Netlink;
use super::{link, routes};
use crate::journal::Device;
use crate::route::error::RouteError;
use crate::settings::{Family, TABLE_MAIN};

/// The MTU of the underlay, in bytes, for a tunnel whose endpoints are these and whose own packets carry this mark; `None`
/// if it has no way to any of them and no default route.
pub(super) async fn mtu(
    netlink: &Netlink,
    tunnel: &Device,
    endpoints: &[SocketAddr],
    fwmark: Option<u32>,
) -> Result<Option<u32>, RouteError> {
    let mut smallest: Option<u32> = None;
    for endpoint in endpoints {
        if let Some(mtu) = towards(netlink, tunnel, endpoint, fwmark).await? {
            smallest = Some(smallest.map_or(mtu, |other| other.min(mtu)));
        }
    }
    match smallest {
        Some(mtu) => Ok(Some(mtu)),
        None => of_default_route(netlink, tunnel).await,
    }
}

/// `None` if there is no route to the endpoint, or if it leads into the tunnel itself.
async fn towards(
    netlink: &Netlink,
    tunnel: &Device,
    endpoint: &SocketAddr,
    fwmark: Option<u32>,
) -> Result<Option<u32>, RouteError> {
    let mut question = RouteMessage::default();
    let (family, prefix_length) = match endpoint.ip() {
        IpAddr::V4(_) => (Family::Ipv4, 32),
        IpAddr::V6(_) => (Family::Ipv6, 128),
    };
    question.header.address_family = routes::address_family(family);
    question.header.destination_prefix_length = prefix_length;
    question.attributes.push(RouteAttribute::Destination(endpoint.ip().into()));
    question.attributes.extend(fwmark.map(RouteAttribute::Mark));
    if let SocketAddr::V6(v6) = endpoint
        && v6.scope_id() != 0
    {
        question.attributes.push(RouteAttribute::Oif(v6.scope_id()));
    }
    // Whatever the kernel refuses here, an endpoint without a route is no reason not to bring the tunnel up: it may come.
    match netlink.ask(RouteNetlinkMessage::GetRoute(question)).await {
        Ok(RouteNetlinkMessage::NewRoute(route)) => of_route(netlink, tunnel, &route).await,
        _ => Ok(None),
    }
}

async fn of_default_route(netlink: &Netlink, tunnel: &Device) -> Result<Option<u32>, RouteError> {
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut found = routes::list(netlink, family, TABLE_MAIN, None).await?;
        found.retain(|route| route.key.destination.prefix_len() == 0);
        found.sort_by_key(|route| route.key.metric);
        for route in found {
            if let Some(mtu) = of_route(netlink, tunnel, &route.message).await? {
                return Ok(Some(mtu));
            }
        }
    }
    Ok(None)
}

/// The route's own MTU, else the smallest one of its interfaces.
async fn of_route(netlink: &Netlink, tunnel: &Device, route: &RouteMessage) -> Result<Option<u32>, RouteError> {
    if !matches!(route.header.kind, RouteType::Unicast | RouteType::Local) {
        return Ok(None);
    }
    let mut own = None;
    let mut interfaces = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => interfaces.extend(hops.iter().map(|hop| hop.interface_index)),
            RouteAttribute::Metrics(metrics) => own = own.or_else(|| metrics.iter().find_map(mtu_metric)),
            _ => {}
        }
    }
    if interfaces.contains(&tunnel.index) {
        return Ok(None);
    }
    let mut smallest = None;
    for index in interfaces {
        if let Some(link) = link::by_index(netlink, index).await? {
            smallest = Some(smallest.map_or(link.mtu, |other: u32| other.min(link.mtu)));
        }
    }
    Ok(own.or(smallest))
}

fn mtu_metric(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
        _ => None,
    }
}

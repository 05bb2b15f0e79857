//! The kernel's answer to the question which way a packet would take: `ip route get`.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use serde::Serialize;

use super::super::link;
use super::super::netlink::Netlink;
use super::super::routes::address_family;
use super::route::{self, KernelRoute, RouteKind};
use crate::journal::Device;
use crate::route::error::Reason;
use crate::settings::Family;

/// A packet to ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Where it goes.
    pub destination: IpAddr,
    /// Where it comes from. Without an [input](Self::input) that must be an address of the host.
    pub source: Option<IpAddr>,
    /// Its mark; 0 is none.
    pub mark: u32,
    /// Its IP protocol's number.
    pub ip_protocol: Option<u8>,
    /// Its source port.
    pub source_port: Option<u16>,
    /// Its destination port.
    pub destination_port: Option<u16>,
    /// The user whose program sends it; `None` is the one who asks.
    pub user: Option<u32>,
    /// The interface that it came in by, if the host only forwards it.
    pub input: Option<u32>,
    /// The interface that its sender has bound itself to.
    pub output: Option<u32>,
}

/// The way of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelWay {
    /// What becomes of it.
    pub kind: RouteKind,
    /// The table that decided.
    pub table: Option<u32>,
    /// The interface that it leaves by; `lo` if it stays on the host.
    pub device: Option<Device>,
    /// The router that it goes to, if its destination is not on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that it has, or gets if its sender has not chosen one.
    pub source: Option<IpAddr>,
    /// How long it may be, in bytes: what is known about the path, else the interface's MTU.
    pub mtu: Option<u32>,
    /// The route that decided, if the kernel tells (Linux 4.13 for IPv4, 4.19 for IPv6).
    pub route: Option<KernelRoute>,
}

impl Query {
    /// Asks about a packet that some program on the host sends.
    #[must_use]
    pub fn to(destination: IpAddr) -> Self {
        Self {
            destination,
            source: None,
            mark: 0,
            ip_protocol: None,
            source_port: None,
            destination_port: None,
            user: None,
            input: None,
            output: None,
        }
    }

    fn message(&self, flags: RouteFlags) -> RouteNetlinkMessage {
        let mut message = RouteMessage::default();
        let net = IpNet::from(self.destination);
        message.header.address_family = address_family(Family::of(&net));
        message.header.destination_prefix_length = net.prefix_len();
        message.header.flags = flags;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(self.destination.into()));
        if let Some(source) = self.source {
            message.header.source_prefix_length = IpNet::from(source).prefix_len();
            attributes.push(RouteAttribute::Source(source.into()));
        }
        if self.mark != 0 {
            attributes.push(RouteAttribute::Mark(self.mark));
        }
        attributes.extend(self.ip_protocol.map(RouteAttribute::IpProto));
        attributes.extend(self.source_port.map(RouteAttribute::Sport));
        attributes.extend(self.destination_port.map(RouteAttribute::Dport));
        attributes.extend(self.user.map(RouteAttribute::Uid));
        attributes.extend(self.input.map(RouteAttribute::Iif));
        attributes.extend(self.output.map(RouteAttribute::Oif));
        RouteNetlinkMessage::GetRoute(message)
    }
}

pub(super) async fn ask(netlink: &Netlink, query: &Query) -> Result<KernelWay, Reason> {
    // IPv6 tells the table unasked, and refuses to be asked where the socket checks strictly (net/ipv6/route.c).
    let table = if query.destination.is_ipv4() { RouteFlags::LookupTable } else { RouteFlags::empty() };
    let found = one(netlink, query, table).await?;
    // The answer to this one is the route as it stands in its table, and lacks what the packet would get from it.
    let matched = one(netlink, query, table | RouteFlags::FibMatch).await.ok();
    let mut links = Vec::new();
    for message in [Some(&found), matched.as_ref()].into_iter().flatten() {
        for index in interfaces(message) {
            if !links.iter().any(|known: &link::Link| known.device.index == index)
                && let Ok(Some(link)) = link::by_index(netlink, index).await
            {
                links.push(link);
            }
        }
    }
    let link = |index: u32| links.iter().find(|link| link.device.index == index);
    let device = |index: u32| match link(index) {
        Some(link) => link.device.clone(),
        None => Device { name: format!("if{index}"), index },
    };
    let way = route::parse(&found, &device).ok_or(Reason::Unexpected)?;
    let hop = way.hops.into_iter().next();
    let device_mtu = hop.as_ref().and_then(|hop| hop.device.as_ref()).and_then(|device| link(device.index));
    Ok(KernelWay {
        kind: way.kind,
        table: Some(way.table).filter(|&table| table != 0),
        gateway: hop.as_ref().and_then(|hop| hop.gateway),
        source: query.source.or(way.preferred_source),
        mtu: way.mtu.or(device_mtu.map(|link| link.mtu)),
        device: hop.and_then(|hop| hop.device),
        // A kernel that does not know the flag repeats itself, with the whole address for a prefix.
        route: matched
            .filter(|message| !message.header.flags.contains(RouteFlags::Cloned))
            .and_then(|message| route::parse(&message, &device)),
    })
}

async fn one(netlink: &Netlink, query: &Query, flags: RouteFlags) -> Result<RouteMessage, Reason> {
    match netlink.ask(query.message(flags)).await? {
        RouteNetlinkMessage::NewRoute(message) => Ok(message),
        _ => Err(Reason::Unexpected),
    }
}

fn interfaces(message: &RouteMessage) -> Vec<u32> {
    let mut list = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => list.push(*index),
            RouteAttribute::MultiPath(hops) => list.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    list
}

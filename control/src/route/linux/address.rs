//! Addresses of an interface, added as `ip address add X dev IF` adds them: no broadcast address, connected route made
//! by the kernel.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;
use crate::journal::{Address, Device};
use crate::route::error::{Reason, RouteError};

/// Adds an address; it is no error if the interface has it.
pub(super) async fn add(netlink: &Netlink, address: &Address) -> Result<(), RouteError> {
    match netlink.create(RouteNetlinkMessage::NewAddress(message(address))).await {
        Ok(()) => Ok(()),
        Err(Reason::Errno(Errno::EEXIST)) if list(netlink, &address.device).await?.contains(&address.address) => Ok(()),
        Err(reason) => Err(RouteError::Kernel { action: "add", object: describe(address), reason }),
    }
}

/// Makes all sockets of the host look up their IPv6 routes again.
///
/// A socket keeps the IPv6 route that it has found until something on the way to that very route changes (`ip6_dst_check`,
/// net/ipv6/route.c). A route that is new in another table is nothing of the kind, so a connected socket would go on beside
/// a tunnel that takes its destination by now. When an address goes, all of them are looked up again
/// (`__ipv6_ifa_notify`, net/ipv6/addrconf.c), so one comes and goes: one that nobody prefers as a source, on the tunnel's
/// own device, which takes it along should the process die in between. For IPv4 every new route has that effect.
pub(super) async fn forget_ipv6_routes(netlink: &Netlink, device: &Device) -> Result<(), RouteError> {
    let passing = Address { device: device.clone(), address: PASSING.into() };
    let mut new = message(&passing);
    // Usable at once, and without a route of its own.
    new.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
    let mut lifetime = CacheInfo::default();
    (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
    new.attributes.push(AddressAttribute::CacheInfo(lifetime));
    let added = netlink.create(RouteNetlinkMessage::NewAddress(new)).await;
    added.map_err(|reason| RouteError::Kernel { action: "add", object: describe(&passing), reason })?;
    remove(netlink, &passing).await
}

/// Removes an address; it is no error if the address or the interface is gone.
pub(super) async fn remove(netlink: &Netlink, address: &Address) -> Result<(), RouteError> {
    match netlink.change(RouteNetlinkMessage::DelAddress(message(address))).await {
        Ok(()) | Err(Reason::Errno(Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::ENXIO)) => Ok(()),
        Err(reason) => Err(RouteError::Kernel { action: "remove", object: describe(address), reason }),
    }
}

/// The addresses of an interface, of both families.
pub(super) async fn list(netlink: &Netlink, device: &Device) -> Result<Vec<IpNet>, RouteError> {
    let mut filter = AddressMessage::default();
    filter.header.index = device.index;
    let answers = netlink.list(RouteNetlinkMessage::GetAddress(filter)).await.map_err(|reason| RouteError::Kernel {
        action: "list",
        object: format!("the addresses of {}", device.name),
        reason,
    })?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(found) if found.header.index == device.index => parse(&found),
            _ => None,
        })
        .collect())
}

fn message(address: &Address) -> AddressMessage {
    let ip = address.address.addr();
    let mut message = AddressMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = address.address.prefix_len();
    message.header.index = address.device.index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

/// IFA_LOCAL is the interface's own address, and IFA_ADDRESS the other end's where they differ; IPv6 has only the latter.
fn parse(message: &AddressMessage) -> Option<IpNet> {
    let mut local: Option<IpAddr> = None;
    let mut address: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

fn describe(address: &Address) -> String {
    format!("the address {} dev {}", address.address, address.device.name)
}

/// The address that comes and goes: one of those to which everything is thrown away (RFC 6666).
const PASSING: Ipv6Net = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0xad17), 128);

//! Networks that the host is connected to, and other routes of the main table.
//!
//! A connected network is one for which the kernel itself has made a route, because an interface has an address in it (or
//! a router has announced it as on-link). What DHCP or a person has added is none: an attacker's DHCP server adds routes
//! (option 121, CVE-2024-3661), and one that hands out an address in somebody else's network makes it a connected one
//! (CVE-2023-36672), which is why only networks of addresses that are nobody's in the Internet are trusted.

use std::collections::BTreeSet;

use adit_core::route::trusted_local;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteAttribute, RouteProtocol, RouteType};

use super::PulledOut;
use super::netlink::Netlink;
use super::routes::{self, Found, KeyVia};
use crate::route::error::RouteError;
use crate::settings::{Family, TABLE_MAIN};

/// The connected networks that may be reached beside the tunnel, each once.
pub(super) async fn trusted(netlink: &Netlink, tunnel: u32) -> Result<Vec<IpNet>, RouteError> {
    let found = in_main(netlink, &[Family::Ipv4, Family::Ipv6], tunnel).await?;
    let connected = found.into_iter().filter(|route| route.connected).map(|route| route.net);
    Ok(connected.filter(trusted_local).collect::<BTreeSet<_>>().into_iter().collect())
}

/// The routes of the main table that are no default ones and do not lead into the tunnel.
pub(super) async fn in_main(netlink: &Netlink, families: &[Family], tunnel: u32) -> Result<Vec<PulledOut>, RouteError> {
    let mut list = Vec::new();
    for &family in families {
        let found = routes::list(netlink, family, TABLE_MAIN, None).await?;
        let others = found.into_iter().filter(|found| {
            found.key.destination.prefix_len() > 0 && found.key.via != KeyVia::Interface(tunnel) && leads_out(found)
        });
        list.extend(others.map(|found| {
            let interface = match found.key.via {
                KeyVia::Interface(index) => Some(index),
                _ => None,
            };
            PulledOut { net: found.key.destination, interface, connected: is_connected(&found) }
        }));
    }
    Ok(list)
}

fn leads_out(found: &Found) -> bool {
    found.message.header.kind == RouteType::Unicast
}

fn is_connected(found: &Found) -> bool {
    let by_kernel = match found.key.destination {
        IpNet::V4(_) => found.message.header.protocol == RouteProtocol::Kernel,
        // A prefix that a router announces as on-link (RFC 4861 section 6.3.4) is a connected one without an address.
        IpNet::V6(_) => matches!(found.message.header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra),
    };
    let through_gateway = |attribute: &RouteAttribute| {
        matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_))
    };
    by_kernel && !found.message.attributes.iter().any(through_gateway)
}

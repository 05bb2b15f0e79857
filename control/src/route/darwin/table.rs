//! What the kernel's dumps say about routes and interfaces, and which interface leads to the internet.

use std::collections::HashSet;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::message::{self, Gateway, Message, RTF_BLACKHOLE, RTF_GATEWAY, RTF_IFSCOPE, RTF_REJECT, RTF_UP, messages};
use super::sockaddr::SockAddr;
use crate::journal::{Device, Entry, Via};

/// The routing table and the interfaces at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The routes, without those that the kernel clones for neighbours and flows.
    pub routes: Vec<Row>,
    /// The interfaces.
    pub interfaces: Vec<Interface>,
}

/// What a [`Table`] has, ready to be asked about many changes.
#[derive(Debug)]
pub struct Present<'a> {
    table: &'a Table,
    routes: HashSet<(IpNet, Gateway)>,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// The destination, host bits cleared.
    pub destination: IpNet,
    /// Where it leads.
    pub gateway: Gateway,
    /// The interface that it leads out of.
    pub index: u32,
    /// Whether only what is bound to the interface takes it.
    pub is_scoped: bool,
    /// The MTU of the way in bytes; 0 if it is the interface's.
    pub mtu: u32,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The number, by which it is known: a name may be another interface's a moment later.
    pub index: u32,
    /// The name.
    pub name: String,
    /// `IFF_*`.
    pub flags: u32,
    /// Bytes.
    pub mtu: u32,
    /// Its addresses, with their networks.
    pub addresses: Vec<IpNet>,
    /// Whether it is a cable to a device that is being developed for, behind which is no network (Apple's TN3158).
    pub is_direct: bool,
}

impl Table {
    /// Reads the dumps NET_RT_DUMP and NET_RT_IFLIST of sysctl(3). What is in them and makes no sense is left out.
    #[must_use]
    pub fn parse(routes: &[u8], interfaces: &[u8], is_direct: impl Fn(&str) -> bool) -> Self {
        let mut table = Self::default();
        for message in messages(interfaces) {
            match message {
                Message::Link(message::Link { index, flags, mtu, name: Some(name) }) => {
                    let is_direct = is_direct(&name);
                    table.interfaces.push(Interface { index, name, flags, mtu, addresses: Vec::new(), is_direct });
                }
                Message::Address(message::LinkAddress { index, address: Some(address), .. }) => {
                    let of = table.interfaces.iter_mut().find(|interface| interface.index == index);
                    of.into_iter().for_each(|interface| interface.addresses.push(address));
                }
                _ => {}
            }
        }
        table.routes = messages(routes).filter_map(|message| Row::of(&message)).collect();
        table
    }

    /// The interface of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The interface with that number.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// An interface, as a journal names it.
    #[must_use]
    pub fn device(&self, index: u32) -> Device {
        Device { name: self.by_index(index).map_or_else(|| format!("#{index}"), |found| found.name.clone()), index }
    }

    /// What is there, for many questions.
    #[must_use]
    pub fn present(&self) -> Present<'_> {
        let unscoped = self.routes.iter().filter(|row| !row.is_scoped);
        Present { table: self, routes: unscoped.map(|row| (row.destination, row.gateway)).collect() }
    }

    /// The table as it would be without a tunnel: what leads into its interface, and what its journal holds.
    #[must_use]
    pub fn without(&self, tunnel: u32, journal: &[Entry]) -> Self {
        let ours: HashSet<(IpNet, Gateway)> = journal
            .iter()
            .filter_map(|entry| match entry {
                Entry::Route(route) => Some((route.destination, gateway_of(&route.via)?)),
                _ => None,
            })
            .collect();
        let is_foreign =
            |row: &&Row| row.index != tunnel && (row.is_scoped || !ours.contains(&(row.destination, row.gateway)));
        let interfaces = self.interfaces.iter().filter(|interface| interface.index != tunnel).cloned().collect();
        Self { routes: self.routes.iter().filter(is_foreign).copied().collect(), interfaces }
    }

    /// The longest unscoped route that covers a prefix, which may be its own.
    #[must_use]
    pub fn covering(&self, net: &IpNet) -> Option<&Row> {
        let covers = self.routes.iter().filter(|row| !row.is_scoped && row.destination.contains(net));
        covers.max_by_key(|row| row.destination.prefix_len())
    }

    /// The interface by which this host reaches the internet, tunnels left out: that of the default route, or if a tunnel
    /// has it, of the first one that is scoped to another interface. IPv4 goes before IPv6. `None` without a network.
    #[must_use]
    pub fn primary(&self) -> Option<u32> {
        let mut candidates: Vec<&Row> = self
            .routes
            .iter()
            .filter(|row| row.destination.prefix_len() == 0 && row.gateway != Gateway::Reject)
            .filter(|row| self.by_index(row.index).is_some_and(Interface::is_physical))
            .collect();
        // Stable: of equals the kernel's first one.
        candidates.sort_by_key(|row| (row.is_scoped, row.destination.addr().is_ipv6()));
        candidates.first().map(|row| row.index)
    }

    /// The smallest MTU on the ways to these endpoints, else that of the default route; `None` if there is no way.
    #[must_use]
    pub fn mtu(&self, endpoints: &[SocketAddr]) -> Option<u32> {
        let of = |row: &Row| match row.mtu {
            0 => self.by_index(row.index).map(|interface| interface.mtu),
            mtu => Some(mtu),
        };
        let towards = endpoints.iter().filter_map(|endpoint| self.covering(&endpoint.ip().to_canonical().into()));
        towards.filter_map(of).min().or_else(|| {
            let defaults = self.routes.iter().filter(|row| row.destination.prefix_len() == 0 && !row.is_scoped);
            defaults.filter_map(of).min()
        })
    }
}

impl Present<'_> {
    /// Whether a change is made: the very same address or route is there.
    #[must_use]
    pub fn has(&self, change: &Entry) -> bool {
        match change {
            Entry::Route(route) => {
                gateway_of(&route.via).is_some_and(|gateway| self.routes.contains(&(route.destination, gateway)))
            }
            Entry::Address(address) => {
                let link = self.table.by_index(address.device.index);
                link.is_some_and(|link| link.addresses.contains(&address.address))
            }
            Entry::Up(device) => self.table.by_index(device.index).is_some_and(|link| link.flags & IFF_UP != 0),
            _ => true,
        }
    }
}

impl Interface {
    /// Whether it is up, and neither loopback nor a tunnel nor a cable to a device. The kernel names tunnels itself, so
    /// their names can be relied on, which those of others cannot (xnu, bsd/net/if_utun.c, if_ipsec.c).
    #[must_use]
    pub fn is_physical(&self) -> bool {
        let is_tunnel = TUNNELS.iter().any(|prefix| self.name.starts_with(prefix));
        self.flags & (IFF_UP | IFF_LOOPBACK) == IFF_UP && !is_tunnel && !self.is_direct
    }
}

impl Row {
    fn of(message: &Message) -> Option<Self> {
        let Message::Route(route) = message else { return None };
        if route.is_cloned() || route.flags & RTF_UP == 0 {
            return None;
        }
        let gateway = match route.gateway {
            _ if route.flags & (RTF_REJECT | RTF_BLACKHOLE) != 0 => Gateway::Reject,
            Some(SockAddr::Ip { address, scope }) if route.flags & RTF_GATEWAY != 0 => {
                Gateway::Router { address, scope }
            }
            // On a point-to-point interface the own address stands where a link would.
            _ => Gateway::Interface(route.index),
        };
        let is_scoped = route.flags & RTF_IFSCOPE != 0;
        Some(Self { destination: route.destination?, gateway, index: route.index, is_scoped, mtu: route.mtu })
    }
}

/// What the kernel is told of where a recorded route leads. Nothing here leads out of the table.
#[must_use]
pub fn gateway_of(via: &Via) -> Option<Gateway> {
    Some(match via {
        Via::Device(device) => Gateway::Interface(device.index),
        Via::Gateway { address, device } => {
            let is_link_local = matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
            Gateway::Router { address: *address, scope: if is_link_local { device.index } else { 0 } }
        }
        Via::Unreachable => Gateway::Reject,
        Via::Throw => return None,
    })
}

/// The interface is up (bsd/net/if.h).
pub const IFF_UP: u32 = 0x1;
/// The interface is a loopback one.
pub const IFF_LOOPBACK: u32 = 0x8;

const TUNNELS: [&str; 2] = ["utun", "ipsec"];

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::Route;
    use crate::route::darwin::message::{Action, Request};

    pub(in crate::route::darwin) fn interface(index: u32, name: &str, mtu: u32, addresses: &[&str]) -> Interface {
        let flags = if name == "lo0" { IFF_UP | IFF_LOOPBACK } else { IFF_UP };
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Interface { index, name: name.into(), flags, mtu, addresses, is_direct: false }
    }

    pub(in crate::route::darwin) fn row(destination: &str, gateway: Gateway, index: u32) -> Row {
        Row { destination: destination.parse().unwrap(), gateway, index, is_scoped: false, mtu: 0 }
    }

    pub(in crate::route::darwin) fn router(address: &str) -> Gateway {
        Gateway::Router { address: address.parse().unwrap(), scope: 0 }
    }

    fn scoped(row: Row) -> Row {
        Row { is_scoped: true, ..row }
    }

    /// A laptop: Wi-Fi with the default route, a cable with a scoped one, another tunnel, and a phone on a direct link.
    fn laptop() -> Table {
        let phone = Interface { is_direct: true, ..interface(6, "en6", 1500, &["169.254.1.2/16"]) };
        Table {
            routes: vec![
                scoped(row("0.0.0.0/0", router("169.254.1.1"), 6)),
                row("0.0.0.0/0", router("192.168.1.1"), 4),
                scoped(row("0.0.0.0/0", router("10.0.0.1"), 5)),
                row("::/0", Gateway::Router { address: "fe80::1".parse().unwrap(), scope: 4 }, 4),
                row("192.168.1.0/24", Gateway::Interface(4), 4),
            ],
            interfaces: vec![
                interface(1, "lo0", 16384, &["127.0.0.1/8"]),
                interface(4, "en0", 1500, &["192.168.1.7/24"]),
                interface(5, "en5", 9000, &["10.0.0.7/24"]),
                phone,
                interface(9, "utun3", 1380, &["10.9.0.2/32"]),
            ],
        }
    }

    #[test]
    fn the_default_routes_interface_is_the_primary_one() {
        assert_eq!(laptop().primary(), Some(4));
    }

    #[test]
    fn tunnels_direct_links_and_what_is_down_are_not_the_primary_one() {
        let mut table = laptop();
        table.routes.retain(|row| row.destination.addr().is_ipv4());
        table.routes[1] = row("0.0.0.0/0", Gateway::Interface(9), 9);
        assert_eq!(table.primary(), Some(5), "the default route is a tunnel's, so a scoped one tells");
        table.interfaces[2].flags = 0;
        assert_eq!(table.primary(), None);
        assert_eq!(Table::default().primary(), None);
    }

    #[test]
    fn ipv6_alone_is_a_network_too() {
        let mut table = laptop();
        table.routes.retain(|row| row.destination.addr().is_ipv6());
        assert_eq!(table.primary(), Some(4));
    }

    #[test]
    fn an_interface_is_its_number() {
        let mut table = laptop();
        // The same name, made anew.
        table.interfaces[1].index = 14;
        assert_eq!(table.primary(), Some(5));
    }

    #[test]
    fn the_mtu_is_that_of_the_way() {
        let mut table = laptop();
        assert_eq!(table.mtu(&["192.0.2.1:51820".parse().unwrap()]), Some(1500));
        table.routes.push(Row { mtu: 1400, ..row("192.0.2.0/24", router("192.168.1.2"), 4) });
        assert_eq!(table.mtu(&["192.0.2.1:51820".parse().unwrap(), "127.0.0.1:1".parse().unwrap()]), Some(1400));
        assert_eq!(table.mtu(&[]), Some(1500));
        assert_eq!(Table::default().mtu(&[]), None);
    }

    #[test]
    fn a_dump_is_read_without_cloned_and_dead_routes() {
        let encode = |destination: &str, gateway| {
            let destination = destination.parse().unwrap();
            let request = Request { action: Action::Get, sequence: 0, destination, gateway: Some(gateway), scope: 0 };
            let mut bytes = request.encode();
            bytes[4..6].copy_from_slice(&4u16.to_ne_bytes());
            bytes
        };
        let mut dump = encode("0.0.0.0/0", router("192.168.1.1"));
        dump.extend(encode("10.0.0.0/8", Gateway::Reject));
        for flag in [message::RTF_WASCLONED, message::RTF_LLINFO] {
            let mut cloned = encode("192.168.1.9/32", Gateway::Interface(4));
            let flags = u32::from_ne_bytes(cloned[8..12].try_into().unwrap()) | flag;
            cloned[8..12].copy_from_slice(&flags.to_ne_bytes());
            dump.extend(cloned);
        }
        let mut dead = encode("172.16.0.0/12", Gateway::Interface(4));
        dead[8] &= !1;
        dump.extend(dead);
        dump.extend(encode("192.168.1.0/24", Gateway::Interface(4)));
        let table = Table::parse(&dump, &[], |_| false);
        assert_eq!(
            table.routes,
            [
                row("0.0.0.0/0", router("192.168.1.1"), 4),
                row("10.0.0.0/8", Gateway::Reject, 4),
                row("192.168.1.0/24", Gateway::Interface(4), 4),
            ]
        );
    }

    #[test]
    fn the_tunnels_own_are_not_the_systems() {
        let mut table = laptop();
        let ours = Entry::Route(Route {
            destination: "198.51.100.0/24".parse().unwrap(),
            table: crate::settings::TABLE_MAIN,
            via: Via::Gateway { address: "192.168.1.1".parse().unwrap(), device: table.device(4) },
            metric: None,
        });
        assert!(!table.present().has(&ours));
        table.routes.push(row("198.51.100.0/24", router("192.168.1.1"), 4));
        table.routes.push(row("0.0.0.0/1", Gateway::Interface(9), 9));
        assert!(table.present().has(&ours));
        let system = table.without(9, &[ours]);
        let mut expected = laptop();
        expected.interfaces.pop();
        assert_eq!(system, expected);
    }

    proptest! {
        #[test]
        fn nothing_panics(routes: Vec<u8>, interfaces: Vec<u8>) {
            let table = Table::parse(&routes, &interfaces, |_| false);
            let _any = table.primary();
        }
    }
}

//! Interfaces and their addresses, as the kernel shows them.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use serde::Serialize;

use crate::journal::Device;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelLink {
    /// Its name and number.
    #[serde(flatten)]
    pub device: Device,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether it has a carrier, or whatever stands for one on its kind of link.
    pub is_running: bool,
    /// Whether it is the loopback interface.
    pub is_loopback: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelAddress {
    /// The address with the length of its network's prefix.
    pub address: IpNet,
    /// The other end, where it is told and is another one.
    pub peer: Option<IpAddr>,
    /// The interface.
    pub device: Device,
}

pub(super) fn parse_link(message: &LinkMessage) -> KernelLink {
    let flags = message.header.flags;
    let mut link = KernelLink {
        device: Device { name: String::new(), index: message.header.index },
        mtu: 0,
        is_up: flags.contains(LinkFlags::Up),
        is_running: flags.contains(LinkFlags::Running),
        is_loopback: flags.contains(LinkFlags::Loopback),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

/// IFA_LOCAL is the interface's own address, and IFA_ADDRESS the other end's where they differ; IPv6 has only the latter.
pub(super) fn parse_address(message: &AddressMessage, links: &[KernelLink]) -> Option<KernelAddress> {
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            _ => {}
        }
    }
    Some(KernelAddress {
        address: IpNet::new(local.or(remote)?, message.header.prefix_len).ok()?,
        peer: remote.filter(|remote| local.is_some_and(|local| local != *remote)),
        device: device(links, message.header.index),
    })
}

/// The interface with this number; one that has just gone is named by its number.
pub(super) fn device(links: &[KernelLink], index: u32) -> Device {
    let known = links.iter().find(|link| link.device.index == index).map(|link| link.device.clone());
    known.unwrap_or_else(|| Device { name: format!("if{index}"), index })
}

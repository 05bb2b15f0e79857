//! The messages of Darwin's routing sockets, and of the dumps that sysctl(3) gives in the same form.
//!
//! Layouts are those of xnu's bsd/net/route.h and bsd/net/if.h; numbers are in the machine's order. A reader takes what
//! it is given: a message that is cut off, lies about its length or is of another version ends the list, and nothing of
//! it is believed. It knows nothing of sockets; `system` moves the bytes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::sockaddr::{SockAddr, encode_mask, link_name, prefix_length, split};

/// What to ask of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub action: Action,
    /// The number by which the answer is known.
    pub sequence: i32,
    /// The destination, host bits cleared.
    pub destination: IpNet,
    /// Where it leads; needed to add and to change.
    pub gateway: Option<Gateway>,
    /// The interface to which the route is scoped, so that only what is bound to it takes it; 0 for none.
    pub scope: u32,
}

/// What to do with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Add it; EEXIST if there is one for the same destination.
    Add,
    /// Remove it; ESRCH if there is none.
    Delete,
    /// Let it lead elsewhere; ESRCH if there is none.
    Change,
    /// Ask for it; ESRCH if there is none.
    Get,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gateway {
    /// To a router; `scope` is the interface of a link-local address, else 0.
    Router {
        /// The router.
        address: IpAddr,
        /// The interface's number.
        scope: u32,
    },
    /// Out of the interface with this number.
    Interface(u32),
    /// To an error at once.
    Reject,
}

/// A message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A route, from a dump or because it was added, removed or changed.
    Route(Route),
    /// An interface.
    Link(Link),
    /// An address that an interface has, has got or has lost.
    Address(LinkAddress),
    /// Anything else.
    Other {
        /// The type.
        kind: u8,
    },
}

/// A route as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The message's type (`RTM_*`).
    pub kind: u8,
    /// `RTF_*`.
    pub flags: u32,
    /// The number of the interface that it leads out of.
    pub index: u32,
    /// The process that asked for it; 0 in dumps.
    pub pid: i32,
    /// The number that it gave the request.
    pub sequence: i32,
    /// The error number of an answer; 0 if it was done.
    pub errno: i32,
    /// The MTU of the way in bytes; 0 if it is the interface's.
    pub mtu: u32,
    /// The destination, host bits cleared; `None` if it is of another family or its mask is no prefix.
    pub destination: Option<IpNet>,
    /// The gateway, as it is.
    pub gateway: Option<SockAddr>,
}

/// An interface as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface's number.
    pub index: u32,
    /// `IFF_*`.
    pub flags: u32,
    /// Bytes.
    pub mtu: u32,
    /// The name, which a message about a change may lack.
    pub name: Option<String>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAddress {
    /// `RTM_NEWADDR` or `RTM_DELADDR`.
    pub kind: u8,
    /// The interface's number.
    pub index: u32,
    /// The address with its network, if it is an IP address and has a mask.
    pub address: Option<IpNet>,
}

impl Request {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let net = self.destination.trunc();
        let is_host = net.prefix_len() == net.max_prefix_len();
        let mut flags = RTF_UP | RTF_STATIC;
        flags |= if is_host { RTF_HOST } else { 0 };
        flags |= if self.scope != 0 { RTF_IFSCOPE } else { 0 };
        let mut addresses = RTA_DST;
        let mut body = Vec::with_capacity(3 * 28);
        SockAddr::Ip { address: net.addr(), scope: self.scope }.encode(&mut body);
        if let Some(gateway) = self.gateway {
            addresses |= RTA_GATEWAY;
            let address = match gateway {
                Gateway::Router { address, scope } => {
                    flags |= RTF_GATEWAY;
                    SockAddr::Ip { address, scope }
                }
                Gateway::Interface(index) => SockAddr::Link { index },
                Gateway::Reject => {
                    // As route(8) does it with -reject: by way of the loopback interface.
                    flags |= RTF_GATEWAY | RTF_REJECT;
                    let address = if net.addr().is_ipv4() { LOOPBACK_V4 } else { LOOPBACK_V6 };
                    SockAddr::Ip { address, scope: 0 }
                }
            };
            address.encode(&mut body);
        }
        if !is_host {
            addresses |= RTA_NETMASK;
            encode_mask(&net, &mut body);
        }
        let mut out = vec![0; ROUTE_HEADER];
        let length = out.len() + body.len();
        // Three addresses of at most 28 bytes behind 92.
        out[0..2].copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        out[2] = RTM_VERSION;
        out[3] = self.action.kind();
        out[4..6].copy_from_slice(&u16::try_from(self.scope).unwrap_or(0).to_ne_bytes());
        out[8..12].copy_from_slice(&flags.to_ne_bytes());
        out[12..16].copy_from_slice(&addresses.to_ne_bytes());
        out[20..24].copy_from_slice(&self.sequence.to_ne_bytes());
        out.extend(body);
        out
    }
}

impl Action {
    const fn kind(self) -> u8 {
        match self {
            Self::Add => RTM_ADD,
            Self::Delete => RTM_DELETE,
            Self::Change => RTM_CHANGE,
            Self::Get => RTM_GET,
        }
    }
}

impl Route {
    /// Whether this is the kernel's answer to the request of a process; every routing socket hears all answers.
    #[must_use]
    pub fn answers(&self, request: &Request, pid: i32) -> bool {
        (self.kind, self.pid, self.sequence) == (request.action.kind(), pid, request.sequence)
    }

    /// Whether it is one that the kernel makes by itself for a neighbour or a flow, as it makes very many.
    #[must_use]
    pub fn is_cloned(&self) -> bool {
        self.flags & (RTF_LLINFO | RTF_WASCLONED) != 0
    }
}

impl Message {
    /// Whether it tells of a change that is worth a look at the host: not of what `own` process did, nor of what did not
    /// succeed, nor of routes that the kernel clones.
    #[must_use]
    pub fn is_news(&self, own: i32) -> bool {
        match self {
            Self::Route(route) => {
                matches!(route.kind, RTM_ADD | RTM_DELETE | RTM_CHANGE)
                    && route.errno == 0
                    && (route.pid == 0 || route.pid != own)
                    && !route.is_cloned()
            }
            Self::Link(_) | Self::Address(_) => true,
            Self::Other { .. } => false,
        }
    }
}

/// Reads the messages of a dump, or the one message that a routing socket gives at a time. Ends at the first that is none.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let message = bytes.get(..length).filter(|message| message.len() >= LEAST)?;
        bytes = &bytes[length..];
        (message[2] == RTM_VERSION).then(|| message_of(message))?
    })
}

fn message_of(bytes: &[u8]) -> Option<Message> {
    let kind = *bytes.get(3)?;
    Some(match kind {
        RTM_ADD | RTM_DELETE | RTM_CHANGE | RTM_GET => Message::Route(route(kind, bytes)?),
        RTM_IFINFO => Message::Link(link(bytes)?),
        RTM_NEWADDR | RTM_DELADDR => Message::Address(address(kind, bytes)?),
        kind => Message::Other { kind },
    })
}

/// `struct rt_msghdr`, 92 bytes.
fn route(kind: u8, bytes: &[u8]) -> Option<Route> {
    let body = bytes.get(ROUTE_HEADER..)?;
    let flags = u32_at(bytes, 8)?;
    let (mut destination, mut gateway, mut mask) = (None, None, None);
    for (bit, address) in split(u32_at(bytes, 12)?, body) {
        match 1 << bit {
            RTA_DST => destination = SockAddr::decode(address),
            RTA_GATEWAY => gateway = SockAddr::decode(address),
            RTA_NETMASK => mask = Some(address),
            _ => {}
        }
    }
    let destination = destination.and_then(|destination| match destination {
        SockAddr::Ip { address, .. } => {
            let whole = if address.is_ipv4() { 32 } else { 128 };
            let length = match mask {
                Some(mask) if flags & RTF_HOST == 0 => prefix_length(mask, address.is_ipv6())?,
                // A network route without a mask is the default one, or of a class, which nobody has had for decades.
                None if flags & RTF_HOST == 0 && address.is_unspecified() => 0,
                _ => whole,
            };
            IpNet::new(address, length).ok().map(|net| net.trunc())
        }
        _ => None,
    });
    Some(Route {
        kind,
        flags,
        index: u16_at(bytes, 4)?.into(),
        pid: i32_at(bytes, 16)?,
        sequence: i32_at(bytes, 20)?,
        errno: i32_at(bytes, 24)?,
        mtu: u32_at(bytes, METRIC_MTU)?,
        destination,
        gateway,
    })
}

/// `struct if_msghdr`: 16 bytes, and `struct if_data` with 96.
fn link(bytes: &[u8]) -> Option<Link> {
    let body = bytes.get(LINK_HEADER..)?;
    let name =
        split(u32_at(bytes, 4)?, body).find(|(bit, _)| 1 << bit == RTA_IFP).and_then(|(_, link)| link_name(link));
    Some(Link {
        index: u16_at(bytes, 12)?.into(),
        flags: u32_at(bytes, 8)?,
        mtu: u32_at(bytes, LINK_MTU)?,
        name: name.filter(|name| !name.is_empty()).map(str::to_owned),
    })
}

/// `struct ifa_msghdr`, 20 bytes.
fn address(kind: u8, bytes: &[u8]) -> Option<LinkAddress> {
    let body = bytes.get(ADDRESS_HEADER..)?;
    let (mut own, mut mask) = (None, None);
    for (bit, part) in split(u32_at(bytes, 4)?, body) {
        match 1 << bit {
            RTA_IFA => own = SockAddr::decode(part),
            RTA_NETMASK => mask = Some(part),
            _ => {}
        }
    }
    let address = match (own, mask) {
        (Some(SockAddr::Ip { address, .. }), Some(mask)) => {
            prefix_length(mask, address.is_ipv6()).and_then(|length| IpNet::new(address, length).ok())
        }
        _ => None,
    };
    Some(LinkAddress { kind, index: u16_at(bytes, 12)?.into(), address })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// `sizeof (struct rt_msghdr)`.
pub const ROUTE_HEADER: usize = 92;
/// `offsetof (struct rt_msghdr, rtm_rmx.rmx_mtu)`: the second of the metrics.
pub const METRIC_MTU: usize = 40;
/// `sizeof (struct if_msghdr)`.
pub const LINK_HEADER: usize = 112;
/// `offsetof (struct if_msghdr, ifm_data.ifi_mtu)`.
pub const LINK_MTU: usize = 24;
/// `sizeof (struct ifa_msghdr)`.
pub const ADDRESS_HEADER: usize = 20;
/// Length, version and type.
const LEAST: usize = 4;

const LOOPBACK_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// The version of all these messages, bsd/net/route.h.
pub const RTM_VERSION: u8 = 5;
/// A route was added.
pub const RTM_ADD: u8 = 1;
/// A route was removed.
pub const RTM_DELETE: u8 = 2;
/// A route was changed.
pub const RTM_CHANGE: u8 = 3;
/// A route of a dump, or the answer to a question.
pub const RTM_GET: u8 = 4;
/// An interface has an address.
pub const RTM_NEWADDR: u8 = 0xc;
/// An interface has lost an address.
pub const RTM_DELADDR: u8 = 0xd;
/// An interface.
pub const RTM_IFINFO: u8 = 0xe;

/// The destination is in the message.
pub const RTA_DST: u32 = 1;
/// The gateway is.
pub const RTA_GATEWAY: u32 = 2;
/// The netmask is.
pub const RTA_NETMASK: u32 = 4;
/// The interface is, with its name.
pub const RTA_IFP: u32 = 0x10;
/// The interface's address is.
pub const RTA_IFA: u32 = 0x20;

/// The route works.
pub const RTF_UP: u32 = 0x1;
/// It leads to a router.
pub const RTF_GATEWAY: u32 = 0x2;
/// Its destination is one host.
pub const RTF_HOST: u32 = 0x4;
/// It leads to an error.
pub const RTF_REJECT: u32 = 0x8;
/// Each neighbour gets a route of its own.
pub const RTF_LLINFO: u32 = 0x400;
/// Somebody has asked for it, and no protocol.
pub const RTF_STATIC: u32 = 0x800;
/// It leads nowhere, silently.
pub const RTF_BLACKHOLE: u32 = 0x1000;
/// It was made from another one for a single neighbour or flow.
pub const RTF_WASCLONED: u32 = 0x2_0000;
/// It is for what is bound to its interface only.
pub const RTF_IFSCOPE: u32 = 0x100_0000;

#[cfg(test)]
mod tests;

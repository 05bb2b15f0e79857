//! Devices, addresses and routes of our own namespaces, over rtnetlink(7).
//!
//! This is not `adit_control::route`: there is nothing to undo and no journal to keep, since all of it goes with the
//! namespace.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::failure::{Failure, Outcome};

/// Speaks about the network namespace of the thread that opened it.
pub(crate) struct Links {
    runtime: Runtime,
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Links {
    pub(crate) fn open() -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (connection, handle) = {
            let _inside = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            (runtime.spawn(connection), handle)
        };
        Ok(Self { runtime, handle, connection })
    }

    /// Makes a veth pair of one name, with its other end in another namespace.
    pub(crate) fn add_veth(&self, name: &str, other: BorrowedFd<'_>) -> Outcome {
        let peer = LinkUnspec::new_with_name(name).setns_by_fd(other.as_raw_fd()).build();
        let pair = LinkVeth::new(name, name).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
        self.request(&format!("add the veth pair {name}"), self.handle.link().add(pair).execute())
    }

    pub(crate) fn set_up(&self, name: &str) -> Outcome {
        let message = LinkUnspec::new_with_index(index(name)?).up().build();
        self.request(&format!("set {name} up"), self.handle.link().set(message).execute())
    }

    /// Sets the largest packet, in bytes.
    pub(crate) fn set_mtu(&self, name: &str, mtu: u32) -> Outcome {
        let message = LinkUnspec::new_with_index(index(name)?).mtu(mtu).build();
        self.request(&format!("set the MTU of {name}"), self.handle.link().set(message).execute())
    }

    /// Lengthens a tun device's send queue, and keeps the kernel from sending router solicitations of its own into the
    /// tunnel, where nobody could answer them.
    pub(crate) fn prepare_tun(&self, name: &str) -> Outcome {
        let builder = LinkUnspec::new_with_index(index(name)?).txqueuelen(TUN_QUEUE);
        let mut message: LinkMessage = builder.build();
        let without = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![without]));
        self.request(&format!("prepare {name}"), self.handle.link().set(message).execute())
    }

    pub(crate) fn add_address(&self, name: &str, address: IpNet) -> Outcome {
        let mut request = self.handle.address().add(index(name)?, address.addr(), address.prefix_len());
        // An address that is still being checked cannot be used, and nobody else is there who could have it (RFC 4862
        // section 5.4).
        request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        self.request(&format!("add {address} to {name}"), request.execute())
    }

    pub(crate) fn add_route(&self, to: IpNet, name: &str) -> Outcome {
        let mut message = RouteMessage::default();
        message.header.destination_prefix_length = to.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        let destination = match to.network() {
            IpAddr::V4(to) => {
                message.header.address_family = AddressFamily::Inet;
                message.header.scope = RouteScope::Link;
                RouteAddress::Inet(to)
            }
            IpAddr::V6(to) => {
                message.header.address_family = AddressFamily::Inet6;
                RouteAddress::Inet6(to)
            }
        };
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Destination(destination), RouteAttribute::Oif(index(name)?)];
        self.request(&format!("add the route {to} dev {name}"), self.handle.route().add(message).execute())
    }

    fn request(&self, what: &str, request: impl Future<Output = Result<(), rtnetlink::Error>>) -> Outcome {
        let failed = |why: &dyn std::fmt::Display| Failure::failed(format!("cannot {what}: {why}"));
        match self.runtime.block_on(async { tokio::time::timeout(REQUEST_LIMIT, request).await }) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(rtnetlink::Error::NetlinkError(refused))) => Err(failed(&refused.to_io())),
            Ok(Err(error)) => Err(failed(&error)),
            Err(late) => Err(failed(&late)),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn index(name: &str) -> Outcome<u32> {
    if_nametoindex(name).map_err(|errno| Failure::failed(format!("no interface {name}: {}", errno.desc())))
}

/// The kernel answers from memory, in microseconds.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(1);

/// Packets in a tun device's send queue. The kernel drops what finds it full, and its default of 500 is half of what TCP
/// has under way here.
const TUN_QUEUE: u32 = 2000;

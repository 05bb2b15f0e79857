//! Network interfaces: finding them, their MTU, their queue, up and down.

use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::netlink::Netlink;
use crate::journal::Device;
use crate::route::error::{Reason, RouteError};

/// An interface as the kernel describes it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) device: Device,
    pub(super) mtu: u32,
    pub(super) up: bool,
}

/// Looks an interface up by its name.
pub(super) async fn by_name(netlink: &Netlink, name: &str) -> Result<Link, RouteError> {
    let absent = || RouteError::NoDevice { name: name.to_owned() };
    // The kernel refuses longer names with an error that does not say so (IFNAMSIZ, linux/if.h).
    if name.is_empty() || name.len() > 15 {
        return Err(absent());
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    find(netlink, message, || format!("interface {name}")).await?.ok_or_else(absent)
}

/// Looks an interface up by its number; `None` if there is none.
pub(super) async fn by_index(netlink: &Netlink, index: u32) -> Result<Option<Link>, RouteError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    find(netlink, message, || format!("interface number {index}")).await
}

pub(super) async fn set_mtu(netlink: &Netlink, device: &Device, mtu: u32) -> Result<(), RouteError> {
    let object = || format!("the MTU of {} to {mtu}", device.name);
    set(netlink, device, LinkAttribute::Mtu(mtu), object).await
}

/// Sets the length of the interface's send queue, in packets.
pub(super) async fn set_queue_length(netlink: &Netlink, device: &Device, packets: u32) -> Result<(), RouteError> {
    let object = || format!("the queue length of {} to {packets}", device.name);
    set(netlink, device, LinkAttribute::TxQueueLen(packets), object).await
}

pub(super) async fn set_up(netlink: &Netlink, device: &Device, up: bool) -> Result<(), RouteError> {
    let mut message = LinkMessage::default();
    message.header.index = device.index;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = LinkFlags::Up;
    let direction = if up { "up" } else { "down" };
    netlink.change(RouteNetlinkMessage::SetLink(message)).await.map_err(|reason| RouteError::Kernel {
        action: "set",
        object: format!("{} {direction}", device.name),
        reason,
    })
}

/// Deletes an interface; it is no error if it is gone.
pub(super) async fn delete(netlink: &Netlink, device: &Device) -> Result<(), RouteError> {
    let mut message = LinkMessage::default();
    message.header.index = device.index;
    match netlink.change(RouteNetlinkMessage::DelLink(message)).await {
        Ok(()) | Err(Reason::Errno(Errno::ENODEV)) => Ok(()),
        Err(reason) => {
            Err(RouteError::Kernel { action: "remove", object: format!("interface {}", device.name), reason })
        }
    }
}

async fn find(
    netlink: &Netlink,
    message: LinkMessage,
    object: impl Fn() -> String,
) -> Result<Option<Link>, RouteError> {
    let failed = |reason| RouteError::Kernel { action: "look up", object: object(), reason };
    match netlink.ask(RouteNetlinkMessage::GetLink(message)).await {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(describe(&message))),
        Ok(_) => Err(failed(Reason::Unexpected)),
        Err(Reason::Errno(Errno::ENODEV)) => Ok(None),
        Err(reason) => Err(failed(reason)),
    }
}

async fn set(
    netlink: &Netlink,
    device: &Device,
    attribute: LinkAttribute,
    object: impl Fn() -> String,
) -> Result<(), RouteError> {
    let mut message = LinkMessage::default();
    message.header.index = device.index;
    message.attributes.push(attribute);
    let failed = |reason| RouteError::Kernel { action: "set", object: object(), reason };
    netlink.change(RouteNetlinkMessage::SetLink(message)).await.map_err(failed)
}

fn describe(message: &LinkMessage) -> Link {
    let mut link = Link {
        device: Device { name: String::new(), index: message.header.index },
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
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

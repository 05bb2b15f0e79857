//! The demo on Linux's own stack: two network namespaces, joined by a veth pair, with a tun device in each.
//!
//! The namespaces have no name, and the kernel takes them apart, devices included, when the demo ends.

mod ping;
mod tcp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use adit_tun::device::linux::{LinuxTun, TunError, TunOptions};
use ipnet::IpNet;

use super::tunnel::{MTU, Side, Tunnel};
use super::{Pair, Transferred};
use crate::failure::{Failure, Kind, Outcome};
use crate::netns::links::Links;
use crate::netns::{self, Namespace, sockets};
use crate::watch::Watch;
use ping::Echo;

/// Two hosts in namespaces.
pub(super) struct Kernel {
    echo: [Echo; 2],
    /// Before the namespaces, whose devices they hold.
    tunnels: [Tunnel; 2],
    namespaces: [Namespace; 2],
    watch: Arc<Watch>,
}

impl Kernel {
    /// Makes the namespaces, the underlay between them, and an engine with a device in each.
    pub(super) fn open(watch: &Arc<Watch>) -> Outcome<Self> {
        let a = Namespace::new(Side::A.name(), watch)?;
        let b = Namespace::new(Side::B.name(), watch)?;
        let there = b.run(watch, "its descriptor", netns::descriptor)?;
        a.run(watch, "the veth pair", move || Links::open()?.add_veth(UNDERLAY, there.as_fd()))?;
        let start = |side: Side, namespace: &Namespace| namespace.run(watch, "its devices", move || start(side));
        let tunnels = [start(Side::A, &a)?, start(Side::B, &b)?];
        let echo = a.run(watch, "sockets for ping", || Ok([Echo::ipv4()?, Echo::ipv6()?]))?;
        Ok(Self { echo, tunnels, namespaces: [a, b], watch: Arc::clone(watch) })
    }
}

impl Pair for Kernel {
    fn tunnels(&self) -> [&Tunnel; 2] {
        self.tunnels.each_ref()
    }

    fn endpoint(&self) -> IpAddr {
        underlay(Side::B).into()
    }

    fn device(&self, _side: Side) -> &str {
        TUN
    }

    fn ping(&mut self, to: IpAddr, sequence: u16) -> Outcome<Option<Duration>> {
        self.echo[usize::from(to.is_ipv6())].ping(&self.watch, to, sequence)
    }

    fn transfer(&mut self, to: IpAddr, size: u64) -> Outcome<Transferred> {
        let [a, b] = &self.namespaces;
        let listener = b.run(&self.watch, "the TCP listener", move || sockets::listen(to))?;
        let to: SocketAddr = listener.local_addr()?;
        let socket = a.run(&self.watch, "the TCP socket", move || sockets::socket(to))?;
        tcp::transfer(&self.watch, socket, &listener, size)
    }
}

/// Sets up one host, in its namespace: loopback, underlay, an engine on a tun device, addresses, routes.
fn start(side: Side) -> Outcome<Tunnel> {
    let links = Links::open()?;
    links.set_up("lo")?;
    links.add_address(UNDERLAY, IpNet::new_assert(underlay(side).into(), UNDERLAY_PREFIX))?;
    links.set_up(UNDERLAY)?;

    let options = TunOptions { name: TUN.to_owned(), mtu: MTU, attach: false, offload: true };
    let device = LinuxTun::open(&options).map_err(|error| {
        let kind = if matches!(error, TunError::Permission { .. }) { Kind::NotPermitted } else { Kind::Failed };
        Failure::new(kind, error)
    })?;
    links.prepare_tun(TUN)?;
    let tunnel = Tunnel::start(side, device)?;
    for own in side.nets() {
        links.add_address(TUN, own)?;
    }
    links.set_up(TUN)?;
    for other in side.other().nets() {
        links.add_route(other, TUN)?;
    }
    Ok(tunnel)
}

/// A host's address on the underlay: TEST-NET-1, which is nobody's (RFC 5737).
fn underlay(side: Side) -> Ipv4Addr {
    match side {
        Side::A => Ipv4Addr::new(192, 0, 2, 1),
        Side::B => Ipv4Addr::new(192, 0, 2, 2),
    }
}

const UNDERLAY_PREFIX: u8 = 30;

/// Names of the devices, the same in both namespaces.
const UNDERLAY: &str = "veth0";
const TUN: &str = "adit0";

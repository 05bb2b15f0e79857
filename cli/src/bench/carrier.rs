//! The packet loop without cipher as a process: one end of the ceiling that `bench tunnel` compares with.
//!
//! It is the product's own device, socket and loop; only the engine is [`Plain`]. Whoever starts it gives the device its
//! addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;

use adit_tun::Pump;
use adit_tun::device::linux::{LinuxTun, TunOptions};
use adit_tun::socket::{UdpOptions, UdpSockets};
use ipnet::IpNet;

use super::plain::Plain;
use crate::failure::{Failure, Outcome};
use crate::watch::{SLICE, Watch};

/// Options of `bench carrier`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Name of the tun device
    interface: String,
    /// UDP port
    #[arg(long)]
    port: u16,
    /// Where the other end is
    #[arg(long)]
    remote: SocketAddr,
}

/// Carries packets, unprotected, until it is told to end.
pub(crate) fn run(options: &Options) -> Outcome {
    let watch = Watch::install()?;
    let tun = TunOptions { name: options.interface.clone(), mtu: MTU, attach: false, offload: true };
    let device = LinuxTun::open(&tun).map_err(Failure::failed)?;
    let socket =
        UdpSockets::bind(UdpOptions { port: options.port, ..UdpOptions::default() }).map_err(Failure::failed)?;
    let everything = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let plain = Plain::new(options.remote, everything.map(|address| IpNet::new_assert(address, 0)));
    let (events, _no_events) = crossbeam_channel::bounded(1);
    let (handle, thread) = Pump::spawn(plain, device, socket, events)?;
    while watch.check().is_ok() && !thread.is_finished() {
        thread::park_timeout(SLICE);
    }
    handle.stop();
    thread.join().map(drop).map_err(|_| Failure::failed("the packet loop has panicked"))
}

/// That of every tunnel of the benchmark.
const MTU: usize = 1420;

//! Traffic that never rests: datagrams, new connections and pings to all destinations, whatever answers.
//!
//! Routes are looked up anew for each packet and by sockets that have kept one, and connections send their first packet
//! again by themselves, so that what leaves a host by a wrong way for a few milliseconds is not missed.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::netns::Namespace;
use crate::wait::pass;

/// Running traffic; it ends when it is dropped.
#[derive(Debug)]
pub struct Noise {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// What [`Noise`] is sent with besides what a program does without privileges.
#[derive(Debug, Clone, Default)]
pub struct NoiseOptions {
    /// The link that sockets are bound to (SO_BINDTODEVICE), as a program does that wants no tunnel.
    pub device: Option<String>,
    /// The mark of all packets.
    pub mark: u32,
}

impl Noise {
    /// UDP port of the datagrams.
    pub const UDP: u16 = 33434;
    /// TCP port of the connections.
    pub const TCP: u16 = 4430;

    /// Sends from `host` to all `targets`, of each kind every few milliseconds.
    ///
    /// # Errors
    /// If the namespace cannot be entered or a socket cannot be made.
    pub fn start(host: &Namespace, targets: &[IpAddr], options: &NoiseOptions) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (inside, targets, options) = (Arc::clone(&shared), targets.to_vec(), options.clone());
        let (ready, made) = std::sync::mpsc::channel();
        let thread = host.spawn_thread(move || match Sender::new(&targets, options) {
            Ok(mut sender) => {
                let _ = ready.send(Ok(()));
                while !inside.ended.load(Ordering::Relaxed) {
                    sender.round(&inside);
                    pass(INTERVAL);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        })?;
        let noise = Self { shared, thread: Some(thread) };
        made.recv().map_err(|_| anyhow!("the thread did not begin"))??;
        Ok(noise)
    }

    /// How many packets the kernel has taken and refused until now; a connection counts once.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.accepted.load(Ordering::Relaxed), self.shared.refused.load(Ordering::Relaxed))
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct Sender {
    targets: Vec<Target>,
    options: NoiseOptions,
    /// The newest connections, so that they can send their first packet again.
    connections: VecDeque<Socket>,
}

struct Target {
    address: IpAddr,
    /// Asks for a route each time.
    udp: Socket,
    /// Keeps its route for as long as the kernel says that it is good.
    connected: Socket,
    is_connected: bool,
    raw: Socket,
}

impl Sender {
    fn new(targets: &[IpAddr], options: NoiseOptions) -> Result<Self> {
        let make = |address: &IpAddr| {
            let domain = domain(*address);
            let protocol = if address.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
            Ok(Target {
                address: *address,
                udp: socket(domain, Type::DGRAM, Protocol::UDP, &options)?,
                connected: socket(domain, Type::DGRAM, Protocol::UDP, &options)?,
                is_connected: false,
                raw: socket(domain, Type::RAW, protocol, &options)?,
            })
        };
        let targets = targets.iter().map(make).collect::<Result<_>>()?;
        Ok(Self { targets, options, connections: VecDeque::new() })
    }

    fn round(&mut self, shared: &Shared) {
        let count = |accepted: bool| {
            let counter = if accepted { &shared.accepted } else { &shared.refused };
            counter.fetch_add(1, Ordering::Relaxed);
        };
        for target in &mut self.targets {
            let udp: SockAddr = SocketAddr::new(target.address, Noise::UDP).into();
            let bare: SockAddr = SocketAddr::new(target.address, 0).into();
            count(target.udp.send_to(b"noise", &udp).is_ok());
            if !target.is_connected {
                target.is_connected = target.connected.connect(&udp).is_ok();
            }
            let sent = target.connected.send(b"noise");
            // Its source address may be gone for good.
            target.is_connected &= sent.is_ok();
            count(sent.is_ok());
            count(target.raw.send_to(&echo_request(target.address), &bare).is_ok());
            let made = socket(domain(target.address), Type::STREAM, Protocol::TCP, &self.options);
            let Ok(connection) = made else { continue };
            let tcp = SocketAddr::new(target.address, Noise::TCP).into();
            let begun = connection.connect(&tcp);
            count(begun.is_ok() || begun.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EINPROGRESS)));
            self.connections.push_back(connection);
            if self.connections.len() > CONNECTIONS {
                self.connections.pop_front();
            }
        }
    }
}

fn socket(domain: Domain, kind: Type, protocol: Protocol, options: &NoiseOptions) -> Result<Socket> {
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if let Some(device) = &options.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if options.mark != 0 {
        socket.set_mark(options.mark)?;
    }
    Ok(socket)
}

/// An echo request of eight bytes (RFC 792, RFC 4443 section 4.1).
fn echo_request(target: IpAddr) -> [u8; 8] {
    match target {
        // The checksum of a raw IPv4 socket is its owner's business: type 8, and all else zero.
        IpAddr::V4(_) => [8, 0, 0xf7, 0xff, 0, 0, 0, 0],
        // That of ICMPv6 is the kernel's (RFC 3542 section 3.1).
        IpAddr::V6(_) => [128, 0, 0, 0, 0, 0, 0, 0],
    }
}

/// Sends one router advertisement from `link` of `router` to all its neighbours: it is their default router for `lifetime`
/// seconds, and they make themselves addresses in `prefix`/64 (RFC 4861 section 4.2).
///
/// # Errors
/// If the socket cannot be made or the kernel does not send.
pub fn advertise_router(router: &Namespace, link: &str, prefix: Ipv6Addr, lifetime: u16) -> Result<()> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]);
    // Prefix information: 64 bits, on link and autonomous; valid and preferred as long as the router.
    message.extend([3, 4, 64, 0xc0]);
    message.extend(u32::from(lifetime).to_be_bytes());
    message.extend(u32::from(lifetime).to_be_bytes());
    message.extend([0; 4]);
    message.extend(prefix.octets());
    router.enter(|| -> Result<()> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        let index = nix::net::if_::if_nametoindex(link)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(255)?;
        let everybody = std::net::SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
        socket.send_to(&message, &SocketAddr::from(everybody).into())?;
        Ok(())
    })?
}

fn domain(address: IpAddr) -> Domain {
    if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

/// From one round to the next.
const INTERVAL: Duration = Duration::from_millis(4);

/// Connections that are kept for a while.
const CONNECTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_checksum_of_a_ping_is_right() {
        let words = echo_request(Ipv4Addr::LOCALHOST.into());
        let sum: u32 = words.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!(sum, 0xffff);
    }
}

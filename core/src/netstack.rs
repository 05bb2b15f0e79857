//! A host behind a tunnel without an operating system: smoltcp's TCP and ICMP over queues of IP packets.
//!
//! The demo uses it where there are no privileges for tun devices, tests use it where there is no kernel, and in-tunnel
//! DNS over TCP will. Sans-IO as the rest of core: packets go in by [`Host::receive`] and come out by
//! [`Host::transmit`], and time is the `now` of [`Host::poll`].

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{
    HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr, IpEndpoint,
};

/// Bytes of buffer for each direction of a TCP connection.
const TCP_BUFFER: usize = 512 * 1024;

/// Packets that wait on either side of the stack before new ones are refused.
const QUEUE_LIMIT: usize = 1024;

/// A TCP connection or a listener of a [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection(SocketHandle);

/// A host with addresses, TCP and ping.
pub struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Queues,
    origin: Instant,
    echo: SocketHandle,
    echo_ident: u16,
    next_port: u16,
}

impl Host {
    /// Makes a host with these addresses (at most two) and this MTU in bytes, at `now`. `seed` makes its TCP sequence
    /// numbers and ports.
    pub fn new(addresses: &[IpNet], mtu: usize, seed: u64, now: Instant) -> Self {
        let mut device = Queues { inbound: VecDeque::new(), outbound: VecDeque::new(), spare: Vec::new(), mtu };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, StackInstant::ZERO);
        interface.update_ip_addrs(|list| {
            for address in addresses {
                // A host with more addresses than the stack has room for keeps the first ones.
                let _ = list.push(IpCidr::new(address.addr().into(), address.prefix_len()));
            }
        });
        for address in addresses {
            match address.addr() {
                IpAddr::V4(own) => drop(interface.routes_mut().add_default_ipv4_route(own)),
                IpAddr::V6(own) => drop(interface.routes_mut().add_default_ipv6_route(own)),
            }
        }
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 16], vec![0; 16 * 128]);
        let mut echo = icmp::Socket::new(buffer(), buffer());
        let echo_ident = seed as u16 | 1;
        // A fresh socket and an identifier that is not zero: binding cannot fail.
        let _ = echo.bind(icmp::Endpoint::Ident(echo_ident));
        let mut sockets = SocketSet::new(Vec::new());
        let echo = sockets.add(echo);
        Self {
            interface,
            sockets,
            device,
            origin: now,
            echo,
            echo_ident,
            next_port: 49152 + (seed >> 16) as u16 % 8192,
        }
    }

    /// Gives a packet to the host; a packet too many is dropped, as on any wire.
    pub fn receive(&mut self, packet: &[u8]) {
        if self.device.inbound.len() < QUEUE_LIMIT {
            let mut buffer = self.device.buffer(0);
            buffer.extend_from_slice(packet);
            self.device.inbound.push_back(buffer);
        }
    }

    /// The next packet that the host sends; give the buffer back with [`recycle`](Self::recycle).
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        self.device.outbound.pop_front()
    }

    /// Lets the memory of a packet be used again.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        self.device.recycle(packet);
    }

    /// Works through what was received and what sockets want to send.
    pub fn poll(&mut self, now: Instant) {
        let now = self.time(now);
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }

    /// When [`poll`](Self::poll) wants to be called if nothing arrives before.
    #[must_use]
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let now_in_stack = self.time(now);
        let delay = self.interface.poll_delay(now_in_stack, &self.sockets)?;
        Some(now + Duration::from_micros(delay.total_micros()))
    }

    /// Waits for one connection on a TCP port.
    pub fn listen(&mut self, port: u16) -> Connection {
        let mut socket = tcp_socket();
        // Fails only for port 0 or a socket that is open already.
        let _ = socket.listen(port);
        Connection(self.sockets.add(socket))
    }

    /// Begins a TCP connection; `None` if there is no own address of that family.
    pub fn connect(&mut self, to: SocketAddr) -> Option<Connection> {
        let mut socket = tcp_socket();
        let local = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(49152);
        let remote = IpEndpoint::new(to.ip().into(), to.port());
        socket.connect(self.interface.context(), remote, local).ok()?;
        Some(Connection(self.sockets.add(socket)))
    }

    /// Queues bytes to send and says how many found room.
    pub fn send(&mut self, connection: Connection, bytes: &[u8]) -> usize {
        self.sockets.get_mut::<tcp::Socket<'_>>(connection.0).send_slice(bytes).unwrap_or(0)
    }

    /// Lends received bytes in order to `take`, which says how many it has taken; returns that number.
    pub fn recv(&mut self, connection: Connection, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let take = |bytes: &mut [u8]| {
            let taken = take(bytes).min(bytes.len());
            (taken, taken)
        };
        self.sockets.get_mut::<tcp::Socket<'_>>(connection.0).recv(take).unwrap_or(0)
    }

    /// Ends the sending direction; what is queued is still sent.
    pub fn close(&mut self, connection: Connection) {
        self.sockets.get_mut::<tcp::Socket<'_>>(connection.0).close();
    }

    /// Whether bytes can be sent now or later.
    pub fn may_send(&self, connection: Connection) -> bool {
        self.sockets.get::<tcp::Socket<'_>>(connection.0).may_send()
    }

    /// Whether the peer has ended its direction and everything was read, or the connection is gone.
    pub fn is_finished(&self, connection: Connection) -> bool {
        let socket = self.sockets.get::<tcp::Socket<'_>>(connection.0);
        let opening = matches!(socket.state(), tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived);
        !opening && !socket.may_recv()
    }

    /// Sends an echo request; `None` if there is no own address of that family or no room.
    pub fn ping(&mut self, to: IpAddr, sequence: u16) -> Option<()> {
        const DATA: &[u8] = b"adit";
        let checksum = ChecksumCapabilities::default();
        let source = self.interface.get_source_address(&to.into())?;
        let ident = self.echo_ident;
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.echo);
        match (source, to) {
            (IpAddress::Ipv4(_), IpAddr::V4(_)) => {
                let request = Icmpv4Repr::EchoRequest { ident, seq_no: sequence, data: DATA };
                let buffer = socket.send(request.buffer_len(), to.into()).ok()?;
                request.emit(&mut Icmpv4Packet::new_unchecked(buffer), &checksum);
            }
            (IpAddress::Ipv6(source), IpAddr::V6(destination)) => {
                let request = Icmpv6Repr::EchoRequest { ident, seq_no: sequence, data: DATA };
                let buffer = socket.send(request.buffer_len(), to.into()).ok()?;
                request.emit(&source, &destination, &mut Icmpv6Packet::new_unchecked(buffer), &checksum);
            }
            _ => return None,
        }
        Some(())
    }

    /// The sequence number of an echo reply that has arrived, and who sent it.
    pub fn pong(&mut self) -> Option<(IpAddr, u16)> {
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.echo);
        let (bytes, from) = socket.recv().ok()?;
        // Both families put the sequence number at the same place (RFC 792, RFC 4443 section 4.2); the stack has
        // checked length, checksum and identifier.
        let sequence = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]);
        Some((from.into(), sequence))
    }

    fn time(&self, now: Instant) -> StackInstant {
        let micros = now.saturating_duration_since(self.origin).as_micros();
        StackInstant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("addresses", &self.interface.ip_addrs()).finish_non_exhaustive()
    }
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket
}

/// The two queues that stand for the wire.
struct Queues {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    mtu: usize,
}

impl Queues {
    fn buffer(&mut self, len: usize) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.resize(len, 0);
        buffer
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < QUEUE_LIMIT {
            self.spare.push(buffer);
        }
    }
}

impl phy::Device for Queues {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Slot<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = self.mtu;
        capabilities.medium = Medium::Ip;
        capabilities.checksum.tcp = Checksum::Both;
        capabilities
    }

    fn receive(&mut self, _timestamp: StackInstant) -> Option<(Received<'_>, Slot<'_>)> {
        if self.outbound.len() >= QUEUE_LIMIT {
            return None;
        }
        let packet = self.inbound.pop_front()?;
        // The token for the packet takes it whole; its memory is lost to the spares, and comes back with the next
        // packet that is recycled.
        Some((Received { packet, lifetime: std::marker::PhantomData }, Slot(self)))
    }

    fn transmit(&mut self, _timestamp: StackInstant) -> Option<Slot<'_>> {
        (self.outbound.len() < QUEUE_LIMIT).then_some(Slot(self))
    }
}

/// A packet that was received.
struct Received<'a> {
    packet: Vec<u8>,
    lifetime: std::marker::PhantomData<&'a ()>,
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.packet)
    }
}

/// Room for a packet to send.
struct Slot<'a>(&'a mut Queues);

impl phy::TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut buffer = self.0.buffer(len);
        let result = f(&mut buffer);
        self.0.outbound.push_back(buffer);
        result
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "an origin to count from; the tests never wait")]
mod tests {
    use super::*;

    fn hosts(now: Instant) -> (Host, Host) {
        let nets = |n: u8| -> [IpNet; 2] {
            [format!("10.0.0.{n}/24").parse().unwrap(), format!("fd00::{n}/64").parse().unwrap()]
        };
        (Host::new(&nets(1), 1420, 11, now), Host::new(&nets(2), 1420, 22, now))
    }

    fn exchange(a: &mut Host, b: &mut Host, now: Instant) {
        a.poll(now);
        b.poll(now);
        while let Some(packet) = a.transmit() {
            b.receive(&packet);
            a.recycle(packet);
        }
        while let Some(packet) = b.transmit() {
            a.receive(&packet);
            b.recycle(packet);
        }
    }

    #[test]
    fn a_stream_arrives_whole_over_both_families() {
        for target in ["10.0.0.2", "fd00::2"] {
            let mut now = Instant::now();
            let (mut a, mut b) = hosts(now);
            let server = b.listen(7);
            let client = a.connect(SocketAddr::new(target.parse().unwrap(), 7)).unwrap();
            let sent: Vec<u8> = (0..300_000u32).map(|i| (i * 7) as u8).collect();
            let (mut offset, mut got) = (0, Vec::new());
            for _ in 0..20_000 {
                offset += a.send(client, &sent[offset..]);
                if offset == sent.len() {
                    a.close(client);
                }
                exchange(&mut a, &mut b, now);
                b.recv(server, |bytes| {
                    got.extend_from_slice(bytes);
                    bytes.len()
                });
                now += Duration::from_micros(100);
                if b.is_finished(server) {
                    break;
                }
            }
            assert!(got == sent, "{target}: {} of {} bytes", got.len(), sent.len());
        }
    }

    #[test]
    fn pings_are_answered() {
        let now = Instant::now();
        let (mut a, mut b) = hosts(now);
        for (sequence, target) in [(1, "10.0.0.2"), (2, "fd00::2")] {
            let target: IpAddr = target.parse().unwrap();
            a.ping(target, sequence).unwrap();
            for _ in 0..4 {
                exchange(&mut a, &mut b, now);
            }
            assert_eq!(a.pong(), Some((target, sequence)));
        }
        assert_eq!(a.ping("10.0.0.2".parse().unwrap(), 3), Some(()));
    }
}

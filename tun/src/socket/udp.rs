//! Real UDP sockets: one for IPv4 and one for IPv6 on the same port.
//!
//! Two sockets, because a dual-stack one hides IPv4's ECN field and source address on some systems, and because a host
//! without IPv6 then simply has one. Sockets are made as seldom as possible, and each is counted.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;

use nix::libc;

use crate::batch::DatagramBatch;
use crate::queue::SendQueue;
use crate::reactor::Waker;
use crate::socket::endpoint::{Endpoint, Family, Sent};
use crate::socket::send_error::SendErrorLog;
use crate::socket::{BindError, SendErrorKind, SendProgress, Socket, SocketStats};

/// The sockets of one tunnel.
#[derive(Debug)]
pub struct UdpSockets {
    /// IPv4's, and IPv6's; at least one unless a rebind failed.
    endpoints: [Option<Endpoint>; 2],
    port: u16,
    mark: u32,
    interface: Option<NonZeroU32>,
    stats: SocketStats,
    errors: SendErrorLog,
    /// The one that something came from last.
    busy: usize,
    /// Counts receives, to let the other one go first once in [`u8::MAX`] and one.
    turn: u8,
    /// Receives that failed since the last that did not.
    failures: u32,
}

/// How sockets are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpOptions {
    /// The port, or 0 for one that is free over both address families.
    pub port: u16,
    /// The firewall mark (SO_MARK); 0 is none.
    pub mark: u32,
    /// The index of the only interface to send over (IP_BOUND_IF, IPV6_BOUND_IF), on Apple's systems.
    pub bind_interface: Option<NonZeroU32>,
}

impl UdpSockets {
    /// Makes and binds the sockets. A host without IPv6, or without IPv4, gets one only.
    ///
    /// # Errors
    /// [`BindError`]; no socket is left open.
    pub fn bind(options: UdpOptions) -> Result<Self, BindError> {
        let mut sockets = Self {
            endpoints: [None, None],
            port: options.port,
            mark: options.mark,
            interface: options.bind_interface,
            stats: SocketStats::default(),
            errors: SendErrorLog::default(),
            busy: 0,
            turn: 0,
            failures: 0,
        };
        sockets.endpoints = sockets.make(options.port)?;
        Ok(sockets)
    }

    /// Whether there is a socket for IPv4, and one for IPv6.
    pub fn families(&self) -> (bool, bool) {
        (self.endpoints[0].is_some(), self.endpoints[1].is_some())
    }

    /// Makes both sockets on one port, and remembers the port.
    fn make(&mut self, port: u16) -> Result<[Option<Endpoint>; 2], BindError> {
        for _ in 0..if port == 0 { FREE_PORT_TRIES } else { 1 } {
            let v4 = self.make_one(Family::V4, port)?;
            let port_of = |endpoint: &Option<Endpoint>, fallback| match endpoint {
                Some(endpoint) => endpoint.port().map_err(|source| other("getsockname", Family::V4, source)),
                None => Ok(fallback),
            };
            let chosen = port_of(&v4, port)?;
            let v6 = match self.make_one(Family::V6, chosen) {
                // Free over IPv4 and not over IPv6: the kernel chooses another one next time.
                Err(BindError::PortBusy { .. }) if port == 0 => continue,
                v6 => v6?,
            };
            if v4.is_none() && v6.is_none() {
                let source = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
                return Err(other("socket", Family::V4, source));
            }
            self.port = if v4.is_some() { chosen } else { port_of(&v6, chosen)? };
            return Ok([v4, v6]);
        }
        Err(BindError::NoFreePort { tries: FREE_PORT_TRIES })
    }

    /// Makes one socket; `None` if the host does not have the address family.
    fn make_one(&mut self, family: Family, port: u16) -> Result<Option<Endpoint>, BindError> {
        self.stats.sockets_created += 1;
        let endpoint = match Endpoint::bind(family, port) {
            Ok(endpoint) => endpoint,
            Err((action, source)) => {
                return match source.raw_os_error() {
                    Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT) => Ok(None),
                    Some(libc::EADDRINUSE) => Err(BindError::PortBusy { port, family: family.name() }),
                    Some(libc::EACCES | libc::EPERM) if action == "bind" => Err(BindError::PortForbidden { port }),
                    _ => Err(other(action, family, source)),
                };
            }
        };
        if self.mark != 0 {
            endpoint.set_mark(self.mark).map_err(|source| BindError::Mark { mark: self.mark, source })?;
        }
        if let Some(index) = self.interface {
            endpoint.bind_interface(Some(index)).map_err(|source| BindError::Interface { index, source })?;
        }
        Ok(Some(endpoint))
    }
}

impl Socket for UdpSockets {
    fn recv_batch(&mut self, batch: &mut DatagramBatch) -> io::Result<usize> {
        let (before, count) = (batch.len(), self.endpoints.len());
        // One family carries the traffic, so the other is asked only if that one has nothing, and first now and then, so
        // that it is heard while the first is never quiet. Whatever is left is found by the next wait.
        self.turn = self.turn.wrapping_add(1);
        let first = if self.turn == 0 { self.busy + 1 } else { self.busy };
        let mut broken = None;
        for index in 0..count {
            let family = (first + index) % count;
            let Some(endpoint) = &mut self.endpoints[family] else { continue };
            while !batch.is_full() {
                self.stats.receives += 1;
                let free = batch.free().len();
                match endpoint.recv(batch) {
                    Ok(received) => {
                        self.failures = 0;
                        if received < free {
                            // Fewer than there was room for: nothing is left.
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An error that an ICMP message left behind is gone now that it was reported. One that stays is not
                    // of that sort, and would keep the loop busy for nothing.
                    Err(error) => {
                        self.stats.recv_errors += 1;
                        self.failures += 1;
                        if is_broken(&error) || self.failures >= RECV_FAILURES {
                            broken = Some(error);
                        }
                        break;
                    }
                }
            }
            if batch.len() > before {
                self.busy = family;
                break;
            }
        }
        match broken {
            Some(error) if batch.len() == before => Err(error),
            _ => Ok(batch.len() - before),
        }
    }

    fn send_batch(&mut self, queue: &mut SendQueue) -> SendProgress {
        let mut progress = SendProgress::default();
        while let Some(run) = queue.front() {
            let remote = run.transmit.remote;
            let sent = match &mut self.endpoints[Family::of(&remote) as usize] {
                Some(endpoint) => {
                    self.stats.sends += 1;
                    let segmented = endpoint.is_segmenting();
                    let sent = endpoint.send(run);
                    progress.offload_refused |= segmented && !endpoint.is_segmenting();
                    sent
                }
                None => Sent::Refused(run.datagrams(), io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            };
            match sent {
                Sent::Datagrams(count) => {
                    progress.sent += count;
                    queue.advance(count);
                }
                Sent::Blocked => {
                    progress.blocked = true;
                    break;
                }
                Sent::Refused(count, error) => {
                    let kind = SendErrorKind::of(&error);
                    self.errors.count(kind, count, remote, &error);
                    progress.broken |= kind == SendErrorKind::Broken;
                    progress.dropped += count;
                    queue.advance(count);
                }
            }
        }
        progress
    }

    fn rebind(&mut self, port: u16) -> Result<u16, BindError> {
        self.failures = 0;
        if port == self.port {
            // The port is only free once the old sockets are closed.
            self.endpoints = [None, None];
        }
        let kept = self.port;
        match self.make(port) {
            Ok(endpoints) => {
                self.endpoints = endpoints;
                Ok(self.port)
            }
            Err(error) => {
                self.port = kept;
                Err(error)
            }
        }
    }

    fn set_mark(&mut self, mark: u32) -> Result<(), BindError> {
        // Even a mark of 0 takes a privilege, which a tunnel without a mark does not need.
        if mark != self.mark {
            for endpoint in self.endpoints.iter().flatten() {
                endpoint.set_mark(mark).map_err(|source| BindError::Mark { mark, source })?;
            }
            self.mark = mark;
        }
        Ok(())
    }

    fn bind_interface(&mut self, index: Option<NonZeroU32>) -> Result<(), BindError> {
        let endpoints = || self.endpoints.iter().flatten();
        let Err(source) = endpoints().try_for_each(|endpoint| endpoint.bind_interface(index)) else {
            self.interface = index;
            return Ok(());
        };
        for endpoint in endpoints() {
            if let Err(error) = endpoint.bind_interface(self.interface) {
                tracing::debug!(%error, "the former interface could not be set again");
            }
        }
        match index {
            Some(index) => Err(BindError::Interface { index, source }),
            None => Err(other("IP_BOUND_IF", Family::V4, source)),
        }
    }

    fn local_port(&self) -> u16 {
        self.port
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.endpoints.iter().flatten().map(Endpoint::fd)
    }

    fn attach(&mut self, _waker: Waker) {}

    fn stats(&self) -> SocketStats {
        SocketStats { send_errors: self.errors.counts(), ..self.stats }
    }
}

/// Whether a socket will certainly not receive again.
fn is_broken(error: &io::Error) -> bool {
    SendErrorKind::of(error) == SendErrorKind::Broken
}

fn other(action: &'static str, family: Family, source: io::Error) -> BindError {
    BindError::Other { action, family: family.name(), source }
}

/// With some thousand programs' sockets on a host, one try in ten may find a port that is taken over the other family.
const FREE_PORT_TRIES: usize = 16;

/// So many failures in a row mean that a socket is broken, whatever the error says.
const RECV_FAILURES: u32 = 16;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::process::Command;
    use std::time::{Duration, Instant};

    use adit_core::{Ecn, Reservation, Transmit};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn bind() -> UdpSockets {
        UdpSockets::bind(UdpOptions::default()).unwrap()
    }

    fn to(ip: IpAddr, socket: &UdpSockets) -> Transmit {
        Transmit { remote: SocketAddr::new(ip, socket.local_port()), local: None, ecn: Ecn::NotEct }
    }

    fn push(queue: &mut SendQueue, transmit: Transmit, bytes: &[u8]) {
        let mut room = Reservation::new(queue, transmit, bytes.len()).unwrap();
        room.bytes().copy_from_slice(bytes);
        room.commit(bytes.len());
    }

    type Datagram = (SocketAddr, Option<IpAddr>, Ecn, Vec<u8>);

    /// Reads until `count` datagrams are there, for at most five seconds.
    fn receive(socket: &mut UdpSockets, count: usize) -> Vec<Datagram> {
        let (mut datagrams, mut batch) = (Vec::new(), DatagramBatch::new());
        let end = Instant::now() + Duration::from_secs(5);
        while datagrams.len() < count && Instant::now() < end {
            batch.clear();
            socket.recv_batch(&mut batch).unwrap();
            for run in batch.runs() {
                let from = run.from;
                datagrams.extend(run.datagrams().map(|bytes| (from.remote, from.local, from.ecn, bytes.to_vec())));
            }
        }
        datagrams
    }

    #[test]
    fn one_port_is_free_over_both_families() {
        let sockets = bind();
        assert_eq!(sockets.families(), (true, true));
        assert!(sockets.local_port() > 0);
        assert_eq!(sockets.fds().count(), 2);
        for endpoint in sockets.endpoints.iter().flatten() {
            assert_eq!(endpoint.port().unwrap(), sockets.local_port());
        }
    }

    #[test]
    fn a_busy_port_is_named() {
        let first = bind();
        let error = UdpSockets::bind(UdpOptions { port: first.local_port(), ..UdpOptions::default() }).unwrap_err();
        assert!(matches!(error, BindError::PortBusy { family: "IPv4", port } if port == first.local_port()));
        assert!(error.to_string().contains(&format!("UDP port {} is in use", first.local_port())));
    }

    #[test]
    fn a_run_goes_out_in_one_call_and_arrives_whole() {
        for ip in [V4, V6] {
            let (mut a, mut b) = (bind(), bind());
            let mut queue = SendQueue::new();
            let payloads: Vec<Vec<u8>> =
                (0..20_u8).map(|i| vec![i; if i == 19 { 700 } else { 1200 }]).chain([vec![7; 1400]]).collect();
            for payload in &payloads {
                push(&mut queue, to(ip, &b), payload);
            }
            assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 21, ..SendProgress::default() });
            assert!(queue.is_empty());
            assert_eq!(a.stats().sends, 2, "20 datagrams in one call, and one in another");
            let got = receive(&mut b, payloads.len());
            assert_eq!(got.iter().map(|datagram| &datagram.3).collect::<Vec<_>>(), payloads.iter().collect::<Vec<_>>());
            assert!(got.iter().all(|datagram| datagram.0 == SocketAddr::new(ip, a.local_port())));
            assert!(b.stats().receives < 21, "they arrive in fewer calls than datagrams");
        }
    }

    #[test]
    fn ecn_and_addresses_are_seen() {
        for ip in [V4, V6] {
            let (mut a, mut b) = (bind(), bind());
            for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
                let mut queue = SendQueue::new();
                push(&mut queue, Transmit { ecn, ..to(ip, &b) }, b"x");
                a.send_batch(&mut queue);
                let got = receive(&mut b, 1);
                assert_eq!(got, [(SocketAddr::new(ip, a.local_port()), Some(ip), ecn, b"x".to_vec())]);
            }
        }
    }

    #[test]
    fn datagrams_leave_from_the_address_that_was_asked() {
        let (mut a, mut b) = (bind(), bind());
        let other: IpAddr = Ipv4Addr::new(127, 0, 0, 9).into();
        let mut queue = SendQueue::new();
        push(&mut queue, Transmit { local: Some(other), ..to(V4, &b) }, b"from 127.0.0.9");
        a.send_batch(&mut queue);
        assert_eq!(receive(&mut b, 1)[0].0, SocketAddr::new(other, a.local_port()));

        push(&mut queue, Transmit { remote: SocketAddr::new(other, a.local_port()), ..to(V4, &a) }, b"answer");
        b.send_batch(&mut queue);
        assert_eq!(receive(&mut a, 1)[0].1, Some(other));
    }

    #[test]
    fn an_address_that_is_gone_costs_neither_datagrams_nor_offloads() {
        let gone: [(IpAddr, IpAddr); 2] =
            [(V4, Ipv4Addr::new(192, 0, 2, 1).into()), (V6, "2001:db8::1".parse().unwrap())];
        for (ip, local) in gone {
            let (mut a, mut b) = (bind(), bind());
            let mut queue = SendQueue::new();
            for _ in 0..5 {
                push(&mut queue, Transmit { local: Some(local), ecn: Ecn::Ect0, ..to(ip, &b) }, &[1; 1000]);
            }
            assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 5, ..SendProgress::default() });
            let got = receive(&mut b, 5);
            assert_eq!(got.len(), 5);
            assert!(got.iter().all(|datagram| datagram.0.ip() == ip && datagram.2 == Ecn::Ect0), "{got:?}");

            let calls = a.stats().sends;
            for _ in 0..5 {
                push(&mut queue, Transmit { local: Some(local), ecn: Ecn::Ce, ..to(ip, &b) }, &[2; 1000]);
            }
            a.send_batch(&mut queue);
            assert_eq!(a.stats().sends, calls + 1, "segmentation is as it was");
            assert!(receive(&mut b, 5).iter().all(|datagram| datagram.2 == Ecn::Ce));
            assert_eq!(a.stats().send_errors.iter().count(), 0);
        }
    }

    #[test]
    fn what_cannot_be_sent_is_dropped_and_counted_and_the_rest_goes_on() {
        let (mut a, mut b) = (bind(), bind());
        let mut queue = SendQueue::new();
        push(&mut queue, to(V4, &b), &vec![0; 65_508]);
        push(&mut queue, Transmit { remote: SocketAddr::new(V4, 0), ..to(V4, &b) }, b"no port");
        // Sending to everybody takes an option that the socket does not have.
        let everybody = Transmit { remote: (Ipv4Addr::BROADCAST, 9).into(), ..to(V4, &b) };
        push(&mut queue, everybody, b"one");
        push(&mut queue, everybody, b"two");
        push(&mut queue, to(V4, &b), b"fine");
        assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 1, dropped: 4, ..SendProgress::default() });
        assert_eq!(receive(&mut b, 1)[0].3, b"fine");
        let errors = a.stats().send_errors;
        assert_eq!((errors.get(SendErrorKind::TooBig), errors.get(SendErrorKind::Other)), (1, 1));
        assert_eq!(errors.get(SendErrorKind::Forbidden) + errors.get(SendErrorKind::Unreachable), 2);
    }

    #[test]
    fn rebinding_changes_the_port_or_nothing() {
        let (mut a, mut b, c) = (bind(), bind(), bind());
        let first = a.local_port();
        assert!(matches!(a.rebind(c.local_port()), Err(BindError::PortBusy { .. })));
        assert_eq!((a.local_port(), a.families()), (first, (true, true)), "as it was");

        assert_eq!(a.rebind(first).unwrap(), first);
        let second = a.rebind(0).unwrap();
        assert_eq!(second, a.local_port());
        let mut queue = SendQueue::new();
        push(&mut queue, to(V6, &b), b"hello");
        a.send_batch(&mut queue);
        assert_eq!(receive(&mut b, 1)[0].0.port(), second);
        assert!(a.stats().sockets_created >= 7 && b.stats().sockets_created >= 2);
    }

    /// Runs `test` in a thread with a network namespace of its own, where loopback has an Ethernet's MTU.
    fn in_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let status = Command::new("ip").args(["link", "set", "lo", "mtu", "1500", "up"]).status().unwrap();
            assert!(status.success());
            test();
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn datagrams_longer_than_the_path_are_fragmented() {
        in_namespace(|| {
            for ip in [V4, V6] {
                let (mut a, mut b) = (bind(), bind());
                let mut queue = SendQueue::new();
                for i in 0..8 {
                    push(&mut queue, to(ip, &b), &[i; 4000]);
                }
                assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 8, ..SendProgress::default() });
                let got = receive(&mut b, 8);
                assert_eq!(got.iter().map(|datagram| datagram.3[0]).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());

                // Those that fit still go out together.
                let calls = a.stats().sends;
                for i in 0..8 {
                    push(&mut queue, to(ip, &b), &[i; 1000]);
                }
                a.send_batch(&mut queue);
                assert_eq!(a.stats().sends, calls + 1);
                assert_eq!(receive(&mut b, 8).len(), 8);
            }
        });
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn marks_are_set_now_and_on_every_later_socket() {
        in_namespace(|| {
            let mut sockets = UdpSockets::bind(UdpOptions { mark: 0x1234, ..UdpOptions::default() }).unwrap();
            let marks = |sockets: &UdpSockets| -> Vec<u32> {
                sockets.fds().map(|fd| socket2::SockRef::from(&fd).mark().unwrap()).collect()
            };
            assert_eq!(marks(&sockets), [0x1234, 0x1234]);
            sockets.set_mark(0x99).unwrap();
            assert_eq!(marks(&sockets), [0x99, 0x99]);
            sockets.rebind(0).unwrap();
            assert_eq!(marks(&sockets), [0x99, 0x99]);
            // SAFETY: the call takes three integers and touches no memory; it changes this thread only.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
            assert!(matches!(sockets.set_mark(7), Err(BindError::Mark { mark: 7, .. })));
        });
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn without_routes_datagrams_are_counted_as_unreachable() {
        in_namespace(|| {
            let mut a = bind();
            let mut queue = SendQueue::new();
            for remote in ["192.0.2.1:9", "[2001:db8::1]:9"] {
                let transmit = Transmit { remote: remote.parse().unwrap(), local: None, ecn: Ecn::NotEct };
                for _ in 0..3 {
                    push(&mut queue, transmit, &[0; 100]);
                }
            }
            assert_eq!(a.send_batch(&mut queue), SendProgress { dropped: 6, ..SendProgress::default() });
            assert_eq!(a.stats().send_errors.get(SendErrorKind::Unreachable), 6);
        });
    }
}

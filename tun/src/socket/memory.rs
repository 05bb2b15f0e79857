//! A network that is only memory: sockets in one process that reach each other by address.
//!
//! It neither loses nor reorders: a receiver that is slow holds its senders back. Datagrams to an address that nobody
//! has are gone, as on a real network. Loss, delay and reordering are a test harness's business.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_core::Ecn;

use crate::batch::{DatagramBatch, Received};
use crate::queue::SendQueue;
use crate::reactor::Waker;
use crate::ring::{Notify, Ring, RingError};
use crate::socket::{BindError, SendProgress, Socket, SocketStats};

/// The network. Clones are the same network.
#[derive(Debug, Clone)]
pub struct MemoryNetwork {
    inboxes: Arc<Mutex<HashMap<SocketAddr, Arc<Inbox>>>>,
    datagrams: usize,
}

/// One socket, bound to one address.
#[derive(Debug)]
pub struct MemorySocket {
    network: MemoryNetwork,
    address: SocketAddr,
    inbox: Arc<Inbox>,
    waker: Option<Notify>,
    stats: SocketStats,
}

type Inbox = Ring<Envelope>;

/// What an IP header would tell.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    from: SocketAddr,
    to: IpAddr,
    ecn: Ecn,
}

impl MemoryNetwork {
    /// Makes a network on which at most `datagrams` datagrams wait for each socket.
    pub fn new(datagrams: usize) -> Self {
        Self { inboxes: Arc::default(), datagrams: datagrams.max(1) }
    }

    /// Binds a socket; port 0 is a free one.
    ///
    /// # Errors
    /// [`BindError::PortBusy`], and [`BindError::NoFreePort`] when the address has no port left.
    pub fn bind(&self, address: SocketAddr) -> Result<MemorySocket, BindError> {
        let (address, inbox) = self.claim(address)?;
        let stats = SocketStats { sockets_created: 1, ..SocketStats::default() };
        Ok(MemorySocket { network: self.clone(), address, inbox, waker: None, stats })
    }

    fn claim(&self, mut address: SocketAddr) -> Result<(SocketAddr, Arc<Inbox>), BindError> {
        let mut inboxes = self.lock();
        if address.port() == 0 {
            let free = (FIRST_FREE..=u16::MAX).find(|port| !inboxes.contains_key(&with_port(address, *port)));
            let tries = usize::from(u16::MAX - FIRST_FREE) + 1;
            address.set_port(free.ok_or(BindError::NoFreePort { tries })?);
        } else if inboxes.contains_key(&address) {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            return Err(BindError::PortBusy { port: address.port(), family });
        }
        let inbox = Arc::new(Ring::new(self.datagrams, self.datagrams.saturating_mul(DATAGRAM).min(MAX_BYTES)));
        inboxes.insert(address, Arc::clone(&inbox));
        Ok((address, inbox))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemorySocket {
    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn release(&self) {
        self.network.lock().remove(&self.address);
        // Whoever waits for room in it must learn that there is nobody any more.
        self.inbox.close();
    }
}

impl Socket for MemorySocket {
    fn recv_batch(&mut self, batch: &mut DatagramBatch) -> io::Result<usize> {
        let before = batch.len();
        loop {
            let Some(slot) = batch.free().next() else { break };
            let Some((Envelope { from, to, ecn }, len)) = self.inbox.pop(slot) else { break };
            batch.commit(Received { remote: from, local: Some(to), ecn, len, stride: len });
        }
        self.stats.receives += 1;
        Ok(batch.len() - before)
    }

    fn send_batch(&mut self, queue: &mut SendQueue) -> SendProgress {
        let mut progress = SendProgress::default();
        self.stats.sends += 1;
        while let Some(run) = queue.front() {
            let remote = run.transmit.remote;
            let inbox = self.network.lock().get(&remote).cloned();
            let from = SocketAddr::new(run.transmit.local.unwrap_or(self.address.ip()), self.address.port());
            let envelope = Envelope { from, to: remote.ip(), ecn: run.transmit.ecn };
            let mut sent = 0;
            for datagram in run.bytes.chunks(run.segment) {
                match inbox.as_ref().map(|inbox| inbox.push(envelope, datagram, self.waker.as_ref())) {
                    Some(Err(RingError::Full)) => {
                        progress.blocked = true;
                        break;
                    }
                    Some(Ok(()) | Err(RingError::Closed)) | None => sent += 1,
                }
            }
            progress.sent += sent;
            queue.advance(sent);
            if progress.blocked {
                break;
            }
        }
        progress
    }

    fn rebind(&mut self, port: u16) -> Result<u16, BindError> {
        if port == self.address.port() {
            self.release();
        }
        let (address, inbox) = self.network.claim(with_port(self.address, port))?;
        if address != self.address {
            self.release();
        }
        (self.address, self.inbox) = (address, inbox);
        self.stats.sockets_created += 1;
        if let Some(waker) = &self.waker {
            self.inbox.set_reader(waker.clone());
        }
        Ok(address.port())
    }

    fn set_mark(&mut self, mark: u32) -> Result<(), BindError> {
        let refused = || BindError::Mark { mark, source: io::ErrorKind::Unsupported.into() };
        if mark == 0 { Ok(()) } else { Err(refused()) }
    }

    fn local_port(&self) -> u16 {
        self.address.port()
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::empty()
    }

    fn attach(&mut self, waker: Waker) {
        let waker = Notify::Pump(waker);
        self.inbox.set_reader(waker.clone());
        self.waker = Some(waker);
    }

    fn stats(&self) -> SocketStats {
        self.stats
    }
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        self.release();
    }
}

fn with_port(address: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

/// Where free ports begin (RFC 6335 section 6).
const FIRST_FREE: u16 = 49_152;

/// What a datagram is taken to need in an inbox: an Ethernet frame's worth.
const DATAGRAM: usize = 1500;

/// What an inbox holds at most, whatever the count says.
const MAX_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use adit_core::{Reservation, Transmit};

    use super::*;
    use crate::clock::Clock;
    use crate::reactor::Reactor;

    fn address(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    fn queued(to: SocketAddr, payloads: &[&[u8]]) -> SendQueue {
        let mut queue = SendQueue::new();
        for payload in payloads {
            let transmit = Transmit { remote: to, local: None, ecn: Ecn::Ect0 };
            let mut room = Reservation::new(&mut queue, transmit, payload.len()).unwrap();
            room.bytes().copy_from_slice(payload);
            room.commit(payload.len());
        }
        queue
    }

    #[test]
    fn datagrams_arrive_with_their_addresses_and_ecn() {
        let network = MemoryNetwork::new(8);
        let (mut a, mut b) = (network.bind(address(1, 700)).unwrap(), network.bind(address(2, 0)).unwrap());
        let mut queue = queued(b.address(), &[b"one", b"two", b"three"]);
        assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 3, ..SendProgress::default() });
        let mut batch = DatagramBatch::new();
        assert_eq!(b.recv_batch(&mut batch).unwrap(), 3);
        let got: Vec<&[u8]> = batch.runs().flat_map(|run| run.datagrams()).collect();
        assert_eq!(got, [&b"one"[..], b"two", b"three"]);
        let from = batch.runs().next().unwrap().from;
        assert_eq!((from.remote, from.local, from.ecn), (a.address(), Some(b.address().ip()), Ecn::Ect0));

        let mut lost = queued(address(9, 9), &[b"x"]);
        assert_eq!(a.send_batch(&mut lost).sent, 1);
    }

    #[test]
    fn a_full_inbox_blocks_in_the_middle_of_a_run() {
        let network = MemoryNetwork::new(2);
        let mut reactor = Reactor::new(Clock::new()).unwrap();
        let (mut a, mut b) = (network.bind(address(1, 1)).unwrap(), network.bind(address(2, 2)).unwrap());
        a.attach(reactor.waker());
        let mut queue = queued(b.address(), &[b"1", b"2", b"3"]);
        assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 2, blocked: true, ..SendProgress::default() });
        assert_eq!(queue.front().unwrap().bytes, b"3");
        b.recv_batch(&mut DatagramBatch::new()).unwrap();
        assert!(reactor.woken());
        assert_eq!(a.send_batch(&mut queue).sent, 1);
        assert!(queue.is_empty() && reactor.poll().is_ok());
    }

    #[test]
    fn ports_are_exclusive_and_can_be_changed() {
        let network = MemoryNetwork::new(2);
        let mut a = network.bind(address(1, 700)).unwrap();
        let mut b = network.bind(address(1, 0)).unwrap();
        assert!(matches!(network.bind(address(1, 700)), Err(BindError::PortBusy { port: 700, family: "IPv4" })));
        assert!(matches!(b.rebind(700), Err(BindError::PortBusy { .. })));
        let before = b.local_port();
        assert_eq!(a.rebind(701).unwrap(), 701);
        assert_eq!(b.rebind(700).unwrap(), 700);
        assert_ne!(before, 700);
        assert_eq!(b.rebind(700).unwrap(), 700, "the same port means a new socket");
        assert_eq!(b.stats().sockets_created, 3);
        drop(a);
        assert!(network.bind(address(1, 701)).is_ok());
        assert!(b.set_mark(1).is_err() && b.set_mark(0).is_ok());
    }
}

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
                    Err(error) => {
                        self.stats.recv_errors += 1;
                        if is_the_end(&error, &mut self.failures) {
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
        let mut patience = PATIENCE;
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
                    if kind == SendErrorKind::NoBuffers && patience > 0 {
                        patience -= 1;
                        std::thread::yield_now();
                        continue;
                    }
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

/// Whether a socket will not receive again, after `failures` others and this one.
fn is_the_end(error: &io::Error, failures: &mut u32) -> bool {
    match SendErrorKind::of(error) {
        SendErrorKind::Broken => true,
        // Memory is short, which passes: the socket is as good as before, and a new one would take more of it.
        SendErrorKind::NoBuffers => {
            std::thread::yield_now();
            false
        }
        // An error that an ICMP message left behind is gone now that it was reported. One that stays is not of that sort,
        // and would keep the loop busy for nothing.
        _ => {
            *failures += 1;
            *failures >= RECV_FAILURES
        }
    }
}

fn other(action: &'static str, family: Family, source: io::Error) -> BindError {
    BindError::Other { action, family: family.name(), source }
}

/// With some thousand programs' sockets on a host, one try in ten may find a port that is taken over the other family.
const FREE_PORT_TRIES: usize = 16;

/// How often one batch is tried again because a queue of the system is full. Apple's systems say so at once and never
/// that it has emptied, for a socket that is not connected; giving others the processor is most often enough.
const PATIENCE: u32 = 8;

/// So many failures in a row mean that a socket is broken, whatever the error says.
const RECV_FAILURES: u32 = 16;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

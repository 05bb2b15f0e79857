//! The underlay: datagrams to and from peers.
//!
//! A [`Socket`] is everything that one tunnel sends and receives with, over both address families and under one port.
//! No error of it ends a tunnel: what cannot be sent is counted by its kind, and a socket that the system has broken is
//! made anew.

mod endpoint;
pub mod memory;
pub mod send_error;
pub mod udp;

use std::io;
use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;

use thiserror::Error;

use crate::batch::DatagramBatch;
use crate::queue::SendQueue;
use crate::reactor::Waker;
pub use send_error::{SendErrorKind, SendErrors};
pub use udp::{UdpOptions, UdpSockets};

/// A source and sink of datagrams, used by one pump.
///
/// A pump waits for the descriptors of [`fds`](Self::fds) in level mode. A socket without descriptors calls the
/// [`Waker`] when there is something to read that was not there before, and when it sends again after it was full.
pub trait Socket: Send + 'static {
    /// Reads into the free slots of `batch`, and returns how many it filled. If the batch is not full afterwards,
    /// nothing is left to read but what the next wait reports.
    ///
    /// # Errors
    /// The socket is broken and has to be bound anew; whatever passes by itself is not returned.
    fn recv_batch(&mut self, batch: &mut DatagramBatch) -> io::Result<usize>;

    /// Sends datagrams of `queue`, oldest first, and removes them from it. What the system refuses is removed too, and
    /// counted as dropped. Datagrams stay in the queue only while the socket would block.
    fn send_batch(&mut self, queue: &mut SendQueue) -> SendProgress;

    /// Binds to `port` instead, or to a free one for 0, and returns which it is. Binding to the port it has makes new
    /// sockets, as a change of the network may demand. Descriptors change: take the old ones out of every poller first.
    ///
    /// # Errors
    /// [`BindError`]. Another port than now: the socket is as it was. The same port: it may have none, sends nothing
    /// and receives nothing until a later call succeeds.
    fn rebind(&mut self, port: u16) -> Result<u16, BindError>;

    /// Marks everything that is sent, for policy routing and packet filters; 0 is no mark.
    ///
    /// # Errors
    /// [`BindError::Mark`] without CAP_NET_ADMIN, or where there are no marks.
    fn set_mark(&mut self, mark: u32) -> Result<(), BindError>;

    /// Sends everything over the network interface with this index, whatever the routing table says; `None` leaves it to
    /// the routing table. Later sockets do the same.
    ///
    /// # Errors
    /// [`BindError::Interface`] for an index that no interface has, and for any index where there is no such binding. It
    /// is as it was then.
    fn bind_interface(&mut self, index: Option<NonZeroU32>) -> Result<(), BindError> {
        match index {
            None => Ok(()),
            Some(index) => Err(BindError::Interface { index, source: io::ErrorKind::Unsupported.into() }),
        }
    }

    /// The port it is, or was last, bound to.
    fn local_port(&self) -> u16;

    /// Descriptors to wait for.
    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>>;

    /// Names the pump to wake from now on.
    fn attach(&mut self, waker: Waker);

    /// Counters.
    fn stats(&self) -> SocketStats;
}

/// What became of the datagrams of one [`Socket::send_batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendProgress {
    /// Datagrams that the system took.
    pub sent: usize,
    /// Datagrams that it refused.
    pub dropped: usize,
    /// Whether it takes no more now; the pump waits until it is writable.
    pub blocked: bool,
    /// Whether the socket is broken and has to be bound anew.
    pub broken: bool,
    /// Whether the system has refused to send several datagrams in one call, which it had offered.
    pub offload_refused: bool,
}

/// Counters of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketStats {
    /// Sockets made so far. Every one costs the system something that some systems do not give back, so they are made
    /// anew only for a reason.
    pub sockets_created: u64,
    /// Sends that the system refused, by kind.
    pub send_errors: SendErrors,
    /// Receives that failed.
    pub recv_errors: u64,
    /// System calls that sent something.
    pub sends: u64,
    /// System calls that received something.
    pub receives: u64,
}

/// Why a socket is not bound as it should be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Someone else has the port.
    #[error("UDP port {port} is in use by another program (over {family}): choose another, or 0 for a free one")]
    PortBusy {
        /// The port.
        port: u16,
        /// "IPv4" or "IPv6".
        family: &'static str,
    },
    /// Ports below net.ipv4.ip_unprivileged_port_start take a privilege.
    #[error("no permission for UDP port {port}: ports below 1024 take root or CAP_NET_BIND_SERVICE")]
    PortForbidden {
        /// The port.
        port: u16,
    },
    /// No port is free over both families.
    #[error("no UDP port is free over both IPv4 and IPv6 ({tries} were tried)")]
    NoFreePort {
        /// Ports tried.
        tries: usize,
    },
    /// The mark was refused.
    #[error("the firewall mark {mark:#x} could not be set: this takes Linux and root or CAP_NET_ADMIN ({source})")]
    Mark {
        /// The mark.
        mark: u32,
        /// What the system said.
        source: io::Error,
    },
    /// Datagrams cannot be sent over this interface only.
    #[error(
        "the UDP sockets could not be bound to the interface with index {index}: this takes one of Apple's systems, and an \
         interface with that index ({source})"
    )]
    Interface {
        /// The interface's index.
        index: NonZeroU32,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else: too many open files, no memory for sockets, no network at all.
    #[error("no UDP socket: {action} failed over {family}: {source}")]
    Other {
        /// What was done.
        action: &'static str,
        /// "IPv4" or "IPv6".
        family: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    /// Whether the system may have sockets again in a moment: it is out of memory, of buffers or of descriptors for them.
    /// It is worth trying again then, with pauses that grow: macOS keeps something of every socket that was ever made.
    pub fn is_passing(&self) -> bool {
        use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
        let Self::Other { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(ENOBUFS | ENOMEM | EMFILE | ENFILE))
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn a_shortage_passes_and_a_busy_port_does_not() {
        let other = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            BindError::Other { action: "socket", family: "IPv4", source }
        };
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EMFILE, libc::ENFILE] {
            assert!(other(errno).is_passing());
        }
        assert!(!other(libc::EINVAL).is_passing());
        assert!(!BindError::PortBusy { port: 1, family: "IPv4" }.is_passing());
    }
}

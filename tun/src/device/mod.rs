//! Where the host's packets come from and go to.
//!
//! A [`Device`] moves whole batches of IP packets and never blocks. It knows nothing of tunnels, and it does not
//! configure itself beyond its name and MTU: addresses, routes and link state are control's work.

#[cfg(any(test, target_vendor = "apple"))]
pub mod apple;
pub mod descriptor;
mod framing;
pub mod host;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod memory;
pub mod options;
mod transfer;

use std::io;
use std::os::fd::BorrowedFd;

use adit_core::offload::Offloads;

use crate::batch::PacketBatch;
use crate::queue::WriteQueue;
use crate::reactor::Waker;
pub use descriptor::{Descriptor, DescriptorError, Ownership};
pub use framing::{Framing, protocol_family};
pub use host::{Bell, HostBatch, HostDevice, HostPackets, Unplugged};
pub use options::{TunError, TunOptions};

/// A source and sink of IP packets, used by one pump.
///
/// A pump waits for [`fd`](Self::fd) in level mode. A device without a descriptor calls the [`Waker`] when there is
/// something to read that was not there before, and when it takes packets again after it was full.
pub trait Device: Send + 'static {
    /// The interface's name.
    fn name(&self) -> &str;

    /// The MTU in bytes.
    ///
    /// # Errors
    /// What the system says when it is asked.
    fn mtu(&self) -> io::Result<usize>;

    /// Sets the MTU in bytes.
    ///
    /// # Errors
    /// What the system says: usually that it takes a privilege or that the value is out of its range.
    fn set_mtu(&mut self, mtu: usize) -> io::Result<()>;

    /// Reads packets into `batch`, which is empty, until it is full or nothing is left, and returns how many there were. If the batch is
    /// not full afterwards, nothing is left.
    ///
    /// # Errors
    /// The device is gone: every error ends the packet loop, so whatever may pass is not returned.
    fn recv_batch(&mut self, batch: &mut PacketBatch) -> io::Result<usize>;

    /// Writes packets of `queue`, oldest first, and removes them from it. A packet that the device refuses is removed
    /// too and counted as dropped. Packets stay in the queue only if the device takes none at the moment.
    ///
    /// # Errors
    /// The device is gone, as with [`recv_batch`](Self::recv_batch).
    fn send_batch(&mut self, queue: &mut WriteQueue) -> io::Result<WriteProgress>;

    /// What the device takes in one piece, and what a [`WriteQueue`] may join for it.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    /// The descriptor to wait for.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Names the pump to wake from now on.
    fn attach(&mut self, waker: Waker);

    /// Goes on with the packets of `descriptor`. Packets that were on their way into the tunnel are still read.
    ///
    /// # Errors
    /// Unsupported by a device that has its packets from elsewhere, and does not change; otherwise what the system says
    /// of the descriptor.
    fn attach_descriptor(&mut self, _descriptor: Descriptor) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What became of the packets of one [`Device::send_batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteProgress {
    /// Packets that the device took.
    pub written: usize,
    /// Packets that it refused.
    pub dropped: usize,
    /// Whether it takes no more now; the pump waits until it is writable.
    pub blocked: bool,
    /// Whether it has refused joined packets whose parts it takes one by one. It is asked for its
    /// [`offloads`](Device::offloads) again then.
    pub offload_refused: bool,
}

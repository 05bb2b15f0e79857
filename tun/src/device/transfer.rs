//! Packets through a descriptor: one read or write for each.
//!
//! It neither opens nor closes anything and knows no device; it knows which errors are a packet's and which are the end.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::uio::writev;
use nix::unistd::{read, write};

use crate::batch::PacketBatch;
#[cfg(all(target_vendor = "apple", feature = "apple-batch"))]
use crate::device::apple::bulk::{Bulk, Functions};
use crate::device::{Framing, WriteProgress};
use crate::queue::WriteQueue;

/// The way of one descriptor's packets.
#[derive(Debug)]
pub(super) struct Transfer {
    framing: Framing,
    #[cfg(all(target_vendor = "apple", feature = "apple-batch"))]
    bulk: Bulk,
}

impl Transfer {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            #[cfg(all(target_vendor = "apple", feature = "apple-batch"))]
            bulk: Bulk::new(Functions::of_system()),
        }
    }

    /// Reads packets until `batch` is full or nothing is left. What is no packet is added as an empty one, so that the
    /// engine counts it.
    pub(super) fn recv_batch(&mut self, fd: BorrowedFd<'_>, batch: &mut PacketBatch) -> io::Result<usize> {
        #[cfg(all(target_vendor = "apple", feature = "apple-batch"))]
        if let Some(result) = self.bulk.recv(self.framing, fd, batch) {
            return result;
        }
        let before = batch.len();
        let header = self.framing.header_len();
        while let Some(slot) = batch.slot_with_header(header) {
            match read(fd, slot) {
                // The other end is gone; a tun device has no packets of no bytes.
                Ok(0) => return Err(Errno::ENODEV.into()),
                Ok(len) => {
                    let len = self.framing.decode(&slot[..len]);
                    batch.commit(len);
                }
                Err(Errno::EINTR) => {}
                Err(errno) if is_passing(errno) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(batch.len() - before)
    }

    /// Writes packets until `queue` is empty or the device takes no more.
    pub(super) fn send_batch(&mut self, fd: BorrowedFd<'_>, queue: &mut WriteQueue) -> io::Result<WriteProgress> {
        let mut progress = WriteProgress::default();
        #[cfg(all(target_vendor = "apple", feature = "apple-batch"))]
        if self.bulk.send(self.framing, fd, queue, &mut progress)? {
            return Ok(progress);
        }
        while let Some(framed) = queue.front_with_header(self.framing.header_len()) {
            let written = if self.framing.encode(framed) { write(fd, framed) } else { Err(Errno::EINVAL) };
            match written {
                Ok(_) => progress.written += 1,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {
                    progress.blocked = true;
                    break;
                }
                Err(errno) if is_gone(errno) => return Err(errno.into()),
                // EINVAL says that the packet is none, EIO that the interface is down, ENOBUFS, ENOMEM and ENOSPC that a
                // queue is full or memory is short: the packet is lost, the device is not.
                Err(_) => progress.dropped += 1,
            }
            queue.advance();
        }
        Ok(progress)
    }

    /// Writes one packet that has no room in front of it.
    pub(super) fn send_one(&mut self, fd: BorrowedFd<'_>, packet: &[u8]) -> Result<(), Errno> {
        let (header, len) = self.framing.header(packet).ok_or(Errno::EINVAL)?;
        writev(fd, &[IoSlice::new(&header[..len]), IoSlice::new(packet)]).map(drop)
    }
}

/// Whether the descriptor is of no use any more. EBADFD is what Linux's tun devices return once the interface was deleted;
/// ENOTCONN, EPIPE and ECONNRESET are what a socket returns whose kernel side is gone, as utun's.
pub(super) fn is_gone(errno: Errno) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if errno == Errno::EBADFD {
        return true;
    }
    use Errno::{EBADF, ECONNRESET, EFAULT, ENODEV, ENOTCONN, ENOTSOCK, ENXIO, EPIPE, ESHUTDOWN};
    matches!(errno, EBADF | ENODEV | ENXIO | EFAULT | ENOTCONN | EPIPE | ECONNRESET | ENOTSOCK | ESHUTDOWN)
}

/// Whether a read fails for the moment only.
pub(super) fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::ENOMEM | Errno::ENOBUFS)
}

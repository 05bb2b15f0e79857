//! A device whose packets come through the host's own calls, until it has a descriptor for them.
//!
//! Both directions are one batch that is filled while the other side works on another; then the two change places, so that
//! a packet is copied once, when it is handed over, and the lock is held for that copy only. Neither side ever waits for
//! the other in here: what finds no room is not taken, and a [`Bell`] or the packet loop's waker tells when there is some.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use thiserror::Error;

use crate::batch::PacketBatch;
pub use crate::bell::Bell;
use crate::device::{Descriptor, Device, WriteProgress};
use crate::memory::{ENTRY, TABLE};
use crate::queue::WriteQueue;
use crate::reactor::Waker;

/// The pump's end: packets of the host's calls, or of a descriptor once there is one.
///
/// The interface is the host's: setting the MTU only remembers it.
#[derive(Debug)]
pub struct HostDevice {
    name: String,
    mtu: usize,
    calls: Option<Arc<Shared>>,
    descriptor: Option<Descriptor>,
}

/// The host's end. Clones are the same one; when the last is dropped, the device is unplugged.
#[derive(Debug, Clone)]
pub struct HostPackets(Arc<Plug>);

/// The device is gone, or has its packets from a descriptor now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the tunnel takes no packets here any more: it has ended, or has a descriptor now")]
pub struct Unplugged;

/// Packets that came out of the tunnel, in memory that is allocated once.
#[derive(Debug)]
pub struct HostBatch {
    arena: Box<[u8]>,
    /// Where each packet is.
    spans: Vec<(usize, usize)>,
    max_packets: usize,
    /// Bytes in use.
    end: usize,
}

impl HostDevice {
    /// Makes a device that has its packets from the host's calls, and the host's end.
    pub fn callbacks(name: impl Into<String>, mtu: usize) -> (Self, HostPackets) {
        let shared = Arc::new(Shared {
            injected: Mutex::new(Injected {
                batch: PacketBatch::new(),
                bytes: 0,
                closed: false,
                short: false,
                pump: None,
                bell: None,
            }),
            output: Mutex::new(Output { batch: HostBatch::new(), closed: false, full: false, pump: None, bell: None }),
        });
        let packets = HostPackets(Arc::new(Plug(Arc::clone(&shared))));
        (Self { name: name.into(), mtu, calls: Some(shared), descriptor: None }, packets)
    }

    /// Makes a device that has its packets from a descriptor.
    pub fn descriptor(name: impl Into<String>, mtu: usize, descriptor: Descriptor) -> Self {
        Self { name: name.into(), mtu, calls: None, descriptor: Some(descriptor) }
    }
}

impl Device for HostDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn mtu(&self) -> io::Result<usize> {
        Ok(self.mtu)
    }

    fn set_mtu(&mut self, mtu: usize) -> io::Result<()> {
        self.mtu = mtu;
        Ok(())
    }

    fn recv_batch(&mut self, batch: &mut PacketBatch) -> io::Result<usize> {
        if let Some(calls) = &self.calls {
            let (count, closed) = calls.take_injected(batch);
            if count > 0 {
                return Ok(count);
            }
            if closed && self.descriptor.is_none() {
                return Err(Errno::ENODEV.into());
            }
            if closed && batch.is_empty() {
                // The last of them was taken: from here on there is the descriptor only.
                self.calls = None;
            }
        }
        match &mut self.descriptor {
            Some(descriptor) => descriptor.recv_batch(batch),
            None => Ok(0),
        }
    }

    fn send_batch(&mut self, queue: &mut WriteQueue) -> io::Result<WriteProgress> {
        match (&mut self.descriptor, &self.calls) {
            (Some(descriptor), _) => descriptor.send_batch(queue),
            (None, Some(calls)) => calls.give(queue),
            (None, None) => Err(Errno::ENODEV.into()),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.as_ref().map(AsFd::as_fd)
    }

    fn attach(&mut self, waker: Waker) {
        if let Some(calls) = &self.calls {
            calls.injected().pump = Some(waker.clone());
            calls.output().pump = Some(waker);
        }
        if let Some(descriptor) = &mut self.descriptor {
            // A descriptor that was closed meanwhile says so in the first read.
            let _closed = descriptor.set_nonblocking();
        }
    }

    fn attach_descriptor(&mut self, mut descriptor: Descriptor) -> io::Result<()> {
        // The former one may be of the same open file, and takes back that it does not block.
        drop(self.descriptor.take());
        let usable = descriptor.set_nonblocking();
        if let Some(calls) = &self.calls {
            calls.close();
            calls.output().batch.hand_over(&mut descriptor);
        }
        self.descriptor = Some(descriptor);
        usable
    }
}

impl Drop for HostDevice {
    fn drop(&mut self) {
        if let Some(calls) = &self.calls {
            calls.close();
        }
    }
}

impl HostPackets {
    /// Gives packets to the tunnel, and says how many it took: it stops at the first that finds no room. The bell is rung
    /// as soon as there is room again. What is no packet is taken too, and counted by the engine.
    ///
    /// # Errors
    /// [`Unplugged`]; nothing was taken.
    pub fn inject<'a>(&self, packets: impl Iterator<Item = &'a [u8]>) -> Result<usize, Unplugged> {
        self.0.0.inject(packets)
    }

    /// Takes the packets that came out of the tunnel since the last call, in place of those that are in `out`, and says
    /// how many there are. The bell is rung when there is the first one again.
    pub fn take(&self, out: &mut HostBatch) -> usize {
        self.0.0.take_output(out)
    }

    /// Names the bell that is rung when there is a packet to take, when there is room again after a short
    /// [`inject`](Self::inject), and when the device is unplugged. It is rung at once if any of that is so already.
    pub fn set_bell(&self, bell: Arc<Bell>) {
        let shared = &self.0.0;
        let mut injected = shared.injected();
        let room = injected.short && injected.batch.is_roomy();
        let mut output = shared.output();
        let now = room || injected.closed || !output.batch.is_empty();
        if now {
            bell.ring();
        }
        injected.bell = Some(Arc::clone(&bell));
        output.bell = Some(bell);
    }

    /// Whether so much room is free, at least a quarter, that injecting is worth while.
    pub fn room(&self) -> bool {
        self.0.0.injected().batch.is_roomy()
    }

    /// Bytes of packets that wait, in both directions.
    pub fn queued(&self) -> usize {
        let injected = self.0.0.injected().bytes;
        injected + self.0.0.output().batch.end
    }

    /// Whether the device is gone, or has its packets from a descriptor now. What came out of it before can still be
    /// taken.
    pub fn is_unplugged(&self) -> bool {
        self.0.0.injected().closed
    }
}

impl HostBatch {
    /// Allocates a batch of the platform's size ([`TABLE`]).
    pub fn new() -> Self {
        let (bytes, max_packets) = (TABLE.host_bytes, TABLE.host_packets);
        Self { arena: vec![0; bytes].into_boxed_slice(), spans: Vec::with_capacity(max_packets), max_packets, end: 0 }
    }

    /// The packets, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.spans.iter().map(|&(start, end)| &self.arena[start..end])
    }

    /// Packets in the batch.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.end = 0;
    }

    /// Writes its packets to a descriptor instead; those that it does not take now stay.
    fn hand_over(&mut self, descriptor: &mut Descriptor) {
        let gone = descriptor.send_all(self.iter());
        self.spans.drain(..gone);
        if self.spans.is_empty() {
            self.clear();
        }
    }

    /// Adds a copy of `packet`, or says that there is no room for it.
    fn push(&mut self, packet: &[u8]) -> bool {
        let end = self.end + packet.len();
        if self.spans.len() >= self.max_packets {
            return false;
        }
        let Some(room) = self.arena.get_mut(self.end..end) else { return false };
        room.copy_from_slice(packet);
        self.spans.push((self.end, end));
        self.end = end;
        true
    }
}

impl Default for HostBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// The last of the host's ends.
#[derive(Debug)]
struct Plug(Arc<Shared>);

impl Drop for Plug {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What both sides have. Where both locks are taken, `injected` is the first.
#[derive(Debug)]
struct Shared {
    injected: Mutex<Injected>,
    output: Mutex<Output>,
}

/// From the host to the pump.
#[derive(Debug)]
struct Injected {
    batch: PacketBatch,
    /// Bytes of the packets in it.
    bytes: usize,
    closed: bool,
    /// Whether the host has packets that found no room.
    short: bool,
    pump: Option<Waker>,
    bell: Option<Arc<Bell>>,
}

/// From the pump to the host.
#[derive(Debug)]
struct Output {
    batch: HostBatch,
    closed: bool,
    /// Whether the pump has packets that found no room.
    full: bool,
    pump: Option<Waker>,
    bell: Option<Arc<Bell>>,
}

impl Shared {
    fn inject<'a>(&self, packets: impl Iterator<Item = &'a [u8]>) -> Result<usize, Unplugged> {
        let mut injected = self.injected();
        if injected.closed {
            return Err(Unplugged);
        }
        let was_empty = injected.batch.is_empty();
        let mut count = 0;
        for packet in packets {
            if !injected.batch.push(packet) {
                injected.short = true;
                break;
            }
            injected.bytes += packet.len();
            count += 1;
        }
        // Told outside of the lock, which the pump will want at once.
        let pump = if was_empty && count > 0 { injected.pump.clone() } else { None };
        drop(injected);
        if let Some(pump) = pump {
            pump.wake();
        }
        Ok(count)
    }

    /// Puts what was injected into the place of `batch`, which has to be empty, and says how much that is, and whether
    /// nothing will come any more.
    fn take_injected(&self, batch: &mut PacketBatch) -> (usize, bool) {
        let mut injected = self.injected();
        if injected.batch.is_empty() || !batch.is_empty() {
            return (0, injected.closed);
        }
        std::mem::swap(&mut injected.batch, batch);
        injected.bytes = 0;
        let bell = if std::mem::take(&mut injected.short) { injected.bell.clone() } else { None };
        let closed = injected.closed;
        drop(injected);
        if let Some(bell) = bell {
            bell.ring();
        }
        (batch.len(), closed)
    }

    /// Gives the packets of `queue` to the host, as far as there is room.
    fn give(&self, queue: &mut WriteQueue) -> io::Result<WriteProgress> {
        let mut progress = WriteProgress::default();
        let mut output = self.output();
        if output.closed {
            return Err(Errno::ENODEV.into());
        }
        let was_empty = output.batch.is_empty();
        while let Some(packet) = queue.front() {
            if !output.batch.push(packet) {
                output.full = true;
                progress.blocked = true;
                break;
            }
            progress.written += 1;
            queue.advance();
        }
        let bell = if was_empty && progress.written > 0 { output.bell.clone() } else { None };
        drop(output);
        if let Some(bell) = bell {
            bell.ring();
        }
        Ok(progress)
    }

    fn take_output(&self, out: &mut HostBatch) -> usize {
        out.clear();
        let mut output = self.output();
        std::mem::swap(&mut output.batch, out);
        let pump = if std::mem::take(&mut output.full) { output.pump.clone() } else { None };
        drop(output);
        if let Some(pump) = pump {
            pump.wake();
        }
        out.len()
    }

    /// Ends it for both sides. What is in it can still be taken.
    fn close(&self) {
        let (pump, bell) = {
            let mut injected = self.injected();
            injected.closed = true;
            (injected.pump.clone(), injected.bell.clone())
        };
        self.output().closed = true;
        if let Some(pump) = pump {
            pump.wake();
        }
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    /// Both are sound after a panic elsewhere: a batch is complete after every packet, and so are the flags.
    fn injected(&self) -> MutexGuard<'_, Injected> {
        self.injected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const _: () = assert!(size_of::<(usize, usize)>() <= ENTRY);

#[cfg(test)]
mod tests;

//! A device without a system: its host's end is an object in the same process.
//!
//! Demos put a userspace network stack behind it, tests a list of packets. Both directions are bounded, by count and by
//! bytes, and hold back whoever is too fast: no packet is lost in it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::PacketBatch;
use crate::bell::Bell;
use crate::device::{Device, WriteProgress};
use crate::queue::WriteQueue;
use crate::reactor::Waker;
pub use crate::ring::RingError;
use crate::ring::{Notify, Ring};

/// The pump's end.
#[derive(Debug)]
pub struct MemoryDevice {
    name: String,
    mtu: usize,
    shared: Arc<Shared>,
    waker: Option<Notify>,
}

/// The host's end. Dropping it unplugs the device.
#[derive(Debug)]
pub struct MemoryHost {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Shared {
    to_host: Ring<()>,
    from_host: Ring<()>,
}

impl MemoryDevice {
    /// Makes a device and its host's end, which hold at most `packets` packets in each direction, and as many bytes as
    /// those would have at the MTU.
    pub fn new(name: impl Into<String>, mtu: usize, packets: usize) -> (Self, MemoryHost) {
        let bytes = packets.saturating_mul(mtu).min(MAX_BYTES);
        let shared = Arc::new(Shared { to_host: Ring::new(packets, bytes), from_host: Ring::new(packets, bytes) });
        let bell = Arc::new(Bell::new());
        shared.to_host.set_reader(Notify::Thread(Arc::clone(&bell)));
        (Self { name: name.into(), mtu, shared: Arc::clone(&shared), waker: None }, MemoryHost { shared, bell })
    }
}

impl Device for MemoryDevice {
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
        let before = batch.len();
        while let Some(slot) = batch.slot() {
            match self.shared.from_host.pop(slot) {
                Some(((), len)) => batch.commit(len),
                None if self.shared.from_host.is_closed() => return Err(unplugged()),
                None => break,
            }
        }
        Ok(batch.len() - before)
    }

    fn send_batch(&mut self, queue: &mut WriteQueue) -> io::Result<WriteProgress> {
        let mut progress = WriteProgress::default();
        while let Some(packet) = queue.front() {
            match self.shared.to_host.push((), packet, self.waker.as_ref()) {
                Ok(()) => progress.written += 1,
                Err(RingError::Closed) => return Err(unplugged()),
                Err(RingError::Full) => {
                    progress.blocked = true;
                    break;
                }
            }
            queue.advance();
        }
        Ok(progress)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn attach(&mut self, waker: Waker) {
        let waker = Notify::Pump(waker);
        self.shared.from_host.set_reader(waker.clone());
        self.waker = Some(waker);
    }
}

impl Drop for MemoryDevice {
    fn drop(&mut self) {
        self.shared.to_host.close();
        self.shared.from_host.close();
    }
}

impl MemoryHost {
    /// Gives a packet to the tunnel.
    ///
    /// # Errors
    /// [`RingError::Full`]: try again after [`wait`](Self::wait). [`RingError::Closed`]: the device is gone.
    pub fn send(&self, packet: &[u8]) -> Result<(), RingError> {
        self.shared.from_host.push((), packet, Some(&Notify::Thread(Arc::clone(&self.bell))))
    }

    /// Takes the oldest packet that came out of the tunnel into `buffer`, cut off at its end, and returns its length.
    pub fn recv(&self, buffer: &mut [u8]) -> Option<usize> {
        self.shared.to_host.pop(buffer).map(|((), len)| len)
    }

    /// Waits until there is a packet to receive, until there is room to send after [`RingError::Full`], until the device
    /// is gone, or until the time is over; only then it says `false`.
    pub fn wait(&self, timeout: Duration) -> bool {
        !self.shared.to_host.is_empty() || self.is_closed() || self.bell.wait(Some(timeout))
    }

    /// Whether the device is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.from_host.is_closed()
    }
}

impl Drop for MemoryHost {
    fn drop(&mut self) {
        self.shared.from_host.close();
        self.shared.to_host.close();
    }
}

fn unplugged() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::ENODEV)
}

/// What one direction holds at most, whatever the MTU and the count say.
const MAX_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use adit_core::{Reservation, SinkFull};

    use super::*;
    use crate::clock::Clock;
    use crate::reactor::Reactor;

    fn queued(queue: &mut WriteQueue, packet: &[u8]) -> Result<(), SinkFull> {
        let mut room = Reservation::new(queue, (), packet.len())?;
        room.bytes().copy_from_slice(packet);
        room.commit(packet.len());
        Ok(())
    }

    #[test]
    fn packets_cross_in_both_directions_and_in_order() {
        let (mut device, host) = MemoryDevice::new("mem0", 1420, 8);
        let mut batch = PacketBatch::new();
        for len in [20_usize, 1420, 700] {
            host.send(&vec![len as u8; len]).unwrap();
        }
        assert_eq!(device.recv_batch(&mut batch).unwrap(), 3);
        let lens: Vec<usize> = (0..3).map(|index| batch.packet(index).unwrap().len).collect();
        assert_eq!(lens, [20, 1420, 700]);
        assert_eq!(device.recv_batch(&mut batch).unwrap(), 0);

        let mut queue = WriteQueue::new();
        queued(&mut queue, b"one").unwrap();
        queued(&mut queue, b"three").unwrap();
        let progress = device.send_batch(&mut queue).unwrap();
        assert_eq!(progress, WriteProgress { written: 2, ..WriteProgress::default() });
        assert!(host.wait(Duration::ZERO));
        let mut buffer = [0; 1500];
        assert_eq!(host.recv(&mut buffer), Some(3));
        assert_eq!(host.recv(&mut buffer), Some(5));
        assert_eq!(&buffer[..5], b"three");
        assert_eq!(host.recv(&mut buffer), None);
    }

    #[test]
    fn a_full_side_holds_back_and_wakes_the_other_when_it_is_not_any_more() {
        let clock = Clock::new();
        let mut reactor = Reactor::new(clock).unwrap();
        let (mut device, host) = MemoryDevice::new("mem0", 1420, 2);
        device.attach(reactor.waker());
        let mut queue = WriteQueue::new();
        for packet in [b"a", b"b", b"c"] {
            queued(&mut queue, packet).unwrap();
        }
        let progress = device.send_batch(&mut queue).unwrap();
        assert_eq!(progress, WriteProgress { written: 2, blocked: true, ..WriteProgress::default() });
        assert_eq!((queue.len(), queue.front()), (1, Some(&b"c"[..])));
        assert!(!reactor.woken());
        host.recv(&mut [0; 9]).unwrap();
        assert!(reactor.woken());
        assert!(!device.send_batch(&mut queue).unwrap().blocked && queue.is_empty());

        host.send(b"1").unwrap();
        assert!(reactor.woken());
        host.send(b"2").unwrap();
        assert_eq!(host.send(b"3"), Err(RingError::Full));
        while host.recv(&mut [0; 9]).is_some() {}
        host.wait(Duration::ZERO);
        assert!(!host.wait(Duration::from_millis(1)));
        device.recv_batch(&mut PacketBatch::new()).unwrap();
        assert!(host.wait(Duration::ZERO));
        assert!(reactor.poll().is_ok());
    }

    #[test]
    fn an_unplugged_device_is_gone() {
        let (mut device, host) = MemoryDevice::new("mem0", 1420, 2);
        host.send(b"last words").unwrap();
        drop(host);
        let mut batch = PacketBatch::with_capacity(0, 1);
        assert_eq!(device.recv_batch(&mut batch).unwrap(), 1, "what was sent before arrives");
        batch.clear();
        assert_eq!(device.recv_batch(&mut batch).unwrap_err().raw_os_error(), Some(nix::libc::ENODEV));
        let mut queue = WriteQueue::new();
        queued(&mut queue, b"x").unwrap();
        assert!(device.send_batch(&mut queue).is_err());

        let (device, host) = MemoryDevice::new("mem0", 1420, 2);
        drop(device);
        assert!(host.is_closed() && host.wait(Duration::ZERO));
        assert_eq!(host.send(b"x"), Err(RingError::Closed));
    }
}

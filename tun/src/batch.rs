//! What one read brings in: a batch of packets from the device, a batch of datagrams from the socket.
//!
//! Both own their memory and are filled and emptied again and again by the pump. Every packet has [`HEADROOM`] bytes in
//! front of it and [`TAILROOM`] behind it, so that later stages prepend a device's header and append padding in place.

use std::net::{IpAddr, SocketAddr};

use adit_core::offload::VirtioNetHeader;
use adit_core::{Ecn, TunPacket};

use crate::memory::{ENTRY, RECEIVE_SLOT, TABLE};

/// Packets read from the device, in one arena: small packets lie close together, and a super-packet of 64 KiB fits too.
///
/// Each entry is `HEADROOM | packet | TAILROOM`, and begins at a multiple of [`ALIGN`].
#[derive(Debug)]
pub struct PacketBatch {
    arena: Box<[u8]>,
    packets: Vec<Entry>,
    max_packets: usize,
    /// Packets of this batch at most.
    limit: usize,
    /// Where the next entry begins.
    end: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: usize,
    len: usize,
    offload: VirtioNetHeader,
}

/// A packet of a [`PacketBatch`].
#[derive(Debug)]
pub struct BatchPacket<'a> {
    /// The packet, and [`TAILROOM`] bytes behind it.
    pub buffer: &'a mut [u8],
    /// Its length.
    pub len: usize,
    /// What is still to be done to it.
    pub offload: VirtioNetHeader,
}

impl PacketBatch {
    /// Allocates a batch of the platform's size ([`TABLE`]).
    pub fn new() -> Self {
        Self::with_capacity(TABLE.packet_bytes, TABLE.packets)
    }

    /// Allocates a batch for at most `packets` packets in `bytes` bytes, raised to what one packet needs.
    pub fn with_capacity(bytes: usize, packets: usize) -> Self {
        let arena = vec![0; bytes.max(MAX_ENTRY)].into_boxed_slice();
        let max_packets = packets.max(1);
        Self { arena, packets: Vec::with_capacity(max_packets), max_packets, limit: max_packets, end: 0 }
    }

    /// Room for the next packet, [`MAX_PACKET`] bytes; `None` when the batch is full.
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        self.slot_with_header(0)
    }

    /// Room for the next packet behind `header` bytes that the device puts in front of it, at most [`HEADROOM`].
    #[inline]
    pub fn slot_with_header(&mut self, header: usize) -> Option<&mut [u8]> {
        if self.is_full() {
            return None;
        }
        let start = self.end + HEADROOM;
        Some(&mut self.arena[start - header.min(HEADROOM)..start + MAX_PACKET])
    }

    /// Adds the first `len` bytes of the last [`slot`](Self::slot) as a packet that is complete. Longer than the slot or
    /// without one, it adds nothing.
    pub fn commit(&mut self, len: usize) {
        self.commit_offload(len, VirtioNetHeader::default());
    }

    /// Adds a packet as [`commit`](Self::commit) does, and keeps what is still to be done to it. `len` does not count
    /// the device's header.
    #[inline]
    pub fn commit_offload(&mut self, len: usize, offload: VirtioNetHeader) {
        if self.is_full() || len > MAX_PACKET {
            return;
        }
        self.packets.push(Entry { start: self.end + HEADROOM, len, offload });
        self.end += (HEADROOM + len + TAILROOM).next_multiple_of(ALIGN);
    }

    /// Adds a copy of `packet`, or says that there is no room for it. One that is longer than any packet is added as an
    /// empty one, so that it is counted by whoever parses it.
    pub(crate) fn push(&mut self, packet: &[u8]) -> bool {
        let packet = if packet.len() > MAX_PACKET { &[] } else { packet };
        let start = self.end + HEADROOM;
        let end = start + packet.len();
        if self.packets.len() >= self.max_packets || end + TAILROOM > self.arena.len() {
            return false;
        }
        self.arena[start..end].copy_from_slice(packet);
        self.packets.push(Entry { start, len: packet.len(), offload: VirtioNetHeader::default() });
        self.end = (end + TAILROOM).next_multiple_of(ALIGN);
        true
    }

    /// Rooms for as many packets as it may take, of `room` bytes each behind `header` bytes that the device puts in front,
    /// for [`commit_spare`](Self::commit_spare).
    #[cfg(any(test, all(target_vendor = "apple", feature = "apple-batch")))]
    pub(crate) fn spare(&mut self, header: usize, room: usize) -> impl Iterator<Item = &mut [u8]> {
        let header = header.min(HEADROOM);
        let free = self.limit.saturating_sub(self.packets.len());
        let chunks = self.arena[self.end..].chunks_exact_mut(Self::stride(room)).take(free);
        chunks.map(move |chunk| &mut chunk[HEADROOM - header..HEADROOM + room])
    }

    /// Adds what was put into the first rooms of [`spare`](Self::spare), which was called with the same sizes and nothing
    /// since: so many bytes in each, the device's header included. `decode` says how long the packet behind that is.
    #[cfg(any(test, all(target_vendor = "apple", feature = "apple-batch")))]
    pub(crate) fn commit_spare(
        &mut self,
        header: usize,
        room: usize,
        lens: impl Iterator<Item = usize>,
        decode: impl Fn(&[u8]) -> usize,
    ) {
        let header = header.min(HEADROOM);
        for len in lens.take(self.limit.saturating_sub(self.packets.len())) {
            let start = self.end + HEADROOM;
            let framed = &self.arena[start - header..start - header + len.min(header + room)];
            let len = decode(framed).min(room);
            self.packets.push(Entry { start, len, offload: VirtioNetHeader::default() });
            self.end += Self::stride(room);
        }
    }

    /// What a room of `room` bytes takes in the arena.
    #[cfg(any(test, all(target_vendor = "apple", feature = "apple-batch")))]
    const fn stride(room: usize) -> usize {
        (HEADROOM + room + TAILROOM).next_multiple_of(ALIGN)
    }

    /// Whether a quarter of it is free, in bytes and in packets.
    pub(crate) fn is_roomy(&self) -> bool {
        self.end <= self.arena.len() / 4 * 3 && self.packets.len() <= self.max_packets / 4 * 3
    }

    /// The packet at `index`.
    #[inline]
    pub fn packet(&mut self, index: usize) -> Option<BatchPacket<'_>> {
        let Entry { start, len, offload } = *self.packets.get(index)?;
        Some(BatchPacket { buffer: &mut self.arena[start..start + len + TAILROOM], len, offload })
    }

    /// Packets in the batch.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether no further packet is taken: none fits, or it is time to do something with those that are there.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.packets.len() >= self.limit || self.end + MAX_ENTRY > self.arena.len()
    }

    /// Takes no more than `packets` from now on, and no fewer than one.
    pub fn set_limit(&mut self, packets: usize) {
        self.limit = packets.clamp(1, self.max_packets);
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.end = 0;
    }
}

impl Default for PacketBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Where datagrams came from, and how they lie in their slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The sender.
    pub remote: SocketAddr,
    /// The own address that they were sent to, where the platform tells.
    pub local: Option<IpAddr>,
    /// The outer ECN field.
    pub ecn: Ecn,
    /// Bytes in the slot.
    pub len: usize,
    /// Length of each datagram in the slot; the last may be shorter.
    pub stride: usize,
}

/// Datagrams read from the socket: fixed slots of [`RECEIVE_SLOT`] bytes, each one datagram or one UDP_GRO batch.
#[derive(Debug)]
pub struct DatagramBatch {
    arena: Box<[u8]>,
    received: Vec<Received>,
    /// Slots that are offered.
    limit: usize,
}

impl DatagramBatch {
    /// Slots of every batch.
    pub const SLOTS: usize = TABLE.receive_slots;

    /// Allocates a batch.
    pub fn new() -> Self {
        Self {
            arena: vec![0; Self::SLOTS * RECEIVE_SLOT].into_boxed_slice(),
            received: Vec::with_capacity(Self::SLOTS),
            limit: Self::SLOTS,
        }
    }

    /// The slots that are still free, in the order in which [`commit`](Self::commit) fills them.
    pub fn free(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> {
        self.arena.chunks_exact_mut(RECEIVE_SLOT).take(self.limit).skip(self.received.len())
    }

    /// Offers no more than `slots` from now on, and no fewer than one.
    pub fn set_limit(&mut self, slots: usize) {
        self.limit = slots.clamp(1, Self::SLOTS);
    }

    /// Takes the next free slot, now filled as `received` says. Without a free slot, it takes nothing.
    pub fn commit(&mut self, received: Received) {
        if !self.is_full() {
            self.received.push(Received { len: received.len.min(RECEIVE_SLOT), ..received });
        }
    }

    /// What was received, slot by slot.
    pub fn runs(&self) -> impl Iterator<Item = ReceivedRun<'_>> {
        (0..self.len()).filter_map(|index| self.run(index))
    }

    /// What was received in the slot at `index`.
    pub fn run(&self, index: usize) -> Option<ReceivedRun<'_>> {
        let from = self.received.get(index)?;
        let start = index * RECEIVE_SLOT;
        Some(ReceivedRun { from, bytes: &self.arena[start..start + from.len] })
    }

    /// Filled slots.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Whether every slot that is offered is filled, so that there may be more to read.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.received.len() >= self.limit
    }

    /// Frees all slots.
    pub fn clear(&mut self) {
        self.received.clear();
    }
}

impl Default for DatagramBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// How many packets a batch should take before something is done with them.
///
/// A lone packet leaves before the device is asked for a second one, and a lone datagram is not received with room for a
/// megabyte made ready: each costs a microsecond or two where nothing else is going on. Under load batches are as long as
/// they can be, after two or three short ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appetite {
    now: usize,
    least: usize,
    most: usize,
}

impl Appetite {
    /// Begins with `least`.
    pub(crate) const fn new(least: usize, most: usize) -> Self {
        Self { now: least, least, most }
    }

    pub(crate) fn limit(&self) -> usize {
        self.now
    }

    /// Grows if a batch was as long as it was allowed to be, and shrinks if it was short.
    pub(crate) fn learn(&mut self, taken: usize, full: bool) {
        if full {
            self.now = (self.now * APPETITE_STEP).min(self.most);
        } else if taken < self.now / APPETITE_STEP {
            self.now = (self.now / APPETITE_STEP).max(self.least);
        }
    }
}

/// Datagrams of one sender, as the kernel gave them out together.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedRun<'a> {
    /// Where they came from.
    pub from: &'a Received,
    /// The datagrams, one behind the other.
    pub bytes: &'a [u8],
}

impl<'a> ReceivedRun<'a> {
    /// The datagrams one by one. An empty datagram is one too: it is the engine that counts it as a bad one.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (bytes, stride) = (self.bytes, self.from.stride.max(1));
        let count = bytes.len().div_ceil(stride).max(1);
        (0..count).map(move |i| &bytes[i * stride..bytes.len().min((i + 1) * stride)])
    }
}

/// Bytes in front of every packet: virtio_net_hdr (10, include/uapi/linux/virtio_net.h) or utun's address family (4),
/// whichever is longer, rounded up so that packets stay aligned.
pub const HEADROOM: usize = max(VirtioNetHeader::LEN, UTUN_HEADER).next_multiple_of(ALIGN);

/// Bytes behind every packet: room to pad it to a multiple of 16.
pub const TAILROOM: usize = TunPacket::TAILROOM;

/// The longest packet, by IPv4's total length field (RFC 791) and more than any IPv6 packet that is no jumbogram.
pub const MAX_PACKET: usize = 65_535;

/// How fast an [`Appetite`] grows and shrinks.
const APPETITE_STEP: usize = 4;

/// The most that one entry of a [`PacketBatch`] takes.
pub(crate) const MAX_ENTRY: usize = (HEADROOM + MAX_PACKET + TAILROOM).next_multiple_of(ALIGN);

/// Packets begin at multiples of this: the widest loads that ciphers and checksums use.
pub const ALIGN: usize = 16;

const UTUN_HEADER: usize = 4;

const _: () = assert!(size_of::<Received>() <= ENTRY && size_of::<Entry>() <= ENTRY);

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests;

//! Packets that wait for the device, joined where the device takes them so.
//!
//! Joining copies nothing. While the last packet may be continued, the next one is opened so far forward that its headers
//! cover the last bytes of the payload before; these are kept aside, and put back once the headers have been compared.
//! A packet that continues the flow then lies where it belongs already. Only one that does not is moved to a place of its
//! own.

use std::collections::VecDeque;

use adit_core::offload::{Chain, MAX_CHAIN_HEADERS, Offloads, VirtioNetHeader};
use adit_core::{Sink, SinkFull};

use super::Arena;
use crate::batch::{ALIGN, HEADROOM};
use crate::memory::{ENTRY, TABLE};

/// Packets for the device, oldest first; each has [`HEADROOM`] bytes in front of it for the device's own header.
///
/// With [`Offloads`] the last packet may stay open for others to be joined to it: it does not come out before
/// [`close`](Self::close), or before a packet that could not be joined.
#[derive(Debug)]
pub struct WriteQueue {
    arena: Arena,
    packets: VecDeque<Entry>,
    max_packets: usize,
    offloads: Offloads,
    /// How the last packet may go on.
    chain: Option<Chain>,
    pending: Pending,
    /// What the packet under construction covers of the one before.
    covered: [u8; MAX_CHAIN_HEADERS],
}

#[derive(Debug)]
struct Entry {
    start: usize,
    len: usize,
    offload: VirtioNetHeader,
}

/// The packet under construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// At a place of its own.
    Apart {
        len: usize,
    },
    /// Its headers, of which there are `headers` bytes, cover the end of the last packet from `at` on.
    Behind {
        at: usize,
        headers: usize,
        len: usize,
    },
}

impl WriteQueue {
    /// Allocates a queue of the platform's size ([`TABLE`]).
    pub fn new() -> Self {
        Self::with_capacity(TABLE.write_bytes, TABLE.write_packets)
    }

    /// Allocates a queue for at most `packets` packets in `bytes` bytes.
    pub fn with_capacity(bytes: usize, packets: usize) -> Self {
        Self {
            arena: Arena::new(bytes),
            packets: VecDeque::with_capacity(packets),
            max_packets: packets,
            offloads: Offloads::default(),
            chain: None,
            pending: Pending::Nothing,
            covered: [0; MAX_CHAIN_HEADERS],
        }
    }

    /// Says what the device takes in one piece; nothing at the beginning. What is joined already stays so.
    pub fn set_offloads(&mut self, offloads: Offloads) {
        self.offloads = offloads;
    }

    /// Ends the last packet, so that it comes out.
    pub fn close(&mut self) {
        if let Some((chain, last)) = self.chain.take().zip(self.packets.back_mut()) {
            last.offload = chain.finish(&mut self.arena.bytes[last.start..last.start + last.len]);
        }
    }

    /// The oldest packet that has ended.
    pub fn front(&self) -> Option<&[u8]> {
        let front = self.packets.front().filter(|_| self.has_ended())?;
        Some(&self.arena.bytes[front.start..front.start + front.len])
    }

    /// The oldest packet that has ended, with the last `header` bytes in front of it, at most [`HEADROOM`], for the device
    /// to fill in.
    pub fn front_with_header(&mut self, header: usize) -> Option<&mut [u8]> {
        let front = self.packets.front().filter(|_| self.has_ended())?;
        Some(&mut self.arena.bytes[front.start - header.min(HEADROOM)..front.start + front.len])
    }

    /// The packet at `index`, if it has ended, as [`front_with_header`](Self::front_with_header) gives the oldest.
    #[cfg(any(test, all(target_vendor = "apple", feature = "apple-batch")))]
    pub(crate) fn nth_with_header(&mut self, index: usize, header: usize) -> Option<&mut [u8]> {
        let range = self.framed(index, header)?;
        Some(&mut self.arena.bytes[range])
    }

    /// The same to read from.
    #[cfg(any(test, all(target_vendor = "apple", feature = "apple-batch")))]
    pub(crate) fn nth_framed(&self, index: usize, header: usize) -> Option<&[u8]> {
        Some(&self.arena.bytes[self.framed(index, header)?])
    }

    #[cfg(any(test, all(target_vendor = "apple", feature = "apple-batch")))]
    fn framed(&self, index: usize, header: usize) -> Option<std::ops::Range<usize>> {
        let ended = self.packets.len() - usize::from(self.chain.is_some());
        let packet = self.packets.get(index).filter(|_| index < ended)?;
        Some(packet.start - header.min(HEADROOM)..packet.start + packet.len)
    }

    /// What the device has to tell the kernel of the oldest packet.
    pub fn front_offload(&self) -> VirtioNetHeader {
        self.packets.front().map(|front| front.offload).unwrap_or_default()
    }

    /// Removes the oldest packet that has ended, because it was written or given up.
    pub fn advance(&mut self) {
        if self.has_ended()
            && let Some(front) = self.packets.pop_front()
        {
            self.arena.release(Self::entry(front.len));
        }
    }

    /// Packets that wait, the open one included; what was joined counts as one.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether there is a packet that has ended.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.packets.len() > usize::from(self.chain.is_some())
    }

    /// What a packet of `len` bytes takes in the arena; a multiple of [`ALIGN`], so that every packet is aligned.
    const fn entry(len: usize) -> usize {
        HEADROOM + len.next_multiple_of(ALIGN)
    }

    /// Ends a packet that was built behind the last one.
    fn commit_behind(&mut self, at: usize, headers: usize, len: usize) {
        let Some((chain, last)) = self.chain.as_mut().zip(self.packets.back_mut()) else { return };
        let end = at + headers;
        let (before, packet) = self.arena.bytes.split_at_mut(at);
        if chain.append(&before[last.start..], &packet[..len]) {
            self.arena.bytes[at..end].copy_from_slice(&self.covered[..headers]);
            last.len += len - headers;
            self.arena.tail = last.start - HEADROOM + Self::entry(last.len);
            if chain.is_closed() {
                self.close();
            }
            return;
        }
        // Its own place begins behind the bytes that it covers, so these can be put back after it was moved.
        let start = self.arena.tail + HEADROOM;
        self.arena.bytes.copy_within(at..at + len, start);
        self.arena.bytes[at..end].copy_from_slice(&self.covered[..headers]);
        self.push(start, len);
    }

    /// Adds a packet that lies at its own place already, behind everything else.
    fn push(&mut self, start: usize, len: usize) {
        self.close();
        self.arena.tail = start - HEADROOM + Self::entry(len);
        self.packets.push_back(Entry { start, len, offload: VirtioNetHeader::default() });
        if self.offloads != Offloads::default() {
            self.chain = Chain::begin(&self.arena.bytes[start..start + len], self.offloads);
        }
    }
}

impl Default for WriteQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink<()> for WriteQueue {
    #[inline]
    fn reserve(&mut self, (): (), len: usize) -> Result<(), SinkFull> {
        self.rollback();
        if self.packets.len() >= self.max_packets {
            return Err(SinkFull);
        }
        let entry = len.checked_next_multiple_of(ALIGN).and_then(|len| len.checked_add(HEADROOM)).ok_or(SinkFull)?;
        let moved = self.arena.reserve(entry)?;
        self.arena.rollback();
        if moved > 0 {
            for packet in &mut self.packets {
                packet.start -= moved;
            }
        }
        self.pending = match (&self.chain, self.packets.back()) {
            (Some(chain), Some(last)) if len > chain.header_len() => {
                let headers = chain.header_len();
                let at = last.start + last.len - headers;
                self.covered[..headers].copy_from_slice(&self.arena.bytes[at..at + headers]);
                Pending::Behind { at, headers, len }
            }
            _ => Pending::Apart { len },
        };
        Ok(())
    }

    #[inline]
    fn reserved(&mut self) -> &mut [u8] {
        let (start, len) = match self.pending {
            Pending::Nothing => return &mut [],
            Pending::Apart { len } => (self.arena.tail + HEADROOM, len),
            Pending::Behind { at, len, .. } => (at, len),
        };
        &mut self.arena.bytes[start..start + len]
    }

    #[inline]
    fn commit(&mut self, len: usize) {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => {}
            Pending::Apart { len: reserved } => self.push(self.arena.tail + HEADROOM, len.min(reserved)),
            Pending::Behind { at, headers, len: reserved } => self.commit_behind(at, headers, len.min(reserved)),
        }
    }

    #[inline]
    fn rollback(&mut self) {
        if let Pending::Behind { at, headers, .. } = std::mem::replace(&mut self.pending, Pending::Nothing) {
            self.arena.bytes[at..at + headers].copy_from_slice(&self.covered[..headers]);
        }
    }
}

const _: () = assert!(size_of::<Entry>() <= ENTRY);

#[cfg(test)]
mod tests {
    use adit_core::Reservation;
    use adit_core::offload::Split;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_keep_room_for_a_header() {
        let mut queue = WriteQueue::with_capacity(4096, 3);
        for len in [1_usize, 333, 20] {
            let mut room = Reservation::new(&mut queue, (), len + 32).unwrap();
            assert_eq!(room.bytes().len(), len + 32);
            room.bytes().fill(len as u8);
            room.commit(len);
        }
        assert_eq!(queue.reserve((), 1), Err(SinkFull), "three packets at most");
        assert_eq!(queue.len(), 3);
        for len in [1_usize, 333, 20] {
            let with_header = queue.front_with_header(10).unwrap();
            with_header[..10].fill(0xff);
            assert_eq!(with_header.len(), 10 + len);
            let again = with_header.to_vec();
            assert_eq!(queue.nth_with_header(0, 10).map(|framed| framed.to_vec()), Some(again));
            assert_eq!(queue.front().unwrap(), vec![len as u8; len]);
            assert_eq!((queue.front().unwrap().as_ptr() as usize - queue.arena.bytes.as_ptr() as usize) % ALIGN, 0);
            queue.advance();
        }
        assert!(queue.is_empty() && queue.front().is_none() && queue.front_with_header(4).is_none());
        assert_eq!(queue.reserve((), usize::MAX), Err(SinkFull));
        queue.commit(5);
        assert!(queue.is_empty(), "nothing was reserved");
    }

    const BOTH: Offloads = Offloads { tcp: true, udp: true };

    fn tcp(flow: u16, sequence: u32, id: u16, payload: &[u8]) -> Vec<u8> {
        let mut ip =
            etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        ip.identification = id;
        let mut tcp = etherparse::TcpHeader::new(flow, 80, sequence, 1000);
        tcp.ack = true;
        tcp.acknowledgment_number = 7;
        let builder = PacketBuilder::ip(etherparse::IpHeaders::Ipv4(ip, Default::default())).tcp_header(tcp);
        let mut packet = Vec::new();
        builder.write(&mut packet, payload).unwrap();
        packet
    }

    /// Opens a packet into the queue as the engine does: with room for more than it turns out to be.
    fn open(queue: &mut WriteQueue, packet: &[u8]) -> bool {
        let Ok(mut room) = Reservation::new(queue, (), packet.len() + 31) else { return false };
        room.bytes().fill(0xcc);
        room.bytes()[..packet.len()].copy_from_slice(packet);
        room.commit(packet.len());
        true
    }

    /// Writes to a reservation and gives it up, as with a datagram that is not authentic.
    fn abandon(queue: &mut WriteQueue, len: usize) {
        if let Ok(mut room) = Reservation::new(queue, (), len) {
            room.bytes().fill(0xdd);
        }
    }

    /// Takes everything out, split again.
    fn drain(queue: &mut WriteQueue) -> (usize, Vec<Vec<u8>>) {
        let (mut writes, mut packets) = (0, Vec::new());
        queue.close();
        while let Some(front) = queue.front() {
            let mut bytes = front.to_vec();
            let len = bytes.len();
            let mut split = Split::new(&mut bytes, len, queue.front_offload()).unwrap();
            while let Some(packet) = split.next() {
                packets.push(packet.bytes().to_vec());
            }
            writes += 1;
            queue.advance();
        }
        (writes, packets)
    }

    #[test]
    fn neighbours_of_a_flow_come_out_as_one() {
        let mut queue = WriteQueue::with_capacity(1 << 20, 100);
        queue.set_offloads(BOTH);
        let packets: Vec<_> = (0..40).map(|i| tcp(1, i * 1000, i as u16, &[i as u8; 1000])).collect();
        for packet in &packets {
            assert!(open(&mut queue, packet));
            abandon(&mut queue, 900);
        }
        assert!(queue.front().is_none() && !queue.has_ended() && !queue.is_empty(), "it may still go on");
        assert!(queue.nth_with_header(0, 4).is_none() && queue.nth_framed(0, 4).is_none());
        assert_eq!(drain(&mut queue), (1, packets));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_does_not_continue_the_flow_gets_a_place_of_its_own() {
        let mut queue = WriteQueue::with_capacity(1 << 20, 100);
        queue.set_offloads(BOTH);
        let packets = [
            tcp(1, 0, 0, &[1; 1000]),
            tcp(1, 1000, 1, &[2; 1000]),
            tcp(2, 0, 0, &[3; 1000]),
            vec![4; 5],
            tcp(2, 1000, 1, &[5; 1000]),
            tcp(2, 2000, 2, &[6; 10]),
            tcp(2, 2010, 3, &[7; 10]),
        ];
        for packet in &packets {
            assert!(open(&mut queue, packet));
        }
        assert_eq!(queue.len(), 5);
        assert_eq!((queue.nth_framed(3, 4).map(<[u8]>::len), queue.nth_framed(4, 4)), (Some(4 + 1050), None));
        queue.close();
        assert_eq!((queue.nth_framed(4, 4).map(<[u8]>::len), queue.nth_framed(5, 4)), (Some(4 + 50), None));
        let lens: Vec<_> = std::iter::from_fn(|| {
            let len = queue.front().map(<[u8]>::len);
            queue.advance();
            len
        })
        .collect();
        assert_eq!(lens, [2040, 1040, 5, 1050, 50]);
    }

    #[test]
    fn without_offloads_nothing_is_joined_and_nothing_waits() {
        let mut queue = WriteQueue::with_capacity(1 << 20, 100);
        for i in 0..3 {
            assert!(open(&mut queue, &tcp(1, i * 100, i as u16, &[1; 100])));
        }
        assert_eq!((queue.len(), queue.front().map(<[u8]>::len)), (3, Some(140)));
    }

    /// One step of a queue's life.
    #[derive(Debug, Clone)]
    enum Step {
        Push { flow: u16, len: usize },
        Junk { len: usize },
        Abandon { len: usize },
        Pop { packets: usize },
        Close,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let len = || prop_oneof![3 => Just(96_usize), 3 => Just(1380), 1 => 1..2000_usize];
        let step = prop_oneof![
            8 => (0..2_u16, len()).prop_map(|(flow, len)| Step::Push { flow, len }),
            2 => len().prop_map(|len| Step::Junk { len }),
            1 => (0..9000_usize).prop_map(|len| Step::Abandon { len }),
            2 => (1..5_usize).prop_map(|packets| Step::Pop { packets }),
            1 => Just(Step::Close),
        ];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn packets_come_out_in_order_and_intact(steps in steps(), joining: bool) {
            let mut queue = WriteQueue::with_capacity(20_000, 20);
            if joining {
                queue.set_offloads(BOTH);
            }
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let mut flows = [(0_u32, 0_u16); 2];
            for (number, step) in steps.into_iter().enumerate() {
                let packet = match step {
                    Step::Push { flow, len } => {
                        let (sequence, id) = &mut flows[usize::from(flow)];
                        let packet = tcp(flow, *sequence, *id, &vec![number as u8; len]);
                        (*sequence, *id) = (sequence.wrapping_add(len as u32), id.wrapping_add(1));
                        packet
                    }
                    Step::Junk { len } => (0..len).map(|i| (i * 5 + number) as u8).collect(),
                    Step::Abandon { len } => {
                        abandon(&mut queue, len);
                        continue;
                    }
                    Step::Pop { packets } => {
                        for _ in 0..packets {
                            let offload = queue.front_offload();
                            if let Some(with_header) = queue.front_with_header(HEADROOM) {
                                with_header[..HEADROOM].fill(0xaa);
                                let mut bytes = with_header[HEADROOM..].to_vec();
                                let len = bytes.len();
                                let mut split = Split::new(&mut bytes, len, offload).unwrap();
                                while let Some(packet) = split.next() {
                                    prop_assert_eq!(Some(packet.bytes().to_vec()), model.pop_front());
                                }
                            }
                            queue.advance();
                        }
                        continue;
                    }
                    Step::Close => {
                        queue.close();
                        continue;
                    }
                };
                if open(&mut queue, &packet) {
                    model.push_back(packet);
                } else {
                    prop_assert!(!model.is_empty());
                }
            }
            prop_assert_eq!(drain(&mut queue).1, Vec::from(model));
            prop_assert_eq!((queue.arena.head, queue.arena.tail), (0, 0));
        }
    }
}

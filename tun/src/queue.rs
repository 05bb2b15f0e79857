//! What waits to go out: datagrams for the socket and packets for the device, each in one arena allocated once.
//!
//! The engine's cipher writes into these arenas through [`Sink`], and the kernel reads from them; nothing is copied in
//! between. Neither queue reorders, grows or allocates after it was made: without room, `reserve` says [`SinkFull`].

use std::collections::VecDeque;

use adit_core::{Sink, SinkFull, Transmit};

use crate::batch::{ALIGN, HEADROOM};
use crate::memory::{ENTRY, GRO_SEGMENTS, TABLE};

/// Datagrams for the socket, oldest first.
///
/// Consecutive datagrams with the same [`Transmit`] and the same size, of which the last may be shorter, lie behind one
/// another and form one run: what a socket with UDP_SEGMENT sends in one call.
#[derive(Debug)]
pub struct SendQueue {
    arena: Arena,
    runs: VecDeque<Run>,
    max_runs: usize,
    /// Whom the datagram under construction is for.
    pending: Option<Transmit>,
}

/// The front of a [`SendQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendRun<'a> {
    /// Where all of the run's datagrams go.
    pub transmit: Transmit,
    /// The size of each datagram in bytes; the last may be shorter.
    pub segment: usize,
    /// The datagrams, one behind the other.
    pub bytes: &'a [u8],
}

impl SendRun<'_> {
    /// Number of datagrams.
    pub fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.segment)
    }
}

impl SendQueue {
    /// Allocates a queue of the platform's size ([`TABLE`]).
    pub fn new() -> Self {
        Self::with_capacity(TABLE.send_bytes, TABLE.send_runs)
    }

    /// Allocates a queue for at most `runs` runs in `bytes` bytes.
    pub fn with_capacity(bytes: usize, runs: usize) -> Self {
        Self { arena: Arena::new(bytes), runs: VecDeque::with_capacity(runs), max_runs: runs, pending: None }
    }

    /// The oldest run.
    pub fn front(&self) -> Option<SendRun<'_>> {
        let run = self.runs.front()?;
        let bytes = &self.arena.bytes[run.start..run.start + run.len];
        Some(SendRun { transmit: run.transmit, segment: run.segment, bytes })
    }

    /// Removes the oldest `datagrams` datagrams of the front run, because they were sent or given up.
    pub fn advance(&mut self, datagrams: usize) {
        let Some(run) = self.runs.front_mut() else { return };
        let bytes = run.len.min(datagrams.saturating_mul(run.segment));
        run.start += bytes;
        run.len -= bytes;
        self.arena.release(bytes);
        if run.len == 0 {
            self.runs.pop_front();
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.arena.used()
    }
}

impl Default for SendQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink<Transmit> for SendQueue {
    fn reserve(&mut self, transmit: Transmit, len: usize) -> Result<(), SinkFull> {
        if self.runs.len() >= self.max_runs {
            return Err(SinkFull);
        }
        let moved = self.arena.reserve(len)?;
        for run in &mut self.runs {
            run.start -= moved;
        }
        self.pending = Some(transmit);
        Ok(())
    }

    fn reserved(&mut self) -> &mut [u8] {
        self.arena.reserved()
    }

    fn commit(&mut self, len: usize) {
        let Some((transmit, (start, len))) = self.pending.take().zip(self.arena.commit(len)) else { return };
        match self.runs.back_mut() {
            Some(run) if run.takes(&transmit, len) => run.len += len,
            _ => self.runs.push_back(Run { transmit, segment: len, start, len }),
        }
    }

    fn rollback(&mut self) {
        self.pending = None;
        self.arena.rollback();
    }
}

/// Datagrams of one size to one peer, `len` bytes from `start` on in the arena.
#[derive(Debug)]
struct Run {
    transmit: Transmit,
    segment: usize,
    start: usize,
    len: usize,
}

impl Run {
    /// Whether a datagram of `len` bytes can be appended: the last one so far is a full segment, this one is no longer
    /// than a segment, and the whole is still one send.
    fn takes(&self, transmit: &Transmit, len: usize) -> bool {
        self.transmit == *transmit
            && len <= self.segment
            && self.len.is_multiple_of(self.segment)
            && self.len / self.segment < GRO_SEGMENTS
            && self.len + len <= MAX_RUN
    }
}

/// Packets for the device, oldest first; each has [`HEADROOM`] bytes in front of it for the device's own header.
#[derive(Debug)]
pub struct WriteQueue {
    arena: Arena,
    /// Where each packet begins, and its length.
    packets: VecDeque<(usize, usize)>,
    max_packets: usize,
    pending: bool,
}

impl WriteQueue {
    /// Allocates a queue of the platform's size ([`TABLE`]).
    pub fn new() -> Self {
        Self::with_capacity(TABLE.write_bytes, TABLE.write_packets)
    }

    /// Allocates a queue for at most `packets` packets in `bytes` bytes.
    pub fn with_capacity(bytes: usize, packets: usize) -> Self {
        let arena = Arena::new(bytes);
        Self { arena, packets: VecDeque::with_capacity(packets), max_packets: packets, pending: false }
    }

    /// The oldest packet.
    pub fn front(&self) -> Option<&[u8]> {
        let (start, len) = *self.packets.front()?;
        Some(&self.arena.bytes[start..start + len])
    }

    /// The oldest packet with the last `header` bytes in front of it, at most [`HEADROOM`], for the device to fill in.
    pub fn front_with_header(&mut self, header: usize) -> Option<&mut [u8]> {
        let (start, len) = *self.packets.front()?;
        Some(&mut self.arena.bytes[start - header.min(HEADROOM)..start + len])
    }

    /// Removes the oldest packet, because it was written or given up.
    pub fn advance(&mut self) {
        if let Some((_, len)) = self.packets.pop_front() {
            self.arena.release(Self::entry(len));
        }
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// What a packet of `len` bytes takes in the arena; a multiple of [`ALIGN`], so that every packet is aligned.
    const fn entry(len: usize) -> usize {
        HEADROOM + len.next_multiple_of(ALIGN)
    }
}

impl Default for WriteQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink<()> for WriteQueue {
    fn reserve(&mut self, (): (), len: usize) -> Result<(), SinkFull> {
        if self.packets.len() >= self.max_packets {
            return Err(SinkFull);
        }
        let entry = len.checked_next_multiple_of(ALIGN).and_then(|len| len.checked_add(HEADROOM)).ok_or(SinkFull)?;
        let moved = self.arena.reserve(entry)?;
        for (start, _) in &mut self.packets {
            *start -= moved;
        }
        self.arena.open = self.arena.open.map(|_| HEADROOM + len);
        self.pending = true;
        Ok(())
    }

    fn reserved(&mut self) -> &mut [u8] {
        self.arena.reserved().get_mut(HEADROOM..).unwrap_or_default()
    }

    fn commit(&mut self, len: usize) {
        if !std::mem::take(&mut self.pending) {
            return;
        }
        let len = len.min(self.reserved().len());
        // The entry is rounded up, and the room for that was reserved.
        self.arena.open = self.arena.open.map(|_| Self::entry(len));
        if let Some((start, _)) = self.arena.commit(Self::entry(len)) {
            self.packets.push_back((start + HEADROOM, len));
        }
    }

    fn rollback(&mut self) {
        self.pending = false;
        self.arena.rollback();
    }
}

/// Bytes that are taken at the end and released at the front; what is in use is contiguous.
#[derive(Debug)]
struct Arena {
    bytes: Box<[u8]>,
    /// Bytes before this were released.
    head: usize,
    /// Bytes from here on are free.
    tail: usize,
    /// Length of what is reserved at `tail`.
    open: Option<usize>,
}

impl Arena {
    fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes].into_boxed_slice(), head: 0, tail: 0, open: None }
    }

    fn used(&self) -> usize {
        self.tail - self.head
    }

    /// Makes room, and tells by how many bytes it moved everything towards the front to do so. It moves at most once for
    /// every time that the arena fills up, so the cost for each byte is bounded.
    fn reserve(&mut self, len: usize) -> Result<usize, SinkFull> {
        let mut moved = 0;
        if len > self.bytes.len() - self.tail {
            if len > self.bytes.len() - self.used() {
                return Err(SinkFull);
            }
            moved = self.head;
            self.bytes.copy_within(self.head..self.tail, 0);
            self.tail -= moved;
            self.head = 0;
        }
        self.open = Some(len);
        Ok(moved)
    }

    fn reserved(&mut self) -> &mut [u8] {
        let len = self.open.unwrap_or(0);
        &mut self.bytes[self.tail..self.tail + len]
    }

    /// Takes the first `len` bytes of what is reserved, and says where they are. Nothing is taken if that is nothing.
    fn commit(&mut self, len: usize) -> Option<(usize, usize)> {
        let len = len.min(self.open.take()?);
        if len == 0 {
            return None;
        }
        let start = self.tail;
        self.tail += len;
        Some((start, len))
    }

    fn rollback(&mut self) {
        self.open = None;
    }

    fn release(&mut self, len: usize) {
        self.head = (self.head + len).min(self.tail);
        if self.head == self.tail {
            // An empty arena starts over at the front, where the memory is still in the cache.
            (self.head, self.tail) = (0, 0);
        }
    }
}

/// Bytes of one send: the payload of the longest UDP datagram over IPv4. A longer one fails with EMSGSIZE.
const MAX_RUN: usize = 65_507;

const _: () = assert!(size_of::<Run>() <= ENTRY);

#[cfg(test)]
mod tests {
    use adit_core::{Ecn, Reservation};
    use proptest::prelude::*;

    use super::*;

    fn to(port: u16) -> Transmit {
        Transmit { remote: ([192, 0, 2, 1], port).into(), local: None, ecn: Ecn::NotEct }
    }

    fn push(queue: &mut SendQueue, transmit: Transmit, bytes: &[u8]) -> bool {
        let Ok(mut room) = Reservation::new(queue, transmit, bytes.len() + 7) else { return false };
        room.bytes()[..bytes.len()].copy_from_slice(bytes);
        room.commit(bytes.len());
        true
    }

    fn sizes(queue: &mut SendQueue) -> Vec<(usize, usize)> {
        let mut sizes = Vec::new();
        while let Some(run) = queue.front() {
            let count = run.datagrams();
            sizes.push((run.segment, run.bytes.len()));
            queue.advance(count);
        }
        sizes
    }

    #[test]
    fn equal_sizes_form_runs_and_a_shorter_one_ends_them() {
        let mut queue = SendQueue::with_capacity(1 << 20, 100);
        for len in [100, 100, 60, 100, 100, 120, 120] {
            assert!(push(&mut queue, to(1), &vec![1; len]));
        }
        assert!(push(&mut queue, to(2), &[2; 120]));
        assert!(push(&mut queue, Transmit { ecn: Ecn::Ce, ..to(2) }, &[2; 120]));
        assert_eq!(sizes(&mut queue), [(100, 260), (100, 200), (120, 240), (120, 120), (120, 120)]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_run_is_never_more_than_one_send() {
        let mut queue = SendQueue::with_capacity(1 << 20, 100);
        for _ in 0..GRO_SEGMENTS + 1 {
            assert!(push(&mut queue, to(1), &[0; 10]));
        }
        for _ in 0..3 {
            assert!(push(&mut queue, to(1), &vec![0; 30_000]));
        }
        assert_eq!(sizes(&mut queue), [(10, 640), (10, 10), (30_000, 60_000), (30_000, 30_000)]);
    }

    #[test]
    fn a_rolled_back_reservation_does_not_break_a_run() {
        let mut queue = SendQueue::with_capacity(1000, 10);
        assert!(push(&mut queue, to(1), &[1; 100]));
        drop(Reservation::new(&mut queue, to(9), 500).unwrap());
        assert!(push(&mut queue, to(1), &[1; 100]));
        assert_eq!(sizes(&mut queue), [(100, 200)]);
    }

    #[test]
    fn without_room_nothing_is_taken() {
        let mut queue = SendQueue::with_capacity(300, 2);
        assert_eq!(queue.reserve(to(1), 301), Err(SinkFull));
        assert_eq!(queue.reserve(to(1), usize::MAX), Err(SinkFull));
        assert!(push(&mut queue, to(1), &[1; 200]));
        assert!(!push(&mut queue, to(1), &[1; 200]));
        assert!(push(&mut queue, to(2), &[1; 10]));
        // There are bytes left, but no run.
        assert!(!push(&mut queue, to(3), &[1; 1]));
        queue.advance(1);
        assert!(push(&mut queue, to(3), &[1; 200]), "what was sent makes room");
    }

    #[test]
    fn a_queue_that_is_never_empty_does_not_run_full() {
        let mut queue = SendQueue::with_capacity(1000, 10);
        assert!(push(&mut queue, to(1), &[0; 300]));
        for round in 1..100_u8 {
            assert!(push(&mut queue, to(u16::from(round)), &[round; 300]), "round {round}");
            queue.advance(1);
            assert_eq!(queue.front().unwrap().bytes, [round; 300]);
        }
    }

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
            assert_eq!(queue.front().unwrap(), vec![len as u8; len]);
            assert_eq!((queue.front().unwrap().as_ptr() as usize - queue.arena.bytes.as_ptr() as usize) % ALIGN, 0);
            queue.advance();
        }
        assert!(queue.is_empty() && queue.front().is_none() && queue.front_with_header(4).is_none());
        assert_eq!(queue.reserve((), usize::MAX), Err(SinkFull));
        queue.commit(5);
        assert!(queue.is_empty(), "nothing was reserved");
    }

    /// One step of a queue's life.
    #[derive(Debug, Clone)]
    enum Step {
        Push { port: u16, len: usize },
        Abandon { len: usize },
        Pop { datagrams: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let len = prop_oneof![Just(96_usize), Just(1452), 1..2000_usize];
        let step = prop_oneof![
            6 => (0..2_u16, len).prop_map(|(port, len)| Step::Push { port, len }),
            1 => (0..9000_usize).prop_map(|len| Step::Abandon { len }),
            3 => (1..5_usize).prop_map(|datagrams| Step::Pop { datagrams }),
        ];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn datagrams_come_out_in_order_and_intact(steps in steps()) {
            let mut queue = SendQueue::with_capacity(20_000, 20);
            let mut model: VecDeque<(u16, Vec<u8>)> = VecDeque::new();
            let check = |queue: &mut SendQueue, model: &mut VecDeque<(u16, Vec<u8>)>, limit: usize| {
                let Some(run) = queue.front() else { return assert!(model.is_empty()) };
                assert!(run.datagrams() <= GRO_SEGMENTS && run.bytes.len() <= MAX_RUN);
                let taken = limit.min(run.datagrams());
                for datagram in run.bytes.chunks(run.segment).take(taken) {
                    let (port, bytes) = model.pop_front().unwrap();
                    assert_eq!((run.transmit, datagram), (to(port), &bytes[..]));
                }
                queue.advance(taken);
            };
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push { port, len } => {
                        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + number) as u8).collect();
                        if push(&mut queue, to(port), &bytes) {
                            model.push_back((port, bytes));
                        } else {
                            prop_assert!(queue.runs.len() == 20 || queue.bytes() + len + 7 > 20_000);
                        }
                    }
                    Step::Abandon { len } => drop(Reservation::new(&mut queue, to(3), len)),
                    Step::Pop { datagrams } => check(&mut queue, &mut model, datagrams),
                }
                prop_assert_eq!(queue.bytes(), model.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
            }
            while !queue.is_empty() {
                check(&mut queue, &mut model, usize::MAX);
            }
            prop_assert!(model.is_empty());
        }

        #[test]
        fn packets_come_out_in_order_and_intact(steps in steps()) {
            let mut queue = WriteQueue::with_capacity(20_000, 20);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push { len, .. } => {
                        let bytes: Vec<u8> = (0..len).map(|i| (i * 5 + number) as u8).collect();
                        match Reservation::new(&mut queue, (), len + 32) {
                            Ok(mut room) => {
                                room.bytes()[..len].copy_from_slice(&bytes);
                                room.commit(len);
                                model.push_back(bytes);
                            }
                            Err(SinkFull) => prop_assert!(!model.is_empty()),
                        }
                    }
                    Step::Abandon { len } => drop(Reservation::new(&mut queue, (), len)),
                    Step::Pop { datagrams } => {
                        for _ in 0..datagrams {
                            if let Some(with_header) = queue.front_with_header(HEADROOM) {
                                with_header[..HEADROOM].fill(0xaa);
                            }
                            prop_assert_eq!(queue.front(), model.front().map(Vec::as_slice));
                            queue.advance();
                            model.pop_front();
                        }
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}

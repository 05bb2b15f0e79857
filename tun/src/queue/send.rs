//! Datagrams that wait for the socket.

use std::collections::VecDeque;

use adit_core::{Sink, SinkFull, Transmit};

use super::Arena;
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
    }
}

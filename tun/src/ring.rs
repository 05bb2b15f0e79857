//! A bounded queue of byte strings between two threads, for devices and sockets that are only memory.
//!
//! Bytes are copied into and out of one ring that is allocated once; nothing grows, and a full ring refuses. Either side
//! may be a pump or a thread that waits for a [`Bell`].

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bell::Bell;
use crate::reactor::Waker;

/// Why a ring did not take something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// There is no room now.
    #[error("the queue is full")]
    Full,
    /// The other side is gone.
    #[error("the other side is gone")]
    Closed,
}

/// The queue; `M` goes with every byte string.
#[derive(Debug)]
pub(crate) struct Ring<M>(Mutex<State<M>>);

#[derive(Debug)]
struct State<M> {
    items: VecDeque<(M, usize)>,
    bytes: VecDeque<u8>,
    max_items: usize,
    max_bytes: usize,
    closed: bool,
    /// Told when the ring is no longer empty.
    reader: Option<Notify>,
    /// Told when the ring is no longer full; each found it full once.
    writers: Vec<Notify>,
}

impl<M> Ring<M> {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self(Mutex::new(State {
            items: VecDeque::with_capacity(max_items),
            bytes: VecDeque::with_capacity(max_bytes),
            max_items,
            max_bytes,
            closed: false,
            reader: None,
            writers: Vec::new(),
        }))
    }

    /// Names who is told when there is something to read; at once, if there is.
    pub(crate) fn set_reader(&self, reader: Notify) {
        let mut state = self.lock();
        if !state.items.is_empty() || state.closed {
            reader.notify();
        }
        state.reader = Some(reader);
    }

    /// Appends a copy of `bytes`. If there is no room, `writer` is told as soon as there is.
    pub(crate) fn push(&self, meta: M, bytes: &[u8], writer: Option<&Notify>) -> Result<(), RingError> {
        let mut state = self.lock();
        if state.closed {
            return Err(RingError::Closed);
        }
        // One item is always taken, so that a ring of any size is good for something.
        let fits = state.bytes.len() + bytes.len() <= state.max_bytes && state.items.len() < state.max_items;
        if !fits && !state.items.is_empty() {
            if let Some(writer) = writer
                && !state.writers.iter().any(|known| known.is_same(writer))
            {
                state.writers.push(writer.clone());
            }
            return Err(RingError::Full);
        }
        state.bytes.extend(bytes);
        state.items.push_back((meta, bytes.len()));
        // Readers are told outside of the lock, which they will want at once.
        let reader = if state.items.len() == 1 { state.reader.clone() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.notify();
        }
        Ok(())
    }

    /// Takes the oldest item into `into`; what does not fit there is cut off.
    pub(crate) fn pop(&self, into: &mut [u8]) -> Option<(M, usize)> {
        let mut state = self.lock();
        let (meta, len) = state.items.pop_front()?;
        let kept = len.min(into.len());
        // A deque is read in at most two copies and without errors; the loop is what the trait promises.
        let mut read = 0;
        while read < kept {
            match state.bytes.read(&mut into[read..kept]) {
                Ok(count) if count > 0 => read += count,
                _ => break,
            }
        }
        state.bytes.drain(..len - read);
        if !state.writers.is_empty() {
            let writers = std::mem::take(&mut state.writers);
            drop(state);
            writers.iter().for_each(Notify::notify);
        }
        Some((meta, read))
    }

    /// Ends it for both sides. What is in it can still be read.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let mut told = std::mem::take(&mut state.writers);
        told.extend(state.reader.clone());
        drop(state);
        told.iter().for_each(Notify::notify);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// The state is sound even after a panic in another thread: no code of others runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is told.
#[derive(Debug, Clone)]
pub(crate) enum Notify {
    Pump(Waker),
    Thread(Arc<Bell>),
}

impl Notify {
    fn notify(&self) {
        match self {
            Self::Pump(waker) => waker.wake(),
            Self::Thread(bell) => bell.ring(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pump(one), Self::Pump(other)) => one.is_same(other),
            (Self::Thread(one), Self::Thread(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn thread() -> (Arc<Bell>, Notify) {
        let bell = Arc::new(Bell::new());
        (Arc::clone(&bell), Notify::Thread(bell))
    }

    #[test]
    fn it_is_bounded_in_items_and_in_bytes() {
        let ring = Ring::new(2, 10);
        assert_eq!(ring.push(1, &[1; 6], None), Ok(()));
        assert_eq!(ring.push(2, &[2; 5], None), Err(RingError::Full));
        assert_eq!(ring.push(2, &[2; 4], None), Ok(()));
        assert_eq!(ring.push(3, &[], None), Err(RingError::Full));
        let mut buffer = [0; 5];
        assert_eq!(ring.pop(&mut buffer), Some((1, 5)), "cut off, and the rest is not the next item");
        assert_eq!(ring.pop(&mut buffer), Some((2, 4)));
        assert_eq!(&buffer[..4], [2; 4]);
        assert_eq!(ring.pop(&mut buffer), None);
        assert_eq!(ring.push(4, &[0; 999], None), Ok(()), "one item is always taken");
    }

    #[test]
    fn readers_and_writers_are_told() {
        let ring = Ring::new(1, 10);
        let ((reader, notify_reader), (writer, notify_writer)) = (thread(), thread());
        ring.set_reader(notify_reader);
        assert!(!reader.wait(Some(Duration::ZERO)));
        ring.push((), &[1], Some(&notify_writer)).unwrap();
        assert!(reader.wait(Some(Duration::ZERO)));
        for _ in 0..3 {
            assert_eq!(ring.push((), &[2], Some(&notify_writer)), Err(RingError::Full));
        }
        assert_eq!(ring.lock().writers.len(), 1);
        assert!(!writer.wait(Some(Duration::from_millis(1))));
        ring.pop(&mut [0]).unwrap();
        assert!(writer.wait(Some(Duration::ZERO)));
        ring.close();
        assert!(reader.wait(Some(Duration::ZERO)) && ring.is_closed());
        assert_eq!(ring.push((), &[1], None), Err(RingError::Closed));
    }

    #[test]
    fn bytes_survive_the_turn_of_the_ring() {
        let ring = Ring::new(4, 100);
        let mut buffer = [0; 64];
        for round in 0..50_u8 {
            let item: Vec<u8> = (0..37).map(|i| i ^ round).collect();
            ring.push(round, &item, None).unwrap();
            assert_eq!(ring.pop(&mut buffer), Some((round, 37)));
            assert_eq!(buffer[..37], item);
        }
    }
}

//! What waits to go out: datagrams for the socket and packets for the device, each in one arena allocated once.
//!
//! The engine's cipher writes into these arenas through [`adit_core::Sink`], and the kernel reads from them; nothing is
//! copied in between. Neither queue reorders, grows or allocates after it was made: without room, `reserve` says
//! [`SinkFull`]. Both put together what the kernel takes in one call: [`SendQueue`] datagrams of one size to one peer,
//! [`WriteQueue`] packets of one flow.

mod send;
mod write;

use adit_core::SinkFull;

pub use send::{SendQueue, SendRun};
pub use write::WriteQueue;

/// Bytes that are taken at the end and released at the front; what is in use is contiguous.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) bytes: Box<[u8]>,
    /// Bytes before this were released.
    pub(super) head: usize,
    /// Bytes from here on are free.
    pub(super) tail: usize,
    /// Length of what is reserved at `tail`.
    open: Option<usize>,
}

impl Arena {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes].into_boxed_slice(), head: 0, tail: 0, open: None }
    }

    pub(super) fn used(&self) -> usize {
        self.tail - self.head
    }

    /// Makes room, and tells by how many bytes it moved everything towards the front to do so. It moves at most once for
    /// every time that the arena fills up, so the cost for each byte is bounded.
    pub(super) fn reserve(&mut self, len: usize) -> Result<usize, SinkFull> {
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

    pub(super) fn reserved(&mut self) -> &mut [u8] {
        let len = self.open.unwrap_or(0);
        &mut self.bytes[self.tail..self.tail + len]
    }

    /// Takes the first `len` bytes of what is reserved, and says where they are. Nothing is taken if that is nothing.
    pub(super) fn commit(&mut self, len: usize) -> Option<(usize, usize)> {
        let len = len.min(self.open.take()?);
        if len == 0 {
            return None;
        }
        let start = self.tail;
        self.tail += len;
        Some((start, len))
    }

    pub(super) fn rollback(&mut self) {
        self.open = None;
    }

    pub(super) fn release(&mut self, len: usize) {
        self.head = (self.head + len).min(self.tail);
        if self.head == self.tail {
            // An empty arena starts over at the front, where the memory is still in the cache.
            (self.head, self.tail) = (0, 0);
        }
    }
}

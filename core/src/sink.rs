//! Where outputs go: memory that the shell owns, reserved, written by the cipher and then committed.

use std::net::{IpAddr, SocketAddr};

/// The ECN field of an IP header (RFC 3168 section 5), in its two low bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not know ECN, or the shell could not read the field.
    #[default]
    NotEct = 0b00,
    /// ECN-capable transport, codepoint 1.
    Ect1 = 0b01,
    /// ECN-capable transport, codepoint 0.
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// Takes the two low bits of a Traffic Class or TOS octet.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            0b11 => Self::Ce,
            _ => Self::NotEct,
        }
    }
}

/// Where a datagram goes and how it is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// The own address to send from: the one on which the peer's last authenticated datagram arrived, so that a host
    /// with several addresses answers from the one that was asked. `None` leaves the choice to the routing table.
    pub local: Option<IpAddr>,
    /// The outer ECN field.
    pub ecn: Ecn,
}

/// There is no room; the packet is a counted drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkFull;

/// A queue that hands out room for one item at a time, in memory that it owns.
///
/// Between [`reserve`](Self::reserve) and [`commit`](Self::commit) or [`rollback`](Self::rollback) exactly one item is
/// under construction. Engines use it through [`Reservation`], which cannot forget to end it.
pub trait Sink<Meta> {
    /// Makes room for an item of at most `len` bytes.
    ///
    /// # Errors
    /// [`SinkFull`], and nothing is under construction.
    fn reserve(&mut self, meta: Meta, len: usize) -> Result<(), SinkFull>;

    /// The reserved bytes, exactly as many as were asked for; their content is arbitrary.
    fn reserved(&mut self) -> &mut [u8];

    /// Queues the first `len` reserved bytes, `len` being at most what was reserved.
    fn commit(&mut self, len: usize);

    /// Gives the room back.
    fn rollback(&mut self);
}

/// Room for one item; rolled back when dropped without [`commit`](Self::commit).
#[derive(Debug)]
pub struct Reservation<'a, Meta, S: Sink<Meta> + ?Sized> {
    sink: &'a mut S,
    open: bool,
    meta: std::marker::PhantomData<Meta>,
}

impl<'a, Meta, S: Sink<Meta> + ?Sized> Reservation<'a, Meta, S> {
    /// Reserves `len` bytes in `sink`.
    ///
    /// # Errors
    /// [`SinkFull`] when there is no room.
    pub fn new(sink: &'a mut S, meta: Meta, len: usize) -> Result<Self, SinkFull> {
        sink.reserve(meta, len)?;
        Ok(Self { sink, open: true, meta: std::marker::PhantomData })
    }

    /// The reserved bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.sink.reserved()
    }

    /// Queues the first `len` reserved bytes.
    pub fn commit(mut self, len: usize) {
        self.open = false;
        self.sink.commit(len);
    }
}

impl<Meta, S: Sink<Meta> + ?Sized> Drop for Reservation<'_, Meta, S> {
    fn drop(&mut self) {
        if self.open {
            self.sink.rollback();
        }
    }
}

/// A growing sink for tests and simulations: every committed item with its metadata.
#[derive(Debug)]
pub struct Collector<Meta> {
    /// What was committed, oldest first.
    pub items: std::collections::VecDeque<(Meta, Vec<u8>)>,
    pending: Option<(Meta, Vec<u8>)>,
    capacity: usize,
}

impl<Meta> Collector<Meta> {
    /// Makes a sink that is full once it holds `capacity` items.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { items: std::collections::VecDeque::new(), pending: None, capacity }
    }
}

impl<Meta> Default for Collector<Meta> {
    fn default() -> Self {
        Self::with_capacity(usize::MAX)
    }
}

impl<Meta> Sink<Meta> for Collector<Meta> {
    fn reserve(&mut self, meta: Meta, len: usize) -> Result<(), SinkFull> {
        if self.items.len() >= self.capacity {
            return Err(SinkFull);
        }
        self.pending = Some((meta, vec![0; len]));
        Ok(())
    }

    fn reserved(&mut self) -> &mut [u8] {
        self.pending.as_mut().map_or(&mut [], |(_, bytes)| bytes.as_mut_slice())
    }

    fn commit(&mut self, len: usize) {
        if let Some((meta, mut bytes)) = self.pending.take() {
            bytes.truncate(len);
            self.items.push_back((meta, bytes));
        }
    }

    fn rollback(&mut self) {
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_reservation_leaves_nothing_behind() {
        let mut sink = Collector::<()>::with_capacity(1);
        drop(Reservation::new(&mut sink, (), 9).unwrap());
        assert!(sink.items.is_empty());

        let mut kept = Reservation::new(&mut sink, (), 9).unwrap();
        kept.bytes()[..3].copy_from_slice(b"abc");
        kept.commit(3);
        assert_eq!(sink.items, [((), b"abc".to_vec())]);
        assert_eq!(Reservation::new(&mut sink, (), 1).err(), Some(SinkFull));
    }
}

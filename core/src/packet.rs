//! A packet of the host on its way in: the one thing that the engine changes in place.

use crate::wg::message::PADDING_MULTIPLE;

/// A packet from the host, in memory with room behind it.
///
/// WireGuard pads what it seals to a multiple of 16 bytes, so up to [`TunPacket::TAILROOM`] bytes behind the packet are
/// zeroed for a moment and restored. In a buffer with less room the packet is sealed with less padding.
#[derive(Debug)]
pub struct TunPacket<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> TunPacket<'a> {
    /// Bytes that a buffer should have behind the packet.
    pub const TAILROOM: usize = PADDING_MULTIPLE - 1;

    /// The packet is the first `len` bytes of `buffer`, or all of it if `len` is more.
    #[inline]
    pub fn new(buffer: &'a mut [u8], len: usize) -> Self {
        let len = len.min(buffer.len());
        Self { buffer, len }
    }

    /// Gives back the buffer.
    #[inline]
    pub(crate) fn into_buffer(self) -> &'a mut [u8] {
        self.buffer
    }

    /// Leaves bytes at the packet's end to what is behind it.
    #[inline]
    pub(crate) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The packet, without what is behind it.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Lends the first `len` bytes followed by zeros up to `padded` to `seal`, and restores what the zeros covered.
    #[inline]
    pub(crate) fn with_padding<R>(&mut self, len: usize, padded: usize, seal: impl FnOnce(&[u8]) -> R) -> R {
        let end = padded.min(self.buffer.len()).max(len);
        let tail = end - len;
        let mut saved = [0; Self::TAILROOM];
        if tail == 0 || tail > saved.len() {
            return seal(&self.buffer[..len]);
        }
        saved[..tail].copy_from_slice(&self.buffer[len..end]);
        self.buffer[len..end].fill(0);
        let result = seal(&self.buffer[..end]);
        self.buffer[len..end].copy_from_slice(&saved[..tail]);
        result
    }
}

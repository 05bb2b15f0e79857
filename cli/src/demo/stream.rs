//! The bytes of the transfer: made from a seed at one end, and hashed at both.
//!
//! Neither end holds more than a chunk of them, so the size of the transfer does not matter.

use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(pub(super) [u8; DIGEST]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Pseudo-random bytes on their way out.
pub(super) struct Outgoing {
    random: fastrand::Rng,
    hash: Sha256,
    chunk: Box<[u8]>,
    /// What of the chunk is not sent yet.
    unsent: std::ops::Range<usize>,
    /// Bytes that are not made yet.
    left: u64,
}

impl Outgoing {
    pub(super) fn new(size: u64, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, hash: Sha256::new(), chunk: vec![0; CHUNK].into(), unsent: 0..0, left: size }
    }

    /// Bytes to send next; none at the end.
    pub(super) fn bytes(&mut self) -> &[u8] {
        if self.unsent.is_empty() && self.left > 0 {
            let len = self.left.min(CHUNK as u64) as usize;
            self.random.fill(&mut self.chunk[..len]);
            self.hash.update(&self.chunk[..len]);
            self.left -= len as u64;
            self.unsent = 0..len;
        }
        &self.chunk[self.unsent.clone()]
    }

    /// Takes bytes that were sent off the front.
    pub(super) fn advance(&mut self, sent: usize) {
        self.unsent.start = (self.unsent.start + sent).min(self.unsent.end);
    }

    /// The hash of everything made so far.
    pub(super) fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }
}

/// Bytes that have arrived.
#[derive(Default)]
pub(super) struct Incoming {
    hash: Sha256,
    bytes: u64,
}

impl Incoming {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }
}

/// Bytes of a SHA-256.
pub(super) const DIGEST: usize = 32;

/// Bytes made at a time: they are hashed and sent while they are in a core's cache.
const CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries everything across, in pieces of many sizes, and changes one byte at `corrupt`.
    fn carry(size: u64, corrupt: Option<u64>) -> (Digest, Incoming) {
        let (mut out, mut arrived) = (Outgoing::new(size, 7), Incoming::default());
        let mut piece = 1;
        loop {
            let mut bytes = out.bytes().to_vec();
            if bytes.is_empty() {
                return (out.digest(), arrived);
            }
            bytes.truncate(piece);
            if let Some(at) = corrupt.and_then(|at| at.checked_sub(arrived.bytes()))
                && let Some(byte) = bytes.get_mut(at as usize)
            {
                *byte ^= 1;
            }
            arrived.take(&bytes);
            out.advance(bytes.len());
            piece = piece * 3 % 40_009;
        }
    }

    #[test]
    fn both_ends_agree_on_sizes_around_a_chunk() {
        for size in [0, 1, CHUNK as u64 - 1, CHUNK as u64, CHUNK as u64 + 1, 300_000] {
            let (sent, arrived) = carry(size, None);
            assert_eq!((sent, size), (arrived.digest(), arrived.bytes()));
        }
    }

    #[test]
    fn one_changed_bit_is_noticed() {
        let (sent, arrived) = carry(300_000, Some(200_000));
        assert_eq!(arrived.bytes(), 300_000);
        assert_ne!(sent, arrived.digest());
    }

    #[test]
    fn a_digest_is_written_in_hexadecimal() {
        // FIPS 180-4's example for "abc".
        let mut incoming = Incoming::default();
        incoming.take(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(incoming.digest().to_string(), text);
        assert_eq!(serde_json::to_string(&incoming.digest()).unwrap(), format!("\"{text}\""));
    }
}

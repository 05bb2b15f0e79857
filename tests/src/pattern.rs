//! Bytes that say where they belong: what arrives is compared with what was sent, byte by byte.
//!
//! A comparison in place tells more than a hash at both ends: which byte is wrong first, and while the flow still runs.
//! The bytes repeat after a prime number of them, so that whatever is lost, doubled or swapped does not fall on its like.

use anyhow::{Result, bail, ensure};

/// An endless sequence of bytes, another one for each seed.
#[derive(Debug)]
pub struct Pattern {
    /// One period, and the beginning of the next, so that a part of it is always in one piece.
    bytes: Vec<u8>,
}

impl Pattern {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
        let mut state = seed;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word ^ (word >> 31)).to_le_bytes()
        });
        let mut bytes: Vec<u8> = words.take(PERIOD.div_ceil(8)).flatten().collect();
        bytes.truncate(PERIOD);
        bytes.extend_from_within(..Self::LONGEST);
        Self { bytes }
    }

    /// Most bytes that [`Pattern::at`] returns.
    pub const LONGEST: usize = 64 * 1024;

    /// The `length` bytes from `offset` on, or [`Pattern::LONGEST`] if those are fewer.
    pub fn at(&self, offset: u64, length: usize) -> &[u8] {
        // The remainder is below the period, which fits.
        let start = usize::try_from(offset % PERIOD as u64).unwrap_or_default();
        self.bytes.get(start..start + length.min(Self::LONGEST)).unwrap_or_default()
    }

    /// Compares what arrived with what belongs at `offset`.
    ///
    /// # Errors
    /// If a byte differs; with its place.
    pub fn check(&self, offset: u64, arrived: &[u8]) -> Result<()> {
        ensure!(arrived.len() <= Self::LONGEST, "{} bytes are too many to compare at once", arrived.len());
        let expected = self.at(offset, arrived.len());
        if expected != arrived {
            let wrong = expected.iter().zip(arrived).take_while(|(expected, arrived)| expected == arrived).count();
            bail!("byte {} is wrong, the {wrong}th of a piece of {}", offset + wrong as u64, arrived.len());
        }
        Ok(())
    }
}

/// A prime number, a little below a mebibyte.
const PERIOD: usize = 1_048_573;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_where_it_belongs_and_nowhere_else() {
        let pattern = Pattern::new(7);
        for offset in [0, 1, PERIOD as u64 - 1, PERIOD as u64, u64::MAX - 70_000] {
            let piece = pattern.at(offset, 1380);
            assert_eq!(piece.len(), 1380);
            pattern.check(offset, piece).unwrap();
            pattern.check(offset + 1380, piece).unwrap_err();
            Pattern::new(8).check(offset, piece).unwrap_err();
        }
        let mut piece = pattern.at(5, 100).to_vec();
        piece[40] ^= 1;
        assert!(pattern.check(5, &piece).unwrap_err().to_string().contains("byte 45"));
        assert_eq!(pattern.at(3, usize::MAX).len(), Pattern::LONGEST);
    }
}

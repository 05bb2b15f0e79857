//! The Internet checksum (RFC 1071), over everything that the kernel leaves to the reader of a tun device.
//!
//! Sums are of 16-bit words in the host's byte order: the sum does not depend on the order in which the bytes of a word
//! are read, as long as it is written the same way (RFC 1071 section 2B). They are kept in 64 bits and folded at the end.

/// Adds up 16-bit words; a last odd byte counts as a word with a zero behind it.
///
/// Parts of a packet may be summed apart and added, if all but the last have an even length. Words are added 64 bits at a
/// time, which is the same sum (RFC 1071 section 2C), with their carries in the upper half of 128: an addition and an
/// addition with carry for 8 bytes. On one x86-64 core, 1420 bytes take 33 ns so, and 153 ns as 32-bit words that the
/// compiler makes vector instructions of.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    // Two sums, so that one chain of carries does not wait for the other.
    let mut sums = [0_u128; 2];
    for block in blocks {
        for (index, word) in block.as_chunks::<8>().0.iter().enumerate() {
            sums[index % 2] += u128::from(u64::from_ne_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        sums[0] += u128::from(u64::from_ne_bytes(*word));
    }
    let whole = sums[0] + sums[1];
    let (low, carries) = (whole as u64, (whole >> 64) as u64);
    let mut sum = (low & 0xffff_ffff) + (low >> 32) + carries;
    let (words, rest) = rest.as_chunks::<2>();
    for word in words {
        sum += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = rest {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

/// The word that a number in network byte order adds to a [`sum`].
#[inline]
pub fn word(value: u16) -> u64 {
    u64::from(value.to_be())
}

/// Folds a sum into 16 bits with end-around carry.
#[inline]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum of everything that was summed, as bytes of a header.
#[inline]
pub fn finish(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// The same for UDP, where a checksum of zero would mean that there is none (RFC 768).
#[inline]
pub fn finish_udp(sum: u64) -> [u8; 2] {
    match finish(sum) {
        [0, 0] => [0xff, 0xff],
        bytes => bytes,
    }
}

/// Bytes of one step.
const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, one word after the other.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)).to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn the_largest_packet_of_ones_does_not_overflow() {
        let bytes = vec![0xff; 65_535];
        assert_eq!(u16::from_be_bytes(fold(sum(&bytes)).to_ne_bytes()), slow(&bytes));
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    #[test]
    fn udp_has_no_checksum_of_zero() {
        assert_eq!(finish(0xffff), [0, 0]);
        assert_eq!(finish_udp(0xffff), [0xff, 0xff]);
        assert_eq!(finish_udp(0xfffe), finish(0xfffe));
    }

    proptest! {
        #[test]
        fn it_is_what_the_rfc_says(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(u16::from_be_bytes(fold(sum(&bytes)).to_ne_bytes()), slow(&bytes));
        }

        #[test]
        fn parts_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..150_usize, more: u16) {
            let at = (at * 2).min(bytes.len() & !1);
            let parts = sum(&bytes[..at]) + sum(&bytes[at..]) + word(more);
            let mut whole = more.to_be_bytes().to_vec();
            whole.extend(&bytes);
            prop_assert_eq!(fold(parts), fold(sum(&whole)));
        }

        #[test]
        fn folding_is_modulo_ffff(sum: u64) {
            let folded = u64::from(fold(sum));
            prop_assert_eq!(folded % 0xffff, sum % 0xffff);
            prop_assert_eq!(folded == 0, sum == 0);
        }
    }
}

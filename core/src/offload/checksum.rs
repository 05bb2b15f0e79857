//! The Internet checksum (RFC 1071), over everything that the kernel leaves to the reader of a tun device.
//!
//! Sums are of 16-bit words in the host's byte order: the sum does not depend on the order in which the bytes of a word
//! are read, as long as it is written the same way (RFC 1071 section 2B). They are kept in 64 bits and folded at the end.

/// Adds up 16-bit words; a last odd byte counts as a word with a zero behind it.
///
/// Parts of a packet may be summed apart and added, if all but the last have an even length. 32 bits at a time into
/// eight 64-bit sums is what the compiler makes vector instructions of; they cannot overflow below 2^31 blocks.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut lanes = [0_u64; BLOCK / 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut sum: u64 = lanes.iter().sum();
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

/// Bytes of one step: two vector registers of 16 bytes, so that short payloads are vectorised too.
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

//! The outside of WireGuard's messages (whitepaper section 5.4): type, length and receiver index, before any key is used.

/// Handshake initiation, in bytes.
pub const INITIATION_LEN: usize = 148;
/// Handshake response, in bytes.
pub const RESPONSE_LEN: usize = 92;
/// Cookie reply, in bytes.
pub const COOKIE_LEN: usize = 64;
/// Header of a transport message: type, receiver index, counter; in bytes.
pub const DATA_HEADER_LEN: usize = 16;
/// Poly1305 tag behind the payload of a transport message, in bytes.
pub const TAG_LEN: usize = 16;
/// What a transport message adds to its payload, in bytes; also the length of a keepalive.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// Payloads are padded to a multiple of this many bytes (whitepaper section 5.4.6).
pub const PADDING_MULTIPLE: usize = 16;

/// A datagram that has the shape of a WireGuard message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Type 1.
    Initiation,
    /// Type 2.
    Response {
        /// The index that our initiation carried.
        receiver: u32,
    },
    /// Type 3.
    Cookie {
        /// The index that our handshake message carried.
        receiver: u32,
    },
    /// Type 4.
    Data {
        /// The index that our handshake message carried.
        receiver: u32,
    },
}

impl Message {
    /// Tells the kind of a datagram by type, reserved zeros and length; `None` if it is no WireGuard message.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let kind = u32::from_le_bytes(*datagram.first_chunk()?);
        let word = |at: usize| Some(u32::from_le_bytes(*datagram.get(at..)?.first_chunk()?));
        match (kind, datagram.len()) {
            (4, DATA_OVERHEAD..) => Some(Self::Data { receiver: word(4)? }),
            (1, INITIATION_LEN) => Some(Self::Initiation),
            (2, RESPONSE_LEN) => Some(Self::Response { receiver: word(8)? }),
            (3, COOKIE_LEN) => Some(Self::Cookie { receiver: word(4)? }),
            _ => None,
        }
    }
}

/// The length of a payload of `len` bytes with its padding: a multiple of 16, but never beyond the MTU.
#[inline]
pub fn padded_len(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(PADDING_MULTIPLE).min(mtu).max(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_lengths_and_zero_reserved_bytes_pass() {
        for (kind, len) in [(1u8, INITIATION_LEN), (2, RESPONSE_LEN), (3, COOKIE_LEN)] {
            for other in 0..200 {
                let mut datagram = vec![0; other];
                if let Some(first) = datagram.first_mut() {
                    *first = kind;
                }
                assert_eq!(Message::parse(&datagram).is_some(), other == len, "type {kind}, {other} bytes");
            }
            let mut reserved = vec![0; len];
            (reserved[0], reserved[2]) = (kind, 1);
            assert_eq!(Message::parse(&reserved), None);
        }
        assert_eq!(Message::parse(&[4; 200]), None);
    }

    #[test]
    fn data_needs_header_and_tag() {
        let mut datagram = [0; 32];
        datagram[0] = 4;
        datagram[4..8].copy_from_slice(&0x0102_0304u32.to_le_bytes());
        assert_eq!(Message::parse(&datagram), Some(Message::Data { receiver: 0x0102_0304 }));
        assert_eq!(Message::parse(&datagram[..31]), None);
    }

    #[test]
    fn padding_stops_at_the_mtu() {
        assert_eq!(padded_len(0, 1420), 0);
        assert_eq!(padded_len(1, 1420), 16);
        assert_eq!(padded_len(1408, 1420), 1408);
        assert_eq!(padded_len(1409, 1420), 1420);
        assert_eq!(padded_len(1420, 1420), 1420);
        assert_eq!(padded_len(1500, 1420), 1500, "a packet is never cut");
    }
}

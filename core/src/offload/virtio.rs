//! The header that Linux puts in front of every packet of a tun device with IFF_VNET_HDR: what is still to be done to it.

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h), in the host's byte order as tun devices use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VirtioNetHeader {
    /// [`NEEDS_CSUM`](Self::NEEDS_CSUM) and others.
    pub flags: u8,
    /// One of the `GSO_` constants, perhaps with [`GSO_ECN`](Self::GSO_ECN).
    pub gso_type: u8,
    /// Length of all headers. A hint: whoever splits reads the headers themselves.
    pub hdr_len: u16,
    /// Payload of a segment.
    pub gso_size: u16,
    /// Where the checksum begins to count.
    pub csum_start: u16,
    /// Where it is stored, from `csum_start` on.
    pub csum_offset: u16,
}

impl VirtioNetHeader {
    /// Bytes of the header.
    pub const LEN: usize = 10;

    /// The checksum field holds the sum of the pseudo-header only, and what follows is still to be added.
    pub const NEEDS_CSUM: u8 = 1;

    /// One packet, nothing to split.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP datagrams of equal length over IPv4 or IPv6, Linux 6.2 and later.
    pub const GSO_UDP_L4: u8 = 5;
    /// A flag beside the TCP types: the packet carries CWR, which only its first segment may keep.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads the header.
    #[inline]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [flags, gso_type, rest @ ..] = bytes;
        let word = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        Self { flags, gso_type, hdr_len: word(0), gso_size: word(2), csum_start: word(4), csum_offset: word(6) }
    }

    /// Writes the header.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        for (at, word) in [(2, self.hdr_len), (4, self.gso_size), (6, self.csum_start), (8, self.csum_offset)] {
            bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn headers_survive_a_round_trip(bytes: [u8; VirtioNetHeader::LEN]) {
            proptest::prop_assert_eq!(VirtioNetHeader::from_bytes(bytes).to_bytes(), bytes);
        }
    }
}

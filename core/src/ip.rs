//! IP packets, checked once: after [`IpHeader::parse`] every accessor is infallible.
//!
//! Only what each packet needs is looked at: version, lengths, addresses and ECN. Anything that wants more (options,
//! extension headers, transport headers) is off the hot path and uses etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::offload::checksum;
use crate::sink::Ecn;

/// Shortest IPv4 header, in bytes (RFC 791 section 3.1).
pub const IPV4_HEADER_LEN: usize = 20;

/// IPv6 header, in bytes (RFC 8200 section 3).
pub const IPV6_HEADER_LEN: usize = 40;

/// The addresses, length and ECN field of a packet whose header is complete and fits the bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpHeader {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The packet's length in bytes as its header tells it; at most the bytes given, which may have padding behind it.
    pub total_len: usize,
    /// ECN field.
    pub ecn: Ecn,
}

impl IpHeader {
    /// Reads the header; `None` if the bytes are no IP packet or end before the packet does.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes.first_chunk()?, bytes.len()),
            6 => Self::parse_v6(bytes.first_chunk()?, bytes.len()),
            _ => None,
        }
    }

    #[inline]
    fn parse_v4(header: &[u8; IPV4_HEADER_LEN], available: usize) -> Option<Self> {
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < IPV4_HEADER_LEN || total_len < header_len || total_len > available {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            total_len,
            ecn: Ecn::from_bits(header[1]),
        })
    }

    #[inline]
    fn parse_v6(header: &[u8; IPV6_HEADER_LEN], available: usize) -> Option<Self> {
        let total_len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if total_len > available {
            return None;
        }
        let (mut source, mut destination) = ([0; 16], [0; 16]);
        source.copy_from_slice(&header[8..24]);
        destination.copy_from_slice(&header[24..40]);
        Some(Self {
            source: Ipv6Addr::from(source).into(),
            destination: Ipv6Addr::from(destination).into(),
            total_len,
            ecn: Ecn::from_bits(header[1] >> 4),
        })
    }
}

/// What becomes of the inner packet when its datagram arrives with an outer ECN field (RFC 6040 section 4.2, figure 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decapsulated {
    /// Deliver it as it is.
    Unchanged,
    /// Deliver it with this ECN field.
    Mark(Ecn),
    /// The RFC says drop: congestion on a flow that cannot be told about it.
    Drop,
}

/// Combines the ECN fields of an arriving tunnel packet.
pub const fn decapsulate_ecn(inner: Ecn, outer: Ecn) -> Decapsulated {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Decapsulated::Drop,
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) => Decapsulated::Mark(Ecn::Ce),
        (Ecn::Ect0, Ecn::Ect1) => Decapsulated::Mark(Ecn::Ect1),
        _ => Decapsulated::Unchanged,
    }
}

/// Writes the ECN field of a packet that [`IpHeader::parse`] accepted, and mends the IPv4 header checksum.
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER_LEN => {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] = (packet[1] & !0b11) | ecn as u8;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let checksum = update_checksum(u16::from_be_bytes([packet[10], packet[11]]), old, new);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Some(6) if packet.len() >= IPV6_HEADER_LEN => {
            packet[1] = (packet[1] & !(0b11 << 4)) | ((ecn as u8) << 4);
        }
        _ => {}
    }
}

/// Replaces one 16-bit word under an Internet checksum (RFC 1624, equation 3).
fn update_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    !checksum::fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn v4(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 2], 64).udp(1, 2).write(&mut packet, payload).unwrap();
        packet
    }

    fn v6(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64).udp(1, 2).write(&mut packet, payload).unwrap();
        packet
    }

    #[test]
    fn reads_both_families() {
        let header = IpHeader::parse(&v4(b"abc")).unwrap();
        assert_eq!(header.source, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(header.destination, "198.51.100.2".parse::<IpAddr>().unwrap());
        assert_eq!(header.total_len, 31);

        let header = IpHeader::parse(&v6(b"abc")).unwrap();
        assert_eq!(header.source, IpAddr::from([0x20; 16]));
        assert_eq!(header.destination, IpAddr::from([0x21; 16]));
        assert_eq!(header.total_len, 51);
    }

    #[test]
    fn padding_behind_the_packet_is_not_the_packet() {
        let mut packet = v4(b"abc");
        packet.extend([0; 13]);
        assert_eq!(IpHeader::parse(&packet).unwrap().total_len, 31);
    }

    #[test]
    fn every_truncation_is_refused() {
        for packet in [v4(b"payload"), v6(b"payload")] {
            for len in 0..packet.len() {
                assert_eq!(IpHeader::parse(&packet[..len]), None, "{len} of {} bytes", packet.len());
            }
        }
    }

    #[test]
    fn lying_lengths_are_refused() {
        let mut packet = v4(b"payload");
        packet[0] = 0x44;
        assert_eq!(IpHeader::parse(&packet), None, "a header of 16 bytes");
        let mut packet = v4(b"payload");
        packet[2..4].copy_from_slice(&19u16.to_be_bytes());
        assert_eq!(IpHeader::parse(&packet), None, "a packet shorter than its header");
    }

    #[test]
    fn ecn_follows_rfc_6040() {
        use Decapsulated::{Drop, Mark, Unchanged};
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let table = [
            (NotEct, [Unchanged, Unchanged, Unchanged, Drop]),
            (Ect0, [Unchanged, Unchanged, Mark(Ect1), Mark(Ce)]),
            (Ect1, [Unchanged, Unchanged, Unchanged, Mark(Ce)]),
            (Ce, [Unchanged, Unchanged, Unchanged, Unchanged]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                assert_eq!(decapsulate_ecn(inner, outer), expected, "inner {inner:?}, outer {outer:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn marking_keeps_the_header_checksum_right(payload in proptest::collection::vec(any::<u8>(), 0..64), tos: u8, bits in 0u8..4) {
            let mut packet = v4(&payload);
            set_ecn(&mut packet, Ecn::NotEct);
            packet[1] = tos;
            let mut header = etherparse::Ipv4Header::from_slice(&packet).unwrap().0;
            header.header_checksum = header.calc_header_checksum();
            packet[..20].copy_from_slice(&header.to_bytes());

            set_ecn(&mut packet, Ecn::from_bits(bits));
            let header = etherparse::Ipv4Header::from_slice(&packet).unwrap().0;
            prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
            prop_assert_eq!(IpHeader::parse(&packet).unwrap().ecn, Ecn::from_bits(bits));
            prop_assert_eq!(packet[1] >> 2, tos >> 2, "DSCP stays");
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            if let Some(header) = IpHeader::parse(&bytes) {
                prop_assert!(header.total_len <= bytes.len());
            }
            let mut marked = bytes;
            set_ecn(&mut marked, Ecn::Ce);
        }
    }
}

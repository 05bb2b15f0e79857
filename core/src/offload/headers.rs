//! Where the headers of a TCP or UDP packet are: the little that splitting and joining need to know.

use crate::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};
use crate::offload::checksum;

/// IP and transport headers of a packet that is no fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) version: Version,
    pub(super) transport: Transport,
    /// Where the transport header begins.
    pub(super) ip_len: usize,
    /// Where the payload begins.
    pub(super) len: usize,
    /// There is an IPv6 routing header, so the pseudo-header may name another destination (RFC 8200 section 8.1).
    pub(super) routed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Headers {
    /// Finds the headers of a packet that fills `packet` exactly, by its own length field.
    #[inline]
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let headers = match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }?;
        (headers.len <= packet.len()).then_some(headers)
    }

    #[inline]
    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header: &[u8; IPV4_HEADER_LEN] = packet.first_chunk()?;
        let ip_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]) & V4_FRAGMENT != 0;
        if ip_len < IPV4_HEADER_LEN || total_len != packet.len() || fragment {
            return None;
        }
        Self::with_transport(packet, Version::V4, header[9], ip_len, false)
    }

    #[inline]
    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header: &[u8; IPV6_HEADER_LEN] = packet.first_chunk()?;
        if IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]])) != packet.len() {
            return None;
        }
        let (mut next, mut at, mut routed) = (header[6], IPV6_HEADER_LEN, false);
        while matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
            // RFC 8200 sections 4.3, 4.4 and 4.6: the length counts eight bytes and leaves the first eight out.
            let [following, len] = *packet.get(at..)?.first_chunk()?;
            routed |= next == ROUTING;
            at += 8 + usize::from(len) * 8;
            next = following;
        }
        Self::with_transport(packet, Version::V6, next, at, routed)
    }

    #[inline]
    fn with_transport(packet: &[u8], version: Version, protocol: u8, ip_len: usize, routed: bool) -> Option<Self> {
        let (transport, len) = match protocol {
            TCP => {
                let len = usize::from(packet.get(ip_len + 12)? >> 4) * 4;
                if len < TCP_HEADER_LEN {
                    return None;
                }
                (Transport::Tcp, ip_len + len)
            }
            UDP => (Transport::Udp, ip_len + UDP_HEADER_LEN),
            _ => return None,
        };
        Some(Self { version, transport, ip_len, len, routed })
    }

    /// Where the transport checksum is, from the beginning of the transport header on.
    pub(super) const fn checksum_offset(&self) -> usize {
        match self.transport {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }

    /// The sum of the pseudo-header's addresses and protocol, to which the transport length is to be added.
    #[inline]
    pub(super) fn pseudo_header(&self, packet: &[u8]) -> u64 {
        let addresses = match self.version {
            Version::V4 => &packet[12..20],
            Version::V6 => &packet[8..40],
        };
        let protocol = match self.transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        };
        checksum::sum(addresses) + checksum::word(protocol.into())
    }
}

/// More-fragments and the fragment offset (RFC 791 section 3.1).
const V4_FRAGMENT: u16 = 0x3fff;

const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

pub(super) const TCP_HEADER_LEN: usize = 20;
pub(super) const UDP_HEADER_LEN: usize = 8;

/// Offsets in an IPv4 header.
pub(super) mod v4 {
    pub(crate) const TOTAL_LEN: usize = 2;
    pub(crate) const ID: usize = 4;
    pub(crate) const CHECKSUM: usize = 10;
}

/// Offset in an IPv6 header.
pub(super) const V6_PAYLOAD_LEN: usize = 4;

/// Offset in a UDP header.
pub(super) const UDP_LEN: usize = 4;

/// Offsets in a TCP header, and its flags (RFC 9293 section 3.1).
pub(super) mod tcp {
    pub(crate) const SEQUENCE: usize = 4;
    pub(crate) const FLAGS: usize = 13;
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const ECE: u8 = 0x40;
    pub(crate) const CWR: u8 = 0x80;
}

/// Reads a number in network byte order; the caller has checked that it is there.
#[inline]
pub(super) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The same for four bytes.
#[inline]
pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a number in network byte order.
#[inline]
pub(super) fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

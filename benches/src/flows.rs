//! Super-packets as the kernel hands them over, and the packets that they are split into.

use adit_core::TunPacket;
use adit_core::offload::{Chain, Offloads, Split, VirtioNetHeader};

/// What a super-packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP with timestamps over IPv4.
    TcpV4,
    /// TCP with timestamps over IPv6.
    TcpV6,
    /// Equal UDP datagrams over IPv4.
    UdpV4,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TcpV4, Self::TcpV6, Self::UdpV4];

    /// For names of benchmarks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpV4 => "tcp4",
            Self::TcpV6 => "tcp6",
            Self::UdpV4 => "udp4",
        }
    }

    fn ip_len(self) -> usize {
        if self == Self::TcpV6 { 40 } else { 20 }
    }

    fn header_len(self) -> usize {
        self.ip_len() + if self == Self::UdpV4 { 8 } else { 32 }
    }

    fn gso_type(self) -> u8 {
        match self {
            Self::TcpV4 => VirtioNetHeader::GSO_TCPV4,
            Self::TcpV6 => VirtioNetHeader::GSO_TCPV6,
            Self::UdpV4 => VirtioNetHeader::GSO_UDP_L4,
        }
    }
}

/// A super-packet that can be split again and again.
#[derive(Debug)]
pub struct Super {
    buffer: Vec<u8>,
    len: usize,
    head: Vec<u8>,
    header: VirtioNetHeader,
}

impl Super {
    /// Makes the longest one of which every segment is a packet of `packet_len` bytes.
    pub fn new(kind: Kind, packet_len: usize) -> Self {
        let (ip_len, header_len) = (kind.ip_len(), kind.header_len());
        let size = packet_len - header_len;
        // The kernel makes no more than 64 datagrams out of one (UDP_MAX_SEGMENTS before Linux 6.9).
        let segments = ((usize::from(u16::MAX) - header_len) / size).min(64);
        let len = header_len + segments * size;
        let mut buffer = vec![0; len + TunPacket::TAILROOM];
        for (byte, number) in buffer[header_len..len].iter_mut().zip(0_usize..) {
            *byte = (number % 251) as u8;
        }
        let protocol = if kind == Kind::UdpV4 { 17 } else { 6 };
        let mut ip = if kind == Kind::TcpV6 { crate::packets::udp_v6(len) } else { crate::packets::udp_v4(len) };
        ip[if kind == Kind::TcpV6 { 6 } else { 9 }] = protocol;
        buffer[..ip_len].copy_from_slice(&ip[..ip_len]);
        let transport = &mut buffer[ip_len..header_len];
        transport[..4].copy_from_slice(&[0xc0, 0x01, 0x01, 0xbb]);
        if kind == Kind::UdpV4 {
            transport[4..6].copy_from_slice(&((len - ip_len) as u16).to_be_bytes());
        } else {
            // Data offset of 8 words, ACK, a window, and the option of timestamps (RFC 7323) behind two no-operations.
            transport[12..16].copy_from_slice(&[0x80, 0x10, 0xff, 0xff]);
            transport[20..24].copy_from_slice(&[1, 1, 8, 10]);
        }
        let header = VirtioNetHeader {
            flags: VirtioNetHeader::NEEDS_CSUM,
            gso_type: kind.gso_type(),
            hdr_len: header_len as u16,
            gso_size: size as u16,
            csum_start: ip_len as u16,
            csum_offset: if kind == Kind::UdpV4 { 6 } else { 16 },
        };
        Self { head: buffer[..header_len].to_vec(), buffer, len, header }
    }

    /// Splits it, shows each segment to `each`, and returns how many there were.
    #[inline]
    pub fn split(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        // The only bytes that a second time would miss: all other headers were written over payload.
        self.buffer[..self.head.len()].copy_from_slice(&self.head);
        let mut split = Split::new(&mut self.buffer, self.len, self.header).unwrap();
        while let Some(segment) = split.next() {
            each(segment.bytes());
        }
        split.segments()
    }

    /// The segments, whole.
    pub fn segments(&mut self) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        self.split(|segment| segments.push(segment.to_vec()));
        segments
    }
}

/// Decides that `segments` become one packet and writes its headers into `joined`, which is as long; returns how many
/// there were. Payload is not moved, for the engine opens each packet at its place.
#[inline]
pub fn join(segments: &[Vec<u8>], joined: &mut [u8]) -> usize {
    let (first, others) = segments.split_first().unwrap();
    let mut chain = Chain::begin(first, Offloads { tcp: true, udp: true }).unwrap();
    for segment in others {
        assert!(chain.append(first, segment));
    }
    joined[..chain.header_len()].copy_from_slice(&first[..chain.header_len()]);
    chain.finish(joined);
    chain.segments()
}

/// Room for what [`join`] makes of `segments`.
pub fn room(segments: &[Vec<u8>]) -> Vec<u8> {
    let chain = Chain::begin(&segments[0], Offloads { tcp: true, udp: true }).unwrap();
    let header_len = chain.header_len();
    vec![0; header_len + segments.iter().map(|segment| segment.len() - header_len).sum::<usize>()]
}

//! Packets by their parts, written with etherparse, and the slow model of splitting and joining.
//!
//! The model knows nothing of buffers: a segment is the whole packet with another payload, written anew from its parts.
//! What it says is what Linux's software segmentation does (net/ipv4/af_inet.c `inet_gso_segment`, net/ipv4/
//! tcp_offload.c `tcp_gso_segment`, net/ipv4/udp_offload.c `__udp_gso_segment`); the scenarios of the `tests` package
//! hold it against a kernel. It refuses to be fast.

use adit_core::offload::VirtioNetHeader;
use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, Ipv6RawExtHeader, TcpHeader, UdpHeader, ip_number};

/// A whole packet. Lengths and checksums among the parts mean nothing: they are computed when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) ip: Ip,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

/// The network layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ip {
    V4(Ipv4Header),
    V6(Ipv6Header, Vec<Extension>),
}

/// An extension header of IPv6: its number, and its bytes from the third on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extension {
    pub(crate) kind: IpNumber,
    pub(crate) body: Vec<u8>,
}

/// The transport layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp(TcpHeader),
    Udp { source: u16, destination: u16 },
}

/// What the checksum of the transport header holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    /// All of it.
    Complete,
    /// The sum of the pseudo-header, as under VIRTIO_NET_HDR_F_NEEDS_CSUM.
    Partial,
}

impl Packet {
    /// The packet as it travels.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.write(Checksum::Complete)
    }

    /// The packet as a tun device with checksum offload hands it out: somebody else completes the checksum.
    pub(crate) fn unfinished(&self) -> Vec<u8> {
        self.write(Checksum::Partial)
    }

    /// The header in front of a super-packet with `size` bytes of payload a segment.
    pub(crate) fn gso(&self, size: u16) -> VirtioNetHeader {
        let gso_type = match (&self.ip, &self.transport) {
            (Ip::V4(_), Transport::Tcp(_)) => VirtioNetHeader::GSO_TCPV4,
            (Ip::V6(..), Transport::Tcp(_)) => VirtioNetHeader::GSO_TCPV6,
            (_, Transport::Udp { .. }) => VirtioNetHeader::GSO_UDP_L4,
        };
        let ecn = matches!(&self.transport, Transport::Tcp(tcp) if tcp.cwr);
        let gso_type = if ecn { gso_type | VirtioNetHeader::GSO_ECN } else { gso_type };
        let hdr_len = (self.ip_len() + self.transport_len()) as u16;
        VirtioNetHeader { gso_type, hdr_len, gso_size: size, ..self.needs_checksum() }
    }

    /// The header in front of one packet whose checksum is to be completed.
    pub(crate) fn needs_checksum(&self) -> VirtioNetHeader {
        let csum_offset = if matches!(self.transport, Transport::Tcp(_)) { 16 } else { 6 };
        let (flags, csum_start) = (VirtioNetHeader::NEEDS_CSUM, self.ip_len() as u16);
        VirtioNetHeader { flags, csum_start, csum_offset, ..VirtioNetHeader::default() }
    }

    /// Bytes in front of the transport header.
    pub(crate) fn ip_len(&self) -> usize {
        match &self.ip {
            Ip::V4(header) => header.header_len(),
            Ip::V6(_, extensions) => Ipv6Header::LEN + extensions.iter().map(|part| part.body.len() + 2).sum::<usize>(),
        }
    }

    /// Bytes of the transport header.
    pub(crate) fn transport_len(&self) -> usize {
        match &self.transport {
            Transport::Tcp(header) => header.header_len(),
            Transport::Udp { .. } => UdpHeader::LEN,
        }
    }

    /// The model of splitting: the packets that carry `self` in pieces of `size` bytes of payload.
    pub(crate) fn split(&self, size: usize) -> Vec<Vec<u8>> {
        let last = self.payload.len().div_ceil(size).max(1) - 1;
        let segment = |index: usize| {
            let payload = self.payload.chunks(size).nth(index).unwrap_or_default().to_vec();
            let mut segment = Self { ip: self.ip.clone(), transport: self.transport.clone(), payload };
            if let Ip::V4(header) = &mut segment.ip {
                header.identification = header.identification.wrapping_add(index as u16);
            }
            if let Transport::Tcp(header) = &mut segment.transport {
                header.sequence_number = header.sequence_number.wrapping_add((index * size) as u32);
                header.cwr &= index == 0;
                header.fin &= index == last;
                header.psh &= index == last;
            }
            segment.bytes()
        };
        (0..=last).map(segment).collect()
    }

    /// Reads a packet without padding; `None` for what the model has no parts for (fragments among it).
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (ip, protocol, rest) = match bytes.first()? >> 4 {
            4 => {
                let (header, rest) = Ipv4Header::from_slice(bytes).ok()?;
                if usize::from(header.total_len) != bytes.len() || header.is_fragmenting_payload() {
                    return None;
                }
                let protocol = header.protocol;
                (Ip::V4(header), protocol, rest)
            }
            6 => {
                let (header, mut rest) = Ipv6Header::from_slice(bytes).ok()?;
                if usize::from(header.payload_length) != rest.len() {
                    return None;
                }
                let (mut extensions, mut protocol) = (Vec::new(), header.next_header);
                while EXTENSIONS.contains(&protocol) {
                    let (extension, behind) = Ipv6RawExtHeader::from_slice(rest).ok()?;
                    extensions.push(Extension { kind: protocol, body: extension.payload().to_vec() });
                    (protocol, rest) = (extension.next_header, behind);
                }
                (Ip::V6(header, extensions), protocol, rest)
            }
            _ => return None,
        };
        let (transport, payload) = match protocol {
            ip_number::TCP => {
                let (header, payload) = TcpHeader::from_slice(rest).ok()?;
                (Transport::Tcp(header), payload)
            }
            ip_number::UDP => {
                let (header, payload) = UdpHeader::from_slice(rest).ok()?;
                if usize::from(header.length) != rest.len() {
                    return None;
                }
                let UdpHeader { source_port: source, destination_port: destination, .. } = header;
                (Transport::Udp { source, destination }, payload)
            }
            _ => return None,
        };
        Some(Self { ip, transport, payload: payload.to_vec() })
    }

    fn write(&self, kind: Checksum) -> Vec<u8> {
        let transport = self.write_transport(kind);
        let mut bytes = Vec::new();
        match &self.ip {
            Ip::V4(header) => {
                let mut header = header.clone();
                header.protocol = self.protocol();
                header.total_len = u16::try_from(header.header_len() + transport.len()).unwrap();
                header.header_checksum = header.calc_header_checksum();
                header.write_raw(&mut bytes).unwrap();
            }
            Ip::V6(header, extensions) => {
                let kinds = extensions.iter().map(|extension| extension.kind).chain([self.protocol()]);
                let kinds: Vec<IpNumber> = kinds.collect();
                let mut header = header.clone();
                header.next_header = kinds[0];
                header.payload_length = u16::try_from(self.ip_len() - Ipv6Header::LEN + transport.len()).unwrap();
                header.write(&mut bytes).unwrap();
                for (extension, next) in extensions.iter().zip(&kinds[1..]) {
                    Ipv6RawExtHeader::new_raw(*next, &extension.body).unwrap().write(&mut bytes).unwrap();
                }
            }
        }
        bytes.extend(transport);
        bytes
    }

    fn write_transport(&self, kind: Checksum) -> Vec<u8> {
        let mut bytes = Vec::new();
        let len = self.transport_len() + self.payload.len();
        match &self.transport {
            Transport::Tcp(header) => {
                let mut header = header.clone();
                header.checksum = match (kind, &self.ip) {
                    (Checksum::Partial, _) => self.pseudo_header(len),
                    (_, Ip::V4(ip)) => header.calc_checksum_ipv4(ip, &self.payload).unwrap(),
                    (_, Ip::V6(ip, _)) => header.calc_checksum_ipv6(ip, &self.payload).unwrap(),
                };
                header.write(&mut bytes).unwrap();
            }
            Transport::Udp { source, destination } => {
                let (source_port, destination_port) = (*source, *destination);
                let length = u16::try_from(len).unwrap();
                let mut header = UdpHeader { source_port, destination_port, length, checksum: 0 };
                header.checksum = match (kind, &self.ip) {
                    (Checksum::Partial, _) => self.pseudo_header(len),
                    (_, Ip::V4(ip)) => header.calc_checksum_ipv4(ip, &self.payload).unwrap(),
                    (_, Ip::V6(ip, _)) => header.calc_checksum_ipv6(ip, &self.payload).unwrap(),
                };
                header.write(&mut bytes).unwrap();
            }
        }
        bytes.extend(&self.payload);
        bytes
    }

    /// The folded sum, not complemented, of the pseudo-header of a transport segment of `len` bytes.
    fn pseudo_header(&self, len: usize) -> u16 {
        let mut sum = Sum16BitWords::new().add_4bytes((len as u32).to_be_bytes()).add_2bytes([0, self.protocol().0]);
        let sum = match &self.ip {
            Ip::V4(header) => sum.add_4bytes(header.source).add_4bytes(header.destination),
            Ip::V6(header, _) => sum.add_16bytes(header.source).add_16bytes(header.destination),
        };
        // etherparse gives the complement in the memory's order of bytes.
        !sum.ones_complement().to_be()
    }

    fn protocol(&self) -> IpNumber {
        if matches!(self.transport, Transport::Tcp(_)) { ip_number::TCP } else { ip_number::UDP }
    }
}

/// Whether the checksums of a packet are right, added up word by word.
pub(crate) fn checksums_are_right(bytes: &[u8]) -> bool {
    let Some(packet) = Packet::parse(bytes) else { return false };
    let at = packet.ip_len();
    let header_is_right = matches!(packet.ip, Ip::V6(..)) || sum(&bytes[..at]) == 0xffff;
    // A checksum of zero says that there is none, which these packets never say.
    let none = matches!(packet.transport, Transport::Udp { .. }) && bytes[at + 6..at + 8] == [0, 0];
    let mut covered = packet.pseudo_header(bytes.len() - at).to_be_bytes().to_vec();
    covered.extend(&bytes[at..]);
    header_is_right && !none && sum(&covered) == 0xffff
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

const EXTENSIONS: [IpNumber; 3] =
    [ip_number::IPV6_HEADER_HOP_BY_HOP, ip_number::IPV6_ROUTE_HEADER, ip_number::IPV6_DESTINATION_OPTIONS];

//! Packets that follow each other in a flow become one that the kernel takes in one piece, and would split into the same
//! packets again.
//!
//! Joining never changes what arrives: only neighbours are joined, so nothing is reordered, and only if the kernel's
//! segmentation of the result is those very packets. Whoever joins says to the kernel that checksums are right, so they
//! are verified here. The rules are those of the kernel's own GRO (tcp_gro_receive in net/ipv4/tcp_offload.c,
//! inet_gro_receive in net/ipv4/af_inet.c), and stricter where it looks at more than one flow at a time.

use super::VirtioNetHeader;
use super::checksum;
use super::headers::{Headers, Transport, UDP_LEN, V6_PAYLOAD_LEN, Version, read_u16, read_u32, tcp, v4, write_u16};
use crate::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};

/// What the device takes in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// TCP over IPv4 and IPv6.
    pub tcp: bool,
    /// UDP datagrams of one size over IPv4 and IPv6.
    pub udp: bool,
}

/// A packet under construction: what the next one has to look like to continue it.
///
/// It holds no bytes. The caller keeps the first packet with its headers, and appends the payload of each packet that
/// [`append`](Self::append) accepts.
#[derive(Debug, Clone)]
pub struct Chain {
    headers: Headers,
    /// Payload of the first packet, and of all others but the last.
    size: usize,
    /// Length of everything so far.
    len: usize,
    segments: usize,
    /// TCP: the sequence number that continues it.
    sequence: u32,
    /// IPv4: the identification of the last packet, and how they go on.
    id: u16,
    ids: Ids,
    /// TCP: flags that only the last packet may carry.
    last_flags: u8,
    /// Nothing may follow.
    closed: bool,
}

/// How identifications of IPv4 go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// Each is one more than the last, as segmentation numbers them.
    Rising,
    /// All are the same. They mean nothing in packets that are never fragmented (RFC 6864 section 4.1).
    Fixed,
    /// There was one packet so far, and it must not be fragmented.
    Open,
}

impl Chain {
    /// Begins with `packet`, if that is one that others may be joined to. Nothing may be behind the packet.
    #[inline]
    pub fn begin(packet: &[u8], offloads: Offloads) -> Option<Self> {
        let headers = Headers::parse(packet)?;
        let plain = match headers.version {
            Version::V4 => headers.ip_len == IPV4_HEADER_LEN,
            Version::V6 => headers.ip_len == IPV6_HEADER_LEN,
        };
        let size = packet.len() - headers.len;
        let wanted = match headers.transport {
            Transport::Tcp => offloads.tcp && packet[headers.ip_len + tcp::FLAGS] & !tcp::ECE == tcp::ACK,
            Transport::Udp => offloads.udp,
        };
        // The longest packet has no room for another segment of its own size.
        if !plain || !wanted || size == 0 || packet.len() + 1 > MAX_LEN || !is_valid(packet, &headers) {
            return None;
        }
        let (mut id, mut ids) = (0, Ids::Rising);
        if headers.version == Version::V4 {
            id = read_u16(packet, v4::ID);
            if packet[6] & V4_DONT_FRAGMENT != 0 {
                ids = Ids::Open;
            }
        }
        let sequence = match headers.transport {
            Transport::Tcp => read_u32(packet, headers.ip_len + tcp::SEQUENCE).wrapping_add(size as u32),
            Transport::Udp => 0,
        };
        Some(Self { headers, size, len: packet.len(), segments: 1, sequence, id, ids, last_flags: 0, closed: false })
    }

    /// Length of the headers, in bytes: what a packet that continues this one has in front of its payload.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.headers.len
    }

    /// Length of the joined packet so far, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a chain has a packet from its beginning on")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Packets in it.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Whether nothing more can be joined.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether `packet` continues this one, whose first headers are `head`. If so, it has been counted, and the caller
    /// appends what `packet` has behind its headers.
    #[inline]
    pub fn append(&mut self, head: &[u8], packet: &[u8]) -> bool {
        let Headers { version, transport, ip_len, len: header_len, .. } = self.headers;
        let Some(payload) = packet.len().checked_sub(header_len) else { return false };
        if self.closed
            || payload == 0
            || payload > self.size
            || self.len + payload > MAX_LEN
            || head.len() < header_len
            || (transport == Transport::Udp && self.segments >= MAX_DATAGRAMS)
        {
            return false;
        }
        let (head, header) = (&head[..header_len], &packet[..header_len]);
        let same_ip = match version {
            // All but lengths, identification and checksum.
            Version::V4 => head[..2] == header[..2] && head[6..10] == header[6..10] && head[12..20] == header[12..20],
            Version::V6 => head[..4] == header[..4] && head[6..40] == header[6..40],
        };
        let (head, header) = (&head[ip_len..], &header[ip_len..]);
        let same_transport = match transport {
            // All but sequence number, checksum and the flags that the last one may carry.
            Transport::Tcp => {
                head[..4] == header[..4]
                    && read_u32(header, tcp::SEQUENCE) == self.sequence
                    && head[8..13] == header[8..13]
                    && head[tcp::FLAGS] == header[tcp::FLAGS] & !LAST_FLAGS
                    && head[14..16] == header[14..16]
                    && head[18..] == header[18..]
            }
            Transport::Udp => head[..4] == header[..4],
        };
        if !same_ip || !same_transport {
            return false;
        }
        let mut ids = self.ids;
        if version == Version::V4 {
            let id = read_u16(packet, v4::ID);
            ids = match (ids, id) {
                (Ids::Rising | Ids::Open, id) if id == self.id.wrapping_add(1) => Ids::Rising,
                (Ids::Fixed | Ids::Open, id) if id == self.id => Ids::Fixed,
                _ => return false,
            };
        }
        // Equal headers have equal shapes, so only the length can contradict them.
        if Headers::parse(packet) != Some(self.headers) || !is_valid(packet, &self.headers) {
            return false;
        }
        self.ids = ids;
        self.id = if ids == Ids::Rising { self.id.wrapping_add(1) } else { self.id };
        self.len += payload;
        self.segments += 1;
        self.closed = payload < self.size;
        if transport == Transport::Tcp {
            self.sequence = self.sequence.wrapping_add(payload as u32);
            self.last_flags = header[tcp::FLAGS] & LAST_FLAGS;
            self.closed |= self.last_flags != 0;
        }
        true
    }

    /// Makes the first packet's headers those of the joined packet, which is the whole of `packet`, and tells what to say
    /// of it to the kernel. A single packet stays as it is.
    #[inline]
    pub fn finish(&self, packet: &mut [u8]) -> VirtioNetHeader {
        if self.segments < 2 || packet.len() != self.len {
            return VirtioNetHeader::default();
        }
        let headers = &self.headers;
        // `append` keeps it below 65536.
        let total_len = self.len as u16;
        let transport_len = (self.len - headers.ip_len) as u16;
        match headers.version {
            Version::V4 => {
                write_u16(packet, v4::TOTAL_LEN, total_len);
                packet[v4::CHECKSUM..v4::CHECKSUM + 2].fill(0);
                let checksum = checksum::finish(checksum::sum(&packet[..headers.ip_len]));
                packet[v4::CHECKSUM..v4::CHECKSUM + 2].copy_from_slice(&checksum);
            }
            Version::V6 => write_u16(packet, V6_PAYLOAD_LEN, total_len - IPV6_HEADER_LEN as u16),
        }
        let gso_type = match (headers.transport, headers.version) {
            (Transport::Tcp, Version::V4) => VirtioNetHeader::GSO_TCPV4,
            (Transport::Tcp, Version::V6) => VirtioNetHeader::GSO_TCPV6,
            (Transport::Udp, _) => VirtioNetHeader::GSO_UDP_L4,
        };
        match headers.transport {
            Transport::Tcp => packet[headers.ip_len + tcp::FLAGS] |= self.last_flags,
            Transport::Udp => write_u16(packet, headers.ip_len + UDP_LEN, transport_len),
        }
        let pseudo = checksum::fold(headers.pseudo_header(packet) + checksum::word(transport_len));
        let field = headers.ip_len + headers.checksum_offset();
        packet[field..field + 2].copy_from_slice(&pseudo.to_ne_bytes());
        VirtioNetHeader {
            flags: VirtioNetHeader::NEEDS_CSUM,
            gso_type,
            hdr_len: headers.len as u16,
            gso_size: self.size as u16,
            csum_start: headers.ip_len as u16,
            csum_offset: headers.checksum_offset() as u16,
        }
    }
}

/// Whether all checksums of a packet are right and written as splitting writes them, and its UDP length is right.
///
/// Zero and 0xffff are the same number to a checksum. Of UDP's, splitting writes 0xffff, where zero would mean that there
/// is none (RFC 768); of others zero. In TCP some write 0xffff, Linux itself among them (skb_checksum_help).
#[inline]
fn is_valid(packet: &[u8], headers: &Headers) -> bool {
    let (ip, transport) = packet.split_at(headers.ip_len);
    if headers.version == Version::V4
        && (ip[v4::CHECKSUM..v4::CHECKSUM + 2] == [0xff, 0xff] || checksum::fold(checksum::sum(ip)) != 0xffff)
    {
        return false;
    }
    let len = transport.len() as u16;
    let field = headers.checksum_offset();
    let other_form = match headers.transport {
        Transport::Tcp => [0xff, 0xff],
        // Without a checksum there is nothing to verify, and the segments of the joined packet would be given one.
        Transport::Udp => [0, 0],
    };
    if transport[field..field + 2] == other_form
        || (headers.transport == Transport::Udp && read_u16(transport, UDP_LEN) != len)
    {
        return false;
    }
    let sum = headers.pseudo_header(packet) + checksum::word(len) + checksum::sum(transport);
    checksum::fold(sum) == 0xffff
}

/// The longest packet that the kernel takes: an IPv4 packet's total length has 16 bits.
const MAX_LEN: usize = 65_535;

/// Most datagrams that the kernel splits one packet into, until Linux 6.9 (UDP_MAX_SEGMENTS in include/linux/udp.h).
const MAX_DATAGRAMS: usize = 64;

/// Longest headers of a [`Chain`], in bytes: IPv6 without extension headers, and TCP with all options.
pub const MAX_CHAIN_HEADERS: usize = IPV6_HEADER_LEN + 60;

/// TCP flags with which a flow may end in the joined packet: segmentation keeps them for the last segment.
const LAST_FLAGS: u8 = tcp::FIN | tcp::PSH;

const V4_DONT_FRAGMENT: u8 = 0x40;

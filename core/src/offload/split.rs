//! One packet of up to 64 KiB becomes the packets that the kernel would have made of it.
//!
//! Nothing is copied but headers: the payload of segment `i` lies `i * gso_size` bytes behind that of the first, so its
//! headers are written right in front of it, over the end of the segment before, which has been used by then. That is
//! why segments are lent out one at a time. What comes out is what the kernel's own segmentation makes (tcp_gso_segment
//! in net/ipv4/tcp_offload.c, __udp_gso_segment in net/ipv4/udp_offload.c, inet_gso_segment in net/ipv4/af_inet.c).

use thiserror::Error;

use super::VirtioNetHeader;
use super::checksum;
use super::headers::{Headers, Transport, UDP_LEN, V6_PAYLOAD_LEN, Version, read_u16, read_u32, tcp, v4, write_u16};
use crate::packet::TunPacket;

/// A packet and what is still to be done to it: to be split, to be given its checksum, or nothing.
#[derive(Debug)]
pub struct Split<'a> {
    buffer: &'a mut [u8],
    /// Length of the packet.
    len: usize,
    /// The segment that comes next.
    next: usize,
    segments: usize,
    plan: Plan,
}

/// Why a packet is not what its offload header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// An offload that was not asked for, such as UDP fragmentation.
    #[error("an offload of type {0} is not one that was asked for")]
    Type(u8),
    /// The checksum would have to be written beyond the packet.
    #[error("the checksum field lies outside of the packet")]
    Checksum,
    /// The packet is not complete, a fragment, or of another protocol than the offload.
    #[error("the headers are not those of a packet that this offload is for")]
    Headers,
    /// No payload in a segment, or none in the packet.
    #[error("segments of {0} bytes do not divide this packet")]
    Size(u16),
    /// Headers longer than a header is ever long.
    #[error("headers of {0} bytes are too long to repeat")]
    TooLong(usize),
}

/// What is to be done.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lives on the stack for one packet, and a box would be an allocation")]
enum Plan {
    /// The packet is whole.
    Nothing,
    /// One checksum is to be completed, over everything from `start` on.
    Checksum { start: usize, field: usize },
    /// The packet is to be split.
    Segments(Segmentation),
}

#[derive(Debug)]
struct Segmentation {
    headers: Headers,
    /// Payload of each segment but the last.
    size: usize,
    payload: usize,
    /// The headers with zeros for everything that differs from segment to segment.
    template: [u8; MAX_HEADERS],
    /// Sum of the IPv4 header in the template.
    ip_sum: u64,
    /// Sum of the pseudo-header but for its length, and of the transport header in the template.
    transport_sum: u64,
    /// Of the first segment.
    id: u16,
    sequence: u32,
    flags: u8,
}

impl<'a> Split<'a> {
    /// Takes the first `len` bytes of `buffer` as a packet, and `header` as what the kernel says of it. Up to
    /// [`TunPacket::TAILROOM`] bytes behind the packet may be used for a moment, as with [`TunPacket`].
    ///
    /// # Errors
    /// [`Malformed`]: the header contradicts the packet. Nothing has been changed then.
    #[inline]
    pub fn new(buffer: &'a mut [u8], len: usize, header: VirtioNetHeader) -> Result<Self, Malformed> {
        let len = len.min(buffer.len());
        let packet = &buffer[..len];
        let (plan, segments) = match header.gso_type & !VirtioNetHeader::GSO_ECN {
            VirtioNetHeader::GSO_NONE if header.flags & VirtioNetHeader::NEEDS_CSUM == 0 => (Plan::Nothing, 1),
            VirtioNetHeader::GSO_NONE => (Plan::checksum(packet, header)?, 1),
            VirtioNetHeader::GSO_TCPV4 => Plan::segments(packet, header, Some(Version::V4), Transport::Tcp)?,
            VirtioNetHeader::GSO_TCPV6 => Plan::segments(packet, header, Some(Version::V6), Transport::Tcp)?,
            VirtioNetHeader::GSO_UDP_L4 => Plan::segments(packet, header, None, Transport::Udp)?,
            other => return Err(Malformed::Type(other)),
        };
        Ok(Self { buffer, len, next: 0, segments, plan })
    }

    /// Number of segments in all.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Length of the longest segment, in bytes.
    pub fn longest(&self) -> usize {
        match &self.plan {
            Plan::Nothing | Plan::Checksum { .. } => self.len,
            Plan::Segments(segmentation) => segmentation.headers.len + segmentation.size.min(segmentation.payload),
        }
    }

    /// The packet as it was read. Once the first segment was lent, only the first segment's headers are of use.
    pub fn first(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// The next segment, complete, at its place in the buffer.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend from itself")]
    #[inline]
    pub fn next(&mut self) -> Option<TunPacket<'_>> {
        if self.next >= self.segments {
            return None;
        }
        let index = self.next;
        self.next += 1;
        match &self.plan {
            Plan::Nothing => {}
            Plan::Checksum { start, field } => {
                // The field holds the pseudo-header's sum. A result of zero is written as ones, as the kernel does for
                // every protocol here (skb_checksum_help in net/core/dev.c).
                let checksum = checksum::finish_udp(checksum::sum(&self.buffer[*start..self.len]));
                self.buffer[*field..field + 2].copy_from_slice(&checksum);
            }
            Plan::Segments(segmentation) => {
                let start = index * segmentation.size;
                let payload = segmentation.size.min(segmentation.payload - start);
                let len = segmentation.headers.len + payload;
                let last = index + 1 == self.segments;
                segmentation.write(&mut self.buffer[start..start + len], index, last);
                return Some(TunPacket::new(&mut self.buffer[start..], len));
            }
        }
        Some(TunPacket::new(self.buffer, self.len))
    }
}

impl Plan {
    fn checksum(packet: &[u8], header: VirtioNetHeader) -> Result<Self, Malformed> {
        let start = usize::from(header.csum_start);
        let field = start + usize::from(header.csum_offset);
        if field + 2 > packet.len() {
            return Err(Malformed::Checksum);
        }
        Ok(Self::Checksum { start, field })
    }

    #[inline]
    fn segments(
        packet: &[u8],
        header: VirtioNetHeader,
        version: Option<Version>,
        transport: Transport,
    ) -> Result<(Self, usize), Malformed> {
        let headers = Headers::parse(packet)
            .filter(|found| found.transport == transport && version.is_none_or(|version| found.version == version))
            .ok_or(Malformed::Headers)?;
        let size = usize::from(header.gso_size);
        let payload = packet.len() - headers.len;
        if size == 0 || payload == 0 {
            return Err(Malformed::Size(header.gso_size));
        }
        if headers.len > MAX_HEADERS {
            return Err(Malformed::TooLong(headers.len));
        }
        Ok((Self::Segments(Segmentation::new(packet, headers, size)), payload.div_ceil(size)))
    }
}

impl Segmentation {
    #[inline]
    fn new(packet: &[u8], headers: Headers, size: usize) -> Self {
        let mut template = [0; MAX_HEADERS];
        template[..headers.len].copy_from_slice(&packet[..headers.len]);
        let mut id = 0;
        match headers.version {
            Version::V4 => {
                id = read_u16(packet, v4::ID);
                template[v4::TOTAL_LEN..v4::ID + 2].fill(0);
                template[v4::CHECKSUM..v4::CHECKSUM + 2].fill(0);
            }
            Version::V6 => write_u16(&mut template, V6_PAYLOAD_LEN, 0),
        }
        let ip_sum = checksum::sum(&template[..headers.ip_len]);

        let field = headers.ip_len + headers.checksum_offset();
        let pseudo = if headers.routed {
            // What the kernel left in the field is the only place that names the final destination; it counts the whole
            // packet's length, which is taken out again (in ones' complement, by adding its inverse).
            let whole = u16::try_from(packet.len() - headers.ip_len).unwrap_or(u16::MAX);
            checksum::sum(&packet[field..field + 2]) + checksum::word(!whole)
        } else {
            headers.pseudo_header(packet)
        };
        template[field..field + 2].fill(0);
        let (mut sequence, mut flags) = (0, 0);
        let transport = &mut template[headers.ip_len..headers.len];
        match headers.transport {
            Transport::Tcp => {
                sequence = read_u32(transport, tcp::SEQUENCE);
                flags = transport[tcp::FLAGS];
                transport[tcp::SEQUENCE..tcp::SEQUENCE + 4].fill(0);
                transport[tcp::FLAGS] = 0;
            }
            Transport::Udp => write_u16(transport, UDP_LEN, 0),
        }
        let transport_sum = pseudo + checksum::sum(transport);
        Self {
            headers,
            size,
            payload: packet.len() - headers.len,
            template,
            ip_sum,
            transport_sum,
            id,
            sequence,
            flags,
        }
    }

    /// Writes the headers of segment `index`, which `segment` holds with room for them.
    #[inline]
    fn write(&self, segment: &mut [u8], index: usize, last: bool) {
        let Headers { ip_len, len: header_len, .. } = self.headers;
        // A segment is a part of a packet whose length field had 16 bits, which for IPv6 leave its header out.
        let total_len = segment.len() as u16;
        let transport_len = (segment.len() - ip_len) as u16;
        let (header, payload) = segment.split_at_mut(header_len);
        header.copy_from_slice(&self.template[..header_len]);
        let (ip, transport) = header.split_at_mut(ip_len);
        match self.headers.version {
            Version::V4 => {
                let id = self.id.wrapping_add(index as u16);
                write_u16(ip, v4::TOTAL_LEN, total_len);
                write_u16(ip, v4::ID, id);
                let sum = self.ip_sum + checksum::word(total_len) + checksum::word(id);
                ip[v4::CHECKSUM..v4::CHECKSUM + 2].copy_from_slice(&checksum::finish(sum));
            }
            Version::V6 => write_u16(ip, V6_PAYLOAD_LEN, (ip_len - crate::ip::IPV6_HEADER_LEN) as u16 + transport_len),
        }

        let sum = self.transport_sum + checksum::word(transport_len) + checksum::sum(payload);
        let field = self.headers.checksum_offset();
        let checksum = match self.headers.transport {
            Transport::Tcp => {
                let sequence = self.sequence.wrapping_add((index * self.size) as u32);
                let mut flags = self.flags;
                if index > 0 {
                    flags &= !tcp::CWR;
                }
                if !last {
                    flags &= !(tcp::FIN | tcp::PSH);
                }
                transport[tcp::SEQUENCE..tcp::SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
                transport[tcp::FLAGS] = flags;
                let [high, low] = [(sequence >> 16) as u16, sequence as u16];
                checksum::finish(sum + checksum::word(high) + checksum::word(low) + checksum::word(flags.into()))
            }
            Transport::Udp => {
                write_u16(transport, UDP_LEN, transport_len);
                checksum::finish_udp(sum + checksum::word(transport_len))
            }
        };
        transport[field..field + 2].copy_from_slice(&checksum);
    }
}

/// Longest headers that are repeated: an IPv6 header, 192 bytes of extension headers and a full TCP header. Linux makes
/// super-packets with extension headers only where an application sets options itself.
const MAX_HEADERS: usize = 40 + 192 + 60;

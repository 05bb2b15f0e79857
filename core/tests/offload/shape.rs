//! Super-packets by numbers: every header length and flag that one can have, in a form that shrinks and prints well.

use etherparse::{IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, TcpHeader, ip_number};

use crate::packet::{Extension, Ip, Packet, Transport};

/// A super-packet and what its pieces are to carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    /// Options of IPv4, in words of four bytes, up to 10.
    pub(crate) ip_options: usize,
    /// Extension headers of IPv6: which one, and its length in bytes, a multiple of 8.
    pub(crate) extensions: Vec<(IpNumber, usize)>,
    /// Options of TCP, in words of four bytes, up to 10.
    pub(crate) tcp_options: usize,
    /// DSCP and ECN.
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) flow_label: u32,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) sequence: u32,
    /// The nine flags of TCP: [`FIN`] and others.
    pub(crate) flags: u16,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) payload: usize,
    /// Payload of a segment, the last one's aside.
    pub(crate) size: u16,
    /// Everything else: ports, options, payload.
    pub(crate) seed: u64,
    /// Whether options may hold any bytes, or only such as a router passes on without a look.
    pub(crate) wild_options: bool,
}

impl Default for Shape {
    /// TCP over IPv4 in three segments, the last of them short.
    fn default() -> Self {
        Self {
            v6: false,
            udp: false,
            ip_options: 0,
            extensions: Vec::new(),
            tcp_options: 3,
            tos: 0,
            ttl: 64,
            flow_label: 0,
            id: 0x1234,
            dont_fragment: true,
            sequence: 1_000_000,
            flags: ACK,
            window: 501,
            urgent: 0,
            payload: 2500,
            size: 1000,
            seed: 7,
            wild_options: true,
        }
    }
}

impl Shape {
    /// The super-packet; a payload that does not fit 65535 bytes with its headers is shortened.
    pub(crate) fn packet(&self) -> Packet {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let ports = (rng.u16(1024..), rng.u16(1..));
        let transport = if self.udp {
            Transport::Udp { source: ports.0, destination: ports.1 }
        } else {
            Transport::Tcp(self.tcp(ports, &mut rng))
        };
        let ip = if self.v6 { self.ipv6(&mut rng) } else { self.ipv4(&mut rng) };
        let mut packet = Packet { ip, transport, payload: Vec::new() };
        let most = 65535 - packet.ip_len() - packet.transport_len();
        packet.payload = std::iter::repeat_with(|| rng.u8(..)).take(self.payload.min(most)).collect();
        packet
    }

    fn tcp(&self, (source, destination): (u16, u16), rng: &mut fastrand::Rng) -> TcpHeader {
        let mut header = TcpHeader::new(source, destination, self.sequence, self.window);
        header.acknowledgment_number = rng.u32(..);
        header.urgent_pointer = self.urgent;
        let has = |flag| self.flags & flag != 0;
        (header.fin, header.syn, header.rst, header.psh) = (has(FIN), has(SYN), has(RST), has(PSH));
        (header.ack, header.urg, header.ece, header.cwr) = (has(ACK), has(URG), has(ECE), has(CWR));
        header.ns = has(NS);
        let options: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(self.tcp_options * 4).collect();
        header.set_options_raw(&options).unwrap();
        header
    }

    fn ipv4(&self, rng: &mut fastrand::Rng) -> Ip {
        // No operation, as often as needed.
        let option = |_| if self.wild_options { rng.u8(..) } else { 1 };
        let options: Vec<u8> = (0..self.ip_options * 4).map(option).collect();
        Ip::V4(Ipv4Header {
            dscp: IpDscp::try_new(self.tos >> 2).unwrap(),
            ecn: IpEcn::try_new(self.tos & 3).unwrap(),
            total_len: 0,
            identification: self.id,
            dont_fragment: self.dont_fragment,
            more_fragments: false,
            fragment_offset: IpFragOffset::ZERO,
            time_to_live: self.ttl,
            protocol: ip_number::TCP,
            header_checksum: 0,
            source: SOURCE4,
            destination: DESTINATION4,
            options: Ipv4Options::try_from(options.as_slice()).unwrap(),
        })
    }

    fn ipv6(&self, rng: &mut fastrand::Rng) -> Ip {
        let header = Ipv6Header {
            traffic_class: self.tos,
            flow_label: (self.flow_label & 0xf_ffff).try_into().unwrap(),
            payload_length: 0,
            next_header: ip_number::TCP,
            hop_limit: self.ttl,
            source: SOURCE6,
            destination: DESTINATION6,
        };
        let extension = |&(kind, len): &(IpNumber, usize)| {
            let mut body: Vec<u8> = if kind == ip_number::IPV6_ROUTE_HEADER {
                // Type 4, segment routing (RFC 8754), at its last segment: then the header's destination is the true one.
                let mut body = vec![0; len - 2];
                body[0] = 4;
                body
            } else {
                // One option for experiments that whoever does not know it skips (RFC 4727 section 3.6).
                let mut body = vec![0; len - 2];
                (body[0], body[1]) = (0x1e, (len - 4) as u8);
                body
            };
            if self.wild_options {
                body[2..].iter_mut().for_each(|byte| *byte = rng.u8(..));
            }
            Extension { kind, body }
        };
        Ip::V6(header, self.extensions.iter().map(extension).collect())
    }
}

pub(crate) const FIN: u16 = 1;
pub(crate) const SYN: u16 = 2;
pub(crate) const RST: u16 = 4;
pub(crate) const PSH: u16 = 8;
pub(crate) const ACK: u16 = 16;
pub(crate) const URG: u16 = 32;
pub(crate) const ECE: u16 = 64;
pub(crate) const CWR: u16 = 128;
/// Nonce sum (RFC 3540), today AE (RFC 9768).
pub(crate) const NS: u16 = 256;

/// Where the packets come from, and where they go.
pub(crate) const SOURCE4: [u8; 4] = [10, 98, 0, 2];
pub(crate) const DESTINATION4: [u8; 4] = [10, 99, 0, 2];
pub(crate) const SOURCE6: [u8; 16] = [0xfd, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub(crate) const DESTINATION6: [u8; 16] = [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

//! What goes through: packets of one size, or super-packets as a tun device with offloads gives them out.

use adit_core::offload::{Offloads, VirtioNetHeader};
use adit_tun::batch::PacketBatch;
use etherparse::PacketBuilder;

use crate::failure::{Failure, Outcome};

/// Kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// UDP over IPv4, so many bytes with all headers.
    Packets(usize),
    /// As much TCP over IPv4 as one read of the device can bring, to be cut into full packets.
    Super,
}

impl Load {
    /// Bytes of each packet that is sealed.
    pub(super) const fn packet_len(self) -> usize {
        match self {
            Self::Packets(len) => len,
            Self::Super => MTU,
        }
    }

    /// For the progress.
    pub(super) fn name(self) -> String {
        match self {
            Self::Packets(len) => format!("{len} B"),
            Self::Super => "super-packets".to_owned(),
        }
    }

    /// What the device says of each read.
    fn offload(self) -> VirtioNetHeader {
        match self {
            Self::Packets(_) => VirtioNetHeader::default(),
            Self::Super => VirtioNetHeader {
                flags: VirtioNetHeader::NEEDS_CSUM,
                gso_type: VirtioNetHeader::GSO_TCPV4,
                hdr_len: HEADERS as u16,
                gso_size: SEGMENT as u16,
                csum_start: IPV4_HEADER as u16,
                csum_offset: TCP_CHECKSUM,
            },
        }
    }

    /// What the device takes in one piece: nothing, so that each packet is measured by itself, or everything.
    pub(super) const fn joined(self) -> Offloads {
        let all = matches!(self, Self::Super);
        Offloads { tcp: all, udp: all }
    }

    /// The bytes that are the same after everything was split and joined: all, or what is behind the headers, for those
    /// of segments have lengths and checksums of their own.
    pub(super) fn lasting(self, packet: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Packets(_) => Some(packet),
            Self::Super => packet.get(HEADERS..),
        }
    }

    /// Packets that each read is cut into.
    pub(super) const fn segments(self) -> usize {
        match self {
            Self::Packets(_) => 1,
            Self::Super => SEGMENTS,
        }
    }

    /// One packet from [`A`] to [`B`] with a payload of random bytes.
    pub(super) fn packet(self, rng: &mut fastrand::Rng) -> Outcome<Vec<u8>> {
        let ip = PacketBuilder::ipv4(A, B, 64);
        let mut packet = Vec::new();
        let mut payload = |len: usize| std::iter::repeat_with(|| rng.u8(..)).take(len).collect::<Vec<_>>();
        match self {
            Self::Packets(len) => {
                let payload = payload(len.saturating_sub(IPV4_HEADER + UDP_HEADER));
                ip.udp(4096, 4097).write(&mut packet, &payload).map_err(Failure::failed)?;
            }
            Self::Super => {
                let tcp = ip.tcp(4096, 4097, 1, 65_535).ack(1).options_raw(TIMESTAMP).map_err(Failure::failed)?;
                let payload = payload(SEGMENTS * SEGMENT);
                tcp.write(&mut packet, &payload).map_err(Failure::failed)?;
            }
        }
        Ok(packet)
    }

    /// Fills a batch as a read of the device would, from packets that are taken in turn.
    pub(super) fn fill(self, batch: &mut PacketBatch, packets: &[Vec<u8>]) {
        batch.clear();
        for packet in packets.iter().cycle() {
            let Some(slot) = batch.slot() else { return };
            slot[..packet.len()].copy_from_slice(packet);
            batch.commit_offload(packet.len(), self.offload());
        }
    }
}

/// The host whose packets are sealed, and the one that gets them.
pub(super) const A: [u8; 4] = [10, 0, 0, 1];
pub(super) const B: [u8; 4] = [10, 0, 0, 2];

/// The engine's default.
const MTU: usize = 1420;

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// With the timestamps that nearly every connection has (RFC 7323).
const TCP_HEADER: usize = 20 + TIMESTAMP.len();
const HEADERS: usize = IPV4_HEADER + TCP_HEADER;
/// Where the checksum is in the header (RFC 9293 section 3.1).
const TCP_CHECKSUM: u16 = 16;
const TIMESTAMP: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1];

/// Payload of a full packet.
const SEGMENT: usize = MTU - HEADERS;

/// Full packets in what IPv4's length field allows for.
const SEGMENTS: usize = (u16::MAX as usize - HEADERS) / SEGMENT;

//! Any virtio header over any packet, and any list of packets: no panic, no byte too many or too few, and what was joined
//! is split into the packets that were.
//!
//! The input is a virtio header and a list of packets, most of them told by a few changes to an honest packet of a flow
//! with the checksums put right again, for no fuzzer would guess those.
#![no_main]

use adit_core::TunPacket;
use adit_core::ip::IpHeader;
use adit_core::offload::{Chain, Offloads, Split, VirtioNetHeader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((header, rest)) = data.split_first_chunk() else { return };
    let header = VirtioNetHeader::from_bytes(*header);
    let packets = packets(rest);
    for packet in &packets {
        split_honestly_or_not(packet, header);
    }
    join(&packets);
});

/// Splits `packet` with a header from outside, and with the right one for its first bytes changed by that.
fn split_honestly_or_not(packet: &[u8], lie: VirtioNetHeader) {
    check(packet, lie);
    let v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let udp = packet.get(if v6 { 6 } else { 9 }) == Some(&17);
    let truth = VirtioNetHeader {
        flags: VirtioNetHeader::NEEDS_CSUM,
        gso_type: match (udp, v6) {
            (true, _) => VirtioNetHeader::GSO_UDP_L4,
            (false, true) => VirtioNetHeader::GSO_TCPV6,
            (false, false) => VirtioNetHeader::GSO_TCPV4,
        },
        hdr_len: 0,
        gso_size: lie.gso_size,
        csum_start: if v6 { 40 } else { 20 },
        csum_offset: if udp { 6 } else { 16 },
    };
    check(packet, truth);
    check(packet, VirtioNetHeader { gso_size: lie.gso_size % 64, ..truth });
    check(packet, VirtioNetHeader { gso_type: VirtioNetHeader::GSO_NONE, csum_start: lie.csum_start % 64, ..truth });
}

fn check(packet: &[u8], header: VirtioNetHeader) {
    let Some(segments) = split(packet, header) else { return };
    if header.gso_type & !VirtioNetHeader::GSO_ECN == VirtioNetHeader::GSO_NONE {
        assert!(segments.len() == 1 && segments[0].len() == packet.len());
        return;
    }
    let size = usize::from(header.gso_size);
    let headers = match segments.len() {
        1 => return assert_eq!(segments[0].len(), packet.len()),
        _ => segments[0].len() - size,
    };
    let payload: Vec<u8> = segments.iter().flat_map(|segment| &segment[headers..]).copied().collect();
    assert_eq!(payload, packet[headers..], "the payload comes out once and in order");
    for (index, segment) in segments.iter().enumerate() {
        assert_eq!(IpHeader::parse(segment).expect("a segment is a packet").total_len, segment.len());
        assert!(index + 1 == segments.len() || segment.len() == headers + size);
    }
}

fn split(packet: &[u8], header: VirtioNetHeader) -> Option<Vec<Vec<u8>>> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + TunPacket::TAILROOM, 0xa5);
    let mut segments = Vec::new();
    {
        let mut split = Split::new(&mut buffer, packet.len(), header).ok()?;
        let (count, longest) = (split.segments(), split.longest());
        while let Some(segment) = split.next() {
            segments.push(segment.bytes().to_vec());
        }
        assert_eq!((segments.len(), segments.iter().map(Vec::len).max()), (count, Some(longest)));
    }
    assert!(buffer[packet.len()..].iter().all(|byte| *byte == 0xa5), "nothing is written behind the packet");
    Some(segments)
}

/// Joins whatever can be joined, each packet to the one before it, and splits it again.
fn join(packets: &[Vec<u8>]) {
    let mut open: Option<(Chain, Vec<u8>, usize)> = None;
    for (index, packet) in packets.iter().enumerate() {
        if let Some((chain, bytes, _)) = &mut open {
            let header_len = chain.header_len();
            if chain.append(&bytes[..header_len], packet) {
                bytes.extend(&packet[header_len..]);
                continue;
            }
        }
        if let Some((chain, bytes, first)) = open.take() {
            undo(&chain, bytes, &packets[first..index]);
        }
        open = Chain::begin(packet, Offloads { tcp: true, udp: true }).map(|chain| (chain, packet.clone(), index));
    }
    if let Some((chain, bytes, first)) = open {
        undo(&chain, bytes, &packets[first..]);
    }
}

fn undo(chain: &Chain, mut bytes: Vec<u8>, packets: &[Vec<u8>]) {
    assert_eq!((chain.len(), chain.segments()), (bytes.len(), packets.len()));
    let header = chain.finish(&mut bytes);
    let again = split(&bytes, header).expect("what was joined can be split");
    assert_eq!(again.len(), packets.len());
    let same_id = packets[0][0] >> 4 == 4 && packets.iter().all(|packet| packet[4..6] == packets[0][4..6]);
    for (again, packet) in again.iter().zip(packets) {
        if same_id && packets.len() > 1 {
            assert!(packet[6] & 0x40 != 0, "only what must not be fragmented may have one identification");
            assert_eq!((&again[..4], &again[6..10], &again[12..]), (&packet[..4], &packet[6..10], &packet[12..]));
        } else {
            assert_eq!(again, packet);
        }
    }
}

/// Packets by a list of records.
///
/// A record begins with a byte of flags. With bit 2, another tells the length and the packet's bytes follow. Otherwise
/// bit 0 means IPv6 and bit 1 UDP, the next byte is the length of the payload, bit 3 keeps the identification of the
/// packet before, and as many changes follow as the upper three bits say: where, and which bits. Bit 4 leaves the
/// checksums as they are after that.
fn packets(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let (mut sequence, mut id) = (u32::MAX - 1000, u16::MAX - 1);
    while let [flags, len, rest @ ..] = data
        && packets.len() < 200
    {
        if flags & 4 != 0 {
            let (bytes, rest) = rest.split_at(rest.len().min((*len).into()));
            packets.push(bytes.to_vec());
            data = rest;
            continue;
        }
        id = id.wrapping_add(u16::from(flags & 8 == 0));
        let mut packet = honest(flags & 1 != 0, flags & 2 != 0, *len, sequence, id);
        sequence = sequence.wrapping_add((*len).into());
        let (changes, rest) = rest.split_at(rest.len().min(usize::from(flags >> 5) * 2));
        for change in changes.chunks_exact(2) {
            let at = usize::from(change[0]) % packet.len();
            packet[at] ^= change[1];
        }
        if flags & 16 == 0 {
            put_checksums_right(&mut packet);
        }
        packets.push(packet);
        data = rest;
    }
    packets
}

fn honest(v6: bool, udp: bool, payload: u8, sequence: u32, id: u16) -> Vec<u8> {
    let protocol = if udp { 17 } else { 6 };
    let len = u16::from(payload) + if udp { 8 } else { 32 };
    let mut packet = Vec::new();
    if v6 {
        packet.extend([0x60, 0, 0, 0]);
        packet.extend(len.to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend([0xfd; 32]);
    } else {
        packet.extend([0x45, 0]);
        packet.extend((len + 20).to_be_bytes());
        packet.extend(id.to_be_bytes());
        packet.extend([0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    packet.extend([0x12, 0x34, 0, 80]);
    if udp {
        packet.extend(len.to_be_bytes());
        packet.extend([0, 0]);
    } else {
        packet.extend(sequence.to_be_bytes());
        packet.extend([1, 2, 3, 4, 0x80, 0x10, 1, 0, 0, 0, 0, 0]);
        packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    }
    packet.extend((0..payload).map(|byte| byte ^ sequence as u8));
    packet
}

fn put_checksums_right(packet: &mut [u8]) {
    let (at, protocol, addresses) = match packet[0] >> 4 {
        4 => {
            let len = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
            packet[10..12].fill(0);
            let checksum = !sum(0, &packet[..len]);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            (len, packet[9], 12..20)
        }
        6 if packet.len() >= 40 => (40, packet[6], 8..40),
        _ => return,
    };
    let field = match protocol {
        6 => at + 16,
        17 => at + 6,
        _ => return,
    };
    if packet.len() < field + 2 {
        return;
    }
    packet[field..field + 2].fill(0);
    let pseudo = (packet.len() - at) as u64 + u64::from(protocol) + u64::from(sum(0, &packet[addresses]));
    let checksum = match !sum(pseudo, &packet[at..]) {
        0 if protocol == 17 => 0xffff,
        checksum => checksum,
    };
    packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn sum(first: u64, bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)));
    let mut sum = words.fold(first, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

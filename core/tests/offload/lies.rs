//! Headers that lie and packets that are none: an error or the right result, and never anything else.

use adit_core::offload::VirtioNetHeader;
use etherparse::ip_number::{IPV6_FRAGMENTATION_HEADER, IPV6_HEADER_HOP_BY_HOP};
use proptest::prelude::*;

use crate::ours;
use crate::packet::Packet;
use crate::shape::Shape;
use crate::strategy::super_packet;

fn kinds() -> [Shape; 4] {
    [(false, false), (true, false), (false, true), (true, true)].map(|(v6, udp)| Shape { v6, udp, ..Shape::default() })
}

fn refused(what: &str, bytes: &[u8], header: VirtioNetHeader) {
    let result = ours::split(bytes, header);
    assert!(result.is_err(), "{what}: {} segments of {header:?}", result.unwrap().len());
}

#[test]
fn a_size_of_nothing_is_refused() {
    for kind in kinds() {
        let packet = kind.packet();
        refused("gso_size 0", &packet.unfinished(), packet.gso(0));
    }
}

#[test]
fn a_size_larger_than_the_packet_means_one_segment() {
    for kind in kinds() {
        let packet = kind.packet();
        for size in [2500, 2501, 4000, 65535] {
            let result = ours::split(&packet.unfinished(), packet.gso(size));
            assert_eq!(result, Ok(vec![packet.bytes()]), "{kind:?} {size}");
        }
    }
}

#[test]
fn a_super_packet_without_payload_is_refused_or_one_packet() {
    for kind in kinds() {
        let packet = Shape { payload: 0, ..kind }.packet();
        if let Ok(segments) = ours::split(&packet.unfinished(), packet.gso(1000)) {
            assert_eq!(segments, [packet.bytes()]);
        }
    }
}

#[test]
fn a_checksum_beyond_the_packet_is_refused() {
    for kind in kinds() {
        let packet = kind.packet();
        let (bytes, len) = (packet.unfinished(), packet.unfinished().len() as u16);
        for (csum_start, csum_offset) in [
            (len, 0),
            (len - 1, 0),
            (len - 2, 1),
            (len, 16),
            (0, len),
            (0, len - 1),
            (65535, 65535),
            (65535, 16),
            (20, 65535),
            (1, 65535),
        ] {
            let header = VirtioNetHeader { csum_start, csum_offset, ..packet.needs_checksum() };
            refused("a checksum beyond the packet", &bytes, header);
        }
        let last = VirtioNetHeader { csum_start: 0, csum_offset: len - 2, ..packet.needs_checksum() };
        assert!(ours::split(&bytes, last).is_ok(), "the last word may be a checksum");
    }
}

#[test]
fn a_lying_checksum_position_changes_no_segment() {
    for kind in kinds() {
        let packet = kind.packet();
        for (csum_start, csum_offset) in [(0, 0), (65535, 16), (20, 65535), (65535, 65535), (19, 16), (41, 6)] {
            let header = VirtioNetHeader { csum_start, csum_offset, ..packet.gso(1000) };
            if let Ok(segments) = ours::split(&packet.unfinished(), header) {
                assert_eq!(segments, packet.split(1000), "{header:?}");
            }
        }
    }
}

#[test]
fn a_super_packet_whose_checksum_nobody_asked_for_is_refused_or_right() {
    for kind in kinds() {
        let packet = kind.packet();
        let header = VirtioNetHeader { flags: 0, ..packet.gso(1000) };
        for bytes in [packet.bytes(), packet.unfinished()] {
            if let Ok(segments) = ours::split(&bytes, header) {
                assert_eq!(segments, packet.split(1000));
            }
        }
    }
}

#[test]
fn a_type_that_is_not_the_packet_s_is_refused() {
    let types = |shape: &Shape| -> Vec<u8> {
        let right = shape.packet().gso(1).gso_type;
        (0..=255).filter(|kind| kind & !VirtioNetHeader::GSO_ECN != right && *kind & 0x7f != 0).collect()
    };
    for kind in kinds() {
        let packet = kind.packet();
        for gso_type in types(&kind) {
            refused("a wrong type", &packet.unfinished(), VirtioNetHeader { gso_type, ..packet.gso(1000) });
        }
    }
}

#[test]
fn truncated_packets_are_refused() {
    for kind in kinds() {
        let packet = Shape { ip_options: 2, payload: 50, size: 20, ..kind }.packet();
        let bytes = packet.unfinished();
        for len in 0..bytes.len() {
            refused(&format!("{len} of {} bytes", bytes.len()), &bytes[..len], packet.gso(20));
            // For a checksum alone the position is all that matters.
            let _ = ours::split(&bytes[..len], packet.needs_checksum());
        }
    }
}

#[test]
fn bytes_behind_the_packet_never_become_payload() {
    for kind in kinds() {
        let packet = Shape { payload: 50, size: 20, ..kind }.packet();
        let mut bytes = packet.unfinished();
        bytes.extend([0x77; 33]);
        if let Ok(segments) = ours::split(&bytes, packet.gso(20)) {
            assert_eq!(segments, packet.split(20));
        }
    }
}

#[test]
fn lying_lengths_inside_the_packet_are_refused() {
    for kind in kinds() {
        let packet = kind.packet();
        let at = packet.ip_len();
        let lie = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = packet.unfinished();
            change(&mut bytes);
            refused(&format!("{what} in {kind:?}"), &bytes, packet.gso(1000));
        };
        lie("version 5", &|bytes| bytes[0] = bytes[0] & 0x0f | 0x50);
        let other_version = if kind.v6 { 0x45 } else { 0x65 };
        lie("the other version", &|bytes| bytes[0] = other_version);
        lie("another protocol", &|bytes| bytes[if kind.v6 { 6 } else { 9 }] = 1);
        if kind.v6 {
            lie("IPv6 with a length of zero, a jumbogram", &|bytes| bytes[4..6].fill(0));
            lie("IPv6 longer than it is", &|bytes| bytes[4..6].fill(0xff));
        } else {
            lie("IPv4 with a header of 16 bytes", &|bytes| bytes[0] = 0x44);
            lie("IPv4 with a total length of zero", &|bytes| bytes[2..4].fill(0));
            lie("IPv4 longer than it is", &|bytes| bytes[2..4].fill(0xff));
            lie("IPv4 shorter than its headers", &|bytes| bytes[2..4].copy_from_slice(&25u16.to_be_bytes()));
        }
        if !kind.udp {
            lie("TCP with a header of 16 bytes", &|bytes| bytes[at + 12] = 0x40);
            lie("TCP with no header", &|bytes| bytes[at + 12] = 0);
        }
    }
    let short = Shape { payload: 5, tcp_options: 0, ..Shape::default() }.packet();
    let mut bytes = short.unfinished();
    bytes[32] = 0xf0;
    refused("TCP options beyond the packet", &bytes, short.gso(2));
}

#[test]
fn a_udp_length_that_lies_is_refused_or_put_right() {
    for v6 in [false, true] {
        let packet = Shape { v6, udp: true, ..Shape::default() }.packet();
        for length in [0, 7, 8, 1000, 65535] {
            let mut bytes = packet.unfinished();
            let at = packet.ip_len() + 4;
            bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(length));
            if let Ok(segments) = ours::split(&bytes, packet.gso(1000)) {
                assert_eq!(segments, packet.split(1000));
            }
        }
    }
}

#[test]
fn fragments_are_not_split() {
    for udp in [false, true] {
        for (at, bits) in [(6, 0x20), (6, 0x1f), (7, 0x01)] {
            let packet = Shape { udp, dont_fragment: false, ..Shape::default() }.packet();
            let mut bytes = packet.unfinished();
            bytes[at] |= bits;
            refused("a fragment of IPv4", &bytes, packet.gso(1000));
        }
        // An atomic fragment (RFC 6946) among them.
        for offset_and_flags in [[0, 0], [0, 1], [0, 8]] {
            let extensions = vec![(IPV6_HEADER_HOP_BY_HOP, 8)];
            let packet = Shape { v6: true, udp, extensions, ..Shape::default() }.packet();
            let mut bytes = packet.unfinished();
            bytes[6] = IPV6_FRAGMENTATION_HEADER.0;
            bytes[41] = 0;
            bytes[42..44].copy_from_slice(&offset_and_flags);
            refused("a fragment of IPv6", &bytes, packet.gso(1000));
        }
    }
}

#[test]
fn chains_of_extension_headers_that_never_end_are_refused() {
    let extensions = vec![(IPV6_HEADER_HOP_BY_HOP, 8)];
    let packet = Shape { v6: true, extensions, ..Shape::default() }.packet();
    let mut bytes = packet.unfinished();
    // Destination options to the end of the packet, each eight bytes long.
    bytes[40..].fill(0);
    bytes[6] = 60;
    bytes[40..].chunks_mut(8).for_each(|header| header[0] = 60);
    refused("nothing but extension headers", &bytes, packet.gso(1000));
    let mut bytes = packet.unfinished();
    bytes[41] = 255;
    refused("an extension header of 2048 bytes", &bytes, packet.gso(1000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        header: [u8; VirtioNetHeader::LEN],
        gso_type in prop_oneof![Just(0u8), Just(1), Just(4), Just(5), any::<u8>()],
    ) {
        let header = VirtioNetHeader { gso_type, ..VirtioNetHeader::from_bytes(header) };
        let _ = ours::split(&bytes, header);
        let _ = ours::join(&[bytes.clone(), bytes], ours::ALL);
    }

    #[test]
    fn small_lies_never_panic_nor_lose_payload(
        shape in super_packet(),
        lies in proptest::collection::vec((0..200usize, any::<u8>()), 1..4),
        header in proptest::option::of(any::<[u8; VirtioNetHeader::LEN]>()),
    ) {
        let packet = shape.packet();
        let mut bytes = packet.unfinished();
        let len = bytes.len();
        let headers = packet.ip_len() + packet.transport_len();
        lies.iter().for_each(|(at, value)| bytes[at % headers.min(len)] ^= value);
        let gso_type = packet.gso(1).gso_type;
        let header = match header {
            Some(header) => VirtioNetHeader { gso_type, ..VirtioNetHeader::from_bytes(header) },
            None => packet.gso(shape.size),
        };
        if let Ok(segments) = ours::split(&bytes, header) {
            // Whatever the headers say now, what is behind them comes out once, in order, in pieces of the size told.
            let size = usize::from(header.gso_size);
            let payload: usize = len - (segments[0].len() - size.min(segments[0].len()));
            let repeated = segments[0].len().checked_sub(size);
            if segments.len() > 1 {
                let repeated = repeated.expect("a first segment is full");
                prop_assert_eq!(payload, len - repeated);
                let pieces: Vec<u8> = segments.iter().flat_map(|segment| &segment[repeated..]).copied().collect();
                prop_assert_eq!(&pieces, &bytes[repeated..]);
                prop_assert!(segments[..segments.len() - 1].iter().all(|segment| segment.len() == repeated + size));
            } else {
                prop_assert_eq!(segments[0].len(), len);
            }
            // If the model can read it, it is the model's result, but for the bits that the model does not know.
            if let Some(read) = Packet::parse(&bytes)
                && read.unfinished() == bytes
            {
                prop_assert_eq!(segments, read.split(size));
            }
        }
    }
}

//! Splitting: byte for byte what the model says, for every header and every length.

use adit_core::offload::VirtioNetHeader;
use etherparse::ip_number::{IPV6_DESTINATION_OPTIONS, IPV6_HEADER_HOP_BY_HOP, IPV6_ROUTE_HEADER};
use proptest::prelude::*;

use crate::ours;
use crate::packet::{Ip, Packet, checksums_are_right};
use crate::shape::{ACK, CWR, ECE, FIN, NS, PSH, Shape, URG};
use crate::strategy::super_packet;

/// Splits by both and compares.
fn compare(shape: &Shape) -> Vec<Vec<u8>> {
    let packet = shape.packet();
    let expected = packet.split(shape.size.into());
    let segments = ours::split(&packet.unfinished(), packet.gso(shape.size)).expect("an honest super-packet");
    assert_eq!(segments.len(), expected.len(), "{shape:?}");
    for (index, (segment, expected)) in segments.iter().zip(&expected).enumerate() {
        assert!(segment == expected, "segment {index} of {shape:?}\n{segment:02x?}\nis not\n{expected:02x?}");
        assert!(checksums_are_right(segment), "segment {index} of {shape:?}");
    }
    segments
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn segments_are_those_of_the_model(shape in super_packet()) {
        compare(&shape);
    }

    #[test]
    fn a_missing_checksum_is_completed_and_nothing_else_changed(shape in super_packet()) {
        let packet = shape.packet();
        let segments = ours::split(&packet.unfinished(), packet.needs_checksum()).unwrap();
        let mut expected = packet.bytes();
        // The kernel does not look at the protocol here (skb_checksum_help in net/core/dev.c): a zero becomes ones, which
        // UDP needs and TCP bears.
        let at = packet.ip_len() + usize::from(packet.needs_checksum().csum_offset);
        if expected[at..at + 2] == [0, 0] {
            expected[at..at + 2].fill(0xff);
        }
        prop_assert_eq!(&segments, &[expected]);
    }

    #[test]
    fn what_is_whole_stays_as_it_is(bytes in proptest::collection::vec(any::<u8>(), 1..2000), data_valid: bool) {
        // DATA_VALID says that a checksum was verified, not that there is something to do.
        let header = VirtioNetHeader { flags: if data_valid { 2 } else { 0 }, ..VirtioNetHeader::default() };
        prop_assert_eq!(ours::split(&bytes, header).unwrap(), &[bytes]);
    }

    #[test]
    fn the_length_of_headers_that_the_kernel_tells_is_a_hint(shape in super_packet(), hdr_len: u16) {
        let packet = shape.packet();
        let header = VirtioNetHeader { hdr_len, ..packet.gso(shape.size) };
        let segments = ours::split(&packet.unfinished(), header);
        // Linux itself tells less (the linear part of the buffer) or more; who relies on it is wrong.
        prop_assert_eq!(segments, Ok(packet.split(shape.size.into())));
    }
}

/// The four kinds of super-packets.
fn kinds() -> [Shape; 4] {
    [(false, false), (true, false), (false, true), (true, true)].map(|(v6, udp)| Shape { v6, udp, ..Shape::default() })
}

#[test]
fn every_length_around_a_multiple_is_split_right() {
    for kind in kinds() {
        for size in [1, 2, 3, 15, 16, 17, 536, 1448] {
            for payload in [1, size - 1, size, size + 1, 2 * size - 1, 2 * size, 2 * size + 1, 3 * size, 5 * size + 1] {
                compare(&Shape { payload: payload.max(1).into(), size, ..kind.clone() });
            }
        }
    }
}

#[test]
fn every_length_of_headers_is_split_right() {
    for kind in kinds() {
        for tcp_options in 0..=10 {
            for ip_options in 0..=10 {
                compare(&Shape { ip_options, tcp_options, payload: 100, size: 33, ..kind.clone() });
            }
        }
    }
}

#[test]
fn extension_headers_of_ipv6_are_repeated() {
    let lists: [&[_]; 6] = [
        &[(IPV6_HEADER_HOP_BY_HOP, 8)],
        &[(IPV6_DESTINATION_OPTIONS, 8)],
        &[(IPV6_DESTINATION_OPTIONS, 64)],
        &[(IPV6_ROUTE_HEADER, 24)],
        &[(IPV6_HEADER_HOP_BY_HOP, 16), (IPV6_DESTINATION_OPTIONS, 24)],
        &[
            (IPV6_HEADER_HOP_BY_HOP, 8),
            (IPV6_DESTINATION_OPTIONS, 8),
            (IPV6_ROUTE_HEADER, 24),
            (IPV6_DESTINATION_OPTIONS, 16),
        ],
    ];
    for list in lists {
        for udp in [false, true] {
            compare(&Shape { v6: true, udp, extensions: list.to_vec(), ..Shape::default() });
        }
    }
}

#[test]
fn flags_go_to_the_segments_that_may_have_them() {
    for v6 in [false, true] {
        for flags in 0..512 {
            let flags = ACK | flags & (FIN | PSH | URG | ECE | CWR | NS);
            let segments = compare(&Shape { v6, flags, urgent: 9, ..Shape::default() });
            let of = |index: usize| {
                let packet = Packet::parse(&segments[index]).unwrap();
                u16::from_be_bytes([segments[index][packet.ip_len() + 12], segments[index][packet.ip_len() + 13]])
                    & 0x1ff
            };
            // Said once more without the model.
            assert_eq!(of(0), flags & !(FIN | PSH));
            assert_eq!(of(1), flags & !(FIN | PSH | CWR));
            assert_eq!(of(2), flags & !CWR);
        }
    }
}

#[test]
fn a_packet_that_is_one_segment_keeps_all_its_flags() {
    let flags = ACK | FIN | PSH | CWR | ECE;
    for payload in [1, 999, 1000] {
        let segments = compare(&Shape { flags, payload, ..Shape::default() });
        assert_eq!(segments.len(), 1);
        assert_eq!(segments[0][20 + 13], (flags & 0xff) as u8);
    }
}

#[test]
fn reserved_bits_and_odd_flags_of_ip_are_copied() {
    // etherparse has no field for these: the three reserved bits of TCP, and the reserved flag of IPv4.
    let packet = Shape::default().packet();
    let mut bytes = packet.unfinished();
    bytes[6] |= 0x80;
    bytes[20 + 12] |= 0b1110;
    bytes[10..12].fill(0);
    let segments = ours::split(&bytes, packet.gso(1000)).unwrap();
    for (segment, plain) in segments.iter().zip(packet.split(1000)) {
        assert_eq!((segment[6], segment[32]), (plain[6] | 0x80, plain[32] | 0b1110));
        let word = |bytes: &[u8], at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        for (sum, added) in [(10, 0x8000), (36, 0x0e00)] {
            let expected = (word(&plain, sum) + 0xffff - added - 1) % 0xffff + 1;
            assert_eq!(word(segment, sum) % 0xffff, expected % 0xffff, "the checksum at {sum}");
        }
        assert_eq!(segment.len(), plain.len());
    }
}

#[test]
fn identifications_and_sequence_numbers_wrap() {
    for dont_fragment in [false, true] {
        for id in [0, 0xfffe, 0xffff] {
            let shape = Shape { id, dont_fragment, sequence: u32::MAX - 1500, ..Shape::default() };
            let segments = compare(&shape);
            let ids: Vec<u16> = segments.iter().map(|bytes| u16::from_be_bytes([bytes[4], bytes[5]])).collect();
            assert_eq!(ids, [id, id.wrapping_add(1), id.wrapping_add(2)]);
        }
    }
}

#[test]
fn the_longest_packets_are_split() {
    for kind in kinds() {
        for size in [1, 1448, 9000, 32_000, 65_000, 65_535] {
            let shape = Shape { payload: 65_535, size, ..kind.clone() };
            assert_eq!(shape.packet().unfinished().len(), 65_535);
            compare(&shape);
        }
    }
}

#[test]
fn packets_of_ipv6_may_be_longer_by_their_header() {
    // Its length field leaves the header out. No tun device hands out so much, but nobody else need know.
    for udp in [false, true] {
        for total in [65_536, 65_537, 65_574, 65_575] {
            let mut packet = Shape { v6: true, udp, ..Shape::default() }.packet();
            packet.payload = vec![0x5a; total - packet.ip_len() - packet.transport_len()];
            assert_eq!(packet.unfinished().len(), total);
            for size in [65_535, 65_000, 1000] {
                assert_eq!(ours::split(&packet.unfinished(), packet.gso(size)), Ok(packet.split(size.into())));
            }
            assert_eq!(compare_groups(&packet), 2, "and joining keeps to 65535 bytes");
        }
    }
}

/// In how many pieces two packets with half of the payload each are joined.
fn compare_groups(packet: &Packet) -> usize {
    ours::join(&packet.split(packet.payload.len().div_ceil(2)), ours::ALL).len()
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_ones() {
    for v6 in [false, true] {
        let mut packet = Shape { v6, udp: true, payload: 300, size: 100, ..Shape::default() }.packet();
        // With its own checksum as its last word, a datagram's sum is all ones and its checksum zero.
        for segment in 0..3 {
            let at = segment * 100..segment * 100 + 100;
            packet.payload[at.end - 2..at.end].fill(0);
            let alone = Packet { payload: packet.payload[at.clone()].to_vec(), ..packet.clone() }.bytes();
            let sum = packet.ip_len() + 6;
            packet.payload[at.end - 2..at.end].copy_from_slice(&alone[sum..sum + 2]);
        }
        let segments = ours::split(&packet.unfinished(), packet.gso(100)).unwrap();
        assert_eq!(segments, packet.split(100));
        for segment in segments {
            assert_eq!(segment[packet.ip_len() + 6..][..2], [0xff, 0xff]);
        }
        let alone = Packet { payload: packet.payload[..100].to_vec(), ..packet };
        assert_eq!(ours::split(&alone.unfinished(), alone.needs_checksum()).unwrap(), [alone.bytes()]);
    }
}

#[test]
fn a_tcp_checksum_of_zero_stays_zero_in_segments() {
    for v6 in [false, true] {
        let mut packet = Shape { v6, payload: 300, size: 100, ..Shape::default() }.packet();
        let at = packet.ip_len() + 16;
        for index in 0..3 {
            let last = index * 100 + 98;
            packet.payload[last..last + 2].fill(0);
            let alone = packet.split(100).swap_remove(index);
            packet.payload[last..last + 2].copy_from_slice(&alone[at..at + 2]);
        }
        let segments = ours::split(&packet.unfinished(), packet.gso(100)).unwrap();
        assert_eq!(segments, packet.split(100));
        assert!(segments.iter().all(|segment| segment[at..at + 2] == [0, 0]));
    }
}

#[test]
fn a_routing_header_names_another_destination_than_the_checksum() {
    // The kernel puts the last destination's sum into the checksum, and the next router's address into the header
    // (RFC 8200 section 8.1), so what is there has to be kept.
    for udp in [false, true] {
        let extensions = vec![(IPV6_ROUTE_HEADER, 24)];
        let mut final_form = Shape { v6: true, udp, extensions, ..Shape::default() }.packet();
        let Ip::V6(_, extensions) = &mut final_form.ip else { panic!("an IPv6 packet") };
        extensions[0].body[1] = 1;
        let on_its_way = |mut bytes: Vec<u8>| {
            bytes[24..40].copy_from_slice(&[0xfd, 0x55, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
            bytes
        };
        let super_packet = on_its_way(final_form.unfinished());
        let expected: Vec<_> = final_form.split(1000).into_iter().map(on_its_way).collect();
        if let Ok(segments) = ours::split(&super_packet, final_form.gso(1000)) {
            assert_eq!(segments, expected);
        }
        let one = ours::split(&super_packet, final_form.needs_checksum()).unwrap();
        assert_eq!(one, [on_its_way(final_form.bytes())]);
    }
}

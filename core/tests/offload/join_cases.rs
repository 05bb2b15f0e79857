//! What must be joined and what must not, one by one: rules that the property tests would only meet by chance.

use adit_core::offload::{Chain, Offloads};
use etherparse::IpFragOffset;

use crate::join::compare;
use crate::ours;
use crate::packet::{Ip, Packet, Transport};
use crate::shape::{ACK, FIN, PSH, RST, SYN, Shape, URG};

/// Four packets of 1000 bytes of payload, changed by `change`, and how they are joined.
fn groups(shape: &Shape, change: impl Fn(usize, &mut Packet)) -> Vec<usize> {
    groups_of_bytes(shape, |index, bytes| {
        let mut packet = Packet::parse(bytes).unwrap();
        change(index, &mut packet);
        *bytes = packet.bytes();
    })
}

fn groups_of_bytes(shape: &Shape, change: impl Fn(usize, &mut Vec<u8>)) -> Vec<usize> {
    let shape = Shape { payload: 4000, size: 1000, ..shape.clone() };
    let mut packets = shape.packet().split(1000);
    packets.iter_mut().enumerate().for_each(|(index, bytes)| change(index, bytes));
    compare(&packets, ours::ALL)
}

fn kind(v6: bool, udp: bool) -> Shape {
    Shape { v6, udp, ..Shape::default() }
}

fn kinds() -> [Shape; 4] {
    [kind(false, false), kind(true, false), kind(false, true), kind(true, true)]
}

#[track_caller]
fn tcp(packet: &mut Packet) -> &mut etherparse::TcpHeader {
    let Transport::Tcp(header) = &mut packet.transport else { panic!("a TCP packet") };
    header
}

#[track_caller]
fn ipv4(packet: &mut Packet) -> &mut etherparse::Ipv4Header {
    let Ip::V4(header) = &mut packet.ip else { panic!("an IPv4 packet") };
    header
}

#[track_caller]
fn ipv6(packet: &mut Packet) -> &mut etherparse::Ipv6Header {
    let Ip::V6(header, _) = &mut packet.ip else { panic!("an IPv6 packet") };
    header
}

#[test]
fn a_flow_is_joined() {
    for kind in kinds() {
        assert_eq!(groups(&kind, |_, _| ()), [4], "{kind:?}");
        for ecn in 0..4 {
            assert_eq!(groups(&Shape { tos: 0xb8 | ecn, ..kind.clone() }, |_, _| ()), [4], "with ECN {ecn}");
        }
        assert_eq!(groups(&Shape { ttl: 1, ..kind.clone() }, |_, _| ()), [4], "at the last hop");
        assert_eq!(groups(&Shape { flow_label: 0xabcde, ..kind.clone() }, |_, _| ()), [4], "with a flow label");
    }
}

#[test]
fn offloads_that_the_device_has_not_are_not_used() {
    for kind in kinds() {
        let packets = Shape { payload: 3000, ..kind.clone() }.packet().split(1000);
        assert_eq!(compare(&packets, Offloads { tcp: !kind.udp, udp: kind.udp }), [3]);
        assert_eq!(compare(&packets, Offloads { tcp: kind.udp, udp: !kind.udp }), [1, 1, 1]);
        assert_eq!(compare(&packets, Offloads { tcp: false, udp: false }), [1, 1, 1]);
    }
}

#[test]
fn another_flow_is_not_joined() {
    for kind in kinds() {
        type Change = fn(&mut Packet);
        let changes: [(&str, Change); 4] = [
            ("source", |packet| match &mut packet.ip {
                Ip::V4(header) => header.source[3] ^= 1,
                Ip::V6(header, _) => header.source[15] ^= 1,
            }),
            ("destination", |packet| match &mut packet.ip {
                Ip::V4(header) => header.destination[0] ^= 1,
                Ip::V6(header, _) => header.destination[0] ^= 1,
            }),
            ("source port", |packet| match &mut packet.transport {
                Transport::Tcp(header) => header.source_port ^= 1,
                Transport::Udp { source, .. } => *source ^= 1,
            }),
            ("destination port", |packet| match &mut packet.transport {
                Transport::Tcp(header) => header.destination_port ^= 0x100,
                Transport::Udp { destination, .. } => *destination ^= 0x100,
            }),
        ];
        for (what, change) in changes {
            let of_one = |at: usize| {
                groups(&kind, |index, packet| {
                    if index == at {
                        change(packet);
                    }
                })
            };
            assert_eq!(of_one(0), [1, 3], "{what}");
            assert_eq!(of_one(1), [1, 1, 2], "{what}");
            assert_eq!(of_one(2), [2, 1, 1], "{what}");
            assert_eq!(of_one(3), [3, 1], "{what}");
        }
    }
}

#[test]
fn another_family_or_protocol_is_not_joined() {
    let all: Vec<_> =
        kinds().iter().flat_map(|kind| Shape { payload: 2000, ..kind.clone() }.packet().split(1000)).collect();
    assert_eq!(compare(&all, ours::ALL), [2, 2, 2, 2]);
    let mut mixed = all.clone();
    mixed.sort_by_key(|packet| packet[packet.len() - 1]);
    compare(&mixed, ours::ALL);
    let alternating: Vec<_> = (0..2).flat_map(|at| all.chunks(2).map(move |pair| pair[at].clone())).collect();
    assert_eq!(compare(&alternating, ours::ALL), [1; 8]);
}

#[test]
fn another_header_is_not_joined() {
    for v6 in [false, true] {
        let flow = kind(v6, false);
        let one = |change: fn(&mut Packet)| {
            groups(&flow, |index, packet| {
                if index == 2 {
                    change(packet);
                }
            })
        };
        assert_eq!(one(|packet| tcp(packet).window_size += 1), [2, 1, 1], "window");
        assert_eq!(one(|packet| tcp(packet).acknowledgment_number += 1), [2, 1, 1], "acknowledgment");
        assert_eq!(one(|packet| tcp(packet).urgent_pointer += 1), [2, 1, 1], "urgent pointer");
        assert_eq!(one(|packet| tcp(packet).sequence_number += 1), [2, 1, 1], "a gap of one byte");
        assert_eq!(one(|packet| tcp(packet).sequence_number -= 1), [2, 1, 1], "an overlap of one byte");
        assert_eq!(one(|packet| tcp(packet).sequence_number -= 1000), [2, 1, 1], "sent again");
        assert_eq!(one(|packet| tcp(packet).sequence_number ^= 1 << 31), [2, 1, 1], "far away");
        let other_options = |packet: &mut Packet| {
            let mut options = tcp(packet).options.as_slice().to_vec();
            options[11] ^= 1;
            tcp(packet).set_options_raw(&options).unwrap();
        };
        assert_eq!(one(other_options), [2, 1, 1], "another timestamp");
        assert_eq!(one(|packet| tcp(packet).set_options_raw(&[1; 8]).unwrap()), [2, 1, 1], "fewer options");
        assert_eq!(one(|packet| tcp(packet).set_options_raw(&[1; 16]).unwrap()), [2, 1, 1], "more options");
    }
    for udp in [false, true] {
        let one4 = |change: fn(&mut Packet)| {
            groups(&kind(false, udp), |index, packet| {
                if index == 2 {
                    change(packet);
                }
            })
        };
        assert_eq!(one4(|packet| ipv4(packet).time_to_live -= 1), [2, 1, 1], "time to live");
        assert_eq!(one4(|packet| ipv4(packet).dscp = 8.try_into().unwrap()), [2, 1, 1], "DSCP");
        assert_eq!(one4(|packet| ipv4(packet).ecn = 3.try_into().unwrap()), [2, 1, 1], "congestion experienced");
        assert_eq!(one4(|packet| ipv4(packet).dont_fragment = false), [2, 1, 1], "don't fragment");
        assert_eq!(one4(|packet| ipv4(packet).identification += 2), [2, 1, 1], "a jump of identifications");
        assert_eq!(one4(|packet| ipv4(packet).identification -= 1), [2, 1, 1], "the last identification again");
        assert_eq!(one4(|packet| ipv4(packet).options = [1; 4].into()), [2, 1, 1], "options");
        let one6 = |change: fn(&mut Packet)| {
            groups(&kind(true, udp), |index, packet| {
                if index == 2 {
                    change(packet);
                }
            })
        };
        assert_eq!(one6(|packet| ipv6(packet).hop_limit -= 1), [2, 1, 1], "hop limit");
        assert_eq!(one6(|packet| ipv6(packet).traffic_class = 8 << 2), [2, 1, 1], "DSCP");
        assert_eq!(one6(|packet| ipv6(packet).traffic_class = 3), [2, 1, 1], "congestion experienced");
        assert_eq!(one6(|packet| ipv6(packet).flow_label = 9.try_into().unwrap()), [2, 1, 1], "flow label");
    }
}

#[test]
fn options_of_ip_and_extension_headers_are_left_alone() {
    for udp in [false, true] {
        for ip_options in 1..=10 {
            assert_eq!(groups(&Shape { ip_options, ..kind(false, udp) }, |_, _| ()), [1; 4]);
        }
        for extension in [0, 43, 60] {
            let extensions = vec![(extension.into(), 8)];
            assert_eq!(groups(&Shape { extensions, ..kind(true, udp) }, |_, _| ()), [1; 4]);
        }
    }
}

#[test]
fn every_length_of_tcp_options_is_joined() {
    for v6 in [false, true] {
        for tcp_options in 0..=10 {
            assert_eq!(groups(&Shape { tcp_options, ..kind(v6, false) }, |_, _| ()), [4]);
        }
    }
}

#[test]
fn fin_and_psh_end_a_chain_and_stay_with_the_last() {
    for v6 in [false, true] {
        for flags in [FIN, PSH, FIN | PSH] {
            let shape = Shape { flags: ACK | flags, ..kind(v6, false) };
            assert_eq!(groups(&shape, |_, _| ()), [4]);
            let at = |which: usize| {
                groups(&kind(v6, false), |index, packet| {
                    tcp(packet).fin |= index == which && flags & FIN != 0;
                    tcp(packet).psh |= index == which && flags & PSH != 0;
                })
            };
            assert_eq!((at(0), at(1), at(2)), (vec![1, 3], vec![2, 2], vec![3, 1]));
        }
    }
}

#[test]
fn cwr_is_not_joined_and_other_ecn_flags_have_to_agree() {
    for v6 in [false, true] {
        let at = |which: usize| groups(&kind(v6, false), |index, packet| tcp(packet).cwr = index == which);
        assert_eq!((at(0), at(1), at(2), at(3)), (vec![1, 3], vec![1, 1, 2], vec![2, 1, 1], vec![3, 1]));
        assert_eq!(groups(&kind(v6, false), |_, packet| tcp(packet).cwr = true), [1; 4]);
        let ece = |which: &[usize]| groups(&kind(v6, false), |index, packet| tcp(packet).ece = which.contains(&index));
        assert_eq!((ece(&[0, 1, 2, 3]), ece(&[0]), ece(&[2])), (vec![4], vec![1, 3], vec![2, 1, 1]));
        let ns = |which: &[usize]| groups(&kind(v6, false), |index, packet| tcp(packet).ns = which.contains(&index));
        assert_eq!((ns(&[0, 1, 2, 3]), ns(&[0]), ns(&[2])), (vec![4], vec![1, 3], vec![2, 1, 1]));
    }
}

#[test]
fn flags_that_open_or_break_a_connection_are_never_joined() {
    for v6 in [false, true] {
        for flags in [SYN, RST, URG, ACK | SYN, ACK | RST, ACK | URG, 0, FIN, PSH] {
            assert_eq!(groups(&Shape { flags, urgent: 1, ..kind(v6, false) }, |_, _| ()), [1; 4], "{flags:#x}");
        }
        let one = |change: fn(&mut Packet)| {
            groups(&kind(v6, false), |index, packet| {
                if index == 1 {
                    change(packet);
                }
            })
        };
        assert_eq!(one(|packet| tcp(packet).syn = true), [1, 1, 2]);
        assert_eq!(one(|packet| tcp(packet).rst = true), [1, 1, 2]);
        assert_eq!(one(|packet| tcp(packet).urg = true), [1, 1, 2]);
        assert_eq!(one(|packet| tcp(packet).ack = false), [1, 1, 2]);
    }
}

#[test]
fn reserved_bits_of_tcp_have_to_agree() {
    for bits in [0b0010, 0b0100, 0b1000, 0b1110] {
        let shape = Shape { payload: 3000, ..kind(false, false) };
        let mut packets = shape.packet().split(1000);
        // The checksum is put right by hand: etherparse has no field for these.
        let byte = &mut packets[1][32];
        *byte |= bits;
        let sum = u32::from(u16::from_be_bytes([packets[1][36], packets[1][37]])) + 0xffff - (u32::from(bits) << 8);
        let sum = (sum & 0xffff) + (sum >> 16);
        packets[1][36..38].copy_from_slice(&(sum as u16).to_be_bytes());
        let joined = ours::join(&packets, ours::ALL);
        assert_eq!(joined.iter().map(|joined| joined.packets).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(joined.iter().zip(&packets).all(|(joined, packet)| joined.bytes == *packet));
    }
}

#[test]
fn a_short_packet_ends_a_chain_and_a_longer_one_begins_another() {
    for kind in kinds() {
        let sizes = |sizes: [usize; 4]| {
            let packets = stream(&kind, &sizes);
            compare(&packets, ours::ALL)
        };
        assert_eq!(sizes([1000, 1000, 1000, 1]), [4]);
        assert_eq!(sizes([1000, 999, 1000, 1000]), [2, 2]);
        assert_eq!(sizes([1000, 1, 1, 1]), [2, 2]);
        assert_eq!(sizes([1000, 1001, 1000, 1000]), [1, 2, 1]);
        assert_eq!(sizes([1, 2, 3, 4]), [1, 1, 1, 1]);
        assert_eq!(sizes([4, 3, 2, 1]), [2, 2]);
        assert_eq!(sizes([1, 1, 1, 1]), [4]);
    }
}

/// One flow in packets of these payloads.
fn stream(kind: &Shape, sizes: &[usize]) -> Vec<Vec<u8>> {
    let whole = Shape { payload: 0, ..kind.clone() }.packet();
    let mut at = 0;
    let mut packets = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        let mut packet = whole.clone();
        packet.payload = (at..at + size).map(|byte| (byte / 7) as u8).collect();
        if let Ip::V4(header) = &mut packet.ip {
            header.identification += index as u16;
        }
        if let Transport::Tcp(header) = &mut packet.transport {
            header.sequence_number += at as u32;
        }
        at += size;
        packets.push(packet.bytes());
    }
    packets
}

#[test]
fn packets_without_payload_are_not_joined() {
    for kind in kinds() {
        let packets = |sizes: &[usize]| compare(&stream(&kind, sizes), ours::ALL);
        assert_eq!(packets(&[0, 0, 0]), [1, 1, 1]);
        assert_eq!(packets(&[100, 0, 100]), [1, 1, 1]);
        assert_eq!(packets(&[100, 100, 0]), [2, 1]);
        assert_eq!(packets(&[0, 100, 100]), [1, 2]);
    }
}

#[test]
fn identifications_count_up_or_stay() {
    let ids = |dont_fragment: bool, ids: [u16; 4]| {
        let shape = Shape { dont_fragment, ..Shape::default() };
        groups(&shape, |index, packet| ipv4(packet).identification = ids[index])
    };
    for dont_fragment in [false, true] {
        assert_eq!(ids(dont_fragment, [7, 8, 9, 10]), [4]);
        assert_eq!(ids(dont_fragment, [0xfffe, 0xffff, 0, 1]), [4], "over the end");
        assert_eq!(ids(dont_fragment, [7, 9, 11, 13]), [1; 4]);
        assert_eq!(ids(dont_fragment, [9, 8, 7, 6]), [1; 4]);
        assert_eq!(ids(dont_fragment, [7, 8, 8, 9]), [2, 2], "one way or the other");
    }
    // Where packets may be fragmented an identification tells whose the pieces are; where not, it means nothing.
    assert_eq!(ids(false, [0, 0, 0, 0]), [1; 4]);
    assert_eq!(ids(true, [0, 0, 0, 0]), [4]);
    assert_eq!(ids(true, [9, 9, 9, 9]), [4]);
    assert_eq!(ids(true, [9, 9, 10, 11]), [2, 2]);
}

#[test]
fn fragments_are_not_joined() {
    for udp in [false, true] {
        let flow = Shape { dont_fragment: false, ..kind(false, udp) };
        let one = |change: fn(&mut Packet)| {
            let mut packets = Shape { payload: 4000, ..flow.clone() }.packet().split(1000);
            let mut packet = Packet::parse(&packets[2]).unwrap();
            change(&mut packet);
            packets[2] = packet.bytes();
            compare(&packets, ours::ALL)
        };
        assert_eq!(one(|packet| ipv4(packet).more_fragments = true), [2, 1, 1]);
        assert_eq!(one(|packet| ipv4(packet).fragment_offset = IpFragOffset::try_new(1).unwrap()), [2, 1, 1]);
        let all = groups_of_bytes(&flow, |_, bytes| {
            let mut packet = Packet::parse(bytes).unwrap();
            ipv4(&mut packet).more_fragments = true;
            *bytes = packet.bytes();
        });
        assert_eq!(all, [1; 4]);
        // A fragment header of IPv6, of eight bytes, in front of the same.
        let all = groups_of_bytes(&kind(true, udp), |_, bytes| {
            let next = std::mem::replace(&mut bytes[6], 44);
            bytes.splice(40..40, [next, 0, 0, 1, 0, 0, 0, 9]);
            let len = (bytes.len() - 40) as u16;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
        });
        assert_eq!(all, [1; 4]);
    }
}

#[test]
fn damaged_packets_are_not_joined() {
    for kind in kinds() {
        let headers = kind.packet().ip_len() + kind.packet().transport_len();
        let len = headers + 1000;
        // A bit of every header byte and some of the payload.
        for at in (0..headers).chain([headers, headers + 1, len / 2, len - 2, len - 1]) {
            let groups = groups_of_bytes(&kind, |index, bytes| {
                if index == 1 {
                    bytes[at] ^= 0x10;
                }
            });
            // IPv6 has no checksum over its traffic class, flow label and hop limit, which then differ.
            assert_eq!(groups, [1, 1, 2], "byte {at} of {kind:?}");
        }
        for at in [0, 10, headers - 1, len - 1] {
            assert_eq!(groups_of_bytes(&kind, |_, bytes| bytes[at] ^= 0x10)[..2], [1, 1], "all of them, at {at}");
        }
    }
}

#[test]
fn udp_without_a_checksum_is_not_joined() {
    // Splitting would give it one.
    for v6 in [false, true] {
        let sum = kind(v6, true).packet().ip_len() + 6;
        assert_eq!(groups_of_bytes(&kind(v6, true), |_, bytes| bytes[sum..sum + 2].fill(0)), [1; 4]);
        let one = groups_of_bytes(&kind(v6, true), |index, bytes| {
            if index == 1 {
                bytes[sum..sum + 2].fill(0);
            }
        });
        assert_eq!(one, [1, 1, 2]);
    }
}

#[test]
fn checksums_of_zero_and_of_ones_keep_their_bytes() {
    // Both say the same of TCP and of an IPv4 header, and only zero is what splitting writes.
    for v6 in [false, true] {
        let at = kind(v6, false).packet().ip_len();
        let mut packets = Shape { payload: 3000, ..kind(v6, false) }.packet().split(1000);
        for bytes in &mut packets {
            // With its own checksum as its last word, a packet's sum is all ones and its checksum zero.
            let last = bytes.len() - 2;
            bytes[last..].fill(0);
            *bytes = Packet::parse(bytes).unwrap().bytes();
            let checksum = [bytes[at + 16], bytes[at + 17]];
            bytes[last..].copy_from_slice(&checksum);
            *bytes = Packet::parse(bytes).unwrap().bytes();
            assert_eq!(bytes[at + 16..at + 18], [0, 0]);
        }
        assert_eq!(compare(&packets, ours::ALL), [3]);
        packets[1][at + 16..at + 18].fill(0xff);
        assert_eq!(groups_as_they_are(&packets), [1, 1, 1]);
        packets[0][at + 16..at + 18].fill(0xff);
        assert_eq!(groups_as_they_are(&packets), [1, 1, 1]);
    }
    let mut packets = stream(&kind(false, false), &[100, 100, 100]);
    for bytes in &mut packets {
        // The same with the time to live and the protocol left alone: the last word of the destination.
        bytes[18..20].fill(0);
        *bytes = Packet::parse(bytes).unwrap().bytes();
        let checksum = [bytes[10], bytes[11]];
        bytes[18..20].copy_from_slice(&checksum);
        *bytes = Packet::parse(bytes).unwrap().bytes();
        assert_eq!(bytes[10..12], [0, 0]);
        bytes[10..12].fill(0xff);
    }
    assert_eq!(groups_as_they_are(&packets), [1, 1, 1]);
}

/// How packets are joined that the model would write with other bytes.
fn groups_as_they_are(packets: &[Vec<u8>]) -> Vec<usize> {
    ours::join(packets, ours::ALL).iter().map(|joined| joined.packets).collect()
}

#[test]
fn a_udp_length_that_is_not_the_packet_s_is_not_joined() {
    for v6 in [false, true] {
        for length in [0u16, 7, 8, 1007, 1009, 65535] {
            let at = kind(v6, true).packet().ip_len() + 4;
            let groups =
                groups_of_bytes(&kind(v6, true), |_, bytes| bytes[at..at + 2].copy_from_slice(&length.to_be_bytes()));
            assert_eq!(groups, [1; 4], "{length}");
        }
    }
}

#[test]
fn padding_behind_a_packet_never_becomes_payload() {
    for kind in kinds() {
        let groups = groups_of_bytes(&kind, |index, bytes| {
            if index % 2 == 1 {
                bytes.extend([0; 6]);
            }
        });
        assert_eq!(groups, [1; 4]);
        assert_eq!(groups_of_bytes(&kind, |_, bytes| bytes.extend([0; 6])), [1; 4]);
    }
}

#[test]
fn what_was_joined_fits_what_the_kernel_takes() {
    for kind in [kind(false, false), kind(true, false)] {
        let headers = kind.packet().ip_len() + kind.packet().transport_len();
        // To the byte: 50 packets fill 65535 bytes, or miss it.
        for (size, less) in [(1448, 0), (1310, 0), (1000, 0), (9000, 0)] {
            let count = 65_535 / size + 3;
            let groups = compare(&stream(&kind, &vec![size - less; count]), ours::ALL);
            assert_eq!(groups[0], (65_535 - headers) / size, "{size}");
            assert_eq!(groups.iter().sum::<usize>(), count);
        }
        let rest = (65_535 - headers) % 1000;
        let mut sizes = vec![1000; (65_535 - headers) / 1000];
        let exact: Vec<usize> = sizes.iter().copied().chain([rest]).collect();
        assert_eq!(compare(&stream(&kind, &exact), ours::ALL), [exact.len()], "65535 bytes");
        sizes.push(rest + 1);
        assert_eq!(compare(&stream(&kind, &sizes), ours::ALL), [exact.len() - 1, 1], "65536 bytes");
    }
}

#[test]
fn udp_stops_at_what_older_kernels_split() {
    for v6 in [false, true] {
        assert_eq!(compare(&stream(&kind(v6, true), &[200; 130]), ours::ALL), [64, 64, 2]);
    }
}

#[test]
fn sequence_numbers_wrap() {
    for v6 in [false, true] {
        for sequence in [u32::MAX, u32::MAX - 999, u32::MAX - 1000, u32::MAX - 2500] {
            assert_eq!(groups(&Shape { sequence, ..kind(v6, false) }, |_, _| ()), [4]);
        }
    }
}

#[test]
fn other_protocols_and_no_packets_do_not_begin_a_chain() {
    let mut icmp = kind(false, true).packet().bytes();
    icmp[9] = 1;
    for bytes in [icmp, Vec::new(), vec![0x45], vec![0x60; 39], vec![0; 100], vec![0xff; 100]] {
        assert!(Chain::begin(&bytes, ours::ALL).is_none());
    }
}

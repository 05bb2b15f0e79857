//! Joining: whatever comes, what goes to the kernel is split into exactly that again.

use adit_core::offload::{Offloads, VirtioNetHeader};
use proptest::prelude::*;

use crate::ours::{self, Joined};
use crate::packet::{Ip, Packet, Transport, checksums_are_right};
use crate::shape::Shape;
use crate::strategy::{joinable, super_packet};

/// How many packets of the front of `packets` the model takes in one piece: the most that splitting makes again.
///
/// It may do so packet by packet, for what can be joined can be joined without its last packet, too.
fn model(packets: &[Vec<u8>], offloads: Offloads) -> usize {
    let mut count = 1;
    while count < packets.len() && joined(&packets[..=count], offloads).is_some() {
        count += 1;
    }
    count
}

/// The packet that is split into `packets`, if there is one and it may be handed to a kernel.
fn joined(packets: &[Vec<u8>], offloads: Offloads) -> Option<Packet> {
    let parsed: Vec<Packet> = packets.iter().map(|bytes| Packet::parse(bytes)).collect::<Option<_>>()?;
    let (first, last) = (parsed.first()?, parsed.last()?);
    if !packets.iter().all(|bytes| checksums_are_right(bytes)) || parsed.iter().any(|packet| packet.payload.is_empty())
    {
        return None;
    }
    // What GRO never takes: options of IP, extension headers, and flags that want to be seen at once. CWR is seldom, and
    // what becomes of it depends on the kernel's idea of ECN (RFC 3168 or RFC 9768).
    let plain = match &first.ip {
        Ip::V4(header) => header.options.is_empty(),
        Ip::V6(_, extensions) => extensions.is_empty(),
    };
    let (wanted, most) = match &first.transport {
        Transport::Tcp(tcp) => (offloads.tcp && tcp.ack && !(tcp.syn || tcp.rst || tcp.urg || tcp.cwr), usize::MAX),
        Transport::Udp { .. } => (offloads.udp, MAX_DATAGRAMS),
    };
    let mut whole = first.clone();
    whole.payload = parsed.iter().flat_map(|packet| &packet.payload).copied().collect();
    if let (Transport::Tcp(tcp), Transport::Tcp(last)) = (&mut whole.transport, &last.transport) {
        (tcp.fin, tcp.psh) = (last.fin, last.psh);
    }
    let len = whole.ip_len() + whole.transport_len() + whole.payload.len();
    if !plain || !wanted || packets.len() > most || len > MAX_LEN {
        return None;
    }
    let again = whole.split(first.payload.len());
    (again == packets || without_ids(&again)? == packets && has_constant_id(packets)).then_some(whole)
}

/// Packets that must not be fragmented and all have the same identification, of two or more.
fn has_constant_id(packets: &[Vec<u8>]) -> bool {
    packets.iter().all(|bytes| bytes[0] >> 4 == 4 && bytes[6] & 0x40 != 0 && bytes[4..6] == packets[0][4..6])
}

/// Gives all packets the identification of the first.
fn without_ids(packets: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let Ip::V4(first) = Packet::parse(packets.first()?)?.ip else { return None };
    let same = |bytes: &Vec<u8>| {
        let mut packet = Packet::parse(bytes)?;
        let Ip::V4(header) = &mut packet.ip else { return None };
        header.identification = first.identification;
        Some(packet.bytes())
    };
    packets.iter().map(same).collect()
}

/// Joins by both, compares, and checks what a kernel would make of it. Returns how many packets went into each.
pub(crate) fn compare(packets: &[Vec<u8>], offloads: Offloads) -> Vec<usize> {
    let result = ours::join(packets, offloads);
    let mut rest = packets;
    for joined in &result {
        let (these, behind) = rest.split_at(joined.packets);
        check(joined, these);
        let expected = model(rest, offloads);
        assert_eq!(joined.packets, expected, "packets that were joined, and the model; the first {:02x?}", these[0]);
        rest = behind;
    }
    assert!(rest.is_empty(), "{} packets were lost", rest.len());
    result.iter().map(|joined| joined.packets).collect()
}

/// `joined` is for the kernel what `packets` were.
fn check(joined: &Joined, packets: &[Vec<u8>]) {
    if let [packet] = packets {
        assert_eq!(
            (&joined.bytes, joined.header),
            (packet, VirtioNetHeader::default()),
            "a packet alone stays as it is"
        );
        return;
    }
    let size = u16::try_from(Packet::parse(&packets[0]).unwrap().payload.len()).unwrap();
    let whole = Packet::parse(&joined.bytes).expect("what was joined is a packet");
    assert_eq!(joined.header, whole.gso(size));
    assert_eq!(joined.bytes, whole.unfinished(), "lengths, and the checksum of the pseudo-header");
    // By the model as by the other half of the code.
    let again = ours::split(&joined.bytes, joined.header).unwrap();
    assert_eq!(again, whole.split(size.into()));
    if has_constant_id(packets) {
        assert_eq!(without_ids(&again).unwrap(), packets);
    } else {
        assert_eq!(again, packets);
    }
}

/// What is done to one packet of a stream.
#[derive(Debug, Clone)]
enum Change {
    /// Another value in a byte of its headers, with the checksums right again.
    Header {
        at: usize,
        bits: u8,
    },
    /// Another value anywhere, and nothing put right.
    Damage {
        at: usize,
        bits: u8,
    },
    /// Another payload.
    Length(usize),
    /// Another identification.
    Id(u16),
    /// The flags of TCP.
    Flags(u8),
    /// Lost, twice, or changed places with the next.
    Lost,
    Twice,
    Swapped,
    /// Padding behind the packet, or its end missing.
    Padded(u8),
    Truncated(usize),
    /// A packet of another flow in between.
    Foreign(Box<Shape>),
}

fn change() -> impl Strategy<Value = Change> {
    let bits = || prop_oneof![(0..8u32).prop_map(|bit| 1u8 << bit), any::<u8>()];
    prop_oneof![
        6 => (0..100usize, bits()).prop_map(|(at, bits)| Change::Header { at, bits }),
        2 => (0..2000usize, bits()).prop_map(|(at, bits)| Change::Damage { at, bits }),
        2 => (0..1600usize).prop_map(Change::Length),
        1 => any::<u16>().prop_map(Change::Id),
        3 => bits().prop_map(Change::Flags),
        1 => Just(Change::Lost),
        1 => Just(Change::Twice),
        1 => Just(Change::Swapped),
        1 => (1..20u8).prop_map(Change::Padded),
        1 => (0..100usize).prop_map(Change::Truncated),
        1 => super_packet().prop_map(|shape| Change::Foreign(Box::new(Shape { payload: shape.payload % 2000, ..shape }))),
    ]
}

fn apply(packets: &mut Vec<Vec<u8>>, index: usize, change: &Change) {
    if packets.is_empty() {
        return;
    }
    let index = index % packets.len();
    let packet = &mut packets[index];
    match change {
        Change::Header { at, bits } => {
            let Some(headers) = Packet::parse(packet).map(|parts| parts.ip_len() + parts.transport_len()) else {
                return;
            };
            packet[at % headers] ^= bits;
            if let Some(parts) = Packet::parse(packet) {
                *packet = parts.bytes();
            }
        }
        Change::Damage { at, bits } => {
            let len = packet.len();
            if len > 0 {
                packet[at % len] ^= bits;
            }
        }
        Change::Length(len) => {
            if let Some(mut parts) = Packet::parse(packet) {
                parts.payload.resize(*len, 0x5a);
                *packet = parts.bytes();
            }
        }
        Change::Id(id) => {
            if let Some(mut parts) = Packet::parse(packet)
                && let Ip::V4(header) = &mut parts.ip
            {
                header.identification = *id;
                *packet = parts.bytes();
            }
        }
        Change::Flags(bits) => {
            if let Some(parts) = Packet::parse(packet)
                && matches!(parts.transport, Transport::Tcp(_))
            {
                packet[parts.ip_len() + 13] ^= bits;
                *packet = Packet::parse(packet).map_or_else(Vec::new, |parts| parts.bytes());
            }
        }
        Change::Lost => drop(packets.remove(index)),
        Change::Twice => packets.insert(index, packets[index].clone()),
        Change::Swapped => {
            let other = (index + 1) % packets.len();
            packets.swap(index, other);
        }
        Change::Padded(len) => packet.extend(vec![0; usize::from(*len)]),
        Change::Truncated(less) => packet.truncate(packet.len().saturating_sub(*less)),
        Change::Foreign(shape) => packets.insert(index, shape.packet().bytes()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_stream_that_was_split_is_joined_again(shape in joinable(), last in 0..2usize) {
        let packet = shape.packet();
        let packets = packet.split(shape.size.into());
        let groups = compare(&packets, ours::ALL);
        prop_assert_eq!(&groups, &[packets.len()], "nothing hinders");
        // The super-packet itself comes back, if it was one.
        if packets.len() > 1 {
            let joined = ours::join(&packets, ours::ALL).remove(0);
            prop_assert_eq!((joined.bytes, joined.header), (packet.unfinished(), packet.gso(shape.size)));
        }
        // Two of the same are never one.
        let twice: Vec<_> = packets.iter().chain(&packets[..last]).cloned().collect();
        compare(&twice, ours::ALL);
    }

    #[test]
    fn disturbed_streams_lose_invent_and_reorder_nothing(
        shapes in proptest::collection::vec(joinable(), 1..3),
        changes in proptest::collection::vec((any::<usize>(), change()), 0..6),
        (tcp, udp) in prop_oneof![6 => Just((true, true)), 1 => any::<(bool, bool)>()],
        constant_id in proptest::option::weighted(0.3, any::<u16>()),
    ) {
        let mut packets: Vec<_> = shapes.iter().flat_map(|shape| shape.packet().split(shape.size.into())).collect();
        if let Some(id) = constant_id {
            (0..packets.len()).for_each(|index| apply(&mut packets, index, &Change::Id(id)));
        }
        changes.iter().for_each(|(index, change)| apply(&mut packets, *index, change));
        compare(&packets, Offloads { tcp, udp });
    }

    #[test]
    fn headers_that_are_never_joined_pass_by(shape in super_packet()) {
        let shape = Shape { payload: shape.payload.min(20 * usize::from(shape.size)), ..shape };
        compare(&shape.packet().split(shape.size.into()), ours::ALL);
    }
}

/// The longest packet that the kernel takes through a tun device: IPv4's length has 16 bits.
const MAX_LEN: usize = 65_535;

/// The most datagrams that every kernel with USO splits one packet into (UDP_MAX_SEGMENTS, Linux 6.2 to 6.8).
const MAX_DATAGRAMS: usize = 64;

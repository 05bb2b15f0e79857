//! Drives the code under test as the packet loop does, and checks on the way what every use of it has to keep.

use adit_core::TunPacket;
use adit_core::ip::IpHeader;
use adit_core::offload::{Chain, Malformed, Offloads, Split, VirtioNetHeader};

/// Both protocols.
pub(crate) const ALL: Offloads = Offloads { tcp: true, udp: true };

/// Packets that were joined: what is written to the device, and how many packets are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) header: VirtioNetHeader,
    pub(crate) bytes: Vec<u8>,
    pub(crate) packets: usize,
}

/// The segments of `packet`, read one after the other from a buffer with tail room.
pub(crate) fn split(packet: &[u8], header: VirtioNetHeader) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + TunPacket::TAILROOM, TAIL);
    let mut segments = Vec::new();
    {
        let result = Split::new(&mut buffer, packet.len(), header);
        let Ok(mut split) = result else {
            let error = result.err().unwrap();
            assert!(buffer.starts_with(packet), "a refused packet was changed");
            return Err(error);
        };
        assert_eq!(split.first(), packet, "nothing is changed before the first segment is asked for");
        let (count, longest) = (split.segments(), split.longest());
        assert!((1..=packet.len().max(1)).contains(&count), "{count} segments of {} bytes", packet.len());
        while let Some(segment) = split.next() {
            segments.push(segment.bytes().to_vec());
            assert!(segments.len() <= count, "more segments than told");
        }
        assert!(split.next().is_none(), "the end stays the end");
        assert_eq!((split.segments(), split.longest()), (count, longest), "the counts tell of the whole packet");
        assert_eq!(segments.len(), count);
        assert_eq!(segments.iter().map(Vec::len).max(), Some(longest));
    }
    assert!(buffer[packet.len()..].iter().all(|byte| *byte == TAIL), "something was written behind the packet");
    if header.gso_type & !VirtioNetHeader::GSO_ECN != VirtioNetHeader::GSO_NONE {
        for segment in &segments {
            let len = IpHeader::parse(segment).expect("a segment is a packet").total_len;
            assert_eq!(len, segment.len(), "a segment knows its length");
        }
    }
    Ok(segments)
}

/// Joins what can be joined, each packet with the one before it.
pub(crate) fn join(packets: &[Vec<u8>], offloads: Offloads) -> Vec<Joined> {
    let mut joined = Vec::new();
    let mut open: Option<(Chain, Vec<u8>)> = None;
    for packet in packets {
        if let Some((chain, bytes)) = &mut open {
            let (header_len, before) = (chain.header_len(), (chain.len(), chain.segments()));
            if chain.append(&bytes[..header_len], packet) {
                bytes.extend(&packet[header_len..]);
                assert_eq!((chain.len(), chain.segments()), (bytes.len(), before.1 + 1));
                continue;
            }
            assert_eq!((chain.len(), chain.segments()), before, "a refused packet leaves no trace");
        }
        joined.extend(open.take().map(finish));
        match Chain::begin(packet, offloads) {
            Some(chain) => {
                assert_eq!((chain.len(), chain.segments()), (packet.len(), 1));
                open = Some((chain, packet.clone()));
            }
            None => joined.push(Joined { header: VirtioNetHeader::default(), bytes: packet.clone(), packets: 1 }),
        }
    }
    joined.extend(open.map(finish));
    joined
}

fn finish((chain, mut bytes): (Chain, Vec<u8>)) -> Joined {
    let header = chain.finish(&mut bytes);
    Joined { header, bytes, packets: chain.segments() }
}

const TAIL: u8 = 0xa5;

//! Random super-packets: every combination of headers, biased towards the edges.

use etherparse::ip_number::{
    IPV6_DESTINATION_OPTIONS as DESTINATION, IPV6_HEADER_HOP_BY_HOP as HOP_BY_HOP, IPV6_ROUTE_HEADER as ROUTING,
};
use proptest::prelude::*;

use crate::shape::{ACK, CWR, ECE, FIN, NS, PSH, Shape, URG};

prop_compose! {
    /// What comes in front of the payload.
    fn headers()(
        (v6, udp, ip_options, tcp_options) in (any::<bool>(), any::<bool>(), prop_oneof![2 => Just(0), 3 => 0..=10usize], 0..=10usize),
        extensions in prop_oneof![2 => Just(Vec::new()), 3 => extensions()],
        (tos, ttl, flow_label) in (any::<u8>(), any::<u8>(), any::<u32>()),
        (id, dont_fragment) in (prop_oneof![Just(0), 0xfff0..=u16::MAX, any::<u16>()], any::<bool>()),
        sequence in prop_oneof![u32::MAX - 70_000..=u32::MAX, any::<u32>()],
        flags in prop_oneof![
            3 => Just(ACK),
            4 => (any::<u16>()).prop_map(|bits| ACK | bits & (FIN | PSH | ECE | CWR | NS)),
            1 => (any::<u16>()).prop_map(|bits| ACK | bits & (FIN | PSH | ECE | CWR | NS | URG)),
        ],
        (window, urgent, seed) in (any::<u16>(), any::<u16>(), any::<u64>()),
    ) -> Shape {
        // The urgent pointer says nothing without its flag, and would be noise in every failure.
        let urgent = if flags & URG == 0 { 0 } else { urgent };
        Shape {
            v6, udp, ip_options, tcp_options, extensions, tos, ttl, flow_label, id, dont_fragment, sequence, flags,
            window, urgent, seed, wild_options: true, payload: 0, size: 1,
        }
    }
}

/// Up to 192 bytes of extension headers in the order of RFC 8200 section 4.1.
fn extensions() -> impl Strategy<Value = Vec<(etherparse::IpNumber, usize)>> {
    let order = vec![HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION];
    (proptest::sample::subsequence(order, 0..=4), proptest::collection::vec(1..=6usize, 4))
        .prop_map(|(kinds, lens)| kinds.into_iter().zip(lens).map(|(kind, len)| (kind, len * 8)).collect())
}

/// Super-packets with payloads up to what 65535 bytes leave, in few or many segments.
pub(crate) fn super_packet() -> impl Strategy<Value = Shape> {
    let exact = (1..=20usize, 1..=3000u16).prop_map(|(count, size)| (count * usize::from(size), size));
    let short = (1..=6000usize, 1..=2000u16);
    let long = (30_000..=65_535usize, 500..=9000u16);
    let tiny = (1..=300usize, 1..=8u16);
    (headers(), prop_oneof![exact, short, long, tiny]).prop_map(|(shape, (payload, size))| Shape {
        payload,
        size,
        ..shape
    })
}

/// Super-packets of what [`Chain`](adit_core::offload::Chain) joins: no options in front of the transport header.
pub(crate) fn joinable() -> impl Strategy<Value = Shape> {
    let sizes = (1..=12usize, 1..=1500u16, 0..1500u16)
        .prop_map(|(count, size, less)| (count * usize::from(size) - usize::from(less % size), size));
    (headers(), sizes).prop_map(|(mut shape, (payload, size))| {
        shape.flags &= !(URG | CWR);
        Shape { payload, size, ip_options: 0, extensions: Vec::new(), urgent: 0, ..shape }
    })
}

//! Random super-packets that a kernel forwards and splits: of every header that a router lets pass.

use etherparse::ip_number::{IPV6_DESTINATION_OPTIONS, IPV6_HEADER_HOP_BY_HOP, IPV6_ROUTE_HEADER};
use fastrand::Rng;

use crate::shape::{ACK, CWR, ECE, FIN, NS, PSH, Shape, URG};

/// A super-packet of at least two segments.
pub(crate) fn super_packet(rng: &mut Rng) -> Shape {
    let (v6, udp) = (rng.bool(), rng.bool());
    let size = match rng.u8(..8) {
        0 => rng.u16(1..40),
        1 => rng.u16(9000..30_000),
        _ => rng.u16(40..1500),
    };
    // The kernel numbers segments with 16 bits and splits no datagram into more than 64 before Linux 6.9.
    let most = (usize::from(size) * 60).min(65_000);
    let payload =
        if rng.bool() { rng.usize(usize::from(size) + 1..=most) } else { most / usize::from(size) * usize::from(size) };
    let flags = if rng.bool() { ACK } else { ACK | rng.u16(..) & (FIN | PSH | ECE | CWR | NS) };
    let flags = if rng.u8(..8) == 0 { flags | URG } else { flags };
    let mut extensions = Vec::new();
    if rng.u8(..3) == 0 {
        for kind in [IPV6_HEADER_HOP_BY_HOP, IPV6_ROUTE_HEADER, IPV6_DESTINATION_OPTIONS] {
            if rng.bool() {
                extensions.push((kind, rng.usize(1..5) * 8));
            }
        }
    }
    Shape {
        v6,
        udp,
        ip_options: if rng.u8(..3) == 0 { rng.usize(..=10) } else { 0 },
        extensions,
        tcp_options: rng.usize(..=10),
        tos: rng.u8(..),
        ttl: rng.u8(2..),
        flow_label: rng.u32(..),
        id: if rng.bool() { rng.u16(0xfff0..) } else { rng.u16(..) },
        dont_fragment: rng.bool(),
        sequence: if rng.bool() { rng.u32(u32::MAX - 50_000..) } else { rng.u32(..) },
        flags,
        window: rng.u16(..),
        urgent: if flags & URG == 0 { 0 } else { rng.u16(..) },
        payload: payload.max(usize::from(size) + 1),
        size,
        seed: rng.u64(..),
        wild_options: false,
    }
}

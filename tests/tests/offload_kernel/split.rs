//! What the kernel makes of a super-packet is what [`Split`](adit_core::offload::Split) makes of it.

use anyhow::Result;
use etherparse::ip_number::{IPV6_DESTINATION_OPTIONS, IPV6_HEADER_HOP_BY_HOP, IPV6_ROUTE_HEADER};

use crate::ours;
use crate::random;
use crate::router::{Router, aged, assert_same};
use crate::shape::{ACK, CWR, ECE, FIN, NS, PSH, Shape, URG};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_kernel_splits_named_packets_in_the_same_way() -> Result<()> {
    let mut router = Router::new()?;
    for shape in table() {
        compare(&mut router, &shape)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_kernel_splits_random_packets_in_the_same_way() -> Result<()> {
    let mut router = Router::new()?;
    let mut rng = fastrand::Rng::with_seed(0x6164_6974);
    for _ in 0..600 {
        compare(&mut router, &random::super_packet(&mut rng))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_kernel_completes_a_checksum_in_the_same_way() -> Result<()> {
    let mut router = Router::new()?;
    let mut rng = fastrand::Rng::with_seed(0x6d75_7374);
    for _ in 0..200 {
        let packet = random::super_packet(&mut rng).packet();
        let header = packet.needs_checksum();
        let received = router.forward([(header, packet.unfinished().as_slice())])?;
        assert_same(&received, &ours::split(&aged(&packet).unfinished(), header)?, "a packet without checksum");
    }
    // Both forms of a checksum of zero.
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut packet = Shape { v6, udp, payload: 100, ..Shape::default() }.packet();
        let at = packet.ip_len() + usize::from(packet.needs_checksum().csum_offset);
        packet.payload[98..].fill(0);
        let checksum = packet.bytes()[at..at + 2].to_vec();
        packet.payload[98..].copy_from_slice(&checksum);
        let received = router.forward([(packet.needs_checksum(), packet.unfinished().as_slice())])?;
        assert_eq!(received[0][at..at + 2], [0xff, 0xff]);
        assert_same(
            &received,
            &ours::split(&aged(&packet).unfinished(), packet.needs_checksum())?,
            "a checksum of zero",
        );
    }
    Ok(())
}

/// The kernel, the code and the model agree.
fn compare(router: &mut Router, shape: &Shape) -> Result<()> {
    let packet = shape.packet();
    let received = router.forward([(packet.gso(shape.size), packet.unfinished().as_slice())])?;
    let later = aged(&packet);
    let ours = ours::split(&later.unfinished(), later.gso(shape.size))?;
    assert_same(&received, &ours, &format!("{shape:?}"));
    assert_same(&received, &later.split(shape.size.into()), &format!("{shape:?} by the model"));
    Ok(())
}

fn table() -> Vec<Shape> {
    let mut table = Vec::new();
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let base = Shape { v6, udp, wild_options: false, ..Shape::default() };
        let mut add = |shape: Shape| table.push(shape);
        add(base.clone());
        for (payload, size) in
            [(2000, 1000), (2001, 1000), (1999, 1000), (3, 1), (60_000, 1400), (65_000, 32_000), (65_535, 9000)]
        {
            add(Shape { payload, size, ..base.clone() });
        }
        for ip_options in 1..=10 {
            add(Shape { ip_options, ..base.clone() });
        }
        for tcp_options in 0..=10 {
            add(Shape { tcp_options, ..base.clone() });
        }
        for kind in [IPV6_HEADER_HOP_BY_HOP, IPV6_ROUTE_HEADER, IPV6_DESTINATION_OPTIONS] {
            add(Shape { extensions: vec![(kind, 8)], ..base.clone() });
            add(Shape { extensions: vec![(kind, 40)], ..base.clone() });
        }
        for flags in [FIN, PSH, FIN | PSH, CWR, ECE, CWR | ECE, NS, CWR | ECE | NS, FIN | PSH | CWR | ECE | NS] {
            add(Shape { flags: ACK | flags, ..base.clone() });
        }
        add(Shape { flags: ACK | URG, urgent: 77, ..base.clone() });
        for tos in 0..4 {
            add(Shape { tos: tos | 0x28, ..base.clone() });
        }
        for id in [0, 0xfffe, 0xffff] {
            for dont_fragment in [false, true] {
                add(Shape { id, dont_fragment, ..base.clone() });
            }
        }
        add(Shape { sequence: u32::MAX - 1500, ..base.clone() });
        add(Shape { ttl: 2, flow_label: 0xabcde, ..base.clone() });
    }
    // 64 KiB in segments of a byte: more of them than a kernel counts in 16 bits there are not.
    table.push(Shape { payload: 65_535, size: 1, wild_options: false, ..Shape::default() });
    table
}

//! What [`Chain`](adit_core::offload::Chain) joined, the kernel splits into the very packets that went in.

use adit_core::offload::VirtioNetHeader;
use anyhow::Result;

use crate::ours;
use crate::packet::Packet;
use crate::random;
use crate::router::{Router, aged, assert_same};
use crate::shape::{ACK, CWR, ECE, FIN, NS, PSH, Shape};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_kernel_undoes_every_joining() -> Result<()> {
    let mut router = Router::new()?;
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let base = Shape { v6, udp, wild_options: false, ..Shape::default() };
        for (payload, size) in [(2000, 1000), (2500, 1000), (1001, 1000), (60, 1), (60_000, 1400), (65_535, 9000)] {
            assert!(undone(&mut router, &Shape { payload, size, ..base.clone() })? >= 1);
        }
        for flags in [FIN, PSH, FIN | PSH, CWR, ECE, NS, FIN | PSH | ECE | NS] {
            undone(&mut router, &Shape { flags: ACK | flags, ..base.clone() })?;
        }
        for tos in 0..4 {
            assert_eq!(undone(&mut router, &Shape { tos, ..base.clone() })?, 2);
        }
        for tcp_options in 0..=10 {
            assert_eq!(undone(&mut router, &Shape { tcp_options, ..base.clone() })?, 2);
        }
        for (id, dont_fragment) in [(0, true), (0, false), (0xfffe, true), (0xfffe, false)] {
            assert_eq!(undone(&mut router, &Shape { id, dont_fragment, ..base.clone() })?, 2);
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_kernel_undoes_random_joinings() -> Result<()> {
    let mut router = Router::new()?;
    let mut rng = fastrand::Rng::with_seed(0x676c_7565);
    let mut joined = 0;
    for _ in 0..300 {
        let shape = random::super_packet(&mut rng);
        let shape = Shape { payload: shape.payload.min(usize::from(shape.size) * 12), ..shape };
        joined += undone(&mut router, &shape)?;
    }
    assert!(joined > 50, "only {joined} were joined: these are the wrong packets");
    Ok(())
}

/// Sends the segments of `shape` joined, and once more with a packet of another flow in between, and compares what comes
/// out. Returns how many of what was written hold more than one packet: of three segments, all, and the last two.
fn undone(router: &mut Router, shape: &Shape) -> Result<usize> {
    let mut packets = shape.packet().split(shape.size.into());
    let stranger = Shape { seed: shape.seed ^ 1, payload: 77, size: 1000, ..shape.clone() };
    packets.insert(packets.len() / 2, stranger.packet().bytes());
    let (whole, rest) = (shape.packet().split(shape.size.into()), packets);
    let all: Vec<Vec<u8>> = whole.into_iter().chain(rest).collect();
    let joined = ours::join(&all, ours::ALL);
    let received = router.forward(joined.iter().map(|joined| (joined.header, joined.bytes.as_slice())))?;
    let expected: Vec<_> = all.iter().map(|bytes| aged(&Packet::parse(bytes).unwrap()).bytes()).collect();
    assert_same(&received, &expected, &format!("{shape:?}"));
    Ok(joined.iter().filter(|joined| joined.header != VirtioNetHeader::default()).count())
}

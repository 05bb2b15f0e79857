//! The ECN field crosses the tunnel as RFC 6040 says.

use std::time::Duration;

use adit_core::{DropReason, Ecn, EngineConfig, Verdict};
use adit_sim::packet::udp;
use adit_sim::world::{tunnel_v4, tunnel_v6};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);
const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

fn packets(ecn: Ecn) -> [Vec<u8>; 2] {
    let mut packets = [udp(tunnel_v4(0), tunnel_v4(1), b"x"), udp(tunnel_v6(0), tunnel_v6(1), b"x")];
    for packet in &mut packets {
        adit_core::ip::set_ecn(packet, ecn);
    }
    packets
}

fn inner(packet: &[u8]) -> Ecn {
    adit_core::ip::IpHeader::parse(packet).expect("an IP packet").ecn
}

/// Sends each inner field under each outer one, and returns what arrived.
fn crossing(strict_ecn: bool) -> (World, Vec<(Ecn, Ecn, Option<Ecn>)>) {
    let mut world = World::pair_with(110, Link::GOOD, EngineConfig { strict_ecn, ..EngineConfig::default() });
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.nodes[1].received.clear();
    let mut seen = Vec::new();
    for from in ALL {
        for outer in ALL {
            for packet in packets(from) {
                world.tap = Some(Vec::new());
                world.lose = |_| true;
                assert_eq!(world.send(0, &packet), Verdict::Forwarded);
                let (source, _, sealed) = world.tap.take().expect("a tap").remove(0);
                world.inject_ecn(1, source, outer, &sealed);
                seen.push((from, outer, world.nodes[1].received.pop_front().map(|packet| inner(&packet))));
            }
        }
    }
    (world, seen)
}

#[test]
fn the_outer_field_is_the_inner_one_but_for_handshakes() {
    let mut world = World::pair(111, Link::GOOD);
    for ecn in ALL {
        for packet in packets(ecn) {
            world.send(0, &packet);
            let fields = world.nodes[0].last_transmit.map(|transmit| transmit.ecn);
            assert_eq!(fields, Some(Ecn::NotEct), "all of this is one initiation");
        }
    }
    world.run_for(SECOND);
    let staged: Vec<_> = world.nodes[1].received.drain(..).map(|packet| inner(&packet)).collect();
    assert_eq!(staged, ALL.iter().flat_map(|ecn| [*ecn, *ecn]).collect::<Vec<_>>());
    for ecn in ALL {
        for packet in packets(ecn) {
            world.send(0, &packet);
            assert_eq!(world.nodes[0].last_transmit.map(|transmit| transmit.ecn), Some(ecn));
        }
    }
}

#[test]
fn congestion_reaches_flows_that_know_ecn_and_others_are_delivered_as_linux_does() {
    use Ecn::{Ce, Ect0, Ect1, NotEct};
    let (world, seen) = crossing(false);
    for (from, outer, arrived) in seen {
        let expected = match (from, outer) {
            (Ect0, Ect1) => Ect1,
            (Ect0 | Ect1, Ce) => Ce,
            _ => from,
        };
        assert_eq!(arrived, Some(expected), "inner {from:?}, outer {outer:?}");
        assert!(from != NotEct || arrived == Some(NotEct));
    }
    assert_eq!(world.nodes[1].engine.stats().drops.total(), 0);
}

#[test]
fn strict_mode_drops_marked_packets_of_flows_that_do_not_know_ecn() {
    let (world, seen) = crossing(true);
    for (from, outer, arrived) in seen {
        assert_eq!(arrived.is_none(), (from, outer) == (Ecn::NotEct, Ecn::Ce), "inner {from:?}, outer {outer:?}");
    }
    assert_eq!(world.nodes[1].drops(DropReason::EcnNotCapable), 2, "one of each family");
}

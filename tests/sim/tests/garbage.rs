//! Whatever arrives, nothing panics, everything is counted, and the tunnel goes on.

use std::net::SocketAddr;
use std::time::Duration;

use adit_core::{DropReason, PeerUpdate, Verdict};
use adit_sim::packet::payload;
use adit_sim::{Link, World};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn anywhere() -> SocketAddr {
    "203.0.113.66:666".parse().expect("an address")
}

/// Two nodes with a session that know each other's endpoint.
fn up(seed: u64) -> World {
    let mut world = World::pair(seed, Link::GOOD);
    let (key_a, address_a) = (world.nodes[0].public_key(), world.nodes[0].address);
    world.set_peer(1, PeerUpdate::new(key_a).endpoint(address_a));
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.nodes[1].received.clear();
    world
}

/// One fresh message of each type that was never delivered, meant for node 1: it would be taken as it is.
fn messages(world: &mut World) -> Vec<Vec<u8>> {
    let mut fresh = Vec::new();
    world.tap = Some(Vec::new());
    world.lose = |_| true;
    // A transport message with a packet, and after 180 s an initiation.
    world.send_udp(0, 1, b"sealed");
    world.run_for(200 * SECOND);
    world.send_udp(0, 1, b"?");
    fresh.extend(world.tap.take().expect("a tap").into_iter().map(|(_, _, bytes)| bytes).filter(|bytes| bytes[0] != 2));
    // A response to an initiation of node 1.
    world.send_udp(1, 0, b"?");
    world.tap = Some(Vec::new());
    world.lose = |bytes| bytes[0] != 1;
    world.run_for(6 * SECOND);
    fresh.extend(world.tap.take().expect("a tap").into_iter().map(|(_, _, bytes)| bytes).filter(|bytes| bytes[0] == 2));
    world.lose = |_| false;
    fresh
}

fn works(world: &mut World) {
    world.lose = |_| false;
    world.run_for(30 * SECOND);
    world.nodes.iter_mut().for_each(|node| node.received.clear());
    for node in [0, 1] {
        world.send_udp(node, 1 - node, b"still here");
        world.run_for(SECOND);
        let received = world.nodes[1 - node].received.back();
        assert_eq!(received.map(|packet| payload(packet)), Some(&b"still here"[..]), "from node {node}");
    }
}

/// Gives a datagram to a node, and checks that it was dropped and counted once.
fn refused(world: &mut World, node: usize, datagram: &[u8]) -> DropReason {
    let before = world.nodes[node].engine.stats().drops.total();
    let verdict = world.inject(node, anywhere(), datagram);
    let Verdict::Dropped(reason) = verdict else { panic!("{verdict:?} of {datagram:02x?}") };
    assert_eq!(world.nodes[node].engine.stats().drops.total(), before + 1, "{reason:?}");
    reason
}

#[test]
fn every_truncation_and_every_flipped_bit_of_every_message_is_refused() {
    let mut world = up(130);
    let fresh = messages(&mut world);
    let kinds: std::collections::BTreeSet<_> = fresh.iter().map(|bytes| bytes[0]).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [1, 2, 4]);
    let delivered = [world.nodes[0].received.len(), world.nodes[1].received.len()];
    for message in &fresh {
        for len in 0..message.len() {
            refused(&mut world, 1, &message[..len]);
        }
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // mac2 means nothing to a host that is not under load: that message is as good as the original.
            let mac2 = message.len() - 16;
            if message[0] != 4 && bit / 8 >= mac2 {
                continue;
            }
            refused(&mut world, 1, &flipped);
        }
        let mut longer = message.clone();
        longer.push(0);
        refused(&mut world, 1, &longer);
    }
    assert_eq!([world.nodes[0].received.len(), world.nodes[1].received.len()], delivered);
    works(&mut world);
}

#[test]
fn every_flipped_bit_of_a_fresh_transport_message_is_refused_and_the_original_is_not() {
    let mut world = up(131);
    world.tap = Some(Vec::new());
    world.lose = |_| true;
    world.send_udp(0, 1, b"sealed");
    let message = world.tap.take().expect("a tap").remove(0).2;
    for bit in 0..message.len() * 8 {
        let mut flipped = message.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let reason = refused(&mut world, 1, &flipped);
        let expected: &[DropReason] = match bit / 8 {
            0..4 => &[DropReason::NotWireGuard],
            4 => &[DropReason::NoSession],
            5..8 => &[DropReason::UnknownIndex],
            // A counter that was used already, in a message that is not looked at any further.
            8..16 => &[DropReason::InvalidTag, DropReason::Replayed],
            _ => &[DropReason::InvalidTag],
        };
        assert!(expected.contains(&reason), "bit {bit}: {reason:?}");
    }
    let from = world.nodes[0].address;
    assert_eq!(world.inject(1, from, &message), Verdict::Forwarded);
    works(&mut world);
}

#[test]
fn every_flipped_bit_of_a_cookie_is_refused_and_the_original_is_not() {
    let limits = adit_core::Limits { handshakes_per_second: 0, ..Default::default() };
    let mut world = World::pair_with(132, Link::GOOD, adit_core::EngineConfig { limits, ..Default::default() });
    world.tap = Some(Vec::new());
    world.lose = |bytes| bytes[0] == 3;
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    let cookie = world.tap.take().expect("a tap").into_iter().find(|(_, _, bytes)| bytes[0] == 3).expect("a cookie").2;
    for bit in 0..cookie.len() * 8 {
        let mut flipped = cookie.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let reason = refused(&mut world, 0, &flipped);
        let expected = match bit / 8 {
            0..4 => DropReason::NotWireGuard,
            4 => DropReason::NoSession,
            5..8 => DropReason::UnknownIndex,
            _ => DropReason::InvalidTag,
        };
        assert_eq!(reason, expected, "bit {bit}");
    }
    let from = world.nodes[1].address;
    assert_eq!(world.inject(0, from, &cookie), Verdict::Consumed);
}

#[test]
fn packets_of_the_host_that_are_none_are_refused() {
    let mut world = up(133);
    let good = adit_sim::packet::udp(adit_sim::world::tunnel_v6(0), adit_sim::world::tunnel_v6(1), b"payload");
    for len in 0..good.len() {
        assert_eq!(world.send(0, &good[..len]), Verdict::Dropped(DropReason::NotIp), "{len} bytes");
    }
    for version in (0..16u8).filter(|version| *version != 4 && *version != 6) {
        let mut other = good.clone();
        other[0] = version << 4 | (other[0] & 15);
        assert_eq!(world.send(0, &other), Verdict::Dropped(DropReason::NotIp), "version {version}");
    }
    works(&mut world);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_from_either_side_do_no_harm(
        seed in 0u64..1000,
        datagrams in proptest::collection::vec((0u8..6, proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..60),
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..30),
    ) {
        let mut world = up(seed);
        for (kind, mut bytes, shaped) in datagrams {
            if shaped {
                bytes.resize([148, 148, 92, 64, 100, 32][usize::from(kind)], kind);
                bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            refused(&mut world, 1, &bytes);
        }
        for packet in packets {
            let before = world.nodes[0].engine.stats().drops.total();
            let verdict = world.send(0, &packet);
            if let Verdict::Dropped(_) = verdict {
                prop_assert_eq!(world.nodes[0].engine.stats().drops.total(), before + 1);
            }
        }
        works(&mut world);
    }

    #[test]
    fn authentic_packets_with_random_insides_do_no_harm(
        insides in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..100), 1..20),
    ) {
        // A peer that is authentic and mad: boringtun itself seals whatever it is given.
        let mut world = World::pair(134, Link::GOOD);
        let key_b = world.nodes[1].public_key();
        let secret = boringtun::x25519::StaticSecret::from([1; 32]);
        let mut mad = boringtun::noise::Tunn::new(secret, boringtun::x25519::PublicKey::from(*key_b.as_bytes()), None, None, 7, None);
        let from = world.nodes[0].address;
        let mut buffer = [0; 256];
        let bytes = |result: boringtun::noise::TunnResult<'_>| match result {
            boringtun::noise::TunnResult::WriteToNetwork(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        };
        let initiation = bytes(mad.format_handshake_initiation(&mut buffer, false));
        world.tap = Some(Vec::new());
        world.lose = |_| true;
        prop_assert_eq!(world.inject(1, from, &initiation), Verdict::Consumed);
        let response = world.tap.take().expect("a tap").remove(0).2;
        let keepalive = bytes(mad.decapsulate(None, &response, &mut buffer));
        prop_assert_eq!(world.inject(1, from, &keepalive), Verdict::Consumed);
        for inside in insides {
            let sealed = bytes(mad.encapsulate(&inside, &mut buffer));
            let verdict = world.inject(1, from, &sealed);
            prop_assert!(
                matches!(verdict, Verdict::Dropped(DropReason::InnerNotIp | DropReason::SpoofedSource)),
                "{:?} of {:02x?}", verdict, inside
            );
        }
        prop_assert!(world.nodes[1].received.is_empty());
    }
}

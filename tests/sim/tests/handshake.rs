//! A handshake begins with the first packet, and both directions carry data after it.

use std::time::Duration;

use adit_core::{DropReason, Event, Verdict};
use adit_sim::packet::{payload, udp};
use adit_sim::world::{tunnel_v4, tunnel_v6};
use adit_sim::{Link, World};

#[test]
fn the_first_packet_waits_for_the_handshake_and_then_arrives() {
    let mut world = World::pair(1, Link::GOOD);
    assert_eq!(world.send_udp(0, 1, b"hello"), Verdict::Staged);
    world.run_for(Duration::from_secs(1));

    assert_eq!(world.nodes[1].received.len(), 1);
    assert_eq!(payload(&world.nodes[1].received[0]), b"hello");
    assert_eq!(world.send_udp(1, 0, b"and back"), Verdict::Forwarded);
    world.run_for(Duration::from_secs(1));
    assert_eq!(payload(&world.nodes[0].received[0]), b"and back");

    for node in 0..2 {
        assert_eq!(world.nodes[node].engine.stats().drops.total(), 0);
        assert_eq!(world.nodes[node].handshakes(), 1);
    }
    let round_trip = world.nodes[0].events.iter().find_map(|event| match event {
        Event::HandshakeCompleted { round_trip, first: true, .. } => Some(*round_trip),
        _ => None,
    });
    assert_eq!(round_trip, Some(Some(Duration::from_millis(20))), "two times 10 ms");
}

#[test]
fn both_families_travel_in_one_session() {
    let mut world = World::pair(2, Link::GOOD);
    world.send(0, &udp(tunnel_v6(0), tunnel_v6(1), b"six"));
    world.send(0, &udp(tunnel_v4(0), tunnel_v4(1), b"four"));
    world.run_for(Duration::from_secs(1));
    let payloads: Vec<_> = world.nodes[1].received.iter().map(|packet| payload(packet)).collect();
    assert_eq!(payloads, [&b"six"[..], b"four"], "staged packets keep their order");
    assert_eq!(world.nodes[0].handshakes(), 1);
}

#[test]
fn both_sides_may_begin_at_the_same_moment() {
    let mut world = World::pair(3, Link::GOOD);
    let (key_a, address_a) = (world.nodes[0].public_key(), world.nodes[0].address);
    world.set_peer(1, adit_core::PeerUpdate::new(key_a).endpoint(address_a));
    world.send_udp(0, 1, b"a");
    world.send_udp(1, 0, b"b");
    world.run_for(Duration::from_secs(1));
    assert_eq!(payload(&world.nodes[1].received[0]), b"a");
    assert_eq!(payload(&world.nodes[0].received[0]), b"b");
}

#[test]
fn an_offered_session_is_waited_for_and_not_crossed() {
    let mut world = World::pair(7, Link::GOOD);
    world.send_udp(0, 1, b"question");
    world.run_for(Duration::from_millis(15));
    assert_eq!(world.send_udp(1, 0, b"waits for the confirmation"), Verdict::Staged);
    world.run_for(Duration::from_millis(30));
    assert_eq!(payload(&world.nodes[0].received[0]), b"waits for the confirmation");
    assert_eq!(world.nodes[0].handshakes(), 1);
    assert_eq!(world.nodes[1].engine.stats().traffic.handshakes_sent, 1, "the response and no initiation");

    // An offer that is not taken up delays an own initiation by no more than a retry.
    let mut world = World::pair(8, Link::GOOD);
    world.lose = |bytes| bytes[0] == 2;
    world.send_udp(0, 1, b"question");
    world.run_for(Duration::from_millis(15));
    world.lose = |_| false;
    let node_0 = world.nodes[0].address;
    world.nodes[0].address = "203.0.113.1:1".parse().unwrap();
    assert_eq!(world.send_udp(1, 0, b"answer"), Verdict::Staged);
    world.tap = Some(Vec::new());
    world.run_for(Duration::from_secs(6));
    let own = world.nodes[1].address;
    let sent =
        world.tap.iter().flatten().filter(|(from, to, bytes)| (*from, *to, bytes[0]) == (own, node_0, 1)).count();
    assert_eq!(sent, 0, "the other side's retry came first");
    assert_eq!(payload(&world.nodes[0].received[0]), b"answer");
}

#[test]
fn a_peer_without_endpoint_cannot_be_reached_until_it_speaks() {
    let mut world = World::pair(4, Link::GOOD);
    assert_eq!(world.send_udp(1, 0, b"early"), Verdict::Dropped(DropReason::NoEndpoint));
    world.send_udp(0, 1, b"hello");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.send_udp(1, 0, b"now"), Verdict::Forwarded);
}

#[test]
fn packets_to_nobody_are_counted() {
    let mut world = World::pair(5, Link::GOOD);
    let nowhere = udp(tunnel_v4(0), "203.0.113.7".parse().unwrap(), b"?");
    assert_eq!(world.send(0, &nowhere), Verdict::Dropped(DropReason::NoRoute));
    assert_eq!(world.nodes[0].drops(DropReason::NoRoute), 1);
    assert_eq!(world.nodes[0].sent, 0);
}

#[test]
fn preshared_keys_have_to_agree() {
    let mut world = World::pair(6, Link::GOOD);
    let (key_a, key_b) = (world.nodes[0].public_key(), world.nodes[1].public_key());
    let psk = adit_core::PresharedKey::from_bytes([9; 32]);
    world.set_peer(0, adit_core::PeerUpdate::new(key_b).preshared(psk.clone()));
    world.send_udp(0, 1, b"x");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.nodes[0].drops(DropReason::InvalidTag), 1, "the response is made with another key");
    assert!(world.nodes[1].received.is_empty());

    world.set_peer(1, adit_core::PeerUpdate::new(key_a).preshared(psk));
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.nodes[1].received.len(), 1, "the retry succeeds and what waited arrives");
}

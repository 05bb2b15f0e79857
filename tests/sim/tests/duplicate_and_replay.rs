//! Datagrams that arrive twice, and datagrams that somebody recorded and plays again.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use adit_core::{DropReason, PeerUpdate, Verdict};
use adit_sim::packet::payload;
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

fn elsewhere() -> SocketAddr {
    "203.0.113.66:6666".parse().expect("an address")
}

#[test]
fn every_packet_is_delivered_once_however_often_it_arrives() {
    let link = Link { duplicate: 0.3, reorder: 0.3, reorder_by: Duration::from_millis(50), ..Link::GOOD };
    let mut world = World::pair(50, link);
    for number in 0..20_000u32 {
        for node in [0, 1] {
            world.send_udp(node, 1 - node, &number.to_be_bytes());
        }
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(SECOND);
    for (node, least) in [(0, 19_990), (1, 20_000)] {
        let received = &world.nodes[node].received;
        let distinct: HashSet<_> = received.iter().map(|packet| payload(packet)).collect();
        assert_eq!(distinct.len(), received.len(), "node {node} got a packet twice");
        assert!(received.len() >= least, "node {node} got {}", received.len());
        let replayed = world.nodes[node].drops(DropReason::Replayed);
        assert!((5_000..7_000).contains(&replayed), "3 of 10 arrive twice: {replayed}");
    }
}

#[test]
fn a_recorded_flow_played_again_delivers_nothing() {
    let mut world = World::pair(51, Link::GOOD);
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    for number in 0..100u8 {
        world.send_udp(0, 1, &[number]);
        world.send_udp(1, 0, &[number]);
    }
    world.run_for(SECOND);
    let tape = world.tap.take().expect("a tap");
    let before = [world.nodes[0].received.len(), world.nodes[1].received.len()];
    let endpoints: Vec<_> = [0, 1].map(|node| world.nodes[node].engine.snapshot(world.now()).peers[0].endpoint).into();

    for (from, to, bytes) in &tape {
        let node = usize::from(*to == world.nodes[1].address);
        let reason = match bytes[0] {
            1 => DropReason::StaleHandshake,
            2 => DropReason::Unexpected,
            _ => DropReason::Replayed,
        };
        for source in [*from, elsewhere()] {
            assert_eq!(world.inject(node, source, bytes), Verdict::Dropped(reason), "message type {}", bytes[0]);
        }
    }
    assert_eq!([world.nodes[0].received.len(), world.nodes[1].received.len()], before);
    assert_eq!(
        [world.nodes[0].drops(DropReason::StaleHandshake), world.nodes[1].drops(DropReason::StaleHandshake)],
        [0, 2]
    );
    for (node, endpoint) in endpoints.into_iter().enumerate() {
        assert_eq!(world.nodes[node].engine.snapshot(world.now()).peers[0].endpoint, endpoint, "nothing moved");
    }
    assert_eq!(world.send_udp(0, 1, b"on"), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(payload(world.nodes[1].received.back().expect("a packet")), b"on");
}

#[test]
fn a_recorded_initiation_does_not_move_the_endpoint_of_a_host_that_has_just_started() {
    let mut world = World::pair(52, Link::GOOD);
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    let initiation = world.tap.take().expect("a tap").remove(0).2;
    assert_eq!(initiation[0], 1);

    // A third host has the keys of the second, and has never seen a timestamp: the second, started again.
    let mut again = World::new(53, Link::GOOD);
    again.add("192.0.2.1:51820", Default::default());
    let b = again.add("198.51.100.2:51820", Default::default());
    let (key_a, address_a) = (again.nodes[0].public_key(), again.nodes[0].address);
    again.set_peer(b, PeerUpdate::new(key_a).endpoint(address_a).allow(adit_sim::world::nets(&["10.0.0.1/32"])));
    again.tap = Some(Vec::new());
    assert_eq!(again.inject(b, elsewhere(), &initiation), Verdict::Consumed, "nobody can tell that it is old");
    let (_, to, response) = again.tap.as_ref().expect("a tap")[0].clone();
    assert_eq!((to, response[0]), (elsewhere(), 2), "answered where it came from");
    assert_eq!(again.nodes[b].engine.snapshot(again.now()).peers[0].endpoint, Some(address_a), "and that is all");
    assert!(!again.nodes[b].engine.has_session(), "the session is only offered");

    again.send_udp(b, 0, b"to the real one");
    again.run_for(6 * SECOND);
    let (_, to, _) = again.tap.as_ref().expect("a tap")[1].clone();
    assert_eq!(to, address_a);
}

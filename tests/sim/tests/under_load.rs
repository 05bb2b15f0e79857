//! More handshake messages than the engine wants to look at: it asks for cookies, which only real addresses can bring.

use std::time::Duration;

use adit_core::{DropReason, EngineConfig, Limits, PeerUpdate, Verdict};
use adit_sim::world::nets;
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: u64 = 20;

/// A server, node 0, with one client, node 1, and a stranger, node 2, that knows the server's public key.
fn server(seed: u64) -> World {
    let limits = Limits { handshakes_per_second: LIMIT, ..Limits::default() };
    let mut world = World::new(seed, Link::GOOD);
    for address in ["192.0.2.1:51820", "198.51.100.1:1000", "203.0.113.3:3000"] {
        world.add(address, EngineConfig { seed, limits, ..EngineConfig::default() });
    }
    let (key, address) = (world.nodes[0].public_key(), world.nodes[0].address);
    for client in [1, 2] {
        world.set_peer(client, PeerUpdate::new(key).endpoint(address).allow(nets(&["10.0.0.1/32"])));
    }
    let client = world.nodes[1].public_key();
    world.set_peer(0, PeerUpdate::new(client).allow(nets(&["10.0.0.2/32"])));
    world
}

/// A valid initiation of the stranger.
fn initiation(world: &mut World) -> Vec<u8> {
    world.lose = |_| true;
    world.tap = Some(Vec::new());
    world.send_udp(2, 0, b"flood");
    world.lose = |_| false;
    // It says so once, and does not repeat it.
    let server = world.nodes[0].public_key();
    world.set_peer(2, PeerUpdate { remove: true, ..PeerUpdate::new(server) });
    world.tap.take().expect("a tap").remove(0).2
}

#[test]
fn beyond_the_limit_each_initiation_is_answered_with_a_cookie() {
    let mut world = server(100);
    let flood = initiation(&mut world);
    let from = world.nodes[2].address;
    world.tap = Some(Vec::new());
    for number in 0..1000 {
        let expected = if number < LIMIT { DropReason::UnknownPeer } else { DropReason::UnderLoad };
        assert_eq!(world.inject(0, from, &flood), Verdict::Dropped(expected), "initiation {number}");
    }
    let replies = world.tap.take().expect("a tap");
    assert_eq!(replies.len() as u64, 1000 - LIMIT);
    assert!(replies.iter().all(|(_, to, bytes)| *to == from && (bytes[0], bytes.len()) == (3, 64)));
    assert_eq!(world.nodes[0].engine.stats().cookies_sent, 1000 - LIMIT);

    world.run_for(SECOND);
    assert_eq!(world.inject(0, from, &flood), Verdict::Dropped(DropReason::UnknownPeer), "a new second");
}

#[test]
fn a_wrong_mac1_costs_no_cookie_and_counts_for_no_load() {
    let mut world = server(101);
    let flood = initiation(&mut world);
    let from = world.nodes[2].address;
    let mut wrong = flood.clone();
    wrong[116] ^= 1;
    for _ in 0..1000 {
        assert_eq!(world.inject(0, from, &wrong), Verdict::Dropped(DropReason::InvalidMac));
    }
    assert_eq!(world.nodes[0].sent, 0);
    for _ in 0..LIMIT {
        assert_eq!(world.inject(0, from, &flood), Verdict::Dropped(DropReason::UnknownPeer));
    }
}

#[test]
fn a_client_gets_through_a_flood_with_its_cookie() {
    let mut world = server(102);
    let flood = initiation(&mut world);
    let from = world.nodes[2].address;
    world.send_udp(1, 0, b"let me in");
    // A hundred initiations a second for a while, half of them before the client's first arrives.
    let mut arrived_after = None;
    for tick in 0..2000 {
        world.inject(0, from, &flood);
        world.run_for(Duration::from_millis(5));
        if arrived_after.is_none() && !world.nodes[0].received.is_empty() {
            arrived_after = Some(tick);
        }
    }
    assert_eq!(world.nodes[0].received.len(), 1, "the client's packet");
    let seconds = arrived_after.expect("arrived") / 200;
    assert!(seconds <= 6, "after {seconds} s: the first initiation, or the retry with a cookie");
    assert!(world.nodes[0].drops(DropReason::UnderLoad) > 1000);

    // The same with a load so high that no message without a cookie passes.
    let mut world = server(103);
    let flood = initiation(&mut world);
    for _ in 0..LIMIT {
        world.inject(0, from, &flood);
    }
    world.send_udp(1, 0, b"let me in");
    world.run_for(Duration::from_millis(500));
    assert!(world.nodes[0].received.is_empty());
    assert_eq!(world.nodes[0].engine.stats().cookies_sent, 1);
    world.run_for(Duration::from_millis(4500));
    for _ in 0..LIMIT {
        world.inject(0, from, &flood);
    }
    world.run_for(Duration::from_millis(400));
    assert_eq!(world.nodes[0].received.len(), 1, "the retry carries the cookie");
    assert_eq!(world.nodes[0].engine.stats().cookies_sent, 1, "and is not asked for another");
}

#[test]
fn a_cookie_belongs_to_one_address() {
    let mut world = server(104);
    let flood = initiation(&mut world);
    let from = world.nodes[2].address;
    for _ in 0..LIMIT {
        world.inject(0, from, &flood);
    }
    world.send_udp(1, 0, b"let me in");
    world.run_for(4 * SECOND);
    world.lose = |_| true;
    world.tap = Some(Vec::new());
    world.run_for(2 * SECOND);
    let retry = world.tap.take().expect("a tap").remove(0).2;
    assert_ne!(retry[132..], [0; 16], "mac2 is set");
    for _ in 0..LIMIT {
        world.inject(0, from, &flood);
    }
    assert_eq!(world.inject(0, from, &retry), Verdict::Dropped(DropReason::UnderLoad), "from another address");
    let home = world.nodes[1].address;
    assert_eq!(world.inject(0, home, &retry), Verdict::Consumed);
}

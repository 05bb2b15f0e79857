//! Datagrams that overtake each other: everything within the replay window is delivered, once.

use std::time::Duration;

use adit_core::{DropReason, Verdict};
use adit_sim::packet::payload;
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn overtaken_packets_are_delivered_all_the_same() {
    let link = Link { reorder: 0.5, reorder_by: Duration::from_millis(200), ..Link::GOOD };
    let mut world = World::pair(40, link);
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.nodes[1].received.clear();
    // Fifty thousand packets over 500 s, with rekeys among them: late packets of an old session still open.
    for number in 0..50_000u32 {
        world.send_udp(0, 1, &number.to_be_bytes());
        world.run_for(Duration::from_millis(10));
    }
    world.run_for(SECOND);
    let mut numbers: Vec<_> =
        world.nodes[1].received.iter().map(|packet| u32::from_be_bytes(payload(packet).try_into().unwrap())).collect();
    assert!(!numbers.is_sorted(), "the link reorders");
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50_000).collect::<Vec<_>>());
    assert_eq!(world.nodes[1].engine.stats().drops.total(), 0);
    assert_eq!(world.nodes[0].handshakes(), 5, "at 0, 120, 240, 360 and 480 s");
}

#[test]
fn the_replay_window_is_1024_packets() {
    let mut world = World::pair(41, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.tap = Some(Vec::new());
    for number in 0..1100u32 {
        world.send_udp(0, 1, &number.to_be_bytes());
    }
    let sealed: Vec<_> = world.tap.take().expect("a tap").into_iter().map(|(_, _, bytes)| bytes).collect();
    world.lose = |_| true;
    world.sleep_all(Duration::from_millis(1));
    let from = world.nodes[0].address;
    assert_eq!(world.inject(1, from, &sealed[1099]), Verdict::Forwarded);
    assert_eq!(world.inject(1, from, &sealed[1099 - 1023]), Verdict::Forwarded, "the oldest that fits");
    assert_eq!(world.inject(1, from, &sealed[1099 - 1025]), Verdict::Dropped(DropReason::Replayed), "too old");
}

#[test]
fn a_late_packet_of_the_old_session_does_not_bring_it_back() {
    let mut world = World::pair(42, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.tap = Some(Vec::new());
    world.lose = |_| true;
    world.send_udp(0, 1, b"late");
    let (from, _, late) = world.tap.take().expect("a tap").remove(0);
    world.lose = |_| false;
    world.run_for(120 * SECOND);
    world.send_udp(0, 1, b"renew");
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].handshakes(), 2);

    let index = |world: &mut World| {
        world.tap = Some(Vec::new());
        world.send_udp(1, 0, b"?");
        let (_, _, bytes) = world.tap.take().expect("a tap").remove(0);
        u32::from_le_bytes(bytes[4..8].try_into().unwrap())
    };
    let before = index(&mut world);
    assert_eq!(world.inject(1, from, &late), Verdict::Forwarded);
    assert_eq!(index(&mut world), before, "still sealed with the new session");
}

#[test]
fn responses_that_overtake_each_other_make_a_session_on_both_sides() {
    for seed in 0..50 {
        // Retries go out while answers to the tries before are still on the way.
        let link = Link { delay: SECOND, reorder: 1.0, reorder_by: 2 * SECOND, ..Link::GOOD };
        let mut world = World::pair(seed, link);
        let (key_a, address_a) = (world.nodes[0].public_key(), world.nodes[0].address);
        world.set_peer(1, adit_core::PeerUpdate::new(key_a).endpoint(address_a));
        world.send_udp(0, 1, b"a");
        world.send_udp(1, 0, b"b");
        world.run_for(60 * SECOND);
        for node in [0, 1] {
            assert_eq!(world.nodes[node].received.len(), 1, "seed {seed}, node {node}");
            assert_eq!(world.nodes[node].drops(DropReason::HandshakeTimedOut), 0, "seed {seed}");
            assert_eq!(world.send_udp(node, 1 - node, b"again"), Verdict::Forwarded, "seed {seed}, node {node}");
        }
    }
}

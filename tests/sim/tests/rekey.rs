//! Sessions are renewed after two minutes, by the side that began them, and nobody notices.

use std::time::Duration;

use adit_core::{Event, Verdict};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

/// Whether a node sent initiations: of its datagrams on the link, those with message type 1.
fn initiations(world: &World, node: usize) -> usize {
    let from = world.nodes[node].address;
    let tap = world.tap.as_ref().expect("a tap");
    tap.iter().filter(|(sender, _, bytes)| *sender == from && bytes[0] == 1).count()
}

#[test]
fn traffic_goes_on_through_rekeys_without_loss_or_delay() {
    let mut world = World::pair(10, Link::GOOD);
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.nodes.iter_mut().for_each(|node| node.received.clear());

    // Ten packets a second either way for ten minutes; each arrives 10 ms after it was sent, in order.
    for tick in 0..6000u32 {
        for node in [0, 1] {
            assert_eq!(world.send_udp(node, 1 - node, &tick.to_be_bytes()), Verdict::Forwarded, "tick {tick}");
        }
        world.run_for(Duration::from_millis(10));
        for node in &mut world.nodes {
            let arrived = node.received.pop_front().map(|packet| adit_sim::packet::payload(&packet).to_vec());
            assert_eq!(arrived, Some(tick.to_be_bytes().to_vec()), "tick {tick}");
        }
        world.run_for(Duration::from_millis(90));
    }

    assert_eq!(initiations(&world, 0), 6, "at 0, 120, 240, 360, 480 and 600 s");
    assert_eq!(initiations(&world, 1), 0, "the responder never begins");
    for node in &world.nodes {
        assert_eq!(node.handshakes(), 6);
        assert_eq!(node.engine.stats().drops.total(), 0);
        assert!(!node.events.iter().any(|event| matches!(event, Event::SessionExpired { .. })));
        let first = |event: &&Event| matches!(event, Event::HandshakeCompleted { first: true, .. });
        assert_eq!(node.events.iter().filter(first).count(), 1, "only the first is the first");
    }
}

#[test]
fn a_rekey_comes_with_the_first_packet_after_120_seconds() {
    let mut world = World::pair(11, Link::GOOD);
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(119 * SECOND);
    world.send_udp(0, 1, b"young enough");
    assert_eq!(initiations(&world, 0), 1);
    world.run_for(2 * SECOND);
    assert_eq!(initiations(&world, 0), 1, "nothing is sent, so nothing is renewed");
    world.send_udp(1, 0, b"from the responder");
    world.run_for(SECOND);
    assert_eq!(initiations(&world, 0) + initiations(&world, 1), 1);
    world.send_udp(0, 1, b"old");
    assert_eq!(initiations(&world, 0), 2);
}

#[test]
fn who_only_receives_renews_after_165_seconds() {
    let mut world = World::pair(12, Link::GOOD);
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    let start = world.elapsed();
    while initiations(&world, 0) == 1 && world.elapsed() < start + 200 * SECOND {
        world.send_udp(1, 0, b"stream");
        world.run_for(SECOND / 2);
    }
    // The passive keepalives, every ten seconds, count as sending from 120 s on.
    let age = world.elapsed() - start;
    assert!(age >= 119 * SECOND && age <= 132 * SECOND, "renewed after {age:?}");
    assert_eq!(initiations(&world, 1), 0);

    // Between a packet and its passive keepalive nothing is sent: then the age at receipt decides.
    let mut world = World::pair(13, Link::GOOD);
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(160 * SECOND);
    world.send_udp(1, 0, b"too early");
    world.run_for(SECOND);
    assert_eq!(initiations(&world, 0), 1);
    world.run_for(5 * SECOND);
    world.send_udp(1, 0, b"late");
    world.run_for(SECOND);
    assert_eq!(initiations(&world, 0), 2);
}

#[test]
fn an_idle_tunnel_makes_no_handshake() {
    let mut world = World::pair(14, Link::GOOD);
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(Duration::from_secs(24 * 3600));
    let kinds: Vec<_> = world.tap.iter().flatten().map(|(_, _, bytes)| (bytes[0], bytes.len())).collect();
    // Initiation, response, confirming keepalive, the packet, and the answer's passive keepalive.
    assert_eq!(kinds, [(1, 148), (2, 92), (4, 32), (4, 80), (4, 32)]);
}

#[test]
fn a_slow_answer_after_silence_makes_no_handshake() {
    let mut world = World::pair(15, Link { delay: Duration::from_millis(400), ..Link::GOOD });
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(60 * SECOND);
    for node in [0, 1] {
        assert_eq!(world.send_udp(node, 1 - node, b"ping"), Verdict::Forwarded);
        world.run_for(Duration::from_millis(800));
        assert_eq!(world.send_udp(1 - node, node, b"pong"), Verdict::Forwarded);
        world.run_for(20 * SECOND);
    }
    assert_eq!(initiations(&world, 0) + initiations(&world, 1), 1, "the first handshake is the only one");
}

#[test]
fn a_rekey_that_nothing_answers_does_not_stop_traffic_before_180_seconds() {
    let mut world = World::pair(16, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(119 * SECOND);
    // From here on initiations and responses are lost, and only they.
    world.lose = |bytes| bytes[0] == 1 || bytes[0] == 2;
    let mut verdicts = Vec::new();
    for _ in 0..64 {
        verdicts.push(world.send_udp(0, 1, b"stream"));
        world.run_for(SECOND);
    }
    let forwarded = verdicts.iter().take_while(|verdict| **verdict == Verdict::Forwarded).count();
    assert_eq!(forwarded, 62, "from second 119 to second 180, the session being 20 ms younger than the world");
    assert_eq!(*verdicts.last().expect("some"), Verdict::Staged);
}

#[test]
fn answers_that_take_longer_than_a_retry_still_make_a_session() {
    let mut world = World::pair(17, Link { delay: 3 * SECOND, ..Link::GOOD });
    world.send_udp(0, 1, b"hello");
    world.run_for(30 * SECOND);
    assert_eq!(world.nodes[1].received.len(), 1);
    let handshakes = world.nodes[0].engine.stats().traffic.handshakes_sent;
    world.run_for(110 * SECOND);
    assert_eq!(world.nodes[0].engine.stats().traffic.handshakes_sent, handshakes, "no retries go on behind it");
    assert_eq!(world.send_udp(1, 0, b"back"), Verdict::Forwarded);
    world.run_for(5 * SECOND);
    assert_eq!(world.nodes[0].received.len(), 1);
}

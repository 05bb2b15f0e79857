//! Sessions end, keys are wiped, and traffic or a persistent keepalive brings a peer back.

use std::time::Duration;

use adit_core::{Command, DropReason, Event, PeerUpdate, Verdict};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

fn expired(world: &World, node: usize) -> usize {
    world.nodes[node].events.iter().filter(|event| matches!(event, Event::SessionExpired { .. })).count()
}

/// The pauses after which a node was going to try again by itself.
fn pauses(world: &World, node: usize) -> Vec<Option<Duration>> {
    let pause = |event: &Event| match event {
        Event::HandshakeTimedOut { retry_in, .. } => Some(*retry_in),
        _ => None,
    };
    world.nodes[node].events.iter().filter_map(pause).collect()
}

#[test]
fn an_idle_session_ends_after_180_seconds_and_new_traffic_makes_another() {
    let mut world = World::pair(20, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(179 * SECOND);
    assert!(world.nodes.iter().all(|node| node.engine.has_session()));
    world.run_for(2 * SECOND);
    assert!(!world.nodes.iter().any(|node| node.engine.has_session()));
    assert_eq!([expired(&world, 0), expired(&world, 1)], [1, 1]);

    assert_eq!(world.send_udp(1, 0, b"the other way"), Verdict::Staged, "the endpoint is still known");
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].received.len(), 1);
    let last = world.nodes[0].events.last();
    assert!(matches!(last, Some(Event::HandshakeCompleted { first: true, .. })), "{last:?}");
}

#[test]
fn everything_is_wiped_after_540_seconds_and_then_nothing_wakes_the_machine() {
    let mut world = World::pair(21, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(541 * SECOND);
    let timeouts = [world.nodes[0].timeouts, world.nodes[1].timeouts];
    assert!(world.nodes.iter().all(|node| node.engine.poll_timeout().is_none()));
    world.run_for(3600 * SECOND);
    assert_eq!([world.nodes[0].timeouts, world.nodes[1].timeouts], timeouts);

    assert_eq!(world.send_udp(0, 1, b"again"), Verdict::Staged);
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].received.len(), 2);
    assert!(pauses(&world, 0).is_empty(), "nothing was attempted, so nothing timed out");
}

#[test]
fn an_attempt_that_the_library_forgets_on_the_way_goes_on() {
    // 540 s without a session make the library forget everything, a handshake that is just under way included.
    let mut world = World::pair(22, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(538 * SECOND);
    world.link.loss = 1.0;
    assert_eq!(world.send_udp(0, 1, b"again"), Verdict::Staged);
    world.run_for(20 * SECOND);
    world.link.loss = 0.0;
    world.run_for(6 * SECOND);
    assert_eq!(world.nodes[1].received.len(), 2, "what waited arrives with the next retry");
    assert!(pauses(&world, 0).is_empty());
}

#[test]
fn what_waits_for_an_absent_peer_is_counted_when_it_is_given_up() {
    let mut world = World::pair(23, Link { loss: 1.0, ..Link::GOOD });
    for _ in 0..5 {
        assert_eq!(world.send_udp(0, 1, b"?"), Verdict::Staged);
    }
    world.run_for(89 * SECOND);
    assert_eq!(world.nodes[0].drops(DropReason::HandshakeTimedOut), 0);
    let sent = world.nodes[0].sent;
    assert!((17..=18).contains(&sent), "{sent} initiations, every 5 s and a bit");
    world.run_for(7 * SECOND);
    assert_eq!(world.nodes[0].drops(DropReason::HandshakeTimedOut), 5);
    assert_eq!(pauses(&world, 0), [None], "without a persistent keepalive only traffic tries again");
    let sent = world.nodes[0].sent;
    world.run_for(600 * SECOND);
    assert_eq!(world.nodes[0].sent, sent);

    world.link.loss = 0.0;
    assert_eq!(world.send_udp(0, 1, b"!"), Verdict::Staged);
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].received.len(), 1);
    assert_eq!(world.nodes[0].engine.snapshot(world.now()).engine.staged_bytes, 0);
}

#[test]
fn staging_is_bounded_and_the_oldest_give_way() {
    let mut world = World::pair(24, Link { loss: 1.0, ..Link::GOOD });
    for number in 0..200u8 {
        assert_eq!(world.send_udp(0, 1, &[number]), Verdict::Staged);
    }
    assert_eq!(world.nodes[0].drops(DropReason::StagingFull), 72, "200 less the 128 that are kept");
    world.link.loss = 0.0;
    world.run_for(6 * SECOND);
    let arrived: Vec<_> = world.nodes[1].received.iter().map(|packet| adit_sim::packet::payload(packet)[0]).collect();
    assert_eq!(arrived, (72..200).collect::<Vec<_>>());
}

#[test]
fn a_persistent_keepalive_brings_a_peer_back_that_was_away_for_ten_minutes() {
    let mut world = World::pair(25, Link::GOOD);
    let key_b = world.nodes[1].public_key();
    world.set_peer(0, PeerUpdate::new(key_b).keepalive(25));
    world.run_for(60 * SECOND);
    assert!(world.nodes[1].engine.has_session());

    world.link.loss = 1.0;
    world.run_for(600 * SECOND);
    let waits = pauses(&world, 0);
    assert!(waits.len() >= 4, "given up again and again: {waits:?}");
    let limits = [5, 10, 20, 40, 60, 60, 60];
    for (pause, limit) in waits.iter().zip(limits) {
        let pause = pause.expect("a persistent keepalive tries again");
        let limit = Duration::from_secs(limit);
        assert!(limit / 2 <= pause && pause <= limit, "{pause:?} of at most {limit:?}");
    }
    let distinct: std::collections::HashSet<_> = waits.iter().flatten().map(Duration::subsec_nanos).collect();
    assert_eq!(distinct.len(), waits.len(), "the pauses are jittered: {waits:?}");

    world.link.loss = 0.0;
    world.run_for(60 * SECOND + SECOND);
    assert!(world.nodes[0].engine.has_session() && world.nodes[1].engine.has_session(), "back by itself");
    assert_eq!(world.send_udp(1, 0, b"reachable"), Verdict::Forwarded);
}

#[test]
fn a_new_endpoint_ends_the_pause() {
    let mut world = World::pair(26, Link::GOOD);
    let (key_b, right) = (world.nodes[1].public_key(), world.nodes[1].address);
    let wrong = "203.0.113.1:1".parse().expect("an address");
    world.set_peer(0, PeerUpdate::new(key_b).endpoint(wrong).keepalive(25));
    // Until the pauses are a minute long, and one has just begun.
    assert!(world.run_until(1000 * SECOND, |world| pauses(world, 0).len() == 6));
    world.set_peer(0, PeerUpdate::new(key_b).endpoint(right));
    world.run_for(SECOND);
    assert!(world.nodes[0].engine.has_session());
}

#[test]
fn after_a_sleep_nothing_is_sealed_with_the_old_key() {
    let wakes: [fn(&mut World); 5] = [
        |world| assert_eq!(world.send_udp(0, 1, b"traffic"), Verdict::Staged),
        |world| world.command(0, Command::Wake),
        |world| world.command(0, Command::Rebound),
        |world| world.command(0, Command::Connect),
        |world| world.run_for(Duration::from_millis(1)),
    ];
    for (number, wake) in wakes.into_iter().enumerate() {
        let mut world = World::pair(27, Link::GOOD);
        let key_b = world.nodes[1].public_key();
        world.set_peer(0, PeerUpdate::new(key_b).keepalive(25));
        world.run_for(30 * SECOND);
        world.sleep_all(600 * SECOND);
        world.tap = Some(Vec::new());
        wake(&mut world);
        let address = world.nodes[0].address;
        let sealed = world.tap.iter().flatten().filter(|(from, _, bytes)| *from == address && bytes[0] == 4).count();
        assert_eq!(sealed, 0, "wake {number}");
        assert_eq!(expired(&world, 0), 1, "wake {number}");

        world.run_for(30 * SECOND);
        assert!(world.nodes[0].engine.has_session(), "wake {number}: the persistent keepalive goes on");
        let initiations = world.tap.iter().flatten().filter(|(_, _, bytes)| bytes[0] == 1).count();
        assert_eq!(initiations, 1, "wake {number}: one handshake, no burst");
    }
}

#[test]
fn what_was_sealed_with_an_expired_key_is_not_opened() {
    let mut world = World::pair(28, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(170 * SECOND);
    world.tap = Some(Vec::new());
    world.send_udp(1, 0, b"kept by someone");
    let (from, _, sealed) = world.tap.take().expect("a tap").remove(0);
    world.lose = |_| true;
    world.sleep_all(11 * SECOND);
    assert_eq!(world.inject(0, from, &sealed), Verdict::Dropped(DropReason::NoSession));
    assert!(world.nodes[0].received.is_empty());
}

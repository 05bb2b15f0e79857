//! Keepalives: passive ones answer data, persistent ones keep a path open; and an idle tunnel lets the machine sleep.

use std::time::Duration;

use adit_core::{PeerUpdate, Verdict};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn keepalives(world: &World, node: usize) -> u64 {
    world.nodes[node].engine.stats().traffic.keepalives_sent
}

#[test]
fn data_without_an_answer_is_answered_after_ten_seconds() {
    let mut world = World::pair(70, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    assert_eq!([keepalives(&world, 0), keepalives(&world, 1)], [1, 0], "the initiator's confirms the session");
    world.run_for(8 * SECOND);
    assert_eq!(keepalives(&world, 1), 0);
    world.run_for(2 * SECOND);
    assert_eq!(keepalives(&world, 1), 1);
    world.run_for(HOUR);
    assert_eq!([keepalives(&world, 0), keepalives(&world, 1)], [1, 1], "a keepalive is not answered");
}

#[test]
fn an_answer_makes_the_keepalive_needless() {
    let mut world = World::pair(71, Link::GOOD);
    for _ in 0..20 {
        world.send_udp(0, 1, b"question");
        world.run_for(5 * SECOND);
        world.send_udp(1, 0, b"answer");
        world.run_for(Duration::from_millis(100));
    }
    assert_eq!([keepalives(&world, 0), keepalives(&world, 1)], [1, 0]);
    world.run_for(10 * SECOND);
    assert_eq!([keepalives(&world, 0), keepalives(&world, 1)], [2, 0], "only the last answer has none");
}

#[test]
fn one_way_traffic_is_answered_every_ten_seconds() {
    let mut world = World::pair(72, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    let before = keepalives(&world, 1);
    for _ in 0..1000 {
        world.send_udp(0, 1, b"stream");
        world.run_for(SECOND / 10);
    }
    // Each comes ten seconds after the first packet since the one before: at most a tenth of a second later each time.
    assert_eq!(keepalives(&world, 1) - before, 10);
    assert_eq!(world.nodes[0].handshakes(), 1);
}

#[test]
fn a_persistent_keepalive_starts_at_once_and_comes_every_interval() {
    let mut world = World::pair(73, Link::GOOD);
    let key_b = world.nodes[1].public_key();
    world.set_peer(0, PeerUpdate::new(key_b).keepalive(25));
    world.run_for(SECOND);
    assert!(world.nodes[1].engine.has_session(), "without any traffic");
    assert_eq!(keepalives(&world, 0), 1, "the confirmation");

    world.run_for(HOUR);
    let traffic = world.nodes[0].engine.stats().traffic;
    let responder = world.nodes[1].engine.stats().traffic;
    // A keepalive each 25 s; each fifth, at 125 s, renews the session, and the confirmation comes on top of it. The
    // interval then counts from there, 20 ms later.
    assert_eq!(traffic.handshakes_sent, 1 + 28, "one for each 125 s");
    assert_eq!(traffic.keepalives_sent, 144 + 29);
    assert_eq!(responder.keepalives_sent, 0);
    assert_eq!(responder.handshakes_sent, 29);
    assert!(world.nodes[0].timeouts < 250, "{} timeouts in an hour", world.nodes[0].timeouts);
    assert!(world.nodes[1].timeouts < 100, "{} timeouts in an hour", world.nodes[1].timeouts);
}

#[test]
fn the_interval_counts_from_the_last_packet_either_way() {
    let mut world = World::pair(74, Link::GOOD);
    let key_b = world.nodes[1].public_key();
    world.set_peer(0, PeerUpdate::new(key_b).keepalive(25));
    world.run_for(SECOND);
    let before = keepalives(&world, 0);
    for _ in 0..6 {
        world.run_for(5 * SECOND);
        world.send_udp(0, 1, b"out");
        world.run_for(4 * SECOND);
        world.send_udp(1, 0, b"in");
    }
    assert_eq!(keepalives(&world, 0), before);
    world.run_for(SECOND);
    world.send_udp(0, 1, b"last");
    world.run_for(Duration::from_millis(24_900));
    assert_eq!(keepalives(&world, 0), before, "the passive keepalive of node 1 counts as well");
    world.run_for(11 * SECOND);
    assert_eq!(keepalives(&world, 0), before + 1);
}

#[test]
fn turning_it_off_ends_it_and_the_same_again_changes_nothing() {
    let mut world = World::pair(75, Link::GOOD);
    let key_b = world.nodes[1].public_key();
    world.set_peer(0, PeerUpdate::new(key_b).keepalive(25));
    world.run_for(10 * SECOND);
    world.set_peer(0, PeerUpdate::new(key_b).keepalive(25));
    world.run_for(SECOND);
    assert_eq!(keepalives(&world, 0), 1);
    world.set_peer(0, PeerUpdate::new(key_b).keepalive(0));
    world.run_for(HOUR);
    assert_eq!(keepalives(&world, 0), 1);
    assert!(!world.nodes[0].engine.has_session());
}

#[test]
fn an_idle_tunnel_asks_for_a_handful_of_timeouts() {
    let mut world = World::pair(76, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(24 * HOUR);
    let timeouts = [world.nodes[0].timeouts, world.nodes[1].timeouts];
    println!("timeouts of an idle tunnel in 24 hours: {timeouts:?}");
    assert!(timeouts.iter().all(|count| *count <= 6), "{timeouts:?}");
}

#[test]
fn a_busy_tunnel_asks_for_few_timeouts() {
    let mut world = World::pair(77, Link::GOOD);
    for _ in 0..60_000 {
        assert_ne!(world.send_udp(0, 1, b"out"), Verdict::Dropped(adit_core::DropReason::NoSession));
        world.send_udp(1, 0, b"in");
        world.run_for(Duration::from_millis(10));
    }
    let timeouts = [world.nodes[0].timeouts, world.nodes[1].timeouts];
    println!("timeouts of a busy tunnel in 10 minutes: {timeouts:?}");
    assert!(timeouts.iter().all(|count| *count <= 150), "{timeouts:?}: one each four seconds");
}

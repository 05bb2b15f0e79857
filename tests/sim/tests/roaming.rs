//! The endpoint follows the peer's authenticated packets, and only them.

use std::net::SocketAddr;
use std::time::Duration;

use adit_core::{Command, DropReason, Event, Verdict};
use adit_sim::packet::payload;
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

fn endpoint(world: &World, node: usize) -> Option<SocketAddr> {
    world.nodes[node].engine.snapshot(world.now()).peers[0].endpoint
}

fn up(seed: u64) -> World {
    let mut world = World::pair(seed, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world
}

#[test]
fn the_next_packet_moves_the_endpoint_and_the_session_goes_on() {
    let mut world = up(60);
    let (old, new) = (world.nodes[0].address, "203.0.113.9:9999".parse().unwrap());
    world.nodes[0].address = new;
    world.send_udp(0, 1, b"from elsewhere");
    world.run_for(SECOND);
    assert_eq!(endpoint(&world, 1), Some(new));
    let key_a = world.nodes[0].public_key();
    let roamed = Event::Roamed { peer: key_a, from: Some(old), to: new };
    assert_eq!(world.nodes[1].events.iter().filter(|event| **event == roamed).count(), 1);
    assert_eq!(world.send_udp(1, 0, b"found you"), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(payload(world.nodes[0].received.back().unwrap()), b"found you");
    assert_eq!(world.nodes[0].handshakes(), 1);
}

#[test]
fn roaming_may_change_the_family() {
    let mut world = up(61);
    let new = "[2001:db8::9]:9999".parse().unwrap();
    world.nodes[0].address = new;
    world.command(0, Command::Rebound);
    world.run_for(SECOND);
    assert_eq!(endpoint(&world, 1), Some(new), "a keepalive tells the peer at once");
}

#[test]
fn the_initiator_follows_a_responder_that_moved() {
    let mut world = up(62);
    let new = "203.0.113.9:9999".parse().unwrap();
    world.nodes[1].address = new;
    world.send_udp(1, 0, b"moved");
    world.run_for(SECOND);
    assert_eq!(endpoint(&world, 0), Some(new));
}

#[test]
fn forged_and_truncated_packets_move_nothing() {
    let mut world = up(63);
    world.tap = Some(Vec::new());
    world.lose = |_| true;
    world.send_udp(0, 1, b"genuine");
    let genuine = world.tap.take().expect("a tap").remove(0).2;
    let (attacker, home) = ("203.0.113.66:6".parse().unwrap(), endpoint(&world, 1));
    for at in 0..genuine.len() {
        let mut forged = genuine.clone();
        forged[at] ^= 1;
        assert!(matches!(world.inject(1, attacker, &forged), Verdict::Dropped(_)), "byte {at}");
    }
    for len in 0..genuine.len() {
        assert!(matches!(world.inject(1, attacker, &genuine[..len]), Verdict::Dropped(_)), "{len} bytes");
    }
    assert_eq!(endpoint(&world, 1), home);
    assert_eq!(world.nodes[1].drops(DropReason::Replayed), 0);
}

#[test]
fn a_rekey_after_a_move_is_answered_at_the_new_address() {
    let mut world = up(64);
    world.run_for(200 * SECOND);
    let new = "203.0.113.9:9999".parse().unwrap();
    world.nodes[0].address = new;
    world.send_udp(0, 1, b"new session");
    world.run_for(SECOND);
    assert_eq!(endpoint(&world, 1), Some(new));
    assert_eq!(payload(world.nodes[1].received.back().unwrap()), b"new session");
}

#[test]
fn the_own_address_that_was_asked_answers_until_the_socket_changes() {
    let mut world = up(65);
    let source = adit_core::Source { remote: world.nodes[1].address, local: Some("192.0.2.77".parse().unwrap()) };
    world.tap = Some(Vec::new());
    world.lose = |_| true;
    world.send_udp(1, 0, b"to the second address");
    let sealed = world.tap.take().expect("a tap").remove(0).2;
    world.inject_source(0, source, &sealed);
    world.send_udp(0, 1, b"x");
    assert_eq!(world.nodes[0].last_transmit.and_then(|transmit| transmit.local), source.local);
    assert!(!world.nodes[0].events.iter().any(|event| matches!(event, Event::Roamed { .. })), "the peer did not move");
    world.command(0, Command::Rebound);
    world.send_udp(0, 1, b"x");
    assert_eq!(world.nodes[0].last_transmit.map(|transmit| transmit.local), Some(None));
}

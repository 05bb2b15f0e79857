//! Sleeping machines and changed networks: timers that rest, and sessions that are asked whether they still work.

use std::time::Duration;

use adit_core::{Command, Event, PeerUpdate, Verdict};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn with_keepalive(seed: u64) -> World {
    let mut world = World::pair(seed, Link::GOOD);
    let key_b = world.nodes[1].public_key();
    world.set_peer(0, PeerUpdate::new(key_b).keepalive(25));
    world.run_for(30 * SECOND);
    assert_eq!(world.nodes[0].handshakes(), 1);
    world
}

#[test]
fn a_night_of_dark_wakes_sends_nothing_although_there_is_a_keepalive() {
    let mut world = with_keepalive(90);
    world.command(0, Command::Suspend);
    let sent = world.nodes[0].sent;
    for _ in 0..8 {
        world.sleep_all(15 * MINUTE);
        // Awake for twenty seconds: nobody says `Wake` before the machine has stayed awake.
        world.run_for(20 * SECOND);
    }
    assert_eq!((world.nodes[0].sent, world.nodes[0].engine.poll_timeout()), (sent, None));

    world.command(0, Command::Wake);
    world.run_for(30 * SECOND);
    assert_eq!(world.nodes[0].handshakes(), 2, "one handshake, for the keepalive");
    let expired = world.nodes[0].events.iter().filter(|event| matches!(event, Event::SessionExpired { .. })).count();
    assert_eq!(expired, 1);
}

#[test]
fn a_packet_in_a_short_wake_is_carried_all_the_same() {
    let mut world = with_keepalive(91);
    world.command(0, Command::Suspend);
    world.sleep_all(15 * MINUTE);
    assert_eq!(world.send_udp(0, 1, b"urgent"), Verdict::Staged, "the old session is over");
    world.run_for(SECOND);
    assert_eq!((world.nodes[0].handshakes(), world.nodes[1].received.len()), (2, 1));
}

#[test]
fn an_idle_tunnel_without_keepalive_is_silent_through_sleep_and_wake() {
    let mut world = World::pair(92, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(MINUTE);
    let (sent, handshakes) = (world.nodes[0].sent, world.nodes[0].handshakes());
    for _ in 0..8 {
        world.command(0, Command::Suspend);
        world.sleep_all(15 * MINUTE);
        world.command(0, Command::Wake);
        world.run_for(20 * SECOND);
    }
    assert_eq!((world.nodes[0].sent, world.nodes[0].handshakes()), (sent, handshakes));
}

#[test]
fn a_good_session_is_asked_for_an_answer_once_and_goes_on_meanwhile() {
    let mut world = with_keepalive(93);
    world.command(0, Command::Reconnect);
    world.command(0, Command::Reconnect);
    assert_eq!(world.send_udp(0, 1, b"meanwhile"), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].handshakes(), 2, "one handshake for both");
    assert_eq!(world.nodes[1].received.len(), 1);

    // Peers that nobody talked to are left alone.
    let mut idle = World::pair(94, Link::GOOD);
    idle.command(0, Command::Reconnect);
    idle.run_for(SECOND);
    assert_eq!(idle.nodes[0].sent, 0);
}

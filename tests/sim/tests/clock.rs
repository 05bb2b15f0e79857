//! Wall clocks that go back, and the timestamps of initiations that must not.

use std::time::{Duration, SystemTime};

use adit_core::{DropReason, EngineConfig, Event, PeerUpdate, PresharedKey, Update, Verdict};
use adit_sim::world::nets;
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

#[allow(clippy::disallowed_methods, reason = "the wall clock that the library reads as well")]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// A node whose last run ended with a timestamp that lies this far in the future, and a peer.
fn behind_by(seed: u64, ahead: Duration, key_first: bool) -> World {
    let mut world = World::new(seed, Link::GOOD);
    world.add("192.0.2.1:1", EngineConfig { timestamp_floor: Some(wall() + ahead), ..EngineConfig::default() });
    world.add("198.51.100.2:2", EngineConfig::default());
    let (key_a, key_b) = (world.nodes[0].public_key(), world.nodes[1].public_key());
    let own = world.nodes[0].private_key.clone();
    if !key_first {
        world.update(0, Update { private_key: Some(None), ..Update::default() });
    }
    let address = world.nodes[1].address;
    world.set_peer(0, PeerUpdate::new(key_b).endpoint(address).allow(nets(&["10.0.0.2/32"])));
    if !key_first {
        world.update(0, Update { private_key: Some(Some(own)), ..Update::default() });
    }
    world.set_peer(1, PeerUpdate::new(key_a).allow(nets(&["10.0.0.1/32"])));
    world
}

fn clock_behind(world: &World) -> Vec<Duration> {
    let by = |event: &Event| match event {
        Event::ClockBehind { by, .. } => Some(*by),
        _ => None,
    };
    world.nodes[0].events.iter().filter_map(by).collect()
}

#[test]
fn initiations_wait_until_the_clock_has_passed_the_floor() {
    for key_first in [true, false] {
        let mut world = behind_by(160, 30 * SECOND, key_first);
        for _ in 0..50 {
            assert_eq!(world.send_udp(0, 1, b"waits"), Verdict::Staged);
        }
        world.run_for(29 * SECOND);
        assert_eq!(world.nodes[0].sent, 0, "the peer would take them for replays");
        world.run_for(2 * SECOND);
        assert_eq!(world.nodes[1].received.len(), 50);
        let behind = clock_behind(&world);
        assert_eq!(behind.len(), 1, "said once: {behind:?}");
        assert!(behind[0] > 29 * SECOND && behind[0] <= 30 * SECOND, "{behind:?}");
    }
}

#[test]
fn a_floor_far_in_the_future_holds_initiations_back_for_90_seconds() {
    let mut world = behind_by(161, 24 * 3600 * SECOND, true);
    world.send_udp(0, 1, b"waits");
    world.run_for(89 * SECOND);
    assert_eq!(world.nodes[0].sent, 0);
    world.run_for(2 * SECOND);
    assert_eq!(world.nodes[1].received.len(), 1, "worth a try: this peer has no memory");
    assert_eq!(clock_behind(&world).len(), 1);
    // What the next engine is told is the newest timestamp of all, not the last.
    let newest = world.nodes[0].engine.newest_timestamp().expect("one was sent");
    assert!(newest > wall() + 23 * 3600 * SECOND);
}

#[test]
fn after_a_hold_retries_come_as_usual() {
    let mut world = behind_by(162, 24 * 3600 * SECOND, true);
    world.link.loss = 1.0;
    world.send_udp(0, 1, b"waits");
    world.run_for(90 * SECOND + 20 * SECOND);
    assert_eq!(world.nodes[0].sent, 4, "at 90, 95, 100 and 105 s and a bit");
    world.run_for(60 * SECOND);
    assert_eq!(world.nodes[0].drops(DropReason::HandshakeTimedOut), 0, "90 s from the first that was sent");
    world.run_for(20 * SECOND);
    assert_eq!(world.nodes[0].drops(DropReason::HandshakeTimedOut), 1);
}

#[test]
fn a_new_tunnel_state_does_not_send_older_timestamps() {
    // The library dates a tunnel by the real clock, which stands still here while simulated time goes on: to it, the
    // clock went back by a minute when the preshared key was changed.
    let mut world = World::pair(163, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(60 * SECOND);
    world.update(0, Update { private_key: None, ..Update::default() });
    world.run_for(SECOND);
    world.tap = Some(Vec::new());
    world.run_for(140 * SECOND);
    assert_eq!(world.send_udp(0, 1, b"renews"), Verdict::Staged);
    world.run_for(SECOND);
    let (key_a, key_b) = (world.nodes[0].public_key(), world.nodes[1].public_key());
    let psk = PresharedKey::from_bytes([5; 32]);
    world.set_peer(0, PeerUpdate::new(key_b).preshared(psk.clone()));
    world.set_peer(1, PeerUpdate::new(key_a).preshared(psk));
    world.nodes[1].received.clear();
    let sent = world.nodes[0].sent;
    world.send_udp(0, 1, b"held");
    world.run_for(80 * SECOND);
    assert_eq!(world.nodes[0].sent, sent, "held");
    assert_eq!(clock_behind(&world).len(), 1);
    world.run_for(11 * SECOND);
    assert_eq!(world.nodes[1].received.len(), 1, "at most for 90 s");
}

#[test]
fn timestamps_of_one_engine_only_grow() {
    let mut world = World::pair(164, Link { loss: 1.0, ..Link::GOOD });
    let mut newest = None;
    for _ in 0..200 {
        world.send_udp(0, 1, b"?");
        world.run_for(SECOND);
        let now = world.nodes[0].engine.newest_timestamp();
        assert!(now >= newest);
        newest = now;
    }
    assert!(newest.is_some_and(|newest| newest >= wall() + 190 * SECOND), "it counts simulated time");
    let key_b = world.nodes[1].public_key();
    world.set_peer(0, PeerUpdate { remove: true, ..PeerUpdate::new(key_b) });
    assert_eq!(world.nodes[0].engine.newest_timestamp(), newest, "of removed peers as well");
}

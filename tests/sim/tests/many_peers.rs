//! A thousand peers on one engine: deadlines fire for the right ones, and idle ones cost nothing.

use std::time::Duration;

use adit_core::{DropReason, EngineConfig, Event, Limits, PeerUpdate, PrivateKey, PublicKey, Update, Verdict};
use adit_sim::packet::udp;
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);
const PEERS: u16 = 1000;

fn key(number: u16) -> PublicKey {
    let mut bytes = [0x55; 32];
    // Not the first byte, whose low bits a private key does not use.
    bytes[1..3].copy_from_slice(&number.to_le_bytes());
    PrivateKey::from_bytes(bytes).public_key()
}

fn address(number: u16) -> std::net::SocketAddr {
    ([203, 0, (number >> 8) as u8, number as u8], 1000 + number).into()
}

fn inner(number: u16) -> std::net::IpAddr {
    std::net::IpAddr::from([10, 1, (number >> 8) as u8, number as u8])
}

/// An engine with a thousand peers that never answer.
fn crowd(seed: u64, keepalive: u16) -> World {
    let mut world = World::new(seed, Link::GOOD);
    let limits = Limits { events: 10_000, ..Limits::default() };
    world.add("192.0.2.1:1", EngineConfig { seed, limits, ..EngineConfig::default() });
    let peers = (0..PEERS)
        .map(|number| {
            PeerUpdate::new(key(number))
                .endpoint(address(number))
                .allow([ipnet::IpNet::from(inner(number))])
                .keepalive(keepalive)
        })
        .collect();
    world.update(0, Update { peers, ..Update::default() });
    world
}

fn send(world: &mut World, number: u16) -> Verdict {
    world.send(0, &udp(adit_sim::world::tunnel_v4(0), inner(number), b"x"))
}

#[test]
fn timers_fire_for_the_peer_that_they_belong_to() {
    let mut world = crowd(170, 0);
    assert_eq!(world.nodes[0].engine.poll_timeout(), None, "idle peers have no deadlines");
    world.tap = Some(Vec::new());
    // One packet each hundredth of a second: peer n starts at n/100 s.
    for number in 0..PEERS {
        assert_eq!(send(&mut world, number), Verdict::Staged);
        world.run_for(Duration::from_millis(10));
    }
    let due = world.nodes[0].engine.poll_timeout().expect("retries").at;
    assert!(due >= world.now() - Duration::from_millis(1), "nothing is overdue");
    world.run_for(90 * SECOND);
    let mut sent = vec![0; PEERS.into()];
    for (_, to, bytes) in world.tap.take().expect("a tap") {
        assert_eq!(bytes[0], 1);
        sent[usize::from(to.port() - 1000)] += 1;
    }
    assert!(sent.iter().all(|count| (17..=19).contains(count)), "each repeats its own, and nobody else's");
    // Those that began in the first four seconds are given up by now; jitter decides about the rest.
    let gone = world.nodes[0].events.iter().filter(|event| matches!(event, Event::HandshakeTimedOut { .. })).count();
    assert_eq!(gone as u64, world.nodes[0].drops(DropReason::HandshakeTimedOut));
    assert!((300..=1000).contains(&gone), "{gone}");
    world.run_for(20 * SECOND);
    assert_eq!(world.nodes[0].drops(DropReason::HandshakeTimedOut), PEERS.into());
    assert!(world.undeliverable > 17_000);
}

#[test]
fn a_timeout_looks_only_at_the_peers_that_are_due() {
    let mut world = crowd(171, 0);
    send(&mut world, 7);
    let before = world.nodes[0].timeouts;
    world.run_for(89 * SECOND);
    let timeouts = world.nodes[0].timeouts - before;
    assert!((16..=18).contains(&timeouts), "{timeouts}: one for each retry of the one peer");
    assert_eq!(world.nodes[0].engine.stats().timer_runs, timeouts, "and each found something due");
}

#[test]
fn revivals_of_many_peers_spread_out() {
    let mut world = crowd(172, 25);
    world.run_for(100 * SECOND);
    let pauses: Vec<_> = world.nodes[0]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::HandshakeTimedOut { retry_in, .. } => *retry_in,
            _ => None,
        })
        .collect();
    assert_eq!(pauses.len(), usize::from(PEERS));
    let mut buckets = [0; 5];
    for pause in pauses {
        assert!(pause >= Duration::from_millis(2500) && pause <= 5 * SECOND);
        buckets[((pause.as_millis() - 2500) / 501) as usize] += 1;
    }
    assert!(buckets.iter().all(|count| *count > 120), "spread evenly: {buckets:?}");
}

#[test]
fn removing_half_of_them_leaves_the_other_half_alone() {
    let mut world = crowd(173, 0);
    for number in 0..PEERS {
        send(&mut world, number);
    }
    let peers = (0..PEERS / 2).map(|number| PeerUpdate { remove: true, ..PeerUpdate::new(key(2 * number)) }).collect();
    world.update(0, Update { peers, ..Update::default() });
    assert_eq!(world.nodes[0].drops(DropReason::PeerRemoved), 500);
    world.tap = Some(Vec::new());
    world.run_for(6 * SECOND);
    let tape = world.tap.take().expect("a tap");
    assert_eq!(tape.len(), 500);
    assert!(tape.iter().all(|(_, to, _)| to.port() % 2 == 1));
    assert_eq!(send(&mut world, 2), Verdict::Dropped(DropReason::NoRoute));
    // Their places are taken by others, who inherit nothing.
    let peers = (0..500).map(|number| PeerUpdate::new(key(2000 + number))).collect();
    world.update(0, Update { peers, ..Update::default() });
    world.tap = Some(Vec::new());
    world.run_for(5 * SECOND);
    assert!(world.tap.take().expect("a tap").iter().all(|(_, to, _)| to.port() < 2000));
    assert_eq!(world.nodes[0].engine.snapshot(world.now()).peers.len(), 1000);
}

//! Messages for receiver indices that nobody has, or has any more.

use std::time::Duration;

use adit_core::{DropReason, PeerUpdate, Verdict};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

/// A world with a session, and one message of each type that carries a receiver index, meant for node 0.
fn recorded(seed: u64) -> (World, Vec<u8>, Vec<u8>) {
    let mut world = World::pair(seed, Link::GOOD);
    world.tap = Some(Vec::new());
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.send_udp(1, 0, b"back");
    let tape = world.tap.take().expect("a tap");
    world.run_for(SECOND);
    let own = world.nodes[1].address;
    let of = |kind| tape.iter().find(|(from, _, bytes)| *from == own && bytes[0] == kind).expect("recorded").2.clone();
    let (response, data) = (of(2), of(4));
    (world, response, data)
}

#[test]
fn indices_of_no_peer_are_counted_and_answered_with_nothing() {
    let (mut world, _, data) = recorded(90);
    let (from, sent) = (world.nodes[1].address, world.nodes[0].sent);
    let own = u32::from_le_bytes(data[4..8].try_into().unwrap());
    let mut rng = fastrand::Rng::with_seed(90);
    for _ in 0..1000 {
        let index = rng.u32(..);
        let expected = if index >> 8 == own >> 8 { DropReason::NoSession } else { DropReason::UnknownIndex };
        let mut forged = data.clone();
        forged[4..8].copy_from_slice(&index.to_le_bytes());
        assert_eq!(world.inject(0, from, &forged), Verdict::Dropped(expected), "{index:08x}, ours is {own:08x}");
    }
    let mut cookie = vec![0; 64];
    cookie[0] = 3;
    cookie[4..8].copy_from_slice(&(own ^ 0x100).to_le_bytes());
    assert_eq!(world.inject(0, from, &cookie), Verdict::Dropped(DropReason::UnknownIndex));
    assert_eq!(world.nodes[0].sent, sent);
}

#[test]
fn every_session_number_of_a_known_peer_but_the_right_one_is_refused() {
    let (mut world, _, data) = recorded(91);
    let from = world.nodes[1].address;
    for number in 0..=255u8 {
        if number == data[4] {
            continue;
        }
        let mut forged = data.clone();
        forged[4] = number;
        assert_eq!(world.inject(0, from, &forged), Verdict::Dropped(DropReason::NoSession), "number {number}");
    }
    assert_eq!(world.inject(0, from, &data), Verdict::Dropped(DropReason::Replayed));
}

#[test]
fn what_arrives_for_a_removed_peer_is_of_an_unknown_index() {
    let (mut world, response, data) = recorded(92);
    let (from, key_b) = (world.nodes[1].address, world.nodes[1].public_key());
    world.set_peer(0, PeerUpdate { remove: true, ..PeerUpdate::new(key_b) });
    assert_eq!(world.inject(0, from, &data), Verdict::Dropped(DropReason::UnknownIndex));
    assert_eq!(world.inject(0, from, &response), Verdict::Dropped(DropReason::UnknownIndex));
    world.set_peer(0, PeerUpdate::new(key_b));
    assert_eq!(world.inject(0, from, &data), Verdict::Dropped(DropReason::UnknownIndex), "a new peer, a new index");
}

#[test]
fn an_initiation_of_a_stranger_is_refused_without_an_answer() {
    let mut world = World::pair(93, Link::GOOD);
    let stranger = world.add("203.0.113.5:5", Default::default());
    let (key_a, address_a) = (world.nodes[0].public_key(), world.nodes[0].address);
    world.set_peer(stranger, PeerUpdate::new(key_a).endpoint(address_a).allow(adit_sim::world::nets(&["10.0.0.1/32"])));
    world.send_udp(stranger, 0, b"let me in");
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].drops(DropReason::UnknownPeer), 1);
    assert_eq!(world.nodes[0].sent, 0);
}

//! A link that loses datagrams: handshakes are repeated, and what is lost is lost once.

use std::time::Duration;

use adit_core::Verdict;
use adit_sim::packet::payload;
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_handshake_gets_through_half_of_all_datagrams_lost() {
    for seed in 0..20 {
        let mut world = World::pair(seed, Link { loss: 0.5, ..Link::GOOD });
        assert_eq!(world.send_udp(0, 1, b"hello"), Verdict::Staged);
        // One try of four gets an answer back: fourteen tries all fail once in fifty attempts, and then traffic tries on.
        let up = (0..10).any(|_| {
            world.send_udp(0, 1, b"again");
            world.run_until(60 * SECOND, |world| world.nodes[0].engine.has_session())
        });
        assert!(up, "seed {seed}");
    }
}

#[test]
fn each_lost_handshake_message_costs_one_retry() {
    for kind in [1, 2] {
        let mut world = World::pair(30, Link::GOOD);
        world.lose = if kind == 1 { |bytes| bytes[0] == 1 } else { |bytes| bytes[0] == 2 };
        world.send_udp(0, 1, b"hello");
        world.run_for(4 * SECOND);
        world.lose = |_| false;
        world.run_for(2 * SECOND);
        assert_eq!(world.nodes[1].received.len(), 1, "message {kind} was lost");
        assert_eq!(world.nodes[0].handshakes(), 1);
    }
}

#[test]
fn a_lost_confirmation_is_made_up_by_the_next_packet() {
    let mut world = World::pair(31, Link::GOOD);
    let key_a = world.nodes[0].public_key();
    let address_a = world.nodes[0].address;
    world.set_peer(1, adit_core::PeerUpdate::new(key_a).endpoint(address_a));
    world.lose = |bytes| bytes[0] == 4;
    world.send_udp(0, 1, b"lost with the keepalive before it");
    world.run_for(SECOND);
    assert!(world.nodes[0].engine.has_session() && !world.nodes[1].engine.has_session());
    assert_eq!(world.send_udp(1, 0, b"waits"), Verdict::Staged, "an unconfirmed session is not sealed with");
    world.lose = |_| false;
    assert_eq!(world.send_udp(0, 1, b"confirms"), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(payload(&world.nodes[1].received[0]), b"confirms");
    assert_eq!(payload(&world.nodes[0].received[0]), b"waits");
}

#[test]
fn a_steady_stream_loses_exactly_what_the_link_loses() {
    let mut world = World::pair(32, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.link.loss = 0.1;
    world.tap = Some(Vec::new());
    for number in 0..5000u32 {
        world.send_udp(0, 1, &number.to_be_bytes());
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(SECOND);
    let numbers: Vec<_> = world.nodes[1].received.iter().skip(1).map(|packet| payload(packet).to_vec()).collect();
    assert!(numbers.is_sorted(), "loss does not reorder");
    let share = numbers.len() as f64 / 5000.0;
    assert!((0.88..0.92).contains(&share), "{share} of the packets arrived");
    assert_eq!(world.nodes[1].engine.stats().drops.total(), 0);
    assert_eq!(world.nodes[0].engine.stats().drops.total(), 0, "500 s of rekeys under loss drop nothing here");
}

#[test]
fn data_that_nothing_answers_makes_a_new_handshake_after_15_seconds() {
    let mut world = World::pair(33, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(30 * SECOND);
    // Node 1 forgets everything, as after a restart: it cannot open what node 0 seals.
    let (key_a, key_b) = (world.nodes[0].public_key(), world.nodes[1].private_key.clone());
    world.update(1, adit_core::Update { private_key: Some(None), ..Default::default() });
    world.update(1, adit_core::Update { private_key: Some(Some(key_b)), ..Default::default() });
    world.set_peer(1, adit_core::PeerUpdate::new(key_a));
    assert_eq!(world.send_udp(0, 1, b"into the void"), Verdict::Forwarded);
    world.run_for(Duration::from_millis(14_900));
    assert_eq!(world.nodes[0].handshakes(), 1);
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].handshakes(), 2);
    world.send_udp(0, 1, b"and on");
    world.run_for(SECOND);
    assert_eq!(payload(world.nodes[1].received.back().expect("a packet")), b"and on");
}

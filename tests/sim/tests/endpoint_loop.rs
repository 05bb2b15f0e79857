//! The tunnel's own datagrams, routed back into it: dropped, counted, and told once.

use std::net::SocketAddr;
use std::time::Duration;

use adit_core::{Command, DropReason, Event, PeerUpdate, Update, Verdict};
use adit_sim::world::nets;
use adit_sim::{Link, World};
use etherparse::PacketBuilder;

const SECOND: Duration = Duration::from_secs(1);
const LOOP: Verdict = Verdict::Dropped(DropReason::EndpointLoop);

/// Two nodes with a session, of which 0 sends everything to 1.
fn up(seed: u64) -> World {
    let mut world = World::pair(seed, Link::GOOD);
    let key = world.nodes[1].public_key();
    world.set_peer(0, PeerUpdate::new(key).allow(nets(&["0.0.0.0/0", "::/0"])));
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world
}

/// A datagram as the host's IP layer makes it.
fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => PacketBuilder::ipv6(from.ip().octets(), to.ip().octets(), 64),
        _ => panic!("{from} and {to} are of two families"),
    };
    builder.udp(from.port(), to.port()).write(&mut packet, payload).expect("it fits a packet");
    packet
}

fn loops(world: &World) -> Vec<SocketAddr> {
    let endpoint = |event: &Event| match event {
        Event::EndpointLoop { endpoint, .. } => Some(*endpoint),
        _ => None,
    };
    world.nodes[0].events.iter().filter_map(endpoint).collect()
}

#[test]
fn what_comes_back_is_not_sealed_again() {
    let mut world = up(90);
    world.tap = Some(Vec::new());
    // The host routes every datagram of the tunnel into the tunnel.
    assert_eq!(world.send_udp(0, 1, b"data"), Verdict::Forwarded);
    for _ in 0..100 {
        for (from, to, sealed) in world.tap.replace(Vec::new()).expect("a tap") {
            assert_eq!(world.send(0, &datagram(from, to, &sealed)), LOOP);
        }
        assert_eq!(world.send_udp(0, 1, b"data"), Verdict::Forwarded);
    }
    assert_eq!(world.nodes[0].drops(DropReason::EndpointLoop), 100);
    let (peer, endpoint) = (world.nodes[1].public_key(), world.nodes[1].address);
    assert!(world.nodes[0].events.contains(&Event::EndpointLoop { peer, endpoint }));
    assert_eq!(loops(&world), [endpoint], "once");
}

#[test]
fn handshakes_come_back_too() {
    let mut world = World::pair(91, Link::GOOD);
    world.tap = Some(Vec::new());
    assert_eq!(world.send_udp(0, 1, b"first"), Verdict::Staged);
    let (from, to, initiation) = world.tap.take().expect("a tap").remove(0);
    assert_eq!(
        world.send(0, &datagram(from, to, &initiation)),
        LOOP,
        "no peer has a route to it, and it is a loop still"
    );
    assert_eq!(loops(&world), [to]);
}

#[test]
fn other_traffic_to_the_same_host_goes_on() {
    let mut world = up(92);
    let (from, mut to) = (world.nodes[0].address, world.nodes[1].address);
    to.set_port(53);
    assert_eq!(world.send(0, &datagram(from, to, b"a name server there")), Verdict::Forwarded);
    assert_eq!(loops(&world), []);
}

#[test]
fn the_endpoint_of_any_peer_counts_and_follows_it() {
    let mut world = up(93);
    let from = world.nodes[0].address;
    let second = world.add("203.0.113.5:500", adit_core::EngineConfig::default());
    let (key, old) = (world.nodes[second].public_key(), world.nodes[second].address);
    world.set_peer(0, PeerUpdate::new(key).allow(nets(&["10.0.0.3/32"])).endpoint(old));
    assert_eq!(world.send(0, &datagram(from, old, b"by peer 1's default route")), LOOP);
    assert_eq!(loops(&world), [old]);

    // Configured anew.
    let new: SocketAddr = "203.0.113.6:501".parse().expect("an endpoint");
    world.set_peer(0, PeerUpdate::new(key).endpoint(new));
    assert_eq!(world.send(0, &datagram(from, old, b"nobody is there any more")), Verdict::Forwarded);
    assert_eq!(world.send(0, &datagram(from, new, b"somebody is here")), LOOP);
    assert_eq!(loops(&world), [old, new]);

    // Gone.
    world.update(0, Update { peers: vec![PeerUpdate { remove: true, ..PeerUpdate::new(key) }], ..Update::default() });
    assert_eq!(world.send(0, &datagram(from, new, b"nobody is here either")), Verdict::Forwarded);
}

#[test]
fn a_peer_that_roams_takes_the_guard_along() {
    let mut world = up(94);
    let (from, old) = ("[2001:db8::1]:51820".parse().expect("an endpoint"), world.nodes[1].address);
    let new: SocketAddr = "[2001:db8::9]:9999".parse().expect("an endpoint");
    assert_eq!(world.send(0, &datagram(from, new, b"to a stranger")), Verdict::Forwarded);
    world.nodes[1].address = new;
    world.command(1, Command::Rebound);
    world.run_for(SECOND);
    assert_eq!(world.send(0, &datagram(from, new, b"to the peer")), LOOP);
    assert_eq!(world.send(0, &datagram(world.nodes[0].address, old, b"to a stranger")), Verdict::Forwarded);

    // Back and away again: it is the same endpoint, and news again.
    for address in [old, new] {
        world.nodes[1].address = address;
        world.command(1, Command::Rebound);
        world.run_for(SECOND);
    }
    assert_eq!(world.send(0, &datagram(from, new, b"to the peer")), LOOP);
    assert_eq!(loops(&world), [new, new]);
}

#[test]
fn a_responder_guards_where_it_is_called_from() {
    let mut world = up(95);
    let (from, to) = (world.nodes[1].address, world.nodes[0].address);
    let key = world.nodes[0].public_key();
    world.set_peer(1, PeerUpdate::new(key).allow(nets(&["0.0.0.0/0"])));
    assert_eq!(world.send(1, &datagram(from, to, b"to the peer")), LOOP);
}

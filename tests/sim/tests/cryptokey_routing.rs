//! Allowed IPs decide both where a packet goes and whom it may come from.

use std::time::Duration;

use adit_core::{DropReason, EngineConfig, PeerUpdate, Verdict};
use adit_sim::packet::{payload, udp};
use adit_sim::world::{nets, tunnel_v4, tunnel_v6};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

/// A server, node 0, with two clients, nodes 1 and 2, each with its own address.
fn star(seed: u64) -> World {
    let mut world = World::new(seed, Link::GOOD);
    for address in ["192.0.2.1:51820", "198.51.100.1:1000", "198.51.100.2:2000"] {
        world.add(address, EngineConfig { seed, ..EngineConfig::default() });
    }
    let keys: Vec<_> = world.nodes.iter().map(adit_sim::Node::public_key).collect();
    let server = world.nodes[0].address;
    for client in [1, 2] {
        let own = format!("10.0.0.{}/32", client + 1);
        world.set_peer(0, PeerUpdate::new(keys[client]).allow(nets(&[&own])));
        world.set_peer(client, PeerUpdate::new(keys[0]).allow(nets(&["10.0.0.0/24", "fd00::/64"])).endpoint(server));
        assert_eq!(world.send_udp(client, 0, b"hello"), Verdict::Staged);
    }
    world.run_for(SECOND);
    world.nodes.iter_mut().for_each(|node| node.received.clear());
    world
}

#[test]
fn each_client_gets_its_own_packets() {
    let mut world = star(80);
    for client in [1, 2] {
        assert_eq!(world.send_udp(0, client, &[client as u8]), Verdict::Forwarded);
    }
    world.run_for(SECOND);
    for client in [1, 2] {
        assert_eq!(world.nodes[client].received.len(), 1);
        assert_eq!(payload(&world.nodes[client].received[0]), [client as u8]);
    }
}

#[test]
fn a_prefix_belongs_to_the_last_peer_that_claims_it() {
    let mut world = star(81);
    let keys: Vec<_> = world.nodes.iter().map(adit_sim::Node::public_key).collect();
    world.set_peer(0, PeerUpdate::new(keys[1]).allow(nets(&["10.9.0.0/16"])));
    world.set_peer(0, PeerUpdate::new(keys[2]).allow(nets(&["10.9.0.0/16"])));
    let to = udp(tunnel_v4(0), "10.9.0.1".parse().unwrap(), b"whose?");
    assert_eq!(world.send(0, &to), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!([world.nodes[1].received.len(), world.nodes[2].received.len()], [0, 1]);
    let snapshot = world.nodes[0].engine.snapshot(world.now());
    let of = |key| snapshot.peers.iter().find(|peer| peer.public_key == key).unwrap().allowed_ips.clone();
    assert_eq!(of(keys[1]), nets(&["10.0.0.2/32"]));
    assert_eq!(of(keys[2]), nets(&["10.9.0.0/16", "10.0.0.3/32"]));

    // Who lost it may not send from it either; who has it may.
    let from = udp("10.9.0.1".parse().unwrap(), tunnel_v4(0), b"mine");
    assert_eq!(world.send(1, &from), Verdict::Forwarded);
    assert_eq!(world.send(2, &from), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].drops(DropReason::SpoofedSource), 1);
    assert_eq!(world.nodes[0].received.len(), 1);
}

#[test]
fn a_source_of_somebody_else_is_dropped_after_decryption() {
    let mut world = star(82);
    let sources = [tunnel_v4(2), tunnel_v4(0), "203.0.113.1".parse().unwrap()];
    for source in sources {
        world.send(1, &udp(source, tunnel_v4(0), b"not me"));
    }
    world.send(1, &udp(tunnel_v6(1), tunnel_v6(0), b"a family that is not routed here"));
    world.run_for(SECOND);
    assert!(world.nodes[0].received.is_empty());
    assert_eq!(world.nodes[0].drops(DropReason::SpoofedSource), 4);
    let snapshot = world.nodes[0].engine.snapshot(world.now());
    let accounts: Vec<_> = [1, 2]
        .map(|client| {
            let key = world.nodes[client].public_key();
            snapshot.peers.iter().find(|peer| peer.public_key == key).unwrap().drops.get(DropReason::SpoofedSource)
        })
        .into();
    assert_eq!(accounts, [4, 0], "on the account of the peer that sent them");
    assert_eq!(world.send_udp(1, 0, b"honest"), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].received.len(), 1);
}

#[test]
fn the_longest_prefix_wins_in_both_directions() {
    let mut world = star(83);
    let keys: Vec<_> = world.nodes.iter().map(adit_sim::Node::public_key).collect();
    world.set_peer(0, PeerUpdate::new(keys[1]).allow(nets(&["0.0.0.0/0"])));
    world.set_peer(0, PeerUpdate::new(keys[2]).allow(nets(&["172.16.0.0/12"])));
    for (destination, client) in [("8.8.8.8", 1), ("172.20.0.1", 2), ("172.32.0.1", 1)] {
        let address = destination.parse().unwrap();
        world.send(0, &udp(tunnel_v4(0), address, destination.as_bytes()));
        world.run_for(SECOND);
        assert_eq!(payload(world.nodes[client].received.back().unwrap()), destination.as_bytes());
        // The other client's default route does not let it speak for that address.
        world.send(client, &udp(address, tunnel_v4(0), b"in"));
        world.send(3 - client, &udp(address, tunnel_v4(0), b"spoofed"));
        world.run_for(SECOND);
        assert_eq!(payload(&world.nodes[0].received.pop_front().unwrap()), b"in");
        assert!(world.nodes[0].received.is_empty());
    }
    assert_eq!(world.nodes[0].drops(DropReason::SpoofedSource), 3);
}

#[test]
fn a_prefix_taken_away_is_routed_no_more() {
    let mut world = star(84);
    let key = world.nodes[1].public_key();
    let change = adit_core::AllowedIpChange { net: "10.0.0.2/32".parse().unwrap(), remove: true };
    world.set_peer(0, PeerUpdate { allowed_ips: vec![change], ..PeerUpdate::new(key) });
    assert_eq!(world.send_udp(0, 1, b"?"), Verdict::Dropped(DropReason::NoRoute));
    world.send_udp(1, 0, b"?");
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].drops(DropReason::SpoofedSource), 1);
}

//! Packets and datagrams of every length, and the padding that hides how long a packet is.

use std::net::IpAddr;
use std::time::Duration;

use adit_core::{Command, DropReason, EngineConfig, Verdict};
use adit_sim::world::{tunnel_v4, tunnel_v6};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);
/// The longest datagram that UDP over IPv4 carries, less WireGuard's 32 bytes.
const MAX_MTU: usize = 65_507 - 32;

/// A packet of exactly `len` bytes, or that many bytes of no packet where a header does not fit.
fn packet(source: IpAddr, destination: IpAddr, len: usize) -> Vec<u8> {
    let headers = if source.is_ipv4() { 28 } else { 48 };
    match len.checked_sub(headers) {
        Some(payload) => adit_sim::packet::udp(source, destination, &vec![0x5a; payload]),
        None => vec![0x45; len],
    }
}

fn up(mtu: usize) -> World {
    let mut world = World::pair_with(120, Link::GOOD, EngineConfig { mtu, ..EngineConfig::default() });
    world.send(0, &packet(tunnel_v4(0), tunnel_v4(1), 40));
    world.run_for(SECOND);
    world.nodes[1].received.clear();
    world
}

/// Sends one packet, and checks what became of it and how long it was on the wire.
fn check(world: &mut World, packet: &[u8], mtu: usize) {
    let len = packet.len();
    world.tap = Some(Vec::new());
    let verdict = world.send(0, packet);
    if len < 28 {
        assert_eq!(verdict, Verdict::Dropped(DropReason::NotIp), "{len} bytes");
        return;
    }
    if len > mtu {
        assert_eq!(verdict, Verdict::Dropped(DropReason::TooBig), "{len} bytes");
        return;
    }
    assert_eq!(verdict, Verdict::Forwarded, "{len} bytes");
    let wire = world.tap.take().expect("a tap").remove(0).2.len();
    let padded = len.next_multiple_of(16).min(mtu);
    assert_eq!(wire, 16 + padded + 16, "{len} bytes at an MTU of {mtu}");
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.nodes[1].received.pop_front().as_deref(), Some(packet), "{len} bytes arrive as they were");
}

#[test]
fn every_length_up_to_beyond_the_usual_mtu() {
    let mut world = up(1420);
    for len in 0..=1500 {
        check(&mut world, &packet(tunnel_v4(0), tunnel_v4(1), len), 1420);
        if len >= 48 {
            check(&mut world, &packet(tunnel_v6(0), tunnel_v6(1), len), 1420);
        }
    }
    assert_eq!(world.nodes[0].drops(DropReason::NotIp), 28);
    assert_eq!(world.nodes[0].drops(DropReason::TooBig), 160);
}

#[test]
fn lengths_up_to_the_longest_packet_at_every_kind_of_mtu() {
    for mtu in [68, 576, 1280, 1407, 1408, 1409, 1500, 9000, MAX_MTU] {
        let mut world = up(mtu);
        let edges = [mtu - 17, mtu - 16, mtu - 15, mtu - 1, mtu, mtu + 1, mtu + 16];
        let grid = (0..=65_535).step_by(1021).chain([65_507, 65_520, 65_534, 65_535]);
        for len in edges.into_iter().chain(grid).filter(|len| *len <= 65_535) {
            check(&mut world, &packet(tunnel_v4(0), tunnel_v4(1), len), mtu);
        }
    }
}

#[test]
fn a_packet_that_lies_about_its_length_is_sealed_at_its_true_one_or_not_at_all() {
    let mut world = up(1420);
    let honest = packet(tunnel_v4(0), tunnel_v4(1), 100);
    let mut trailing = honest.clone();
    trailing.extend([7; 30]);
    assert_eq!(world.send(0, &trailing), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].received.pop_front(), Some(honest.clone()), "what is behind the packet stays here");
    assert_eq!(world.send(0, &honest[..99]), Verdict::Dropped(DropReason::NotIp));
}

#[test]
fn a_new_mtu_counts_from_the_next_packet() {
    let mut world = up(1420);
    let long = packet(tunnel_v4(0), tunnel_v4(1), 1420);
    world.command(0, Command::SetMtu(1280));
    assert_eq!(world.send(0, &long), Verdict::Dropped(DropReason::TooBig));
    world.command(0, Command::SetMtu(1420));
    assert_eq!(world.send(0, &long), Verdict::Forwarded);
    world.run_for(SECOND);
    // The receiver's MTU is no limit to what it takes.
    world.command(1, Command::SetMtu(68));
    assert_eq!(world.send(0, &long), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].received.len(), 2);
}

#[test]
fn datagrams_of_every_length_are_looked_at_without_harm() {
    let mut world = up(1420);
    let from = world.nodes[0].address;
    world.tap = Some(Vec::new());
    world.send(0, &packet(tunnel_v4(0), tunnel_v4(1), 1400));
    let header = world.tap.take().expect("a tap").remove(0).2[..16].to_vec();
    for len in (0..=2000).chain((2000..65_535).step_by(997)).chain([65_507, 65_508, 65_527, 65_535]) {
        for kind in 0..=5u8 {
            let mut datagram = header.clone();
            datagram.resize(len.max(16), 0x33);
            datagram.truncate(len);
            if let Some(first) = datagram.first_mut() {
                *first = kind;
            }
            let reason = match (kind, len) {
                (4, 65_508..) => DropReason::Oversize,
                (4, 32..) | (3, 64) => DropReason::InvalidTag,
                (1, 148) | (2, 92) => DropReason::InvalidMac,
                _ => DropReason::NotWireGuard,
            };
            assert_eq!(world.inject(1, from, &datagram), Verdict::Dropped(reason), "type {kind}, {len} bytes");
        }
    }
    check(&mut world, &packet(tunnel_v4(0), tunnel_v4(1), 1400), 1420);
}

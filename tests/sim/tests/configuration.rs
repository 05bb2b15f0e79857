//! Changes of the configuration: what goes on, what begins anew, and what is refused as a whole.

use std::time::{Duration, SystemTime};

use adit_core::sink::Collector;
use adit_core::{
    Command, CommandError, DropReason, EngineConfig, Limits, Outputs, PeerUpdate, PresharedKey, PrivateKey, PublicKey,
    TunPacket, Update, Verdict,
};
use adit_sim::packet::{payload, udp};
use adit_sim::world::{nets, tunnel_v4};
use adit_sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

fn up(seed: u64) -> (World, PublicKey, PublicKey) {
    let mut world = World::pair(seed, Link::GOOD);
    world.send_udp(0, 1, b"hello");
    world.run_for(SECOND);
    world.nodes[1].received.clear();
    let keys = (world.nodes[0].public_key(), world.nodes[1].public_key());
    (world, keys.0, keys.1)
}

fn replace(peers: Vec<PeerUpdate>) -> Update {
    Update { replace_peers: true, peers, ..Update::default() }
}

fn stranger(number: u8) -> PublicKey {
    PrivateKey::from_bytes([number; 32]).public_key()
}

/// What a command's refusal left: the error, and the snapshot before and after.
fn refused(world: &mut World, node: usize, command: Command) -> CommandError {
    let before = world.nodes[node].engine.snapshot(world.now());
    let error = world.try_command(node, command).expect_err("refused");
    assert_eq!(world.nodes[node].engine.snapshot(world.now()), before, "nothing was changed");
    error
}

#[test]
fn replacing_the_peers_keeps_the_sessions_of_those_that_stay() {
    let (mut world, _, key_b) = up(140);
    let keep = PeerUpdate::new(key_b).allow(nets(&["10.0.0.2/32"]));
    world.update(0, replace(vec![keep, PeerUpdate::new(stranger(50)).allow(nets(&["10.5.0.0/16"]))]));
    let snapshot = world.nodes[0].engine.snapshot(world.now());
    assert_eq!(snapshot.peers.len(), 2);
    let peer = snapshot.peers.iter().find(|peer| peer.public_key == key_b).unwrap();
    assert_eq!(peer.allowed_ips, nets(&["10.0.0.2/32"]), "what is not named again is gone");
    assert!(peer.has_session);
    assert_eq!(world.send_udp(0, 1, b"on"), Verdict::Forwarded);
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].handshakes(), 1);

    world.update(0, replace(vec![]));
    assert_eq!(world.send_udp(0, 1, b"?"), Verdict::Dropped(DropReason::NoRoute));
    assert!(world.nodes[0].engine.snapshot(world.now()).peers.is_empty());
    assert_eq!(world.nodes[0].engine.poll_timeout(), None, "no timer of a removed peer is left");
}

#[test]
fn replacing_returns_what_is_not_named_to_its_default_and_sends_nothing() {
    let (mut world, _, key_b) = up(141);
    let psk = PresharedKey::from_bytes([3; 32]);
    world.set_peer(0, PeerUpdate::new(key_b).keepalive(25).preshared(psk.clone()));
    world.run_for(SECOND);
    let sent = world.nodes[0].sent;
    let same = PeerUpdate::new(key_b).keepalive(25).preshared(psk).allow(nets(&["10.0.0.2/32"]));
    world.update(0, replace(vec![same, PeerUpdate::new(key_b).allow(nets(&["10.6.0.0/16"]))]));
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.nodes[0].sent, sent, "the same configuration again is no news");
    let peer = world.nodes[0].engine.snapshot(world.now()).peers.remove(0);
    assert_eq!((peer.persistent_keepalive, peer.preshared_key.is_some()), (25, true), "named twice, set once");
    assert_eq!(peer.allowed_ips.len(), 2);

    world.update(0, replace(vec![PeerUpdate::new(key_b)]));
    let peer = world.nodes[0].engine.snapshot(world.now()).peers.remove(0);
    assert_eq!((peer.persistent_keepalive, peer.preshared_key, peer.allowed_ips.len()), (0, None, 0));
}

#[test]
fn a_new_preshared_key_begins_a_new_session_and_what_waits_goes_through_it() {
    let (mut world, key_a, key_b) = up(142);
    let psk = PresharedKey::from_bytes([3; 32]);
    world.set_peer(0, PeerUpdate::new(key_b).preshared(psk.clone()));
    world.set_peer(1, PeerUpdate::new(key_a).preshared(psk.clone()));
    assert!(!world.nodes[0].engine.has_session(), "the old session was made without it");
    assert_eq!(world.send_udp(0, 1, b"new key"), Verdict::Staged);
    world.run_for(SECOND);
    assert_eq!(payload(&world.nodes[1].received[0]), b"new key");
    world.set_peer(0, PeerUpdate::new(key_b).preshared(psk));
    assert!(world.nodes[0].engine.has_session(), "the same key again changes nothing");
    world.set_peer(0, PeerUpdate::new(key_b).preshared(PresharedKey::from_bytes([0; 32])));
    assert_eq!(world.nodes[0].engine.snapshot(world.now()).peers[0].preshared_key, None, "zero is none");
}

#[test]
fn a_new_private_key_ends_all_sessions_and_what_waits_is_sent_with_it() {
    let (mut world, key_a, key_b) = up(143);
    let new = PrivateKey::from_bytes([77; 32]);
    world.link.loss = 1.0;
    world.run_for(200 * SECOND);
    assert_eq!(world.send_udp(0, 1, b"waits"), Verdict::Staged);
    world.link.loss = 0.0;
    world.update(1, replace(vec![PeerUpdate::new(new.public_key()).allow(nets(&["10.0.0.1/32"]))]));
    world.update(0, Update { private_key: Some(Some(new.clone())), ..Update::default() });
    world.run_for(SECOND);
    assert_eq!(payload(&world.nodes[1].received[0]), b"waits", "at once, not with the next packet");
    let snapshot = world.nodes[0].engine.snapshot(world.now());
    assert_eq!(snapshot.private_key, Some(new.clone()));
    assert_eq!(snapshot.peers[0].public_key, key_b);
    assert_ne!(new.public_key(), key_a);

    world.update(0, Update { private_key: Some(Some(new)), ..Update::default() });
    assert!(world.nodes[0].engine.has_session(), "the same key again changes nothing");
}

#[test]
fn without_a_private_key_nothing_goes_either_way() {
    let (mut world, _, _) = up(144);
    world.tap = Some(Vec::new());
    world.send_udp(1, 0, b"sealed");
    let (from, _, sealed) = world.tap.take().expect("a tap").remove(0);
    world.update(0, Update { private_key: Some(None), ..Update::default() });
    assert_eq!(world.send_udp(0, 1, b"?"), Verdict::Dropped(DropReason::NoPrivateKey));
    assert_eq!(world.inject(0, from, &sealed), Verdict::Dropped(DropReason::NoPrivateKey));
    world.command(0, Command::Connect);
    world.run_for(60 * SECOND);
    assert!(!world.nodes[0].engine.has_session());
}

#[test]
fn removing_a_peer_counts_what_waited_for_it() {
    let mut world = World::pair(145, Link { loss: 1.0, ..Link::GOOD });
    let key_b = world.nodes[1].public_key();
    for _ in 0..3 {
        world.send_udp(0, 1, b"?");
    }
    assert!(world.nodes[0].engine.snapshot(world.now()).engine.staged_bytes > 0);
    world.set_peer(0, PeerUpdate { remove: true, ..PeerUpdate::new(key_b) });
    assert_eq!(world.nodes[0].drops(DropReason::PeerRemoved), 3);
    assert_eq!(world.nodes[0].engine.snapshot(world.now()).engine.staged_bytes, 0);
    assert_eq!(world.nodes[0].engine.poll_timeout(), None);
    world.set_peer(0, PeerUpdate { remove: true, ..PeerUpdate::new(key_b) });
    world.set_peer(0, PeerUpdate { update_only: true, ..PeerUpdate::new(key_b).keepalive(5) });
    assert!(world.nodes[0].engine.snapshot(world.now()).peers.is_empty(), "update_only adds nobody");
}

#[test]
fn the_own_key_is_no_peer() {
    let (mut world, key_a, _) = up(146);
    world.set_peer(0, PeerUpdate::new(key_a).allow(nets(&["10.0.0.0/8"])));
    assert_eq!(world.nodes[0].engine.snapshot(world.now()).peers.len(), 1);
    assert_eq!(world.send_udp(0, 1, b"still routed"), Verdict::Forwarded);
    // The other way round: a peer whose key becomes ours is removed.
    let new = PrivateKey::from_bytes([77; 32]);
    world.set_peer(0, PeerUpdate::new(new.public_key()));
    world.update(0, Update { private_key: Some(Some(new)), ..Update::default() });
    assert_eq!(world.nodes[0].engine.snapshot(world.now()).peers.len(), 1);
}

#[test]
fn too_many_peers_are_refused_and_nothing_is_changed() {
    let limits = Limits { max_peers: 2, ..Limits::default() };
    let mut world = World::pair_with(147, Link::GOOD, EngineConfig { limits, ..EngineConfig::default() });
    let key_b = world.nodes[1].public_key();
    let add = |numbers: &[u8]| -> Vec<_> { numbers.iter().map(|number| PeerUpdate::new(stranger(*number))).collect() };
    let update = |peers| Command::Update(Box::new(Update { peers, ..Update::default() }));
    let error = refused(&mut world, 0, update(add(&[50, 51])));
    assert_eq!(error, CommandError::TooManyPeers { limit: 2 });
    world.command(0, update(add(&[50, 50])));
    let error = refused(&mut world, 0, Command::Update(Box::new(replace(add(&[50, 51, 52])))));
    assert_eq!(error, CommandError::TooManyPeers { limit: 2 });

    // Room that the same update makes counts, if it is made first.
    let remove = PeerUpdate { remove: true, ..PeerUpdate::new(key_b) };
    refused(&mut world, 0, update(vec![PeerUpdate::new(stranger(51)), remove.clone()]));
    world.command(0, update(vec![remove, PeerUpdate::new(stranger(51))]));
    world.command(0, Command::Update(Box::new(replace(add(&[52, 53])))));
    assert_eq!(world.nodes[0].engine.snapshot(world.now()).peers.len(), 2);
}

#[test]
fn mtus_that_nothing_can_carry_are_refused() {
    let (mut world, _, _) = up(148);
    for mtu in [0, 67, 65_476, usize::MAX] {
        let error = refused(&mut world, 0, Command::SetMtu(mtu));
        assert_eq!(error, CommandError::Mtu { found: mtu, min: 68, max: 65_475 });
        assert!(error.to_string().contains("68 to 65475"), "{error}");
        assert!(adit_core::Engine::new(EngineConfig { mtu, ..EngineConfig::default() }).is_err());
    }
    for mtu in [68, 1280, 65_475] {
        world.command(0, Command::SetMtu(mtu));
        assert_eq!(world.nodes[0].engine.mtu(), mtu);
    }
}

#[test]
fn a_connect_begins_handshakes_without_traffic() {
    let mut world = World::pair(149, Link::GOOD);
    world.command(0, Command::Connect);
    world.command(1, Command::Connect);
    world.run_for(SECOND);
    assert!(world.nodes[0].engine.has_session() && world.nodes[1].engine.has_session());
    assert_eq!(world.nodes[1].engine.stats().traffic.handshakes_sent, 1, "it has no endpoint to begin with");
    world.command(0, Command::Connect);
    assert_eq!(world.nodes[0].engine.stats().traffic.handshakes_sent, 1, "there is a session");
}

#[test]
fn full_sinks_are_counted_drops_and_nothing_waits_for_them() {
    let (mut world, _, _) = up(150);
    world.tap = Some(Vec::new());
    for _ in 0..3 {
        world.send_udp(1, 0, b"sealed");
    }
    world.command(1, Command::Rebound);
    let tape: Vec<_> = world.tap.take().expect("a tap").into_iter().map(|(_, _, bytes)| bytes).collect();
    let (source, now) = (adit_core::Source { remote: world.nodes[1].address, local: None }, world.now());
    let (mut network, mut device) = (Collector::with_capacity(1), Collector::with_capacity(1));
    let mut out = Outputs { network: &mut network, device: &mut device };
    let engine = &mut world.nodes[0].engine;

    let mut packet = udp(tunnel_v4(0), tunnel_v4(1), b"x");
    let len = packet.len();
    let verdicts = [0; 3].map(|_| engine.handle_tun(TunPacket::new(&mut packet, len), now, &mut out));
    let full = Verdict::Dropped(DropReason::SendQueueFull);
    assert_eq!(verdicts, [Verdict::Forwarded, full, full]);
    let full = Verdict::Dropped(DropReason::WriteQueueFull);
    let opened = tape.iter().map(|bytes| engine.handle_udp(source, adit_core::Ecn::NotEct, bytes, now, &mut out));
    assert_eq!(
        opened.collect::<Vec<_>>(),
        [Verdict::Forwarded, full, full, Verdict::Consumed],
        "the last is a keepalive"
    );
    assert_eq!(engine.stats().drops.get(DropReason::SendQueueFull), 2);
    assert_eq!(engine.stats().drops.get(DropReason::WriteQueueFull), 2);
    assert_eq!(engine.stats().traffic.keepalives_received, 1);

    // A packet that found no room was not opened, so it can still be delivered if it is sent again.
    out.device.items.clear();
    assert_eq!(engine.handle_udp(source, adit_core::Ecn::NotEct, &tape[1], now, &mut out), Verdict::Forwarded);
}

#[test]
fn a_handshake_that_found_no_room_is_repeated() {
    let mut world = World::pair(151, Link::GOOD);
    let now = world.now();
    let (mut network, mut device) = (Collector::with_capacity(0), Collector::with_capacity(0));
    let mut packet = udp(tunnel_v4(0), tunnel_v4(1), b"x");
    let len = packet.len();
    let mut out = Outputs { network: &mut network, device: &mut device };
    let verdict = world.nodes[0].engine.handle_tun(TunPacket::new(&mut packet, len), now, &mut out);
    assert_eq!(verdict, Verdict::Staged);
    assert_eq!(world.nodes[0].drops(DropReason::SendQueueFull), 1);
    world.run_for(6 * SECOND);
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn events_that_nobody_polls_are_bounded_and_counted() {
    let limits = Limits { events: 4, ..Limits::default() };
    let mut engine = adit_core::Engine::new(EngineConfig { limits, ..EngineConfig::default() }).unwrap();
    let world = World::new(152, Link::GOOD);
    let (mut network, mut device) = (Collector::default(), Collector::default());
    let mut out = Outputs { network: &mut network, device: &mut device };
    let update = Update {
        private_key: Some(Some(PrivateKey::from_bytes([1; 32]))),
        peers: (0..10u8)
            .map(|number| PeerUpdate::new(stranger(60 + number)).endpoint("192.0.2.9:9".parse().unwrap()))
            .collect(),
        ..Update::default()
    };
    engine.handle_command(Command::Update(Box::new(update)), world.now(), SystemTime::UNIX_EPOCH, &mut out).unwrap();
    engine.handle_command(Command::Connect, world.now(), SystemTime::UNIX_EPOCH, &mut out).unwrap();
    let end = world.now() + 120 * SECOND;
    while let Some(deadline) = engine.poll_timeout().filter(|deadline| deadline.at < end) {
        mock_instant::MockClock::set_time(deadline.at - world.now() + world.elapsed());
        engine.handle_timeout(deadline.at, &mut out);
    }
    let events: Vec<_> = std::iter::from_fn(|| engine.poll_event()).collect();
    assert_eq!(events.len(), 5, "{events:?}");
    assert_eq!(events[4], adit_core::Event::EventsLost { count: 6 });
}

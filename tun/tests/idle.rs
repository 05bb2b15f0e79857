//! A tunnel that has nothing to do does nothing: every wake-up is counted, and has a reason.
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot see it in their helpers")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_core::{Command, PeerUpdate, Update};
use adit_tun::device::Device;
use adit_tun::device::memory::MemoryHost;
use adit_tun::socket::{Socket, UdpOptions, UdpSockets};
use common::{LIMIT, Side, device, key, memory_pair, packet, receive, send};

/// What a pump has counted, as far as it tells why it woke up.
#[derive(Debug, Clone, Copy)]
struct Counts {
    wakeups: u64,
    keepalives_sent: u64,
    keepalives_received: u64,
}

/// Asks a side for its counters, which wakes it once if it sleeps.
fn counts<D: Device, S: Socket>(side: &Side<D, S>) -> Counts {
    let snapshot = side.handle.snapshot().unwrap();
    let traffic = snapshot.engine.engine.traffic;
    Counts {
        wakeups: snapshot.pump.wakeups,
        keepalives_sent: traffic.keepalives_sent,
        keepalives_received: traffic.keepalives_received,
    }
}

/// Lets time pass, in which the tunnel has nothing for the host.
fn rest(host: &MemoryHost, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        host.wait(end.saturating_duration_since(Instant::now()));
    }
    assert_eq!(host.recv(&mut [0; 2000]), None);
}

/// Waits until a side is woken by nothing but questions: whatever came before is over then.
fn settle<D: Device, S: Socket>(side: &Side<D, S>, host: &MemoryHost) -> Counts {
    let end = Instant::now() + LIMIT;
    let mut before = counts(side);
    loop {
        rest(host, Duration::from_millis(50));
        let after = counts(side);
        if after.wakeups == before.wakeups + 1 {
            return after;
        }
        assert!(Instant::now() < end, "the tunnel does not come to rest: {} wake-ups", after.wakeups);
        before = after;
    }
}

fn set_keepalive<D: Device, S: Socket>(side: &Side<D, S>, peer: u8, seconds: u16) {
    let mut peer = PeerUpdate::new(key(peer).public_key());
    peer.persistent_keepalive = Some(seconds);
    let update = Update { peers: vec![peer], ..Update::default() };
    side.handle.command(Command::Update(Box::new(update))).unwrap().unwrap();
}

/// Observes a tunnel that was used once: first without, then with keepalives from the first side.
fn observe<D: Device, S: Socket>(sides: [(Side<D, S>, MemoryHost); 2]) {
    let [(a, host_a), (b, host_b)] = sides;
    send(&host_a, &packet(1, 2, 1, 100));
    receive(&host_b);
    send(&host_b, &packet(2, 1, 2, 100));
    receive(&host_a);

    let before = [settle(&a, &host_a), settle(&b, &host_b)];
    rest(&host_a, Duration::from_secs(1));
    let after = [counts(&a), counts(&b)];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.wakeups - before.wakeups, 1, "only the question woke it: {before:?} {after:?}");
    }

    set_keepalive(&a, 2, 1);
    // The first one leaves at once, so all that are seen from here on come from the clock.
    let begin = Instant::now();
    let before = [settle(&a, &host_a), settle(&b, &host_b)];
    rest(&host_a, Duration::from_millis(2200));
    let after = [counts(&a), counts(&b)];
    let most = begin.elapsed().as_secs() + 1;
    let sent = after[0].keepalives_sent - before[0].keepalives_sent;
    let received = after[1].keepalives_received - before[1].keepalives_received;
    for (keepalives, before, after) in [(sent, before[0], after[0]), (received, before[1], after[1])] {
        assert!((2..=most).contains(&keepalives), "{keepalives} keepalives: {before:?} {after:?}");
        // One wake-up each, and one for the question unless it met with a keepalive.
        let wakeups = after.wakeups - before.wakeups;
        assert!((keepalives..=keepalives + 1).contains(&wakeups), "{wakeups} wake-ups: {before:?} {after:?}");
    }
    a.exit();
    b.exit();
}

#[test]
fn a_tunnel_over_memory_wakes_for_keepalives_only() {
    observe(memory_pair(16));
}

#[test]
fn a_tunnel_over_udp_wakes_for_keepalives_only() {
    let sides = [1, 2].map(|number| {
        let (device, host) = device(number);
        let socket = UdpSockets::bind(UdpOptions::default()).unwrap();
        let port = socket.local_port();
        (Side::start(number, device, socket), host, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    });
    sides[0].0.add_peer(2, Some(sides[1].2));
    sides[1].0.add_peer(1, Some(sides[0].2));
    observe(sides.map(|(side, host, _)| (side, host)));
}

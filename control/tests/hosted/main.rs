//! Two tunnels in one process, each in the hands of a host, joined by loopback UDP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use adit_control::hosted::{
    Code, HostEvent, HostedTunnel, InterfaceKind, NetworkPath, PacketSource, Redaction, State, StopReason,
};
use host::{Answer, Pair, packet};

const USER: StopReason = StopReason::USER_INITIATED;
const SOON: Duration = Duration::from_secs(5);

#[test]
fn packets_cross_in_both_directions_after_the_settings_were_applied() {
    let pair = Pair::up();
    for (from, to) in [(0, 1), (1, 0)] {
        let packets: Vec<_> = (0..100).map(|number| packet(from, to, 100 + number)).collect();
        let slices: Vec<_> = packets.iter().map(Vec::as_slice).collect();
        assert_eq!(pair.tunnels[from].inject(&slices).unwrap(), 100);
        pair.hosts[to].wait("100 packets", |seen| seen.packets.len() == 100);
        assert_eq!(pair.hosts[to].take_packets(), packets);
    }
    let stats = pair.tunnels[0].stats().unwrap();
    assert_eq!((stats.state, stats.packets_out, stats.packets_in), (State::Up, 100, 100));
    // Handshakes that both began at once are another matter: one of the two is dropped as stale.
    assert_eq!((stats.inject_no_room, stats.output_dropped), (0, 0));
    assert!(stats.packet_memory_bytes > 0 && stats.packet_memory_bytes <= stats.packet_memory_budget);
    pair.stop();
    for tunnel in &pair.tunnels {
        assert_eq!(tunnel.inject(&[&[0x45]]).unwrap_err().code, Code::InvalidState);
        assert_eq!(tunnel.stats().unwrap().packet_memory_bytes, 0, "what a stopped tunnel had is given back");
    }
}

#[test]
fn a_start_goes_through_its_states_in_order_and_completes_once() {
    let pair = Pair::up();
    pair.stop();
    for host in &pair.hosts {
        let seen = host.seen();
        let order: Vec<_> = seen
            .events
            .iter()
            .filter_map(|event| match event {
                HostEvent::State { state } => Some(state.name()),
                HostEvent::Settings { .. } => Some("(settings)"),
                HostEvent::Started { error: None } => Some("(started)"),
                HostEvent::Stopped { reason: USER, error: None } => Some("(stopped)"),
                _ => None,
            })
            .collect();
        let expected = [
            "resolving",
            "handshaking",
            "applying-settings",
            "(settings)",
            "up",
            "(started)",
            "stopping",
            "idle",
            "(stopped)",
        ];
        assert_eq!(order, expected);
    }
}

#[test]
fn nothing_is_told_after_a_stop_has_returned_and_a_stopped_tunnel_starts_again() {
    let pair = Pair::up();
    for _ in 0..20 {
        pair.stop();
        let seen: Vec<_> = pair.hosts.iter().map(|host| host.calls()).collect();
        std::thread::yield_now();
        assert_eq!(pair.hosts.iter().map(|host| host.calls()).collect::<Vec<_>>(), seen);
        pair.start();
    }
    // A second stop, and one of a tunnel that does not run, are no errors.
    pair.stop();
    pair.stop();
}

#[test]
fn a_host_that_refuses_is_late_or_never_answers_is_told_once() {
    for (answer, code) in [(Answer::Refuse, Code::SettingsRejected), (Answer::Never, Code::SettingsTimeout)] {
        let pair = Pair::new(|options| options.patience.settings = Duration::from_millis(300));
        pair.hosts[0].answer(answer);
        pair.tunnels[0].start(PacketSource::Callbacks).unwrap();
        pair.tunnels[1].start(PacketSource::Callbacks).unwrap();
        pair.hosts[0].wait("the end of the start", |seen| seen.outcomes().len() == 1);
        assert_eq!(pair.hosts[0].seen().outcomes(), [Some(code)]);
        let late = pair.tunnels[0].settings_applied(1).unwrap_err();
        assert_eq!(late.code, Code::Stale);
        pair.stop();
        assert_eq!(pair.hosts[0].seen().outcomes(), [Some(code)], "and once only");
        assert!(!pair.hosts[0].seen().events.iter().any(|event| matches!(event, HostEvent::Stopped { .. })));
    }
}

#[test]
fn without_a_peer_the_host_is_never_asked_to_route_anything() {
    let pair = Pair::new(|options| options.patience.handshake = Duration::from_millis(200));
    pair.tunnels[0].start(PacketSource::Callbacks).unwrap();
    pair.hosts[0].wait("the end of the start", |seen| !seen.outcomes().is_empty());
    assert_eq!(pair.hosts[0].seen().outcomes(), [Some(Code::PeerTimeout)]);
    assert!(!pair.hosts[0].seen().events.iter().any(|event| matches!(event, HostEvent::Settings { .. })));
}

#[test]
fn a_stop_during_a_start_is_its_completion() {
    let pair = Pair::new(|_| {});
    let tunnel = &pair.tunnels[0];
    tunnel.start(PacketSource::Callbacks).unwrap();
    assert_eq!(tunnel.start(PacketSource::Callbacks).unwrap_err().code, Code::AlreadyRunning);
    let begun = Instant::now();
    tunnel.stop(StopReason(16), SOON).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "it is fast");
    assert_eq!(pair.hosts[0].seen().outcomes(), [Some(Code::Stopped)]);
}

#[test]
fn a_callback_may_stop_the_tunnel_and_knows_everything_when_that_returns() {
    let pair = Pair::new(|_| {});
    let tunnel = Arc::clone(&pair.tunnels[0]);
    let host = Arc::clone(&pair.hosts[0]);
    pair.hosts[0].on_event(move |event| {
        if let HostEvent::Settings { .. } = event {
            tunnel.stop(USER, SOON).unwrap();
            assert_eq!(host.seen().outcomes(), [Some(Code::Stopped)], "told from within the call");
            assert_eq!(tunnel.state(), State::Idle);
        }
    });
    pair.tunnels[0].start(PacketSource::Callbacks).unwrap();
    pair.tunnels[1].start(PacketSource::Callbacks).unwrap();
    pair.hosts[0].wait("the end of the start", |seen| !seen.outcomes().is_empty());
    pair.stop();
    assert_eq!(pair.hosts[0].panics.load(Ordering::SeqCst), 0);
    pair.hosts[0].on_event(|_| {});
}

#[test]
fn a_callback_may_ask_for_anything() {
    let pair = Pair::new(|_| {});
    let tunnel = Arc::clone(&pair.tunnels[0]);
    pair.hosts[0].on_event(move |_| {
        tunnel.stats().unwrap();
        tunnel.snapshot(Redaction::Addresses).unwrap();
        let _none_yet = tunnel.inject(&[&packet(0, 1, 60)]);
        let _settings = tunnel.settings();
    });
    pair.start();
    pair.stop();
    assert_eq!(pair.hosts[0].panics.load(Ordering::SeqCst), 0);
    pair.hosts[0].on_event(|_| {});
}

#[test]
fn a_callback_that_blocks_holds_up_nobody_and_a_stop_says_so() {
    let pair = Pair::up();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    pair.hosts[0].on_packets(move || {
        let _released = gate.lock().unwrap().recv();
    });
    pair.tunnels[1].inject(&[&packet(1, 0, 80)]).unwrap();
    pair.hosts[0].wait("a call that blocks", |seen| seen.blocked);
    // The packet loop goes on.
    pair.tunnels[0].inject(&[&packet(0, 1, 90)]).unwrap();
    pair.hosts[1].wait("a packet", |seen| seen.packets.len() == 1);
    assert_eq!(pair.tunnels[0].stop(USER, Duration::from_millis(100)).unwrap_err().code, Code::Timeout);
    let events = pair.hosts[0].seen().events.len();
    drop(release);
    pair.tunnels[0].stop(USER, SOON).unwrap();
    assert_eq!(pair.hosts[0].seen().events.len(), events, "no new call after a stop that returned");
}

#[test]
fn packets_that_find_no_room_are_told_of_and_so_is_the_room() {
    let pair = Pair::up();
    let packet = packet(0, 1, 1400);
    let burst = vec![packet.as_slice(); 4000];
    let mut short = false;
    for _ in 0..50 {
        short |= pair.tunnels[0].inject(&burst).unwrap() < burst.len();
    }
    assert!(short, "4000 packets at once are more than the queue holds");
    pair.hosts[0].wait("room", |seen| seen.events.iter().any(|event| matches!(event, HostEvent::Room)));
    assert!(pair.tunnels[0].stats().unwrap().inject_no_room > 0);
}

#[test]
fn an_update_changes_a_running_tunnel_or_leaves_it_as_it_was() {
    let pair = Pair::up();
    let (before, after) = (pair.config(0), pair.config_with_dns(0));
    pair.tunnels[0].update(after.clone()).unwrap();
    pair.hosts[0].wait("the update", |seen| seen.updates().len() == 1);
    assert_eq!(pair.hosts[0].seen().updates(), [None]);
    let settings = pair.tunnels[0].settings();
    assert_eq!(settings.dns.unwrap().servers.len(), 1);

    pair.hosts[0].answer(Answer::Refuse);
    pair.tunnels[0].update(before).unwrap();
    pair.hosts[0].wait("the update", |seen| seen.updates().len() == 2);
    assert_eq!(pair.hosts[0].seen().updates()[1], Some(Code::SettingsRejected));
    assert!(pair.tunnels[0].settings().dns.is_some(), "the settings in force are those that the host has");
    pair.tunnels[0].inject(&[&packet(0, 1, 77)]).unwrap();
    pair.hosts[1].wait("a packet", |seen| seen.packets.len() == 1);
}

#[test]
fn a_tunnel_that_is_not_started_remembers_an_update_and_tells_nothing() {
    let pair = Pair::up();
    pair.stop();
    let calls = pair.hosts[0].calls();
    pair.tunnels[0].update(pair.config_with_dns(0)).unwrap();
    assert!(pair.tunnels[0].settings().dns.is_some());
    pair.start();
    assert_eq!(pair.hosts[0].seen().updates(), []);
    assert!(pair.hosts[0].calls() > calls);
}

#[test]
fn another_path_makes_new_sockets_and_loses_no_session() {
    let pair = Pair::up();
    let path = |index| NetworkPath {
        interface: std::num::NonZeroU32::new(index),
        kind: InterfaceKind::Wifi,
        satisfied: true,
        expensive: false,
        constrained: false,
        ipv4: true,
        ipv6: true,
        direct_link: false,
    };
    pair.tunnels[0].path_changed(path(3)).unwrap();
    pair.tunnels[0].path_changed(path(4)).unwrap();
    pair.hosts[0].stays("up", Duration::from_millis(400), |seen| {
        !seen.events.contains(&HostEvent::State { state: State::Reasserting })
    });
    assert_eq!(pair.tunnels[0].stats().unwrap().rebinds, 0, "the first report, and a burst, are no change");
    pair.tunnels[0].path_changed(path(5)).unwrap();
    let told = |state| move |seen: &host::Seen| seen.events.contains(&HostEvent::State { state });
    pair.hosts[0].wait("reasserting", told(State::Reasserting));
    pair.hosts[0].wait("up again", |seen| {
        seen.events.iter().filter(|event| **event == HostEvent::State { state: State::Up }).count() == 2
    });
    assert_eq!(pair.tunnels[0].stats().unwrap().rebinds, 1);
    pair.tunnels[1].inject(&[&packet(1, 0, 99)]).unwrap();
    pair.hosts[0].wait("a packet", |seen| seen.packets.len() == 1);
    let diagnostics = pair.tunnels[0].snapshot(Redaction::Secrets).unwrap();
    assert!(diagnostics.history.iter().any(|entry| entry.what.contains("interface 5")), "{diagnostics:?}");
}

#[test]
fn diagnostics_hold_no_secret_and_without_addresses_no_address() {
    let pair = Pair::up();
    let full = serde_json::to_string(&pair.tunnels[0].snapshot(Redaction::Secrets).unwrap()).unwrap();
    let bare = serde_json::to_string(&pair.tunnels[0].snapshot(Redaction::Addresses).unwrap()).unwrap();
    assert!(full.contains("127.0.0.1") && full.contains("10.9.0."), "{full}");
    for text in [&full, &bare] {
        assert!(!text.contains(&*pair.private_key(0)), "{text}");
    }
    for hidden in ["127.0.0.1", "10.9.0.", &pair.public_key(1)] {
        assert!(!bare.contains(hidden), "{hidden} in {bare}");
    }
}

#[test]
fn a_panic_anywhere_ends_the_tunnel_with_a_reason_and_no_more() {
    type Panic = fn(&HostedTunnel);
    let cases: [Panic; 3] =
        [HostedTunnel::panic_on_control_thread, HostedTunnel::panic_in_packet_loop, HostedTunnel::poison];
    for panic in cases {
        let pair = Pair::up();
        panic(&pair.tunnels[0]);
        pair.hosts[0]
            .wait("the end", |seen| seen.events.iter().any(|event| matches!(event, HostEvent::Stopped { .. })));
        let seen = pair.hosts[0].seen();
        let codes: Vec<_> = seen
            .events
            .iter()
            .filter_map(|event| match event {
                HostEvent::Stopped { error, .. } => Some(error.as_ref().unwrap().code),
                _ => None,
            })
            .collect();
        assert_eq!(codes, [Code::Internal]);
        assert_eq!(pair.tunnels[0].stats().unwrap_err().code, Code::Poisoned);
        assert_eq!(pair.tunnels[0].start(PacketSource::Callbacks).unwrap_err().code, Code::Poisoned);
        pair.tunnels[0].stop(USER, SOON).unwrap();
        // The other one does not notice.
        assert_eq!(pair.tunnels[1].state(), State::Up);
    }
}

#[test]
fn calls_from_many_threads_in_any_order_end_in_a_stopped_tunnel() {
    let pair = Pair::new(|options| options.patience.settings = Duration::from_millis(50));
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let pair = &pair;
            scope.spawn(move || {
                for round in 0..50_usize {
                    let tunnel = &pair.tunnels[(thread + round) % 2];
                    // Whatever is refused is refused with a code.
                    match (thread * 7 + round * 3) % 9 {
                        0 | 1 => drop(tunnel.start(PacketSource::Callbacks)),
                        2 => drop(tunnel.stop(USER, SOON)),
                        3 => drop(tunnel.inject(&[&packet(0, 1, 64)])),
                        4 => drop(tunnel.update(pair.config((thread + round) % 2))),
                        5 => drop(tunnel.sleep()),
                        6 => drop(tunnel.wake()),
                        7 => drop(tunnel.settings_applied(round as u64)),
                        _ => drop(tunnel.snapshot(Redaction::Addresses)),
                    }
                }
            });
        }
    });
    pair.stop();
    for (tunnel, host) in pair.tunnels.iter().zip(&pair.hosts) {
        assert_eq!(tunnel.state(), State::Idle);
        let seen = host.seen();
        let up = seen.outcomes().iter().filter(|outcome| outcome.is_none()).count();
        let stopped = seen.events.iter().filter(|event| matches!(event, HostEvent::Stopped { .. })).count();
        assert_eq!(up, stopped);
    }
}

#[test]
fn dropping_a_running_tunnel_stops_it_even_in_a_callback() {
    let pair = Pair::up();
    let Pair { tunnels, hosts, .. } = pair;
    let [first, second] = tunnels;
    let slot = std::sync::Mutex::new(Some(first));
    hosts[0].on_packets(move || drop(slot.lock().unwrap().take()));
    second.inject(&[&packet(1, 0, 80)]).unwrap();
    hosts[0].wait("the end", |seen| seen.events.iter().any(|event| matches!(event, HostEvent::Stopped { .. })));
    drop(second);
    assert!(hosts[1].seen().events.iter().any(|event| matches!(event, HostEvent::Stopped { .. })));
}

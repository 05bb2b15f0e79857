//! The life of tunnels: started, used, stopped, freed, in the right order and in others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use adit_ffi::*;

use crate::harness::{
    Host, PATIENCE, Tunnel, bytes, lonely_configuration, no_text, packet, pair_of_configurations, take,
};

/// A pair that is up.
fn pair() -> (Tunnel, Tunnel) {
    pair_of(&pair_of_configurations())
}

fn pair_of((waiting, calling): &(String, String)) -> (Tunnel, Tunnel) {
    let first = Tunnel::new(waiting, Host::willing());
    let second = Tunnel::new(calling, Host::willing());
    first.start_waiting();
    assert_eq!(second.start(), ADIT_OK);
    for tunnel in [&first, &second] {
        let started = tunnel.host.wait(ADIT_EVENT_STARTED, 1);
        assert_eq!(started.result, ADIT_OK, "{}", started.json);
    }
    (first, second)
}

/// A tunnel that waits for a handshake and will for long.
fn waiting() -> Tunnel {
    let options = AditOptions { handshake_ms: 60_000, start_ms: 60_000, ..AditOptions::default() };
    let tunnel = Tunnel::with_options(&lonely_configuration(), Host::willing(), &options);
    assert_eq!(tunnel.start(), ADIT_OK);
    tunnel
}

#[test]
fn packets_go_both_ways_and_the_host_is_told_everything_in_order() {
    let (first, second) = pair();

    let there: Vec<_> = (0..10).map(|fill| packet([10, 7, 0, 2], [10, 7, 0, 1], 100 + fill, fill as u8)).collect();
    let slices: Vec<&[u8]> = there.iter().map(Vec::as_slice).collect();
    assert_eq!(second.inject(&slices), (ADIT_OK, 10));
    let arrived = first.host.wait_packets(10);
    assert!(arrived.iter().map(|(packet, _)| packet).eq(&there), "as they were, in order");
    assert!(arrived.iter().all(|(_, family)| *family == 2));

    let back = packet([10, 7, 0, 1], [10, 7, 0, 2], 1200, 7);
    assert_eq!(first.inject(&[&back]), (ADIT_OK, 1));
    assert_eq!(second.host.wait_packets(1), [(back, 2)]);

    let stats = second.stats();
    assert_eq!((stats.state, stats.packets_in), (ADIT_STATE_UP, 1));
    assert!(stats.packets_out >= 10 && stats.tx_bytes > 1000 && stats.rx_bytes > 1000, "{stats:?}");
    assert!(stats.handshakes > 0 && stats.last_handshake_age_ms < 600_000 && stats.sockets_created > 0, "{stats:?}");
    assert!(stats.packet_memory_bytes > 0 && stats.packet_memory_bytes <= stats.packet_memory_budget);

    assert_eq!(adit_tunnel_stop(second.handle, 1, 20_000), ADIT_OK);
    let told = second.host.told.lock().unwrap().clone();
    assert!(told.iter().all(|told| told.thread == "adit-callbacks"));
    let kinds: Vec<_> = told.iter().map(|told| told.kind).collect();
    let position = |kind| kinds.iter().position(|told| *told == kind).unwrap();
    assert!(position(ADIT_EVENT_HANDSHAKE) < position(ADIT_EVENT_SETTINGS), "nothing is routed into a dead tunnel");
    assert!(position(ADIT_EVENT_SETTINGS) < position(ADIT_EVENT_STARTED));
    let stopped = told.iter().find(|told| told.kind == ADIT_EVENT_STOPPED).unwrap();
    assert_eq!((stopped.result, &stopped.json["reason"]), (ADIT_OK, &1.into()));
    assert_eq!(second.host.count(ADIT_EVENT_STARTED), 1);
    let settings = told.iter().find(|told| told.kind == ADIT_EVENT_SETTINGS).unwrap();
    let expected = serde_json::json!({"addresses": ["10.7.0.2/24"], "included_routes": ["10.7.0.0/24"], "mtu": 1280});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&settings.json["settings"][key], value);
    }
    assert_eq!(settings.json["settings"]["dns"]["servers"][0], "10.7.0.1");
}

#[test]
fn a_stopped_tunnel_starts_again() {
    let (first, second) = pair();
    for run in 2..4 {
        assert_eq!(adit_tunnel_stop(second.handle, 0, 20_000), ADIT_OK);
        assert_eq!(adit_tunnel_stop(second.handle, 0, 20_000), ADIT_OK, "as often as you like");
        assert_eq!(second.host.count(ADIT_EVENT_STOPPED), run - 1, "told before the stop returns");
        assert_eq!(second.stats().state, ADIT_STATE_IDLE);
        assert_eq!(second.start(), ADIT_OK);
        assert_eq!(second.host.wait(ADIT_EVENT_STARTED, run).result, ADIT_OK);
    }
    assert_eq!(first.host.count(ADIT_EVENT_STARTED), 1);
}

#[test]
fn a_start_without_a_peer_ends_with_a_reason() {
    let options = AditOptions { handshake_ms: 300, ..AditOptions::default() };
    let tunnel = Tunnel::with_options(&lonely_configuration(), Host::willing(), &options);
    assert_eq!(tunnel.start(), ADIT_OK);
    let started = tunnel.host.wait(ADIT_EVENT_STARTED, 1);
    assert_eq!(started.result, ADIT_ERROR_PEER_TIMEOUT);
    assert_eq!(started.json["error"]["code"], "peer-timeout");
    assert!(started.json["error"]["message"].is_string());
    assert_eq!(tunnel.host.count(ADIT_EVENT_SETTINGS), 0, "nothing was routed into it");
    assert_eq!(adit_tunnel_stop(tunnel.handle, 0, 20_000), ADIT_OK);
    assert_eq!(tunnel.host.count(ADIT_EVENT_STOPPED), 0, "it was never up");
}

#[test]
fn a_host_that_refuses_or_forgets_the_settings_is_told_so() {
    let (peer, calling) = pair_of_configurations();
    let peer = Tunnel::new(&peer, Host::willing());
    peer.start_waiting();

    let refusing = Arc::new(Host::default());
    refusing.react(|_, tunnel, told| {
        if told.kind == ADIT_EVENT_SETTINGS {
            let (text, length) = bytes("no such network");
            assert_eq!(adit_tunnel_settings_applied(tunnel, told.generation + 1), ADIT_ERROR_STALE);
            assert_eq!(unsafe { adit_tunnel_settings_failed(tunnel, told.generation, text, length) }, ADIT_OK);
            assert_eq!(adit_tunnel_settings_applied(tunnel, told.generation), ADIT_ERROR_STALE, "answered already");
        }
    });
    let tunnel = Tunnel::new(&calling, refusing);
    assert_eq!(tunnel.start(), ADIT_OK);
    let started = tunnel.host.wait(ADIT_EVENT_STARTED, 1);
    assert_eq!(started.result, ADIT_ERROR_SETTINGS_REJECTED);
    assert!(started.json["error"]["message"].as_str().unwrap().contains("no such network"), "{}", started.json);
    drop(tunnel);

    let options = AditOptions { settings_ms: 200, ..AditOptions::default() };
    let tunnel = Tunnel::with_options(&calling, Arc::new(Host::default()), &options);
    assert_eq!(tunnel.start(), ADIT_OK);
    assert_eq!(tunnel.host.wait(ADIT_EVENT_STARTED, 1).result, ADIT_ERROR_SETTINGS_TIMEOUT);
    let late = tunnel.host.wait(ADIT_EVENT_SETTINGS, 1).generation;
    assert_eq!(adit_tunnel_settings_applied(tunnel.handle, late), ADIT_ERROR_STALE);
}

#[test]
fn calls_in_the_wrong_order_are_refused() {
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    let good = packet([10, 7, 0, 2], [10, 7, 0, 1], 40, 1);
    assert_eq!(tunnel.inject(&[&good]), (ADIT_ERROR_INVALID_STATE, usize::MAX));
    assert_eq!(adit_tunnel_settings_applied(tunnel.handle, 1), ADIT_ERROR_STALE);
    assert_eq!(adit_tunnel_sleep(tunnel.handle), ADIT_OK);
    assert_eq!(adit_tunnel_wake(tunnel.handle), ADIT_OK);
    assert_eq!(adit_tunnel_stop(tunnel.handle, 0, 20_000), ADIT_OK, "one that was never started");
    assert!(tunnel.host.kinds().is_empty());
    drop(tunnel);

    let tunnel = waiting();
    assert_eq!(tunnel.start(), ADIT_ERROR_ALREADY_RUNNING);
    let configuration = lonely_configuration();
    let (text, length) = bytes(&configuration);
    assert_eq!(unsafe { adit_tunnel_update(tunnel.handle, text, length) }, ADIT_ERROR_INVALID_STATE);
    assert_eq!(adit_tunnel_stop(tunnel.handle, 0, 20_000), ADIT_OK);
    assert_eq!(tunnel.host.wait(ADIT_EVENT_STARTED, 1).result, ADIT_ERROR_STOPPED);
    assert_eq!(tunnel.host.count(ADIT_EVENT_STARTED), 1);
}

#[test]
fn an_update_changes_the_settings_and_tells_so() {
    let configurations = pair_of_configurations();
    let (_first, second) = pair_of(&configurations);
    let configuration = configurations.1.replace("MTU = 1280", "MTU = 1300");
    let (text, length) = bytes(&configuration);
    assert_eq!(unsafe { adit_tunnel_update(second.handle, text, 10) }, ADIT_ERROR_CONFIGURATION);
    assert_eq!(unsafe { adit_tunnel_update(second.handle, text, length) }, ADIT_OK);
    let updated = second.host.wait(ADIT_EVENT_UPDATED, 1);
    assert_eq!(updated.result, ADIT_OK, "{}", updated.json);
    assert_eq!(second.host.wait(ADIT_EVENT_SETTINGS, 2).json["settings"]["mtu"], 1300);
    assert_eq!(second.settings()["mtu"], 1300);
}

#[test]
fn a_callback_may_stop_and_free_its_own_tunnel() {
    let options = AditOptions { handshake_ms: 60_000, start_ms: 60_000, ..AditOptions::default() };
    for free in [false, true] {
        let host = Arc::new(Host::default());
        let (sender, done) = mpsc::channel();
        host.react(move |host, tunnel, told| {
            if told.kind == ADIT_EVENT_STATE && told.state == ADIT_STATE_HANDSHAKING {
                let result = if free { adit_tunnel_free(tunnel) } else { adit_tunnel_stop(tunnel, 1, 20_000) };
                let inside = host.count(ADIT_EVENT_STARTED);
                let after = adit_tunnel_stop(tunnel, 1, 20_000);
                sender.send((result, inside, after)).unwrap();
            }
        });
        let tunnel = Tunnel::with_options(&lonely_configuration(), host, &options);
        assert_eq!(tunnel.start(), ADIT_OK);
        let after = if free { ADIT_ERROR_INVALID_HANDLE } else { ADIT_OK };
        assert_eq!(done.recv_timeout(PATIENCE), Ok((ADIT_OK, 1, after)), "what was owed is told inside of the call");
        assert_eq!(tunnel.host.wait(ADIT_EVENT_STARTED, 1).result, ADIT_ERROR_STOPPED);
    }
}

#[test]
fn a_callback_that_does_not_return_delays_a_stop_only_until_its_deadline() {
    let host = Arc::new(Host::default());
    let (release, held) = mpsc::channel::<()>();
    let (sender, entered) = mpsc::channel();
    host.react(move |_, _, told| {
        if told.kind == ADIT_EVENT_STATE && told.state == ADIT_STATE_HANDSHAKING {
            sender.send(()).unwrap();
            held.recv_timeout(PATIENCE).unwrap();
        }
    });
    let options = AditOptions { handshake_ms: 60_000, start_ms: 60_000, ..AditOptions::default() };
    let tunnel = Tunnel::with_options(&lonely_configuration(), host, &options);
    assert_eq!(tunnel.start(), ADIT_OK);
    entered.recv_timeout(PATIENCE).unwrap();
    assert_eq!(adit_tunnel_stop(tunnel.handle, 1, 50), ADIT_ERROR_TIMEOUT);
    let before = tunnel.host.kinds().len();
    release.send(()).unwrap();
    assert_eq!(adit_tunnel_stop(tunnel.handle, 1, 20_000), ADIT_OK);
    let after = tunnel.host.kinds().len();
    assert_eq!(tunnel.host.kinds().len(), after, "nothing comes after a stop");
    assert!(after >= before);
}

#[test]
fn no_callback_comes_after_a_stop_from_any_thread() {
    let (first, second) = pair();
    let sent = AtomicUsize::new(0);
    let good = packet([10, 7, 0, 1], [10, 7, 0, 2], 500, 3);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while first.inject(&[good.as_slice(); 16]).0 == ADIT_OK {
                sent.fetch_add(16, Ordering::Relaxed);
            }
        });
        second.host.wait_packets(50);
        assert_eq!(adit_tunnel_stop(second.handle, 1, 20_000), ADIT_OK);
        second.host.packets.lock().unwrap().clear();
        let told = second.host.kinds().len();
        while sent.load(Ordering::Relaxed) < 2000 {
            std::thread::yield_now();
        }
        assert_eq!(second.host.packets.lock().unwrap().len(), 0);
        assert_eq!(second.host.kinds().len(), told);
        assert_eq!(adit_tunnel_stop(first.handle, 1, 20_000), ADIT_OK);
        flood.join().unwrap();
    });
}

#[test]
fn snapshots_show_no_secret_and_on_request_no_address() {
    let (_first, second) = pair();
    let snapshot = |redaction| {
        let mut text = no_text();
        assert_eq!(unsafe { adit_tunnel_snapshot(second.handle, redaction, &mut text) }, ADIT_OK);
        take(text).to_string()
    };
    let open = snapshot(ADIT_REDACT_SECRETS);
    let closed = snapshot(ADIT_REDACT_ADDRESSES);
    let secret = crate::harness::private_key(2);
    assert!(!open.contains(&secret) && !closed.contains(&secret));
    assert!(open.contains("127.0.0.1") && open.contains("10.7.0.2"), "{open}");
    assert!(!closed.contains("127.0.0.1") && !closed.contains("10.7.0."), "{closed}");
}

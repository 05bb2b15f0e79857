//! What a bug in Adit does to a host: nothing but the end of one tunnel.

use adit_ffi::*;

use crate::harness::{Host, Tunnel, lonely_configuration, no_text, packet, pair_of_configurations};

/// Every call but stop and free.
fn calls(tunnel: &Tunnel) -> Vec<AditResult> {
    let mut text = no_text();
    let good = packet([10, 7, 0, 2], [10, 7, 0, 1], 40, 1);
    unsafe {
        vec![
            adit_tunnel_settings(tunnel.handle, &mut text),
            adit_tunnel_settings_applied(tunnel.handle, 1),
            adit_tunnel_start_fd(tunnel.handle, -1, 0, 0),
            tunnel.start(),
            tunnel.inject(&[&good]).0,
            adit_tunnel_sleep(tunnel.handle),
            adit_tunnel_wake(tunnel.handle),
            adit_tunnel_path_changed(tunnel.handle, 1, 0, 0),
            adit_tunnel_snapshot(tunnel.handle, 0, &mut text),
            adit_test_panic(tunnel.handle, 0),
        ]
    }
}

#[test]
fn a_panic_poisons_the_tunnel_and_nothing_else() {
    let (waiting, calling) = pair_of_configurations();
    for place in [0, 1, 2] {
        let first = Tunnel::new(&waiting, Host::willing());
        let second = Tunnel::new(&calling, Host::willing());
        first.start_waiting();
        assert_eq!(second.start(), ADIT_OK);
        assert_eq!(first.host.wait(ADIT_EVENT_STARTED, 1).result, ADIT_OK);
        assert_eq!(second.host.wait(ADIT_EVENT_STARTED, 1).result, ADIT_OK);

        let expected = if place == 0 { ADIT_ERROR_PANIC } else { ADIT_OK };
        assert_eq!(adit_test_panic(second.handle, place), expected);
        let stopped = second.host.wait(ADIT_EVENT_STOPPED, 1);
        assert_eq!(stopped.result, ADIT_ERROR_INTERNAL, "place {place}: {}", stopped.json);
        let refused = calls(&second);
        assert!(refused.iter().all(|code| *code == ADIT_ERROR_POISONED), "place {place}: {refused:?}");
        assert_eq!(adit_tunnel_stop(second.handle, 0, 20_000), ADIT_OK);
        assert_eq!(second.host.count(ADIT_EVENT_STOPPED), 1);
        assert_eq!(adit_tunnel_free(second.handle), ADIT_OK);

        assert_eq!(first.stats().state, ADIT_STATE_UP, "the other one goes on");
    }
}

#[test]
fn a_panic_before_the_start_is_over_completes_it() {
    let options = AditOptions { handshake_ms: 60_000, start_ms: 60_000, ..AditOptions::default() };
    for place in [0, 1] {
        let tunnel = Tunnel::with_options(&lonely_configuration(), Host::willing(), &options);
        assert_eq!(tunnel.start(), ADIT_OK);
        adit_test_panic(tunnel.handle, place);
        assert_eq!(tunnel.host.wait(ADIT_EVENT_STARTED, 1).result, ADIT_ERROR_INTERNAL, "place {place}");
        assert_eq!(adit_tunnel_stop(tunnel.handle, 0, 20_000), ADIT_OK);
        assert_eq!((tunnel.host.count(ADIT_EVENT_STARTED), tunnel.host.count(ADIT_EVENT_STOPPED)), (1, 0));
    }
}

#[test]
fn an_unknown_place_does_nothing() {
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    assert_eq!(adit_test_panic(tunnel.handle, 3), ADIT_ERROR_INVALID_ARGUMENT);
    assert_eq!(tunnel.stats().state, ADIT_STATE_IDLE);
}

//! Wrong arguments, to every function that takes some.

use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use adit_ffi::*;

use crate::harness::{Host, Tunnel, alone, bytes, lonely_configuration, no_text, on_event, on_packets, packet, take};

/// Every function that takes a handle, with arguments that are right as far as they go.
fn all_functions(tunnel: AditTunnel) -> Vec<(&'static str, AditResult)> {
    let mut text = no_text();
    let mut stats = AditStats { size: size_of::<AditStats>(), ..AditStats::default() };
    let mut accepted = 0;
    let bytes_of_packet = packet([10, 7, 0, 2], [10, 7, 0, 1], 40, 1);
    let slice = AditSlice { data: bytes_of_packet.as_ptr(), length: bytes_of_packet.len() };
    let configuration = lonely_configuration();
    let (start, length) = bytes(&configuration);
    let results = unsafe {
        vec![
            ("settings", adit_tunnel_settings(tunnel, &mut text)),
            ("settings_applied", adit_tunnel_settings_applied(tunnel, 1)),
            ("settings_failed", adit_tunnel_settings_failed(tunnel, 1, null(), 0)),
            ("start_fd", adit_tunnel_start_fd(tunnel, -1, ADIT_FD_BORROWED, ADIT_FRAMING_RAW)),
            ("attach_fd", adit_tunnel_attach_fd(tunnel, -1, ADIT_FD_BORROWED, ADIT_FRAMING_RAW)),
            ("start_callbacks", adit_tunnel_start_callbacks(tunnel, Some(on_packets), null_mut())),
            ("inject", adit_tunnel_inject(tunnel, &slice, 1, null(), 0, &mut accepted)),
            ("update", adit_tunnel_update(tunnel, start, length)),
            ("path_changed", adit_tunnel_path_changed(tunnel, 1, 3, ADIT_PATH_SATISFIED)),
            ("sleep", adit_tunnel_sleep(tunnel)),
            ("wake", adit_tunnel_wake(tunnel)),
            ("stats", adit_tunnel_stats(tunnel, &mut stats)),
            ("snapshot", adit_tunnel_snapshot(tunnel, 0, &mut text)),
            ("stop", adit_tunnel_stop(tunnel, 0, 1000)),
            ("free", adit_tunnel_free(tunnel)),
        ]
    };
    assert!(text.data.is_null(), "a failure writes nothing");
    results
}

#[test]
fn handles_that_are_none_are_refused_by_every_function() {
    let stale = {
        let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
        tunnel.handle
    };
    for handle in [0, stale, stale ^ (1 << 32), u64::MAX, 12345] {
        for (function, result) in all_functions(handle) {
            assert_eq!(result, ADIT_ERROR_INVALID_HANDLE, "{function} with {handle:#x}");
        }
    }
}

#[test]
fn null_is_refused_where_something_is_needed() {
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    let handle = tunnel.handle;
    let slice = AditSlice { data: null(), length: 20 };
    let family = libc_af_inet();
    let configuration = lonely_configuration();
    let (start, length) = bytes(&configuration);
    let (mut out, mut accepted, mut text) = (0, 0, no_text());
    let refused = unsafe {
        [
            adit_tunnel_new(null(), 0, null(), Some(on_event), null_mut(), &mut out),
            adit_tunnel_new(start, length, null(), None, null_mut(), &mut out),
            adit_tunnel_new(start, length, null(), Some(on_event), null_mut(), null_mut()),
            adit_tunnel_settings(handle, null_mut()),
            adit_tunnel_settings_failed(handle, 1, null(), 1),
            adit_tunnel_start_callbacks(handle, None, null_mut()),
            adit_tunnel_inject(handle, null(), 1, null(), 0, &mut accepted),
            adit_tunnel_inject(handle, &slice, 1, null(), 0, &mut accepted),
            adit_tunnel_inject(handle, &slice, 1, &family, 1, null_mut()),
            adit_tunnel_inject(handle, &slice, 1, null(), 1, &mut accepted),
            adit_tunnel_update(handle, null(), 0),
            adit_tunnel_stats(handle, null_mut()),
            adit_tunnel_snapshot(handle, 0, null_mut()),
            adit_configuration_check(null(), 5, 0, &mut text),
            adit_configuration_check(start, length, 0, null_mut()),
        ]
    };
    assert_eq!(refused, [ADIT_ERROR_NULL_POINTER; 15]);
    assert_eq!(out, 0);
    unsafe { adit_text_free(null_mut()) };
    unsafe { adit_text_free(&mut text) };
}

#[test]
fn numbers_without_a_meaning_are_refused() {
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    let handle = tunnel.handle;
    let mut text = no_text();
    let refused = [
        adit_tunnel_start_fd(handle, 0, 2, ADIT_FRAMING_RAW),
        adit_tunnel_start_fd(handle, 0, ADIT_FD_BORROWED, 2),
        adit_tunnel_attach_fd(handle, 0, 7, ADIT_FRAMING_RAW),
        adit_tunnel_path_changed(handle, 1, 3, 64),
        unsafe { adit_tunnel_snapshot(handle, 2, &mut text) },
        unsafe { adit_configuration_check(bytes("").0, 0, 3, &mut text) },
        unsafe { adit_init(None, null_mut(), 6) },
    ];
    assert_eq!(refused, [ADIT_ERROR_INVALID_ARGUMENT; 7]);
    assert_eq!(adit_tunnel_path_changed(handle, 0, 999, 0), ADIT_OK, "kinds of later systems are unknown ones");
    assert_eq!(adit_tunnel_stop(handle, 4711, 1000), ADIT_OK, "so are reasons");
}

#[test]
fn descriptors_that_are_no_tun_device_stay_the_hosts() {
    use std::os::fd::AsRawFd;
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    let (reading, _writing) = std::io::pipe().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for fd in [-1, i32::MAX, reading.as_raw_fd(), file.as_raw_fd()] {
        for ownership in [ADIT_FD_BORROWED, ADIT_FD_OWNED] {
            let started = adit_tunnel_start_fd(tunnel.handle, fd, ownership, ADIT_FRAMING_RAW);
            assert_eq!(started, ADIT_ERROR_DEVICE, "{fd}");
        }
    }
    // Had either been closed, this would end the test: the standard library checks it.
    assert!(reading.try_clone().is_ok() && file.metadata().is_ok());
    assert!(tunnel.host.kinds().is_empty(), "a start that was refused tells nothing");
}

#[test]
fn counts_that_disagree_are_refused() {
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    let good = packet([10, 7, 0, 2], [10, 7, 0, 1], 40, 1);
    let slices = [AditSlice { data: good.as_ptr(), length: good.len() }; 2];
    let families = [libc_af_inet(); 2];
    let mut accepted = 77;
    let handle = tunnel.handle;
    let results = unsafe {
        [
            adit_tunnel_inject(handle, slices.as_ptr(), 0, null(), 0, &mut accepted),
            adit_tunnel_inject(handle, slices.as_ptr(), 2, families.as_ptr(), 1, &mut accepted),
            adit_tunnel_inject(handle, slices.as_ptr(), 1, families.as_ptr(), 2, &mut accepted),
            adit_tunnel_inject(handle, slices.as_ptr(), 2, families.as_ptr(), 0, &mut accepted),
        ]
    };
    assert_eq!(results, [ADIT_ERROR_INVALID_ARGUMENT; 4]);
    let many = vec![slices[0]; ADIT_MAX_PACKETS + 1];
    let result = unsafe { adit_tunnel_inject(handle, many.as_ptr(), many.len(), null(), 0, &mut accepted) };
    assert_eq!((result, accepted), (ADIT_ERROR_TOO_LARGE, 77));
}

#[test]
fn malformed_packets_are_refused_and_counted() {
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    let good = packet([10, 7, 0, 2], [10, 7, 0, 1], 40, 1);
    let slice = |data: &[u8]| AditSlice { data: data.as_ptr(), length: data.len() };
    let other = [0x12_u8; 40];
    let v6 = if cfg!(target_vendor = "apple") { 30 } else { 10 };
    let cases = [
        (AditSlice { data: null(), length: 0 }, None, "empty"),
        (slice(&other), None, "version 1"),
        (AditSlice { data: good.as_ptr(), length: 65_536 }, None, "too long, and not looked at"),
        (AditSlice { data: good.as_ptr(), length: usize::MAX }, None, "longer than memory, and not looked at"),
        (slice(&good), Some(v6), "another family"),
        (slice(&good), Some(0), "no family"),
    ];
    for (index, (bad, family, why)) in cases.into_iter().enumerate() {
        let slices = [slice(&good), bad];
        let families = [libc_af_inet(), family.unwrap_or_default()];
        let (families, count) = if family.is_some() { (families.as_ptr(), 2) } else { (null(), 0) };
        let mut accepted = 77;
        let result = unsafe { adit_tunnel_inject(tunnel.handle, slices.as_ptr(), 2, families, count, &mut accepted) };
        assert_eq!((result, accepted), (ADIT_ERROR_PACKET, 77), "{why}");
        assert_eq!(tunnel.stats().inject_refused, index as u64 + 1);
    }
}

#[test]
fn configurations_are_checked_before_they_are_used() {
    let new = |text: &[u8]| {
        let mut handle = 0;
        let start = text.as_ptr().cast();
        unsafe { adit_tunnel_new(start, text.len(), null(), Some(on_event), null_mut(), &mut handle) }
    };
    assert_eq!(new(b""), ADIT_ERROR_CONFIGURATION);
    assert_eq!(new(b"[Interface]\nAdress = 1"), ADIT_ERROR_CONFIGURATION);
    assert_eq!(new(b"[Interface]\nAddress = 10.0.0.2/24\n"), ADIT_ERROR_CONFIGURATION, "nobody could give it a key");
    assert_eq!(new(b"[Interface]\n# \xE4\n"), ADIT_ERROR_INVALID_UTF8);
    assert_eq!(new(&vec![b'#'; (16 << 20) + 1]), ADIT_ERROR_TOO_LARGE);
    let ten_megabytes = vec![b'x'; 10 << 20];
    assert_eq!(new(&ten_megabytes), ADIT_ERROR_CONFIGURATION);
}

#[test]
fn a_check_says_what_is_wrong_and_no_secret() {
    let check = |text: &str| {
        let mut out = no_text();
        let (start, length) = bytes(text);
        assert_eq!(unsafe { adit_configuration_check(start, length, ADIT_FORMAT_CONF, &mut out) }, ADIT_OK);
        take(out)
    };
    let good = check(&lonely_configuration());
    assert_eq!((&good["valid"], &good["diagnostics"]), (&true.into(), &serde_json::json!([])));
    let secret = "wrong+secret+wrong+secret+wrong+secret+wrong";
    let bad = check(&format!("[Interface]\nPrivateKey = {secret}\nAdress = 10.0.0.2/24\n"));
    assert_eq!(bad["valid"], false);
    assert!(!bad.to_string().contains(secret));
    let diagnostics = bad["diagnostics"].as_array().unwrap();
    let keyless = check("[Interface]\nAddress = 10.0.0.2/24\n");
    assert_eq!(keyless["valid"], false);
    assert_eq!(
        (&keyless["diagnostics"][0]["key"], &keyless["diagnostics"][0]["severity"]),
        (&"PrivateKey".into(), &"error".into())
    );
    let typo = diagnostics.iter().find(|finding| finding["key"] == "Adress").unwrap();
    assert_eq!(
        (&typo["line"], &typo["severity"], &typo["suggestion"]),
        (&3.into(), &"error".into(), &"Address".into())
    );
}

#[test]
fn there_is_room_for_64_tunnels() {
    let _alone = alone();
    let configuration = lonely_configuration();
    let (start, length) = bytes(&configuration);
    let new = || {
        let mut handle = 0;
        let made = unsafe { adit_tunnel_new(start, length, null(), Some(on_event), null_mut(), &mut handle) };
        (made, handle)
    };
    let handles: Vec<_> = (0..ADIT_MAX_TUNNELS).map(|_| new()).collect();
    assert!(handles.iter().all(|(made, _)| *made == ADIT_OK));
    assert_eq!(new(), (ADIT_ERROR_TOO_MANY, 0));
    for (_, handle) in handles {
        assert_eq!(adit_tunnel_free(handle), ADIT_OK);
    }
    let (made, handle) = new();
    assert_eq!((made, adit_tunnel_free(handle)), (ADIT_OK, ADIT_OK));
}

#[test]
fn calls_from_many_threads_end_when_the_handle_does() {
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    let handle = tunnel.handle;
    let freed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stats = AditStats { size: size_of::<AditStats>(), ..AditStats::default() };
                loop {
                    let over = freed.load(Ordering::Acquire);
                    let result = unsafe { adit_tunnel_stats(handle, &mut stats) };
                    match result {
                        ADIT_OK => assert!(!over, "a handle is stale once it was freed"),
                        ADIT_ERROR_INVALID_HANDLE => break,
                        other => panic!("{other}"),
                    }
                }
            });
        }
        assert_eq!(adit_tunnel_free(handle), ADIT_OK);
        freed.store(true, Ordering::Release);
    });
}

fn libc_af_inet() -> i32 {
    2
}

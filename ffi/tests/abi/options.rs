//! Structs that carry their size, and what is in them.

use std::ffi::CString;
use std::ptr::null_mut;

use adit_ffi::*;

use crate::harness::{Host, Tunnel, bytes, lonely_configuration, on_event, room};

/// Makes a tunnel of options that lie in `memory`, and frees it.
fn make(memory: &[u64]) -> AditResult {
    let _room = room();
    let host = Host::willing();
    let configuration = lonely_configuration();
    let (text, length) = bytes(&configuration);
    let mut handle = 0;
    let options = memory.as_ptr().cast::<AditOptions>();
    let made = unsafe { adit_tunnel_new(text, length, options, Some(on_event), host.context(), &mut handle) };
    if made == ADIT_OK {
        assert_eq!(adit_tunnel_free(handle), ADIT_OK);
    } else {
        assert_eq!(handle, 0, "a failure writes nothing");
    }
    made
}

fn with(change: impl FnOnce(&mut AditOptions)) -> AditResult {
    let mut memory = [0_u64; 16];
    let mut options = AditOptions::default();
    change(&mut options);
    unsafe { memory.as_mut_ptr().cast::<AditOptions>().write(options) };
    make(&memory)
}

#[test]
fn sizes_that_no_header_had_are_refused() {
    let real = size_of::<AditOptions>();
    assert_eq!(with(|_| ()), ADIT_OK);
    for size in [0, 1, 8, 16, real - 8, real - 1, real + 1, real + 4, 4104, usize::MAX, usize::MAX - 7] {
        assert_eq!(with(|options| options.size = size), ADIT_ERROR_INVALID_SIZE, "{size}");
    }
}

#[test]
fn a_newer_struct_is_taken_as_long_as_nothing_new_is_set() {
    let real = size_of::<AditOptions>();
    let mut memory = [0_u64; 16];
    let newer = AditOptions { size: real + 16, ..AditOptions::default() };
    unsafe { memory.as_mut_ptr().cast::<AditOptions>().write(newer) };
    assert_eq!(make(&memory), ADIT_OK);
    memory[real / 8 + 1] = 1;
    assert_eq!(make(&memory), ADIT_ERROR_INVALID_SIZE);
    memory[real / 8 + 1] = 0;
    memory[real / 8 + 2] = 1;
    assert_eq!(make(&memory), ADIT_OK, "what lies beyond the struct is not looked at");
}

#[test]
fn misaligned_options_are_refused() {
    let memory = [0_u64; 16];
    let misaligned = unsafe { memory.as_ptr().cast::<u8>().add(4) }.cast::<AditOptions>();
    let (text, length) = bytes("");
    let mut handle = 0;
    let made = unsafe { adit_tunnel_new(text, length, misaligned, Some(on_event), null_mut(), &mut handle) };
    assert_eq!(made, ADIT_ERROR_INVALID_ARGUMENT);
}

#[test]
fn values_are_checked() {
    let invalid = ADIT_ERROR_INVALID_ARGUMENT;
    assert_eq!(with(|options| options.format = 3), invalid);
    assert_eq!(with(|options| options.flags = 4), invalid);
    assert_eq!(with(|options| options.flags = 3), ADIT_OK);
    assert_eq!(with(|options| options.reserved = 1), invalid);
    assert_eq!(with(|options| options.default_mtu = 575), invalid);
    assert_eq!(with(|options| options.default_mtu = 65_536 + 1280), invalid);
    assert_eq!(with(|options| options.default_mtu = 576), ADIT_OK);
    assert_eq!(with(|options| options.format = ADIT_FORMAT_JSON), ADIT_ERROR_CONFIGURATION, "it is no JSON");
}

#[test]
fn texts_are_checked() {
    let name = |text: &[u8]| {
        let text = CString::new(text).unwrap();
        with(|options| options.name = text.as_ptr())
    };
    assert_eq!(name(b"utun4"), ADIT_OK);
    assert_eq!(name(b""), ADIT_OK, "an empty one is none");
    assert_eq!(name(b"a\nb"), ADIT_ERROR_INVALID_ARGUMENT);
    assert_eq!(name(b"../b"), ADIT_ERROR_INVALID_ARGUMENT);
    assert_eq!(name(b"\xE4"), ADIT_ERROR_INVALID_UTF8);
    assert_eq!(name(&[b'a'; 64]), ADIT_OK);
    assert_eq!(name(&[b'a'; 65]), ADIT_ERROR_TOO_LARGE);
    let path = CString::new(vec![b'a'; 1025]).unwrap();
    assert_eq!(with(|options| options.state_directory = path.as_ptr()), ADIT_ERROR_TOO_LARGE);
}

#[test]
fn the_default_mtu_is_that_of_the_options() {
    let options = AditOptions { default_mtu: 1300, ..AditOptions::default() };
    let tunnel = Tunnel::with_options(&lonely_configuration(), Host::willing(), &options);
    assert_eq!(tunnel.settings()["mtu"], 1300);
}

#[test]
fn stats_are_filled_as_far_as_both_know_them() {
    let tunnel = Tunnel::new(&lonely_configuration(), Host::willing());
    let mut memory = [0xAAAA_AAAA_AAAA_AAAA_u64; 40];
    let place = memory.as_mut_ptr().cast::<AditStats>();
    let real = size_of::<AditStats>();

    for size in [0, 8, 15, 17, real + 1, 5000] {
        memory[0] = size as u64;
        assert_eq!(unsafe { adit_tunnel_stats(tunnel.handle, place) }, ADIT_ERROR_INVALID_SIZE, "{size}");
        assert!(memory[1..].iter().all(|word| *word == 0xAAAA_AAAA_AAAA_AAAA), "a failure writes nothing");
    }
    memory[0] = 24;
    assert_eq!(unsafe { adit_tunnel_stats(tunnel.handle, place) }, ADIT_OK);
    assert_eq!(&memory[..4], &[24, 0, 0, 0xAAAA_AAAA_AAAA_AAAA], "an older struct gets what it has");
    memory[0] = (real + 16) as u64;
    assert_eq!(unsafe { adit_tunnel_stats(tunnel.handle, place) }, ADIT_OK);
    let stats = unsafe { place.read() };
    assert_eq!((stats.size, stats.state, stats.last_handshake_age_ms), (real + 16, ADIT_STATE_IDLE, u64::MAX));
    assert!(stats.packet_memory_budget > 0);
    assert_eq!(&memory[real / 8..real / 8 + 3], &[0, 0, 0xAAAA_AAAA_AAAA_AAAA], "a newer one gets zeros");
}

//! Any sequence of calls of the C ABI, from outside and from within callbacks, on live, stale and invented handles: no
//! crash, no panic inside, no callback after the end, and one completion for every start.
//!
//! Pointers are valid or NULL, for what the header asks of its caller cannot be checked. Configurations that are started
//! have no endpoint and need no handshake, so that a sequence takes a millisecond.
#![no_main]

mod host;

use std::ffi::c_char;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use adit_ffi::*;
use host::{Host, event_callback, packets_callback};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let threads = *THREADS.get_or_init(threads);
    let mut script = Script(data);
    let mut world = World { hosts: [Host::new(), Host::new()], stale: Vec::new() };
    for _ in 0..LONGEST_SEQUENCE {
        let Some(operation) = script.next() else { break };
        world.operate(operation, &mut script);
    }
    for host in &world.hosts {
        host.end();
    }
    // A thread that has freed its own tunnel ends a moment later; until then what is its own looks like a leak.
    let deadline = Instant::now() + Duration::from_secs(20);
    while self::threads() > threads {
        assert!(Instant::now() < deadline, "a thread is left");
        std::thread::yield_now();
    }
});

/// Threads of the process before the first sequence.
static THREADS: OnceLock<usize> = OnceLock::new();

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// The input, from which everything is taken that is not fixed.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        // Small ones mostly, for few large ones mean anything.
        match self.byte() {
            byte @ 0..=0x7f => byte.into(),
            byte @ 0x80..=0xbf => u64::from(byte & 0x3f) << (self.byte() % 64),
            byte => u64::MAX - u64::from(byte & 0x3f),
        }
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

struct World {
    hosts: [Host; 2],
    stale: Vec<AditTunnel>,
}

impl World {
    fn operate(&mut self, operation: u8, script: &mut Script<'_>) {
        let choice = script.byte();
        let host = &self.hosts[usize::from(choice & 1)];
        let tunnel = match choice >> 1 & 7 {
            0 => 0,
            1 => self.stale.get(usize::from(choice >> 4)).copied().unwrap_or(u64::MAX),
            2 => script.number(),
            _ => host.tunnel(),
        };
        // SAFETY: pointers are NULL or lead to what the header asks for, and outlive the calls; contexts outlive tunnels.
        let result = unsafe {
            match operation % 24 {
                0 | 1 => self.make(choice, script),
                2..=4 => {
                    host.count_start(|| adit_tunnel_start_callbacks(host.tunnel(), packets_callback(), host.context()))
                }
                5 => adit_tunnel_start_callbacks(tunnel, None, null_mut()),
                6 => adit_tunnel_start_fd(tunnel, -1, script.number() as u32, script.number() as u32),
                7 => adit_tunnel_attach_fd(tunnel, i32::from(script.byte()) - 128, 0, script.number() as u32),
                8 => adit_tunnel_stop(tunnel, script.number() as u32, 20_000),
                9 => adit_tunnel_free(tunnel),
                10..=12 => inject(tunnel, script),
                13 => adit_tunnel_settings_applied(tunnel, script.number()),
                14 => {
                    let message = script.bytes(64);
                    adit_tunnel_settings_failed(tunnel, script.number(), text(message), message.len())
                }
                15 => {
                    let configuration = configuration(script);
                    adit_tunnel_update(tunnel, text(configuration), configuration.len())
                }
                16 => adit_tunnel_path_changed(
                    tunnel,
                    script.number() as u32,
                    script.byte().into(),
                    script.number() as u32,
                ),
                17 => adit_tunnel_sleep(tunnel),
                18 => adit_tunnel_wake(tunnel),
                19 => {
                    let mut stats = AditStats { size: script.number() as usize & !7, ..AditStats::default() };
                    // The struct has to be as large as it says.
                    stats.size = stats.size.min(size_of::<AditStats>());
                    adit_tunnel_stats(tunnel, &raw mut stats)
                }
                20 => with_text(|out| adit_tunnel_snapshot(tunnel, script.byte().into(), out)),
                21 => with_text(|out| adit_tunnel_settings(tunnel, out)),
                22 => {
                    let bytes = script.bytes(255);
                    with_text(|out| adit_configuration_check(text(bytes), bytes.len(), script.byte().into(), out))
                }
                _ => keys(script),
            }
        };
        host::known(result);
    }

    /// Makes a tunnel, in the place of another one.
    fn make(&mut self, choice: u8, script: &mut Script<'_>) -> AditResult {
        let host = &self.hosts[usize::from(choice & 1)];
        let former = host.tunnel();
        if former != 0 {
            host.end();
            self.stale.push(former);
        }
        host.plan(script.bytes(8));
        let configuration = configuration(script);
        let flags = ADIT_OPTION_HANDSHAKE_OPTIONAL | if choice & 0x80 == 0 { 0 } else { u32::from(script.byte()) };
        let options = AditOptions { flags, settings_ms: script.byte().into(), ..AditOptions::default() };
        let mut tunnel = 0;
        // SAFETY: as in `operate`.
        let result = unsafe {
            adit_tunnel_new(
                text(configuration),
                configuration.len(),
                &raw const options,
                event_callback(),
                host.context(),
                &raw mut tunnel,
            )
        };
        assert_eq!(result == ADIT_OK, tunnel != 0, "a result is written on success only");
        if tunnel != 0 {
            host.set_tunnel(tunnel);
        }
        result
    }
}

/// Packets of any bytes, in arrays that agree or do not.
///
/// # Safety
/// None that a caller could break.
unsafe fn inject(tunnel: AditTunnel, script: &mut Script<'_>) -> AditResult {
    let packets: Vec<&[u8]> = (0..script.byte() % 4).map(|_| script.bytes(255)).collect();
    let slices: Vec<_> =
        packets.iter().map(|packet| AditSlice { data: packet.as_ptr(), length: packet.len() }).collect();
    let shape = script.byte();
    let families: Vec<i32> = packets.iter().map(|packet| family(packet, shape)).collect();
    let mut accepted = usize::MAX;
    let families_or_null = if shape & 0x10 == 0 { null() } else { families.as_ptr() };
    let family_count = if shape & 0x20 == 0 { 0 } else { families.len() };
    let out = if shape == 0xff { null_mut() } else { &raw mut accepted };
    // SAFETY: both arrays have as many entries as is said, and live until the call has returned.
    let result =
        unsafe { adit_tunnel_inject(tunnel, slices.as_ptr(), slices.len(), families_or_null, family_count, out) };
    if out.is_null() {
        assert_ne!(result, ADIT_OK);
    } else {
        assert_eq!(result == ADIT_OK, accepted != usize::MAX, "a result is written on success only");
        assert!(result != ADIT_OK || accepted <= slices.len());
    }
    result
}

fn family(packet: &[u8], shape: u8) -> i32 {
    match packet.first() {
        Some(first) if shape & 0x40 == 0 => {
            if first >> 4 == 6 {
                10
            } else {
                2
            }
        }
        _ => i32::from(shape),
    }
}

/// # Safety
/// None that a caller could break.
unsafe fn keys(script: &mut Script<'_>) -> AditResult {
    let bytes = script.bytes(80);
    let (mut key, mut written) = (AditKey { bytes: [0; 32] }, AditKeyText { text: [0; 45] });
    // SAFETY: all are valid, and live until the calls have returned.
    unsafe {
        let result = match script.byte() % 3 {
            0 => adit_key_from_base64(text(bytes), bytes.len(), &raw mut key),
            1 => adit_key_from_hex(text(bytes), bytes.len(), &raw mut key),
            _ => adit_key_public(&raw const key, &raw mut key),
        };
        assert_eq!(adit_key_to_base64(&raw const key, &raw mut written), ADIT_OK);
        assert_eq!(
            adit_key_from_base64(written.text.as_ptr(), 44, &raw mut key),
            ADIT_OK,
            "what was written can be read"
        );
        adit_key_wipe(&raw mut key);
        assert_eq!(key.bytes, [0; 32]);
        result
    }
}

fn with_text(call: impl FnOnce(*mut AditText) -> AditResult) -> AditResult {
    let mut out = AditText { data: null_mut(), length: 0 };
    let result = call(&raw mut out);
    assert_eq!(result == ADIT_OK, !out.data.is_null(), "a result is written on success only");
    if !out.data.is_null() {
        // SAFETY: it was handed out just now.
        let json = unsafe { std::slice::from_raw_parts(out.data.cast::<u8>(), out.length) };
        std::str::from_utf8(json).expect("texts are UTF-8");
    }
    // SAFETY: it is NULL or was handed out just now; twice is harmless.
    unsafe {
        adit_text_free(&raw mut out);
        adit_text_free(&raw mut out);
    }
    result
}

/// One that works, another one, one that is for its rival, or any bytes.
fn configuration<'a>(script: &mut Script<'a>) -> &'a [u8] {
    match script.byte() % 8 {
        0..=2 => CONFIGURATIONS[0],
        3 | 4 => CONFIGURATIONS[1],
        5 => CONFIGURATIONS[2],
        6 => b"",
        _ => script.bytes(64),
    }
}

fn text(bytes: &[u8]) -> *const c_char {
    bytes.as_ptr().cast()
}

const CONFIGURATIONS: [&[u8]; 3] = [
    b"[Interface]\nPrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nAddress = 10.9.0.1/24\n\
      [Peer]\nPublicKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\nAllowedIPs = 10.9.0.0/24\n",
    b"[Interface]\nPrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nMTU = 1280\nDNS = 10.9.0.53\n\
      [Peer]\nPublicKey = AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\nAllowedIPs = 0.0.0.0/0, ::/0\n\
      Endpoint = 127.0.0.1:9\n",
    b"[Interface]\nPrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nListenPort = 51999\n",
];

const LONGEST_SEQUENCE: usize = 24;

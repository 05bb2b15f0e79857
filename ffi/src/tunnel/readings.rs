//! What a host can ask its tunnel.

use std::sync::atomic::Ordering;

use adit_control::hosted::Redaction;

use super::{AditTunnel, call};
use crate::caller::Caller;
use crate::event::state_number;
use crate::result::{ADIT_ERROR_INVALID_ARGUMENT, AditResult, Failure};
use crate::stats::AditStats;
use crate::text::{AditText, write_json};

/// A snapshot shows everything but private and preshared keys, which are never shown.
pub const ADIT_REDACT_SECRETS: u32 = 0u32;

/// A snapshot shows no addresses, names and public keys either, so that a user can send it to a stranger.
pub const ADIT_REDACT_ADDRESSES: u32 = 1u32;

/// Tells the settings that the host must apply for the configuration in force, as JSON. A running tunnel asks for them with
/// `ADIT_EVENT_SETTINGS`, with the same content; this is for who wants to look before.
///
/// `{"addresses":["10.0.0.2/32"],"included_routes":["0.0.0.0/0"],"excluded_routes":[],"dns":{"servers":["10.0.0.1"],`
/// `"match_domains":[""],"search_domains":[],"match_domains_no_search":false},"mtu":1280,"remote_address":"192.0.2.1",`
/// `"exclude_local_networks":null,"warnings":[{"code":"ipv6-default-missing","message":"…"}]}`. `dns` may be null, and
/// `exclude_local_networks` null, true or false; before the names are resolved, `remote_address` is "127.0.0.1".
///
/// Thread: any, callbacks included. Ownership: `out` becomes yours (`adit_text_free`). Lifetime: none beyond the call.
/// Errors: INVALID_HANDLE; POISONED; NULL_POINTER; SYSTEM if there is no memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_tunnel_settings(tunnel: AditTunnel, out: *mut AditText) -> AditResult {
    call(tunnel, |tunnel| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        write_json(caller.out(out)?, &tunnel.hosted.settings())
    })
}

/// Tells the tunnel's numbers. `stats->size` must be set; see `AditStats`. It costs little and can be asked every second.
///
/// Thread: any, callbacks included. Ownership: `stats` stays yours. Lifetime: none beyond the call. Errors: INVALID_HANDLE;
/// POISONED; NULL_POINTER; INVALID_SIZE; TIMEOUT if the packet loop does not answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_tunnel_stats(tunnel: AditTunnel, stats: *mut AditStats) -> AditResult {
    call(tunnel, |tunnel| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let out = caller.sized_out(stats, AditStats::SMALLEST)?;
        let stats = tunnel.hosted.stats().map_err(Failure::from)?;
        out.write(&AditStats {
            size: size_of::<AditStats>(),
            state: state_number(stats.state),
            reserved: 0,
            uptime_ms: stats.uptime_ms,
            tx_bytes: stats.tx_bytes,
            rx_bytes: stats.rx_bytes,
            packets_out: stats.packets_out,
            packets_in: stats.packets_in,
            drops: stats.drops,
            inject_refused: tunnel.refused.load(Ordering::Relaxed),
            inject_no_room: stats.inject_no_room,
            output_dropped: stats.output_dropped,
            callbacks: stats.callbacks,
            handshakes: stats.handshakes,
            last_handshake_age_ms: stats.last_handshake_age_ms.unwrap_or(u64::MAX),
            handshake_rtt_us: stats.handshake_rtt_us.unwrap_or(u64::MAX),
            packet_memory_bytes: stats.packet_memory_bytes,
            packet_memory_budget: stats.packet_memory_budget,
            queued_bytes: stats.queued_bytes,
            sockets_created: stats.sockets_created,
            rebinds: stats.rebinds,
            wakeups: stats.wakeups,
        });
        Ok(())
    })
}

/// Tells everything that helps to understand what the tunnel does, and did, as JSON for a person or a support tool: its
/// shape may change with any version. `redaction` is one of `ADIT_REDACT_…`.
///
/// Thread: any, callbacks included. Ownership: `out` becomes yours (`adit_text_free`). Lifetime: none beyond the call.
/// Errors: INVALID_HANDLE; POISONED; NULL_POINTER; INVALID_ARGUMENT for an unknown redaction; BUSY; TIMEOUT; SYSTEM if
/// there is no memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_tunnel_snapshot(tunnel: AditTunnel, redaction: u32, out: *mut AditText) -> AditResult {
    call(tunnel, |tunnel| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let out = caller.out(out)?;
        let redaction = match redaction {
            ADIT_REDACT_SECRETS => Redaction::Secrets,
            ADIT_REDACT_ADDRESSES => Redaction::Addresses,
            _ => return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT)),
        };
        write_json(out, &tunnel.hosted.snapshot(redaction).map_err(Failure::from)?)
    })
}

//! What a host tells its tunnel.

use std::ffi::c_char;
use std::num::NonZeroU32;

use adit_control::hosted::{InterfaceKind, NetworkPath};

use super::{AditTunnel, call};
use crate::caller::Caller;
use crate::configuration;
use crate::result::{ADIT_ERROR_INVALID_ARGUMENT, AditResult, Failure};

/// The path leads somewhere (`NWPath.status` is satisfied).
pub const ADIT_PATH_SATISFIED: u32 = 1u32;

/// The path costs money (`NWPath.isExpensive`).
pub const ADIT_PATH_EXPENSIVE: u32 = 2u32;

/// The user asked for little traffic (`NWPath.isConstrained`).
pub const ADIT_PATH_CONSTRAINED: u32 = 4u32;

/// The path has IPv4 (`NWPath.supportsIPv4`).
pub const ADIT_PATH_IPV4: u32 = 8u32;

/// The path has IPv6 (`NWPath.supportsIPv6`).
pub const ADIT_PATH_IPV6: u32 = 16u32;

/// The path is a cable to a developer's machine, which leads nowhere (SIOCGIFDIRECTLINK, Apple's TN3158).
pub const ADIT_PATH_DIRECT_LINK: u32 = 32u32;

/// Says that the host has applied the settings that `ADIT_EVENT_SETTINGS` asked for with this generation.
///
/// Thread: any, callbacks included. Ownership: nothing. Lifetime: none beyond the call. Errors: INVALID_HANDLE; POISONED;
/// STALE if nobody waits for that answer any more; BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn adit_tunnel_settings_applied(tunnel: AditTunnel, generation: u64) -> AditResult {
    call(tunnel, |tunnel| tunnel.hosted.settings_applied(generation).map_err(Failure::from))
}

/// Says that the host could not apply the settings, and why. A start ends with SETTINGS_REJECTED then, an update is taken
/// back. `message` is a text of up to 4096 bytes for the error's JSON and may be NULL if `length` is 0.
///
/// Thread: any, callbacks included. Ownership: `message` stays yours. Lifetime: none beyond the call. Errors:
/// INVALID_HANDLE; POISONED; NULL_POINTER; INVALID_UTF8; TOO_LARGE; STALE if nobody waits for that answer any more; BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_tunnel_settings_failed(
    tunnel: AditTunnel,
    generation: u64,
    message: *const c_char,
    length: usize,
) -> AditResult {
    call(tunnel, |tunnel| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let message = if message.is_null() && length == 0 {
            "the host gave no reason"
        } else {
            caller.text(message, length, LONGEST_MESSAGE)?
        };
        tunnel.hosted.settings_failed(generation, message).map_err(Failure::from)
    })
}

/// Gives a tunnel another configuration, in the format that it was made with. A running tunnel keeps the sessions of peers
/// whose keys stay the same, asks for other settings with `ADIT_EVENT_SETTINGS` if they have changed, and tells with
/// `ADIT_EVENT_UPDATED` how it went. One that is not started only remembers it, and tells nothing.
///
/// Thread: any, callbacks included. Ownership: the text stays yours and is copied. Lifetime: none beyond the call. Errors:
/// INVALID_HANDLE; POISONED; NULL_POINTER; INVALID_UTF8; TOO_LARGE above 16 MiB; CONFIGURATION; INVALID_STATE while it
/// starts or stops; BUSY during another update.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_tunnel_update(
    tunnel: AditTunnel,
    configuration: *const c_char,
    length: usize,
) -> AditResult {
    call(tunnel, |tunnel| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let config = configuration::read(&caller, configuration, length, tunnel.format)?;
        tunnel.hosted.update(config).map_err(Failure::from)
    })
}

/// Says which network lies below the tunnel now. Reports may repeat themselves and come in bursts; the tunnel waits until
/// the network stands still, then makes new sockets and reaches its peers by the new way.
///
/// `interface_index` is that of the path's first interface, 0 if it is not known. `functional_type` is that of
/// SIOCGIFFUNCTIONALTYPE (`IFRTYPE_FUNCTIONAL_…`: 0 unknown, 1 loopback, 2 wired, 3 Wi-Fi, 4 AWDL, 5 cellular, 6
/// coprocessor, 7 companion link, 8 management); others count as unknown. `flags` are `ADIT_PATH_…`, added up.
///
/// Thread: any, callbacks included. Ownership: nothing. Lifetime: the tunnel remembers the report, also before a start.
/// Errors: INVALID_HANDLE; POISONED; INVALID_ARGUMENT for bits in `flags` that have no meaning; BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn adit_tunnel_path_changed(
    tunnel: AditTunnel,
    interface_index: u32,
    functional_type: u32,
    flags: u32,
) -> AditResult {
    call(tunnel, |tunnel| {
        if flags & !ALL_FLAGS != 0 {
            return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT));
        }
        let path = NetworkPath {
            interface: NonZeroU32::new(interface_index),
            kind: InterfaceKind::from_functional_type(functional_type),
            satisfied: flags & ADIT_PATH_SATISFIED != 0,
            expensive: flags & ADIT_PATH_EXPENSIVE != 0,
            constrained: flags & ADIT_PATH_CONSTRAINED != 0,
            ipv4: flags & ADIT_PATH_IPV4 != 0,
            ipv6: flags & ADIT_PATH_IPV6 != 0,
            direct_link: flags & ADIT_PATH_DIRECT_LINK != 0,
        };
        tunnel.hosted.path_changed(path).map_err(Failure::from)
    })
}

/// Says that the device is about to sleep: timers rest until `adit_tunnel_wake`. Without effect on a tunnel that does not
/// run.
///
/// Thread: any, callbacks included. Ownership: nothing. Lifetime: none beyond the call. Errors: INVALID_HANDLE; POISONED;
/// BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn adit_tunnel_sleep(tunnel: AditTunnel) -> AditResult {
    call(tunnel, |tunnel| tunnel.hosted.sleep().map_err(Failure::from))
}

/// Says that the device woke. The tunnel looks after its peers once the device stays awake, and tells with
/// `ADIT_EVENT_RESUMED` that it goes on. Without effect on a tunnel that does not run.
///
/// Thread: any, callbacks included. Ownership: nothing. Lifetime: none beyond the call. Errors: INVALID_HANDLE; POISONED;
/// BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn adit_tunnel_wake(tunnel: AditTunnel) -> AditResult {
    call(tunnel, |tunnel| tunnel.hosted.wake().map_err(Failure::from))
}

/// Every bit of a path's flags that has a meaning.
const ALL_FLAGS: u32 = ADIT_PATH_SATISFIED
    | ADIT_PATH_EXPENSIVE
    | ADIT_PATH_CONSTRAINED
    | ADIT_PATH_IPV4
    | ADIT_PATH_IPV6
    | ADIT_PATH_DIRECT_LINK;

/// Bytes of a host's message that are taken.
const LONGEST_MESSAGE: usize = 4096;

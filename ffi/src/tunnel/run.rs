//! A tunnel is started, given a descriptor, and stopped.

use std::ffi::c_void;
use std::time::{Duration, Instant};

use adit_control::hosted::{Code, PacketSource, StopReason};
use adit_tun::device::{Descriptor, Framing, Ownership};

use super::{AditTunnel, Tunnel, call};
use crate::callback::PacketsCall;
use crate::caller::{close, duplicate};
use crate::guard::entry;
use crate::packets::AditPacketsCallback;
use crate::result::{
    ADIT_ERROR_DEVICE, ADIT_ERROR_INVALID_ARGUMENT, ADIT_ERROR_NULL_POINTER, AditResult, Failure, Outcome,
};
use crate::table::TUNNELS;

/// The descriptor stays the host's, who closes it whenever it likes: Adit works on a duplicate.
pub const ADIT_FD_BORROWED: u32 = 0u32;

/// The descriptor is given away: it is closed as soon as the call succeeds, and Adit works on a duplicate. If the call
/// fails, it is still the host's.
pub const ADIT_FD_OWNED: u32 = 1u32;

/// Packets have no header (a tun device of Linux with IFF_NO_PI).
pub const ADIT_FRAMING_RAW: u32 = 0u32;

/// Packets have the protocol family in front, four bytes in network byte order (Apple's utun).
pub const ADIT_FRAMING_UTUN: u32 = 1u32;

/// Starts a tunnel with packets from a tun device: resolves the peers' names, opens sockets, waits for a handshake, asks
/// for the settings with `ADIT_EVENT_SETTINGS` and is up when they are applied. It returns at once;
/// `ADIT_EVENT_STARTED` tells how it went, exactly once for every call that returned `ADIT_OK`.
///
/// `ownership` is one of `ADIT_FD_…`, `framing` one of `ADIT_FRAMING_…`. While the tunnel runs, the descriptor does not
/// block; a borrowed one is set back at the end.
///
/// Thread: any, callbacks included. Ownership: see `ADIT_FD_BORROWED` and `ADIT_FD_OWNED`. Lifetime: the duplicate is
/// closed by the end of the run. Errors: INVALID_HANDLE; POISONED; INVALID_ARGUMENT; DEVICE if the descriptor is closed, is
/// no tun device or frames packets otherwise; ALREADY_RUNNING; INVALID_STATE while it is being stopped; BUSY; SYSTEM.
#[unsafe(no_mangle)]
pub extern "C" fn adit_tunnel_start_fd(tunnel: AditTunnel, fd: i32, ownership: u32, framing: u32) -> AditResult {
    call(tunnel, |tunnel| {
        with_descriptor(fd, ownership, framing, |descriptor| {
            let mut packets = tunnel.host.packets_call();
            tunnel.hosted.start(PacketSource::Descriptor(descriptor)).map_err(Failure::from)?;
            *packets = None;
            Ok(())
        })
    })
}

/// Starts a tunnel as `adit_tunnel_start_fd` does, with packets from `adit_tunnel_inject` and for `callback`.
///
/// Thread: any, callbacks included. Ownership: `context` stays yours. Lifetime: `callback` and `context` must be valid
/// until `ADIT_EVENT_STARTED` told a failure, or until `adit_tunnel_stop` or `adit_tunnel_free` has returned `ADIT_OK`.
/// Errors: INVALID_HANDLE; POISONED; NULL_POINTER without a callback; ALREADY_RUNNING; INVALID_STATE while it is being
/// stopped; BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_tunnel_start_callbacks(
    tunnel: AditTunnel,
    callback: AditPacketsCallback,
    context: *mut c_void,
) -> AditResult {
    call(tunnel, |tunnel| {
        let call = PacketsCall::new(callback, context).ok_or(Failure::new(ADIT_ERROR_NULL_POINTER))?;
        let mut packets = tunnel.host.packets_call();
        tunnel.hosted.start(PacketSource::Callbacks).map_err(Failure::from)?;
        *packets = Some(call);
        Ok(())
    })
}

/// Gives a descriptor to a tunnel that was started with `adit_tunnel_start_callbacks`, most often in answer to
/// `ADIT_EVENT_SETTINGS`: only when an NEPacketTunnelProvider has applied its settings, the system's utun device is there.
/// Packets that were injected before are still carried; those that come out of the tunnel from now on go to the
/// descriptor, and the packets callback is called at most for what was on its way.
///
/// Thread: any, callbacks included. Ownership and lifetime: as with `adit_tunnel_start_fd`. Errors: INVALID_HANDLE;
/// POISONED; INVALID_ARGUMENT; DEVICE; INVALID_STATE before `ADIT_EVENT_SETTINGS`, after the end, and if the tunnel has a
/// descriptor; BUSY; SYSTEM.
#[unsafe(no_mangle)]
pub extern "C" fn adit_tunnel_attach_fd(tunnel: AditTunnel, fd: i32, ownership: u32, framing: u32) -> AditResult {
    call(tunnel, |tunnel| {
        with_descriptor(fd, ownership, framing, |descriptor| tunnel.hosted.attach(descriptor).map_err(Failure::from))
    })
}

/// Stops a tunnel, in whatever state, and waits until that is done: sockets and device are closed, the last event is
/// told, and no callback runs or will run until the next start. It may be called as often as you like; the first reason is
/// kept. A stopped tunnel can be started again.
///
/// `reason` is an NEProviderStopReason (0 none, 1 the user); numbers that Adit does not know are kept too. Called from
/// within a callback of the same tunnel, what is still to be told (`ADIT_EVENT_STARTED` with STOPPED,
/// `ADIT_EVENT_STOPPED`) is told from inside, before it returns.
///
/// Thread: any, callbacks included; not while holding a lock that a callback waits for. Ownership: nothing. Lifetime: once
/// it returned `ADIT_OK`, the packets callback's context can be freed. Errors: INVALID_HANDLE; TIMEOUT if a callback has
/// not returned within `deadline_ms`: the tunnel ends nevertheless and no new callback begins, but that one still runs;
/// BUSY if until then more calls of other threads waited than are kept, and nothing was done. A poisoned tunnel can be
/// stopped like any other.
#[unsafe(no_mangle)]
pub extern "C" fn adit_tunnel_stop(tunnel: AditTunnel, reason: u32, deadline_ms: u32) -> AditResult {
    entry(|| {
        let tunnel = TUNNELS.get(tunnel)?;
        stop(&tunnel, StopReason(reason), Duration::from_millis(deadline_ms.into()))
    })
}

/// Stops a tunnel. While so many calls of other threads wait that this one finds no room, it is tried again.
pub(super) fn stop(tunnel: &Tunnel, reason: StopReason, deadline: Duration) -> Outcome {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tunnel.hosted.stop(reason, left) {
            Err(error) if error.code == Code::Busy && !left.is_zero() => std::thread::park_timeout(RETRY.min(left)),
            result => return result.map_err(Failure::from),
        }
    }
}

/// Checks a descriptor and gives it to `use_it`. One that was given away is closed if all went well, and only then.
fn with_descriptor(fd: i32, ownership: u32, framing: u32, use_it: impl FnOnce(Descriptor) -> Outcome) -> Outcome {
    let framing = match framing {
        ADIT_FRAMING_RAW => Framing::Raw,
        ADIT_FRAMING_UTUN => Framing::Utun,
        _ => return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT)),
    };
    match ownership {
        ADIT_FD_BORROWED => use_it(Descriptor::open(fd, Ownership::Borrowed, framing).map_err(Failure::from)?),
        ADIT_FD_OWNED => {
            // Opening takes what it is given, but the tunnel may refuse it afterwards: so it is given a duplicate.
            let given = duplicate(fd).map_err(|()| Failure::new(ADIT_ERROR_DEVICE))?;
            let descriptor = Descriptor::open(given, Ownership::Owned, framing).map_err(|error| {
                close(given);
                Failure::from(error)
            })?;
            use_it(descriptor)?;
            close(fd);
            Ok(())
        }
        _ => Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT)),
    }
}

/// Until a stop is tried again.
const RETRY: Duration = Duration::from_millis(2);

//! A tunnel as a handle: made, freed, and what every call on one has in common.

mod inject;
mod inputs;
mod readings;
mod run;

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use adit_control::config::Format;
use adit_control::hosted::{HostedTunnel, StopReason};

use crate::callback::EventCall;
use crate::caller::Caller;
use crate::configuration;
use crate::event::AditEventCallback;
use crate::guard::{entry, guarded};
use crate::host::Adapter;
use crate::options::{self, AditOptions};
use crate::result::{
    ADIT_ERROR_NULL_POINTER, ADIT_ERROR_PANIC, ADIT_ERROR_POISONED, ADIT_ERROR_TOO_MANY, AditResult, Failure, Outcome,
};
use crate::table::TUNNELS;

pub use inject::*;
pub use inputs::*;
pub use readings::*;
pub use run::*;

/// A tunnel. It is a number and no pointer: a stale or invented one is `ADIT_ERROR_INVALID_HANDLE` and does no harm. 0 is
/// never a tunnel; a number is not given out again after `adit_tunnel_free`.
pub type AditTunnel = u64;

/// Tunnels that one process may have at a time.
pub const ADIT_MAX_TUNNELS: usize = 64;

/// What a handle stands for.
pub(crate) struct Tunnel {
    hosted: HostedTunnel,
    host: Arc<Adapter>,
    /// How the tunnel's configurations are written.
    format: Format,
    /// Calls of inject that were refused for a packet.
    refused: AtomicU64,
}

#[cfg(feature = "test-symbols")]
impl Tunnel {
    pub(crate) fn hosted(&self) -> &HostedTunnel {
        &self.hosted
    }
}

/// Makes a tunnel of a configuration. It does nothing until it is started; no event comes before that.
///
/// `options` may be NULL for the defaults, a configuration in the format of wg-quick(8) among them. `callback` must not be
/// NULL: who does not answer `ADIT_EVENT_SETTINGS` has no tunnel.
///
/// Thread: any. Ownership: the texts and the options stay yours and are copied; `context` stays yours. The tunnel is yours
/// until `adit_tunnel_free`. Lifetime: `callback` and `context` must be valid until `adit_tunnel_free` has returned
/// `ADIT_OK`. Errors: NULL_POINTER; INVALID_SIZE and INVALID_ARGUMENT for the options; INVALID_UTF8; TOO_LARGE for a
/// configuration above 16 MiB and options' texts that are too long; CONFIGURATION, of which `adit_configuration_check`
/// knows more; TOO_MANY above `ADIT_MAX_TUNNELS`; SYSTEM if there are no threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_tunnel_new(
    configuration: *const c_char,
    length: usize,
    options: *const AditOptions,
    callback: AditEventCallback,
    context: *mut c_void,
    out: *mut AditTunnel,
) -> AditResult {
    entry(|| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let events = EventCall::new(callback, context).ok_or(Failure::new(ADIT_ERROR_NULL_POINTER))?;
        let out = caller.out(out)?;
        let options =
            if options.is_null() { AditOptions::default() } else { caller.sized(options, AditOptions::SMALLEST)? };
        let format = options::format(options.format)?;
        let options = options::read(&caller, &options)?;
        if TUNNELS.is_full() {
            return Err(Failure::new(ADIT_ERROR_TOO_MANY));
        }
        let config = configuration::read(&caller, configuration, length, format)?;
        let host = Arc::new(Adapter::new(events));
        let hosted = HostedTunnel::new(config, options, Arc::clone(&host) as _).map_err(Failure::from)?;
        let tunnel = Tunnel { hosted, host: Arc::clone(&host), format, refused: AtomicU64::new(0) };
        let handle = TUNNELS.insert(Arc::new(tunnel))?;
        host.set_handle(handle);
        out.write(handle);
        Ok(())
    })
}

/// Stops a tunnel, if it runs, and frees it. The handle is invalid at once, for calls of other threads too; calls that are
/// under way end as after a stop.
///
/// When it returns `ADIT_OK`, no callback of the tunnel runs and none will, so the context can be freed. Called from
/// within a callback of the same tunnel, what is still to be told is told from inside, and that callback is the last.
///
/// Thread: any, callbacks included; not while holding a lock that a callback waits for. Ownership: takes the tunnel, whatever
/// it returns. Lifetime: the tunnel's descriptors, sockets, threads and memory are gone when it returns `ADIT_OK`; called
/// from within a callback, the thread of that callback ends after it. Errors: INVALID_HANDLE; TIMEOUT if a callback has
/// not returned within five seconds: none begins any more, but that one still uses the context.
#[unsafe(no_mangle)]
pub extern "C" fn adit_tunnel_free(tunnel: AditTunnel) -> AditResult {
    entry(|| {
        let tunnel = TUNNELS.remove(tunnel)?;
        let stopped = run::stop(&tunnel, StopReason::NONE, FREE_PATIENCE);
        drop(tunnel);
        stopped
    })
}

/// Runs a call on a tunnel: finds it, refuses one that has failed before, and poisons it if the call panics.
pub(crate) fn call(handle: AditTunnel, body: impl FnOnce(&Tunnel) -> Outcome) -> AditResult {
    entry(|| {
        let tunnel = TUNNELS.get(handle)?;
        if tunnel.hosted.is_poisoned() {
            return Err(Failure::new(ADIT_ERROR_POISONED));
        }
        guarded(|| body(&tunnel)).unwrap_or_else(|| {
            tunnel.hosted.poison();
            Err(Failure::new(ADIT_ERROR_PANIC))
        })
    })
}

/// How long freeing a tunnel waits for a callback.
const FREE_PATIENCE: Duration = Duration::from_secs(5);

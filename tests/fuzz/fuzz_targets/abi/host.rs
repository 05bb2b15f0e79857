//! The host's end: what is counted in callbacks, and what they do beside.

use std::ffi::{CStr, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_ffi::*;

/// What belongs to one tunnel after the other.
pub(crate) struct Host(Box<Counted>);

#[derive(Default)]
struct Counted {
    tunnel: AtomicU64,
    /// Callbacks that have not returned.
    inside: AtomicU32,
    starts: AtomicU32,
    started: AtomicU32,
    succeeded: AtomicU32,
    stopped: AtomicU32,
    /// What the next callbacks do.
    plan: Mutex<Vec<u8>>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self(Box::default())
    }

    pub(crate) fn context(&self) -> *mut c_void {
        std::ptr::from_ref(&*self.0).cast_mut().cast()
    }

    pub(crate) fn tunnel(&self) -> AditTunnel {
        self.0.tunnel.load(Ordering::SeqCst)
    }

    pub(crate) fn set_tunnel(&self, tunnel: AditTunnel) {
        self.0.tunnel.store(tunnel, Ordering::SeqCst);
    }

    pub(crate) fn plan(&self, actions: &[u8]) {
        *self.0.plan.lock().unwrap() = actions.to_vec();
    }

    /// Starts, and counts what succeeds: the completion may come before the call returns.
    pub(crate) fn count_start(&self, start: impl FnOnce() -> AditResult) -> AditResult {
        self.0.starts.fetch_add(1, Ordering::SeqCst);
        let result = start();
        if result != ADIT_OK {
            self.0.starts.fetch_sub(1, Ordering::SeqCst);
        }
        result
    }

    /// Frees the tunnel, if no callback has, and checks that everything was told.
    pub(crate) fn end(&self) {
        let tunnel = self.0.tunnel.swap(0, Ordering::SeqCst);
        if tunnel != 0 {
            let result = adit_tunnel_free(tunnel);
            assert!(matches!(result, ADIT_OK | ADIT_ERROR_INVALID_HANDLE), "free: {result}");
        }
        // A callback that has freed its tunnel may still be on its way out.
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.0.inside.load(Ordering::SeqCst) != 0 {
            assert!(Instant::now() < deadline, "a callback does not return");
            std::thread::yield_now();
        }
        let count = |counter: &AtomicU32| counter.swap(0, Ordering::SeqCst);
        assert_eq!(count(&self.0.started), count(&self.0.starts), "one completion for every start");
        assert_eq!(count(&self.0.stopped), count(&self.0.succeeded), "one end for every start that succeeded");
    }
}

impl Counted {
    /// What a callback does beside, as was planned.
    fn act(&self, tunnel: AditTunnel) {
        let action = self.plan.lock().unwrap().pop();
        let result = match action {
            Some(1) => adit_tunnel_stop(tunnel, 1, 20_000),
            Some(2) => adit_tunnel_free(tunnel),
            Some(3) => adit_tunnel_sleep(tunnel),
            Some(4) => adit_tunnel_wake(tunnel),
            Some(5) => adit_tunnel_path_changed(tunnel, 1, 3, 25),
            Some(6) => adit_tunnel_settings_applied(tunnel, 7),
            _ => ADIT_OK,
        };
        known(result);
    }
}

pub(crate) fn event_callback() -> AditEventCallback {
    Some(on_event)
}

pub(crate) fn packets_callback() -> AditPacketsCallback {
    Some(on_packets)
}

/// # Safety
/// `context` is that of a [`Host`] that lives, `event` is the library's.
unsafe extern "C" fn on_event(context: *mut c_void, tunnel: AditTunnel, event: *const AditEvent) {
    // SAFETY: as the function says; the host outlives its tunnels, and is only looked at.
    let host = unsafe { &*context.cast::<Counted>() };
    host.inside.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the library says that the event and its text are valid until this returns.
    let (event, json) = unsafe { (&*event, CStr::from_ptr((*event).json)) };
    assert_eq!(json.count_bytes(), event.json_length);
    match event.kind {
        ADIT_EVENT_STARTED => {
            host.started.fetch_add(1, Ordering::SeqCst);
            host.succeeded.fetch_add(u32::from(event.result == ADIT_OK), Ordering::SeqCst);
        }
        ADIT_EVENT_STOPPED => {
            host.stopped.fetch_add(1, Ordering::SeqCst);
        }
        ADIT_EVENT_SETTINGS => known(adit_tunnel_settings_applied(tunnel, event.generation)),
        _ => {}
    }
    assert_ne!(event.result, ADIT_ERROR_INTERNAL, "{json:?}");
    host.act(tunnel);
    host.inside.fetch_sub(1, Ordering::SeqCst);
}

/// # Safety
/// `context` is that of a [`Host`] that lives, the arrays are the library's.
unsafe extern "C" fn on_packets(
    context: *mut c_void,
    tunnel: AditTunnel,
    packets: *const AditSlice,
    families: *const i32,
    count: usize,
) {
    // SAFETY: as in `on_event`.
    let host = unsafe { &*context.cast::<Counted>() };
    host.inside.fetch_add(1, Ordering::SeqCst);
    assert!(count > 0 && !packets.is_null() && !families.is_null());
    host.act(tunnel);
    host.inside.fetch_sub(1, Ordering::SeqCst);
}

/// No call may end with a bug.
pub(crate) fn known(result: AditResult) {
    assert!(
        !matches!(result, ADIT_ERROR_PANIC | ADIT_ERROR_POISONED | ADIT_ERROR_INTERNAL | ADIT_ERROR_TIMEOUT),
        "a call returned {result}"
    );
    assert!(result == ADIT_OK || (6101..=6128).contains(&result), "{result} is no code");
}

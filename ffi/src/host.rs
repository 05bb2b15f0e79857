//! The engine's host: turns what it is told into calls of C functions. It runs on the tunnel's thread only.

use std::cell::Cell;
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_control::hosted::{Host, HostBatch, HostEvent};

use crate::callback::{EventCall, PacketsCall};
use crate::event::{ADIT_STATE_IDLE, AditEvent, state_number};
use crate::packets::{AditSlice, family_of};
use crate::tunnel::AditTunnel;

/// The C functions of one tunnel.
pub(crate) struct Adapter {
    handle: AtomicU64,
    events: EventCall,
    packets: Mutex<Option<PacketsCall>>,
    /// The state that was told last.
    state: AtomicU32,
}

impl Adapter {
    pub(crate) fn new(events: EventCall) -> Self {
        Self { handle: AtomicU64::new(0), events, packets: Mutex::new(None), state: AtomicU32::new(ADIT_STATE_IDLE) }
    }

    /// Says what the tunnel is called. A tunnel has nothing to tell before somebody could start it, by its handle.
    pub(crate) fn set_handle(&self, handle: AditTunnel) {
        self.handle.store(handle, Ordering::Release);
    }

    /// Where packets go. While this is locked, none are given out: a start holds it until it is clear whose packets come.
    pub(crate) fn packets_call(&self) -> MutexGuard<'_, Option<PacketsCall>> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self) -> AditTunnel {
        self.handle.load(Ordering::Acquire)
    }
}

impl Host for Adapter {
    fn event(&self, event: &HostEvent) {
        if let HostEvent::State { state } = event {
            self.state.store(state_number(*state), Ordering::Relaxed);
        }
        // Events are made of texts and finite numbers: there is none that has no JSON, and JSON has no NUL.
        let json = serde_json::to_string(event).ok().and_then(|json| CString::new(json).ok()).unwrap_or_default();
        self.events.call(self.handle(), AditEvent::new(event, self.state.load(Ordering::Relaxed)), &json);
    }

    fn packets(&self, packets: &HostBatch) {
        let Some(call) = *self.packets_call() else { return };
        let Arrays { mut slices, mut families } = ARRAYS.take();
        slices.clear();
        families.clear();
        for packet in packets.iter() {
            // What comes out of the engine is a valid packet.
            let Some(family) = family_of(packet) else { continue };
            slices.push(AditSlice { data: packet.as_ptr(), length: packet.len() });
            families.push(family);
        }
        if !slices.is_empty() {
            call.call(self.handle(), &slices, &families);
        }
        ARRAYS.set(Arrays { slices, families });
    }
}

/// The arrays of the last call, whose memory is used again.
#[derive(Default)]
struct Arrays {
    slices: Vec<AditSlice>,
    families: Vec<i32>,
}

thread_local! {
    static ARRAYS: Cell<Arrays> = Cell::default();
}

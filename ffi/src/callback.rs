//! Calls out: the host's functions with their contexts. The only file that calls them.
//!
//! Each is called without a lock, on the thread that the header names, and with memory that stays valid for the call.

use std::ffi::{CStr, c_char, c_void};

use crate::event::{AditEvent, AditEventCallback};
use crate::log::AditLogCallback;
use crate::log::line::Line;
use crate::packets::{AditPacketsCallback, AditSlice};
use crate::tunnel::AditTunnel;

/// The host's context: a number to us.
#[derive(Debug, Clone, Copy)]
struct Context(*mut c_void);

// SAFETY: it is never looked through here, and the header asks that the callbacks may be called from Adit's threads.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// An `AditLogCallback` that is not NULL.
pub(crate) struct LogCall {
    function: unsafe extern "C" fn(*mut c_void, u32, *const c_char, *const c_char, usize),
    context: Context,
}

/// An `AditEventCallback` that is not NULL.
pub(crate) struct EventCall {
    function: unsafe extern "C" fn(*mut c_void, AditTunnel, *const AditEvent),
    context: Context,
}

/// An `AditPacketsCallback` that is not NULL.
#[derive(Clone, Copy)]
pub(crate) struct PacketsCall {
    function: unsafe extern "C" fn(*mut c_void, AditTunnel, *const AditSlice, *const i32, usize),
    context: Context,
}

impl LogCall {
    pub(crate) fn new(callback: AditLogCallback, context: *mut c_void) -> Option<Self> {
        callback.map(|function| Self { function, context: Context(context) })
    }

    pub(crate) fn call(&self, line: &Line) {
        let (target, text) = (line.target(), line.text());
        // SAFETY: the host gave this function for this context; both texts live until it returns.
        unsafe { (self.function)(self.context.0, line.level(), target.as_ptr(), text.as_ptr(), text.count_bytes()) }
    }
}

impl EventCall {
    pub(crate) fn new(callback: AditEventCallback, context: *mut c_void) -> Option<Self> {
        callback.map(|function| Self { function, context: Context(context) })
    }

    /// `event` gets `json` as its text.
    pub(crate) fn call(&self, tunnel: AditTunnel, event: AditEvent, json: &CStr) {
        let event = AditEvent { json: json.as_ptr(), json_length: json.count_bytes(), ..event };
        // SAFETY: the host gave this function for this context; event and text live until it returns.
        unsafe { (self.function)(self.context.0, tunnel, &raw const event) }
    }
}

impl PacketsCall {
    pub(crate) fn new(callback: AditPacketsCallback, context: *mut c_void) -> Option<Self> {
        callback.map(|function| Self { function, context: Context(context) })
    }

    /// `slices` and `families` are of one length; `slices` point to packets that live until this returns.
    pub(crate) fn call(&self, tunnel: AditTunnel, slices: &[AditSlice], families: &[i32]) {
        debug_assert_eq!(slices.len(), families.len());
        let count = slices.len().min(families.len());
        // SAFETY: the host gave this function for this context; both arrays have `count` entries and live until it
        // returns, and so do the packets.
        unsafe { (self.function)(self.context.0, tunnel, slices.as_ptr(), families.as_ptr(), count) }
    }
}

//! The log: what the engine traces, on its way to the host.
//!
//! Lines go through a bounded queue to a thread of their own, so no lock is held and nothing of a tunnel waits while the
//! host writes them. What finds no room is counted, and told once there is room. Rust's tracing takes one subscriber for
//! the life of a process; that one ([`subscriber`]) is installed once and asks here for the sink of the moment.

pub(crate) mod line;
mod sink;
mod subscriber;

use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;

use crate::callback::LogCall;
use crate::guard::entry;
use crate::result::{ADIT_ERROR_INVALID_ARGUMENT, ADIT_ERROR_INVALID_STATE, AditResult, Failure, Outcome};
use sink::Sink;

/// No lines at all.
pub const ADIT_LOG_OFF: u32 = 0u32;

/// What failed.
pub const ADIT_LOG_ERROR: u32 = 1u32;

/// What works, but not as it was meant to.
pub const ADIT_LOG_WARNING: u32 = 2u32;

/// Changes of state; no addresses and no names.
pub const ADIT_LOG_INFO: u32 = 3u32;

/// Everything that helps to find a fault, addresses included.
pub const ADIT_LOG_DEBUG: u32 = 4u32;

/// Every packet.
pub const ADIT_LOG_TRACE: u32 = 5u32;

/// Takes the lines of the log.
///
/// Thread: the thread "adit-log", of which there is one per process, one call at a time. No lock is held: it may call any
/// function of this header, and it may block; lines that find no room in the queue meanwhile are counted and the number is
/// told in a line of its own. It must return: no C++ exception and no longjmp may leave it. Ownership: the texts are the
/// library's. Lifetime: until the callback returns. Errors: none.
///
/// `level` is one of `ADIT_LOG_ERROR` to `ADIT_LOG_TRACE`, `target` the part of Adit that speaks ("adit_tun::pump"), and
/// `message` one line of up to 1024 bytes of UTF-8 with a NUL behind it. No line has a secret in it.
pub type AditLogCallback = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        level: u32,
        target: *const c_char,
        message: *const c_char,
        message_length: usize,
    ),
>;

/// Says where the log of this process goes, and how much of it. Without this call there is none.
///
/// `level` is one of `ADIT_LOG_…`. Call it again to change either; a NULL callback ends the log. When it returns, the
/// former callback has seen the lines that were queued for it, has returned and is not called again, so its context can be
/// freed. Called from within the log callback it does not wait for that very call, which is the former callback's last.
///
/// Thread: any; not while holding a lock that the former callback waits for. Ownership: `context` stays yours. Lifetime:
/// `callback` and `context` must be valid until another `adit_init` has returned. Errors: INVALID_ARGUMENT for an unknown
/// level; INVALID_STATE if the process's own Rust code traces to somewhere else; SYSTEM if there is no thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_init(callback: AditLogCallback, context: *mut c_void, level: u32) -> AditResult {
    entry(|| {
        if level > ADIT_LOG_TRACE {
            return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT));
        }
        match LogCall::new(callback, context) {
            Some(call) if level != ADIT_LOG_OFF => {
                install()?;
                replace(Some(Sink::spawn(call)?), level);
            }
            _ => replace(None, ADIT_LOG_OFF),
        }
        Ok(())
    })
}

/// Makes the process's tracing ask here.
fn install() -> Outcome {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let ours = *INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(subscriber::ToSink).is_ok());
    if ours { Ok(()) } else { Err(Failure::new(ADIT_ERROR_INVALID_STATE)) }
}

/// Puts a sink in the place of the present one, and waits until that has ended.
///
/// The wait goes without a lock: the callback that is waited for may call in here as well. Such a call ends only sinks
/// that are newer than its own, so nobody waits in a circle.
fn replace(next: Option<(Arc<Sink>, JoinHandle<()>)>, level: u32) {
    let (sink, thread) = next.unzip();
    let (former, former_thread) = {
        let mut current = CURRENT.write().unwrap_or_else(PoisonError::into_inner);
        subscriber::set_most(level);
        let former = std::mem::replace(&mut current.sink, sink);
        (former, std::mem::replace(&mut current.thread, thread))
    };
    tracing::callsite::rebuild_interest_cache();
    if let Some(former) = former {
        former.close();
    }
    let mut ending: Vec<JoinHandle<()>> = former_thread.into_iter().collect();
    if sink::is_log_thread() {
        // Those that are in the middle of a callback are waited for by the next who is not one of them.
        RETIRED.lock().unwrap_or_else(PoisonError::into_inner).extend(own(&mut ending));
    } else {
        ending.append(&mut RETIRED.lock().unwrap_or_else(PoisonError::into_inner));
    }
    for thread in ending {
        // A sink's thread does not panic; if it did, it would have ended all the same.
        let _ended = thread.join();
    }
}

/// Takes the calling thread's own handle out.
fn own(threads: &mut Vec<JoinHandle<()>>) -> Option<JoinHandle<()>> {
    let own = std::thread::current().id();
    let index = threads.iter().position(|thread| thread.thread().id() == own)?;
    Some(threads.swap_remove(index))
}

/// The sink of the moment.
struct Current {
    sink: Option<Arc<Sink>>,
    thread: Option<JoinHandle<()>>,
}

static CURRENT: RwLock<Current> = RwLock::new(Current { sink: None, thread: None });

/// Threads that replaced themselves from within their callback.
static RETIRED: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

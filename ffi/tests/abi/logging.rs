//! The log. It is one for the process, so all of it is one test; lines of other tests' tunnels may come in between.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use adit_ffi::*;

use crate::harness::{PATIENCE, wait};

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<(u32, String, String)>>,
    changed: Condvar,
    /// Holds the callback while it is set.
    hold: Mutex<bool>,
    released: Condvar,
    /// Replaces the log from within the callback.
    leave: AtomicBool,
    left: AtomicBool,
}

impl Log {
    fn init(self: &Arc<Self>, level: u32) -> AditResult {
        unsafe { adit_init(Some(on_line), Arc::as_ptr(self).cast_mut().cast(), level) }
    }

    fn wait(&self, text: &str) -> (u32, String) {
        let find = |lines: &Vec<(u32, String, String)>| {
            let line = lines.iter().find(|(_, _, message)| message.contains(text));
            line.map(|(level, _, message)| (*level, message.clone()))
        };
        wait(&self.changed, self.lines.lock().unwrap(), text, find)
    }

    fn has(&self, text: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|(_, _, message)| message.contains(text))
    }
}

unsafe extern "C" fn on_line(
    context: *mut c_void,
    level: u32,
    target: *const c_char,
    message: *const c_char,
    length: usize,
) {
    let log = unsafe { &*context.cast::<Log>() };
    assert_eq!(std::thread::current().name(), Some("adit-log"));
    assert!(!log.left.load(Ordering::Acquire), "a line after the log was taken away");
    let (target, message) = unsafe { (CStr::from_ptr(target), CStr::from_ptr(message)) };
    assert_eq!(message.count_bytes(), length);
    let line = (level, target.to_str().unwrap().to_owned(), message.to_str().unwrap().to_owned());
    log.lines.lock().unwrap().push(line);
    log.changed.notify_all();
    let held = log.hold.lock().unwrap();
    let (held, waited) = log.released.wait_timeout_while(held, PATIENCE, |held| *held).unwrap();
    assert!(!waited.timed_out());
    drop(held);
    if log.leave.swap(false, Ordering::AcqRel) {
        assert_eq!(unsafe { adit_init(None, null_mut(), ADIT_LOG_OFF) }, ADIT_OK);
        // Under the lock that goes with the condition, or who waits for it could miss it.
        let lines = log.lines.lock().unwrap();
        log.left.store(true, Ordering::Release);
        drop(lines);
        log.changed.notify_all();
    }
}

#[test]
fn the_log_is_delivered_bounded_replaced_and_ended() {
    let first = Arc::new(Log::default());
    tracing::info!("before anybody listens");
    assert_eq!(first.init(ADIT_LOG_INFO), ADIT_OK);
    tracing::info!(count = 3, name = "a\0b", "a line with fields");
    tracing::debug!("too fine for this log");
    tracing::error!("the last of the first");
    let (level, line) = first.wait("a line with fields");
    assert_eq!((level, line.as_str()), (ADIT_LOG_INFO, "a line with fields count=3 name=a\u{fffd}b"));
    assert_eq!(first.wait("the last of the first").0, ADIT_LOG_ERROR);
    assert!(!first.has("too fine") && !first.has("before anybody"));

    // Another one takes over: the first has seen everything when that returns, and sees nothing more.
    let second = Arc::new(Log::default());
    tracing::warn!("still for the first");
    assert_eq!(second.init(ADIT_LOG_TRACE), ADIT_OK);
    assert!(first.has("still for the first"));
    first.left.store(true, Ordering::Release);
    tracing::trace!("fine enough for the second");
    assert_eq!(second.wait("fine enough").0, ADIT_LOG_TRACE);

    // A callback that does not return stops nobody, and what is lost is told.
    *second.hold.lock().unwrap() = true;
    for number in 0..3000 {
        tracing::info!(number, "one of many");
    }
    *second.hold.lock().unwrap() = false;
    second.released.notify_all();
    let lost = |lines: &Vec<(u32, String, String)>| {
        let told = lines.iter().filter(|(_, _, message)| message.contains("lines of the log were lost"));
        let counts = told.map(|(level, _, message)| {
            assert_eq!(*level, ADIT_LOG_WARNING);
            message.split(' ').next().unwrap().parse::<usize>().unwrap()
        });
        // Some may have come through before the callback was held.
        (counts.sum::<usize>() > 1000).then_some(())
    };
    wait(&second.changed, second.lines.lock().unwrap(), "lost lines", lost);

    // A callback that takes its own log away is not called again, although lines wait.
    let third = Arc::new(Log::default());
    third.leave.store(true, Ordering::Release);
    assert_eq!(third.init(ADIT_LOG_ERROR), ADIT_OK);
    for _ in 0..100 {
        tracing::error!("for the third");
    }
    wait(&third.changed, third.lines.lock().unwrap(), "the end", |_| third.left.load(Ordering::Acquire).then_some(()));
    assert_eq!(unsafe { adit_init(None, null_mut(), ADIT_LOG_OFF) }, ADIT_OK);

    // It can begin again, with a level only, and a NULL callback or level 0 ends it.
    let fourth = Arc::new(Log::default());
    assert_eq!(fourth.init(ADIT_LOG_OFF), ADIT_OK);
    tracing::error!("for nobody");
    assert_eq!(fourth.init(6), ADIT_ERROR_INVALID_ARGUMENT);
    assert_eq!(fourth.init(ADIT_LOG_WARNING), ADIT_OK);
    tracing::error!("for the fourth");
    fourth.wait("for the fourth");
    assert!(!fourth.has("for nobody"));
    assert_eq!(unsafe { adit_init(None, null_mut(), ADIT_LOG_TRACE) }, ADIT_OK);
}

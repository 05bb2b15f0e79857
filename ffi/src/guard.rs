//! The wall between Rust's panics and the host: no panic leaves an entry point.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::result::{ADIT_ERROR_PANIC, AditResult, Failure, Outcome, code_of};

/// Runs what an entry point does; a panic becomes `ADIT_ERROR_PANIC`.
pub(crate) fn entry(body: impl FnOnce() -> Outcome) -> AditResult {
    code_of(guarded(body).unwrap_or(Err(Failure::new(ADIT_ERROR_PANIC))))
}

/// Runs `body`; `None` if it panicked, which is logged.
///
/// Unwind safety: whoever goes on after a panic in a tunnel's call poisons that tunnel; what is shared by all tunnels
/// holds its locks only where nothing panics.
pub(crate) fn guarded<T>(body: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(panic) => {
            tracing::error!(panic = describe(&*panic), "a bug ended a call");
            // A panic's value may panic again when it is dropped; the value of that one is left alone.
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                std::mem::forget(again);
            }
            None
        }
    }
}

fn describe(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{ADIT_ERROR_BUSY, ADIT_OK};

    #[test]
    fn a_panic_is_a_code() {
        assert_eq!(entry(|| Ok(())), ADIT_OK);
        assert_eq!(entry(|| Err(Failure::new(ADIT_ERROR_BUSY))), ADIT_ERROR_BUSY);
        assert_eq!(entry(|| panic!("on purpose")), ADIT_ERROR_PANIC);
        assert_eq!(entry(|| std::panic::panic_any(7)), ADIT_ERROR_PANIC);
    }

    #[test]
    fn a_panic_says_why() {
        assert_eq!(describe(&"why"), "why");
        assert_eq!(describe(&String::from("why")), "why");
        assert_eq!(describe(&7), "no message");
    }
}

//! What every long run looks at: Ctrl-C, a deadline, a failure elsewhere.
//!
//! A signal only raises a flag, and no wait is longer than [`SLICE`], so a run ends by unwinding: threads are joined,
//! descriptors closed, and with them goes everything that the kernel held for it. A second signal ends the process at
//! once, after which the kernel does the same.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::{Failure, Kind, Outcome};

/// Whether to go on, and how far the transfer is.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    interrupted: Arc<AtomicBool>,
    halted: OnceLock<Failure>,
    /// Bytes of the transfer that have arrived.
    received: AtomicU64,
}

impl Watch {
    /// Makes signals raise the flag instead of ending the process.
    pub(crate) fn install() -> io::Result<Self> {
        let watch = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag down and raises it, the second finds it up.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&watch.interrupted))?;
            signal_hook::flag::register(signal, Arc::clone(&watch.interrupted))?;
        }
        Ok(watch)
    }

    /// Fails when it is time to stop.
    pub(crate) fn check(&self) -> Outcome {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Failure::new(Kind::Interrupted, "interrupted; nothing is left behind"));
        }
        self.halted.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Makes everybody stop with this failure; the first one counts.
    pub(crate) fn halt(&self, failure: Failure) {
        let _first_counts = self.halted.set(failure);
    }

    /// Receives, at most for `limit`.
    pub(crate) fn receive<T>(&self, from: &Receiver<T>, limit: Duration, what: &str) -> Outcome<T> {
        let end = Instant::now() + limit;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            match from.recv_timeout(left.min(SLICE)) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::failed(format!("{what}: the thread that does it has ended")));
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    return Err(Failure::failed(format!("{what}: not done within {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Counts bytes that have arrived.
    pub(crate) fn arrived(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// The longest that anything waits without looking up.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_by_value_deadline_halt_and_loss() {
        let watch = Watch::default();
        let (sender, receiver) = crossbeam_channel::bounded(1);
        sender.send(7).unwrap();
        assert_eq!(watch.receive(&receiver, SLICE, "it"), Ok(7));
        let late = watch.receive(&receiver, Duration::from_millis(1), "it").unwrap_err();
        assert!(late.message.contains("not done within"), "{late:?}");
        drop(sender);
        assert!(watch.receive(&receiver, SLICE, "it").unwrap_err().message.contains("has ended"));
        watch.halt(Failure::failed("first"));
        watch.halt(Failure::failed("second"));
        assert_eq!(watch.receive(&receiver, SLICE, "it"), Err(Failure::failed("first")));
    }

    #[test]
    fn a_signal_is_a_failure() {
        let watch = Watch::default();
        watch.interrupted.store(true, Ordering::Relaxed);
        let failure = watch.check().unwrap_err();
        assert!(failure.kind == Kind::Interrupted && failure.message.starts_with("interrupted"), "{failure:?}");
    }
}

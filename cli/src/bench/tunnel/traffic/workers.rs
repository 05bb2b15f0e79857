//! Threads of the traffic, which end with whoever started them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use crate::failure::{Failure, Outcome};

/// Threads that work until this is dropped, which waits for them.
#[derive(Debug, Default)]
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What workers and their owner tell each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    failed: OnceLock<Failure>,
}

impl Workers {
    /// Starts a thread. It must look at [`Shared::goes_on`] every [`SLICE`](crate::watch::SLICE).
    pub(super) fn start(&mut self, name: &str, work: impl FnOnce(&Shared) -> Outcome + Send + 'static) -> Outcome {
        let shared = Arc::clone(&self.shared);
        let body = move || {
            if let Err(failure) = work(&shared)
                && shared.goes_on()
            {
                let _first_counts = shared.failed.set(failure);
            }
        };
        self.threads.push(thread::Builder::new().name(format!("bench-{name}")).spawn(body)?);
        Ok(())
    }

    /// Tells the threads to end.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Fails if one of them has.
    pub(super) fn check(&self) -> Outcome {
        self.shared.failed.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }
}

impl Shared {
    pub(super) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the benchmark's traffic has panicked");
            }
        }
    }
}

//! Waking a thread that has nothing else to wait for.
//!
//! A [`Bell`] remembers that it was rung: a ring before the wait ends the next wait at once, and many rings before it are
//! one. It carries no message; whoever wakes up looks around. A packet loop is woken through [`Waker`](crate::Waker).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Something that one thread rings and another waits for.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Makes a bell that was not rung yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the wait of every thread that waits now, or else the next wait. It never blocks.
    pub fn ring(&self) {
        let before = std::mem::replace(&mut *self.lock(), true);
        // Whoever waits was told by the first ring.
        if !before {
            self.changed.notify_all();
        }
    }

    /// Waits until the bell is rung, for `timeout` at most and for ever without one, and says whether it was rung. The
    /// ring is used up by that.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        // A time that no clock reaches is none.
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut rung = self.lock();
        while !*rung {
            rung = match end {
                None => self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.changed.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        std::mem::take(&mut *rung)
    }

    /// A flag is sound whatever happened to the thread that held it.
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_lost_and_many_are_one() {
        let bell = Bell::new();
        assert!(!bell.wait(Some(Duration::ZERO)));
        bell.ring();
        bell.ring();
        assert!(bell.wait(None));
        assert!(!bell.wait(Some(Duration::from_millis(1))));
        bell.ring();
        assert!(bell.wait(Some(Duration::MAX)));
    }

    #[test]
    fn a_wait_ends_with_the_ring() {
        let (there, back) = (Arc::new(Bell::new()), Arc::new(Bell::new()));
        let thread = thread::spawn({
            let (there, back) = (Arc::clone(&there), Arc::clone(&back));
            move || {
                for _ in 0..1000 {
                    assert!(there.wait(Some(Duration::from_secs(10))));
                    back.ring();
                }
            }
        });
        for _ in 0..1000 {
            there.ring();
            assert!(back.wait(None));
        }
        thread.join().unwrap();
    }
}

//! The one clock of a tunnel: it goes on while the machine sleeps.
//!
//! WireGuard's limits are about real time: a session must not be used 180 seconds after its handshake even if the
//! machine slept through them. `std::time::Instant` stops during suspend on Linux (CLOCK_MONOTONIC) and during sleep on
//! Apple's systems (CLOCK_UPTIME_RAW), so the engine is not fed with it but with instants made here: one real `Instant`
//! taken when the process first asked, plus what CLOCK_BOOTTIME (Linux) or CLOCK_MONOTONIC (Apple) has counted since.
//! Such instants can be compared and subtracted with each other; comparing them with `Instant::now()` is an error.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// Reads the suspend-aware clock. All clocks of a process share one origin, so their instants can be compared.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    /// The system clock at the origin, since its own epoch.
    offset: Duration,
}

impl Clock {
    /// Returns the process's clock.
    pub fn new() -> Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        *CLOCK.get_or_init(|| Self { origin: Instant::now(), offset: since_epoch() })
    }

    /// The time now; it never goes back.
    pub fn now(&self) -> Instant {
        self.origin + since_epoch().saturating_sub(self.offset)
    }

    /// The wall clock, which a user or NTP may set to anything.
    pub fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    /// `at` on the system clock that this one follows, since that clock's epoch.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) fn system_time_of(&self, at: Instant) -> Duration {
        self.offset + at.saturating_duration_since(self.origin)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The system clock that counts time asleep.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const CLOCK_ID: ClockId = ClockId::CLOCK_BOOTTIME;
/// On Darwin CLOCK_MONOTONIC counts time asleep (mach_continuous_time), unlike everywhere else.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) const CLOCK_ID: ClockId = ClockId::CLOCK_MONOTONIC;

/// Time since the clock's epoch. The clock has existed since Linux 2.6.39 and macOS 10.12; where a sandbox forbids it,
/// it stands still at zero, as does every deadline, rather than to panic in a packet loop.
fn since_epoch() -> Duration {
    clock_gettime(CLOCK_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_one_process_agree_and_never_go_back() {
        let (first, second) = (Clock::new(), Clock::default());
        let mut last = first.now();
        for clock in [first, second].into_iter().cycle().take(1000) {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn it_runs_as_fast_as_the_monotonic_clock() {
        let clock = Clock::new();
        let (ours, std) = (clock.now(), Instant::now());
        while std.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let (ours, std) = (clock.now() - ours, std.elapsed());
        assert!(ours >= Duration::from_millis(19) && ours <= std + Duration::from_secs(5), "{ours:?} and {std:?}");
    }

    #[test]
    fn an_instant_is_translated_to_the_system_clock() {
        let clock = Clock::new();
        let at = clock.now() + Duration::from_secs(10);
        let ahead = clock.system_time_of(at).saturating_sub(since_epoch());
        assert!(ahead > Duration::from_secs(9) && ahead <= Duration::from_secs(10), "{ahead:?}");
    }
}

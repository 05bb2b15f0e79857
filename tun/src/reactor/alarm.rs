//! What ends a sleep at its deadline.

use std::io;
use std::os::fd::BorrowedFd;
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
use std::time::Duration;
use std::time::Instant;

use nix::poll::PollTimeout;

use crate::clock::Clock;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) use timeout::Alarm;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use timer::Alarm;

/// A timer on the clock that runs while the machine sleeps: after a resume an overdue deadline is noticed at once. A
/// timeout of poll(2) would first wait for what was left of it when the machine fell asleep.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod timer {
    use std::os::fd::AsFd;

    use nix::sys::time::TimeSpec;
    use nix::sys::timer::{Expiration, TimerSetTimeFlags};
    use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

    use super::*;

    #[derive(Debug)]
    pub(crate) struct Alarm {
        clock: Clock,
        timer: TimerFd,
        set: Option<Instant>,
        /// How often the timer was set.
        #[cfg(test)]
        pub(crate) settings: u32,
    }

    impl Alarm {
        pub(crate) fn new(clock: Clock) -> io::Result<Self> {
            let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
            Ok(Self {
                clock,
                timer,
                set: None,
                #[cfg(test)]
                settings: 0,
            })
        }

        /// Sets the alarm and returns how long poll(2) may sleep on its own account. An alarm that is set for an
        /// earlier moment stays: it costs one wake-up then, where moving it would cost a system call at every wait.
        pub(crate) fn set(&mut self, deadline: Instant, now: Instant) -> io::Result<PollTimeout> {
            if self.set.is_none_or(|set| set > deadline || set <= now) {
                let at = TimeSpec::from_duration(self.clock.system_time_of(deadline));
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
                self.set = Some(deadline);
                #[cfg(test)]
                {
                    self.settings += 1;
                }
            }
            Ok(PollTimeout::NONE)
        }

        /// What to watch while there is a deadline.
        pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
            Some(self.timer.as_fd())
        }

        /// Notes that the descriptor was readable. It need not be read: setting a timer takes back its expirations, too
        /// (timerfd_create(2)), and until it is set nobody watches it.
        pub(crate) fn fired(&mut self) {
            self.set = None;
        }
    }
}

/// The timeout of poll(2), where there is no such timer; the host tells when the machine woke up.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod timeout {
    use super::*;

    #[derive(Debug)]
    pub(crate) struct Alarm;

    impl Alarm {
        pub(crate) fn new(_: Clock) -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) fn set(&mut self, deadline: Instant, now: Instant) -> io::Result<PollTimeout> {
            Ok(whole_millis(deadline.saturating_duration_since(now)))
        }

        pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        pub(crate) fn fired(&mut self) {}
    }
}

/// A timeout that does not end before `left` is over, or the longest there is. Rounded down it would make the loop spin
/// through the last millisecond.
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
fn whole_millis(left: Duration) -> PollTimeout {
    left.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up() {
        for (left, millis) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(7), 7),
            (Duration::from_micros(7001), 8),
            (Duration::from_secs(1 << 40), i32::MAX as u32),
            (Duration::MAX, i32::MAX as u32),
        ] {
            assert_eq!(whole_millis(left).as_millis(), Some(millis), "{left:?}");
        }
    }
}

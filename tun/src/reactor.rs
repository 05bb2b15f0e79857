//! Waiting: for the device, for the sockets, for a deadline, for a wake-up from another thread.
//!
//! Descriptors are watched in level mode, and only for what the pump can act on at the moment: a device that must not be
//! read because the socket is full is not watched at all, so that it cannot wake the loop for nothing. The reactor reads
//! and writes nothing itself. Devices and sockets without descriptors announce themselves through a [`Waker`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use polling::{Event, Events, PollMode, Poller};

use crate::clock::Clock;

/// Wakes a pump from any thread. Many wake-ups before the pump has noticed are one.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// Makes the pump look at its commands, its device and its socket.
    pub fn wake(&self) {
        // Whoever finds the flag down has to notify; everyone else relies on that notification, which is still to be
        // noticed because noticing it takes the flag down first.
        if !self.0.pending.swap(true, Ordering::AcqRel)
            && let Err(error) = self.0.poller.notify()
        {
            tracing::warn!(%error, "the packet loop could not be woken");
        }
    }

    /// Whether both wake the same pump.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Debug)]
struct Shared {
    poller: Poller,
    pending: AtomicBool,
}

/// What can be waited for on one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Readiness {
    pub(crate) const ALL: Self = Self { readable: true, writable: true };

    fn add(&mut self, event: &Event) {
        self.readable |= event.readable;
        self.writable |= event.writable;
    }

    fn is_none(self) -> bool {
        !self.readable && !self.writable
    }
}

/// The two ends of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Device,
    Socket,
}

/// Why and for whom a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ready {
    pub(crate) device: Readiness,
    pub(crate) socket: Readiness,
}

#[derive(Debug)]
pub(crate) struct Reactor {
    shared: Arc<Shared>,
    events: Events,
    watched: [Option<Watched>; SLOTS],
    alarm: alarm::Alarm,
    wakeups: u64,
}

#[derive(Debug)]
struct Watched {
    end: End,
    fd: RawFd,
    interest: Readiness,
}

impl Reactor {
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let shared = Arc::new(Shared { poller: Poller::new()?, pending: AtomicBool::new(false) });
        let alarm = alarm::Alarm::new(clock, &shared.poller)?;
        let events = Events::with_capacity(EVENTS);
        Ok(Self { shared, events, watched: [const { None }; SLOTS], alarm, wakeups: 0 })
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.shared))
    }

    /// How often the loop slept and was woken.
    pub(crate) fn wakeups(&self) -> u64 {
        self.wakeups
    }

    /// Begins to watch descriptors, for nothing yet. They must stay open until [`remove`](Self::remove).
    pub(crate) fn add<'a>(&mut self, end: End, fds: impl IntoIterator<Item = BorrowedFd<'a>>) -> io::Result<()> {
        for fd in fds {
            let Some(slot) = self.watched.iter_mut().find(|slot| slot.is_none()) else {
                return Err(io::Error::other("more descriptors than a tunnel has"));
            };
            *slot = Some(Watched { end, fd: fd.as_raw_fd(), interest: Readiness::default() });
        }
        Ok(())
    }

    /// Watches one end for `interest` from now on.
    pub(crate) fn watch(&mut self, end: End, interest: Readiness) -> io::Result<()> {
        for (key, slot) in self.watched.iter_mut().enumerate() {
            if let Some(watched) = slot.as_mut().filter(|watched| watched.end == end && watched.interest != interest) {
                watched.change(&self.shared.poller, key, interest)?;
            }
        }
        Ok(())
    }

    /// Stops to watch one end; its descriptors may be closed now.
    pub(crate) fn remove(&mut self, end: End) {
        for (key, slot) in self.watched.iter_mut().enumerate() {
            if let Some(mut watched) = slot.take_if(|watched| watched.end == end)
                && let Err(error) = watched.change(&self.shared.poller, key, Readiness::default())
            {
                // The kernel forgets a descriptor by itself once it is closed.
                tracing::debug!(%error, "a descriptor could not be removed from the poller");
            }
        }
    }

    /// Takes wake-ups that came since the last call: everything may be ready then.
    pub(crate) fn woken(&self) -> bool {
        // Loading first keeps the cache line shared while there is nothing.
        self.shared.pending.load(Ordering::Acquire) && self.shared.pending.swap(false, Ordering::AcqRel)
    }

    /// Asks what is ready, without waiting.
    pub(crate) fn poll(&mut self) -> io::Result<Ready> {
        self.collect(Some(Duration::ZERO))
    }

    /// Waits until something is ready, for a wake-up, or until `deadline`, which may already be over.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>, now: Instant) -> io::Result<Ready> {
        if deadline.is_some_and(|deadline| deadline <= now) {
            return self.poll();
        }
        let timeout = self.alarm.set(deadline, now)?;
        let ready = self.collect(timeout);
        self.wakeups += 1;
        ready
    }

    fn collect(&mut self, timeout: Option<Duration>) -> io::Result<Ready> {
        self.events.clear();
        match self.shared.poller.wait(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut ready = Ready::default();
        for event in self.events.iter() {
            match self.watched.get(event.key) {
                Some(Some(Watched { end: End::Device, .. })) => ready.device.add(&event),
                Some(Some(Watched { end: End::Socket, .. })) => ready.socket.add(&event),
                _ if event.key == ALARM => self.alarm.fired(),
                _ => {}
            }
        }
        if self.woken() {
            ready = Ready { device: Readiness::ALL, socket: Readiness::ALL };
        }
        Ok(ready)
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.remove(End::Device);
        self.remove(End::Socket);
    }
}

impl Watched {
    /// Wanting nothing is being absent: an error on a watched descriptor is reported whether it is wanted or not, and
    /// would wake a loop that cannot act on it again and again.
    fn change(&mut self, poller: &Poller, key: usize, wanted: Readiness) -> io::Result<()> {
        let event = Event::new(key, wanted.readable, wanted.writable);
        // SAFETY: whoever called `add` keeps the descriptor open until `remove`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        match (self.interest.is_none(), wanted.is_none()) {
            (true, true) => {}
            // SAFETY: `remove`, and at the latest the reactor's `Drop`, deletes the descriptor while it is still open.
            (true, false) => unsafe { poller.add_with_mode(self.fd, event, PollMode::Level)? },
            (false, false) => poller.modify_with_mode(fd, event, PollMode::Level)?,
            (false, true) => poller.delete(fd)?,
        }
        self.interest = wanted;
        Ok(())
    }
}

/// A timer on the clock that runs while the machine sleeps: after a resume an overdue deadline is noticed at once. The
/// poller's own timeout would first wait for what was left of it when the machine fell asleep.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod alarm {
    use std::os::fd::AsFd;

    use nix::sys::time::TimeSpec;
    use nix::sys::timer::{Expiration, TimerSetTimeFlags};
    use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

    use super::*;

    #[derive(Debug)]
    pub(super) struct Alarm {
        clock: Clock,
        timer: TimerFd,
        set: Option<Instant>,
    }

    impl Alarm {
        pub(super) fn new(clock: Clock, poller: &Poller) -> io::Result<Self> {
            let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
            // SAFETY: the timer lives as long as the poller does, but for the drop of both, where epoll forgets closed
            // descriptors by itself.
            unsafe { poller.add_with_mode(timer.as_fd().as_raw_fd(), Event::readable(ALARM), PollMode::Level)? };
            Ok(Self { clock, timer, set: None })
        }

        /// Sets the alarm and returns how long the poller may sleep on its own account. An alarm that is set for an
        /// earlier moment stays: it costs one wake-up then, where moving it would cost a system call at every wait.
        pub(super) fn set(&mut self, deadline: Option<Instant>, now: Instant) -> io::Result<Option<Duration>> {
            let Some(deadline) = deadline else { return Ok(None) };
            if self.set.is_none_or(|set| set > deadline || set <= now) {
                let at = TimeSpec::from_duration(self.clock.system_time_of(deadline));
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
                self.set = Some(deadline);
            }
            Ok(None)
        }

        pub(super) fn fired(&mut self) {
            self.set = None;
            // Reading the expirations makes the descriptor unreadable again; there is nothing to learn from them.
            let _expirations = self.timer.wait();
        }
    }
}

/// Elsewhere the poller's timeout has to do, and the host tells when the machine woke up.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod alarm {
    use super::*;

    #[derive(Debug)]
    pub(super) struct Alarm;

    impl Alarm {
        pub(super) fn new(_: Clock, _: &Poller) -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn set(&mut self, deadline: Option<Instant>, now: Instant) -> io::Result<Option<Duration>> {
            Ok(deadline.map(|deadline| deadline.saturating_duration_since(now)))
        }

        pub(super) fn fired(&mut self) {}
    }
}

/// Descriptors of a tunnel: one device, and a socket for each address family.
const SLOTS: usize = 4;

/// The alarm's key; the descriptors' keys are their slots.
const ALARM: usize = SLOTS;

/// Events taken at once: each descriptor's, the alarm's and the waker's.
const EVENTS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(SLOTS + 4).unwrap();

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::thread;

    use super::*;

    const READ: Readiness = Readiness { readable: true, writable: false };

    fn reactor() -> (Reactor, Clock) {
        let clock = Clock::new();
        (Reactor::new(clock).unwrap(), clock)
    }

    fn soon(clock: Clock, millis: u64) -> (Option<Instant>, Instant) {
        let now = clock.now();
        (Some(now + Duration::from_millis(millis)), now)
    }

    #[test]
    fn a_deadline_ends_the_wait_and_not_before() {
        let (mut reactor, clock) = reactor();
        for millis in [20, 5, 15] {
            let (deadline, now) = soon(clock, millis);
            // An alarm that an earlier wait left behind may end this one first; the pump then waits again.
            while clock.now() < deadline.unwrap() {
                assert_eq!(reactor.wait(deadline, clock.now()).unwrap(), Ready::default());
            }
            assert!(clock.now() >= now + Duration::from_millis(millis));
        }
        assert!(reactor.wakeups() <= 5, "{} wake-ups for three deadlines", reactor.wakeups());
    }

    #[test]
    fn an_earlier_deadline_moves_the_alarm() {
        let (mut reactor, clock) = reactor();
        let (a, b) = UnixDatagram::pair().unwrap();
        reactor.add(End::Device, [a.as_fd()]).unwrap();
        reactor.watch(End::Device, READ).unwrap();
        b.send(b"x").unwrap();
        let (far, now) = soon(clock, 3_600_000);
        assert!(reactor.wait(far, now).unwrap().device.readable);
        a.recv(&mut [0; 8]).unwrap();
        let (near, now) = soon(clock, 10);
        assert_eq!(reactor.wait(near, now).unwrap(), Ready::default());
        assert!(clock.now() >= near.unwrap());
    }

    #[test]
    fn wake_ups_are_merged_and_none_is_lost() {
        let (mut reactor, clock) = reactor();
        let waker = reactor.waker();
        for _ in 0..100 {
            waker.wake();
        }
        let all = Ready { device: Readiness::ALL, socket: Readiness::ALL };
        assert_eq!(reactor.wait(None, clock.now()).unwrap(), all);
        assert_eq!(reactor.poll().unwrap(), Ready::default());

        let thread = thread::spawn(move || waker.wake());
        let (deadline, now) = soon(clock, 10_000);
        assert_eq!(reactor.wait(deadline, now).unwrap(), all);
        thread.join().unwrap();
    }

    #[test]
    fn an_end_that_is_not_watched_does_not_wake() {
        let (mut reactor, clock) = reactor();
        let (a, b) = UnixDatagram::pair().unwrap();
        let (c, d) = UnixDatagram::pair().unwrap();
        reactor.add(End::Device, [a.as_fd()]).unwrap();
        reactor.add(End::Socket, [c.as_fd()]).unwrap();
        b.send(b"x").unwrap();
        d.send(b"x").unwrap();
        assert_eq!(reactor.poll().unwrap(), Ready::default());

        reactor.watch(End::Socket, READ).unwrap();
        assert_eq!(reactor.poll().unwrap(), Ready { socket: READ, ..Ready::default() });
        assert_eq!(reactor.poll().unwrap().socket, READ, "level mode: it says so until it was read");

        reactor.watch(End::Socket, Readiness { readable: false, writable: true }).unwrap();
        assert_eq!(reactor.poll().unwrap().socket, Readiness { readable: false, writable: true });

        reactor.watch(End::Device, READ).unwrap();
        reactor.watch(End::Device, Readiness::default()).unwrap();
        reactor.remove(End::Socket);
        let (deadline, now) = soon(clock, 5);
        assert_eq!(reactor.wait(deadline, now).unwrap(), Ready::default());
    }
}

//! Waiting: for the device, for the sockets, for a deadline, for a wake-up from another thread.
//!
//! One poll(2) is all a wait costs: a tunnel has so few descriptors that naming them each time is cheaper than to keep a
//! set of them in the kernel up to date. They are watched in level mode, and only for what the pump can act on at the
//! moment: a device that must not be read because the socket is full is not watched at all, so that it cannot wake the
//! loop for nothing. The reactor reads and writes no packets. Devices and sockets without descriptors announce
//! themselves through a [`Waker`].

mod alarm;
mod waker;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::Clock;

use alarm::Alarm;
pub use waker::Waker;

/// What can be waited for on one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Readiness {
    pub(crate) const ALL: Self = Self { readable: true, writable: true };

    fn flags(self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.readable);
        flags.set(PollFlags::POLLOUT, self.writable);
        flags
    }

    /// Takes over what poll(2) said; `None` is something that nobody asked for. Whatever is neither data nor room is
    /// readiness for both: the owner's next call then learns from the system what it is.
    fn add(&mut self, found: Option<PollFlags>) {
        let plain = PollFlags::POLLIN | PollFlags::POLLOUT;
        let strange = found.is_none_or(|found| !plain.contains(found));
        self.readable |= strange || found.is_some_and(|found| found.contains(PollFlags::POLLIN));
        self.writable |= strange || found.is_some_and(|found| found.contains(PollFlags::POLLOUT));
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

impl Ready {
    const ALL: Self = Self { device: Readiness::ALL, socket: Readiness::ALL };
}

#[derive(Debug)]
pub(crate) struct Reactor {
    waker: Waker,
    alarm: Alarm,
    watched: [Option<Watched>; SLOTS],
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
        let (waker, alarm) = (Waker::new()?, Alarm::new(clock)?);
        Ok(Self { waker, alarm, watched: [const { None }; SLOTS], wakeups: 0 })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
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
    pub(crate) fn watch(&mut self, end: End, interest: Readiness) {
        for watched in self.watched.iter_mut().flatten().filter(|watched| watched.end == end) {
            watched.interest = interest;
        }
    }

    /// Stops to watch one end; its descriptors may be closed now.
    pub(crate) fn remove(&mut self, end: End) {
        for slot in &mut self.watched {
            slot.take_if(|watched| watched.end == end);
        }
    }

    /// Takes wake-ups that came since the last call: everything may be ready then.
    pub(crate) fn woken(&self) -> bool {
        self.waker.take()
    }

    /// Asks what is ready, without waiting.
    pub(crate) fn poll(&mut self) -> io::Result<Ready> {
        if self.woken() {
            return Ok(Ready::ALL);
        }
        let (ready, _) = self.ask([None, None], PollTimeout::ZERO)?;
        Ok(ready)
    }

    /// Waits until something is ready, for a wake-up, or until `deadline`, which may already be over.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>, now: Instant) -> io::Result<Ready> {
        if deadline.is_some_and(|deadline| deadline <= now) {
            return self.poll();
        }
        let timeout = deadline.map_or(Ok(PollTimeout::NONE), |deadline| self.alarm.set(deadline, now))?;
        if !self.waker.fall_asleep() {
            return self.poll();
        }
        // An alarm that was set for an earlier wait is no concern of one without a deadline.
        let alarm = deadline.and_then(|_| self.alarm.fd());
        let answer = self.ask([Some(self.waker.as_fd()), alarm], timeout);
        self.wakeups += 1;
        let signalled = answer.as_ref().is_ok_and(|(_, [signalled, _])| *signalled);
        let woken = self.waker.rise(signalled);
        let (ready, [_, fired]) = answer?;
        if fired {
            self.alarm.fired();
        }
        Ok(if woken { Ready::ALL } else { ready })
    }

    /// Asks the system about everything that is of interest, and whether the descriptors `own` are readable.
    fn ask(&self, own: [Option<BorrowedFd<'_>>; 2], timeout: PollTimeout) -> io::Result<(Ready, [bool; 2])> {
        let interesting = || self.watched.iter().flatten().filter(|watched| watched.interest != Readiness::default());
        let mut fds: [_; SLOTS + 2] = std::array::from_fn(|_| PollFd::new(self.waker.as_fd(), PollFlags::empty()));
        let all = interesting().map(Watched::poll_fd);
        let all = all.chain(own.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let count = fds.iter_mut().zip(all).map(|(slot, fd)| *slot = fd).count();

        let (mut ready, mut readable) = (Ready::default(), [false; 2]);
        if count == 0 {
            return Ok((ready, readable));
        }
        match poll(&mut fds[..count], timeout) {
            // After a signal the caller looks around and comes back.
            Ok(0) | Err(Errno::EINTR) => return Ok((ready, readable)),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut found = fds[..count].iter();
        for (watched, found) in interesting().zip(&mut found) {
            match watched.end {
                End::Device => ready.device.add(found.revents()),
                End::Socket => ready.socket.add(found.revents()),
            }
        }
        readable = own.map(|fd| fd.is_some() && found.next().is_some_and(|found| found.any() != Some(false)));
        Ok((ready, readable))
    }
}

impl Watched {
    /// Wanting nothing is being absent, and this is not called then: poll(2) reports errors on every descriptor that it
    /// is given, and they would wake a loop that cannot act on them again and again.
    fn poll_fd(&self) -> PollFd<'_> {
        // SAFETY: whoever called `add` keeps the descriptor open until `remove`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        PollFd::new(fd, self.interest.flags())
    }
}

/// Descriptors of a tunnel: one device, and a socket for each address family.
const SLOTS: usize = 3;

#[cfg(test)]
mod tests;

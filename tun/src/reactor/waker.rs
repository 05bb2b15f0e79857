//! Waking a loop that sleeps in poll(2), from any thread.
//!
//! One word says whether the loop is awake, asleep, or to look around. Only the wake-up that finds it asleep costs a
//! system call; all others change the word, and the loop does not fall asleep before it has read it. The descriptor
//! ends the sleep and says nothing else: a signal that comes late costs one look for nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(any(target_os = "linux", target_os = "android"))]
use event::Signal;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use pipe::Signal;

/// Wakes a pump from any thread. Many wake-ups before the pump has noticed are one.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    signal: Signal,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared { state: AtomicU8::new(AWAKE), signal: Signal::new()? })))
    }

    /// Makes the pump look at its commands, its device and its socket.
    pub fn wake(&self) {
        // Swapped even if the word says so already: what the loop reads next then comes after all that this thread did.
        if self.0.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP
            && let Err(error) = self.0.signal.raise()
        {
            tracing::warn!(%error, "the packet loop could not be woken");
        }
    }

    /// Whether both wake the same pump.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Takes the wake-ups that came since the last call, and says whether there were any.
    pub(super) fn take(&self) -> bool {
        // Loading first keeps the cache line shared while there is nothing.
        self.0.state.load(Ordering::Acquire) == WOKEN && self.0.state.swap(AWAKE, Ordering::AcqRel) == WOKEN
    }

    /// From now on a wake-up makes the descriptor readable. Says `false`, and changes nothing, if one came already.
    pub(super) fn fall_asleep(&self) -> bool {
        self.0.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Ends the sleep; `signalled` tells that the descriptor was readable. Takes the wake-ups that came meanwhile and
    /// says whether there were any.
    pub(super) fn rise(&self, signalled: bool) -> bool {
        let woken = self.0.state.swap(AWAKE, Ordering::AcqRel) == WOKEN;
        if signalled {
            // Nobody signals to a loop that is awake, so only signals of wake-ups that the word has told are lost.
            self.0.signal.drain();
        }
        woken
    }
}

impl AsFd for Waker {
    /// What to wait for while asleep.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.signal.as_fd()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod event {
    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;

    /// One descriptor, one counter.
    #[derive(Debug)]
    pub(super) struct Signal(EventFd);

    impl Signal {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
        }

        pub(super) fn raise(&self) -> io::Result<()> {
            self.0.write(1)?;
            Ok(())
        }

        pub(super) fn drain(&self) {
            // It fails only if there is nothing to take, which is what is wanted.
            let _count = self.0.read();
        }
    }

    impl AsFd for Signal {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
mod pipe {
    use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    /// What every Unix has.
    #[derive(Debug)]
    pub(super) struct Signal {
        reader: PipeReader,
        writer: PipeWriter,
    }

    impl Signal {
        pub(super) fn new() -> io::Result<Self> {
            let (reader, writer) = io::pipe()?;
            for end in [reader.as_fd(), writer.as_fd()] {
                fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            }
            Ok(Self { reader, writer })
        }

        pub(super) fn raise(&self) -> io::Result<()> {
            match (&self.writer).write_all(&[1]) {
                // A full pipe is readable, and that is all it is for.
                Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            }
        }

        pub(super) fn drain(&self) {
            // It fails only if there is nothing to take, and what is left over is taken the next time.
            let _count = (&self.reader).read(&mut [0; 64]);
        }
    }

    impl AsFd for Signal {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.reader.as_fd()
        }
    }
}

/// The loop runs and will take wake-ups before it sleeps.
const AWAKE: u8 = 0;

/// The loop sleeps, or is about to, and watches the descriptor.
const ASLEEP: u8 = 1;

/// Somebody called since the loop looked.
const WOKEN: u8 = 2;

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn readable(fd: &impl AsFd) -> bool {
        poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn only_a_sleeping_loop_is_signalled_to() {
        let waker = Waker::new().unwrap();
        waker.wake();
        waker.wake();
        assert!(!readable(&waker));
        assert!(!waker.fall_asleep(), "there is a wake-up to take first");
        assert!(waker.take() && !waker.take());

        assert!(waker.fall_asleep());
        waker.wake();
        waker.wake();
        assert!(readable(&waker));
        assert!(waker.rise(true));
        assert!(!readable(&waker) && !waker.take());
    }

    #[test]
    fn a_signal_that_comes_late_is_not_a_second_wake_up() {
        let waker = Waker::new().unwrap();
        assert!(waker.fall_asleep());
        waker.wake();
        // Something else ended the sleep before the signal came.
        assert!(waker.rise(false));
        assert!(waker.fall_asleep() && readable(&waker));
        assert!(!waker.rise(true));
        assert!(!readable(&waker));
    }

    #[test]
    fn a_pipe_is_a_signal_and_never_blocks() {
        let signal = pipe::Signal::new().unwrap();
        signal.drain();
        assert!(!readable(&signal));
        // More than any pipe holds.
        for _ in 0..200_000 {
            signal.raise().unwrap();
        }
        assert!(readable(&signal));
        while readable(&signal) {
            signal.drain();
        }
        signal.raise().unwrap();
        signal.drain();
        assert!(!readable(&signal));
    }
}

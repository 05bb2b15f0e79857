//! Waiting with real descriptors, timers, signals and threads.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};

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
    reactor.watch(End::Device, READ);
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
    assert_eq!(reactor.wait(None, clock.now()).unwrap(), Ready::ALL);
    assert_eq!(reactor.wakeups(), 0, "there was no reason to sleep");
    assert_eq!(reactor.poll().unwrap(), Ready::default());

    let thread = thread::spawn(move || waker.wake());
    let (deadline, now) = soon(clock, 10_000);
    assert_eq!(reactor.wait(deadline, now).unwrap(), Ready::ALL);
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

    reactor.watch(End::Socket, READ);
    assert_eq!(reactor.poll().unwrap(), Ready { socket: READ, ..Ready::default() });
    assert_eq!(reactor.poll().unwrap().socket, READ, "level mode: it says so until it was read");

    reactor.watch(End::Socket, Readiness { readable: false, writable: true });
    assert_eq!(reactor.poll().unwrap().socket, Readiness { readable: false, writable: true });

    reactor.watch(End::Device, READ);
    reactor.watch(End::Device, Readiness::default());
    reactor.remove(End::Socket);
    let (deadline, now) = soon(clock, 5);
    assert_eq!(reactor.wait(deadline, now).unwrap(), Ready::default());
}

#[test]
fn an_idle_reactor_sleeps_until_its_deadline() {
    let (mut reactor, clock) = reactor();
    let (a, _b) = UnixDatagram::pair().unwrap();
    let (c, _d) = UnixDatagram::pair().unwrap();
    reactor.add(End::Device, [a.as_fd()]).unwrap();
    reactor.add(End::Socket, [c.as_fd()]).unwrap();
    reactor.watch(End::Device, READ);
    reactor.watch(End::Socket, READ);
    for wakeups in 1..=3 {
        let (deadline, now) = soon(clock, 60);
        assert_eq!(reactor.wait(deadline, now).unwrap(), Ready::default());
        assert!(clock.now() >= deadline.unwrap());
        assert_eq!(reactor.wakeups(), wakeups);
    }
    let now = clock.now();
    assert_eq!(reactor.wait(Some(now), now).unwrap(), Ready::default());
    assert_eq!(reactor.wakeups(), 3, "nobody sleeps for a deadline that is over");
}

/// Deadlines of a busy tunnel only move away, as every packet puts them off.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn waits_whose_deadline_moves_away_leave_the_timer_alone() {
    let (mut reactor, clock) = reactor();
    let (a, b) = UnixDatagram::pair().unwrap();
    reactor.add(End::Device, [a.as_fd()]).unwrap();
    reactor.watch(End::Device, READ);
    let mut packet = |deadline, now| {
        b.send(b"x").unwrap();
        assert!(reactor.wait(deadline, now).unwrap().device.readable);
        a.recv(&mut [0; 8]).unwrap();
        reactor.alarm.settings
    };
    for _ in 0..1000 {
        let (deadline, now) = soon(clock, 60_000);
        assert_eq!(packet(deadline, now), 1);
    }
    assert_eq!(packet(None, clock.now()), 1);
    let (sooner, now) = soon(clock, 30_000);
    assert_eq!(packet(sooner, now), 2, "an earlier deadline needs the timer");
    let (later, now) = soon(clock, 60_000);
    assert_eq!(packet(later, now), 2);
    let now = sooner.unwrap();
    assert_eq!(packet(Some(now + Duration::from_secs(60)), now), 3, "it went off unseen");
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn an_alarm_that_went_off_does_so_once() {
    let (mut reactor, clock) = reactor();
    let (early, now) = soon(clock, 20);
    reactor.alarm.set(early.unwrap(), now).unwrap();
    let (deadline, now) = soon(clock, 80);
    // Once for the early alarm, and once for the deadline, even if the caller has not looked at the clock in between.
    assert_eq!(reactor.wait(deadline, now).unwrap(), Ready::default());
    assert_eq!(reactor.wait(deadline, now).unwrap(), Ready::default());
    assert!(clock.now() >= deadline.unwrap());
    assert_eq!((reactor.wakeups(), reactor.alarm.settings), (2, 2));

    // What is left of it does not end a wait that has no deadline.
    let waker = reactor.waker();
    let now = clock.now();
    let thread = thread::spawn(move || {
        while clock.now() < now + Duration::from_millis(20) {
            thread::yield_now();
        }
        waker.wake();
    });
    assert_eq!(reactor.wait(None, now).unwrap(), Ready::ALL);
    assert!(clock.now() >= now + Duration::from_millis(20));
    thread.join().unwrap();
}

/// Waits until `count` has come to `wanted`; every change of it is followed by a wake-up.
fn wait_for(reactor: &mut Reactor, clock: Clock, count: &AtomicU32, wanted: u32) {
    let (deadline, _) = soon(clock, 20_000);
    while count.load(Ordering::Relaxed) < wanted {
        let now = clock.now();
        assert!(now < deadline.unwrap(), "a wake-up was lost at {count:?} of {wanted}");
        reactor.wait(deadline, now).unwrap();
    }
}

#[test]
fn no_wake_up_is_lost_whatever_the_loop_is_doing() {
    const ROUNDS: u32 = 5000;
    let (mut reactor, clock) = reactor();
    // In turns: the loop always falls asleep as the other thread wakes it.
    let count = Arc::new(AtomicU32::new(0));
    let (go, gone) = crossbeam_channel::bounded(1);
    let thread = thread::spawn({
        let (waker, count) = (reactor.waker(), Arc::clone(&count));
        move || {
            for () in gone {
                count.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            }
        }
    });
    for round in 1..=ROUNDS {
        go.send(()).unwrap();
        wait_for(&mut reactor, clock, &count, round);
    }
    drop(go);
    thread.join().unwrap();

    // All at once: wake-ups also come while the loop is awake, and to one that others have woken.
    let count = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (waker, count) = (reactor.waker(), Arc::clone(&count));
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    count.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                }
            })
        })
        .collect();
    wait_for(&mut reactor, clock, &count, 3 * ROUNDS);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_hang_up_wakes_only_those_who_can_act_on_it() {
    let (mut reactor, clock) = reactor();
    let (a, b) = UnixStream::pair().unwrap();
    reactor.add(End::Device, [a.as_fd()]).unwrap();
    drop(b);
    let (deadline, now) = soon(clock, 60);
    assert_eq!(reactor.wait(deadline, now).unwrap(), Ready::default());
    assert!(clock.now() >= deadline.unwrap());
    assert_eq!(reactor.wakeups(), 1);

    reactor.watch(End::Device, READ);
    let hung_up = Ready { device: Readiness::ALL, ..Ready::default() };
    assert_eq!(reactor.wait(None, clock.now()).unwrap(), hung_up);
    reactor.watch(End::Device, Readiness::default());
    assert_eq!(reactor.poll().unwrap(), Ready::default());
}

#[test]
fn a_descriptor_that_is_closed_is_left_to_its_owner() {
    let (mut reactor, clock) = reactor();
    let (a, _b) = UnixDatagram::pair().unwrap();
    // A number that no other test gets in between.
    let number = fcntl(&a, FcntlArg::F_DUPFD_CLOEXEC(200)).unwrap();
    // SAFETY: the descriptor was made just now, and nobody else knows it.
    let closed = unsafe { OwnedFd::from_raw_fd(number) };
    reactor.add(End::Socket, [closed.as_fd()]).unwrap();
    drop(closed);
    assert_eq!(reactor.poll().unwrap(), Ready::default());
    reactor.watch(End::Socket, READ);
    let all = Ready { socket: Readiness::ALL, ..Ready::default() };
    assert_eq!(reactor.wait(None, clock.now()).unwrap(), all);
    reactor.remove(End::Socket);
    assert_eq!(reactor.poll().unwrap(), Ready::default());
}

#[test]
fn both_sockets_are_the_same_end() {
    let (mut reactor, clock) = reactor();
    let pairs = [UnixDatagram::pair().unwrap(), UnixDatagram::pair().unwrap()];
    reactor.add(End::Socket, pairs.iter().map(|(socket, _)| socket.as_fd())).unwrap();
    reactor.watch(End::Socket, READ);
    for (socket, other) in &pairs {
        assert_eq!(reactor.poll().unwrap(), Ready::default());
        other.send(b"x").unwrap();
        assert_eq!(reactor.wait(None, clock.now()).unwrap(), Ready { socket: READ, ..Ready::default() });
        socket.recv(&mut [0; 8]).unwrap();
    }
    let (a, b) = &pairs[0];
    reactor.add(End::Device, [a.as_fd()]).unwrap();
    assert!(reactor.add(End::Device, [b.as_fd()]).is_err(), "a tunnel has three descriptors");
}

#[test]
fn a_signal_ends_a_wait_but_is_no_error() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    extern "C" fn ignore(_: i32) {}
    let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, which is safe at any moment, and no other test uses this signal.
    unsafe { sigaction(Signal::SIGUSR1, &action).unwrap() };
    let (mut reactor, clock) = reactor();
    let returned = Arc::new(AtomicU32::new(0));
    // SAFETY: it has no conditions.
    let waiting = unsafe { libc::pthread_self() };
    let thread = thread::spawn({
        let returned = Arc::clone(&returned);
        move || {
            // Again and again, as the first may come before the wait has begun.
            while returned.load(Ordering::Relaxed) == 0 {
                // SAFETY: the thread that waits joins this one before it ends.
                assert_eq!(unsafe { libc::pthread_kill(waiting, libc::SIGUSR1) }, 0);
                thread::yield_now();
            }
        }
    });
    let (deadline, now) = soon(clock, 20_000);
    let ready = reactor.wait(deadline, now);
    returned.store(1, Ordering::Relaxed);
    thread.join().unwrap();
    assert_eq!(ready.unwrap(), Ready::default());
    assert!(clock.now() < deadline.unwrap());
}

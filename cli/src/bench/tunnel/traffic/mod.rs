//! The traffic that is measured: ordinary kernel sockets, and threads that do as little beside their system calls as
//! can be, since the engines share the processors with them.

#[cfg(target_os = "linux")]
pub(super) mod latency;
mod round_trips;
#[cfg(target_os = "linux")]
pub(super) mod tcp;
#[cfg(target_os = "linux")]
pub(super) mod udp;
#[cfg(target_os = "linux")]
mod workers;

use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Outcome;
use crate::watch::{SLICE, Watch};
pub(super) use round_trips::RoundTrips;
#[cfg(target_os = "linux")]
use workers::{Shared, Workers};

/// Lets time pass.
pub(super) fn pause(watch: &Watch, time: Duration) -> Outcome {
    let end = Instant::now() + time;
    loop {
        watch.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::park_timeout(left.min(SLICE));
    }
}

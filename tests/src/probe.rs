//! A steady flow of numbered datagrams that are sent back: it tells whether a single packet was lost, and for how long
//! nothing came through.
//!
//! ping(8) counts the packet that was on its way when it was stopped as lost; this waits for it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::netns::Namespace;
use crate::wait::eventually;

/// A running flow; it ends when it is dropped.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    /// The one that asks, and the one that answers.
    threads: Vec<JoinHandle<()>>,
    target: SocketAddr,
}

impl Probe {
    /// Sends a datagram every `interval` from `from` to an echo server that is bound to `target` in `to`.
    ///
    /// The addresses must exist; they may vanish and return while the flow runs.
    ///
    /// # Errors
    /// If the sockets cannot be made.
    pub fn start(from: &Namespace, to: &Namespace, target: IpAddr, interval: Duration) -> Result<Self> {
        let server = to.enter(|| UdpSocket::bind((target, 0)))?.with_context(|| format!("echo server on {target}"))?;
        let wildcard = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = from.enter(|| UdpSocket::bind(wildcard))??;
        let target = server.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (asks, answers) = (Arc::clone(&shared), Arc::clone(&shared));
        server.set_read_timeout(Some(TICK))?;
        let threads = vec![
            std::thread::spawn(move || asks.ask(&client, target, interval)),
            std::thread::spawn(move || answers.answer(&server)),
        ];
        Ok(Self { shared, threads, target })
    }

    /// Waits until a datagram that is sent from now on is answered; returns how long that took.
    ///
    /// # Errors
    /// If none is within `timeout`.
    pub fn resumes(&self, timeout: Duration) -> Result<Duration> {
        let begun = Instant::now();
        let next = self.shared.counts().sent;
        let what = format!("a datagram to {} to be answered", self.target);
        eventually(&what, timeout, || self.shared.counts().newest.is_some_and(|newest| newest >= next))?;
        Ok(begun.elapsed())
    }

    /// Waits until `count` datagrams more are answered.
    ///
    /// # Errors
    /// If they are not within `timeout`.
    pub fn answers(&self, count: u64, timeout: Duration) -> Result<()> {
        let wanted = self.shared.counts().answered + count;
        let what = format!("{count} datagrams to {} to be answered", self.target);
        eventually(&what, timeout, || self.shared.counts().answered >= wanted)
    }

    /// Fails if a datagram that is sent within the next `time` is answered.
    ///
    /// # Errors
    /// If one is.
    pub fn stays_silent(&self, time: Duration) -> Result<()> {
        ensure!(self.resumes(time).is_err(), "datagrams to {} are answered", self.target);
        Ok(())
    }

    /// Ends the flow after the answers to all that was sent, or a second without them.
    ///
    /// # Errors
    /// If a thread has panicked.
    pub fn finish(mut self) -> Result<Probed> {
        self.shared.sent_enough.store(true, Ordering::Relaxed);
        // If some are missing, they are lost, and counted below.
        let _lost = eventually("the last answers", Duration::from_secs(1), || {
            let counts = self.shared.counts();
            counts.answered >= counts.sent
        });
        self.end().map_err(|()| anyhow!("a thread of the flow to {} panicked", self.target))?;
        let counts = *self.shared.counts();
        let lost = counts.sent.saturating_sub(counts.answered);
        Ok(Probed { sent: counts.sent, lost, longest_gap: counts.longest_gap })
    }

    fn end(&mut self) -> std::result::Result<(), ()> {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.threads.drain(..).try_for_each(|thread| thread.join().map_err(drop))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _panicked = self.end();
    }
}

/// What a [`Probe`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that were never answered.
    pub lost: u64,
    /// The longest time between two answers.
    pub longest_gap: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<Counts>,
    sent_enough: AtomicBool,
    ended: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    sent: u64,
    answered: u64,
    newest: Option<u64>,
    last_answer: Option<Instant>,
    longest_gap: Duration,
}

impl Shared {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, socket: &UdpSocket, target: SocketAddr, interval: Duration) {
        let mut next = Instant::now();
        let mut buffer = [0; 16];
        while !self.ended.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= next && !self.sent_enough.load(Ordering::Relaxed) {
                let number = {
                    let mut counts = self.counts();
                    counts.sent += 1;
                    counts.sent - 1
                };
                // Without an address or a route the datagram is lost, which is what is counted.
                let _lost = socket.send_to(&number.to_be_bytes(), target);
                // A machine that stood still does not make up for it in a burst.
                next = now + interval;
            }
            let wait = next.saturating_duration_since(Instant::now()).clamp(Duration::from_micros(100), TICK);
            if socket.set_read_timeout(Some(wait)).is_err() {
                return;
            }
            if let Ok((8, from)) = socket.recv_from(&mut buffer)
                && from == target
                && let Some(number) = buffer.first_chunk().copied().map(u64::from_be_bytes)
            {
                self.counts().answered(number);
            }
        }
    }

    fn answer(&self, socket: &UdpSocket) {
        let mut buffer = [0; 16];
        while !self.ended.load(Ordering::Relaxed) {
            // A timeout, or an answer that finds no way: the other end counts.
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _lost = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
            }
        }
    }
}

impl Counts {
    fn answered(&mut self, number: u64) {
        let now = Instant::now();
        self.answered += 1;
        self.newest = self.newest.max(Some(number));
        if let Some(last) = self.last_answer.replace(now) {
            self.longest_gap = self.longest_gap.max(now - last);
        }
    }
}

/// How often the threads look whether they are to end.
const TICK: Duration = Duration::from_millis(50);

//! A bad way between two namespaces: a relay that loses, repeats and delays datagrams, as its seed says.
//!
//! It has a socket in either namespace, bound to the loopback address, so that the only way between two ends that know
//! nothing but these is through it. The kernels that tests run on need not have netem.

use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::netns::Namespace;

/// A running relay; it ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    at_a: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// How bad the way is, in each direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quality {
    /// Datagrams of a thousand that vanish.
    pub lost: u32,
    /// Datagrams of a thousand that arrive twice.
    pub repeated: u32,
    /// Datagrams of a thousand that are held back for [`Quality::delay`], so that later ones overtake them.
    pub delayed: u32,
    /// How long such datagrams are held back.
    pub delay: Duration,
    /// What decides which datagrams these are.
    pub seed: u64,
}

/// What a [`Relay`] has done, in both directions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Datagrams that came in.
    pub seen: u64,
    /// Datagrams that were lost.
    pub lost: u64,
    /// Datagrams that were repeated.
    pub repeated: u64,
    /// Datagrams that were held back.
    pub delayed: u64,
}

impl Relay {
    /// Starts a relay between `a` and port `port` of the loopback address in `b`.
    ///
    /// # Errors
    /// If its sockets cannot be made.
    pub fn start(a: &Namespace, b: &Namespace, port: u16, quality: Quality) -> Result<Self> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (near, far) = (a.enter(bind)??, b.enter(bind)??);
        let at_a = near.local_addr()?;
        far.connect((Ipv4Addr::LOCALHOST, port))?;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(TICK))?;
        }
        let shared = Arc::new(Shared::default());
        let (near_copy, far_copy) = (near.try_clone()?, far.try_clone()?);
        let (to_b, to_a) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || to_b.carry(&near, quality, Some(&near), |datagram| far_copy.send(datagram))),
            std::thread::spawn(move || {
                let quality = Quality { seed: !quality.seed, ..quality };
                to_a.carry(&far, quality, None, |datagram| near_copy.send(datagram));
            }),
        ];
        Ok(Self { at_a, shared, threads })
    }

    /// Where the end in `a` finds it.
    pub fn at_a(&self) -> SocketAddr {
        self.at_a
    }

    /// What it has done until now.
    pub fn done(&self) -> Relayed {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Relayed {
            seen: get(&self.shared.seen),
            lost: get(&self.shared.lost),
            repeated: get(&self.shared.repeated),
            delayed: get(&self.shared.delayed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    seen: AtomicU64,
    lost: AtomicU64,
    repeated: AtomicU64,
    delayed: AtomicU64,
}

impl Shared {
    /// Carries one direction. `answer_to` is connected to whoever sends first, so that the other direction reaches it.
    fn carry(
        &self,
        from: &UdpSocket,
        quality: Quality,
        mut answer_to: Option<&UdpSocket>,
        send: impl Fn(&[u8]) -> std::io::Result<usize>,
    ) {
        let mut dice = Dice(quality.seed);
        let mut held = BinaryHeap::new();
        let mut buffer = vec![0; 65536];
        while !self.ended.load(Ordering::Relaxed) {
            let now = Instant::now();
            while held.peek().is_some_and(|Held(due, _)| *due <= now) {
                if let Some(Held(_, datagram)) = held.pop() {
                    self.forward(&send, &datagram);
                }
            }
            // A timeout, or that nobody listens at the other end yet: both are as good as no datagram.
            let Ok((length, sender)) = from.recv_from(&mut buffer) else { continue };
            if let Some(socket) = answer_to.take() {
                let _unreachable = socket.connect(sender);
            }
            let datagram = buffer.get(..length).unwrap_or_default();
            self.seen.fetch_add(1, Ordering::Relaxed);
            if dice.hits(quality.lost) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if dice.hits(quality.repeated) {
                self.repeated.fetch_add(1, Ordering::Relaxed);
                self.forward(&send, datagram);
            }
            if dice.hits(quality.delayed) && held.len() < MOST_HELD {
                self.delayed.fetch_add(1, Ordering::Relaxed);
                held.push(Held(Instant::now() + quality.delay, datagram.to_owned()));
            } else {
                self.forward(&send, datagram);
            }
        }
    }

    fn forward(&self, send: impl Fn(&[u8]) -> std::io::Result<usize>, datagram: &[u8]) {
        if send(datagram).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A datagram that is due later; the earliest is the greatest, for a heap gives the greatest first.
#[derive(Debug, PartialEq, Eq)]
struct Held(Instant, Vec<u8>);

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.cmp(&self.0)
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// Whether an event of `per_mille` happens.
    fn hits(&mut self, per_mille: u32) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 1000 < u64::from(per_mille)
    }
}

/// How long held datagrams may be late, and how often the threads look whether they are to end.
const TICK: Duration = Duration::from_millis(1);

/// Datagrams that are held back at most in each direction.
const MOST_HELD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_hit_as_often_as_they_are_told_and_the_same_for_the_same_seed() {
        let rolls = |seed, odds| {
            let mut dice = Dice(seed);
            (0..10_000).map(|_| dice.hits(odds)).collect::<Vec<_>>()
        };
        assert_eq!(rolls(1, 10), rolls(1, 10));
        assert_ne!(rolls(1, 10), rolls(2, 10));
        let hits = rolls(1, 10).into_iter().filter(|hit| *hit).count();
        assert!((60..160).contains(&hits), "{hits} of 10000 at 10 in a thousand");
        assert!(!rolls(1, 0).contains(&true) && !rolls(1, 1000).contains(&false));
    }

    #[test]
    fn what_is_due_first_comes_first() {
        let now = Instant::now();
        let mut held = BinaryHeap::new();
        for millis in [30, 10, 20] {
            held.push(Held(now + Duration::from_millis(millis), vec![u8::try_from(millis).unwrap()]));
        }
        let order: Vec<u8> = std::iter::from_fn(|| held.pop()).flat_map(|Held(_, datagram)| datagram).collect();
        assert_eq!(order, [10, 20, 30]);
    }
}

//! More than anything can carry: datagrams as fast as the kernel takes them, to a socket that nobody reads.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};

use crate::netns::Namespace;

/// Running senders; they end when this is dropped.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<()>>,
    /// Bound, so that no ICMP message stops the senders, and never read.
    _sink: UdpSocket,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    sent: AtomicU64,
}

impl Flood {
    /// Starts `senders` sockets in `from` that send datagrams of `size` bytes to `target` in `to`.
    ///
    /// # Errors
    /// If the sockets cannot be made.
    pub fn start(from: &Namespace, to: &Namespace, target: IpAddr, senders: usize, size: usize) -> Result<Self> {
        let sink = to.enter(|| UdpSocket::bind((target, 0)))?.with_context(|| format!("socket on {target}"))?;
        let target = sink.local_addr()?;
        let mut flood = Self { shared: Arc::default(), senders: Vec::new(), _sink: sink };
        for number in 0..senders {
            let wildcard = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = from.enter(|| UdpSocket::bind(wildcard))??;
            socket.connect(target)?;
            let (shared, payload) = (Arc::clone(&flood.shared), vec![u8::try_from(number).unwrap_or(0); size]);
            flood.senders.push(std::thread::spawn(move || {
                while !shared.ended.load(Ordering::Relaxed) {
                    // A queue that is full is what this is about.
                    if socket.send(&payload).is_ok() {
                        shared.sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        Ok(flood)
    }

    /// Datagrams that the kernel has taken.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Sends no more; returns [`Flood::sent`].
    pub fn finish(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            let _panicked = sender.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

//! UDP datagrams that are numbered and checked: each arrives once, with its bytes and of its size.
//!
//! The sender hands over many at a time (UDP_SEGMENT) or one by one, and the receiver takes many at a time (UDP_GRO) or
//! one by one. No more are on the way than any queue holds, so none may be lost.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

use crate::netns::Namespace;
use crate::pattern::Pattern;

/// What is sent, and how.
#[derive(Debug, Clone, Copy)]
pub struct Datagrams {
    /// Bytes of a datagram; at least eight, for its number.
    pub size: usize,
    /// Datagrams that are handed to the kernel in one call; 1 is what most programs do.
    pub batch: usize,
    /// Bytes of the last datagram of each batch, which may be shorter than the others.
    pub last: usize,
    /// How many are sent.
    pub count: u64,
    /// Whether the receiver takes as many in one call as the kernel has in one piece.
    pub receive_joined: bool,
}

/// What the receiver saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Datagrams; as many as were sent, or it is an error.
    pub count: u64,
    /// Most datagrams that came in one call.
    pub longest_run: usize,
}

impl Datagrams {
    /// Sends from `from` to `target` in `to`.
    ///
    /// # Errors
    /// If one does not arrive, arrives twice, or is another one than was sent.
    pub fn send(&self, from: &Namespace, to: &Namespace, target: IpAddr) -> Result<Arrived> {
        ensure!(self.size >= NUMBER && (NUMBER..=self.size).contains(&self.last) && self.batch > 0, "{self:?}");
        let receiver = to.enter(|| UdpSocket::bind((target, 0)))??;
        let sender = from.enter(|| UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }))??;
        if self.batch > 1 {
            setsockopt(&sender, sockopt::UdpGsoSegment, &i32::try_from(self.size)?).context("UDP_SEGMENT")?;
        }
        if self.receive_joined {
            setsockopt(&receiver, sockopt::UdpGroSegment, &true).context("UDP_GRO")?;
        }
        setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("SO_RCVBUFFORCE")?;
        receiver.set_read_timeout(Some(TICK))?;
        let target = receiver.local_addr()?;
        let shared = Shared::default();
        let pattern = Pattern::new(3);
        std::thread::scope(|scope| {
            let receives = scope.spawn(|| {
                let result = self.receive(&receiver, &pattern, &shared);
                // The sender would wait for a receiver that is gone.
                shared.ended.store(true, Ordering::Relaxed);
                shared.news.notify_all();
                result
            });
            let sent = self.transmit(&sender, target, &pattern, &shared);
            shared.ended.store(true, Ordering::Relaxed);
            let arrived = receives.join().map_err(|_| anyhow!("the receiver panicked"))?;
            // A wrong datagram says more than the one that did not come because of it.
            let arrived = arrived?;
            sent.map(|()| arrived)
        })
        .with_context(|| format!("{self:?} to {target}"))
    }

    fn transmit(&self, socket: &UdpSocket, target: SocketAddr, pattern: &Pattern, shared: &Shared) -> Result<()> {
        let mut buffer = Vec::new();
        let window = (WINDOW / self.size as u64).clamp(1, MOST_ON_THE_WAY).max(self.batch as u64);
        let mut sent = 0;
        while sent < self.count {
            buffer.clear();
            let batch = (self.count - sent).min(self.batch as u64);
            shared.wait_for((sent + batch).saturating_sub(window))?;
            for number in sent..sent + batch {
                buffer.extend_from_slice(&number.to_be_bytes());
                buffer.extend_from_slice(pattern.at(number, self.size_of(number) - NUMBER));
            }
            socket.send_to(&buffer, target).with_context(|| format!("datagram {sent}"))?;
            sent += batch;
        }
        shared.wait_for(sent)
    }

    fn receive(&self, socket: &UdpSocket, pattern: &Pattern, shared: &Shared) -> Result<Arrived> {
        let mut seen = vec![false; usize::try_from(self.count)?];
        let mut arrived = Arrived { count: 0, longest_run: 0 };
        let mut buffer = vec![0; 65_535];
        let mut room = nix::cmsg_space!(i32);
        while arrived.count < self.count && !shared.ended.load(Ordering::Relaxed) {
            let (length, segment) = {
                let mut slices = [IoSliceMut::new(&mut buffer)];
                match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut room), MsgFlags::empty()) {
                    Err(Errno::EAGAIN | Errno::EINTR) => continue,
                    Err(error) => return Err(error).context("recvmsg"),
                    Ok(message) => {
                        let segments = message.cmsgs()?.find_map(|message| match message {
                            ControlMessageOwned::UdpGroSegments(size) => Some(size),
                            _ => None,
                        });
                        (message.bytes, segments.map_or(message.bytes, |size| usize::try_from(size).unwrap_or(0)))
                    }
                }
            };
            ensure!(segment > 0, "a run of {length} bytes in datagrams of none");
            let run = buffer.get(..length).unwrap_or_default().chunks(segment);
            arrived.longest_run = arrived.longest_run.max(run.len());
            for datagram in run {
                let (number, payload) = datagram.split_first_chunk().context("a datagram without a number")?;
                let number = u64::from_be_bytes(*number);
                let seen = usize::try_from(number).ok().and_then(|index| seen.get_mut(index));
                let seen = seen.with_context(|| format!("datagram {number} was never sent"))?;
                ensure!(!std::mem::replace(seen, true), "datagram {number} arrived twice");
                let size = self.size_of(number);
                ensure!(datagram.len() == size, "datagram {number} has {} bytes, not {size}", datagram.len());
                pattern.check(number, payload).with_context(|| format!("datagram {number}"))?;
                arrived.count += 1;
            }
            *shared.arrived() = arrived.count;
            shared.news.notify_all();
        }
        Ok(arrived)
    }

    fn size_of(&self, number: u64) -> usize {
        if (number + 1).is_multiple_of(self.batch as u64) { self.last } else { self.size }
    }
}

#[derive(Debug, Default)]
struct Shared {
    arrived: Mutex<u64>,
    news: Condvar,
    ended: AtomicBool,
}

impl Shared {
    fn arrived(&self) -> MutexGuard<'_, u64> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, wanted: u64) -> Result<()> {
        let missing = |arrived: &mut u64| *arrived < wanted && !self.ended.load(Ordering::Relaxed);
        let waited = self.news.wait_timeout_while(self.arrived(), PATIENCE, missing);
        let (arrived, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(*arrived >= wanted, "{} datagrams arrived of {wanted} at least", *arrived);
        Ok(())
    }
}

/// Bytes of the number at the front of each datagram.
const NUMBER: usize = 8;

/// Bytes of payload that are on the way at most, unless a batch has more: the underlay's sockets are those of the
/// programs under test, which may have no more than the default receive buffer (net.core.rmem_default, 208 KiB), and the
/// kernel's overhead is as much as the payload.
const WINDOW: u64 = 48 * 1024;

/// Datagrams that are on the way at most, for however small it is, each takes a slot in the queue of a tun device.
const MOST_ON_THE_WAY: u64 = 64;

/// Bytes of the receiver's buffer, so that none is lost there while the receiver waits for a processor.
const RECEIVE_BUFFER: usize = 1 << 20;

/// How often the receiver looks whether it is to end.
const TICK: Duration = Duration::from_millis(50);

/// How long a datagram may be on the way.
const PATIENCE: Duration = Duration::from_secs(3);

//! Small UDP packets at a steady rate, or as many as can be sent, and those of them that arrive.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt};
use socket2::SockRef;

use super::{Shared, Workers};
use crate::bench::tunnel::hosts::{Host, Hosts};
use crate::failure::{Failure, Kind, Outcome};
use crate::watch::{SLICE, Watch};

/// Packets on their way from host A to host B until this is dropped.
#[derive(Debug)]
pub(in crate::bench::tunnel) struct Flood {
    counters: Arc<Counters>,
    workers: Workers,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    /// One more than the highest sequence number that has arrived.
    highest: AtomicU64,
}

/// How far a flood is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench::tunnel) struct Progress {
    sent: u64,
    received: u64,
    highest: u64,
}

impl Progress {
    /// Packets that were sent since.
    pub(in crate::bench::tunnel) fn sent_since(&self, before: &Self) -> u64 {
        self.sent.saturating_sub(before.sent)
    }

    /// Packets that have arrived since.
    pub(in crate::bench::tunnel) fn received_since(&self, before: &Self) -> u64 {
        self.received.saturating_sub(before.received)
    }

    /// How much of a hundred packets was lost since. It compares packets that arrived with gaps between them, so what
    /// is still queued on the way counts neither way; if nothing arrives, everything was lost.
    pub(in crate::bench::tunnel) fn loss_since(&self, before: &Self) -> f64 {
        let expected = self.highest.saturating_sub(before.highest);
        if expected == 0 {
            return 100.0;
        }
        (100.0 * (1.0 - self.received_since(before) as f64 / expected as f64)).max(0.0)
    }
}

impl Flood {
    /// Begins to send so many packets/s, or as many as it can.
    pub(in crate::bench::tunnel) fn start(
        watch: &Watch,
        hosts: &Hosts,
        to: IpAddr,
        rate: Option<u32>,
    ) -> Outcome<Self> {
        let receiver = hosts.on(Host::B).run(watch, "a UDP socket", move || {
            let socket = UdpSocket::bind((to, 0))?;
            socket.set_read_timeout(Some(SLICE))?;
            // The tunnel is measured, not how soon the receiver's thread gets a processor.
            if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
                SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
            }
            Ok(socket)
        })?;
        let port = receiver.local_addr()?.port();
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let sender = hosts.on(Host::A).run(watch, "a UDP socket", move || {
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_write_timeout(Some(SLICE))?;
            socket.connect((to, port))?;
            Ok(socket)
        })?;
        let counters = Arc::new(Counters::default());
        let mut flood = Self { counters: Arc::clone(&counters), workers: Workers::default() };
        let theirs = Arc::clone(&counters);
        flood.workers.start("udp-in", move |shared| receive(shared, &receiver, &theirs))?;
        flood.workers.start("udp-out", move |shared| send(shared, &sender, rate, &counters))?;
        Ok(flood)
    }

    pub(in crate::bench::tunnel) fn progress(&self) -> Progress {
        let Counters { sent, received, highest } = &*self.counters;
        let [sent, received, highest] = [sent, received, highest].map(|counter| counter.load(Ordering::Relaxed));
        Progress { sent, received, highest }
    }

    /// Fails if one of the ends has.
    pub(in crate::bench::tunnel) fn check(&self) -> Outcome {
        self.workers.check()
    }
}

fn send(shared: &Shared, socket: &UdpSocket, rate: Option<u32>, counters: &Counters) -> Outcome {
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut payloads = [[0; PAYLOAD]; BATCH];
    let nowhere = [None::<SockaddrStorage>; BATCH];
    let mut pacer = rate.map(|rate| Pacer::new(rate, Instant::now()));
    let mut sequence: u64 = 0;
    while shared.goes_on() {
        let count = match &mut pacer {
            None => BATCH,
            Some(pacer) => match pacer.due(Instant::now()) {
                0 => {
                    thread::park_timeout(PACE);
                    continue;
                }
                due => due.min(BATCH),
            },
        };
        for (payload, number) in payloads[..count].iter_mut().zip(sequence..) {
            payload[..8].copy_from_slice(&number.to_be_bytes());
        }
        let slices = payloads.each_ref().map(|payload| [IoSlice::new(payload)]);
        let result = sendmmsg(socket.as_raw_fd(), &mut headers, &slices[..count], nowhere, [], MsgFlags::empty());
        let sent = match result {
            Ok(sent) => sent.count(),
            // The device's queue is full.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => 0,
            Err(errno) => return Err(failed(errno)),
        };
        sequence += sent as u64;
        if let Some(pacer) = &mut pacer {
            pacer.sent(sent);
        }
        counters.sent.store(sequence, Ordering::Relaxed);
    }
    Ok(())
}

fn receive(shared: &Shared, socket: &UdpSocket, counters: &Counters) -> Outcome {
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut payloads = [[0; PAYLOAD]; BATCH];
    let (mut received, mut highest) = (0, 0);
    while shared.goes_on() {
        let mut slices = payloads.each_mut().map(|payload| [IoSliceMut::new(payload)]);
        // It waits for the first packet only, at most as long as the socket's time limit.
        let result = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
        let count = match result {
            Ok(packets) => packets.count(),
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(failed(errno)),
        };
        for payload in &payloads[..count] {
            if let Some(number) = payload.first_chunk() {
                highest = highest.max(u64::from_be_bytes(*number) + 1);
            }
        }
        received += count as u64;
        counters.received.store(received, Ordering::Relaxed);
        counters.highest.store(highest, Ordering::Relaxed);
    }
    Ok(())
}

fn failed(errno: Errno) -> Failure {
    Failure::new(Kind::Network, format!("UDP: {}", errno.desc()))
}

/// Says how many packets are due.
#[derive(Debug)]
struct Pacer {
    rate: u32,
    since: Instant,
    sent: u64,
}

impl Pacer {
    fn new(rate: u32, now: Instant) -> Self {
        Self { rate, since: now, sent: 0 }
    }

    /// Packets to be sent now. What could not be sent for longer than [`BACKLOG`] is given up: a burst would not be the
    /// rate that was asked for.
    fn due(&mut self, now: Instant) -> usize {
        let due = |time: Duration| (time.as_nanos() * u128::from(self.rate) / 1_000_000_000) as u64;
        let missing = due(now.saturating_duration_since(self.since)).saturating_sub(self.sent);
        if missing > due(BACKLOG) {
            (self.since, self.sent) = (now, 0);
            return 1;
        }
        missing as usize
    }

    fn sent(&mut self, packets: usize) {
        self.sent += packets as u64;
    }
}

/// Bytes of a packet's payload.
const PAYLOAD: usize = 64;

/// Packets of a system call.
const BATCH: usize = 64;

/// How long the sender sleeps when nothing is due: 4000 wake-ups a second cost little, and what is due after one at the
/// highest rate fits into a batch.
const PACE: Duration = Duration::from_micros(250);

/// What a sender that got no processor may make up for.
const BACKLOG: Duration = Duration::from_millis(20);

/// Bytes of packets, with what the kernel adds to each, that may wait for the receiver's thread: some 5000.
const RECEIVE_BUFFER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_due_at_the_rate() {
        let begun = Instant::now();
        let mut pacer = Pacer::new(10_000, begun);
        let mut sent = 0;
        for millisecond in 0..1000 {
            let due = pacer.due(begun + Duration::from_millis(millisecond));
            assert!(due <= 10, "{due}");
            pacer.sent(due);
            sent += due;
        }
        assert_eq!(sent, 9990);
    }

    #[test]
    fn a_long_sleep_is_not_made_up_for() {
        let begun = Instant::now();
        let mut pacer = Pacer::new(100_000, begun);
        assert_eq!(pacer.due(begun + BACKLOG), 2000);
        assert_eq!(pacer.due(begun + BACKLOG * 2), 1);
        pacer.sent(1);
        assert_eq!(pacer.due(begun + BACKLOG * 2 + Duration::from_millis(1)), 99);
    }

    #[test]
    fn losses_are_gaps() {
        let before = Progress { sent: 100, received: 50, highest: 100 };
        let after = |sent, received, highest| Progress { sent, received, highest };
        assert_eq!(after(300, 200, 250).loss_since(&before), 0.0);
        assert_eq!(after(300, 125, 200).loss_since(&before), 25.0);
        assert_eq!(after(300, 50, 100).loss_since(&before), 100.0);
        // Packets of before the measurement, late.
        assert_eq!(after(300, 250, 200).loss_since(&before), 0.0);
        assert_eq!((after(300, 125, 200).sent_since(&before), after(300, 125, 200).received_since(&before)), (200, 75));
    }
}

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

/// What the ends tell.
#[derive(Debug)]
struct Counters {
    /// Also the next sequence number.
    sent: AtomicU64,
    received: AtomicU64,
    /// Sequence numbers of the packets whose loss is asked for, and how many of them have arrived.
    from: AtomicU64,
    to: AtomicU64,
    kept: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let [sent, received, kept] = [const { AtomicU64::new(0) }; 3];
        Self { sent, received, from: AtomicU64::new(u64::MAX), to: AtomicU64::new(u64::MAX), kept }
    }
}

impl Counters {
    /// Takes packets that have arrived.
    fn arrived(&self, sequences: impl Iterator<Item = u64>) {
        let (from, to) = (self.from.load(Ordering::Relaxed), self.to.load(Ordering::Relaxed));
        let (mut received, mut kept) = (0, 0);
        for sequence in sequences {
            received += 1;
            kept += u64::from((from..to).contains(&sequence));
        }
        self.received.fetch_add(received, Ordering::Relaxed);
        self.kept.fetch_add(kept, Ordering::Relaxed);
    }
}

/// The begin of a measurement.
#[derive(Debug)]
pub(in crate::bench::tunnel) struct Begun {
    at: Instant,
    sent: u64,
    received: u64,
}

/// A measurement.
#[derive(Debug)]
pub(in crate::bench::tunnel) struct Sample {
    /// Packets/s that were sent.
    pub(in crate::bench::tunnel) offered: f64,
    /// Packets/s that arrived.
    pub(in crate::bench::tunnel) delivered: f64,
    /// Packets that were sent.
    sent: u64,
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

    /// Begins to measure.
    pub(in crate::bench::tunnel) fn begin(&self) -> Begun {
        let sent = self.counters.sent.load(Ordering::Relaxed);
        self.counters.from.store(sent, Ordering::Relaxed);
        Begun { at: Instant::now(), sent, received: self.counters.received.load(Ordering::Relaxed) }
    }

    /// Ends measuring; packets go on, so that the last ones meet the same conditions as all others.
    pub(in crate::bench::tunnel) fn end(&self, begun: &Begun) -> Sample {
        let sent = self.counters.sent.load(Ordering::Relaxed);
        self.counters.to.store(sent, Ordering::Relaxed);
        let received = self.counters.received.load(Ordering::Relaxed) - begun.received;
        let (seconds, sent) = (begun.at.elapsed().as_secs_f64(), sent - begun.sent);
        Sample { offered: sent as f64 / seconds, delivered: received as f64 / seconds, sent }
    }

    /// How many of a hundred packets that were sent during the measurement have not arrived until now.
    pub(in crate::bench::tunnel) fn loss(&self, sample: &Sample) -> f64 {
        loss(sample.sent, self.counters.kept.load(Ordering::Relaxed))
    }

    /// Fails if one of the ends has.
    pub(in crate::bench::tunnel) fn check(&self) -> Outcome {
        self.workers.check()
    }
}

/// Percent. What is sent at the very moment of a measurement's begin or end may count to either side.
fn loss(sent: u64, kept: u64) -> f64 {
    100.0 * sent.saturating_sub(kept) as f64 / sent.max(1) as f64
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
    while shared.goes_on() {
        let mut slices = payloads.each_mut().map(|payload| [IoSliceMut::new(payload)]);
        // It waits for the first packet only, at most as long as the socket's time limit.
        let result = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
        let count = match result {
            Ok(packets) => packets.count(),
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(failed(errno)),
        };
        let sequence = |payload: &[u8; PAYLOAD]| payload.first_chunk().copied().map_or(0, u64::from_be_bytes);
        counters.arrived(payloads[..count].iter().map(sequence));
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
    fn only_packets_of_the_measurement_are_missed() {
        let counters = Counters::default();
        counters.arrived(0..10);
        assert_eq!(counters.kept.load(Ordering::Relaxed), 0);
        counters.from.store(100, Ordering::Relaxed);
        counters.arrived((90..150).chain(175..180));
        counters.to.store(200, Ordering::Relaxed);
        counters.arrived(190..300);
        let kept = counters.kept.load(Ordering::Relaxed);
        assert_eq!((counters.received.load(Ordering::Relaxed), kept), (10 + 65 + 110, 50 + 5 + 10));
        assert_eq!((loss(100, kept), loss(0, 0), loss(10, 11), loss(10, 0)), (35.0, 0.0, 0.0, 100.0));
    }
}

//! More traffic than the tunnel, or whoever it is for, can take: memory stays as it is, what is lost is counted, no
//! direction starves the other, and a ping is answered in time.
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use adit_tests::counters::{self, Link};
use adit_tests::usage::Usage;
use adit_tests::{Adit, Ends, Flood, Namespace, Pair, Probe, StreamOptions, Streams, tools};
use anyhow::{Context as _, Result, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn memory_stays_flat_when_nobody_reads() -> Result<()> {
    let _alone = ALONE.lock();
    let mut tunnel = Tunnel::start()?;
    // A connection that is never read: its window closes, and the sender's kernel holds the rest back.
    let listener = tunnel.pair.b.enter(|| TcpListener::bind((Ends::B6, 0)))??;
    let mut stuck = tunnel.pair.a.enter(|| listener.local_addr().and_then(TcpStream::connect))??;
    stuck.set_nonblocking(true)?;
    while stuck.write(&[7; 65_536]).is_ok() {}

    let before = tunnel.packets()?;
    // Datagrams in both directions, and small ones besides.
    let flood = |from: &Namespace, to: &Namespace, target, size| Flood::start(from, to, target, 1, size);
    let floods = [
        flood(&tunnel.pair.a, &tunnel.pair.b, Ends::B4, 1392)?,
        flood(&tunnel.pair.b, &tunnel.pair.a, Ends::A4, 1392)?,
        flood(&tunnel.pair.b, &tunnel.pair.a, Ends::A6, 64)?,
    ];
    // Every buffer has been used once by then.
    tools::ping(&tunnel.pair.a, Ends::B4, 50, SOON)?;
    let mut samples = vec![tunnel.usage()?];
    let mut answered = 0;
    for _ in 0..5 {
        // The pings are the clock: they take a fifth of a second each time.
        let pings = tools::ping(&tunnel.pair.a, Ends::B6, 20, SOON)?;
        ensure!(pings.p99.is_none_or(|p99| p99 < LATENCY_OF_FLOOD), "{pings:?}");
        answered += pings.received;
        samples.push(tunnel.usage()?);
    }
    let [large, back, small] = floods.map(Flood::finish);
    eprintln!("{answered} pings answered");
    // They wait in line with everything else, and are dropped as everything else is.
    ensure!(answered > 0, "no ping was answered");
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let resident = samples.iter().map(|sample| sample[index].resident);
        let (least, most) = resident.clone().min().zip(resident.max()).context("no samples")?;
        eprintln!("{name}: {least} to {most} KiB");
        ensure!(most - least <= 1024, "{name} grew from {least} to {most} KiB");
        ensure!(samples.iter().all(|sample| sample[index].descriptors == samples[0][index].descriptors), "{samples:?}");
    }
    tunnel.all_is_counted([large, back + small])?;

    // What was carried of each direction, in packets; and whoever is there when it is over is served at once.
    let carried = tunnel.packets()?.map(|packets| packets.arrived);
    let [there, back] = [carried[0] - before[0].arrived, carried[1] - before[1].arrived];
    ensure!(there.min(back) >= (there + back) / 5, "{there} packets there, {back} back");
    let probe = Probe::start(&tunnel.pair.a, &tunnel.pair.b, Ends::B4, SOON)?;
    probe.answers(50, Duration::from_secs(2))?;
    ensure!(probe.finish()?.lost == 0);
    tunnel.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn pings_are_answered_and_no_direction_starves() -> Result<()> {
    let _alone = ALONE.lock();
    let tunnel = Tunnel::start()?;
    let (a, b) = (&tunnel.pair.a, &tunnel.pair.b);
    let options = StreamOptions { streams: 4, both_ways: true, ..StreamOptions::default() };
    let streams = Streams::start(a, b, Ends::B4, &options)?;
    for (from, target) in [(a, Ends::B4), (b, Ends::A6)] {
        let pings = tools::ping(from, target, 120, SOON)?;
        eprintln!("{pings:?}");
        ensure!(pings.received == pings.sent && pings.p99.is_some_and(|p99| p99 < LATENCY), "{pings:?}");
    }
    let [there, back] = streams.finish(Duration::from_secs(30))?;
    eprintln!("{there} bytes there, {back} back");
    ensure!(there.min(back) >= (there + back) / 5, "{there} bytes there, {back} back");
    tunnel.stop()
}

struct Tunnel {
    // Dropped before the namespaces that they are in.
    a: Adit,
    b: Adit,
    pair: Pair,
}

/// Packets on one way through the tunnel.
#[derive(Debug, Clone, Copy)]
struct Packets {
    /// That the sender's Adit has read from its device and sealed.
    sealed: u64,
    /// That the receiver's Adit has opened.
    arrived: u64,
    /// For which the sender's device had no room.
    dropped: u64,
}

impl Tunnel {
    fn start() -> Result<Self> {
        let pair = Pair::new()?;
        let ends = Ends::new()?;
        let b = Adit::start(&pair.b, &ends.config_b(None))?;
        let a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B4)))?;
        ensure!(tools::ping(&pair.a, Ends::B4, 1, Duration::ZERO)?.received == 1, "the tunnel does not carry a ping");
        Ok(Self { a, b, pair })
    }

    fn usage(&mut self) -> Result<[Usage; 2]> {
        Ok([Usage::of(self.a.process()?.id())?, Usage::of(self.b.process()?.id())?])
    }

    /// From `a` to `b`, and back.
    fn packets(&self) -> Result<[Packets; 2]> {
        let way = |at: &Namespace, from: &Adit, to: &Adit| -> Result<Packets> {
            let dropped = Link::of(at, from.name())?.out_dropped;
            let sealed = from.status()?.number("/engine/packets_out")?;
            Ok(Packets { sealed, arrived: to.status()?.number("/engine/packets_in")?, dropped })
        };
        Ok([way(&self.pair.a, &self.a, &self.b)?, way(&self.pair.b, &self.b, &self.a)?])
    }

    /// Every one of the datagrams that were sent on either way was carried, or is in a counter that a user can look at.
    fn all_is_counted(&self, sent: [u64; 2]) -> Result<()> {
        for adit in [&self.a, &self.b] {
            adit.status()?.no_drops()?;
        }
        for ((packets, sent), to) in self.packets()?.into_iter().zip(sent).zip([&self.pair.b, &self.pair.a]) {
            eprintln!("{sent} sent, {packets:?}");
            ensure!(packets.dropped > 0, "this was no flood: {sent} sent, {packets:?}");
            // Answers to pings and TCP's packets come on top.
            ensure!(packets.sealed + packets.dropped >= sent, "{sent} sent, {packets:?}");
            // What was sealed and did not arrive had no room in the receiver's socket, which the kernel counts.
            let no_room = counters::kernel(to, "RcvbufErrors")?;
            ensure!(packets.arrived <= packets.sealed, "{packets:?}");
            ensure!(packets.arrived == packets.sealed || no_room > 0, "{packets:?}");
        }
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        self.a.status()?.no_drops()?;
        self.b.status()?.no_drops()?;
        self.a.stop()?;
        self.b.stop()
    }
}

/// For runners that would run both at once in one process.
static ALONE: Mutex<()> = Mutex::new(());

const SOON: Duration = Duration::from_millis(10);

/// What a ping may take while connections use all that there is: some ten times what it takes, in a debug build on two
/// processors that the senders want as well.
const LATENCY: Duration = Duration::from_millis(100);

/// What a ping may take behind full queues of senders that nothing slows down: a device's, of 1000 packets, and a
/// socket's on each way, emptied by programs that get a part of a processor.
const LATENCY_OF_FLOOD: Duration = Duration::from_millis(500);

//! A tunnel under a mixed load for long: nothing is corrupted, nothing stands still, and nothing grows.
//!
//! The ordinary run takes some seconds of it. `cargo xtask soak-tunnel --minutes 30` takes as long as it says, with
//! optimised builds, and so sees sessions that are renewed by time, while they are used and while they are not.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use adit_tests::usage::Usage;
use adit_tests::{Adit, Ends, Pair, Probe, StreamOptions, Streams, eventually, tools, wg};
use anyhow::{Context as _, Result, anyhow, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_mixed_load_for_long() -> Result<()> {
    let plan = Plan::from_environment()?;
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let mut a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B4)))?;
    ensure!(tools::ping(&pair.a, Ends::B4, 1, Duration::ZERO)?.received == 1, "the tunnel does not carry a ping");

    let pids = [a.process()?.id(), b.process()?.id()];
    let options = StreamOptions { streams: 2, both_ways: true, ..StreamOptions::default() };
    let streams = [Ends::B4, Ends::B6].map(|target| Streams::start(&pair.a, &pair.b, target, &options));
    let [four, six] = streams;
    let mut run = Run { plan, pair: &pair, ends: &ends, a: &a, pids, streams: [four?, six?], seen: Seen::new(&plan) };
    let result = run.run();
    let Run { streams, seen, .. } = run;
    // A byte that was wrong says more than the flow that ended because of it.
    let mut carried = 0;
    for streams in streams {
        carried += streams.finish(PATIENCE)?.iter().sum::<u64>();
    }
    result?;
    eprintln!("{}", seen.summary(carried));
    // Connections to the control socket are closed a moment later than the program that made them ends.
    for (pid, first) in pids.into_iter().zip(seen.descriptors.context("no samples")?) {
        let same = || Usage::of(pid).is_ok_and(|usage| usage.descriptors <= first);
        eventually("no more descriptors than in the beginning", PATIENCE, same)?;
    }
    let renewals = (plan.length.as_secs() / LONGEST_SESSION).saturating_sub(1);
    ensure!(seen.renewed >= renewals, "{} sessions were renewed, {renewals} at least were expected", seen.renewed);
    for adit in [&mut a, &mut b] {
        adit.status()?.no_drops()?;
        adit.stop()?;
    }
    Ok(())
}

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
struct Plan {
    length: Duration,
    /// The time after which memory may not grow any more.
    warm_up: Duration,
    /// Load, and then a pause.
    load: Duration,
    pause: Duration,
    /// From one sample to the next.
    sample: Duration,
    /// From one line to the next.
    line: Duration,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let second = Duration::from_secs(1);
        let Some(minutes) = std::env::var_os("ADIT_SOAK_MINUTES") else {
            return Ok(Self {
                length: 5 * second,
                warm_up: 2 * second,
                load: 2 * second,
                pause: second / 2,
                sample: second / 5,
                line: second,
            });
        };
        let minutes: u32 =
            minutes.to_str().and_then(|text| text.parse().ok()).context("ADIT_SOAK_MINUTES: a number")?;
        Ok(Self {
            length: 60 * second * minutes,
            warm_up: 60 * second,
            // Longer than a session, so that sessions are renewed under load; the pauses fall on other moments each time.
            load: 133 * second,
            pause: 17 * second,
            sample: second,
            line: 30 * second,
        })
    }
}

struct Run<'a> {
    plan: Plan,
    pair: &'a Pair,
    ends: &'a Ends,
    a: &'a Adit,
    pids: [u32; 2],
    streams: [Streams; 2],
    seen: Seen,
}

impl Run<'_> {
    fn run(&mut self) -> Result<()> {
        let end = Instant::now() + self.plan.length;
        while Instant::now() < end {
            self.streams.iter().for_each(|streams| streams.pause(false));
            self.load(end.min(Instant::now() + self.plan.load))?;
            self.streams.iter().for_each(|streams| streams.pause(true));
            self.seen.paused();
            self.watch(end.min(Instant::now() + self.plan.pause), true)?;
        }
        Ok(())
    }

    /// Small datagrams and pings besides the connections, over either family and from either side.
    fn load(&mut self, end: Instant) -> Result<()> {
        let (a, b) = (&self.pair.a, &self.pair.b);
        let probes = [
            Probe::start(a, b, Ends::B4, Duration::from_millis(1))?,
            Probe::start(b, a, Ends::A6, Duration::from_millis(1))?,
        ];
        let left = end.saturating_duration_since(Instant::now());
        let count = u32::try_from(left.as_millis() / BETWEEN_PINGS.as_millis())?.max(1);
        let pings = std::thread::scope(|scope| {
            let pings = scope.spawn(|| tools::ping(a, Ends::B6, count, BETWEEN_PINGS));
            self.watch(end, false)?;
            pings.join().map_err(|_| anyhow!("the thread of ping panicked"))?
        })?;
        self.seen.pings += u64::from(pings.sent);
        self.seen.pings_lost += u64::from(pings.sent - pings.received);
        self.seen.slowest_ping = self.seen.slowest_ping.max(pings.p99);
        // Behind full queues one may get lost, but not one after the other.
        ensure!(pings.received * 10 >= pings.sent * 9, "{pings:?}");
        for probe in probes {
            let probed = probe.finish()?;
            self.seen.datagrams += probed.sent;
            self.seen.datagrams_lost += probed.lost;
            ensure!(probed.longest_gap < STALL && probed.lost * 10 <= probed.sent, "{probed:?}");
        }
        Ok(())
    }

    fn watch(&mut self, end: Instant, paused: bool) -> Result<()> {
        while Instant::now() < end {
            let next = end.min(Instant::now() + self.plan.sample);
            eventually("the next sample", STALL, || Instant::now() >= next)?;
            let arrived: Vec<u64> = self.streams.iter().flat_map(Streams::arrived).collect();
            ensure!(!self.streams.iter().any(Streams::has_ended), "a connection ended: {arrived:?}");
            let usage = [Usage::of(self.pids[0])?, Usage::of(self.pids[1])?];
            self.seen.sample(&self.plan, usage, arrived, paused)?;
            if self.seen.line_is_due(&self.plan) {
                let dump = wg::show(&self.pair.a, self.a.name())?;
                self.seen.handshake(dump.peer(&self.ends.b.public_key())?.latest_handshake);
            }
        }
        Ok(())
    }
}

/// What was seen until now.
#[derive(Debug)]
struct Seen {
    begun: Instant,
    next_line: Instant,
    /// Of each flow: what has arrived, and when that was last more than before.
    flows: Vec<(u64, Instant)>,
    /// Most of what was resident at each end until the end of the warm-up, in KiB.
    first: [u64; 2],
    last: [u64; 2],
    peak: [u64; 2],
    /// What was open at each end in the beginning.
    descriptors: Option<[usize; 2]>,
    handshake: Option<u64>,
    renewed: u64,
    pings: u64,
    pings_lost: u64,
    slowest_ping: Option<Duration>,
    datagrams: u64,
    datagrams_lost: u64,
}

impl Seen {
    fn new(plan: &Plan) -> Self {
        let begun = Instant::now();
        Self {
            begun,
            next_line: begun + plan.line,
            flows: Vec::new(),
            first: [0; 2],
            last: [0; 2],
            peak: [0; 2],
            descriptors: None,
            handshake: None,
            renewed: 0,
            pings: 0,
            pings_lost: 0,
            slowest_ping: None,
            datagrams: 0,
            datagrams_lost: 0,
        }
    }

    fn paused(&mut self) {
        self.flows.clear();
    }

    fn sample(&mut self, plan: &Plan, usage: [Usage; 2], arrived: Vec<u64>, paused: bool) -> Result<()> {
        let now = Instant::now();
        if self.flows.is_empty() {
            self.flows = arrived.iter().map(|bytes| (*bytes, now)).collect();
        }
        for (number, (flow, bytes)) in self.flows.iter_mut().zip(arrived).enumerate() {
            if paused || bytes > flow.0 {
                *flow = (bytes, now);
            }
            ensure!(now - flow.1 < STALL, "flow {number} stands still at {bytes} bytes");
        }
        let opened = *self.descriptors.get_or_insert(usage.map(|usage| usage.descriptors));
        let warm = now - self.begun > plan.warm_up;
        for (end, usage) in usage.into_iter().enumerate() {
            self.last[end] = usage.resident;
            self.peak[end] = self.peak[end].max(usage.resident);
            if !warm {
                self.first[end] = self.first[end].max(usage.resident);
            }
            let first = self.first[end];
            let growth = usage.resident.saturating_sub(first);
            ensure!(growth <= 1024 && growth * 20 <= first, "end {end} grew from {first} to {} KiB", usage.resident);
            // A status is asked for now and then, over a connection.
            let (opened, open) = (opened[end], usage.descriptors);
            ensure!(open <= opened + 2, "end {end} had {opened} descriptors and has {open}");
        }
        Ok(())
    }

    fn line_is_due(&mut self, plan: &Plan) -> bool {
        let now = Instant::now();
        let due = now >= self.next_line;
        if due {
            self.next_line = now + plan.line;
            eprintln!("{}", self.summary(self.flows.iter().map(|(bytes, _)| bytes).sum()));
        }
        due
    }

    fn handshake(&mut self, latest: Option<u64>) {
        if self.handshake.is_some() && self.handshake != latest {
            self.renewed += 1;
        }
        self.handshake = latest;
    }

    fn summary(&self, carried: u64) -> String {
        format!(
            "{:.0} s: {:.2} GB carried over TCP, {} of {} small datagrams and {} of {} pings lost, ping p99 at most \
             {:?}, {} sessions renewed, resident KiB first {:?}, last {:?}, peak {:?}, descriptors {:?}",
            self.begun.elapsed().as_secs_f64(),
            carried as f64 / 1e9,
            self.datagrams_lost,
            self.datagrams,
            self.pings_lost,
            self.pings,
            self.slowest_ping.unwrap_or_default(),
            self.renewed,
            self.first,
            self.last,
            self.peak,
            self.descriptors.unwrap_or_default(),
        )
    }
}

/// A flow that has carried nothing for so long stands still.
const STALL: Duration = Duration::from_secs(10);

const PATIENCE: Duration = Duration::from_secs(20);

const BETWEEN_PINGS: Duration = Duration::from_millis(200);

/// Seconds after which a session that is used was certainly renewed: REKEY_AFTER_TIME, a pause, and the time between two
/// looks.
const LONGEST_SESSION: u64 = 120 + 17 + 30;

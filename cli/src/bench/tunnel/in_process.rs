//! What can be measured without any privilege: two engines in this process, with smoltcp hosts on in-memory devices.
//!
//! The hosts' TCP is not the kernel's, everything shares one process, and the bytes are hashed at both ends; so these
//! figures compare with nothing but themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::{Group, Plan};
use super::record::{Record, What};
use super::traffic::{RoundTrips, pause};
use crate::bench::Progress;
use crate::demo::Joined;
use crate::failure::{Failure, Kind, Outcome};
use crate::watch::Watch;

/// The name of the only subject.
pub(super) const NAME: &str = "adit, in process";

/// What a reader has to know.
pub(super) const NOTE: &str = "in process: two engines with userspace TCP stacks on in-memory devices, joined over UDP \
on loopback, with every byte hashed at both ends; these figures do not compare with those of tunnels between namespaces";

/// Measures what can be.
pub(super) fn run(plan: &Plan, watch: &Arc<Watch>, progress: &mut dyn Progress) -> Outcome<Record> {
    let mut record = Record::default();
    let measures: Vec<_> = MEASURES.iter().filter(|(group, ..)| plan.groups.contains(group)).collect();
    if measures.is_empty() {
        let text = "in process only `tcp` and `latency` can be measured, and --only leaves both out";
        return Err(Failure::new(Kind::Usage, text));
    }
    progress.begin(u64::from(plan.runs) * measures.len() as u64);
    for run in 1..=plan.runs {
        for (_, title, measure) in &measures {
            progress.step(&format!("run {run} of {}, {NAME}: {title}", plan.runs));
            measure(plan, watch, &mut record)?;
        }
    }
    Ok(record)
}

type Measured = fn(&Plan, &Arc<Watch>, &mut Record) -> Outcome;

const MEASURES: [(Group, &str, Measured); 3] = [
    (Group::Tcp, "TCP, 1 stream", |plan, watch, record| tcp(plan, watch, false, What::Tcp1, record)),
    (Group::Tcp, "TCP over IPv6, 1 stream", |plan, watch, record| tcp(plan, watch, true, What::Tcp6, record)),
    (Group::Latency, "round trips, idle", latency),
];

/// Transfers about as much as fits into the time of a measurement.
fn tcp(plan: &Plan, watch: &Arc<Watch>, ipv6: bool, what: What, record: &mut Record) -> Outcome {
    let first = Joined::open(watch)?.transfer(ipv6, FIRST)?;
    let factor = (plan.time.as_secs_f64() / first.as_secs_f64().max(1e-3)).max(1.0);
    let size = (FIRST as f64 * factor) as u64;
    let time = Joined::open(watch)?.transfer(ipv6, size)?;
    record.add(what, NAME, size as f64 * 8.0 / time.as_secs_f64() / 1e9);
    Ok(())
}

/// Sends echo requests, one after the other.
fn latency(plan: &Plan, watch: &Arc<Watch>, record: &mut Record) -> Outcome {
    let mut pair = Joined::open(watch)?;
    let end = Instant::now() + plan.time;
    let mut times = Vec::new();
    let mut lost = 0;
    while Instant::now() < end {
        match pair.ping()? {
            Some(time) => times.push(time),
            None => lost += 1,
        }
        pause(watch, INTERVAL)?;
    }
    let found = RoundTrips::new(times, lost);
    for (what, percent) in [(What::Idle50, 50), (What::Idle99, 99)] {
        let time = found.percentile(percent).ok_or_else(|| Failure::new(Kind::Network, "no ping was answered"))?;
        record.add(what, NAME, time);
    }
    Ok(())
}

/// Bytes of the transfer that shows how fast it is: a tenth of a second or so.
const FIRST: u64 = 16 << 20;

/// Between a reply and the next request.
const INTERVAL: Duration = Duration::from_millis(1);

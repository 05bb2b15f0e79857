//! The work that every subject has to do, run by run, on the kernel's own stack.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::hosts::{Host, Hosts};
use super::options::{Candidate, CandidateKind, Group, Plan, find};
use super::process::Process;
use super::record::{Record, What};
use super::remarks::Remarks;
use super::running::Running;
use super::traffic::latency::Echo;
use super::traffic::tcp::Streams;
use super::traffic::udp::Flood;
use super::traffic::{RoundTrips, pause};
use crate::bench::Progress;
use crate::bench::model::Subject;
use crate::failure::{Failure, Kind, Outcome};
use crate::watch::{SLICE, Watch};

/// What was found, as the report takes it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) subjects: Vec<Subject>,
    pub(super) record: Record,
    pub(super) remarks: Remarks,
}

/// Tries every subject once, then measures all of them, one run after the other.
pub(super) fn run(plan: &Plan, watch: &Watch, progress: &mut dyn Progress) -> Outcome<Found> {
    let subjects = plan.candidates.len() as u64;
    progress.begin(subjects + u64::from(plan.runs) * subjects * steps(plan));
    let mut found = Found { subjects: Vec::new(), record: Record::default(), remarks: Remarks::default() };
    // What cannot be measured is known before minutes are spent.
    for candidate in &plan.candidates {
        progress.step(&format!("{}: does it run", candidate.name));
        drop(Running::start(watch, candidate)?);
        found.subjects.push(Subject { name: candidate.name.clone(), version: version(watch, candidate)? });
    }
    for run in 1..=plan.runs {
        for candidate in &plan.candidates {
            let mut work = Work {
                plan,
                watch,
                progress: &mut *progress,
                record: &mut found.record,
                remarks: &mut found.remarks,
                name: &candidate.name,
                place: format!("run {run} of {}, {}", plan.runs, candidate.name),
            };
            work.all(candidate).map_err(|failure| match watch.check() {
                Ok(()) => Failure { message: format!("{}: {}", work.place, failure.message), ..failure },
                Err(interrupted) => interrupted,
            })?;
        }
    }
    Ok(found)
}

/// Steps of one subject in one run.
fn steps(plan: &Plan) -> u64 {
    let of = |group: &Group| match group {
        Group::Tcp => 4,
        Group::Udp => plan.rates.len() as u64 + 1,
        Group::Latency => 2,
    };
    plan.groups.iter().map(of).sum()
}

/// One subject in one run.
struct Work<'a> {
    plan: &'a Plan,
    watch: &'a Watch,
    progress: &'a mut dyn Progress,
    record: &'a mut Record,
    remarks: &'a mut Remarks,
    name: &'a str,
    place: String,
}

impl Work<'_> {
    fn all(&mut self, candidate: &Candidate) -> Outcome {
        let running = Running::start(self.watch, candidate)?;
        for group in &self.plan.groups {
            let done = match group {
                Group::Tcp => self.tcp(&running),
                Group::Udp => self.udp(&running),
                Group::Latency => self.latency(&running),
            };
            // An engine that has ended is why the traffic has failed.
            running.check().and(done)?;
        }
        Ok(())
    }

    fn tcp(&mut self, running: &Running) -> Outcome {
        let [a, b] = Host::BOTH.map(|host| running.addresses(host));
        let (to_a, to_b) = ((Host::B, IpAddr::from(a.v4)), (Host::A, IpAddr::from(b.v4)));
        self.streams(running, What::Tcp1, Some(What::Cpu1), &[to_b])?;
        self.streams(running, What::Tcp4, Some(What::Cpu4), &[to_b; 4])?;
        // Before anything else can raise it.
        if let Some(bytes) = running.peak_memory()? {
            self.record.add(What::Memory, self.name, bytes as f64 / f64::from(1 << 20));
        }
        self.streams(running, What::TcpBoth, None, &[to_b, to_a])?;
        self.streams(running, What::Tcp6, None, &[(Host::A, b.v6.into())])
    }

    /// Measures what arrives of these streams, and the processor time that it takes.
    fn streams(&mut self, running: &Running, rate: What, cpu: Option<What>, all: &[(Host, IpAddr)]) -> Outcome {
        self.begin(rate.title());
        let mut streams = Streams::default();
        for (from, to) in all {
            streams.add(self.watch, running.hosts(), *from, *to)?;
        }
        pause(self.watch, self.plan.warm_up)?;
        let (cpu_before, before, begun) = (running.cpu()?, streams.received(), Instant::now());
        self.wait(|| streams.check())?;
        let (cpu_after, after, seconds) = (running.cpu()?, streams.received(), begun.elapsed().as_secs_f64());
        let bytes = (after - before) as f64;
        if bytes == 0.0 {
            let text = format!("{}: nothing arrived in {seconds:.1} s", rate.title());
            return Err(Failure::new(Kind::Network, text));
        }
        self.record.add(rate, self.name, bytes * 8.0 / seconds / 1e9);
        if let (Some(cpu), Some(before), Some(after)) = (cpu, cpu_before, cpu_after) {
            self.record.add(cpu, self.name, after.saturating_sub(before).as_secs_f64() / (bytes / 1e9));
        }
        Ok(())
    }

    fn udp(&mut self, running: &Running) -> Outcome {
        let mut best = 0.0_f64;
        for rate in self.plan.rates.iter().copied().map(Some).chain([None]) {
            self.begin(&match rate {
                Some(rate) => format!("UDP, {rate} packets/s"),
                None => "UDP, as many packets as can be sent".to_owned(),
            });
            let to = running.addresses(Host::B).v4;
            let flood = Flood::start(self.watch, running.hosts(), to.into(), rate)?;
            pause(self.watch, self.plan.warm_up)?;
            let begun = flood.begin();
            self.wait(|| flood.check())?;
            let sample = flood.end(&begun);
            pause(self.watch, LATE)?;
            let (delivered, loss) = (sample.delivered, flood.loss(&sample));
            best = best.max(delivered);
            let x = rate.map(f64::from);
            let (rates, losses) = match rate {
                Some(_) => (What::UdpDelivered, What::UdpLoss),
                None => (What::UdpFlood, What::UdpFloodLoss),
            };
            self.record.add_at(rates, self.name, x, delivered);
            self.record.add_at(losses, self.name, x, loss);
            if let Some(rate) = rate.filter(|rate| sample.offered < f64::from(*rate) * OFFERED) {
                self.remarks.offered(self.name, rate, sample.offered);
            }
        }
        self.record.add(What::UdpBest, self.name, best);
        Ok(())
    }

    fn latency(&mut self, running: &Running) -> Outcome {
        let to = running.addresses(Host::B).v4;
        let mut echo = Echo::start(self.watch, running.hosts(), to)?;
        self.begin("round trips, idle");
        echo.ask(self.watch, self.plan.warm_up)?;
        let idle = echo.ask(self.watch, self.plan.time)?;
        self.round_trips(&idle, What::Idle50, What::Idle99)?;

        self.begin("round trips beside a TCP stream");
        let mut streams = Streams::default();
        streams.add(self.watch, running.hosts(), Host::A, to.into())?;
        echo.ask(self.watch, self.plan.warm_up)?;
        let loaded = echo.ask(self.watch, self.plan.time)?;
        streams.check()?;
        self.round_trips(&loaded, What::Load50, What::Load99)
    }

    fn round_trips(&mut self, found: &RoundTrips, half: What, most: What) -> Outcome {
        for (what, percent) in [(half, 50), (most, 99)] {
            let time = found
                .percentile(percent)
                .ok_or_else(|| Failure::new(Kind::Network, format!("{}: nothing was answered", what.title())))?;
            self.record.add(what, self.name, time);
        }
        if found.lost > 0 {
            self.remarks.unanswered(self.name, half, found.lost);
        }
        Ok(())
    }

    fn begin(&mut self, what: &str) {
        self.progress.step(&format!("{}: {what}", self.place));
    }

    /// Lets the time of a measurement pass, unless its traffic fails.
    fn wait(&self, check: impl Fn() -> Outcome) -> Outcome {
        let end = Instant::now() + self.plan.time;
        loop {
            check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            pause(self.watch, left.min(SLICE))?;
        }
    }
}

/// What an engine says when it is asked for its version, if it is asked in a way that it knows.
fn version(watch: &Watch, candidate: &Candidate) -> Outcome<Option<String>> {
    let program = match &candidate.kind {
        CandidateKind::Adit => return Ok(Some(env!("CARGO_PKG_VERSION").to_owned())),
        CandidateKind::Foreign(command) => command.first().filter(|program| find(program).is_some()),
        CandidateKind::Ceiling | CandidateKind::Bare => None,
    };
    let Some(program) = program else { return Ok(None) };
    // On a host of its own: something else may take the option for the name of a device.
    let hosts = Hosts::open(watch)?;
    for (number, option) in ["--version", "-V"].into_iter().enumerate() {
        let command = [program.as_str(), option].map(str::to_owned);
        let asked = Process::start(hosts.on(Host::A), watch, &command, &format!("version{number}"))?;
        let said = asked.output(VERSION_LIMIT).unwrap_or_default();
        watch.check()?;
        if let Some(line) = said.lines().next().map(str::trim).filter(|line| is_version(line)) {
            return Ok(Some(line.to_owned()));
        }
    }
    Ok(None)
}

/// Whether it looks like one, and not like the complaint of a program that has no such option.
fn is_version(line: &str) -> bool {
    let number = |word: &str| {
        let digits = word.trim_start_matches('v');
        digits.starts_with(|c: char| c.is_ascii_digit()) && digits.contains('.')
    };
    line.len() <= MAX_VERSION && line.split([' ', ',', '/', '-']).any(number)
}

/// How long a program may think about its version.
const VERSION_LIMIT: Duration = Duration::from_secs(1);

/// Bytes of a line with a version; what is longer is something else.
const MAX_VERSION: usize = 100;

/// How long after a measurement its last packets may arrive and not be lost: what all queues together hold takes less.
const LATE: Duration = Duration::from_millis(200);

/// What is less than this much of an offered load is worth a note.
const OFFERED: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_complaints() {
        for line in ["wireguard-go v0.0.20220316", "boringtun 0.7.1", "gotatun-cli 0.10.2", "x/1.2", "v2.0-rc1"] {
            assert!(is_version(line), "{line}");
        }
        for line in ["", "error: unexpected argument '--version' found", "Usage: x [OPTIONS]", "a warning ......"] {
            assert!(!is_version(line), "{line}");
        }
        assert!(!is_version(&format!("1.2{}", "x".repeat(100))));
    }
}

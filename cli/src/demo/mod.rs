//! `adit demo`: two complete engines joined over real UDP, measured, and a transfer that is verified.
//!
//! Where it is allowed the hosts are network namespaces with tun devices (`kernel`); elsewhere they are smoltcp stacks
//! on in-memory devices (`process`). Everything it makes belongs to its threads and descriptors: no namespace has a name,
//! no file is written, no setting outside of the namespaces is touched, so nothing is left however the process ends.

#[cfg(target_os = "linux")]
mod kernel;
mod process;
mod report;
mod stream;
mod tunnel;
mod ui;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::args::{Demo, DemoMode};
use crate::failure::{Failure, Kind, Outcome};
use crate::watch::{SLICE, Watch};
use report::{
    Handshake, HostDrops, IpVersion, Mode, ModeName, Ping, Report, Resources, Routes, Transfer, milliseconds, size,
};
use stream::Digest;
use tunnel::{Secrets, Side, Tunnel};
use ui::Ui;

/// Two hosts with an engine each, in front of which something can be measured.
trait Pair: Send {
    /// The engines of both sides.
    fn tunnels(&self) -> [&Tunnel; 2];

    /// Where side A finds side B's engine.
    fn endpoint(&self) -> IpAddr;

    /// The name of a side's device.
    fn device(&self, side: Side) -> &str;

    /// Sends one echo request from side A and returns its round trip; `None` if no answer came within [`PING_LIMIT`].
    fn ping(&mut self, to: IpAddr, sequence: u16) -> Outcome<Option<Duration>>;

    /// Sends `size` pseudo-random bytes over TCP from side A to side B at this address. It ends soon after the watch
    /// says so and has no deadline of its own.
    fn transfer(&mut self, to: IpAddr, size: u64) -> Outcome<Transferred>;
}

/// What both ends say of a transfer.
#[derive(Debug, Clone, Copy)]
struct Transferred {
    /// From the first byte sent to the last byte of the receiver's answer.
    time: Duration,
    sent: Digest,
    /// The receiver's answer, over the connection.
    answer: Digest,
    received_bytes: u64,
}

/// Runs the demo. It succeeds only if everything held.
pub(crate) fn run(options: &Demo) -> Outcome {
    let watch = Arc::new(Watch::install()?);
    let mut ui = Ui::new(options.json);
    let mut report = Report::default();
    let measured = measure(options, &watch, &mut ui, &mut report);
    ui.finish();
    report.problems = match &measured {
        Ok(()) => report.judge(),
        Err(failure) => vec![failure.message.clone()],
    };
    report.ok = report.problems.is_empty();
    report.resources = Resources::used();
    if let Some(resources) = &report.resources {
        ui.line("resources", &resources.line())?;
    }
    ui.end(&report)?;
    measured?;
    if report.ok { Ok(()) } else { Err(Failure::failed(report.problems.join("; "))) }
}

/// Does everything, and has taken everything apart again when it returns.
fn measure(options: &Demo, watch: &Arc<Watch>, ui: &mut Ui, report: &mut Report) -> Outcome {
    ui.title()?;
    let (mut pair, mode) = open(options, watch)?;
    ui.line("mode", &report.mode.insert(mode).line())?;

    let time = join(pair.as_ref(), watch)?;
    let handshake = Handshake { milliseconds: milliseconds(time), underlay: IpVersion::of(pair.endpoint()) };
    ui.line("handshake", &report.handshake.insert(handshake).line())?;
    for routes in report.routes.insert(Side::BOTH.map(|side| Routes::new(side, pair.device(side)))) {
        ui.line("routes", &routes.line())?;
    }

    for to in [IpAddr::from(Side::B.ipv4()), Side::B.ipv6().into()] {
        let ping = ping(pair.as_mut(), to)?;
        ui.line("ping", &ping.line())?;
        report.ping.push(ping);
    }

    let transfer = transfer(pair.as_mut(), Side::B.ipv4().into(), options.size, watch, ui)?;
    ui.line("transfer", &transfer.line())?;
    ui.line("sha-256", &transfer.digest_line())?;
    report.transfer = Some(transfer);

    let [a, b] = pair.tunnels();
    let (a, b) = (a.snapshot(watch)?, b.snapshot(watch)?);
    let drops = HostDrops::new([&a.engine.engine.drops, &b.engine.engine.drops]);
    ui.line("drops", &report.drops.insert(drops).line())
}

/// Two hosts in this process with a tunnel between them, for whoever measures something else with it.
pub(crate) struct Joined(process::Process);

impl Joined {
    /// Makes the hosts and joins them over UDP on loopback.
    pub(crate) fn open(watch: &Arc<Watch>) -> Outcome<Self> {
        let pair = process::Process::open(Ipv4Addr::LOCALHOST.into(), watch)?;
        join(&pair, watch)?;
        Ok(Self(pair))
    }

    /// Sends one echo request over IPv4 and returns its round trip; `None` if no answer came within [`PING_LIMIT`].
    pub(crate) fn ping(&mut self) -> Outcome<Option<Duration>> {
        self.0.ping(Side::B.ipv4().into(), fastrand::u16(..))
    }

    /// Sends so many bytes over TCP and returns how long it took until they were received and found the same. The host
    /// that answers does it once.
    pub(crate) fn transfer(mut self, ipv6: bool, size: u64) -> Outcome<Duration> {
        let to: IpAddr = if ipv6 { Side::B.ipv6().into() } else { Side::B.ipv4().into() };
        let done = self.0.transfer(to, size)?;
        if done.sent != done.answer || done.received_bytes != size {
            return Err(Failure::failed("the bytes that arrived are not those that were sent"));
        }
        Ok(done.time)
    }
}

/// Has both engines make a tunnel, and returns how long the handshake took.
fn join(pair: &dyn Pair, watch: &Watch) -> Outcome<Duration> {
    let secrets = Secrets::new()?;
    let [a, b] = pair.tunnels();
    b.configure(watch, &secrets, None)?;
    a.configure(watch, &secrets, Some((pair.endpoint(), b.port()).into()))?;
    a.handshake(watch)
}

/// Makes the hosts, and says which and why.
fn open(options: &Demo, watch: &Arc<Watch>) -> Outcome<(Box<dyn Pair>, Mode)> {
    let reason = match options.mode {
        DemoMode::Process => "asked for".to_owned(),
        DemoMode::Kernel => return open_kernel(watch),
        DemoMode::Auto => match open_kernel(watch) {
            Ok(opened) => return Ok(opened),
            Err(failure) => {
                watch.check()?;
                format!("no tun devices in namespaces: {}", failure.message)
            }
        },
    };
    let hosts = format!("two smoltcp hosts, in-memory devices, UDP over {}", options.loopback);
    let pair = process::Process::open(options.loopback, watch)?;
    Ok((Box::new(pair), Mode { name: ModeName::Process, hosts, reason }))
}

#[cfg(target_os = "linux")]
fn open_kernel(watch: &Arc<Watch>) -> Outcome<(Box<dyn Pair>, Mode)> {
    let privilege = crate::netns::privilege::acquire()?;
    let pair = kernel::Kernel::open(watch)?;
    let hosts = "two network namespaces, tun devices, UDP over veth".to_owned();
    Ok((Box::new(pair), Mode { name: ModeName::Kernel, hosts, reason: privilege.to_owned() }))
}

#[cfg(not(target_os = "linux"))]
fn open_kernel(_watch: &Arc<Watch>) -> Outcome<(Box<dyn Pair>, Mode)> {
    Err(Failure::failed("only Linux has network namespaces"))
}

/// Pings one address, one echo request after the other.
fn ping(pair: &mut dyn Pair, to: IpAddr) -> Outcome<Ping> {
    let mut round_trips = Vec::with_capacity(PINGS.into());
    for sequence in 0..PINGS {
        round_trips.extend(pair.ping(to, sequence)?);
    }
    Ok(Ping::new(to, PINGS.into(), round_trips))
}

/// Has the transfer done in another thread, shows how far it is, and ends it when it stands still.
fn transfer(pair: &mut dyn Pair, to: IpAddr, size: u64, watch: &Watch, ui: &mut Ui) -> Outcome<Transfer> {
    ui.begin(size);
    let done = thread::scope(|scope| {
        let (sender, result) = bounded(1);
        scope.spawn(move || {
            // The receiver waits until this is sent.
            let _heard = sender.send(pair.transfer(to, size));
        });
        let mut stall = Stall::new(size, Instant::now());
        loop {
            match result.recv_timeout(SLICE) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::failed("the thread of the transfer has ended"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    ui.progress(watch.received());
                    if let Some(text) = stall.look(watch.received(), Instant::now()) {
                        watch.halt(Failure::new(Kind::Network, text));
                    }
                }
            }
        }
    });
    ui.finish();
    let done = done?;
    let seconds = done.time.as_secs_f64();
    Ok(Transfer {
        family: IpVersion::of(to),
        bytes: size,
        received_bytes: done.received_bytes,
        seconds,
        bits_per_second: size as f64 * 8.0 / seconds.max(f64::MIN_POSITIVE),
        sha256_sent: done.sent,
        sha256_received: done.answer,
    })
}

/// Notices a transfer that gets nowhere.
#[derive(Debug)]
struct Stall {
    size: u64,
    bytes: u64,
    since: Instant,
    end: Instant,
}

impl Stall {
    fn new(size: u64, now: Instant) -> Self {
        let whole = TRANSFER_BASE + Duration::from_secs(size / TRANSFER_FLOOR);
        // A size that takes longer than the clock can tell has no deadline but the stall.
        let end = now.checked_add(whole).unwrap_or_else(|| now + Duration::from_secs(u32::MAX.into()));
        Self { size, bytes: 0, since: now, end }
    }

    /// Says what is wrong, if it is too slow.
    fn look(&mut self, bytes: u64, now: Instant) -> Option<String> {
        if bytes != self.bytes {
            (self.bytes, self.since) = (bytes, now);
        }
        let reached = || format!("{} of {}", size(bytes), size(self.size));
        if now.duration_since(self.since) >= STALL_LIMIT {
            Some(format!("the transfer has stood still for {} s at {}", STALL_LIMIT.as_secs(), reached()))
        } else {
            (now >= self.end).then(|| format!("the transfer is too slow: {} in the time for all of it", reached()))
        }
    }
}

/// Echo requests for each family.
const PINGS: u16 = 20;

/// How long an answer is waited for. Round trips take a fraction of a millisecond; a machine with too much to do may
/// take longer.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// A transfer that gets nowhere for so long has failed: TCP's retransmissions have been in vain five times by then.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// What a transfer may take in all: this much, and a second for each of so many bytes. Any machine is faster.
const TRANSFER_BASE: Duration = Duration::from_secs(60);
const TRANSFER_FLOOR: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_stands_still_is_ended() {
        let begun = Instant::now();
        let mut stall = Stall::new(100 << 20, begun);
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(stall.look(0, at(14)), None);
        assert_eq!(stall.look(1 << 20, at(20)), None);
        assert_eq!(stall.look(1 << 20, at(34)), None);
        let text = stall.look(1 << 20, at(35)).unwrap();
        assert_eq!(text, "the transfer has stood still for 15 s at 1.00 MiB of 100.00 MiB");
    }

    #[test]
    fn a_transfer_that_creeps_is_ended() {
        let begun = Instant::now();
        let mut stall = Stall::new(100 << 20, begun);
        let too_slow = (1..).find(|second| stall.look(*second, begun + Duration::from_secs(*second)).is_some());
        assert_eq!(too_slow, Some(160));
        let mut endless = Stall::new(u64::MAX, begun);
        assert_eq!(endless.look(1, begun + Duration::from_secs(3600)), None);
    }

    #[test]
    fn a_mode_is_made_for_what_was_asked() {
        let options = Demo { mode: DemoMode::Process, size: 1, json: true, loopback: "127.0.0.1".parse().unwrap() };
        let (pair, mode) = open(&options, &Arc::new(Watch::default())).unwrap();
        assert_eq!((mode.name, mode.reason.as_str()), (ModeName::Process, "asked for"));
        assert_ne!(pair.tunnels()[0].port(), pair.tunnels()[1].port());
    }
}

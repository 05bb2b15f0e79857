//! What the demo found, as data and as lines, and whether it holds.
//!
//! The same findings make the lines for a person and the JSON document, so neither can say what the other does not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use adit_core::stats::Drops;
use serde::Serialize;

use super::stream::Digest;
use super::tunnel::Side;

/// Everything that was found; what was not reached is absent.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Whether everything was reached and nothing is wrong.
    pub(super) ok: bool,
    /// What is wrong, in sentences.
    pub(super) problems: Vec<String>,
    pub(super) mode: Option<Mode>,
    pub(super) handshake: Option<Handshake>,
    pub(super) routes: Option<[Routes; 2]>,
    pub(super) ping: Vec<Ping>,
    pub(super) transfer: Option<Transfer>,
    pub(super) drops: Option<HostDrops>,
    pub(super) resources: Option<Resources>,
}

impl Report {
    /// What does not hold of what was found.
    ///
    /// Drops are shown and not judged: a queue that was full for a moment is TCP's daily life, and what a drop destroyed
    /// shows in the other findings.
    pub(super) fn judge(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.handshake.is_none() {
            problems.push("there was no handshake".to_owned());
        }
        for version in [IpVersion::V4, IpVersion::V6] {
            match self.ping.iter().find(|ping| ping.family == version) {
                None => problems.push(format!("nothing was pinged over {}", version.name())),
                Some(ping) if ping.received < ping.sent || ping.sent == 0 => {
                    let Ping { sent, received, .. } = ping;
                    problems.push(format!("{received} of {sent} pings over {} were answered", version.name()));
                }
                Some(_) => {}
            }
        }
        match &self.transfer {
            None => problems.push("nothing was transferred".to_owned()),
            Some(transfer) => problems.extend(transfer.problem()),
        }
        problems
    }
}

/// Where the two hosts live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mode {
    pub(super) name: ModeName,
    /// What it is made of.
    pub(super) hosts: String,
    /// Why this mode.
    pub(super) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeName {
    #[cfg(target_os = "linux")]
    Kernel,
    Process,
}

impl Mode {
    pub(super) fn line(&self) -> String {
        let name = match self.name {
            #[cfg(target_os = "linux")]
            ModeName::Kernel => "kernel",
            ModeName::Process => "process",
        };
        format!("{name}: {} ({})", self.hosts, self.reason)
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum IpVersion {
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

impl IpVersion {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The first handshake.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Handshake {
    pub(super) milliseconds: f64,
    /// What carried it.
    pub(super) underlay: IpVersion,
}

impl Handshake {
    pub(super) fn line(&self) -> String {
        format!("{:.1} ms over {}", self.milliseconds, self.underlay.name())
    }
}

/// What a host sends into the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Routes {
    pub(super) host: &'static str,
    pub(super) destinations: Vec<String>,
    pub(super) device: String,
}

impl Routes {
    pub(super) fn new(side: Side, device: &str) -> Self {
        let destinations = side.other().nets().iter().map(ToString::to_string).collect();
        Self { host: side.name(), destinations, device: device.to_owned() }
    }

    pub(super) fn line(&self) -> String {
        format!("{}: {} dev {}", self.host, self.destinations.join(" "), self.device)
    }
}

/// Echo requests over one family, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ping {
    pub(super) family: IpVersion,
    pub(super) to: IpAddr,
    pub(super) sent: usize,
    pub(super) received: usize,
    /// Round trips in milliseconds; absent if nothing was answered.
    pub(super) min_ms: Option<f64>,
    pub(super) median_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
}

impl Ping {
    pub(super) fn new(to: IpAddr, sent: usize, mut round_trips: Vec<Duration>) -> Self {
        round_trips.sort_unstable();
        let ms = |index: usize| round_trips.get(index).map(|time| milliseconds(*time));
        Self {
            family: IpVersion::of(to),
            to,
            sent,
            received: round_trips.len(),
            min_ms: ms(0),
            // The upper of the two in the middle, where there are two.
            median_ms: ms(round_trips.len() / 2),
            max_ms: round_trips.len().checked_sub(1).and_then(ms),
        }
    }

    pub(super) fn line(&self) -> String {
        let Self { family, to, sent, received, .. } = self;
        let lost = match sent - received {
            0 => "none lost".to_owned(),
            lost => format!("{lost} lost"),
        };
        match (self.min_ms, self.median_ms) {
            (Some(min), Some(median)) => {
                format!("{} {median:.2} ms to {to} (median of {received}, min {min:.2} ms, {lost})", family.name())
            }
            _ => format!("{} no answer from {to} ({lost})", family.name()),
        }
    }
}

/// The TCP transfer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Transfer {
    pub(super) family: IpVersion,
    /// Bytes that were to be sent.
    pub(super) bytes: u64,
    /// Bytes that have arrived.
    pub(super) received_bytes: u64,
    /// From the first byte sent to the last byte of the receiver's answer.
    pub(super) seconds: f64,
    pub(super) bits_per_second: f64,
    /// Of what was sent.
    pub(super) sha256_sent: Digest,
    /// Of what arrived, as the receiver told it over the same connection.
    pub(super) sha256_received: Digest,
}

impl Transfer {
    pub(super) fn line(&self) -> String {
        let Self { bytes, family, seconds, bits_per_second, .. } = self;
        format!("{} over {} in {seconds:.1} s: {}", size(*bytes), family.name(), rate(*bits_per_second))
    }

    pub(super) fn digest_line(&self) -> String {
        if self.sha256_sent == self.sha256_received {
            format!("{} at both ends", self.sha256_sent)
        } else {
            format!("{} sent, {} received", self.sha256_sent, self.sha256_received)
        }
    }

    fn problem(&self) -> Option<String> {
        if self.received_bytes != self.bytes {
            return Some(format!("{} bytes were sent and {} have arrived", self.bytes, self.received_bytes));
        }
        (self.sha256_sent != self.sha256_received).then(|| "what arrived is not what was sent".to_owned())
    }
}

/// Drops of both engines by the name of their reason; reasons that did not occur are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct HostDrops {
    pub(super) a: BTreeMap<&'static str, u64>,
    pub(super) b: BTreeMap<&'static str, u64>,
}

impl HostDrops {
    pub(super) fn new([a, b]: [&Drops; 2]) -> Self {
        let by_name = |drops: &Drops| drops.iter().map(|(reason, count)| (reason.name(), count)).collect();
        Self { a: by_name(a), b: by_name(b) }
    }

    pub(super) fn line(&self) -> String {
        let told: Vec<String> = [("a", &self.a), ("b", &self.b)]
            .into_iter()
            .flat_map(|(host, drops)| drops.iter().map(move |(reason, count)| format!("{host}: {reason} {count}")))
            .collect();
        if told.is_empty() { "none".to_owned() } else { told.join(", ") }
    }
}

/// What the process has used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Resources {
    /// User and system time of all threads.
    pub(super) cpu_seconds: f64,
    /// The largest resident size.
    pub(super) peak_rss_bytes: u64,
}

impl Resources {
    /// Asks the system; `None` if it does not tell.
    pub(super) fn used() -> Option<Self> {
        use nix::sys::resource::{UsageWho, getrusage};
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Some(Self {
            cpu_seconds: seconds(usage.user_time()) + seconds(usage.system_time()),
            peak_rss_bytes: peak_rss(&usage),
        })
    }

    pub(super) fn line(&self) -> String {
        format!("{:.1} s of CPU, {} of memory at most", self.cpu_seconds, size(self.peak_rss_bytes))
    }
}

/// The largest resident size in bytes.
///
/// Linux's getrusage(2) would count what ran in this process before it became `adit`, such as `cargo run` (fs/exec.c,
/// setmax_mm_hiwater_rss), so there the kernel's account of the address space is read.
#[cfg(target_os = "linux")]
fn peak_rss(_usage: &nix::sys::resource::Usage) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The largest resident size in bytes, which is getrusage(2)'s unit on Apple's systems.
#[cfg(not(target_os = "linux"))]
fn peak_rss(usage: &nix::sys::resource::Usage) -> u64 {
    u64::try_from(usage.max_rss()).unwrap_or(0)
}

/// A time in milliseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A number of bytes with a binary unit.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.2} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A number of bits in a second with a decimal unit.
pub(super) fn rate(bits_per_second: f64) -> String {
    if bits_per_second >= 1e9 {
        format!("{:.2} Gbit/s", bits_per_second / 1e9)
    } else {
        format!("{:.1} Mbit/s", bits_per_second / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use adit_core::DropReason;

    use super::*;

    fn ping(to: IpAddr, sent: usize) -> Ping {
        Ping::new(to, sent, (1..=20).map(|n| Duration::from_micros(n * 100)).collect())
    }

    fn whole() -> Report {
        Report {
            ok: true,
            mode: Some(Mode { name: ModeName::Process, hosts: "hosts".into(), reason: "asked for".into() }),
            handshake: Some(Handshake { milliseconds: 0.94, underlay: IpVersion::V4 }),
            routes: Some(Side::BOTH.map(|side| Routes::new(side, "adit0"))),
            ping: vec![ping(Side::B.ipv4().into(), 20), ping(Side::B.ipv6().into(), 20)],
            transfer: Some(Transfer {
                family: IpVersion::V4,
                bytes: 1 << 30,
                received_bytes: 1 << 30,
                seconds: 3.12,
                bits_per_second: 2.735e9,
                sha256_sent: Digest([0xab; 32]),
                sha256_received: Digest([0xab; 32]),
            }),
            drops: Some(HostDrops::new([&Drops::default(), &Drops::default()])),
            resources: Some(Resources { cpu_seconds: 5.55, peak_rss_bytes: 20 << 20 }),
            ..Report::default()
        }
    }

    /// Changes a report that holds and returns what is wrong then.
    fn broken(change: impl FnOnce(&mut Report)) -> Vec<String> {
        let mut report = whole();
        change(&mut report);
        report.judge()
    }

    #[test]
    fn a_whole_report_holds() {
        assert_eq!(whole().judge(), [""; 0]);
    }

    #[test]
    fn a_wrong_digest_does_not_hold() {
        let problems = broken(|report| {
            report.transfer.as_mut().unwrap().sha256_received = Digest([0xac; 32]);
        });
        assert_eq!(problems, ["what arrived is not what was sent"]);
    }

    #[test]
    fn a_short_transfer_does_not_hold() {
        let problems = broken(|report| report.transfer.as_mut().unwrap().received_bytes = 5);
        assert_eq!(problems, ["1073741824 bytes were sent and 5 have arrived"]);
    }

    #[test]
    fn lost_or_absent_pings_do_not_hold() {
        let lost = broken(|report| report.ping[1] = ping(Side::B.ipv6().into(), 21));
        assert_eq!(lost, ["20 of 21 pings over IPv6 were answered"]);
        let absent = broken(|report| report.ping.truncate(1));
        assert_eq!(absent, ["nothing was pinged over IPv6"]);
    }

    #[test]
    fn what_was_not_reached_does_not_hold() {
        assert_eq!(Report::default().judge().len(), 4);
        assert_eq!(broken(|report| report.handshake = None).len(), 1);
        assert_eq!(broken(|report| report.transfer = None).len(), 1);
    }

    #[test]
    fn drops_are_told_by_host_and_reason_and_not_judged() {
        let mut drops = Drops::default();
        drops.add(DropReason::WriteFailed, 3);
        let told = HostDrops::new([&Drops::default(), &drops]);
        assert_eq!(told.line(), "b: write_failed 3");
        assert_eq!(broken(|report| report.drops = Some(told)), [""; 0]);
        assert_eq!(whole().drops.unwrap().line(), "none");
    }

    #[test]
    fn lines_are_as_the_readme_shows_them() {
        let report = whole();
        assert_eq!(report.mode.unwrap().line(), "process: hosts (asked for)");
        assert_eq!(report.handshake.unwrap().line(), "0.9 ms over IPv4");
        assert_eq!(report.routes.unwrap()[0].line(), "a: 10.77.0.2/32 fd77::2/128 dev adit0");
        assert_eq!(report.ping[0].line(), "IPv4 1.10 ms to 10.77.0.2 (median of 20, min 0.10 ms, none lost)");
        assert_eq!(Ping::new(Side::B.ipv6().into(), 2, vec![]).line(), "IPv6 no answer from fd77::2 (2 lost)");
        let transfer = report.transfer.unwrap();
        assert_eq!(transfer.line(), "1.00 GiB over IPv4 in 3.1 s: 2.73 Gbit/s");
        assert_eq!(transfer.digest_line(), format!("{} at both ends", "ab".repeat(32)));
        assert_eq!(report.resources.unwrap().line(), "5.5 s of CPU, 20.00 MiB of memory at most");
        assert_eq!(rate(8.5e6), "8.5 Mbit/s");
        assert_eq!(size(999), "999 B");
    }

    #[test]
    fn the_document_has_the_same_findings() {
        let json = serde_json::to_value(whole()).unwrap();
        assert_eq!(json["ok"], true);
        assert_eq!(json["mode"]["name"], "process");
        assert_eq!(json["handshake"]["underlay"], "IPv4");
        assert_eq!(json["routes"][1]["destinations"][1], "fd77::1/128");
        assert_eq!(json["ping"][1]["family"], "IPv6");
        assert_eq!(json["ping"][1]["median_ms"], 1.1);
        assert_eq!(json["transfer"]["sha256_received"], "ab".repeat(32));
        assert_eq!(json["drops"]["a"], serde_json::json!({}));
        assert_eq!(serde_json::to_value(Report::default()).unwrap()["transfer"], serde_json::Value::Null);
    }
}

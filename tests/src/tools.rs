//! ping(8) and iperf3(1): what a user would try first, with their results as numbers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::netns::Namespace;
use crate::process::{self, Process};

/// Fails with a clear text unless this process may make namespaces and devices.
///
/// # Errors
/// If the effective user is not root.
pub fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "this test needs root, for namespaces and devices: run `cargo xtask test` as root"
    );
    Ok(())
}

/// The file of a program, looked up as a shell of root would.
pub fn has_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What [`ping`] counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pings {
    /// Echo requests that were asked for.
    pub sent: u32,
    /// Answers to them.
    pub received: u32,
    /// The number of the first request without an answer, from 1.
    pub first_missing: Option<u32>,
    /// Mean round trip; absent if nothing came back.
    pub mean: Option<Duration>,
    /// The round trip that 99 in 100 answers did not exceed; absent if nothing came back.
    pub p99: Option<Duration>,
}

/// Pings `target` from `namespace`, `count` times every `interval`; each answer may take a second. More than one ping are
/// followed by another that does not count, because ping(8) hardly waits for the answer to its last one.
///
/// No answer is a result, not an error.
///
/// # Errors
/// If ping(8) cannot run at all, for instance without a route.
pub fn ping(namespace: &Namespace, target: IpAddr, count: u32, interval: Duration) -> Result<Pings> {
    ping_sized(namespace, target, count, interval, 56)
}

/// Like [`ping`] with `size` bytes of payload and no fragmentation on the way: for the MTU.
///
/// # Errors
/// As [`ping`].
pub fn ping_sized(namespace: &Namespace, target: IpAddr, count: u32, interval: Duration, size: usize) -> Result<Pings> {
    run_ping(namespace, target, count, interval, size, "do")
}

/// Like [`ping`] with `size` bytes of payload that the sender may send in fragments.
///
/// # Errors
/// As [`ping`].
pub fn ping_in_fragments(
    namespace: &Namespace,
    target: IpAddr,
    count: u32,
    interval: Duration,
    size: usize,
) -> Result<Pings> {
    run_ping(namespace, target, count, interval, size, "dont")
}

fn run_ping(
    namespace: &Namespace,
    target: IpAddr,
    count: u32,
    interval: Duration,
    size: usize,
    fragments: &str,
) -> Result<Pings> {
    let mut ping = namespace.command("ping");
    let interval = format!("{:.3}", interval.as_secs_f64());
    // Once ping(8) has had an answer it waits for the last one no longer than the interval or two round trips (iputils,
    // ping_common.c, main_loop), which is too short on a machine that is busy. So the last one is one more than was asked
    // for, and does not count.
    let requests = if count > 1 { count + 1 } else { count };
    ping.args(["-n", "-W", "1", "-M", fragments, "-c", &requests.to_string(), "-i", &interval]);
    ping.args(["-s", &size.to_string(), &target.to_string()]);
    let finished = process::finish(&mut ping, "", Duration::from_secs(60) + Duration::from_secs(2) * count)?;
    parse_ping(&finished.stdout, count).with_context(|| format!("{}\n{}", finished.title, finished.stderr))
}

fn parse_ping(text: &str, count: u32) -> Result<Pings> {
    ensure!(text.contains("packets transmitted"), "ping printed no counts");
    let mean = match text.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = ")) {
        Some(times) => {
            let mean = times.split('/').nth(1).and_then(|mean| mean.parse::<f64>().ok());
            Some(Duration::from_secs_f64(mean.with_context(|| times.to_owned())? / 1000.0))
        }
        None => None,
    };
    let answered: BTreeSet<u32> = text
        .lines()
        .filter(|line| line.contains(" bytes from "))
        .filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok())
        .collect();
    let mut times: Vec<f64> =
        text.lines().filter_map(|line| line.split_once(" time=")?.1.split(' ').next()?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    let p99 = times.get((times.len() * 99).div_ceil(100).saturating_sub(1));
    let p99 = p99.map(|milliseconds| Duration::from_secs_f64(milliseconds / 1000.0));
    let received = answered.range(1..=count).count() as u32;
    let first_missing = (1..=count).find(|number| !answered.contains(number));
    Ok(Pings { sent: count, received, first_missing, mean, p99 })
}

/// A running iperf3 server that is ended on drop.
#[derive(Debug)]
pub struct IperfServer {
    address: IpAddr,
    process: Process,
}

impl IperfServer {
    /// Starts it in `namespace`, bound to `address`, and waits until it listens.
    ///
    /// # Errors
    /// If it does not; with what it said.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let text = address.to_string();
        let mut process = namespace.spawn("iperf3", ["--server", "--forceflush", "--bind", &text])?;
        process.wait_for_line("Server listening", Duration::from_secs(10))?;
        Ok(Self { address, process })
    }

    /// The server's process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends TCP from `client` to this server for `time`, or the other way if `reverse`.
    ///
    /// # Errors
    /// If the flow breaks; with what iperf3 says.
    pub fn measure(&self, client: &Namespace, time: Duration, reverse: bool) -> Result<Flow> {
        parse_iperf(&self.run(client, time, reverse, &[])?)
    }

    /// Sends UDP datagrams of `length` bytes at `bits_per_second`, like [`IperfServer::measure`].
    ///
    /// # Errors
    /// If the flow breaks; with what iperf3 says.
    pub fn measure_udp(
        &self,
        client: &Namespace,
        time: Duration,
        reverse: bool,
        bits_per_second: u32,
        length: u16,
    ) -> Result<UdpFlow> {
        let args = ["--udp", "--bitrate", &bits_per_second.to_string(), "--length", &length.to_string()];
        parse_iperf_udp(&self.run(client, time, reverse, &args)?)
    }

    /// Runs a client to its end and returns the JSON that it printed.
    fn run(&self, client: &Namespace, time: Duration, reverse: bool, args: &[&str]) -> Result<Value> {
        let mut command = client.command("iperf3");
        command.args(["--json", "--client", &self.address.to_string(), "--connect-timeout", "5000"]);
        command.args(["--time", &time.as_secs().max(1).to_string()]).args(args);
        if reverse {
            command.arg("--reverse");
        }
        let finished = process::finish(&mut command, "", time + Duration::from_secs(30))?;
        // With --json, iperf3 says what went wrong on standard output.
        read_json(&finished.stdout).with_context(|| format!("{} {}\n{}", finished.title, finished.stderr, self.process))
    }
}

/// What one flow of iperf3 achieved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// Payload that arrived, in bits per second.
    pub bits_per_second: f64,
    /// Payload that arrived, in bytes.
    pub bytes: u64,
    /// TCP segments that were sent again.
    pub retransmits: u64,
}

/// What one flow of UDP datagrams achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpFlow {
    /// Datagrams sent.
    pub packets: u64,
    /// Datagrams that did not arrive.
    pub lost: u64,
}

fn read_json(text: &str) -> Result<Value> {
    let json: Value = serde_json::from_str(text).with_context(|| format!("iperf3 printed no JSON: {text}"))?;
    if let Some(error) = json.get("error") {
        bail!("iperf3: {error}");
    }
    Ok(json)
}

fn parse_iperf_udp(json: &Value) -> Result<UdpFlow> {
    let number = |pointer: &str| {
        let number = json.pointer(pointer).and_then(Value::as_u64);
        number.with_context(|| format!("iperf3's JSON has no {pointer}: {json}"))
    };
    Ok(UdpFlow { packets: number("/end/sum/packets")?, lost: number("/end/sum/lost_packets")? })
}

fn parse_iperf(json: &Value) -> Result<Flow> {
    let number = |pointer: &str| json.pointer(pointer).with_context(|| format!("iperf3's JSON has no {pointer}"));
    Ok(Flow {
        bits_per_second: number("/end/sum_received/bits_per_second")?.as_f64().context("bits_per_second")?,
        bytes: number("/end/sum_received/bytes")?.as_u64().context("bytes")?,
        retransmits: number("/end/sum_sent/retransmits")?.as_u64().context("retransmits")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_silence_of_ping_are_read() {
        let run = |answered: &[u32], count: u32| {
            let sent = count + 1;
            let answers: String = answered
                .iter()
                .map(|number| format!("64 bytes from 10.0.0.1: icmp_seq={number} ttl=64 time=0.{number}49 ms\n"))
                .collect();
            let text = format!(
                "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n{answers}From 10.0.0.9 icmp_seq=2 Time to live exceeded\n\n\
                 {sent} packets transmitted, {} received, 20% packet loss, time 804ms\n\
                 rtt min/avg/max/mdev = 0.040/1.500/0.061/0.008 ms\n",
                answered.len()
            );
            parse_ping(&text, count).unwrap()
        };
        let mean = Some(Duration::from_micros(1500));
        let p99 = |micros| Some(Duration::from_micros(micros));
        let expected = Pings { sent: 5, received: 4, first_missing: Some(2), mean, p99: p99(549) };
        assert_eq!(run(&[1, 3, 4, 5], 5), expected, "the sixth is not counted");
        let expected = Pings { sent: 4, received: 4, first_missing: None, mean, p99: p99(449) };
        assert_eq!(run(&[4, 1, 2, 3], 4), expected);
        let expected = Pings { sent: 5, received: 3, first_missing: Some(4), mean, p99: p99(349) };
        assert_eq!(run(&[1, 2, 3], 5), expected);
        let text = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2031ms\npipe 3\n";
        let silence = Pings { sent: 3, received: 0, first_missing: Some(1), mean: None, p99: None };
        assert_eq!(parse_ping(text, 3).unwrap(), silence);
        assert!(parse_ping("ping: connect: Network is unreachable", 1).is_err());
    }

    #[test]
    fn results_and_errors_of_iperf_are_read() {
        let text =
            r#"{"end": {"sum_sent": {"retransmits": 3}, "sum_received": {"bits_per_second": 1e9, "bytes": 125}}}"#;
        let json = read_json(text).unwrap();
        assert_eq!(parse_iperf(&json).unwrap(), Flow { bits_per_second: 1e9, bytes: 125, retransmits: 3 });
        assert!(parse_iperf_udp(&json).is_err());
        let udp = read_json(r#"{"end": {"sum": {"packets": 9, "lost_packets": 2}}}"#).unwrap();
        assert_eq!(parse_iperf_udp(&udp).unwrap(), UdpFlow { packets: 9, lost: 2 });
        let error = read_json(r#"{"end": {}, "error": "unable to connect"}"#).unwrap_err().to_string();
        assert!(error.contains("unable to connect"), "{error}");
        assert!(read_json("").is_err());
    }

    #[test]
    fn tools_are_looked_up() {
        assert!(has_tool("sh").is_some());
        assert!(has_tool("no-such-tool-anywhere").is_none());
    }
}

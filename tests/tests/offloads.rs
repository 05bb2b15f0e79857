//! Packets that are split and joined on their way: what arrives is what was sent, byte by byte and datagram by datagram,
//! whoever is at the other end.
//!
//! Debian's wireguard-go has no offloads, so every segment that Adit makes meets a device that takes it as it is. The
//! counters of the devices say whether offloads were at work at all, or a test of them would test nothing.
#![cfg(target_os = "linux")]

use std::net::IpAddr;
use std::time::Duration;

use adit_tests::counters::{self, Link};
use adit_tests::peers::WireGuardGo;
use adit_tests::streams::short_connections;
use adit_tests::{Adit, Datagrams, Ends, Namespace, Pair, StreamOptions, Streams, tools};
use anyhow::{Context as _, Result, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn wireguard_go_gets_what_adit_splits() -> Result<()> {
    everything_arrives([Some(ON), None], 12 * MIB)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_gets_what_adit_splits() -> Result<()> {
    everything_arrives([Some(ON), Some(ON)], 24 * MIB)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn wireguard_go_gets_what_comes_one_by_one() -> Result<()> {
    everything_arrives([Some(OFF), None], MIB)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn one_end_may_do_without() -> Result<()> {
    everything_arrives([Some(ON), Some(OFF)], MIB)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn both_ends_may_do_without() -> Result<()> {
    everything_arrives([Some(OFF), Some(OFF)], MIB)
}

/// All that there is, through a tunnel whose ends are Adit with these options, or wireguard-go. Each of four connections
/// carries `bytes` in each direction.
fn everything_arrives(kinds: [Option<&[&str]>; 2], bytes: u64) -> Result<()> {
    let tunnel = Tunnel::start(kinds)?;
    let arrives = || -> Result<()> {
        for (here, there) in [(Ends::A4, Ends::B4), (Ends::A6, Ends::B6)] {
            tunnel.streams(there, bytes)?;
            tunnel.datagrams(here, there)?;
        }
        tunnel.unusual_streams()
    };
    arrives().with_context(|| tunnel.describe())?;
    tunnel.stop()
}

/// A tunnel and what its devices can.
struct Tunnel {
    // Dropped before the namespaces that they are in.
    ends: [End; 2],
    pair: Pair,
}

struct End {
    program: Program,
    offloads: bool,
}

enum Program {
    Adit(Adit),
    Go(WireGuardGo),
}

impl Tunnel {
    fn start([a, b]: [Option<&[&str]>; 2]) -> Result<Self> {
        let pair = Pair::new()?;
        let keys = Ends::new()?;
        let b = End::start(&pair.b, &keys.config_b(None), b)?;
        let a = End::start(&pair.a, &keys.config_a(Some(Pair::B4)), a)?;
        ensure!(tools::ping(&pair.a, Ends::B4, 1, Duration::ZERO)?.received == 1, "the tunnel does not carry a ping");
        Ok(Self { ends: [a, b], pair })
    }

    fn sides(&self) -> [(&Namespace, &End); 2] {
        [(&self.pair.a, &self.ends[0]), (&self.pair.b, &self.ends[1])]
    }

    /// Large flows, four in each direction at once; and whether they were joined and split where they should be.
    fn streams(&self, target: IpAddr, bytes: u64) -> Result<()> {
        let sizes = || -> Result<Vec<Link>> { self.sides().iter().map(|(at, end)| Link::of(at, end.link())).collect() };
        let before = sizes()?;
        let streams = StreamOptions { streams: 4, both_ways: true, bytes: Some(bytes), ..StreamOptions::default() };
        self.carry(target, &streams)?;
        for ((before, after), (at, end)) in before.into_iter().zip(sizes()?).zip(self.sides()) {
            for (way, mean) in [("read from", after.mean_out(&before)), ("written to", after.mean_in(&before))] {
                // Without joining, no packet is larger than the MTU.
                let joined = mean > MTU;
                eprintln!("{mean} bytes a packet {way} {} in {}", end.link(), at.name());
                ensure!(joined == end.offloads, "{mean} bytes a packet {way} {} in {}", end.link(), at.name());
            }
        }
        Ok(())
    }

    /// Datagrams of programs that hand over and take many at a time, and of those that do not.
    fn datagrams(&self, here: IpAddr, there: IpAddr) -> Result<()> {
        let largest = usize::try_from(MTU)? - if there.is_ipv4() { 28 } else { 48 };
        for ((from, _), (to, end), target) in
            [(self.sides()[0], self.sides()[1], there), (self.sides()[1], self.sides()[0], here)]
        {
            for (size, last, batch) in [
                (largest, largest, 40),
                (largest, 8, 30),
                (1200, 1199, 20),
                (501, 17, 60),
                (8, 8, 64),
                (9, 8, 2),
                (largest, largest, 1),
                (64, 64, 1),
            ] {
                let both = if batch > 1 { &[true, false][..] } else { &[true] };
                for receive_joined in both.iter().copied() {
                    let datagrams = Datagrams { size, last, batch, count: 700, receive_joined };
                    let arrived = datagrams.send(from, to, target)?;
                    // A batch of two may well come apart on a busy machine, and a datagram of less than its headers is not
                    // joined; but a long batch of longer ones does not come apart altogether.
                    let joined = receive_joined && end.offloads;
                    ensure!(joined || arrived.longest_run == 1, "{datagrams:?}: {arrived:?}");
                    ensure!(
                        !joined || batch < 20 || size < 64 || arrived.longest_run > 1,
                        "{datagrams:?}: {arrived:?}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Flows that may be joined and split in another way than most, or not at all.
    fn unusual_streams(&self) -> Result<()> {
        let usual = StreamOptions { streams: 2, both_ways: true, bytes: Some(2 * MIB), ..StreamOptions::default() };
        let narrow = StreamOptions { mss: Some(536), bytes: Some(MIB), ..usual };
        let odd = StreamOptions { writes: StreamOptions::ODD, ..usual };
        let targets = [Ends::B4, Ends::B6];
        for target in targets {
            self.carry(target, &narrow).context("a small MSS")?;
            self.carry(target, &odd).context("writes of odd sizes")?;
            short_connections(&self.pair.a, &self.pair.b, target, 40)?;
        }
        for (what, settings) in [
            ("without timestamps", &[("ipv4/tcp_timestamps", "0")][..]),
            ("without SACK", &[("ipv4/tcp_sack", "0"), ("ipv4/tcp_timestamps", "1")]),
            ("with ECN", &[("ipv4/tcp_sack", "1"), ("ipv4/tcp_ecn", "1")]),
            ("without flow labels", &[("ipv6/auto_flowlabels", "0")]),
        ] {
            for (at, _) in self.sides() {
                settings.iter().try_for_each(|(key, value)| at.sysctl(key, value))?;
            }
            for target in targets {
                self.carry(target, &usual).context(what)?;
            }
        }
        for (at, _) in self.sides() {
            for counter in ["InECT0Pkts", "Ip6InECT0Pkts"] {
                ensure!(counters::kernel(at, counter)? > 100, "no ECN in {}: {counter}", at.name());
            }
        }
        Ok(())
    }

    fn carry(&self, target: IpAddr, options: &StreamOptions) -> Result<()> {
        let streams = Streams::start(&self.pair.a, &self.pair.b, target, options)?;
        let arrived = streams.finish(LIMIT).with_context(|| format!("{options:?} to {target}"))?;
        let each = options.bytes.unwrap_or_default() * options.streams as u64;
        ensure!(arrived == [each; 2], "{arrived:?} bytes instead of {each} on both ways");
        Ok(())
    }

    fn describe(&self) -> String {
        let of = |(at, end): (&Namespace, &End)| {
            let status = match &end.program {
                Program::Adit(adit) => adit.status().map(|status| format!("{:#}", status.json)).unwrap_or_default(),
                Program::Go(go) => go.link().to_owned(),
            };
            format!("{status}\n{}", at.ip("-s link").unwrap_or_default())
        };
        self.sides().map(of).join("\n")
    }

    fn stop(self) -> Result<()> {
        for end in self.ends {
            if let Program::Adit(mut adit) = end.program {
                adit.status()?.no_drops()?;
                let log = adit.process()?.output();
                ensure!(!log.contains("refuse"), "an offload was refused:\n{log}");
                adit.stop()?;
            }
        }
        Ok(())
    }
}

impl End {
    fn start(at: &Namespace, config: &adit_tests::Quick, options: Option<&[&str]>) -> Result<Self> {
        let Some(options) = options else {
            let go = WireGuardGo::start(at)?;
            let addresses: Vec<&str> = config.addresses.iter().map(String::as_str).collect();
            go.configure(at, &config.wg, &addresses, u32::try_from(MTU)?)?;
            return Ok(Self { program: Program::Go(go), offloads: false });
        };
        let adit = Adit::start_with(at, config, options)?;
        ensure!(adit.status()?.number("/mtu")? == MTU);
        Ok(Self { program: Program::Adit(adit), offloads: options == ON })
    }

    fn link(&self) -> &str {
        match &self.program {
            Program::Adit(adit) => adit.name(),
            Program::Go(go) => go.link(),
        }
    }
}

/// Options of `adit up` with the offloads that the kernel has.
const ON: &[&str] = &[];

/// Options of `adit up` without any.
const OFF: &[&str] = &["--no-offload"];

/// MTU of the tunnel: 1500 less 40 of IPv6, 8 of UDP and 32 of WireGuard.
const MTU: u64 = 1420;

const MIB: u64 = 1 << 20;

/// How long a transfer may take: some twenty times what it needs in a debug build on two cores.
const LIMIT: Duration = Duration::from_secs(60);

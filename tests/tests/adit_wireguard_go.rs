//! `adit` against wireguard-go, in both roles: the same traffic as against itself, and a session's renewal under it.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use adit_tests::peers::WireGuardGo;
use adit_tests::traffic::carries_everything;
use adit_tests::{Adit, Ends, Pair, Probe, Quick, eventually, tools, wg};
use anyhow::{Context as _, Result, anyhow, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_begins_over_ipv4() -> Result<()> {
    everything_is_carried(Role::AditBegins, &Ends::new()?, [Pair::A4, Pair::B4])
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_begins_over_ipv6_with_a_preshared_key() -> Result<()> {
    everything_is_carried(Role::AditBegins, &Ends::new()?.with_psk()?, [Pair::A6, Pair::B6])
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn wireguard_go_begins_over_ipv4_with_a_preshared_key() -> Result<()> {
    everything_is_carried(Role::OtherBegins, &Ends::new()?.with_psk()?, [Pair::A4, Pair::B4])
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn wireguard_go_begins_over_ipv6() -> Result<()> {
    everything_is_carried(Role::OtherBegins, &Ends::new()?, [Pair::A6, Pair::B6])
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn without_the_right_preshared_key_nothing_is_carried() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?;
    let mut adit = Adit::start(&pair.a, &ends.config_a(None))?;
    let go = WireGuardGo::start(&pair.b)?;
    let other = ends.clone().with_psk()?.config_b(Some(Pair::A4));
    configure(&go, &pair, &other)?;
    let probe = Probe::start(&pair.b, &pair.a, Ends::A4, Duration::from_millis(20))?;
    probe.stays_silent(Duration::from_secs(2))?;
    assert_eq!(wg::show(&pair.a, adit.name())?.peer(&ends.b.public_key())?.latest_handshake, None);
    // The right one is enough: neither side has to be restarted. wireguard-go tries again after at most 5.3 s.
    wg::set_config(&pair.b, go.link(), &ends.config_b(Some(Pair::A4)).wg)?;
    probe.resumes(Duration::from_secs(8))?;
    adit.stop()
}

/// Takes two minutes of real time: the slowest of all tests. All roles run at once.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn no_packet_is_lost_when_the_session_is_renewed() -> Result<()> {
    std::thread::scope(|scope| {
        let roles = [Role::AditBegins, Role::OtherBegins, Role::BothAreAdit];
        let threads = roles.map(|role| (role, scope.spawn(move || session_is_renewed(role))));
        for (role, thread) in threads {
            let result = thread.join().map_err(|_| anyhow!("panicked"));
            result.and_then(|result| result).with_context(|| format!("{role:?}"))?;
        }
        Ok(())
    })
}

fn session_is_renewed(role: Role) -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?;
    let mut tunnel = Tunnel::start(role, &pair, &ends, [Pair::A4, Pair::B4])?;
    let begun = Instant::now();
    let probes = [
        Probe::start(&pair.a, &pair.b, Ends::B4, Duration::from_millis(20))?,
        Probe::start(&pair.b, &pair.a, Ends::A6, Duration::from_millis(20))?,
    ];
    for probe in &probes {
        probe.answers(10, Duration::from_secs(5))?;
    }
    let handshakes = || -> Result<[Option<u64>; 2]> {
        let a = wg::show(&pair.a, tunnel.name_a())?.peer(&ends.b.public_key())?.latest_handshake;
        let b = wg::show(&pair.b, tunnel.name_b())?.peer(&ends.a.public_key())?.latest_handshake;
        Ok([a, b])
    };
    let first = handshakes()?;
    ensure!(first.iter().all(Option::is_some), "{first:?}");
    // REKEY_AFTER_TIME is 120 s (whitepaper, section 6.1).
    eventually("a second handshake at both ends", Duration::from_secs(135), || {
        handshakes().is_ok_and(|now| now.iter().zip(&first).all(|(now, first)| now > first))
    })?;
    let renewed = begun.elapsed();
    ensure!((118.0..=130.0).contains(&renewed.as_secs_f64()), "renewed after {renewed:?}");
    for probe in probes {
        probe.answers(100, Duration::from_secs(5))?;
        let probed = probe.finish()?;
        eprintln!("{role:?}: {probed:?}, renewed after {renewed:?}");
        ensure!(probed.lost == 0 && probed.sent > 4000, "{probed:?}");
    }
    tunnel.no_drops()?;
    tunnel.stop()
}

fn everything_is_carried(role: Role, ends: &Ends, underlay: [std::net::IpAddr; 2]) -> Result<()> {
    let pair = Pair::new()?;
    let mut tunnel = Tunnel::start(role, &pair, ends, underlay)?;
    let carried = carries_everything(&pair.a, &pair.b, 1420);
    // What was lost was lost by somebody: this tells whether by Adit.
    let carried = carried.with_context(|| {
        let links = [&pair.a, &pair.b].map(|side| side.ip("-s link").unwrap_or_default());
        format!("{:#?}\n{}", tunnel.a.status().map(|status| status.json), links.join("\n"))
    })?;
    eprintln!("{:?}", carried.flows);
    let dump = wg::show(&pair.a, tunnel.name_a())?;
    let peer = dump.peer(&ends.b.public_key())?;
    assert!(peer.latest_handshake.is_some() && peer.preshared_key == ends.psk, "{peer:?}");
    tunnel.no_drops()?;
    tunnel.stop()
}

/// Who is who: `a` is always Adit, and one of the two does not know where the other is.
#[derive(Debug, Clone, Copy)]
enum Role {
    AditBegins,
    OtherBegins,
    BothAreAdit,
}

struct Tunnel {
    a: Adit,
    b: Other,
}

enum Other {
    Go(WireGuardGo),
    Adit(Adit),
}

impl Tunnel {
    fn start(role: Role, pair: &Pair, ends: &Ends, [at_a, at_b]: [std::net::IpAddr; 2]) -> Result<Self> {
        let a_knows = (!matches!(role, Role::OtherBegins)).then_some(at_b);
        let b_knows = matches!(role, Role::OtherBegins).then_some(at_a);
        let config_b = ends.config_b(b_knows);
        let b = if matches!(role, Role::BothAreAdit) {
            Other::Adit(Adit::start(&pair.b, &config_b)?)
        } else {
            let go = WireGuardGo::start(&pair.b)?;
            configure(&go, pair, &config_b)?;
            Other::Go(go)
        };
        let a = Adit::start(&pair.a, &ends.config_a(a_knows))?;
        // The first packet comes from the side that knows where to send it.
        let (from, to) = if a_knows.is_some() { (&pair.a, Ends::B4) } else { (&pair.b, Ends::A4) };
        ensure!(tools::ping(from, to, 1, Duration::ZERO)?.received == 1, "{role:?}: {}", pair.a.exec("wg", ["show"])?);
        Ok(Self { a, b })
    }

    fn name_a(&self) -> &str {
        self.a.name()
    }

    fn name_b(&self) -> &str {
        match &self.b {
            Other::Go(go) => go.link(),
            Other::Adit(adit) => adit.name(),
        }
    }

    fn no_drops(&self) -> Result<()> {
        self.a.status()?.no_drops()?;
        if let Other::Adit(adit) = &self.b {
            adit.status()?.no_drops()?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        if let Other::Adit(adit) = &mut self.b {
            adit.stop()?;
        }
        self.a.stop()
    }
}

fn configure(go: &WireGuardGo, pair: &Pair, config: &Quick) -> Result<()> {
    let addresses: Vec<&str> = config.addresses.iter().map(String::as_str).collect();
    go.configure(&pair.b, &config.wg, &addresses, 1420)
}

//! Not one packet leaves but the tunnel's own, whatever happens to host, network and engine, as each mode promises it.
//!
//! `a` sends without a pause to destinations that a full tunnel takes, and what it lets out is captured at its router.
//! The events come one after the other; a packet that should not be there is reported with the event before it.
#![cfg(target_os = "linux")]

mod events;
mod run;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use adit_tests::capture::Protocol;
use adit_tests::{Adit, Namespace, Noise, NoiseOptions, Site, Triple, adit};
use anyhow::{Context as _, Result, ensure};
use run::{Mode, Run};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_plain_full_tunnel_keeps_what_wg_quick_keeps() -> Result<()> {
    Run::all(Mode { local: None, kill_switch: false })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_full_tunnel_without_local_networks_leaks_nothing() -> Result<()> {
    Run::all(Mode { local: Some(false), kill_switch: false })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_full_tunnel_with_local_networks_leaks_nothing_else() -> Result<()> {
    Run::all(Mode { local: Some(true), kill_switch: false })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_kill_switch_leaks_nothing() -> Result<()> {
    Run::all(Mode { local: None, kill_switch: true })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_kill_switch_with_local_networks_leaks_nothing_else() -> Result<()> {
    Run::all(Mode { local: Some(true), kill_switch: true })
}

/// A tunnel of a few IPv4 prefixes: with the kill switch nothing else leaves either, of neither family.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_kill_switch_closes_what_a_split_tunnel_does_not_carry() -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    let mut config = site.config(&["10.99.0.0/16"]).with("KillSwitch", "on");
    config.addresses.truncate(1);
    let targets = [Site::BEYOND4, Site::BEYOND6, Site::OPEN4, Site::OPEN6, Site::LOCAL4, Site::LOCAL6, Triple::B6];
    let plain = Noise::start(a, &targets, &NoiseOptions::default())?;
    // It is a router as well, for a host that knows nothing of a tunnel.
    let lan = behind(a)?;
    let forwarded = Noise::start(&lan, &[Site::OPEN4, Site::OPEN6], &NoiseOptions::default())?;
    let mut tunnel = Adit::start(a, &config)?;
    let bound = NoiseOptions { device: Some(Triple::FIRST.to_owned()), ..NoiseOptions::default() };
    let bound = Noise::start(a, &targets, &bound)?;

    let mut capture = site.capture("up")?;
    ensure!(adit_tests::tools::ping(a, Site::BEYOND4, 3, Duration::from_millis(10))?.received == 3);
    // Whoever is refused is told so at once.
    for target in [Site::OPEN4, Site::OPEN6, Site::LOCAL4] {
        let begun = Instant::now();
        let address = SocketAddr::new(target, Noise::TCP);
        let refused = a.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))?;
        let error = refused.err().with_context(|| format!("{target} was reached"))?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{target}: {error}");
        ensure!(begun.elapsed() < Duration::from_secs(1), "{target} took {:?}", begun.elapsed());
    }
    capture.phase("killed");
    tunnel.kill()?;
    adit_tests::wait::pass(Duration::from_millis(300));
    capture.phase("underlay down and up while dead");
    site.flap()?;
    adit_tests::wait::pass(Duration::from_millis(300));
    let seen = capture.finish()?;
    seen.only(|_, packet| Site::is_tunnel(packet))?;
    ensure!(seen.in_phase("up").any(Site::is_tunnel), "the tunnel's own packets were not seen");

    // The command that undoes it opens everything again.
    let open = site.capture("recovered")?;
    adit::run_in(a, ["recover", tunnel.name()])?.success()?;
    for target in targets.into_iter().filter(|target| *target != Triple::B6) {
        adit_tests::capture::sees(&open, &format!("{target} to be open again"), SOON, |packet| {
            packet.target() == Some(target) && matches!(packet.protocol, Protocol::Udp(_, Noise::UDP))
        })?;
    }
    for (from, to) in [(LAN4, Site::OPEN4), (LAN6, Site::OPEN6)] {
        adit_tests::capture::sees(&open, &format!("{to} to be open again for others"), SOON, |packet| {
            packet.addresses == Some((from, to))
        })?;
    }
    drop((plain, bound, forwarded));
    Ok(())
}

/// A host with [`LAN4`] and [`LAN6`] whose only way is through `a`.
fn behind(a: &Namespace) -> Result<Namespace> {
    let lan = Namespace::new("lan")?;
    a.ip(&format!("link add lan0 type veth peer name up0 netns {}", lan.name()))?;
    for (host, link, four, six) in [(a, "lan0", "192.168.60.254", "fd60::fe"), (&lan, "up0", "192.168.60.1", "fd60::1")]
    {
        host.ip(&format!("addr add {four}/24 dev {link}"))?;
        host.ip(&format!("addr add {six}/64 dev {link}"))?;
        host.ip(&format!("link set {link} up"))?;
    }
    for gateway in ["192.168.60.254", "fd60::fe"] {
        lan.ip(&format!("route add default via {gateway} dev up0"))?;
    }
    a.sysctl("ipv4/ip_forward", "1")?;
    a.sysctl("ipv6/conf/all/forwarding", "1")?;
    Ok(lan)
}

const LAN4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 60, 1));
const LAN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd60, 0, 0, 0, 0, 0, 0, 1));

const SOON: Duration = Duration::from_secs(5);

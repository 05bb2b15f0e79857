//! A tunnel that takes everything: nothing loops, nothing leaks when it is cut, and afterwards all is as it was.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use adit_tests::beyond::{BEYOND4, BEYOND6, far_end, full_tunnel};
use adit_tests::{Adit, Ends, HostState, Namespace, Probe, Triple, adit, eventually, process, tools};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn everything_goes_through_the_tunnel_and_down_restores_the_host() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let before = HostState::of(&triple.a)?;
    ensure_reached(&triple.a, Reached::Nothing)?;

    let mut a = Adit::daemon(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    ensure_reached(&triple.a, Reached::ThroughTheTunnel)?;
    // Twenty-four pings and as many answers, and no datagram of the tunnel's own among them: that would grow without end.
    let status = a.status()?;
    status.no_drops()?;
    assert!(status.number("/engine/packets_out")? < 200, "{:#}", status.json);
    assert_ne!(HostState::of(&triple.a)?, before);

    // The endpoint's own address is reached through the tunnel as well, for only the tunnel's datagrams are marked.
    let packets = status.number("/engine/packets_out")?;
    assert_eq!(tools::ping(&triple.a, Triple::B6, 3, STEP)?.received, 3);
    assert!(a.status()?.number("/engine/packets_out")? >= packets + 3);

    a.stop()?;
    before.ensure_unchanged(&triple.a)?;
    ensure_reached(&triple.a, Reached::Nothing)?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_killed_tunnel_lets_nothing_out_until_it_is_recovered() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let before = HostState::of(&triple.a)?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B6))?;
    ensure_reached(&triple.a, Reached::ThroughTheTunnel)?;
    a.kill()?;
    ensure_closed(&triple.a)?;

    let mut recover = triple.a.command(adit::binary()?);
    let said = process::finish(recover.args(["recover", a.name()]), "", process::RUN_LIMIT)?.success()?;
    assert!(said.contains("undone"), "{said}");
    before.ensure_unchanged(&triple.a)?;

    // What was recovered starts again; `down` recovers as well, and so does the next start.
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    a.kill()?;
    let mut down = triple.a.command(adit::binary()?);
    process::finish(down.args(["down", a.name()]), "", process::RUN_LIMIT)?.success()?;
    assert!(a.left().is_empty(), "{:?}", a.left());
    before.ensure_unchanged(&triple.a)?;
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    a.kill()?;
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    ensure_reached(&triple.a, Reached::ThroughTheTunnel)?;
    a.stop()?;
    before.ensure_unchanged(&triple.a)?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_interface_that_is_removed_lets_nothing_out_and_ends_the_tunnel() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let before = HostState::of(&triple.a)?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    ensure_reached(&triple.a, Reached::ThroughTheTunnel)?;
    // It is held, so that the state in between can be looked at.
    a.process()?.signal(Signal::SIGSTOP)?;
    triple.a.ip(&format!("link delete {}", a.name()))?;
    let closed = ensure_closed(&triple.a);
    a.process()?.signal(Signal::SIGCONT)?;
    closed?;
    let said = a.fails_closed()?;
    for part in ["the device is gone", "the host stays closed", &format!("adit down {}", a.name())] {
        assert!(said.contains(part), "{said}");
    }
    ensure_closed(&triple.a)?;

    // The next start takes over, and once more it ends by itself; then `down` opens the host.
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    ensure_reached(&triple.a, Reached::ThroughTheTunnel)?;
    triple.a.ip(&format!("link delete {}", a.name()))?;
    a.fails_closed()?;
    ensure_closed(&triple.a)?;
    let mut down = triple.a.command(adit::binary()?);
    process::finish(down.args(["down", a.name()]), "", process::RUN_LIMIT)?.success()?;
    before.ensure_unchanged(&triple.a)?;
    assert!(a.left().is_empty(), "{:?}", a.left());

    // A split tunnel has nothing to protect.
    a.write(&ends.config_a(Some(Triple::B4)))?;
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    triple.a.ip(&format!("link delete {}", a.name()))?;
    let said = a.fails()?;
    assert!(said.contains("the device is gone") && !said.contains("closed"), "{said}");
    before.ensure_unchanged(&triple.a)?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_full_tunnel_follows_its_host_to_another_way() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    let probe = Probe::start(&triple.a, &triple.b, BEYOND6, STEP)?;
    probe.answers(20, SOON)?;
    let before_moving = HostState::of(&triple.a)?;
    for (link, address) in [(Triple::SECOND, Triple::SECOND4), (Triple::FIRST, Triple::A4)] {
        triple.take(link)?;
        probe.answers(50, SOON).with_context(|| format!("over {link}"))?;
        let endpoint = SocketAddr::new(address, Ends::PORT).to_string();
        eventually("the other end to follow", SOON, || {
            b.status()
                .is_ok_and(|status| status.peer(&ends.a.public_key()).is_ok_and(|peer| peer.endpoint() == endpoint))
        })?;
    }
    drop(probe);
    let difference = before_moving.difference(&HostState::of(&triple.a)?);
    ensure!(!difference.lines().any(|line| line.starts_with('-')), "something is gone:\n{difference}");
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_tunnel_becomes_a_full_one_and_back_without_losing_a_packet() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let split = ends.config_a(Some(Triple::B6));
    let mut a = Adit::start(&triple.a, &split)?;
    let before = HostState::of(&triple.a)?;
    let probe = Probe::start(&triple.a, &triple.b, Ends::B4, STEP)?;
    probe.answers(20, SOON)?;
    for _ in 0..2 {
        ensure_reached(&triple.a, Reached::Nothing)?;
        a.write(&full_tunnel(&ends, Triple::B6))?;
        a.reload()?;
        ensure_reached(&triple.a, Reached::ThroughTheTunnel)?;
        a.write(&split)?;
        a.reload()?;
        before.ensure_unchanged(&triple.a)?;
    }
    let probed = probe.finish()?;
    assert_eq!(probed.lost, 0, "{probed:?}");
    assert_eq!(a.status()?.number("/fwmark")?, 0);
    a.stop()?;
    b.stop()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    ThroughTheTunnel,
    Nothing,
}

/// Fails unless what is beyond `b` is reached as expected; the router on the own link is reached in any case.
fn ensure_reached(a: &Namespace, reached: Reached) -> Result<()> {
    for beyond in [BEYOND4, BEYOND6] {
        let pings = tools::ping(a, beyond, 3, STEP)?;
        ensure!(pings.received == if reached == Reached::Nothing { 0 } else { 3 }, "{beyond}, {reached:?}: {pings:?}");
    }
    for router in [ROUTER4, ROUTER6] {
        let pings = tools::ping(a, router, 3, STEP)?;
        ensure!(pings.received == 3, "{router}: {pings:?}");
    }
    Ok(())
}

/// Fails if a packet to anywhere but the own link has a way out.
fn ensure_closed(a: &Namespace) -> Result<()> {
    for target in [BEYOND4, BEYOND6, Triple::B4, Triple::B6] {
        let way = a.ip(&format!("route get {target}"));
        ensure!(way.is_err(), "{target} has a way: {way:?}");
    }
    for router in [ROUTER4, ROUTER6] {
        ensure!(tools::ping(a, router, 1, STEP)?.received == 1, "{router} is on the own link");
    }
    Ok(())
}

/// The router's addresses on the first way of `a`.
const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254));
const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe));

const STEP: Duration = Duration::from_millis(10);

const SOON: Duration = Duration::from_secs(7);

//! An end that changes its address or port is followed, and no packet goes astray for long.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_tests::peers::WireGuardGo;
use adit_tests::{Adit, Ends, Namespace, Pair, Probe, Quick, Triple, eventually, wg};
use anyhow::{Context as _, Result, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_follows_adit_over_ipv4() -> Result<()> {
    let triple = Triple::new()?;
    let ends = Ends::new()?;
    let mut b = Adit::start(&triple.b, &ends.config_b(None))?;
    let mut a = Adit::start(&triple.a, &ends.config_a(Some(Triple::B4)))?;
    let follows = |endpoint: SocketAddr| {
        b.status().is_ok_and(|status| {
            status.peer(&ends.a.public_key()).is_ok_and(|peer| peer.endpoint() == endpoint.to_string())
        })
    };
    moves(&triple, [Triple::A4, Triple::SECOND4], follows)?;
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_follows_wireguard_go_over_ipv6() -> Result<()> {
    let triple = Triple::new()?;
    let ends = Ends::new()?;
    let mut b = Adit::start(&triple.b, &ends.config_b(None))?;
    let _a = wireguard_go(&triple.a, &ends.config_a(Some(Triple::B6)))?;
    let name = b.name().to_owned();
    let follows = |endpoint| follows_in_wg(&triple.b, &name, &ends, endpoint);
    moves(&triple, [Triple::A6, Triple::SECOND6], follows)?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn wireguard_go_follows_adit_over_ipv6() -> Result<()> {
    let triple = Triple::new()?;
    let ends = Ends::new()?;
    let b = wireguard_go(&triple.b, &ends.config_b(None))?;
    let mut a = Adit::start(&triple.a, &ends.config_a(Some(Triple::B6)))?;
    let follows = |endpoint| follows_in_wg(&triple.b, b.link(), &ends, endpoint);
    moves(&triple, [Triple::A6, Triple::SECOND6], follows)?;
    a.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn another_port_is_followed() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let mut a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B4)))?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.resumes(SOON)?;
    for port in [40001, 40002, Ends::PORT] {
        wg::set(&pair.a, a.name(), &format!("listen-port {port}"))?;
        probe.answers(50, SOON).with_context(|| format!("from port {port}"))?;
        let endpoint = SocketAddr::new(Pair::A4, port);
        eventually("the endpoint to follow", SOON, || follows_in_wg(&pair.b, b.name(), &ends, endpoint))?;
        assert_eq!(a.status()?.number("/listen_port")?, u64::from(port));
    }
    let probed = probe.finish()?;
    // Answers that were on their way to the old port.
    ensure!(probed.lost <= 3 * 2, "{probed:?}");
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_underlay_that_was_away_is_used_again_with_the_same_session() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let mut a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B4)))?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.answers(20, SOON)?;
    for _ in 0..2 {
        pair.a.ip(&format!("link set {} down", Pair::LINK))?;
        probe.stays_silent(Duration::from_millis(300))?;
        pair.a.ip(&format!("link set {} up", Pair::LINK))?;
        probe.answers(20, SOON)?;
    }
    drop(probe);
    let status = a.status()?;
    assert_eq!(status.number("/engine/handshakes_sent")?, 1, "{:#}", status.json);
    // What could not be sent is counted, and nothing else is dropped.
    let drops = status.json.pointer("/drops").and_then(serde_json::Value::as_object).cloned().unwrap_or_default();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["send_failed"], "{drops:?}");
    a.stop()?;
    b.stop()
}

/// Moves `a` to its second way and back, while it sends, and asks each time whether `b` follows.
fn moves(triple: &Triple, addresses: [IpAddr; 2], follows: impl Fn(SocketAddr) -> bool) -> Result<()> {
    let probe = Probe::start(&triple.a, &triple.b, Ends::B4, STEP)?;
    probe.resumes(SOON)?;
    let [first, second] = addresses.map(|address| SocketAddr::new(address, Ends::PORT));
    ensure!(follows(first), "the first endpoint is another one");
    for (link, endpoint) in [(Triple::SECOND, second), (Triple::FIRST, first), (Triple::SECOND, second)] {
        triple.take(link)?;
        probe.answers(50, SOON).with_context(|| format!("over {link}"))?;
        eventually("the endpoint to follow", SOON, || follows(endpoint)).with_context(|| endpoint.to_string())?;
    }
    let probed = probe.finish()?;
    eprintln!("{probed:?}");
    // `a` has no way at all for the time of two or three runs of `ip`.
    ensure!(probed.longest_gap < Duration::from_secs(2), "{probed:?}");
    Ok(())
}

fn follows_in_wg(namespace: &Namespace, link: &str, ends: &Ends, endpoint: SocketAddr) -> bool {
    let shown = wg::show(namespace, link);
    shown.is_ok_and(|dump| dump.peer(&ends.a.public_key()).is_ok_and(|peer| peer.endpoint == Some(endpoint)))
}

fn wireguard_go(namespace: &Namespace, config: &Quick) -> Result<WireGuardGo> {
    let go = WireGuardGo::start(namespace)?;
    let addresses: Vec<&str> = config.addresses.iter().map(String::as_str).collect();
    go.configure(namespace, &config.wg, &addresses, 1420)?;
    Ok(go)
}

const STEP: Duration = Duration::from_millis(10);

const SOON: Duration = Duration::from_secs(5);

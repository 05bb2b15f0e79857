//! A changed file is applied to a running tunnel, and peers that did not change do not notice.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use adit_core::PrivateKey;
use adit_tests::{Adit, Ends, Namespace, Pair, Probe, Quick, adit, eventually, tools, wg};
use anyhow::Result;
use nix::sys::signal::Signal;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_unchanged_peer_loses_nothing_whatever_else_changes() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(Some(Pair::A4)))?;
    let mut config = ends.config_a(Some(Pair::B4));
    let mut a = Adit::start(&pair.a, &config)?;
    let key = ends.b.public_key();
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.answers(10, SOON)?;
    let begun = wg::show(&pair.a, a.name())?.peer(&key)?.latest_handshake;

    // A second peer, with a route.
    let stranger = wg::private_key()?;
    config.wg.peers.push(peer(&stranger, &["10.78.0.0/24", "fd78::/64"]));
    reload(&mut a, &config, How::Signal)?;
    assert_eq!(wg::show(&pair.a, a.name())?.peer(&stranger.public_key())?.allowed_ips, ["10.78.0.0/24", "fd78::/64"]);
    assert!(routes(&pair.a, &a)?.contains("10.78.0.0/24"));
    probe.answers(20, SOON)?;

    // Other prefixes for it.
    config.wg.peers[1].allowed_ips = vec!["10.79.0.0/24".to_owned()];
    reload(&mut a, &config, How::Command)?;
    let routes_now = routes(&pair.a, &a)?;
    assert!(routes_now.contains("10.79.0.0/24") && !routes_now.contains("10.78.0.0/24"), "{routes_now}");
    assert!(!routes_now.contains("fd78::/64"), "{routes_now}");
    probe.answers(20, SOON)?;

    // Another MTU, there and back.
    for mtu in [1300, 1380] {
        config.mtu = Some(mtu);
        reload(&mut a, &config, How::Signal)?;
        assert_eq!(a.status()?.number("/mtu")?, u64::from(mtu));
        assert!(pair.a.ip(&format!("link show {}", a.name()))?.contains(&format!("mtu {mtu} ")));
        probe.answers(20, SOON)?;
    }

    // Its removal.
    config.wg.peers.truncate(1);
    reload(&mut a, &config, How::Command)?;
    assert_eq!(wg::show(&pair.a, a.name())?.peers.len(), 1);
    assert!(!routes(&pair.a, &a)?.contains("10.79.0.0/24"));
    probe.answers(20, SOON)?;

    // A file that says the same, and one that was not touched.
    reload(&mut a, &config, How::Command)?;
    a.reload()?;
    probe.answers(20, SOON)?;

    let probed = probe.finish()?;
    assert_eq!(probed.lost, 0, "{probed:?}");
    let peer = wg::show(&pair.a, a.name())?;
    assert_eq!(peer.peer(&key)?.latest_handshake, begun, "the session is the same one");
    b.status()?.no_drops()?;
    a.status()?.no_drops()?;
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn another_port_is_bound_and_the_session_goes_on() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let mut config = ends.config_a(Some(Pair::B4));
    let mut a = Adit::start(&pair.a, &config)?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.answers(10, SOON)?;
    let handshakes = a.status()?.number("/engine/handshakes_sent")?;
    for (port, how) in [(40001, How::Signal), (40002, How::Command)] {
        config.wg.listen_port = Some(port);
        reload(&mut a, &config, how)?;
        probe.answers(20, SOON)?;
        let endpoint = SocketAddr::new(Pair::A4, port).to_string();
        eventually("the other end to follow", SOON, || {
            b.status()
                .is_ok_and(|status| status.peer(&ends.a.public_key()).is_ok_and(|peer| peer.endpoint() == endpoint))
        })?;
    }
    let probed = probe.finish()?;
    // Answers that were on their way to the old port.
    assert!(probed.lost <= 2 * 2, "{probed:?}");
    assert_eq!(a.status()?.number("/engine/handshakes_sent")?, handshakes);
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_file_that_cannot_be_used_changes_nothing() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let config = ends.config_a(Some(Pair::B4));
    let mut a = Adit::start(&pair.a, &config)?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.answers(10, SOON)?;
    let before = state(&pair.a, &a)?;

    // A port that somebody else has, with other changes that must not be applied then.
    let taken = pair.a.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    let mut busy = config.clone();
    busy.wg.listen_port = Some(taken.local_addr()?.port());
    busy.mtu = Some(1280);
    busy.wg.peers.push(peer(&wg::private_key()?, &["10.78.0.0/24"]));
    // A key that is too long, a key that does not exist, half a file, and none.
    let good = config.to_text();
    let bad = [
        (busy.to_text(), taken.local_addr()?.port().to_string()),
        (good.replacen("PublicKey = ", "PublicKey = AAAA", 1), "PublicKey".to_owned()),
        (good.replacen("AllowedIPs", "AlowedIPs", 1), "AllowedIPs".to_owned()),
        (
            good.split_once("AllowedIPs").map_or("", |(half, _)| half.trim_end_matches("=\n")).to_owned(),
            "PublicKey".to_owned(),
        ),
        (good.split_once("PrivateKey").map(|(head, _)| head.to_owned()).unwrap_or_default(), "PrivateKey".to_owned()),
        (String::new(), "[Interface]".to_owned()),
    ];
    for (text, names) in &bad {
        a.write_text(text)?;
        let reload = adit::run(["reload", a.name()])?;
        assert!(!reload.status.success() && reload.stdout.is_empty(), "{reload:?}");
        assert!(reload.stderr.contains(names), "{names}: {reload:?}");
        assert_eq!(state(&pair.a, &a)?, before, "{reload:?}");

        a.process()?.signal(Signal::SIGHUP)?;
        let line = a.expect_error("the configuration was not reloaded")?;
        assert!(line.contains(names), "{names}: {line}");
        assert_eq!(state(&pair.a, &a)?, before, "{line}");
    }
    probe.answers(20, SOON)?;
    let probed = probe.finish()?;
    assert_eq!(probed.lost, 0, "{probed:?}");

    // The next good one is taken.
    a.write(&config)?;
    a.reload()?;
    assert_eq!(tools::ping(&pair.a, Ends::B6, 3, STEP)?.received, 3);
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn another_private_key_begins_new_sessions() -> Result<()> {
    let pair = Pair::new()?;
    let mut ends = Ends::new()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let mut a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B4)))?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.answers(10, SOON)?;
    let old = ends.a.public_key();
    ends.a = wg::private_key()?;

    // The other end knows the new key only: what it is sent with the old one's session is refused.
    reload(&mut b, &ends.config_b(None), How::Command)?;
    assert!(wg::show(&pair.b, b.name())?.peer(&old).is_err());
    probe.stays_silent(Duration::from_millis(300))?;
    reload(&mut a, &ends.config_a(Some(Pair::B4)), How::Signal)?;
    assert_eq!(wg::show(&pair.a, a.name())?.public_key, Some(ends.a.public_key()));
    probe.resumes(SOON)?;
    assert!(wg::show(&pair.b, b.name())?.peer(&ends.a.public_key())?.latest_handshake.is_some());
    drop(probe);
    a.stop()?;
    b.stop()
}

#[derive(Debug, Clone, Copy)]
enum How {
    Signal,
    Command,
}

/// Writes the file and has it applied; returns when it is.
fn reload(adit: &mut Adit, config: &Quick, how: How) -> Result<()> {
    let before = std::fs::read_to_string(adit.path())?;
    adit.write(config)?;
    match how {
        How::Command => adit.reload()?,
        How::Signal => adit.process()?.signal(Signal::SIGHUP)?,
    }
    if config.to_text() != before {
        adit.wait_for_line("the configuration was reloaded")?;
    }
    Ok(())
}

/// What can be seen of a tunnel, but for its counters.
fn state(namespace: &Namespace, adit: &Adit) -> Result<(wg::Dump, String, String)> {
    let mut dump = wg::show(namespace, adit.name())?;
    for peer in &mut dump.peers {
        (peer.sent, peer.received) = (0, 0);
    }
    Ok((dump, routes(namespace, adit)?, namespace.ip(&format!("address show {}", adit.name()))?))
}

fn routes(namespace: &Namespace, adit: &Adit) -> Result<String> {
    let name = adit.name();
    Ok(namespace.ip(&format!("-4 route show dev {name}"))? + &namespace.ip(&format!("-6 route show dev {name}"))?)
}

fn peer(key: &PrivateKey, prefixes: &[&str]) -> wg::Peer {
    wg::Peer {
        public_key: key.public_key(),
        preshared_key: None,
        allowed_ips: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        endpoint: None,
        persistent_keepalive: None,
    }
}

/// A hundred a second.
const STEP: Duration = Duration::from_millis(10);

const SOON: Duration = Duration::from_secs(7);

//! A tunnel that is told everything by wg(8), as scripts and other programs do.
#![cfg(target_os = "linux")]

use std::time::Duration;

use adit_core::PrivateKey;
use adit_tests::{Adit, Ends, Namespace, Pair, Probe, Quick, process, tools, wg};
use anyhow::Result;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_bare_tunnel_is_configured_by_wg_set() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let mut a = Adit::start(&pair.a, &bare(&ends.config_a(None)))?;
    let key = ends.b.public_key();
    assert!(wg::show(&pair.a, a.name())?.peers.is_empty());
    // Without a peer there is no way, and a clear answer.
    assert_eq!(tools::ping(&pair.a, Ends::B4, 1, STEP)?.received, 0);

    let mut set = pair.a.command("wg");
    set.args(["set", a.name(), "listen-port", "40000", "peer", &key.to_string(), "preshared-key", "/dev/stdin"]);
    set.args(["endpoint", &format!("{}:{}", Pair::B4, Ends::PORT), "persistent-keepalive", "25"]);
    set.args(["allowed-ips", &format!("{},{}", Ends::B4, Ends::B6)]);
    let psk = ends.psk.as_ref().expect("it has one").to_base64();
    process::finish(&mut set, &psk, process::RUN_LIMIT)?.success()?;
    // The prefixes of its addresses lead there: wg(8) sets no routes.
    for target in [Ends::B4, Ends::B6] {
        assert_eq!(tools::ping(&pair.a, target, 5, STEP)?.received, 5, "{target}");
    }
    let dump = wg::show(&pair.a, a.name())?;
    let peer = dump.peer(&key)?;
    assert_eq!((dump.listen_port, peer.persistent_keepalive), (40000, Some(25)));
    assert_eq!(peer.allowed_ips, [format!("{}/32", Ends::B4), format!("{}/128", Ends::B6)]);
    assert_eq!(peer.preshared_key, ends.psk);

    // A prefix that is taken away is closed in both directions, the other one stays open.
    wg::set(&pair.a, a.name(), &format!("peer {key} allowed-ips {}", Ends::B6))?;
    assert_eq!(tools::ping(&pair.a, Ends::B4, 2, STEP)?.received, 0);
    assert_eq!(tools::ping(&pair.b, Ends::A4, 2, STEP)?.received, 0);
    assert_eq!(tools::ping(&pair.a, Ends::B6, 2, STEP)?.received, 2);

    let probe = Probe::start(&pair.a, &pair.b, Ends::B6, STEP)?;
    probe.resumes(SOON)?;
    wg::set(&pair.a, a.name(), &format!("peer {key} remove"))?;
    probe.stays_silent(Duration::from_secs(1))?;
    drop(probe);
    assert!(wg::show(&pair.a, a.name())?.peers.is_empty());
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_is_shown_can_be_set_again_and_keeps_sessions_where_wg_says_so() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?.with_keepalive(25);
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let full = ends.config_a(Some(Pair::B4));
    let mut a = Adit::start(&pair.a, &bare(&full))?;
    let key = ends.b.public_key();

    wg::set_config(&pair.a, a.name(), &full.wg)?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.resumes(SOON)?;
    let session = || -> Result<_> { Ok(wg::show(&pair.a, a.name())?.peer(&key)?.latest_handshake) };
    let begun = session()?;
    assert!(begun.is_some());

    // A second peer is added, changed and removed while the first is at work.
    let stranger = wg::private_key()?;
    let with_stranger = |prefix: &str| {
        let mut config = full.wg.clone();
        config.peers.push(peer(&stranger, prefix));
        config
    };
    let mut added = full.wg.clone();
    added.peers = vec![peer(&stranger, "10.78.0.0/24")];
    wg::add_config(&pair.a, a.name(), &added)?;
    for (config, peers) in
        [(with_stranger("10.79.0.0/24"), 2), (full.wg.clone(), 1), (with_stranger("10.80.0.0/24"), 2)]
    {
        wg::sync_config(&pair.a, a.name(), &config)?;
        let dump = wg::show(&pair.a, a.name())?;
        assert_eq!(dump.peers.len(), peers);
        if let Some(expected) = config.peers.get(1) {
            assert_eq!(dump.peer(&stranger.public_key())?.allowed_ips, expected.allowed_ips);
        }
        probe.answers(10, SOON)?;
    }
    assert_eq!(session()?, begun, "the session of a peer that did not change is the same one");
    let probed = probe.finish()?;
    assert_eq!(probed.lost, 0, "{probed:?}");

    // What it shows is what it can be told, to the letter.
    let shown = pair.a.exec("wg", ["showconf", a.name()])?;
    set_text(&pair.a, a.name(), &shown)?;
    assert_eq!(lines(&pair.a.exec("wg", ["showconf", a.name()])?), lines(&shown));
    for line in
        [format!("ListenPort = {}", Ends::PORT), format!("PublicKey = {key}"), "PersistentKeepalive = 25".into()]
    {
        assert!(shown.lines().any(|shown| shown == line), "{line}");
    }
    // setconf begins anew; traffic goes on with a new session.
    assert_eq!(tools::ping(&pair.a, Ends::B6, 3, STEP)?.received, 3);
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_wg_has_configured_is_saved_where_the_file_says_so() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let full = ends.config_a(Some(Pair::B6));
    let mut file = bare(&full);
    file.lines.push("SaveConfig = true".to_owned());
    let mut a = Adit::start(&pair.a, &file)?;
    wg::add_config(&pair.a, a.name(), &full.wg)?;
    assert_eq!(tools::ping(&pair.a, Ends::B4, 2, STEP)?.received, 2);
    a.stop()?;
    let saved = std::fs::read_to_string(a.path())?;
    let endpoint = format!("Endpoint = [{}]:{}", Pair::B6, Ends::PORT);
    for line in [format!("PublicKey = {}", ends.b.public_key()), endpoint, format!("ListenPort = {}", Ends::PORT)] {
        assert!(saved.lines().any(|saved| saved == line), "{line}: {saved}");
    }
    // It comes up again with what was saved, and is saved again as it was.
    a.launch_again(&pair.a)?;
    a.wait_up()?;
    assert_eq!(tools::ping(&pair.a, Ends::B6, 2, STEP)?.received, 2);
    a.stop()?;
    assert_eq!(std::fs::read_to_string(a.path())?, saved);
    b.stop()
}

/// A file with a key and addresses, and nothing else.
fn bare(config: &Quick) -> Quick {
    let mut config = config.clone();
    config.wg.peers.clear();
    config.wg.listen_port = None;
    config
}

fn peer(key: &PrivateKey, prefix: &str) -> wg::Peer {
    wg::Peer {
        public_key: key.public_key(),
        preshared_key: None,
        allowed_ips: vec![prefix.to_owned()],
        endpoint: None,
        persistent_keepalive: None,
    }
}

fn set_text(namespace: &Namespace, link: &str, text: &str) -> Result<()> {
    let mut command = namespace.command("wg");
    process::finish(command.args(["setconf", link, "/dev/stdin"]), text, process::RUN_LIMIT)?.success()?;
    Ok(())
}

/// The lines, in an order of their own: that of the peers is not part of the configuration.
fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

const STEP: Duration = Duration::from_millis(10);

const SOON: Duration = Duration::from_secs(7);

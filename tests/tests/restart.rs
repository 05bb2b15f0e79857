//! An end that is restarted loses its sessions; traffic goes on once the two have found each other again.
//!
//! An end that knows where the other is finds it as soon as it is up. One that does not has to be found: the other end
//! notices after KEEPALIVE_TIMEOUT + REKEY_TIMEOUT = 15 s that nothing comes back (whitepaper, section 6.1).
#![cfg(target_os = "linux")]

use std::time::Duration;

use adit_tests::peers::WireGuardGo;
use adit_tests::{Adit, Ends, Namespace, Pair, Probe, Quick};
use anyhow::{Context as _, Result};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_that_knows_its_peer_is_stopped_and_killed_and_returns() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_keepalive(1);
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    let mut a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B4)))?;
    let probe = Probe::start(&pair.b, &pair.a, Ends::A4, STEP)?;
    probe.resumes(AT_ONCE)?;
    for kill in [false, true, false] {
        restart(&mut a, &pair.a, kill, &probe)?;
        probe.resumes(AT_ONCE).with_context(|| format!("killed: {kill}"))?;
    }
    drop(probe);
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_that_is_killed_is_found_by_adit() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let mut a = Adit::start(&pair.a, &ends.config_a(None))?;
    let mut b = Adit::start(&pair.b, &ends.config_b(Some(Pair::A6)))?;
    let probe = Probe::start(&pair.b, &pair.a, Ends::A6, STEP)?;
    probe.resumes(AT_ONCE)?;
    restart(&mut a, &pair.a, true, &probe)?;
    probe.resumes(FOUND)?;
    drop(probe);
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_that_is_killed_is_found_by_wireguard_go() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_keepalive(1);
    let mut a = Adit::start(&pair.a, &ends.config_a(None))?;
    let _go = wireguard_go(&pair.b, &ends.config_b(Some(Pair::A4)), None)?;
    let probe = Probe::start(&pair.b, &pair.a, Ends::A4, STEP)?;
    probe.resumes(AT_ONCE)?;
    restart(&mut a, &pair.a, true, &probe)?;
    probe.resumes(FOUND)?;
    drop(probe);
    a.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn adit_that_is_killed_finds_wireguard_go() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?;
    let _go = wireguard_go(&pair.b, &ends.config_b(None), None)?;
    let mut a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B6)))?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B6, STEP)?;
    probe.resumes(AT_ONCE)?;
    for kill in [true, true, false] {
        restart(&mut a, &pair.a, kill, &probe)?;
        probe.resumes(AT_ONCE).with_context(|| format!("killed: {kill}"))?;
    }
    drop(probe);
    a.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn wireguard_go_that_is_restarted_finds_adit() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_keepalive(1);
    let mut a = Adit::start(&pair.a, &ends.config_a(None))?;
    let config = ends.config_b(Some(Pair::A4));
    let go = wireguard_go(&pair.b, &config, None)?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.resumes(AT_ONCE)?;
    let link = go.link().to_owned();
    drop(go);
    probe.stays_silent(Duration::from_millis(300))?;
    let _go = wireguard_go(&pair.b, &config, Some(&link))?;
    probe.resumes(AT_ONCE)?;
    drop(probe);
    a.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn wireguard_go_that_is_restarted_is_found_by_adit() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let config = ends.config_b(None);
    let go = wireguard_go(&pair.b, &config, None)?;
    let mut a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B4)))?;
    let probe = Probe::start(&pair.a, &pair.b, Ends::B4, STEP)?;
    probe.resumes(AT_ONCE)?;
    let link = go.link().to_owned();
    drop(go);
    let _go = wireguard_go(&pair.b, &config, Some(&link))?;
    probe.resumes(FOUND)?;
    drop(probe);
    a.stop()
}

/// Ends `adit` and starts it again; in between nothing gets through.
fn restart(adit: &mut Adit, namespace: &Namespace, kill: bool, probe: &Probe) -> Result<()> {
    if kill {
        adit.kill()?;
        assert!(!adit.left().is_empty(), "a journal is left by a process that was killed");
    } else {
        adit.stop()?;
    }
    probe.stays_silent(Duration::from_millis(200))?;
    adit.launch_again(namespace)?;
    adit.wait_up()
}

fn wireguard_go(namespace: &Namespace, config: &Quick, link: Option<&str>) -> Result<WireGuardGo> {
    let go = match link {
        Some(link) => WireGuardGo::start_named(namespace, link)?,
        None => WireGuardGo::start(namespace)?,
    };
    let addresses: Vec<&str> = config.addresses.iter().map(String::as_str).collect();
    go.configure(namespace, &config.wg, &addresses, 1420)?;
    Ok(go)
}

const STEP: Duration = Duration::from_millis(20);

/// For an end that begins by itself. A handshake that crosses another one, or comes within 20 ms of the last, is lost
/// and sent again after REKEY_TIMEOUT, 5 s.
const AT_ONCE: Duration = Duration::from_secs(7);

/// For an end that has to be found: 15 s, a retransmission, and a slow machine.
const FOUND: Duration = Duration::from_secs(25);

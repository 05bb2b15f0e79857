//! `adit status` of a tunnel, of all of them, of somebody else's, and again and again.

use std::time::Duration;

use adit_tests::peers::WireGuardGo;
use adit_tests::{Process, names};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::{Host, LIMIT, STRANGER, assert_failed};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_tunnel_is_shown_to_people_and_to_programs() -> Result<()> {
    let host = Host::new("status")?;
    host.write(&format!(
        "Address = 10.9.0.1/24\nMTU = 1300\nFwMark = 0x2a\nListenPort = 51820\n[Peer]\nPublicKey = {STRANGER}\n\
         AllowedIPs = 10.9.1.0/24\nEndpoint = 198.51.100.9:51820\nPersistentKeepalive = 25\n\
         PresharedKey = {}",
        adit_tests::wg::preshared_key()?.to_base64()
    ))?;
    host.up("")?.success()?;

    let text = host.adit(&format!("status {}", host.name))?.success()?;
    for part in [
        &format!("tunnel: {}", host.name),
        &format!("  public key: {}", host.key.public_key()),
        "  listening port: 51820",
        "  fwmark: 0x2a",
        "  mtu: 1300",
        &format!("peer: {STRANGER}"),
        "  preshared key: (hidden)",
        "  endpoint: 198.51.100.9:51820",
        "  allowed ips: 10.9.1.0/24",
        "  latest handshake: (none)",
        "  persistent keepalive: every 25 seconds",
    ] {
        assert!(text.contains(part), "«{part}» expected in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours into a file");
    let text = host.adit(&format!("--color always status {}", host.name))?.success()?;
    assert!(text.contains('\u{1b}'), "{text}");

    let status = host.status()?;
    assert_eq!(status["name"], *host.name);
    assert_eq!(status["config"], *host.file().to_str().unwrap());
    assert_eq!((&status["fwmark"], &status["mtu"], &status["listen_port"]), (&42.into(), &1300.into(), &51820.into()));
    assert!(status["uptime_s"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{status}");
    assert!(status["drops"].is_object() && status["engine"]["packets_out"].is_u64(), "{status}");
    let [peer] = status["peers"].as_array().context("peers")?.as_slice() else { panic!("{status}") };
    assert_eq!(peer["public_key"], *STRANGER);
    assert_eq!(peer["has_preshared_key"], true);
    assert_eq!(peer["latest_handshake_age_s"], Value::Null);

    let all: Vec<Value> = serde_json::from_str(&host.adit("status --json")?.success()?)?;
    assert!(all.iter().any(|tunnel| tunnel["name"] == *host.name), "{all:?}");
    host.adit(&format!("down {}", host.name))?.success()?;
    assert_failed(&host.adit(&format!("status {} --json", host.name))?, 6, "is not up");
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_watched_tunnel_is_shown_until_an_interrupt_or_its_end() -> Result<()> {
    let host = Host::new("watch")?;
    host.write("Address = 10.9.0.1/24")?;
    host.up("")?.success()?;
    let watch = || {
        let words = ["status", &host.name, "--watch", "--json", "--interval", "0.1"];
        Process::start("adit status", &mut host.command(words))
    };
    let mut watched = watch()?;
    for _ in 0..3 {
        let line = watched.wait_for_line("{", LIMIT)?;
        assert_eq!(serde_json::from_str::<Value>(&line)?["name"], *host.name, "one look is one line");
    }
    watched.signal(Signal::SIGINT)?;
    assert_eq!(watched.wait_exit(Duration::from_secs(5))?.code(), Some(0), "{watched}");

    let mut watched = watch()?;
    watched.wait_for_line("{", LIMIT)?;
    host.adit(&format!("down {}", host.name))?.success()?;
    assert_eq!(watched.wait_exit(Duration::from_secs(5))?.code(), Some(6), "{watched}");
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_device_of_another_program_is_left_to_it() -> Result<()> {
    let host = Host::new("foreign")?;
    let link = names::link("wgo");
    let _other = WireGuardGo::start_named(host.namespace(), &link)?;
    for verb in ["status", "down", "reload"] {
        let run = host.adit(&format!("{verb} {link}"))?;
        assert_failed(&run, 6, &format!("{link} is not a tunnel of Adit's"));
    }
    assert!(!host.adit("status")?.success()?.contains(&link));
    host.write("")?;
    let run = host.adit(&format!("up --interface {link} {}", host.file().display()))?;
    assert_failed(&run, 5, &link);
    let _ = std::fs::remove_file(format!("/run/adit/{link}.log"));
    Ok(())
}

//! The VPN host in C (ffi/tests/host.c) against wireguard-go: a tunnel that somebody else's program has for a part.
#![cfg(target_os = "linux")]

use std::time::Duration;

use adit_tests::peers::WireGuardGo;
use adit_tests::traffic::carries_everything;
use adit_tests::{Ends, Namespace, Pair, Process, names, tools, wg};
use anyhow::{Context as _, Result, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_borrowed_descriptor_carries_everything() -> Result<()> {
    against_wireguard_go(&[])
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_descriptor_that_is_given_away_and_attached_late_carries_everything() -> Result<()> {
    against_wireguard_go(&["--owned", "--late"])
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_interface_that_is_deleted_ends_the_tunnel_and_not_the_host() -> Result<()> {
    let pair = Pair::new()?;
    let (_go, mut host) = start(&pair, &Ends::new()?, &[])?;
    pair.a.ip(&format!("link delete {}", host.link))?;
    host.process.wait_for_line("ended the tunnel's descriptor failed", SOON)?;
    ensure!(host.process.wait_exit(SOON)?.success(), "{}", host.process);
    Ok(())
}

fn against_wireguard_go(options: &[&str]) -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?;
    let (go, mut host) = start(&pair, &ends, options)?;
    let carried = carries_everything(&pair.a, &pair.b, 1420).with_context(|| host.process.to_string())?;
    eprintln!("{:?}", carried.flows);
    let dump = wg::show(&pair.b, go.link())?;
    ensure!(dump.peer(&ends.a.public_key())?.latest_handshake.is_some(), "{dump:?}");
    ensure!(host.process.stop(SOON)?.success(), "{}", host.process);
    let output = host.process.output();
    let numbers = output.lines().find_map(|line| line.strip_prefix("stats ")).context("no numbers")?;
    ensure!(numbers.ends_with("drops 0"), "{output}");
    ensure!(output.lines().any(|line| line == "ended success"), "{output}");
    // What was made by the host went with it; wireguard-go is there, and alone.
    ensure!(tools::ping(&pair.b, Ends::A4, 1, Duration::ZERO)?.received == 0, "somebody answers");
    Ok(())
}

/// The host, with its interface.
struct Host {
    link: String,
    process: Process,
    _folder: tempfile::TempDir,
}

/// Starts wireguard-go in `b` and the host in `a`, which knows where the other is.
fn start(pair: &Pair, ends: &Ends, options: &[&str]) -> Result<(WireGuardGo, Host)> {
    let go = WireGuardGo::start(&pair.b)?;
    let of_go = ends.config_b(None);
    let addresses: Vec<&str> = of_go.addresses.iter().map(String::as_str).collect();
    go.configure(&pair.b, &of_go.wg, &addresses, 1420)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tunnel.conf");
    std::fs::write(&file, ends.config_a(Some(Pair::B4)).to_text())?;
    let link = names::link("chost");
    let mut command = host_command(&pair.a)?;
    command.args(["--device", &link, "--config"]).arg(&file).args(options).arg("tun");
    let process = Process::start("host", &mut command)?;
    let mut host = Host { link, process, _folder: folder };
    host.process.wait_for_line("ready", SOON)?;
    Ok((go, host))
}

fn host_command(namespace: &Namespace) -> Result<std::process::Command> {
    let host =
        std::env::var_os("ADIT_HOST").context("ADIT_HOST is not set: `cargo xtask test` compiles the host in C")?;
    Ok(namespace.command(host))
}

const SOON: Duration = Duration::from_secs(20);

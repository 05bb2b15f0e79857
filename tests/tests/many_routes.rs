//! A hundred thousand prefixes: up within seconds, and down again without a trace.
#![cfg(target_os = "linux")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use adit_tests::{Adit, HostState, Site, adit};
use anyhow::{Result, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_hundred_thousand_routes_come_and_go() -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    let before = HostState::of(a)?;
    // Every second /28 from 60.0.0.0 on, so that no two can be joined; and what is really there.
    let prefixes = (0..PREFIXES).map(|number| format!("{}/28", Ipv4Addr::from(0x3c00_0000 + number * 32)));
    let prefixes: Vec<String> = prefixes.chain(["10.99.0.0/16".to_owned(), "fd99::/48".to_owned()]).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let plain = site.config(&prefixes);
    for (name, config) in [
        ("plain", plain.clone()),
        ("strict, kill switch", plain.clone().with("ExcludedIPs", "10.99.5.0/24").with("KillSwitch", "on")),
    ] {
        let begun = Instant::now();
        let mut tunnel = Adit::launch(a, &config)?;
        tunnel.process()?.wait_for_line("\"tunnel is up\"", LIMIT)?;
        let up = begun.elapsed();
        let table = if name == "plain" { "main" } else { "51820" };
        let added = a.ip(&format!("-4 route show table {table} proto 173"))?.lines().count();
        ensure!(added >= PREFIXES as usize, "{name}: only {added} routes");
        site.ensure_beyond(true)?;

        // A change of one costs less than all of them again, and so does one that fails.
        let begun = Instant::now();
        let mut less = prefixes.clone();
        less.remove(17);
        tunnel.write(&config.clone().allowing(&less))?;
        ensure!(
            adit_tests::process::finish(
                std::process::Command::new(adit::binary()?).args(["reload", tunnel.name()]),
                "",
                LIMIT
            )?
            .status
            .success()
        );
        let reload = begun.elapsed();
        site.ensure_beyond(true)?;

        let begun = Instant::now();
        let process = tunnel.process()?;
        ensure!(process.stop(LIMIT)?.success(), "{process}");
        let down = begun.elapsed();
        eprintln!("{name}: up in {up:.1?}, reloaded in {reload:.1?}, down in {down:.1?}");
        ensure!(up < LIMIT && down < LIMIT, "{name}: up in {up:?}, down in {down:?}");
        before.ensure_unchanged(a)?;
        ensure!(tunnel.left().is_empty(), "{:?}", tunnel.left());
    }
    Ok(())
}

/// Besides those that are tried.
const PREFIXES: u32 = 100_000;

/// Generous: on a machine with nothing else to do it takes a few seconds.
const LIMIT: Duration = Duration::from_secs(60);

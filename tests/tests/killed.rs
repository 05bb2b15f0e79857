//! Killed at any moment of `up`, `reload` or `down`: `adit recover` puts the host back as it was, byte for byte.
//!
//! The moments are random by a seed that is printed; `ADIT_SEED` repeats them. The short form takes a few of each;
//! `cargo xtask routing` takes more.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use adit_tests::wait::pass;
use adit_tests::{Adit, HostState, Quick, Site, adit};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_start_that_is_killed_is_undone() -> Result<()> {
    let mut killer = Killer::new("up", 1)?;
    let usual = killer.measure(|site, config, _| {
        let mut tunnel = Adit::launch(site.a(), config)?;
        let begun = Instant::now();
        tunnel.wait_up()?;
        let took = begun.elapsed();
        tunnel.stop()?;
        Ok(took)
    })?;
    killer.each(&usual, |killer, config, _, usual| {
        let mut tunnel = Adit::launch(killer.site.a(), config)?;
        killer.wait(usual);
        tunnel.kill()?;
        Ok(tunnel)
    })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_reload_that_is_killed_is_undone() -> Result<()> {
    let mut killer = Killer::new("reload", 2)?;
    let usual = killer.measure(|site, config, other| {
        let mut tunnel = Adit::start(site.a(), config)?;
        tunnel.write(other)?;
        let begun = Instant::now();
        tunnel.process()?.signal(Signal::SIGHUP)?;
        tunnel.wait_for_line("the configuration was reloaded")?;
        let took = begun.elapsed();
        tunnel.stop()?;
        Ok(took)
    })?;
    killer.each(&usual, |killer, config, other, usual| {
        let mut tunnel = Adit::start(killer.site.a(), config)?;
        tunnel.write(other)?;
        tunnel.process()?.signal(Signal::SIGHUP)?;
        killer.wait(usual);
        tunnel.kill()?;
        Ok(tunnel)
    })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_stop_that_is_killed_is_undone() -> Result<()> {
    let mut killer = Killer::new("down", 3)?;
    let usual = killer.measure(|site, config, _| {
        let mut tunnel = Adit::start(site.a(), config)?;
        let begun = Instant::now();
        tunnel.process()?.signal(Signal::SIGTERM)?;
        tunnel.wait_for_line("\"tunnel is down\"")?;
        let took = begun.elapsed();
        tunnel.stop()?;
        Ok(took)
    })?;
    killer.each(&usual, |killer, config, _, usual| {
        let mut tunnel = Adit::start(killer.site.a(), config)?;
        tunnel.process()?.signal(Signal::SIGTERM)?;
        // Everything is undone in the beginning; after that the device goes, which takes longer.
        killer.wait(usual / 3);
        tunnel.kill()?;
        Ok(tunnel)
    })
}

/// The next start undoes as well, and then works; and what is undone twice is not undone more.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_start_after_a_kill_takes_over() -> Result<()> {
    let site = Site::new()?;
    let before = HostState::of(site.a())?;
    let [full, split, ..] = modes(&site);
    let mut tunnel = Adit::start(site.a(), &full)?;
    let up = HostState::of(site.a())?;
    tunnel.kill()?;
    tunnel.launch_again(site.a())?;
    tunnel.wait_up()?;
    site.ensure_beyond(true)?;
    // Nothing has piled up: but for the device's number, which nobody sees here, it is as at the first start.
    let again = up.difference(&HostState::of(site.a())?);
    let piled: Vec<&str> = again.lines().filter(|line| line.starts_with('+') && line.contains("proto 173")).collect();
    ensure!(piled.is_empty(), "{again}");
    tunnel.kill()?;
    // Another configuration of the same name finds and undoes what the former one needed and it does not.
    tunnel.write(&split)?;
    tunnel.launch_again(site.a())?;
    tunnel.wait_up()?;
    site.ensure_beyond(true)?;
    tunnel.kill()?;
    for _ in 0..2 {
        adit::run_in(site.a(), ["recover", tunnel.name()])?.success()?;
        before.ensure_unchanged(site.a())?;
    }
    ensure!(tunnel.left().is_empty(), "{:?}", tunnel.left());
    Ok(())
}

/// Kills tunnels and compares what is left after `adit recover` with what was before.
struct Killer {
    site: Site,
    what: &'static str,
    before: HostState,
    random: fastrand::Rng,
    kills: usize,
}

impl Killer {
    fn new(what: &'static str, number: u64) -> Result<Self> {
        let random = match std::env::var("ADIT_SEED") {
            Ok(seed) => seed.parse().context("ADIT_SEED: a number")?,
            Err(_) => fastrand::u64(..),
        };
        let kills =
            std::env::var("ADIT_KILLS").map_or(Ok(KILLS), |text| text.parse().context("ADIT_KILLS: a number"))?;
        eprintln!("{what}: {kills} kills, ADIT_SEED={random}");
        let site = Site::new()?;
        let before = HostState::of(site.a())?;
        let random = fastrand::Rng::with_seed(random.wrapping_add(number));
        Ok(Self { site, what, before, random, kills: kills.div_ceil(3) })
    }

    /// How long it usually takes, in each mode.
    fn measure(&mut self, work: impl Fn(&Site, &Quick, &Quick) -> Result<Duration>) -> Result<Vec<Duration>> {
        let modes = modes(&self.site);
        let mut usual = Vec::new();
        for (config, other) in modes.iter().zip(modes.iter().cycle().skip(1)) {
            usual.push(work(&self.site, config, other)?);
            self.before.ensure_unchanged(self.site.a())?;
        }
        eprintln!("{}: usually {usual:.1?}", self.what);
        Ok(usual)
    }

    fn each(
        &mut self,
        usual: &[Duration],
        work: impl Fn(&mut Self, &Quick, &Quick, Duration) -> Result<Adit>,
    ) -> Result<()> {
        let mut left = 0;
        for number in 0..self.kills {
            let modes = modes(&self.site);
            let first = self.random.usize(..modes.len());
            let second = (first + 1 + self.random.usize(..modes.len() - 1)) % modes.len();
            let (config, other) = (&modes[first], &modes[second]);
            let context = format!("{} {number}, mode {first}, other mode {second}", self.what);
            let usual = usual.get(first).copied().unwrap_or_default();
            let tunnel = work(self, config, other, usual).context(context.clone())?;
            left += usize::from(!self.before.difference(&HostState::of(self.site.a())?).is_empty());
            let recovered = adit::run_in(self.site.a(), ["recover", tunnel.name()])?.success();
            recovered.with_context(|| context.clone())?;
            self.before.ensure_unchanged(self.site.a()).with_context(|| context.clone())?;
            ensure!(tunnel.left().is_empty(), "{context}: {:?}", tunnel.left());
        }
        eprintln!("{}: {left} of {} had left something behind", self.what, self.kills);
        Ok(())
    }

    /// Waits for any part of the time that it usually takes, and a little more.
    fn wait(&mut self, usual: Duration) {
        pass(usual.mul_f64(self.random.f64() * 1.1));
    }
}

fn modes(site: &Site) -> [Quick; 5] {
    [
        site.full(),
        site.config(&["10.99.0.0/16", "fd99::/48"]),
        site.full().with("KillSwitch", "on").with("ExcludeLocalNetworks", "on"),
        site.config(&["10.0.0.0/8", "fd00::/8"]).with("ExcludedIPs", "10.98.0.0/16, fd98::/48"),
        site.config(&["10.99.0.0/16", "fd99::/48", "0.0.0.0/0"]).with("Table", 1234),
    ]
}

/// Of all three kinds together.
const KILLS: usize = 18;

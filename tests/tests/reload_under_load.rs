//! Reloads while a transfer and pings go on: what does not concern them does not touch them, and what cannot be applied
//! leaves everything as it was.
#![cfg(target_os = "linux")]

use std::time::Duration;

use adit_tests::{Adit, Ends, HostState, Probe, Quick, Site, StreamOptions, Streams, adit, eventually, tools, wg};
use anyhow::{Context as _, Result, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn nothing_is_lost_when_something_unrelated_changes_in_a_split_tunnel() -> Result<()> {
    let site = Site::new()?;
    let split = site.config(&["10.99.0.0/16", "fd99::/48", "10.77.0.2/32"]);
    let steps = [
        ("a peer", with_peer(&split, &["10.78.0.0/24", "fd78::/64"])?),
        ("an allowed IP", split.clone().allowing(&["10.99.0.0/16", "fd99::/48", "10.77.0.2/32", "198.18.0.0/24"])),
        ("one less", split.clone()),
        ("an exclusion", split.clone().with("ExcludedIPs", "10.99.5.0/24, fd99:0:0:5::/64")),
        ("another exclusion", split.clone().with("ExcludedIPs", "10.99.6.0/24")),
        ("no exclusion", split.clone()),
        ("a kill switch", split.clone().with("KillSwitch", "on")),
        ("a kill switch and an exclusion", split.clone().with("KillSwitch", "on").with("ExcludedIPs", "10.99.7.0/24")),
        ("no kill switch", split.clone()),
        ("local networks", split.clone().with("ExcludeLocalNetworks", "on")),
        ("no local networks", split.clone().with("ExcludeLocalNetworks", "off")),
        ("everything", site.full()),
        ("as in the beginning", split.clone()),
    ];
    lose_nothing(&site, &split, &steps)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn nothing_is_lost_when_something_unrelated_changes_in_a_full_tunnel() -> Result<()> {
    let site = Site::new()?;
    let full = site.full();
    let steps = [
        ("a peer", with_peer(&full, &["10.78.0.0/24", "fd78::/64"])?),
        ("no such peer", full.clone()),
        ("an exclusion", full.clone().with("ExcludedIPs", "198.18.0.0/24, 2001:db8:99::/48")),
        ("no exclusion", full.clone()),
        ("a kill switch", full.clone().with("KillSwitch", "on")),
        ("a kill switch and more", full.clone().with("KillSwitch", "on").with("ExcludedIPs", "198.18.0.0/24")),
        ("no kill switch", full.clone().with("ExcludeLocalNetworks", "off")),
        ("local networks", full.clone().with("ExcludeLocalNetworks", "on")),
        ("less", site.config(&["10.99.0.0/16", "fd99::/48", "10.77.0.2/32"])),
        ("as in the beginning", full.clone()),
    ];
    lose_nothing(&site, &full, &steps)
}

/// Goes through the steps under load.
fn lose_nothing(site: &Site, first: &Quick, steps: &[(&str, Quick)]) -> Result<()> {
    let (a, b) = (site.a(), &site.triple.b);
    let mut tunnel = Adit::start(a, first)?;
    let key = site.ends.b.public_key();
    let handshake = wg::show(a, tunnel.name())?.peer(&key)?.latest_handshake;
    // Two transfers whose queues never overflow, so that a packet that is lost was lost by a reload.
    let options = StreamOptions { both_ways: true, mss: Some(1200), ..StreamOptions::default() };
    let streams = [Site::BEYOND4, Site::BEYOND6].map(|target| Streams::start(a, b, target, &options));
    let [four, six] = streams;
    let streams = [four?, six?];
    // ping(8) as well, for as long as the steps take.
    let pings = std::thread::scope(|scope| -> Result<_> {
        let pings = scope.spawn(|| tools::ping(a, Site::BEYOND4, PINGS, STEP));
        for (name, config) in steps {
            let probes = probes(site)?;
            tunnel.write(config)?;
            tunnel.reload().with_context(|| format!("«{name}»"))?;
            let arrived: Vec<u64> = streams.iter().flat_map(Streams::arrived).collect();
            let on = || streams.iter().flat_map(Streams::arrived).zip(&arrived).all(|(now, before)| now > *before);
            eventually("every transfer to go on", SOON, on).with_context(|| format!("«{name}»"))?;
            for probe in probes {
                lost_nothing(probe).with_context(|| format!("«{name}»"))?;
            }
        }
        pings.join().map_err(|_| anyhow::anyhow!("the thread of ping panicked"))?
    })?;
    ensure!(pings.received == pings.sent, "pings were lost: {pings:?}");
    for streams in streams {
        let totals = streams.finish(SOON)?;
        ensure!(totals.iter().all(|bytes| *bytes > 1_000_000), "{totals:?}");
    }
    let peer = wg::show(a, tunnel.name())?;
    ensure!(peer.peer(&key)?.latest_handshake == handshake, "the session is another one");
    tunnel.stop()
}

/// A reload that fails half-way is taken back whole: the host is as before, byte for byte, and traffic flows on.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_cannot_be_applied_leaves_the_old_one_whole() -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    // In the way of a split tunnel in main.
    a.ip("route add 10.98.0.0/16 via 198.51.100.254 dev first0")?;
    let split = site.config(&["10.99.0.0/16", "fd99::/48"]);
    let olds = [
        split.clone(),
        split.clone().with("KillSwitch", "on").with("ExcludedIPs", "10.99.5.0/24"),
        site.full(),
        site.full().with("ExcludeLocalNetworks", "on"),
    ];
    for (number, old) in olds.iter().enumerate() {
        let mut tunnel = Adit::start(a, old)?;
        // In the way of one in a table of its own, now that it is known which one that is.
        a.ip("route add 10.97.0.0/16 via 198.51.100.254 dev first0 table 51820")?;
        let before = HostState::of(a)?;
        let status = wg::show(a, tunnel.name())?;
        let mut other_address = split.clone();
        other_address.addresses.push("10.66.0.1/24".to_owned());
        let strict = old.clone().with("KillSwitch", "on");
        let bad = [
            ("a route of somebody else", other_address.allowing(&["10.99.0.0/16", "10.98.0.0/16", "10.96.0.0/16"])),
            ("a table of somebody else", strict.allowing(&["0.0.0.0/0", "10.97.0.0/16", "10.99.0.0/16", "fd99::/48"])),
            ("an MTU too small for IPv6", site.full().with("MTU", 1000)),
            ("both in and out", site.full().with("ExcludedIPs", "0.0.0.0/0")),
        ];
        for (name, config) in bad {
            if name == "a table of somebody else" && status.fwmark.is_none() {
                // One that routes in main takes another table.
                continue;
            }
            let probes = probes(&site)?;
            tunnel.write(&config)?;
            let reload = adit::run(["reload", tunnel.name()])?;
            ensure!(!reload.status.success(), "«{name}» was applied over {number}: {reload:?}");
            before.ensure_unchanged(a).with_context(|| format!("«{name}» over {number}: {}", reload.stderr))?;
            let after = wg::show(a, tunnel.name())?;
            ensure!(after.fwmark == status.fwmark && after.peers.len() == status.peers.len(), "{status:?}\n{after:?}");
            for probe in probes {
                lost_nothing(probe).with_context(|| format!("«{name}» over {number}"))?;
            }
        }
        a.ip("route del 10.97.0.0/16 via 198.51.100.254 dev first0 table 51820")?;
        // The next good one is taken.
        tunnel.write(&split)?;
        tunnel.reload()?;
        site.ensure_beyond(true)?;
        tunnel.stop()?;
    }
    Ok(())
}

/// A hundred datagrams a second to the far end, by either family.
fn probes(site: &Site) -> Result<[Probe; 2]> {
    let probe = |target| Probe::start(site.a(), &site.triple.b, target, STEP);
    let probes = [probe(Site::BEYOND4)?, probe(Site::BEYOND6)?];
    probes.iter().try_for_each(|probe| probe.answers(5, SOON))?;
    Ok(probes)
}

fn lost_nothing(probe: Probe) -> Result<()> {
    probe.answers(5, SOON)?;
    let probed = probe.finish()?;
    ensure!(probed.lost == 0, "datagrams were lost: {probed:?}");
    Ok(())
}

fn with_peer(config: &Quick, prefixes: &[&str]) -> Result<Quick> {
    let mut config = config.clone();
    config.wg.peers.push(wg::Peer {
        public_key: wg::private_key()?.public_key(),
        preshared_key: None,
        allowed_ips: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        endpoint: Some(std::net::SocketAddr::new(adit_tests::Triple::B6, Ends::PORT + 1)),
        persistent_keepalive: None,
    });
    Ok(config)
}

/// A hundred a second.
const STEP: Duration = Duration::from_millis(10);

/// Some seconds of them.
const PINGS: u32 = 400;

const SOON: Duration = Duration::from_secs(8);

//! What is excluded from a tunnel leaves as if there were none: by whatever gateway there is, and also when the tunnel's
//! device or engine is gone.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_tests::{Adit, Ends, Namespace, Probe, Quick, Site, Triple, adit, eventually, tools};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn exclusions_follow_a_new_gateway_within_a_second() -> Result<()> {
    let site = Site::new()?;
    for config in [excluding(&site), excluding(&site).with("KillSwitch", "on")] {
        let mut tunnel = Adit::start(site.a(), &config)?;
        let excluded = open_probes(&site)?;
        let inside = Probe::start(site.a(), &site.triple.b, Site::BEYOND4, STEP)?;
        excluded.iter().try_for_each(|probe| probe.answers(10, SECOND))?;
        site.route_by(Site::OTHER_GATEWAY4, Site::OTHER_GATEWAY6)?;
        excluded.iter().try_for_each(|probe| probe.resumes(SECOND).map(drop)).context("another gateway")?;
        for way in [Triple::SECOND, Triple::FIRST] {
            site.triple.take(way)?;
            for probe in &excluded {
                probe.resumes(SECOND).with_context(|| format!("over {way}"))?;
            }
            inside.resumes(SOON).with_context(|| format!("through the tunnel, over {way}"))?;
        }
        // They leave by the gateway, and not through the tunnel.
        for target in [Site::OPEN4, Site::OPEN6] {
            ensure!(way_to(site.a(), target)?.contains(Triple::FIRST), "{}", way_to(site.a(), target)?);
        }
        // A host without any gateway, and with one again.
        for family in ["-4", "-6"] {
            site.a().ip(&format!("{family} route del default"))?;
        }
        excluded.iter().try_for_each(|probe| probe.stays_silent(Duration::from_millis(200)))?;
        site.route_by(Site::GATEWAY4, Site::GATEWAY6)?;
        excluded.iter().try_for_each(|probe| probe.resumes(SECOND).map(drop)).context("a gateway again")?;
        inside.resumes(SOON).context("through the tunnel, by a gateway again")?;
        drop((excluded, inside));
        tunnel.stop()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn exclusions_keep_flowing_while_the_tunnel_is_gone() -> Result<()> {
    let site = Site::new()?;
    for config in [excluding(&site), excluding(&site).with("KillSwitch", "on")] {
        let mut tunnel = Adit::start(site.a(), &config)?;
        let excluded = open_probes(&site)?;
        excluded.iter().try_for_each(|probe| probe.answers(20, SECOND))?;

        tunnel.kill()?;
        excluded.iter().try_for_each(|probe| probe.answers(30, SECOND)).context("killed")?;
        site.ensure_beyond(false)?;
        tunnel.launch_again(site.a())?;
        tunnel.wait_up()?;
        site.ensure_beyond(true)?;

        tunnel.process()?.signal(Signal::SIGSTOP)?;
        site.a().ip(&format!("link delete {}", tunnel.name()))?;
        let without_device = excluded.iter().try_for_each(|probe| probe.answers(30, SECOND));
        tunnel.process()?.signal(Signal::SIGCONT)?;
        without_device.context("without a device")?;
        ensure!(!tunnel.process()?.wait_exit(SOON)?.success(), "it ends well without its device");
        excluded.iter().try_for_each(|probe| probe.answers(30, SECOND)).context("ended by itself")?;
        site.ensure_beyond(false)?;

        adit::run_in(site.a(), ["recover", tunnel.name()])?.success()?;
        excluded.iter().try_for_each(|probe| probe.answers(30, SECOND)).context("recovered")?;
        for probe in excluded {
            let probed = probe.finish()?;
            ensure!(probed.lost == 0, "excluded traffic was lost: {probed:?}");
        }
    }
    Ok(())
}

/// In, out, in and out again: the longest prefix says which, in both families, also next to its edges.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_longest_prefix_wins_at_any_depth() -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    let config = site
        .config(&["198.18.0.0/15", "198.18.0.0/20", "198.18.0.64/26", "2001:db8:80::/41", "2001:db8:99:0::/64"])
        .with("ExcludedIPs", "198.18.0.0/16, 198.18.0.0/24, 198.18.0.96/27")
        .with("ExcludedIPs ", "2001:db8:99::/48, 2001:db8:99::/96");
    let mut tunnel = Adit::start(a, &config)?;
    let name = tunnel.name().to_owned();
    let inside = [
        "198.19.0.0",
        "198.19.255.255",
        "198.18.1.0",
        "198.18.15.255",
        "198.18.0.64",
        "198.18.0.95",
        "2001:db8:80::",
        "2001:db8:98:ffff:ffff:ffff:ffff:ffff",
        "2001:db8:99:0:0:1::",
        "2001:db8:9a::",
        "2001:db8:ff:ffff::1",
    ];
    let outside = [
        "198.17.255.255",
        "198.20.0.0",
        "198.18.16.0",
        "198.18.255.255",
        "198.18.0.1",
        "198.18.0.63",
        "198.18.0.96",
        "198.18.0.127",
        "198.18.0.128",
        "2001:db8:7f::1",
        "2001:db8:99::1",
        "2001:db8:99::ffff:ffff",
        "2001:db8:99:1::",
        "2001:db8:100::",
    ];
    for (targets, device) in [(&inside[..], name.as_str()), (&outside[..], Triple::FIRST)] {
        for target in targets {
            let way = way_to(a, target.parse()?)?;
            ensure!(way.contains(&format!(" dev {device} ")), "{target} should leave by {device}: {way}");
        }
    }
    // And it is not only said: packets go there.
    let status = |tunnel: &Adit| tunnel.status()?.number("/engine/packets_out");
    let before = status(&tunnel)?;
    for target in [Site::OPEN4, Site::OPEN6] {
        ensure!(tools::ping(a, target, 3, STEP)?.received == 3, "{target} is not reached");
    }
    ensure!(status(&tunnel)? == before, "excluded packets went through the tunnel");

    // Without the engine what is excluded flows on; and a reload that takes an exclusion away takes it in.
    let probe = Probe::start(a, &site.triple.router, Site::OPEN4, STEP)?;
    tunnel.kill()?;
    probe.answers(20, SECOND)?;
    tunnel.launch_again(a)?;
    tunnel.wait_up()?;
    tunnel.write(&site.config(&["198.18.0.0/15", "2001:db8:80::/41"]).with("ExcludedIPs", "198.18.9.0/24"))?;
    tunnel.reload()?;
    for target in [Site::OPEN4, Site::OPEN6] {
        ensure!(way_to(a, target)?.contains(&format!(" dev {name} ")), "{}", way_to(a, target)?);
        ensure!(tools::ping(a, target, 3, STEP)?.received == 3, "{target} is not reached through the tunnel");
    }
    drop(probe);
    tunnel.stop()
}

/// Local networks are those that are connected, and they are followed: when one comes or goes, so does its exception.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn local_networks_come_and_go() -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    for kill_switch in ["off", "on"] {
        let config = site.full().with("ExcludeLocalNetworks", "on").with("KillSwitch", kill_switch);
        let mut tunnel = Adit::start(a, &config)?;
        let tunnel_name = format!(" dev {} ", tunnel.name());
        let by = |target: IpAddr, device: &str| way_to(a, target).is_ok_and(|way| way.contains(device));
        let underlay = format!(" dev {} ", Triple::FIRST);
        ensure!(by(Site::LOCAL4, &underlay) && by(Site::LOCAL6, &underlay), "{}", way_to(a, Site::LOCAL4)?);
        for target in [Site::LOCAL4, Site::LOCAL6] {
            ensure!(
                tools::ping(a, target, 2, STEP)?.received == 2,
                "{target} is not reached, KillSwitch {kill_switch}"
            );
        }
        // A public network is not trusted because it is connected, nor a private one that is not.
        for target in [Site::GATEWAY4, Site::GATEWAY6] {
            ensure!(by(target, &tunnel_name), "{}", way_to(a, target)?);
        }
        a.ip("route add 172.16.0.0/12 via 198.51.100.254")?;
        a.ip("addr add 192.168.77.1/24 dev second0")?;
        let new: IpAddr = "192.168.77.9".parse()?;
        let second = format!(" dev {} ", Triple::SECOND);
        eventually("a new local network to be reached", SECOND, || by(new, &second))?;
        ensure!(by("172.16.5.5".parse()?, &tunnel_name), "{}", way_to(a, "172.16.5.5".parse()?)?);
        a.ip("addr del 192.168.77.1/24 dev second0")?;
        eventually("what is not local any more to be taken in", SECOND, || by(new, &tunnel_name))?;
        a.ip("route del 172.16.0.0/12 via 198.51.100.254")?;
        tunnel.stop()?;
    }
    Ok(())
}

/// Without marks and rules an endpoint inside the tunnel's own prefixes would be sent into the tunnel, and for ever.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_endpoint_inside_the_tunnels_prefixes_does_not_loop() -> Result<()> {
    let site = Site::new()?;
    for (endpoint, covers) in [(Triple::B4, "203.0.113.0/24"), (Triple::B6, "2001:db8:3::/48")] {
        let mut config = site.config(&["10.99.0.0/16", "fd99::/48", covers]);
        config.wg.peers[0].endpoint = Some(SocketAddr::new(endpoint, Ends::PORT));
        let mut tunnel = Adit::start(site.a(), &config)?;
        site.ensure_beyond(true)?;
        // What is sent to the endpoint's address by others goes through the tunnel, and arrives.
        ensure!(tools::ping(site.a(), endpoint, 3, STEP)?.received == 3, "{endpoint} is not reached");
        let status = tunnel.status()?;
        status.no_drops()?;
        ensure!(status.number("/engine/packets_out")? < 60, "it loops: {:#}", status.json);
        tunnel.stop()?;
    }
    Ok(())
}

fn excluding(site: &Site) -> Quick {
    site.full().with("ExcludedIPs", "198.18.0.0/24, 2001:db8:99::/48")
}

fn open_probes(site: &Site) -> Result<[Probe; 2]> {
    let probe = |target| Probe::start(site.a(), &site.triple.router, target, STEP);
    Ok([probe(Site::OPEN4)?, probe(Site::OPEN6)?])
}

/// What the kernel says on the way to an address, with a space at the end of its line.
fn way_to(a: &Namespace, target: IpAddr) -> Result<String> {
    Ok(a.ip(&format!("route get {target}"))?.replace('\n', " "))
}

const STEP: Duration = Duration::from_millis(10);

const SECOND: Duration = Duration::from_secs(1);

/// For a handshake that has to be sent again, after 5 s.
const SOON: Duration = Duration::from_secs(8);

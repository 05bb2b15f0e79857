//! What happens to a tunnel, its host and its network, in this order.

use std::net::IpAddr;
use std::time::Duration;

use adit_tests::noise::advertise_router;
use adit_tests::{Noise, NoiseOptions, Site, Triple, eventually};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::run::{Run, SOON, bound, dwell};

/// Something that happens; when it returns, all is as before.
pub(crate) struct Event {
    pub(crate) name: &'static str,
    pub(crate) happens: fn(&mut Run) -> Result<()>,
}

/// All of them.
pub(crate) const ALL: &[Event] = &[
    Event { name: "marked by others", happens: marked_by_others },
    Event { name: "another peer", happens: another_peer },
    Event { name: "kill switch changed", happens: kill_switch_changed },
    Event { name: "exclusion added", happens: exclusion_added },
    Event { name: "exclusion removed", happens: exclusion_removed },
    Event { name: "another mark", happens: another_mark },
    Event { name: "gateway changed", happens: gateway_changed },
    Event { name: "another way", happens: another_way },
    Event { name: "address renewed", happens: address_renewed },
    Event { name: "underlay down and up", happens: underlay_down_and_up },
    Event { name: "flaps", happens: flaps },
    Event { name: "TunnelVision", happens: tunnel_vision },
    Event { name: "TunnelCrack", happens: tunnel_crack },
    Event { name: "late router", happens: late_router },
    Event { name: "firewall flushed", happens: firewall_flushed },
    Event { name: "addresses flushed", happens: addresses_flushed },
    Event { name: "routes flushed", happens: routes_flushed },
    Event { name: "rules removed", happens: rules_removed },
    Event { name: "device deleted", happens: device_deleted },
    Event { name: "killed", happens: killed },
];

/// The kill switch trusts the tunnel's mark, but for nothing that is not UDP.
fn marked_by_others(run: &mut Run) -> Result<()> {
    if !run.mode.kill_switch {
        return Ok(());
    }
    run.marked.push("marked by others".to_owned());
    let mark = u32::try_from(run.tunnel.status()?.number("/fwmark")?)?;
    ensure!(mark != 0, "the tunnel's datagrams are not marked");
    let options = NoiseOptions { mark, ..NoiseOptions::default() };
    let noise = Noise::start(run.site.a(), &[Site::OPEN4, Site::OPEN6], &options)?;
    dwell();
    drop(noise);
    Ok(())
}

fn another_peer(run: &mut Run) -> Result<()> {
    let mut config = run.config.clone();
    config.wg.peers.push(adit_tests::wg::Peer {
        public_key: adit_tests::wg::private_key()?.public_key(),
        preshared_key: None,
        allowed_ips: vec!["10.123.0.0/16".to_owned(), "fd23::/64".to_owned()],
        endpoint: None,
        persistent_keepalive: None,
    });
    config.mtu = Some(1400);
    run.reload(&config)?;
    let config = run.config.clone();
    run.reload(&config)
}

/// Turned the other way and back: the full tunnel stays closed all the while, from plain to strict and back as well.
fn kill_switch_changed(run: &mut Run) -> Result<()> {
    // Without the kill switch, what is bound to a device is let out, which is not what is asked here.
    run.bound = None;
    let config = run.config.clone();
    for _ in 0..3 {
        let other = if run.mode.kill_switch {
            config.clone().without("KillSwitch").with("ExcludeLocalNetworks", "off")
        } else {
            config.clone().with("KillSwitch", "on")
        };
        run.reload(&other)?;
        run.reload(&config)?;
    }
    run.phase("after kill switch changed");
    run.bound = bound(run.mode, &run.site)?;
    dwell();
    Ok(())
}

fn exclusion_added(run: &mut Run) -> Result<()> {
    let config = run.config.clone();
    run.reload(&config.clone().with("ExcludedIPs", "192.0.2.200/32, 2001:db8:55::/48"))?;
    run.reload(&config)
}

/// What was excluded until now goes into the tunnel at once, also by sockets that had found the other way.
fn exclusion_removed(run: &mut Run) -> Result<()> {
    run.may_leak("exclusion removed", Duration::MAX);
    let config = run.config.clone();
    run.reload(&config.clone().with("ExcludedIPs", "198.18.0.0/24, 2001:db8:99::/48"))?;
    dwell();
    run.reload(&config)?;
    run.phase("after exclusion removed");
    dwell();
    Ok(())
}

fn another_mark(run: &mut Run) -> Result<()> {
    let config = run.config.clone();
    run.reload(&config.clone().with("FwMark", "0x4d2"))?;
    ensure!(run.tunnel.status()?.number("/fwmark")? == 0x4d2, "the mark is another");
    run.reload(&config)
}

fn gateway_changed(run: &mut Run) -> Result<()> {
    run.site.route_by(Site::OTHER_GATEWAY4, Site::OTHER_GATEWAY6)?;
    dwell();
    run.carries()?;
    run.site.route_by(Site::GATEWAY4, Site::GATEWAY6)?;
    run.carries()
}

fn another_way(run: &mut Run) -> Result<()> {
    run.site.triple.take(Triple::SECOND)?;
    dwell();
    run.carries()?;
    run.site.triple.take(Triple::FIRST)?;
    local_addresses(run)?;
    dwell();
    run.carries()
}

fn local_addresses(run: &Run) -> Result<()> {
    for words in ["-4 addr replace 192.168.50.1/24 dev first0", "-6 addr replace fd50::1/64 dev first0"] {
        run.site.a().ip(words)?;
    }
    Ok(())
}

/// The same address once more, then another one for a while.
fn address_renewed(run: &mut Run) -> Result<()> {
    let addresses = [("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.7/24", "2001:db8:1::7/64")];
    let [first, second] = addresses;
    for (old, new) in [(first, first), (first, second), (second, first)] {
        for (old, new) in [(old.0, new.0), (old.1, new.1)] {
            run.site.a().ip(&format!("addr del {old} dev first0"))?;
            run.site.a().ip(&format!("addr add {new} dev first0"))?;
        }
        run.site.route_by(Site::GATEWAY4, Site::GATEWAY6)?;
        run.carries().with_context(|| format!("{} instead of {}", new.0, old.0))?;
    }
    Ok(())
}

fn underlay_down_and_up(run: &mut Run) -> Result<()> {
    run.site.a().ip("link set first0 down")?;
    run.is_silent()?;
    run.site.flap()?;
    run.carries()
}

fn flaps(run: &mut Run) -> Result<()> {
    let count = std::env::var("ADIT_FLAPS").map_or(Ok(FLAPS), |text| text.parse().context("ADIT_FLAPS: a number"))?;
    for number in 1..=count {
        run.site.flap().with_context(|| format!("flap {number} of {count}"))?;
    }
    run.carries()
}

/// What a hostile DHCP server can do with option 121 (CVE-2024-3661), and a router with RFC 4191.
fn tunnel_vision(run: &mut Run) -> Result<()> {
    if run.mode.is_plain() {
        run.may_leak("TunnelVision", Duration::MAX);
    }
    let routes: [(&str, IpAddr); 6] = [
        ("0.0.0.0/1", Site::GATEWAY4),
        ("128.0.0.0/1", Site::GATEWAY4),
        ("10.99.0.1/32", Site::GATEWAY4),
        ("2000::/3", Site::GATEWAY6),
        ("fc00::/7", Site::GATEWAY6),
        ("fd99::1/128", Site::GATEWAY6),
    ];
    for (prefix, gateway) in routes {
        run.site.a().ip(&format!("route add {prefix} via {gateway} dev first0"))?;
    }
    dwell();
    if run.mode.is_plain() {
        // As with wg-quick, but not without a word.
        let line = run.tunnel.wait_for_line("take traffic out of the full tunnel")?;
        ensure!(line.contains("\"WARN\""), "{line}");
        run.tunnel.wait_for_line("0.0.0.0/1")?;
    } else {
        run.carries()?;
    }
    for (prefix, gateway) in routes {
        run.site.a().ip(&format!("route del {prefix} via {gateway} dev first0"))?;
    }
    run.phase("after TunnelVision");
    run.carries()
}

/// A hostile network that claims to be where the traffic goes, the tunnel's endpoint included (CVE-2023-36672, -35838).
fn tunnel_crack(run: &mut Run) -> Result<()> {
    if run.mode.is_plain() {
        run.may_leak("TunnelCrack", Duration::MAX);
    }
    let hostile = ["198.18.0.77/24", "2001:db8:99::77/64", "203.0.113.77/24", "2001:db8:3::77/64"];
    for address in hostile {
        run.site.a().ip(&format!("addr add {address} dev first0"))?;
    }
    dwell();
    for address in hostile {
        run.site.a().ip(&format!("addr del {address} dev first0"))?;
    }
    run.phase("after TunnelCrack");
    run.carries()
}

/// A network without IPv6 gets a router of it while the tunnel is up.
fn late_router(run: &mut Run) -> Result<()> {
    let a = run.site.a();
    a.ip("-6 route del default")?;
    dwell();
    let network = "2001:db8:7::".parse()?;
    let learned = || a.ip("-6 route show default").is_ok_and(|text| text.contains("proto ra"));
    advertise_router(&run.site.triple.router, Site::ROUTER_FIRST, network, 600)?;
    eventually("the router's advertisement to be taken", SOON, learned)?;
    dwell();
    run.carries()?;
    advertise_router(&run.site.triple.router, Site::ROUTER_FIRST, network, 0)?;
    eventually("the router to be gone again", SOON, || !learned())?;
    run.site.a().ip("-6 addr flush dev first0 dynamic")?;
    run.site.route_by(Site::GATEWAY4, Site::GATEWAY6)?;
    run.carries()
}

/// Some tools begin with an empty ruleset. The routes hold a full tunnel closed until the table is back.
fn firewall_flushed(run: &mut Run) -> Result<()> {
    if run.mode.kill_switch {
        // What is bound to a device goes past the routes for so long.
        run.may_leak("firewall flushed", REPAIRED);
    }
    let a = run.site.a();
    let table = format!("table inet adit-{}", run.tunnel.name());
    let ruleset = || a.exec("nft", ["list", "ruleset"]);
    let before = ruleset()?;
    ensure!(before.contains(&table), "a full tunnel has no {table}:\n{before}");
    a.exec("nft", ["flush", "ruleset"])?;
    let repaired = || ruleset().is_ok_and(|now| now == before);
    eventually("the table to be as it was", REPAIRED, repaired).with_context(|| ruleset().unwrap_or_default())?;
    run.phase("after firewall flushed");
    dwell();
    run.carries()
}

/// With its last address an interface loses its routes, and a full tunnel stays closed.
fn addresses_flushed(run: &mut Run) -> Result<()> {
    let name = run.tunnel.name().to_owned();
    run.site.a().ip(&format!("-4 addr flush dev {name}"))?;
    run.site.a().ip(&format!("-6 addr flush dev {name}"))?;
    run.carries()
}

fn routes_flushed(run: &mut Run) -> Result<()> {
    let table = table_of(run)?;
    tampered(run, "routes flushed", |run| {
        for family in ["-4", "-6"] {
            run.site.a().ip(&format!("{family} route flush table {table}"))?;
        }
        Ok(())
    })
}

fn rules_removed(run: &mut Run) -> Result<()> {
    tampered(run, "rules removed", |run| {
        for family in ["-4", "-6"] {
            for line in own_rules(run, family)? {
                let (priority, _) = line.split_once(':').with_context(|| line.clone())?;
                run.site.a().ip(&format!("{family} rule del priority {priority}"))?;
            }
        }
        Ok(())
    })
}

/// Somebody removes what holds the tunnel closed: it is put back in time, and the kill switch holds meanwhile.
fn tampered(run: &mut Run, phase: &str, tamper: impl Fn(&Run) -> Result<()>) -> Result<()> {
    let table = table_of(run)?;
    let state = |run: &Run| -> Result<String> {
        let a = run.site.a();
        let mut text = own_rules(run, "-4")?.join("\n") + &own_rules(run, "-6")?.join("\n");
        text += &a.ip(&format!("-4 route show table {table}"))?;
        Ok(text + &a.ip(&format!("-6 route show table {table}"))?)
    };
    let before = state(run)?;
    if !run.mode.kill_switch {
        run.may_leak(phase, REPAIRED);
    }
    tamper(run)?;
    let repaired = || state(run).is_ok_and(|now| now == before);
    eventually("it to be repaired", REPAIRED, repaired).with_context(|| state(run).unwrap_or_default())?;
    run.phase(&format!("after {phase}"));
    dwell();
    run.carries()
}

fn own_rules(run: &Run, family: &str) -> Result<Vec<String>> {
    let rules = run.site.a().ip(&format!("{family} rule"))?;
    let own: Vec<String> = rules.lines().filter(|line| line.contains(OWN)).map(str::to_owned).collect();
    ensure!(!own.is_empty(), "no rules of the tunnel:\n{rules}");
    Ok(own)
}

/// The table that a full tunnel's rule leads to.
fn table_of(run: &Run) -> Result<String> {
    let rules = own_rules(run, "-4")?;
    let rule = rules.iter().find(|rule| rule.contains("fwmark")).context("no rule with a mark")?;
    let table = rule.split(' ').skip_while(|word| *word != "lookup").nth(1);
    Ok(table.with_context(|| rule.clone())?.to_owned())
}

/// The engine is held, so that the time in between is long enough to be looked at; then it ends, and all stays closed.
fn device_deleted(run: &mut Run) -> Result<()> {
    let name = run.tunnel.name().to_owned();
    run.tunnel.process()?.signal(Signal::SIGSTOP)?;
    run.site.a().ip(&format!("link delete {name}"))?;
    dwell();
    run.tunnel.process()?.signal(Signal::SIGCONT)?;
    run.phase("ended by itself");
    let process = run.tunnel.process()?;
    let status = process.wait_exit(SOON)?;
    ensure!(!status.success(), "{status}\n{process}");
    dwell();
    again(run)
}

fn killed(run: &mut Run) -> Result<()> {
    run.tunnel.kill()?;
    dwell();
    run.is_silent()?;
    run.phase("underlay down and up while dead");
    run.site.flap()?;
    dwell();
    run.phase("another gateway while dead");
    run.site.route_by(Site::OTHER_GATEWAY4, Site::OTHER_GATEWAY6)?;
    dwell();
    run.site.route_by(Site::GATEWAY4, Site::GATEWAY6)?;
    again(run)
}

/// The next start finds all closed, and takes over.
fn again(run: &mut Run) -> Result<()> {
    run.phase("up again");
    let Run { tunnel, site, .. } = run;
    tunnel.launch_again(site.a())?;
    tunnel.wait_up()?;
    run.phase("after up again");
    dwell();
    run.carries()
}

/// What shows that a rule is the tunnel's: its protocol.
const OWN: &str = "proto 173";

/// How long it may take until what somebody else has removed is back. Changes are collected until there was none for
/// 200 ms, but for 2 s at most, and the repair itself takes a moment.
const REPAIRED: Duration = Duration::from_secs(3);

/// The short form; `cargo xtask routing` takes more.
const FLAPS: u32 = 50;

//! Beside other tunnels: wg-quick's and Tailscale's tables, marks and rules, and whoever else had our numbers before.
//! Both go on to work, and nothing of theirs is touched.
#![cfg(target_os = "linux")]

use std::time::Duration;

use adit_tests::{Adit, HostState, Quick, Site, adit, eventually, tools};
use anyhow::{Context as _, Result, ensure};

/// What wg-quick leaves for a full tunnel: table and mark 51820, and the two priorities before main.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn beside_a_full_tunnel_of_wg_quick() -> Result<()> {
    let theirs = [
        "link add theirs0 type veth peer name theirs1",
        "link set theirs0 up",
        "link set theirs1 up",
        "addr add 10.210.0.2/32 dev theirs0",
        "route add default dev theirs0 table 51820",
        "rule add not fwmark 51820 table 51820 priority 32765",
        "rule add table main suppress_prefixlength 0 priority 32764",
        "-6 route add default dev theirs0 table 51820",
        "-6 rule add not fwmark 51820 table 51820 priority 32765",
        "-6 rule add table main suppress_prefixlength 0 priority 32764",
    ];
    // It would take our tunnel's datagrams as well, so its user has made an exception of them, as one has to.
    let exception = [
        "rule add ipproto udp sport 51820 table main priority 32000",
        "-6 rule add ipproto udp sport 51820 table main priority 32000",
    ];
    beside(&[&theirs[..], &exception[..]].concat(), |site| {
        [site.full(), site.full().with("ExcludeLocalNetworks", "off"), site.full().with("KillSwitch", "on")].to_vec()
    })
}

/// What Tailscale adds: rules 5210 to 5270 with the mark 0x80000/0xff0000 and table 52.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn beside_tailscale() -> Result<()> {
    let mut theirs: Vec<String> = Vec::new();
    for family in ["-4", "-6"] {
        for (priority, rule) in [
            (5210, "fwmark 0x80000/0xff0000 table main"),
            (5230, "fwmark 0x80000/0xff0000 table default"),
            (5250, "fwmark 0x80000/0xff0000 unreachable"),
            (5270, "table 52"),
        ] {
            theirs.push(format!("{family} rule add priority {priority} {rule}"));
        }
    }
    theirs.extend(
        [
            "link add theirs0 type veth peer name theirs1",
            "link set theirs0 up",
            "link set theirs1 up",
            "route add 100.100.100.100/32 dev theirs0 table 52",
            "route add 100.101.0.0/16 dev theirs0 table 52",
            "-6 route add fd7a:115c:a1e0::/48 dev theirs0 table 52",
        ]
        .map(str::to_owned),
    );
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    beside(&theirs, |site| {
        let full = site.full();
        vec![
            full.clone(),
            full.clone().with("ExcludeLocalNetworks", "on"),
            full.clone().with("KillSwitch", "on"),
            site.config(&["10.99.0.0/16", "fd99::/48"]),
            site.config(&["10.0.0.0/8", "fd99::/48"]).with("ExcludedIPs", "10.98.0.0/16"),
        ]
    })?;
    // And what it is there for still works while we are up.
    let site = Site::new()?;
    theirs.iter().try_for_each(|words| site.a().ip(words).map(drop))?;
    let mut tunnel = Adit::start(site.a(), &site.full())?;
    for target in ["100.101.0.1", "100.100.100.100", "fd7a:115c:a1e0::1"] {
        let way = site.a().ip(&format!("route get {target}"))?;
        ensure!(way.contains("dev theirs0"), "{target}: {way}");
    }
    // Marked by Tailscale, by its own rules: the mark is not ours.
    let way = site.a().ip("route get 198.18.0.1 mark 0x80000")?;
    ensure!(way.contains("dev first0"), "{way}");
    tunnel.stop()
}

/// Every number that we would choose is taken: table, mark, priorities, and the name of the firewall's table.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn beside_others_with_our_numbers() -> Result<()> {
    let theirs = [
        "rule add from 10.250.0.0/16 table 51820 priority 32764 protocol 173",
        "rule add from 10.250.0.0/16 table 51820 priority 32765 protocol 173",
        "rule add from 10.250.0.0/16 table 51820 priority 32763",
        "-6 rule add from fd25::/48 table 51821 priority 32765",
        "route add 10.251.0.0/16 via 198.51.100.254 table 51820",
        "-6 route add fd25:1::/64 via 2001:db8:1::fe table 51821",
        "rule add fwmark 0xca6e/0xffff table 7777 priority 100",
        "route add default via 198.51.100.254 table 7777",
    ];
    beside(&theirs, |site| {
        let split = site.config(&["10.99.0.0/16", "fd99::/48"]);
        vec![
            site.full(),
            site.full().with("KillSwitch", "on").with("ExcludeLocalNetworks", "on"),
            split.clone().with("ExcludedIPs", "10.99.5.0/24"),
            split.with("Table", 51820),
        ]
    })
}

/// Two of our own at once: the later one is asked first. They may end in either order, and one may be killed.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn beside_another_tunnel_of_ours() -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    let before = HostState::of(a)?;
    let full = site.full().with("ExcludeLocalNetworks", "off");
    // This one leads nowhere: what counts is what it adds.
    let mut split = site.config(&["10.88.0.0/16", "fd88::/48"]).with("ExcludedIPs", "10.88.5.0/24");
    split.wg.listen_port = Some(51999);
    split.wg.peers[0].endpoint = None;
    split.addresses = vec!["10.88.0.1/32".to_owned(), "fd88::1/128".to_owned()];
    let leads_to = |target: &str, tunnel: &Adit| -> Result<()> {
        let way = a.ip(&format!("route get {target}"))?;
        ensure!(way.contains(&format!("dev {} ", tunnel.name())), "{target}: {way}");
        Ok(())
    };
    for (first, second) in [(&full, &split), (&split, &full)] {
        for kill in [false, true] {
            let mut one = Adit::start(a, first)?;
            let between = HostState::of(a)?;
            let mut two = Adit::start(a, second)?;
            site.ensure_beyond(true)?;
            if second.wg.listen_port == split.wg.listen_port {
                leads_to("10.88.1.1", &two)?;
                leads_to("10.99.0.1", &one)?;
                // What the later one leaves out is the earlier one's.
                leads_to("10.88.5.1", &one)?;
            } else {
                leads_to("10.88.1.1", &two)?;
            }
            if kill {
                two.kill()?;
                adit::run_in(a, ["recover", two.name()])?.success()?;
                between.ensure_unchanged(a)?;
                one.stop()?;
            } else {
                one.stop()?;
                two.stop()?;
            }
            before.ensure_unchanged(a)?;
        }
    }
    Ok(())
}

/// Sets up what others have, then each tunnel: it works, what others have stays, and afterwards only that is left.
fn beside(theirs: &[&str], configs: impl Fn(&Site) -> Vec<Quick>) -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    for words in theirs {
        a.ip(words).with_context(|| (*words).to_owned())?;
    }
    // veth links come up a moment later, with their link-local addresses.
    let settled =
        || HostState::of(a).is_ok_and(|state| state.difference(&HostState::of(a).unwrap_or(state.clone())).is_empty());
    eventually("links to be up", Duration::from_secs(5), || {
        let up =
            a.ip("-o link show").is_ok_and(|links| !links.contains("state DOWN") && !links.contains("LOWERLAYERDOWN"));
        up && settled()
    })?;
    let before = HostState::of(a)?;
    for (number, config) in configs(&site).iter().enumerate() {
        let context = || format!("configuration {number}: {:?}", config.lines);
        let mut tunnel = Adit::start(a, config).with_context(context)?;
        let during = before.difference(&HostState::of(a)?);
        let gone: Vec<&str> =
            during.lines().filter(|line| line.starts_with('-') && !line.contains("valid_mark")).collect();
        ensure!(gone.is_empty(), "{}: it has taken away: {gone:#?}", context());
        if !config.lines.iter().any(|line| line.starts_with("Table")) {
            site.ensure_beyond(true).with_context(context)?;
            let pings = tools::ping(a, Site::BEYOND4, 20, Duration::from_millis(10))?;
            ensure!(pings.received == pings.sent, "{}: {pings:?}", context());
        }
        tunnel.status()?.no_drops().with_context(context)?;
        tunnel.stop().with_context(context)?;
        before.ensure_unchanged(a).with_context(context)?;
    }
    Ok(())
}

//! What a tunnel has changed is as it was, byte for byte, once it is down; and what others have changed meanwhile stays.
#![cfg(target_os = "linux")]

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use adit_tests::process::{self, Finished};
use adit_tests::{Adit, HostState, Namespace, Quick, Site, Triple, adit, tools};
use anyhow::{Context as _, Result, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn up_and_down_change_nothing_in_any_mode() -> Result<()> {
    let site = Site::new()?;
    let before = HostState::of(site.a())?;
    for (name, config, reached) in modes(&site) {
        let mut tunnel = Adit::start(site.a(), &config).context(name)?;
        let reached = || -> Result<()> {
            for target in reached {
                let pings = tools::ping(site.a(), *target, 2, STEP)?;
                ensure!(pings.received == 2, "{target}: {pings:?}");
            }
            let during = before.difference(&HostState::of(site.a())?);
            ensure!(during.contains(tunnel.name()), "the tunnel changes nothing");
            Ok(())
        };
        reached().context(name)?;
        tunnel.status()?.no_drops().context(name)?;
        tunnel.stop().context(name)?;
        before.ensure_unchanged(site.a()).context(name)?;
    }
    // By the command, and one that was a daemon.
    let mut daemon = Adit::daemon(site.a(), &site.full().with("KillSwitch", "on"))?;
    site.ensure_beyond(true)?;
    daemon.stop()?;
    before.ensure_unchanged(site.a())
}

/// From each mode to each other one: what the last one has added goes with the tunnel, and nothing of the others is left.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn reloads_through_all_modes_leave_only_the_last_one() -> Result<()> {
    let site = Site::new()?;
    let before = HostState::of(site.a())?;
    let mut modes = modes(&site);
    // A running tunnel keeps the table that it has, so after this one the others have another one.
    modes.retain(|(name, ..)| *name != "full, a mark");
    let mut tunnel = Adit::start(site.a(), &modes[0].1)?;
    let mut alone = Vec::new();
    for (name, config, _) in &modes {
        tunnel.write(config)?;
        tunnel.reload().with_context(|| format!("to «{name}»"))?;
        alone.push(HostState::of(site.a())?);
    }
    for ((name, config, reached), first) in modes.iter().zip(&alone).rev() {
        tunnel.write(config)?;
        tunnel.reload().with_context(|| format!("back to «{name}»"))?;
        // The same as when it was come to from another side.
        first.ensure_unchanged(site.a()).with_context(|| format!("«{name}» again"))?;
        for target in *reached {
            let pings = tools::ping(site.a(), *target, 2, STEP)?;
            ensure!(pings.received == 2, "«{name}»: {target}: {pings:?}");
        }
    }
    tunnel.stop()?;
    before.ensure_unchanged(site.a())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_others_change_meanwhile_is_left_alone() -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    let before = HostState::of(a)?;
    let add = [
        "ip route add 10.200.0.0/16 via 198.51.100.254 dev first0",
        "ip -6 route add fd20::/48 via 2001:db8:1::fe dev first0",
        "ip route add 10.201.0.0/16 via 198.51.100.254 dev first0 table 777",
        "ip rule add from 10.202.0.0/16 table 777 priority 31000",
        "ip -6 rule add from fd22::/48 table 777 priority 31000",
        "ip addr add 10.203.0.1/24 dev second0",
        "nft add table inet theirs",
        "nft add chain inet theirs output { type filter hook output priority 5 ; }",
        "nft add rule inet theirs output ip daddr 10.204.0.1 counter drop",
    ];
    let remove = [
        "ip route del 10.200.0.0/16 via 198.51.100.254 dev first0",
        "ip -6 route del fd20::/48 via 2001:db8:1::fe dev first0",
        "ip route del 10.201.0.0/16 via 198.51.100.254 dev first0 table 777",
        "ip rule del from 10.202.0.0/16 table 777 priority 31000",
        "ip -6 rule del from fd22::/48 table 777 priority 31000",
        "ip addr del 10.203.0.1/24 dev second0",
        "nft delete table inet theirs",
    ];
    for (config, kill) in [(site.full(), false), (kill_switch(&site), false), (kill_switch(&site), true)] {
        let mut tunnel = Adit::start(a, &config)?;
        add.into_iter().try_for_each(|words| run(a, words))?;
        site.ensure_beyond(true)?;
        if kill {
            tunnel.kill()?;
            adit::run_in(a, ["recover", tunnel.name()])?.success()?;
        } else {
            tunnel.stop()?;
        }
        // Each of them is still there, for removing it succeeds; and without them all is as before.
        remove.into_iter().try_for_each(|words| run(a, words))?;
        before.ensure_unchanged(a)?;
    }
    Ok(())
}

/// Answers to the tunnel's datagrams come by another way than a route to their sender leads: marks make that right.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_full_tunnel_works_with_a_strict_reverse_path_filter() -> Result<()> {
    let site = Site::new()?;
    for interface in ["all", "default", Triple::FIRST] {
        site.a().sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "1")?;
    }
    let before = HostState::of(site.a())?;
    for config in [site.full(), site.full().with("ExcludeLocalNetworks", "on"), kill_switch(&site)] {
        let mut tunnel = Adit::start(site.a(), &config)?;
        site.ensure_beyond(true)?;
        tunnel.stop()?;
        before.ensure_unchanged(site.a())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_start_without_privileges_is_refused_and_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let before = HostState::of(site.a())?;
    // Where anybody may read: the program as well, whose folder may be root's own.
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let program = folder.path().join("adit");
    std::fs::copy(adit::binary()?, &program)?;
    let name = adit_tests::names::link("adi");
    let file = folder.path().join(format!("{name}.conf"));
    for config in [site.full(), kill_switch(&site), site.config(&["10.99.0.0/16"])] {
        std::fs::write(&file, config.to_text())?;
        std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        let mut up = site.a().command("setpriv");
        up.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]);
        let refused = process::finish(up.arg(&program).args(["up", "--foreground"]).arg(&file), "", PATIENCE)?;
        ensure!(refused.status.code() == Some(4), "{refused:?}");
        ensure!(refused.stderr.contains("ermi"), "it does not say what is missing: {refused:?}");
        before.ensure_unchanged(site.a())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn without_nftables_a_kill_switch_is_refused_and_a_full_tunnel_warned_about() -> Result<()> {
    let site = Site::new()?;
    let before = HostState::of(site.a())?;
    let refused = up_without_nft(&site, &kill_switch(&site))?;
    ensure!(!refused.status.success() && refused.stderr.contains("nft"), "{refused:?}");
    ensure!(refused.stderr.contains("nftables"), "it does not say what to install: {refused:?}");
    before.ensure_unchanged(site.a())?;

    // As in a reload: the tunnel goes on as it was.
    let mut tunnel = Adit::start_in(site.a(), &site.full(), &without_nft())?;
    let said = tunnel.process()?.output();
    ensure!(said.lines().any(|line| line.contains("\"WARN\"") && line.contains("nft")), "no warning: {said}");
    site.ensure_beyond(true)?;
    let up = HostState::of(site.a())?;
    tunnel.write(&kill_switch(&site))?;
    let reload = adit::run(["reload", tunnel.name()])?;
    ensure!(!reload.status.success() && reload.stderr.contains("nft"), "{reload:?}");
    up.ensure_unchanged(site.a())?;
    site.ensure_beyond(true)?;
    tunnel.stop()?;
    before.ensure_unchanged(site.a())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_cannot_be_is_refused_with_a_reason_and_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let a = site.a();
    a.ip("route add 10.98.0.0/16 via 198.51.100.254 dev first0")?;
    a.ip("route add 10.99.0.0/16 via 198.51.100.254 dev first0 table 4321")?;
    let before = HostState::of(a)?;
    let split = site.config(&["10.99.0.0/16"]);
    let both = split.clone().with("ExcludedIPs", "10.99.0.0/16");
    let taken = site.config(&["10.99.0.0/16", "10.98.0.0/16"]);
    let in_table = split.clone().with("Table", 4321);
    let small = site.full().with("MTU", 1200);
    for (config, code, says) in [
        // Both in and out, also where host bits hide that it is the same.
        (both.clone(), Some(3), "10.99.0.0/16"),
        (both.with("ExcludedIPs", "10.99.3.4/16"), Some(3), "10.99.0.0/16"),
        (split.clone().with("KillSwitch", "maybe"), Some(3), "KillSwitch"),
        (split.clone().with("ExcludeLocalNetworks", "yes"), Some(3), "ExcludeLocalNetworks"),
        (split.clone().with("ExcludedIPs", "10.99.1.0/33"), Some(3), "ExcludedIPs"),
        // Somebody else's route is in the way.
        (taken, None, "10.98.0.0/16"),
        (in_table, None, "10.99.0.0/16"),
        (small, None, "1280"),
    ] {
        let up = up(&site, &config)?;
        ensure!(!up.status.success() && code.is_none_or(|code| up.status.code() == Some(code)), "{says}: {up:?}");
        ensure!(up.stderr.contains(says), "{says}: {up:?}");
        before.ensure_unchanged(a).context(says)?;
    }
    Ok(())
}

/// All modes, each with what it reaches through the tunnel or beside it.
fn modes(site: &Site) -> Vec<(&'static str, Quick, &'static [IpAddr])> {
    const BEYOND: &[IpAddr] = &[Site::BEYOND4, Site::BEYOND6];
    const ALL: &[IpAddr] = &[Site::BEYOND4, Site::BEYOND6, Site::OPEN4, Site::OPEN6];
    const WITH_LOCAL: &[IpAddr] = &[Site::BEYOND4, Site::BEYOND6, Site::OPEN4, Site::OPEN6, Site::LOCAL4, Site::LOCAL6];
    const BEYOND_IPV4: &[IpAddr] = &[Site::BEYOND4];
    let split = site.config(&["10.99.0.0/16", "fd99::/48"]);
    let nested = site.config(&["10.0.0.0/8", "10.99.0.0/24", "fd00::/8", "fd99::/64"]);
    let exclusions = "10.99.0.0/16, 10.99.0.64/26, fd99::/48, 2001:db8:99::/48";
    let far_covered = site.config(&["203.0.113.0/24", "10.99.0.0/16", "fd99::/48"]);
    vec![
        ("full", site.full(), WITH_LOCAL),
        ("full, IPv4", site.config(&["0.0.0.0/0"]), &[Site::BEYOND4, Site::OPEN4, Site::OPEN6]),
        ("full, IPv6", site.config(&["::/0"]), &[Site::BEYOND6, Site::OPEN4, Site::OPEN6]),
        ("full, a mark", site.full().with("FwMark", "0x4d2"), ALL),
        ("full, strict", site.full().with("ExcludeLocalNetworks", "off"), ALL),
        ("full, local networks", site.full().with("ExcludeLocalNetworks", "on"), WITH_LOCAL),
        ("full, exclusions", site.full().with("ExcludedIPs", "198.18.0.0/15, 2001:db8:99::/48"), ALL),
        ("full, kill switch", kill_switch(site), ALL),
        ("full, all", kill_switch(site).with("ExcludeLocalNetworks", "on").with("ExcludedIPs", "198.18.0.0/15"), ALL),
        ("split", split.clone(), WITH_LOCAL),
        ("split, exclusions", nested.with("ExcludedIPs", exclusions), ALL),
        ("split, kill switch", split.clone().with("KillSwitch", "on"), BEYOND),
        ("split, endpoint within", far_covered, BEYOND),
        ("halves", site.config(&["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]), ALL),
        ("table", split.clone().with("Table", 1234).with("ExcludedIPs", "10.99.5.0/24"), &[]),
        ("table main", split.clone().with("Table", "main"), BEYOND),
        ("table off", site.full().with("Table", "off"), &[Site::OPEN4, Site::OPEN6]),
        ("no IPv6", without_ipv6(split).with("KillSwitch", "on"), BEYOND_IPV4),
    ]
}

fn without_ipv6(mut config: Quick) -> Quick {
    config.addresses.truncate(1);
    config.allowing(&["10.99.0.0/16"])
}

fn kill_switch(site: &Site) -> Quick {
    site.full().with("KillSwitch", "on")
}

/// Runs `adit up` on a configuration that is refused.
fn up(site: &Site, config: &Quick) -> Result<Finished> {
    Adit::refused(site.a(), config, &[])
}

fn up_without_nft(site: &Site, config: &Quick) -> Result<Finished> {
    Adit::refused(site.a(), config, &without_nft())
}

/// A command that runs another one where the folders of system programs, and nft(8) with them, are empty.
fn without_nft() -> [&'static str; 5] {
    let script = "for dir in /sbin /usr/sbin /usr/local/sbin; do [ ! -d $dir ] || mount -t tmpfs none $dir; done; \
                  ! command -v nft || exit 99; exec \"$0\" \"$@\"";
    ["unshare", "--mount", "sh", "-c", script]
}

fn run(a: &Namespace, words: &str) -> Result<()> {
    let mut words = words.split(' ');
    a.exec(words.next().unwrap_or_default(), words)?;
    Ok(())
}

const STEP: Duration = Duration::from_millis(10);

const PATIENCE: Duration = Duration::from_secs(20);

/// The user that owns nothing.
const NOBODY: u32 = 65534;

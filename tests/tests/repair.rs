//! A tunnel that others meddle with: what they change is repaired, and what must stay closed stays closed over a crash.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use adit_tests::beyond::{BEYOND4, BEYOND6, far_end, full_tunnel};
use adit_tests::{Adit, Capture, Ends, Namespace, Probe, Triple, adit, eventually, process};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_others_change_is_repaired_within_two_seconds() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let before = settings(&triple.a)?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    let probe = Probe::start(&triple.a, &triple.b, BEYOND6, STEP)?;
    probe.resumes(SOON)?;
    let up = settings(&triple.a)?;
    let name = a.name().to_owned();
    let mut expected = 0;
    for (damage, changes) in [
        ("ip -4 rule delete priority 32765", 1),
        ("ip -4 rule delete priority 32764", 1),
        ("ip -6 rule delete priority 32765", 1),
        ("ip -4 route delete unreachable default table 51820", 1),
        ("ip -4 route flush table 51820", 2),
        ("ip -6 route flush table 51820", 2),
        (&format!("ip address delete {}/24 dev {name}", Ends::A4), 1),
        (&format!("ip -6 address delete {}/64 dev {name}", Ends::A6), 1),
        (&format!("ip link set {name} mtu 1300"), 1),
        (&format!("nft delete table inet adit-{name}"), 1),
    ] {
        let words: Vec<&str> = damage.split(' ').collect();
        triple.a.exec(words[0], &words[1..])?;
        eventually(damage, REPAIRED, || settings(&triple.a).is_ok_and(|now| now == up))
            .with_context(|| differences(&up, &settings(&triple.a).unwrap_or_default()))?;
        expected += changes;
        eventually("the count", REPAIRED, || repairs(&a).is_ok_and(|count| count >= expected))?;
        // With few pauses in between this would be a fight.
        probe.answers(250, SOON).with_context(|| damage.to_owned())?;
    }
    assert_eq!(repairs(&a)?, expected, "no repair calls for another one");

    // What others have besides is not touched.
    triple.a.ip("address add 192.0.2.77/32 dev lo")?;
    triple.a.ip("rule add from 192.0.2.77 table 77 priority 77")?;
    let with_others = settings(&triple.a)?;
    probe.answers(100, SOON)?;
    assert_eq!((settings(&triple.a)?, repairs(&a)?), (with_others, expected));
    triple.a.ip("rule delete priority 77")?;
    triple.a.ip("address delete 192.0.2.77/32 dev lo")?;
    a.stop()?;
    ensure_same(&before, &settings(&triple.a)?)?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_tunnel_whose_link_or_underlay_goes_down_comes_back() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    let probe = Probe::start(&triple.a, &triple.b, BEYOND4, STEP)?;
    probe.resumes(SOON)?;
    let up = settings(&triple.a)?;
    // With the link go all its routes and its IPv6 addresses.
    triple.a.ip(&format!("link set {} down", a.name()))?;
    eventually("the link to be up again", REPAIRED, || settings(&triple.a).is_ok_and(|now| now == up))
        .with_context(|| differences(&up, &settings(&triple.a).unwrap_or_default()))?;
    probe.resumes(SOON)?;
    for _ in 0..3 {
        triple.a.ip(&format!("link set {} down", Triple::FIRST))?;
        triple.a.ip(&format!("link set {} up", Triple::FIRST))?;
        triple.take(Triple::FIRST)?;
        probe.resumes(SOON)?;
    }
    drop(probe);
    assert_eq!(differences(&up, &settings(&triple.a)?), "");
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_link_of_the_underlay_with_another_mtu_is_followed() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    for (underlay, tunnel) in [(1400, 1320), (1500, 1420)] {
        triple.a.ip(&format!("link set {} mtu {underlay}", Triple::FIRST))?;
        eventually("the tunnel to follow", REPAIRED, || {
            a.status().is_ok_and(|status| status.number("/mtu").is_ok_and(|mtu| mtu == tunnel))
        })?;
        assert!(triple.a.ip(&format!("link show {}", a.name()))?.contains(&format!("mtu {tunnel} ")));
    }
    assert_eq!(repairs(&a)?, 0, "that is no change by somebody else");
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_route_that_takes_traffic_out_of_a_full_tunnel_is_warned_of_once() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    let probe = Probe::start(&triple.a, &triple.b, BEYOND4, STEP)?;
    probe.resumes(SOON)?;
    const WARNING: &str = "take traffic out of the full tunnel";
    ensure!(!a.process()?.output().contains(WARNING), "connected networks are meant to be reached");
    let gateway = Triple::ROUTER4;
    triple.a.ip(&format!("route add 0.0.0.0/1 via {gateway}"))?;
    let line = a.wait_for_line(WARNING)?;
    ensure!(!line.contains("0.0.0.0"), "addresses are for DEBUG: {line}");
    triple.a.ip(&format!("route add 128.0.0.0/1 via {gateway}"))?;
    triple.a.ip("route delete 0.0.0.0/1")?;
    probe.resumes(SOON)?;
    assert_eq!(a.process()?.output().matches(WARNING).count(), 1);
    drop(probe);
    triple.a.ip("route delete 128.0.0.0/1")?;
    assert_eq!(repairs(&a)?, 0, "what others have is theirs");
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_kill_switch_of_a_split_tunnel_stays_over_a_crash_and_a_lost_device() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let before = settings(&triple.a)?;
    // Reached without a tunnel, and not with the kill switch.
    let outside = Probe::start(&triple.a, &triple.b, Triple::B4, STEP)?;
    outside.resumes(SOON)?;
    let mut config = ends.config_a(Some(Triple::B6));
    config.lines.push("KillSwitch = on".to_owned());
    let mut a = Adit::launch(&triple.a, &config)?;
    a.expect_error("warning: KillSwitch: no default route is allowed")?;
    a.wait_up()?;
    let inside = Probe::start(&triple.a, &triple.b, Ends::B4, STEP)?;
    inside.resumes(SOON)?;
    let capture = Capture::start(&triple.router, &[ROUTER_LINK], "killed")?;
    a.kill()?;
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    inside.resumes(SOON)?;
    triple.a.exec("nft", ["delete", "table", "inet", &format!("adit-{}", a.name())])?;
    eventually("the repair", REPAIRED, || repairs(&a).is_ok_and(|count| count == 1))?;
    let seen = capture.finish()?;
    let leaked = seen.to(&[Triple::B4]).count();
    ensure!(leaked <= REPAIRED.as_millis() as usize / 10, "only until the repair: {leaked}");
    let capture = Capture::start(&triple.router, &[ROUTER_LINK], "device deleted")?;
    triple.a.ip(&format!("link delete {}", a.name()))?;
    let said = a.fails_closed()?;
    ensure!(said.contains("the host stays closed"), "{said}");
    outside.stays_silent(Duration::from_millis(300))?;
    let seen = capture.finish()?;
    ensure!(seen.to(&[Triple::B4]).next().is_none(), "{:?}", seen.to(&[Triple::B4]).next());
    let mut recover = triple.a.command(adit::binary()?);
    process::finish(recover.args(["recover", a.name()]), "", process::RUN_LIMIT)?.success()?;
    outside.resumes(SOON)?;
    ensure_same(&before, &settings(&triple.a)?)?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_fight_over_a_rule_is_slowed_down_and_ends() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    let rule = || triple.a.ip("-4 rule").is_ok_and(|rules| rules.contains("32765:\tnot from all fwmark"));
    let pid = a.process()?.id();
    let script = "while :; do ip -4 rule delete priority 32765 2>/dev/null; sleep 0.02; done";
    let mut foe = triple.a.spawn("sh", ["-c", script])?;
    let begun = Instant::now();
    a.wait_for_line("again and again")?;
    let fought = repairs(&a)?;
    ensure!(fought == 5, "{fought} repairs until Adit gave way");
    let ticks = cpu_ticks(pid)?;
    // The next repair is ten seconds later, and there is no other in between.
    eventually("the next repair", Duration::from_secs(12), || repairs(&a).is_ok_and(|count| count > fought))?;
    ensure!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
    let ticks = cpu_ticks(pid)? - ticks;
    ensure!(ticks < 50, "{ticks} hundredths of a second of processor time in ten seconds");
    foe.stop(SOON)?;
    eventually("the rule to be back", Duration::from_secs(12), rule)?;
    a.wait_for_line("nobody changes the tunnel's routing any more").or_else(|error| {
        // The last repair may have come before the foe's end, and then one more is needed.
        a.wait_for_line("nobody changes the tunnel's routing any more").context(error)
    })?;
    assert!(rule());
    let text = a.process()?.output();
    assert_eq!(text.matches("again and again").count(), 1, "{text}");
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn nothing_leaves_in_the_clear_between_a_crash_and_the_next_start() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let before = settings(&triple.a)?;
    let probes = [BEYOND4, BEYOND6].map(|target| Probe::start(&triple.a, &triple.b, target, STEP));
    // Without a tunnel they leave in the clear, and are seen.
    let capture = Capture::start(&triple.router, &[ROUTER_LINK], "no tunnel")?;
    adit_tests::capture::sees(&capture, "a packet in the clear", SOON, |packet| packet.target() == Some(BEYOND4))?;
    drop(capture);

    let mut a = Adit::start_with(&triple.a, &full_tunnel(&ends, Triple::B4), &["--handshake-wait", "3"])?;
    let probes: Vec<Probe> = probes.into_iter().collect::<Result<_>>()?;
    probes.iter().try_for_each(|probe| probe.resumes(SOON).map(drop))?;
    let capture = Capture::start(&triple.router, &[ROUTER_LINK], "up")?;
    a.kill()?;
    // It waits for a handshake as long as it may.
    b.process()?.signal(Signal::SIGSTOP)?;
    let begun = Instant::now();
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    let took = begun.elapsed();
    b.process()?.signal(Signal::SIGCONT)?;
    ensure!(took >= Duration::from_secs(3), "the start took {took:?}");
    probes.iter().try_for_each(|probe| probe.resumes(SOON).map(drop))?;

    // A start that fails leaves the host closed, and so does one that is interrupted.
    a.kill()?;
    let mut failing = full_tunnel(&ends, Triple::B4);
    failing.lines.push("PostUp = false".to_owned());
    a.write(&failing)?;
    a.launch_again(&triple.a)?;
    let said = a.fails_closed()?;
    ensure!(said.contains("PostUp") && said.contains("the host stays closed"), "{said}");
    failing.lines = vec!["PreUp = sleep 60".to_owned()];
    a.write(&failing)?;
    a.launch_again(&triple.a)?;
    a.wait_for_line("the host closed")?;
    a.process()?.signal(Signal::SIGTERM)?;
    ensure!(a.process()?.wait_exit(SOON)?.code() == Some(130), "{}", a.process()?);

    // It takes over with another mark and table as well.
    let mut marked = full_tunnel(&ends, Triple::B4);
    marked.lines.push("FwMark = 0x1234".to_owned());
    a.write(&marked)?;
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    probes.iter().try_for_each(|probe| probe.resumes(SOON).map(drop))?;
    ensure!(a.status()?.number("/fwmark")? == 0x1234);
    let rules = triple.a.ip("-4 rule")?;
    ensure!(!rules.contains("51820") && rules.contains("0x1234"), "{rules}");
    let seen = capture.finish()?;
    let leaked: Vec<_> = seen.to(&[BEYOND4, BEYOND6]).collect();
    ensure!(leaked.is_empty(), "{} packets have left in the clear, the first: {:?}", leaked.len(), leaked.first());

    drop(probes);
    a.stop()?;
    ensure_same(&before, &settings(&triple.a)?)?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_host_that_a_crash_has_closed_is_opened_by_a_split_tunnel_and_by_down() -> Result<()> {
    let (triple, ends, mut b) = far_end()?;
    let before = settings(&triple.a)?;
    let mut a = Adit::start(&triple.a, &full_tunnel(&ends, Triple::B4))?;
    a.kill()?;
    a.write(&ends.config_a(Some(Triple::B4)))?;
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    assert!(!triple.a.ip("rule")?.contains("proto 173"));
    assert_eq!(a.status()?.number("/fwmark")?, 0);
    let probe = Probe::start(&triple.a, &triple.b, Ends::B4, STEP)?;
    probe.resumes(SOON)?;
    drop(probe);
    a.stop()?;
    ensure_same(&before, &settings(&triple.a)?)?;

    // `down` during a start that has taken over asks for an open host.
    a.write(&full_tunnel(&ends, Triple::B4))?;
    a.launch_again(&triple.a)?;
    a.wait_up()?;
    a.kill()?;
    let mut slow = full_tunnel(&ends, Triple::B4);
    slow.lines.push("PreUp = sleep 60".to_owned());
    a.write(&slow)?;
    a.launch_again(&triple.a)?;
    a.wait_for_line("\"run\"")?;
    let mut down = triple.a.command(adit::binary()?);
    process::finish(down.args(["down", a.name()]), "", process::RUN_LIMIT)?.success()?;
    a.process()?.wait_exit(SOON)?;
    ensure_same(&before, &settings(&triple.a)?)?;
    ensure!(a.left().is_empty(), "{:?}", a.left());
    b.stop()
}

fn repairs(a: &Adit) -> Result<u64> {
    a.status()?.number("/repairs")
}

/// Processor time of a process so far, in hundredths of a second (proc_pid_stat(5), fields 14 and 15).
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("stat")?;
    fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().context("ticks")).sum()
}

/// Everything of the host that a tunnel may have changed, in an order of its own.
fn settings(a: &Namespace) -> Result<String> {
    let mut text = String::new();
    for words in ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "-o addr", "-o link"] {
        let mut lines: Vec<String> = a.ip(words)?.lines().map(|line| format!("{words}: {line}")).collect();
        lines.sort_unstable();
        text += &lines.join("\n");
        text.push('\n');
    }
    text += &a.exec("sysctl", ["net.ipv4.conf.all.src_valid_mark"])?;
    Ok(text + &a.exec("nft", ["list", "ruleset"])?)
}

fn ensure_same(before: &str, after: &str) -> Result<()> {
    ensure!(before == after, "{}", differences(before, after));
    Ok(())
}

/// The lines that only one of two texts has.
fn differences(before: &str, after: &str) -> String {
    let only = |one: &str, other: &str, sign: char| -> String {
        let lines = one.lines().filter(|line| !other.lines().any(|found| found == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    only(before, after, '-') + &only(after, before, '+')
}

/// The router's end of the first way of `a`.
const ROUTER_LINK: &str = adit_tests::Site::ROUTER_FIRST;

const STEP: Duration = Duration::from_millis(10);

const REPAIRED: Duration = Duration::from_secs(2);

const SOON: Duration = Duration::from_secs(10);

//! `adit doctor`: what is broken is found under its name, and what the finding says mends it.

use std::path::Path;
use std::time::Duration;

use adit_tests::process::{self, is_alive};
use adit_tests::{Namespace, Pair, eventually};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::host::{ADIT, Host, LIMIT, assert_failed};

/// A host with a full tunnel to a gateway that answers, over an underlay of both families.
struct Patient {
    host: Host,
    gateway: Host,
}

impl Patient {
    /// Not up yet: `interface` and `allowed` are lines of its file and the prefixes of its peer.
    fn new(interface: &str, allowed: &str) -> Result<Self> {
        let Pair { a, b } = Pair::new()?;
        a.ip(&format!("route add default via {}", Pair::B4))?;
        a.ip(&format!("-6 route add default via {}", Pair::B6))?;
        let patient = Self { host: Host::within(a)?, gateway: Host::within(b)? };
        patient.gateway.write(&format!(
            "Address = 10.9.0.2/24, fd09::2/64\nListenPort = 51820\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.9.0.1/32, fd09::1/128",
            patient.host.key.public_key()
        ))?;
        patient.write(interface, allowed)?;
        Ok(patient)
    }

    fn write(&self, interface: &str, allowed: &str) -> Result<()> {
        let key = self.gateway.key.public_key();
        self.host.write(&format!(
            "{interface}\n[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed}\nEndpoint = {}:51820",
            Pair::B4
        ))
    }

    fn up(&self) -> Result<()> {
        self.gateway.up("")?.success()?;
        self.host.up("--handshake-wait 10")?.success()?;
        Ok(())
    }

    /// A full tunnel of both families that is up.
    fn well() -> Result<Self> {
        let patient = Self::new(BOTH, ALL)?;
        patient.up()?;
        Ok(patient)
    }

    fn down(&self) -> Result<()> {
        for host in [&self.host, &self.gateway] {
            host.adit(&format!("down {}", host.name))?.success()?;
        }
        Ok(())
    }

    fn signal(&self, pid: u32, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Stops the daemon, so that it repairs nothing; dropping the host ends it all the same.
    fn stop(&self) -> Result<u32> {
        let pid = self.host.pid()?;
        self.signal(pid, Signal::SIGSTOP)?;
        Ok(pid)
    }

    /// All findings.
    fn findings(&self) -> Result<Vec<Value>> {
        let run = self.host.adit(&format!("doctor {} --json", self.host.name))?;
        let document: Value = serde_json::from_str(&run.stdout).with_context(|| format!("{run:#?}"))?;
        let report = &document["reports"][0];
        ensure!(report["tunnel"] == *self.host.name, "{document:#}");
        let findings = report["findings"].as_array().context("findings")?.clone();
        let problems = findings.iter().filter(|finding| finding["severity"] == "problem").count();
        ensure!(document["problems"] == problems, "{document:#}");
        ensure!(run.status.code() == Some(i32::from(problems > 0)), "{run:#?}");
        Ok(findings)
    }

    /// The worst of a check, which must be as bad as this.
    fn finds(&self, check: &str, severity: &str) -> Result<Value> {
        let findings = self.findings()?;
        let found = findings.iter().find(|finding| finding["check"] == check && finding["severity"] == severity);
        found.cloned().with_context(|| format!("no {severity} {check} in {findings:#?}"))
    }

    /// Does what a finding says, and waits until its check is fine, or at least no worse than a note.
    fn obey(&self, finding: &Value) -> Result<()> {
        let command = finding["command"].as_str().context("a command")?;
        let folder = Path::new(ADIT).parent().context("a folder")?;
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = self.host.namespace().command("sh");
        process::finish(shell.args(["-c", command]).env("PATH", path), "", LIMIT)?.success()?;
        let bad = |other: &Value| {
            other["check"] == finding["check"] && (other["severity"] == "problem" || other["severity"] == "warning")
        };
        let mut last = Vec::new();
        let mended = eventually("the finding to vanish", Duration::from_secs(10), || {
            last = self.findings().unwrap_or_default();
            !last.is_empty() && !last.iter().any(bad)
        });
        mended.with_context(|| format!("after `{command}`: {last:#?}"))
    }

    /// Fails if anything is worse than a note.
    fn assert_well(&self) -> Result<()> {
        let findings = self.findings()?;
        let fine = |finding: &&Value| finding["severity"] == "ok" || finding["severity"] == "note";
        ensure!(findings.iter().filter(fine).count() == findings.len(), "{findings:#?}");
        Ok(())
    }
}

const BOTH: &str = "Address = 10.9.0.1/24, fd09::1/64";
const ALL: &str = "0.0.0.0/0, ::/0";

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_healthy_tunnel_has_no_finding_above_a_note() -> Result<()> {
    for (interface, allowed) in [
        (BOTH.to_owned(), ALL),
        (format!("{BOTH}\nKillSwitch = on"), ALL),
        (format!("{BOTH}\nExcludedIPs = 203.0.113.0/24\nExcludeLocalNetworks = on"), ALL),
        (BOTH.to_owned(), "10.9.0.0/16, fd09::/48, 192.0.2.0/24"),
        (format!("{BOTH}\nTable = 1234"), "10.9.0.0/16, 192.0.2.0/24"),
    ] {
        let patient = Patient::new(&interface, allowed)?;
        patient.up()?;
        patient.assert_well().with_context(|| format!("{interface}\n{allowed}"))?;
        let names: Vec<String> =
            patient.findings()?.iter().filter_map(|finding| Some(finding["check"].as_str()?.to_owned())).collect();
        for check in ["daemon", "rules", "routes", "kill-switch", "reverse-path-filter", "loop", "leak", "foreign-rule"]
        {
            ensure!(names.iter().any(|name| name == check), "{check} in {names:?}");
        }
        let text = patient.host.adit(&format!("doctor {}", patient.host.name))?.success()?;
        ensure!(text.contains("\n  ok daemon, journal") && !text.contains('\u{1b}'), "{text}");
        patient.down()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_others_took_away_is_found_while_the_daemon_cannot_repair_it() -> Result<()> {
    let patient = Patient::new(&format!("{BOTH}\nKillSwitch = on"), ALL)?;
    patient.up()?;
    let pid = patient.stop()?;
    let namespace = patient.host.namespace();
    namespace.ip("rule delete priority 32765")?;
    namespace.exec("nft", ["delete", "table", "inet", &format!("adit-{}", patient.host.name)])?;
    namespace.ip("-6 route flush table 51820")?;

    let stopped = patient.finds("daemon", "problem")?;
    ensure!(stopped["command"] == format!("kill -CONT {pid}"), "{stopped:#}");
    let rule = patient.finds("rules", "problem")?;
    ensure!(rule["what"].as_str().is_some_and(|what| what.contains("ip -4 rule 32765")), "{rule:#}");
    patient.finds("routes", "problem")?;
    patient.finds("leak", "problem")?;
    let table = patient.finds("kill-switch", "problem")?;
    patient.obey(&rule)?;
    patient.obey(&table)?;
    patient.assert_well()?;
    patient.finds("rivalry", "note")?;
    patient.down()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_strict_reverse_path_filter_without_protection_is_found() -> Result<()> {
    let patient = Patient::well()?;
    let namespace = patient.host.namespace();
    namespace.sysctl(&format!("ipv4/conf/{}/rp_filter", Pair::LINK), "1")?;
    patient.assert_well().context("the answers are marked")?;
    let pid = patient.stop()?;
    namespace.exec("nft", ["delete", "table", "inet", &format!("adit-{}", patient.host.name)])?;
    patient.finds("reply-protection", "warning")?;
    patient.obey(&patient.finds("reverse-path-filter", "problem")?)?;
    patient.signal(pid, Signal::SIGCONT)?;
    patient.down()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn rules_and_routes_of_others_that_take_traffic_are_found() -> Result<()> {
    let patient = Patient::well()?;
    let namespace = patient.host.namespace();
    namespace.ip(&format!("route add default via {} table 77", Pair::B4))?;
    namespace.ip("rule add priority 100 lookup 77")?;
    let rule = patient.finds("foreign-rule", "problem")?;
    patient.finds("leak", "problem")?;
    patient.obey(&rule)?;
    patient.assert_well()?;

    // What TunnelVision's DHCP server does.
    namespace.ip(&format!("route add 0.0.0.0/1 via {}", Pair::B4))?;
    let pulled = patient.finds("pulled-out", "problem")?;
    ensure!(pulled["means"].as_str().is_some_and(|means| means.contains("TunnelVision")), "{pulled:#}");
    patient.obey(&pulled)?;
    patient.assert_well()?;

    namespace.ip(&format!("route add 203.0.113.0/24 via {} table 51820", Pair::B4))?;
    patient.obey(&patient.finds("table", "warning")?)?;
    patient.assert_well()?;

    // In the strict way no route in main goes before the tunnel.
    namespace.ip(&format!("route add 0.0.0.0/1 via {}", Pair::B4))?;
    patient.write(&format!("{BOTH}\nExcludeLocalNetworks = on"), ALL)?;
    patient.host.adit(&format!("reload {}", patient.host.name))?.success()?;
    patient.assert_well()?;
    patient.down()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_wrong_mark_is_found_with_the_loop_that_it_makes() -> Result<()> {
    // In wg-quick's way the gateway, which is on the link, would still be found in the main table.
    let patient = Patient::new(&format!("{BOTH}\nExcludeLocalNetworks = off"), ALL)?;
    patient.up()?;
    patient.host.namespace().exec("wg", ["set", &patient.host.name, "fwmark", "0"])?;
    patient.finds("loop", "problem")?;
    patient.obey(&patient.finds("mark", "problem")?)?;
    ensure!(patient.findings()?.iter().any(|finding| finding["check"] == "loop" && finding["severity"] != "problem"));
    patient.down()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_family_that_passes_the_tunnel_by_is_found() -> Result<()> {
    let patient = Patient::new("Address = 10.9.0.1/24", "0.0.0.0/0")?;
    patient.up()?;
    let missing = patient.finds("missing-family", "warning")?;
    ensure!(missing["mend"].as_str().is_some_and(|mend| mend.contains("::/0")), "{missing:#}");
    // The first half of the remedy is an editor's work.
    patient.write(BOTH, ALL)?;
    patient.obey(&missing)?;
    patient.assert_well()?;
    patient.down()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_mtu_that_does_not_fit_is_found() -> Result<()> {
    let patient = Patient::new(&format!("{BOTH}\nMTU = 1420"), ALL)?;
    patient.up()?;
    patient.assert_well()?;
    for host in [&patient.host, &patient.gateway] {
        host.namespace().ip(&format!("link set {} mtu 1400", Pair::LINK))?;
    }
    let finding = patient.finds("mtu", "warning")?;
    ensure!(finding["mend"].as_str().is_some_and(|mend| mend.contains("`MTU = 1320`")), "{finding:#}");
    patient.write(&format!("{BOTH}\nMTU = 1320"), ALL)?;
    patient.obey(&finding)?;
    patient.down()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_killed_daemon_is_found_with_what_it_has_left() -> Result<()> {
    let patient = Patient::well()?;
    let (host, name) = (&patient.host, &patient.host.name);
    let pid = host.pid()?;
    patient.signal(pid, Signal::SIGKILL)?;
    eventually("the process to be gone", LIMIT, || !is_alive(pid))?;
    let gone =
        || patient.finds("daemon", "problem").is_ok_and(|found| found["command"] == format!("adit recover {name}"));
    eventually("its end to be found", LIMIT, gone)?;

    let run = host.adit("doctor")?;
    ensure!(run.status.code() == Some(1), "{run:#?}");
    for part in ["problem dead-tunnel", &format!("{name} has ended without undoing"), "The host is closed"] {
        ensure!(run.stdout.contains(part), "«{part}» expected: {run:#?}");
    }
    host.adit(&format!("recover {name}"))?.success()?;
    assert_failed(&host.adit(&format!("doctor {name}"))?, 6, "is not up");
    let rest = host.adit("doctor")?;
    ensure!(!rest.stdout.contains(&format!("{name} has ended")), "{rest:#?}");
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn rules_and_tables_that_no_tunnel_has_are_found_on_the_host() -> Result<()> {
    let host = Host::new("stray")?;
    let namespace = host.namespace();
    let table = format!("adit-{}", host.name);
    namespace.exec("nft", ["add", "table", "inet", &table])?;
    namespace.ip("rule add not fwmark 7 lookup 4321 priority 200 protocol 173")?;
    namespace.ip("route add 203.0.113.0/24 dev under0 table 4321 proto 173")?;
    // Beside a damaged journal, which another test may have made, nothing can be called stray.
    let mut run = host.adit("doctor")?;
    eventually("readable journals", LIMIT, || {
        run = host.adit("doctor").unwrap_or_else(|error| panic!("{error}"));
        run.stdout.contains("problem stray-rule")
    })
    .with_context(|| format!("{run:#?}"))?;
    for part in [
        &format!("nft delete table inet {table}"),
        "ip -4 rule delete priority 200",
        "ip -4 route delete 203.0.113.0/24 dev under0 table 4321",
    ] {
        ensure!(run.stdout.contains(part), "«{part}» expected: {run:#?}");
        let words: Vec<&str> = part.split(' ').collect();
        namespace.exec(words[0], &words[1..])?;
    }
    let run = host.adit("doctor")?;
    ensure!(!run.stdout.contains("stray-rule\n      The"), "{run:#?}");
    Ok(())
}

/// What README.md shows is what is printed, on a host at 192.168.1.20 with nothing but its own name server.
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_diagnosis_in_the_readme_is_real() -> Result<()> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let section = readme.split_once("## Is something wrong?").context("the section is gone")?.1;
    let block = section.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).context("no block")?;
    let shown = block.strip_prefix("$ sudo adit doctor wg0\n").context("another command")?;

    let (a, b) = (Namespace::new("readme")?, Namespace::new("gateway")?);
    a.ip(&format!("link add eth0 type veth peer name eth0 netns {}", b.name()))?;
    for (side, words) in [
        (&a, "addr add 192.168.1.20/24 dev eth0"),
        (&b, "addr add 192.168.1.1/24 dev eth0"),
        (&b, "addr add 192.0.2.10/32 dev lo"),
    ] {
        side.ip(words)?;
        side.ip("link set eth0 up")?;
    }
    a.ip("route add default via 192.168.1.1")?;
    let patient = Patient { host: Host::within(a)?, gateway: Host::within(b)? };
    patient.gateway.write(&format!(
        "Address = 10.9.0.2/24\nListenPort = 51820\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.1/32",
        patient.host.key.public_key()
    ))?;
    patient.host.write(&format!(
        "Address = 10.9.0.1/24\n[Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.10:51820",
        patient.gateway.key.public_key()
    ))?;
    patient.up()?;
    patient.host.namespace().ip("route add 0.0.0.0/1 via 192.168.1.66")?;

    let servers = patient.host.path("resolv.conf");
    std::fs::write(&servers, "nameserver 127.0.0.1\n")?;
    let mut command = patient.host.namespace().command("unshare");
    command.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#]).arg(&servers);
    let run = process::finish(command.args([ADIT, "doctor", &patient.host.name]), "", LIMIT)?;
    assert_eq!((run.stdout + &run.stderr).replace(&patient.host.name, "wg0"), shown);
    patient.down()
}

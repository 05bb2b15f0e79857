//! `adit explain` and `adit routes` on tunnels that are up: what they say is what the kernel does, and when it does
//! something else they name what made it.

use std::os::unix::fs::PermissionsExt as _;

use adit_tests::process;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::host::{ADIT, Host, LIMIT, STRANGER, assert_failed};

/// `adit explain WORDS --json`, which must end with `code`.
fn explain(host: &Host, words: &str, code: i32) -> Result<Value> {
    let run = host.adit(&format!("explain {words} --json"))?;
    ensure!(run.status.code() == Some(code), "{words}: {run:#?}");
    serde_json::from_str(&run.stdout).with_context(|| run.stdout)
}

/// Fails unless each target goes its way by its interface, and the kernel agrees.
fn assert_ways(host: &Host, ways: &[(&str, &str, &str)]) -> Result<()> {
    for (target, way, device) in ways {
        let explanation = explain(host, &format!("{target} {}", host.name), 0)?;
        let answer = &explanation["answers"][0];
        assert_eq!((answer["way"].as_str(), answer["agrees"].as_bool()), (Some(*way), Some(true)), "{answer:#}");
        if !device.is_empty() {
            assert_eq!(answer["device"], *device, "{answer:#}");
        }
        // The same from ip(8), which asks the kernel by itself.
        let got = host.namespace().ip(&format!("route get {target}"));
        match (*way, got) {
            ("blocked", _) => {}
            (_, got) => {
                let got = got?;
                ensure!(device.is_empty() || got.contains(&format!("dev {device} ")), "{target}: {got}");
                let source = answer["source"].as_str().context("source")?;
                ensure!(got.contains(&format!("src {source} ")), "{target}: {source} is not the source of {got}");
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_full_tunnel_is_explained_as_it_is() -> Result<()> {
    let host = Host::new("xfull")?;
    host.namespace().ip("addr add 192.168.7.2/24 dev under0")?;
    host.write(&format!(
        "Address = 10.9.0.1/32, fd09::1/128\nMTU = 1300\nKillSwitch = on\nExcludeLocalNetworks = on\n[Peer]\n\
         PublicKey = {STRANGER}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 198.51.100.9:51820"
    ))?;
    host.up("")?.success()?;
    let name = host.name.as_str();
    assert_ways(
        &host,
        &[
            ("1.1.1.1", "tunnel", name),
            ("2001:db8::1", "tunnel", name),
            ("192.168.7.9", "underlay", "under0"),
            // Connected, and of public addresses: not trusted.
            ("198.51.100.77", "tunnel", name),
            ("10.9.0.1", "host", "lo"),
        ],
    )?;
    let explanation = explain(&host, &format!("198.51.100.9 {name}"), 0)?;
    let notes = explanation["answers"][0]["notes"].to_string();
    assert!(notes.contains("leave by the underlay, directly on under0"), "{notes}");
    let tunnel = &explain(&host, &format!("1.1.1.1 {name}"), 0)?["answers"][0];
    assert_eq!(tunnel["peer"]["public_key"], *STRANGER);
    assert_eq!((&tunnel["mtu"], &tunnel["source"]), (&1300.into(), &"10.9.0.1".into()));
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn split_tunnels_are_explained_as_they_are() -> Result<()> {
    let host = Host::new("xsplit")?;
    let peer = format!("[Peer]\nPublicKey = {STRANGER}\nEndpoint = 198.51.100.9:51820");
    host.write(&format!("Address = 10.9.0.1/24\n{peer}\nAllowedIPs = 10.9.0.0/24, 172.20.0.0/14"))?;
    host.up("")?.success()?;
    let name = host.name.clone();
    assert_ways(
        &host,
        &[
            ("10.9.0.7", "tunnel", &name),
            ("172.21.0.1", "tunnel", &name),
            ("1.1.1.1", "underlay", "under0"),
            ("198.51.100.77", "underlay", "under0"),
        ],
    )?;

    // What is in force counts, and not what the file says by now.
    host.write(&format!(
        "Address = 10.9.0.1/24\nExcludedIPs = 203.0.113.0/24, 2001:db8:1::/48\n{peer}\n\
         AllowedIPs = 0.0.0.0/0, 203.0.113.64/26"
    ))?;
    assert_ways(&host, &[("8.8.8.8", "underlay", "under0")])?;
    host.adit(&format!("reload {name}"))?.success()?;
    assert_ways(
        &host,
        &[
            ("8.8.8.8", "tunnel", &name),
            ("203.0.113.7", "underlay", "under0"),
            ("203.0.113.70", "tunnel", &name),
            ("198.51.100.77", "tunnel", &name),
        ],
    )?;
    let parts = explain(&host, &format!("203.0.113.0/24 {name}"), 0)?;
    let parts: Vec<_> = parts["answers"].as_array().context("answers")?.iter().collect();
    let ways: Vec<_> = parts.iter().map(|part| (part["net"].as_str(), part["way"].as_str())).collect();
    assert_eq!(
        ways,
        [
            (Some("203.0.113.0/26"), Some("underlay")),
            (Some("203.0.113.64/26"), Some("tunnel")),
            (Some("203.0.113.128/25"), Some("underlay")),
        ]
    );
    assert!(parts.iter().all(|part| part["agrees"] == true), "{parts:#?}");

    let tree = host.adit(&format!("routes {name}"))?.success()?;
    for line in [
        "IPv4",
        "  32765: not from all fwmark 0xca6c lookup 51820  (Adit)",
        &format!("    ├─ default dev {name}  (peer {})", &STRANGER[..4].to_owned()),
    ] {
        assert!(tree.contains(line.trim_end_matches(')')), "«{line}» expected in\n{tree}");
    }
    let nested = format!("    │     └─ 203.0.113.64/26 dev {name}  (peer");
    assert!(tree.contains(&nested), "«{nested}» expected in\n{tree}");
    let tree: Value = serde_json::from_str(&host.adit("routes --json")?.success()?)?;
    assert_eq!((tree[0]["family"].as_str(), tree[1]["family"].as_str()), (Some("ipv4"), Some("ipv6")));
    assert!(tree[0]["rules"].as_array().context("rules")?.iter().any(|node| node["rule"]["is_ours"] == true));
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn whatever_takes_traffic_from_the_tunnel_is_named() -> Result<()> {
    let host = Host::new("xsteal")?;
    host.write(&format!(
        "Address = 10.9.0.1/32\nExcludeLocalNetworks = off\n[Peer]\nPublicKey = {STRANGER}\n\
         AllowedIPs = 0.0.0.0/0\nEndpoint = 198.51.100.9:51820"
    ))?;
    host.up("")?.success()?;
    let (name, namespace) = (host.name.clone(), host.namespace());
    let stolen = |rule: &str, options: &str, expected: &str| -> Result<()> {
        namespace.ip(&format!("rule add priority 100 {rule}"))?;
        let explanation = explain(&host, &format!("1.1.1.1 {name} {options}"), 1)?;
        let difference = explanation["answers"][0]["difference"].as_str().unwrap_or_default();
        ensure!(difference.contains(expected), "«{expected}» expected in {explanation:#}");
        namespace.ip(&format!("rule del priority 100 {rule}"))?;
        explain(&host, &format!("1.1.1.1 {name} {options}"), 0)?;
        Ok(())
    };
    namespace.ip("route add default via 198.51.100.254 dev under0 table 77")?;
    stolen("lookup 77", "", "the rule `100: from all lookup 77` (not Adit's)")?;
    stolen(
        "ipproto tcp dport 443 lookup 77",
        "--proto tcp --port 443",
        "takes it: default via 198.51.100.254 dev under0",
    )?;
    stolen("from 10.9.0.1 lookup 77", "", "once it has the source address 10.9.0.1, as TCP connects")?;
    stolen("from 198.51.100.1 lookup 77", "--from 198.51.100.1", "`100: from 198.51.100.1 lookup 77`")?;
    stolen("to 1.1.1.0/24 prohibit", "", "`100: from all to 1.1.1.0/24 prohibit` (not Adit's")?;

    namespace.ip("route add 9.9.9.0/24 via 198.51.100.254 dev under0 table 51820")?;
    let explanation = explain(&host, &format!("9.0.0.0/8 {name}"), 1)?;
    let difference = explanation["answers"][0]["difference"].as_str().context("difference")?;
    ensure!(
        difference.contains("9.9.9.0/24 via 198.51.100.254") && difference.ends_with("(asked about 9.9.9.0)"),
        "{difference}"
    );
    namespace.ip("route del 9.9.9.0/24 table 51820")?;

    let run = host.adit(&format!("explain 1.1.1.1 {name} --from 2001:db8::1"))?;
    assert_failed(&run, 2, "different address families");
    namespace.ip("rule add priority 100 lookup 77")?;
    let run = host.adit(&format!("explain 1.1.1.1 {name}"))?;
    assert_failed(&run, 1, &format!("the kernel does not do what the settings of {name} say"));
    assert!(run.stdout.contains("  agrees  NO: it should go by"), "{}", run.stdout);
    namespace.ip("rule del priority 100 lookup 77")?;

    // wg(8) tells the engine about prefixes, and the host nothing.
    namespace.exec("wg", ["set", &name, "peer", STRANGER, "allowed-ips", "0.0.0.0/0,fd77::/16"])?;
    let explanation = explain(&host, &format!("fd77::1 {name}"), 1)?;
    assert_eq!(explanation["answers"][0]["way"], "tunnel", "{explanation:#}");
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn who_may_not_ask_the_tunnel_is_told_what_its_file_says() -> Result<()> {
    const NOBODY: u32 = 65534;
    let host = Host::new("xnobody")?;
    let text = format!("Address = 10.9.0.1/32\n[Peer]\nPublicKey = {STRANGER}\nAllowedIPs = 10.0.0.0/8\n");
    host.write(&text)?;
    host.up("")?.success()?;
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    // Nobody may not even read the command where it is built.
    let adit = folder.path().join("adit");
    std::fs::copy(ADIT, &adit)?;
    let file = folder.path().join(format!("{}.conf", host.name));
    std::fs::copy(host.file(), &file)?;
    std::os::unix::fs::chown(&file, Some(NOBODY), None)?;
    let as_nobody = |what: &std::ffi::OsStr| {
        let mut command = host.namespace().command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&adit);
        process::finish(command.args(["explain", "10.1.2.3"]).arg(what), "", LIMIT)
    };
    let text = as_nobody(file.as_os_str())?.success()?;
    for part in ["10.1.2.3 goes through the tunnel", "agrees  yes", "may have changed since"] {
        assert!(text.contains(part), "«{part}» expected in\n{text}");
    }
    let run = as_nobody(host.name.as_ref())?;
    assert!(matches!(run.status.code(), Some(4 | 6)), "{run:#?}");
    let mut command = host.namespace().command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&adit);
    let text = process::finish(command.arg("routes"), "", LIMIT)?.success()?;
    assert!(text.contains(&format!("10.0.0.0/8 dev {}", host.name)), "{text}");
    Ok(())
}

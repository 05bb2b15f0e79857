//! The keys of wg-quick(8) and what they do, one by one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use adit_tests::{Pair, eventually, tools, wg};
use anyhow::Result;

use crate::host::{Host, LIMIT, STRANGER};

fn peer(allowed: &str) -> String {
    format!("[Peer]\nPublicKey = {STRANGER}\nAllowedIPs = {allowed}\nEndpoint = 198.51.100.9:51820")
}

/// Brings the tunnel up, lets `look` look, and brings it down to what was before.
fn while_up(host: &Host, lines: &str, look: impl FnOnce() -> Result<()>) -> Result<()> {
    host.write(lines)?;
    let before = host.snapshot()?;
    host.up("")?.success()?;
    look()?;
    host.adit(&format!("down {}", host.name))?.success()?;
    host.assert_as_before(&before, lines)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn table_auto_routes_default_routes_beside_the_main_table() -> Result<()> {
    let host = Host::new("auto")?;
    while_up(&host, &format!("Address = 10.9.0.1/24, fd09::1/64\n{}", peer("0.0.0.0/0, ::/0, 10.9.5.0/24")), || {
        let namespace = host.namespace();
        assert!(namespace.ip("route")?.contains("default via 198.51.100.254"), "the main table keeps its own");
        let mark = host.status()?["fwmark"].as_u64().unwrap();
        for family in ["-4", "-6"] {
            let rules = namespace.ip(&format!("{family} rule"))?;
            assert!(rules.contains("lookup main suppress_prefixlength 0"), "{rules}");
            assert!(rules.contains(&format!("not from all fwmark {mark:#x} lookup {mark}")), "{rules}");
            let table = namespace.ip(&format!("{family} route show table {mark}"))?;
            assert!(table.contains(&format!("default dev {}", host.name)), "{table}");
        }
        assert!(namespace.ip("route get 203.0.113.1")?.contains(&host.name));
        assert!(namespace.ip(&format!("route get 203.0.113.1 mark {mark}"))?.contains("under0"));
        let source_check = namespace.enter(|| fs::read_to_string("/proc/sys/net/ipv4/conf/all/src_valid_mark"))??;
        assert_eq!(source_check.trim(), "1");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn table_off_makes_no_routes() -> Result<()> {
    let host = Host::new("off")?;
    let (rules, routes) = (host.namespace().ip("rule")?, host.namespace().ip("route")?);
    while_up(&host, &format!("Address = 10.9.0.1/32\nTable = off\n{}", peer("0.0.0.0/0, 10.9.5.0/24")), || {
        assert_eq!(host.namespace().ip("rule")?, rules);
        assert_eq!(host.namespace().ip("route")?, routes);
        Ok(())
    })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn table_number_takes_all_routes() -> Result<()> {
    let host = Host::new("number")?;
    let rules = host.namespace().ip("rule")?;
    while_up(&host, &format!("Address = 10.9.0.1/32\nTable = 1234\n{}", peer("0.0.0.0/0, 10.9.5.0/24")), || {
        let table = host.namespace().ip("route show table 1234")?;
        assert!(table.contains(&format!("default dev {}", host.name)) && table.contains("10.9.5.0/24"), "{table}");
        assert!(!host.namespace().ip("route")?.contains(&host.name));
        assert_eq!(host.namespace().ip("rule")?, rules);
        Ok(())
    })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_mtu_is_the_files_or_the_underlays_less_80() -> Result<()> {
    let host = Host::new("mtu")?;
    let shows = |mtu: &str| {
        let link = host.namespace().ip(&format!("-o link show dev {}", host.name))?;
        assert!(link.contains(&format!(" mtu {mtu} ")), "{link}");
        Ok(())
    };
    while_up(&host, &format!("Address = 10.9.0.1/24\nMTU = 1234\n{}", peer("10.9.5.0/24")), || shows("1234"))?;
    while_up(&host, &format!("Address = 10.9.0.1/24\n{}", peer("10.9.5.0/24")), || shows("1420"))?;
    host.namespace().ip("link set under0 mtu 1400")?;
    while_up(&host, &format!("Address = 10.9.0.1/24\n{}", peer("10.9.5.0/24")), || shows("1320"))
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_mark_is_the_files() -> Result<()> {
    let host = Host::new("mark")?;
    while_up(&host, &format!("Address = 10.9.0.1/24\nFwMark = 0xca6c\n{}", peer("10.9.5.0/24")), || {
        assert_eq!(wg::show(host.namespace(), &host.name)?.fwmark, Some(0xca6c));
        Ok(())
    })?;
    // The mark of a full tunnel is that of its rules.
    while_up(&host, &format!("Address = 10.9.0.1/24\nFwMark = 4321\n{}", peer("0.0.0.0/0")), || {
        assert!(host.namespace().ip("rule")?.contains("not from all fwmark 0x10e1"));
        assert_eq!(wg::show(host.namespace(), &host.name)?.fwmark, Some(4321));
        Ok(())
    })
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn hooks_run_in_order_with_the_interfaces_name() -> Result<()> {
    let host = Host::new("hooks")?;
    let story = host.path("story");
    let tell = |key: &str, text: &str| format!("{key} = echo {text} >> {}", story.display());
    let exists = "$(ip link show dev %i > /dev/null 2>&1 && echo there || echo gone)";
    let address = "$(ip -o addr show dev %i 2> /dev/null | grep -c 10.9.0.1)";
    let lines = [
        tell("PostUp", &format!("post-up %i {exists} {address}")),
        tell("PreUp", &format!("pre-up %i%i {exists} {address}")),
        tell("PreUp", "second"),
        tell("PostDown", &format!("post-down %i {exists}")),
        tell("PreDown", &format!("pre-down %i {exists} {address}")),
        "Address = 10.9.0.1/24".to_owned(),
    ];
    while_up(&host, &lines.join("\n"), || Ok(()))?;
    let name = &host.name;
    let expected = format!(
        "pre-up {name}{name} there 0\nsecond\npost-up {name} there 1\npre-down {name} there 1\npost-down {name} gone\n"
    );
    assert_eq!(fs::read_to_string(&story)?, expected);
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn save_config_writes_what_the_tunnel_is_on_the_way_down() -> Result<()> {
    let host = Host::new("save")?;
    host.write(&format!(
        "Address = 10.9.0.1/24\nSaveConfig = true\nPostUp = true\n# a comment\n{}",
        peer("10.9.5.0/24")
    ))?;
    fs::set_permissions(host.file(), fs::Permissions::from_mode(0o640))?;
    host.up("")?.success()?;
    let (other, psk) = (wg::private_key()?.public_key(), host.path("psk"));
    let psk_text = wg::preshared_key()?.to_base64();
    fs::write(&psk, &*psk_text)?;
    let words = format!(
        "listen-port 51999 fwmark 0x99 peer {other} preshared-key {} allowed-ips 10.9.6.0/24 persistent-keepalive 7 \
         endpoint [2001:db8::7]:7",
        psk.display()
    );
    wg::set(host.namespace(), &host.name, &words)?;
    host.adit(&format!("down {}", host.name))?.success()?;
    let saved = fs::read_to_string(host.file())?;
    for line in [
        &*format!("PrivateKey = {}", &*host.key.to_base64()),
        "ListenPort = 51999",
        "FwMark = 153",
        "Address = 10.9.0.1/24",
        "PostUp = true",
        "SaveConfig = true",
        &format!("PublicKey = {STRANGER}"),
        "AllowedIPs = 10.9.5.0/24",
        "Endpoint = 198.51.100.9:51820",
        &format!("PublicKey = {other}"),
        &format!("PresharedKey = {}", &*psk_text),
        "AllowedIPs = 10.9.6.0/24",
        "Endpoint = [2001:db8::7]:7",
        "PersistentKeepalive = 7",
    ] {
        assert!(saved.lines().any(|found| found == line), "«{line}» expected in\n{saved}");
    }
    assert_eq!(fs::metadata(host.file())?.permissions().mode() & 0o777, 0o640);
    // And it brings the same tunnel up.
    host.up("")?.success()?;
    let dump = wg::show(host.namespace(), &host.name)?;
    assert_eq!((dump.listen_port, dump.fwmark, dump.peers.len()), (51999, Some(0x99), 2));
    host.adit(&format!("down {}", host.name))?.success()?;
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_key_that_a_hook_sets_is_as_good_as_one_in_the_file() -> Result<()> {
    let Pair { a, b } = Pair::new()?;
    let (one, two) = (Host::within(a)?, Host::within(b)?);
    two.write(&format!(
        "ListenPort = 51820\nAddress = 10.9.0.2/24\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.1/32",
        one.key.public_key()
    ))?;
    two.up("")?.success()?;
    let key = one.path("private.key");
    fs::write(&key, &*one.key.to_base64())?;
    for hook in ["PreUp", "PostUp"] {
        let text = format!(
            "[Interface]\nAddress = 10.9.0.1/24\n{hook} = wg set %i private-key {}\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.9.0.2/32\nEndpoint = {}:51820",
            key.display(),
            two.key.public_key(),
            Pair::B4
        );
        one.write_raw(&text)?;
        let run = one.up("")?;
        assert_eq!(run.stderr, "", "nothing to warn about");
        run.success()?;
        assert_eq!(wg::show(one.namespace(), &one.name)?.private_key.as_ref(), Some(&one.key), "{hook}");
        eventually("an answer through the tunnel", LIMIT, || {
            let answered =
                tools::ping(one.namespace(), "10.9.0.2".parse().unwrap(), 1, std::time::Duration::from_millis(10));
            answered.is_ok_and(|pings| pings.received == 1)
        })?;
        // A reload runs no hooks, so it must not take the key away.
        one.write_raw(&text.replace("10.9.0.2/32", "10.9.0.2/32, 10.9.7.0/24"))?;
        one.adit(&format!("reload {}", one.name))?.success()?;
        let dump = wg::show(one.namespace(), &one.name)?;
        assert_eq!((dump.private_key.as_ref(), dump.peers[0].allowed_ips.len()), (Some(&one.key), 2), "{hook}");
        one.adit(&format!("down {}", one.name))?.success()?;
        assert!(!fs::read_to_string(one.file())?.contains("PrivateKey"), "nothing was saved unasked");
    }

    one.write_raw("[Interface]\nAddress = 10.9.0.1/24")?;
    let run = one.up("")?;
    assert!(run.stderr.contains("warning: PrivateKey: the private key is missing"), "{run:#?}");
    run.success()?;
    assert_eq!(wg::show(one.namespace(), &one.name)?.private_key, None);
    for host in [&one, &two] {
        host.adit(&format!("down {}", host.name))?.success()?;
    }
    Ok(())
}

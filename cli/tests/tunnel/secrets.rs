//! No key is told to anybody, and no address to those who read the log that Adit writes unasked.

use std::fs;
use std::net::IpAddr;

use adit_tests::{Pair, eventually, wg};
use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, LIMIT};

/// All that a whole life of a tunnel shows anywhere: a handshake, a reload, errors, hooks and the way down.
fn life(level: &str, format: &str) -> Result<(String, Vec<String>)> {
    let Pair { a, b } = Pair::new()?;
    let (one, two) = (Host::within(a)?, Host::within(b)?);
    let psk = wg::preshared_key()?;
    let key_file = one.path("other.key");
    fs::write(&key_file, one.other_key.to_base64())?;
    let lines = |own: &str, hooks: &str, peer: &Host, peer_host: IpAddr, allowed: &str| {
        format!(
            "Address = {own}\nListenPort = 51820\n{hooks}\n[Peer]\nPublicKey = {}\nPresharedKey = {}\n\
             AllowedIPs = {allowed}\nEndpoint = {peer_host}:51820\nPersistentKeepalive = 1",
            peer.key.public_key(),
            psk.to_base64(),
        )
    };
    let hooks = format!(
        "PostUp = wg showconf %i; wg show %i dump; ip addr\nPostUp = echo {} 198.51.100.77\nPreDown = wg showconf %i",
        psk.to_base64()
    );
    one.write(&lines("10.9.0.1/24", &hooks, &two, Pair::B4, "10.9.0.2/32"))?;
    two.write(&lines("10.9.0.2/24", "", &one, Pair::A4, "10.9.0.1/32"))?;
    let mut seen = String::new();
    let options = format!("--log {level} --log-format {format}");
    let log = one.path("one.log");

    seen += &two.up(&options)?.success()?;
    let run = one.up(&format!("{options} --handshake-wait 10 --log-file {}", log.display()))?;
    seen += &format!("{}{}", run.stderr, run.stdout);
    run.success()?;
    eventually("a handshake", LIMIT, || {
        wg::show(one.namespace(), &one.name).is_ok_and(|dump| dump.peers[0].latest_handshake.is_some())
    })?;
    adit_tests::tools::ping(one.namespace(), "10.9.0.2".parse()?, 3, std::time::Duration::from_millis(50))?;
    for host in [&one, &two] {
        seen += &String::from_utf8_lossy(&fs::read(format!("/proc/{}/cmdline", host.pid()?))?);
        seen += &host.adit(&format!("status {} --json", host.name))?.success()?;
        seen += &host.adit(&format!("status {}", host.name))?.success()?;
    }

    // A wrong file, by command and by signal; a change; and what wg(8) may do, right and wrong.
    let good = fs::read_to_string(one.file())?;
    one.write_raw(&good.replace("10.9.0.2/32", "10.9.0.2/33").replace("PresharedKey = ", "PresharedKey = A"))?;
    let run = one.adit(&format!("--log {level} reload {}", one.name))?;
    seen += &format!("{}{}", run.stderr, run.stdout);
    let run = one.adit(&format!("--log {level} check {}", one.file().display()))?;
    seen += &format!("{}{}", run.stderr, run.stdout);
    let pid = Pid::from_raw(i32::try_from(one.pid()?)?);
    kill(pid, Signal::SIGHUP)?;
    eventually("the log to tell", LIMIT, || fs::read_to_string(&log).is_ok_and(|log| log.contains("not reloaded")))?;
    one.write_raw(&good.replace("10.9.0.2/32", "10.9.0.2/32, 10.9.3.0/24"))?;
    let run = one.adit(&format!("--log {level} reload {}", one.name))?;
    seen += &format!("{}{}", run.stderr, run.stdout);
    run.success()?;
    wg::set(one.namespace(), &one.name, &format!("private-key {}", key_file.display()))?;
    wg::set(one.namespace(), &one.name, &format!("peer {} endpoint 198.51.100.2:51821", two.key.public_key()))?;
    one.namespace().ip("route add 10.9.4.0/24 dev under0")?;
    one.write_raw(&good.replace("10.9.0.2/32", "10.9.4.0/24"))?;
    kill(pid, Signal::SIGHUP)?;
    eventually("the log to tell", LIMIT, || {
        fs::read_to_string(&log).is_ok_and(|log| log.matches("not reloaded").count() == 2)
    })?;

    seen += &fs::read_to_string(two.log())?;
    for host in [&one, &two] {
        let run = host.adit(&format!("--log {level} down {}", host.name))?;
        seen += &format!("{}{}", run.stderr, run.stdout);
        run.success()?;
    }
    let log = fs::read_to_string(&log)?;
    assert!(log.contains("tunnel is down"), "{log}");
    assert!(log.contains("printed"), "a hook has printed: {log}");
    seen += &log;
    let secrets = [&one.key, &two.key, &one.other_key].map(|key| [key.to_base64().to_string(), hex(key.as_bytes())]);
    let secrets = secrets.into_iter().flatten().chain([psk.to_base64().to_string(), hex(psk.as_bytes())]);
    Ok((seen, secrets.collect()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn no_key_is_told_even_when_everything_is_logged() -> Result<()> {
    for format in ["human", "json"] {
        let (seen, secrets) = life("trace", format)?;
        assert!(seen.contains("TRACE") || seen.contains("DEBUG"), "it was meant to be much: {seen}");
        for secret in secrets {
            // Without its last characters it would be no less of a leak, and escapes could hide them.
            let found =
                seen.lines().find(|line| line.to_ascii_lowercase().contains(&secret[..40].to_ascii_lowercase()));
            assert_eq!(found, None, "a key is shown");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn no_address_is_logged_above_debug() -> Result<()> {
    for (level, format) in [("info", "human"), ("trace", "human"), ("trace", "json")] {
        let (seen, _) = life(level, format)?;
        let is_above = |line: &&str| {
            [" INFO ", " WARN ", "ERROR "].iter().any(|level| line.contains(level))
                || ["\"INFO\"", "\"WARN\"", "\"ERROR\""].iter().any(|level| line.contains(level))
        };
        let lines: Vec<&str> = seen.lines().filter(is_above).collect();
        assert!(lines.len() >= 8, "{seen}");
        for line in lines {
            for address in ["198.51.100", "10.9.", "2001:db8", "fe80:"] {
                assert!(!line.contains(address), "{line}");
            }
        }
    }
    Ok(())
}

//! Signals in every state, and what is left of a tunnel whose process was killed.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use adit_tests::process::is_alive;
use adit_tests::{Process, eventually};
use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, LIMIT, STRANGER, assert_failed};

/// A tunnel that changes everything that a tunnel can change.
fn full_tunnel() -> String {
    format!(
        "Address = 10.9.0.1/24, fd09::1/64\n[Peer]\nPublicKey = {STRANGER}\nAllowedIPs = 0.0.0.0/0, ::/0\n\
         Endpoint = 198.51.100.9:51820"
    )
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
}

/// Brings a full tunnel up and kills it.
fn killed(host: &Host) -> Result<()> {
    host.up("")?.success()?;
    let rules = host.namespace().ip("rule")?;
    assert!(rules.contains("suppress_prefixlength 0"), "{rules}");
    let pid = host.pid()?;
    send(pid, Signal::SIGKILL)?;
    // Threads that are still ending keep its descriptors open a little longer than it seems to live.
    let socket = format!("/run/adit/{}.sock", host.name);
    let refused = || UnixStream::connect(&socket).is_err();
    eventually("the process to be gone", LIMIT, || !is_alive(pid) && refused())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_killed_tunnel_is_undone_by_down_by_recover_and_by_the_next_start() -> Result<()> {
    let host = Host::new("killed")?;
    host.write(&full_tunnel())?;
    let before = host.snapshot()?;

    killed(&host)?;
    assert_failed(&host.adit(&format!("status {}", host.name))?, 6, "is not up");
    let text = host.adit(&format!("down {}", host.name))?.success()?;
    assert!(text.contains("was not running; what it had left behind is undone"), "{text}");
    host.assert_as_before(&before, "after down")?;
    assert_failed(&host.adit(&format!("down {}", host.name))?, 6, "is not up");

    killed(&host)?;
    let text = host.adit(&format!("recover {}", host.name))?.success()?;
    assert_eq!(text, format!("{}: undone\n", host.name));
    host.assert_as_before(&before, "after recover")?;
    let text = host.adit(&format!("recover {}", host.name))?.success()?;
    assert_eq!(text, format!("{}: left nothing behind\n", host.name));

    killed(&host)?;
    host.up("")?.success()?;
    let text = host.adit(&format!("recover {}", host.name))?.success()?;
    assert!(text.contains("running as process"), "{text}");
    host.adit(&format!("down {}", host.name))?.success()?;
    host.assert_as_before(&before, "after another start and its end")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_interrupt_during_a_start_undoes_it() -> Result<()> {
    let host = Host::new("interrupt")?;
    let before = host.snapshot()?;
    let name = format!("[Peer]\nPublicKey = {STRANGER}\nEndpoint = no-such-host.invalid:51820");
    // The name server is an address behind the underlay, where nobody answers.
    for (state, lines, options) in [
        ("names", name.clone(), "--resolve-wait 60"),
        ("PreUp", format!("PreUp = echo started; sleep 600 & sleep 600\n{}", full_tunnel()), ""),
        ("handshake", full_tunnel(), "--handshake-wait 60"),
        ("PostUp", full_tunnel().replace("[Peer]", "PostUp = echo started; sleep 600\n[Peer]"), ""),
    ] {
        host.write(&lines)?;
        for (signal, foreground) in [(Signal::SIGINT, false), (Signal::SIGTERM, false), (Signal::SIGINT, true)] {
            let what = format!("{signal} during {state}, foreground: {foreground}");
            let mut up = start(&host, options, foreground)?;
            wait_until_busy(&host, state)?;
            up.signal(signal)?;
            let status = up.wait_exit(LIMIT)?;
            assert_eq!(status.code(), Some(130), "{what}\n{up}");
            assert!(up.output().contains("interrupted"), "{what}\n{up}");
            host.assert_as_before(&before, &what)?;
        }
    }
    Ok(())
}

fn start(host: &Host, options: &str, foreground: bool) -> Result<Process> {
    let wait = if options.contains("--handshake-wait") { &[][..] } else { &["--handshake-wait", "0"] };
    let mut command = host.command(["up"]);
    command.args(wait).args(options.split_whitespace()).args(foreground.then_some("--foreground")).arg(host.file());
    Process::start("adit up", &mut command)
}

/// Waits until a start has come to the state that lasts.
fn wait_until_busy(host: &Host, state: &str) -> Result<()> {
    let alone = |count: usize| host.namespace().pids().is_ok_and(|pids| pids.len() >= count);
    eventually(state, LIMIT, || match state {
        // A resolver's thread has a socket to the name server, or to nobody, before long.
        "names" => alone(1) && signals_are_caught(host),
        "handshake" => host.status().is_ok(),
        _ => sleeps(host),
    })
}

/// Whether all processes of the namespace have a handler for SIGTERM.
fn signals_are_caught(host: &Host) -> bool {
    let pids = host.namespace().pids().unwrap_or_default();
    pids.iter().all(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        caught & 1 << (Signal::SIGTERM as u32 - 1) != 0
    })
}

/// Whether a hook has come to its `sleep`.
fn sleeps(host: &Host) -> bool {
    let pids = host.namespace().pids().unwrap_or_default();
    pids.iter().any(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n"))
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn down_gives_up_a_start_and_the_daemon_may_be_told_to_end_too() -> Result<()> {
    let host = Host::new("giveup")?;
    let before = host.snapshot()?;
    host.write(&format!("PreUp = sleep 600\n{}", full_tunnel()))?;
    let mut up = start(&host, "", false)?;
    wait_until_busy(&host, "PreUp")?;
    host.adit(&format!("down {}", host.name))?.success()?;
    assert_eq!(up.wait_exit(LIMIT)?.code(), Some(130), "{up}");
    host.assert_as_before(&before, "after down")?;

    let mut up = start(&host, "", false)?;
    wait_until_busy(&host, "PreUp")?;
    // A reload means nothing yet, and must not make it deaf.
    up.signal(Signal::SIGHUP)?;
    send(host.pid()?, Signal::SIGHUP)?;
    send(host.pid()?, Signal::SIGTERM)?;
    assert_eq!(up.wait_exit(LIMIT)?.code(), Some(130), "{up}");
    host.assert_as_before(&before, "after SIGTERM to the daemon")?;

    let mut up = start(&host, "", false)?;
    wait_until_busy(&host, "PreUp")?;
    send(host.pid()?, Signal::SIGKILL)?;
    assert_eq!(up.wait_exit(LIMIT)?.code(), Some(1), "{up}");
    assert!(up.output().contains("ended with signal: 9"), "{up}");
    // The hook is an orphan now, which nobody can know of; everything else is undone.
    for pid in host.namespace().pids()? {
        send(pid, Signal::SIGKILL)?;
    }
    host.adit(&format!("recover {}", host.name))?.success()?;
    host.assert_as_before(&before, "after SIGKILL to the daemon")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn down_tells_when_the_tunnel_is_killed_on_the_way() -> Result<()> {
    let host = Host::new("downkill")?;
    let before = host.snapshot()?;
    host.write(&full_tunnel().replace("[Peer]", "PreDown = exec sleep 600\n[Peer]"))?;
    host.up("")?.success()?;
    let pid = host.pid()?;
    let mut down = Process::start("adit down", &mut host.command(["down", &host.name]))?;
    eventually("the hook", LIMIT, || sleeps(&host))?;
    send(pid, Signal::SIGKILL)?;
    assert_eq!(down.wait_exit(LIMIT)?.code(), Some(1), "{down}");
    assert!(down.output().contains("could not undo everything"), "{down}");
    for pid in host.namespace().pids()? {
        send(pid, Signal::SIGKILL)?;
    }
    host.adit(&format!("recover {}", host.name))?.success()?;
    host.assert_as_before(&before, "after recover")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_second_signal_during_the_way_down_is_harmless() -> Result<()> {
    let host = Host::new("twice")?;
    let before = host.snapshot()?;
    let ready = host.path("going-down");
    host.write(&full_tunnel().replace("[Peer]", &format!("PreDown = touch {}; sleep 1\n[Peer]", ready.display())))?;
    let mut up = host.foreground("")?;
    up.wait_for_line("tunnel is up", LIMIT)?;
    up.signal(Signal::SIGTERM)?;
    eventually("the way down", LIMIT, || ready.exists())?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        up.signal(signal)?;
    }
    assert_eq!(up.wait_exit(LIMIT)?.code(), Some(0), "{up}");
    host.assert_as_before(&before, "after two signals")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_device_that_is_deleted_ends_the_tunnel_and_leaves_the_host_closed() -> Result<()> {
    let host = Host::new("deleted")?;
    host.write(&full_tunnel())?;
    let before = host.snapshot()?;
    let mut up = host.foreground("")?;
    up.wait_for_line("tunnel is up", LIMIT)?;
    host.namespace().ip(&format!("link delete {}", host.name))?;
    assert_eq!(up.wait_exit(Duration::from_secs(10))?.code(), Some(1), "{up}");
    assert!(up.output().contains("the device is gone"), "{up}");
    assert!(host.namespace().ip("route get 203.0.113.9").is_err(), "a full tunnel stays closed");
    host.adit(&format!("down {}", host.name))?.success()?;
    host.assert_as_before(&before, "after down")
}

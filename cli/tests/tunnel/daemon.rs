//! The daemon: detached when `adit up` returns, heard through it until then, and reloaded by a signal.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use adit_tests::process::is_alive;
use adit_tests::{Process, eventually, wg};
use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, LIMIT, STRANGER, assert_failed};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn up_returns_when_it_is_ready_and_leaves_a_daemon_of_its_own() -> Result<()> {
    let host = Host::new("daemon")?;
    host.write("Address = 10.9.0.1/24")?;
    let before = host.snapshot()?;
    let mut up = host
        .command(["up", "--handshake-wait", "0"])
        .arg(host.file())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // These end only when nobody has the pipes any more: the daemon has let go of them.
    let (mut stdout, mut stderr) = (String::new(), String::new());
    up.stdout.take().unwrap().read_to_string(&mut stdout)?;
    up.stderr.take().unwrap().read_to_string(&mut stderr)?;
    assert!(up.wait()?.success(), "{stderr}");
    let pid = host.pid()?;
    assert_eq!(stdout, format!("{} is up (process {pid}, log {})\n", host.name, host.log().display()));
    assert_eq!(stderr, "");

    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).map(str::to_owned);
    assert_eq!(session, Some(pid.to_string()), "it leads a session of its own");
    for descriptor in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{descriptor}"))?, std::path::Path::new("/dev/null"));
    }
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd"))?, std::path::Path::new("/"));
    assert_eq!(fs::metadata(host.log())?.permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(host.log())?.contains("tunnel is up"));

    for foreground in ["", "--foreground"] {
        let run = host.up(foreground)?;
        assert_failed(&run, 5, &format!("the tunnel {} is up already, as process {pid}", host.name));
    }
    host.adit(&format!("down {}", host.name))?.success()?;
    host.assert_as_before(&before, "after down")?;
    eventually("the log to go", LIMIT, || !host.log().exists())?;
    assert_failed(&host.adit(&format!("down {}", host.name))?, 6, "is not up");
    assert_failed(&host.adit(&format!("reload {}", host.name))?, 6, "is not up");
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn of_two_starts_at_once_one_wins_and_the_other_is_code_5() -> Result<()> {
    let host = Host::new("race")?;
    host.write("Address = 10.9.0.1/24")?;
    let before = host.snapshot()?;
    for round in 0..5 {
        let start = || Process::start("adit up", host.command(["up"]).arg(host.file()));
        let mut starts = [start()?, start()?, start()?];
        let mut codes = Vec::new();
        for one in &mut starts {
            codes.push(one.wait_exit(LIMIT)?.code());
        }
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(5), Some(5)], "round {round}: {starts:?}");
        assert_eq!(host.status()?["name"], *host.name);
        host.adit(&format!("down {}", host.name))?.success()?;
        host.assert_as_before(&before, "after the end of the one")?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn errors_and_warnings_are_told_once() -> Result<()> {
    let host = Host::new("once")?;
    host.write("MTU = 1280\nMTU = 1300\nPostUp = echo output of a hook; exit 1")?;
    let log = host.path("a.log");
    for foreground in ["", "--foreground"] {
        let _ = fs::remove_file(&log);
        let run = host.up(&format!("--log-file {} {foreground}", log.display()))?;
        assert_failed(&run, 1, "PostUp `echo output of a hook; exit 1` ended with exit status: 1");
        assert_eq!(run.stderr.matches("set more than once").count(), 1, "{run:#?}");
        assert_eq!(run.stderr.lines().count(), 2, "a warning and an error: {run:#?}");
        let text = fs::read_to_string(&log)?;
        assert!(text.contains("output of a hook"), "{text}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn down_returns_when_all_is_undone() -> Result<()> {
    let host = Host::new("waits")?;
    let (done, left) = (host.path("done"), host.path("left"));
    host.write(&format!(
        "Address = 10.9.0.1/24\nPreDown = ip link show dev %i\n\
         PostDown = ip link show dev %i && touch {}; sleep 0.5; touch {}",
        left.display(),
        done.display()
    ))?;
    let before = host.snapshot()?;
    host.up("")?.success()?;
    let pid = host.pid()?;
    host.adit(&format!("down {}", host.file().display()))?.success()?;
    assert!(done.exists() && !left.exists(), "PostDown runs when the device is gone, and is waited for");
    eventually("the process to end", LIMIT, || !is_alive(pid))?;
    host.assert_as_before(&before, "after down")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_failing_hook_on_the_way_down_does_not_stop_it() -> Result<()> {
    let host = Host::new("downhook")?;
    let done = host.path("done");
    host.write(&format!(
        "Address = 10.9.0.1/24\nPreDown = false\nPreDown = kill -9 $$\nPostDown = touch {}",
        done.display()
    ))?;
    let before = host.snapshot()?;
    let mut up = host.foreground("")?;
    up.wait_for_line("tunnel is up", LIMIT)?;
    let status = up.stop(LIMIT)?;
    assert_eq!(status.code(), Some(1), "{up}");
    assert!(up.output().contains("PreDown `false` ended with exit status: 1"), "{up}");
    assert!(done.exists());
    host.assert_as_before(&before, "after the end")?;

    fs::remove_file(&done)?;
    host.up("")?.success()?;
    let run = host.adit(&format!("down {}", host.name))?;
    assert_failed(&run, 1, "PreDown `false` ended with exit status: 1");
    assert!(done.exists());
    host.assert_as_before(&before, "after down")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_configuration_that_cannot_be_saved_is_told_when_the_tunnel_is_down() -> Result<()> {
    let host = Host::new("unsaved")?;
    host.write("Address = 10.9.0.1/24\nSaveConfig = true")?;
    let before = host.snapshot()?;
    host.up("")?.success()?;
    fs::remove_dir_all(host.file().parent().unwrap())?;
    let run = host.adit(&format!("down {}", host.name))?;
    assert_failed(&run, 1, "the configuration was not saved to");
    host.assert_as_before(&before, "after down")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_hook_may_leave_something_in_the_background() -> Result<()> {
    let host = Host::new("background")?;
    host.write("PostUp = (sleep 1; echo late words; exec sleep 600) & echo early words")?;
    let mut up = host.foreground("")?;
    up.wait_for_line("early words", LIMIT)?;
    up.wait_for_line("tunnel is up", LIMIT)?;
    up.wait_for_line("late words", LIMIT)?;
    assert_eq!(up.stop(LIMIT)?.code(), Some(0), "{up}");
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_hook_that_prints_without_end_of_line_is_bounded() -> Result<()> {
    let host = Host::new("noise")?;
    host.write("PostUp = head -c 3000000 /dev/zero | tr '\\0' x")?;
    host.up("")?.success()?;
    let rotated = host.log().with_extension("log.1");
    let size = |path| fs::metadata(path).map_or(0, |meta| meta.len());
    assert!(size(host.log()) <= 1 << 20 && size(rotated) <= 1 << 20, "the log keeps a mebibyte or two");
    host.adit(&format!("down {}", host.name))?.success()?;
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_reload_applies_the_file_and_a_wrong_file_changes_nothing() -> Result<()> {
    let host = Host::new("reload")?;
    host.write("Address = 10.9.0.1/24")?;
    host.up("")?.success()?;
    let pid = Pid::from_raw(i32::try_from(host.pid()?)?);
    let peer = format!("[Peer]\nPublicKey = {STRANGER}\nAllowedIPs = 10.9.1.0/24");

    host.write(&format!("Address = 10.9.0.1/24\n{peer}"))?;
    kill(pid, Signal::SIGHUP)?;
    eventually("the peer", LIMIT, || wg::show(host.namespace(), &host.name).is_ok_and(|dump| dump.peers.len() == 1))?;
    eventually("the route", LIMIT, || host.namespace().ip("route").is_ok_and(|routes| routes.contains("10.9.1.0/24")))?;

    host.write(&format!("Address = 10.9.0.300/24\n{peer}"))?;
    assert_failed(&host.adit(&format!("reload {}", host.name))?, 3, "10.9.0.300/24");
    kill(pid, Signal::SIGHUP)?;
    eventually("the log to tell", LIMIT, || {
        fs::read_to_string(host.log()).is_ok_and(|log| log.contains("the configuration was not reloaded"))
    })?;
    assert_eq!(wg::show(host.namespace(), &host.name)?.peers.len(), 1);

    host.write("Address = 10.9.0.2/24\nPostUp = false")?;
    let run = host.adit(&format!("reload {}", host.name))?;
    assert!(run.stderr.contains("hooks have changed"), "{run:#?}");
    run.success()?;
    assert_eq!(wg::show(host.namespace(), &host.name)?.peers.len(), 0);
    let addresses = host.namespace().ip(&format!("-o addr show dev {}", host.name))?;
    assert!(addresses.contains("10.9.0.2/24") && !addresses.contains("10.9.0.1/24"), "{addresses}");
    assert_eq!(host.pid()?, u32::try_from(pid.as_raw())?);
    host.adit(&format!("down {}", host.name))?.success()?;
    Ok(())
}

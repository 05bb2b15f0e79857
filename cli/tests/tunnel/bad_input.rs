//! What cannot be brought up says why, ends with the documented code, and leaves the system as it was.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use adit_tests::process;
use anyhow::Result;

use crate::host::{ADIT, Host, LIMIT, STRANGER, assert_failed};

/// Tries a start as a daemon and in the foreground, and compares the system before and after.
fn refused(host: &Host, options: &str, code: i32, text: &str) -> Result<()> {
    let before = host.snapshot()?;
    for foreground in ["", "--foreground "] {
        let run = host.up(&format!("{foreground}{options}"))?;
        assert_failed(&run, code, text);
        assert_eq!(run.stdout, "", "{run:#?}");
        host.assert_as_before(&before, &format!("after {}", run.title))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_busy_port_is_code_5() -> Result<()> {
    let host = Host::new("port")?;
    let taken = host.namespace().enter(|| UdpSocket::bind("0.0.0.0:51820"))??;
    host.write("ListenPort = 51820")?;
    refused(&host, "", 5, "51820")?;
    drop(taken);
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_interface_that_exists_is_code_5_and_stays() -> Result<()> {
    let host = Host::new("exists")?;
    host.namespace().ip(&format!("link add {} type veth peer name other0", host.name))?;
    host.write("Address = 10.9.0.1/24")?;
    refused(&host, "", 5, &host.name)?;
    assert_failed(&host.adit(&format!("down {}", host.name))?, 6, "is not up");
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_name_that_does_not_resolve_is_code_7() -> Result<()> {
    let host = Host::new("resolve")?;
    host.write(&format!("[Peer]\nPublicKey = {STRANGER}\nEndpoint = no-such-host.invalid:51820"))?;
    refused(&host, "--resolve-wait 1", 7, "no-such-host.invalid:51820 does not resolve")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_hook_that_fails_undoes_what_came_before_it() -> Result<()> {
    let host = Host::new("hook")?;
    let everything = format!(
        "Address = 10.9.0.1/24, fd09::1/64\n[Peer]\nPublicKey = {STRANGER}\nAllowedIPs = 0.0.0.0/0, ::/0\n\
         Endpoint = 198.51.100.9:51820"
    );
    for (hook, outcome) in [
        ("PreUp = echo one; exit 3", "PreUp `echo one; exit 3` ended with exit status: 3"),
        ("PostUp = true\nPostUp = ip link show dev %i && false", "PostUp `ip link show dev %i && false` ended with"),
        ("PostUp = kill -9 $$", "ended with signal: 9"),
        ("PostUp = /no/such/program", "ended with exit status: 127"),
    ] {
        host.write(&format!("{hook}\n{everything}"))?;
        refused(&host, "", 1, outcome)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn addresses_and_routes_that_clash_are_undone() -> Result<()> {
    let host = Host::new("clash")?;
    host.namespace().ip("route add 10.9.1.0/24 dev under0")?;
    host.write(&format!(
        "Address = 10.9.0.1/24\n[Peer]\nPublicKey = {STRANGER}\nAllowedIPs = 10.9.2.0/24, 10.9.1.0/24"
    ))?;
    refused(&host, "", 5, "10.9.1.0/24")?;
    host.write("Address = fd09::1/64\nMTU = 1000")?;
    refused(&host, "", 3, "1280")
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn without_privileges_it_is_code_4_and_says_what_is_missing() -> Result<()> {
    let host = Host::new("nobody")?;
    host.write("Address = 10.9.0.1/24")?;
    let before = host.snapshot()?;
    // Root without capabilities may write everywhere, and make no device.
    let bare = ["--bounding-set=-all", "--inh-caps=-all", ADIT, "up"];
    for foreground in [None, Some("--foreground")] {
        let run = process::finish(
            host.namespace().command("setpriv").args(bare).args(foreground).arg(host.file()),
            "",
            LIMIT,
        )?;
        assert_failed(&run, 4, "CAP_NET_ADMIN");
        host.assert_as_before(&before, &run.title)?;
    }
    // Another user may not even write to /run/adit. The binary is where that user can reach it.
    let folder = tempfile::tempdir_in("/var/tmp")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let adit = folder.path().join("adit");
    fs::copy(ADIT, &adit)?;
    let file = folder.path().join(format!("{}.conf", host.name));
    fs::copy(host.file(), &file)?;
    nix::unistd::chown(&file, Some(nix::unistd::Uid::from_raw(NOBODY)), None)?;
    let nobody = |args: &[&str]| {
        let mut command = host.namespace().command("setpriv");
        command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]);
        process::finish(command.arg(&adit).args(args), "", LIMIT)
    };
    let file = file.to_str().unwrap();
    assert_failed(&nobody(&["up", file])?, 4, "takes root");
    assert_failed(&nobody(&["up", "--foreground", file])?, 4, "ermission denied");
    assert!(nobody(&["check", file])?.status.success());
    host.assert_as_before(&before, "after tries of another user")?;

    host.up("")?.success()?;
    for words in [&["status", &host.name][..], &["down", &host.name], &["reload", &host.name]] {
        assert_failed(&nobody(words)?, 4, "only its owner and root may connect");
    }
    let run = nobody(&["recover", &host.name])?;
    assert_failed(&run, 4, "ermission denied");
    host.adit(&format!("down {}", host.name))?.success()?;
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_closed_standard_input_and_nobody_who_reads_are_no_obstacle() -> Result<()> {
    let host = Host::new("closed")?;
    host.write("Address = 10.9.0.1/24")?;
    let before = host.snapshot()?;
    for redirection in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "| true", "2>&1 | true"] {
        let script = format!("{ADIT} up {} {redirection}", host.file().display());
        process::run(host.namespace().command("bash").args(["-o", "pipefail", "-c", &script]))?;
        assert_eq!(host.status()?["name"], *host.name, "{redirection}");
        host.adit(&format!("down {}", host.name))?.success()?;
        host.assert_as_before(&before, redirection)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_foreground_tunnel_survives_that_nobody_reads_its_log() -> Result<()> {
    let host = Host::new("unread")?;
    host.write("Address = 10.9.0.1/24\nPostUp = echo one; echo two; echo three")?;
    let script = format!("{ADIT} --log trace up --foreground {} 2>&1 | true", host.file().display());
    let mut shell = host.namespace().spawn("bash", ["-c", &script])?;
    adit_tests::eventually("the tunnel to be up", LIMIT, || host.status().is_ok())?;
    host.adit(&format!("down {}", host.name))?.success()?;
    shell.wait_exit(LIMIT)?;
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_damaged_journal_and_a_file_in_the_way_of_a_socket_are_kept() -> Result<()> {
    let host = Host::new("damaged")?;
    host.write("Address = 10.9.0.1/24")?;
    for (path, text) in [
        (format!("/run/adit/{}.journal", host.name), "is damaged"),
        (format!("/run/adit/{}.sock", host.name), "exists and is not a socket"),
        (format!("/var/run/wireguard/{}.sock", host.name), "exists and is not a socket"),
    ] {
        fs::create_dir_all(std::path::Path::new(&path).parent().unwrap())?;
        fs::write(&path, "precious")?;
        refused(&host, "", 1, text)?;
        assert_eq!(fs::read_to_string(&path)?, "precious");
        fs::remove_file(&path)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_cannot_be_a_daemons_file_is_told() -> Result<()> {
    let host = Host::new("pipe")?;
    let text = format!("[Interface]\nPrivateKey = {}\n", host.key.to_base64());
    let mut command: Command = host.command(["up", "--interface", &host.name, "/dev/stdin"]);
    // A pipe, not the file that the harness would give.
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes())?;
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("--foreground"), "{stderr}");
    Ok(())
}

/// The user id that owns nothing.
const NOBODY: u32 = 65534;

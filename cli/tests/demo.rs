//! `adit demo` as a person and as a program run it: what it prints, how it ends, and what it leaves, which is nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longer than any of these runs takes on a machine with much else to do.
const LIMIT: Duration = Duration::from_secs(120);

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.arg("demo").args(arguments).env_remove("ADIT_LOG");
    command
}

/// Ends a process when it has not ended within [`LIMIT`], or when its test has failed.
struct Limit {
    pid: Pid,
    over: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Limit {
    fn of(child: &Child) -> Self {
        let pid = Pid::from_raw(child.id().cast_signed());
        let (over, waiting) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            if waiting.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _gone_already = kill(pid, Signal::SIGKILL);
            }
        });
        Self { pid, over: Some(over), thread: Some(thread) }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        drop(self.over.take());
        if thread::panicking() {
            let _gone_already = kill(self.pid, Signal::SIGKILL);
        }
        self.thread.take().map(thread::JoinHandle::join);
    }
}

fn run(mut command: Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _limit = Limit::of(&child);
    child.wait_with_output().unwrap()
}

/// Runs it and returns its document, which must be all that it prints.
fn document(command: Command) -> Value {
    let output = run(command);
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{told}", output.status);
    assert_eq!(told, "");
    serde_json::from_str(&text).unwrap()
}

/// Checks everything that a run which held must say, in either mode.
fn check(document: &Value, bytes: u64) {
    assert_eq!(document["ok"], true);
    assert_eq!(document["problems"], serde_json::json!([]));
    let handshake = document["handshake"]["milliseconds"].as_f64().unwrap();
    assert!(handshake > 0.0 && handshake < 12_000.0, "{handshake}");
    assert_eq!(document["routes"][0]["destinations"], serde_json::json!(["10.77.0.2/32", "fd77::2/128"]));
    assert_eq!(document["routes"][1]["destinations"], serde_json::json!(["10.77.0.1/32", "fd77::1/128"]));
    for (ping, family) in document["ping"].as_array().unwrap().iter().zip(["IPv4", "IPv6"]) {
        assert_eq!((&ping["family"], &ping["sent"], &ping["received"]), (&family.into(), &20.into(), &20.into()));
        let [min, median, max] = ["min_ms", "median_ms", "max_ms"].map(|key| ping[key].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max, "{ping}");
    }
    assert_eq!(document["ping"].as_array().unwrap().len(), 2);
    let transfer = &document["transfer"];
    assert_eq!((&transfer["bytes"], &transfer["received_bytes"]), (&bytes.into(), &bytes.into()));
    let digest = transfer["sha256_sent"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
    assert_eq!(transfer["sha256_received"], digest);
    let (seconds, rate) = (transfer["seconds"].as_f64().unwrap(), transfer["bits_per_second"].as_f64().unwrap());
    assert!((seconds * rate - bytes as f64 * 8.0).abs() < 8.0, "{transfer}");
    assert!(document["drops"]["a"].is_object() && document["drops"]["b"].is_object());
    assert!(document["resources"]["cpu_seconds"].as_f64().unwrap() > 0.0);
    assert!(document["resources"]["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn in_process_it_holds_and_says_so_as_data() {
    let document = document(demo(&["--mode", "process", "--size", "16MiB", "--json"]));
    check(&document, 16 << 20);
    assert_eq!(document["mode"]["name"], "process");
    assert_eq!(document["mode"]["reason"], "asked for");
    assert_eq!(document["handshake"]["underlay"], "IPv4");
}

#[test]
fn in_process_it_says_the_same_in_lines() {
    let output = run(demo(&["--mode", "process", "--size", "1MiB"]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("adit demo: two engines, joined over real UDP"));
    let labels: Vec<&str> = lines.clone().filter_map(|line| line.split_whitespace().next()).collect();
    let wanted = "mode handshake routes routes ping ping transfer sha-256 drops resources result";
    assert_eq!(labels, wanted.split(' ').collect::<Vec<_>>());
    assert_eq!(lines.next_back(), Some("  result      everything held"));
}

#[test]
fn a_size_that_is_no_multiple_of_anything_arrives() {
    check(&document(demo(&["--mode", "process", "--size", "1000001", "--json"])), 1_000_001);
}

#[test]
fn without_ipv6_on_loopback_it_says_what_is_missing_and_with_it_it_holds() {
    let command = demo(&["--mode", "process", "--size", "1MiB", "--json", "--loopback", "::1"]);
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        let document = document(command);
        check(&document, 1 << 20);
        assert_eq!(document["handshake"]["underlay"], "IPv6");
    } else {
        let output = run(command);
        assert_eq!(output.status.code(), Some(7));
        assert!(String::from_utf8(output.stderr).unwrap().contains("no UDP over ::1"));
    }
}

#[test]
fn a_failure_is_an_exit_code_a_sentence_and_a_document() {
    // TEST-NET-1 is nobody's, so not this machine's either (RFC 5737).
    let output = run(demo(&["--mode", "process", "--json", "--loopback", "192.0.2.77"]));
    assert_eq!(output.status.code(), Some(7));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["ok"], false);
    assert_eq!(document["transfer"], Value::Null);
    let problem = document["problems"][0].as_str().unwrap();
    assert!(problem.starts_with("no UDP over 192.0.2.77: "), "{problem}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("error: {problem}\n"));
}

/// Starts a transfer without end, interrupts it, and returns how it ended, within what time, and what it said.
fn interrupted(mode: &str, signal: Signal) -> (ExitStatus, Duration, String) {
    let mut command = demo(&["--mode", mode, "--size", "1000000GiB"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _limit = Limit::of(&child);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reached = lines.by_ref().any(|line| line.unwrap().contains("ping        IPv6"));
    assert!(reached, "it ended before the transfer");
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    let begun = Instant::now();
    let status = child.wait().unwrap();
    let time = begun.elapsed();
    (status, time, std::io::read_to_string(child.stderr.take().unwrap()).unwrap())
}

fn check_interrupted(mode: &str, signal: Signal) {
    let (status, time, told) = interrupted(mode, signal);
    assert_eq!(status.code(), Some(130), "{told}");
    assert!(told.contains("interrupted"), "{told}");
    assert!(time < Duration::from_secs(2), "{time:?}");
}

#[test]
fn in_process_signals_end_it_at_once() {
    check_interrupted("process", Signal::SIGINT);
    check_interrupted("process", Signal::SIGTERM);
}

/// Interfaces, named namespaces and processes of this test's demo.
fn system() -> BTreeSet<String> {
    let names = |folder: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    let own = Path::new(env!("CARGO_BIN_EXE_adit"));
    let runs_demo = |process: &String| {
        let arguments = std::fs::read(format!("{process}/cmdline")).unwrap_or_default();
        std::fs::read_link(format!("{process}/exe")).is_ok_and(|exe| exe == own)
            && arguments.windows(MARK.len()).any(|window| window == MARK.as_bytes())
    };
    let processes = names("/proc").into_iter().filter(runs_demo);
    // Tests of others come and go on the same machine; the demo's own devices have these names.
    let links = names("/sys/class/net").into_iter().filter(|link| link.ends_with("/adit0") || link.ends_with("/veth0"));
    links.chain(names("/run/netns").into_iter().filter(|name| name.contains("demo"))).chain(processes).collect()
}

/// A size that no other test uses.
const MARK: &str = "67108865";

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn in_namespaces_it_holds_and_leaves_nothing() {
    let before = system();
    let document = document(demo(&["--mode", "kernel", "--size", MARK, "--json"]));
    check(&document, MARK.parse().unwrap());
    assert_eq!(document["mode"]["name"], "kernel");
    assert_eq!(document["mode"]["reason"], "as root");
    assert_eq!(document["routes"][0]["device"], "adit0");
    assert_eq!(system(), before);
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn in_namespaces_signals_end_it_at_once() {
    let before = system();
    check_interrupted("kernel", Signal::SIGINT);
    check_interrupted("kernel", Signal::SIGTERM);
    assert_eq!(system(), before);
}

/// The demo as another user, in a mount namespace whose /dev/net was prepared by this script.
fn as_nobody(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    // The user may not be allowed to come near this binary, but near a copy that goes with the mount.
    let script = format!(
        "mount -t tmpfs none /dev/net && cp \"$0\" /dev/net/adit && {script} && \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all /dev/net/adit demo \"$@\""
    );
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_adit")]).args(arguments);
    command.env_remove("ADIT_LOG");
    command
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn another_user_gets_a_user_namespace() {
    let document = document(as_nobody("mknod -m 666 /dev/net/tun c 10 200", &["--size", "1MiB", "--json"]));
    check(&document, 1 << 20);
    let mode = document["mode"]["name"].as_str().unwrap();
    let reason = document["mode"]["reason"].as_str().unwrap();
    let allowed = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|most| most.trim() != "0");
    if allowed {
        assert_eq!((mode, reason), ("kernel", "in a user namespace"));
    } else {
        assert!(mode == "process" && reason.contains("no user namespaces"), "{reason}");
    }
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn another_user_without_tun_devices_runs_in_process_and_is_told_why() {
    let closed = "mknod -m 600 /dev/net/tun c 10 200";
    let document = document(as_nobody(closed, &["--size", "1MiB", "--json"]));
    check(&document, 1 << 20);
    assert_eq!(document["mode"]["name"], "process");
    let reason = "no tun devices in namespaces: /dev/net/tun: Permission denied (os error 13)";
    assert_eq!(document["mode"]["reason"], reason);

    let output = run(as_nobody(closed, &["--mode", "kernel"]));
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: /dev/net/tun: Permission denied (os error 13)\n");
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_tun_device_that_is_none_is_no_reason_to_fail() {
    let document = document(as_nobody("mknod -m 666 /dev/net/tun c 1 3", &["--size", "1MiB", "--json"]));
    check(&document, 1 << 20);
    assert_eq!(document["mode"]["name"], "process");
    assert!(document["mode"]["reason"].as_str().unwrap().starts_with("no tun devices in namespaces: "));
}

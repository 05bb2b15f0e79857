//! `adit bench tunnel` as a person and as a program run it: what it finds, how it fails, and what it leaves, which is
//! nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longer than any of these runs takes on a machine with much else to do.
const LIMIT: Duration = Duration::from_secs(120);

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(["bench", "tunnel"]).args(arguments).env_remove("ADIT_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A benchmark that runs. It is killed when it has not ended within [`LIMIT`], or when its test has failed.
struct Running {
    /// Until it has ended.
    child: Option<Child>,
    pid: Pid,
    over: Option<mpsc::Sender<()>>,
    limit: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let child = command.spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let (over, waiting) = mpsc::channel::<()>();
        let limit = thread::spawn(move || {
            if waiting.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _gone_already = kill(pid, Signal::SIGKILL);
            }
        });
        Self { child: Some(child), pid, over: Some(over), limit: Some(limit) }
    }

    /// Waits for its end, and sees to it that nothing is left.
    fn end(mut self) -> Output {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let left = left(self.pid);
        assert!(left.is_empty(), "{left:?}");
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(mut child) = self.child.take() {
            let _gone_already = child.kill();
            let _gone_already = child.wait();
        }
        self.limit.take().map(thread::JoinHandle::join);
    }
}

/// Processes, interfaces and sockets that carry the name of a device of that process.
fn left(pid: Pid) -> Vec<String> {
    let device = format!("ab{pid}x");
    let names = |folder: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    let is_theirs = |process: &String| {
        let arguments = std::fs::read(format!("{process}/cmdline")).unwrap_or_default();
        arguments.windows(device.len()).any(|window| window == device.as_bytes())
    };
    let folders = ["/sys/class/net", "/run/wireguard", "/run/adit", "/run", "/tmp"];
    let files = folders.iter().flat_map(|folder| names(folder)).filter(|name| name.contains(&device));
    files.chain(names("/proc").into_iter().filter(is_theirs)).collect()
}

fn document(command: Command) -> Value {
    let output = Running::start(command).end();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn fails(command: Command, code: i32, texts: &[&str]) {
    let output = Running::start(command).end();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for text in texts {
        assert!(told.contains(text), "`{text}` is not in: {told}");
    }
}

/// The samples of a measure, point by point.
fn samples<'a>(document: &'a Value, key: &str, subject: &str) -> Vec<(Option<f64>, &'a Vec<Value>)> {
    let of = |all: &'a Value, name: &str, wanted: &str| {
        let found = all.as_array().unwrap().iter().find(|one| one[name] == wanted);
        found.unwrap_or_else(|| panic!("no {wanted} in {all}"))
    };
    let series = of(&of(&document["measures"], "key", key)["series"], "subject", subject);
    let points = series["points"].as_array().unwrap();
    points.iter().map(|point| (point["x"].as_f64(), point["samples"].as_array().unwrap())).collect()
}

/// Checks that one subject has one plausible figure of each of these.
fn check(document: &Value, subject: &str, keys: &[&str], range: std::ops::Range<f64>) {
    for key in keys {
        let found = samples(document, key, subject);
        assert_eq!(found.len(), 1, "{key} of {subject}");
        assert_eq!((found[0].0, found[0].1.len()), (None, 1), "{key} of {subject}");
        let value = found[0].1[0].as_f64().unwrap();
        assert!(range.contains(&value), "{key} of {subject}: {value}");
    }
}

const RATES: [&str; 4] = ["tcp-1", "tcp-4", "tcp-both", "tcp6-1"];
const TIMES: [&str; 4] = ["latency-idle-p50", "latency-idle-p99", "latency-load-p50", "latency-load-p99"];

#[test]
fn in_process_it_measures_adit_and_says_what_that_is_worth() {
    let document = document(bench(&["--in-process", "--quick", "--json"]));
    assert_eq!(document["benchmark"], "tunnel");
    let name = document["subjects"][0]["name"].as_str().unwrap();
    assert_eq!((name, document["subjects"].as_array().unwrap().len()), ("adit, in process", 1));
    check(&document, name, &["tcp-1", "tcp6-1"], 0.001..1000.0);
    check(&document, name, &["latency-idle-p50", "latency-idle-p99"], 1.0..1e6);
    let notes = document["notes"].as_array().unwrap();
    assert!(notes[0].as_str().unwrap().contains("do not compare"), "{notes:?}");
    assert_eq!(notes[1], "why in process: asked for");
}

#[test]
fn wrong_options_are_told_before_anything_is_started() {
    fails(bench(&["--peer", "wg=wireguard-go -f wg0"]), 2, &["`wg` has no {if}", "the name of the tun device"]);
    fails(bench(&["--peer", "adit=x {if}"]), 2, &["two subjects would be called `adit`"]);
    fails(bench(&["--only", "tcp,speed"]), 2, &["'speed'", "tcp", "udp", "latency"]);
    fails(bench(&["--in-process", "--only", "udp"]), 2, &["only `tcp` and `latency`"]);
    fails(bench(&["--in-process", "--preset", "installed"]), 2, &["cannot be used with"]);
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn two_engines_do_the_same_work() {
    let document = document(bench(&["--quick", "--json", "--baseline", "--peer", "wg=wireguard-go -f {if}"]));
    let names: Vec<_> = document["subjects"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["adit", "wg", "no tunnel"]);
    assert!(document["subjects"][1]["version"].as_str().unwrap().starts_with("wireguard-go v"));
    for subject in ["adit", "wg", "no tunnel"] {
        check(&document, subject, &RATES, 0.001..1000.0);
        check(&document, subject, &TIMES, 1.0..1e6);
        check(&document, subject, &["udp-best", "udp-flood"], 1000.0..1e8);
        check(&document, subject, &["udp-flood-loss"], 0.0..100.1);
        for key in ["udp-delivered", "udp-loss"] {
            let offered: Vec<_> = samples(&document, key, subject).iter().map(|(x, _)| *x).collect();
            assert_eq!(offered, [Some(10_000.0), Some(40_000.0)], "{key} of {subject}");
        }
    }
    for subject in ["adit", "wg"] {
        check(&document, subject, &["cpu-tcp-1", "cpu-tcp-4"], 0.1..1000.0);
        check(&document, subject, &["memory"], 1.0..4096.0);
    }
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_does_not_start_is_named_and_nothing_is_left() {
    fails(
        bench(&["--quick", "--peer", "lost=no-such-engine {if}"]),
        1,
        &["lost: `no-such-engine` is not found in PATH"],
    );
    let early = r#"early=sh -c "echo out of luck >&2; exit 3" {if}"#;
    fails(bench(&["--quick", "--peer", early]), 1, &["early: host ", "exit status 3", "out of luck"]);
    // What it has started itself is ended too.
    let mute = r#"mute=sh -c "sh -c 'sleep 1000; true' {if}; true" {if}"#;
    fails(
        bench(&["--quick", "--peer", mute]),
        1,
        &["mute: host ", "does not listen on /var/run/wireguard/ab", "within 10 s"],
    );
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_interrupt_ends_it_and_nothing_is_left() {
    for (signal, group, moment) in [(Signal::SIGINT, "tcp", 1500), (Signal::SIGTERM, "latency", 2500)] {
        let command = bench(&["--seconds", "60", "--only", group, "--peer", "wg=wireguard-go -f {if}"]);
        let running = Running::start(command);
        let begun = Instant::now();
        // Its engines are up, and a moment later there is traffic.
        wait_until(|| !left(running.pid).is_empty() && begun.elapsed() >= Duration::from_millis(moment));
        let told = Instant::now();
        kill(running.pid, signal).unwrap();
        let output = running.end();
        let time = told.elapsed();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert!(text.contains("interrupted") && output.stdout.is_empty(), "{text}");
        assert!(time < Duration::from_secs(3), "{time:?}");
    }
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_kill_leaves_nothing_either() {
    let running = Running::start(bench(&["--seconds", "60", "--only", "tcp", "--peer", "wg=wireguard-go -f {if}"]));
    let pid = running.pid;
    wait_until(|| !left(pid).is_empty());
    drop(running);
    wait_until(|| left(pid).is_empty());
}

/// Waits at most for [`LIMIT`].
fn wait_until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT);
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// The benchmark as another user, in a mount namespace whose /dev/net was prepared by this script.
fn as_nobody(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    // The user may not be allowed to come near this binary, but near a copy that goes with the mount.
    let script = format!(
        "mount -t tmpfs none /dev/net && cp \"$0\" /dev/net/adit && {script} && \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all /dev/net/adit bench tunnel \"$@\""
    );
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_adit")]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("ADIT_LOG");
    command
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn another_user_measures_in_a_user_namespace() {
    let open = "mknod -m 666 /dev/net/tun c 10 200";
    let arguments = ["--quick", "--json", "--only", "tcp", "--peer", "wg=wireguard-go -f {if}"];
    let allowed = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|most| most.trim() != "0");
    if allowed {
        let document = document(as_nobody(open, &arguments));
        assert!(document["notes"][0].as_str().unwrap().contains("in a user namespace"));
        for subject in ["adit", "wg"] {
            check(&document, subject, &RATES, 0.001..1000.0);
        }
    } else {
        fails(as_nobody(open, &arguments), 4, &["no user namespaces"]);
    }
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn another_user_without_tun_devices_measures_in_process_and_no_other_engine() {
    let closed = "mknod -m 600 /dev/net/tun c 10 200";
    let document = document(as_nobody(closed, &["--quick", "--json", "--only", "latency"]));
    let reason = "why in process: no tun devices in namespaces: /dev/net/tun: Permission denied (os error 13)";
    assert_eq!(document["notes"][1], reason);
    let refused = ["other engines need network namespaces and tun devices", "/dev/net/tun: Permission denied"];
    fails(as_nobody(closed, &["--quick", "--preset", "wireguard-go"]), 4, &refused);
}

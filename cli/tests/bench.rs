//! `adit bench engine` and `adit bench scale` as a person and as a program run them. The figures of quick runs mean
//! nothing, but that there is one for everything does, and so does that nothing is allocated for a packet.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.arg("bench").args(arguments).env_remove("ADIT_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    bench(arguments).output().unwrap()
}

#[track_caller]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The document of a run, which must be all that it prints.
#[track_caller]
fn document(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{}", text(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The samples of every point of a measure, by subject.
fn samples(document: &Value, key: &str) -> Vec<(String, Vec<f64>)> {
    let measures = document["measures"].as_array().unwrap();
    let measure = measures.iter().find(|measure| measure["key"] == key).unwrap_or_else(|| panic!("no {key}"));
    let mut all = Vec::new();
    for series in measure["series"].as_array().unwrap() {
        for point in series["points"].as_array().unwrap() {
            let samples = point["samples"].as_array().unwrap().iter().map(|sample| sample.as_f64().unwrap()).collect();
            assert!(point["min"].as_f64() <= point["median"].as_f64(), "{point}");
            assert!(point["median"].as_f64() <= point["max"].as_f64(), "{point}");
            all.push((series["subject"].as_str().unwrap().to_owned(), samples));
        }
    }
    all
}

#[track_caller]
fn check_machine(document: &Value) {
    let machine = &document["machine"];
    assert!(machine["cores"].as_u64().unwrap() > 0 && machine["memory"].as_u64().unwrap() > 1 << 24, "{machine}");
    assert!(machine["cpu"].as_str().unwrap().len() > 2 && machine["kernel"].as_str().unwrap().len() > 2, "{machine}");
    assert_eq!(machine["adit"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_engine_is_measured_beside_its_cipher_and_allocates_nothing() {
    let document = document(&["engine", "--quick", "--json"]);
    assert_eq!(document["benchmark"], "engine");
    check_machine(&document);
    let names: Vec<_> = document["subjects"].as_array().unwrap().iter().map(|subject| &subject["name"]).collect();
    assert_eq!(names, ["adit", "cipher", "no-cipher"]);
    for direction in ["seal", "open"] {
        for figure in ["time", "throughput", "rate"] {
            for (infix, points) in [("", 7), ("-super", 1)] {
                let found = samples(&document, &format!("{direction}{infix}-{figure}"));
                let subjects: BTreeSet<_> = found.iter().map(|(subject, _)| subject.as_str()).collect();
                assert_eq!((subjects.len(), found.len()), (3, 3 * points), "{direction}{infix}-{figure}");
                let sound = |samples: &[f64]| samples.len() == 2 && samples.iter().all(|sample| *sample > 0.0);
                assert!(found.iter().all(|(_, samples)| sound(samples)), "{found:?}");
            }
        }
        for infix in ["", "-super"] {
            let found = samples(&document, &format!("{direction}{infix}-allocations"));
            assert!(found.iter().all(|(_, samples)| samples == &[0.0, 0.0]), "{direction}{infix}: {found:?}");
        }
    }
    // The same figure, told in two ways.
    let (times, rates) = (samples(&document, "seal-time"), samples(&document, "seal-rate"));
    for ((_, times), (_, rates)) in times.iter().zip(&rates) {
        assert!((times[0] * rates[0] / 1e9 - 1.0).abs() < 1e-6, "{times:?} {rates:?}");
    }
    assert_eq!((samples(&document, "limit").len(), samples(&document, "limit-super").len()), (7, 1));
}

#[test]
fn scale_is_measured_by_peers_and_routes_and_allocates_nothing() {
    let document = document(&["scale", "--quick", "--json", "--size", "100"]);
    check_machine(&document);
    for key in ["peers-time", "peers-memory", "routes-time", "lookup-ipv4", "lookup-ipv6", "routes-memory"] {
        let found = samples(&document, key);
        assert!(
            found.len() == 4 && found.iter().all(|(_, samples)| samples.iter().all(|sample| *sample > 0.0)),
            "{key}"
        );
    }
    let places = |key: &str| -> Vec<f64> {
        let measure = document["measures"].as_array().unwrap().iter().find(|measure| measure["key"] == key).unwrap();
        let points = measure["series"][0]["points"].as_array().unwrap();
        points.iter().map(|point| point["x"].as_f64().unwrap()).collect()
    };
    assert_eq!(places("peers-time"), [1.0, 10.0, 100.0, 1000.0]);
    assert_eq!(places("lookup-ipv6"), [1.0, 100.0, 10_000.0, 100_000.0]);
    let allocations = samples(&document, "peers-allocations");
    assert!(allocations.iter().all(|(_, samples)| samples == &[0.0, 0.0]), "{allocations:?}");
    // A peer has keys, a session with its replay window, timers and counters; much more would be a leak.
    for (_, samples) in samples(&document, "peers-memory") {
        assert!(samples.iter().all(|bytes| (1000.0..100_000.0).contains(bytes)), "{samples:?}");
    }
}

#[test]
fn a_person_gets_tables_and_a_report_with_charts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/report");
    let output = run(&["engine", "--quick", "--report", path.to_str().unwrap()]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(told.starts_with("adit bench engine\n") && !told.contains('\u{1b}'), "{told}");
    for part in ["Seal: time a packet [ns] ↓", "no-cipher", "×", "1420", "Quick runs: the figures are noise."] {
        assert!(told.contains(part), "{part} expected in {told}");
    }
    let page = path.join("engine.html");
    assert!(told.ends_with(&format!("The report is in {}\n", page.display())), "{told}");
    let html = fs::read_to_string(page).unwrap();
    let charts = fs::read_dir(&path).unwrap().count() - 1;
    assert!(charts > 10 && html.matches("<svg").count() == charts, "{charts}");
    let chart = fs::read_to_string(path.join("engine-seal-time.svg")).unwrap();
    roxmltree::Document::parse(&chart).unwrap();
}

#[test]
fn directories_that_cannot_be_written_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("engine.html");
    fs::write(&file, "somebody else's").unwrap();
    let below = file.join("below");
    for (path, code, reason) in [
        (folder.path(), 5, "was not made by `adit bench`"),
        (&file, 5, "no report can be written to"),
        (&below, 1, "no report can be written to"),
    ] {
        // It would take minutes if it measured first.
        let begun = Instant::now();
        let output = run(&["engine", "--runs", "100", "--report", path.to_str().unwrap()]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(reason) && told.contains(path.to_str().unwrap()), "{told}");
        assert!(begun.elapsed() < Duration::from_secs(5) && output.stdout.is_empty());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "somebody else's");

    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    // To root nothing is closed.
    if fs::write(closed.join("probe"), "").is_err() {
        let output = run(&["engine", "--quick", "--report", closed.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    }
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

#[test]
fn an_interrupted_run_says_so_and_writes_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = bench(&["scale", "--runs", "1000", "--report", folder.path().to_str().unwrap()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = Running(command.spawn().unwrap());
        // The first line of progress shows that it measures.
        let mut errors = child.0.stderr.take().unwrap();
        let mut told = vec![0; 8];
        errors.read_exact(&mut told).unwrap();
        kill(Pid::from_raw(child.0.id().cast_signed()), signal).unwrap();
        let begun = Instant::now();
        let status = child.0.wait().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        errors.read_to_end(&mut told).unwrap();
        let mut printed = String::new();
        child.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!((status.code(), printed.as_str()), (Some(130), ""), "{}", text(&told));
        assert!(text(&told).contains("steps done") && text(&told).contains("error: interrupted"), "{}", text(&told));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn it_explains_itself() {
    let output = run(&[]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
    let help = text(&output.stderr);
    for part in ["Usage: adit bench", "engine", "tunnel", "scale", "--report", "Examples:"] {
        assert!(help.contains(part), "{part} expected in {help}");
    }
    for what in ["engine", "scale"] {
        let output = run(&[what, "--help"]);
        let help = text(&output.stdout);
        assert!(output.status.success() && help.contains("Examples:") && help.contains("--quick"), "{help}");
    }
    for (arguments, reason) in [
        (&["engine", "--runs", "0"][..], "1..=1000"),
        (&["engine", "--duration", "60"], "0.001 to 10"),
        (&["engine", "--quick", "--runs", "3"], "cannot be used with"),
        (&["scale", "--size", "27"], "28..=1420"),
        (&["moon"], "unrecognized subcommand"),
    ] {
        let output = run(arguments);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(reason), "{arguments:?}: {told}");
    }
}

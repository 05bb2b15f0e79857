//! `adit explain` of files, without privileges and without a tunnel, and how it refuses what it cannot answer.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot do what it needs has failed")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A file in a folder of its own; its tunnel is up nowhere.
struct File {
    _folder: tempfile::TempDir,
    path: String,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notup.conf");
        // Names take as long to resolve as the machine's resolver likes.
        fs::write(&path, text.replace("vpn.example.com", "192.0.2.10")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self { path: path.to_str().unwrap().to_owned(), _folder: folder }
    }

    fn example(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        Self::new(&fs::read_to_string(path).unwrap())
    }
}

/// `adit explain WORDS`: its exit code, standard output and standard error.
fn explain(words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    let output = command.arg("explain").args(words).env_remove("ADIT_LOG").stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn json(words: &[&str]) -> Value {
    let (code, stdout, stderr) = explain(&[words, &["--json"]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""), "{words:?}: {stdout}");
    serde_json::from_str(&stdout).unwrap()
}

#[track_caller]
fn fail(words: &[&str], code: i32, text: &str) {
    let run = explain(words);
    assert_eq!(run.0, code, "{words:?}: {run:?}");
    assert!(run.2.contains(text), "{words:?}: «{text}» expected in {run:?}");
    assert_eq!(run.1, "", "{words:?}");
}

#[test]
fn a_file_that_is_not_up_tells_what_would_be() {
    for (example, target, way) in [
        ("full.conf", "203.0.113.5", "tunnel"),
        ("full.conf", "2001:db8:5::1", "tunnel"),
        ("full.conf", "127.0.0.1", "host"),
        ("full.conf", "::ffff:203.0.113.5", "tunnel"),
        ("split-include.conf", "172.20.1.1", "tunnel"),
        ("split-include.conf", "203.0.113.5", "underlay"),
        ("split-exclude.conf", "203.0.113.5", "underlay"),
        ("split-exclude.conf", "203.0.113.70", "tunnel"),
        ("split-exclude.conf", "2001:db8:113::9", "underlay"),
    ] {
        let file = File::example(example);
        let explanation = json(&[target, &file.path]);
        let answer = &explanation["answers"][0];
        assert_eq!(answer["way"], way, "{example} {target}: {explanation:#}");
        assert_eq!((&explanation["is_up"], &answer["agrees"]), (&false.into(), &Value::Null), "{explanation:#}");
        assert!(explanation["notes"].to_string().contains("notup is not up"), "{explanation:#}");
    }
    let file = File::example("split-exclude.conf");
    let (code, text, _) = explain(&["203.0.113.70", &file.path, "--proto", "tcp", "--port", "443"]);
    assert_eq!(code, 0);
    for part in [
        "203.0.113.70 would go through the tunnel notup, to peer de05… at 192.0.2.10:51820\n",
        "  rule    AllowedIPs 203.0.113.64/26 of de05…\n",
        "  lost    ExcludedIPs 203.0.113.0/24: a shorter prefix\n",
        "  lost    AllowedIPs 0.0.0.0/0 of de05…: a shorter prefix\n",
        "  source  10.192.0.4\n",
    ] {
        assert!(text.contains(part), "«{part}» expected in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours into a file");
}

#[test]
fn a_prefix_is_taken_apart_and_a_long_list_is_cut() {
    let mut excluded = String::new();
    for number in 0..100 {
        let _ = writeln!(excluded, "ExcludedIPs = 203.0.{}.0/32", 2 * number);
    }
    let key = "OLvG8XPBbnEJZbtAyZTNJ9XBhTRGYXbRiJP4/hyRJ1Q=";
    let peer = "[Peer]\nPublicKey = gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=\nAllowedIPs = 203.0.0.0/16";
    let file = File::new(&format!("[Interface]\nPrivateKey = {key}\nAddress = 10.0.0.1/32\n{excluded}{peer}\n"));
    let explanation = json(&["203.0.0.0/16", &file.path]);
    let answers = explanation["answers"].as_array().unwrap();
    assert_eq!((answers.len(), &explanation["is_more"]), (24, &false.into()));
    assert!(explanation["omitted"].as_u64().unwrap() > 200, "{}", explanation["omitted"]);
    assert_eq!((&answers[0]["net"], &answers[0]["way"]), (&"203.0.0.0/32".into(), &"underlay".into()));
    assert_eq!((&answers[1]["net"], &answers[1]["way"]), (&"203.0.0.1/32".into(), &"tunnel".into()));
    let (_, text, _) = explain(&["203.0.0.0/16", &file.path]);
    assert!(text.starts_with("203.0.0.0/16 is divided:\n  203.0.0.0 would leave by the underlay"), "{text}");
    assert!(text.contains(" more parts\n"), "{text}");
    let notes = json(&["203.0.2.77/24", &file.path])["notes"].to_string();
    assert!(notes.contains("203.0.2.77/24 has host bits set; 203.0.2.0/24 is meant"), "{notes}");
}

#[test]
fn a_host_name_is_resolved_and_each_address_explained() {
    let file = File::example("full.conf");
    let explanation = json(&["localhost", &file.path]);
    let answers = explanation["answers"].as_array().unwrap();
    assert!(!answers.is_empty() && answers.iter().all(|answer| answer["way"] == "host"), "{explanation:#}");
    fail(&["no-such-host.invalid", &file.path], 7, "no-such-host.invalid does not resolve");
}

#[test]
fn another_system_is_explained_with_what_breaks_there() {
    let file = File::example("split-exclude.conf");
    let explanation = json(&["203.0.113.5", &file.path, "--os", "apple"]);
    assert_eq!((&explanation["os"], &explanation["answers"][0]["way"]), (&"ios".into(), &"physical".into()));
    assert_eq!(explanation["answers"][0]["rules"][0]["kind"], "excluded");
    let kinds = |explanation: &Value| {
        let findings = explanation["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(kinds(&explanation).contains(&"prefix-too-long".to_owned()), "{explanation:#}");

    let enforced = json(&["203.0.113.5", &file.path, "--os", "macos", "--enforce-routes"]);
    assert_eq!(enforced["answers"][0]["rules"][0]["kind"], "enforced-excluded");
    assert!(kinds(&enforced).contains(&"exclusions-with-enforce-routes".to_owned()), "{enforced:#}");
    let all = json(&["203.0.113.5", &file.path, "--os", "macos", "--include-all-networks"]);
    assert_eq!(all["answers"][0]["way"], "tunnel");

    let full = File::example("full.conf");
    let (code, text, _) = explain(&["203.0.113.5", &full.path, "--os", "apple"]);
    assert_eq!(code, 0);
    assert!(
        text.starts_with("203.0.113.5 would go through the tunnel notup\n  rule    includeAllNetworks\n"),
        "{text}"
    );
    assert!(text.contains("note: KillSwitch = on is includeAllNetworks there\n"), "{text}");
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_reason() {
    let file = File::example("full.conf");
    for target in ["", "1.2.3", "10.0.0.0/33", "300.1.1.1", "a b", "fe80::1%eth0", "http://example.com/"] {
        fail(&[target, &file.path], 2, "is no address, no prefix and no host name");
    }
    fail(&["1.1.1.1", &file.path, "--port", "53"], 2, "--proto");
    fail(&["1.1.1.1", &file.path, "--proto", "tcp", "--port", "0"], 2, "--port");
    fail(&["1.1.1.1", &file.path, "--proto", "icmp", "--port", "5"], 2, "ICMP has no ports");
    fail(&["1.1.1.1", &file.path, "--from", "::1"], 2, "different address families");
    fail(&["1.1.1.1", &file.path, "--from", "me"], 2, "--from");
    fail(&["1.1.1.1", &file.path, "--enforce-routes"], 2, "--os");
    fail(&["1.1.1.1", "no-such-tunnel"], 6, "the tunnel no-such-tunnel is not up; there is no tunnel");
    fail(&["1.1.1.1", "/no/such/file.conf"], 6, "/no/such/file.conf");
    let wrong = File::new("[Interface]\nPrivateKey = x\n");
    fail(&["1.1.1.1", &wrong.path], 3, "PrivateKey");
}

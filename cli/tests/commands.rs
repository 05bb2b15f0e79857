//! Commands that need no privileges: keys, checks, help, manual pages and completions, and how all of them fail.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot do what it needs has failed")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const ADIT: &str = env!("CARGO_BIN_EXE_adit");

fn adit() -> Command {
    let mut command = Command::new(ADIT);
    for variable in ["ADIT_LOG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
}

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn run(args: &[&str]) -> Run {
    adit().args(args).stdin(Stdio::null()).output().unwrap().into()
}

fn run_with_input(program: &mut Command, input: &[u8]) -> Run {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that has read enough may close its end.
    let _unread = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap().into()
}

#[track_caller]
fn succeed(args: &[&str]) -> String {
    let run = run(args);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "adit {args:?}: {run:#?}");
    run.stdout
}

#[track_caller]
fn fail(args: &[&str], code: i32, text: &str) -> Run {
    let run = run(args);
    assert_eq!(run.code, code, "adit {args:?}: {run:#?}");
    assert!(run.stderr.contains(text), "adit {args:?}: «{text}» expected in {run:#?}");
    run
}

/// A configuration file of its own folder, closed to others.
fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn subcommands() -> Vec<String> {
    let help = succeed(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Lines that are continued are indented further.
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

mod keys {
    use super::*;

    #[test]
    fn a_key_and_its_public_key_are_those_of_wg() {
        let key = succeed(&["genkey"]);
        assert_eq!((key.len(), key.ends_with("=\n")), (45, true));
        assert_ne!(succeed(&["genkey"]), key);
        let own = run_with_input(adit().arg("pubkey"), key.as_bytes());
        assert_eq!((own.code, own.stdout.len(), own.stderr.as_str()), (0, 45, ""), "{own:?}");
        if Command::new("wg").arg("--version").output().is_err() {
            eprintln!("skipped the comparison: wg(8) is not installed");
            return;
        }
        assert_eq!(run_with_input(Command::new("wg").arg("pubkey"), key.as_bytes()).stdout, own.stdout);
        let theirs = run_with_input(Command::new("wg").arg("genkey"), b"").stdout;
        let expected = run_with_input(Command::new("wg").arg("pubkey"), theirs.as_bytes()).stdout;
        assert_eq!(run_with_input(adit().arg("pubkey"), theirs.as_bytes()).stdout, expected);
        let psk = succeed(&["genpsk"]);
        assert_eq!((psk.len(), psk == succeed(&["genpsk"])), (45, false));
    }

    #[test]
    fn a_public_key_is_told_by_rfc_7748() {
        // Section 6.1, Alice's and Bob's keys.
        for (private, public) in [
            ("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="),
            ("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="),
        ] {
            for ending in ["", "\n", " \r\n\n"] {
                let run = run_with_input(adit().arg("pubkey"), format!("{private}{ending}").as_bytes());
                assert_eq!((run.code, run.stdout), (0, format!("{public}\n")), "{}", run.stderr);
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let key = succeed(&["genkey"]);
        let key = key.trim_end();
        let long = "A".repeat(1 << 20);
        for wrong in [
            "",
            "\n",
            "hello",
            &key[..43],
            &format!("{key}A"),
            &format!("{key}\n{key}\n"),
            &format!("x{}", &key[1..40]),
            &long,
        ] {
            let run = run_with_input(adit().arg("pubkey"), wrong.as_bytes());
            assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
            assert!(run.stderr.contains("a private key is expected"), "{run:?}");
            assert!(!run.stderr.contains(&key[..20]) && run.stderr.len() < 500, "{run:?}");
        }
        let run = run_with_input(adit().arg("pubkey"), &[0xff; 44]);
        assert_eq!(run.code, 1, "{run:?}");
    }

    #[test]
    fn a_key_in_a_file_that_everybody_may_read_is_warned_about() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, warnings) in [(0o644, 1), (0o600, 0)] {
            let file = fs::File::create(folder.path().join("key")).unwrap();
            file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
            let run: Run = adit().arg("genkey").stdout(file).output().unwrap().into();
            assert_eq!((run.code, run.stderr.matches("world accessible").count()), (0, warnings), "{run:?}");
        }
    }
}

mod check {
    use super::*;

    const GOOD: &str = "[Interface]\nPrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\nAddress = 10.0.0.2/24, fd00::2/64\n\n\
        [Peer]\nPublicKey = 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\nAllowedIPs = 0.0.0.0/0, ::/0\n";

    #[test]
    fn a_good_file_is_valid_in_words_and_as_data() {
        let (_folder, path) = file("wg0.conf", GOOD);
        assert_eq!(succeed(&["check", &path]), format!("{path}: valid; 2 addresses, 1 peer, 2 allowed prefixes\n"));
        let json: Value = serde_json::from_str(&succeed(&["check", "--json", &path])).unwrap();
        assert_eq!((&json["tunnel"], &json["valid"], &json["file"]), (&"wg0".into(), &true.into(), &path.into()));
        assert_eq!(json["diagnostics"].as_array().map(Vec::len), Some(0));
    }

    #[test]
    fn all_errors_of_a_file_are_told_at_once() {
        let text = GOOD
            .replace("25LCo=", "25LC=")
            .replace("10.0.0.2/24", "10.0.0.2/33")
            .replace("AllowedIPs", "AlowedIPs")
            .replace("K08=", "K08");
        let (_folder, path) = file("wg0.conf", &text);
        let run = fail(&["check", &path], 3, "wg0.conf: 4 errors");
        for line in [2, 3, 6, 7] {
            assert!(run.stdout.contains(&format!("{path}:{line}:")), "line {line} expected in {run:#?}");
        }
        assert!(run.stdout.contains("did you mean AllowedIPs?"), "{run:#?}");
        assert!(!run.stdout.contains("dwdtCnMYpX08"), "no secret is shown: {run:#?}");

        let run = fail(&["check", "--json", &path], 3, "4 errors");
        let json: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(json["valid"], false);
        let lines: Vec<_> =
            json["diagnostics"].as_array().unwrap().iter().map(|found| found["line"].as_u64()).collect();
        assert_eq!(lines, [Some(2), Some(3), Some(6), Some(7)]);

        // `up` tells the same and does not get further.
        let up = fail(&["up", &path], 3, "wg0.conf: 4 errors");
        assert!(run.stdout.len() > 100 && up.stderr.contains("did you mean AllowedIPs?"), "{up:#?}");
    }

    /// The file with these lines among those of its interface.
    fn with(lines: &str) -> String {
        GOOD.replace("\n\n[Peer]", &format!("\n{lines}\n\n[Peer]"))
    }

    #[test]
    fn exclusions_and_the_kill_switch_are_counted() {
        let (_folder, path) =
            file("wg0.conf", &with("ExcludedIPs = 10.1.0.0/16, fd01::/16\nExcludeLocalNetworks = on\nKillSwitch = on"));
        let rest = "2 excluded prefixes, local networks excluded, kill switch on";
        let expected = format!("{path}: valid; 2 addresses, 1 peer, 2 allowed prefixes, {rest}\n");
        assert_eq!(succeed(&["check", &path]), expected);
    }

    #[test]
    fn exclusions_that_contradict_or_change_nothing_are_told() {
        let text = with("ExcludedIPs = ::/0\nKillSwitch = yes\nExcludeIPs = 10.0.0.0/8");
        let (_folder, path) = file("wg0.conf", &text);
        let run = fail(&["check", &path], 3, "wg0.conf: 3 errors");
        for expected in [
            ":4:15: error: ExcludedIPs: ::/0 is excluded here and allowed to a peer at line 10;",
            ":5:14: error: KillSwitch: this is neither on nor off; found \"yes\", allowed `on` or `off`; did you mean on?",
            ":6:1: error: ExcludeIPs: unknown key in [Interface]; did you mean ExcludedIPs?",
        ] {
            assert!(run.stdout.contains(expected), "«{expected}» expected in {run:#?}");
        }

        let text = with("Table = off\nKillSwitch = on\nExcludedIPs = 10.1.0.0/16, 10.1.2.3/24");
        let (_folder, path) = file("wg0.conf", &text);
        let json: Value = serde_json::from_str(&succeed(&["check", "--json", &path])).unwrap();
        let found = json["diagnostics"].as_array().unwrap();
        let places: Vec<_> =
            found.iter().map(|found| (found["line"].as_u64().unwrap(), found["key"].as_str())).collect();
        assert_eq!(places, [(5, Some("KillSwitch")), (6, Some("ExcludedIPs")), (6, Some("ExcludedIPs"))]);
        assert_eq!((&json["valid"], &found[1]["suggestion"]), (&true.into(), &"10.1.2.0/24".into()));
        assert!(found[2]["message"].as_str().unwrap().contains("lies in the exclusion 10.1.0.0/16"), "{json:#}");
    }

    #[test]
    fn the_examples_to_copy_are_valid_and_without_warnings() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let mut checked = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.ends_with(".md") {
                continue;
            }
            let (_folder, path) = file(&name, &fs::read_to_string(entry.path()).unwrap());
            let text = succeed(&["check", &path]);
            assert!(text.starts_with(&format!("{path}: valid; 2 addresses, 1 peer, ")), "{text}");
            checked += 1;
        }
        assert_eq!(checked, 5);
    }

    #[test]
    fn the_keys_that_wg_quick_does_not_have_are_in_the_help_and_the_manual() {
        let help = succeed(&["check", "--help"]);
        let folder = tempfile::tempdir().unwrap();
        succeed(&["man", "--dir", folder.path().to_str().unwrap()]);
        let page = fs::read_to_string(folder.path().join("adit-check.8")).unwrap();
        for key in ["ExcludedIPs", "ExcludeLocalNetworks", "KillSwitch", "excluded_ips", "kill_switch"] {
            assert!(help.contains(key) && page.contains(key), "{key} in\n{help}\n{page}");
        }
    }

    #[test]
    fn what_is_not_there_says_where_it_was_looked_for() {
        let run = fail(&["check", "no-such-tunnel"], 6, "there is no tunnel `no-such-tunnel`");
        for place in ["/etc/wireguard/no-such-tunnel.conf", "/etc/adit/no-such-tunnel.toml"] {
            assert!(run.stderr.contains(place), "{run:#?}");
        }
        fail(&["up", "no-such-tunnel"], 6, "/etc/wireguard/no-such-tunnel.conf");
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("wg0.conf");
        let missing = missing.to_str().unwrap();
        for command in ["check", "up"] {
            let run = fail(&[command, missing], 6, "No such file");
            assert_eq!(run.stderr.matches("error").count(), 2, "told as an error once, «os error» aside: {run:#?}");
        }
        fail(&["up", &format!("{}/", folder.path().display()), "--interface", "wg0"], 3, "Is a directory");
    }

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        let (_folder, path) = file("a name that is too long.conf", GOOD);
        fail(&["up", &path], 3, "give --interface NAME");
        fail(&["check", &path], 3, "an interface's name is 1 to 15");
        for name in ["", "sixteen-letters-", "a/b", "..", "a b"] {
            fail(&["up", &path, &format!("--interface={name}")], 2, "");
        }
    }

    #[test]
    fn a_file_that_everybody_may_read_is_warned_about() {
        let (folder, path) = file("wg0.conf", GOOD);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let text = succeed(&["check", &path]);
        assert!(text.contains("warning: every user of this machine can reach this file"), "{text}");
        let json: Value = serde_json::from_str(&succeed(&["check", "--json", &path])).unwrap();
        assert_eq!((&json["valid"], &json["diagnostics"][0]["severity"]), (&true.into(), &"warning".into()));
    }
}

mod command_line {
    use super::*;

    #[test]
    fn wrong_words_are_code_2() {
        fail(&[], 2, "Usage: adit");
        fail(&["fly"], 2, "unrecognized subcommand 'fly'");
        fail(&["stauts"], 2, "'status'");
        fail(&["up"], 2, "<FILE|NAME>");
        fail(&["up", "wg0", "--handshake-wait", "soon"], 2, "--handshake-wait");
        fail(&["up", "wg0", "--resolve-wait", "0"], 2, "--resolve-wait");
        fail(&["up", "wg0", "--handshake-wait", "18446744073709551615"], 2, "3600");
        fail(&["status", "--watch", "--interval", "NaN"], 2, "0.1 to 86400");
        fail(&["--color", "pink", "status"], 2, "auto, always, never");
    }

    #[test]
    fn a_filter_that_means_nothing_is_code_2() {
        for wrong in ["inof", "info,adit_core=loud", "verbose", "", "info,"] {
            fail(&["--log", wrong, "genkey"], 2, "--log");
            let run: Run = adit().arg("genkey").env("ADIT_LOG", wrong).output().unwrap().into();
            assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:#?}");
        }
        for right in ["off", "WARN", "info,adit_core=trace", "adit_tun::pump=debug", "adit_core"] {
            succeed(&["--log", right, "genkey"]);
        }
    }

    #[test]
    fn a_log_file_that_cannot_be_written_is_told_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no/such/folder.log");
        fail(&["--log-file", path.to_str().unwrap(), "genkey"], 6, "no/such/folder.log");
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        let names = subcommands();
        let expected = [
            "up",
            "down",
            "status",
            "doctor",
            "reload",
            "recover",
            "check",
            "explain",
            "routes",
            "genkey",
            "genpsk",
            "pubkey",
            "demo",
            "bench",
            "completions",
            "man",
        ];
        assert_eq!(names, expected);
        for name in names {
            let help = succeed(&[&name, "--help"]);
            assert!(help.contains("Example"), "{help}");
            // Each example is a line that this very command line takes, up to what it names.
            let examples =
                help.lines().filter_map(|line| line.split_once("adit ")).filter(|(before, _)| before.starts_with("  "));
            for (_, example) in examples {
                let words = example
                    .split("  ")
                    .next()
                    .unwrap_or_default()
                    .split(['|', '>', '<', ';'])
                    .next()
                    .unwrap_or_default();
                let words: Vec<_> = words.split_whitespace().chain(["--help"]).collect();
                if words[0] == name {
                    succeed(&words);
                }
            }
        }
        let text = succeed(&["--help"]);
        assert!(text.contains("Exit codes:") && text.contains("/etc/wireguard"), "{text}");
        assert_eq!(succeed(&["--version"]), format!("adit {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn colours_are_for_terminals_and_for_those_who_ask() {
        let coloured = |args: &[&str], no_color: bool| {
            let mut command = adit();
            if no_color {
                command.env("NO_COLOR", "1");
            }
            let run: Run = command.args(args).output().unwrap().into();
            assert_eq!(run.code, 6, "{run:#?}");
            run.stderr.contains('\u{1b}')
        };
        assert!(!coloured(&["check", "no-such-tunnel"], false), "standard error is no terminal");
        assert!(coloured(&["--color", "always", "check", "no-such-tunnel"], false));
        assert!(
            coloured(&["--color", "always", "check", "no-such-tunnel"], true),
            "the command line has the last word"
        );
        assert!(!coloured(&["--color", "never", "check", "no-such-tunnel"], true));
    }

    #[test]
    fn nobody_who_reads_is_no_reason_to_panic() {
        let (_folder, good) =
            file("wg0.conf", "[Interface]\nPrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n");
        let closed = || std::io::pipe().map(|(_reader, writer)| writer).unwrap();
        for args in [
            &["man"][..],
            &["--help"],
            &["up", "--help"],
            &["--version"],
            &["completions", "bash"],
            &["genkey"],
            &["genpsk"],
            &["check", &good],
            &["check", "--json", &good],
        ] {
            let run: Run = adit().args(args).stdout(closed()).output().unwrap().into();
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "adit {args:?}");
        }
        for (args, code) in
            [(&["check", "no-such-tunnel"][..], 6), (&["--log", "x", "genkey"], 2), (&["fly"], 2), (&["pubkey"], 1)]
        {
            let status = adit().args(args).stdin(Stdio::null()).stdout(closed()).stderr(closed()).status().unwrap();
            assert_eq!(status.code(), Some(code), "adit {args:?}");
        }
    }
}

mod manual {
    use super::*;

    #[test]
    fn completions_are_there_for_every_shell() {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let script = succeed(&["completions", shell]);
            for word in ["recover", "doctor", "handshake-wait", "completions"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
        fail(&["completions", "cmd.exe"], 2, "bash");
        if Path::new("/bin/bash").exists() {
            let script = succeed(&["completions", "bash"]);
            let run = run_with_input(Command::new("/bin/bash").arg("-n"), script.as_bytes());
            assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        }
    }

    #[test]
    fn there_is_a_page_for_every_command_and_it_renders() {
        let page = succeed(&["man"]);
        assert!(page.contains(".TH adit 8"), "{page}");
        for part in ["Exit codes", "adit\\-up(8)", "ADIT_LOG"] {
            assert!(page.contains(part), "{part} expected in {page}");
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("man8");
        succeed(&["man", "--dir", target.to_str().unwrap()]);
        let mut found: Vec<_> =
            fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        let mut expected: Vec<_> = subcommands().iter().map(|name| format!("adit-{name}.8")).collect();
        expected.push("adit.8".to_owned());
        expected.extend(["engine", "scale", "tunnel"].map(|name| format!("adit-bench-{name}.8")));
        expected.sort();
        assert_eq!(found, expected);
        for name in found {
            let path = target.join(name);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(&format!(".TH {} 8", path.file_stem().unwrap().to_str().unwrap())), "{text}");
            if let Ok(rendered) = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&path).output() {
                let rendered: Run = rendered.into();
                assert_eq!((rendered.code, rendered.stderr.as_str()), (0, ""), "{}", path.display());
            }
        }
        fail(&["man", "--dir", "/dev/null/pages"], 1, "/dev/null/pages");
    }
}

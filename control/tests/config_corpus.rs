//! Configurations as people have them, and what Adit makes of them.
//!
//! `corpus/README.md` says how to add one.

#![allow(clippy::unwrap_used, reason = "a test that cannot do what it needs has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use adit_control::config::{Config, ConfigError, Diagnostic, Endpoint, Format, Host, Table, parse, parse_bytes};

/// Reads a file of the corpus under its own name, so that messages hold no path of this machine.
fn read(path: &Path) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    let name = path.file_name().unwrap().to_str().unwrap();
    parse_bytes(&fs::read(path).unwrap(), Format::from_path(path), name)
}

fn config(name: &str) -> (Config, Vec<String>) {
    let (config, warnings) = read(&corpus().join(name)).unwrap_or_else(|error| panic!("{error}"));
    (config, warnings.iter().map(ToString::to_string).collect())
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The files of a folder with one of the extensions, sorted.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted =
        |path: &PathBuf| path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted));
    let mut paths: Vec<_> = paths.filter(wanted).collect();
    paths.sort();
    paths
}

/// Compares with the file of expectations, or writes it if `UPDATE_EXPECTED` is set. Returns what differs.
fn expect(path: &Path, found: &str) -> Option<String> {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        if found.is_empty() {
            // There is nothing to expect, whether or not there was before.
            let _ = fs::remove_file(path);
        } else {
            fs::write(path, found).unwrap();
        }
        return None;
    }
    let expected = if path.exists() { fs::read_to_string(path).unwrap() } else { String::new() };
    (expected != found).then(|| format!("{}\n--- expected\n{expected}--- found\n{found}", path.display()))
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

#[test]
fn good_files_are_read_as_expected() {
    let files = files(&corpus(), &["conf"]);
    assert!(files.len() >= 30, "{} files in the corpus", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let (config, warnings) = read(&path).unwrap_or_else(|error| panic!("{error}"));
        wrong.extend(expect(&path.with_extension("json"), &config.to_json()));
        wrong.extend(expect(&path.with_extension("warnings"), &lines(&warnings)));
        for (text, format) in
            [(config.to_conf(), Format::Conf), (config.to_toml(), Format::Toml), (config.to_json(), Format::Json)]
        {
            let (again, _) =
                parse(&text, format, "again").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(again, config, "{} as {format:?}", path.display());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_files_are_refused_with_every_reason() {
    let files = files(&corpus().join("bad"), &["conf", "toml", "json"]);
    assert!(files.len() >= 25, "{} files in the corpus", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let error = read(&path).expect_err(&path.display().to_string());
        let mut expected = path.clone().into_os_string();
        expected.push(".txt");
        wrong.extend(expect(Path::new(&expected), &format!("{error}\n")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The expectations are written by the code that they test; these are written by hand.
mod by_hand {
    use super::*;

    #[test]
    fn full_tunnel() {
        let (config, warnings) = config("full-tunnel.conf");
        assert_eq!(config.interface.addresses, ["10.180.40.8/24".parse().unwrap()]);
        assert_eq!(config.interface.dns, ["10.180.40.1".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(config.interface.table, Table::Auto);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("full-tunnel.conf:4:7: warning: DNS: the `adit` command"), "{warnings:?}");
        let [peer] = config.peers.as_slice() else { panic!("{} peers", config.peers.len()) };
        assert_eq!(peer.allowed_ips, ["0.0.0.0/0".parse().unwrap()]);
        assert_eq!(peer.endpoint, Some(Endpoint { host: Host::Name("demo.example.com".into()), port: 51820 }));
        assert!(peer.preshared_key.is_some());
        assert_eq!(peer.persistent_keepalive, None);
    }

    #[test]
    fn lists_and_repeated_keys_add_up() {
        let (config, warnings) = config("many-addresses.conf");
        let addresses: Vec<_> = config.interface.addresses.iter().map(ToString::to_string).collect();
        let expected = ["10.0.0.1/24", "10.0.1.1/24", "10.0.2.1/24", "fd00::1/64", "fd00:1::1/64", "169.254.1.1/30"];
        assert_eq!(addresses, expected);
        assert_eq!(warnings, [""; 0]);
        let (config, _) = super::config("split-tunnel.conf");
        let allowed: Vec<_> = config.peers[0].allowed_ips.iter().map(ToString::to_string).collect();
        assert_eq!(allowed, ["192.168.77.0/24", "10.10.0.0/16", "172.16.40.0/22"]);
    }

    #[test]
    fn hooks_are_kept_in_order_without_comments() {
        let (config, _) = config("hooks-iptables.conf");
        assert_eq!(config.interface.pre_up, ["sysctl -q -w net.ipv4.ip_forward=1"]);
        assert_eq!(config.interface.post_up[1], "ip6tables -A FORWARD -i %i -j ACCEPT");
        assert_eq!(config.interface.post_down[1], "ip6tables -D FORWARD -i %i -j ACCEPT");
        let (config, _) = super::config("hooks-equals-and-quotes.conf");
        let expected = r#"sh -c 'X="a=b"; echo "$X" > /run/%i.state' && logger -t wg "up: %i""#;
        assert_eq!(config.interface.post_up, [expected]);
    }

    #[test]
    fn marks_and_tables() {
        let (config, _) = config("fwmark-hex.conf");
        assert_eq!((config.interface.fwmark, config.interface.table), (Some(0xca6c), Table::Off));
        let (config, _) = super::config("fwmark-off.conf");
        assert_eq!((config.interface.fwmark, config.interface.table), (Some(0), Table::Auto));
        assert_eq!(config.peers[0].persistent_keepalive, Some(0));
        let (config, _) = super::config("table-main.conf");
        assert_eq!((config.interface.fwmark, config.interface.table), (Some(51820), Table::Number(254)));
    }

    #[test]
    fn dns_servers_and_search_domains_share_a_key() {
        let (config, warnings) = config("dns-and-search.conf");
        let dns: Vec<_> = config.interface.dns.iter().map(ToString::to_string).collect();
        assert_eq!(dns, ["10.20.0.1", "10.20.0.2", "fd00:20::1"]);
        assert_eq!(config.interface.dns_search, ["corp.example.com", "lab.example.com", "~internal.example"]);
        assert_eq!(warnings.len(), 1, "one warning, however many servers");
    }

    #[test]
    fn the_last_value_and_the_last_peer_count() {
        let (config, warnings) = config("last-value-counts.conf");
        assert_eq!((config.interface.listen_port, config.interface.mtu), (Some(2), Some(1380)));
        assert_eq!(config.peers[0].persistent_keepalive, Some(20));
        assert_eq!(warnings.len(), 4);
        let (config, warnings) = super::config("overlapping-claims.conf");
        assert_eq!(config.interface.addresses.len(), 2);
        let update = config.update(|_| None);
        assert!(
            update
                .peers
                .iter()
                .all(|peer| peer.allowed_ips.iter().any(|change| change.net.to_string() == "10.1.0.0/16"))
        );
        assert!(warnings.iter().any(|warning| warning.contains("10.1.0.0/16 is allowed to two peers")), "{warnings:?}");
    }

    #[test]
    fn odd_spellings_are_the_same_configuration() {
        let (config, _) = config("odd-blanks.conf");
        assert_eq!(config.interface.listen_port, Some(51820));
        assert_eq!(config.interface.addresses.len(), 3);
        assert_eq!(config.peers[0].allowed_ips.len(), 3);
        assert_eq!(config.peers[0].endpoint, Some("192.0.2.1:51820".parse().unwrap()));
        let (config, _) = super::config("odd-case.conf");
        assert_eq!((config.interface.table, config.interface.save_config), (Table::Off, false));
        let (config, _) = super::config("repeated-interface.conf");
        assert_eq!((config.interface.addresses.len(), config.interface.listen_port), (2, Some(51820)));
    }

    #[test]
    fn secrets_stay_out_of_messages() {
        for path in files(&corpus().join("bad"), &["conf", "toml", "json"]) {
            let bytes = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            let message = read(&path).unwrap_err().to_string();
            // Any eight characters of a word that is as long as half a key.
            let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || "+/".contains(char)));
            for word in words.filter(|word| word.len() >= 20 && word.bytes().any(|byte| byte.is_ascii_digit())) {
                for start in 0..word.len() - 8 {
                    assert!(!message.contains(&word[start..start + 8]), "{}: {message}", path.display());
                }
            }
        }
    }
}

//! What the Swift package takes for granted: the JSON in its fixtures is what the engine writes, its header is this one.
//!
//! The package's own tests read the same files, where there is a Swift compiler. Here nothing of it is compiled.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_control::config::{Format, parse};
use adit_control::hosted::{
    Code, Host, HostBatch, HostEvent, HostSettings, HostedError, HostedOptions, HostedTunnel, State, StopReason,
    Warning,
};
use serde_json::Value;

struct Deaf;

impl Host for Deaf {
    fn event(&self, _event: &HostEvent) {}

    fn packets(&self, _packets: &HostBatch) {}
}

#[test]
fn settings_are_as_the_swift_tests_have_them() {
    for name in ["full", "split", "ipv6"] {
        let text = std::fs::read_to_string(fixtures().join(format!("{name}.conf"))).unwrap();
        let (config, _) = parse(&text, Format::Conf, name).unwrap();
        let options = HostedOptions { default_mtu: 1420, ..HostedOptions::default() };
        let tunnel = HostedTunnel::new(config, options, Arc::new(Deaf)).unwrap();
        let mut made = serde_json::to_value(tunnel.settings()).unwrap();
        let mut expected = fixture(&format!("{name}.json"));
        // It is looked up at a start, and what is known to go wrong depends on the system.
        assert_eq!(made["remote_address"].take(), "127.0.0.1", "{name}");
        assert!(expected["remote_address"].take().is_string(), "{name}");
        for warning in made["warnings"].take().as_array().unwrap() {
            assert!(warning["code"].is_string() && warning["message"].is_string(), "{name}: {warning}");
        }
        assert!(expected["warnings"].take().is_array(), "{name}");
        assert_eq!(made, expected, "{name}");
    }
}

#[test]
fn events_are_as_the_swift_tests_have_them() {
    let peer = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=".parse().unwrap();
    let failure = |code, message: &str| Some(HostedError::new(code, message));
    let settings = HostSettings {
        addresses: vec!["10.0.0.2/32".parse().unwrap()],
        included_routes: vec!["10.0.0.0/8".parse().unwrap()],
        excluded_routes: Vec::new(),
        dns: None,
        mtu: 1420,
        remote_address: "127.0.0.1".parse().unwrap(),
        exclude_local_networks: None,
        warnings: vec![Warning { code: "ipv6-default-missing", message: "IPv6 goes around the tunnel".to_owned() }],
    };
    let events = [
        HostEvent::State { state: State::ApplyingSettings },
        HostEvent::Started { error: None },
        HostEvent::Started { error: failure(Code::PeerTimeout, "no peer answered within 10 s") },
        HostEvent::Settings { generation: 3, settings: Box::new(settings) },
        HostEvent::Handshake { peer, round_trip_ms: Some(1.5), first: true },
        HostEvent::Handshake { peer, round_trip_ms: None, first: false },
        HostEvent::HandshakeTimedOut { peer, retry_in_ms: Some(5000.0) },
        HostEvent::HandshakeTimedOut { peer, retry_in_ms: None },
        HostEvent::Roamed { peer },
        HostEvent::Room,
        HostEvent::Warning { code: "clock-behind".to_owned(), message: "the clock was set back".to_owned() },
        HostEvent::Updated { error: None },
        HostEvent::Updated { error: failure(Code::Busy, "another update is under way") },
        HostEvent::Resumed,
        HostEvent::Stopped { reason: StopReason(1), error: None },
        HostEvent::Stopped { reason: StopReason(2), error: failure(Code::DeviceLost, "the descriptor was closed") },
    ];
    let expected = fixture("events.json");
    let expected = expected.as_array().unwrap();
    assert_eq!(expected.len(), events.len());
    for (event, expected) in events.iter().zip(expected) {
        assert_eq!(&serde_json::to_value(event).unwrap(), expected);
    }
}

#[test]
fn states_have_the_names_that_swift_knows() {
    let swift = std::fs::read_to_string(package().join("Sources/AditKit/Tunnel/TunnelState.swift")).unwrap();
    let states = [
        State::Idle,
        State::Resolving,
        State::Handshaking,
        State::ApplyingSettings,
        State::Up,
        State::Reasserting,
        State::Stopping,
    ];
    for state in states {
        let name = serde_json::to_value(state).unwrap();
        assert!(swift.contains(&format!("case {name}: self")), "TunnelState.swift does not read {name}");
    }
}

#[test]
fn the_header_is_not_a_copy() {
    let link = package().join("Sources/CAdit/adit.h");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/adit.h");
    assert_eq!(link.canonicalize().unwrap(), kept.canonicalize().unwrap());
}

#[test]
fn nothing_in_the_package_stops_the_process() {
    let mut read = 0;
    for file in sources(&package().join("Sources")) {
        let text = std::fs::read_to_string(&file).unwrap();
        read += 1;
        for word in ["fatalError(", "preconditionFailure(", "precondition(", " assert(", "try!", " as! "] {
            assert!(!text.contains(word), "{} has {word}", file.display());
        }
    }
    assert!(read > 20, "only {read} files were found");
}

#[test]
fn the_example_is_a_short_one() {
    let example = package().join("../Example/PacketTunnel/PacketTunnelProvider.swift");
    let lines = std::fs::read_to_string(example).unwrap().lines().count();
    assert!(lines <= 60, "{lines} lines");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "swift") {
            found.push(path);
        }
    }
    found
}

fn fixture(name: &str) -> Value {
    let text = std::fs::read_to_string(fixtures().join(name)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn fixtures() -> PathBuf {
    package().join("Tests/AditKitTests/Fixtures")
}

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("swift/AditKit")
}

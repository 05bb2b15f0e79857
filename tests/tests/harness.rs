//! The harness itself: what it claims to make is there, what it claims to remove is gone, and wireguard-go talks to
//! wireguard-go through it, so that a failure of Adit's scenarios is a failure of Adit.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use adit_tests::peers::WireGuardGo;
use adit_tests::tools::{self, IperfServer};
use adit_tests::{Namespace, Pair, PairOptions, Triple, eventually, netns, process, wg};
use anyhow::Result;

const SOON: Duration = Duration::from_millis(100);

fn namespace_exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_pair_reaches_itself_over_both_families_with_its_mtu() -> Result<()> {
    let pair = Pair::with(PairOptions { mtu: 1400 })?;
    for target in [Pair::B4, Pair::B6] {
        let pings = tools::ping(&pair.a, target, 3, SOON)?;
        assert_eq!((pings.sent, pings.received), (3, 3));
        assert!(pings.mean.is_some_and(|mean| mean < Duration::from_secs(1)));
    }
    // 20 bytes of IPv4 and 8 of ICMP.
    assert_eq!(tools::ping_sized(&pair.a, Pair::B4, 1, SOON, 1400 - 28)?.received, 1);
    assert_eq!(tools::ping_sized(&pair.a, Pair::B4, 1, SOON, 1400 - 27)?.received, 0);
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_host_that_changes_its_way_is_seen_under_its_new_address() -> Result<()> {
    let triple = Triple::new()?;
    let server = |address: IpAddr| triple.b.enter(move || UdpSocket::bind((address, 0)));
    for (link, v4, v6) in [
        (Triple::FIRST, Triple::A4, Triple::A6),
        (Triple::SECOND, Triple::SECOND4, Triple::SECOND6),
        (Triple::FIRST, Triple::A4, Triple::A6),
    ] {
        triple.take(link)?;
        for (source, target) in [(v4, Triple::B4), (v6, Triple::B6)] {
            assert_eq!(tools::ping(&triple.a, target, 2, SOON)?.received, 2, "{target} over {link}");
            let server = server(target)??;
            server.set_read_timeout(Some(Duration::from_secs(5)))?;
            let to = server.local_addr()?;
            let wildcard = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            triple.a.enter(|| UdpSocket::bind(wildcard)?.send_to(b"hello", to))??;
            let (_, from) = server.recv_from(&mut [0; 16])?;
            assert_eq!(from.ip(), source, "over {link}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn wireguard_go_talks_to_wireguard_go() -> Result<()> {
    let pair = Pair::new()?;
    for (underlay_a, underlay_b) in [(Pair::A4, Pair::B4), (Pair::A6, Pair::B6)] {
        let (go_a, go_b) = (WireGuardGo::start(&pair.a)?, WireGuardGo::start(&pair.b)?);
        let (key_a, key_b, psk) = (wg::private_key()?, wg::private_key()?, wg::preshared_key()?);
        let config = |own: &adit_core::PrivateKey, other: &adit_core::PrivateKey, host: u8, endpoint| wg::Config {
            private_key: own.clone(),
            listen_port: Some(51820),
            peers: vec![wg::Peer {
                public_key: other.public_key(),
                preshared_key: Some(psk.clone()),
                allowed_ips: vec![format!("10.77.0.{host}/32"), format!("fd77::{host}/128")],
                endpoint: Some(SocketAddr::new(endpoint, 51820)),
                persistent_keepalive: None,
            }],
        };
        let (a, b) = (config(&key_a, &key_b, 2, underlay_b), config(&key_b, &key_a, 1, underlay_a));
        go_a.configure(&pair.a, &a, &["10.77.0.1/24", "fd77::1/64"], 1420)?;
        go_b.configure(&pair.b, &b, &["10.77.0.2/24", "fd77::2/64"], 1420)?;

        for target in ["10.77.0.2", "fd77::2"] {
            let pings = tools::ping(&pair.a, target.parse()?, 5, SOON)?;
            assert_eq!(pings.received, 5, "{target} over {underlay_b}");
        }
        let dump = wg::show(&pair.a, go_a.link())?;
        let peer = dump.peer(&key_b.public_key())?;
        assert_eq!(dump.private_key, Some(key_a));
        assert_eq!(peer.endpoint, Some(SocketAddr::new(underlay_b, 51820)));
        assert_eq!(peer.preshared_key.as_ref(), Some(&psk));
        assert!(peer.latest_handshake.is_some() && peer.received > 0 && peer.sent > 0, "{peer:?}");

        let server = IperfServer::start(&pair.b, "10.77.0.2".parse()?)?;
        for reverse in [false, true] {
            let flow = server.measure(&pair.a, Duration::from_secs(1), reverse)?;
            // Through the tunnel, and not past it: its counters have seen the payload.
            let dump = wg::show(&pair.a, go_a.link())?;
            let peer = dump.peer(&key_b.public_key())?;
            let through = if reverse { peer.received } else { peer.sent };
            assert!(flow.bytes > 1_000_000 && through >= flow.bytes, "{flow:?}, {peer:?}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn configuration_without_the_right_key_carries_nothing() -> Result<()> {
    let pair = Pair::new()?;
    let (go_a, go_b) = (WireGuardGo::start(&pair.a)?, WireGuardGo::start(&pair.b)?);
    let (key_a, key_b, stranger) = (wg::private_key()?, wg::private_key()?, wg::private_key()?);
    let config = |own: &adit_core::PrivateKey, other: adit_core::PublicKey, host: u8, endpoint| wg::Config {
        private_key: own.clone(),
        listen_port: Some(51820),
        peers: vec![wg::Peer {
            public_key: other,
            preshared_key: None,
            allowed_ips: vec![format!("10.77.0.{host}/32")],
            endpoint: Some(SocketAddr::new(endpoint, 51820)),
            persistent_keepalive: None,
        }],
    };
    go_a.configure(&pair.a, &config(&key_a, key_b.public_key(), 2, Pair::B4), &["10.77.0.1/24"], 1420)?;
    go_b.configure(&pair.b, &config(&key_b, stranger.public_key(), 1, Pair::A4), &["10.77.0.2/24"], 1420)?;
    let silent = tools::ping(&pair.a, "10.77.0.2".parse()?, 3, SOON)?;
    assert_eq!((silent.received, silent.mean), (0, None));
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_panic_leaves_no_namespace_process_or_socket() -> Result<()> {
    let mut made = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let pair = Pair::new().unwrap();
        let mut go = WireGuardGo::start(&pair.a).unwrap();
        let child = pair.b.spawn("sleep", ["600"]).unwrap();
        // Neither a child of the test nor in its session: only the namespace knows it.
        pair.b.exec("sh", ["-c", "setsid sleep 601 >/dev/null 2>&1 & echo $!"]).unwrap();
        eventually("both to run", Duration::from_secs(5), || pair.b.pids().is_ok_and(|pids| pids.len() == 2)).unwrap();
        let mut ids = pair.b.pids().unwrap();
        assert!(ids.contains(&child.id()));
        ids.push(go.process().id());
        let names = [pair.a.name().to_owned(), pair.b.name().to_owned()];
        made = Some((names, ids, wg::socket(go.link())));
        panic!("as a failed assertion does");
    }));
    assert!(panicked.is_err());
    let (names, ids, socket) = made.expect("the panic came too early");
    for name in names {
        assert!(!namespace_exists(&name), "{name}");
    }
    for id in ids {
        assert!(!process::is_alive(id), "process {id}");
    }
    assert!(!socket.exists(), "{}", socket.display());
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_process_that_the_harness_did_not_start_survives_its_namespace() -> Result<()> {
    let namespace = Namespace::new("guest")?;
    // What a developer does to look around.
    let mut guest = Command::new("ip").args(["netns", "exec", namespace.name(), "sleep", "600"]).spawn()?;
    let inside = eventually("it to be inside", Duration::from_secs(5), || {
        namespace.pids().is_ok_and(|pids| pids.contains(&guest.id()))
    });
    let name = namespace.name().to_owned();
    drop(namespace);
    let alive = guest.try_wait()?.is_none();
    guest.kill()?;
    guest.wait()?;
    inside?;
    assert!(alive && !namespace_exists(&name));
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_janitor_removes_what_a_killed_run_left_and_nothing_else() -> Result<()> {
    tools::require_root()?;
    // An id above the kernel's largest (PID_MAX_LIMIT, 2^22): such a process is dead for certain. The second number
    // keeps two runs of this test apart.
    let dead = format!("adit-4194305-{}-left", std::process::id());
    let living = Namespace::new("living")?;
    process::run(Command::new("ip").args(["netns", "add", &dead]))?;
    netns::remove_abandoned();
    let (dead_is_there, living_is_there) = (namespace_exists(&dead), namespace_exists(living.name()));
    if dead_is_there {
        process::run(Command::new("ip").args(["netns", "delete", &dead]))?;
    }
    assert!(!dead_is_there && living_is_there);
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn values_of_the_kernel_are_set_in_the_namespace_only() -> Result<()> {
    let namespace = Namespace::new("sysctl")?;
    let key = "/proc/sys/net/ipv4/ip_default_ttl";
    let outside = std::fs::read_to_string(key)?;
    namespace.sysctl("ipv4/ip_default_ttl", "33")?;
    assert_eq!(namespace.enter(|| std::fs::read_to_string(key))??.trim(), "33");
    assert_eq!(std::fs::read_to_string(key)?, outside);
    assert!(namespace.sysctl("ipv4/no_such_value", "1").is_err());
    Ok(())
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_peer_that_cannot_start_says_why() -> Result<()> {
    let namespace = Namespace::new("broken")?;
    let error = WireGuardGo::start_named(&namespace, "a-name-that-is-too-long").unwrap_err();
    assert!(format!("{error:#}").contains("output of wireguard-go"), "{error:#}");
    Ok(())
}

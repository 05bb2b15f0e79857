//! The firewall, for real: each test runs in fresh network namespaces with a host under test, one at the far end of its
//! underlay and of its tunnel, and one behind it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod rules;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_control::firewall::{self, Firewall};

use host::{TUN, closed, in_namespace, ip, marked, open_to, run, send, succeeds, sysctl, udp};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn nothing_leaves_but_the_tunnel_and_what_it_needs() {
    in_namespace(|host| async move {
        let (underlay, tunnel) = (host.far.listen("v1"), host.far.listen("t1"));
        let (v4, v6) = (udp("0.0.0.0:0"), udp("[::]:0"));
        send(&v4, "before-4", "203.0.113.9:9").unwrap();
        send(&v6, "before-6", "[2001:db8:9::9]:9").unwrap();
        assert_eq!(underlay.heard(["before-4"], "before-6"), [1]);

        firewall::apply(&closed()).await.unwrap();
        for destination in ["203.0.113.9:9", "198.51.100.1:53", "198.51.100.255:9", "224.0.0.251:5353"] {
            assert_eq!(send(&v4, "plain", destination), Err(ErrorKind::PermissionDenied), "{destination}");
        }
        for destination in ["[2001:db8:9::9]:9", "[2001:db8:0:1::1]:53"] {
            assert_eq!(send(&v6, "plain", destination), Err(ErrorKind::PermissionDenied), "{destination}");
        }
        for destination in ["203.0.113.9:443", "[2001:db8:9::9]:443", "198.51.100.1:443"] {
            refused_at_once(destination);
        }
        send(&marked(udp("0.0.0.0:0")), "marked-4", "203.0.113.9:9").unwrap();
        send(&marked(udp("[::]:0")), "marked-6", "[2001:db8:9::9]:9").unwrap();
        send(&udp("0.0.0.0:68"), "dhcp-4", "255.255.255.255:67").unwrap();
        send(&udp("[::]:546"), "dhcp-6", &format!("[ff02::1:2%{}]:547", index_of("v0"))).unwrap();
        let texts = ["plain", "marked-4", "marked-6", "dhcp-4"];
        assert_eq!(underlay.heard(texts, "dhcp-6"), [0, 1, 1, 1]);

        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        for own in ["127.0.0.1", "198.51.100.2"] {
            let address = SocketAddr::new(own.parse().unwrap(), listener.local_addr().unwrap().port());
            TcpStream::connect_timeout(&address, SECOND).unwrap();
        }
        send(&v4, "inside", "10.9.0.1:9").unwrap();
        tunnel.heard([], "inside");

        ip(&format!("link delete {TUN}"));
        assert_eq!(send(&v4, "plain", "10.9.0.1:9"), Err(ErrorKind::PermissionDenied), "there is a default route");
        host.add_tunnel();
        let tunnel = host.far.listen("t1");
        send(&v4, "inside again", "10.9.0.1:9").unwrap();
        tunnel.heard([], "inside again");
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn without_a_mark_nothing_counts_as_the_tunnels_own() {
    in_namespace(|_host| async move {
        firewall::apply(&Firewall { fwmark: 0, ..closed() }).await.unwrap();
        for socket in [udp("0.0.0.0:0"), marked(udp("0.0.0.0:0"))] {
            assert_eq!(send(&socket, "plain", "203.0.113.9:9"), Err(ErrorKind::PermissionDenied));
        }
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn neighbours_are_found_and_spoken_to_only_if_asked_for() {
    in_namespace(|host| async move {
        let ping = || succeeds("ping", &["-6", "-n", "-c", "1", "-W", "1", "2001:db8:0:1::1"]);
        let neighbours = || ip("-6 neighbour show 2001:db8:0:1::1 dev v0");
        firewall::apply(&closed()).await.unwrap();
        assert!(!ping(), "not asked for");
        let underlay = host.far.listen("v1");
        send(&marked(udp("[::]:0")), "marked", "[2001:db8:0:1::1]:9").unwrap();
        underlay.heard([], "marked");
        assert!(neighbours().contains("lladdr"), "solicitations leave: {}", neighbours());

        host.far.ip("-6 neighbour flush dev v1");
        let answered = host.far.run(|| succeeds("ping", &["-6", "-n", "-c", "1", "-W", "1", "2001:db8:0:1::2"]));
        let known = host.far.ip("-6 neighbour show 2001:db8:0:1::2 dev v1");
        assert!(!answered && known.contains("lladdr"), "advertisements leave, echo replies do not: {known}");

        firewall::apply(&open_to(&[], &["2001:db8:0:1::/64"])).await.unwrap();
        ip("-6 neighbour flush dev v0");
        assert!(ping());
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn excluded_and_local_networks_are_reached_past_the_tunnel() {
    in_namespace(|host| async move {
        let mut open = open_to(&["192.0.2.0/25", "192.0.2.0/24", "2001:db8:9::/48"], &["198.51.100.0/24"]);
        firewall::apply(&open).await.unwrap();
        let underlay = host.far.listen("v1");
        let (v4, v6) = (udp("0.0.0.0:0"), udp("[::]:0"));
        send(&v4, "excluded-4", "192.0.2.9:53").unwrap();
        send(&v6, "excluded-6", "[2001:db8:9::9]:53").unwrap();
        send(&v4, "local", "198.51.100.1:53").unwrap();
        assert_eq!(send(&v4, "plain", "203.0.113.9:9"), Err(ErrorKind::PermissionDenied));
        assert_eq!(underlay.heard(["excluded-4", "excluded-6", "plain"], "local"), [1, 1, 0]);

        open.kill_switch.as_mut().unwrap().no_local_dns = true;
        firewall::apply(&open).await.unwrap();
        for port in [53, 853] {
            assert_eq!(send(&v4, "plain", &format!("198.51.100.1:{port}")), Err(ErrorKind::PermissionDenied));
            refused_at_once(&format!("198.51.100.1:{port}"));
        }
        send(&v4, "excluded DNS", "192.0.2.9:53").unwrap();
        assert_eq!(underlay.heard(["plain"], "excluded DNS"), [0]);
        let listener = host.far.run(|| TcpListener::bind("198.51.100.1:0").unwrap());
        TcpStream::connect_timeout(&listener.local_addr().unwrap(), SECOND).unwrap();
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn forwarded_packets_leave_by_the_tunnel_only_also_those_of_old_flows() {
    in_namespace(|host| async move {
        let (underlay, tunnel) = (host.far.listen("v1"), host.far.listen("t1"));
        let (client, far) = (host.client.udp("0.0.0.0:0"), host.far.udp("203.0.113.9:9"));
        send(&client, "before", "203.0.113.9:9").unwrap();
        underlay.heard([], "before");
        let (_, from) = far.recv_from(&mut [0; 64]).unwrap();
        far.send_to(b"back", from).unwrap();
        client.recv_from(&mut [0; 64]).unwrap();

        firewall::apply(&open_to(&["192.0.2.0/24"], &[])).await.unwrap();
        send(&client, "old flow", "203.0.113.9:9").unwrap();
        send(&client, "new flow", "203.0.113.9:10").unwrap();
        send(&client, "excluded", "192.0.2.9:9").unwrap();
        assert_eq!(underlay.heard(["old flow", "new flow"], "excluded"), [0, 0]);
        send(&client, "inside", "10.9.0.1:9").unwrap();
        tunnel.heard([], "inside");
        let inside = host.far.udp("10.9.0.1:0");
        send(&inside, "from inside", &from.to_string()).unwrap();
        client.recv_from(&mut [0; 64]).unwrap();

        firewall::apply(&open_to(&[], &["10.77.0.0/24"])).await.unwrap();
        host.client.run(|| refused_at_once("203.0.113.9:443"));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn not_one_packet_slips_through_while_the_rules_are_replaced() {
    in_namespace(|host| async move {
        let variants = [closed(), open_to(&["192.0.2.0/24"], &[]), Firewall { reply_protection: true, ..closed() }];
        firewall::apply(&variants[0]).await.unwrap();
        let underlay = host.far.listen("v1");
        let over = Arc::new(AtomicBool::new(false));
        let flood = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                let (plain, marked) = (udp("0.0.0.0:0"), marked(udp("0.0.0.0:0")));
                let (mut passed, mut lost, mut sent) = (0, 0, 0_u64);
                while !over.load(Ordering::Relaxed) {
                    passed += u64::from(send(&plain, "plain", "203.0.113.9:9").is_ok());
                    if sent.is_multiple_of(64) {
                        lost += u64::from(send(&marked, "marked", "203.0.113.9:9").is_err());
                    }
                    sent += 1;
                }
                (passed, lost, sent)
            }
        });
        let sender = marked(udp("0.0.0.0:0"));
        let mut heard = 0;
        for round in 0..60 {
            firewall::apply(&variants[round % variants.len()]).await.unwrap();
            let last = format!("round {round} is over");
            send(&sender, &last, "203.0.113.9:9").unwrap();
            heard += underlay.heard(["plain"], &last)[0];
        }
        over.store(true, Ordering::Relaxed);
        let (passed, lost, sent) = flood.join().unwrap();
        assert_eq!((heard, passed, lost), (0, 0, 0), "of {sent}");
        assert!(sent > 1000, "a flood of {sent}");
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn answers_to_the_tunnel_pass_a_strict_filter_and_strangers_do_not_reach_its_address() {
    in_namespace(|host| async move {
        ip(&format!("route add default dev {TUN} table 51820"));
        ip("rule add not fwmark 51820 table 51820 priority 32765");
        ip("rule add table main suppress_prefixlength 0 priority 32764");
        sysctl("ipv4/conf/all/src_valid_mark", "1");
        sysctl("ipv4/conf/all/rp_filter", "1");
        sysctl("ipv4/conf/v0/rp_filter", "1");
        let (tunnel, far) = (marked(udp("0.0.0.0:0")), host.far.udp("203.0.113.9:9"));
        let exchange = || {
            send(&tunnel, "question", "203.0.113.9:9").unwrap();
            let (_, from) = far.recv_from(&mut [0; 64]).unwrap();
            far.send_to(b"answer", from).unwrap();
            tunnel.recv_from(&mut [0; 64]).is_ok()
        };
        assert!(!exchange(), "a strict filter expects the answer from the tunnel");
        let own = udp("10.9.0.2:0");
        host.far.ip("route add 10.9.0.2/32 via 198.51.100.2");
        let stranger = host.far.udp("198.51.100.1:0");
        let spoof = || {
            send(&stranger, "spoofed", &own.local_addr().unwrap().to_string()).unwrap();
            own.recv_from(&mut [0; 64]).is_ok()
        };
        assert!(spoof(), "a host takes packets to its addresses from everywhere");

        firewall::apply(&Firewall { reply_protection: true, kill_switch: None, ..closed() }).await.unwrap();
        assert!(exchange());
        assert!(!spoof());
        send(&own, "to itself", &own.local_addr().unwrap().to_string()).unwrap();
        own.recv_from(&mut [0; 64]).unwrap();
        assert!(run("nft", &["list", "ruleset"]).contains("postmangle"));
    });
}

/// A connection is refused within a second, not left to time out.
fn refused_at_once(destination: &str) {
    let before = Instant::now();
    let error = TcpStream::connect_timeout(&destination.parse().unwrap(), Duration::from_secs(3)).unwrap_err();
    let expected = [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::PermissionDenied];
    assert!(expected.contains(&error.kind()), "{destination}: {error}");
    assert!(before.elapsed() < SECOND, "{destination}: {:?}", before.elapsed());
}

fn index_of(device: &str) -> String {
    ip(&format!("link show {device}")).split(':').next().unwrap().to_owned()
}

const SECOND: Duration = Duration::from_secs(1);

//! What the monitor notices, and what it does not.

use std::time::{Duration, Instant};

use adit_control::route::{self, Monitor};

use super::host::{TUN, full_tunnel, in_namespace};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn each_kind_of_change_is_noticed_once_and_nothing_else_is() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut monitor = settled().await;
        for change in [
            "link set v0 mtu 1400",
            "link add other0 type veth peer name other1",
            "address add 192.0.2.1/24 dev v0",
            "-6 address add 2001:db8:2::1/64 dev v0 nodad",
            "route add 203.0.113.0/24 via 198.51.100.1",
            "-6 route add 2001:db8:3::/48 via 2001:db8:0:1::1",
            "-4 rule add from 192.0.2.1 table 77 priority 77",
            "-6 rule add from 2001:db8:2::1 table 77 priority 77",
            "route add unreachable 192.0.2.77/32 table 77",
        ] {
            host.ip(&change.split(' ').collect::<Vec<_>>());
            let waited = Instant::now();
            tokio::time::timeout(SOON, monitor.changed()).await.unwrap_or_else(|_| panic!("not noticed: {change}"));
            assert!(waited.elapsed() >= Duration::from_millis(190), "{change}: before it was over");
            ensure_silent(&mut monitor).await;
        }
        for change in ["add table inet somebody", "add chain inet somebody some", "delete table inet somebody"] {
            nft(change);
            tokio::time::timeout(SOON, monitor.changed()).await.unwrap_or_else(|_| panic!("not noticed: {change}"));
            ensure_silent(&mut monitor).await;
        }
        // Looking changes nothing.
        host.snapshot();
        ensure_silent(&mut monitor).await;
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn more_messages_than_the_socket_holds_are_one_change() {
    in_namespace(|host| async move {
        let mut monitor = settled().await;
        // Some megabytes of messages come before the first of them is taken off the socket.
        let batch: String = (0..5000)
            .map(|number| format!("route add unreachable 10.{}.{}.0/24 table 77\n", number / 250, number % 250))
            .collect();
        let file = host.dir.path().join("batch");
        std::fs::write(&file, batch).unwrap();
        host.ip(&["-batch", file.to_str().unwrap()]);
        tokio::time::timeout(SOON, monitor.changed()).await.expect("lost messages are a change");
        ensure_silent(&mut monitor).await;
        host.ip(&["route", "flush", "table", "77"]);
        tokio::time::timeout(SOON, monitor.changed()).await.expect("it hears on after an overrun");
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_repair_is_noticed_and_what_follows_finds_nothing_to_do() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut journal = host.journal();
        route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
        let mut monitor = settled().await;
        let up = host.snapshot();
        host.ip(&["rule", "delete", "priority", "32765"]);
        let mut looks = 0;
        while tokio::time::timeout(SILENCE, monitor.changed()).await.is_ok() {
            looks += 1;
            route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
            assert!(looks <= 2, "a repair and one more look, then there is peace");
        }
        assert_eq!((looks, host.snapshot()), (2, up));
    });
}

/// A monitor of a host whose links the kernel is done with: that one is up it notices up to a second later, and says so.
async fn settled() -> Monitor {
    let mut monitor = Monitor::open().unwrap();
    while tokio::time::timeout(Duration::from_millis(1500), monitor.changed()).await.is_ok() {}
    monitor
}

async fn ensure_silent(monitor: &mut Monitor) {
    assert!(tokio::time::timeout(SILENCE, monitor.changed()).await.is_err(), "nothing was changed");
}

fn nft(command: &str) {
    let status = std::process::Command::new("nft").arg(command).status().unwrap();
    assert!(status.success(), "nft {command}");
}

/// Longer than the monitor waits for the end of a burst.
const SILENCE: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(5);

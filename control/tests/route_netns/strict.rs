//! The strict way of routing: everything in a table of the tunnel's own, exceptions included.

use adit_control::journal::Entry;
use adit_control::route;
use adit_control::settings::{RouteTable, Settings};

use crate::host::{Host, TUN, in_namespace, settings};

/// A full tunnel with exceptions at two depths and local networks left out.
fn with_exceptions() -> Settings {
    settings(&["10.9.0.2/24", "fd09::2/64"], &["0.0.0.0/0", "::/0", "203.0.113.64/26"], |wanted| {
        wanted.excluded_ips = ["203.0.113.0/24", "2001:db8:7::/48"].map(|net| net.parse().unwrap()).to_vec();
        wanted.exclude_local_networks = Some(true);
    })
}

fn ways(host: &Host, expected: &[(&str, u32, &str)]) {
    for (destination, mark, device) in expected {
        assert_eq!(host.device_to(destination, *mark), *device, "{destination} mark {mark}");
    }
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_longest_prefix_wins_among_what_is_included_excluded_and_local() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        for command in ["address add 192.168.7.2/24 dev v0", "address add fd77::2/64 dev v0 nodad"] {
            host.ip(&command.split(' ').collect::<Vec<_>>());
        }
        let before = host.snapshot();
        let mut journal = host.journal();
        let applied = route::apply(TUN, &with_exceptions(), &mut journal).await.unwrap();
        assert_eq!((applied.fwmark, applied.table), (Some(51820), Some(51820)));
        ways(
            &host,
            &[
                ("192.0.2.9", 0, TUN),
                ("192.0.2.9", 51820, "v0"),
                ("203.0.113.9", 0, "v0"),
                ("203.0.113.70", 0, TUN),
                ("192.168.7.77", 0, "v0"),
                ("2001:db8:1::9", 0, TUN),
                ("2001:db8:7::9", 0, "v0"),
                ("fd77::9", 0, "v0"),
            ],
        );
        // A connected network of public addresses may be an attacker's choice.
        ways(&host, &[("198.51.100.77", 0, TUN), ("2001:db8:0:1::77", 0, TUN), ("198.51.100.77", 51820, "v0")]);
        for family in ["-4", "-6"] {
            let rules = host.ip(&[family, "rule"]);
            assert!(!rules.contains("suppress_prefixlength"), "{rules}");
            assert!(rules.contains("32765:\tnot from all fwmark 0xca6c lookup 51820 proto 173"), "{rules}");
        }

        let (up, entries) = (host.snapshot(), journal.entries().to_vec());
        let again = route::apply(TUN, &with_exceptions(), &mut journal).await.unwrap();
        assert_eq!((again.changed, host.snapshot(), journal.entries()), (0, up, entries.as_slice()));
        route::undo(&mut journal).await.unwrap();
        assert_eq!((host.snapshot(), journal.entries().len()), (before, 0));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn nothing_in_the_main_table_pulls_traffic_out_of_a_strict_tunnel() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut journal = host.journal();
        let strict = with_exceptions();
        route::apply(TUN, &strict, &mut journal).await.unwrap();
        for route in ["0.0.0.0/1", "192.0.2.9/32"] {
            host.ip(&["route", "add", route, "via", "198.51.100.1", "dev", "v0", "proto", "dhcp"]);
        }
        host.ip(&["-6", "route", "add", "2000::/3", "via", "2001:db8:0:1::1", "dev", "v0", "proto", "ra"]);
        host.ip(&["address", "add", "192.0.2.200/24", "dev", "v0"]);
        let applied = route::apply(TUN, &strict, &mut journal).await.unwrap();
        assert_eq!(applied.changed, 0, "none of them is a local network");
        ways(&host, &[("192.0.2.9", 0, TUN), ("10.1.1.1", 0, TUN), ("2001:db8:1::9", 0, TUN)]);
        assert_eq!(route::pulled_out(TUN, &strict).await.unwrap(), []);

        let plain = settings(&["10.9.0.2/24"], &["0.0.0.0/0", "::/0"], |_| ());
        let nets = route::pulled_out(TUN, &plain).await.unwrap().into_iter().filter(|route| !route.connected);
        let nets: Vec<_> = nets.map(|route| route.net.to_string()).collect();
        assert_eq!(nets, ["0.0.0.0/1", "192.0.2.9/32", "2000::/3"]);
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn exceptions_follow_the_gateway_and_outlive_the_device() {
    in_namespace(|host| async move {
        let tun = host.tun();
        let mut journal = host.journal();
        route::apply(TUN, &with_exceptions(), &mut journal).await.unwrap();
        host.ip(&["route", "replace", "default", "via", "198.51.100.99", "dev", "v0"]);
        assert!(host.ip(&["route", "get", "203.0.113.9"]).contains("via 198.51.100.99"));
        drop(tun);
        assert!(host.ip(&["route", "get", "203.0.113.9"]).contains("via 198.51.100.99"));
        let refused = host.try_ip(&["route", "get", "192.0.2.9"]).unwrap_err();
        assert!(refused.contains("No route to host"), "{refused}");
        route::undo(&mut journal).await.unwrap();
        ways(&host, &[("192.0.2.9", 0, "v0")]);
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn local_networks_come_and_go_with_their_addresses() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut journal = host.journal();
        let before = host.snapshot();
        route::apply(TUN, &with_exceptions(), &mut journal).await.unwrap();
        ways(&host, &[("192.168.7.77", 0, TUN)]);
        host.ip(&["address", "add", "192.168.7.2/24", "dev", "v0"]);
        let applied = route::apply(TUN, &with_exceptions(), &mut journal).await.unwrap();
        assert_eq!(applied.changed, 1);
        ways(&host, &[("192.168.7.77", 0, "v0")]);
        // A gateway there is found on its link, also by who does not name the link.
        host.ip(&["route", "add", "203.0.113.0/24", "via", "192.168.7.1"]);
        assert!(host.ip(&["route", "show", "203.0.113.0/24"]).contains("dev v0"));
        host.ip(&["route", "delete", "203.0.113.0/24"]);
        host.ip(&["address", "delete", "192.168.7.2/24", "dev", "v0"]);
        let applied = route::apply(TUN, &with_exceptions(), &mut journal).await.unwrap();
        assert_eq!(applied.changed, 1);
        ways(&host, &[("192.168.7.77", 0, TUN)]);
        route::undo(&mut journal).await.unwrap();
        assert_eq!(host.snapshot(), before);
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_way_of_routing_changes_without_a_gap() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let before = host.snapshot();
        let mut journal = host.journal();
        let plain = settings(&["10.9.0.2/24", "fd09::2/64"], &["0.0.0.0/0", "::/0", "203.0.113.64/26"], |_| ());
        for settings in [&plain, &with_exceptions(), &plain, &with_exceptions()] {
            route::apply(TUN, settings, &mut journal).await.unwrap();
            let suppressing = host.ip(&["rule"]).matches("suppress_prefixlength").count();
            assert_eq!(suppressing, usize::from(settings.policy.unwrap().main_first));
            ways(&host, &[("192.0.2.9", 0, TUN), ("203.0.113.70", 0, TUN), ("192.0.2.9", 51820, "v0")]);
            let again = route::apply(TUN, settings, &mut journal).await.unwrap();
            assert_eq!(again.changed, 0);
        }
        route::undo(&mut journal).await.unwrap();
        assert_eq!((host.snapshot(), journal.entries().len()), (before, 0));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_table_number_has_the_exceptions_and_no_rules() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let rules = host.ip(&["rule"]);
        let settings = crate::host::settings(&["10.9.0.2/24"], &["0.0.0.0/0"], |wanted| {
            wanted.excluded_ips = vec!["203.0.113.0/24".parse().unwrap()];
            wanted.table = RouteTable::Number(1000);
        });
        let mut journal = host.journal();
        let applied = route::apply(TUN, &settings, &mut journal).await.unwrap();
        assert_eq!((applied.fwmark, applied.table, host.ip(&["rule"])), (None, None, rules));
        assert_eq!(host.ip(&["route", "show", "table", "1000"]).lines().count(), 2);
        assert!(!journal.entries().iter().any(|entry| matches!(entry, Entry::Firewall(_))));
        host.ip(&["rule", "add", "from", "198.51.100.2", "lookup", "1000"]);
        let way = |to: &str| host.ip(&["route", "get", to, "from", "198.51.100.2"]);
        assert!(way("192.0.2.1").contains(TUN) && way("203.0.113.1").contains("v0"));
    });
}

//! What the inspector shows is what ip(8) shows.

use std::net::IpAddr;

use adit_control::route::inspect::{Inspector, KernelRoute, Query, RouteKind};
use adit_control::route::{self, Reason};
use adit_control::settings::Family;
use nix::errno::Errno;

use crate::host::{Host, TUN, full_tunnel, in_namespace};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn rules_read_as_ip_writes_them() {
    in_namespace(|host| async move {
        for rule in [
            "from 10.0.0.0/8 to 192.0.2.1 tos 0x10 fwmark 0x7/0xff lookup 77",
            "not from all iif v0 ipproto tcp dport 80-90 sport 5 goto 30000",
            "from all uidrange 0-5 oif v0 lookup main suppress_prefixlength 0",
            "from all fwmark 0x9 ipproto udp unreachable",
            "from all blackhole",
            "from all prohibit",
            "from all nop",
        ] {
            let words: Vec<&str> = ["rule", "add", "priority"].into_iter().chain(rule.split(' ')).collect();
            let priority = (29_000 + rule.len()).to_string();
            let mut words = words;
            words.insert(3, &priority);
            host.ip(&words);
        }
        host.ip(&["-6", "rule", "add", "from", "fd00::/8", "lookup", "9", "protocol", "173"]);
        let inspector = Inspector::open().unwrap();
        for (family, option) in [(Family::Ipv4, "-4"), (Family::Ipv6, "-6")] {
            let rules = inspector.rules(family).await.unwrap();
            let shown: Vec<String> = rules.iter().map(ToString::to_string).collect();
            let listed = host.ip(&[option, "rule"]);
            let without_protocol = |line: &str| line.replace('\t', " ").replace(" proto 173", "").trim().to_owned();
            let mut expected: Vec<String> = listed.lines().map(without_protocol).collect();
            // ip(8) puts two of the selectors elsewhere, and marks a goto without a target.
            for line in &mut expected {
                *line = line.replace(" [unresolved]", "");
            }
            let words = |line: &String| {
                let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                words.sort();
                words
            };
            assert_eq!(shown.iter().map(words).collect::<Vec<_>>(), expected.iter().map(words).collect::<Vec<_>>());
            assert_eq!(rules.iter().filter(|rule| rule.is_ours).count(), usize::from(family == Family::Ipv6));
            assert!(rules.iter().all(|rule| !rule.has_more), "{shown:?}");
        }
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn routes_read_as_ip_writes_them() {
    in_namespace(|host| async move {
        add_routes(&host);
        let inspector = Inspector::open().unwrap();
        for (family, option) in [(Family::Ipv4, "-4"), (Family::Ipv6, "-6")] {
            let all = inspector.routes(family, None).await.unwrap();
            for (name, number) in [("main", 254), ("77", 77), ("local", 255)] {
                let routes = inspector.routes(family, Some(number)).await.unwrap();
                assert_eq!(routes, all.iter().filter(|route| route.table == number).cloned().collect::<Vec<_>>());
                let listed = host.ip(&["-d", option, "route", "show", "table", name]);
                let listed = listed
                    .replace(" \n\t", " ")
                    .replace(" proto boot scope global nexthop", " nexthop")
                    .replace(" weight 1", "");
                assert_eq!(routes.len(), listed.lines().count(), "{listed}");
                for route in &routes {
                    let kind = if route.kind == RouteKind::Unicast { "unicast " } else { "" };
                    let line = format!("{kind}{route}");
                    assert!(listed.contains(&line), "`{line}` is not in\n{listed}");
                }
            }
        }
        let find = |routes: &[KernelRoute], net: &str| {
            let net = net.parse().unwrap();
            routes.iter().find(|route| route.destination == net && route.table != 255).cloned().unwrap()
        };
        let routes = inspector.routes(Family::Ipv4, None).await.unwrap();
        assert!(find(&routes, "198.51.100.0/24").is_connected() && !find(&routes, "203.0.113.0/24").is_connected());
        let route = find(&routes, "203.0.113.0/24");
        assert_eq!((route.metric, route.mtu, route.is_ours), (7, Some(1400), true));
        let hops = find(&routes, "192.0.2.0/24").hops;
        assert_eq!(
            hops.iter().map(|hop| hop.gateway.unwrap().to_string()).collect::<Vec<_>>(),
            ["198.51.100.3", "198.51.100.4"]
        );
        assert_eq!(hops[0].device.as_ref().unwrap().name, "v0");
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_way_of_a_packet_is_the_kernels() {
    in_namespace(|host| async move {
        add_routes(&host);
        let _tun = host.tun();
        let mut journal = host.journal();
        route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
        let inspector = Inspector::open().unwrap();

        let ask = |text: &str| Query::to(text.parse().unwrap());
        for (query, kind, table, device, gateway, source, net) in [
            (ask("1.1.1.1"), RouteKind::Unicast, 51820, TUN, None, "10.9.0.2", "0.0.0.0/0"),
            (ask("2001:db8:77::1"), RouteKind::Unicast, 51820, TUN, None, "fd09::2", "::/0"),
            (
                Query { mark: 51820, ..ask("1.1.1.1") },
                RouteKind::Unicast,
                254,
                "v0",
                Some("198.51.100.1"),
                "198.51.100.2",
                "0.0.0.0/0",
            ),
            (ask("198.51.100.77"), RouteKind::Unicast, 254, "v0", None, "198.51.100.2", "198.51.100.0/24"),
            (ask("10.9.0.2"), RouteKind::Local, 255, "lo", None, "10.9.0.2", "10.9.0.2/32"),
            (
                Query { source: Some("198.51.100.2".parse().unwrap()), ..ask("1.1.1.1") },
                RouteKind::Unicast,
                51820,
                TUN,
                None,
                "198.51.100.2",
                "0.0.0.0/0",
            ),
        ] {
            let way = inspector.way(&query).await.unwrap_or_else(|error| panic!("{query:?}: {error}"));
            let ip = |text: &str| text.parse::<IpAddr>().unwrap();
            assert_eq!((way.kind, way.table), (kind, Some(table)), "{query:?}");
            assert_eq!(way.device.as_ref().unwrap().name, device, "{query:?}");
            assert_eq!(way.gateway, gateway.map(ip), "{query:?}");
            // An IPv6 address takes a moment to be one that the kernel chooses.
            assert!(way.source == Some(ip(source)) || query.destination.is_ipv6(), "{query:?}: {way:?}");
            let route = way.route.unwrap();
            assert_eq!((route.destination, route.table), (net.parse().unwrap(), table), "{query:?}");
        }
        assert_eq!(inspector.way(&ask("203.0.113.1")).await.unwrap().mtu, Some(1400));
        assert_eq!(inspector.way(&ask("1.1.1.1")).await.unwrap().mtu, Some(1420));

        for (query, errno) in [(ask("10.77.0.1"), Errno::EHOSTUNREACH), (ask("10.78.0.1"), Errno::EINVAL)] {
            assert_eq!(inspector.way(&query).await, Err(Reason::Errno(errno)), "{query:?}");
        }
        let foreign = Query { source: Some("192.0.2.9".parse().unwrap()), ..ask("1.1.1.1") };
        assert!(matches!(inspector.way(&foreign).await, Err(Reason::Errno(Errno::EINVAL | Errno::ENETUNREACH))));
        let links = inspector.links().await.unwrap();
        assert!(links.iter().any(|link| link.device.name == TUN && link.is_up && link.mtu == 1420));
        let addresses = inspector.addresses().await.unwrap();
        let shown = |name: &str| {
            addresses
                .iter()
                .filter(|own| own.device.name == name)
                .map(|own| own.address.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(TUN), ["10.9.0.2/24", "fd09::2/64"]);
        assert_eq!(shown("v0"), ["198.51.100.2/24", "2001:db8:0:1::2/64"]);
    });
}

fn add_routes(host: &Host) {
    for route in [
        "route add 203.0.113.0/24 via 198.51.100.9 metric 7 mtu 1400 protocol 173",
        "route add 192.0.2.0/24 nexthop via 198.51.100.3 nexthop via 198.51.100.4",
        "route add throw 10.1.0.0/16 table 77",
        "route add prohibit 10.79.0.0/16",
        "route add blackhole 10.78.0.0/16",
        "route add unreachable 10.77.0.0/16",
        "-6 route add fd01::/16 from 2001:db8:0:1::/64 via 2001:db8:0:1::9",
        "-6 route add unreachable fd77::/16",
        "-6 route add throw fd78::/16 table 77",
    ] {
        host.ip(&route.split(' ').collect::<Vec<_>>());
    }
}

//! One decision for an address.

use adit_core::route::{
    Decision, RouteInputs, RouteModel, RouteModelError, Routing, Rule, RuleKind, Way, trusted_local,
};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{ip, net, nets, oracle, strategy};

fn allowed(prefixes: &[&str]) -> Vec<(IpNet, usize)> {
    nets(prefixes).into_iter().enumerate().map(|(peer, net)| (net, peer)).collect()
}

fn model(inputs: &RouteInputs) -> RouteModel {
    RouteModel::new(inputs).unwrap()
}

/// The decision in one line, with the rules that lost.
fn shown(Decision { way, by, lost }: &Decision) -> String {
    let rule = |rule: &Rule| format!("{} {}", rule.kind.name(), rule.net);
    let by = by.as_ref().map_or("nothing".to_owned(), rule);
    let mut text = format!("{} by {by}", way.name());
    for loser in lost {
        text += &format!(" > {}", rule(loser));
    }
    text
}

fn check(inputs: &RouteInputs, table: &[(&str, &str)]) {
    let model = model(inputs);
    for (to, expected) in table {
        assert_eq!(shown(&model.decide(ip(to))), *expected, "to {to}");
    }
}

#[test]
fn a_plain_full_tunnel_leaves_to_main_what_is_more_specific_there() {
    let inputs = RouteInputs {
        allowed: allowed(&["0.0.0.0/0"]),
        connected: nets(&["192.168.1.0/24"]),
        main: nets(&["0.0.0.0/1", "0.0.0.0/0"]),
        underlay_addresses: nets(&["192.168.1.7/24"]),
        tunnel_addresses: nets(&["10.0.0.2/32"]),
        ..RouteInputs::default()
    };
    assert_eq!(inputs.routing(), Routing::Plain);
    check(
        &inputs,
        &[
            ("203.0.113.9", "tunnel by allowed-ip 0.0.0.0/0"),
            ("8.8.8.8", "underlay by more-specific-main 0.0.0.0/1 > allowed-ip 0.0.0.0/0"),
            ("192.168.1.9", "underlay by connected 192.168.1.0/24 > allowed-ip 0.0.0.0/0"),
            ("192.168.1.7", "host by own-address 192.168.1.7/32 > connected 192.168.1.0/24 > allowed-ip 0.0.0.0/0"),
            (
                "192.168.1.255",
                "underlay by broadcast 192.168.1.255/32 > connected 192.168.1.0/24 > allowed-ip 0.0.0.0/0",
            ),
            ("10.0.0.2", "host by own-address 10.0.0.2/32 > more-specific-main 0.0.0.0/1 > allowed-ip 0.0.0.0/0"),
            ("127.9.9.9", "host by own-address 127.0.0.0/8 > more-specific-main 0.0.0.0/1 > allowed-ip 0.0.0.0/0"),
            ("2001:db8::1", "underlay by nothing"),
        ],
    );
}

#[test]
fn nothing_in_main_pulls_traffic_out_of_a_strict_tunnel() {
    let inputs = RouteInputs {
        allowed: allowed(&["0.0.0.0/0", "::/0"]),
        exclude_local_networks: Some(false),
        connected: nets(&["192.168.1.0/24", "fe80::/64"]),
        main: nets(&["0.0.0.0/1", "2000::/3"]),
        ..RouteInputs::default()
    };
    check(
        &inputs,
        &[
            ("8.8.8.8", "tunnel by allowed-ip 0.0.0.0/0 > more-specific-main 0.0.0.0/1"),
            ("192.168.1.9", "tunnel by allowed-ip 0.0.0.0/0 > connected 192.168.1.0/24"),
            ("2001:db8::1", "tunnel by allowed-ip ::/0 > more-specific-main 2000::/3"),
            ("fe80::1", "underlay by link-local-scope fe80::/10 > allowed-ip ::/0 > connected fe80::/64"),
            ("ff02::1", "underlay by multicast ff00::/8 > allowed-ip ::/0"),
        ],
    );
}

#[test]
fn of_equal_routes_in_main_the_metric_decides() {
    let inputs = RouteInputs {
        allowed: allowed(&["192.168.1.0/24", "fd00:1::/64", "fd00:2::/64"]),
        connected: nets(&["192.168.1.0/24", "fd00:1::/64"]),
        main: nets(&["192.168.1.0/24", "fd00:2::/64"]),
        ..RouteInputs::default()
    };
    check(
        &inputs,
        &[
            ("192.168.1.9", "tunnel by allowed-ip 192.168.1.0/24 > connected 192.168.1.0/24"),
            ("fd00:1::9", "underlay by connected fd00:1::/64 > allowed-ip fd00:1::/64"),
            ("fd00:2::9", "tunnel by allowed-ip fd00:2::/64 > more-specific-main fd00:2::/64"),
        ],
    );
}

#[test]
fn exclusions_nest_to_any_depth() {
    let inputs = RouteInputs {
        allowed: allowed(&["10.0.0.0/8", "10.1.2.0/24", "10.1.2.3/32"]),
        excluded: nets(&["10.1.0.0/16", "10.1.2.0/28"]),
        ..RouteInputs::default()
    };
    check(
        &inputs,
        &[
            ("10.2.0.1", "tunnel by allowed-ip 10.0.0.0/8"),
            ("10.1.9.9", "underlay by excluded 10.1.0.0/16 > allowed-ip 10.0.0.0/8"),
            ("10.1.2.99", "tunnel by allowed-ip 10.1.2.0/24 > excluded 10.1.0.0/16 > allowed-ip 10.0.0.0/8"),
            (
                "10.1.2.9",
                "underlay by excluded 10.1.2.0/28 > allowed-ip 10.1.2.0/24 > excluded 10.1.0.0/16 > allowed-ip 10.0.0.0/8",
            ),
            (
                "10.1.2.3",
                "tunnel by allowed-ip 10.1.2.3/32 > excluded 10.1.2.0/28 > allowed-ip 10.1.2.0/24 > excluded 10.1.0.0/16 \
                 > allowed-ip 10.0.0.0/8",
            ),
            ("11.0.0.1", "underlay by nothing"),
        ],
    );
    assert_eq!(model(&inputs).decide(ip("10.1.2.99")).way, Way::Tunnel { peer: 1 });
}

#[test]
fn local_networks_are_trusted_only_where_they_are_private() {
    let inputs = RouteInputs {
        allowed: allowed(&["0.0.0.0/0", "192.168.7.0/24", "::/0"]),
        exclude_local_networks: Some(true),
        connected: nets(&["192.168.1.0/24", "192.168.7.0/24", "8.8.8.0/24", "fd00:1::/64"]),
        ..RouteInputs::default()
    };
    check(
        &inputs,
        &[
            (
                "192.168.1.9",
                "underlay by local-network 192.168.1.0/24 > allowed-ip 0.0.0.0/0 > connected 192.168.1.0/24",
            ),
            ("8.8.8.8", "tunnel by allowed-ip 0.0.0.0/0 > connected 8.8.8.0/24"),
            (
                "192.168.7.9",
                "tunnel by allowed-ip 192.168.7.0/24 > local-network 192.168.7.0/24 > allowed-ip 0.0.0.0/0 > \
                 connected 192.168.7.0/24",
            ),
            ("fd00:1::9", "underlay by local-network fd00:1::/64 > allowed-ip ::/0 > connected fd00:1::/64"),
        ],
    );
    let trusted = nets(&[
        "10.0.0.0/8",
        "10.9.0.0/16",
        "172.31.0.0/16",
        "192.168.0.0/16",
        "100.127.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
        "fd12::/64",
        "fe80::/64",
    ]);
    assert_eq!(trusted.iter().find(|net| !trusted_local(net)), None);
    let hostile = nets(&[
        "0.0.0.0/0",
        "8.0.0.0/7",
        "10.0.0.0/7",
        "172.32.0.0/16",
        "192.168.0.0/15",
        "100.128.0.0/16",
        "100.0.0.0/8",
        "169.255.0.0/16",
        "::/0",
        "2001:db8::/64",
        "fe00::/8",
        "fec0::/10",
    ]);
    assert_eq!(hostile.iter().find(|net| trusted_local(net)), None);
}

#[test]
fn the_kill_switch_lets_out_what_is_excluded_and_nothing_else() {
    let mut inputs = RouteInputs {
        allowed: allowed(&["10.0.0.0/8"]),
        excluded: nets(&["10.1.0.0/16", "203.0.113.0/24", "2001:db8::/32"]),
        exclude_local_networks: Some(true),
        kill_switch: true,
        connected: nets(&["192.168.1.0/24"]),
        underlay_addresses: nets(&["192.168.1.7/24"]),
        ..RouteInputs::default()
    };
    check(
        &inputs,
        &[
            ("10.2.0.1", "tunnel by allowed-ip 10.0.0.0/8"),
            ("10.1.0.1", "underlay by excluded 10.1.0.0/16 > allowed-ip 10.0.0.0/8"),
            ("203.0.113.1", "underlay by excluded 203.0.113.0/24"),
            ("2001:db8::1", "underlay by excluded 2001:db8::/32"),
            (
                "192.168.1.7",
                "host by own-address 192.168.1.7/32 > local-network 192.168.1.0/24 > connected 192.168.1.0/24",
            ),
            ("192.168.1.9", "underlay by local-network 192.168.1.0/24 > connected 192.168.1.0/24"),
            ("8.8.8.8", "blocked by kill-switch 0.0.0.0/0"),
            ("2606::1", "blocked by kill-switch ::/0"),
        ],
    );
    inputs.exclude_local_networks = None;
    check(
        &inputs,
        &[
            ("192.168.1.9", "blocked by kill-switch 0.0.0.0/0 > connected 192.168.1.0/24"),
            (
                "192.168.1.255",
                "blocked by kill-switch 0.0.0.0/0 > broadcast 192.168.1.255/32 > connected 192.168.1.0/24",
            ),
            ("fe80::1", "blocked by kill-switch ::/0"),
        ],
    );
}

#[test]
fn the_kill_switch_is_there_without_routes_too() {
    let inputs = RouteInputs {
        allowed: allowed(&["0.0.0.0/0"]),
        excluded: nets(&["203.0.113.0/24"]),
        kill_switch: true,
        ..RouteInputs::default()
    };
    let model = RouteModel::with_routing(&inputs, Routing::Off).unwrap();
    assert_eq!(shown(&model.decide(ip("8.8.8.8"))), "blocked by kill-switch 0.0.0.0/0");
    assert_eq!(shown(&model.decide(ip("203.0.113.1"))), "underlay by excluded 203.0.113.0/24");
}

#[test]
fn datagrams_of_the_tunnel_pass_by_what_a_program_meets() {
    let mut inputs = RouteInputs {
        allowed: allowed(&["0.0.0.0/0"]),
        endpoints: vec![ip("203.0.113.1")],
        kill_switch: true,
        ..RouteInputs::default()
    };
    let strict = model(&inputs);
    assert_eq!(shown(&strict.decide(ip("203.0.113.1"))), "tunnel by allowed-ip 0.0.0.0/0");
    assert_eq!(shown(&strict.decide_datagram(ip("203.0.113.1"))), "underlay by mark 0.0.0.0/0 > allowed-ip 0.0.0.0/0");
    assert_eq!(shown(&strict.decide_datagram(ip("2001:db8::1"))), "underlay by nothing");

    inputs.kill_switch = false;
    let plain = model(&inputs);
    assert_eq!(plain.routing(), Routing::Plain, "only a default route has the endpoint in it");
    assert_eq!(shown(&plain.decide_datagram(ip("203.0.113.1"))), "underlay by mark 0.0.0.0/0 > allowed-ip 0.0.0.0/0");

    inputs.tunnel_addresses = nets(&["203.0.113.2/24"]);
    assert_eq!(
        shown(&model(&inputs).decide_datagram(ip("203.0.113.1"))),
        "tunnel by tunnel-network 203.0.113.0/24 > allowed-ip 0.0.0.0/0",
        "main leads them back: a loop"
    );
}

#[test]
fn the_layout_is_strict_where_wg_quick_would_fail_or_has_no_word_for_it() {
    let plain = RouteInputs { allowed: allowed(&["0.0.0.0/0", "10.0.0.0/8"]), ..RouteInputs::default() };
    assert_eq!(plain.routing(), Routing::Plain);
    let strict = [
        RouteInputs { excluded: nets(&["10.0.0.0/16"]), ..plain.clone() },
        RouteInputs { exclude_local_networks: Some(false), ..plain.clone() },
        RouteInputs { kill_switch: true, ..plain.clone() },
        RouteInputs { endpoints: vec![ip("10.0.0.1")], ..plain.clone() },
    ];
    for inputs in strict {
        assert_eq!(inputs.routing(), Routing::Strict, "{inputs:?}");
    }
    let beside = RouteInputs { endpoints: vec![ip("203.0.113.1"), ip("2001:db8::1")], ..plain };
    assert_eq!(beside.routing(), Routing::Plain);
}

#[test]
fn a_network_of_the_tunnel_without_a_peer_goes_nowhere() {
    let inputs = RouteInputs {
        allowed: allowed(&["10.0.0.1/32"]),
        tunnel_addresses: nets(&["10.0.0.2/24"]),
        ..RouteInputs::default()
    };
    check(
        &inputs,
        &[
            ("10.0.0.1", "tunnel by allowed-ip 10.0.0.1/32 > tunnel-network 10.0.0.0/24"),
            ("10.0.0.2", "host by own-address 10.0.0.2/32 > tunnel-network 10.0.0.0/24"),
            ("10.0.0.3", "no-peer by tunnel-network 10.0.0.0/24"),
            ("10.0.0.255", "no-peer by broadcast 10.0.0.255/32 > tunnel-network 10.0.0.0/24"),
        ],
    );
}

#[test]
fn allowed_and_excluded_cannot_be_the_same_prefix() {
    let inputs = RouteInputs {
        allowed: allowed(&["10.0.0.0/8", "fd00::/8"]),
        excluded: nets(&["10.0.0.0/16", "fd00::1/8"]),
        ..RouteInputs::default()
    };
    let error = RouteModel::new(&inputs).unwrap_err();
    assert_eq!(error, RouteModelError::IncludedAndExcluded { net: net("fd00::/8") });
    assert!(error.to_string().starts_with("fd00::/8 is both"), "{error}");
}

#[test]
fn a_prefix_is_taken_apart_where_answers_change() {
    let inputs = RouteInputs {
        allowed: allowed(&["10.0.0.0/8"]),
        excluded: nets(&["10.128.0.0/9", "10.1.0.0/16"]),
        ..RouteInputs::default()
    };
    let model = model(&inputs);
    let parts: Vec<_> = model
        .partition(net("10.0.0.0/7"), 100)
        .parts
        .iter()
        .map(|part| format!("{} {}", part.net, part.way.name()))
        .collect();
    assert_eq!(
        parts,
        [
            "10.0.0.0/16 tunnel",
            "10.1.0.0/16 underlay",
            "10.2.0.0/15 tunnel",
            "10.4.0.0/14 tunnel",
            "10.8.0.0/13 tunnel",
            "10.16.0.0/12 tunnel",
            "10.32.0.0/11 tunnel",
            "10.64.0.0/10 tunnel",
            "10.128.0.0/9 underlay",
            "11.0.0.0/8 underlay",
        ]
    );
    let whole = model.partition(net("10.2.0.0/16"), 1);
    assert!(whole.is_complete);
    assert_eq!(whole.parts.iter().map(|part| part.net).collect::<Vec<_>>(), nets(&["10.2.0.0/16"]));
    let cut = model.partition(net("10.0.0.0/8"), 3);
    assert_eq!((cut.parts.len(), cut.is_complete), (3, false));
    assert_eq!(model.partition(net("::/0"), 0).parts, []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_oracle(inputs in strategy::inputs(), probes in vec(strategy::address(), 1..30), routing in 0..4usize) {
        let routing = [inputs.routing(), Routing::Off, Routing::Plain, Routing::Strict][routing];
        let model = RouteModel::with_routing(&inputs, routing).unwrap();
        let lists = [&inputs.excluded, &inputs.connected, &inputs.main, &inputs.tunnel_addresses, &inputs.underlay_addresses];
        let prefixes = inputs.allowed.iter().map(|(net, _)| *net).chain(lists.into_iter().flatten().copied());
        for to in strategy::edges(prefixes).into_iter().chain(probes) {
            let decision = model.decide(to);
            prop_assert_eq!(decision.way, oracle::decide(&inputs, routing, to), "{}: {}", to, shown(&decision));
            let datagram = model.decide_datagram(to);
            prop_assert_eq!(datagram.way, oracle::decide_datagram(&inputs, routing, to), "{}: {}", to, shown(&datagram));

            let all: Vec<_> = decision.by.iter().chain(&decision.lost).collect();
            prop_assert!(all.iter().all(|rule| rule.net.contains(&to)), "{}", shown(&decision));
            prop_assert!(all.iter().enumerate().all(|(at, rule)| !all[..at].contains(rule)), "{}", shown(&decision));
            prop_assert!(decision.by.is_some() || decision.way == Way::Underlay);
        }
    }

    #[test]
    fn partitions_are_exact_and_minimal(inputs in strategy::inputs(), whole in strategy::prefix(), probes in vec(strategy::address(), 1..30)) {
        let (model, whole) = (model(&inputs), whole.trunc());
        let partition = model.partition(whole, usize::MAX);
        prop_assert!(partition.is_complete);
        let parts = partition.parts;
        prop_assert_eq!(parts.first().map(|part| part.net.network()), Some(whole.network()));
        prop_assert_eq!(parts.last().map(|part| part.net.broadcast()), Some(whole.broadcast()));
        for pair in parts.windows(2) {
            prop_assert_eq!(strategy::edges([pair[0].net])[3], pair[1].net.network(), "no gap, no overlap");
            let are_one = pair[0].net.supernet() == pair[1].net.supernet() && (pair[0].way, pair[0].by) == (pair[1].way, pair[1].by);
            prop_assert!(!are_one, "{:?} are one", pair);
        }
        let edges = strategy::edges(parts.iter().map(|part| part.net));
        for to in edges.into_iter().chain(probes).filter(|to| whole.contains(to)) {
            let part = parts.iter().find(|part| part.net.contains(&to)).unwrap();
            let Decision { way, by, .. } = model.decide(to);
            prop_assert_eq!((part.way, part.by), (way, by), "{}", to);
        }
    }
}

#[test]
fn the_kinds_of_a_rule_have_names_of_their_own() {
    let kinds = [
        RuleKind::OwnAddress,
        RuleKind::Broadcast { tunnel: true },
        RuleKind::Multicast,
        RuleKind::AllowedIp { peer: 0 },
        RuleKind::Excluded,
        RuleKind::LocalNetwork,
        RuleKind::LinkLocalScope,
        RuleKind::TunnelNetwork,
        RuleKind::Connected,
        RuleKind::MoreSpecificMain,
        RuleKind::Mark,
        RuleKind::KillSwitch,
    ];
    let mut names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), kinds.len());
}

//! Apple's rules: a table for each, as documented or observed.

use adit_core::route::{
    AppleAssumptions, AppleClass, AppleDns, AppleLint, ApplePacket, ApplePlatform, AppleScope, AppleSettings,
    AppleUnderlay, AppleWay, ExcludesWithEnforce, SystemTable, decide_apple, lint_apple, search_list,
};

use crate::{ip, net, nets};

/// A split tunnel with an exclusion in it, at 10.7.0.2, over a home network.
fn split() -> AppleSettings {
    AppleSettings {
        addresses: nets(&["10.7.0.2/24", "fd07::2/64"]),
        included: nets(&["10.0.0.0/8", "fd00::/8"]),
        excluded: nets(&["10.1.0.0/16"]),
        tunnel_remote_addresses: vec![ip("203.0.113.1")],
        exclude_local_networks: false,
        ..AppleSettings::new(ApplePlatform::MacOs)
    }
}

fn full() -> AppleSettings {
    AppleSettings { included: nets(&["0.0.0.0/0", "::/0"]), ..split() }
}

fn home() -> SystemTable {
    SystemTable {
        on_link: nets(&["192.168.1.0/24"]),
        routes: nets(&["0.0.0.0/1", "10.9.0.0/16"]),
        addresses: vec![ip("192.168.1.7")],
    }
}

fn underlay() -> AppleUnderlay {
    AppleUnderlay {
        platform: ApplePlatform::MacOs,
        has_ipv6_default: true,
        table: SystemTable { on_link: nets(&["192.168.1.0/24"]), ..SystemTable::default() },
    }
}

/// The rules with something to say, the first of which decides.
fn shown(packet: &ApplePacket, settings: &AppleSettings, assumptions: &AppleAssumptions) -> String {
    let decision = decide_apple(packet, settings, &home(), assumptions);
    assert_eq!(decision.way, decision.steps[0].way);
    let steps = decision.steps.iter().map(|step| match step.net {
        Some(net) => format!("{} {net}", step.rule.name()),
        None => step.rule.name().to_owned(),
    });
    format!("{}: {}", decision.way.name(), steps.collect::<Vec<_>>().join(" > "))
}

fn check(settings: &AppleSettings, table: &[(&str, &str)]) {
    for (to, expected) in table {
        assert_eq!(shown(&ApplePacket::new(ip(to)), settings, &AppleAssumptions::default()), *expected, "to {to}");
    }
}

#[test]
fn routes_alone_are_a_table_in_which_the_system_wins_ties() {
    check(
        &split(),
        &[
            ("10.2.0.1", "tunnel: included 10.0.0.0/8 > system-route 0.0.0.0/1 > default-route"),
            (
                "10.1.0.1",
                "physical: excluded 10.1.0.0/16 > included 10.0.0.0/8 > system-route 0.0.0.0/1 > default-route",
            ),
            (
                "10.9.0.1",
                "physical: system-route 10.9.0.0/16 > included 10.0.0.0/8 > system-route 0.0.0.0/1 > default-route",
            ),
            (
                "10.7.0.1",
                "tunnel: tunnel-subnet 10.7.0.0/24 > included 10.0.0.0/8 > system-route 0.0.0.0/1 > default-route",
            ),
            (
                "10.7.0.2",
                "host: own-address > tunnel-subnet 10.7.0.0/24 > included 10.0.0.0/8 > system-route 0.0.0.0/1 > default-route",
            ),
            ("192.168.1.7", "host: own-address > system-route 192.168.1.0/24 > default-route"),
            ("203.0.113.1", "physical: tunnel-remote-address > default-route"),
            ("203.0.113.2", "physical: default-route"),
            ("fd12::1", "tunnel: included fd00::/8 > default-route"),
        ],
    );
    check(
        &full(),
        &[
            ("203.0.113.2", "tunnel: included 0.0.0.0/0 > default-route"),
            ("8.8.8.8", "physical: system-route 0.0.0.0/1 > included 0.0.0.0/0 > default-route"),
            ("192.168.1.9", "physical: system-route 192.168.1.0/24 > included 0.0.0.0/0 > default-route"),
        ],
    );
    let same = AppleSettings { included: nets(&["192.168.1.0/24"]), ..split() };
    check(&same, &[("192.168.1.9", "physical: system-route 192.168.1.0/24 > included 192.168.1.0/24 > default-route")]);
}

#[test]
fn enforced_routes_win_over_the_system_and_over_scoping() {
    let settings = AppleSettings { enforce_routes: true, ..full() };
    let all = " > system-route 0.0.0.0/1 > included 0.0.0.0/0 > default-route";
    check(
        &settings,
        &[
            ("8.8.8.8", &format!("tunnel: enforced-included 0.0.0.0/0{all}")),
            (
                "10.1.0.1",
                "physical: enforced-excluded 10.1.0.0/16 > enforced-included 0.0.0.0/0 > excluded 10.1.0.0/16 > \
                 system-route 0.0.0.0/1 > included 0.0.0.0/0 > default-route",
            ),
            (
                "203.0.113.1",
                "physical: tunnel-remote-address > enforced-included 0.0.0.0/0 > included 0.0.0.0/0 > default-route",
            ),
            (
                "192.168.1.9",
                "tunnel: enforced-included 0.0.0.0/0 > system-route 192.168.1.0/24 > included 0.0.0.0/0 > default-route",
            ),
        ],
    );
    let local = AppleSettings { exclude_local_networks: true, ..settings.clone() };
    check(
        &local,
        &[(
            "192.168.1.9",
            "physical: local-network 192.168.1.0/24 > enforced-included 0.0.0.0/0 > system-route 192.168.1.0/24 > \
             included 0.0.0.0/0 > default-route",
        )],
    );
    let scoped = ApplePacket { scope: Some(AppleScope::Physical), ..ApplePacket::new(ip("203.0.113.2")) };
    let way = |packet, settings: &_| decide_apple(packet, settings, &home(), &AppleAssumptions::default()).way;
    assert_eq!(way(&scoped, &settings), AppleWay::Tunnel);
    assert_eq!(way(&scoped, &full()), AppleWay::Physical, "scoping beats the table");
    let into = ApplePacket { scope: Some(AppleScope::Tunnel), ..ApplePacket::new(ip("203.0.113.2")) };
    assert_eq!(way(&into, &split()), AppleWay::Tunnel);
}

#[test]
fn what_is_only_observed_can_be_assumed_or_not() {
    let way = |to: &str, settings: &AppleSettings, assumptions| {
        decide_apple(&ApplePacket::new(ip(to)), settings, &home(), &assumptions).way
    };
    let default = AppleAssumptions::default();
    let enforced = AppleSettings { enforce_routes: true, ..full() };
    let with = |excludes_with_enforce| AppleAssumptions { excludes_with_enforce, ..default };
    assert_eq!(way("10.1.0.1", &enforced, with(ExcludesWithEnforce::Ignored)), AppleWay::Tunnel);
    assert_eq!(way("8.8.8.8", &enforced, with(ExcludesWithEnforce::DropIncluded)), AppleWay::Dropped);
    assert_eq!(way("10.1.0.1", &enforced, with(ExcludesWithEnforce::DropIncluded)), AppleWay::Physical);
    let unharmed = AppleSettings { excluded: Vec::new(), ..enforced };
    assert_eq!(way("8.8.8.8", &unharmed, with(ExcludesWithEnforce::DropIncluded)), AppleWay::Tunnel);

    let all = AppleSettings { include_all_networks: true, ..split() };
    assert_eq!(way("10.1.0.1", &all, default), AppleWay::Tunnel);
    assert_eq!(
        way("10.1.0.1", &all, AppleAssumptions { excludes_with_include_all: true, ..default }),
        AppleWay::Physical
    );

    let nothing = AppleSettings { included: Vec::new(), ..split() };
    assert_eq!(way("10.7.0.1", &nothing, default), AppleWay::Tunnel);
    assert_eq!(way("10.7.0.1", &nothing, AppleAssumptions { has_subnet_routes: false, ..default }), AppleWay::Physical);

    let both = AppleSettings { excluded: nets(&["10.0.0.0/8"]), ..split() };
    assert_eq!(way("10.2.0.1", &both, default), AppleWay::Physical);
    assert_eq!(way("10.2.0.1", &both, AppleAssumptions { excluded_wins_ties: false, ..default }), AppleWay::Tunnel);

    let looped = AppleSettings { excluded: nets(&["10.1.0.0/16", "127.0.0.0/8"]), ..split() };
    assert_eq!(way("10.1.0.1", &looped, default), AppleWay::Tunnel, "all exclusions are gone");
    let kept = AppleAssumptions { loopback_voids_exclusions: false, ..default };
    assert_eq!(way("10.1.0.1", &looped, kept), AppleWay::Physical);

    let alive = ApplePacket { was_alive: true, ..ApplePacket::new(ip("203.0.113.9")) };
    assert_eq!(decide_apple(&alive, &split(), &home(), &default).way, AppleWay::Tunnel, "though nothing includes it");
    let free = AppleAssumptions { captures_live_flows: false, ..default };
    assert_eq!(decide_apple(&alive, &split(), &home(), &free).way, AppleWay::Physical);
}

#[test]
fn include_all_networks_leaves_out_kinds_of_traffic_and_drops_the_rest_while_down() {
    let settings = AppleSettings { include_all_networks: true, ..AppleSettings::new(ApplePlatform::MacOs) };
    let down = AppleSettings { is_connected: false, ..settings.clone() };
    let way = |class, settings: &AppleSettings| {
        let packet = ApplePacket { class, ..ApplePacket::new(ip("203.0.113.9")) };
        decide_apple(&packet, settings, &home(), &AppleAssumptions::default()).way
    };
    assert_eq!(way(AppleClass::Ordinary, &settings), AppleWay::Tunnel);
    assert_eq!(way(AppleClass::Ordinary, &down), AppleWay::Dropped);
    for class in [AppleClass::Provider, AppleClass::Dhcp, AppleClass::CaptivePortal, AppleClass::Companion] {
        assert_eq!((way(class, &settings), way(class, &down)), (AppleWay::Physical, AppleWay::Physical), "{class:?}");
    }
    let strict = AppleSettings {
        exclude_cellular_services: false,
        exclude_apns: false,
        exclude_device_communication: false,
        ..settings.clone()
    };
    for class in [AppleClass::CellularServices, AppleClass::Apns, AppleClass::DeviceCommunication] {
        assert_eq!((way(class, &settings), way(class, &strict)), (AppleWay::Physical, AppleWay::Tunnel), "{class:?}");
    }
    let open = AppleSettings { is_connected: false, ..full() };
    assert_eq!(way(AppleClass::Ordinary, &open), AppleWay::Physical, "without it, a tunnel that is down is open");

    check(&settings, &[("192.168.1.9", "tunnel: include-all-networks > system-route 192.168.1.0/24 > default-route")]);
    let ios = AppleSettings { include_all_networks: true, ..AppleSettings::new(ApplePlatform::Ios) };
    check(
        &ios,
        &[(
            "192.168.1.9",
            "physical: local-network > include-all-networks > system-route 192.168.1.0/24 > default-route",
        )],
    );
    let enforced = AppleSettings { enforce_routes: true, ..settings };
    check(&enforced, &[("203.0.113.9", "tunnel: include-all-networks > default-route")]);
}

#[test]
fn a_long_prefix_of_an_ipv6_address_counts_as_the_longest_that_is_taken() {
    let settings = AppleSettings { addresses: nets(&["fd07::2/128"]), included: Vec::new(), ..split() };
    check(&settings, &[("fd07::9", "tunnel: tunnel-subnet fd07::/120 > default-route")]);
}

fn lint(settings: &AppleSettings) -> Vec<AppleLint> {
    lint_apple(settings, &underlay())
}

fn named(settings: &AppleSettings, underlay: &AppleUnderlay) -> Vec<&'static str> {
    lint_apple(settings, underlay).iter().map(AppleLint::name).collect()
}

#[test]
fn sound_settings_have_no_findings() {
    assert_eq!(lint(&split()), []);
    assert_eq!(lint(&full()), []);
    assert_eq!(lint(&AppleSettings { include_all_networks: true, excluded: Vec::new(), ..split() }), []);
    let dns = AppleDns {
        servers: vec![ip("10.7.0.1")],
        match_domains: Some(vec!["test.com".to_owned()]),
        match_domains_no_search: true,
        ..AppleDns::default()
    };
    assert_eq!(lint(&AppleSettings { dns: Some(dns), ..split() }), []);
}

#[test]
fn exclusions_that_do_not_hold_are_found() {
    let excluded = |texts: &[&str]| AppleSettings { excluded: nets(texts), ..split() };
    assert_eq!(
        lint(&excluded(&["10.1.0.0/16", "127.0.0.1/32"])),
        [AppleLint::LoopbackExcluded { net: net("127.0.0.1/32") }]
    );
    assert_eq!(lint(&excluded(&["::1/128"])), [AppleLint::LoopbackExcluded { net: net("::1/128") }]);
    assert_eq!(lint(&excluded(&["0.0.0.0/1"])), [], "more than loopback");
    assert_eq!(
        lint(&excluded(&["10.9.9.9/8", "10.0.0.0/8"])),
        [AppleLint::IncludedAndExcluded { net: net("10.0.0.0/8") }]
    );
    assert_eq!(lint(&AppleSettings { enforce_routes: true, ..split() }), [AppleLint::ExclusionsWithEnforceRoutes]);
    assert_eq!(
        lint(&AppleSettings { include_all_networks: true, enforce_routes: true, ..split() }),
        [AppleLint::ExclusionsWithIncludeAllNetworks, AppleLint::EnforceRoutesIgnored]
    );
    assert_eq!(lint(&AppleSettings { enforce_routes: true, excluded: Vec::new(), ..split() }), []);
}

#[test]
fn addresses_and_families_are_looked_at() {
    let long = AppleSettings { addresses: nets(&["10.7.0.2/32", "fd07::2/121", "fd07::3/120"]), ..split() };
    assert_eq!(lint(&long), [AppleLint::PrefixTooLong { address: net("fd07::2/121") }]);

    let included = |texts: &[&str]| AppleSettings { included: nets(texts), ..split() };
    assert_eq!(lint(&included(&["0.0.0.0/0"])), [AppleLint::Ipv6DefaultMissing]);
    assert_eq!(lint(&included(&["0.0.0.0/1", "128.0.0.0/1"])), [AppleLint::Ipv6DefaultMissing], "halves are a whole");
    assert_eq!(lint(&included(&["0.0.0.0/0", "2000::/3"])), []);
    assert_eq!(lint(&included(&["0.0.0.0/1"])), []);
}

#[test]
fn aaaa_is_suppressed_only_where_all_conditions_meet() {
    let without_v6 = AppleUnderlay { has_ipv6_default: false, ..underlay() };
    assert_eq!(named(&split(), &without_v6), ["aaaa-suppressed"]);
    assert_eq!(named(&full(), &without_v6), [""; 0], "::/0 is included");
    assert_eq!(named(&split(), &underlay()), [""; 0], "the network has IPv6");
    let ios = AppleUnderlay { platform: ApplePlatform::Ios, ..without_v6.clone() };
    assert_eq!(named(&split(), &ios), [""; 0], "only macOS does");
    let v4 = AppleSettings { addresses: nets(&["10.7.0.2/24"]), included: nets(&["10.0.0.0/8"]), ..split() };
    assert_eq!(named(&v4, &without_v6), [""; 0], "no IPv6 in the tunnel");
}

#[test]
fn routes_of_the_network_that_take_traffic_are_found() {
    let hostile = AppleUnderlay {
        table: SystemTable {
            on_link: nets(&["192.168.1.0/24", "8.8.8.0/24"]),
            routes: nets(&["0.0.0.0/0", "0.0.0.0/1", "10.1.2.0/24"]),
            ..SystemTable::default()
        },
        ..underlay()
    };
    let found = [
        AppleLint::SystemRouteWins { net: net("0.0.0.0/1") },
        AppleLint::PublicLocalNetwork { net: net("8.8.8.0/24") },
    ];
    assert_eq!(lint_apple(&full(), &hostile), found, "10.1.0.0/16 is excluded anyway");
    let enforced = AppleSettings { enforce_routes: true, excluded: Vec::new(), ..full() };
    assert_eq!(lint_apple(&enforced, &hostile), []);
    let local = AppleSettings { exclude_local_networks: true, ..enforced };
    assert_eq!(lint_apple(&local, &hostile), [AppleLint::PublicLocalNetwork { net: net("8.8.8.0/24") }]);
}

#[test]
fn a_dns_server_has_to_be_in_the_tunnel() {
    let with = |servers: &[&str], settings| AppleSettings {
        dns: Some(AppleDns { servers: servers.iter().map(|text| ip(text)).collect(), ..AppleDns::default() }),
        ..settings
    };
    let outside = |text| AppleLint::DnsServerOutside { server: ip(text) };
    let servers = ["10.7.0.1", "10.1.0.53", "9.9.9.9", "127.0.0.1"];
    assert_eq!(lint(&with(&servers, split())), [outside("10.1.0.53"), outside("9.9.9.9")]);
    assert_eq!(lint(&with(&servers, full())), [outside("10.1.0.53")]);
}

fn dns(search: &[&str], matching: Option<&[&str]>, no_search: bool) -> AppleDns {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    AppleDns {
        servers: vec![ip("10.7.0.1")],
        search_domains: owned(search),
        match_domains: matching.map(owned),
        match_domains_no_search: no_search,
    }
}

#[test]
fn the_search_list_is_that_of_the_default_resolver_and_the_match_domains() {
    let lan = ["lan".to_owned(), "test.com".to_owned()];
    let matching: Option<&[&str]> = Some(&["abc.com", "test.com"]);
    assert_eq!(search_list(&dns(&["test.com"], matching, true), false, &[]), [""; 0], "neither of the two");
    assert_eq!(search_list(&dns(&["test.com"], matching, false), false, &[]), ["abc.com", "test.com"]);
    assert_eq!(
        search_list(&dns(&[], matching, false), false, &lan),
        ["abc.com", "test.com", "lan"],
        "before the LAN's"
    );
    assert_eq!(search_list(&dns(&["test.com"], matching, true), false, &lan), lan);
    assert_eq!(search_list(&dns(&["test.com"], matching, false), true, &lan), ["test.com"]);
    let odd: Option<&[&str]> = Some(&["", "10.in-addr.arpa", "IP6.ARPA.", "notin-addr.arpa", "Test.com.", "TEST.COM"]);
    assert_eq!(search_list(&dns(&[], odd, false), false, &[]), ["notin-addr.arpa", "Test.com."]);
    let without = AppleDns { servers: Vec::new(), ..dns(&["test.com"], matching, false) };
    assert_eq!(search_list(&without, false, &lan), lan);
}

#[test]
fn domains_that_are_searched_or_not_against_expectation_are_found() {
    let find = |dns, settings| lint(&AppleSettings { dns: Some(dns), ..settings });
    let inert = || AppleLint::SearchDomainInert { domain: "test.com".to_owned() };
    let searched = || AppleLint::MatchDomainSearched { domain: "abc.com".to_owned() };
    let matching: Option<&[&str]> = Some(&["abc.com", "test.com"]);
    assert_eq!(find(dns(&["test.com"], matching, true), split()), [inert()]);
    assert_eq!(find(dns(&["test.com"], matching, false), split()), [searched()]);
    assert_eq!(find(dns(&["test.com"], None, false), split()), [inert()]);
    assert_eq!(find(dns(&["test.com"], Some(&[""]), false), split()), [inert()]);
    assert_eq!(find(dns(&["test.com"], matching, true), full()), [], "a default route makes it the default resolver");
    let without = AppleDns { servers: Vec::new(), ..dns(&["test.com"], matching, false) };
    assert_eq!(find(without, split()), [AppleLint::DnsWithoutServers]);
    assert_eq!(find(AppleDns::default(), split()), []);
}

#[test]
fn findings_have_names_and_messages_that_name_what_they_are_about() {
    let domain = || "test.com".to_owned();
    let all = [
        (AppleLint::LoopbackExcluded { net: net("127.0.0.0/8") }, "127.0.0.0/8"),
        (AppleLint::ExclusionsWithEnforceRoutes, "enforceRoutes"),
        (AppleLint::ExclusionsWithIncludeAllNetworks, "includeAllNetworks"),
        (AppleLint::EnforceRoutesIgnored, "enforceRoutes"),
        (AppleLint::PrefixTooLong { address: net("fd00::1/128") }, "fd00::1/128"),
        (AppleLint::IncludedAndExcluded { net: net("10.0.0.0/8") }, "10.0.0.0/8"),
        (AppleLint::Ipv6DefaultMissing, "::/0"),
        (AppleLint::SystemRouteWins { net: net("0.0.0.0/1") }, "0.0.0.0/1"),
        (AppleLint::PublicLocalNetwork { net: net("8.8.8.0/24") }, "8.8.8.0/24"),
        (AppleLint::AaaaSuppressed, "macOS"),
        (AppleLint::DnsWithoutServers, "server"),
        (AppleLint::DnsServerOutside { server: ip("9.9.9.9") }, "9.9.9.9"),
        (AppleLint::SearchDomainInert { domain: domain() }, "test.com"),
        (AppleLint::MatchDomainSearched { domain: domain() }, "test.com"),
    ];
    let mut names: Vec<_> = all.iter().map(|(lint, _)| lint.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    for (lint, subject) in all {
        assert!(lint.to_string().contains(subject), "{lint}");
        assert!(lint.name().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
    }
}

//! What the rules of wg-quick(8), and Adit's own, make of a configuration.

use super::*;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn wanted(addresses: &[&str], allowed_ips: &[&str]) -> Wanted {
    Wanted { addresses: nets(addresses), allowed_ips: nets(allowed_ips), ..Wanted::default() }
}

fn routes(settings: &Settings) -> Vec<String> {
    settings
        .routes
        .iter()
        .map(|route| {
            let way = match route.way {
                Way::Tunnel => "",
                Way::Underlay => " out",
                Way::Nowhere => " stop",
            };
            match route.place {
                Place::Table(TABLE_MAIN) => format!("{}{way}", route.net),
                Place::Table(table) => format!("{}@{table}{way}", route.net),
                Place::Own => format!("{}@own{way}", route.net),
            }
        })
        .collect()
}

#[test]
fn allowed_ips_become_routes_longest_prefix_first() {
    let settings =
        Settings::new(&wanted(&["10.0.0.2/32"], &["10.0.0.0/8", "192.168.7.9/24", "fd00::/48", "10.1.1.1/32"]));
    assert_eq!(routes(&settings), ["fd00::/48", "10.1.1.1/32", "192.168.7.0/24", "10.0.0.0/8"]);
    assert_eq!(settings.policy, None);
}

#[test]
fn repeated_prefixes_make_one_route() {
    let settings = Settings::new(&wanted(&["10.0.0.2/32", "10.0.0.2/32"], &["10.9.0.0/16", "10.9.1.2/16"]));
    assert_eq!(routes(&settings), ["10.9.0.0/16"]);
    assert_eq!(settings.addresses, nets(&["10.0.0.2/32"]));
}

#[test]
fn a_prefix_that_is_on_link_already_needs_no_route() {
    let allowed = ["10.0.0.0/24", "10.0.0.77/32", "10.0.0.0/16", "fd00::/64", "fd00::5/128", "fd00::/56"];
    let settings = Settings::new(&wanted(&["10.0.0.2/24", "fd00::2/64"], &allowed));
    assert_eq!(routes(&settings), ["fd00::/56", "10.0.0.0/16"]);
}

#[test]
fn a_host_address_covers_nothing_in_ipv4_and_itself_in_ipv6() {
    let settings = Settings::new(&wanted(&["10.0.0.2/32", "fd00::2/128"], &["10.0.0.2/32", "fd00::2/128"]));
    assert_eq!(routes(&settings), ["10.0.0.2/32"]);
}

#[test]
fn default_routes_turn_on_policy_routing_for_their_family_only() {
    let settings = Settings::new(&wanted(&[], &["0.0.0.0/0", "10.0.0.0/8", "fd00::/8"]));
    assert_eq!(routes(&settings), ["0.0.0.0/0@own stop", "10.0.0.0/8", "fd00::/8", "0.0.0.0/0@own"]);
    assert_eq!(settings.policy, Some(Policy { ipv4: true, ipv6: false, main_first: true }));
    assert_eq!((settings.fwmark, settings.table), (None, TablePreference::FirstFree));
    assert_eq!(settings.firewall, Some(FirewallSettings { reply_protection: true, kill_switch: None }));
    assert!(settings.needs_mark());

    let both = Settings::new(&wanted(&[], &["::/0", "0.0.0.0/0"])).policy.unwrap();
    assert_eq!(both.families(), [Family::Ipv4, Family::Ipv6]);
}

#[test]
fn adits_own_keys_put_everything_into_a_table_that_is_looked_up_first() {
    let allowed = ["0.0.0.0/0", "10.0.0.0/8"];
    let excluded = Wanted { excluded_ips: nets(&["10.1.0.7/16", "fd00::/8"]), ..wanted(&["10.0.0.2/8"], &allowed) };
    let settings = Settings::new(&excluded);
    let expected = ["0.0.0.0/0@own stop", "10.1.0.0/16@own out", "10.0.0.0/8@own", "0.0.0.0/0@own"];
    assert_eq!(routes(&settings), expected, "and no exception of a family that the tunnel does not carry");
    assert_eq!(settings.policy, Some(Policy { ipv4: true, ipv6: false, main_first: false }));
    assert_eq!(settings.local_networks, Some(Place::Own), "as with wg-quick");

    for (asked, place) in [(true, Some(Place::Own)), (false, None)] {
        let settings = Settings::new(&Wanted { exclude_local_networks: Some(asked), ..wanted(&[], &["::/0"]) });
        assert_eq!(routes(&settings), ["::/0@own stop", "fe80::/10@own out", "::/0@own"]);
        assert_eq!(settings.local_networks, place);
        assert!(!settings.policy.unwrap().main_first);
    }
}

#[test]
fn a_split_tunnel_is_closed_behind_itself_with_the_kill_switch_only() {
    let split = Wanted { excluded_ips: nets(&["10.1.0.0/16"]), ..wanted(&[], &["10.0.0.0/8"]) };
    let open = Settings::new(&split);
    assert_eq!(routes(&open), ["10.1.0.0/16@own out", "10.0.0.0/8@own"]);

    let closed = Settings::new(&Wanted { kill_switch: true, names_dns_servers: true, ..split });
    assert_eq!(routes(&closed), ["10.0.0.0/8@own stop", "10.1.0.0/16@own out", "10.0.0.0/8@own"]);
    assert_eq!(closed.local_networks, None, "a kill switch closes what is not asked for");
    let expected = KillSwitchSettings { excluded: nets(&["10.1.0.0/16"]), local_networks: false, no_local_dns: true };
    assert_eq!(closed.firewall.unwrap().kill_switch, Some(expected));
}

#[test]
fn an_endpoint_inside_a_prefix_of_the_tunnel_does_not_loop() {
    let inside = |endpoint: &str, allowed: &[&str]| {
        Settings::new(&Wanted { endpoints: vec![endpoint.parse().unwrap()], ..wanted(&[], allowed) })
    };
    let settings = inside("203.0.113.7:51820", &["203.0.113.0/24", "10.0.0.0/8"]);
    assert_eq!(routes(&settings), ["203.0.113.0/24@own", "10.0.0.0/8@own"]);
    assert!(settings.needs_mark());
    assert_eq!(inside("192.0.2.7:51820", &["203.0.113.0/24"]).policy, None);
    assert!(inside("[::ffff:203.0.113.7]:1", &["203.0.113.0/24"]).policy.is_some());
    assert!(inside("192.0.2.7:1", &["0.0.0.0/0"]).policy.unwrap().main_first, "the mark has always done that");
}

#[test]
fn a_kill_switch_without_rules_still_needs_a_mark() {
    let settings = Settings::new(&Wanted { kill_switch: true, table: RouteTable::Off, ..wanted(&[], &["0.0.0.0/0"]) });
    assert!(settings.routes.is_empty() && settings.policy.is_none() && settings.needs_mark());
    assert!(!settings.firewall.unwrap().reply_protection);
}

#[test]
fn two_halves_are_plain_routes() {
    let settings = Settings::new(&wanted(&[], &["0.0.0.0/1", "128.0.0.0/1"]));
    assert_eq!(routes(&settings), ["0.0.0.0/1", "128.0.0.0/1"]);
    assert_eq!(settings.policy, None);
}

#[test]
fn a_configured_mark_is_the_table_too_unless_the_kernel_owns_that_table() {
    for (mark, table, fwmark) in [
        (Some(1234), TablePreference::Number(1234), Some(1234)),
        (Some(0), TablePreference::FirstFree, None),
        (Some(254), TablePreference::FirstFree, Some(254)),
        (Some(252), TablePreference::Number(252), Some(252)),
    ] {
        let settings = Settings::new(&Wanted { fwmark: mark, ..wanted(&[], &["0.0.0.0/0"]) });
        assert_eq!((settings.table, settings.fwmark), (table, fwmark), "mark {mark:?}");
    }
}

#[test]
fn a_table_number_takes_every_route_and_no_rules() {
    let allowed = ["0.0.0.0/0", "10.0.0.0/24"];
    let settings = Settings::new(&Wanted { table: RouteTable::Number(1000), ..wanted(&["10.0.0.2/24"], &allowed) });
    assert_eq!(routes(&settings), ["10.0.0.0/24@1000", "0.0.0.0/0@1000"]);
    assert_eq!((settings.policy, settings.firewall.as_ref()), (None, None));

    let excluded =
        Wanted { excluded_ips: nets(&["10.0.0.7/32"]), exclude_local_networks: Some(true), ..Wanted::default() };
    let settings = Settings::new(&Wanted {
        table: RouteTable::Number(1000),
        ..Wanted { allowed_ips: nets(&["::/0"]), ..excluded }
    });
    assert_eq!(routes(&settings), ["10.0.0.7/32@1000 out", "fe80::/10@1000 out", "::/0@1000"]);
    assert_eq!((settings.local_networks, settings.policy), (Some(Place::Table(1000)), None));

    for main in [0, 254] {
        let settings = Settings::new(&Wanted { table: RouteTable::Number(main), ..wanted(&[], &allowed) });
        assert_eq!(routes(&settings), ["10.0.0.0/24", "0.0.0.0/0"]);
    }
}

#[test]
fn table_off_wants_no_routes() {
    let settings = Settings::new(&Wanted { table: RouteTable::Off, ..wanted(&["10.0.0.2/24"], &["0.0.0.0/0"]) });
    assert_eq!((settings.routes.len(), settings.policy), (0, None));
    assert_eq!(settings.addresses, nets(&["10.0.0.2/24"]));
}

#[test]
fn the_mtu_is_fixed_or_derived_from_each_endpoint_once() {
    let fixed = Settings::new(&Wanted { mtu: Some(1380), ..Wanted::default() });
    assert_eq!(fixed.mtu, MtuSource::Fixed(1380));

    let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
    let endpoints = parsed(&["192.0.2.1:51820", "[::ffff:192.0.2.1]:7", "[2001:db8::1]:9", "[fe80::1%3]:9"]);
    let derived = Settings::new(&Wanted { endpoints, fwmark: Some(7), ..Wanted::default() });
    let endpoints = parsed(&["192.0.2.1:0", "[2001:db8::1]:0", "[fe80::1%3]:0"]);
    assert_eq!(derived.mtu, MtuSource::DeriveFromUnderlay { endpoints, fwmark: Some(7) });
}

#[test]
fn a_family_is_carried_by_address_route_or_default() {
    let carries = |addresses: &[&str], allowed: &[&str]| {
        let settings = Settings::new(&wanted(addresses, allowed));
        (settings.carries(Family::Ipv4), settings.carries(Family::Ipv6))
    };
    assert_eq!(carries(&["10.0.0.1/32"], &[]), (true, false));
    assert_eq!(carries(&[], &["fd00::/8"]), (false, true));
    assert_eq!(carries(&["10.0.0.1/32"], &["::/0"]), (true, true));
    assert_eq!(carries(&[], &[]), (false, false));
}

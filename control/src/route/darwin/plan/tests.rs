//! The plan against core's models: what the table decides with the plan in it is what the model decides.

use std::net::IpAddr;

use adit_core::route::{
    AppleAssumptions, ApplePacket, ApplePlatform, AppleRule, AppleSettings, AppleWay, RouteInputs, RouteModel,
    SystemTable, decide_apple,
};
use proptest::prelude::*;

use super::super::table::gateway_of;
use super::super::table::tests::{interface, router, row};
use super::*;
use crate::settings::{RouteTable, Wanted};

const TUNNEL: u32 = 11;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn wanted(allowed: &[&str], excluded: &[&str]) -> Wanted {
    Wanted {
        addresses: nets(&["10.9.0.2/32"]),
        allowed_ips: nets(allowed),
        excluded_ips: nets(excluded),
        ..Wanted::default()
    }
}

fn device() -> Device {
    Device { name: "utun4".into(), index: TUNNEL }
}

/// A host with Wi-Fi, a router for IPv4 and none for IPv6.
fn system() -> Table {
    Table {
        routes: vec![
            row("0.0.0.0/0", router("192.168.1.1"), 4),
            row("192.168.1.0/24", Gateway::Interface(4), 4),
            row("127.0.0.0/8", Gateway::Interface(1), 1),
        ],
        interfaces: vec![interface(1, "lo0", 16384, &["127.0.0.1/8"]), interface(4, "en0", 1500, &["192.168.1.7/24"])],
    }
}

fn shown(plan: &Plan) -> Vec<String> {
    let shown = |entry: &Entry| match entry {
        Entry::Address(address) => format!("address {}", address.address),
        Entry::Up(_) => "up".into(),
        Entry::Route(Route { destination, via, .. }) => match via {
            Via::Device(device) => format!("{destination} {}", device.name),
            Via::Gateway { address, device } => format!("{destination} {address}%{}", device.name),
            Via::Unreachable | Via::Throw => format!("{destination} error"),
        },
        entry => format!("{entry:?}"),
    };
    plan.changes.iter().map(shown).collect()
}

#[test]
fn a_full_tunnel_is_two_halves_and_leaves_the_default_alone() {
    let plan = plan(&Settings::new(&wanted(&["0.0.0.0/0", "::/0"], &[])), &device(), &system());
    let expected =
        ["address 10.9.0.2/32", "up", "0.0.0.0/1 utun4", "128.0.0.0/1 utun4", "::/1 utun4", "8000::/1 utun4"];
    assert_eq!(shown(&plan), expected);
    assert_eq!(plan.ties, []);
}

#[test]
fn an_exception_goes_where_the_system_would_send_it() {
    let settings = Settings::new(&wanted(
        &["0.0.0.0/0", "::/0"],
        &["198.51.100.0/24", "192.168.1.9/32", "192.168.0.0/16", "2001:db8::/32"],
    ));
    let plan = plan(&settings, &device(), &system());
    // A host of the local network is reached there already; for IPv6 there is no way without the tunnel.
    let expected = [
        "address 10.9.0.2/32",
        "up",
        "2001:db8::/32 error",
        "198.51.100.0/24 192.168.1.1%en0",
        "192.168.0.0/16 192.168.1.1%en0",
        "0.0.0.0/1 utun4",
        "128.0.0.0/1 utun4",
        "::/1 utun4",
        "8000::/1 utun4",
    ];
    let mut found = shown(&plan);
    found.sort();
    let mut sorted = expected.map(str::to_owned).to_vec();
    sorted.sort();
    assert_eq!(found, sorted);
    let at = |text: &str| shown(&plan).iter().position(|entry| entry == text).unwrap();
    assert!(at("192.168.0.0/16 192.168.1.1%en0") < at("128.0.0.0/1 utun4"), "the exception comes first");
}

#[test]
fn an_exception_inside_a_network_on_the_link_stays_on_the_link() {
    let mut system = system();
    system.routes.push(row("10.0.0.0/8", Gateway::Interface(4), 4));
    let plan = plan(&Settings::new(&wanted(&["10.1.0.0/16"], &["10.1.2.3/32"])), &device(), &system);
    assert_eq!(shown(&plan), ["address 10.9.0.2/32", "up", "10.1.2.3/32 en0", "10.1.0.0/16 utun4"]);
}

#[test]
fn half_the_space_can_be_an_exception() {
    let plan = plan(&Settings::new(&wanted(&["0.0.0.0/0"], &["0.0.0.0/1"])), &device(), &system());
    assert_eq!(shown(&plan)[2..], ["128.0.0.0/1 utun4"], "what no route of the tunnel covers needs no exception");
}

#[test]
fn the_systems_own_routes_stay() {
    let mut system = system();
    // Another tunnel has the same idea.
    system.routes.push(row("0.0.0.0/1", Gateway::Interface(9), 9));
    let plan = plan(&Settings::new(&wanted(&["0.0.0.0/0", "192.168.1.0/24"], &[])), &device(), &system);
    assert_eq!(shown(&plan)[2..], ["128.0.0.0/1 utun4"]);
    assert_eq!(plan.ties, nets(&["0.0.0.0/1", "192.168.1.0/24"]));
}

#[test]
fn the_network_of_an_address_is_routed() {
    let mut wanted = wanted(&["10.9.0.0/24"], &[]);
    wanted.addresses = nets(&["10.9.0.2/24", "fd00::2/64"]);
    let plan = plan(&Settings::new(&wanted), &device(), &system());
    let expected = ["address 10.9.0.2/24", "address fd00::2/64", "up", "fd00::/64 utun4", "10.9.0.0/24 utun4"];
    assert_eq!(shown(&plan), expected);
}

#[test]
fn what_macos_cannot_do_is_refused_by_name() {
    let full = wanted(&["0.0.0.0/0"], &[]);
    let refused = |change: fn(&mut Wanted)| {
        let mut wanted = full.clone();
        change(&mut wanted);
        refuse(&Settings::new(&wanted)).err().map(|error| error.to_string())
    };
    for (key, change) in [
        ("KillSwitch is", (|wanted| wanted.kill_switch = true) as fn(&mut Wanted)),
        ("FwMark = 51820 is", |wanted| wanted.fwmark = Some(51820)),
        ("Table = 7 is", |wanted| wanted.table = RouteTable::Number(7)),
        ("ExcludeLocalNetworks = off is", |wanted| wanted.exclude_local_networks = Some(false)),
    ] {
        let text = refused(change).unwrap_or_default();
        assert!(text.starts_with(key) && text.contains("not supported on macOS"), "{key}: {text}");
    }
    for change in [
        (|_| ()) as fn(&mut Wanted),
        |wanted| wanted.fwmark = Some(0),
        |wanted| wanted.table = RouteTable::Off,
        |wanted| wanted.exclude_local_networks = Some(true),
        |wanted| wanted.excluded_ips = nets(&["10.0.0.0/8"]),
        |wanted| wanted.endpoints = vec!["192.0.2.1:51820".parse().unwrap()],
        |wanted| wanted.allowed_ips = nets(&["192.0.2.0/24"]),
    ] {
        assert_eq!(refused(change), None);
    }
}

#[test]
fn sockets_are_bound_if_their_datagrams_could_loop() {
    let needs = |allowed: &[&str], endpoint: &str, table| {
        let endpoints = vec![endpoint.parse().unwrap()];
        needs_binding(&Settings::new(&Wanted { endpoints, table, ..wanted(allowed, &[]) }))
    };
    assert!(needs(&["0.0.0.0/0"], "192.0.2.1:1", RouteTable::Auto));
    assert!(needs(&["192.0.2.0/24"], "192.0.2.1:1", RouteTable::Auto));
    assert!(!needs(&["10.0.0.0/8"], "192.0.2.1:1", RouteTable::Auto));
    assert!(!needs(&["0.0.0.0/0"], "192.0.2.1:1", RouteTable::Off));
    assert!(needs(&["0.0.0.0/0"], "192.0.2.1:1", RouteTable::Number(TABLE_MAIN)));
}

#[test]
fn routes_that_pull_traffic_out_are_told() {
    let mut system = system();
    system.routes.push(row("203.0.113.0/24", router("192.168.1.66"), 4));
    system.routes.push(row("224.0.0.0/4", Gateway::Interface(4), 4));
    let found = pulled_out(&Settings::new(&wanted(&["0.0.0.0/0"], &[])), &system);
    let told: Vec<_> = found.iter().map(|out| (out.net.to_string(), out.interface, out.connected)).collect();
    assert_eq!(told, [("192.168.1.0/24".into(), Some(4), true), ("203.0.113.0/24".into(), Some(4), false)]);
    assert_eq!(pulled_out(&Settings::new(&wanted(&["0.0.0.0/0"], &["203.0.0.0/16"])), &system).len(), 1);
    assert_eq!(pulled_out(&Settings::new(&wanted(&["10.0.0.0/8"], &[])), &system), []);
}

#[test]
fn ipv6_names_are_hidden_without_a_default_route() {
    let with = |allowed: &[&str], routes: &[Row]| {
        let mut system = system();
        system.routes.extend(routes);
        hides_ipv6_names(&Settings::new(&wanted(allowed, &[])), &system)
    };
    assert!(with(&["fd00::/8"], &[]));
    assert!(!with(&["fd00::/8"], &[row("::/0", router("fe80::1"), 4)]));
    assert!(!with(&["10.0.0.0/8"], &[]));
}

/// The kernel's decision: the longest unscoped prefix. `None`: it has no way.
fn decide(system: &Table, plan: &Plan, destination: IpAddr) -> Option<Gateway> {
    let mut table = system.clone();
    for change in &plan.changes {
        if let Entry::Route(route) = change {
            let gateway = gateway_of(&route.via).unwrap();
            assert!(table.routes.iter().all(|row| row.destination != route.destination), "EEXIST: {route:?}");
            table.routes.push(row(&route.destination.to_string(), gateway, TUNNEL));
        }
    }
    table.covering(&destination.into()).map(|row| row.gateway)
}

/// Prefixes from a small space, so that they nest and collide; short ones are frequent.
fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<[bool; 4]>(), prop_oneof![Just(0u8), Just(1), 2..=32u8]).prop_map(|(bits, length)| {
        let bit = |at: usize, shift: u32| u32::from(bits[at]) << shift;
        let address = (10 << 24) | bit(0, 31) | bit(1, 16) | bit(2, 9) | bit(3, 0);
        IpNet::new(IpAddr::V4(address.into()), length).unwrap().trunc()
    });
    let v6 = (any::<[bool; 3]>(), prop_oneof![Just(0u8), Just(1), 2..=120u8]).prop_map(|(bits, length)| {
        let bit = |at: usize, shift: u32| u128::from(bits[at]) << shift;
        let address = (0x2001u128 << 112) | bit(0, 127) | bit(1, 64) | bit(2, 9);
        IpNet::new(IpAddr::V6(address.into()), length).unwrap().trunc()
    });
    prop_oneof![3 => v4, 1 => v6]
}

fn list() -> impl Strategy<Value = Vec<IpNet>> {
    prop::collection::vec(net(), 0..6)
}

/// Where answers may change: where any of the prefixes begins, ends, and beside that.
fn probes<'a>(all: impl Iterator<Item = &'a IpNet>) -> Vec<IpAddr> {
    let mut probes: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "2001::1".parse().unwrap()];
    for net in all {
        let (first, last) = (net.network(), net.broadcast());
        probes.extend([first, last]);
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                probes.push(IpAddr::V4(first.to_bits().wrapping_sub(1).into()));
                probes.push(IpAddr::V4(last.to_bits().wrapping_add(1).into()));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                probes.push(IpAddr::V6(first.to_bits().wrapping_sub(1).into()));
                probes.push(IpAddr::V6(last.to_bits().wrapping_add(1).into()));
            }
            _ => {}
        }
    }
    // Those have rules of their own, in every model.
    probes.retain(|probe| !probe.is_loopback() && !probe.is_multicast() && !probe.is_unspecified());
    probes.retain(|probe| !is_local_by_nature(&(*probe).into()));
    probes
}

/// A host whose routes are these, by a router each, and a default route for each family.
fn host(on_link: &[IpNet], routes: &[IpNet]) -> Table {
    let mut table = Table { routes: Vec::new(), interfaces: vec![interface(4, "en0", 1500, &[])] };
    table.routes.push(row("0.0.0.0/0", router("192.168.1.1"), 4));
    table.routes.push(row("::/0", router("fd11::1"), 4));
    for (number, net) in routes.iter().enumerate() {
        if table.routes.iter().all(|row| row.destination != *net) {
            table.routes.push(row(&net.to_string(), router(&format!("192.168.1.{}", number + 2)), 4));
        }
    }
    for net in on_link {
        if table.routes.iter().all(|row| row.destination != *net) {
            table.routes.push(row(&net.to_string(), Gateway::Interface(4), 4));
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Against the model of a packet tunnel provider, whose table is the same one.
    #[test]
    fn the_table_decides_as_apples_model(allowed in list(), excluded in list(), on_link in list(), routes in list(), own in net()) {
        // Settings leave out what the tunnel's own network covers, as wg-quick does; the model does not.
        let allowed: Vec<_> = allowed.into_iter().filter(|net| *net == own || !own.contains(net)).collect();
        // Nor do they have exceptions in a family of which nothing is allowed.
        let is_family = |net: &IpNet| allowed.iter().any(|other| Family::of(other) == Family::of(net));
        let excluded: Vec<_> =
            excluded.into_iter().filter(|net| !allowed.contains(net) && net.prefix_len() > 0 && is_family(net)).collect();
        let wanted = Wanted { addresses: vec![own], allowed_ips: allowed.clone(), excluded_ips: excluded.clone(), ..Wanted::default() };
        let settings = Settings::new(&wanted);
        let system = host(&on_link, &routes);
        let plan = plan(&settings, &device(), &system);

        let apple = AppleSettings {
            addresses: wanted.addresses.clone(),
            included: allowed.clone(),
            excluded: excluded.clone(),
            ..AppleSettings::new(ApplePlatform::MacOs)
        };
        let assumptions = AppleAssumptions { loopback_voids_exclusions: false, captures_live_flows: false, ..AppleAssumptions::default() };
        let long = |nets: &[IpNet]| nets.iter().filter(|net| net.prefix_len() > 0).copied().collect();
        let table = SystemTable { on_link: long(&on_link), routes: long(&routes), addresses: Vec::new() };
        let everything = allowed.iter().chain(&excluded).chain(&on_link).chain(&routes).chain(&wanted.addresses);
        for probe in probes(everything) {
            let decision = decide_apple(&ApplePacket::new(probe), &apple, &table, &assumptions);
            let ours = decide(&system, &plan, probe);
            match decision.way {
                AppleWay::Host => {}
                AppleWay::Tunnel => {
                    // The model has a default route as one, and a system's half would win over it as over two.
                    prop_assert_eq!(ours, Some(Gateway::Interface(TUNNEL)), "{}: {:?} {:?}", probe, decision, shown(&plan));
                }
                way => {
                    prop_assert_ne!(ours, Some(Gateway::Interface(TUNNEL)), "{}: {:?} {:?}", probe, decision, shown(&plan));
                    prop_assert!(way == AppleWay::Physical);
                    // And it goes exactly where it would go without the tunnel.
                    if decision.steps[0].rule != AppleRule::SystemRoute {
                        prop_assert_eq!(ours, system.covering(&exception_or(probe, &excluded)).map(|row| row.gateway));
                    }
                }
            }
        }
    }

    /// Against the model of Linux, where the two have to agree: on a host whose own routes lie beside the tunnel's
    /// prefixes. (There the tunnel's table is asked before main, here the longest prefix wins; that is what a laptop's
    /// networks are to a tunnel in nearly all cases.)
    #[test]
    fn the_table_decides_as_the_route_model(allowed in list(), excluded in list()) {
        let excluded: Vec<_> = excluded.into_iter().filter(|net| !allowed.contains(net) && net.prefix_len() > 0).collect();
        let wanted = Wanted { addresses: nets(&["172.31.9.2/32"]), allowed_ips: allowed.clone(), excluded_ips: excluded.clone(), ..Wanted::default() };
        let system = host(&[], &[]);
        let plan = plan(&Settings::new(&wanted), &device(), &system);
        let inputs = RouteInputs {
            allowed: allowed.iter().map(|net| (*net, 0)).collect(),
            excluded: excluded.clone(),
            tunnel_addresses: wanted.addresses.clone(),
            ..RouteInputs::default()
        };
        let model = RouteModel::new(&inputs).unwrap();
        for probe in probes(allowed.iter().chain(&excluded)) {
            let decision = model.decide(probe);
            let ours = decide(&system, &plan, probe);
            let into_tunnel = ours == Some(Gateway::Interface(TUNNEL));
            match decision.way {
                adit_core::route::Way::Host => {}
                way => prop_assert_eq!(into_tunnel, matches!(way, adit_core::route::Way::Tunnel { .. }), "{}: {:?} {:?}", probe, decision, shown(&plan)),
            }
        }
    }
}

/// The network whose way an address in an exception goes.
fn exception_or(probe: IpAddr, excluded: &[IpNet]) -> IpNet {
    let longest = excluded.iter().filter(|net| net.contains(&probe)).max_by_key(|net| net.prefix_len());
    longest.copied().unwrap_or(probe.into())
}

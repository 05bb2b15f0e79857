//! The words, on a host made by hand whose kernel answers as its rules and routes say.

use std::net::IpAddr;

use adit_core::PublicKey;
use adit_core::route::RouteModel;
use nix::errno::Errno;

use super::*;
use crate::api::RoutingReport;
use crate::journal::Device;
use crate::route::Reason;
use crate::route::inspect::{
    Hop, KernelAddress, KernelLink, KernelRoute, KernelRule, KernelWay, Mark, Protocol, RouteKind, RouteScope,
    RuleAction,
};
use crate::settings::{TABLE_LOCAL, TABLE_MAIN};

const WG: u32 = 5;
const ETH: u32 = 2;
const OWN: u32 = 51820;

fn device(index: u32) -> Device {
    let name = if index == WG { "wg0" } else { "eth0" };
    Device { name: name.into(), index }
}

fn route(table: u32, net: &str, kind: RouteKind, gateway: Option<&str>, index: u32, protocol: Protocol) -> KernelRoute {
    let leads = !kind.stops() && kind != RouteKind::Throw;
    let hop = Hop { gateway: gateway.map(|ip| ip.parse().unwrap()), device: Some(device(index)), is_dead: false };
    KernelRoute {
        destination: net.parse().unwrap(),
        source: None,
        table,
        kind,
        hops: Vec::from_iter(leads.then_some(hop)),
        metric: if kind == RouteKind::Unreachable { 4_278_198_272 } else { 0 },
        tos: 0,
        protocol,
        preferred_source: None,
        scope: RouteScope::Universe,
        mtu: None,
        is_ours: protocol == Protocol::ADIT,
    }
}

fn rule(priority: u32, action: RuleAction, protocol: Protocol) -> KernelRule {
    KernelRule::of_all(priority, action, protocol)
}

fn not_marked() -> KernelRule {
    KernelRule {
        is_inverted: true,
        mark: Some(Mark { value: 0xca6c, mask: u32::MAX }),
        ..rule(32765, RuleAction::Lookup(OWN), Protocol::ADIT)
    }
}

/// A host on 192.168.1.0/24 with wg0 up, and these routes of the tunnel's own table.
fn host(own: &[(&str, RouteKind)]) -> Facts {
    let link =
        |index, mtu| KernelLink { device: device(index), mtu, is_up: true, is_running: true, is_loopback: false };
    let address = |net: &str, index| KernelAddress { address: net.parse().unwrap(), peer: None, device: device(index) };
    let unicast = RouteKind::Unicast;
    let mut facts = Facts {
        links: vec![link(ETH, 1500), link(WG, 1420)],
        addresses: vec![address("192.168.1.20/24", ETH), address("10.9.0.2/24", WG)],
        ..Facts::default()
    };
    let local = |net| route(TABLE_LOCAL, net, RouteKind::Local, None, ETH, Protocol::KERNEL);
    facts.ipv4.tables.insert(TABLE_LOCAL, vec![local("192.168.1.20/32"), local("10.9.0.2/32")]);
    let main = vec![
        route(TABLE_MAIN, "0.0.0.0/0", unicast, Some("192.168.1.1"), ETH, Protocol::DHCP),
        route(TABLE_MAIN, "192.168.1.0/24", unicast, None, ETH, Protocol::KERNEL),
        route(TABLE_MAIN, "10.9.0.0/24", unicast, None, WG, Protocol::KERNEL),
    ];
    facts.ipv4.tables.insert(TABLE_MAIN, main);
    let own = own.iter().map(|(net, kind)| route(OWN, net, *kind, None, WG, Protocol::ADIT));
    facts.ipv4.tables.insert(OWN, own.collect());
    facts.ipv4.rules = vec![
        rule(0, RuleAction::Lookup(TABLE_LOCAL), Protocol::KERNEL),
        not_marked(),
        rule(32766, RuleAction::Lookup(TABLE_MAIN), Protocol::KERNEL),
    ];
    facts
}

fn tunnel(layout: Layout, allowed: &[&str], excluded: &[&str]) -> Subject {
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
    Subject {
        name: "wg0".into(),
        file: None,
        is_told: true,
        peers: vec![SubjectPeer {
            public_key: PublicKey::from_bytes([0; 32]),
            endpoint: Some("192.0.2.1:51820".parse().unwrap()),
            endpoint_name: None,
            allowed_ips: nets(allowed),
        }],
        fwmark: Some(0xca6c),
        mtu: Some(1420),
        routing: RoutingReport {
            layout,
            own_table: (layout == Layout::Strict || allowed.contains(&"0.0.0.0/0")).then_some(OWN),
            addresses: nets(&["10.9.0.2/24"]),
            excluded_ips: nets(excluded),
            ..RoutingReport::default()
        },
    }
}

/// What the kernel of this host would say.
fn kernel(facts: &Facts, packet: &Packet) -> KernelSide {
    let trace = Trace::follow(&facts.ipv4, packet);
    let way = match trace.end().map(|end| &end.found) {
        Some(Found::Route(route)) if route.kind.stops() => Err(Reason::Errno(Errno::EHOSTUNREACH)),
        Some(Found::Route(route)) => {
            let device = route.hops[0].device.clone().unwrap();
            let link = facts.links.iter().find(|link| link.device == device).unwrap();
            let own = facts.addresses.iter().find(|own| own.device == device).unwrap();
            Ok(KernelWay {
                kind: route.kind,
                table: Some(route.table),
                gateway: route.hops[0].gateway,
                source: packet.query.source.or(Some(own.address.addr())),
                mtu: Some(link.mtu),
                device: Some(device),
                route: Some(route.clone()),
            })
        }
        _ => Err(Reason::Errno(Errno::ENETUNREACH)),
    };
    KernelSide::new(way, trace)
}

fn ask(facts: &Facts, tunnel: &Subject, ip: &str, change: impl FnOnce(&mut Query)) -> Answer {
    let ip: IpAddr = ip.parse().unwrap();
    let inputs = facts.inputs(tunnel);
    let routing = if tunnel.routing.layout == Layout::Strict { Routing::Strict } else { Routing::Plain };
    let model = RouteModel::with_routing(&inputs, routing).unwrap();
    let view = View { tunnel, facts, model: &model };
    let mut packet = Packet { query: Query::to(ip), user: 1000, input: None };
    change(&mut packet.query);
    answer::answer(&view, ip.into(), &packet, Some(kernel(facts, &packet)))
}

#[track_caller]
fn assert_words(answer: &Answer, summary: &str, lines: &str) {
    let found: Vec<_> = answer.lines().into_iter().map(|(label, text)| format!("{label}: {text}")).collect();
    let expected: Vec<_> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!((answer.summary.as_str(), found), (summary, expected.into_iter().map(str::to_owned).collect()));
}

fn strict_host() -> Facts {
    host(&[
        ("0.0.0.0/0", RouteKind::Unicast),
        ("0.0.0.0/0", RouteKind::Unreachable),
        ("203.0.113.0/24", RouteKind::Throw),
        ("203.0.113.64/26", RouteKind::Unicast),
        ("192.168.1.0/24", RouteKind::Throw),
    ])
}

fn strict() -> Subject {
    tunnel(Layout::Strict, &["0.0.0.0/0", "203.0.113.64/26"], &["203.0.113.0/24"])
}

#[test]
fn the_longest_prefix_is_told_with_those_that_lost() {
    assert_words(
        &ask(&strict_host(), &strict(), "203.0.113.70", |_| ()),
        "203.0.113.70 goes through the tunnel wg0, to peer AAAA… at 192.0.2.1:51820",
        "rule: AllowedIPs 203.0.113.64/26 of AAAA…
         lost: ExcludedIPs 203.0.113.0/24: a shorter prefix
         lost: AllowedIPs 0.0.0.0/0 of AAAA…: a shorter prefix
         source: 10.9.0.2
         mtu: 1420
         kernel: 203.0.113.64/26 dev wg0 in table 51820; rule `32765: not from all fwmark 0xca6c lookup 51820`
         agrees: yes",
    );
}

#[test]
fn an_exclusion_leaves_as_main_says() {
    assert_words(
        &ask(&strict_host(), &strict(), "203.0.113.7", |_| ()),
        "203.0.113.7 leaves by the underlay, via 192.168.1.1 dev eth0",
        "rule: ExcludedIPs 203.0.113.0/24
         lost: AllowedIPs 0.0.0.0/0 of AAAA…: a shorter prefix
         source: 192.168.1.20
         mtu: 1500
         kernel: default via 192.168.1.1 dev eth0 in table main; rule `32766: from all lookup main`
         agrees: yes",
    );
}

#[test]
fn a_local_network_and_an_own_address_are_told_as_such() {
    assert_words(
        &ask(&strict_host(), &strict(), "192.168.1.7", |_| ()),
        "192.168.1.7 leaves by the underlay, directly on eth0",
        "rule: the local network 192.168.1.0/24, which is left out of the tunnel
         lost: AllowedIPs 0.0.0.0/0 of AAAA…: a shorter prefix
         next: the connected network 192.168.1.0/24 dev eth0 in main (proto kernel): says by which way it leaves
         source: 192.168.1.20
         mtu: 1500
         kernel: 192.168.1.0/24 dev eth0 in table main; rule `32766: from all lookup main`
         agrees: yes",
    );
    let own = ask(&strict_host(), &strict(), "10.9.0.2", |_| ());
    assert_eq!((own.way, own.summary.as_str(), own.agrees), ("host", "10.9.0.2 is this host itself", Some(true)));
    assert_eq!(own.rule.unwrap().text, "the address 10.9.0.2 of wg0");
}

#[test]
fn a_kill_switch_blocks_what_no_exception_lets_out() {
    let facts = host(&[("10.0.0.0/8", RouteKind::Unicast), ("10.0.0.0/8", RouteKind::Unreachable)]);
    let mut tunnel = tunnel(Layout::Strict, &["10.0.0.0/8"], &[]);
    tunnel.routing.kill_switch = true;
    assert_words(
        &ask(&facts, &tunnel, "1.1.1.1", |_| ()),
        "1.1.1.1 is blocked: the kill switch refuses it",
        "rule: KillSwitch: what is not excluded may not leave
         kernel: default via 192.168.1.1 dev eth0 in table main; rule `32766: from all lookup main`
         agrees: yes",
    );
    tunnel.routing.exclude_local_networks = Some(true);
    tunnel.routing.names_dns_servers = true;
    let dns = |query: &mut Query| (query.ip_protocol, query.destination_port) = (Some(17), Some(53));
    let web = |query: &mut Query| (query.ip_protocol, query.destination_port) = (Some(6), Some(443));
    assert_eq!(ask(&facts, &tunnel, "192.168.1.1", web).way, "underlay");
    let refused = ask(&facts, &tunnel, "192.168.1.1", dns);
    assert_eq!((refused.way, refused.agrees), ("blocked", Some(true)));
    assert!(refused.notes[0].starts_with("DNS of the local network is refused"), "{:?}", refused.notes);
}

#[test]
fn a_route_in_main_that_pulls_traffic_out_of_a_full_tunnel_is_noted() {
    let mut facts = host(&[("0.0.0.0/0", RouteKind::Unicast), ("0.0.0.0/0", RouteKind::Unreachable)]);
    let injected = route(TABLE_MAIN, "0.0.0.0/1", RouteKind::Unicast, Some("192.168.1.66"), ETH, Protocol::DHCP);
    facts.ipv4.tables.get_mut(&TABLE_MAIN).unwrap().push(injected);
    let main_first =
        KernelRule { suppress_prefix_length: Some(0), ..rule(32764, RuleAction::Lookup(TABLE_MAIN), Protocol::ADIT) };
    facts.ipv4.rules.insert(1, main_first);
    assert_words(
        &ask(&facts, &tunnel(Layout::Plain, &["0.0.0.0/0"], &[]), "1.1.1.1", |_| ()),
        "1.1.1.1 leaves by the underlay, via 192.168.1.66 dev eth0",
        "rule: the route 0.0.0.0/1 via 192.168.1.66 dev eth0 in main (proto dhcp)
         lost: AllowedIPs 0.0.0.0/0 of AAAA…: a shorter prefix
         source: 192.168.1.20
         mtu: 1500
         kernel: 0.0.0.0/1 via 192.168.1.66 dev eth0 in table main; rule `32764: from all lookup main suppress_prefixlength 0`
         agrees: yes
         note: main is asked before a full tunnel, as with wg-quick; ExcludeLocalNetworks, said either way, puts the tunnel first",
    );
    let other = ask(&facts, &tunnel(Layout::Plain, &["0.0.0.0/0"], &[]), "200.1.1.1", |_| ());
    assert_eq!((other.way, other.agrees), ("tunnel", Some(true)));
    let rules = &other.kernel.unwrap().rules;
    let suppressed =
        "32764: from all lookup main suppress_prefixlength 0: default via 192.168.1.1 dev eth0, suppressed";
    assert!(rules.iter().any(|rule| rule == suppressed), "{rules:?}");
}

#[test]
fn what_took_a_packet_from_the_tunnel_is_named() {
    let steal = |change: &dyn Fn(&mut Facts)| {
        let mut facts = strict_host();
        change(&mut facts);
        let answer = ask(&facts, &strict(), "1.1.1.1", |_| ());
        assert_eq!((answer.way, answer.agrees), ("tunnel", Some(false)));
        assert_eq!(answer.gateway, None);
        answer.difference.unwrap()
    };
    assert_eq!(
        steal(&|facts| {
            facts.ipv4.rules.insert(1, rule(100, RuleAction::Lookup(77), Protocol::BOOT));
            let stolen = route(77, "0.0.0.0/0", RouteKind::Unicast, Some("192.168.1.9"), ETH, Protocol::STATIC);
            facts.ipv4.tables.insert(77, vec![stolen]);
        }),
        "should go by wg0, but the rule `100: from all lookup 77` (not Adit's, proto boot) takes it: default via \
         192.168.1.9 dev eth0 in table 77, not Adit's, proto static"
    );
    assert_eq!(
        steal(&|facts| facts.ipv4.rules.retain(|rule| !rule.is_ours)),
        "should go by wg0, but Adit's IPv4 rule that looks up table 51820 is gone"
    );
    assert_eq!(
        steal(&|facts| facts.ipv4.tables.get_mut(&OWN).unwrap().retain(|route| route.kind != RouteKind::Unicast)),
        "should go by wg0, but the rule `32765: not from all fwmark 0xca6c lookup 51820` (Adit's) refuses it: \
         unreachable default in table 51820"
    );
    assert_eq!(
        steal(&|facts| facts.ipv4.rules.insert(1, rule(7, RuleAction::Prohibit, Protocol::STATIC))),
        "should go by wg0, but the rule `7: from all prohibit` (not Adit's, proto static) refuses it"
    );
}

#[test]
fn the_trace_follows_marks_ports_jumps_and_users() {
    let mut facts = strict_host();
    let port = KernelRule {
        destination_ports: Some(crate::route::inspect::Range { first: 80, last: 90 }),
        ip_protocol: Some(6),
        ..rule(10, RuleAction::Goto(32766), Protocol::STATIC)
    };
    let user = KernelRule {
        users: Some(crate::route::inspect::Range { first: 0, last: 0 }),
        ..rule(9, RuleAction::Prohibit, Protocol::STATIC)
    };
    facts.ipv4.rules.splice(1..1, [user, port]);
    let end = |change: &dyn Fn(&mut Packet)| {
        let mut packet = Packet { query: Query::to("1.1.1.1".parse().unwrap()), user: 1000, input: None };
        change(&mut packet);
        Trace::follow(&facts.ipv4, &packet).end().map(|end| end.rule.priority)
    };
    assert_eq!(end(&|_| ()), Some(32765));
    assert_eq!(end(&|packet| packet.query.mark = 0xca6c), Some(32766));
    assert_eq!(
        end(&|packet| (packet.query.ip_protocol, packet.query.destination_port) = (Some(6), Some(85))),
        Some(32766)
    );
    assert_eq!(
        end(&|packet| (packet.query.ip_protocol, packet.query.destination_port) = (Some(6), Some(91))),
        Some(32765)
    );
    assert_eq!(end(&|packet| packet.user = 0), Some(9));
}

#[test]
fn a_tunnel_that_is_not_up_has_nothing_to_agree_with() {
    let mut facts = host(&[]);
    facts.links.pop();
    facts.addresses.pop();
    facts.ipv4.rules.remove(1);
    facts.ipv4.tables.get_mut(&TABLE_MAIN).unwrap().pop();
    assert_words(
        &ask(&facts, &tunnel(Layout::Plain, &["0.0.0.0/0"], &[]), "1.1.1.1", |_| ()),
        "1.1.1.1 would go through the tunnel wg0, to peer AAAA… at 192.0.2.1:51820",
        "rule: AllowedIPs 0.0.0.0/0 of AAAA…
         source: 10.9.0.2
         mtu: 1420
         now: default via 192.168.1.1 dev eth0 in table main; rule `32766: from all lookup main`",
    );
}

#[test]
fn trees_nest_longer_prefixes_and_leave_out_the_rest_of_long_lists() {
    let tunnels = [strict()];
    let facts = strict_host();
    let [ipv4, _] = &trees(&facts, &tunnels, Some(40))[..] else { panic!("two families") };
    let own = ipv4.rules[1].table.as_ref().unwrap();
    assert_eq!((own.table, own.count, own.routes.len()), (OWN, 5, 2));
    let inside: Vec<_> = own.routes[0].inside.iter().map(|node| node.text.as_str()).collect();
    assert_eq!(inside, ["throw 192.168.1.0/24", "throw 203.0.113.0/24"]);
    assert_eq!(own.routes[0].inside[1].inside[0].peer, Some(PublicKey::from_bytes([0; 32])));
    assert_eq!(own.routes[1].text, "unreachable default");
    let local = ipv4.rules[0].table.as_ref().unwrap();
    assert_eq!((local.count, local.routes.len(), local.omitted), (2, 0, 2));

    let [ipv4, _] = &trees(&facts, &tunnels, Some(1))[..] else { panic!("two families") };
    let own = ipv4.rules[1].table.as_ref().unwrap();
    assert_eq!((own.routes.len(), own.omitted), (1, 1));
    assert_eq!((own.routes[0].inside.len(), own.routes[0].omitted), (1, 2));
    let [ipv4, _] = &trees(&facts, &tunnels, None)[..] else { panic!("two families") };
    assert_eq!(ipv4.rules[0].table.as_ref().unwrap().routes.len(), 2);
}

//! Made-up facts for tests: a healthy full tunnel of both families in wg-quick's way, to break one thing at a time.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use adit_core::PublicKey;
use ipnet::IpNet;

use super::Trouble;
use super::facts::{
    Answer, Daemon, Facts, FirewallState, HostFacts, InForce, JournalState, Kernel, Known, Purpose, Question,
};
use crate::api::{EngineCounters, PeerReport, StatusReport};
use crate::config::{Config, Format, parse};
use crate::firewall::{Firewall, KillSwitch};
use crate::journal::{Address, Device, Entry, Mtu, Route, Rule, Sysctl, Target, Via};
use crate::route::inspect::{
    Hop, KernelAddress, KernelLink, KernelRoute, KernelRule, KernelWay, Mark, Protocol, RouteKind, RouteScope,
    RuleAction,
};
use crate::settings::{Family, TABLE_MAIN};

/// The number of the underlay's interface, `eth0`.
pub(super) const UNDERLAY: u32 = 2;
/// The number of the tunnel's interface, `wg0`.
pub(super) const TUNNEL: u32 = 7;
const OWN: u32 = 51820;

/// The only finding of a check.
pub(super) fn one(found: Known<Vec<Trouble>>) -> Trouble {
    let mut found = found.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// A healthy tunnel.
pub(super) fn full() -> Facts {
    let entries = entries();
    let in_force = InForce::recorded(&entries);
    let answer = |to: &str, mark, purpose, index, name: &str| Answer {
        question: Question { to: to.parse().unwrap(), mark, purpose },
        way: Ok(way(index, name)),
    };
    let carried = |net: &str| Purpose::Carried(net.parse().unwrap());
    let sysctls = [
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/eth0/rp_filter", "0"),
        ("net/ipv4/conf/all/src_valid_mark", "1"),
        ("net/ipv6/conf/wg0/disable_ipv6", "0"),
    ];
    Facts {
        name: "wg0".into(),
        daemon: Daemon::Answers(Box::new(report())),
        journal: Ok(Some(state())),
        kernel: Ok(kernel_of(&in_force)),
        in_force,
        config: Ok(file()),
        firewall: Ok(FirewallState::InForce),
        sysctls: sysctls.map(|(path, value)| (path.to_owned(), value.to_owned())).into(),
        answers: vec![
            answer("198.51.100.9:51820", OWN, Purpose::Endpoint, UNDERLAY, "eth0"),
            answer("203.0.113.1:0", 0, carried("0.0.0.0/0"), TUNNEL, "wg0"),
            answer("[2001:db8::1]:0", 0, carried("::/0"), TUNNEL, "wg0"),
        ],
        name_servers: Vec::new(),
        uapi_answers: Ok(true),
        newest_timestamp: None,
        now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

/// A host with that tunnel.
pub(super) fn host() -> HostFacts {
    HostFacts {
        journals: Ok(vec![("wg0".into(), Ok((state(), entries())))]),
        kernel: full().kernel,
        firewalls: Ok(vec!["wg0".into()]),
        dead_sockets: Ok(Vec::new()),
    }
}

/// Takes everything of the other family away from the tunnel.
pub(super) fn only(facts: &mut Facts, family: Family) {
    facts.in_force.routes.retain(|route| Family::of(&route.destination) == family);
    facts.in_force.rules.retain(|rule| rule.family == family);
    facts.in_force.addresses.retain(|it| Family::of(&it.address) == family);
}

/// Switches the kill switch on.
pub(super) fn kill_switch(facts: &mut Facts) {
    let switch = KillSwitch { excluded: Vec::new(), local: Vec::new(), no_local_dns: false };
    facts.in_force.firewall.as_mut().unwrap().kill_switch = Some(switch);
}

/// Sets a kernel parameter.
pub(super) fn set(facts: &mut Facts, path: &str, value: &str) {
    facts.sysctls.insert(path.to_owned(), value.to_owned());
}

pub(super) fn kernel(facts: &mut Facts) -> &mut Kernel {
    facts.kernel.as_mut().unwrap()
}

pub(super) fn config(facts: &mut Facts) -> &mut Config {
    facts.config.as_mut().unwrap()
}

pub(super) fn status(facts: &mut Facts) -> &mut StatusReport {
    match &mut facts.daemon {
        Daemon::Answers(report) => report,
        other => panic!("{other:?}"),
    }
}

/// A way out of an interface.
pub(super) fn way(index: u32, name: &str) -> KernelWay {
    KernelWay {
        kind: RouteKind::Unicast,
        table: Some(TABLE_MAIN),
        device: Some(Device { name: name.into(), index }),
        gateway: None,
        source: None,
        mtu: Some(1500),
        route: None,
    }
}

/// A route of somebody's in the main table.
pub(super) fn main_route(net: &str, index: u32, gateway: Option<IpAddr>) -> KernelRoute {
    let name = if index == TUNNEL { "wg0" } else { "eth0" };
    KernelRoute {
        destination: net.parse().unwrap(),
        source: None,
        table: TABLE_MAIN,
        kind: RouteKind::Unicast,
        hops: vec![Hop { gateway, device: Some(Device { name: name.into(), index }), is_dead: false }],
        metric: 0,
        tos: 0,
        protocol: Protocol::BOOT,
        preferred_source: None,
        scope: RouteScope::Universe,
        mtu: None,
        is_ours: false,
    }
}

/// An exception in the tunnel's table.
pub(super) fn throw(net: &str) -> Route {
    Route { destination: net.parse().unwrap(), table: OWN, via: Via::Throw, metric: None }
}

/// An IPv4 rule of somebody's that looks a table up.
pub(super) fn rule(priority: u32, table: u32) -> KernelRule {
    KernelRule::of_all(priority, RuleAction::Lookup(table), Protocol::BOOT)
}

/// A route into the tunnel.
pub(super) fn into_tunnel() -> Route {
    Route { destination: "0.0.0.0/0".parse().unwrap(), table: OWN, via: Via::Device(device()), metric: None }
}

fn device() -> Device {
    Device { name: "wg0".into(), index: TUNNEL }
}

fn entries() -> Vec<Entry> {
    let address = |net: &str| Entry::Address(Address { device: device(), address: net.parse().unwrap() });
    let route =
        |net: &str, via, metric| Entry::Route(Route { destination: net.parse().unwrap(), table: OWN, via, metric });
    let mut entries = vec![
        Entry::Link(device()),
        Entry::Firewall(Firewall {
            ifname: "wg0".into(),
            fwmark: OWN,
            addresses: Vec::new(),
            reply_protection: true,
            kill_switch: None,
        }),
        Entry::Mtu(Mtu { device: device(), former: 1500, value: 1420 }),
        address("10.9.0.2/24"),
        address("fd09::2/64"),
        Entry::Up(device()),
        Entry::Sysctl(Sysctl {
            path: "/proc/sys/net/ipv4/conf/all/src_valid_mark".into(),
            former: "0".into(),
            value: "1".into(),
        }),
    ];
    for (family, net) in [(Family::Ipv4, "0.0.0.0/0"), (Family::Ipv6, "::/0")] {
        entries.push(route(net, Via::Unreachable, Some(4_278_198_272)));
        entries.push(route(net, Via::Device(device()), None));
        entries.push(Entry::Rule(Rule { family, priority: 32764, table: TABLE_MAIN, target: Target::SuppressDefault }));
        entries.push(Entry::Rule(Rule { family, priority: 32765, table: OWN, target: Target::NotMarked(OWN) }));
    }
    entries
}

/// What the kernel shows when all of that is in force, over an underlay of both families.
fn kernel_of(in_force: &InForce) -> Kernel {
    let link = |index, name: &str, mtu| KernelLink {
        device: Device { name: name.into(), index },
        mtu,
        is_up: true,
        is_running: true,
        is_loopback: index == 1,
    };
    let mut rules = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        rules.push(KernelRule { family, protocol: Protocol::KERNEL, ..rule(0, 255) });
        for ours in in_force.rules.iter().filter(|rule| rule.family == family) {
            let mut found =
                KernelRule { family, is_ours: true, protocol: Protocol::ADIT, ..rule(ours.priority, ours.table) };
            match ours.target {
                Target::SuppressDefault => found.suppress_prefix_length = Some(0),
                Target::NotMarked(value) => {
                    found.is_inverted = true;
                    found.mark = Some(Mark { value, mask: u32::MAX });
                }
            }
            rules.push(found);
        }
        rules.push(KernelRule { family, protocol: Protocol::KERNEL, ..rule(32766, TABLE_MAIN) });
    }
    let ours = in_force.routes.iter().map(|route| {
        let mut found = main_route("0.0.0.0/0", TUNNEL, None);
        (found.destination, found.table) = (route.destination, route.table);
        (found.is_ours, found.protocol) = (true, Protocol::ADIT);
        found.metric = route.metric.unwrap_or(if Family::of(&route.destination) == Family::Ipv4 { 0 } else { 1024 });
        if route.via == Via::Unreachable {
            found.kind = RouteKind::Unreachable;
            found.hops.clear();
        }
        found
    });
    let connected = |net: &str, index| KernelRoute { protocol: Protocol::KERNEL, ..main_route(net, index, None) };
    let underlay = [
        main_route("0.0.0.0/0", UNDERLAY, Some("192.168.1.1".parse().unwrap())),
        main_route("::/0", UNDERLAY, Some("fe80::1".parse().unwrap())),
        connected("192.168.1.0/24", UNDERLAY),
        connected("fe80::/64", UNDERLAY),
        connected("10.9.0.0/24", TUNNEL),
    ];
    let address = |net: &str, index| KernelAddress {
        address: net.parse::<IpNet>().unwrap(),
        peer: None,
        device: Device { name: String::new(), index },
    };
    Kernel {
        rules,
        routes: ours.chain(underlay).collect(),
        links: vec![link(1, "lo", 65536), link(UNDERLAY, "eth0", 1500), link(TUNNEL, "wg0", 1420)],
        addresses: vec![
            address("192.168.1.2/24", UNDERLAY),
            address("10.9.0.2/24", TUNNEL),
            address("fd09::2/64", TUNNEL),
        ],
    }
}

fn state() -> JournalState {
    JournalState {
        path: "/run/adit/wg0.journal".into(),
        pid: 4242,
        owner_alive: true,
        is_of_this_host: true,
        keeps_closed: false,
    }
}

fn report() -> StatusReport {
    let peer = PeerReport {
        public_key: PublicKey::from_bytes([5; 32]),
        endpoint: Some("198.51.100.9:51820".parse().unwrap()),
        allowed_ips: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        latest_handshake_age_s: Some(12.0),
        handshake_rtt_ms: Some(0.7),
        rx_bytes: 1,
        tx_bytes: 2,
        packets_in: 3,
        packets_out: 4,
        persistent_keepalive: 0,
        drops: std::collections::BTreeMap::new(),
        has_session: true,
        has_preshared_key: false,
    };
    StatusReport {
        interface: None,
        name: "wg0".into(),
        pid: 4242,
        uptime_s: 13.0,
        public_key: None,
        listen_port: Some(44881),
        fwmark: OWN,
        mtu: 1420,
        config: Some("/etc/wireguard/wg0.conf".into()),
        repairs: 0,
        routing: None,
        engine: EngineCounters { handshakes_sent: 1, ..EngineCounters::default() },
        drops: std::collections::BTreeMap::new(),
        peers: vec![peer],
    }
}

fn file() -> Config {
    let key = PublicKey::from_bytes([5; 32]).to_base64();
    let text = format!(
        "[Interface]\nAddress = 10.9.0.2/24, fd09::2/64\n[Peer]\nPublicKey = {key}\nEndpoint = 198.51.100.9:51820\n\
         AllowedIPs = 0.0.0.0/0, ::/0\n"
    );
    parse(&text, Format::Conf, "wg0.conf").unwrap().0
}

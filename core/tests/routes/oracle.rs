//! The slow oracle: what the kernel does, step by step over lists. It shares no code with the model.

use std::net::IpAddr;

use adit_core::route::{RouteInputs, Routing, Way};
use ipnet::IpNet;

/// Where an address is reached.
pub(crate) fn decide(inputs: &RouteInputs, routing: Routing, to: IpAddr) -> Way {
    let way = route(inputs, routing, to, false);
    let is_let_out = longest(&inputs.excluded, to).is_some()
        || excludes_local(inputs) && inputs.connected.iter().any(|net| is_local(net, to));
    if way == Way::Underlay && inputs.kill_switch && !is_let_out { Way::Blocked } else { way }
}

fn excludes_local(inputs: &RouteInputs) -> bool {
    match inputs.exclude_local_networks {
        Some(said) => said,
        None => !inputs.kill_switch,
    }
}

/// Where a datagram of the tunnel itself goes.
pub(crate) fn decide_datagram(inputs: &RouteInputs, routing: Routing, to: IpAddr) -> Way {
    route(inputs, routing, to, true)
}

fn route(inputs: &RouteInputs, routing: Routing, to: IpAddr, is_marked: bool) -> Way {
    if let Some(way) = local_table(inputs, to) {
        return way;
    }
    match routing {
        Routing::Off => main_table(inputs, &[], to),
        Routing::Plain => {
            let routes: Vec<IpNet> =
                inputs.allowed.iter().map(|(net, _)| *net).filter(|net| net.prefix_len() > 0).collect();
            let default = inputs.allowed.iter().any(|(net, _)| net.prefix_len() == 0 && net.contains(&to));
            match main_table(inputs, &routes, to) {
                Way::Underlay if default && !is_marked && !is_in_main(inputs, to) => into_tunnel(inputs, to),
                way => way,
            }
        }
        Routing::Strict => {
            let has_rule = inputs.allowed.iter().any(|(net, _)| net.addr().is_ipv6() == to.is_ipv6());
            if has_rule && !is_marked && tunnel_table(inputs, to) {
                into_tunnel(inputs, to)
            } else {
                main_table(inputs, &[], to)
            }
        }
    }
}

fn local_table(inputs: &RouteInputs, to: IpAddr) -> Option<Way> {
    let all = || inputs.tunnel_addresses.iter().chain(&inputs.underlay_addresses);
    if all().any(|own| own.addr() == to) {
        return Some(Way::Host);
    }
    if let IpAddr::V6(to) = to
        && to.is_multicast()
    {
        return Some(Way::Underlay);
    }
    let is_broadcast = |own: &&IpNet| to.is_ipv4() && own.prefix_len() < 31 && own.broadcast() == to;
    // Where an address is the broadcast address of both, the model answers for the underlay.
    if inputs.underlay_addresses.iter().any(|own| is_broadcast(&own)) {
        return Some(Way::Underlay);
    }
    if inputs.tunnel_addresses.iter().any(|own| is_broadcast(&own)) {
        return Some(into_tunnel(inputs, to));
    }
    // Its network is a shorter prefix than any single address.
    to.is_loopback().then_some(Way::Host)
}

/// Whether the tunnel's table takes the address; otherwise the search goes on.
fn tunnel_table(inputs: &RouteInputs, to: IpAddr) -> bool {
    let allowed: Vec<IpNet> = inputs.allowed.iter().map(|(net, _)| *net).collect();
    let mut thrown = inputs.excluded.clone();
    thrown.push("fe80::/10".parse().unwrap());
    if excludes_local(inputs) {
        thrown.extend(inputs.connected.iter().copied().filter(|net| is_local(net, net.addr())));
    }
    let (allowed, thrown) = (longest(&allowed, to), longest(&thrown, to));
    allowed.is_some() && allowed >= thrown
}

fn main_table(inputs: &RouteInputs, routes: &[IpNet], to: IpAddr) -> Way {
    let own: Vec<IpNet> =
        inputs.tunnel_addresses.iter().copied().filter(|net| net.prefix_len() < net.max_prefix_len()).collect();
    let (own, connected) = (longest(&own, to), longest(&inputs.connected, to));
    let tunnel = own.max(longest(routes, to));
    // Metric 256 against 1024.
    let is_outdone = to.is_ipv6() && connected == tunnel && own != tunnel;
    let is_longest = tunnel.is_some() && tunnel >= main_length(inputs, to);
    if is_longest && !is_outdone { into_tunnel(inputs, to) } else { Way::Underlay }
}

fn is_in_main(inputs: &RouteInputs, to: IpAddr) -> bool {
    main_length(inputs, to).is_some()
}

fn main_length(inputs: &RouteInputs, to: IpAddr) -> Option<u8> {
    let main: Vec<IpNet> =
        inputs.connected.iter().chain(&inputs.main).copied().filter(|net| net.prefix_len() > 0).collect();
    longest(&main, to)
}

/// Cryptokey routing; of equal prefixes the last one counts.
fn into_tunnel(inputs: &RouteInputs, to: IpAddr) -> Way {
    let peers = inputs.allowed.iter().filter(|(net, _)| net.contains(&to));
    peers.max_by_key(|(net, _)| net.prefix_len()).map_or(Way::NoPeer, |(_, peer)| Way::Tunnel { peer: *peer })
}

fn longest(nets: &[IpNet], to: IpAddr) -> Option<u8> {
    nets.iter().filter(|net| net.contains(&to)).map(IpNet::prefix_len).max()
}

/// Whether the connected prefix may be trusted and has the address.
fn is_local(net: &IpNet, to: IpAddr) -> bool {
    let private = match (net.addr(), net.prefix_len()) {
        (IpAddr::V4(first), len) => match first.octets() {
            [10, ..] => len >= 8,
            [172, second, ..] => len >= 12 && second & 0xf0 == 16,
            [192, 168, ..] | [169, 254, ..] => len >= 16,
            [100, second, ..] => len >= 10 && second & 0xc0 == 64,
            _ => false,
        },
        (IpAddr::V6(first), len) => {
            let first = first.segments()[0];
            len >= 7 && first & 0xfe00 == 0xfc00 || len >= 10 && first & 0xffc0 == 0xfe80
        }
    };
    private && net.contains(&to)
}

//! The slow answer: what the documentation promises, prefix by prefix, without tables or tries.

use std::net::IpAddr;

use adit_core::route::Way;
use ipnet::IpNet;

use crate::case::Case;

/// Which way a program's packet to `destination` goes.
pub(crate) fn way(case: &Case, destination: IpAddr) -> Way {
    let way = routed(case, destination, false);
    if way == Way::Underlay && case.kill_switch {
        let let_out = case.excluded.iter().chain(&local_networks(case)).any(|net| net.contains(&destination));
        return if let_out { way } else { Way::Blocked };
    }
    way
}

/// Which way a datagram of the tunnel's own to `destination` goes, marked as it is.
pub(crate) fn datagram(case: &Case, destination: IpAddr) -> Way {
    routed(case, destination, true)
}

fn routed(case: &Case, destination: IpAddr, marked: bool) -> Way {
    let own = case.tunnel.iter().chain(&case.underlay).any(|own| own.addr() == destination);
    if own || destination.is_loopback() {
        return Way::Host;
    }
    // Broadcasts belong to the link, whatever routes there are.
    let broadcasts = |owns: &[IpNet]| owns.iter().any(|own| is_broadcast(*own, destination));
    if broadcasts(&case.tunnel) {
        return tunnel(case, destination);
    }
    if broadcasts(&case.underlay) {
        return Way::Underlay;
    }
    if is_strict(case) {
        // The user's own rule for a table of a number knows no mark.
        let asks = !marked || case.table.is_some();
        let included = longest(case.allowed.iter().map(|(net, _)| net), destination);
        let mut exceptions = case.excluded.clone();
        exceptions.extend(local_networks(case));
        exceptions.push("fe80::/10".parse().unwrap());
        let excepted = longest(&exceptions, destination);
        if asks && included.is_some() && included >= excepted {
            return tunnel(case, destination);
        }
        return main(case, destination, &[]);
    }
    let (defaults, others): (Vec<IpNet>, Vec<IpNet>) =
        case.allowed.iter().map(|(net, _)| *net).partition(|net| net.prefix_len() == 0);
    // Anything more specific than a default route in main comes first, marked or not.
    match main(case, destination, &others) {
        Way::Underlay if !more_specific(case, destination) && !marked && longest(&defaults, destination).is_some() => {
            tunnel(case, destination)
        }
        way => way,
    }
}

/// What main says with `added` routes into the tunnel in it.
fn main(case: &Case, destination: IpAddr, added: &[IpNet]) -> Way {
    let tunnel_networks = networks(&case.tunnel);
    let into = longest(added, destination).max(longest(&tunnel_networks, destination));
    let out = longest(case.main.iter().chain(&networks(&case.underlay)), destination);
    if into > out { tunnel(case, destination) } else { Way::Underlay }
}

fn more_specific(case: &Case, destination: IpAddr) -> bool {
    longest(case.main.iter().chain(&networks(&case.underlay)), destination).is_some()
}

fn tunnel(case: &Case, destination: IpAddr) -> Way {
    let longest = longest(case.allowed.iter().map(|(net, _)| net), destination);
    let mut claims =
        case.allowed.iter().filter(|(net, _)| net.contains(&destination) && Some(net.prefix_len()) == longest);
    claims.next_back().map_or(Way::NoPeer, |(_, peer)| Way::Tunnel { peer: *peer })
}

fn is_strict(case: &Case) -> bool {
    let loops = |endpoint: &IpAddr| case.allowed.iter().any(|(net, _)| net.prefix_len() > 0 && net.contains(endpoint));
    case.table.is_some() || case.is_asked() || case.endpoints.iter().any(loops)
}

/// The connected networks that may be reached beside the tunnel.
fn local_networks(case: &Case) -> Vec<IpNet> {
    let in_table_alone = case.table.is_some() && !case.is_asked();
    if in_table_alone || !case.local.unwrap_or(!case.kill_switch) {
        return Vec::new();
    }
    let private =
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"];
    let private: Vec<IpNet> = private.iter().map(|text| text.parse().unwrap()).collect();
    let is_private = |net: &IpNet| private.iter().any(|around| around.contains(net));
    networks(&case.underlay).into_iter().filter(is_private).collect()
}

/// The networks of addresses, but for those that consist of one address.
fn networks(owns: &[IpNet]) -> Vec<IpNet> {
    owns.iter().filter(|own| own.prefix_len() < own.max_prefix_len()).map(IpNet::trunc).collect()
}

/// The length of the longest prefix that contains an address.
fn longest<'a>(nets: impl IntoIterator<Item = &'a IpNet>, destination: IpAddr) -> Option<u8> {
    nets.into_iter().filter(|net| net.contains(&destination)).map(IpNet::prefix_len).max()
}

/// RFC 919; there is none of a network of two addresses (RFC 3021) or one.
fn is_broadcast(own: IpNet, destination: IpAddr) -> bool {
    matches!(own, IpNet::V4(_)) && own.prefix_len() < 31 && own.broadcast() == destination
}

//! Which packets the kernel is to be asked about.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::facts::{Facts, Purpose, Question};
use crate::journal::Via;
use crate::settings::Family;

/// The questions that the checks need answers to.
pub(super) fn questions(facts: &Facts) -> Vec<Question> {
    let mark = facts.mark();
    let endpoints = endpoints(facts).into_iter().map(|to| Question { to, mark, purpose: Purpose::Endpoint });
    let asked = |(net, ip)| Question { to: SocketAddr::new(ip, 0), mark: 0, purpose: Purpose::Carried(net) };
    let servers = facts.name_servers.iter().filter(|server| !server.is_loopback());
    let servers = servers.map(|&ip| Question { to: SocketAddr::new(ip, 53), mark: 0, purpose: Purpose::NameServer });
    endpoints.chain(samples(facts).into_iter().map(asked)).chain(servers).collect()
}

/// Where the peers are: what the daemon says, else those of the file that are addresses.
pub(super) fn endpoints(facts: &Facts) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    let told = facts.status().map(|status| status.peers.iter().filter_map(|peer| peer.endpoint));
    let endpoints: Vec<SocketAddr> = match (told, &facts.config) {
        (Some(told), _) => told.collect(),
        (None, Ok(config)) => {
            let named = config.peers.iter().filter_map(|peer| peer.endpoint.as_ref());
            named.filter_map(|endpoint| endpoint.to_string().parse().ok()).collect()
        }
        (None, Err(_)) => Vec::new(),
    };
    let one_each = endpoints.into_iter().filter(|endpoint| seen.insert(endpoint.ip().to_canonical()));
    one_each.take(MAX_ENDPOINTS).map(canonical).collect()
}

/// An address of each prefix that the tunnel is to carry, of those that nothing else has a claim on.
fn samples(facts: &Facts) -> Vec<(IpNet, IpAddr)> {
    let in_force = &facts.in_force;
    let index = facts.index();
    let mut claims: Vec<IpNet> =
        in_force.routes.iter().filter(|route| route.via == Via::Throw).map(|route| route.destination).collect();
    if let Ok(kernel) = &facts.kernel {
        claims.extend(kernel.addresses.iter().map(|found| IpNet::from(found.address.addr())));
        // Whoever may go before the tunnel has a check of its own.
        if in_force.main_first() || in_force.rules.is_empty() {
            claims.extend(kernel.specific_in_main(index).map(|route| route.destination));
        }
    }
    let carried: Vec<IpNet> = in_force.carried().map(|route| route.destination).collect();
    let mut samples = Vec::new();
    for &net in carried.iter().take(MAX_SAMPLES) {
        let claimed = |ip: &IpAddr| {
            claims.iter().any(|claim| claim.prefix_len() >= net.prefix_len() && claim != &net && claim.contains(ip))
        };
        samples.extend(candidates(net).into_iter().find(|ip| !claimed(ip)).map(|ip| (net, ip)));
    }
    samples
}

/// Addresses of a prefix to choose from.
fn candidates(net: IpNet) -> Vec<IpAddr> {
    if net.prefix_len() == 0 {
        return match Family::of(&net) {
            Family::Ipv4 => SAMPLES_IPV4.map(IpAddr::V4).to_vec(),
            Family::Ipv6 => SAMPLES_IPV6.map(IpAddr::V6).to_vec(),
        };
    }
    let (first, last) = (net.network(), net.broadcast());
    // The first and the last address of an IPv4 network may be its broadcast addresses.
    let steps: &[i128] = if net.max_prefix_len() - net.prefix_len() < 2 { &[0, 1] } else { &[1, 2, -1, -2] };
    let moved = |step: i128| {
        let from = if step < 0 { last } else { first };
        match from {
            IpAddr::V4(ip) => {
                u32::try_from(i128::from(ip.to_bits()) + step).ok().map(|bits| Ipv4Addr::from(bits).into())
            }
            IpAddr::V6(ip) => Some(Ipv6Addr::from(ip.to_bits().wrapping_add_signed(step)).into()),
        }
    };
    steps.iter().filter_map(|&step| moved(step)).filter(|ip| net.contains(ip)).collect()
}

fn canonical(endpoint: SocketAddr) -> SocketAddr {
    match endpoint.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), endpoint.port()),
        IpAddr::V6(_) => endpoint,
    }
}

/// A hub may have 65 536 peers; they leave by the same few ways.
const MAX_ENDPOINTS: usize = 64;
const MAX_SAMPLES: usize = 64;

/// Addresses that nobody has, so that nobody has a route of his own for them: RFC 5737, and RFC 2544's for good measure.
const SAMPLES_IPV4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(203, 0, 113, 1),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(198, 18, 0, 1),
];
/// The same for IPv6: RFC 3849, and one in the middle of what is given out (RFC 4291 section 2.4).
const SAMPLES_IPV6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2f00, 0, 0, 0, 0, 0, 0, 1)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::sample;

    fn asked(facts: &Facts) -> Vec<(IpAddr, Purpose)> {
        questions(facts).into_iter().map(|question| (question.to.ip(), question.purpose)).collect()
    }

    #[test]
    fn a_full_tunnel_is_asked_about_its_endpoint_and_an_address_of_each_family() {
        let facts = sample::full();
        let all: IpNet = "0.0.0.0/0".parse().unwrap();
        let all6: IpNet = "::/0".parse().unwrap();
        let expected = [
            ("198.51.100.9".parse().unwrap(), Purpose::Endpoint),
            ("203.0.113.1".parse().unwrap(), Purpose::Carried(all)),
            ("2001:db8::1".parse().unwrap(), Purpose::Carried(all6)),
        ];
        assert_eq!(asked(&facts), expected);
        assert_eq!(questions(&facts)[0].mark, 51820);
        assert_eq!(questions(&facts)[1].mark, 0);
    }

    #[test]
    fn what_something_else_has_a_claim_on_is_not_asked_about() {
        let mut facts = sample::full();
        facts.in_force.routes.push(sample::throw("203.0.113.0/24"));
        sample::kernel(&mut facts).routes.push(sample::main_route("192.0.2.0/25", 2, None));
        assert_eq!(asked(&facts)[1].0, "198.51.100.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn candidates_are_hosts_of_the_prefix() {
        for (net, expected) in [
            ("10.1.2.0/24", vec!["10.1.2.1", "10.1.2.2", "10.1.2.254", "10.1.2.253"]),
            ("10.1.2.3/32", vec!["10.1.2.3"]),
            ("10.1.2.2/31", vec!["10.1.2.2", "10.1.2.3"]),
            ("255.255.255.255/32", vec!["255.255.255.255"]),
            ("fd00::/64", vec!["fd00::1", "fd00::2", "fd00::ffff:ffff:ffff:fffe", "fd00::ffff:ffff:ffff:fffd"]),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", vec!["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(candidates(net.parse().unwrap()), expected, "{net}");
        }
    }
}

//! A random host with a random tunnel, and destinations that tell right answers from nearly right ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::IpNet;

/// A host and a tunnel on it.
#[derive(Debug)]
pub(crate) struct Case {
    /// Prefix and peer, in the order of the file.
    pub(crate) allowed: Vec<(IpNet, usize)>,
    pub(crate) excluded: Vec<IpNet>,
    pub(crate) local: Option<bool>,
    pub(crate) kill_switch: bool,
    pub(crate) table: Option<u32>,
    pub(crate) endpoints: Vec<IpAddr>,
    /// The tunnel's addresses.
    pub(crate) tunnel: Vec<IpNet>,
    /// The host's other addresses.
    pub(crate) underlay: Vec<IpNet>,
    /// What else the host has routes to.
    pub(crate) main: Vec<IpNet>,
}

impl Case {
    pub(crate) fn random(random: &mut Rng) -> Self {
        let mut tunnel = Vec::new();
        for choices in [["10.9.0.2/24", "10.9.0.2/32"], ["fd09::2/64", "fd09::2/128"]] {
            tunnel.push(random.choice(choices).unwrap().parse().unwrap());
        }
        let mut underlay: Vec<IpNet> = ALWAYS.iter().map(|text| text.parse().unwrap()).collect();
        underlay.extend(some(random, SOMETIMES, 3));
        let mut main = some(random, FOREIGN, 3);
        let (mut allowed, mut excluded) = (Vec::<(IpNet, usize)>::new(), Vec::<IpNet>::new());
        if random.bool() {
            allowed.extend(some(random, &["0.0.0.0/0", "::/0"], 2).into_iter().map(|net| (net, random.usize(..4))));
        }
        let mut pool: Vec<IpNet> = underlay.iter().chain(&main).chain(&tunnel).map(IpNet::trunc).collect();
        for _ in 0..random.usize(1..14) {
            let net = near(random, &pool);
            pool.push(net);
            allowed.push((net, random.usize(..4)));
        }
        let plain = random.u8(..3) == 0;
        if !plain {
            for _ in 0..random.usize(..10) {
                let net = near(random, &pool);
                pool.push(net);
                if net.prefix_len() > 0 && !allowed.iter().any(|(other, _)| *other == net) {
                    excluded.push(net);
                }
            }
        }
        let local = if plain { None } else { *random.choice(&[None, Some(true), Some(false)]).unwrap() };
        let kill_switch = !plain && random.u8(..3) == 0;
        let table = (random.u8(..5) == 0).then_some(4321);
        // Half of them inside what the tunnel claims.
        let endpoints = (0..random.usize(..3)).map(|_| {
            let nets: Vec<IpNet> = allowed.iter().map(|(net, _)| *net).filter(|net| net.prefix_len() > 0).collect();
            match random.choice(&nets) {
                Some(net) if random.bool() => inside(random, *net),
                _ => *random.choice(&["203.0.113.7".parse().unwrap(), "2001:db8:7::7".parse().unwrap()]).unwrap(),
            }
        });
        let endpoints = endpoints.collect::<Vec<_>>();
        let own: Vec<IpAddr> = underlay.iter().chain(&tunnel).map(IpNet::addr).collect();
        let endpoints =
            endpoints.into_iter().filter(|endpoint| !own.contains(endpoint) && is_plain(*endpoint)).collect();
        let connected: Vec<IpNet> = underlay.iter().chain(&tunnel).map(IpNet::trunc).collect();
        main.retain(|net| !connected.contains(net));
        main.sort();
        main.dedup();
        Self { allowed, excluded, local, kill_switch, table, endpoints, tunnel, underlay, main }
    }

    /// Whether one of the keys is used that wg-quick does not know.
    pub(crate) fn is_asked(&self) -> bool {
        !self.excluded.is_empty() || self.local.is_some() || self.kill_switch
    }

    /// Addresses at the edges of all prefixes, inside and outside, and some anywhere.
    pub(crate) fn destinations(&self, random: &mut Rng, count: usize) -> Vec<IpAddr> {
        let nets = self.allowed.iter().map(|(net, _)| *net).chain(self.excluded.iter().copied());
        let nets = nets.chain(self.underlay.iter().chain(&self.main).chain(&self.tunnel).copied());
        let mut found: Vec<IpAddr> = self.endpoints.clone();
        for net in nets.collect::<Vec<_>>() {
            let (first, last) = span(net);
            let v6 = net.addr().is_ipv6();
            let edges = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
            found.extend(edges.into_iter().flatten().filter_map(|bits| address(bits, v6)));
            found.extend([net.addr(), inside(random, net), inside(random, net)]);
        }
        found.retain(|address| is_plain(*address));
        random.shuffle(&mut found);
        found.truncate(count * 3 / 4);
        while found.len() < count {
            let bits = random.u128(..);
            let anywhere = if random.bool() {
                IpAddr::from(Ipv4Addr::from(bits as u32))
            } else {
                // Half of all addresses are where nobody lives: 2000::/4 and fc00::/7 are.
                let top = if random.bool() { 0x2000_u128 << 112 } else { 0xfd00_u128 << 112 };
                Ipv6Addr::from(bits >> 8 | top).into()
            };
            found.extend(Some(anywhere).filter(|address| is_plain(*address)));
        }
        found
    }
}

/// Whether an address is asked for by routes alone: not "this network", no broadcast to all, no multicast, and no
/// link-local one, of which one must say on which link.
fn is_plain(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 224..=255),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && v6.to_ipv4().is_none() && !is_link_local(v6),
    }
}

fn is_link_local(v6: Ipv6Addr) -> bool {
    v6.segments()[0] & 0xffc0 == 0xfe80
}

/// A prefix that has to do with one of `pool`: inside it, around it, or beside it; or one of its own.
fn near(random: &mut Rng, pool: &[IpNet]) -> IpNet {
    let base = *random.choice(pool).unwrap();
    let max = base.max_prefix_len();
    let length = match random.u8(..4) {
        0 => base.prefix_len().saturating_sub(random.u8(1..9)).max(1),
        1 => base.prefix_len(),
        _ => (base.prefix_len() + random.u8(1..9)).min(max),
    };
    let anywhere = inside(random, base);
    let (bits, v6) = bits(anywhere);
    // Beside it: the other half of what is around.
    let sibling = random.u8(..4) == 0;
    let flipped = if sibling { bits ^ (1 << (max - base.prefix_len().max(1))) } else { bits };
    let address = address(flipped, v6).unwrap_or(anywhere);
    IpNet::new(address, length).unwrap().trunc()
}

fn inside(random: &mut Rng, net: IpNet) -> IpAddr {
    let (first, last) = span(net);
    address(random.u128(first..=last), net.addr().is_ipv6()).unwrap()
}

/// The first and the last address, as numbers.
pub(crate) fn span(net: IpNet) -> (u128, u128) {
    (bits(net.network()).0, bits(net.broadcast()).0)
}

pub(crate) fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (u32::from(v4).into(), false),
        IpAddr::V6(v6) => (v6.into(), true),
    }
}

fn address(bits: u128, v6: bool) -> Option<IpAddr> {
    if v6 {
        Some(Ipv6Addr::from(bits).into())
    } else {
        u32::try_from(bits).ok().map(|bits| Ipv4Addr::from(bits).into())
    }
}

fn some(random: &mut Rng, texts: &[&str], most: usize) -> Vec<IpNet> {
    let count = random.usize(..=most.min(texts.len()));
    random.choose_multiple(texts.iter(), count).into_iter().map(|text| text.parse().unwrap()).collect()
}

/// Addresses of the host: with the gateways in them, and a private network.
const ALWAYS: &[&str] = &["198.51.100.2/24", "2001:db8:0:1::2/64", "192.168.7.2/24", "fd07::2/64"];

/// Further ones: private, public, and a host address.
const SOMETIMES: &[&str] = &[
    "172.20.0.2/14",
    "100.64.3.2/30",
    "192.0.2.2/25",
    "203.0.113.130/26",
    "10.44.0.2/32",
    "fd44::2/48",
    "2001:db8:5::2/56",
];

/// Routes that others have added: halves of everything, a DHCP server's, a person's.
const FOREIGN: &[&str] = &[
    "0.0.0.0/1",
    "128.0.0.0/1",
    "10.0.0.0/8",
    "10.128.0.0/9",
    "203.0.113.0/24",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "2000::/3",
    "fc00::/7",
    "fd10::/32",
    "2001:db8:5::/48",
];

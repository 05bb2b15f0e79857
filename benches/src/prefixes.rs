//! Tables of allowed IPs with the mix of prefix lengths that large tables have, and addresses to look up in them.
//!
//! The mix is that of the Internet's routing tables (about 60 % of IPv4 are /24, about half of IPv6 are /48 and most of
//! the others /32 to /44, and IPv6 lies within 2000::/3 in blocks of registries and providers), with a share of host
//! routes, which is what a VPN's peers have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_core::route::AllowedIps;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Numbers of prefixes for which a lookup is measured: one peer, a company, a provider, the goal.
pub const COUNTS: [usize; 4] = [1, 100, 10_000, 100_000];

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// For names of benchmarks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// A table, and addresses that are in it and that are not.
#[derive(Debug)]
pub struct Routes {
    /// The table.
    pub table: AllowedIps<u32>,
    /// Addresses that lie in some prefix.
    pub hits: Vec<IpAddr>,
    /// Addresses that lie in none, half of them next to a prefix.
    pub misses: Vec<IpAddr>,
}

impl Routes {
    /// Makes a table of `count` prefixes.
    pub fn new(family: Family, count: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(count as u64);
        let mut table = AllowedIps::new();
        let mut nets = Vec::with_capacity(count);
        while table.len() < count {
            let net = net(family, &mut rng);
            table.insert(net, nets.len() as u32);
            nets.push(net);
        }
        let hits = (0..PROBES).map(|_| within(nets[rng.usize(..nets.len())], &mut rng)).collect();
        let mut misses = Vec::with_capacity(PROBES);
        while misses.len() < PROBES {
            let near = nets[rng.usize(..nets.len())];
            let probe = if rng.bool() { beside(near) } else { within(net(family, &mut rng), &mut rng) };
            misses.extend(table.lookup(probe).is_none().then_some(probe));
        }
        Self { table, hits, misses }
    }
}

/// One prefix of the mix.
fn net(family: Family, rng: &mut fastrand::Rng) -> IpNet {
    let percent = rng.u8(..100);
    match family {
        Family::V4 => {
            let len = match percent {
                0..55 => 24,
                55..80 => rng.u8(20..24),
                80..90 => rng.u8(12..20),
                _ => 32,
            };
            // Unicast: 1.0.0.0 to 223.255.255.255.
            let address = Ipv4Addr::from(rng.u32(0x0100_0000..0xe000_0000));
            Ipv4Net::new(address, len).unwrap().trunc().into()
        }
        Family::V6 => {
            let len = match percent {
                0..45 => 48,
                45..75 => rng.u8(32..48),
                75..85 => rng.u8(29..=32),
                85..90 => 64,
                _ => 128,
            };
            // Blocks of the registries, in which providers have /32s; a provider's own addresses begin at its lowest.
            let block = [0x2001_u128, 0x2400, 0x2600, 0x2803, 0x2a00, 0x2c0f][rng.usize(..6)];
            let address = block << 112 | u128::from(rng.u16(..4096)) << 96 | u128::from(rng.u32(..)) << 64;
            let address = address | u128::from(rng.u16(..));
            Ipv6Net::new(Ipv6Addr::from(address), len).unwrap().trunc().into()
        }
    }
}

/// An address in a prefix.
fn within(net: IpNet, rng: &mut fastrand::Rng) -> IpAddr {
    match net {
        IpNet::V4(net) => Ipv4Addr::from(net.addr().to_bits() | (rng.u32(..) & net.hostmask().to_bits())).into(),
        IpNet::V6(net) => Ipv6Addr::from(net.addr().to_bits() | (rng.u128(..) & net.hostmask().to_bits())).into(),
    }
}

/// The address before a prefix.
fn beside(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => Ipv4Addr::from(net.addr().to_bits().wrapping_sub(1)).into(),
        IpNet::V6(net) => Ipv6Addr::from(net.addr().to_bits().wrapping_sub(1)).into(),
    }
}

/// Addresses to look up, a power of two; more than a branch predictor learns by heart.
const PROBES: usize = 4096;

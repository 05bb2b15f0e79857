//! Prefixes and addresses from a small space, so that they nest, touch and collide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_core::route::RouteInputs;
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

/// Bits that are set or not in an address: at both ends, and such that private and public prefixes come up.
const BITS_V4: [u32; 8] = [31, 29, 27, 25, 16, 8, 1, 0];
const BITS_V6: [u32; 8] = [127, 126, 125, 121, 96, 64, 1, 0];

/// An address made of a few bits, or of all.
pub(crate) fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => any::<u8>().prop_map(|bits| v4(spread(bits, BITS_V4) as u32)),
        4 => any::<u8>().prop_map(|bits| v6(spread(bits, BITS_V6))),
        1 => prop_oneof![Just(v4(0)), Just(v4(u32::MAX)), Just(v6(0)), Just(v6(u128::MAX))],
        1 => any::<u32>().prop_map(v4),
        1 => any::<u128>().prop_map(v6),
        1 => any::<u8>().prop_map(|low| v4(0xc0a8_0100 | u32::from(low))),
        1 => any::<u8>().prop_map(|low| v6(0xfe80 << 112 | u128::from(low))),
    ]
}

/// A prefix of such an address; lengths at both ends are frequent.
pub(crate) fn prefix() -> impl Strategy<Value = IpNet> {
    let len = prop_oneof![Just(0u8), Just(1), Just(128), 0u8..12, 0u8..=128];
    (address(), len).prop_map(|(address, len)| {
        let max = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, len.min(max)).unwrap()
    })
}

/// Inputs of a model, with no prefix both allowed and excluded.
pub(crate) fn inputs() -> impl Strategy<Value = RouteInputs> {
    let lists = (
        vec((prefix(), 0..3usize), 0..8),
        vec(prefix(), 0..6),
        vec(prefix(), 0..4),
        vec(prefix(), 0..4),
        vec(prefix(), 0..3),
        vec(prefix(), 0..3),
        vec(address(), 0..2),
    );
    let flags = (proptest::option::of(any::<bool>()), any::<bool>());
    (lists, flags).prop_map(|((allowed, excluded, connected, main, tunnel, underlay, endpoints), (local, kill))| {
        let is_allowed = |net: &IpNet| allowed.iter().any(|(other, _)| other.trunc() == net.trunc());
        RouteInputs {
            excluded: excluded.into_iter().filter(|net| !is_allowed(net)).collect(),
            allowed,
            exclude_local_networks: local,
            kill_switch: kill,
            connected,
            main,
            tunnel_addresses: tunnel,
            underlay_addresses: underlay,
            endpoints,
        }
    })
}

/// The ends of prefixes and the addresses beside them: where answers change.
pub(crate) fn edges(nets: impl IntoIterator<Item = IpNet>) -> Vec<IpAddr> {
    nets.into_iter()
        .flat_map(|net| match (net.network(), net.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let (first, last) = (first.to_bits(), last.to_bits());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(v4)
            }
            (first, last) => {
                let bits = |address| match address {
                    IpAddr::V4(address) => u128::from(Ipv4Addr::to_bits(address)),
                    IpAddr::V6(address) => address.to_bits(),
                };
                let (first, last) = (bits(first), bits(last));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(v6)
            }
        })
        .collect()
}

fn v4(bits: u32) -> IpAddr {
    Ipv4Addr::from_bits(bits).into()
}

fn v6(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).into()
}

fn spread(bits: u8, to: [u32; 8]) -> u128 {
    to.iter().enumerate().map(|(at, shift)| u128::from(bits >> at & 1) << shift).sum()
}

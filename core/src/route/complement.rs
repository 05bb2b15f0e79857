//! Prefixes as ranges of addresses: what is left of included prefixes without the excluded ones.
//!
//! For systems that know no exclusions. A range is a pair of numbers, both ends in it, so that the last address of the
//! space needs no number beyond it. Everything here is one pass over sorted prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};

use super::decision::RouteModelError;

/// The fewest prefixes that cover exactly the addresses whose longest prefix among both lists is an included one.
///
/// Prefixes nest to any depth: an included one inside an excluded one is included again. Host bits are ignored. The
/// answer is sorted, IPv4 first, and no two of its prefixes share an address or could be one. The cost is that of sorting
/// the input; a prefix of the input adds at most as many to the answer as it has bits.
///
/// # Errors
/// [`RouteModelError::IncludedAndExcluded`] if a prefix is in both lists.
pub fn complement(included: &[IpNet], excluded: &[IpNet]) -> Result<Vec<IpNet>, RouteModelError> {
    let included_nets = included.iter().map(|net| (net.trunc(), true));
    let mut nets: Vec<_> = included_nets.chain(excluded.iter().map(|net| (net.trunc(), false))).collect();
    nets.sort_unstable_by_key(|(net, is_included)| (net.addr(), net.prefix_len(), *is_included));
    nets.dedup();
    if let Some(pair) = nets.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(RouteModelError::IncludedAndExcluded { net: pair[0].0 });
    }
    let families = nets.partition_point(|(net, _)| matches!(net, IpNet::V4(_)));
    let (v4, v6) = nets.split_at(families);
    let is_v6 = [false, true];
    Ok([v4, v6].iter().zip(is_v6).flat_map(|(nets, is_v6)| prefixes(winners(nets), is_v6)).collect())
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first and the last address of a prefix, as numbers.
pub(super) fn span(net: &IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

/// The address that a number stands for; in IPv4, only the low 32 bits count.
pub(super) fn address(number: u128, is_v6: bool) -> IpAddr {
    if is_v6 { Ipv6Addr::from_bits(number).into() } else { Ipv4Addr::from_bits(number as u32).into() }
}

/// The fewest prefixes that make up ranges; ranges that touch have to be one already.
pub(super) fn prefixes(ranges: impl IntoIterator<Item = (u128, u128)>, is_v6: bool) -> impl Iterator<Item = IpNet> {
    ranges.into_iter().flat_map(move |(first, last)| {
        if is_v6 {
            IpSubnets::V6(Ipv6Subnets::new(Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last), 0))
        } else {
            IpSubnets::V4(Ipv4Subnets::new(Ipv4Addr::from_bits(first as u32), Ipv4Addr::from_bits(last as u32), 0))
        }
    })
}

/// The ranges in which the longest prefix is marked, from prefixes of one family, sorted and without equals.
fn winners(nets: &[(IpNet, bool)]) -> Vec<(u128, u128)> {
    let mut ranges = Ranges::default();
    // The prefixes that are open at the cursor, each inside the one before.
    let mut open: Vec<(u128, bool)> = Vec::new();
    let mut cursor = 0;
    for (net, wins) in nets {
        let (first, last) = span(net);
        while let Some((end, wins)) = open.pop_if(|(end, _)| *end < first) {
            ranges.push(cursor, end, wins);
            // It ends before `first`, so there is an address behind it.
            cursor = cursor.max(end + 1);
        }
        if let Some((_, wins)) = open.last()
            && cursor < first
        {
            ranges.push(cursor, first - 1, *wins);
        }
        cursor = first;
        open.push((last, *wins));
    }
    while let Some((end, wins)) = open.pop() {
        ranges.push(cursor, end, wins);
        match end.checked_add(1) {
            Some(next) => cursor = cursor.max(next),
            None => break,
        }
    }
    ranges.0
}

/// Ranges in rising order, of which those that touch are joined.
#[derive(Default)]
struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    fn push(&mut self, first: u128, last: u128, wins: bool) {
        if !wins || first > last {
            return;
        }
        match self.0.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => self.0.push((first, last)),
        }
    }
}

//! Routing tables of any size, and what a look-up in them costs.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use adit_core::route::AllowedIps;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::bench::allocations::Allocations;
use crate::bench::sampling::Cost;
use crate::failure::{Failure, Outcome};
use crate::watch::Watch;

/// So many different IPv4 prefixes, of lengths as in the Internet's routing table: more than half are /24, most of the
/// rest /20 to /23 (Huston, "BGP in 2024").
pub(super) fn ipv4(count: usize, rng: &mut fastrand::Rng) -> Outcome<Vec<Ipv4Net>> {
    distinct(count, || {
        let length = match rng.u8(..100) {
            0..60 => 24,
            60..90 => rng.u8(20..24),
            _ => rng.u8(16..20),
        };
        // From 16.0.0.0 to 191.255.255.255, clear of the hub's own address.
        let address = rng.u32(0x1000_0000..0xc000_0000);
        Ok(Ipv4Net::new(address.into(), length).map_err(Failure::failed)?.trunc())
    })
}

/// So many different IPv6 prefixes: half of them /48, the rest /32 to /47.
fn ipv6(count: usize, rng: &mut fastrand::Rng) -> Outcome<Vec<Ipv6Net>> {
    distinct(count, || {
        let length = if rng.bool() { 48 } else { rng.u8(32..48) };
        // 2000::/3 is what has been given out.
        let address = Ipv6Addr::from(rng.u128(..) >> 3 | 1 << 125);
        Ok(Ipv6Net::new(address, length).map_err(Failure::failed)?.trunc())
    })
}

fn distinct<T: Copy + Eq + std::hash::Hash>(count: usize, mut make: impl FnMut() -> Outcome<T>) -> Outcome<Vec<T>> {
    let mut known = HashSet::with_capacity(count);
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let net = make()?;
        if known.insert(net) {
            all.push(net);
        }
    }
    Ok(all)
}

/// A table and addresses that are in it.
pub(super) struct Table {
    table: AllowedIps<u32>,
    targets: Vec<IpAddr>,
    /// Bytes that the table holds.
    pub(super) memory: u64,
}

impl Table {
    pub(super) fn with_ipv4(count: usize, rng: &mut fastrand::Rng) -> Outcome<Self> {
        let nets: Vec<IpNet> = ipv4(count, rng)?.into_iter().map(IpNet::V4).collect();
        Ok(Self::new(&nets, rng))
    }

    pub(super) fn with_ipv6(count: usize, rng: &mut fastrand::Rng) -> Outcome<Self> {
        let nets: Vec<IpNet> = ipv6(count, rng)?.into_iter().map(IpNet::V6).collect();
        Ok(Self::new(&nets, rng))
    }

    fn new(nets: &[IpNet], rng: &mut fastrand::Rng) -> Self {
        let before = Allocations::now().held;
        let mut table = AllowedIps::new();
        for (owner, net) in (0..).zip(nets) {
            table.insert(*net, owner);
        }
        let memory = u64::try_from(Allocations::now().held - before).unwrap_or(0);
        let mut targets: Vec<IpAddr> = nets
            .iter()
            .map(|net| match net {
                IpNet::V4(net) => {
                    IpAddr::from(Ipv4Addr::from(u32::from(net.network()) | rng.u32(..) & u32::from(net.hostmask())))
                }
                IpNet::V6(net) => {
                    IpAddr::from(Ipv6Addr::from(u128::from(net.network()) | rng.u128(..) & u128::from(net.hostmask())))
                }
            })
            .collect();
        rng.shuffle(&mut targets);
        targets.truncate(TARGETS);
        Self { table, targets, memory }
    }

    /// Looks addresses up for a while.
    pub(super) fn look_up(&self, duration: Duration, watch: &Watch) -> Outcome<Cost> {
        let mut cost = Cost::default();
        let begun = Instant::now();
        while begun.elapsed() < duration || cost.packets == 0 {
            watch.check()?;
            let mut missed = 0;
            cost.add(|| {
                let repeated = self.targets.iter().cycle().take(LOOK_UPS);
                for address in repeated {
                    missed += u64::from(std::hint::black_box(self.table.lookup(*address)).is_none());
                }
                Ok(LOOK_UPS as u64)
            })?;
            if missed > 0 {
                return Err(Failure::failed("an address was not found in the table that it is in"));
            }
        }
        Ok(cost)
    }
}

/// Look-ups of a batch, and different addresses at most.
const LOOK_UPS: usize = 1 << 16;
const TARGETS: usize = LOOK_UPS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_distinct_and_each_is_found() {
        let mut rng = fastrand::Rng::with_seed(7);
        for count in [1, 100, 3000] {
            let nets: HashSet<_> = ipv4(count, &mut rng).unwrap().into_iter().collect();
            assert!(nets.len() == count && nets.iter().all(|net| *net == net.trunc() && net.prefix_len() >= 16));
            for table in [Table::with_ipv4(count, &mut rng).unwrap(), Table::with_ipv6(count, &mut rng).unwrap()] {
                assert_eq!((table.table.len(), table.targets.len()), (count, count));
                assert!(table.targets.iter().all(|target| table.table.lookup(*target).is_some()));
                assert!(table.memory >= count as u64 * 4, "{} bytes for {count} prefixes", table.memory);
            }
        }
        let table = Table::with_ipv4(10, &mut rng).unwrap();
        let cost = table.look_up(Duration::ZERO, &Watch::default()).unwrap();
        assert_eq!((cost.packets, cost.allocations()), (LOOK_UPS as u64, 0.0));
    }
}

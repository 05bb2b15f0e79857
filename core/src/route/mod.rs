//! Longest-prefix tables, and what becomes of an address by all that has a say in it.
//!
//! [`AllowedIps`] is WireGuard's cryptokey routing: one table over all peers, in which every prefix belongs to the last
//! peer that claimed it. It answers both questions, where a packet goes and whether a packet may come from a peer.
//!
//! [`RouteModel`] is the host's half of it, as a pure function: tunnel, underlay, the host itself or nowhere, and which
//! rule said so. It changes nothing in a system and asks nothing of one. [`decide_apple`] and [`lint_apple`] do the same for
//! a packet tunnel provider on Apple's systems.

mod apple;
mod apple_lint;
mod complement;
mod decision;
mod model;
mod trie;

pub use apple::{
    AppleAssumptions, AppleClass, AppleDecision, AppleDns, ApplePacket, ApplePlatform, AppleRule, AppleScope,
    AppleSettings, AppleStep, AppleWay, ExcludesWithEnforce, MAX_IPV6_PREFIX, SystemTable, decide_apple,
};
pub use apple_lint::{AppleLint, AppleUnderlay, lint_apple, search_list};
pub use complement::complement;
pub use decision::{Decision, Part, Partition, RouteModelError, Routing, Rule, RuleKind, Way};
pub use model::{RouteInputs, RouteModel, trusted_local};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use self::trie::{Prefix, Trie};

/// Which peer owns which prefix.
pub struct AllowedIps<T> {
    v4: Trie<u32, T>,
    v6: Trie<u128, T>,
}

impl<T: Copy + PartialEq> AllowedIps<T> {
    /// Makes an empty table.
    pub fn new() -> Self {
        Self { v4: Trie::new(), v6: Trie::new() }
    }

    /// Gives `net` to `owner`, taking it from whoever has exactly that prefix. Host bits of `net` are ignored.
    pub fn insert(&mut self, net: IpNet, owner: T) {
        match net {
            IpNet::V4(net) => self.v4.insert(prefix_v4(net), owner),
            IpNet::V6(net) => self.v6.insert(prefix_v6(net), owner),
        }
    }

    /// Takes `net` away if `owner` has exactly that prefix; says whether it had.
    pub fn remove(&mut self, net: IpNet, owner: T) -> bool {
        match net {
            IpNet::V4(net) => self.v4.get(prefix_v4(net)) == Some(owner) && self.v4.remove(prefix_v4(net)),
            IpNet::V6(net) => self.v6.get(prefix_v6(net)) == Some(owner) && self.v6.remove(prefix_v6(net)),
        }
    }

    /// Takes everything away from `owner`.
    pub fn remove_owner(&mut self, owner: T) {
        self.v4.retain(&|other| other != owner);
        self.v6.retain(&|other| other != owner);
    }

    /// The owner of the longest prefix that contains `address`.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(address) => self.v4.longest(address.to_bits()),
            IpAddr::V6(address) => self.v6.longest(address.to_bits()),
        }
    }

    /// Shows the owners of all prefixes that contain `address`, the shortest prefix first.
    pub fn covering(&self, address: IpAddr, mut visit: impl FnMut(T)) {
        match address {
            IpAddr::V4(address) => self.v4.covering(address.to_bits(), &mut visit),
            IpAddr::V6(address) => self.v6.covering(address.to_bits(), &mut visit),
        }
    }

    /// Every prefix with its owner, IPv4 first. They are collected at once.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, T)> + use<T> {
        let mut all = Vec::with_capacity(self.len());
        self.v4.for_each(&mut |Prefix { bits, len }, owner| {
            let net = Ipv4Net::new(Ipv4Addr::from_bits(bits), len as u8);
            all.extend(net.map(|net| (IpNet::V4(net), owner)));
        });
        self.v6.for_each(&mut |Prefix { bits, len }, owner| {
            let net = Ipv6Net::new(Ipv6Addr::from_bits(bits), len as u8);
            all.extend(net.map(|net| (IpNet::V6(net), owner)));
        });
        all.into_iter()
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether no prefix belongs to anyone.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Copy + PartialEq> Default for AllowedIps<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + PartialEq> std::fmt::Debug for AllowedIps<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AllowedIps").field("v4", &self.v4.len()).field("v6", &self.v6.len()).finish()
    }
}

fn prefix_v4(net: Ipv4Net) -> Prefix<u32> {
    Prefix { bits: net.network().to_bits(), len: net.prefix_len().into() }
}

fn prefix_v6(net: Ipv6Net) -> Prefix<u128> {
    Prefix { bits: net.network().to_bits(), len: net.prefix_len().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow oracle: a list, searched from end to end.
    #[derive(Default)]
    struct List(Vec<(IpNet, u8)>);

    impl List {
        fn insert(&mut self, net: IpNet, owner: u8) {
            let net = net.trunc();
            self.0.retain(|(other, _)| *other != net);
            self.0.push((net, owner));
        }

        fn lookup(&self, address: IpAddr) -> Option<u8> {
            self.0.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len()).map(|e| e.1)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(IpNet, u8),
        Remove(IpNet, u8),
        RemoveOwner(u8),
    }

    /// Addresses from a small space, so that prefixes nest and collide.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[bool; 6]>().prop_map(|b| {
                let bit = |i: usize, shift: u32| u32::from(b[i]) << shift;
                Ipv4Addr::from(bit(0, 31) | bit(1, 24) | bit(2, 23) | bit(3, 8) | bit(4, 1) | bit(5, 0)).into()
            }),
            any::<[bool; 6]>().prop_map(|b| {
                let bit = |i: usize, shift: u32| u128::from(b[i]) << shift;
                Ipv6Addr::from(bit(0, 127) | bit(1, 96) | bit(2, 64) | bit(3, 63) | bit(4, 1) | bit(5, 0)).into()
            }),
        ]
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (address(), 0u8..=128).prop_map(|(address, len)| {
            let max = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, len.min(max)).unwrap()
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (net(), 0u8..4).prop_map(|(net, owner)| Step::Insert(net, owner)),
            2 => (net(), 0u8..4).prop_map(|(net, owner)| Step::Remove(net, owner)),
            1 => (0u8..4).prop_map(Step::RemoveOwner),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(steps in proptest::collection::vec(step(), 0..60), probes in proptest::collection::vec(address(), 1..40)) {
            let (mut table, mut list) = (AllowedIps::new(), List::default());
            for step in steps {
                match step {
                    Step::Insert(net, owner) => {
                        table.insert(net, owner);
                        list.insert(net, owner);
                    }
                    Step::Remove(net, owner) => {
                        let had = list.0.iter().any(|entry| *entry == (net.trunc(), owner));
                        prop_assert_eq!(table.remove(net, owner), had);
                        list.0.retain(|entry| *entry != (net.trunc(), owner));
                    }
                    Step::RemoveOwner(owner) => {
                        table.remove_owner(owner);
                        list.0.retain(|entry| entry.1 != owner);
                    }
                }
            }
            for probe in probes {
                prop_assert_eq!(table.lookup(probe), list.lookup(probe), "{}", probe);
            }
            let mut all: Vec<_> = table.iter().collect();
            all.sort();
            list.0.sort();
            prop_assert_eq!(table.len(), all.len());
            prop_assert_eq!(all, list.0);
        }
    }

    #[test]
    fn the_last_claim_wins() {
        let mut table = AllowedIps::new();
        table.insert("10.0.0.0/8".parse().unwrap(), 1);
        table.insert("10.1.2.3/8".parse().unwrap(), 2);
        assert_eq!(table.lookup("10.9.9.9".parse().unwrap()), Some(2));
        assert!(!table.remove("10.0.0.0/8".parse().unwrap(), 1), "it is not peer 1's any more");
        assert_eq!(table.len(), 1);
    }
}

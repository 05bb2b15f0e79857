//! Included prefixes without excluded ones.

use adit_core::route::{RouteModelError, complement};
use ipnet::{IpNet, Ipv4Net};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{net, nets, strategy};

fn left(included: &[&str], excluded: &[&str]) -> Vec<String> {
    let left = complement(&nets(included), &nets(excluded)).unwrap();
    left.iter().map(ToString::to_string).collect()
}

#[test]
fn a_hole_in_everything() {
    assert_eq!(left(&["0.0.0.0/0"], &["128.0.0.0/1"]), ["0.0.0.0/1"]);
    assert_eq!(left(&["0.0.0.0/0"], &["0.0.0.0/2"]), ["64.0.0.0/2", "128.0.0.0/1"]);
    assert_eq!(left(&["::/0"], &["8000::/1", "4000::/2"]), ["::/2"]);
    let without_last = left(&["0.0.0.0/0"], &["255.255.255.255/32"]);
    assert_eq!(without_last.len(), 32);
    assert_eq!(without_last.last().map(String::as_str), Some("255.255.255.254/32"));
    let without_first = left(&["::/0"], &["::/128"]);
    assert_eq!(without_first.len(), 128);
    assert_eq!(without_first.first().map(String::as_str), Some("::1/128"));
}

#[test]
fn the_ends_of_the_space() {
    assert_eq!(left(&["0.0.0.0/0", "::/0"], &[]), ["0.0.0.0/0", "::/0"]);
    assert_eq!(left(&["255.255.255.255/32"], &[]), ["255.255.255.255/32"]);
    assert_eq!(left(&["0.0.0.0/32", "::/128"], &[]), ["0.0.0.0/32", "::/128"]);
    assert_eq!(left(&["0.0.0.0/1", "128.0.0.0/1"], &[]), ["0.0.0.0/0"], "what is one is written as one");
    assert_eq!(left(&["::/0", "ffff::/16"], &["ff00::/8"]).last().map(String::as_str), Some("ffff::/16"));
    assert_eq!(left(&[], &["0.0.0.0/0"]), [""; 0]);
}

#[test]
fn what_is_included_again_inside_an_exclusion() {
    assert_eq!(left(&["10.0.0.0/8", "10.0.0.0/10"], &["10.0.0.0/9"]), ["10.0.0.0/10", "10.128.0.0/9"]);
    assert_eq!(left(&["10.0.0.0/8"], &["0.0.0.0/0"]), ["10.0.0.0/8"], "the longer one is the included one");
    assert_eq!(left(&["10.1.2.3/8"], &["10.200.0.0/9"]), ["10.0.0.0/9"], "host bits have no say");
}

#[test]
fn the_same_prefix_in_both_lists_is_refused() {
    let conflict = complement(&nets(&["10.0.0.0/8", "::/0"]), &nets(&["10.9.9.9/8"]));
    assert_eq!(conflict, Err(RouteModelError::IncludedAndExcluded { net: net("10.0.0.0/8") }));
}

#[test]
fn a_hundred_thousand_exclusions_leave_the_rest() {
    let excluded: Vec<IpNet> = (0..100_000u32)
        .map(|at| Ipv4Net::new((at.wrapping_mul(0x9e37_79b1)).into(), 24 + (at % 9) as u8).unwrap().trunc().into())
        .collect();
    let left = complement(&nets(&["0.0.0.0/0"]), &excluded).unwrap();
    let addresses = |nets: &[IpNet]| nets.iter().map(|net| 1u64 << (32 - net.prefix_len())).sum::<u64>();
    let excluded = IpNet::aggregate(&excluded);
    assert_eq!(addresses(&left) + addresses(&excluded), 1 << 32);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn is_exact_disjoint_and_minimal(
        included in vec(strategy::prefix(), 0..12),
        excluded in vec(strategy::prefix(), 0..12),
        probes in vec(strategy::address(), 1..30),
    ) {
        let same = |a: &IpNet, b: &IpNet| a.trunc() == b.trunc();
        let excluded: Vec<_> = excluded.into_iter().filter(|net| !included.iter().any(|other| same(net, other))).collect();
        let left = complement(&included, &excluded).unwrap();

        let longest = |nets: &[IpNet], to| nets.iter().filter(|net| net.contains(&to)).map(IpNet::prefix_len).max();
        let edges = strategy::edges(included.iter().chain(&excluded).chain(&left).copied());
        for to in edges.into_iter().chain(probes) {
            let is_in = longest(&included, to).is_some() && longest(&included, to) > longest(&excluded, to);
            prop_assert_eq!(left.iter().any(|net| net.contains(&to)), is_in, "{}", to);
        }
        for (at, net) in left.iter().enumerate() {
            prop_assert!(left[..at].iter().all(|other| !other.contains(net) && !net.contains(other)), "{} twice", net);
            prop_assert!(left[..at].iter().all(|other| other.prefix_len() == 0 || other.supernet() != net.supernet()), "{} is half of one", net);
        }
        prop_assert!(left.is_sorted());
    }
}

//! A long flow over a bad link, through rekeys: it arrives intact.

use std::time::Duration;

use adit_core::DropReason;
use adit_sim::flow::{self, Report};
use adit_sim::{Link, World};

/// 1 % lost, 5 % overtaken, 0.5 % twice.
const BAD: Link = Link {
    delay: Duration::from_millis(10),
    loss: 0.01,
    duplicate: 0.005,
    reorder: 0.05,
    reorder_by: Duration::from_millis(15),
};

const GIB: u64 = 1 << 30;

fn check(report: &Report) {
    assert_eq!(report.digests[0], report.digests[1]);
    assert!(report.rekeys >= 1, "{} s are too short for a rekey", report.time.as_secs());
    let share = report.lost as f64 / report.datagrams as f64;
    assert!((0.008..0.012).contains(&share), "the link lost {share} of the datagrams");
    assert!(report.resent > 0);
    let others: Vec<_> = report.drops.iter().filter(|(reason, _)| *reason != DropReason::Replayed).collect();
    assert!(others.is_empty(), "only duplicates are dropped, and {others:?}");
}

#[test]
fn a_flow_arrives_intact() {
    let mut world = World::pair(180, BAD);
    // At this pace it takes three minutes, and a rekey is in it.
    let report = flow::run(&mut world, 64 << 20, 3, 180, |_| ());
    println!("{report}");
    check(&report);
}

#[test]
#[ignore = "long: run by cargo xtask soak"]
fn ten_gib_flow() {
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")),
        Err(_) => default,
    };
    let (gib, seed) = (number("ADIT_SOAK_GIB", 10), number("ADIT_SOAK_SEED", 1));
    let mut world = World::pair(seed, BAD);
    let mut next = GIB;
    #[allow(clippy::disallowed_methods, reason = "only for the progress line")]
    let start = std::time::Instant::now();
    let report = flow::run(&mut world, gib * GIB, 60, seed, |bytes| {
        if bytes >= next {
            println!("{} of {gib} GiB after {:.0} s", bytes / GIB, start.elapsed().as_secs_f64());
            next += GIB;
        }
    });
    println!("seed {seed}: {report}");
    check(&report);
}

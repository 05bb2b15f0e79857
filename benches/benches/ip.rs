//! What it costs to read a packet's header, and to look into the table of allowed IPs as it grows.
#![allow(missing_docs, reason = "the macros make functions without")]

use std::hint::black_box;
use std::net::IpAddr;

use adit_benches::packets;
use adit_benches::prefixes::{COUNTS, Family, Routes};
use adit_core::ip::IpHeader;
use adit_core::route::AllowedIps;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, packet) in [("ipv4", packets::udp_v4(1420)), ("ipv6", packets::udp_v6(1420))] {
        group.bench_function(name, |bencher| bencher.iter(|| IpHeader::parse(black_box(&packet))));
    }
    group.finish();
}

fn lookup(c: &mut Criterion) {
    for family in Family::ALL {
        let mut group = c.benchmark_group(format!("lookup/{}", family.name()));
        for count in COUNTS {
            let Routes { table, hits, misses } = Routes::new(family, count);
            for (name, probes) in [("hit", hits), ("miss", misses)] {
                let mut next = 0;
                group.bench_function(BenchmarkId::new(name, count), |bencher| {
                    bencher.iter(|| look(&table, &probes, &mut next));
                });
            }
        }
        group.finish();
    }
}

/// Looks up the next of the addresses, which are as many as a power of two.
fn look(table: &AllowedIps<u32>, probes: &[IpAddr], next: &mut usize) -> Option<u32> {
    *next = (*next + 1) & (probes.len() - 1);
    table.lookup(black_box(probes[*next]))
}

criterion_group!(benches, parse, lookup);
criterion_main!(benches);

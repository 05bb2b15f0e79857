//! What a look into the table of allowed IPs costs as it grows.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up has to stop")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_core::route::AllowedIps;
use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Prefix lengths as an Internet routing table has them: mostly long ones.
fn net(rng: &mut fastrand::Rng, v6: bool) -> IpNet {
    if v6 {
        Ipv6Net::new(Ipv6Addr::from(rng.u128(..)), rng.u8(32..=64)).unwrap().trunc().into()
    } else {
        Ipv4Net::new(Ipv4Addr::from(rng.u32(..)), rng.u8(16..=28)).unwrap().trunc().into()
    }
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for size in [1, 100, 10_000, 100_000] {
        for v6 in [false, true] {
            let mut rng = fastrand::Rng::with_seed(size);
            let mut table = AllowedIps::new();
            let nets: Vec<_> = (0..size).map(|_| net(&mut rng, v6)).collect();
            for (owner, net) in nets.iter().enumerate() {
                table.insert(*net, owner as u32);
            }
            // Half of the probes lie in some prefix, and half anywhere.
            let probes: Vec<IpAddr> = (0..1024)
                .map(|index| if index % 2 == 0 { rng.choice(&nets).unwrap().addr() } else { net(&mut rng, v6).addr() })
                .collect();
            let mut next = 0;
            group.bench_function(format!("{}/{size}", if v6 { "ipv6" } else { "ipv4" }), |bencher| {
                bencher.iter(|| {
                    next = (next + 1) % probes.len();
                    table.lookup(black_box(probes[next]))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);

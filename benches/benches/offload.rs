//! What it costs to split super-packets, to join packets, and to sum what the kernel left unsummed.
//!
//! Throughput of splitting and joining is in segments: that is what the cipher's cost a packet compares with.
#![allow(missing_docs, reason = "the macros make functions without")]

use std::hint::black_box;

use adit_benches::SIZES;
use adit_benches::flows::{self, Kind, Super};
use adit_core::offload::checksum;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    for kind in Kind::ALL {
        for size in [512, 1420] {
            let mut whole = Super::new(kind, size);
            group.throughput(Throughput::Elements(whole.segments().len() as u64));
            group.bench_function(BenchmarkId::new(kind.name(), size), |bencher| {
                bencher.iter(|| whole.split(|segment| _ = black_box(segment)));
            });
        }
    }
    group.finish();
}

fn join(c: &mut Criterion) {
    let mut group = c.benchmark_group("join");
    for kind in Kind::ALL {
        for size in [512, 1420] {
            let segments = Super::new(kind, size).segments();
            let mut joined = flows::room(&segments);
            group.throughput(Throughput::Elements(segments.len() as u64));
            group.bench_function(BenchmarkId::new(kind.name(), size), |bencher| {
                bencher.iter(|| flows::join(black_box(&segments), &mut joined));
            });
        }
    }
    group.finish();
}

fn sum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for size in SIZES {
        let bytes = vec![0xa5; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| checksum::finish(checksum::sum(black_box(&bytes))));
        });
    }
    group.finish();
}

criterion_group!(benches, split, join, sum);
criterion_main!(benches);

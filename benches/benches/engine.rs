//! What a packet costs in the engine, in the WireGuard library below it, and in the bare cipher below that.
//!
//! Each is measured beside the others, for only ratios mean something on a shared machine: `handle_tun` less
//! `seal/library` is the engine's own, `seal/library` less `seal/cipher` the library's.
#![allow(missing_docs, reason = "the macros make functions without")]

use std::hint::black_box;
use std::time::Duration;

use adit_benches::cipher::Cipher;
use adit_benches::engines::{self, Slot};
use adit_benches::library::Library;
use adit_benches::{SIZES, packets, padded};
use adit_core::{Reservation, Verdict};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let mut cipher = Cipher::new(padded(size));
        group
            .bench_function(BenchmarkId::new("cipher", size), |bencher| bencher.iter(|| black_box(&mut cipher).seal()));
        let (mut library, packet) = (Library::new(), packets::udp_v4(size));
        group.bench_function(BenchmarkId::new("library", size), |bencher| {
            bencher.iter(|| library.seal(black_box(&packet[..padded(size)])).len());
        });
    }
    group.finish();
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let mut cipher = Cipher::new(padded(size));
        group
            .bench_function(BenchmarkId::new("cipher", size), |bencher| bencher.iter(|| black_box(&mut cipher).open()));
        let (library, packet) = (std::cell::RefCell::new(Library::new()), packets::udp_v4(size));
        group.bench_function(BenchmarkId::new("library", size), |bencher| {
            bencher.iter_batched(
                || library.borrow_mut().seal(&packet[..padded(size)]).to_vec(),
                |message| library.borrow_mut().open(black_box(&message)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn handle_tun(c: &mut Criterion) {
    let mut group = c.benchmark_group("handle_tun");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let (mut a, _b) = engines::pair();
        let mut buffer = packets::udp_v4(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| assert_eq!(a.tun(black_box(&mut buffer), size), Verdict::Forwarded));
        });
    }
    // Parsing and one look into the table, and nothing after it.
    let (mut a, _b) = engines::pair();
    let mut stray = packets::stray();
    group.throughput(Throughput::Elements(1));
    group.bench_function("no_route", |bencher| {
        bencher.iter(|| assert!(matches!(a.tun(black_box(&mut stray), 64), Verdict::Dropped(_))));
    });
    group.finish();
}

fn handle_udp(c: &mut Criterion) {
    let mut group = c.benchmark_group("handle_udp");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let (a, mut b) = engines::pair();
        let (a, mut buffer) = (std::cell::RefCell::new(a), packets::udp_v4(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(
                || {
                    assert_eq!(a.borrow_mut().tun(&mut buffer, size), Verdict::Forwarded);
                    a.borrow().sent().to_vec()
                },
                |datagram| assert_eq!(b.udp(&a.borrow(), black_box(&datagram)), Verdict::Forwarded),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn reservation(c: &mut Criterion) {
    let mut slot = Slot::new();
    c.bench_function("reservation", |bencher| {
        bencher.iter(|| Reservation::<(), _>::new(black_box(&mut slot), (), 1452).map(|r| r.commit(1452)).is_ok());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = seal, open, handle_tun, handle_udp, reservation
}
criterion_main!(benches);

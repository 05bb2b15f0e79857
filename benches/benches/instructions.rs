//! The operations of the other benchmarks, each done a fixed number of times, for counting instructions.
//!
//! By itself this program measures nothing: `cargo xtask instructions` runs it under callgrind, which counts inside
//! [`adit_measured`] only and writes its counts away each time that function returns. Standard output tells what was
//! measured, in the order in which it was: a line `measured NAME TIMES`, with `less NAME` behind it if the count of that
//! other operation is to be taken off, once for each time. Lines `environment KEY VALUE` name what the counts depend on.
//!
//! Cipher and copy are taken off because their libraries choose the code by the processor that they find. They are
//! counted beside the operations that contain them, on the same lengths, so the difference does not depend on it.
#![allow(missing_docs, clippy::print_stdout, reason = "a program whose output is its interface")]

use std::hint::black_box;

use adit_benches::cipher::Cipher;
use adit_benches::flows::{self, Kind, Super};
use adit_benches::library::Library;
use adit_benches::prefixes::{COUNTS, Family, Routes};
use adit_benches::{SIZES, engines, packets, padded};
use adit_core::Verdict;
use adit_core::ip::IpHeader;
use adit_core::offload::checksum;

fn main() {
    environment();
    parse();
    lookup();
    for size in SIZES {
        seal(size);
        open(size);
    }
    no_route();
    offload();
}

fn parse() {
    for (name, packet) in [("ipv4", packets::udp_v4(1420)), ("ipv6", packets::udp_v6(1420))] {
        measure(&format!("parse/{name}"), "", |_| IpHeader::parse(black_box(&packet)));
    }
}

fn lookup() {
    for family in Family::ALL {
        for count in COUNTS {
            let Routes { table, hits, misses } = Routes::new(family, count);
            for (name, probes) in [("hit", hits), ("miss", misses)] {
                let name = format!("lookup/{}/{name}/{count}", family.name());
                measure(&name, "", |time| table.lookup(black_box(probes[time])));
            }
        }
    }
}

fn seal(size: usize) {
    let (bare, mut cipher) = (format!("cipher/seal/{size}"), Cipher::new(padded(size)));
    measure(&bare, "", |_| black_box(&mut cipher).seal());
    let (mut library, mut packet) = (Library::new(), packets::udp_v4(size));
    measure(&format!("seal/{size}"), &bare, |_| library.seal(black_box(&packet[..padded(size)])).len());
    let (mut a, _b) = engines::pair();
    measure(&format!("handle_tun/{size}"), &bare, |_| {
        assert_eq!(a.tun(black_box(&mut packet), size), Verdict::Forwarded);
    });
}

fn open(size: usize) {
    let (bare, mut cipher) = (format!("cipher/open/{size}"), Cipher::new(padded(size)));
    measure(&bare, "", |_| black_box(&mut cipher).open());
    let (mut library, mut packet) = (Library::new(), packets::udp_v4(size));
    let messages: Vec<_> = (0..TIMES).map(|_| library.seal(&packet[..padded(size)]).to_vec()).collect();
    measure(&format!("open/{size}"), &bare, |time| library.open(black_box(&messages[time])));
    let (mut a, mut b) = engines::pair();
    let datagrams = a.sealed(&mut packet, size, TIMES);
    measure(&format!("handle_udp/{size}"), &bare, |time| {
        assert_eq!(b.udp(&a, black_box(&datagrams[time])), Verdict::Forwarded);
    });
}

fn no_route() {
    let (mut a, _b) = engines::pair();
    let mut stray = packets::stray();
    measure("handle_tun/no_route", "", |_| assert!(matches!(a.tun(black_box(&mut stray), 64), Verdict::Dropped(_))));
}

fn offload() {
    for size in SIZES {
        let bytes = vec![0xa5; size];
        measure(&format!("checksum/{size}"), "", |_| checksum::finish(checksum::sum(black_box(&bytes))));
    }
    for kind in Kind::ALL {
        let mut whole = Super::new(kind, 1420);
        let segments = whole.segments();
        let mut joined = flows::room(&segments);
        let name = |what| format!("{what}/{}/1420", kind.name());
        measure_many(&name("split"), segments.len(), |_| whole.split(|segment| _ = black_box(segment)));
        measure_many(&name("join"), segments.len(), |_| flows::join(black_box(&segments), &mut joined));
    }
}

/// Does `operation` [`TIMES`] times where callgrind counts, and says so. Its argument is which time it is.
fn measure<R>(name: &str, less: &str, mut operation: impl FnMut(usize) -> R) {
    adit_measured(&mut || {
        for time in 0..TIMES {
            black_box(operation(time));
        }
    });
    let less = if less.is_empty() { String::new() } else { format!(" less {less}") };
    println!("measured {name} {TIMES}{less}");
}

/// The same for an `operation` that does `many` things: what counts is one of them.
fn measure_many<R>(name: &str, many: usize, mut operation: impl FnMut(usize) -> R) {
    let rounds = TIMES.div_ceil(many);
    adit_measured(&mut || {
        for round in 0..rounds {
            black_box(operation(round));
        }
    });
    println!("measured {name} {}", rounds * many);
}

/// Where callgrind counts; it knows the function by this name.
// SAFETY: the name begins with the project's and is nobody else's.
#[unsafe(no_mangle)]
#[inline(never)]
fn adit_measured(work: &mut dyn FnMut()) {
    work();
    // Without this the call would be the last thing and become a jump, after which callgrind sees no function return.
    black_box(());
}

/// Says which code can have been chosen: by the compiler, and by libraries that look at the processor.
fn environment() {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! features {
            ($($name:tt)*) => {{
                let compiled = [$(($name, cfg!(target_feature = $name))),*];
                let found = [$(($name, std::is_x86_feature_detected!($name))),*];
                let names = |all: &[(&str, bool)]| {
                    all.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect::<Vec<_>>().join(",")
                };
                println!("environment compiled-for {}", names(&compiled));
                println!("environment processor {}", names(&found));
            }};
        }
        // What ring, glibc's string functions and the compiler choose by.
        features!("sse2" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "bmi1" "bmi2" "adx" "avx512f" "avx512vl");
    }
}

/// How often each operation is done: enough that what one of them does more now and then is seen in the mean.
const TIMES: usize = 1000;

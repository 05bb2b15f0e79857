//! A packet costs no allocation once a tunnel runs.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_tun::device::memory::MemoryHost;
use common::{memory_pair, packet, receive, send};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Sends a packet and takes it at the other end, without allocating.
fn pass(from: &MemoryHost, to: &MemoryHost, packet: &[u8], buffer: &mut [u8]) {
    send(from, packet);
    while to.recv(buffer).is_none() {
        to.wait(Duration::from_millis(100));
    }
}

#[test]
fn packets_cost_no_allocation() {
    let [(a, host_a), (b, host_b)] = memory_pair(64);
    let there = packet(1, 2, 1, 1400);
    let back = packet(2, 1, 1, 200);
    send(&host_a, &there);
    receive(&host_b);
    let mut buffer = vec![0; 2000];
    let mut rounds = |count| {
        for _ in 0..count {
            pass(&host_a, &host_b, &there, &mut buffer);
            pass(&host_b, &host_a, &back, &mut buffer);
        }
    };
    // Whatever grows to its size in the beginning has done so.
    rounds(500);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    rounds(2000);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(allocations < 40, "{allocations} allocations for 4000 packets");
    a.exit();
    b.exit();
}

//! A packet costs no allocation once a tunnel runs.
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot see it in their helpers")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_tun::device::memory::MemoryHost;
use adit_tun::device::{Bell, HostBatch, HostDevice, HostPackets};
use adit_tun::socket::memory::MemoryNetwork;
use common::{LIMIT, MTU, Side, memory_pair, packet, receive, send};

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

/// One test, because the counter is the whole program's.
#[test]
fn packets_cost_no_allocation() {
    through_memory();
    through_a_hosts_calls();
}

fn through_memory() {
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

/// Hands over a packet and takes it at the other end, without allocating.
fn hand_over(from: &HostPackets, (to, bell): (&HostPackets, &Bell), packet: &[u8], out: &mut HostBatch) {
    assert_eq!(from.inject(std::iter::once(packet)), Ok(1));
    while to.take(out) == 0 {
        assert!(bell.wait(Some(LIMIT)));
    }
    assert_eq!(out.iter().next(), Some(packet));
}

fn through_a_hosts_calls() {
    let network = MemoryNetwork::new(64);
    let endpoint = |number: u8| SocketAddr::from(([192, 0, 2, number], 51_820));
    let [(a, host_a, bell_a), (b, host_b, bell_b)] = [1, 2].map(|number| {
        let (device, host) = HostDevice::callbacks("host", MTU);
        let bell = Arc::new(Bell::new());
        host.set_bell(Arc::clone(&bell));
        (Side::start(number, device, network.bind(endpoint(number)).unwrap()), host, bell)
    });
    a.add_peer(2, Some(endpoint(2)));
    b.add_peer(1, Some(endpoint(1)));
    let (there, back, mut out) = (packet(1, 2, 1, 1400), packet(2, 1, 1, 200), HostBatch::new());
    let mut rounds = |count| {
        for _ in 0..count {
            hand_over(&host_a, (&host_b, &bell_b), &there, &mut out);
            hand_over(&host_b, (&host_a, &bell_a), &back, &mut out);
        }
    };
    rounds(500);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    rounds(2000);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(allocations < 40, "{allocations} allocations for 4000 packets");
    a.exit();
    b.exit();
}

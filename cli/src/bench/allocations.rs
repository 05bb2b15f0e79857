//! What the calling thread allocates, counted by the command's allocator.
//!
//! The counters are the thread's own: counting takes no lock and no atomic operation, about a nanosecond for each
//! allocation, which the packet loop does not make. It is the system's allocator that does the work.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, and a count.
pub(crate) struct Counting;

/// What a thread has allocated until now. Differences of two of them are what means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allocations {
    /// Calls that made or grew an allocation.
    pub(super) made: u64,
    /// Bytes allocated and not yet freed; below zero in a thread that frees what others made.
    pub(super) held: i64,
}

impl Allocations {
    /// Those of the calling thread.
    pub(super) fn now() -> Self {
        Self { made: MADE.get(), held: HELD.get() }
    }
}

thread_local! {
    // Without a destructor and with a constant beginning neither is ever allocated, which would be an endless recursion.
    static MADE: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// Counts a call that changed what is held by `bytes`.
fn count(made: u64, bytes: i64) {
    // A thread that is ending has no counters any more, and nobody asks for them.
    let _ending = MADE.try_with(|count| count.set(count.get().wrapping_add(made)));
    let _ending = HELD.try_with(|held| held.set(held.get().wrapping_add(bytes)));
}

/// No allocation is larger than `isize::MAX` bytes.
const fn signed(bytes: usize) -> i64 {
    bytes as i64
}

// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract; counting neither allocates nor
// unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, signed(size).wrapping_sub(signed(layout.size())));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -signed(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_of_this_thread_are_counted_and_those_of_others_are_not() {
        let before = Allocations::now();
        let mut bytes = std::hint::black_box(vec![1_u8; 1000]);
        assert_eq!(Allocations::now(), Allocations { made: before.made + 1, held: before.held + 1000 });
        bytes.reserve_exact(2000);
        assert_eq!(Allocations::now(), Allocations { made: before.made + 2, held: before.held + 3000 });
        drop(bytes);
        assert_eq!(Allocations::now(), Allocations { made: before.made + 2, held: before.held });

        let (begin, waiting) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            waiting.recv().unwrap();
            drop(std::hint::black_box(vec![0_u8; 1 << 20]));
        });
        let before = Allocations::now().held;
        begin.send(()).unwrap();
        other.join().unwrap();
        assert!((Allocations::now().held - before).abs() < 1 << 16);
    }
}

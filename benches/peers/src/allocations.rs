//! Counts this thread's allocations.
//!
//! The count is a plain cell of the thread, about a nanosecond each time: an atomic one would make
//! whoever allocates much look slower than it is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// How many allocations (a reallocation is one) this thread has made so far.
pub(crate) fn so_far() -> u64 {
    COUNT.get()
}

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

impl Counting {
    fn count() {
        // A thread that is ending may allocate after its locals are gone; nobody reads its count.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator cannot be written without; every call goes to the system's as it came"
)]
// SAFETY: all four methods hand their arguments to `System` unchanged, whose contract is this trait's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

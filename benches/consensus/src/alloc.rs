//! The allocator of every library measured: mimalloc, as in the server, with a count in front.
//!
//! Invariant: counts are exact as long as one thread runs, which is all this benchmark has. The count is a load and a
//! store, not an atomic addition: it must not be what is measured.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mimalloc::MiMalloc;

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Counts, then asks mimalloc.
pub struct Counting;

/// Allocations so far.
#[derive(Clone, Copy)]
pub struct Allocated {
    pub count: u64,
    pub bytes: u64,
}

/// What was allocated since the start of the process.
pub fn allocated() -> Allocated {
    Allocated { count: COUNT.load(Relaxed), bytes: BYTES.load(Relaxed) }
}

fn note(bytes: usize) {
    COUNT.store(COUNT.load(Relaxed) + 1, Relaxed);
    BYTES.store(BYTES.load(Relaxed) + bytes as u64, Relaxed);
}

// SAFETY: everything is mimalloc's answer, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.dealloc(place, layout) }
    }
}

//! A bound on what one input may allocate: so many bytes for each of its own. Without a sanitizer libFuzzer cannot see
//! single allocations, so they are counted here. Must not know the targets.
//!
//! Every input is read by one thread, so the counters need no order among each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Buffers that a reader takes whatever it is given.
const FIXED_BYTES: usize = 4 << 20;
/// The most that is made of one byte: an empty label of an ENUM, as a `Vec` and as a `String`.
const BYTES_PER_BYTE: usize = 512;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static IS_TELLING: AtomicBool = AtomicBool::new(false);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed on to the system's allocator as it came; beside that only numbers are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // For a moment both may be there.
        count(new_size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    // The trace of a panic takes more than any input may.
    let is_over = live > LIMIT.load(Relaxed) && !std::thread::panicking();
    if is_over && !IS_TELLING.swap(true, Relaxed) {
        eprintln!("an input allocates too much: {bytes} bytes at once, {live} in all");
        eprintln!("{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }
}

/// Reads one input; the process is aborted where it allocates more than its length allows.
pub fn within<T>(input: &[u8], read: impl FnOnce() -> T) -> T {
    let room = FIXED_BYTES + BYTES_PER_BYTE * input.len();
    LIMIT.store(LIVE.load(Relaxed).saturating_add(room), Relaxed);
    let found = read();
    LIMIT.store(usize::MAX, Relaxed);
    found
}

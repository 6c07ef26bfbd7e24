//! Counts the memory of each thread, and its peak.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Memory that a reader may use at a time: a constant (mostly buffers) and a number of bytes per byte of the file. In a pickle,
/// an object and its memo entry take two bytes of the file, and 40 bytes of memory per byte when vectors grow.
const BASE_BYTES: usize = 1 << 20;
const BYTES_PER_BYTE: usize = 100;

/// Memory that a reader may use for a file of `length` bytes.
pub fn allowed(length: usize) -> usize {
    BASE_BYTES + BYTES_PER_BYTE * length
}

/// Runs `work` and returns its result and the peak memory of this thread during it, above that before.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let outcome = work();
    (outcome, (PEAK.get() - before) as usize)
}

/// An allocator that counts the memory of each thread.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread may still free memory while it terminates.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is forwarded to the system allocator, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller guarantees what the system allocator requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from alloc(), and so from the system allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

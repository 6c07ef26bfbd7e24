//! What each thread holds of memory, and has held at most.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Memory that a reader may have at once: so much anyway (buffers, most of all), and so many bytes for each of the file. An
/// opcode of a pickle that makes an object and remembers it takes two bytes, and 40 of memory for each when vectors grow.
const ANYWAY: usize = 1 << 20;
const A_BYTE: usize = 100;

/// What a reader of a file of `length` bytes may hold at once.
pub fn allowed(length: usize) -> usize {
    ANYWAY + A_BYTE * length
}

/// The most bytes that this thread holds during `work`, beyond those it held before; and what `work` gives.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let outcome = work();
    (outcome, (PEAK.get() - before) as usize)
}

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends may still give memory back.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from alloc(), which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

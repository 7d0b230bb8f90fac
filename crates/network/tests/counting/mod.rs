//! An allocator that counts what the current thread asks for, so that tests beside it do not
//! matter.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The counter is gone while a thread ends; then nothing is measured.
        let _ = ASKED.try_with(|n| n.set(n.get() + layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that `f` allocates, in all, and what it returns.
pub(crate) fn allocated<T>(f: impl FnOnce() -> T) -> (usize, T) {
    let before = ASKED.get();
    let value = f();
    (ASKED.get() - before, value)
}

//! The allocator of the command line: a small arena first, the C library's after that.
//!
//! A run that lasts a millisecond allocates a few hundred small things, and musl's allocator maps and unmaps
//! pages for them, at a quarter of that millisecond. The arena only ever grows, so what is freed in it is not
//! used again; once it is full, which a run never comes to, everything goes to the C library as usual.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

const SIZE: usize = 512 << 10;

/// To be the `#[global_allocator]`.
#[derive(Debug)]
pub struct Heap {
    arena: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

impl Heap {
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { arena: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }

    fn owns(&self, pointer: *mut u8) -> bool {
        (self.arena.get() as usize..self.arena.get() as usize + SIZE).contains(&(pointer as usize))
    }

    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let base = self.arena.get() as usize;
        let mut used = self.used.load(Relaxed);
        loop {
            let start = (base + used).next_multiple_of(layout.align()) - base;
            let end = start.checked_add(layout.size()).filter(|end| *end <= SIZE)?;
            match self.used.compare_exchange_weak(used, end, Relaxed, Relaxed) {
                Ok(_) => return Some(self.arena.get().cast::<u8>().wrapping_add(start)),
                Err(now) => used = now,
            }
        }
    }
}

// SAFETY: every byte of the arena is given out at most once, by the exchange in `take`.
unsafe impl Sync for Heap {}

// SAFETY: what `take` returns is within the arena, aligned, and of nobody else's; the rest is System's.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if self.owns(pointer) {
            // The last one given out can be taken back: a growing buffer often is.
            let end = pointer as usize - self.arena.get() as usize + layout.size();
            _ = self.used.compare_exchange(end, end - layout.size(), Relaxed, Relaxed);
        } else {
            // SAFETY: it is System's, and the caller's promise is passed on.
            unsafe { System.dealloc(pointer, layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_out_every_byte_once_and_then_goes_to_the_system() {
        static HEAP: Heap = Heap::new();
        let mut last = 0;
        let mut from_arena = 0;
        for size in (1..2000).cycle().take(3000) {
            let layout = Layout::from_size_align(size, 1 << (size % 6)).unwrap();
            // SAFETY: the layout has a size.
            let pointer = unsafe { HEAP.alloc(layout) };
            assert!(!pointer.is_null() && (pointer as usize).is_multiple_of(layout.align()));
            if HEAP.owns(pointer) {
                assert!(pointer as usize >= last);
                last = pointer as usize + size;
                from_arena += 1;
            } else {
                // SAFETY: it was allocated with this layout.
                unsafe { HEAP.dealloc(pointer, layout) };
            }
        }
        assert!(from_arena > 400 && from_arena < 3000);
    }

    #[test]
    fn the_last_piece_comes_back() {
        static HEAP: Heap = Heap::new();
        let layout = Layout::from_size_align(100, 1).unwrap();
        // SAFETY: the layout has a size; each pointer is freed once.
        unsafe {
            let first = HEAP.alloc(layout);
            HEAP.dealloc(first, layout);
            assert_eq!(HEAP.alloc(layout), first);
        }
    }
}

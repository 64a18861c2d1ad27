//! The allocator of the command line: a small arena first, the C library's after that.
//!
//! A run that lasts a millisecond allocates a few hundred small things, and musl's allocator maps and unmaps
//! pages for them, at a quarter of that millisecond. What is freed in the arena is kept by its size and given out again,
//! so that a worker lives in it through any number of runs, in the same pages. Once it is full, which a run never comes to,
//! the rest goes to the C library as usual, and so does whatever is large.
//!
//! Nothing here waits: a fork may find the lists held, for good, by a thread that it does not have. Who finds them held
//! does without.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    ptr,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

const SIZE: usize = 512 << 10;
/// All pieces are of so many bytes, or a multiple.
const GRAIN: usize = 16;
/// Up to here there is a list for each multiple, and after it for each power of two.
const FINE: usize = 1 << 10;
const LARGEST: usize = 128 << 10;
const LISTS: usize = FINE / GRAIN + (LARGEST / FINE).ilog2() as usize;

/// To be the `#[global_allocator]`.
#[derive(Debug)]
pub struct Heap {
    arena: Arena,
    used: AtomicUsize,
    /// The first free piece of each size; in it is the way to the next.
    free: UnsafeCell<[*mut u8; LISTS]>,
    held: AtomicBool,
}

#[derive(Debug)]
#[repr(align(16))]
struct Arena(UnsafeCell<[u8; SIZE]>);

impl Heap {
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            arena: Arena(UnsafeCell::new([0; SIZE])),
            used: AtomicUsize::new(0),
            free: UnsafeCell::new([ptr::null_mut(); LISTS]),
            held: AtomicBool::new(false),
        }
    }

    fn owns(&self, pointer: *mut u8) -> bool {
        (self.arena.0.get() as usize..self.arena.0.get() as usize + SIZE).contains(&(pointer as usize))
    }

    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let size = size(layout)?;
        let reused = self.with_list(size, |list| {
            let first = *list;
            if !first.is_null() {
                // SAFETY: a piece in a list is free, and begins with the way to the next.
                *list = unsafe { first.cast::<*mut u8>().read() };
            }
            first
        });
        reused.filter(|piece| !piece.is_null()).or_else(|| self.take_new(size))
    }

    fn take_new(&self, size: usize) -> Option<*mut u8> {
        let start =
            self.used.fetch_update(Relaxed, Relaxed, |used| Some(used + size).filter(|end| *end <= SIZE)).ok()?;
        Some(self.arena.0.get().cast::<u8>().wrapping_add(start))
    }

    fn give_back(&self, piece: *mut u8, layout: Layout) {
        let Some(size) = size(layout) else { return };
        // The last one given out can be taken back: a growing buffer often is.
        let end = piece as usize - self.arena.0.get() as usize + size;
        if self.used.compare_exchange(end, end - size, Relaxed, Relaxed).is_ok() {
            return;
        }
        // If the lists are held, it is lost.
        self.with_list(size, |list| {
            // SAFETY: the piece is nobody's any more, and has room for a pointer.
            unsafe { piece.cast::<*mut u8>().write(*list) };
            *list = piece;
        });
    }

    fn with_list<T>(&self, size: usize, change: impl FnOnce(&mut *mut u8) -> T) -> Option<T> {
        let number = match size {
            ..=FINE => size / GRAIN - 1,
            _ => FINE / GRAIN - 1 + (size / FINE).ilog2() as usize,
        };
        self.held.compare_exchange(false, true, Acquire, Relaxed).ok()?;
        // SAFETY: only one holds them.
        let result = change(unsafe { &mut (*self.free.get())[number] });
        self.held.store(false, Release);
        Some(result)
    }
}

/// What such a thing takes in the arena, if it may be there.
fn size(layout: Layout) -> Option<usize> {
    let fits = layout.align() <= GRAIN && layout.size() <= LARGEST;
    fits.then(|| match layout.size() {
        size @ ..=FINE => size.max(1).next_multiple_of(GRAIN),
        size => size.next_power_of_two(),
    })
}

// SAFETY: a byte of the arena is given out by the exchange in `take_new`, and again only after it was given back; the
// lists are touched by who has set `held`.
unsafe impl Sync for Heap {}

// SAFETY: what `take` returns is within the arena, aligned, and of nobody else's; the rest is System's.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if self.owns(pointer) {
            self.give_back(pointer, layout);
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
    fn gives_out_no_byte_twice_and_then_goes_to_the_system() {
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
    fn what_comes_back_is_given_out_again() {
        static HEAP: Heap = Heap::new();
        // Sixteen times what it holds goes through it, by several at once, and none sees what another has written.
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                scope.spawn(move || {
                    let mut held = std::collections::VecDeque::new();
                    for turn in 0..20_000_usize {
                        let size = 1 + turn * 97 % [60, 900, 5000][turn % 3];
                        let layout = Layout::from_size_align(size, 8).unwrap();
                        // SAFETY: the layout has a size; the piece is ours until it is freed below, once.
                        let piece = unsafe { HEAP.alloc(layout) };
                        unsafe { piece.write_bytes(thread, size) };
                        held.push_back((piece, layout));
                        if held.len() > 12 {
                            let (piece, layout) = held.pop_front().unwrap();
                            // SAFETY: as above.
                            let bytes = unsafe { std::slice::from_raw_parts(piece, layout.size()) };
                            assert!(bytes.iter().all(|byte| *byte == thread));
                            unsafe { HEAP.dealloc(piece, layout) };
                        }
                    }
                });
            }
        });
        assert!(HEAP.used.load(Relaxed) <= SIZE);
    }

    #[test]
    fn one_who_frees_all_needs_no_more_than_once() {
        static HEAP: Heap = Heap::new();
        let sizes = [10, 100, 1000, 3000, 64 << 10];
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        let mut used = 0;
        for round in 0..1000 {
            // SAFETY: the layouts have sizes; each piece is freed once.
            let pieces = sizes.map(|size| unsafe { HEAP.alloc(layout(size)) });
            assert!(pieces.iter().all(|piece| HEAP.owns(*piece)));
            // Not in the order in which they could be taken back.
            pieces.into_iter().zip(sizes).for_each(|(piece, size)| unsafe { HEAP.dealloc(piece, layout(size)) });
            if round > 1 {
                assert_eq!(HEAP.used.load(Relaxed), used);
            }
            used = HEAP.used.load(Relaxed);
        }
    }

    #[test]
    fn a_fork_that_finds_the_lists_held_does_without() {
        static HEAP: Heap = Heap::new();
        HEAP.held.store(true, Relaxed);
        let layout = Layout::from_size_align(100, 1).unwrap();
        // SAFETY: the layout has a size; each pointer is freed once.
        unsafe {
            let [first, second] = [HEAP.alloc(layout), HEAP.alloc(layout)];
            assert!(HEAP.owns(first) && HEAP.owns(second));
            HEAP.dealloc(first, layout);
            assert_ne!(HEAP.alloc(layout), first);
        }
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

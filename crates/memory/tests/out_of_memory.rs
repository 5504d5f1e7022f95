//! What each type does when the system refuses memory: an error, and everything as before.

#![allow(clippy::unwrap_used, reason = "a failing test says where")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

use theframework_memory::{
    Arena, BlockRecycler, BufferRecycler, ChunkRecycler, InputBuffer, OutOfMemory, Slab, WriteArena,
};

thread_local! {
    static ALLOWED: Cell<Option<usize>> = const { Cell::new(None) };
    static REFUSED: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, except on a thread that ran out of its allowance.
struct Refusing;

impl Refusing {
    fn refuses() -> bool {
        match ALLOWED.get() {
            None => false,
            Some(0) => {
                REFUSED.set(REFUSED.get() + 1);
                true
            }
            Some(left) => {
                ALLOWED.set(Some(left - 1));
                false
            }
        }
    }
}

// SAFETY: every call goes to `System` unchanged, or returns null, which the contract allows.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::refuses() {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::refuses() {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if Self::refuses() {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the same contract.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Runs `work`, which may allocate `allowed` times.
fn with_allowance<R>(allowed: usize, work: impl FnOnce() -> R) -> R {
    ALLOWED.set(Some(allowed));
    let result = work();
    ALLOWED.set(None);
    result
}

/// Checks that `work` fails for each allowance that is too small, then succeeds. Returns how many
/// allocations it needs.
fn fails_until_allowed(mut work: impl FnMut() -> Result<(), OutOfMemory>) -> usize {
    (0..10)
        .find(|&allowed| with_allowance(allowed, &mut work).is_ok())
        .expect("it succeeds with enough memory")
}

/// How often `work`, which may not allocate, asked the system all the same.
fn asked(work: impl FnOnce() -> Result<(), OutOfMemory>) -> usize {
    let before = REFUSED.get();
    assert_eq!(with_allowance(0, work), Err(OutOfMemory));
    REFUSED.get() - before
}

#[test]
fn recyclers_report_it() {
    let (chunks, blocks, buffers) = (
        ChunkRecycler::new(),
        BlockRecycler::new(),
        BufferRecycler::new(),
    );
    assert!(with_allowance(0, || chunks.acquire().is_err()));
    assert!(with_allowance(0, || blocks.acquire(10).is_err()));
    assert!(with_allowance(0, || buffers.acquire(10).is_err()));
    assert_eq!(
        (
            chunks.total_allocated(),
            blocks.live(),
            buffers.total_allocated()
        ),
        (0, 0, 0)
    );
}

#[test]
fn an_arena_keeps_what_it_has() {
    let (chunks, blocks) = (ChunkRecycler::new(), BlockRecycler::new());
    let mut arena = Arena::new(chunks.clone(), blocks.clone());
    let kept = arena.alloc_copy(&[1_u8; 1000]).unwrap();
    for _ in 0..3 {
        arena.alloc::<u8>(1000).unwrap();
    }
    assert!(with_allowance(0, || arena.alloc::<u8>(5000).is_err()));
    assert_eq!((arena.used(), arena.get(kept)), (4000, &[1; 1000][..]));
    // Each needs two: a table entry and a chunk or block, or blocks for two segments.
    assert_eq!(fails_until_allowed(|| arena.alloc::<u8>(1000).map(drop)), 2);
    assert_eq!(fails_until_allowed(|| arena.alloc::<u8>(5000).map(drop)), 2);
    assert_eq!(fails_until_allowed(|| arena.park()), 2);
    assert!(arena.get(kept).iter().all(|&byte| byte == 1));
    assert_eq!(arena.used(), 10_000);
    arena.reset();
    assert_eq!(
        (chunks.total_allocated(), blocks.live()),
        (chunks.cached(), 0)
    );
}

#[test]
fn a_parked_arena_that_cannot_come_back_stays_parked() {
    let (chunks, blocks) = (ChunkRecycler::new(), BlockRecycler::new());
    let mut arena = Arena::new(chunks.clone(), blocks);
    let kept = arena.alloc_copy(&[1_u8; 100]).unwrap();
    arena.park().unwrap();
    while chunks.cached() > 0 {
        chunks.trim();
    }
    assert!(with_allowance(0, || arena.alloc::<u8>(10).is_err()));
    assert!(with_allowance(0, || arena.free_slice(10).is_err()));
    assert_eq!(arena.get(kept), [1; 100]);
    let after = arena.alloc_copy(&[2_u8; 10]).unwrap();
    assert_eq!(
        (arena.get(kept), arena.get(after)),
        (&[1; 100][..], &[2; 10][..])
    );
}

#[test]
fn an_input_buffer_keeps_its_bytes() {
    let mut input = InputBuffer::new(BufferRecycler::new());
    assert!(with_allowance(0, || input.extend(b"abc").is_err()));
    input.extend(b"abc").unwrap();
    assert!(with_allowance(0, || input.reserve(10_000).is_err()));
    assert!(with_allowance(0, || input
        .reserve_exact_total(10_000)
        .is_err()));
    assert_eq!((input.unconsumed(), input.capacity()), (&b"abc"[..], 4096));
}

#[test]
fn an_input_buffer_ends_a_page_below_four_gib() {
    const LARGEST: usize = (4 << 30) - 4096;
    let mut input = InputBuffer::new(BufferRecycler::new());
    input.extend(b"abc").unwrap();
    assert_eq!(asked(|| input.reserve_exact_total(LARGEST)), 1);
    assert_eq!(asked(|| input.reserve_exact_total(LARGEST + 1)), 0);
    assert_eq!(asked(|| input.reserve(LARGEST - 3).map(drop)), 1);
    assert_eq!(asked(|| input.reserve(LARGEST - 2).map(drop)), 0);
    assert_eq!((input.unconsumed(), input.capacity()), (&b"abc"[..], 4096));
}

#[test]
fn a_write_arena_keeps_its_bytes() {
    let recycler = BufferRecycler::new();
    assert!(with_allowance(0, || WriteArena::new(recycler.clone()).is_err()));
    let mut arena = WriteArena::new(recycler).unwrap();
    arena.extend(b"abc").unwrap();
    assert!(with_allowance(0, || arena.extend(&[0; 5000]).is_err()));
    assert_eq!((arena.as_slice(), arena.capacity()), (&b"abc"[..], 4096));
}

#[test]
fn a_slab_keeps_its_values() {
    let mut slab = Slab::new();
    assert_eq!(fails_until_allowed(|| slab.insert(1).map(drop)), 2);
    let keys: Vec<_> = (1..64).map(|i| slab.insert(i).unwrap()).collect();
    assert_eq!(with_allowance(0, || slab.insert(64)), Err(OutOfMemory));
    assert_eq!((slab.len(), slab.get(keys[62])), (64, Some(&63)));
    assert!(slab.insert(64).is_ok());
}

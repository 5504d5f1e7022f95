//! What was taken from the system is given back to it, to the last byte, when its last owner goes.

#![allow(clippy::unwrap_used, reason = "a failing test says where")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use theframework_memory::{
    Arena, BlockRecycler, BufferRecycler, ChunkRecycler, InputBuffer, Slab, WriteArena,
};

thread_local! {
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, which counts for each thread on its own: what the test's harness does
/// meanwhile is not seen.
struct CountingByThread;

// SAFETY: every call goes to `System` unchanged; counting touches a cell alone.
unsafe impl GlobalAlloc for CountingByThread {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.set(LIVE_BYTES.get() + layout.size() as isize);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE_BYTES.set(LIVE_BYTES.get() - layout.size() as isize);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: CountingByThread = CountingByThread;

#[test]
fn dropping_the_last_owner_frees_everything() {
    let before = LIVE_BYTES.get();
    let (chunks, blocks, buffers) = (
        ChunkRecycler::new(),
        BlockRecycler::new(),
        BufferRecycler::new(),
    );
    let mut held = Slab::new();
    for round in 0..100 {
        let mut arena = Arena::new(chunks.clone(), blocks.clone());
        for len in [900, 900, 900, 900, 900, 5000] {
            arena.alloc::<u8>(len).unwrap();
        }
        if round % 2 == 0 {
            arena.park().unwrap();
        }
        let mut input = InputBuffer::new(buffers.clone());
        input.extend(&[1; 10_000]).unwrap();
        let mut write = WriteArena::new(buffers.clone()).unwrap();
        write.extend(&[2; 5000]).unwrap();
        let key = held.insert((arena, input, write)).unwrap();
        if round % 3 == 0 {
            held.remove(key);
        }
    }
    assert!(LIVE_BYTES.get() > before + 1_000_000);
    // The values have handles of their own, and give their memory back to a recycler first.
    drop((chunks, blocks, buffers));
    drop(held);
    assert_eq!(LIVE_BYTES.get(), before);
}

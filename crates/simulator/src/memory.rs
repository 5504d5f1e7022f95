//! The simulator's allocator: counts for each thread, overwrites what is freed, and refuses.
//!
//! What it refuses is memory of the pools only, which ask for it zeroed and aligned to 16 bytes, and
//! know how to go on without. The counts show what a run has not given back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static REFUSED: Cell<u64> = const { Cell::new(0) };
    static PER_MILLE: Cell<u32> = const { Cell::new(0) };
    static CHANCE: Cell<u64> = const { Cell::new(1) };
}

/// Bytes that this thread has allocated and not freed.
pub fn live_bytes() -> i64 {
    LIVE_BYTES.get()
}

/// The largest block that this thread has asked for since the last call.
pub fn take_largest() -> usize {
    LARGEST.replace(0)
}

/// How many requests of this thread were refused.
pub fn refused() -> u64 {
    REFUSED.get()
}

/// From now on, this many of 1,000 requests for pool memory are refused on this thread.
pub fn refuse(per_mille: u32, seed: u64) {
    PER_MILLE.set(per_mille);
    CHANCE.set(seed | 1);
}

/// Large blocks are overwritten at their ends only: the middle costs too much.
const OVERWRITTEN_MAX: usize = 4096;

pub struct Allocator;

impl Allocator {
    fn refuses(layout: Layout) -> bool {
        let per_mille = PER_MILLE.get();
        if per_mille == 0 || layout.align() != 16 {
            return false;
        }
        // xorshift
        let mut chance = CHANCE.get();
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        CHANCE.set(chance);
        let refuses = (chance >> 20) % 1000 < u64::from(per_mille);
        REFUSED.set(REFUSED.get() + u64::from(refuses));
        refuses
    }

    fn counts(bytes: usize, sign: i64) {
        LIVE_BYTES.set(LIVE_BYTES.get() + sign * bytes as i64);
        LARGEST.set(LARGEST.get().max(bytes));
    }
}

// SAFETY: every call goes to `System` unchanged, or returns null, which the contract allows; what is
// overwritten belongs to nobody any more.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::counts(layout.size(), 1);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::refuses(layout) {
            return std::ptr::null_mut();
        }
        Self::counts(layout.size(), 1);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Self::counts(layout.size(), -1);
        let ends = layout.size().min(OVERWRITTEN_MAX);
        // SAFETY: the block is still allocated, and the caller has given it up.
        unsafe {
            memory.write_bytes(0xDE, ends);
            memory.add(layout.size() - ends).write_bytes(0xDE, ends);
            System.dealloc(memory, layout);
        }
    }
}

//! An allocator that counts, for tests and benchmarks that gate on the number of allocations.
//!
//! It wraps the system's allocator and changes nothing but the counters. The counters are process-wide
//! and relaxed: exact while one thread allocates, and each exact in itself, but not a consistent cut
//! while several do. It does not say who allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// [`System`], counted. For use as `#[global_allocator]` in a test or benchmark binary.
///
/// Cost: two or three relaxed atomic additions for each call, a few nanoseconds, more when several
/// threads allocate at once, as they share the counters' cache line.
#[derive(Debug, Default)]
pub struct CountingAllocator {
    allocations: AtomicU64,
    deallocations: AtomicU64,
    reallocations: AtomicU64,
    allocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
}

/// What a [`CountingAllocator`] has counted since the start of the process.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AllocationCounts {
    /// Successful allocations, zeroed ones included.
    pub allocations: u64,
    /// Deallocations.
    pub deallocations: u64,
    /// Successful changes of size.
    pub reallocations: u64,
    /// Bytes asked for by allocations, and the new sizes of reallocations.
    pub allocated_bytes: u64,
    /// Bytes allocated and not freed at this moment.
    pub live_bytes: u64,
}

impl CountingAllocator {
    /// An allocator whose counters stand at 0.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            allocations: AtomicU64::new(0),
            deallocations: AtomicU64::new(0),
            reallocations: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
        }
    }

    /// The counters as they stand.
    #[must_use]
    pub fn counts(&self) -> AllocationCounts {
        let allocated_bytes = self.allocated_bytes.load(Relaxed);
        AllocationCounts {
            allocations: self.allocations.load(Relaxed),
            deallocations: self.deallocations.load(Relaxed),
            reallocations: self.reallocations.load(Relaxed),
            allocated_bytes,
            live_bytes: allocated_bytes.saturating_sub(self.freed_bytes.load(Relaxed)),
        }
    }

    fn count_allocation(&self, memory: *mut u8, size: usize) {
        if !memory.is_null() {
            self.allocations.fetch_add(1, Relaxed);
            self.allocated_bytes.fetch_add(size as u64, Relaxed);
        }
    }
}

// SAFETY: every call goes to `System` with the caller's own arguments, and its result is handed on
// unchanged; counting touches nothing but atomics, and does not allocate or unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        let memory = unsafe { System.alloc(layout) };
        self.count_allocation(memory, layout.size());
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let memory = unsafe { System.alloc_zeroed(layout) };
        self.count_allocation(memory, layout.size());
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.deallocations.fetch_add(1, Relaxed);
        self.freed_bytes.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: as in `alloc`; the memory is `System`'s, as all that this allocator hands out.
        unsafe { System.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`.
        let moved = unsafe { System.realloc(memory, layout, new_size) };
        if !moved.is_null() {
            self.reallocations.fetch_add(1, Relaxed);
            self.allocated_bytes.fetch_add(new_size as u64, Relaxed);
            self.freed_bytes.fetch_add(layout.size() as u64, Relaxed);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_call() {
        static COUNTING: CountingAllocator = CountingAllocator::new();
        let (small, large) = (Layout::new::<u64>(), Layout::new::<[u64; 8]>());
        // SAFETY: sizes are not zero; each piece is freed once, with the layout that it has by then.
        unsafe {
            let moved = COUNTING.realloc(COUNTING.alloc(small), small, large.size());
            let zeroed = COUNTING.alloc_zeroed(small);
            assert_eq!(zeroed.cast::<u64>().read(), 0);
            let expected = AllocationCounts {
                allocations: 2,
                deallocations: 0,
                reallocations: 1,
                allocated_bytes: 8 + 64 + 8,
                live_bytes: 64 + 8,
            };
            assert_eq!(COUNTING.counts(), expected);
            COUNTING.dealloc(moved, large);
            COUNTING.dealloc(zeroed, small);
        }
        assert_eq!(
            (
                COUNTING.counts().deallocations,
                COUNTING.counts().live_bytes
            ),
            (2, 0)
        );
    }
}

//! The provided buffers: how the kernel learns which receive buffers are free.
//!
//! A ring of 16-byte entries in memory that the kernel reads. We write entries behind the tail and
//! publish the tail with release ordering; the kernel takes them from the front. The buffers
//! themselves belong to the [`LeasePool`].
//!
//! Where the kernel has no such ring, an operation gives buffers back, a run of neighbours each; the
//! driver submits it with whatever else it has.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, opcode, squeue};

use crate::lease::{LEASE_SIZE, LeasePool};

/// The one buffer group of a driver.
pub(super) const GROUP: u16 = 0;

const PAGE: usize = 4096;

/// The way in which buffers are given to the kernel.
pub(super) enum Buffers {
    Ring(BufferRing),
    /// By operations: runs of neighbours, as first and count. Empty between two calls.
    Operations(Vec<(u16, u16)>),
}

/// Marks the completion of an operation that gives buffers; no slot has its generation, 0.
const PROVIDE: u64 = 1 << 30;
const COUNT_BITS: u32 = 15;

/// Gives `count` buffers from `first` on to the kernel.
pub(super) fn provide(pool: &LeasePool, first: u16, count: u16) -> squeue::Entry {
    let start = pool.address(first).as_ptr();
    opcode::ProvideBuffers::new(start, LEASE_SIZE as i32, count, GROUP, first)
        .build()
        .user_data(PROVIDE | u64::from(first) << COUNT_BITS | u64::from(count - 1))
}

/// Which buffers an operation of [`provide`] named, by the user data of its completion.
pub(super) fn provided(user_data: u64) -> Option<Range<u16>> {
    let numbers = (user_data ^ PROVIDE) as u32;
    let (first, last) = (numbers >> COUNT_BITS, numbers & ((1 << COUNT_BITS) - 1));
    (user_data >> (2 * COUNT_BITS) == 1).then(|| first as u16..(first + last + 1) as u16)
}

/// The runs of neighbours in the buffers that came back to the pool.
pub(super) fn take_runs(pool: &LeasePool, runs: &mut Vec<(u16, u16)>) {
    pool.drain_returned(|id| add_to_runs(pool, runs, id));
}

/// Adds a buffer to the last run, if it lies behind it in memory too: under a sanitizer each is an
/// allocation of its own.
pub(super) fn add_to_runs(pool: &LeasePool, runs: &mut Vec<(u16, u16)>, id: u16) {
    if let Some((first, count)) = runs.last_mut()
        && *first + *count == id
        && pool.address(*first).addr().get() + usize::from(*count) * LEASE_SIZE
            == pool.address(id).addr().get()
    {
        *count += 1;
    } else {
        runs.push((id, 1));
    }
}

pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    mask: u16,
    tail: u16,
}

impl BufferRing {
    /// Registers a ring as large as the pool (a power of two) and hands all its buffers over.
    pub(super) fn register(ring: &IoUring, pool: &LeasePool) -> io::Result<Self> {
        let count = pool.count();
        assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let layout = Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE)
            .map_err(io::Error::other)?;
        // SAFETY: the layout has a non-zero size; all-zero entries are valid.
        let entries = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<BufRingEntry>())
            .unwrap_or_else(|| handle_alloc_error(layout));
        let mut buffers = BufferRing {
            entries,
            layout,
            mask: count - 1,
            tail: 0,
        };
        // SAFETY: the memory is page-aligned, as large as announced, and lives until after the
        // ring was unregistered or closed (see `Drop` of the driver).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                count,
                GROUP,
                0,
            )?;
        }
        for id in 0..count {
            buffers.give(pool, id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Hands over what came back to the pool.
    pub(super) fn give_back(&mut self, pool: &LeasePool) {
        pool.drain_returned(|id| self.give(pool, id));
        self.publish();
    }

    fn give(&mut self, pool: &LeasePool, id: u16) {
        let address = pool.address(id).as_ptr() as u64;
        // SAFETY: the masked index lies inside the ring; an entry behind the tail belongs to us,
        // since at most `count` buffers are ever in it.
        let entry = unsafe {
            self.entries
                .add(usize::from(self.tail & self.mask))
                .as_mut()
        };
        entry.set_addr(address);
        entry.set_len(LEASE_SIZE as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail lies in the first entry's reserved field, which nothing else writes, and
        // is naturally aligned; the kernel reads it atomically.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `register`; the kernel no longer knows it.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_buffers_is_known_again_by_its_user_data() {
        let pool = LeasePool::new(8).unwrap();
        let mut runs = Vec::new();
        // SAFETY: nothing else uses the pool in this test.
        let leases = [2, 3, 4, 0, 7].map(|id| unsafe { pool.lease(id, 0) });
        drop(leases);
        take_runs(&pool, &mut runs);
        if theframework_memory::RECYCLES {
            assert_eq!(runs, [(2, 3), (0, 1), (7, 1)]);
        } else {
            // Each is an allocation of its own: neighbours by chance, or not.
            let follows = |id| {
                pool.address(id).addr().get() + LEASE_SIZE == pool.address(id + 1).addr().get()
            };
            let count = 5 - u16::from(follows(2)) - u16::from(follows(3));
            assert_eq!(runs.len(), usize::from(count));
            assert!(
                runs.iter()
                    .all(|&(first, count)| (first..first + count - 1).all(follows))
            );
            let ids: Vec<u16> = runs
                .iter()
                .flat_map(|&(first, count)| first..first + count)
                .collect();
            assert_eq!(ids, [2, 3, 4, 0, 7]);
        }
        for (first, count) in [(2, 3), (0, 1), (0, 8), (7, 1)] {
            let entry = provide(&pool, first, count);
            let named = provided(entry.get_user_data());
            assert_eq!(named, Some(first..first + count));
        }
        for other in [0, 1, 1 << 29, 1 << 31, 1 << 32, 1 << 32 | 1 << 30, u64::MAX] {
            assert_eq!(provided(other), None, "{other}");
        }
        assert_eq!(
            provided(PROVIDE | 32_767),
            Some(0..32_768),
            "the largest pool"
        );
    }
}

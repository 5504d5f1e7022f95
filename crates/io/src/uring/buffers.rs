//! The provided buffer ring: how the kernel learns which receive buffers are free.
//!
//! A ring of 16-byte entries in memory that the kernel reads. We write entries behind the tail and
//! publish the tail with release ordering; the kernel takes them from the front. The buffers
//! themselves belong to the [`LeasePool`].

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::lease::{LEASE_SIZE, LeasePool};

/// The one buffer group of a driver.
pub(super) const GROUP: u16 = 0;

const PAGE: usize = 4096;

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

//! The memory of the receive pool: one block, cut into buffers.
//!
//! With feature `no-recycle` each buffer is an allocation of its own for each use, freed when it comes
//! back: a sanitizer then sees whoever still reads it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use theframework_memory::OutOfMemory;

use super::LEASE_SIZE;

#[cfg(not(feature = "no-recycle"))]
pub(super) struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

#[cfg(not(feature = "no-recycle"))]
impl Memory {
    /// Room for `count` buffers, zeroed.
    pub(super) fn new(count: u16) -> Result<Self, OutOfMemory> {
        let layout = Layout::from_size_align(usize::from(count) * LEASE_SIZE, LEASE_SIZE)
            .map_err(|_| OutOfMemory)?;
        assert!(layout.size() > 0, "a pool has at least one buffer");
        // SAFETY: the layout has a non-zero size.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(OutOfMemory)?;
        Ok(Memory { base, layout })
    }

    /// Where buffer `id` starts.
    pub(super) fn address(&self, id: u16) -> NonNull<u8> {
        debug_assert!((usize::from(id) + 1) * LEASE_SIZE <= self.layout.size());
        // SAFETY: the pool asserts that `id` is below `count`, so the offset lies inside the block.
        unsafe { self.base.add(usize::from(id) * LEASE_SIZE) }
    }

    /// Buffer `id` is not read any more.
    pub(super) fn retire(&self, _id: u16) {}
}

#[cfg(not(feature = "no-recycle"))]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`; whoever refers to a buffer holds the pool.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

#[cfg(feature = "no-recycle")]
pub(super) struct Memory {
    buffers: Box<[std::cell::Cell<Option<NonNull<u8>>>]>,
}

#[cfg(feature = "no-recycle")]
const LAYOUT: Layout = match Layout::from_size_align(LEASE_SIZE, LEASE_SIZE) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two is an alignment"),
};

#[cfg(feature = "no-recycle")]
impl Memory {
    pub(super) fn new(count: u16) -> Result<Self, OutOfMemory> {
        Ok(Memory {
            buffers: (0..count).map(|_| Default::default()).collect(),
        })
    }

    /// Where buffer `id` starts; allocated now if it came back before.
    pub(super) fn address(&self, id: u16) -> NonNull<u8> {
        let buffer = &self.buffers[usize::from(id)];
        let address = buffer.get().unwrap_or_else(|| {
            // SAFETY: the layout has a non-zero size.
            NonNull::new(unsafe { alloc_zeroed(LAYOUT) })
                .unwrap_or_else(|| std::alloc::handle_alloc_error(LAYOUT))
        });
        buffer.set(Some(address));
        address
    }

    pub(super) fn retire(&self, id: u16) {
        if let Some(address) = self.buffers[usize::from(id)].take() {
            // SAFETY: allocated with this layout in `address`, and taken out here, so freed once.
            unsafe { dealloc(address.as_ptr(), LAYOUT) };
        }
    }
}

#[cfg(feature = "no-recycle")]
impl Drop for Memory {
    fn drop(&mut self) {
        for id in 0..self.buffers.len() {
            self.retire(id as u16);
        }
    }
}

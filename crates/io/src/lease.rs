//! The receive pool, and leases on its buffers.
//!
//! A pool is one block of `count` buffers of [`LEASE_SIZE`] bytes. A buffer belongs to the kernel
//! (or is free) until bytes arrive in it; then it belongs to a [`Lease`], and comes back when the
//! lease is dropped. The pool only notes that it came back: the driver gives it to the kernel
//! again before its next system call.
//!
//! Nothing here limits how long a lease may be held; the server does (DESIGN §4: no lease outlives
//! the turn in which its bytes arrived).

mod memory;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use theframework_memory::OutOfMemory;

use memory::Memory;

/// Bytes in one receive buffer.
pub const LEASE_SIZE: usize = 4096;

/// A pool of receive buffers; clones share it.
#[derive(Clone)]
pub struct LeasePool(Rc<Pool>);

struct Pool {
    memory: Memory,
    count: u16,
    leased: Cell<u32>,
    /// Ids that came back; never longer than `count`, which is reserved at start.
    returned: RefCell<Vec<u16>>,
}

impl fmt::Debug for LeasePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasePool")
            .field("count", &self.0.count)
            .field("leased", &self.0.leased.get())
            .finish()
    }
}

impl LeasePool {
    /// A pool of `count` buffers (at least one), all of them free.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the memory cannot be had.
    pub fn new(count: u16) -> Result<Self, OutOfMemory> {
        let count = count.max(1);
        Ok(LeasePool(Rc::new(Pool {
            memory: Memory::new(count)?,
            count,
            leased: Cell::new(0),
            returned: RefCell::new(Vec::with_capacity(usize::from(count))),
        })))
    }

    /// How many buffers the pool has.
    pub fn count(&self) -> u16 {
        self.0.count
    }

    /// Leases that have not been dropped.
    pub fn leased(&self) -> usize {
        self.0.leased.get() as usize
    }

    /// Whether buffers came back that the driver has not taken yet.
    pub fn has_returned(&self) -> bool {
        !self.0.returned.borrow().is_empty()
    }

    /// Takes the ids that came back since the last call.
    pub(crate) fn drain_returned(&self, mut take: impl FnMut(u16)) {
        for id in self.0.returned.borrow_mut().drain(..) {
            take(id);
        }
    }

    /// Where a buffer starts.
    pub(crate) fn address(&self, id: u16) -> NonNull<u8> {
        assert!(id < self.0.count, "no such receive buffer");
        self.0.memory.address(id)
    }

    /// Makes the lease on a buffer in which `len` bytes have arrived.
    ///
    /// # Safety
    /// * The buffer `id` is neither leased nor in the hands of the kernel.
    pub(crate) unsafe fn lease(&self, id: u16, len: usize) -> Lease {
        assert!(id < self.0.count && len <= LEASE_SIZE);
        self.0.leased.set(self.0.leased.get() + 1);
        Lease {
            pool: Rc::clone(&self.0),
            id,
            len: len as u16,
        }
    }
}

/// Bytes that arrived, in the buffer that the kernel filled. Dropping it returns the buffer.
pub struct Lease {
    pool: Rc<Pool>,
    id: u16,
    len: u16,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}, {} bytes)", self.id, self.len)
    }
}

impl Lease {
    fn start(&self) -> *mut u8 {
        self.pool.memory.address(self.id).as_ptr()
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer belongs to this lease alone until it is dropped (contract of
        // `LeasePool::lease`), all of it was initialised at allocation, and len <= LEASE_SIZE.
        unsafe { std::slice::from_raw_parts(self.start(), usize::from(self.len)) }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), usize::from(self.len)) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.leased.set(self.pool.leased.get() - 1);
        self.pool.memory.retire(self.id);
        self.pool.returned.borrow_mut().push(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_lease_returns_its_buffer_once() {
        let pool = LeasePool::new(4).unwrap();
        // SAFETY: nothing else uses the pool in this test.
        let (a, mut b) = unsafe { (pool.lease(2, 5), pool.lease(0, 4096)) };
        b[4095] = 7;
        assert_eq!((a.len(), b.len(), b[4095]), (5, 4096, 7));
        assert_eq!(pool.leased(), 2);
        drop(b);
        let mut ids = Vec::new();
        pool.drain_returned(|id| ids.push(id));
        pool.drain_returned(|id| ids.push(id));
        assert_eq!(ids, [0]);
        drop(a);
        assert!(pool.has_returned());
        assert_eq!(pool.leased(), 0);
    }

    #[test]
    fn a_lease_may_outlive_every_handle_on_its_pool() {
        let pool = LeasePool::new(1).unwrap();
        // SAFETY: nothing else uses the pool in this test.
        let lease = unsafe { pool.lease(0, 3) };
        drop(pool);
        assert_eq!(&*lease, &[0, 0, 0]);
    }
}

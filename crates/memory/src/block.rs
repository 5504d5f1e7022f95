//! Blocks: memory for what is parked, of (nearly) its exact size.
//!
//! A handler that waits may wait long, and thousands may; what such an exchange keeps is moved out of
//! buffers and chunks into blocks. Up to 4,096 bytes a block is rounded up to 64 bytes and recycled
//! in bins; above, it is allocated to the byte and freed when dropped.
//!
//! A block never grows. Its bytes are initialised, but of no meaning until written.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::OutOfMemory;
use crate::pool::{Pool, Pooled, SizeClasses};

/// Distance between two size classes, in bytes.
const STEP: usize = 64;
/// The largest length that is recycled.
const RECYCLED_LEN_MAX: usize = 4096;

/// Bins of 64, 128, … 4,096 bytes; exact above.
struct BlockClasses;

impl SizeClasses for BlockClasses {
    const BINS: usize = RECYCLED_LEN_MAX / STEP;
    const EXACT_STEP: usize = 1;

    #[inline]
    fn class(len: usize) -> usize {
        (len - 1) / STEP
    }

    #[inline]
    fn size(class: usize) -> usize {
        (class + 1) * STEP
    }
}

/// The free blocks of one worker. A clone is another handle to the same ones.
///
/// Cached blocks are freed when the last handle and the last block are dropped.
#[derive(Clone)]
pub struct BlockRecycler(Rc<Pool<BlockClasses>>);

impl BlockRecycler {
    /// An empty recycler: it allocates no block until one is asked for.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Pool::new(usize::MAX)))
    }

    /// A block of exactly `len` bytes; `len == 0` is valid and holds no memory.
    ///
    /// Its bytes are initialised, but zero only by chance. A few instructions when a block of that
    /// size class is cached, one zeroed allocation otherwise.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when the system has no memory for it.
    #[inline]
    pub fn acquire(&self, len: usize) -> Result<Block, OutOfMemory> {
        Pooled::new(&self.0, len).map(Block)
    }

    /// Frees, in each bin, half (rounded up) of the blocks that stayed unused since the last trim.
    /// Returns the bytes freed. Cost: one deallocation for each block freed.
    pub fn trim(&self) -> usize {
        self.0.trim()
    }

    /// Bytes that lie in the bins.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.0.cached_bytes()
    }

    /// Blocks in use. A block of no bytes is not counted.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.live()
    }
}

impl Default for BlockRecycler {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BlockRecycler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockRecycler")
            .field("live", &self.live())
            .field("cached_bytes", &self.cached_bytes())
            .finish()
    }
}

/// Owned bytes of a fixed length, 16-aligned. Dropping it gives the memory back to its recycler.
pub struct Block(Pooled<BlockClasses>);

impl Block {
    /// Bytes allocated: the length rounded up to 64 bytes, or exact above 4,096.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// The first byte. It stays where it is for as long as the block lives.
    #[inline]
    pub(crate) fn memory(&self) -> NonNull<u8> {
        self.0.memory()
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Block {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_the_length_asked_for_and_little_more_memory() {
        let recycler = BlockRecycler::new();
        for (len, capacity) in [
            (1, 64),
            (64, 64),
            (65, 128),
            (4000, 4032),
            (4096, 4096),
            (4097, 4097),
        ] {
            let block = recycler.acquire(len).unwrap();
            assert_eq!((block.len(), block.capacity()), (len, capacity));
            assert!(block.as_ptr().cast::<u128>().is_aligned());
        }
    }

    #[test]
    fn a_block_of_nothing_holds_nothing() {
        let recycler = BlockRecycler::new();
        let block = recycler.acquire(0).unwrap();
        assert_eq!(
            (&block[..], block.capacity(), recycler.live()),
            (&b""[..], 0, 0)
        );
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn a_dropped_block_serves_the_next_of_its_class() {
        let recycler = BlockRecycler::new();
        let mut block = recycler.acquire(100).unwrap();
        block.fill(7);
        let address = block.as_ptr();
        drop(block);
        assert_eq!((recycler.live(), recycler.cached_bytes()), (0, 128));
        let other_class = recycler.acquire(129).unwrap();
        assert_ne!(other_class.as_ptr(), address);
        let same_class = recycler.acquire(128).unwrap();
        assert_eq!((same_class.as_ptr(), same_class.len()), (address, 128));
        assert_eq!((recycler.live(), recycler.cached_bytes()), (2, 0));
    }

    #[test]
    fn a_large_block_is_freed_when_dropped() {
        let recycler = BlockRecycler::new();
        drop(recycler.acquire(100_000).unwrap());
        assert_eq!((recycler.live(), recycler.cached_bytes()), (0, 0));
    }

    #[test]
    fn a_block_outlives_the_handles_of_its_recycler() {
        let mut block = BlockRecycler::new().acquire(10).unwrap();
        block.copy_from_slice(b"0123456789");
        assert_eq!(&block[..], b"0123456789");
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn trim_looks_at_each_bin() {
        let recycler = BlockRecycler::new();
        drop([recycler.acquire(10).unwrap(), recycler.acquire(10).unwrap()]);
        drop(recycler.acquire(1000).unwrap());
        recycler.trim();
        drop(recycler.acquire(1000).unwrap());
        assert_eq!(recycler.trim(), 64);
        assert_eq!(recycler.cached_bytes(), 64 + 1024);
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        let recycler = BlockRecycler::new();
        assert_eq!(recycler.acquire(usize::MAX).unwrap_err(), OutOfMemory);
        assert_eq!(recycler.live(), 0);
    }
}

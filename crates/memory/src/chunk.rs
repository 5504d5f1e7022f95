//! Chunks: the 4 KiB pieces that arenas are made of, and their recycler.
//!
//! A chunk is 4,096 bytes; while it lies in the recycler, its first 8 bytes are the `next` pointer of
//! the free list. An arena leaves these 8 bytes alone and uses the other 4,088, so that the first
//! usable byte has an address of 8 modulo 16.
//!
//! The recycler starts empty, grows on demand, and caches every released chunk until it is trimmed
//! or dropped. It sets no cap and does not know who holds a chunk: arenas do.

use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::OutOfMemory;
use crate::pool::{ALIGN, Pool, SizeClasses};

/// Bytes in a chunk.
pub const CHUNK_SIZE: usize = 4096;
/// Offset of the first usable byte, behind the `next` pointer.
pub const DATA_START: usize = 8;
/// Usable bytes in a chunk.
pub const USABLE: usize = CHUNK_SIZE - DATA_START;

/// 4,096 bytes, 16-aligned, initialised. The `next` pointer overlays the first 8.
#[derive(Copy, Clone)]
#[repr(C, align(16))]
pub union Chunk {
    /// The next free chunk, while this one is cached.
    pub next: Option<NonNull<Chunk>>,
    /// The bytes, while somebody owns it.
    pub bytes: [u8; CHUNK_SIZE],
}

const _: () = assert!(size_of::<Chunk>() == CHUNK_SIZE && align_of::<Chunk>() == ALIGN);
const _: () = assert!(size_of::<Option<NonNull<Chunk>>>() == DATA_START);

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").finish_non_exhaustive()
    }
}

/// One bin, of whole chunks.
struct ChunkClasses;

impl SizeClasses for ChunkClasses {
    const BINS: usize = 1;
    const EXACT_STEP: usize = CHUNK_SIZE;

    #[inline]
    fn class(_len: usize) -> usize {
        0
    }

    #[inline]
    fn size(_class: usize) -> usize {
        CHUNK_SIZE
    }
}

/// The free chunks of one worker, last in, first out. A clone is another handle to the same ones.
///
/// Cached chunks are freed when the last handle is dropped.
#[derive(Clone)]
pub struct ChunkRecycler(Rc<Pool<ChunkClasses>>);

impl ChunkRecycler {
    /// An empty recycler: it allocates no chunk until one is asked for.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Pool::new(usize::MAX)))
    }

    /// The chunk released last, or a new one. Its bytes are initialised but have no meaning.
    ///
    /// A few instructions when one is cached, one allocation otherwise.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when the system has no memory for a new chunk.
    #[inline]
    pub fn acquire(&self) -> Result<NonNull<Chunk>, OutOfMemory> {
        self.0.acquire(CHUNK_SIZE).map(NonNull::cast)
    }

    /// Caches a chunk for the next `acquire`. A few instructions; with feature `no-recycle`, it
    /// frees the chunk.
    ///
    /// # Safety
    ///
    /// - `chunk` came from [`acquire`](Self::acquire) of this recycler (or a clone of it).
    /// - It was not released since, and nobody uses it any more.
    /// - All of its bytes are initialised, as they were when it came.
    #[inline]
    pub unsafe fn release(&self, chunk: NonNull<Chunk>) {
        // SAFETY: the caller's promise is the one that the pool asks for.
        unsafe { self.0.release(chunk.cast(), CHUNK_SIZE) };
    }

    /// Frees half (rounded up) of the chunks that stayed unused since the last trim.
    /// Returns the bytes freed. Cost: one deallocation for each.
    pub fn trim(&self) -> usize {
        self.0.trim()
    }

    /// Chunks that lie in the recycler.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.0.cached()
    }

    /// Chunks that exist at this moment, cached or in use.
    #[must_use]
    pub fn total_allocated(&self) -> usize {
        self.0.cached() + self.0.live()
    }
}

impl Default for ChunkRecycler {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ChunkRecycler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkRecycler")
            .field("cached", &self.cached())
            .field("total_allocated", &self.total_allocated())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_a_page_behind_its_link() {
        assert_eq!(size_of::<Chunk>(), 4096);
        assert_eq!(align_of::<Chunk>(), 16);
        assert_eq!((CHUNK_SIZE, DATA_START, USABLE), (4096, 8, 4088));
    }

    #[test]
    fn acquire_from_an_empty_recycler_allocates() {
        let recycler = ChunkRecycler::new();
        assert_eq!((recycler.cached(), recycler.total_allocated()), (0, 0));
        let chunk = recycler.acquire().unwrap();
        assert_eq!((recycler.cached(), recycler.total_allocated()), (0, 1));
        // SAFETY: acquired above, not used any more.
        unsafe { recycler.release(chunk) };
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn the_chunk_released_last_comes_back_first() {
        let recycler = ChunkRecycler::new();
        let (first, second) = (recycler.acquire().unwrap(), recycler.acquire().unwrap());
        // SAFETY: acquired above, not used any more.
        unsafe {
            recycler.release(first);
            recycler.release(second);
        }
        assert_eq!((recycler.cached(), recycler.total_allocated()), (2, 2));
        assert_eq!(recycler.acquire().unwrap(), second);
        assert_eq!(recycler.cached(), 1);
        assert_eq!(recycler.clone().acquire().unwrap(), first);
        assert_eq!(recycler.cached(), 0);
        // SAFETY: acquired above, not used any more.
        unsafe {
            recycler.release(first);
            recycler.release(second);
        }
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn trim_frees_half_of_what_nobody_needed() {
        let recycler = ChunkRecycler::new();
        let burst: Vec<_> = (0..10).map(|_| recycler.acquire().unwrap()).collect();
        for chunk in burst {
            // SAFETY: acquired above, not used any more.
            unsafe { recycler.release(chunk) };
        }
        // All of them were needed since the start.
        assert_eq!(recycler.trim(), 0);
        assert_eq!(recycler.cached(), 10);
        // Only three are needed at once from now on.
        let steady: Vec<_> = (0..3).map(|_| recycler.acquire().unwrap()).collect();
        for chunk in steady {
            // SAFETY: acquired above, not used any more.
            unsafe { recycler.release(chunk) };
        }
        assert_eq!(recycler.trim(), 4 * CHUNK_SIZE);
        assert_eq!(recycler.cached(), 6);
        // And none after that: it all goes, in a few trims.
        let left: Vec<_> = (0..4)
            .map(|_| (recycler.trim(), recycler.cached()).1)
            .collect();
        assert_eq!(left, [3, 1, 0, 0]);
        assert_eq!(recycler.total_allocated(), 0);
    }
}

//! Buffers: recycled contiguous memory in powers of two, for input and for writes.
//!
//! Thirteen bins, 4 KiB to 16 MiB, last in, first out. What is larger is allocated for itself, rounded
//! up to 4 KiB, and freed on release: a request is never clamped to the largest bin.
//!
//! Two things keep a burst from staying resident: `trim`, by watermark, and a limit on cached bytes,
//! above which a release frees. There is no limit on what is in use: that is the protocol's.
//! A buffer does not know how many of its bytes mean something; see `InputBuffer` and `WriteArena`.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::OutOfMemory;
use crate::pool::{Pool, Pooled, SizeClasses};

/// Bytes in a buffer of the smallest bin.
pub const BUFFER_SIZE_MIN: usize = 4 << 10;
/// Bytes in a buffer of the largest bin; above it, buffers are not recycled.
pub const BUFFER_SIZE_MAX: usize = 16 << 20;
/// Bytes that a recycler caches at most, unless told otherwise.
pub const CACHED_BYTES_MAX: usize = 64 << 20;

/// Bins of 4 KiB, 8 KiB, … 16 MiB; multiples of 4 KiB above.
struct BufferClasses;

impl SizeClasses for BufferClasses {
    const BINS: usize = (BUFFER_SIZE_MAX.ilog2() - BUFFER_SIZE_MIN.ilog2()) as usize + 1;
    const EXACT_STEP: usize = BUFFER_SIZE_MIN;

    #[inline]
    fn class(len: usize) -> usize {
        // The number of doublings of the smallest size that `len` bytes need.
        let pages_before_last = (len - 1) / BUFFER_SIZE_MIN;
        (usize::BITS - pages_before_last.leading_zeros()) as usize
    }

    #[inline]
    fn size(class: usize) -> usize {
        BUFFER_SIZE_MIN << class
    }
}

/// The free buffers of one worker. A clone is another handle to the same ones.
///
/// Cached buffers are freed when the last handle and the last buffer are dropped.
#[derive(Clone)]
pub struct BufferRecycler(Rc<Pool<BufferClasses>>);

impl BufferRecycler {
    /// An empty recycler that caches at most [`CACHED_BYTES_MAX`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Pool::new(CACHED_BYTES_MAX)))
    }

    /// A buffer of at least `min` bytes: the next power of two up to 16 MiB, the next multiple of
    /// 4 KiB above it, never less than 4 KiB.
    ///
    /// Its bytes are initialised, but zero only by chance. A few instructions when a buffer of that
    /// bin is cached, one zeroed allocation otherwise.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when the system has no memory for it, or no address can say its size.
    #[inline]
    pub fn acquire(&self, min: usize) -> Result<Buffer, OutOfMemory> {
        let capacity = BufferClasses::capacity(min.max(1)).ok_or(OutOfMemory)?;
        Pooled::new(&self.0, capacity).map(Buffer)
    }

    /// A buffer of capacity 0, which holds no memory and costs none.
    #[inline]
    #[must_use]
    pub fn empty(&self) -> Buffer {
        Buffer(Pooled::empty(&self.0))
    }

    /// Frees, in each bin, half (rounded up) of the buffers that stayed unused since the last trim.
    /// Returns the bytes freed. Cost: one deallocation for each buffer freed.
    pub fn trim(&self) -> usize {
        self.0.trim()
    }

    /// Bytes that lie in the bins.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.0.cached_bytes()
    }

    /// Bytes that may lie in the bins: a release beyond that frees. 0 with feature `no-recycle`.
    #[must_use]
    pub fn cached_bytes_max(&self) -> usize {
        self.0.cached_bytes_max()
    }

    /// Sets the limit on cached bytes; what is cached above it is freed at once, largest first.
    pub fn set_cached_bytes_max(&self, bytes: usize) {
        self.0.set_cached_bytes_max(bytes);
    }

    /// Buffers in use. An empty buffer is not counted.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.live()
    }

    /// Buffers that exist at this moment, cached or in use.
    #[must_use]
    pub fn total_allocated(&self) -> usize {
        self.0.cached() + self.0.live()
    }
}

impl Default for BufferRecycler {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BufferRecycler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferRecycler")
            .field("live", &self.live())
            .field("total_allocated", &self.total_allocated())
            .field("cached_bytes", &self.cached_bytes())
            .finish()
    }
}

/// Owned memory, 16-aligned and initialised. Dropping it gives the memory back to its recycler.
///
/// The bytes stay at one address for as long as the buffer lives, also when the `Buffer` itself is
/// moved: the kernel may be given [`as_mut_ptr`](Self::as_mut_ptr) for as long as somebody keeps it.
pub struct Buffer(Pooled<BufferClasses>);

impl Buffer {
    /// Bytes in the buffer; all of them are in the slice that it derefs to.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.len()
    }

    /// The first byte; dangling when the capacity is 0.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.0.memory().as_ptr()
    }

    /// The first byte, for writing; dangling when the capacity is 0.
    #[inline]
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.memory().as_ptr()
    }

    /// Where the free space of a half-filled buffer begins. It takes `&self`, for a pointer that is
    /// handed to the kernel while nobody borrows the buffer mutably.
    #[inline]
    pub(crate) fn ptr_at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.capacity());
        self.0.memory().as_ptr().wrapping_add(offset)
    }

    /// The recycler that it came from.
    #[inline]
    #[must_use]
    pub fn recycler(&self) -> BufferRecycler {
        BufferRecycler(Rc::clone(self.0.pool()))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_request_gets_the_next_power_of_two() {
        let recycler = BufferRecycler::new();
        let cases = [
            (0, 4096),
            (1, 4096),
            (4095, 4096),
            (4096, 4096),
            (4097, 8192),
            (8192, 8192),
            (8193, 16384),
            (65536, 65536),
            (5 * MIB, 8 * MIB),
            (16 * MIB, 16 * MIB),
        ];
        for (min, capacity) in cases {
            let mut buffer = recycler.acquire(min).unwrap();
            assert_eq!((buffer.capacity(), buffer.len()), (capacity, capacity));
            let first = std::ptr::from_mut(&mut buffer[0]);
            assert_eq!(
                (buffer.as_ptr(), buffer.as_mut_ptr()),
                (first.cast_const(), first)
            );
            assert!(first.cast::<u128>().is_aligned());
        }
        assert_eq!(BufferClasses::BINS, 13);
    }

    /// The sketch in the arena plan clamped the size class and handed out 16 MiB.
    #[test]
    fn a_request_above_the_largest_bin_is_not_clamped() {
        let recycler = BufferRecycler::new();
        let mut buffer = recycler.acquire(16 * MIB + 1).unwrap();
        assert_eq!(buffer.capacity(), 16 * MIB + 4096);
        buffer[16 * MIB] = 1;
        drop(buffer);
        assert_eq!(recycler.acquire(40 * MIB).unwrap().capacity(), 40 * MIB);
        assert_eq!(
            (recycler.cached_bytes(), recycler.total_allocated()),
            (0, 0)
        );
    }

    #[test]
    fn acquire_from_an_empty_bin_allocates_zeroed_memory() {
        let recycler = BufferRecycler::new();
        let buffer = recycler.acquire(10_000).unwrap();
        assert!(buffer.iter().all(|&byte| byte == 0));
        assert_eq!((recycler.live(), recycler.total_allocated()), (1, 1));
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn the_buffer_released_last_comes_back_first() {
        let recycler = BufferRecycler::new();
        let (first, second) = (recycler.acquire(1).unwrap(), recycler.acquire(1).unwrap());
        let (first_ptr, second_ptr) = (first.as_ptr(), second.as_ptr());
        drop(first);
        drop(second);
        assert_eq!((recycler.cached_bytes(), recycler.live()), (8192, 0));
        let (again_first, again_second) =
            (recycler.acquire(1).unwrap(), recycler.acquire(1).unwrap());
        assert_eq!(
            (again_first.as_ptr(), again_second.as_ptr()),
            (second_ptr, first_ptr)
        );
        assert_eq!(recycler.total_allocated(), 2);
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn bins_are_independent() {
        let recycler = BufferRecycler::new();
        let small = recycler.acquire(4096).unwrap();
        let large = recycler.acquire(8192).unwrap();
        let (small_ptr, large_ptr) = (small.as_ptr(), large.as_ptr());
        drop((small, large));
        let large = recycler.acquire(8000).unwrap();
        let small = recycler.acquire(1000).unwrap();
        assert_eq!((small.as_ptr(), large.as_ptr()), (small_ptr, large_ptr));
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn a_release_above_the_cache_limit_frees() {
        let recycler = BufferRecycler::new();
        assert_eq!(recycler.cached_bytes_max(), 64 * MIB);
        recycler.set_cached_bytes_max(12288);
        drop([1, 1, 8192, 1].map(|min| recycler.acquire(min).unwrap()));
        // Two of 4 KiB fit, one of 8 KiB would pass the limit, the last of 4 KiB fits again.
        assert_eq!(
            (recycler.cached_bytes(), recycler.total_allocated()),
            (12288, 3)
        );
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn a_lower_cache_limit_frees_at_once_the_largest_first() {
        let recycler = BufferRecycler::new();
        drop([1, 1, 8192, 16384].map(|min| recycler.acquire(min).unwrap()));
        recycler.set_cached_bytes_max(16384);
        assert_eq!(
            (recycler.cached_bytes(), recycler.total_allocated()),
            (16384, 3)
        );
        recycler.set_cached_bytes_max(0);
        assert_eq!(
            (recycler.cached_bytes(), recycler.total_allocated()),
            (0, 0)
        );
    }

    #[test]
    #[cfg_attr(feature = "no-recycle", ignore = "nothing is cached")]
    fn a_burst_does_not_stay_resident() {
        let recycler = BufferRecycler::new();
        let burst: Vec<_> = (0..8).map(|_| recycler.acquire(MIB).unwrap()).collect();
        drop(burst);
        recycler.trim();
        assert_eq!(recycler.cached_bytes(), 8 * MIB);
        let after: Vec<_> = (0..4)
            .map(|_| (recycler.trim(), recycler.cached_bytes()).1 / MIB)
            .collect();
        assert_eq!(after, [4, 2, 1, 0]);
    }

    #[test]
    fn no_memory_is_cached_under_no_recycle() {
        let recycler = BufferRecycler::new();
        drop(recycler.acquire(1).unwrap());
        let expected = if cfg!(feature = "no-recycle") {
            0
        } else {
            4096
        };
        assert_eq!(recycler.cached_bytes(), expected);
    }

    #[test]
    fn an_empty_buffer_holds_nothing() {
        let recycler = BufferRecycler::new();
        let mut buffer = recycler.empty();
        assert_eq!(
            (buffer.capacity(), &buffer[..], recycler.live()),
            (0, &b""[..], 0)
        );
        assert!(!buffer.as_mut_ptr().is_null());
    }

    #[test]
    fn impossible_sizes_are_errors() {
        let recycler = BufferRecycler::new();
        for min in [usize::MAX, usize::MAX - 4096, isize::MAX as usize] {
            assert_eq!(recycler.acquire(min).unwrap_err(), OutOfMemory);
        }
        assert_eq!(recycler.live(), 0);
    }
}

//! What the three recyclers share: memory by size class, LIFO free lists, a watermark.
//!
//! ```text
//! SizeClasses   which length goes to which bin          (one per recycler, types only)
//! Pool          bins of free memory, and the counters   (one per recycler, shared by Rc)
//! Pooled        one piece of memory that is in use      (goes back to its pool on drop)
//! ```
//!
//! # Invariants
//!
//! - Every piece is 16-aligned, was allocated zeroed with exactly `capacity(len)` bytes, and is
//!   either live (owned by one holder) or cached (linked in the bin of its size), never both.
//! - A cached piece carries the link of its free list in its own first 8 bytes; a free list
//!   therefore costs no memory and cannot fail. The link is wiped when the piece leaves.
//! - The low-water mark of a bin is the smallest number cached since the last trim: so many pieces
//!   nobody has needed in the meantime. A trim frees half of them (rounded up), which brings a
//!   burst's memory down in a few trims and never takes what a steady load uses.
//!
//! It does not clamp: a length above the largest bin gets its own allocation, freed on release.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;

use crate::OutOfMemory;

/// Alignment, in bytes, of every piece of memory that this crate takes from the system.
pub(crate) const ALIGN: usize = 16;

/// Whether what was released is used again: not with feature `no-recycle`. Pools of other crates ask
/// this too.
pub const RECYCLES: bool = !cfg!(feature = "no-recycle");

/// How a recycler cuts lengths into bins.
///
/// Kept by each implementation: `size` grows with its class and is at least 8, and
/// `size(class(len)) >= len` with `class(size(class)) == class` for every class below `BINS`.
pub(crate) trait SizeClasses: 'static {
    /// Number of bins.
    const BINS: usize;
    /// Above the largest bin, capacities are multiples of this.
    const EXACT_STEP: usize;
    /// The bin for `len` (at least 1) bytes; `BINS` or more when none is large enough.
    fn class(len: usize) -> usize;
    /// Bytes in each piece of bin `class`.
    fn size(class: usize) -> usize;

    /// Bytes that are allocated to serve `len`, or nothing where that cannot be said in a `usize`.
    #[inline]
    fn capacity(len: usize) -> Option<usize> {
        let class = Self::class(len);
        if class < Self::BINS {
            Some(Self::size(class))
        } else {
            len.checked_next_multiple_of(Self::EXACT_STEP)
        }
    }
}

/// Free memory by size class.
pub(crate) struct Pool<C: SizeClasses> {
    bins: Box<[Bin]>,
    cached_bytes: Cell<usize>,
    cached_bytes_max: Cell<usize>,
    live: Cell<usize>,
    classes: PhantomData<C>,
}

impl<C: SizeClasses> Pool<C> {
    pub(crate) fn new(cached_bytes_max: usize) -> Self {
        Self {
            bins: (0..C::BINS).map(|_| Bin::default()).collect(),
            cached_bytes: Cell::new(0),
            cached_bytes_max: Cell::new(cached_bytes_max),
            live: Cell::new(0),
            classes: PhantomData,
        }
    }

    /// Initialised, 16-aligned memory of `capacity` bytes, which is a value of `C::capacity`.
    #[inline]
    pub(crate) fn acquire(&self, capacity: usize) -> Result<NonNull<u8>, OutOfMemory> {
        let memory = match self.bins.get(C::class(capacity)).and_then(Bin::pop) {
            Some(memory) => {
                self.cached_bytes.set(self.cached_bytes.get() - capacity);
                memory
            }
            None => allocate_zeroed(capacity)?,
        };
        self.live.set(self.live.get() + 1);
        Ok(memory)
    }

    /// Takes memory back, to cache it or to free it.
    ///
    /// # Safety
    ///
    /// - `memory` came from `acquire(capacity)` of this pool and was not released since.
    /// - Nobody uses it any more.
    #[inline]
    pub(crate) unsafe fn release(&self, memory: NonNull<u8>, capacity: usize) {
        self.live.set(self.live.get() - 1);
        let cached_bytes = self.cached_bytes.get().saturating_add(capacity);
        match self.bins.get(C::class(capacity)) {
            Some(bin) if cached_bytes <= self.cached_bytes_max() => {
                self.cached_bytes.set(cached_bytes);
                // SAFETY: the caller gives up memory of this bin's size, which is at least 8 bytes.
                unsafe { bin.push(memory) };
            }
            // SAFETY: it was allocated with this capacity, and the caller gives it up.
            _ => unsafe { deallocate(memory, capacity) },
        }
    }

    /// Frees half of what stayed unused since the last trim. Returns the bytes freed.
    pub(crate) fn trim(&self) -> usize {
        let before = self.cached_bytes.get();
        for (class, bin) in self.bins.iter().enumerate() {
            let surplus = bin.low_water.get().div_ceil(2);
            self.free_from(class, surplus);
            bin.low_water.set(bin.cached.get());
        }
        before - self.cached_bytes.get()
    }

    /// Sets the limit and frees, largest pieces first, what is cached above it.
    pub(crate) fn set_cached_bytes_max(&self, limit: usize) {
        self.cached_bytes_max.set(limit);
        for class in (0..C::BINS).rev() {
            let excess = self.cached_bytes.get().saturating_sub(limit);
            self.free_from(class, excess.div_ceil(C::size(class)));
        }
    }

    /// Frees up to `count` cached pieces of one bin.
    fn free_from(&self, class: usize, count: usize) {
        let size = C::size(class);
        for memory in std::iter::from_fn(|| self.bins[class].pop()).take(count) {
            self.cached_bytes.set(self.cached_bytes.get() - size);
            // SAFETY: what a bin holds was allocated with the bin's size; nobody else knows of it.
            unsafe { deallocate(memory, size) };
        }
    }

    /// Bytes that may stay cached; none with feature `no-recycle`.
    #[inline]
    pub(crate) fn cached_bytes_max(&self) -> usize {
        if RECYCLES {
            self.cached_bytes_max.get()
        } else {
            0
        }
    }

    pub(crate) fn cached_bytes(&self) -> usize {
        self.cached_bytes.get()
    }

    /// Pieces cached.
    pub(crate) fn cached(&self) -> usize {
        self.bins.iter().map(|bin| bin.cached.get()).sum()
    }

    /// Pieces in use.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }
}

impl<C: SizeClasses> Drop for Pool<C> {
    fn drop(&mut self) {
        for class in 0..C::BINS {
            self.free_from(class, usize::MAX);
        }
    }
}

/// The free pieces of one size.
#[derive(Default)]
struct Bin {
    head: Cell<Option<NonNull<Link>>>,
    cached: Cell<usize>,
    low_water: Cell<usize>,
}

/// What lies in the first bytes of a cached piece.
struct Link {
    next: Option<NonNull<Link>>,
}

impl Bin {
    /// # Safety
    ///
    /// `memory` is 16-aligned, holds at least 8 bytes, and belongs to nobody else.
    #[inline]
    unsafe fn push(&self, memory: NonNull<u8>) {
        let (link, next) = (memory.cast::<Link>(), self.head.get());
        // SAFETY: by the contract there is aligned room for a link that nobody else looks at.
        unsafe { link.write(Link { next }) };
        self.head.set(Some(link));
        self.cached.set(self.cached.get() + 1);
    }

    #[inline]
    fn pop(&self) -> Option<NonNull<u8>> {
        let link = self.head.get()?;
        // SAFETY: every piece in the list carries a link, written by `push`.
        self.head.set(unsafe { link.read() }.next);
        // SAFETY: the same place; no heap address is left for the next user to find.
        unsafe { link.write(Link { next: None }) };
        let cached = self.cached.get() - 1;
        self.cached.set(cached);
        self.low_water.set(self.low_water.get().min(cached));
        Some(link.cast())
    }
}

/// `len` bytes in use, which go back to their pool on drop. With `len == 0` it holds no memory.
pub(crate) struct Pooled<C: SizeClasses> {
    memory: NonNull<u8>,
    len: usize,
    pool: Rc<Pool<C>>,
}

impl<C: SizeClasses> Pooled<C> {
    /// Holds no memory, but keeps the pool at hand.
    #[inline]
    pub(crate) fn empty(pool: &Rc<Pool<C>>) -> Self {
        Self {
            memory: NonNull::<Aligned>::dangling().cast(),
            len: 0,
            pool: Rc::clone(pool),
        }
    }

    #[inline]
    pub(crate) fn new(pool: &Rc<Pool<C>>, len: usize) -> Result<Self, OutOfMemory> {
        if len == 0 {
            return Ok(Self::empty(pool));
        }
        let memory = pool.acquire(C::capacity(len).ok_or(OutOfMemory)?)?;
        Ok(Self {
            memory,
            len,
            pool: Rc::clone(pool),
        })
    }

    /// Bytes allocated for it: `len` rounded up to its size class.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        match self.len {
            0 => 0,
            len => C::capacity(len).unwrap_or(len),
        }
    }

    /// The first byte; dangling but 16-aligned when it holds no memory.
    #[inline]
    pub(crate) fn memory(&self) -> NonNull<u8> {
        self.memory
    }

    #[inline]
    pub(crate) fn pool(&self) -> &Rc<Pool<C>> {
        &self.pool
    }
}

impl<C: SizeClasses> Deref for Pooled<C> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` has at least `len` initialised bytes (or `len` is 0), and is ours alone.
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl<C: SizeClasses> DerefMut for Pooled<C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the borrow exclusive.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl<C: SizeClasses> Drop for Pooled<C> {
    #[inline]
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: `new` acquired it with the capacity for `len`, which never changes; the only
            // owner is going away.
            unsafe { self.pool.release(self.memory, self.capacity()) };
        }
    }
}

/// Gives a dangling pointer the alignment that real memory has.
#[repr(align(16))]
struct Aligned;

const _: () = assert!(align_of::<Aligned>() == ALIGN);

/// Zeroed memory of `size` (at least 1) bytes, 16-aligned.
#[cold]
fn allocate_zeroed(size: usize) -> Result<NonNull<u8>, OutOfMemory> {
    debug_assert!(size > 0);
    let layout = Layout::from_size_align(size, ALIGN).map_err(|_| OutOfMemory)?;
    // SAFETY: no size class and no rounded length is zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(OutOfMemory)
}

/// # Safety
///
/// `memory` came from `allocate_zeroed(size)` and is used no more.
#[cold]
unsafe fn deallocate(memory: NonNull<u8>, size: usize) {
    // SAFETY: the layout was valid when the memory was allocated, with the same size and alignment.
    unsafe {
        dealloc(
            memory.as_ptr(),
            Layout::from_size_align_unchecked(size, ALIGN),
        );
    };
}

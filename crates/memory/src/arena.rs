//! The memory of one exchange: bump allocation over recycled chunks, given back all at once.
//!
//! # How it lies
//!
//! ```text
//! handle offset   0 ............ 4088 ............ 8176 .. 8176+used
//!                 |  sealed[0]   |  sealed[1]      |  current  |
//!                    segment        segment           segment
//!                      |              |                 |
//!                    chunk          chunk             chunk       after `park`: blocks of exact size
//!
//! handle offset   2^31 + i  -->  directs[i], one block for each allocation of 1,022 bytes or more
//! ```
//!
//! A handle ([`ArenaSlice`]) is logical: offset, length, epoch. Segment `k` covers the offsets from
//! `4088 * k`; where its bytes lie is known to the arena alone, and may change. So an arena can be
//! **parked**: each chunk, usually a single one and mostly empty, is exchanged for a block of the size
//! that was used of it, and the chunk serves somebody else while the handler waits. The first allocation
//! that needs the rest of a parked segment moves it back into a chunk. No handle notices.
//!
//! # Invariants
//!
//! - `current.base` has room for `room` bytes, all of them initialised, of which `used` are handed out; the
//!   same holds for each sealed segment. Handles reach below `used` only.
//! - A segment's first byte has an address of 8 modulo 16, in a chunk (behind its `next` pointer) as
//!   in a block (behind 8 bytes left free), so that a move keeps every alignment up to 16.
//! - An epoch is drawn anew at each reset, and differs from that of every other arena of the thread
//!   (until 2³² were drawn). A handle of another epoch panics. Even if one were to match by
//!   chance, its range and alignment are checked against initialised memory: it would read wrong bytes,
//!   never foreign memory.
//! - `start == 4088 * sealed.len()`: kept, as the fast path of `get` needs it.
//!
//! A new or reset arena holds no chunk. It has no cap (limits are the protocol's), runs no destructors
//! (values are [`Plain`]), and frees nothing singly.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr::{self, NonNull};
use std::slice;

use crate::chunk::{CHUNK_SIZE, Chunk, ChunkRecycler, DATA_START, USABLE};
use crate::{Block, BlockRecycler, OutOfMemory, Plain};

/// Allocations of this many bytes and more do not share a chunk: they get a block of their own.
pub const DIRECT_THRESHOLD: usize = (CHUNK_SIZE - DATA_START) / 4;

/// Offsets from here on name direct allocations.
const DIRECT: u32 = 1 << 31;
/// Table entries that a reset keeps allocated for the next exchange.
const TABLE_KEPT_MAX: usize = 8;

/// Names `len` values in an arena, until its next reset. 12 bytes; borrows nothing.
///
/// The default is the empty slice, which every arena resolves.
#[derive(Copy, Clone)]
pub struct ArenaSlice<T> {
    offset: u32,
    len: u32,
    epoch: u32,
    values: PhantomData<fn() -> T>,
}

impl<T> ArenaSlice<T> {
    /// Number of values.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it names no value.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its first `len` values, or all of them when there are fewer: a table that was allocated
    /// larger than needed. The memory of the others is not given back.
    #[inline]
    #[must_use]
    pub fn truncated(self, len: usize) -> Self {
        Self {
            len: self.len.min(u32::try_from(len).unwrap_or(u32::MAX)),
            ..self
        }
    }
}

impl<T> Default for ArenaSlice<T> {
    #[inline]
    fn default() -> Self {
        // No arena has epoch 0.
        Self {
            offset: 0,
            len: 0,
            epoch: 0,
            values: PhantomData,
        }
    }
}

impl<T> fmt::Debug for ArenaSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArenaSlice")
            .field("offset", &self.offset)
            .field("len", &self.len)
            .field("epoch", &self.epoch)
            .finish()
    }
}

/// A bump allocator for [`Plain`] values with logical handles. See the head of its file.
pub struct Arena {
    current: Segment,
    start: u32,
    epoch: u32,
    used: usize,
    sealed: Vec<Segment>,
    directs: Vec<Block>,
    chunks: ChunkRecycler,
    blocks: BlockRecycler,
}

impl Arena {
    /// An arena that holds no memory yet.
    #[must_use]
    pub fn new(chunks: ChunkRecycler, blocks: BlockRecycler) -> Self {
        Self {
            current: Segment::none(),
            start: 0,
            epoch: next_epoch(),
            used: 0,
            sealed: Vec::new(),
            directs: Vec::new(),
            chunks,
            blocks,
        }
    }

    /// Room for `n` values, all bits zero. `n == 0` is valid and takes nothing.
    ///
    /// A few instructions and the zeroing in the current chunk; otherwise a chunk or block is acquired.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when the system has none, when `n` values pass what can be addressed, or when
    /// the arena's small allocations pass 2 GiB. What was allocated before stays.
    #[inline]
    pub fn alloc<T: Plain>(&mut self, n: usize) -> Result<ArenaSlice<T>, OutOfMemory> {
        let (slice, memory) = self.place::<T>(n)?;
        // SAFETY: `place` hands out aligned room for `n` values (0 at a dangling address), unaliased.
        unsafe { ptr::write_bytes(memory.as_ptr(), 0, n) };
        Ok(slice)
    }

    /// A copy of `values`. Cost as for [`alloc`](Self::alloc), with a copy in place of the zeroing.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[inline]
    pub fn alloc_copy<T: Plain>(&mut self, values: &[T]) -> Result<ArenaSlice<T>, OutOfMemory> {
        let (slice, memory) = self.place::<T>(values.len())?;
        // SAFETY: `place` hands out aligned room for as many values, which nobody could reach before: so
        // `values` do not lie there, be it that they are older values of this arena (see `Appender`).
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), memory.as_ptr(), values.len()) };
        Ok(slice)
    }

    /// A copy of `slice` with room for `len` values; those that are new are zero. The memory of the
    /// old one is not given back before the reset. Cost: that of `alloc`, and one copy.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; `slice` stays as it is.
    ///
    /// # Panics
    ///
    /// When `slice` is of another epoch, as [`get`](Self::get) does.
    pub fn grow<T: Plain>(
        &mut self,
        slice: ArenaSlice<T>,
        len: usize,
    ) -> Result<ArenaSlice<T>, OutOfMemory> {
        let larger = self.grow_stale(slice, len)?;
        let new = &mut self.get_mut(larger)[slice.len().min(len)..];
        // SAFETY: all bits zero are a valid `Plain`, and there is room for as many values.
        unsafe { ptr::write_bytes(new.as_mut_ptr(), 0, new.len()) };
        Ok(larger)
    }

    /// As [`grow`](Self::grow), but those that are new are stale: of no meaning, perhaps another exchange's
    /// values. For those who write them before they read them.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; `slice` stays as it is.
    ///
    /// # Panics
    ///
    /// When `slice` is of another epoch, as [`get`](Self::get) does.
    pub fn grow_stale<T: Plain>(
        &mut self,
        slice: ArenaSlice<T>,
        len: usize,
    ) -> Result<ArenaSlice<T>, OutOfMemory> {
        let (larger, to) = self.place::<T>(len)?;
        let old = self.get(slice);
        let count = old.len().min(len);
        // SAFETY: `place` hands out aligned room for `len` values (0 at a dangling address), which nobody
        // could reach before, so `old` does not lie there; both hold at least `count` values.
        unsafe { ptr::copy_nonoverlapping(old.as_ptr(), to.as_ptr(), count) };
        Ok(larger)
    }

    /// The values of `slice`. A few compares when they lie in the newest chunk or the only one.
    ///
    /// # Panics
    ///
    /// When `slice` is not empty and was made by another arena or before the last reset.
    #[inline]
    #[must_use]
    pub fn get<T: Plain>(&self, slice: ArenaSlice<T>) -> &[T] {
        // SAFETY: `locate` has checked range and alignment; the bytes are initialised, any bits are
        // a valid `T`, and nothing writes or moves them while the arena is borrowed.
        unsafe { slice::from_raw_parts(self.locate(slice).as_ptr(), slice.len()) }
    }

    /// The values of `slice`, for writing. Cost and panics as for [`get`](Self::get).
    #[inline]
    #[must_use]
    pub fn get_mut<T: Plain>(&mut self, slice: ArenaSlice<T>) -> &mut [T] {
        // SAFETY: as in `get`, and the arena is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.locate(slice).as_ptr(), slice.len()) }
    }

    /// Free bytes of the current chunk, at most `max`, to be written and then kept with
    /// [`commit`](Self::commit). They hold stale bytes. Never empty unless `max` is 0: a full chunk
    /// is followed by a new one.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] as for [`alloc`](Self::alloc).
    #[inline]
    pub fn free_slice(&mut self, max: usize) -> Result<&mut [u8], OutOfMemory> {
        if self.current.free() == 0 && max > 0 {
            self.make_room(1, 1)?;
        }
        let (memory, free) = (
            self.current.at(self.current.used),
            self.current.free() as usize,
        );
        // SAFETY: `free` initialised bytes lie there, below `room`, reached by no handle.
        Ok(unsafe { slice::from_raw_parts_mut(memory.as_ptr(), free.min(max)) })
    }

    /// Keeps the first `n` bytes of the last [`free_slice`](Self::free_slice).
    ///
    /// Another allocation in between takes that place; commit at once.
    ///
    /// # Panics
    ///
    /// When the current chunk has fewer free bytes.
    #[inline]
    pub fn commit(&mut self, n: usize) -> ArenaSlice<u8> {
        assert!(
            n <= self.current.free() as usize,
            "commit beyond the free slice"
        );
        let at = self.current.used;
        self.current.used += n as u32;
        self.used += n;
        self.slice(self.start + at, n)
    }

    /// Bytes handed out since the last reset, without what alignment and chunk ends cost.
    #[inline]
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether it holds a chunk or a block (of which a parked arena has some, and a reset one none).
    #[must_use]
    pub fn holds_memory(&self) -> bool {
        !matches!(self.current.store, Store::None)
            || !self.sealed.is_empty()
            || !self.directs.is_empty()
    }

    /// Exchanges every chunk for a block of the size that was used of it, for the time that its handler
    /// waits. Handles stay valid, and allocation goes on as before, at the cost of moving the newest
    /// segment back. Direct allocations stay where they are. Costs one copy of what lies in chunks;
    /// nothing when nothing does.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; some chunks may be parked by then, all handles are valid.
    pub fn park(&mut self) -> Result<(), OutOfMemory> {
        self.current.park(&self.chunks, &self.blocks)?;
        for segment in self.sealed.iter_mut().rev() {
            segment.park(&self.chunks, &self.blocks)?;
        }
        Ok(())
    }

    /// Gives all memory back: chunks and blocks to their recyclers, large blocks to the system. Every
    /// handle so far is stale from here on. Costs a few instructions for each chunk and direct.
    pub fn reset(&mut self) {
        mem::replace(&mut self.current, Segment::none()).release(&self.chunks);
        for segment in self.sealed.drain(..) {
            segment.release(&self.chunks);
        }
        self.directs.clear();
        self.sealed.shrink_to(TABLE_KEPT_MAX);
        self.directs.shrink_to(TABLE_KEPT_MAX);
        self.start = 0;
        self.used = 0;
        self.epoch = next_epoch();
    }

    /// Takes room for `n` values, with arbitrary but initialised content.
    #[inline]
    fn place<T: Plain>(&mut self, n: usize) -> Result<(ArenaSlice<T>, NonNull<T>), OutOfMemory> {
        const {
            assert!(
                size_of::<T>() > 0 && align_of::<T>() <= 16,
                "not what `Plain` demands"
            );
        };
        if n == 0 {
            return Ok((ArenaSlice::default(), NonNull::dangling()));
        }
        let size = n.checked_mul(size_of::<T>()).ok_or(OutOfMemory)?;
        let (offset, memory) = if size < DIRECT_THRESHOLD {
            self.place_small(size as u32, align_of::<T>() as u32)?
        } else {
            self.place_direct(size, n)?
        };
        self.used += size;
        Ok((self.slice(offset, n), memory.cast()))
    }

    #[inline]
    fn place_small(&mut self, size: u32, align: u32) -> Result<(u32, NonNull<u8>), OutOfMemory> {
        if self.current.aligned(align) + size > self.current.room {
            self.make_room(size, align)?;
        }
        let at = self.current.aligned(align);
        self.current.used = at + size;
        Ok((self.start + at, self.current.at(at)))
    }

    #[cold]
    #[inline(never)]
    fn place_direct(&mut self, size: usize, n: usize) -> Result<(u32, NonNull<u8>), OutOfMemory> {
        let index = u32::try_from(self.directs.len()).map_err(|_| OutOfMemory)?;
        if index >= DIRECT || u32::try_from(n).is_err() {
            return Err(OutOfMemory);
        }
        self.directs.try_reserve(1).map_err(|_| OutOfMemory)?;
        let block = self.blocks.acquire(size)?;
        let memory = block.memory();
        self.directs.push(block);
        Ok((DIRECT + index, memory))
    }

    /// Makes the current segment one in which `size` more bytes fit.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, size: u32, align: u32) -> Result<(), OutOfMemory> {
        let was_parked = matches!(self.current.store, Store::Block(_));
        if was_parked && self.current.aligned(align) + size <= USABLE as u32 {
            return self.current.unpark(&self.chunks);
        }
        if matches!(self.current.store, Store::None) {
            self.current = Segment::in_chunk(self.chunks.acquire()?);
            return Ok(());
        }
        let start = self.start + USABLE as u32;
        if start > DIRECT - USABLE as u32 {
            return Err(OutOfMemory);
        }
        self.sealed.try_reserve(1).map_err(|_| OutOfMemory)?;
        let next = Segment::in_chunk(self.chunks.acquire()?);
        self.sealed.push(mem::replace(&mut self.current, next));
        self.start = start;
        Ok(())
    }

    /// A handle of this epoch, of `n` values, which fit a `u32`.
    #[inline]
    fn slice<T>(&self, offset: u32, n: usize) -> ArenaSlice<T> {
        ArenaSlice {
            offset,
            len: n as u32,
            epoch: self.epoch,
            values: PhantomData,
        }
    }

    /// Where the values of `slice` lie: aligned, with as many initialised bytes as they take.
    #[inline]
    fn locate<T: Plain>(&self, slice: ArenaSlice<T>) -> NonNull<T> {
        if slice.len == 0 {
            return NonNull::dangling();
        }
        let size = slice.len() * size_of::<T>();
        let at = slice.offset.wrapping_sub(self.start);
        let is_current =
            slice.epoch == self.epoch && at as usize + size <= self.current.used as usize;
        let memory = if is_current {
            self.current.at(at)
        } else {
            self.locate_elsewhere(slice.offset, size, slice.epoch)
        };
        let memory = memory.cast::<T>();
        assert!(memory.is_aligned(), "an arena handle of another type");
        memory
    }

    /// As `locate`, in sealed segments and directs.
    #[inline(never)]
    fn locate_elsewhere(&self, offset: u32, size: usize, epoch: u32) -> NonNull<u8> {
        assert_eq!(
            epoch, self.epoch,
            "a stale arena handle, or one of another arena"
        );
        if let Some(index) = offset.checked_sub(DIRECT) {
            let block = &self.directs[index as usize];
            assert!(size <= block.len(), "an arena handle out of range");
            return block.memory();
        }
        let segment = &self.sealed[offset as usize / USABLE];
        let at = offset % USABLE as u32;
        assert!(
            at as usize + size <= segment.used as usize,
            "an arena handle out of range"
        );
        segment.at(at)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.reset();
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("epoch", &self.epoch)
            .field("used", &self.used)
            .field("segments", &(self.sealed.len() + 1))
            .field("directs", &self.directs.len())
            .finish()
    }
}

/// Up to 4,088 bytes of the logical addresses.
struct Segment {
    base: NonNull<u8>,
    used: u32,
    room: u32,
    store: Store,
}

/// What keeps a segment's memory.
enum Store {
    None,
    Chunk(NonNull<Chunk>),
    /// Its first [`DATA_START`] bytes are left free, for the alignment of the others.
    Block(Block),
}

impl Segment {
    /// Without memory or room.
    fn none() -> Self {
        Self {
            base: NonNull::<u128>::dangling().cast(),
            used: 0,
            room: 0,
            store: Store::None,
        }
    }

    /// Takes over a chunk that was acquired.
    fn in_chunk(chunk: NonNull<Chunk>) -> Self {
        // SAFETY: an acquired chunk is a whole one, and `DATA_START` lies in it.
        let base = unsafe { chunk.cast::<u8>().add(DATA_START) };
        Self {
            base,
            used: 0,
            room: USABLE as u32,
            store: Store::Chunk(chunk),
        }
    }

    #[inline]
    fn free(&self) -> u32 {
        self.room - self.used
    }

    /// The address of the byte at `at`, which is at most `room`.
    #[inline]
    fn at(&self, at: u32) -> NonNull<u8> {
        debug_assert!(at <= self.room);
        // SAFETY: `base` has `room` bytes behind it, and every caller has checked `at` against
        // `used` or `room`.
        unsafe { self.base.add(at as usize) }
    }

    /// The first unused place of that alignment, a power of two up to 16; it may lie behind `room`.
    #[inline]
    fn aligned(&self, align: u32) -> u32 {
        const BEFORE: u32 = DATA_START as u32;
        ((self.used + BEFORE + align - 1) & !(align - 1)) - BEFORE
    }

    /// Moves the bytes from a chunk, if they lie in one, into a block that just holds them.
    fn park(&mut self, chunks: &ChunkRecycler, blocks: &BlockRecycler) -> Result<(), OutOfMemory> {
        if !matches!(self.store, Store::Chunk(_)) {
            return Ok(());
        }
        let parked = if self.used == 0 {
            Self::none()
        } else {
            let mut block = blocks.acquire(DATA_START + self.used as usize)?;
            block[DATA_START..].copy_from_slice(self.bytes());
            // SAFETY: the block is longer than `DATA_START`.
            let base = unsafe { block.memory().add(DATA_START) };
            Self {
                base,
                used: self.used,
                room: self.used,
                store: Store::Block(block),
            }
        };
        mem::replace(self, parked).release(chunks);
        Ok(())
    }

    /// Moves the bytes back into a chunk, for more to follow them.
    fn unpark(&mut self, chunks: &ChunkRecycler) -> Result<(), OutOfMemory> {
        let Store::Block(block) = &self.store else {
            return Ok(());
        };
        let bytes = &block[DATA_START..];
        let mut segment = Self::in_chunk(chunks.acquire()?);
        // SAFETY: a chunk has room for any segment's bytes; it is new here, so nothing overlaps.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), segment.base.as_ptr(), bytes.len()) };
        segment.used = self.used;
        *self = segment;
        Ok(())
    }

    /// The bytes handed out.
    fn bytes(&self) -> &[u8] {
        // SAFETY: `used` initialised bytes lie behind `base`, written only by `&mut` of the arena.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.used as usize) }
    }

    fn release(self, chunks: &ChunkRecycler) {
        if let Store::Chunk(chunk) = self.store {
            // SAFETY: the chunk came from this recycler, `self` was its only owner and is consumed;
            // its bytes were only ever written with initialised values.
            unsafe { chunks.release(chunk) };
        }
    }
}

/// An epoch that no arena of this thread has had, as far as 32 bits go; never 0.
fn next_epoch() -> u32 {
    thread_local! {
        static NEXT: Cell<u32> = const { Cell::new(1) };
    }
    let epoch = NEXT.get();
    NEXT.set(epoch.checked_add(1).unwrap_or(1));
    epoch
}

mod appender;
#[cfg(test)]
mod tests;

pub use appender::{Allocate, Appender};

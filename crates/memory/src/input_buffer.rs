//! Received bytes that no parser has consumed yet, in one piece.
//!
//! ```text
//! |  consumed  |  unconsumed  |  free space  |
//! 0          start           end         capacity
//! ```
//!
//! Receives go into the free space, the parser reads and consumes from the front. When the free
//! space runs out, the unconsumed bytes are moved to the front if that suffices, or else into a larger
//! buffer. An idle connection holds no memory, only the capacity to start with next time.
//!
//! # Invariants
//!
//! - `start <= end <= capacity`, and both are 0 when nothing is unconsumed.
//! - The bytes live in the heap: moving the `InputBuffer` (into an operation of the kernel, say) moves
//!   none of them. Only calls that take `&mut self` move or free them.
//! - Positions are `u32`, like those of a `Span`: capacity stays below 4 GiB.
//!
//! It sets no other limit on its growth: the caller knows what the protocol allows.

use std::fmt;
use std::mem;

use crate::{BUFFER_SIZE_MIN, Buffer, BufferRecycler, OutOfMemory};

/// Capacity, in bytes, that is remembered from earlier use counts up to this much.
pub const RESTART_CAPACITY_MAX: usize = 64 << 10;

/// Largest capacity whose positions fit a `u32`.
const CAPACITY_MAX: usize = u32::MAX as usize / BUFFER_SIZE_MIN * BUFFER_SIZE_MIN;

/// A growing buffer between a receive and a parser.
pub struct InputBuffer {
    buffer: Buffer,
    start: u32,
    end: u32,
    remembered: u32,
}

const _: () = assert!(size_of::<InputBuffer>() <= 40);

impl InputBuffer {
    /// A buffer that holds no memory until the first reserve.
    #[must_use]
    pub fn new(recycler: BufferRecycler) -> Self {
        Self {
            buffer: recycler.empty(),
            start: 0,
            end: 0,
            remembered: 0,
        }
    }

    /// Takes the bytes and their memory, to move them into an operation, say; what is left behind
    /// is as new, but remembers the capacity.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let empty = Self {
            buffer: self.buffer.recycler().empty(),
            start: 0,
            end: 0,
            remembered: self.remembered_capacity() as u32,
        };
        mem::replace(self, empty)
    }

    /// The bytes received and not consumed.
    #[inline]
    #[must_use]
    pub fn unconsumed(&self) -> &[u8] {
        &self.buffer[self.start as usize..self.end as usize]
    }

    /// The bytes received and not consumed, for decoding in place.
    #[inline]
    #[must_use]
    pub fn unconsumed_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start as usize..self.end as usize]
    }

    /// Number of unconsumed bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether nothing is unconsumed.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes of memory held.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// The capacity held, or the one held last if there is none now; in bytes.
    ///
    /// The next reserve of a buffer without memory starts at this capacity, but at no more than
    /// [`RESTART_CAPACITY_MAX`]: one large body must not make every later request large.
    #[must_use]
    pub fn remembered_capacity(&self) -> usize {
        match self.capacity() {
            0 => self.remembered as usize,
            held => held,
        }
    }

    /// The whole free space, at least `min_free` bytes. It holds stale bytes.
    ///
    /// Costs nothing when there is enough; otherwise one move of the unconsumed bytes, to the front
    /// if that suffices, or else into a larger buffer. That has the next power of two up to 16 MiB, and
    /// above it at least half again as much as before, so that many small reserves stay linear.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], also when the capacity would pass 4 GiB; the bytes are kept.
    #[inline]
    pub fn reserve(&mut self, min_free: usize) -> Result<&mut [u8], OutOfMemory> {
        if self.free_len() < min_free {
            self.make_room(min_free)?;
        }
        Ok(self.free_mut())
    }

    /// Makes room once so that the unconsumed bytes can reach `total`, as for a body of known length.
    ///
    /// Grows to the next power of two up to 16 MiB, and to no more than `total` (rounded up to 4 KiB)
    /// above it. At most one move of the unconsumed bytes.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], also when `total` passes 4 GiB; the bytes are kept.
    pub fn reserve_exact_total(&mut self, total: usize) -> Result<(), OutOfMemory> {
        let missing = total.saturating_sub(self.len());
        if missing <= self.free_len() {
            return Ok(());
        }
        if total <= self.capacity() {
            self.compact();
            return Ok(());
        }
        self.grow(total)
    }

    /// The free space as it is, maybe empty. It holds stale bytes.
    #[inline]
    #[must_use]
    pub fn free_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.end as usize..]
    }

    /// The first free byte, for the kernel to write to; valid for [`free_len`](Self::free_len)
    /// bytes, until the next call that takes `&mut self`.
    #[inline]
    #[must_use]
    pub fn free_ptr(&self) -> *mut u8 {
        self.buffer.ptr_at(self.end as usize)
    }

    /// Number of free bytes behind the unconsumed ones.
    #[inline]
    #[must_use]
    pub fn free_len(&self) -> usize {
        self.capacity() - self.end as usize
    }

    /// Counts in `n` bytes that were written into the free space.
    ///
    /// # Panics
    ///
    /// When there is less free space than that.
    #[inline]
    pub fn commit(&mut self, n: usize) {
        assert!(n <= self.free_len(), "commit beyond the free space");
        self.end += n as u32;
    }

    /// Drops `n` bytes from the front. No byte is moved.
    ///
    /// # Panics
    ///
    /// When fewer are unconsumed.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "consume beyond the unconsumed bytes");
        self.start += n as u32;
        self.rewind_if_empty();
    }

    /// Appends `bytes`: a reserve and one copy.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; nothing of `bytes` was appended then.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), OutOfMemory> {
        self.reserve(bytes.len())?[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
        Ok(())
    }

    /// Cuts `len` bytes at `start` (counted from the first unconsumed byte) out of the unconsumed
    /// bytes, and moves what is behind them down. Costs one move of that tail.
    ///
    /// # Panics
    ///
    /// When the gap reaches beyond the unconsumed bytes.
    pub fn remove(&mut self, start: usize, len: usize) {
        let after = start.checked_add(len).filter(|&after| after <= self.len());
        let after = after.expect("remove beyond the unconsumed bytes");
        self.unconsumed_mut().copy_within(after.., start);
        self.end -= len as u32;
        self.rewind_if_empty();
    }

    /// Gives the memory back if nothing is unconsumed, and remembers its capacity.
    pub fn release_if_empty(&mut self) {
        if self.is_empty() && self.capacity() > 0 {
            self.release();
        }
    }

    /// Drops all bytes and gives the memory back, for the next connection in this slot; its
    /// capacity is remembered.
    pub fn reset_for_new_connection(&mut self) {
        (self.start, self.end) = (0, 0);
        self.release_if_empty();
    }

    /// Keeps what belongs to the next request, and moves it to the front when more than half of the
    /// capacity lies consumed before it.
    pub fn reset_for_new_request(&mut self) {
        if self.start as usize > self.capacity() / 2 {
            self.compact();
        }
    }

    #[cold]
    fn make_room(&mut self, min_free: usize) -> Result<(), OutOfMemory> {
        let total = self.len().checked_add(min_free).ok_or(OutOfMemory)?;
        if total <= self.capacity() {
            self.compact();
            return Ok(());
        }
        let grown = match self.capacity() {
            0 => self.remembered_capacity().min(RESTART_CAPACITY_MAX),
            // Below 16 MiB, the power of two makes it twice as much as before.
            held => (held + held / 2).min(CAPACITY_MAX),
        };
        self.grow(total.max(grown))
    }

    /// Moves the unconsumed bytes to the front.
    fn compact(&mut self) {
        let (start, end) = (self.start as usize, self.end as usize);
        self.buffer.copy_within(start..end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// Moves the unconsumed bytes into a buffer of at least `capacity` bytes.
    fn grow(&mut self, capacity: usize) -> Result<(), OutOfMemory> {
        if capacity > CAPACITY_MAX {
            return Err(OutOfMemory);
        }
        let mut buffer = self.buffer.recycler().acquire(capacity)?;
        buffer[..self.len()].copy_from_slice(self.unconsumed());
        (self.start, self.end) = (0, self.end - self.start);
        self.buffer = buffer;
        Ok(())
    }

    #[inline]
    fn rewind_if_empty(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    fn release(&mut self) {
        self.remembered = self.capacity() as u32;
        self.buffer = self.buffer.recycler().empty();
    }
}

impl fmt::Debug for InputBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputBuffer")
            .field("start", &self.start)
            .field("end", &self.end)
            .field("capacity", &self.capacity())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: &[u8]) -> InputBuffer {
        let mut input = InputBuffer::new(BufferRecycler::new());
        input.extend(bytes).unwrap();
        input
    }

    /// Bytes that show where they came from.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn holds_nothing_until_the_first_reserve() {
        let recycler = BufferRecycler::new();
        let mut input = InputBuffer::new(recycler.clone());
        assert_eq!(
            (input.capacity(), input.free_len(), recycler.live()),
            (0, 0, 0)
        );
        assert_eq!(input.unconsumed(), b"");
        assert_eq!(input.reserve(0).unwrap().len(), 0);
        assert_eq!(input.reserve(1).unwrap().len(), 4096);
        assert_eq!(recycler.live(), 1);
    }

    #[test]
    fn written_bytes_are_unconsumed_until_consumed() {
        let mut input = InputBuffer::new(BufferRecycler::new());
        input.reserve(10).unwrap()[..6].copy_from_slice(b"abcdef");
        assert!(input.is_empty());
        input.commit(6);
        assert_eq!((input.unconsumed(), input.len()), (&b"abcdef"[..], 6));
        input.consume(2);
        assert_eq!((input.unconsumed(), input.len()), (&b"cdef"[..], 4));
        input.unconsumed_mut()[0] = b'C';
        assert_eq!(input.unconsumed(), b"Cdef");
    }

    #[test]
    fn consuming_everything_rewinds() {
        let mut input = filled(&pattern(4000));
        input.consume(4000);
        assert_eq!((input.len(), input.free_len()), (0, 4096));
    }

    #[test]
    fn reserve_compacts_when_that_suffices() {
        let bytes = pattern(4000);
        let mut input = filled(&bytes);
        input.consume(3500);
        assert_eq!(input.reserve(3596).unwrap().len(), 3596);
        assert_eq!(
            (input.unconsumed(), input.capacity()),
            (&bytes[3500..], 4096)
        );
    }

    #[test]
    fn reserve_leaves_the_bytes_alone_when_there_is_room() {
        let mut input = filled(&pattern(1000));
        input.consume(10);
        let address = input.unconsumed().as_ptr();
        assert_eq!(input.reserve(3096).unwrap().len(), 3096);
        assert_eq!(input.unconsumed().as_ptr(), address);
    }

    #[test]
    fn reserve_grows_when_compaction_does_not_suffice() {
        let recycler = BufferRecycler::new();
        let bytes = pattern(4000);
        let mut input = InputBuffer::new(recycler.clone());
        input.extend(&bytes).unwrap();
        input.consume(500);
        assert_eq!(input.reserve(597).unwrap().len(), 8192 - 3500);
        assert_eq!(
            (input.unconsumed(), input.capacity()),
            (&bytes[500..], 8192)
        );
        assert_eq!(recycler.live(), 1);
    }

    #[test]
    fn bytes_survive_repeated_growth() {
        let bytes = pattern(100_000);
        let mut input = InputBuffer::new(BufferRecycler::new());
        for part in bytes.chunks(777) {
            input.extend(part).unwrap();
        }
        assert_eq!(
            (input.unconsumed(), input.capacity()),
            (&bytes[..], 131_072)
        );
    }

    #[test]
    fn growth_above_the_bins_is_geometric() {
        let mut input = InputBuffer::new(BufferRecycler::new());
        input.reserve_exact_total(16 << 20).unwrap();
        input.commit(16 << 20);
        input.reserve(1).unwrap();
        assert_eq!(input.capacity(), 24 << 20);
    }

    #[test]
    fn a_body_of_known_length_makes_it_grow_once() {
        let mut input = filled(&pattern(1000));
        input.reserve_exact_total(100_000).unwrap();
        assert_eq!(
            (input.capacity(), input.free_len()),
            (131_072, 131_072 - 1000)
        );
        let address = input.unconsumed().as_ptr();
        input.reserve_exact_total(100_000).unwrap();
        input.reserve_exact_total(5).unwrap();
        assert_eq!(input.unconsumed().as_ptr(), address);
        assert_eq!(input.unconsumed(), pattern(1000));

        input.reserve_exact_total((20 << 20) + 1).unwrap();
        assert_eq!(input.capacity(), (20 << 20) + 4096);
        assert_eq!(input.unconsumed(), pattern(1000));
    }

    #[test]
    fn a_body_of_known_length_may_fit_after_compaction() {
        let bytes = pattern(4096);
        let mut input = filled(&bytes);
        input.consume(4000);
        input.reserve_exact_total(4096).unwrap();
        assert_eq!((input.capacity(), input.free_len()), (4096, 4000));
        assert_eq!(input.unconsumed(), &bytes[4000..]);
    }

    #[test]
    fn pipelined_requests_are_consumed_one_by_one() {
        let mut input = filled(b"GET /a\r\n\r\nGET /b\r\n\r\nGET /c");
        input.consume(10);
        input.reset_for_new_request();
        assert_eq!(input.unconsumed(), b"GET /b\r\n\r\nGET /c");
        input.consume(10);
        input.reset_for_new_request();
        input.extend(b"\r\n\r\n").unwrap();
        assert_eq!(input.unconsumed(), b"GET /c\r\n\r\n");
        input.consume(10);
        assert_eq!((input.len(), input.free_len()), (0, 4096));
    }

    #[test]
    fn a_new_request_compacts_only_when_most_was_consumed() {
        let bytes = pattern(4096);
        let mut input = filled(&bytes);
        input.consume(2048);
        input.reset_for_new_request();
        assert_eq!(input.free_len(), 0);
        input.consume(1);
        input.reset_for_new_request();
        assert_eq!(
            (input.free_len(), input.unconsumed()),
            (2049, &bytes[2049..])
        );
    }

    #[test]
    fn a_new_connection_gives_the_memory_back_and_remembers_its_size() {
        let recycler = BufferRecycler::new();
        let mut input = InputBuffer::new(recycler.clone());
        input.extend(&pattern(10_000)).unwrap();
        input.consume(10);
        input.reset_for_new_connection();
        assert_eq!((input.len(), input.capacity(), recycler.live()), (0, 0, 0));
        assert_eq!(input.remembered_capacity(), 16_384);
        input.reset_for_new_connection();
        assert_eq!(input.remembered_capacity(), 16_384);
        assert_eq!(input.reserve(1).unwrap().len(), 16_384);
    }

    #[test]
    fn an_idle_connection_holds_no_memory() {
        let recycler = BufferRecycler::new();
        let mut input = InputBuffer::new(recycler.clone());
        input.extend(b"ab").unwrap();
        input.consume(1);
        input.release_if_empty();
        assert_eq!((input.unconsumed(), recycler.live()), (&b"b"[..], 1));
        input.consume(1);
        input.release_if_empty();
        assert_eq!((input.capacity(), recycler.live()), (0, 0));
    }

    #[test]
    fn one_large_body_does_not_make_later_requests_large() {
        let mut input = filled(&pattern(1 << 20));
        input.reset_for_new_connection();
        assert_eq!(input.remembered_capacity(), 1 << 20);
        assert_eq!(input.reserve(1).unwrap().len(), RESTART_CAPACITY_MAX);
        input.release_if_empty();
        assert_eq!(input.reserve(100_000).unwrap().len(), 131_072);
    }

    #[test]
    fn remove_closes_the_gap() {
        let mut input = filled(b"xx5\r\nhello\r\n");
        input.consume(2);
        input.remove(0, 3);
        assert_eq!(input.unconsumed(), b"hello\r\n");
        input.remove(5, 2);
        assert_eq!(input.unconsumed(), b"hello");
        input.remove(1, 0);
        input.remove(1, 3);
        assert_eq!(input.unconsumed(), b"ho");
        input.remove(0, 2);
        assert_eq!((input.len(), input.free_len()), (0, 4096));
    }

    #[test]
    #[should_panic(expected = "remove beyond the unconsumed bytes")]
    fn remove_is_checked() {
        filled(b"abc").remove(2, 2);
    }

    #[test]
    #[should_panic(expected = "remove beyond the unconsumed bytes")]
    fn remove_is_checked_against_overflow() {
        filled(b"abc").remove(2, usize::MAX);
    }

    #[test]
    #[should_panic(expected = "consume beyond the unconsumed bytes")]
    fn consume_is_checked() {
        filled(b"abc").consume(4);
    }

    #[test]
    #[should_panic(expected = "commit beyond the free space")]
    fn commit_is_checked() {
        filled(b"abc").commit(4094);
    }

    #[test]
    fn impossible_reserves_keep_the_bytes() {
        let mut input = filled(b"abc");
        assert!(input.reserve(usize::MAX).is_err());
        assert!(input.reserve(u32::MAX as usize).is_err());
        assert!(input.reserve_exact_total(usize::MAX).is_err());
        assert_eq!((input.unconsumed(), input.capacity()), (&b"abc"[..], 4096));
    }

    #[test]
    fn the_free_space_stays_where_it_is_when_the_buffer_moves() {
        let mut input = filled(b"abc");
        let (address, len) = (input.free_ptr(), input.free_len());
        assert_eq!(address, input.free_mut().as_mut_ptr());
        let mut operation = Box::new(input.take());
        assert_eq!((operation.free_ptr(), operation.free_len()), (address, len));
        // SAFETY: `len` free bytes lie at `address`, as the kernel would be told.
        unsafe { address.copy_from_nonoverlapping(b"def".as_ptr(), 3) };
        operation.commit(3);
        assert_eq!(operation.unconsumed(), b"abcdef");
        assert_eq!(
            (input.len(), input.capacity(), input.remembered_capacity()),
            (0, 0, 4096)
        );
    }
}

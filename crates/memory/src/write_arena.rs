//! The bytes of one write: append-only, contiguous, borrowed from the recycler for this write alone.
//!
//! It starts with 4 KiB and doubles with one copy; response heads fit without growing. Whoever
//! submits the write owns the arena until the write's final completion; dropping it is what gives
//! the memory back. It refers to no request memory, and formats nothing itself.
//!
//! Invariant: `len <= capacity`; the bytes below `len` are what was appended.

use std::fmt;

use crate::{BUFFER_SIZE_MIN, Buffer, BufferRecycler, OutOfMemory};

/// Appended bytes in one piece.
///
/// They stay at one address while the arena is moved, until the next call that takes `&mut self`.
pub struct WriteArena {
    buffer: Buffer,
    len: usize,
}

impl WriteArena {
    /// An arena without bytes, holding 4 KiB of `recycler`'s memory.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when the system has none.
    #[inline]
    pub fn new(recycler: BufferRecycler) -> Result<Self, OutOfMemory> {
        Ok(Self {
            buffer: recycler.acquire(BUFFER_SIZE_MIN)?,
            len: 0,
        })
    }

    /// Bytes appended.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was appended.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that it can hold without growing.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// The bytes appended.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Makes room for `n` more bytes. Grows, when it must, at least to twice the capacity: one
    /// acquire and one copy of what was appended.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the bytes so far are kept.
    #[inline]
    pub fn reserve(&mut self, n: usize) -> Result<(), OutOfMemory> {
        if n <= self.capacity() - self.len {
            Ok(())
        } else {
            self.grow(n)
        }
    }

    /// Appends `bytes`: one bounds check and one copy, unless it must grow as in
    /// [`reserve`](Self::reserve).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; nothing of `bytes` was appended then.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), OutOfMemory> {
        self.reserve(bytes.len())?;
        let end = self.len + bytes.len();
        self.buffer[self.len..end].copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// All of the free space, at least `n` bytes, to be written and then counted in with
    /// [`advance`](Self::advance). It holds stale bytes. Grows as in [`reserve`](Self::reserve).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the bytes so far are kept.
    #[inline]
    pub fn spare_mut(&mut self, n: usize) -> Result<&mut [u8], OutOfMemory> {
        self.reserve(n)?;
        Ok(&mut self.buffer[self.len..])
    }

    /// The free space as it is, maybe empty. It holds stale bytes.
    #[inline]
    #[must_use]
    pub fn free_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..]
    }

    /// Counts in `n` bytes that were written into [`spare_mut`](Self::spare_mut) or
    /// [`free_mut`](Self::free_mut).
    ///
    /// # Panics
    ///
    /// When there is less free space than that.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(
            n <= self.capacity() - self.len,
            "advance beyond the capacity"
        );
        self.len += n;
    }

    /// Drops the bytes from the `n`th on, keeping the memory; nothing happens when there are fewer.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n);
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, n: usize) -> Result<(), OutOfMemory> {
        let needed = self.len.checked_add(n).ok_or(OutOfMemory)?;
        let doubled = self.capacity().saturating_mul(2);
        let mut buffer = self.buffer.recycler().acquire(needed.max(doubled))?;
        buffer[..self.len].copy_from_slice(self.as_slice());
        self.buffer = buffer;
        Ok(())
    }
}

impl fmt::Debug for WriteArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteArena")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: &[u8]) -> WriteArena {
        let mut arena = WriteArena::new(BufferRecycler::new()).unwrap();
        arena.extend(bytes).unwrap();
        arena
    }

    #[test]
    fn starts_empty_with_a_small_buffer() {
        let recycler = BufferRecycler::new();
        let arena = WriteArena::new(recycler.clone()).unwrap();
        assert_eq!(
            (arena.len(), arena.capacity(), recycler.live()),
            (0, 4096, 1)
        );
        assert!(arena.is_empty());
        drop(arena);
        assert_eq!(recycler.live(), 0);
    }

    #[test]
    fn appends_in_order() {
        let mut arena = filled(b"HTTP/1.1 200 OK\r\n");
        arena.extend(b"").unwrap();
        arena.extend(b"\r\n").unwrap();
        assert_eq!(arena.as_slice(), b"HTTP/1.1 200 OK\r\n\r\n");
        assert!(!arena.is_empty());
    }

    #[test]
    fn filling_it_to_the_last_byte_does_not_grow_it() {
        let mut arena = filled(&[1; 4095]);
        arena.extend(&[2]).unwrap();
        assert_eq!((arena.len(), arena.capacity()), (4096, 4096));
        arena.extend(&[3]).unwrap();
        assert_eq!((arena.len(), arena.capacity()), (4097, 8192));
        assert_eq!(arena.as_slice()[4094..], [1, 2, 3]);
    }

    #[test]
    fn grows_to_what_is_needed_and_returns_the_smaller_buffer() {
        let recycler = BufferRecycler::new();
        let mut arena = WriteArena::new(recycler.clone()).unwrap();
        arena.extend(b"head").unwrap();
        arena.reserve(100_000).unwrap();
        assert_eq!((arena.capacity(), recycler.live()), (131_072, 1));
        assert_eq!(arena.as_slice(), b"head");
    }

    #[test]
    fn spare_bytes_count_once_advanced() {
        let mut arena = filled(b"a");
        let spare = arena.spare_mut(5000).unwrap();
        assert!(spare.len() >= 5000);
        spare[..2].copy_from_slice(b"bc");
        assert_eq!(arena.as_slice(), b"a");
        arena.advance(2);
        assert_eq!(arena.as_slice(), b"abc");
        let free = arena.free_mut().len();
        assert_eq!(free, arena.capacity() - 3);
        arena.advance(free);
        assert!(arena.free_mut().is_empty());
    }

    #[test]
    #[should_panic(expected = "advance beyond the capacity")]
    fn advance_is_checked() {
        filled(b"a").advance(4096);
    }

    #[test]
    fn truncate_drops_the_end_only() {
        let mut arena = filled(b"abc");
        arena.truncate(9);
        assert_eq!(arena.as_slice(), b"abc");
        arena.truncate(1);
        assert_eq!(arena.as_slice(), b"a");
    }

    #[test]
    fn an_impossible_reserve_keeps_the_bytes() {
        let mut arena = filled(b"abc");
        assert_eq!(arena.reserve(usize::MAX), Err(OutOfMemory));
        assert_eq!(arena.reserve(usize::MAX - 100), Err(OutOfMemory));
        assert_eq!((arena.as_slice(), arena.capacity()), (&b"abc"[..], 4096));
    }

    #[test]
    fn the_bytes_stay_where_they_are_when_the_arena_moves() {
        let arena = filled(b"abc");
        let address = arena.as_slice().as_ptr();
        let moved = Box::new(arena);
        assert_eq!(moved.as_slice().as_ptr(), address);
    }
}

//! An arena in two hands: what is there can be read while more is added behind it.
//!
//! A handler reads the request's fields, which lie in the exchange's arena, and sets the response's, which go
//! to the same arena. [`Arena::split`] resolves what is to be read into plain slices and gives the rest of
//! the arena away as an [`Appender`]. While both live nothing moves: an appender neither parks nor resets, a
//! new chunk does not touch those before it, and it resolves no handle that is older than itself.

use std::slice;

use super::{Arena, ArenaSlice, DIRECT, Store};
use crate::{OutOfMemory, Plain};

/// Where values of an exchange can be allocated: its arena, or what [`Arena::split`] left of it.
pub trait Allocate {
    /// As [`Arena::alloc_copy`].
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] as for [`Arena::alloc`].
    fn alloc_copy<T: Plain>(&mut self, values: &[T]) -> Result<ArenaSlice<T>, OutOfMemory>;

    /// As [`Arena::grow`].
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; `slice` stays as it is.
    fn grow<T: Plain>(
        &mut self,
        slice: ArenaSlice<T>,
        len: usize,
    ) -> Result<ArenaSlice<T>, OutOfMemory>;

    /// As [`Arena::grow_stale`].
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; `slice` stays as it is.
    fn grow_stale<T: Plain>(
        &mut self,
        slice: ArenaSlice<T>,
        len: usize,
    ) -> Result<ArenaSlice<T>, OutOfMemory>;

    /// As [`Arena::get`].
    ///
    /// # Panics
    ///
    /// When the slice was not made here.
    fn get<T: Plain>(&self, slice: ArenaSlice<T>) -> &[T];

    /// As [`Arena::get_mut`].
    ///
    /// # Panics
    ///
    /// When the slice was not made here.
    fn get_mut<T: Plain>(&mut self, slice: ArenaSlice<T>) -> &mut [T];
}

impl Allocate for Arena {
    #[inline]
    fn alloc_copy<T: Plain>(&mut self, values: &[T]) -> Result<ArenaSlice<T>, OutOfMemory> {
        Arena::alloc_copy(self, values)
    }

    #[inline]
    fn grow<T: Plain>(
        &mut self,
        slice: ArenaSlice<T>,
        len: usize,
    ) -> Result<ArenaSlice<T>, OutOfMemory> {
        Arena::grow(self, slice, len)
    }

    #[inline]
    fn grow_stale<T: Plain>(
        &mut self,
        slice: ArenaSlice<T>,
        len: usize,
    ) -> Result<ArenaSlice<T>, OutOfMemory> {
        Arena::grow_stale(self, slice, len)
    }

    #[inline]
    fn get<T: Plain>(&self, slice: ArenaSlice<T>) -> &[T] {
        Arena::get(self, slice)
    }

    #[inline]
    fn get_mut<T: Plain>(&mut self, slice: ArenaSlice<T>) -> &mut [T] {
        Arena::get_mut(self, slice)
    }
}

/// Adds to an arena whose older values are borrowed meanwhile: see [`Arena::split`].
#[derive(Debug)]
pub struct Appender<'a> {
    arena: &'a mut Arena,
    /// Handles below these offsets are older.
    small_min: u32,
    direct_min: u32,
}

impl Arena {
    /// The values of three slices, to be read, and the arena's rest, to add to. Costs what resolving
    /// the slices costs; a parked segment moves back into a chunk first.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when a parked segment cannot be moved.
    ///
    /// # Panics
    ///
    /// When a slice is of another epoch, as [`get`](Self::get) does.
    #[expect(clippy::type_complexity, reason = "three slices and the rest")]
    pub fn split<'a, A: Plain, B: Plain, C: Plain>(
        &'a mut self,
        a: ArenaSlice<A>,
        b: ArenaSlice<B>,
        c: ArenaSlice<C>,
    ) -> Result<(&'a [A], &'a [B], &'a [C], Appender<'a>), OutOfMemory> {
        if matches!(self.current.store, Store::Block(_)) {
            // An allocation would move it later, under those who read it.
            self.current.unpark(&self.chunks)?;
        }
        let (at_a, at_b, at_c) = (self.locate(a), self.locate(b), self.locate(c));
        let appender = Appender {
            small_min: self.start + self.current.used,
            direct_min: DIRECT + self.directs.len() as u32,
            arena: self,
        };
        // SAFETY: `locate` has checked ranges and alignment of initialised memory, and any bits are valid
        // values. For as long as `'a` lasts, the arena is reachable through the appender alone. That
        // moves no segment (the current one is in a chunk, and nothing parks), frees nothing, and writes
        // only to places that were handed out after this: see `Appender::is_newer`.
        unsafe {
            Ok((
                slice::from_raw_parts(at_a.as_ptr(), a.len()),
                slice::from_raw_parts(at_b.as_ptr(), b.len()),
                slice::from_raw_parts(at_c.as_ptr(), c.len()),
                appender,
            ))
        }
    }
}

impl Appender<'_> {
    /// Whether the values of `slice` were allocated here, so that nobody else reads them.
    #[inline]
    fn is_newer<T>(&self, slice: ArenaSlice<T>) -> bool {
        let min = if slice.offset < DIRECT {
            self.small_min
        } else {
            self.direct_min
        };
        slice.offset >= min || slice.is_empty()
    }
}

impl Allocate for Appender<'_> {
    #[inline]
    fn alloc_copy<T: Plain>(&mut self, values: &[T]) -> Result<ArenaSlice<T>, OutOfMemory> {
        // What is borrowed stands still, so `values` may lie in the arena itself.
        self.arena.alloc_copy(values)
    }

    #[inline]
    fn grow<T: Plain>(
        &mut self,
        slice: ArenaSlice<T>,
        len: usize,
    ) -> Result<ArenaSlice<T>, OutOfMemory> {
        assert!(self.is_newer(slice), "older values are borrowed");
        self.arena.grow(slice, len)
    }

    #[inline]
    fn grow_stale<T: Plain>(
        &mut self,
        slice: ArenaSlice<T>,
        len: usize,
    ) -> Result<ArenaSlice<T>, OutOfMemory> {
        assert!(self.is_newer(slice), "older values are borrowed");
        self.arena.grow_stale(slice, len)
    }

    #[inline]
    fn get<T: Plain>(&self, slice: ArenaSlice<T>) -> &[T] {
        self.arena.get(slice)
    }

    #[inline]
    fn get_mut<T: Plain>(&mut self, slice: ArenaSlice<T>) -> &mut [T] {
        assert!(self.is_newer(slice), "older values are borrowed");
        self.arena.get_mut(slice)
    }
}

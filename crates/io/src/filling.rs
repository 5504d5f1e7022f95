//! A request body that is received into its final place.
//!
//! The memory is the user's (a `bytes` object, say), made by [`KeptBytes::allocate`]. Until it is full
//! nobody else knows it; a pending receive owns the whole `Filling`, in a box, by value.

use std::fmt;
use std::ptr::NonNull;

use crate::write::KeptBytes;

/// A body of known length, and how much of it has arrived.
pub struct Filling<B> {
    body: Option<(B, NonNull<u8>)>,
    len: usize,
    filled: usize,
}

impl<B> fmt::Debug for Filling<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filling({} of {} bytes)", self.filled, self.len)
    }
}

impl<B> Default for Filling<B> {
    fn default() -> Self {
        Filling {
            body: None,
            len: 0,
            filled: 0,
        }
    }
}

/// From this size on the C library maps memory for each body anew, and unmaps it, unless whoever gives the
/// memory has it come from the heap; there too it is new when the heap has to grow.
const MAPPED_MIN: usize = 32 << 20;
const HUGE_PAGE: usize = 2 << 20;
/// So much comes in small pages: who announces a large body and sends little is given little.
const SMALL_FIRST: usize = 512 << 10;

/// Asks for huge pages under a body so large that its memory is new to this process. In small ones
/// the page faults cost more than everything else that is done with it.
fn prefer_huge_pages(start: NonNull<u8>, len: usize) {
    if len < MAPPED_MIN {
        return;
    }
    let start = start.as_ptr() as usize;
    let from = (start + SMALL_FIRST).next_multiple_of(HUGE_PAGE);
    let to = (start + len) / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: whole pages inside of memory that the caller owns, and advice that changes no content; a
    // kernel that cannot take it refuses, and all is as before.
    unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
}

impl<B: KeptBytes> Filling<B> {
    /// Takes memory for a body of `len` bytes; false if there is none.
    pub fn start(&mut self, len: usize) -> bool {
        self.body = B::allocate(len);
        self.len = if self.body.is_some() { len } else { 0 };
        self.filled = 0;
        if let Some((_, start)) = &self.body {
            prefer_huge_pages(*start, len);
        }
        self.body.is_some()
    }

    /// Takes as many of `bytes` as fit; returns how many.
    pub fn extend(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.free_len());
        if let Some(free) = self.free_ptr() {
            // SAFETY: `free_ptr` has room for `free_len` bytes (contract of `allocate`), which
            // nobody else knows; `bytes` cannot lie there.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), free.as_ptr(), count) };
        }
        self.filled += count;
        count
    }

    /// What has arrived.
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            // SAFETY: the first `filled` bytes were written, and the body keeps them alive.
            Some((_, start)) => unsafe { std::slice::from_raw_parts(start.as_ptr(), self.filled) },
            None => &[],
        }
    }

    /// The body, once it is full.
    pub fn body(&self) -> Option<&B> {
        match &self.body {
            Some((body, _)) if self.filled == self.len => Some(body),
            _ => None,
        }
    }

    /// Gives the memory away, full or not.
    pub fn take(&mut self) -> Option<B> {
        self.len = 0;
        self.filled = 0;
        self.body.take().map(|(body, _)| body)
    }

    pub(crate) fn free_len(&self) -> usize {
        self.len - self.filled
    }

    pub(crate) fn free_ptr(&self) -> Option<NonNull<u8>> {
        let (_, start) = self.body.as_ref()?;
        // SAFETY: `filled <= len`, so this is inside the memory or one past its end.
        Some(unsafe { start.add(self.filled) })
    }

    pub(crate) fn commit(&mut self, count: usize) {
        assert!(
            count <= self.free_len(),
            "more arrived than there was room for"
        );
        self.filled += count;
    }
}

/// Where a single receive writes to; it owns that memory meanwhile.
#[derive(Debug)]
pub enum Space<B> {
    /// The free end of an input buffer.
    Input(Box<theframework_memory::InputBuffer>),
    /// What is missing of a body.
    Body(Box<Filling<B>>),
}

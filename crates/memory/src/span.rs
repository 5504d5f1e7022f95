//! Places inside a buffer, said as offsets, and the types that may lie in raw memory.
//!
//! A [`Span`] stays right when the bytes that it speaks of move; it is 8 bytes and holds no borrow.
//! It does not know which buffer it belongs to: its owner does.

use std::ops::Range;

/// `len` bytes from offset `start` of some buffer.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The bytes from `start` up to, not including, `end`.
    ///
    /// Debug builds panic when `end < start` or `end` is beyond `u32::MAX`; release builds truncate.
    #[inline]
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end, "span ends before it starts");
        debug_assert!(u32::try_from(end).is_ok(), "span beyond 4 GiB");
        Self {
            start: start as u32,
            len: end.wrapping_sub(start) as u32,
        }
    }

    /// Offset of the first byte after the span.
    #[inline]
    #[must_use]
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// Whether it spans no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The same place as a range of indices.
    #[inline]
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end()
    }

    /// The bytes at this place in `bytes`.
    ///
    /// # Panics
    ///
    /// When the span reaches beyond `bytes`.
    #[inline]
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.range()]
    }
}

/// Types that may be read from any initialised, aligned memory of their size.
///
/// # Safety
///
/// - Every bit pattern is a valid value: no references, no `bool`, no enums.
/// - There are no padding bytes, and the size is not zero.
/// - The alignment is at most 16.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: unsigned integers have neither padding nor invalid values, and align to at most 8.
unsafe impl Plain for u8 {}
// SAFETY: as for u8.
unsafe impl Plain for u16 {}
// SAFETY: as for u8.
unsafe impl Plain for u32 {}
// SAFETY: as for u8.
unsafe impl Plain for u64 {}
// SAFETY: two `u32` in `repr(C)`: 8 bytes without padding, any value valid, align 4.
unsafe impl Plain for Span {}
// SAFETY: an array of a plain type adds no padding.
unsafe impl Plain for [Span; 2] {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_place() {
        let span = Span::new(2, 5);
        assert_eq!((span.start, span.len, span.end()), (2, 3, 5));
        assert_eq!(span.range(), 2..5);
        assert_eq!(span.of(b"abcdefg"), b"cde");
        assert!(!span.is_empty());
        assert_eq!(size_of::<Span>(), 8);
    }

    #[test]
    fn default_is_empty_and_resolves_in_any_buffer() {
        assert!(Span::default().is_empty());
        assert_eq!(Span::default().of(b""), b"");
        assert_eq!(Span::new(3, 3).of(b"abc"), b"");
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn panics_beyond_the_buffer() {
        let _ = Span::new(2, 5).of(b"abcd");
    }

    #[test]
    fn an_end_beyond_u32_does_not_wrap() {
        let span = Span {
            start: u32::MAX,
            len: u32::MAX,
        };
        assert_eq!(span.end(), 2 * u32::MAX as usize);
    }
}

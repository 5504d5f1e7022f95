//! Short text that is made without allocation, and known not to be longer than its place.

use std::fmt;

/// At most `N` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Inline<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Inline<N> {
    pub(crate) const fn new() -> Self {
        Inline {
            bytes: [0; N],
            len: 0,
        }
    }

    /// Appends; whoever chose `N` has counted.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    pub(crate) fn push_decimal(&mut self, number: u64) {
        self.push(itoa::Buffer::new().format(number).as_bytes());
    }

    pub(crate) fn push_hex(&mut self, number: u64) {
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            self.push(&[b"0123456789abcdef"[(number >> (4 * place)) as usize & 15]]);
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> fmt::Debug for Inline<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_leading_zeros() {
        let mut text = Inline::<64>::new();
        for number in [0, 1, 15, 16, 0xdead_beef, u64::MAX] {
            text.push_hex(number);
            text.push(b" ");
        }
        text.push_decimal(0);
        assert_eq!(text.as_bytes(), b"0 1 f 10 deadbeef ffffffffffffffff 0");
    }
}

//! The one error of this crate.
//!
//! It carries nothing, so that a `Result` of a pointer stays one word and no caller is tempted to
//! recover by size. It says nothing about limits: those are the protocol's.

use std::error::Error;
use std::fmt;

/// The system has no memory for the request, or the request is larger than an address can say.
///
/// Nothing was changed by the call that returned it: what was held before is still held.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl Error for OutOfMemory {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_an_error() {
        let error: Box<dyn Error> = Box::new(OutOfMemory);
        assert_eq!(error.to_string(), "out of memory");
        assert_eq!(size_of::<Result<&u8, OutOfMemory>>(), size_of::<usize>());
    }
}

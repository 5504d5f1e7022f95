//! State of a Python object that the GIL guards.

use std::ops::Deref;

/// A value inside a Python object, reached only with the GIL held.
#[derive(Default)]
pub(crate) struct GilBound<T>(T);

impl<T> GilBound<T> {
    pub(crate) fn new(value: T) -> Self {
        GilBound(value)
    }
}

impl<T> Deref for GilBound<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

// SAFETY: the module declares that it needs the GIL, so on every build it runs on, whoever has a
// reference to a Python object's inside holds the GIL, one thread at a time. No reference into the
// value is kept over a call that could let the GIL go: cells in it are taken, replaced or read
// between such calls (the rule in `lib.rs`). The values have no tie to the thread that made them.
unsafe impl<T> Sync for GilBound<T> {}
// SAFETY: as above.
unsafe impl<T> Send for GilBound<T> {}

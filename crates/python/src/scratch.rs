//! Buffers for text in passing, used again and again, so that decoding allocates nothing.

use std::cell::RefCell;

use theframework_memory::RECYCLES;

/// Buffers kept; more are in use at once only when making an object runs a handler's own code.
const KEPT_MAX: usize = 4;
/// A larger one is not kept.
const SIZE_MAX: usize = 64 * 1024;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
pub(crate) fn take() -> Vec<u8> {
    KEPT.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub(crate) fn give(mut buffer: Vec<u8>) {
    buffer.clear();
    KEPT.with_borrow_mut(|kept| {
        if RECYCLES && kept.len() < KEPT_MAX && buffer.capacity() <= SIZE_MAX {
            kept.push(buffer);
        }
    });
}

/// Uses a buffer for the length of a call.
pub(crate) fn with<R>(act: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = take();
    let result = act(&mut buffer);
    give(buffer);
    result
}

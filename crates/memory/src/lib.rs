//! Memory of theframework: chunks, arenas, recycled buffers, slabs.
//!
//! | type | holds | given back |
//! | --- | --- | --- |
//! | [`Arena`] | what one exchange needs, addressed by [`ArenaSlice`] handles | all at once, by `reset` |
//! | [`WriteArena`] | the bytes of one write | when the write has completed |
//! | [`InputBuffer`] | received bytes that no parser has consumed yet | when empty, or with the connection |
//! | [`Block`] | bytes that are parked, in their exact size | on drop |
//! | [`Slab`] | long-lived values behind generation-checked keys | one by one |
//!
//! Below them lie three recyclers ([`ChunkRecycler`], [`BlockRecycler`], [`BufferRecycler`]), one
//! set per worker, which share one implementation: LIFO free lists by size, trimmed by watermark.
//!
//! # Invariants
//!
//! - One worker, one thread: everything is shared through `Rc` and is neither `Send` nor `Sync`.
//! - All memory is zeroed when it comes from the system, so that it is initialised for ever after.
//!   What a recycler hands out again holds *stale* bytes: initialised, but of no meaning.
//! - Running out of memory is an [`OutOfMemory`] result, never a panic or an abort.
//! - A key or handle that outlived what it named is noticed: the slab answers `None`, the arena
//!   panics. Neither ever reads freed memory.
//!
//! What this crate does not do: it sets no limit on how much a request may use (that is the
//! protocol's business), it knows neither sockets nor HTTP, and it is not for sharing between threads:
//!
//! ```compile_fail,E0277
//! fn needs_send<T: Send>() {}
//! needs_send::<theframework_memory::Arena>();
//! ```
//!
//! Cargo feature `no-recycle`: every recycler frees at once instead of caching. It is meant for
//! runs under a sanitizer, which then sees each use after release.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failing test says where"))]

mod arena;
mod block;
mod buffer;
mod chunk;
mod counting;
mod error;
mod input_buffer;
mod pool;
mod slab;
mod span;
mod write_arena;

pub use arena::{Allocate, Appender, Arena, ArenaSlice, DIRECT_THRESHOLD};
pub use block::{Block, BlockRecycler};
pub use buffer::{BUFFER_SIZE_MAX, BUFFER_SIZE_MIN, Buffer, BufferRecycler, CACHED_BYTES_MAX};
pub use chunk::{CHUNK_SIZE, Chunk, ChunkRecycler, DATA_START, USABLE};
pub use counting::{AllocationCounts, CountingAllocator};
pub use error::OutOfMemory;
pub use input_buffer::{InputBuffer, RESTART_CAPACITY_MAX};
pub use pool::RECYCLES;
pub use slab::{Key, Slab};
pub use span::{Plain, Span};
pub use write_arena::WriteArena;

// Sizes are computed from `u32` counts without overflow checks; that needs 64-bit addresses.
const _: () = assert!(
    size_of::<usize>() >= 8,
    "theframework needs a 64-bit target"
);

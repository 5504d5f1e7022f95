//! Output of a connection: finished responses, joined into as few writes as the socket allows.
//!
//! At most two writes exist for a connection: the one that the kernel has, and the one that is
//! being filled. When the second is full too ([`JOIN_MAX`] bytes, or closed by a body that is sent
//! from where it is), the connection is *blocked*: its next request waits in the input.

use theframework_io::{KeptBytes, OpId, Write};
use theframework_memory::{BufferRecycler, OutOfMemory, RECYCLES, WriteArena};

/// Joined responses are submitted at this size at the latest.
pub(crate) const JOIN_MAX: usize = 64 * 1024;
/// Bodies up to this size are copied behind their head; larger ones are sent from where they are.
pub(crate) const COPY_MAX: usize = 4096;
/// A write arena that grew beyond this goes back to the buffer recycler with its write.
const ARENA_KEPT_MAX: usize = 16 * 1024;
/// Idle writes kept, each with a 4 KiB arena.
const IDLE_MAX: usize = 256;

/// Writes that are not in use.
#[derive(Debug)]
pub(crate) struct WritePool<B> {
    buffers: BufferRecycler,
    idle: Vec<Box<Write<B>>>,
    /// The fewest that lay idle since the last trim: nobody has needed those.
    idle_min: usize,
}

impl<B: KeptBytes> WritePool<B> {
    pub(crate) fn new(buffers: BufferRecycler) -> Self {
        WritePool {
            buffers,
            idle: Vec::new(),
            idle_min: 0,
        }
    }

    pub(crate) fn acquire(&mut self) -> Result<Box<Write<B>>, OutOfMemory> {
        match self.idle.pop() {
            Some(write) => {
                self.idle_min = self.idle_min.min(self.idle.len());
                Ok(write)
            }
            None => Ok(Box::new(Write::new(WriteArena::new(self.buffers.clone())?))),
        }
    }

    /// Takes an ended write back; returns the body that it kept alive.
    pub(crate) fn release(&mut self, mut write: Box<Write<B>>) -> Option<B> {
        let body = write.recycle();
        let is_small = write.arena_mut().capacity() <= ARENA_KEPT_MAX;
        if RECYCLES && is_small && self.idle.len() < IDLE_MAX {
            self.idle.push(write);
        }
        body
    }

    #[cfg(feature = "audit")]
    pub(crate) fn idle_len(&self) -> usize {
        self.idle.len()
    }

    /// Lets go of half of what nobody has needed since the last trim.
    pub(crate) fn trim(&mut self) {
        self.idle
            .truncate(self.idle.len() - self.idle_min.div_ceil(2));
        self.idle_min = self.idle.len();
    }
}

#[derive(Debug)]
pub(crate) struct Output<B> {
    /// Finished responses that have not been submitted.
    pub(crate) pending: Option<Box<Write<B>>>,
    /// The write that the kernel has.
    pub(crate) in_flight: Option<OpId>,
}

impl<B> Default for Output<B> {
    fn default() -> Self {
        Output {
            pending: None,
            in_flight: None,
        }
    }
}

impl<B: KeptBytes> Output<B> {
    /// Whether everything has been sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_none() && self.in_flight.is_none()
    }

    /// Whether nothing can be appended: the next request has to wait until the peer has taken
    /// something. A full write that could be submitted has been: see `mark_dirty`.
    pub(crate) fn is_blocked(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|write| write.is_sealed() || write.len() >= JOIN_MAX)
    }
}

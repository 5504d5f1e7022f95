//! Received bytes of a connection that no request has consumed yet.
//!
//! Where they lie changes; their order and the distance between any two of them do not, so spans
//! relative to the first unconsumed byte hold over every move:
//!
//! ```text
//! Empty ----> Leased ----> Block      kept while a handler is parked or a turn ends: exact size
//!               |            |
//!               +--> Buffer <+        more bytes came: contiguous, grows
//!                      |
//!                  InKernel           a receive writes into the buffer's free space
//! ```

use theframework_io::{Filling, KeptBytes, Lease};
use theframework_memory::{
    Block, BlockRecycler, BufferRecycler, InputBuffer, OutOfMemory, RECYCLES,
};

/// Boxed input buffers that are not in use; boxes, because a pending receive owns one by value.
#[derive(Debug)]
pub(crate) struct InputPool {
    buffers: BufferRecycler,
    blocks: BlockRecycler,
    #[expect(clippy::vec_box, reason = "a pending receive owns one by value")]
    idle: Vec<Box<InputBuffer>>,
}

/// Idle input buffers kept; they hold no memory but their own 40 bytes.
const IDLE_MAX: usize = 1024;
/// Bytes that one receive of a body that streams may bring.
const STREAM_SPACE: usize = 64 * 1024;

impl InputPool {
    pub(crate) fn new(buffers: BufferRecycler, blocks: BlockRecycler) -> Self {
        InputPool {
            buffers,
            blocks,
            idle: Vec::new(),
        }
    }

    fn acquire(&mut self) -> Box<InputBuffer> {
        self.idle
            .pop()
            .unwrap_or_else(|| Box::new(InputBuffer::new(self.buffers.clone())))
    }

    pub(crate) fn release(&mut self, mut input: Box<InputBuffer>) {
        input.reset_for_new_connection();
        if RECYCLES && self.idle.len() < IDLE_MAX {
            self.idle.push(input);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) enum Input {
    #[default]
    Empty,
    Leased {
        lease: Lease,
        start: u16,
        end: u16,
    },
    Block {
        block: Block,
        start: u32,
    },
    Buffer(Box<InputBuffer>),
    InKernel,
}

impl Input {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Input::Leased { lease, start, end } => &lease[usize::from(*start)..usize::from(*end)],
            Input::Block { block, start } => &block[*start as usize..],
            Input::Buffer(buffer) => buffer.unconsumed(),
            Input::Empty | Input::InKernel => &[],
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Input::Leased { lease, start, end } => {
                &mut lease[usize::from(*start)..usize::from(*end)]
            }
            Input::Block { block, start } => &mut block[*start as usize..],
            Input::Buffer(buffer) => buffer.unconsumed_mut(),
            Input::Empty | Input::InKernel => &mut [],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    pub(crate) fn is_leased(&self) -> bool {
        matches!(self, Input::Leased { .. })
    }

    /// Adds what arrived: in place if nothing else is here, else with one copy.
    pub(crate) fn append(&mut self, lease: Lease, pool: &mut InputPool) -> Result<(), OutOfMemory> {
        if let Input::Empty = self {
            let end = lease.len() as u16;
            *self = Input::Leased {
                lease,
                start: 0,
                end,
            };
            return Ok(());
        }
        self.as_buffer(pool)?.extend(&lease)
    }

    /// Moves the bytes to the contiguous buffer that grows.
    pub(crate) fn as_buffer(
        &mut self,
        pool: &mut InputPool,
    ) -> Result<&mut Box<InputBuffer>, OutOfMemory> {
        debug_assert!(
            !matches!(self, Input::InKernel),
            "the kernel owns the buffer"
        );
        if !matches!(self, Input::Buffer(_)) {
            let mut buffer = pool.acquire();
            if let Err(error) = buffer.extend(self.bytes()) {
                pool.release(buffer);
                return Err(error);
            }
            *self = Input::Buffer(buffer);
        }
        match self {
            Input::Buffer(buffer) => Ok(buffer),
            _ => unreachable!("made a buffer just now"),
        }
    }

    /// Returns a lease to its pool: the bytes move to memory of exactly their size.
    pub(crate) fn end_lease(&mut self, pool: &InputPool) -> Result<(), OutOfMemory> {
        if self.is_leased() {
            let bytes = self.bytes();
            let mut block = pool.blocks.acquire(bytes.len())?;
            block.copy_from_slice(bytes);
            *self = Input::Block { block, start: 0 };
        }
        Ok(())
    }

    /// Takes the first `n` bytes away.
    pub(crate) fn consume(&mut self, n: usize, pool: &mut InputPool) {
        match self {
            Input::Leased { start, end, .. } => {
                *start += n as u16;
                if *start < *end {
                    return;
                }
            }
            Input::Block { block, start } => {
                *start += n as u32;
                if (*start as usize) < block.len() {
                    return;
                }
            }
            Input::Buffer(buffer) => {
                buffer.consume(n);
                if !buffer.is_empty() {
                    buffer.reset_for_new_request();
                    return;
                }
            }
            Input::Empty | Input::InKernel => return,
        }
        self.clear(pool);
    }

    /// Closes a gap of `len` bytes at `at`: what comes behind moves down.
    pub(crate) fn remove(&mut self, at: usize, len: usize) {
        match self {
            Input::Buffer(buffer) => buffer.remove(at, len),
            Input::Leased { lease, start, end } => {
                let gap = usize::from(*start) + at;
                lease.copy_within(gap + len..usize::from(*end), gap);
                *end -= len as u16;
            }
            Input::Block { .. } | Input::Empty | Input::InKernel => {
                debug_assert!(len == 0, "a body is decoded in a lease or in the buffer");
            }
        }
    }

    /// Moves what stands behind the first `at` bytes to a body's own place, as far as it fits there.
    pub(crate) fn move_to<B: KeptBytes>(
        &mut self,
        filling: &mut Filling<B>,
        at: usize,
        pool: &mut InputPool,
    ) -> Result<(), OutOfMemory> {
        if self.len() > at {
            if matches!(self, Input::Block { .. }) {
                self.as_buffer(pool)?;
            }
            let taken = filling.extend(&self.bytes()[at..]);
            self.remove(at, taken);
        }
        Ok(())
    }

    /// Takes the first `len` bytes away, into memory of their own.
    pub(crate) fn split_head(
        &mut self,
        len: usize,
        pool: &mut InputPool,
    ) -> Result<Block, OutOfMemory> {
        let mut head = pool.blocks.acquire(len)?;
        head.copy_from_slice(&self.bytes()[..len]);
        self.consume(len, pool);
        Ok(head)
    }

    /// Makes room for a single receive of a body that streams; nothing else is here.
    pub(crate) fn stream_space(
        &mut self,
        pool: &mut InputPool,
    ) -> Result<Box<InputBuffer>, OutOfMemory> {
        debug_assert!(self.len() == 0, "what is there comes first");
        let mut buffer = pool.acquire();
        if let Err(error) = buffer.reserve_exact_total(STREAM_SPACE) {
            pool.release(buffer);
            return Err(error);
        }
        *self = Input::InKernel;
        Ok(buffer)
    }

    /// Gives everything back.
    pub(crate) fn clear(&mut self, pool: &mut InputPool) {
        if let Input::Buffer(buffer) = std::mem::take(self) {
            pool.release(buffer);
        }
    }
}

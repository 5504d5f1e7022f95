//! One pending write: a write arena and, behind it, at most one body that is sent from where it is,
//! and behind that a few bytes that end the body's frame.
//!
//! The write owns all of them until its own final completion, and nobody else may reset or return them
//! (the race of seed `000`). It lives in a box, so the message header, the vectors and the tail that
//! the kernel reads have a stable address; header and vectors are filled by the driver just before
//! submission.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use theframework_memory::{RECYCLES, WriteArena};

/// Bytes that stay where they are for as long as their owner lives.
///
/// # Safety
/// * `as_bytes` returns the same address and length on every call until the value is dropped,
///   also after the value itself was moved.
/// * The bytes are not changed by anybody meanwhile: the kernel reads them at any time.
pub unsafe trait KeptBytes: Sized {
    /// The bytes to send.
    fn as_bytes(&self) -> &[u8];

    /// A value of `len` bytes for a request body, with the place to write them to: valid for writes
    /// for as long as the value lives, and untouched by anybody else until it is given away. Nothing
    /// may be assumed about the bytes before they are written. `None`: this type does not do that,
    /// or memory is short.
    fn allocate(len: usize) -> Option<(Self, NonNull<u8>)> {
        let _ = len;
        None
    }
}

// SAFETY: a static slice never moves or changes.
unsafe impl KeptBytes for &'static [u8] {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: the shared allocation is immutable and stays in place while one owner lives.
unsafe impl KeptBytes for Arc<[u8]> {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: the heap allocation stays in place when the boxed slice is moved; it is owned, so nobody
// else can change it.
unsafe impl KeptBytes for Box<[u8]> {
    fn as_bytes(&self) -> &[u8] {
        self
    }

    fn allocate(len: usize) -> Option<(Self, NonNull<u8>)> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        let mut body = bytes.into_boxed_slice();
        let start = NonNull::new(body.as_mut_ptr())?;
        Some((body, start))
    }
}

// SAFETY: the bytes are immutable, and lie in static memory, or in an allocation that one handle keeps
// alive, wherever the handle itself is moved; none of them is behind a handle of its own.
unsafe impl KeptBytes for bytes::Bytes {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

/// The body type of a server that copies every body: it has no values.
#[derive(Debug)]
pub enum NoBody {}

// SAFETY: there is no value to call this on.
unsafe impl KeptBytes for NoBody {
    fn as_bytes(&self) -> &[u8] {
        match *self {}
    }
}

/// Bytes that a [tail](Write::extend_tail) has room for: the end of a chunk, and of a chunked body.
const TAIL_MAX: usize = 8;

/// Everything that one write sends, and how far it has come.
pub struct Write<B> {
    arena: WriteArena,
    body: Option<B>,
    tail: [u8; TAIL_MAX],
    tail_len: u8,
    sent: usize,
    /// What is read from a file into the arena, while such an operation owns the write: from where, and
    /// how much at most. So a file's bytes are sent from where they were read to.
    reading: (u64, usize),
    message: libc::msghdr,
    vectors: [libc::iovec; 3],
}

impl<B> fmt::Debug for Write<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("arena", &self.arena.len())
            .field("body", &self.body.is_some())
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl<B: KeptBytes> Write<B> {
    /// A write that sends the arena's bytes; more may be appended until it is submitted.
    pub fn new(arena: WriteArena) -> Self {
        const NO_VECTOR: libc::iovec = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        Write {
            arena,
            body: None,
            tail: [0; TAIL_MAX],
            tail_len: 0,
            sent: 0,
            reading: (0, 0),
            // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
            message: unsafe { std::mem::zeroed() },
            vectors: [NO_VECTOR; 3],
        }
    }

    /// The arena, to append to. Nothing may be appended behind a body.
    pub fn arena_mut(&mut self) -> &mut WriteArena {
        debug_assert!(self.body.is_none(), "nothing comes behind a body");
        &mut self.arena
    }

    /// Puts a body behind the arena's bytes, sent from where it is.
    pub fn set_body(&mut self, body: B) {
        debug_assert!(self.body.is_none(), "one body to a write");
        self.body = Some(body);
    }

    /// Puts a few bytes behind the body; false if they do not fit.
    pub fn extend_tail(&mut self, bytes: &[u8]) -> bool {
        debug_assert!(
            self.body
                .as_ref()
                .is_some_and(|body| !body.as_bytes().is_empty()),
            "a tail ends a body's frame"
        );
        let start = usize::from(self.tail_len);
        let Some(room) = self.tail.get_mut(start..start + bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.tail_len += bytes.len() as u8;
        true
    }

    /// Whether a body closes this write: nothing can be appended but a tail.
    pub fn is_sealed(&self) -> bool {
        self.body.is_some()
    }

    /// All bytes of this write, sent or not.
    pub fn len(&self) -> usize {
        self.all().into_iter().map(<[u8]>::len).sum()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the socket has taken so far.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Takes the write apart when it has ended.
    pub fn into_parts(self) -> (WriteArena, Option<B>) {
        (self.arena, self.body)
    }

    /// Takes the body out of an ended write and makes the arena ready for the next one.
    pub fn recycle(&mut self) -> Option<B> {
        self.sent = 0;
        self.tail_len = 0;
        self.arena.truncate(0);
        self.body.take()
    }

    /// Reads all of it once more, as the kernel did. A sanitizer does not see what the kernel reads, but
    /// it sees this: memory that was freed before the write's end. Nothing is done but under
    /// `no-recycle`.
    pub(crate) fn check_alive(&self) {
        if !RECYCLES {
            for piece in self.all() {
                std::hint::black_box(piece.iter().fold(0, |sum, &byte| sum ^ byte));
            }
        }
    }

    /// Notes what a read from a file is to bring.
    pub(crate) fn set_reading(&mut self, offset: u64, most: usize) {
        debug_assert!(self.body.is_none(), "nothing comes behind a body");
        debug_assert!(
            most > 0 && !self.arena.free_mut().is_empty(),
            "a read of nothing looks like the end of the file"
        );
        self.reading = (offset, most);
    }

    /// Where in the file to read from, and where to; that place is the same on every call, also when the
    /// box of the write was moved, until something was appended.
    pub(crate) fn reading(&mut self) -> (u64, &mut [u8]) {
        /// One system call reads no more than this.
        const READ_MAX: usize = 1 << 30;
        let (offset, most) = self.reading;
        let free = self.arena.free_mut();
        let len = free.len().min(most).min(READ_MAX);
        (offset, &mut free[..len])
    }

    /// Counts in what was read.
    pub(crate) fn commit_read(&mut self, n: usize) {
        debug_assert!(
            n <= self.reading().1.len(),
            "more was read than was asked for"
        );
        self.arena.advance(n);
    }

    pub(crate) fn advance(&mut self, n: usize) {
        self.sent += n;
        debug_assert!(self.sent <= self.len());
    }

    /// All bytes of this write, sent or not, as the pieces that it consists of.
    pub(crate) fn all(&self) -> [&[u8]; 3] {
        let body = self.body.as_ref().map_or(&[][..], KeptBytes::as_bytes);
        let tail = &self.tail[..usize::from(self.tail_len)];
        [self.arena.as_slice(), body, tail]
    }

    /// What is still to be sent, as the pieces that it consists of; empty ones come last.
    pub(crate) fn remaining(&self) -> [&[u8]; 3] {
        let mut sent = self.sent;
        let mut pieces = self.all();
        while sent >= pieces[0].len() && !pieces[1].is_empty() {
            sent -= pieces[0].len();
            pieces = [pieces[1], pieces[2], &[]];
        }
        pieces[0] = &pieces[0][sent..];
        pieces
    }

    /// Fills the message header for the pieces that remain; valid while the write is boxed and
    /// neither moved out nor appended to.
    pub(crate) fn message(&mut self) -> *const libc::msghdr {
        let pieces = self.remaining();
        let count = pieces.iter().filter(|piece| !piece.is_empty()).count();
        self.vectors = pieces.map(|piece| libc::iovec {
            iov_base: piece.as_ptr().cast_mut().cast(),
            iov_len: piece.len(),
        });
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = count;
        &raw const self.message
    }
}

#[cfg(test)]
mod tests {
    use theframework_memory::BufferRecycler;

    use super::*;

    #[test]
    fn what_remains_begins_where_the_last_send_ended() {
        for (head, tail) in [("head", "tail"), ("", "tail"), ("head", ""), ("", "")] {
            let mut arena = WriteArena::new(BufferRecycler::new()).unwrap();
            arena.extend(head.as_bytes()).unwrap();
            let mut write = Write::<&'static [u8]>::new(arena);
            write.set_body(b"body");
            assert!(write.extend_tail(tail.as_bytes()));
            let all = [head, "body", tail].concat();
            assert_eq!(write.len(), all.len());
            for sent in 0..=all.len() {
                let pieces = write.remaining();
                assert_eq!(pieces.concat(), all.as_bytes()[sent..]);
                assert!(pieces[0].is_empty() == (sent == all.len()));
                assert!(!pieces[1].is_empty() || pieces[2].is_empty());
                let used = pieces.iter().filter(|piece| !piece.is_empty()).count();
                write.message();
                assert_eq!(write.message.msg_iovlen, used);
                if sent < all.len() {
                    write.advance(1);
                }
            }
            assert_eq!(write.recycle(), Some(&b"body"[..]));
            assert!(write.is_empty());
        }
    }

    #[test]
    fn a_tail_has_room_for_the_end_of_a_chunk_and_of_a_body() {
        let arena = WriteArena::new(BufferRecycler::new()).unwrap();
        let mut write = Write::<&'static [u8]>::new(arena);
        write.set_body(b"body");
        assert!(write.extend_tail(b"\r\n"));
        assert!(write.extend_tail(b"0\r\n\r\n"));
        assert!(!write.extend_tail(b"xx"));
        assert_eq!(write.remaining().concat(), b"body\r\n0\r\n\r\n");
    }
}

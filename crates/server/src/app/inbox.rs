//! What other threads want of a worker: a locked queue, and a socket that wakes its loop.

use std::any::Any;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use theframework_memory::Key;

use crate::app::reply::Reply;
use crate::app::worker::Worker;
use crate::exchange::ExchangeId;

/// What the loop is asked to do.
pub(crate) enum Message {
    /// Answers an exchange that was deferred.
    Reply(ExchangeId, Box<Reply>),
    /// A piece for a channel or a connection that was taken over.
    Piece(Key, Bytes),
    /// No more pieces come: its sender has said so.
    End(Key),
    /// Nobody has a sender any more.
    Unheld(Key),
    /// Something ran elsewhere; what it returned.
    Done(Key, Box<dyn Any + Send>),
    /// Nobody will say [`Done`](Self::Done).
    Lost(Key),
    Call(Box<dyn FnOnce(&Worker) + Send>),
    /// Finish what is in flight, for so long at most.
    Drain(Duration),
    Abort,
}

pub(crate) struct Inbox {
    queue: Mutex<Vec<Message>>,
    /// The loop has been woken and has not looked yet.
    is_awake: AtomicBool,
    wakes: UnixStream,
    woken: UnixStream,
    /// For a loop that waits for nothing but this, in tests.
    arrived: Condvar,
}

impl Inbox {
    pub(crate) fn new() -> std::io::Result<Self> {
        let (wakes, woken) = UnixStream::pair()?;
        wakes.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok(Inbox {
            queue: Mutex::new(Vec::new()),
            is_awake: AtomicBool::new(false),
            wakes,
            woken,
            arrived: Condvar::new(),
        })
    }

    /// Readable when something was put in.
    pub(crate) fn wake_fd(&self) -> RawFd {
        self.woken.as_raw_fd()
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Message>> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From any thread. One system call if the loop is not awake already.
    pub(crate) fn put(&self, message: Message) {
        self.queue().push(message);
        self.arrived.notify_one();
        if !self.is_awake.swap(true, Ordering::AcqRel) {
            // A full socket wakes too.
            let _ = (&self.wakes).write(&[1]);
        }
    }

    /// Takes everything, in exchange for an empty list.
    pub(crate) fn take(&self, empty: &mut Vec<Message>) {
        debug_assert!(empty.is_empty());
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        // Whoever comes from here on wakes again; before, it was in the queue already.
        self.is_awake.store(false, Ordering::Release);
        std::mem::swap(&mut *self.queue(), empty);
    }

    /// Waits until something is there, for so long at most; says whether it is.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let queue = self.queue();
        let (queue, _) = self
            .arrived
            .wait_timeout_while(queue, time, |queue| queue.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        !queue.is_empty()
    }
}

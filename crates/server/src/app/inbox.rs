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

/// What the loop is asked to do.
pub(crate) enum Message {
    /// Answers an exchange that was deferred.
    Reply(Key, Box<Reply>),
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
    /// None when the loop has ended: what is put in then is dropped.
    queue: Mutex<Option<Vec<Message>>>,
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
            queue: Mutex::new(Some(Vec::new())),
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

    fn queue(&self) -> MutexGuard<'_, Option<Vec<Message>>> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From any thread. One system call if the loop is not awake already.
    pub(crate) fn put(&self, message: Message) {
        let mut queue = self.queue();
        let Some(open) = &mut *queue else {
            // With nothing locked: what is dropped may put in something itself.
            drop(queue);
            return drop(message);
        };
        open.push(message);
        drop(queue);
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
        if let Some(queue) = &mut *self.queue() {
            std::mem::swap(queue, empty);
        }
    }

    /// Nothing is taken out any more.
    pub(crate) fn close(&self) {
        let left = self.queue().take();
        drop(left);
    }

    /// Waits until something is there, for so long at most; says whether it is.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let queue = self.queue();
        let (queue, _) = self
            .arrived
            .wait_timeout_while(queue, time, |queue| is_empty(queue))
            .unwrap_or_else(PoisonError::into_inner);
        !is_empty(&queue)
    }
}

fn is_empty(queue: &Option<Vec<Message>>) -> bool {
    queue.as_ref().is_none_or(Vec::is_empty)
}

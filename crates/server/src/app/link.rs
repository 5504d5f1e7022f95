//! Sending to a client from anywhere: channels, events, and connections that were taken over.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use theframework_memory::Key;

use crate::app::inbox::{Inbox, Message};
use crate::app::worker::Worker;

/// Bytes that may wait for a client before a [`Sender`] takes no more.
pub const QUEUED_MAX: usize = 64 * 1024;

/// Why a [`Sender`] did not take something.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The client has not taken what it was sent before: try again later, or give it up.
    Full,
    /// The client has gone, or the response was ended.
    Gone,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full => "the client has not taken what it was sent before",
            SendError::Gone => "the client has gone",
        })
    }
}

impl std::error::Error for SendError {}

/// What a [`Sender`] and its task in the worker both know.
pub(crate) struct Wire {
    inbox: Arc<Inbox>,
    pub(crate) task: Key,
    /// Bytes that were taken here and not by the client's connection.
    pub(crate) queued: AtomicUsize,
    pub(crate) is_gone: AtomicBool,
}

/// A response's claim to a [`Wire`]: if nothing comes of it, whoever sends is told.
pub(crate) struct Claim(Option<Arc<Wire>>);

impl Claim {
    /// Something has come of it.
    pub(crate) fn take(mut self) -> Option<Arc<Wire>> {
        self.0.take()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(wire) = &self.0 {
            wire.is_gone.store(true, Ordering::Release);
        }
    }
}

/// Sends to one client, from any thread. Clones send to the same. When the last one of a response is dropped,
/// the response ends behind what was sent; a connection that was taken over goes on without.
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

struct Shared(Arc<Wire>);

impl Drop for Shared {
    fn drop(&mut self) {
        let Wire { inbox, task, .. } = &*self.0;
        inbox.put(Message::Unheld(*task));
    }
}

impl Sender {
    pub(crate) fn new(worker: &Worker) -> Self {
        let wire = Arc::new(Wire {
            inbox: Arc::clone(worker.inbox()),
            task: worker.reserve_task(),
            queued: AtomicUsize::new(0),
            is_gone: AtomicBool::new(false),
        });
        Sender(Arc::new(Shared(wire)))
    }

    pub(crate) fn claim(&self) -> Claim {
        Claim(Some(Arc::clone(&self.0.0)))
    }

    /// Sends bytes behind those before. Empty ones are nothing.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent then. One piece is taken whatever its size when nothing waits.
    pub fn send(&self, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        let (bytes, wire) = (bytes.into(), &*self.0.0);
        if wire.is_gone.load(Ordering::Acquire) {
            return Err(SendError::Gone);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        // What is refused is never seen in the count: the loop reads it.
        let take = |queued| {
            (queued == 0 || queued + bytes.len() <= QUEUED_MAX).then(|| queued + bytes.len())
        };
        let taken = wire
            .queued
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        if taken.is_err() {
            return Err(SendError::Full);
        }
        wire.inbox.put(Message::Piece(wire.task, bytes));
        Ok(())
    }

    /// Sends a server-sent event.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn event(&self, event: &Event<'_>) -> Result<(), SendError> {
        self.send(event.to_string())
    }

    /// Ends the response, or the connection, behind what was sent. Later sends fail.
    pub fn end(&self) {
        let Wire {
            inbox,
            task,
            is_gone,
            ..
        } = &*self.0.0;
        is_gone.store(true, Ordering::Release);
        inbox.put(Message::End(*task));
    }

    /// Whether the client has gone, as far as is known, or [`end`](Self::end) was called.
    pub fn is_gone(&self) -> bool {
        self.0.0.is_gone.load(Ordering::Acquire)
    }

    /// Bytes that wait for the client.
    pub fn queued(&self) -> usize {
        self.0.0.queued.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("queued", &self.queued())
            .field("is_gone", &self.is_gone())
            .finish_non_exhaustive()
    }
}

/// A server-sent event: data, and what else it may have. Line ends in the data make several `data:` lines;
/// in the other parts they would begin a new one, and are left out.
///
/// ```
/// use theframework::Event;
///
/// let event = Event { name: Some("tick"), ..Event::new("one\ntwo") };
/// assert_eq!(event.to_string(), "event: tick\ndata: one\ndata: two\n\n");
/// ```
#[derive(Copy, Clone, Default, Debug)]
pub struct Event<'a> {
    /// What the client's handlers get.
    pub data: &'a str,
    /// Which of them get it.
    pub name: Option<&'a str>,
    /// What the client says in `Last-Event-ID` when it comes again.
    pub id: Option<&'a str>,
    /// How long the client is to wait before it comes again, in milliseconds.
    pub retry_ms: Option<u64>,
}

impl<'a> Event<'a> {
    /// An event with nothing but data.
    pub fn new(data: &'a str) -> Self {
        Event {
            data,
            ..Event::default()
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in [("event", self.name), ("id", self.id)] {
            if let Some(value) = value {
                write!(f, "{name}: ")?;
                // U+0000 makes an id invalid.
                for part in value.split(['\r', '\n', '\0']) {
                    f.write_str(part)?;
                }
                f.write_char('\n')?;
            }
        }
        if let Some(retry_ms) = self.retry_ms {
            writeln!(f, "retry: {retry_ms}")?;
        }
        // Each of CR LF, CR and LF ends a line.
        let mut rest = self.data;
        loop {
            let end = rest.find(['\r', '\n']);
            let (line, behind) = match end {
                Some(at) if rest[at..].starts_with("\r\n") => (&rest[..at], Some(&rest[at + 2..])),
                Some(at) => (&rest[..at], Some(&rest[at + 1..])),
                None => (rest, None),
            };
            writeln!(f, "data: {line}")?;
            match behind {
                Some(behind) => rest = behind,
                None => return f.write_char('\n'),
            }
        }
    }
}

/// A protocol of your own on a connection that was taken over: see
/// [`Response::upgrade`](crate::Response::upgrade). Everything is called on the loop, so nothing may block.
///
/// ```
/// use theframework::{Link, Protocol, Request, Response};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data(&mut self, bytes: &[u8], link: &mut Link) {
///         link.send(bytes.to_vec());
///     }
/// }
///
/// fn echo(_: &mut Request, response: &mut Response) -> theframework::Result {
///     response.set_header("Upgrade", "echo")?;
///     response.upgrade(Echo);
///     Ok(())
/// }
/// ```
pub trait Protocol: 'static {
    /// The connection is the protocol's.
    fn open(&mut self, link: &mut Link<'_>) {
        let _ = link;
    }

    /// Bytes have come. No more do while [`QUEUED_MAX`] bytes or more wait for the client.
    fn data(&mut self, bytes: &[u8], link: &mut Link<'_>);

    /// The client sends no more; it may still read. Unless this does something else, the connection ends.
    fn end(&mut self, link: &mut Link<'_>) {
        link.close();
    }

    /// The connection is over; nobody is left.
    fn closed(&mut self) {}
}

/// The connection of a [`Protocol`], while it is called.
pub struct Link<'l> {
    pub(crate) out: &'l mut std::collections::VecDeque<Bytes>,
    pub(crate) wire: &'l Wire,
    pub(crate) closes: &'l mut bool,
    pub(crate) worker: &'l Worker,
}

impl Link<'_> {
    /// Sends bytes, behind those before, whatever waits already: see [`queued`](Self::queued).
    pub fn send(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.wire.queued.fetch_add(bytes.len(), Ordering::AcqRel);
            self.out.push_back(bytes);
        }
    }

    /// Bytes that wait for the client.
    pub fn queued(&self) -> usize {
        self.wire.queued.load(Ordering::Acquire)
    }

    /// Ends the connection, behind what was sent.
    pub fn close(&mut self) {
        *self.closes = true;
    }

    /// The loop that serves this connection.
    pub fn worker(&self) -> &Worker {
        self.worker
    }
}

impl fmt::Debug for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

//! The driver's contract: operations in, events out.
//!
//! An operation is submitted with a `token` that means something to the caller, and is named by an
//! [`OpId`] that means something to the driver. It ends with exactly one *final* event
//! (`more == false`); until then the driver owns what the operation reads or writes: buffers and
//! writes are taken by value and come home in the final event.
//!
//! What a driver hides: a multishot operation that the kernel ended early, a receive that found no
//! buffer, a short write. They go on by themselves.
//! What it does not hide: a cancel that lost. Its operation may still bring data, and the final
//! event then says what happened, not that it was cancelled.
//!
//! What has arrived when a turn begins is seen by the next turn that waits, at the latest: such a
//! turn does not come back with nothing while there is something for one of its operations. A turn
//! that polls may still miss it. Events of one operation come in the order in which they happened,
//! those of different operations in any order, and no operation is put off for ever. How much one
//! event brings is open as well: a receive brings at least one byte, not always all that is there.
//!
//! What ends a connection with an error is told once, to the operation that meets it first. A later
//! receive then finds the end of the stream, and a later write `EPIPE`.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use theframework_memory::{Key, OutOfMemory};

use crate::filling::Space;
use crate::lease::Lease;
use crate::write::Write;

/// A write of at most this many bytes either ends in the turn in which it is submitted, or says by
/// [`Outcome::SendProgress`] in that turn that the socket took less: nearly always it has to wait for
/// the peer then.
pub const SEND_AT_ONCE_MAX: usize = 64 * 1024;

/// Names one submitted operation until its final event. Stale ids are harmless.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct OpId(pub(crate) Key);

/// Who is at the other end of a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A process of another or of this machine, by IP.
    At(SocketAddr),
    /// A process of this machine, on a Unix socket.
    Local,
    /// Nobody any more: the connection was reset, and whose it was cannot be said.
    Gone,
}

/// An error number of the operating system.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The operation was cancelled before it did anything.
    pub const CANCELLED: Errno = Errno(libc::ECANCELED);

    /// Whether an accept that failed with this may be tried again at once: it was cancelled, or who
    /// waited has gone.
    pub fn is_passing(self) -> bool {
        matches!(self.0, libc::ECANCELED | libc::ECONNABORTED | libc::EINTR)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

/// What a poll waits for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Readable, or hung up.
    Readable,
    /// Writable, or hung up.
    Writable,
    /// The peer has closed or reset; unread data alone does not count.
    HangUp,
}

/// How long one turn may wait for events.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Submit, take what is there, return at once.
    Poll,
    /// Until an event arrives, or this much time has passed (`None`: for ever).
    For(Option<Duration>),
}

/// What became of an operation, with everything that it owned.
#[derive(Debug)]
pub enum Outcome<S, B> {
    /// A connection was accepted (multishot: `more` is set while accepting goes on).
    Accepted(S),
    /// Bytes arrived in a leased buffer.
    Received(Lease),
    /// A single receive ended: the space comes back with what was committed to it.
    /// The count is 0 at the end of the stream.
    ReceivedInto(Space<B>, Result<usize, Errno>),
    /// The peer has finished sending (final).
    EndOfStream,
    /// The socket took a part of a write, or nothing yet: how many bytes so far. The write goes on.
    SendProgress(usize),
    /// A write ended: everything was sent, or the error says why not.
    Sent(Box<Write<B>>, Result<(), Errno>),
    /// A read from a file ended: the write comes back with what was read behind its bytes. The count is
    /// 0 at the end of the file.
    FileRead(Box<Write<B>>, Result<usize, Errno>),
    /// A poll is ready.
    Ready,
    /// The operation failed or was cancelled; it owned nothing that has to come home.
    Failed(Errno),
}

/// One event of one operation.
#[derive(Debug)]
pub struct Event<S, B> {
    /// What the caller gave at submission.
    pub token: u64,
    /// The operation, for cancelling it while `more` is set.
    pub op: OpId,
    /// Whether the operation goes on after this event.
    pub more: bool,
    /// What happened.
    pub outcome: Outcome<S, B>,
}

/// A completion driver. One worker, one driver, one thread.
///
/// `B` is the type of bodies that a write keeps alive until its final completion. The driver
/// stores it and hands it back; it drops one by itself only when it is dropped with the operation.
///
/// Submitting does no I/O: the operation begins with the next [`turn`](Self::turn). It costs no system
/// call, but for one on epoll when a descriptor is to be watched that is not yet.
///
/// Operations name a descriptor by its number. Whoever owns the descriptor keeps it open until they
/// have had their final event, or the driver is gone.
///
/// Dropping a driver submits what is still queued: writes go out as far as the sockets take them at
/// once, and closes are carried out. Nobody hears how that ended.
pub trait Driver<B> {
    /// An open descriptor and its owner: dropping it closes it.
    type Socket: AsRawFd + fmt::Debug;

    /// Microseconds on the driver's monotonic clock, read now. It may jump forward (a machine that
    /// slept), never back.
    fn now_us(&self) -> u64;

    /// The time of day, since 1970. It may jump both ways.
    fn unix_time(&self) -> Duration;

    /// Starts accepting on a non-blocking listener, until cancelled. Each connection is an event.
    ///
    /// # Errors
    /// [`OutOfMemory`] when no operation slot can be had.
    fn accept(&mut self, listener: RawFd, token: u64) -> Result<OpId, OutOfMemory>;

    /// Takes one waiting connection from a non-blocking listener, if there is one.
    ///
    /// # Errors
    /// The operating system's; `EAGAIN` (nobody is waiting) is `Ok(None)`.
    fn accept_now(&mut self, listener: RawFd) -> Result<Option<Self::Socket>, Errno>;

    /// Starts receiving from a stream socket into leased buffers, until end of stream, error or cancel.
    ///
    /// # Errors
    /// [`OutOfMemory`] when no operation slot can be had.
    fn receive(&mut self, fd: RawFd, token: u64) -> Result<OpId, OutOfMemory>;

    /// Receives once into `space`, which the operation owns meanwhile. It must have room. More than
    /// fits is never taken, and less may be.
    ///
    /// # Errors
    /// Gives the space back when no operation slot can be had.
    fn receive_into(&mut self, fd: RawFd, token: u64, space: Space<B>) -> Result<OpId, Space<B>>;

    /// Sends all of a write. The socket must not have another write pending.
    ///
    /// # Errors
    /// Gives the write back when no operation slot can be had.
    fn send(&mut self, fd: RawFd, token: u64, write: Box<Write<B>>) -> Result<OpId, Box<Write<B>>>;

    /// Reads once from a regular file that was opened without `O_NONBLOCK`, from `offset` on, at most
    /// `most` bytes, into the free end of a write's arena, which the operation owns meanwhile: that must
    /// have room, and the write no body. Less may be read than there is, but not nothing.
    ///
    /// The loop never waits for the disk. What is in memory already is read in the next turn; the rest
    /// by the kernel's own threads, or the driver's. A cancel of what such a thread has begun may find
    /// that it goes on for as long as the disk takes.
    ///
    /// # Errors
    /// Gives the write back when no operation slot can be had.
    fn read_file(
        &mut self,
        file: RawFd,
        token: u64,
        offset: u64,
        most: usize,
        write: Box<Write<B>>,
    ) -> Result<OpId, Box<Write<B>>>;

    /// Waits once for readiness.
    ///
    /// # Errors
    /// [`OutOfMemory`] when no operation slot can be had.
    fn poll(&mut self, fd: RawFd, interest: Interest, token: u64) -> Result<OpId, OutOfMemory>;

    /// Asks for an operation to end. Its final event still comes, and may carry a success.
    fn cancel(&mut self, op: OpId);

    /// Ends the sending side of a connection (TCP: sends FIN). A system call of its own.
    fn shutdown_write(&mut self, fd: RawFd);

    /// Closes a descriptor whose operations have all ended.
    fn close(&mut self, socket: Self::Socket);

    /// Bytes that a socket has taken and its peer has not; 0 where that cannot be said. One system
    /// call.
    fn untaken(&self, fd: RawFd) -> usize;

    /// Who is at the other end. One system call.
    fn peer(&self, fd: RawFd) -> Peer;

    /// Whether events wait that need no waiting for, ends of writes apart: at most one system call,
    /// which does not wait. Like a poll it may miss what has only just arrived; it may submit what is queued.
    /// What it finds is for the following turn, which then does not look again; until that was taken,
    /// the answer stays the same.
    fn has_events(&mut self) -> bool;

    /// Submits everything queued and gathers events: one system call on io_uring at most; on epoll one for
    /// each operation that is carried out, and one for all that are waited for.
    ///
    /// The end of a write in the very turn in which it was submitted does not end a wait: a turn
    /// that waits may report it only when something else has happened. Whoever has something to do
    /// after such a write polls instead. A write that has reported progress ends a wait.
    ///
    /// # Errors
    /// Only what leaves the driver unusable.
    fn turn(&mut self, wait: Wait) -> Result<(), Errno>;

    /// The next event that was gathered.
    fn next_event(&mut self) -> Option<Event<Self::Socket, B>>;

    /// In the child of a fork: the operations are the parent's, and nothing of them is touched any
    /// more. Dropping the driver then closes the child's descriptors and no more.
    fn abandon_after_fork(&mut self);

    /// As [`abandon_after_fork`](Self::abandon_after_fork), when another thread forked while this
    /// one was in a turn: what the driver has in memory may be half changed, so that it is left as
    /// it is, for ever. Only the driver's own descriptor is closed.
    fn give_up_after_fork(self)
    where
        Self: Sized;

    /// Operations that have not had their final event.
    fn operations(&self) -> usize;

    /// Leased buffers that have not come back.
    fn leases(&self) -> usize;
}

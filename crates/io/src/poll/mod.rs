//! The driver on readiness: epoll, through `mio`, where io_uring cannot be had.
//!
//! It keeps the same contract as the driver on io_uring, by trying: an operation whose descriptor is
//! known to be ready is carried out in the turn, the others wait for an edge. A descriptor is registered
//! once (see `sources.rs`), so a request on a kept connection costs one `recv`, one `send` and its share
//! of one `epoll_wait`.
//!
//! States of an operation:
//!
//! ```text
//!           submit a send                       tried: ended
//!  (none) ------------------> queued ----------------------------> final event, slot freed
//!     |                       ^   |  \                                    ^
//!     |       edge            |   |   \ no buffer                         | cancel
//!     |    buffer came back   |   |    v                                  |
//!     |                       |   |   starved ----------------------------+
//!     |  submit a receive,    |   v tried: would block                    |
//!     +--------------------> waiting -------------------------------------+
//!        an accept, a poll
//! ```
//!
//! A read from a file is queued at once, and tried without waiting for the disk; what is not in memory
//! a thread reads (see `readers.rs`): the operation is *away* until then.
//!
//! # Invariants
//!
//! - A queued operation is in exactly one queue; nothing ever looks at all operations.
//! - An operation that waits, or is starved, is in the list of its source. A send joins the list when it
//!   would block for the first time.
//! - A turn that waits does so until there is an event to hand out, or its time is over: edges that
//!   nobody waits for do not end it.
//! - Polls are answered by edges only, never from what is known: whoever polls reads by himself, so what
//!   is known of such a descriptor is worth nothing. Submitting a poll has the present state reported.

mod attempt;
mod readers;
mod sources;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use mio::Events;
use theframework_memory::{Key, OutOfMemory, Slab};

use crate::clock::Clock;
use crate::driver::{Driver, Errno, Event, Interest, OpId, Outcome, Peer, SEND_AT_ONCE_MAX, Wait};
use crate::filling::Space;
use crate::lease::LeasePool;
use crate::socket;
use crate::write::{KeptBytes, Write};
use readers::Readers;
use sources::{NONE, Readiness, Sources, WAKE};

/// Edges taken by one system call; what is beyond comes with the next. So few that a turn's arrivals
/// neither use up the receive buffers nor need more writes at a time than a server keeps.
const EVENTS_MAX: usize = 256;

/// Sizes of a driver.
#[derive(Copy, Clone, Debug)]
pub struct PollConfig {
    /// Receive buffers of 4 KiB. They are needed for one turn's arrivals only.
    pub receive_buffers: u16,
}

impl Default for PollConfig {
    fn default() -> Self {
        PollConfig {
            receive_buffers: 512,
        }
    }
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    Accept,
    Receive,
    ReceiveInto,
    /// A small write that has not been tried: it ends in its first turn, or says that it does not.
    SendAtOnce,
    Send,
    ReadFile,
    Poll(Interest),
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum State {
    /// It is to be tried in the next turn, or later in this one.
    Queued,
    /// It waits for an edge.
    Waiting,
    /// A receive that found no buffer; it is tried again when one came back.
    Starved,
    /// A thread reads, or will.
    Away,
}

enum Payload<B> {
    None,
    Space(Space<B>),
    Write(Box<Write<B>>),
    Reading(Box<Write<B>>),
}

struct Op<B> {
    token: u64,
    payload: Payload<B>,
    /// The next operation of the same source, or `NONE`.
    next: Key,
    fd: RawFd,
    kind: Kind,
    state: State,
    /// It is in the list of its source.
    is_linked: bool,
    is_cancelling: bool,
}

/// The driver on epoll. See the module's first lines for how an operation lives.
pub struct PollDriver<B: KeptBytes> {
    /// What the last system call reported; empty between two calls of the driver.
    readiness: Events,
    core: Core<B>,
    clock: Clock,
    /// `has_events` has looked, and found something: the turn that follows need not look again.
    has_looked: bool,
    /// epoll refuses everything: the driver is of no more use.
    failed: Option<Errno>,
    /// This process is the child of the one that the operations belong to.
    is_forked: bool,
}

/// Everything that changes while events are taken.
struct Core<B: KeptBytes> {
    sources: Sources,
    ops: Slab<Op<B>>,
    pool: LeasePool,
    /// Buffers that are neither leased nor being read into.
    free: Vec<u16>,
    sends: VecDeque<Key>,
    /// Receives and accepts whose source is readable.
    tries: VecDeque<Key>,
    /// Those that have had their share of this turn.
    later: VecDeque<Key>,
    starved: VecDeque<Key>,
    events: VecDeque<Event<OwnedFd, B>>,
    /// Writes that ended at once: they end no wait.
    sent: VecDeque<Event<OwnedFd, B>>,
    /// Final events that have not been handed out.
    finals: usize,
    closing: Vec<OwnedFd>,
    /// Who waits for the disk; gone when the driver ends, and in a child.
    readers: Option<Readers>,
}

impl<B: KeptBytes> fmt::Debug for PollDriver<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollDriver")
            .field("operations", &self.operations())
            .field("pool", &self.core.pool)
            .field("starved", &self.core.starved.len())
            .finish_non_exhaustive()
    }
}

impl<B: KeptBytes> PollDriver<B> {
    /// Makes an epoll instance and the receive buffers.
    ///
    /// # Errors
    /// The operating system's: out of descriptors or memory.
    pub fn new(config: &PollConfig) -> std::io::Result<Self> {
        let pool = LeasePool::new(config.receive_buffers)
            .map_err(|OutOfMemory| std::io::Error::from_raw_os_error(libc::ENOMEM))?;
        let sources = Sources::new()?;
        let readers = Readers::new(&sources)
            .map_err(|Errno(number)| std::io::Error::from_raw_os_error(number))?;
        Ok(PollDriver {
            readiness: Events::with_capacity(EVENTS_MAX),
            core: Core {
                sources,
                ops: Slab::new(),
                free: (0..pool.count()).rev().collect(),
                pool,
                sends: VecDeque::with_capacity(1024),
                tries: VecDeque::with_capacity(1024),
                later: VecDeque::with_capacity(1024),
                starved: VecDeque::with_capacity(1024),
                events: VecDeque::with_capacity(1024),
                sent: VecDeque::with_capacity(1024),
                finals: 0,
                closing: Vec::with_capacity(1024),
                readers: Some(readers),
            },
            clock: Clock::start(),
            has_looked: false,
            failed: None,
            is_forked: false,
        })
    }

    /// One system call: takes the edges that there are, waiting for them at most this long. False when
    /// a signal came instead.
    fn look(&mut self, timeout: Option<Duration>) -> Result<bool, Errno> {
        let result = self.core.sources.wait(&mut self.readiness, timeout);
        match result {
            Ok(true) => {
                for event in &self.readiness {
                    self.core.note(Readiness::of(event));
                }
            }
            Ok(false) => {}
            Err(errno) => self.failed = Some(errno),
        }
        result
    }

    /// Waits until there is an event to hand out, or a signal, or this much time has passed.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Errno> {
        let started_us = self.clock.now_us();
        let mut left = timeout;
        loop {
            let was_interrupted = !self.look(left)?;
            self.core.run_queues();
            if was_interrupted || self.core.has_something() {
                return Ok(());
            }
            if let Some(timeout) = timeout {
                let waited = Duration::from_micros(self.clock.now_us() - started_us);
                match timeout.checked_sub(waited) {
                    None | Some(Duration::ZERO) => return Ok(()),
                    rest => left = rest,
                }
            }
        }
    }
}

impl<B: KeptBytes> Core<B> {
    fn insert(
        &mut self,
        kind: Kind,
        fd: RawFd,
        token: u64,
        state: State,
    ) -> Result<Key, OutOfMemory> {
        self.sources.make_room(fd)?;
        self.ops.insert(Op {
            token,
            payload: Payload::None,
            next: NONE,
            fd,
            kind,
            state,
            is_linked: false,
            is_cancelling: false,
        })
    }

    /// Starts an operation that reads: to be tried if its source is known to be readable.
    fn start_reading(&mut self, key: Key, fd: RawFd) {
        self.link(key);
        let is_readable = self
            .sources
            .get_mut(fd)
            .is_some_and(|source| source.is_readable);
        if is_readable {
            self.queue_try(key);
            return;
        }
        match self.sources.watch(fd, false) {
            Ok(()) => {}
            // Not for epoll, so not a socket: the try finds the fitting error.
            Err(Errno(libc::EPERM)) => {
                if let Some(source) = self.sources.get_mut(fd) {
                    source.is_readable = true;
                }
                self.queue_try(key);
            }
            Err(errno) => self.fail(key, errno),
        }
    }

    fn start_polling(&mut self, key: Key, fd: RawFd, interest: Interest) {
        self.link(key);
        match self.sources.watch_anew(fd, interest == Interest::Writable) {
            Ok(()) => {}
            // A regular file: always ready, and it has no end to wait for.
            Err(Errno(libc::EPERM)) if interest == Interest::HangUp => {
                self.fail(key, Errno(libc::EINVAL));
            }
            Err(Errno(libc::EPERM)) => self.finish(key, |_| Outcome::Ready),
            Err(errno) => self.fail(key, errno),
        }
    }

    fn queue_try(&mut self, key: Key) {
        if let Some(op) = self.ops.get_mut(key) {
            op.state = State::Queued;
            self.tries.push_back(key);
        }
    }

    /// Puts an operation into the list of its source.
    fn link(&mut self, key: Key) {
        if let Some(op) = self.ops.get_mut(key)
            && !op.is_linked
            && let Some(source) = self.sources.get_mut(op.fd)
        {
            op.next = std::mem::replace(&mut source.first, key);
            op.is_linked = true;
        }
    }

    fn unlink(&mut self, key: Key) {
        let Some(op) = self.ops.get(key).filter(|op| op.is_linked) else {
            return;
        };
        let (fd, next) = (op.fd, op.next);
        let Some(source) = self.sources.get_mut(fd) else {
            return;
        };
        if source.first == key {
            source.first = next;
            source.is_sure &= next != NONE;
            return;
        }
        let mut at = source.first;
        while let Some(op) = self.ops.get_mut(at) {
            if op.next == key {
                op.next = next;
                return;
            }
            at = op.next;
        }
    }

    /// Takes one edge: what waited for it is queued, polls are answered.
    fn note(&mut self, seen: Readiness) {
        if seen.token == WAKE {
            return self.take_file_reads();
        }
        let Some(source) = self.sources.find(seen.token) else {
            return;
        };
        source.is_readable |= seen.is_readable;
        source.is_hung_up |= seen.is_hung_up;
        let mut at = source.first;
        while let Some(op) = self.ops.get_mut(at) {
            let key = std::mem::replace(&mut at, op.next);
            let is_met = match op.kind {
                Kind::Accept
                | Kind::Receive
                | Kind::ReceiveInto
                | Kind::Poll(Interest::Readable) => seen.is_readable,
                Kind::SendAtOnce | Kind::Send | Kind::Poll(Interest::Writable) => seen.is_writable,
                Kind::Poll(Interest::HangUp) => seen.is_hung_up,
                Kind::ReadFile => false,
            };
            if !is_met || op.state != State::Waiting {
                continue;
            }
            match op.kind {
                Kind::Poll(_) => self.finish(key, |_| Outcome::Ready),
                Kind::SendAtOnce | Kind::Send => {
                    op.state = State::Queued;
                    self.sends.push_back(key);
                }
                Kind::Accept | Kind::Receive | Kind::ReceiveInto => self.queue_try(key),
                Kind::ReadFile => unreachable!("it waits for no edge"),
            }
        }
    }

    /// What a turn that waits waits for; also what can go on without waiting.
    fn has_something(&self) -> bool {
        !self.events.is_empty() || !self.tries.is_empty() || !self.later.is_empty()
    }

    /// Gives a buffer that came back to each starved receive, as far as they go.
    fn feed_starved(&mut self) {
        let free = &mut self.free;
        self.pool.drain_returned(|id| free.push(id));
        for _ in 0..self.free.len().min(self.starved.len()) {
            if let Some(key) = self.starved.pop_front() {
                self.queue_try(key);
            }
        }
    }

    /// Tries everything that is queued.
    fn run_queues(&mut self) {
        while let Some(key) = self.sends.pop_front() {
            self.try_send(key);
        }
        while let Some(key) = self.tries.pop_front() {
            self.try_read(key);
        }
    }

    fn finish(&mut self, key: Key, outcome: impl FnOnce(Payload<B>) -> Outcome<OwnedFd, B>) {
        if let Some(event) = self.end(key, outcome) {
            self.events.push_back(event);
        }
    }

    fn end(
        &mut self,
        key: Key,
        outcome: impl FnOnce(Payload<B>) -> Outcome<OwnedFd, B>,
    ) -> Option<Event<OwnedFd, B>> {
        self.unlink(key);
        let op = self.ops.remove(key)?;
        self.finals += 1;
        Some(Event {
            token: op.token,
            op: OpId(key),
            more: false,
            outcome: outcome(op.payload),
        })
    }

    fn fail(&mut self, key: Key, errno: Errno) {
        self.finish(key, |payload| match payload {
            Payload::None => Outcome::Failed(errno),
            Payload::Space(space) => Outcome::ReceivedInto(space, Err(errno)),
            Payload::Write(write) => Outcome::Sent(write, Err(errno)),
            Payload::Reading(write) => Outcome::FileRead(write, Err(errno)),
        });
    }

    /// An event of an operation that goes on.
    fn tell(&mut self, key: Key, token: u64, outcome: Outcome<OwnedFd, B>) {
        self.events.push_back(Event {
            token,
            op: OpId(key),
            more: true,
            outcome,
        });
    }
}

impl<B: KeptBytes> Driver<B> for PollDriver<B> {
    type Socket = OwnedFd;

    fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    fn unix_time(&self) -> Duration {
        self.clock.unix_time()
    }

    fn accept(&mut self, listener: RawFd, token: u64) -> Result<OpId, OutOfMemory> {
        let key = self
            .core
            .insert(Kind::Accept, listener, token, State::Waiting)?;
        self.core.start_reading(key, listener);
        Ok(OpId(key))
    }

    fn accept_now(&mut self, listener: RawFd) -> Result<Option<OwnedFd>, Errno> {
        socket::accept(listener)
    }

    fn receive(&mut self, fd: RawFd, token: u64) -> Result<OpId, OutOfMemory> {
        let key = self.core.insert(Kind::Receive, fd, token, State::Waiting)?;
        self.core.start_reading(key, fd);
        Ok(OpId(key))
    }

    fn receive_into(&mut self, fd: RawFd, token: u64, space: Space<B>) -> Result<OpId, Space<B>> {
        let inserted = self
            .core
            .insert(Kind::ReceiveInto, fd, token, State::Waiting);
        let Ok(key) = inserted else {
            return Err(space);
        };
        if let Some(op) = self.core.ops.get_mut(key) {
            op.payload = Payload::Space(space);
        }
        self.core.start_reading(key, fd);
        Ok(OpId(key))
    }

    fn send(&mut self, fd: RawFd, token: u64, write: Box<Write<B>>) -> Result<OpId, Box<Write<B>>> {
        let kind = if write.len() <= SEND_AT_ONCE_MAX {
            Kind::SendAtOnce
        } else {
            Kind::Send
        };
        let Ok(key) = self.core.insert(kind, fd, token, State::Queued) else {
            return Err(write);
        };
        if let Some(op) = self.core.ops.get_mut(key) {
            op.payload = Payload::Write(write);
        }
        self.core.sends.push_back(key);
        Ok(OpId(key))
    }

    fn read_file(
        &mut self,
        file: RawFd,
        token: u64,
        offset: u64,
        most: usize,
        mut write: Box<Write<B>>,
    ) -> Result<OpId, Box<Write<B>>> {
        write.set_reading(offset, most);
        let Ok(key) = self.core.insert(Kind::ReadFile, file, token, State::Queued) else {
            return Err(write);
        };
        if let Some(op) = self.core.ops.get_mut(key) {
            op.payload = Payload::Reading(write);
        }
        self.core.tries.push_back(key);
        Ok(OpId(key))
    }

    fn poll(&mut self, fd: RawFd, interest: Interest, token: u64) -> Result<OpId, OutOfMemory> {
        let key = self
            .core
            .insert(Kind::Poll(interest), fd, token, State::Waiting)?;
        self.core.start_polling(key, fd, interest);
        Ok(OpId(key))
    }

    fn cancel(&mut self, OpId(key): OpId) {
        let Some(op) = self.core.ops.get_mut(key) else {
            return;
        };
        match (op.kind, op.state) {
            // It is tried in the next turn, and ends there one way or the other.
            (Kind::SendAtOnce | Kind::Send, State::Queued) => op.is_cancelling = true,
            (_, State::Starved) => {
                self.core.starved.retain(|&other| other != key);
                self.core.fail(key, Errno::CANCELLED);
            }
            // What a thread has begun it goes on with, and the space is its own until then.
            (_, State::Away) if !self.core.take_back(key) => {}
            _ => self.core.fail(key, Errno::CANCELLED),
        }
    }

    fn shutdown_write(&mut self, fd: RawFd) {
        socket::shutdown_write(fd);
    }

    fn untaken(&self, fd: RawFd) -> usize {
        socket::untaken(fd)
    }

    fn close(&mut self, socket: OwnedFd) {
        self.core.sources.forget(socket.as_raw_fd());
        self.core.closing.push(socket);
    }

    fn peer(&self, fd: RawFd) -> Peer {
        socket::peer(fd)
    }

    fn has_events(&mut self) -> bool {
        if self.core.has_something() {
            return true;
        }
        if self.look(Some(Duration::ZERO)).is_err() {
            // The turn reports it.
            return true;
        }
        self.has_looked = self.core.has_something();
        self.has_looked
    }

    fn turn(&mut self, wait: Wait) -> Result<(), Errno> {
        if let Some(errno) = self.failed {
            return Err(errno);
        }
        let core = &mut self.core;
        core.tries.append(&mut core.later);
        core.feed_starved();
        core.run_queues();
        // Dropping closes; what was sent above was sent before.
        core.closing.clear();
        let has_looked = std::mem::take(&mut self.has_looked);
        match wait {
            _ if self.core.has_something() && has_looked => Ok(()),
            Wait::For(timeout) if !self.core.has_something() => self.wait(timeout),
            Wait::For(_) | Wait::Poll => {
                self.look(Some(Duration::ZERO))?;
                self.core.run_queues();
                Ok(())
            }
        }
    }

    fn next_event(&mut self) -> Option<Event<OwnedFd, B>> {
        let core = &mut self.core;
        let event = core.events.pop_front().or_else(|| core.sent.pop_front())?;
        if !event.more {
            core.finals -= 1;
        }
        Some(event)
    }

    fn give_up_after_fork(self) {
        let fd = self.core.sources.descriptor();
        let wake = self.core.readers.as_ref().map(Readers::descriptor);
        std::mem::forget(self);
        for fd in wake.into_iter().chain([fd]) {
            // SAFETY: its owner was forgotten just now.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }

    fn abandon_after_fork(&mut self) {
        // Dropping closes the copy of the epoll descriptor. Nothing is deregistered: the registrations
        // are the parent's too.
        self.is_forked = true;
        if let Some(readers) = self.core.readers.take() {
            readers.abandon_after_fork();
        }
    }

    fn operations(&self) -> usize {
        self.core.ops.len() + self.core.finals
    }

    fn leases(&self) -> usize {
        self.core.pool.leased()
    }
}

impl<B: KeptBytes> Drop for PollDriver<B> {
    fn drop(&mut self) {
        if !self.is_forked {
            // Writes that were submitted go out, as far as the sockets take them.
            while let Some(key) = self.core.sends.pop_front() {
                self.core.try_send(key);
            }
            self.core.end_file_reads();
        }
    }
}

#[cfg(test)]
mod tests;

//! The driver on io_uring.
//!
//! One ring per worker: SINGLE_ISSUER and DEFER_TASKRUN, one `io_uring_enter` per turn. Each
//! operation has a slot in a slab; `user_data` is the slot's key, so a completion for a slot that
//! was reused is seen by its generation and dropped.
//!
//! States of an operation:
//!
//! ```text
//!            submit                  completion without F_MORE
//!  (none) ----------> in flight -------------------------------> final event, slot freed
//!                       |  ^  \
//!        no buffer left |  |   \ cancel: the slot stays until the final completion
//!                       v  |    v
//!                     starved   cancelling
//! ```
//!
//! Small writes complete without a completion. They are sent with MSG_DONTWAIT | MSG_WAITALL and
//! CQE_SKIP_SUCCESS: such a send is done, in full, when `io_uring_enter` has consumed its entry,
//! and anything else (a full socket buffer, a part, an error) posts a completion at that moment. So
//! once the completion queue is drained, every consumed send that has not been heard of has
//! succeeded, and its final event is made here. That saves a completion for each response and, on a
//! lone connection, one of two system calls for each request: the wait is not ended by the send.
//! What did not fit is sent again as an ordinary operation that waits for the socket.
//!
//! What an older kernel lacks (`features`) is decided where an operation is armed: a multishot
//! operation that is not one ends after its first success and is armed again, as one that the
//! kernel ended early is.

mod buffers;
mod features;
mod probe;
mod setup;

use std::collections::VecDeque;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use theframework_memory::{Key, OutOfMemory, Slab};

use crate::clock::Clock;
use crate::driver::{Driver, Errno, Event, Interest, OpId, Outcome, Peer, SEND_AT_ONCE_MAX, Wait};
use crate::filling::Space;
use crate::lease::{LEASE_SIZE, LeasePool};
use crate::socket;
use crate::write::{KeptBytes, Write};
use buffers::{BufferRing, Buffers};
pub use features::{Feature, Features};
pub use probe::probe;
pub use setup::{SetupError, UringConfig};

/// Completions of cancels and closes: nobody waits for them. No slot has this key, nor the next.
const IGNORED: u64 = 0;
/// The completion of the timeout that ends a wait.
const TIMEOUT: u64 = 1;
/// How often a full submission queue is submitted before the kernel is given up.
const PUSH_ATTEMPTS_MAX: u32 = 1000;
/// How long dropping the driver waits for the kernel to let go of its buffers.
const DROP_WAIT: Duration = Duration::from_secs(1);

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    Accept,
    Receive,
    ReceiveInto,
    Send,
    ReadFile,
    Poll,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum State {
    /// The kernel has it, or will have it with the next enter.
    InFlight,
    /// A send that ends while it is submitted; it posts a completion only if it does not succeed
    /// (or always, where the kernel cannot keep silent).
    Inline,
    /// A receive that found no buffer; it is armed again when one came back.
    Starved,
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
    fd: RawFd,
    kind: Kind,
    state: State,
    cancelling: bool,
}

/// The io_uring driver. See the module's first lines for how an operation lives.
pub struct UringDriver<B: KeptBytes> {
    // Dropped by hand: the ring goes before the memory that the kernel may write to.
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<Buffers>,
    ops: ManuallyDrop<Slab<Op<B>>>,
    features: Features,
    /// Completions come that nobody waits for: each wait has to see whether it is worth ending.
    tells_too_much: bool,
    /// What a newer kernel keeps armed is armed again, and reaches the kernel with the next enter.
    arms_again: bool,
    clock: Clock,
    pool: LeasePool,
    starved: Vec<Key>,
    /// Operations that ended without the kernel: their final event is due.
    ended: VecDeque<Key>,
    /// Inline sends by their position in the submission queue, when they post no completion; else
    /// those whose success was heard of.
    inline: VecDeque<(u32, Key)>,
    /// Descriptors whose close waits in the submission queue, by their position there.
    closing: VecDeque<(u32, RawFd)>,
    /// Entries pushed so far, wrapping.
    pushed: u32,
    /// Completions that were taken early, because the submission queue was full.
    reaped: VecDeque<cqueue::Entry>,
    /// Where a wait cannot end by itself: what its timeout operation reads, and when it is due.
    timeout: Box<types::Timespec>,
    timeout_due_us: Option<u64>,
    /// A system call has found nothing behind the kernel's flag for deferred work, which it can leave
    /// up: until something comes, the flag is not believed. A wait finds all work, flag or none.
    is_flag_empty: bool,
    /// The kernel refuses everything: the driver is of no more use.
    failed: Option<Errno>,
    /// This process is the child of the one that the ring works for.
    is_forked: bool,
}

impl<B: KeptBytes> fmt::Debug for UringDriver<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDriver")
            .field("operations", &self.ops.len())
            .field("pool", &self.pool)
            .field("starved", &self.starved.len())
            .finish_non_exhaustive()
    }
}

impl<B: KeptBytes> UringDriver<B> {
    /// Sets up a ring and its receive buffers on the calling thread, which must be the one that
    /// uses the driver.
    ///
    /// # Errors
    /// [`SetupError`] with the cause and what to do about it.
    pub fn new(config: &UringConfig) -> Result<Self, SetupError> {
        let ring = setup::ring(config)?;
        let pool = LeasePool::new(config.receive_buffers)
            .map_err(|_| SetupError::from_errno(libc::ENOMEM))?;
        let has_ring = config.features.has(Feature::BufferRing);
        let buffers = if has_ring {
            Buffers::Ring(BufferRing::register(&ring, &pool).map_err(SetupError::from_os)?)
        } else {
            Buffers::Operations(Vec::with_capacity(usize::from(pool.count())))
        };
        let mut driver = UringDriver {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            ops: ManuallyDrop::new(Slab::new()),
            features: config.features,
            tells_too_much: !(config.features.has(Feature::SkipSuccess)
                && config.features.has(Feature::ExtArg)),
            arms_again: !(config.features.has(Feature::MultishotReceive)
                && config.features.has(Feature::MultishotAccept)),
            clock: Clock::start(),
            pool,
            starved: Vec::new(),
            ended: VecDeque::new(),
            inline: VecDeque::new(),
            closing: VecDeque::new(),
            pushed: 0,
            reaped: VecDeque::new(),
            timeout: Box::new(types::Timespec::new()),
            timeout_due_us: None,
            is_flag_empty: false,
            failed: None,
            is_forked: false,
        };
        if !has_ring {
            driver.provide_all()?;
        }
        Ok(driver)
    }

    /// Gives all buffers to the kernel, and hears whether it took them.
    fn provide_all(&mut self) -> Result<(), SetupError> {
        let mut runs = Vec::new();
        for id in 0..self.pool.count() {
            buffers::add_to_runs(&self.pool, &mut runs, id);
        }
        for &(first, count) in &runs {
            let entry = buffers::provide(&self.pool, first, count);
            self.push(&entry.user_data(IGNORED));
        }
        self.ring.submit().map_err(SetupError::from_os)?;
        self.reaped.extend(self.ring.completion());
        let answers = self.reaped.drain(..).map(|entry| entry.result());
        match answers.min() {
            Some(0..) => Ok(()),
            Some(error) => Err(SetupError::from_errno(-error)),
            None => Err(SetupError::missing("provided buffers")),
        }
    }

    /// Gives the buffers that came back to the kernel again.
    fn give_back(&mut self) {
        let runs = match &mut *self.buffers {
            Buffers::Ring(ring) => return ring.give_back(&self.pool),
            Buffers::Operations(runs) => runs,
        };
        let mut runs = std::mem::take(runs);
        buffers::take_runs(&self.pool, &mut runs);
        for (first, count) in runs.drain(..) {
            let entry = self.silent(buffers::provide(&self.pool, first, count));
            self.push(&entry);
        }
        *self.buffers = Buffers::Operations(runs);
    }

    /// An entry whose success nobody wants to hear of.
    fn silent(&self, entry: squeue::Entry) -> squeue::Entry {
        if self.features.has(Feature::SkipSuccess) {
            entry.flags(squeue::Flags::SKIP_SUCCESS)
        } else {
            entry
        }
    }

    /// Queues an operation that ends the next wait after `timeout`, or at the next completion; an
    /// earlier one that is still queued or pending serves as well.
    fn arm_timeout(&mut self, timeout: Duration) {
        let due_us = self.now_us().saturating_add(timeout.as_micros() as u64);
        if self.timeout_due_us.is_some_and(|pending| pending <= due_us) {
            return;
        }
        *self.timeout = types::Timespec::from(timeout);
        let entry = opcode::Timeout::new(&raw const *self.timeout).count(1);
        self.timeout_due_us = Some(due_us);
        self.push(&entry.build().user_data(TIMEOUT));
    }

    fn start(&mut self, kind: Kind, fd: RawFd, token: u64) -> Result<Key, OutOfMemory> {
        self.ops.insert(Op {
            token,
            payload: Payload::None,
            fd,
            kind,
            state: State::InFlight,
            cancelling: false,
        })
    }

    /// Gives a new operation what it owns, and arms it.
    fn start_with(&mut self, key: Key, state: State, payload: Payload<B>) -> OpId {
        if let Some(op) = self.ops.get_mut(key) {
            op.state = state;
            op.payload = payload;
        }
        self.arm(key);
        OpId(key)
    }

    fn submit(&mut self) -> std::io::Result<usize> {
        let result = self.ring.submit();
        self.forget_closed();
        result
    }

    /// What the kernel has taken is closed, or will be.
    fn forget_closed(&mut self) {
        if self.closing.is_empty() {
            return;
        }
        let consumed = self.consumed();
        while let Some(&(position, _)) = self.closing.front()
            && (consumed.wrapping_sub(position) as i32) >= 0
        {
            self.closing.pop_front();
        }
    }

    /// Queues one entry; goes to the kernel early when the queue is full.
    fn push(&mut self, entry: &squeue::Entry) {
        let mut attempts = 0;
        // SAFETY: everything that an entry points at is owned by its operation's slot (a boxed
        // write, a boxed input buffer, a write's arena, the receive pool) until the final completion.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            attempts += 1;
            let submitted = result_of(self.submit());
            if submitted.is_err() || attempts > PUSH_ATTEMPTS_MAX {
                self.failed = Some(submitted.err().unwrap_or(Errno(libc::EBUSY)));
                return;
            }
            // The kernel may want its completions to be taken before it goes on.
            self.reaped.extend(self.ring.completion());
        }
        self.pushed = self.pushed.wrapping_add(1);
    }

    fn arm(&mut self, key: Key) {
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let fd = types::Fd(op.fd);
        let mut inline = false;
        let entry = match op.kind {
            Kind::Accept if self.features.has(Feature::MultishotAccept) => {
                opcode::AcceptMulti::new(fd)
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Kind::Accept => opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build(),
            Kind::Receive if self.features.has(Feature::MultishotReceive) => {
                opcode::RecvMulti::new(fd, buffers::GROUP).build()
            }
            Kind::Receive => opcode::Recv::new(fd, std::ptr::null_mut(), LEASE_SIZE as u32)
                .buf_group(buffers::GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
            Kind::ReceiveInto => {
                let (start, len) = match &mut op.payload {
                    Payload::Space(Space::Input(input)) => {
                        let free = input.free_mut();
                        (free.as_mut_ptr(), free.len())
                    }
                    Payload::Space(Space::Body(body)) => {
                        let free = body
                            .free_ptr()
                            .map_or(std::ptr::null_mut(), NonNull::as_ptr);
                        (free, body.free_len())
                    }
                    _ => unreachable!("a single receive owns its space"),
                };
                debug_assert!(
                    len > 0,
                    "a receive of nothing looks like the end of the stream"
                );
                opcode::Recv::new(fd, start, len.min(1 << 30) as u32).build()
            }
            Kind::Send => {
                let Payload::Write(write) = &mut op.payload else {
                    unreachable!("a send owns its write")
                };
                let [first, second, _] = write.remaining();
                let at_once = op.state == State::Inline;
                inline = at_once && self.features.has(Feature::SkipSuccess);
                let flags = if at_once {
                    libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL
                } else {
                    libc::MSG_NOSIGNAL
                };
                let entry = if second.is_empty() {
                    let len = first.len().min(1 << 30) as u32;
                    opcode::Send::new(fd, first.as_ptr(), len)
                        .flags(flags)
                        .build()
                } else {
                    opcode::SendMsg::new(fd, write.message())
                        .flags(flags as u32)
                        .build()
                };
                if inline {
                    entry.flags(squeue::Flags::SKIP_SUCCESS)
                } else {
                    entry
                }
            }
            Kind::ReadFile => {
                let Payload::Reading(write) = &mut op.payload else {
                    unreachable!("a read owns its write")
                };
                let (offset, space) = write.reading();
                opcode::Read::new(fd, space.as_mut_ptr(), space.len() as u32)
                    .offset(offset)
                    .build()
            }
            Kind::Poll => unreachable!("a poll is armed once, where it is made"),
        };
        self.push(&entry.user_data(key.to_u64()));
        if inline && self.failed.is_none() {
            self.inline.push_back((self.pushed, key));
        }
    }

    fn finish(
        &mut self,
        key: Key,
        outcome: impl FnOnce(Payload<B>) -> Outcome<OwnedFd, B>,
    ) -> Option<Event<OwnedFd, B>> {
        let op = self.ops.remove(key)?;
        if let Payload::Write(write) | Payload::Reading(write) = &op.payload {
            write.check_alive();
        }
        Some(Event {
            token: op.token,
            op: OpId(key),
            more: false,
            outcome: outcome(op.payload),
        })
    }

    fn fail(&mut self, key: Key, errno: Errno) -> Option<Event<OwnedFd, B>> {
        self.finish(key, |payload| match payload {
            Payload::None => Outcome::Failed(errno),
            Payload::Space(space) => Outcome::ReceivedInto(space, Err(errno)),
            Payload::Write(write) => Outcome::Sent(write, Err(errno)),
            Payload::Reading(write) => Outcome::FileRead(write, Err(errno)),
        })
    }

    fn complete(&mut self, entry: &cqueue::Entry) -> Option<Event<OwnedFd, B>> {
        let (result, flags) = (entry.result(), entry.flags());
        let key = Key::from_u64(entry.user_data());
        let Some(op) = self.ops.get_mut(key) else {
            self.complete_unowned(entry);
            return None;
        };
        let (token, kind, cancelling) = (op.token, op.kind, op.cancelling);
        let more = cqueue::more(flags);
        let goes_on = more || !cancelling;
        match kind {
            Kind::Receive => {
                if let Some(id) = cqueue::buffer_select(flags) {
                    // SAFETY: the kernel has just handed this buffer over, with `result` bytes.
                    let lease = unsafe { self.pool.lease(id, result.max(0) as usize) };
                    if result > 0 {
                        if !more && goes_on {
                            self.arm(key);
                        } else if !goes_on {
                            return self.finish(key, |_| Outcome::Received(lease));
                        }
                        return Some(Event {
                            token,
                            op: OpId(key),
                            more: true,
                            outcome: Outcome::Received(lease),
                        });
                    }
                }
                match -result {
                    0 => self.finish(key, |_| Outcome::EndOfStream),
                    libc::ENOBUFS if !cancelling => {
                        op.state = State::Starved;
                        self.starved.push(key);
                        None
                    }
                    libc::EINTR if !cancelling => {
                        self.arm(key);
                        None
                    }
                    libc::ENOBUFS => self.fail(key, Errno::CANCELLED),
                    errno => self.fail(key, Errno(errno)),
                }
            }
            Kind::Send => self.complete_send(key, result),
            Kind::ReceiveInto => {
                if result < 0 {
                    return self.fail(key, Errno(-result));
                }
                self.finish(key, |payload| {
                    let Payload::Space(mut space) = payload else {
                        unreachable!("a single receive owns its space")
                    };
                    match &mut space {
                        Space::Input(input) => input.commit(result as usize),
                        Space::Body(body) => body.commit(result as usize),
                    }
                    Outcome::ReceivedInto(space, Ok(result as usize))
                })
            }
            Kind::ReadFile => match -result {
                libc::EINTR if !cancelling => {
                    self.arm(key);
                    None
                }
                libc::EINTR => self.fail(key, Errno::CANCELLED),
                errno @ 1.. => self.fail(key, Errno(errno)),
                _ => self.finish(key, |payload| {
                    let Payload::Reading(mut write) = payload else {
                        unreachable!("a read owns its write")
                    };
                    write.commit_read(result as usize);
                    Outcome::FileRead(write, Ok(result as usize))
                }),
            },
            Kind::Accept => {
                if result < 0 {
                    return self.fail(key, Errno(-result));
                }
                // SAFETY: the kernel has just opened this descriptor for us.
                let fd = unsafe { OwnedFd::from_raw_fd(result) };
                if !goes_on {
                    return self.finish(key, |_| Outcome::Accepted(fd));
                }
                if !more {
                    self.arm(key);
                }
                Some(Event {
                    token,
                    op: OpId(key),
                    more: true,
                    outcome: Outcome::Accepted(fd),
                })
            }
            Kind::Poll if result < 0 => self.fail(key, Errno(-result)),
            Kind::Poll => self.finish(key, |_| Outcome::Ready),
        }
    }

    /// A completion of no operation in the slab, or of one that has gone: whatever it still brings
    /// home goes back.
    fn complete_unowned(&mut self, entry: &cqueue::Entry) {
        if entry.user_data() == TIMEOUT {
            self.timeout_due_us = None;
        }
        let selected = cqueue::buffer_select(entry.flags());
        let refused = buffers::provided(entry.user_data()).filter(|_| entry.result() < 0);
        for id in selected.into_iter().chain(refused.into_iter().flatten()) {
            // SAFETY: the kernel has just handed this buffer over, or did not take it.
            drop(unsafe { self.pool.lease(id, 0) });
        }
    }

    fn complete_send(&mut self, key: Key, result: i32) -> Option<Event<OwnedFd, B>> {
        let op = self.ops.get_mut(key)?;
        let Payload::Write(write) = &mut op.payload else {
            unreachable!("a send owns its write")
        };
        if result < 0 && result != -libc::EAGAIN && result != -libc::EINTR {
            return self.fail(key, Errno(-result));
        }
        write.advance(result.max(0) as usize);
        if write.sent() == write.len() {
            return self.finish_sent(key);
        }
        if op.cancelling {
            return self.fail(key, Errno::CANCELLED);
        }
        let (token, sent) = (op.token, write.sent());
        op.state = State::InFlight;
        self.arm(key);
        Some(Event {
            token,
            op: OpId(key),
            more: true,
            outcome: Outcome::SendProgress(sent),
        })
    }

    fn finish_sent(&mut self, key: Key) -> Option<Event<OwnedFd, B>> {
        self.finish(key, |payload| match payload {
            Payload::Write(write) => Outcome::Sent(write, Ok(())),
            _ => unreachable!("a send owns its write"),
        })
    }

    /// The final event of one inline send that the kernel has consumed without a word.
    fn next_inline(&mut self) -> Option<Event<OwnedFd, B>> {
        let consumed = self.consumed();
        while let Some(&(position, key)) = self.inline.front() {
            if (consumed.wrapping_sub(position) as i32) < 0 {
                return None;
            }
            self.inline.pop_front();
            if self
                .ops
                .get(key)
                .is_some_and(|op| op.state == State::Inline)
            {
                if let Some(Op {
                    payload: Payload::Write(write),
                    ..
                }) = self.ops.get_mut(key)
                {
                    let rest = write.len() - write.sent();
                    write.advance(rest);
                }
                return self.finish_sent(key);
            }
        }
        None
    }

    /// How many entries the kernel has taken, wrapping.
    fn consumed(&mut self) -> u32 {
        self.pushed
            .wrapping_sub(self.ring.submission().len() as u32)
    }

    /// Whether there is something to hand out, or the kernel has more to tell; no system call.
    fn knows_of_events(&mut self) -> bool {
        if self.tells_too_much {
            self.sift();
        }
        if !self.ended.is_empty() || !self.reaped.is_empty() || !self.ring.completion().is_empty() {
            return true;
        }
        let submission = self.ring.submission();
        (submission.taskrun() && !self.is_flag_empty) || submission.cq_overflow()
    }

    /// Takes the completions that a newer kernel would not have posted out of the others: what is
    /// left in `reaped` is worth ending a wait for.
    fn sift(&mut self) {
        while let Some(entry) = { self.ring.completion().next() } {
            let key = Key::from_u64(entry.user_data());
            match self.ops.get(key) {
                None => self.complete_unowned(&entry),
                Some(Op {
                    payload: Payload::Write(write),
                    state: State::Inline,
                    ..
                }) if entry.result() >= 0
                    && entry.result() as usize == write.len() - write.sent() =>
                {
                    let consumed = self.consumed();
                    self.inline.push_back((consumed, key));
                }
                Some(_) => self.reaped.push_back(entry),
            }
        }
    }

    /// Submits and waits, with the kernel's own timeout if it has one.
    fn enter(&mut self, timeout: Option<Duration>) -> std::io::Result<usize> {
        match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) if self.features.has(Feature::ExtArg) => {
                let timespec = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &args)
            }
            Some(timeout) => {
                self.arm_timeout(timeout);
                self.ring.submit_and_wait(1)
            }
        }
    }

    /// The same where completions come that are not worth ending a wait for.
    fn enter_until_event(&mut self, timeout: Option<Duration>) -> std::io::Result<usize> {
        let due_us = timeout.map(|timeout| self.now_us() + timeout.as_micros() as u64);
        loop {
            let left_us = due_us.map(|due_us| due_us.saturating_sub(self.now_us()));
            let result = self.enter(left_us.map(Duration::from_micros));
            // Not by its error: an interrupted enter that has submitted something is a success.
            let is_interrupted = self.ring.completion().is_empty();
            let is_over = due_us.is_some_and(|due_us| due_us <= self.now_us());
            if is_interrupted || is_over || self.knows_of_events() {
                return result;
            }
        }
    }

    /// Submits what stands behind an entry that the kernel refused.
    fn submit_rest(&mut self) {
        while !self.ring.submission().is_empty() {
            if !matches!(self.ring.submit(), Ok(1..)) {
                return;
            }
        }
    }

    fn overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    fn cancel_all(&mut self) {
        let keys: Vec<Key> = self.ops.keys().collect();
        for key in keys {
            self.cancel(OpId(key));
        }
        let until = Instant::now() + DROP_WAIT;
        while !self.ops.is_empty() && Instant::now() < until {
            if self
                .turn(Wait::For(Some(Duration::from_millis(20))))
                .is_err()
            {
                return;
            }
            while self.next_event().is_some() {}
        }
    }
}

impl<B: KeptBytes> Driver<B> for UringDriver<B> {
    type Socket = OwnedFd;

    fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    fn unix_time(&self) -> Duration {
        self.clock.unix_time()
    }

    fn accept(&mut self, listener: RawFd, token: u64) -> Result<OpId, OutOfMemory> {
        let key = self.start(Kind::Accept, listener, token)?;
        self.arm(key);
        Ok(OpId(key))
    }

    fn accept_now(&mut self, listener: RawFd) -> Result<Option<OwnedFd>, Errno> {
        socket::accept(listener)
    }

    fn receive(&mut self, fd: RawFd, token: u64) -> Result<OpId, OutOfMemory> {
        let key = self.start(Kind::Receive, fd, token)?;
        self.arm(key);
        Ok(OpId(key))
    }

    fn receive_into(&mut self, fd: RawFd, token: u64, space: Space<B>) -> Result<OpId, Space<B>> {
        match self.start(Kind::ReceiveInto, fd, token) {
            Ok(key) => Ok(self.start_with(key, State::InFlight, Payload::Space(space))),
            Err(OutOfMemory) => Err(space),
        }
    }

    fn send(&mut self, fd: RawFd, token: u64, write: Box<Write<B>>) -> Result<OpId, Box<Write<B>>> {
        let state = if write.len() <= SEND_AT_ONCE_MAX {
            State::Inline
        } else {
            State::InFlight
        };
        match self.start(Kind::Send, fd, token) {
            Ok(key) => Ok(self.start_with(key, state, Payload::Write(write))),
            Err(OutOfMemory) => Err(write),
        }
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
        match self.start(Kind::ReadFile, file, token) {
            Ok(key) => Ok(self.start_with(key, State::InFlight, Payload::Reading(write))),
            Err(OutOfMemory) => Err(write),
        }
    }

    fn poll(&mut self, fd: RawFd, interest: Interest, token: u64) -> Result<OpId, OutOfMemory> {
        let key = self.start(Kind::Poll, fd, token)?;
        let events = match interest {
            Interest::Readable => libc::POLLIN,
            Interest::Writable => libc::POLLOUT,
            Interest::HangUp => libc::POLLRDHUP,
        };
        let entry = opcode::PollAdd::new(types::Fd(fd), events as u32).build();
        self.push(&entry.user_data(key.to_u64()));
        Ok(OpId(key))
    }

    fn cancel(&mut self, OpId(key): OpId) {
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        if op.cancelling {
            return;
        }
        op.cancelling = true;
        match op.state {
            State::Starved => {
                self.starved.retain(|&other| other != key);
                self.ended.push_back(key);
            }
            // It ends in this very turn, one way or the other.
            State::Inline => {}
            State::InFlight => {
                let entry = opcode::AsyncCancel::new(key.to_u64()).build();
                self.push(&self.silent(entry).user_data(IGNORED));
            }
        }
    }

    fn shutdown_write(&mut self, fd: RawFd) {
        // Not through the ring: the kernel hands a shutdown to a thread of its own, which looks the
        // number up only then, when it may name another connection.
        socket::shutdown_write(fd);
    }

    fn untaken(&self, fd: RawFd) -> usize {
        socket::untaken(fd)
    }

    fn peer(&self, fd: RawFd) -> Peer {
        socket::peer(fd)
    }

    fn close(&mut self, socket: OwnedFd) {
        let fd = socket.into_raw_fd();
        let entry = opcode::Close::new(types::Fd(fd)).build();
        self.push(&self.silent(entry).user_data(IGNORED));
        self.closing.push_back((self.pushed, fd));
    }

    fn has_events(&mut self) -> bool {
        if self.arms_again && !self.knows_of_events() && !self.ring.submission().is_empty() {
            // What is armed again there finds only now what has come meanwhile. If this fails, so
            // does the turn.
            let _ = self.submit();
        }
        self.knows_of_events()
    }

    fn turn(&mut self, wait: Wait) -> Result<(), Errno> {
        if let Some(errno) = self.failed {
            return Err(errno);
        }
        if self.pool.has_returned() {
            self.give_back();
        }
        if !self.starved.is_empty() {
            // All completions were taken, so what is not leased is in the kernel's ring.
            let free = usize::from(self.pool.count()) - self.pool.leased();
            let fed = free.min(self.starved.len());
            for index in 0..fed {
                let key = self.starved[index];
                if let Some(op) = self.ops.get_mut(key) {
                    op.state = State::InFlight;
                }
                self.arm(key);
            }
            self.starved.drain(..fed);
        }
        let must_not_wait = wait == Wait::Poll || self.knows_of_events();
        // The flag may say more than there is, never less: to look costs a call, not to look an
        // event.
        let is_idle = self.ring.submission().is_empty()
            && !self.knows_of_events()
            && !self.ring.submission().taskrun();
        if must_not_wait && is_idle {
            return Ok(());
        }
        let result = match wait {
            Wait::For(timeout) if !must_not_wait && self.tells_too_much => {
                self.enter_until_event(timeout)
            }
            Wait::For(timeout) if !must_not_wait => self.enter(timeout),
            _ => self.submit(),
        };
        if !self.features.has(Feature::SubmitAll) {
            self.submit_rest();
        }
        self.forget_closed();
        self.is_flag_empty = self.ring.completion().is_empty() && self.ring.submission().taskrun();
        result_of(result)
    }

    fn next_event(&mut self) -> Option<Event<OwnedFd, B>> {
        loop {
            let entry = match self.reaped.pop_front() {
                Some(entry) => Some(entry),
                None => self.ring.completion().next(),
            };
            if let Some(entry) = entry {
                if let Some(event) = self.complete(&entry) {
                    return Some(event);
                }
                continue;
            }
            if let Some(key) = self.ended.pop_front() {
                return self.fail(key, Errno::CANCELLED);
            }
            // What overflowed may be the word of a send that failed: it is heard first.
            if self.inline.is_empty() || self.overflowed() {
                return None;
            }
            return self.next_inline();
        }
    }

    fn give_up_after_fork(self) {
        let fd = self.ring.as_raw_fd();
        std::mem::forget(self);
        // SAFETY: its owner was forgotten just now.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }

    fn abandon_after_fork(&mut self) {
        self.is_forked = true;
        // The parent's queue closes the parent's copies only.
        for (_, fd) in self.closing.drain(..) {
            // SAFETY: it was given to `close`, and nobody else has its number.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }

    fn operations(&self) -> usize {
        self.ops.len()
    }

    fn leases(&self) -> usize {
        self.pool.leased()
    }
}

impl<B: KeptBytes> Drop for UringDriver<B> {
    fn drop(&mut self) {
        if !self.is_forked {
            // Closes that wait in the queue are carried out too.
            let _ = self.turn(Wait::Poll);
            self.cancel_all();
        }
        let kernel_has_let_go = self.ops.is_empty();
        // SAFETY: each of the three is dropped here, once, and never used again. The ring goes
        // first, so that the kernel has no way left to the memory of the other two.
        unsafe {
            if kernel_has_let_go {
                // A child shares the ring: what is registered is the parent's.
                if matches!(*self.buffers, Buffers::Ring(_)) && !self.is_forked {
                    let _ = self.ring.submitter().unregister_buf_ring(buffers::GROUP);
                }
                ManuallyDrop::drop(&mut self.ring);
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.ops);
            } else {
                // An operation that would not end: its memory is given up rather than reused.
                ManuallyDrop::drop(&mut self.ring);
                std::mem::forget(self.pool.clone());
            }
        }
    }
}

/// What an enter's result means: only what leaves the ring unusable is an error.
fn result_of(result: std::io::Result<usize>) -> Result<(), Errno> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // Timed out, interrupted, or completions are to be taken first.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            errno => Err(Errno(errno.unwrap_or(libc::EIO))),
        },
    }
}

#[cfg(test)]
mod tests;

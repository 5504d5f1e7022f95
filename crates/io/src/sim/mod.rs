//! The simulated driver: the trait's contract with chance in every place where the contract leaves
//! room.
//!
//! An operation goes through the same states as on a real system, but when is drawn from the
//! network's generator:
//!
//! ```text
//! submitted --(turns go by)--> happened --(the event is late)--> event handed out
//!      \--cancel--(turns go by; it may happen meanwhile)--> cancelled --> final event
//! ```
//!
//! Events of different operations come in any order, those of one operation in theirs. A look may
//! pass over an operation that could go on; only the last look of a turn that waits passes over none.
//! While a turn waits, time goes on to the next thing that an [`Agenda`] wants to do, so a simulated hour
//! takes no time. The driver watches over what it is given: bytes of a pending write must not
//! change, no lease may be held over a wait, nothing may be used after its end.

mod net;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use theframework_memory::{Key, OutOfMemory, Slab};

use crate::driver::{Driver, Errno, Event, Interest, OpId, Outcome, Peer, SEND_AT_ONCE_MAX, Wait};
use crate::filling::Space;
use crate::lease::{LEASE_SIZE, LeasePool};
use crate::write::{KeptBytes, Write};
pub use net::{ClientId, ClientRead, Connection, Counts, Faults, Net, SimSocket, VIOLATION};

/// What goes on in the world while the server waits.
pub trait Agenda {
    /// When there is something to do next.
    fn next_us(&mut self, net: &mut Net) -> Option<u64>;
    /// Does everything that is due.
    fn run(&mut self, net: &mut Net);
}

/// Nothing goes on.
#[derive(Debug)]
pub struct NoAgenda;

impl Agenda for NoAgenda {
    fn next_us(&mut self, _: &mut Net) -> Option<u64> {
        None
    }

    fn run(&mut self, _: &mut Net) {}
}

/// How long an event, a cancel or the end of a write may be late, in microseconds.
const LATE_US: std::ops::Range<u64> = 1..2000;
/// Time that a turn takes.
const TURN_US: std::ops::Range<u64> = 1..30;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    Accept,
    Receive,
    ReceiveInto,
    Send,
    ReadFile,
    Poll(Interest),
}

enum Payload<B> {
    None,
    Space(Space<B>),
    Write(Box<Write<B>>),
    Reading(Box<Write<B>>),
}

struct Op<B> {
    token: u64,
    fd: RawFd,
    kind: Kind,
    payload: Payload<B>,
    /// When a cancel takes effect.
    cancel_us: Option<u64>,
    /// A write that must say something in this turn.
    is_at_once: bool,
    /// A turn has submitted it; until then nothing happens to it.
    is_submitted: bool,
    /// What the bytes of a write looked like when it was submitted.
    fingerprint: u64,
    /// Its final event has happened, and may not have been handed out.
    has_ended: bool,
}

struct Pending<B> {
    event: Event<SimSocket, B>,
    visible_us: u64,
    ends_wait: bool,
    /// A turn has gathered it.
    is_gathered: bool,
}

/// How closely the driver looks at its operations.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Look {
    /// Without submitting anything, as `has_events` does.
    Early,
    /// Submits; may pass over operations that could go on.
    Turn,
    /// Passes over none.
    Last,
}

/// The driver on a simulated [`Net`].
pub struct SimDriver<B: KeptBytes> {
    net: Rc<RefCell<Net>>,
    agenda: Rc<RefCell<dyn Agenda>>,
    ops: Slab<Op<B>>,
    events: VecDeque<Pending<B>>,
    pool: LeasePool,
    free: Vec<u16>,
    /// Memory for the order in which operations go on.
    keys: Vec<Key>,
    is_forked: bool,
    /// No lease may be held while a turn waits: the engine's promise, not the contract's.
    pub forbids_held_leases: bool,
}

impl<B: KeptBytes> fmt::Debug for SimDriver<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDriver")
            .field("operations", &self.ops.len())
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

impl<B: KeptBytes> SimDriver<B> {
    /// A driver with this many receive buffers.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        net: &Rc<RefCell<Net>>,
        agenda: Rc<RefCell<dyn Agenda>>,
        receive_buffers: u16,
    ) -> Result<Self, OutOfMemory> {
        Ok(SimDriver {
            net: Rc::clone(net),
            agenda,
            ops: Slab::new(),
            events: VecDeque::new(),
            pool: LeasePool::new(receive_buffers)?,
            free: (0..receive_buffers).collect(),
            keys: Vec::new(),
            is_forked: false,
            forbids_held_leases: false,
        })
    }

    fn start(
        &mut self,
        fd: RawFd,
        kind: Kind,
        token: u64,
        payload: Payload<B>,
    ) -> Result<OpId, Payload<B>> {
        let mut net = self.net.borrow_mut();
        let per_mille = net.faults.no_slot;
        if net.happens(per_mille) {
            net.counts.memory_faults += 1;
            net.note(|| format!("no memory for {kind:?} on descriptor {fd}"));
            return Err(payload);
        }
        net.operation_starts(fd, "an operation");
        let (mut is_at_once, mut fingerprint) = (false, 0);
        match &payload {
            Payload::Write(write) => {
                is_at_once = write.len() <= SEND_AT_ONCE_MAX;
                fingerprint = fingerprint_of(write);
            }
            Payload::Reading(write) => fingerprint = fingerprint_of(write),
            Payload::None | Payload::Space(_) => {}
        }
        let op = Op {
            token,
            fd,
            kind,
            payload,
            cancel_us: None,
            is_at_once,
            is_submitted: false,
            fingerprint,
            has_ended: false,
        };
        match self.ops.insert(op) {
            Ok(key) => Ok(OpId(key)),
            Err(OutOfMemory) => net.violation("the simulator itself is out of memory"),
        }
    }

    /// An event has happened; it will be seen now or later.
    fn happened(&mut self, key: Key, more: bool, late: bool, outcome: Outcome<SimSocket, B>) {
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        op.has_ended = !more;
        let net = &mut *self.net.borrow_mut();
        let mut visible_us = net.now_us();
        if late {
            visible_us += net.rng.u64(LATE_US);
        }
        self.events.push_back(Pending {
            event: Event {
                token: op.token,
                op: OpId(key),
                more,
                outcome,
            },
            visible_us,
            ends_wait: true,
            is_gathered: false,
        });
    }

    fn happens(&self, frequency: fn(&Faults) -> u32) -> bool {
        let mut net = self.net.borrow_mut();
        let per_mille = frequency(&net.faults);
        net.happens(per_mille)
    }

    fn is_late(&self) -> bool {
        self.happens(|faults| faults.late_events)
    }

    /// Ends an operation with an error, and gives what it owned back.
    fn fail(&mut self, key: Key, errno: Errno) {
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let is_at_once = op.is_at_once;
        let outcome = match std::mem::replace(&mut op.payload, Payload::None) {
            Payload::None => Outcome::Failed(errno),
            Payload::Space(space) => Outcome::ReceivedInto(space, Err(errno)),
            Payload::Write(write) => {
                self.check_write(key, &write);
                Outcome::Sent(write, Err(errno))
            }
            Payload::Reading(write) => {
                self.check_write(key, &write);
                Outcome::FileRead(write, Err(errno))
            }
        };
        let late = !is_at_once && self.is_late();
        self.happened(key, false, late, outcome);
    }

    /// The bytes of a write are as they were when it was submitted.
    fn check_write(&self, key: Key, write: &Write<B>) {
        let expected = self.ops.get(key).map_or(0, |op| op.fingerprint);
        if fingerprint_of(write) != expected {
            self.net
                .borrow_mut()
                .violation("bytes of a pending write have changed");
        }
    }

    /// Gives every operation the chance to go on; says whether one could that did not.
    fn progress(&mut self, look: Look) -> bool {
        let mut could = false;
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        keys.extend(self.ops.keys());
        self.net.borrow_mut().rng.shuffle(&mut keys);
        for &key in &keys {
            let Some(op) = self.ops.get_mut(key) else {
                continue;
            };
            // Both a submission and a cancel wait for the next turn.
            if op.has_ended || (look == Look::Early && (!op.is_submitted || op.cancel_us.is_some()))
            {
                continue;
            }
            op.is_submitted = true;
            let (kind, fd, is_at_once) = (op.kind, op.fd, op.is_at_once);
            let now_us = self.net.borrow().now_us();
            let is_cancelled = op.cancel_us.is_some_and(|at_us| at_us <= now_us);
            // A cancel that is due meets an operation that may be faster.
            if is_cancelled && !is_at_once && self.net.borrow_mut().rng.bool() {
                self.fail(key, Errno::CANCELLED);
                continue;
            }
            let is_ready = self.is_ready(kind, fd);
            let may_pass_over = look != Look::Last && !is_at_once;
            if is_ready && may_pass_over && self.net.borrow_mut().rng.u32(0..4) == 0 {
                could = true;
                continue;
            }
            if is_ready || is_at_once {
                self.step(key, kind, fd, is_cancelled);
            }
            if let Some(op) = self.ops.get(key)
                && is_cancelled
                && !op.has_ended
            {
                self.fail(key, Errno::CANCELLED);
            }
        }
        self.keys = keys;
        could
    }

    fn is_ready(&self, kind: Kind, fd: RawFd) -> bool {
        let mut net = self.net.borrow_mut();
        match kind {
            Kind::Accept => net.has_waiting(fd),
            Kind::Receive | Kind::ReceiveInto => {
                let (_, connection) = net.connection(fd, "receive");
                let is_starved = kind == Kind::Receive && self.free.is_empty();
                let has_bytes = !connection.inbound.is_empty() && !is_starved;
                has_bytes
                    || connection.is_reset
                    || (connection.inbound_ended && connection.inbound.is_empty())
            }
            Kind::Send | Kind::Poll(Interest::Writable) => {
                net.has_send_error(fd) || net.send_room(fd) > 0
            }
            Kind::Poll(Interest::Readable) => match net.is_listener(fd) {
                true => net.has_waiting(fd),
                false => {
                    let (_, connection) = net.connection(fd, "poll");
                    !connection.inbound.is_empty()
                        || connection.inbound_ended
                        || connection.is_reset
                }
            },
            Kind::ReadFile => true,
            Kind::Poll(Interest::HangUp) => {
                let (_, connection) = net.connection(fd, "poll");
                connection.inbound_ended || connection.is_reset
            }
        }
    }

    /// One thing happens to an operation that is ready for it.
    fn step(&mut self, key: Key, kind: Kind, fd: RawFd, is_cancelled: bool) {
        match kind {
            Kind::Accept => self.step_accept(key, fd, is_cancelled),
            Kind::Receive => self.step_receive(key, fd, is_cancelled),
            Kind::ReceiveInto => self.step_receive_into(key, fd),
            Kind::Send => self.step_send(key, fd),
            Kind::ReadFile => self.step_read_file(key, fd),
            Kind::Poll(_) => {
                let late = self.is_late();
                self.happened(key, false, late, Outcome::Ready);
            }
        }
    }

    fn step_accept(&mut self, key: Key, listener: RawFd, is_cancelled: bool) {
        if self.happens(|faults| faults.exhaustion) {
            self.net.borrow_mut().counts.exhaustions += 1;
            return self.fail(key, Errno(libc::EMFILE));
        }
        let accepted = self.net.borrow_mut().accept(listener);
        if let Some(fd) = accepted {
            let socket = SimSocket::new(&self.net, fd);
            let late = self.is_late();
            self.happened(key, !is_cancelled, late, Outcome::Accepted(socket));
        }
    }

    /// How much of `available` a system call brings.
    fn amount(&self, available: usize, frequency: fn(&Faults) -> u32) -> usize {
        if available > 1 && self.happens(frequency) {
            self.net.borrow_mut().rng.usize(1..available)
        } else {
            available
        }
    }

    fn step_receive(&mut self, key: Key, fd: RawFd, is_cancelled: bool) {
        let (available, is_over) = {
            let mut net = self.net.borrow_mut();
            let drops = net.rng.bool() || self.free.is_empty();
            let (_, connection) = net.connection(fd, "receive");
            if connection.is_reset && drops {
                connection.inbound.clear();
            }
            (
                connection.inbound.len(),
                connection.is_reset || connection.inbound_ended,
            )
        };
        if available > 0
            && let Some(id) = self.free.pop()
        {
            let len = self.amount(available.min(LEASE_SIZE), |faults| faults.short_reads);
            // SAFETY: the buffer is neither leased nor known to anybody else: it was on the free
            // list until just now.
            let mut lease = unsafe { self.pool.lease(id, len) };
            self.net.borrow_mut().take(fd, &mut lease);
            let late = self.is_late();
            // A cancel that lost: the last event brings bytes.
            let more = !(is_cancelled && self.net.borrow_mut().rng.bool());
            self.happened(key, more, late, Outcome::Received(lease));
        } else if is_over && available == 0 {
            if let Some(errno) = self.take_error(fd) {
                return self.fail(key, errno);
            }
            self.net.borrow_mut().tell_end(fd);
            let late = self.is_late();
            self.happened(key, false, late, Outcome::EndOfStream);
        }
    }

    fn take_error(&self, fd: RawFd) -> Option<Errno> {
        self.net.borrow_mut().take_error(fd).map(Errno)
    }

    fn step_receive_into(&mut self, key: Key, fd: RawFd) {
        let available = {
            let mut net = self.net.borrow_mut();
            net.connection(fd, "receive").1.inbound.len()
        };
        if available == 0
            && let Some(errno) = self.take_error(fd)
        {
            return self.fail(key, errno);
        }
        let Some(Op { payload, .. }) = self.ops.get_mut(key) else {
            return;
        };
        let Payload::Space(mut space) = std::mem::replace(payload, Payload::None) else {
            unreachable!("a single receive owns its space")
        };
        let room = match &mut space {
            Space::Input(input) => input.free_mut().len(),
            Space::Body(body) => body.free_len(),
        };
        if room == 0 {
            self.net
                .borrow_mut()
                .violation("a receive without room looks like the end of the stream");
        }
        let len = match available.min(room) {
            0 => {
                self.net.borrow_mut().tell_end(fd);
                0
            }
            most => self.amount(most, |faults| faults.short_reads),
        };
        let mut bytes = vec![0; len];
        self.net.borrow_mut().take(fd, &mut bytes);
        match &mut space {
            Space::Input(input) => {
                input.free_mut()[..len].copy_from_slice(&bytes);
                input.commit(len);
            }
            Space::Body(body) => {
                body.extend(&bytes);
            }
        }
        let late = self.is_late();
        self.happened(key, false, late, Outcome::ReceivedInto(space, Ok(len)));
    }

    fn step_send(&mut self, key: Key, fd: RawFd) {
        let error = self.net.borrow_mut().take_send_error(fd);
        if let Some(errno) = error {
            return self.fail(key, Errno(errno));
        }
        let Some(Op {
            payload,
            is_at_once,
            ..
        }) = self.ops.get_mut(key)
        else {
            return;
        };
        let is_at_once = std::mem::take(is_at_once);
        let Payload::Write(mut write) = std::mem::replace(payload, Payload::None) else {
            unreachable!("a send owns its write")
        };
        if self.net.borrow_mut().rng.u32(0..8) == 0 {
            self.check_write(key, &write);
        }
        let rest = write.len() - write.sent();
        let room = self.net.borrow_mut().send_room(fd).min(rest);
        let len = if room > 0 {
            self.amount(room, |faults| faults.short_writes)
        } else {
            0
        };
        {
            let bytes = write.remaining().into_iter().flatten().copied();
            self.net.borrow_mut().put(fd, bytes.take(len));
        }
        write.advance(len);
        if write.sent() == write.len() {
            self.check_write(key, &write);
            // Like a zero-copy send's: the notification may come well after the bytes.
            let late = !is_at_once && self.happens(|faults| faults.late_write_ends);
            self.happened(key, false, late, Outcome::Sent(write, Ok(())));
            if let Some(pending) = self.events.back_mut() {
                pending.ends_wait = !is_at_once;
            }
            return;
        }
        let sent = write.sent();
        if let Some(op) = self.ops.get_mut(key) {
            op.payload = Payload::Write(write);
        }
        if len > 0 || is_at_once {
            self.happened(key, true, false, Outcome::SendProgress(sent));
        }
    }

    fn step_read_file(&mut self, key: Key, fd: RawFd) {
        if self.happens(|faults| faults.file_errors) {
            return self.fail(key, Errno(libc::EIO));
        }
        let Some(Op { payload, .. }) = self.ops.get_mut(key) else {
            return;
        };
        let Payload::Reading(mut write) = std::mem::replace(payload, Payload::None) else {
            unreachable!("a read owns its write")
        };
        self.check_write(key, &write);
        let (offset, space) = write.reading();
        let available = self.net.borrow_mut().file(fd).len() as u64;
        let left = usize::try_from(available.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = self.amount(left.min(space.len()), |faults| faults.short_reads);
        if len > 0 {
            let start = offset as usize;
            let mut net = self.net.borrow_mut();
            space[..len].copy_from_slice(&net.file(fd)[start..start + len]);
        }
        write.commit_read(len);
        self.net
            .borrow_mut()
            .note(|| format!("the server reads {len} bytes of descriptor {fd}"));
        let late = self.is_late();
        self.happened(key, false, late, Outcome::FileRead(write, Ok(len)));
    }

    fn is_visible(&self, index: usize) -> bool {
        let op = self.events[index].event.op;
        self.events[index].visible_us <= self.net.borrow().now_us()
            && !self
                .events
                .range(..index)
                .any(|pending| pending.event.op == op)
    }

    fn has_visible(&self, that_ends_wait: bool) -> bool {
        (0..self.events.len()).any(|index| {
            self.is_visible(index) && (self.events[index].ends_wait || !that_ends_wait)
        })
    }

    fn next_visible_us(&self) -> Option<u64> {
        let now_us = self.net.borrow().now_us();
        self.events
            .iter()
            .filter(|pending| pending.ends_wait || pending.visible_us > now_us)
            .map(|pending| pending.visible_us.max(now_us + 1))
            .min()
    }

    /// The contract allows one write and one receive at a time.
    fn check_single(&self, fd: RawFd, what: &str, is_same: impl Fn(Kind) -> bool) {
        if self
            .ops
            .iter()
            .any(|(_, op)| op.fd == fd && is_same(op.kind))
        {
            self.net
                .borrow_mut()
                .violation(&format!("two {what} at once on descriptor {fd}"));
        }
    }

    fn check_leases(&self) {
        let on_the_way = self
            .events
            .iter()
            .filter(|pending| matches!(pending.event.outcome, Outcome::Received(_)))
            .count();
        if self.forbids_held_leases && self.pool.leased() > on_the_way {
            let held = self.pool.leased() - on_the_way;
            self.net
                .borrow_mut()
                .violation(&format!("{held} leases are held while the worker waits"));
        }
    }

    fn run_agenda(&self) {
        self.agenda.borrow_mut().run(&mut self.net.borrow_mut());
    }

    /// Lets time go on, not beyond `until_us`.
    fn pass_time(&mut self, until_us: u64, could: bool) {
        let soon_us = |net: &mut Net| net.now_us() + net.rng.u64(1..50);
        let mut next_us = self.agenda.borrow_mut().next_us(&mut self.net.borrow_mut());
        let cancels_us = self
            .ops
            .iter()
            .filter_map(|(_, op)| op.cancel_us.filter(|_| !op.has_ended));
        let earliest_us = cancels_us.min().into_iter().chain(self.next_visible_us());
        next_us = next_us.into_iter().chain(earliest_us).min();
        let net = &mut *self.net.borrow_mut();
        if could {
            let soon_us = soon_us(net);
            next_us = Some(next_us.map_or(soon_us, |at_us| at_us.min(soon_us)));
        }
        if next_us.is_none() && until_us == u64::MAX {
            net.violation("the worker waits for ever, and nothing will happen");
        }
        let next_us = next_us.unwrap_or(until_us).min(until_us);
        let now_us = net.now_us();
        net.advance_to(next_us.max(now_us));
    }
}

impl<B: KeptBytes> Driver<B> for SimDriver<B> {
    type Socket = SimSocket;

    fn now_us(&self) -> u64 {
        self.net.borrow().now_us()
    }

    fn unix_time(&self) -> Duration {
        Duration::from_micros(self.net.borrow().unix_us().max(0) as u64)
    }

    fn accept(&mut self, listener: RawFd, token: u64) -> Result<OpId, OutOfMemory> {
        self.start(listener, Kind::Accept, token, Payload::None)
            .map_err(|_| OutOfMemory)
    }

    fn accept_now(&mut self, listener: RawFd) -> Result<Option<SimSocket>, Errno> {
        if self.net.borrow_mut().has_waiting(listener) && self.happens(|faults| faults.exhaustion) {
            self.net.borrow_mut().counts.exhaustions += 1;
            return Err(Errno(libc::EMFILE));
        }
        let accepted = self.net.borrow_mut().accept(listener);
        Ok(accepted.map(|fd| SimSocket::new(&self.net, fd)))
    }

    fn receive(&mut self, fd: RawFd, token: u64) -> Result<OpId, OutOfMemory> {
        self.check_single(fd, "receives", is_receive);
        self.start(fd, Kind::Receive, token, Payload::None)
            .map_err(|_| OutOfMemory)
    }

    fn receive_into(&mut self, fd: RawFd, token: u64, space: Space<B>) -> Result<OpId, Space<B>> {
        self.check_single(fd, "receives", is_receive);
        self.start(fd, Kind::ReceiveInto, token, Payload::Space(space))
            .map_err(|payload| match payload {
                Payload::Space(space) => space,
                _ => unreachable!("it is what was given"),
            })
    }

    fn send(&mut self, fd: RawFd, token: u64, write: Box<Write<B>>) -> Result<OpId, Box<Write<B>>> {
        self.check_single(fd, "writes", |kind| kind == Kind::Send);
        self.start(fd, Kind::Send, token, Payload::Write(write))
            .map_err(|payload| match payload {
                Payload::Write(write) => write,
                _ => unreachable!("it is what was given"),
            })
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
        self.start(file, Kind::ReadFile, token, Payload::Reading(write))
            .map_err(|payload| match payload {
                Payload::Reading(write) => write,
                _ => unreachable!("it is what was given"),
            })
    }

    fn poll(&mut self, fd: RawFd, interest: Interest, token: u64) -> Result<OpId, OutOfMemory> {
        self.start(fd, Kind::Poll(interest), token, Payload::None)
            .map_err(|_| OutOfMemory)
    }

    fn cancel(&mut self, OpId(key): OpId) {
        let is_late = self.happens(|faults| faults.late_cancels);
        let mut net = self.net.borrow_mut();
        let now_us = net.now_us();
        let after_us = if is_late { net.rng.u64(LATE_US) } else { 0 };
        if let Some(op) = self.ops.get_mut(key)
            && op.cancel_us.is_none()
        {
            op.cancel_us = Some(now_us + after_us);
            net.note(|| format!("cancel of {:?} on descriptor {}", op.kind, op.fd));
        }
    }

    fn shutdown_write(&mut self, fd: RawFd) {
        self.net.borrow_mut().server_finishes(fd);
    }

    fn untaken(&self, _: RawFd) -> usize {
        // What the simulated socket takes is with its client.
        0
    }

    fn peer(&self, _: RawFd) -> Peer {
        Peer::Local
    }

    fn close(&mut self, socket: SimSocket) {
        drop(socket);
    }

    fn has_events(&mut self) -> bool {
        self.progress(Look::Early);
        self.has_visible(true)
    }

    fn turn(&mut self, wait: Wait) -> Result<(), Errno> {
        let free = &mut self.free;
        self.pool.drain_returned(|id| free.push(id));
        self.check_leases();
        {
            let mut net = self.net.borrow_mut();
            let now_us = net.now_us();
            let took_us = net.rng.u64(TURN_US);
            net.advance_to(now_us + took_us);
            net.jump();
        }
        let now_us = self.net.borrow().now_us();
        let until_us = match wait {
            Wait::Poll => now_us,
            Wait::For(None) => u64::MAX,
            Wait::For(Some(time)) => now_us.saturating_add(time.as_micros() as u64),
        };
        loop {
            self.run_agenda();
            let could = self.progress(Look::Turn);
            let is_over = self.net.borrow().now_us() >= until_us;
            if self.has_visible(true) || is_over {
                if could && is_over && wait != Wait::Poll && !self.has_visible(true) {
                    self.progress(Look::Last);
                }
                break;
            }
            self.pass_time(until_us, could);
        }
        let now_us = self.net.borrow().now_us();
        for pending in &mut self.events {
            pending.is_gathered |= pending.visible_us <= now_us;
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event<SimSocket, B>> {
        // Any of those that are visible, with the same chance, without a list of them.
        let mut chosen = None;
        let mut seen = 0;
        for index in 0..self.events.len() {
            if self.events[index].is_gathered && self.is_visible(index) {
                seen += 1;
                if self.net.borrow_mut().rng.usize(0..seen) == 0 {
                    chosen = Some(index);
                }
            }
        }
        let index = chosen?;
        let Pending { event, .. } = self.events.remove(index)?;
        self.net.borrow_mut().counts.events += 1;
        if !event.more {
            let OpId(key) = event.op;
            match self.ops.remove(key) {
                Some(op) => self.net.borrow_mut().operation_ends(op.fd),
                None => self.net.borrow_mut().violation("an operation ended twice"),
            }
        }
        Some(event)
    }

    fn give_up_after_fork(self) {
        std::mem::forget(self);
    }

    fn abandon_after_fork(&mut self) {
        self.is_forked = true;
    }

    fn operations(&self) -> usize {
        self.ops.len()
    }

    fn leases(&self) -> usize {
        self.pool.leased()
    }
}

impl<B: KeptBytes> Drop for SimDriver<B> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if !self.is_forked {
            // Writes that wait for their submission go out, as far as the sockets take them.
            let waits = |op: &Op<B>| op.kind == Kind::Send && !op.is_submitted;
            let waiting = self.ops.iter().filter(|(_, op)| waits(op));
            let sends: Vec<(Key, RawFd)> = waiting.map(|(key, op)| (key, op.fd)).collect();
            for (key, fd) in sends {
                self.step_send(key, fd);
            }
        }
        self.net.borrow_mut().forget_operations();
    }
}

fn is_receive(kind: Kind) -> bool {
    matches!(kind, Kind::Receive | Kind::ReceiveInto)
}

fn fingerprint_of<B: KeptBytes>(write: &Write<B>) -> u64 {
    write.all().into_iter().fold(FNV_START, fnv)
}

/// Start value of [`fnv`].
pub const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with a fingerprint, eight bytes at a time.
pub fn fnv(mut state: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3);
        state ^= state >> 29;
    }
    for &byte in rest {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state ^ bytes.len() as u64
}

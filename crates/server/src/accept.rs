//! Listeners: who is accepted, when, and by which worker.
//!
//! With a listener of its own, a worker accepts by one multishot operation. On a listener that it
//! shares, it polls and takes a few connections a turn, so that a busy worker takes none and nobody
//! waits behind it; a worker clearly above the least loaded one lets the others go first for at
//! most [`YIELD_MS`].
//!
//! At `max_connections` the worker stops accepting: clients wait in the backlog, or another worker
//! takes them. If it stays full for `accept_pause`, they are accepted and told 503, from a reserve
//! of [`RESERVE`] slots. Out of descriptors, accepting rests until one is closed, or a second.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::AsRawFd;

use theframework_io::{Driver, Interest, KeptBytes, OpId, Outcome};
use theframework_memory::OutOfMemory;

use crate::connection::Connection;
use crate::engine::Engine;
use crate::timeouts::tick_of_ms;
use crate::token;

/// Connections that are told 503 at the same time.
pub(crate) const RESERVE: usize = 32;
/// Connections taken from a shared listener in one turn.
const BATCH: usize = 8;
/// A worker with more connections than the lowest plus this lets others go first.
const CLEARLY_ABOVE: usize = 4;
/// For at most this long.
const YIELD_MS: u64 = 2;
/// How long accepting rests when descriptors or memory have run out.
const EXHAUSTED_MS: u64 = 1000;

/// How a listener is accepted from.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum AcceptMode {
    /// This worker alone accepts from it.
    Own,
    /// Other workers accept from it too.
    Shared,
}

/// What a worker sees of the others' load.
pub trait Peers: fmt::Debug {
    /// Tells how many connections this worker has.
    fn publish(&self, connections: usize);
    /// The fewest connections that any other living worker has.
    fn lowest(&self) -> Option<usize>;
    /// In the child of a fork: what the others know is about the parent, and stays when this is dropped.
    fn disown(&mut self);
}

#[derive(Debug)]
struct Listener<S> {
    socket: S,
    mode: AcceptMode,
    /// The armed accept or poll.
    op: Option<OpId>,
    is_cancelled: bool,
    /// A poll said that somebody waits.
    is_ready: bool,
}

#[derive(Debug)]
pub(crate) struct Listeners<S> {
    all: Vec<Listener<S>>,
    peers: Option<Box<dyn Peers>>,
    /// Accepted before the accept could be stopped; they wait for a slot.
    waiting: VecDeque<S>,
    /// Since when the worker has been full.
    full_since_ms: Option<u64>,
    in_reserve: usize,
    /// No accepting before this time.
    rests_until_ms: u64,
    /// Others go first until the timer says so.
    is_postponed: bool,
    /// They have had their time.
    may_take: bool,
    is_closed: bool,
}

impl<S> Default for Listeners<S> {
    fn default() -> Self {
        Listeners {
            all: Vec::new(),
            peers: None,
            waiting: VecDeque::new(),
            full_since_ms: None,
            in_reserve: 0,
            rests_until_ms: 0,
            is_postponed: false,
            may_take: false,
            is_closed: false,
        }
    }
}

impl<S> Listeners<S> {
    pub(crate) fn connection_ended(&mut self, was_reserve: bool) {
        self.rests_until_ms = 0;
        if was_reserve {
            self.in_reserve -= 1;
        }
    }

    pub(crate) fn disown_peers(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.disown();
        }
    }

    pub(crate) fn postponement_over(&mut self) {
        self.is_postponed = false;
        self.may_take = true;
    }

    #[cfg(feature = "audit")]
    pub(crate) fn in_reserve(&self) -> usize {
        self.in_reserve
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.all.is_empty()
    }
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Serves a listening, non-blocking socket.
    pub fn listen(&mut self, socket: D::Socket, mode: AcceptMode) {
        self.listeners.all.push(Listener {
            socket,
            mode,
            op: None,
            is_cancelled: false,
            is_ready: false,
        });
    }

    /// Gives the worker a view of the others' load, for sharing listeners fairly.
    pub fn set_peers(&mut self, peers: Box<dyn Peers>) {
        self.listeners.peers = Some(peers);
        self.publish_load();
    }

    pub(crate) fn publish_load(&self) {
        if let Some(peers) = &self.listeners.peers {
            peers.publish(self.connections.len());
        }
    }

    pub(crate) fn on_listener(
        &mut self,
        position: usize,
        more: bool,
        outcome: Outcome<D::Socket, B>,
    ) {
        let Some(listener) = self.listeners.all.get_mut(position) else {
            return;
        };
        if !more {
            listener.op = None;
            listener.is_cancelled = false;
        }
        match outcome {
            Outcome::Accepted(socket) => self.admit(socket),
            Outcome::Ready => listener.is_ready = true,
            Outcome::Failed(errno) if errno.is_passing() => {}
            // Out of descriptors, or a listener that somebody else has shut: not again at once.
            Outcome::Failed(_) => self.rest(),
            _ => debug_assert!(false, "not an event of a listener"),
        }
        if self.listeners.is_closed {
            self.close_listeners();
        }
    }

    fn rest(&mut self) {
        self.listeners.rests_until_ms = self.now_ms + EXHAUSTED_MS;
        self.wake_at(self.now_ms + EXHAUSTED_MS);
    }

    /// Makes a turn happen at this time, for [`accept_more`](Self::accept_more).
    fn wake_at(&mut self, at_ms: u64) {
        self.wheel.insert(tick_of_ms(at_ms), token::of_listener(0));
    }

    fn is_full(&self) -> bool {
        self.connections.len() - self.listeners.in_reserve >= self.config.max_connections
    }

    fn admit(&mut self, socket: D::Socket) {
        if self.listeners.is_closed || self.is_full() {
            self.listeners.waiting.push_back(socket);
        } else {
            self.open(socket);
        }
    }

    fn open(&mut self, socket: D::Socket) {
        self.stats.accepted += 1;
        let Ok(key) = self.connections.insert(Connection::new(socket)) else {
            return;
        };
        self.publish_load();
        self.arm_receive(key);
        self.advance(key);
    }

    fn refuse_overload(&mut self, socket: D::Socket) {
        self.stats.overload += 1;
        let mut connection = Connection::new(socket);
        connection.is_reserve = true;
        if let Ok(key) = self.connections.insert(connection) {
            self.listeners.in_reserve += 1;
            self.publish_load();
            self.refuse(key, 503, false);
        }
    }

    /// Once a turn: arms, stops and serves the listeners as the number of connections wants it.
    pub(crate) fn accept_more(&mut self) {
        if self.listeners.is_closed {
            return;
        }
        while !self.is_full()
            && let Some(socket) = self.listeners.waiting.pop_front()
        {
            self.open(socket);
        }
        if self.now_ms < self.listeners.rests_until_ms {
            return;
        }
        if !self.is_full() {
            self.listeners.full_since_ms = None;
            for position in 0..self.listeners.all.len() {
                self.accept_from(position);
            }
            return;
        }
        let pause_ms = self.config.accept_pause_ms;
        let since_ms = match self.listeners.full_since_ms {
            Some(since_ms) => since_ms,
            None => {
                self.listeners.full_since_ms = Some(self.now_ms);
                self.cancel_accepts();
                if pause_ms > 0 {
                    self.wake_at(self.now_ms + pause_ms);
                }
                self.now_ms
            }
        };
        if self.now_ms >= since_ms + pause_ms {
            self.refuse_waiting();
        }
    }

    /// The worker has been full for too long: those who wait are told.
    fn refuse_waiting(&mut self) {
        while self.listeners.in_reserve < RESERVE
            && let Some(socket) = self.listeners.waiting.pop_front()
        {
            self.refuse_overload(socket);
        }
        for position in 0..self.listeners.all.len() {
            // An armed poll says that nobody has come since.
            while self.listeners.all[position].op.is_none() && self.listeners.in_reserve < RESERVE {
                match self.take(position) {
                    Some(socket) => self.refuse_overload(socket),
                    None => {
                        self.watch_listener(position);
                        break;
                    }
                }
            }
        }
    }

    fn take(&mut self, position: usize) -> Option<D::Socket> {
        let listener = self.listeners.all.get_mut(position)?;
        listener.is_ready = false;
        match self.driver.accept_now(listener.socket.as_raw_fd()) {
            Ok(fd) => fd,
            Err(errno) => {
                if !errno.is_passing() {
                    self.rest();
                }
                None
            }
        }
    }

    fn watch_listener(&mut self, position: usize) {
        if let Some(listener) = self.listeners.all.get_mut(position)
            && listener.op.is_none()
        {
            let fd = listener.socket.as_raw_fd();
            listener.op = self
                .driver
                .poll(fd, Interest::Readable, token::of_listener(position))
                .ok();
        }
    }

    fn accept_from(&mut self, position: usize) {
        let Some(listener) = self.listeners.all.get_mut(position) else {
            return;
        };
        match listener.mode {
            AcceptMode::Own if listener.op.is_none() => {
                let token = token::of_listener(position);
                match self.driver.accept(listener.socket.as_raw_fd(), token) {
                    Ok(op) => listener.op = Some(op),
                    Err(OutOfMemory) => self.rest(),
                }
            }
            AcceptMode::Own => {}
            AcceptMode::Shared => {
                if listener.is_ready {
                    // Asked before each: a batch that began level must not end far above the others.
                    for _ in 0..BATCH {
                        if self.is_full() {
                            break;
                        }
                        if self.lets_others_go_first() {
                            // Whoever is still there when they have had their time is taken then.
                            self.listeners.all[position].is_ready = true;
                            break;
                        }
                        match self.take(position) {
                            Some(socket) => self.open(socket),
                            None => break,
                        }
                    }
                    self.listeners.may_take = false;
                }
                if !self.listeners.all[position].is_ready {
                    self.watch_listener(position);
                }
            }
        }
    }

    fn lets_others_go_first(&mut self) -> bool {
        if self.listeners.is_postponed {
            return true;
        }
        let lowest = self
            .listeners
            .peers
            .as_ref()
            .and_then(|peers| peers.lowest());
        let is_above =
            lowest.is_some_and(|lowest| self.connections.len() >= lowest + CLEARLY_ABOVE);
        if !is_above || self.listeners.may_take {
            return false;
        }
        self.listeners.is_postponed = true;
        self.wake_at(self.now_ms + YIELD_MS);
        true
    }

    fn cancel_accepts(&mut self) {
        for listener in &mut self.listeners.all {
            if let Some(op) = listener.op
                && !listener.is_cancelled
            {
                listener.is_cancelled = true;
                self.driver.cancel(op);
            }
        }
    }

    pub(crate) fn stop_accepting(&mut self) {
        self.listeners.is_closed = true;
        self.cancel_accepts();
        self.close_listeners();
    }

    /// Closes the listeners when none of them has an operation left.
    fn close_listeners(&mut self) {
        if self
            .listeners
            .all
            .iter()
            .all(|listener| listener.op.is_none())
        {
            for listener in self.listeners.all.drain(..) {
                self.driver.close(listener.socket);
            }
            while let Some(socket) = self.listeners.waiting.pop_front() {
                self.open(socket);
            }
        }
    }
}

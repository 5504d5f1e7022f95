//! The engine: what a worker owns, and one turn of it.
//!
//! One state machine for each connection, on any completion driver. [`Engine`] owns connections, exchanges,
//! timeouts and limits of one worker. Whoever runs it (the loop of an [`App`](crate::App), the Python hub)
//! does this, for ever:
//!
//! 1. [`Engine::turn`]: submit what is queued, gather events, run them. Complete requests come to
//!    stand on the ready queue.
//! 2. [`Engine::next_ready`]: take an exchange, look at its request ([`Engine::request`]), answer it
//!    ([`Engine::respond`]), or [`Engine::park`] it while its handler waits.
//!    A handler that streams takes its request's body as it comes ([`Engine::body_state`]) and sends
//!    its response as it is made ([`Engine::start_response`]).
//! 3. [`Engine::flush`] when the batch ends: one write for all finished responses of a connection.
//!
//! The engine calls nobody: what happened is asked for. So no borrow of it ever crosses a call into
//! a handler that could come back to it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use theframework_http::DateCache;
use theframework_io::{
    Driver, Errno, Event, Filling, KeptBytes, Outcome, Peer, TICK_US, TimerWheel, Wait,
};
use theframework_memory::{
    BlockRecycler, BufferRecycler, CHUNK_SIZE, ChunkRecycler, Key, OutOfMemory, RECYCLES, Slab,
};

use crate::accept::Listeners;
use crate::config::Config;
use crate::connection::Connection;
use crate::exchange::{BodyPlace, Exchange, ExchangePool, NOBODY, Progress};
use crate::file::SentFile;
use crate::input::InputPool;
use crate::output::WritePool;
use crate::router::Found;
use crate::timeouts::{tick_of_ms, tick_of_us};
use crate::token::{self, Kind};

pub use crate::accept::{AcceptMode, Peers};
#[cfg(feature = "audit")]
pub use crate::audit::{Held, Spare};
pub use crate::download::{Room, WriteError};
pub use crate::exchange::{Answering, ExchangeId, RequestView, Route};
pub use crate::file::FileBody;
pub use crate::peers::{PeerSlot, SlotPeers};
pub use crate::respond::{Body, HeaderError};
pub use crate::router::{RouteError, Router, StreamLimit};
pub use crate::upload::BodyState;

/// How often idle memory is looked at.
const TRIM_MS: u64 = 10_000;
/// A worker that had as many requests since the last look is under load: what it lets go of, the next
/// peak would allocate again.
const LOAD_MIN: u64 = 1000;
/// Under load, memory is idle that nobody has needed in so many looks: what a peak needs that comes once
/// a minute stays.
const LOOKS_UNDER_LOAD: u32 = 6;

/// Empty boxes for bodies kept; 40 bytes each.
const FILLINGS_MAX: usize = 256;

/// Counters of a worker since its start.
#[derive(Copy, Clone, Default, Debug)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Requests that reached the ready queue.
    pub requests: u64,
    /// Responses that were refused by the engine itself (400, 408, 413 and so on).
    pub refused: u64,
    /// Connections that were told 503 for want of a slot.
    pub overload: u64,
    /// Turns of the loop.
    pub turns: u64,
}

/// What a worker's requests and writes have of memory, and what is kept for those that come.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct MemoryStats {
    /// Requests that are under way, from their heads to the ends of their responses.
    pub exchanges: u64,
    /// Bytes of arenas' chunks, and of buffers and blocks, that are kept for those that come; what nobody
    /// needs is let go of.
    pub cached_bytes: u64,
    /// Chunks of arenas in use, 4 KiB each.
    pub chunks: u64,
    /// Buffers in use: input that did not fit, and writes.
    pub buffers: u64,
    /// Blocks in use: what waits in exactly its size.
    pub blocks: u64,
}

/// One worker's server: see the crate's first page for how it is run.
#[derive(Debug)]
pub struct Engine<D: Driver<B>, B> {
    pub(crate) driver: D,
    pub(crate) config: Config,
    pub(crate) router: Rc<Router>,
    pub(crate) chunks: ChunkRecycler,
    pub(crate) blocks: BlockRecycler,
    pub(crate) buffers: BufferRecycler,
    pub(crate) inputs: InputPool,
    pub(crate) writes: WritePool<B>,
    pub(crate) connections: Slab<Connection<D::Socket, B>>,
    pub(crate) exchanges: Slab<Box<Exchange<B>>>,
    pub(crate) files: Slab<SentFile<D::Socket>>,
    pub(crate) exchange_pool: ExchangePool<B>,
    pub(crate) fillings: Vec<Box<Filling<B>>>,
    pub(crate) listeners: Listeners<D::Socket>,
    pub(crate) ready: VecDeque<Key>,
    /// The next request of the connection that was answered last: it goes first, so that the
    /// answers to pipelined requests are joined.
    pub(crate) next_in_pipeline: Option<Key>,
    /// The connection whose request is being answered now.
    pub(crate) answered: Option<Key>,
    /// How many requests of one connection have been taken one after the other.
    pub(crate) pipeline_run: u32,
    /// Connections with finished responses that have not been submitted.
    pub(crate) dirty: Vec<Key>,
    /// Connections that took a lease this turn.
    pub(crate) leased: Vec<Key>,
    pub(crate) wheel: TimerWheel,
    /// User timers and polls that are due.
    pub(crate) due: VecDeque<u64>,
    /// Exchanges whose handler has run too long.
    pub(crate) overdue: VecDeque<ExchangeId>,
    /// Bodies whose writes have ended: the user drops them, when nothing is borrowed.
    pub(crate) released: Vec<B>,
    pub(crate) date: DateCache,
    pub(crate) stats: Stats,
    /// For decoded text, used again and again.
    pub(crate) scratch: Vec<u8>,
    pub(crate) drain: Option<u64>,
    pub(crate) now_us: u64,
    pub(crate) now_ms: u64,
    /// Milliseconds spent in waits, all in all.
    pub(crate) waited_ms: u64,
    date_ms: u64,
    trim_ms: u64,
    /// Requests so far, as of the last look at idle memory.
    requests_seen: u64,
    /// Looks under load since something was let go of.
    looks: u32,
    /// Something follows the end of a write that this turn submits: the turn must not wait.
    pub(crate) must_not_wait: bool,
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// An engine without listeners.
    pub fn new(driver: D, config: Config, router: Rc<Router>) -> Self {
        let (chunks, blocks, buffers) = (
            ChunkRecycler::new(),
            BlockRecycler::new(),
            BufferRecycler::new(),
        );
        Engine {
            date: DateCache::new(driver.unix_time().as_secs()),
            driver,
            config,
            router,
            inputs: InputPool::new(buffers.clone(), blocks.clone()),
            writes: WritePool::new(buffers.clone()),
            exchange_pool: ExchangePool::new(chunks.clone(), blocks.clone()),
            chunks,
            blocks,
            buffers,
            connections: Slab::new(),
            exchanges: Slab::new(),
            files: Slab::new(),
            fillings: Vec::new(),
            listeners: Listeners::default(),
            ready: VecDeque::new(),
            next_in_pipeline: None,
            answered: None,
            pipeline_run: 0,
            dirty: Vec::new(),
            leased: Vec::new(),
            wheel: TimerWheel::new(0),
            due: VecDeque::new(),
            overdue: VecDeque::new(),
            released: Vec::new(),
            stats: Stats::default(),
            scratch: Vec::new(),
            drain: None,
            now_us: 0,
            now_ms: 0,
            waited_ms: 0,
            // With the first turn: where in its second the worker starts is not known yet.
            date_ms: 0,
            trim_ms: TRIM_MS,
            requests_seen: 0,
            looks: 0,
            must_not_wait: false,
        }
    }

    /// Submits, gathers events and runs them; due timers too. With `may_wait`, waits until
    /// something happens. At most one system call, closing and accepting apart.
    ///
    /// # Errors
    /// Only what leaves the driver unusable.
    pub fn turn(&mut self, may_wait: bool) -> Result<(), Errno> {
        self.before_turn();
        self.wait_for_events(may_wait)?;
        self.after_turn();
        Ok(())
    }

    /// The first part of [`turn`](Self::turn): everything that must not be held while waiting is
    /// given back, finished responses are queued.
    pub fn before_turn(&mut self) {
        // A batch has ended: others come first now.
        self.pipeline_run = 0;
        self.ready.extend(self.next_in_pipeline.take());
        self.accept_more();
        self.flush();
        self.end_leases();
    }

    /// Whether [`wait_for_events`](Self::wait_for_events) would return at once.
    pub fn has_events(&mut self) -> bool {
        self.must_not_wait
            || !self.ready.is_empty()
            || !self.due.is_empty()
            || self.driver.has_events()
            || self
                .wheel
                .next_tick()
                .is_some_and(|tick| tick * TICK_US <= self.clock_us())
    }

    /// The second part of [`turn`](Self::turn): the one system call. Touches nothing that another
    /// thread could see, so an interpreter lock may be released around it.
    ///
    /// # Errors
    /// Only what leaves the driver unusable.
    pub fn wait_for_events(&mut self, may_wait: bool) -> Result<(), Errno> {
        let wait = self.wait(may_wait);
        let before_ms = self.clock_ms();
        let result = self.driver.turn(wait);
        if wait != Wait::Poll {
            self.waited_ms += self.clock_ms() - before_ms;
        }
        result
    }

    /// The third part of [`turn`](Self::turn): runs what came, and due timers.
    pub fn after_turn(&mut self) {
        self.stats.turns += 1;
        self.must_not_wait = false;
        self.update_clock();
        while let Some(event) = self.driver.next_event() {
            self.run_event(event);
        }
        self.run_timers();
        if self.now_ms >= self.trim_ms {
            self.trim();
        }
    }

    fn wait(&self, may_wait: bool) -> Wait {
        if !may_wait || self.must_not_wait || !self.ready.is_empty() || !self.due.is_empty() {
            return Wait::Poll;
        }
        let now_us = self.clock_us();
        // Idle memory is let go of whatever the timers are: one may be hours away.
        let trim_us = self.trim_ms * 1000;
        let at_us = match self.wheel.next_tick() {
            Some(tick) => trim_us.min(tick * TICK_US),
            None => trim_us,
        };
        match at_us.checked_sub(now_us) {
            None | Some(0) => Wait::Poll,
            Some(left) => Wait::For(Some(Duration::from_micros(left))),
        }
    }

    fn run_event(&mut self, event: Event<D::Socket, B>) {
        let Event {
            token,
            more,
            outcome,
            ..
        } = event;
        match token::kind(token) {
            Some(Kind::Receive) => self.on_receive(token::key(token), more, outcome),
            Some(Kind::Send) => self.on_send(token::key(token), outcome),
            Some(Kind::Listener) => self.on_listener(token::user(token) as usize, more, outcome),
            Some(Kind::User) => self.due.push_back(token::user(token)),
            Some(Kind::File) => self.on_file(token::key(token), outcome),
            Some(Kind::Connection | Kind::Handler) | None => {
                debug_assert!(false, "the driver was given no such token");
                // Whatever it brings is dropped: descriptors close, buffers return.
                if let Outcome::Sent(write, _) | Outcome::FileRead(write, _) = outcome {
                    self.released.extend(self.writes.release(write));
                }
            }
        }
    }

    fn update_clock(&mut self) {
        self.now_us = self.clock_us();
        self.now_ms = self.now_us / 1000;
        if self.now_ms >= self.date_ms {
            let time = self.driver.unix_time();
            self.date.update(time.as_secs());
            self.date_ms = self.now_ms + 1000 - u64::from(time.subsec_millis());
        }
    }

    fn trim(&mut self) {
        self.trim_ms = self.now_ms + TRIM_MS;
        let before = std::mem::replace(&mut self.requests_seen, self.stats.requests);
        self.looks += 1;
        if self.stats.requests - before >= LOAD_MIN && self.looks < LOOKS_UNDER_LOAD {
            return;
        }
        self.looks = 0;
        self.writes.trim();
        self.exchange_pool.trim();
        self.chunks.trim();
        self.blocks.trim();
        self.buffers.trim();
        self.connections.trim();
        self.exchanges.trim();
        self.files.trim();
    }

    fn clock_ms(&self) -> u64 {
        self.clock_us() / 1000
    }

    /// Microseconds on the engine's monotonic clock, read now.
    pub fn clock_us(&self) -> u64 {
        self.driver.now_us()
    }

    /// Takes the next complete request off the ready queue; it is then with its handler. `None` when the
    /// queue is empty, or the engine has answered that request itself.
    pub fn next_ready(&mut self) -> Option<ExchangeId> {
        if self.next_in_pipeline.is_none() {
            self.pipeline_run = 0;
        }
        while let Some(key) = self
            .next_in_pipeline
            .take()
            .or_else(|| self.ready.pop_front())
        {
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.progress = Progress::Running;
                exchange.started_ms = self.now_ms;
                if exchange.found == Found::Server {
                    self.answer_options(ExchangeId(key));
                    // What is left on the queue comes with the next call, or the next turn.
                    return None;
                }
                return Some(ExchangeId(key));
            }
        }
        None
    }

    /// What is in use and what is kept, now.
    pub fn memory(&self) -> MemoryStats {
        let chunks_cached = self.chunks.cached();
        let cached =
            chunks_cached * CHUNK_SIZE + self.blocks.cached_bytes() + self.buffers.cached_bytes();
        MemoryStats {
            exchanges: self.exchanges.len() as u64,
            cached_bytes: cached as u64,
            chunks: (self.chunks.total_allocated() - chunks_cached) as u64,
            buffers: self.buffers.live() as u64,
            blocks: self.blocks.live() as u64,
        }
    }

    /// How many requests wait for a handler.
    pub fn ready_len(&self) -> usize {
        self.ready.len() + usize::from(self.next_in_pipeline.is_some())
    }

    /// The request of an exchange that has not been answered.
    pub fn request(&self, ExchangeId(key): ExchangeId) -> Option<RequestView<'_, B>> {
        let exchange = self.exchanges.get(key)?;
        let connection = self.connections.get(exchange.connection)?;
        Some(exchange.view(connection.input.bytes(), &self.router))
    }

    /// Calls `act` with the request of an exchange, with its response, whose fields can be set meanwhile,
    /// and with a function that tells who is at the other end (one system call). `None` when the
    /// exchange is over.
    ///
    /// # Errors
    /// Out of memory; `act` was not called.
    pub fn with_request<R>(
        &mut self,
        ExchangeId(key): ExchangeId,
        act: impl FnOnce(RequestView<'_, B>, Answering<'_>, &Config, &dyn Fn() -> Peer) -> R,
    ) -> Option<Result<R, OutOfMemory>> {
        let exchange = self.exchanges.get_mut(key)?;
        let connection = self.connections.get(exchange.connection)?;
        let (driver, fd) = (&self.driver, connection.raw_fd());
        let input = connection.input.bytes();
        Some(
            exchange
                .split(input, &self.router)
                .map(|(view, answering)| act(view, answering, &self.config, &|| driver.peer(fd))),
        )
    }

    /// Fires `value` (60 bits) at a time on [`clock_us`](Self::clock_us), rounded up to a
    /// tick; see [`next_due`](Self::next_due).
    pub fn set_timer(&mut self, at_us: u64, value: u64) -> theframework_io::TimerId {
        self.wheel.insert(tick_of_us(at_us), token::of_user(value))
    }

    /// Cancels a timer; false if it has fired.
    pub fn cancel_timer(&mut self, timer: theframework_io::TimerId) -> bool {
        self.wheel.cancel(timer)
    }

    /// Waits for a descriptor to become readable; then `value` is due, once.
    ///
    /// # Errors
    /// Out of memory.
    pub fn watch(
        &mut self,
        fd: std::os::fd::RawFd,
        value: u64,
    ) -> Result<(), theframework_memory::OutOfMemory> {
        self.driver
            .poll(
                fd,
                theframework_io::Interest::Readable,
                token::of_user(value),
            )
            .map(|_| ())
    }

    /// The next value whose timer fired or whose descriptor is readable.
    pub fn next_due(&mut self) -> Option<u64> {
        self.due.pop_front()
    }

    /// How many values are due.
    pub fn due_len(&self) -> usize {
        self.due.len()
    }

    /// The next exchange whose handler has exceeded its time.
    pub fn next_overdue(&mut self) -> Option<ExchangeId> {
        self.overdue.pop_front()
    }

    /// Whether the exchange's handler was told that its time is over.
    pub fn is_overtime(&self, ExchangeId(key): ExchangeId) -> bool {
        self.exchanges
            .get(key)
            .is_some_and(|exchange| exchange.is_overtime)
    }

    /// Whether the handler's time was over while it was not waiting, and it has not been told yet; it
    /// is now.
    pub fn takes_timeout(&mut self, ExchangeId(key): ExchangeId) -> bool {
        self.exchanges
            .get_mut(key)
            .is_some_and(|exchange| std::mem::take(&mut exchange.owes_timeout))
    }

    /// Notes that the handler will be told at its next wait.
    pub fn owe_timeout(&mut self, ExchangeId(key): ExchangeId) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.owes_timeout = true;
        }
    }

    /// Notes that the handler was told; it is overdue again after `after_ms`.
    pub fn start_overtime(&mut self, ExchangeId(key): ExchangeId, after_ms: u64) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.is_overtime = true;
            let at_ms = self.now_ms + after_ms;
            let timer = self
                .wheel
                .insert(tick_of_ms(at_ms), token::of_key(Kind::Handler, key));
            // It may have parked again since its time was over, which set the timer anew.
            if let Some(before) = exchange.handler_timer.replace(timer) {
                self.wheel.cancel(before);
            }
        }
    }

    /// Closes the connection of an exchange whose handler does not end. The exchange lives on for the
    /// handler's sake, without a request and without anybody to answer.
    pub fn abandon(&mut self, ExchangeId(key): ExchangeId) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let connection_key = std::mem::replace(&mut exchange.connection, NOBODY);
        if let Some(connection) = self.connections.get_mut(connection_key) {
            connection.exchange = None;
            self.begin_close(connection_key);
        }
        self.wake_reader(key);
        self.wake_writer(key);
    }

    /// In the child of a fork by another thread, while this one waited for events: what a wait does
    /// not touch is dropped, and the driver left as it is.
    pub fn give_up_after_fork(mut self) {
        self.listeners.disown_peers();
        let Engine { driver, .. } = self;
        driver.give_up_after_fork();
    }

    /// In the child of a fork: everything here is the parent's. Drop the engine then.
    pub fn abandon_after_fork(&mut self) {
        self.listeners.disown_peers();
        self.driver.abandon_after_fork();
    }

    /// A number that the user keeps with an exchange; 0 at first.
    pub fn tag(&self, ExchangeId(key): ExchangeId) -> u64 {
        self.exchanges.get(key).map_or(0, |exchange| exchange.tag)
    }

    /// Sets that number.
    pub fn set_tag(&mut self, ExchangeId(key): ExchangeId, tag: u64) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.tag = tag;
        }
    }

    /// Takes the bodies whose writes have ended. Drop them when nothing is borrowed.
    pub fn take_released(&mut self) -> Option<B> {
        self.released.pop()
    }

    /// Gives an ended exchange back: its body, if it had a place of its own, is the user's to drop.
    pub(crate) fn recycle(&mut self, mut exchange: Box<Exchange<B>>) {
        if let Some(file) = exchange.file.take() {
            self.end_file(file);
        }
        if let BodyPlace::Own(filling) = std::mem::replace(&mut exchange.body, BodyPlace::Input) {
            self.recycle_filling(filling);
        }
        self.exchange_pool.release(exchange);
    }

    pub(crate) fn recycle_filling(&mut self, mut filling: Box<Filling<B>>) {
        self.released.extend(filling.take());
        if RECYCLES && self.fillings.len() < FILLINGS_MAX {
            self.fillings.push(filling);
        }
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The limits that it runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Open connections.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Exchanges that have not been answered.
    pub fn exchange_count(&self) -> usize {
        self.exchanges.len()
    }

    /// The driver, for looking at.
    pub fn driver(&self) -> &D {
        &self.driver
    }
}

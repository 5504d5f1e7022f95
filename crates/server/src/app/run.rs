//! The loop: turns of the engine, handlers, and whatever has become due in between.
//!
//! ```text
//! turn ──> due tasks ──> late handlers ──> requests, in a batch ──> commands ──┐
//!   ^                                                                          │
//!   └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The engine calls nobody. A handler is called while its request is borrowed from the engine; what it wants of
//! the loop stands in a list ([`Worker`]) until it has returned. No panic of a handler, reader, protocol or
//! timer leaves the loop.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use theframework_io::{Driver, Errno, KeptBytes as _, OpenFile};
use theframework_memory::Key;

use crate::app::body::{BodyReader, refusal};
use crate::app::dispatch::Dispatch;
use crate::app::inbox::Message;
use crate::app::link::{Claim, Link, Protocol, QUEUED_MAX, Wire};
use crate::app::reply::Reply;
use crate::app::request::Request;
use crate::app::response::{ABOUT_THE_BODY, OnReply, Outcome, Response};
use crate::app::tasks::Task;
use crate::app::worker::{Command, Worker};
use crate::download::{Room, WriteError};
use crate::engine::Engine;
use crate::exchange::ExchangeId;
use crate::file::FileBody;
use crate::respond::Body;
use crate::upload::BodyState;

/// Handlers called in one batch at most, and for how long at most; the clock is read now and then.
const BATCH_MAX: u32 = 64;
const BATCH_US: u64 = 1000;
const CLOCK_EVERY: u32 = 8;
/// Bytes of a body that a reader gets at a time.
const PIECE_MAX: usize = 64 * 1024;

/// Makes an open file a driver's own.
pub(crate) type OwnFile<S> = Box<dyn Fn(OpenFile) -> Option<FileBody<S>>>;

/// One loop of a server.
pub(crate) struct Loop<D: Driver<Bytes>> {
    pub(crate) engine: Engine<D, Bytes>,
    worker: Worker,
    dispatch: Arc<Dispatch>,
    own_file: OwnFile<D::Socket>,
    inbox_task: Key,
    messages: Vec<Message>,
    commands: Vec<Command>,
    /// Who wants to see the replies of exchanges whose handlers have returned.
    on_reply: HashMap<ExchangeId, Vec<OnReply>>,
    /// Nobody is waited for any more.
    is_aborted: bool,
}

impl<D: Driver<Bytes>> Loop<D> {
    /// A loop around an engine that listens. With `watches`, what other threads want wakes it; else
    /// somebody has to call [`read_inbox`](Self::read_inbox).
    pub(crate) fn new(
        engine: Engine<D, Bytes>,
        worker: Worker,
        dispatch: Arc<Dispatch>,
        own_file: OwnFile<D::Socket>,
        watches: bool,
    ) -> Self {
        let inbox_task = worker.add_task(Task::Inbox);
        let mut this = Loop {
            engine,
            worker,
            dispatch,
            own_file,
            inbox_task,
            messages: Vec::new(),
            commands: Vec::new(),
            on_reply: HashMap::new(),
            is_aborted: false,
        };
        if watches {
            this.watch_inbox();
        }
        for hook in &this.dispatch.clone().start {
            hook(&this.worker);
        }
        this.carry_out();
        this
    }

    /// Serves until a drain is over.
    ///
    /// # Errors
    /// Only what leaves the driver unusable.
    pub(crate) fn run(&mut self) -> Result<(), Errno> {
        while !self.is_over() {
            self.turn(true)?;
        }
        for hook in &self.dispatch.clone().stop {
            hook(&self.worker);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.engine.is_drained() && (self.is_aborted || self.worker.inner().pending.get() == 0)
    }

    /// One round. Says whether anything but waiting was done.
    ///
    /// # Errors
    /// Only what leaves the driver unusable.
    pub(crate) fn turn(&mut self, may_wait: bool) -> Result<bool, Errno> {
        self.engine.turn(may_wait)?;
        let mut has_worked = false;
        while let Some(value) = self.engine.next_due() {
            has_worked = true;
            self.run_task(key_of(value));
        }
        while let Some(id) = self.engine.next_overdue() {
            has_worked = true;
            self.reply(id, Reply::overloaded());
        }
        has_worked |= self.run_requests();
        // Nothing is borrowed: what a body's end runs may do as it likes.
        while let Some(body) = self.engine.take_released() {
            discard(body);
        }
        self.carry_out();
        let inner = self.worker.inner();
        let connections = self.engine.connection_count();
        let (stats, memory) = (self.engine.stats(), self.engine.memory());
        inner.published.publish(stats, memory, connections);
        Ok(has_worked)
    }

    fn run_requests(&mut self) -> bool {
        if self.engine.ready_len() == 0 {
            return false;
        }
        let end_us = self.engine.clock_us() + BATCH_US;
        for count in 1..=BATCH_MAX {
            let Some(id) = self.engine.next_ready() else {
                break;
            };
            self.serve(id);
            if count % CLOCK_EVERY == 0 && self.engine.clock_us() >= end_us {
                break;
            }
        }
        true
    }

    /// Calls the handler of a request, and does what it has decided on.
    fn serve(&mut self, id: ExchangeId) {
        let (worker, dispatch) = (&self.worker, &self.dispatch);
        // Handlers' panics do not come here, but those of what they have left do, when it is dropped.
        let made = catch_unwind(AssertUnwindSafe(|| {
            self.engine
                .with_request(id, |view, answering, config, peer| {
                    let mut request = Request::new(view, config, peer, &dispatch.state);
                    let mut response = Response::new(answering, worker);
                    dispatch.call(&mut request, &mut response);
                    response.finish()
                })
        }));
        match made {
            Ok(Some(Ok((status, outcome, on_reply)))) => {
                if outcome.comes_later() && !on_reply.is_empty() {
                    self.on_reply.insert(id, on_reply);
                } else {
                    discard(on_reply);
                }
                self.settle(id, status, outcome);
            }
            Ok(Some(Err(_))) => self.reply(id, Reply::overloaded()),
            Ok(None) => {}
            Err(_) => self.reply(id, StatusCode::INTERNAL_SERVER_ERROR.into()),
        }
    }

    fn settle(&mut self, id: ExchangeId, status: StatusCode, outcome: Outcome) {
        let code = status.as_u16();
        match outcome {
            Outcome::Written(slice, len) => {
                let body = slice.truncated(len);
                self.engine.respond_from_arena(id, code, body);
            }
            Outcome::Kept(bytes) => {
                self.engine.respond(id, code, Body::Kept(bytes));
            }
            Outcome::File(file) => self.send_file(id, code, file),
            Outcome::Pieces(pieces, length) => {
                self.engine.give_up_body(id);
                if self.engine.start_response(id, code, length) {
                    let task = self.worker.reserve_task();
                    self.run_taken(task, Task::Pieces { id, pieces });
                } else {
                    discard(pieces);
                    self.engine.abort_response(id);
                }
            }
            Outcome::Channel(claim, ends_with_client) => {
                self.engine.give_up_body(id);
                if !self.engine.start_response(id, code, None) {
                    return self.engine.abort_response(id);
                }
                if self.engine.drops_body(id) {
                    self.engine.finish_response(id);
                    return;
                }
                let Some(wire) = claim.take() else { return };
                let (key, out) = (wire.task, VecDeque::new());
                self.put_back(
                    key,
                    Task::Channel {
                        id,
                        wire,
                        out,
                        is_ended: false,
                        ends_with_client,
                    },
                );
                self.engine.wait_for_end(id, value_of(key));
                self.pump_channel(key);
                self.engine.park(id);
            }
            Outcome::Deferred(task) => {
                self.put_back(task, Task::Deferred { id });
                self.engine.wait_for_end(id, value_of(task));
                self.engine.park(id);
                self.engine.limit_handler(id);
            }
            Outcome::Reader(reader) => {
                let task = self.worker.reserve_task();
                self.run_taken(task, Task::Reader { id, reader });
            }
            Outcome::TakeOver(status, protocol, claim) => {
                let status = status.map(|status| status.as_u16());
                if self.engine.take_over(id, status) {
                    self.begin_protocol(id, protocol, claim);
                } else {
                    discard(protocol);
                    self.reply(id, StatusCode::BAD_REQUEST.into());
                }
            }
        }
    }

    fn send_file(&mut self, id: ExchangeId, status: u16, file: OpenFile) {
        match (self.own_file)(file) {
            Some(file) => {
                self.engine.send_file(id, status, file);
            }
            None => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                self.reply(id, Reply::from(status));
            }
        }
    }

    /// Answers an exchange whose handler has returned. What the reply sets replaces what the handler did.
    fn reply(&mut self, id: ExchangeId, mut reply: Reply) {
        if !self.on_reply.is_empty() {
            for call in self.on_reply.remove(&id).unwrap_or_default() {
                // A panic costs this call.
                let _ = catch_unwind(AssertUnwindSafe(|| call(&mut reply)));
            }
        }
        let Reply {
            status,
            fields,
            body,
            is_failure,
        } = reply;
        if is_failure {
            self.engine.remove_fields(id, &ABOUT_THE_BODY);
        }
        for name in fields.keys() {
            for (index, value) in fields.get_all(name).iter().enumerate() {
                let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
                // Without memory for it the answer goes without; that it is valid its type says.
                let _ = self.engine.set_field(id, name, value, index == 0);
            }
        }
        self.engine.respond(id, status.as_u16(), Body::Kept(body));
    }

    fn run_task(&mut self, key: Key) {
        let task = {
            let mut tasks = self.worker.inner().tasks.borrow_mut();
            match tasks.get_mut(key) {
                Some(task) => {
                    let meanwhile = match task {
                        Task::Timer { .. } => Task::Firing,
                        _ => Task::Reserved,
                    };
                    std::mem::replace(task, meanwhile)
                }
                None => return,
            }
        };
        self.run_taken(key, task);
    }

    /// Runs a task that was taken out of its place. A panic ends it, and its response with it.
    fn run_taken(&mut self, key: Key, task: Task) {
        let exchange = task.exchange();
        if catch_unwind(AssertUnwindSafe(|| self.run_kind(key, task))).is_err() {
            if let Some(id) = exchange {
                self.forget(id);
            }
            self.remove(key);
        }
    }

    fn run_kind(&mut self, key: Key, task: Task) {
        match task {
            Task::Inbox => {
                self.put_back(key, Task::Inbox);
                self.read_inbox();
                self.watch_inbox();
            }
            Task::DrainEnd => {
                self.remove(key);
                self.abort();
            }
            Task::Timer { call, period, .. } => self.fire(key, call, period),
            Task::Pieces { id, pieces } => self.pump_pieces(key, id, pieces),
            Task::Reader { id, reader } => self.pump_reader(key, id, reader),
            task @ Task::Channel { .. } => {
                self.put_back(key, task);
                self.pump_channel(key);
            }
            task @ Task::Protocol { .. } => {
                self.put_back(key, task);
                self.pump_protocol(key);
            }
            Task::Deferred { id } => self.look_after(key, id),
            task @ (Task::Reserved | Task::Firing | Task::Done(_)) => self.put_back(key, task),
        }
    }

    fn fire(&mut self, key: Key, mut call: crate::app::worker::Call, period: Option<Duration>) {
        // A panic ends the timer, and nothing else.
        let called = catch_unwind(AssertUnwindSafe(|| call(&self.worker)));
        let mut tasks = self.worker.inner().tasks.borrow_mut();
        let goes_on = called.is_ok() && period.is_some();
        match tasks.get_mut(key) {
            Some(task) if goes_on => {
                *task = Task::Timer {
                    call,
                    period,
                    armed: None,
                };
                drop(tasks);
                if let Some(after) = period {
                    self.worker.command(Command::Arm { task: key, after });
                }
            }
            Some(_) => {
                let task = tasks.remove(key);
                drop(tasks);
                discard(task);
                discard(call);
            }
            // It was cancelled while it ran.
            None => {
                drop(tasks);
                discard(call);
            }
        }
        self.carry_out();
    }

    /// An answer is waited for: if the client has gone, it is not any more.
    fn look_after(&mut self, key: Key, id: ExchangeId) {
        if matches!(self.engine.room(id), Room::Gone | Room::Over) {
            self.forget(id);
            return self.remove(key);
        }
        self.put_back(key, Task::Deferred { id });
        self.engine.wait_for_end(id, value_of(key));
    }

    /// Nobody is left to be answered.
    fn forget(&mut self, id: ExchangeId) {
        discard(self.on_reply.remove(&id));
        self.engine.abort_response(id);
    }

    /// Somebody answers. If that was not what the handler has decided on, or the exchange is over, nothing
    /// is left to answer.
    fn on_reply(&mut self, key: Key, reply: Reply) {
        let task = self.worker.inner().tasks.borrow_mut().remove(key);
        if let Some(Task::Deferred { id }) = task {
            self.reply(id, reply);
        }
    }

    fn put_back(&self, key: Key, task: Task) {
        let mut tasks = self.worker.inner().tasks.borrow_mut();
        if let Some(place) = tasks.get_mut(key) {
            let before = std::mem::replace(place, task);
            drop(tasks);
            discard(before);
        }
    }

    fn remove(&self, key: Key) {
        let task = self.worker.inner().tasks.borrow_mut().remove(key);
        discard(task);
    }

    /// Does what handlers and others have asked for.
    fn carry_out(&mut self) {
        loop {
            std::mem::swap(
                &mut self.commands,
                &mut *self.worker.inner().commands.borrow_mut(),
            );
            if self.commands.is_empty() {
                return;
            }
            for command in self.commands.drain(..) {
                match command {
                    Command::Arm { task, after } => {
                        let mut tasks = self.worker.inner().tasks.borrow_mut();
                        if let Some(Task::Timer { armed, .. }) = tasks.get_mut(task) {
                            let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
                            let at_us = self.engine.clock_us().saturating_add(after_us);
                            // Half of what a clock can say is for ever.
                            let at_us = at_us.min(u64::MAX / 2);
                            *armed = Some(self.engine.set_timer(at_us, value_of(task)));
                        }
                    }
                    Command::Disarm(timer) => {
                        self.engine.cancel_timer(timer);
                    }
                }
            }
        }
    }

    fn watch_inbox(&mut self) {
        let fd = self.worker.inbox().wake_fd();
        // Without memory for it, the next timer finds what has come.
        if self.engine.watch(fd, value_of(self.inbox_task)).is_err() {
            let at_us = self.engine.clock_us() + 1000;
            self.engine.set_timer(at_us, value_of(self.inbox_task));
        }
    }

    pub(crate) fn read_inbox(&mut self) {
        let mut messages = std::mem::take(&mut self.messages);
        self.worker.inbox().take(&mut messages);
        for message in messages.drain(..) {
            // Its own panics, and those of what it leaves, cost the message alone.
            let _ = catch_unwind(AssertUnwindSafe(|| self.on_message(message)));
        }
        self.messages = messages;
        self.carry_out();
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Reply(task, reply) => self.on_reply(task, *reply),
            Message::Piece(task, bytes) => self.on_piece(task, bytes),
            Message::End(task) => self.on_end(task, true),
            Message::Unheld(task) => self.on_end(task, false),
            Message::Done(task, result) => self.on_done(task, Some(result)),
            Message::Lost(task) => self.on_done(task, None),
            Message::Call(call) => call(&self.worker),
            Message::Drain(limit) => self.drain(limit),
            Message::Abort => self.abort(),
        }
    }

    /// Ends everything at once: who would have answered later is not waited for.
    fn abort(&mut self) {
        self.engine.abort();
        for id in self.engine.unanswered() {
            self.forget(id);
        }
        self.is_aborted = true;
    }

    fn drain(&mut self, limit: Duration) {
        if self.engine.is_draining() {
            return;
        }
        self.engine.drain();
        let task = self.worker.add_task(Task::DrainEnd);
        let after_us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX / 4);
        let at_us = self.engine.clock_us().saturating_add(after_us);
        self.engine.set_timer(at_us, value_of(task));
    }

    fn on_done(&mut self, key: Key, result: Option<Box<dyn std::any::Any + Send>>) {
        let task = self.worker.inner().tasks.borrow_mut().remove(key);
        if let Some(Task::Done(done)) = task {
            let pending = &self.worker.inner().pending;
            pending.set(pending.get() - 1);
            done(&self.worker, result);
        }
    }

    /// Writes pieces while there is room for them.
    fn pump_pieces(&mut self, key: Key, id: ExchangeId, mut pieces: crate::app::body::Pieces) {
        loop {
            match self.engine.room(id) {
                Room::Ready => {}
                Room::Full => {
                    self.put_back(key, Task::Pieces { id, pieces });
                    self.engine.wait_for_room(id, value_of(key));
                    self.engine.park(id);
                    return;
                }
                Room::Gone | Room::Over => {
                    self.engine.abort_response(id);
                    return self.remove(key);
                }
            }
            let next = match self.engine.drops_body(id) {
                true => Ok(None),
                false => catch_unwind(AssertUnwindSafe(&mut pieces)),
            };
            match next {
                Ok(Some(piece)) => match self.engine.write_body(id, Body::Kept(piece)) {
                    Ok(()) => {}
                    Err((WriteError::NoRoom, _)) => debug_assert!(false, "there was room"),
                    Err((WriteError::TooLong, _)) => {
                        self.engine.abort_response(id);
                        return self.remove(key);
                    }
                },
                Ok(None) => {
                    self.engine.finish_response(id);
                    return self.remove(key);
                }
                Err(_) => {
                    self.engine.abort_response(id);
                    return self.remove(key);
                }
            }
        }
    }

    fn on_piece(&mut self, key: Key, bytes: Bytes) {
        let is_channel = {
            let mut tasks = self.worker.inner().tasks.borrow_mut();
            match tasks.get_mut(key) {
                Some(Task::Channel { out, .. }) => {
                    out.push_back(bytes);
                    true
                }
                Some(Task::Protocol { out, .. }) => {
                    out.push_back(bytes);
                    false
                }
                _ => return,
            }
        };
        if is_channel {
            self.pump_channel(key);
        } else {
            self.pump_protocol(key);
        }
    }

    /// A sender has said that it is over, or there is none any more.
    fn on_end(&mut self, key: Key, is_said: bool) {
        let mut tasks = self.worker.inner().tasks.borrow_mut();
        match tasks.get_mut(key) {
            Some(Task::Channel { is_ended, .. }) => {
                *is_ended = true;
                drop(tasks);
                self.pump_channel(key);
            }
            Some(Task::Protocol { closes, .. }) if is_said => {
                *closes = true;
                drop(tasks);
                self.pump_protocol(key);
            }
            Some(Task::Reserved) if !is_said => {
                tasks.remove(key);
            }
            _ => {}
        }
    }

    /// Writes what waits in `out`, as far as there is room; says how that went.
    fn write_out(&mut self, id: ExchangeId, out: &mut VecDeque<Bytes>, wire: &Wire) -> Room {
        loop {
            let room = self.engine.room(id);
            if room != Room::Ready {
                return room;
            }
            let Some(piece) = out.pop_front() else {
                return room;
            };
            let len = piece.as_bytes().len();
            match self.engine.write_body(id, Body::Kept(piece)) {
                Ok(()) => {
                    wire.queued.fetch_sub(len, Ordering::AcqRel);
                }
                Err(_) => return Room::Gone,
            }
        }
    }

    fn pump_channel(&mut self, key: Key) {
        let Some((id, mut out, wire)) = ({
            let mut tasks = self.worker.inner().tasks.borrow_mut();
            match tasks.get_mut(key) {
                Some(Task::Channel { id, out, wire, .. }) => {
                    Some((*id, std::mem::take(out), Arc::clone(wire)))
                }
                _ => None,
            }
        }) else {
            return;
        };
        let mut room = self.write_out(id, &mut out, &wire);
        let is_empty = out.is_empty();
        let ends = {
            let mut tasks = self.worker.inner().tasks.borrow_mut();
            match tasks.get_mut(key) {
                Some(Task::Channel {
                    out: place,
                    is_ended,
                    ends_with_client,
                    ..
                }) => {
                    *place = out;
                    if *ends_with_client && self.engine.is_disconnected(id) {
                        room = Room::Gone;
                    }
                    *is_ended && is_empty
                }
                _ => return,
            }
        };
        match room {
            Room::Gone | Room::Over => {
                wire.is_gone.store(true, Ordering::Release);
                self.engine.abort_response(id);
                self.remove(key);
            }
            _ if ends => {
                wire.is_gone.store(true, Ordering::Release);
                self.engine.finish_response(id);
                self.remove(key);
            }
            Room::Full => {
                self.engine.wait_for_room(id, value_of(key));
                self.engine.wait_for_end(id, value_of(key));
            }
            Room::Ready => self.engine.wait_for_end(id, value_of(key)),
        }
    }

    /// Gives a reader what has come, and answers when it has all.
    fn pump_reader(&mut self, key: Key, id: ExchangeId, mut reader: Box<dyn BodyReader>) {
        loop {
            match self.engine.body_state(id) {
                BodyState::Ready => {
                    let taken = self.engine.take_body(id, PIECE_MAX, |bytes| {
                        catch_unwind(AssertUnwindSafe(|| reader.piece(bytes)))
                    });
                    match taken {
                        Some(Ok(Ok(()))) => {}
                        Some(Ok(Err(error))) => return self.end_reader(key, id, error.into()),
                        Some(Err(_)) => {
                            let status = StatusCode::INTERNAL_SERVER_ERROR;
                            return self.end_reader(key, id, status.into());
                        }
                        None => return self.end_reader(key, id, StatusCode::BAD_REQUEST.into()),
                    }
                }
                BodyState::Waits => {
                    self.put_back(key, Task::Reader { id, reader });
                    self.engine.wait_for_body(id, value_of(key));
                    self.engine.park(id);
                    return;
                }
                BodyState::Ended => {
                    // A body that does not stream is whole.
                    let whole = self.engine.request(id).filter(|view| !view.streams());
                    let whole = whole.map(|view| Bytes::copy_from_slice(view.body()));
                    let whole = whole.filter(|body| !body.is_empty());
                    let ended = catch_unwind(AssertUnwindSafe(|| {
                        if let Some(whole) = whole {
                            reader.piece(&whole)?;
                        }
                        reader.end()
                    }));
                    let reply = match ended {
                        Ok(result) => result.into(),
                        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into(),
                    };
                    return self.end_reader(key, id, reply);
                }
                BodyState::Failed(status) => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
                    fail(reader, Some(status));
                    return self.end_reader(key, id, refusal(status).into());
                }
                BodyState::Gone | BodyState::Over => {
                    fail(reader, None);
                    self.forget(id);
                    return self.remove(key);
                }
            }
        }
    }

    fn end_reader(&mut self, key: Key, id: ExchangeId, reply: Reply) {
        self.reply(id, reply);
        self.remove(key);
    }

    fn begin_protocol(&mut self, id: ExchangeId, protocol: Box<dyn Protocol>, claim: Claim) {
        let Some(wire) = claim.take() else { return };
        let key = wire.task;
        self.put_back(
            key,
            Task::Protocol {
                id,
                protocol,
                wire,
                out: VecDeque::new(),
                closes: false,
                was_ended: false,
            },
        );
        self.with_protocol(key, Protocol::open);
        self.pump_protocol(key);
        self.engine.park(id);
    }

    /// Calls a protocol; false if there is none any more.
    fn with_protocol(
        &mut self,
        key: Key,
        call: impl FnOnce(&mut dyn Protocol, &mut Link<'_>),
    ) -> bool {
        let task = {
            let mut tasks = self.worker.inner().tasks.borrow_mut();
            match tasks.get_mut(key) {
                Some(task @ Task::Protocol { .. }) => std::mem::replace(task, Task::Reserved),
                _ => return false,
            }
        };
        let Task::Protocol {
            id,
            mut protocol,
            wire,
            mut out,
            mut closes,
            was_ended,
        } = task
        else {
            return false;
        };
        let mut link = Link {
            out: &mut out,
            wire: &wire,
            closes: &mut closes,
            worker: &self.worker,
        };
        let called = catch_unwind(AssertUnwindSafe(|| call(&mut *protocol, &mut link)));
        // A panic ends the connection, and nothing else.
        closes |= called.is_err();
        self.put_back(
            key,
            Task::Protocol {
                id,
                protocol,
                wire,
                out,
                closes,
                was_ended,
            },
        );
        self.carry_out();
        true
    }

    /// Gives a protocol what has come, and sends what it has written.
    fn pump_protocol(&mut self, key: Key) {
        loop {
            let Some((id, mut out, wire, closes, was_ended)) = ({
                let mut tasks = self.worker.inner().tasks.borrow_mut();
                match tasks.get_mut(key) {
                    Some(Task::Protocol {
                        id,
                        out,
                        wire,
                        closes,
                        was_ended,
                        ..
                    }) => Some((
                        *id,
                        std::mem::take(out),
                        Arc::clone(wire),
                        *closes,
                        *was_ended,
                    )),
                    _ => None,
                }
            }) else {
                return;
            };
            let room = self.write_out(id, &mut out, &wire);
            let is_empty = out.is_empty();
            if let Some(Task::Protocol { out: place, .. }) =
                self.worker.inner().tasks.borrow_mut().get_mut(key)
            {
                *place = out;
            }
            if matches!(room, Room::Gone | Room::Over) {
                return self.end_protocol(key, id, &wire);
            }
            if closes && is_empty {
                return self.end_protocol(key, id, &wire);
            }
            self.engine.wait_for_end(id, value_of(key));
            if room == Room::Full {
                self.engine.wait_for_room(id, value_of(key));
            }
            let is_full = wire.queued.load(Ordering::Acquire) >= QUEUED_MAX;
            if closes || is_full || was_ended {
                return;
            }
            match self.engine.body_state(id) {
                BodyState::Ready => {
                    let mut piece = [0; 4096];
                    let taken = self.engine.take_body(id, piece.len(), |bytes| {
                        piece[..bytes.len()].copy_from_slice(bytes);
                        bytes.len()
                    });
                    let piece = &piece[..taken.unwrap_or(0)];
                    self.with_protocol(key, |protocol, link| protocol.data(piece, link));
                }
                BodyState::Waits => {
                    self.engine.wait_for_body(id, value_of(key));
                    return;
                }
                BodyState::Ended => {
                    if let Some(Task::Protocol { was_ended, .. }) =
                        self.worker.inner().tasks.borrow_mut().get_mut(key)
                    {
                        *was_ended = true;
                    }
                    self.with_protocol(key, Protocol::end);
                }
                BodyState::Gone | BodyState::Over | BodyState::Failed(_) => {
                    return self.end_protocol(key, id, &wire);
                }
            }
        }
    }

    fn end_protocol(&mut self, key: Key, id: ExchangeId, wire: &Wire) {
        wire.is_gone.store(true, Ordering::Release);
        self.with_protocol(key, |protocol, _| protocol.closed());
        self.engine.finish_response(id);
        self.remove(key);
    }
}

/// Drops what is the user's: a panic on that occasion is nobody else's.
fn discard<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

fn fail(reader: Box<dyn BodyReader>, status: Option<StatusCode>) {
    // A panic costs nobody anything.
    let _ = catch_unwind(AssertUnwindSafe(|| reader.fail(status)));
}

/// What the engine knows a task by: 60 bits, not 0, since generations are not.
fn value_of(key: Key) -> u64 {
    debug_assert!(key.index < 1 << 28);
    u64::from(key.index) << 32 | u64::from(key.generation)
}

fn key_of(value: u64) -> Key {
    Key {
        index: (value >> 32) as u32,
        generation: value as u32,
    }
}

impl<D: Driver<Bytes>> Drop for Loop<D> {
    fn drop(&mut self) {
        // A task may hold the worker, which holds the task.
        self.worker.close();
    }
}

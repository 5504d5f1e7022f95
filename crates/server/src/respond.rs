//! From an answer to a write, and what follows when it has ended.

use std::fmt;

use theframework_http::{
    CONTINUE, Connection as ConnectionField, ContentLength, InvalidHeader, ResponseHead, Version,
    forbids_body, is_empty, is_final, simple_response, validate_name, validate_value, write_head,
};
use theframework_io::{Driver, KeptBytes, Outcome, SEND_AT_ONCE_MAX, Write};
use theframework_memory::{ArenaSlice, Key, OutOfMemory};

use crate::connection::Ending;
use crate::engine::Engine;
use crate::exchange::{Exchange, ExchangeId, Progress, Sending};
use crate::output::COPY_MAX;
use crate::receive::after;
use crate::timeouts::tick_of_ms;
use crate::token::{self, Kind};

/// The body of a response.
#[derive(Debug)]
pub enum Body<'a, B> {
    /// Copied behind the head.
    Copied(&'a [u8]),
    /// Sent from where it is, and kept alive until it is.
    Kept(B),
}

/// Where the body of a complete response is.
enum Source<'a, B> {
    Given(Body<'a, B>),
    InArena(ArenaSlice<u8>),
}

impl<B: KeptBytes> Body<'_, B> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Body::Copied(bytes) => bytes,
            Body::Kept(kept) => kept.as_bytes(),
        }
    }
}

/// Why a response field was not taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The name or value has bytes that no field may have.
    Invalid(InvalidHeader),
    /// Out of memory.
    OutOfMemory,
    /// The exchange is over.
    Over,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Invalid(error) => error.fmt(f),
            HeaderError::OutOfMemory => OutOfMemory.fmt(f),
            HeaderError::Over => f.write_str("the exchange is over"),
        }
    }
}

impl std::error::Error for HeaderError {}

impl From<OutOfMemory> for HeaderError {
    fn from(_: OutOfMemory) -> Self {
        HeaderError::OutOfMemory
    }
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Bodies up to this size are better copied.
    pub const COPY_MAX: usize = COPY_MAX;

    /// Adds a response field; with `replace`, instead of those of the same name.
    ///
    /// # Errors
    /// [`HeaderError`]; nothing was changed then.
    pub fn set_field(
        &mut self,
        ExchangeId(key): ExchangeId,
        name: &[u8],
        value: &[u8],
        replace: bool,
    ) -> Result<(), HeaderError> {
        validate_name(name).map_err(HeaderError::Invalid)?;
        validate_value(value).map_err(HeaderError::Invalid)?;
        let exchange = self.exchanges.get_mut(key).ok_or(HeaderError::Over)?;
        if replace {
            exchange.fields.remove(&mut exchange.arena, name);
        }
        Ok(exchange.fields.push(&mut exchange.arena, name, value)?)
    }

    /// Whether a response field of this name was set.
    pub fn has_field(&self, ExchangeId(key): ExchangeId, name: &[u8]) -> bool {
        self.exchanges.get(key).is_some_and(|exchange| {
            exchange
                .fields
                .iter(&exchange.arena)
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
        })
    }

    /// The length of the body that the response's fields announce, if any does.
    pub fn announced_length(&self, ExchangeId(key): ExchangeId) -> Option<u64> {
        let exchange = self.exchanges.get(key)?;
        let mut fields = exchange.fields.iter(&exchange.arena);
        let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// Forgets the response fields of these names, in any case.
    pub fn remove_fields(&mut self, ExchangeId(key): ExchangeId, names: &[&[u8]]) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            for name in names {
                exchange.fields.remove(&mut exchange.arena, name);
            }
        }
    }

    /// Forgets all response fields that were set.
    pub fn clear_fields(&mut self, ExchangeId(key): ExchangeId) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.fields = crate::fields::Fields::default();
        }
    }

    /// Ends the exchange with a complete response. It is joined with what else the connection has
    /// finished, and submitted when the batch ends at the latest. A status that no final response may
    /// have becomes 500; what may have no body (204, 205, 304) is sent without. False if the exchange is
    /// over, or its response was started: that one is then aborted.
    pub fn respond(&mut self, id: ExchangeId, status: u16, body: Body<'_, B>) -> bool {
        self.respond_with(id, status, Source::Given(body))
    }

    /// As [`respond`](Self::respond), with a body that lies in the exchange's own arena: it is copied
    /// behind the head.
    pub fn respond_from_arena(
        &mut self,
        id: ExchangeId,
        status: u16,
        body: ArenaSlice<u8>,
    ) -> bool {
        self.respond_with(id, status, Source::InArena(body))
    }

    fn respond_with(
        &mut self,
        ExchangeId(key): ExchangeId,
        status: u16,
        body: Source<'_, B>,
    ) -> bool {
        let Some(exchange) = self.take_exchange(key) else {
            return false;
        };
        let connection_key = exchange.connection;
        if exchange.sending != Sending::No {
            self.conclude(connection_key, exchange, true);
            return false;
        }
        let Some(connection) = self.connections.get_mut(connection_key) else {
            self.recycle(exchange);
            return false;
        };
        let closes = exchange.is_last() || self.drain.is_some();
        if connection.ending == Ending::No {
            let body = match body {
                Source::Given(body) => body,
                Source::InArena(slice) => Body::Copied(exchange.arena.get(slice)),
            };
            let status = if is_final(status) { status } else { 500 };
            let is_silent =
                exchange.head.method.is_head() || forbids_body(status) || is_empty(status);
            let length = if forbids_body(status) {
                ContentLength::None
            } else if is_empty(status) {
                ContentLength::Known(0)
            } else {
                ContentLength::Known(body.as_bytes().len() as u64)
            };
            let (date, server) = (self.date.as_bytes(), self.config.server.as_slice());
            let result = writable(&mut connection.output, &mut self.writes).and_then(|write| {
                write_response_head(write, &exchange, status, length, closes, date, server)?;
                match body {
                    // Dropped by its user, as one that was sent is.
                    Body::Kept(kept) if is_silent => Ok(Some(kept)),
                    _ if is_silent => Ok(None),
                    Body::Copied(bytes) => write.arena_mut().extend(bytes).map(|()| None),
                    Body::Kept(kept) if kept.as_bytes().len() <= COPY_MAX => write
                        .arena_mut()
                        .extend(kept.as_bytes())
                        .map(|()| Some(kept)),
                    Body::Kept(kept) => {
                        write.set_body(kept);
                        Ok(None)
                    }
                }
            });
            match result {
                Ok(copied) => self.released.extend(copied),
                Err(OutOfMemory) => {
                    self.begin_close(connection_key);
                }
            }
        }
        self.conclude(connection_key, exchange, closes);
        true
    }

    /// Takes an exchange whose handler is done with it: nothing runs or waits for it any more.
    pub(crate) fn take_exchange(&mut self, key: Key) -> Option<Box<Exchange<B>>> {
        let exchange = self.exchanges.remove(key)?;
        if let Some(timer) = exchange.handler_timer {
            self.wheel.cancel(timer);
        }
        // Another greenlet of the handler's may wait still: it finds that the exchange is over.
        let waiters = [exchange.reader, exchange.writer, exchange.watcher];
        self.due
            .extend(waiters.into_iter().filter(|&value| value != 0));
        Some(exchange)
    }

    /// What follows a response that is complete, or as complete as it will be.
    pub(crate) fn conclude(&mut self, key: Key, exchange: Box<Exchange<B>>, closes: bool) {
        let Some(connection) = self.connections.get_mut(key) else {
            return self.recycle(exchange);
        };
        connection.exchange = None;
        if connection.ending != Ending::No {
            connection.input.clear(&mut self.inputs);
            self.recycle(exchange);
            return self.free_if_ended(key);
        }
        connection
            .input
            .consume(exchange.input_len(), &mut self.inputs);
        // Before the next request takes an arena: this one's chunk is the warmest.
        self.recycle(exchange);
        self.mark_dirty(key);
        if closes {
            self.end_after_output(key);
        } else {
            self.answered = Some(key);
            self.advance(key);
            self.answered = None;
            self.arm_receive(key);
        }
    }

    /// The handler waits for something: returns the lease, makes all memory of exact size, sends
    /// what the connection has finished, and starts the handler's time limit.
    pub fn park(&mut self, ExchangeId(key): ExchangeId) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        exchange.progress = Progress::Parked;
        // Short of memory it stays where it is: larger, but right.
        let _ = exchange.arena.park();
        let connection = exchange.connection;
        if !exchange.streams {
            self.limit_handler(ExchangeId(key));
        }
        self.end_lease(connection);
        self.submit(connection);
    }

    /// Starts the time limit of a handler that waits, if it has one, and has not begun to answer. Where a
    /// body streams, [`park`](Self::park) does not.
    pub fn limit_handler(&mut self, ExchangeId(key): ExchangeId) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        if exchange.handler_timer.is_none()
            && !exchange.is_overtime
            && exchange.sending == Sending::No
            && self.config.handler_timeout_ms > 0
        {
            let at_ms = exchange.started_ms + self.config.handler_timeout_ms;
            exchange.handler_timer = Some(
                self.wheel
                    .insert(tick_of_ms(at_ms), token::of_key(Kind::Handler, key)),
            );
        }
    }

    /// Nobody will read what is left of the request's body, if anything is: no further request is served
    /// then, and the response says so.
    pub fn give_up_body(&mut self, ExchangeId(key): ExchangeId) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.closes = exchange.is_last();
        }
    }

    /// No further request is served on this exchange's connection.
    pub fn close_after(&mut self, ExchangeId(key): ExchangeId) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.closes = true;
        }
    }

    /// Submits all finished responses; the batch has ended.
    pub fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.is_dirty = false;
                self.submit(key);
            }
        }
        // Submitting marks nothing dirty, so the list is still empty: keep its memory.
        self.dirty = dirty;
    }

    pub(crate) fn end_leases(&mut self) {
        while let Some(key) = self.leased.pop() {
            self.end_lease(key);
        }
    }

    fn end_lease(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.input.end_lease(&self.inputs).is_err()
        {
            self.begin_close(key);
        }
    }

    pub(crate) fn mark_dirty(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.output.is_blocked() {
            self.submit(key);
        } else if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(key);
        }
    }

    /// Gives the pending write to the driver, unless one is in flight.
    pub(crate) fn submit(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.ending == Ending::Closing {
            return;
        }
        if connection.output.in_flight.is_some() {
            self.must_not_wait = true;
            return;
        }
        let Some(write) = connection.output.pending.take() else {
            return;
        };
        let is_long = write.len() > SEND_AT_ONCE_MAX;
        let fd = connection.raw_fd();
        match self.driver.send(fd, token::of_key(Kind::Send, key), write) {
            Ok(op) => connection.output.in_flight = Some(op),
            Err(write) => {
                self.released.extend(self.writes.release(write));
                return self.begin_close(key);
            }
        }
        let write_deadline_ms = after(self.now_ms, self.config.write_timeout_ms);
        if connection.ending == Ending::AfterOutput {
            // The end of the connection follows the end of this write.
            self.must_not_wait = true;
        }
        if is_long {
            connection.write_deadline_ms = write_deadline_ms;
            self.arm_timer(key);
        } else {
            // It ends with the submission, nearly always: what follows it counts from here.
            self.rest_idle(key);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.write_deadline_ms = write_deadline_ms;
            }
        }
    }

    pub(crate) fn on_send(&mut self, key: Key, outcome: Outcome<D::Socket, B>) {
        match outcome {
            Outcome::SendProgress(_) => {
                let deadline = after(self.now_ms, self.config.write_timeout_ms);
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.write_deadline_ms = deadline;
                    connection.untaken = self.driver.untaken(connection.raw_fd()) as u32;
                    if connection.is_idle() {
                        connection.read_deadline_ms = u64::MAX;
                    }
                    self.arm_timer(key);
                }
            }
            Outcome::Sent(write, result) => {
                self.released.extend(self.writes.release(write));
                let Some(connection) = self.connections.get_mut(key) else {
                    return;
                };
                let was_blocked = connection.output.is_blocked();
                connection.output.in_flight = None;
                connection.write_deadline_ms = u64::MAX;
                if connection.ending == Ending::Closing {
                    return self.free_if_ended(key);
                }
                if result.is_err() {
                    return self.begin_close(key);
                }
                if connection.output.pending.is_some() {
                    self.submit(key);
                } else if connection.ending == Ending::AfterOutput {
                    return self.linger(key);
                } else if connection.read_deadline_ms == u64::MAX {
                    self.rest_idle(key);
                }
                if was_blocked {
                    if let Some(exchange) = self
                        .connections
                        .get(key)
                        .and_then(|connection| connection.exchange)
                    {
                        self.wake_writer(exchange);
                    }
                    self.advance(key);
                    self.arm_receive(key);
                }
                self.go_on_with_file(key);
            }
            _ => debug_assert!(false, "not an event of a send"),
        }
    }

    /// Answers with an error of the engine's own, and ends the connection.
    pub(crate) fn refuse(&mut self, key: Key, status: u16, is_head: bool) {
        self.stats.refused += 1;
        let exchange = self
            .connections
            .get_mut(key)
            .and_then(|connection| connection.exchange.take());
        let is_unparsed = exchange.is_none();
        if let Some(exchange) = exchange {
            self.end_exchange(exchange);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let server = self.config.server.as_slice();
        let extra: [(&[u8], &[u8]); 2] = [(b"Server", server), (b"Retry-After", b"1")];
        let extra = &extra[usize::from(server.is_empty())..1 + usize::from(status == 503)];
        let date = self.date.as_bytes();
        let is_head = is_head || is_unparsed && asks_for_head(connection.input.bytes());
        let result = writable(&mut connection.output, &mut self.writes).and_then(|write| {
            simple_response(write.arena_mut(), status, date, extra, true, is_head)
        });
        if result.is_err() {
            return self.begin_close(key);
        }
        self.mark_dirty(key);
        self.end_after_output(key);
    }

    /// Ends an exchange that nobody answers.
    pub(crate) fn end_exchange(&mut self, key: Key) {
        if let Some(exchange) = self.exchanges.remove(key) {
            self.recycle(exchange);
        }
    }

    pub(crate) fn send_continue(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let result = writable(&mut connection.output, &mut self.writes)
            .and_then(|write| write.arena_mut().extend(CONTINUE));
        match result {
            Ok(()) => self.mark_dirty(key),
            Err(OutOfMemory) => self.begin_close(key),
        }
    }
}

/// The head of a handler's response.
pub(crate) fn write_response_head<B: KeptBytes>(
    write: &mut Write<B>,
    exchange: &Exchange<B>,
    status: u16,
    length: ContentLength,
    closes: bool,
    date: &[u8; 29],
    server: &[u8],
) -> Result<(), OutOfMemory> {
    let head = ResponseHead {
        status,
        date,
        server: (!server.is_empty()).then_some(server),
        content_length: length,
        connection: if closes {
            ConnectionField::Close
        } else if exchange.head.version == Version::Http10 {
            ConnectionField::KeepAlive
        } else {
            ConnectionField::Default
        },
        fields: exchange.fields.iter(&exchange.arena),
    };
    write_head(write.arena_mut(), &head)
}

/// The write to append to. A request that is started, or a piece that is written, finds the output not
/// blocked, so it is not sealed.
pub(crate) fn writable<'a, B: KeptBytes>(
    output: &'a mut crate::output::Output<B>,
    pool: &mut crate::output::WritePool<B>,
) -> Result<&'a mut Write<B>, OutOfMemory> {
    if output.pending.is_none() {
        output.pending = Some(pool.acquire()?);
    }
    match &mut output.pending {
        Some(write) => Ok(write),
        None => Err(OutOfMemory),
    }
}

/// Whether a request is one for HEAD although its head cannot be parsed: no answer to it has a body
/// (RFC 9110 §9.3.2).
fn asks_for_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

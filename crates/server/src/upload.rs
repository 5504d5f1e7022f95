//! A request body that its handler takes while it arrives.
//!
//! The handler starts with the head, which moves to memory of its own, so that the input holds nothing
//! but the body. No more is received than one space ahead of the handler: what it does not take
//! stays in the socket, and the peer has to wait. Time counts only while the handler waits.
//!
//! ```text
//! multishot receive --(a long body)--> single receives of 64 KiB, each when the input is empty
//!                                      a watch for the peer's end, while it is not
//! ```

use theframework_http::Framing;
use theframework_io::{Driver, KeptBytes};
use theframework_memory::Key;

use crate::connection::Ending;
use crate::engine::Engine;
use crate::exchange::{Exchange, ExchangeId, Sending};
use crate::input::Input;
use crate::receive::{DIRECT_MIN, after, is_too_slow, take_arrived};

/// What a handler finds that wants more of a body.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BodyState {
    /// Bytes are there: [`Engine::take_body`].
    Ready,
    /// They have not come yet: [`Engine::wait_for_body`].
    Waits,
    /// All were taken.
    Ended,
    /// The client has gone before its body was complete.
    Gone,
    /// No more will be taken; the status says why (400, 408, 413).
    Failed(u16),
    /// The exchange is over.
    Over,
}

impl<B> Exchange<B> {
    /// Whether a body that streams is worth receives of its own.
    pub(crate) fn is_long(&self) -> bool {
        let received = self.body_taken + self.body_len as u64;
        match self.head.framing {
            // It may wait for ever, without a buffer.
            _ if self.taken_over => false,
            Framing::None => false,
            Framing::Length(len) => len - received > DIRECT_MIN,
            Framing::Chunked => received > DIRECT_MIN,
        }
    }
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// How a body that streams stands. One that does not is whole, and [`Ended`](BodyState::Ended) here:
    /// see [`RequestView::body`](crate::engine::RequestView::body).
    pub fn body_state(&mut self, ExchangeId(key): ExchangeId) -> BodyState {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return BodyState::Over;
        };
        if !exchange.streams {
            return BodyState::Ended;
        }
        if exchange.body_len > 0 {
            return BodyState::Ready;
        }
        if exchange.body_error != 0 {
            return BodyState::Failed(exchange.body_error);
        }
        if exchange.is_complete() {
            return BodyState::Ended;
        }
        let connection_key = exchange.connection;
        match self.connections.get(connection_key) {
            Some(connection) if connection.ending == Ending::No && !connection.peer_ended => {}
            Some(connection) if connection.ending == Ending::No && exchange.taken_over => {
                return BodyState::Ended;
            }
            _ => return BodyState::Gone,
        }
        if exchange.head.expects_continue && !exchange.continue_sent {
            exchange.continue_sent = true;
            // Behind the head of the response it would be taken for the body.
            if exchange.sending == Sending::No {
                self.send_continue(connection_key);
            }
        }
        BodyState::Waits
    }

    /// Makes `value` due (60 bits, not 0) when the state of the body has changed, or the exchange is
    /// over, once. Until then `read_timeout` runs. False if somebody waits for that already.
    pub fn wait_for_body(&mut self, ExchangeId(key): ExchangeId, value: u64) -> bool {
        let (now_ms, waited_ms) = (self.now_ms, self.waited_ms);
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return false;
        };
        if exchange.reader != 0 {
            return false;
        }
        exchange.reader = value;
        exchange.waited_before_ms = waited_ms;
        let connection_key = exchange.connection;
        let timeout_ms = if exchange.taken_over {
            0
        } else {
            self.config.read_timeout_ms
        };
        if let Some(connection) = self.connections.get_mut(connection_key) {
            connection.read_deadline_ms = after(now_ms, timeout_ms);
            self.arm_receive(connection_key);
            self.arm_timer(connection_key);
        }
        true
    }

    /// Gives up to `max` bytes of a body that streams, of those that are there, to `copy`, and lets go of
    /// them.
    pub fn take_body<R>(
        &mut self,
        ExchangeId(key): ExchangeId,
        max: usize,
        copy: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let exchange = self
            .exchanges
            .get_mut(key)
            .filter(|exchange| exchange.own_head.is_some())?;
        let connection_key = exchange.connection;
        let connection = self.connections.get_mut(connection_key)?;
        let count = exchange.body_len.min(max);
        let copied = copy(&connection.input.bytes()[..count]);
        connection.input.consume(count, &mut self.inputs);
        exchange.body_len -= count;
        exchange.body_taken += count as u64;
        self.arm_receive(connection_key);
        Some(copied)
    }

    /// Whether the client has gone, or has at least closed its side.
    pub fn is_disconnected(&self, ExchangeId(key): ExchangeId) -> bool {
        self.exchanges.get(key).is_some_and(|exchange| {
            self.connections
                .get(exchange.connection)
                .is_none_or(|connection| {
                    connection.ending == Ending::Closing
                        || connection.peer_ended
                        || connection.hung_up
                })
        })
    }

    /// Something came on a connection whose handler has begun: if it is its body that streams, takes
    /// it. Says whether more of it is to come.
    pub(crate) fn receive_stream(&mut self, key: Key, exchange_key: Key) -> bool {
        let (Some(connection), Some(exchange)) = (
            self.connections.get_mut(key),
            self.exchanges.get_mut(exchange_key),
        ) else {
            return false;
        };
        if !exchange.is_streaming() {
            return false;
        }
        if let Err(status) = take_arrived(&mut connection.input, exchange, &mut self.inputs) {
            exchange.body_error = status;
        }
        let goes_on = exchange.is_streaming();
        let is_enough = exchange.is_long() || exchange.body_len > self.config.read_ahead;
        // A single receive brings what it brings; the multishot one would go on.
        let is_single = matches!(connection.input, Input::InKernel);
        if exchange.body_len > 0 || !goes_on || connection.peer_ended {
            self.wake_reader(exchange_key);
        }
        if goes_on && is_enough && !is_single {
            self.cancel_receive(key);
        }
        goes_on
    }

    /// Tells who waits for the body, if anybody does.
    pub(crate) fn wake_reader(&mut self, key: Key) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let reader = std::mem::take(&mut exchange.reader);
        if reader == 0 {
            return;
        }
        self.due.push_back(reader);
        exchange.body_waited_ms += self.waited_ms - exchange.waited_before_ms;
        let received = exchange.body_taken + exchange.body_len as u64;
        if exchange.is_streaming()
            && !exchange.taken_over
            && is_too_slow(&self.config, received, exchange.body_waited_ms)
        {
            exchange.body_error = 408;
        }
        if let Some(connection) = self.connections.get_mut(exchange.connection) {
            connection.read_deadline_ms = u64::MAX;
        }
    }

    /// The handler has waited for `read_timeout`: says whether there is one that does.
    pub(crate) fn reader_times_out(&mut self, key: Key) -> bool {
        let waits = self
            .exchanges
            .get_mut(key)
            .filter(|exchange| exchange.reader != 0);
        let Some(exchange) = waits else {
            return false;
        };
        exchange.body_error = 408;
        self.wake_reader(key);
        true
    }

    /// Nobody waits any more: the wait ended otherwise.
    pub fn forget_waiter(&mut self, ExchangeId(key): ExchangeId, value: u64) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        if exchange.writer == value {
            exchange.writer = 0;
        }
        if exchange.reader == value {
            exchange.reader = 0;
            if let Some(connection) = self.connections.get_mut(exchange.connection) {
                connection.read_deadline_ms = u64::MAX;
            }
        }
    }
}

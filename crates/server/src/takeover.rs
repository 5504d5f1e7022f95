//! A connection that goes on as something other than HTTP.
//!
//! Its request stays an exchange, whose body is whatever the peer sends and whose response is whatever it
//! is sent, both until the end of the connection: so the ways of `upload.rs` and `download.rs`, with
//! their back-pressure and the write timeout, serve any protocol. Nobody waits for the peer in vain here:
//! what may take how long is the protocol's business.

use theframework_http::{ContentLength, Framing, Version, is_final};
use theframework_io::{Driver, KeptBytes};

use crate::connection::Ending;
use crate::engine::Engine;
use crate::exchange::{BodyPlace, ExchangeId, Sending};
use crate::respond::{writable, write_response_head};

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Ends HTTP on the connection of an exchange, whose request's body must be complete. With a status
    /// (101, not on HTTP/1.0, or a final one), a head is written first, with the response's fields and without a length.
    /// What the peer sends from here on is taken as a body that streams, what it is sent is written as
    /// a response that does: [`take_body`](Self::take_body), [`write_body`](Self::write_body);
    /// [`finish_response`](Self::finish_response) ends the connection. No read or handler timeout runs.
    /// False if there is nobody at the other end, or the exchange has come too far.
    pub fn take_over(&mut self, ExchangeId(key): ExchangeId, status: Option<u16>) -> bool {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return false;
        };
        let connection_key = exchange.connection;
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return false;
        };
        let is_open = connection.ending == Ending::No && exchange.sending == Sending::No;
        // HTTP/1.0 knows no upgrade (RFC 9110 §7.8), and no other interim status ends a request.
        let is_new = exchange.head.version != Version::Http10;
        let can_be = status.is_none_or(|status| is_final(status) || status == 101 && is_new);
        if !is_open || !can_be || !exchange.is_complete() {
            return false;
        }
        let request_len = exchange.input_len();
        let moved = match exchange.own_head {
            Some(_) => {
                connection.input.consume(request_len, &mut self.inputs);
                Ok(())
            }
            None => connection
                .input
                .split_head(request_len, &mut self.inputs)
                .map(|block| exchange.own_head = Some(block)),
        };
        let head = (self.date.as_bytes(), self.config.server.as_slice());
        let written = moved.and_then(|()| match status {
            None => Ok(()),
            Some(status) => writable(&mut connection.output, &mut self.writes).and_then(|write| {
                let length = ContentLength::None;
                let closes = status != 101;
                write_response_head(write, exchange, status, length, closes, head.0, head.1)
            }),
        });
        exchange.taken_over = true;
        exchange.streams = true;
        exchange.closes = true;
        exchange.sending = Sending::UntilClose;
        exchange.head.framing = Framing::Length(u64::MAX);
        exchange.decoder = None;
        exchange.continue_sent = true;
        exchange.body_taken = 0;
        exchange.body_len = connection.input.len();
        let filling = match std::mem::replace(&mut exchange.body, BodyPlace::Input) {
            BodyPlace::Own(filling) => Some(filling),
            BodyPlace::Input | BodyPlace::InKernel => None,
        };
        if let Some(timer) = exchange.handler_timer.take() {
            self.wheel.cancel(timer);
        }
        connection.read_deadline_ms = u64::MAX;
        filling
            .into_iter()
            .for_each(|body| self.recycle_filling(body));
        match written {
            Ok(()) => self.mark_dirty(connection_key),
            Err(_) => self.begin_close(connection_key),
        }
        self.arm_receive(connection_key);
        true
    }
}

//! A response that goes out while its handler makes it.
//!
//! ```text
//! start_response -- write_body ... write_body -- finish_response      chunked, or of a known length
//!                       |  room() says Full: wait_for_room
//! ```
//!
//! A connection holds two writes at most, the one that the kernel has and the one that is filled: when
//! the second is full too, the handler waits until the client has taken the first. A large piece is
//! sent from where it is.

use theframework_http::{
    ContentLength, LAST_CHUNK, Version, forbids_body, is_empty, is_final, write_chunk_header,
};
use theframework_io::{Driver, KeptBytes, Write};
use theframework_memory::{Key, OutOfMemory};

use crate::connection::Ending;
use crate::engine::Engine;
use crate::exchange::{ExchangeId, Sending};
use crate::output::COPY_MAX;
use crate::respond::{Body, writable, write_response_head};

/// What a handler finds that wants to send more.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Room {
    /// More can be taken: [`Engine::write_body`].
    Ready,
    /// The client has to take something first: [`Engine::wait_for_room`].
    Full,
    /// The client has gone.
    Gone,
    /// The exchange is over.
    Over,
}

/// Why a piece of a response was not taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// There is no room, or nobody to write to: see [`Engine::room`].
    NoRoom,
    /// It is longer than what is left of the length that was announced.
    TooLong,
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Whether what is written for the body is dropped: the response has none.
    pub fn drops_body(&self, ExchangeId(key): ExchangeId) -> bool {
        self.exchanges
            .get(key)
            .is_some_and(|exchange| exchange.sending == Sending::Nothing)
    }

    /// Whether the head of the response has been written.
    pub fn has_started(&self, ExchangeId(key): ExchangeId) -> bool {
        self.exchanges
            .get(key)
            .is_some_and(|exchange| exchange.sending != Sending::No)
    }

    /// Whether more of a response can be written.
    pub fn room(&self, ExchangeId(key): ExchangeId) -> Room {
        let Some(exchange) = self.exchanges.get(key) else {
            return Room::Over;
        };
        match self.connections.get(exchange.connection) {
            Some(connection) if connection.ending == Ending::No => {
                if connection.output.is_blocked() {
                    Room::Full
                } else {
                    Room::Ready
                }
            }
            _ => Room::Gone,
        }
    }

    /// Makes `value` due (60 bits, not 0) when there may be room again, or the exchange is over, once.
    /// False if somebody waits for that already.
    pub fn wait_for_room(&mut self, ExchangeId(key): ExchangeId, value: u64) -> bool {
        match self.exchanges.get_mut(key) {
            Some(exchange) if exchange.writer == 0 => {
                exchange.writer = value;
                true
            }
            _ => false,
        }
    }

    /// Writes the head of a response whose body follows: of `length` bytes, or chunked, or for an
    /// HTTP/1.0 client up to the end of the connection. What is said of the status at
    /// [`respond`](Self::respond) holds here too. The handler's time limit ends here. False if
    /// there is nobody to answer, or it was written before.
    pub fn start_response(
        &mut self,
        ExchangeId(key): ExchangeId,
        status: u16,
        length: Option<u64>,
    ) -> bool {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return false;
        };
        let connection_key = exchange.connection;
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return false;
        };
        if connection.ending != Ending::No || exchange.sending != Sending::No {
            return false;
        }
        if let Some(timer) = exchange.handler_timer.take() {
            self.wheel.cancel(timer);
        }
        let status = if is_final(status) { status } else { 500 };
        let is_old = exchange.head.version == Version::Http10;
        let is_silent = exchange.head.method.is_head() || forbids_body(status) || is_empty(status);
        exchange.sending = if is_silent {
            Sending::Nothing
        } else {
            match length {
                Some(length) => Sending::Length(length),
                None if is_old => Sending::UntilClose,
                None => Sending::Chunked,
            }
        };
        let length = match length {
            _ if forbids_body(status) => ContentLength::None,
            _ if is_empty(status) => ContentLength::Known(0),
            Some(length) => ContentLength::Known(length),
            None if is_old => ContentLength::None,
            None => ContentLength::Chunked,
        };
        exchange.closes |= exchange.sending == Sending::UntilClose || self.drain.is_some();
        let closes = exchange.closes;
        let (date, server) = (self.date.as_bytes(), self.config.server.as_slice());
        let written = writable(&mut connection.output, &mut self.writes).and_then(|write| {
            write_response_head(write, exchange, status, length, closes, date, server)
        });
        match written {
            Ok(()) => self.mark_dirty(connection_key),
            Err(OutOfMemory) => self.begin_close(connection_key),
        }
        true
    }

    /// Sends a piece of the body. What is copied is sent when the handler waits, ends, or has written
    /// enough.
    ///
    /// # Errors
    /// [`WriteError`], with the piece.
    pub fn write_body<'b>(
        &mut self,
        id: ExchangeId,
        piece: Body<'b, B>,
    ) -> Result<(), (WriteError, Body<'b, B>)> {
        if self.room(id) != Room::Ready {
            return Err((WriteError::NoRoom, piece));
        }
        let ExchangeId(key) = id;
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return Err((WriteError::NoRoom, piece));
        };
        let connection_key = exchange.connection;
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return Err((WriteError::NoRoom, piece));
        };
        let len = piece.as_bytes().len();
        let mut is_chunk = false;
        match &mut exchange.sending {
            Sending::No => return Err((WriteError::NoRoom, piece)),
            Sending::Length(left) => match left.checked_sub(len as u64) {
                Some(rest) => *left = rest,
                None => return Err((WriteError::TooLong, piece)),
            },
            Sending::Chunked => is_chunk = true,
            Sending::UntilClose | Sending::Nothing => {}
        }
        if len == 0 || exchange.sending == Sending::Nothing {
            if let Body::Kept(kept) = piece {
                self.released.push(kept);
            }
            return Ok(());
        }
        let written = writable(&mut connection.output, &mut self.writes)
            .and_then(|write| write_piece(write, piece, is_chunk));
        match written {
            Ok(copied) => {
                self.released.extend(copied);
                self.mark_dirty(connection_key);
            }
            Err(OutOfMemory) => self.begin_close(connection_key),
        }
        Ok(())
    }

    /// Ends a response that was started, and the exchange. False if less was written than was
    /// announced: the connection then ends behind what was written. It does also if the body of the
    /// request has not come to its end.
    pub fn finish_response(&mut self, ExchangeId(key): ExchangeId) -> bool {
        let Some(exchange) = self.take_exchange(key) else {
            return true;
        };
        let connection_key = exchange.connection;
        let Some(connection) = self.connections.get_mut(connection_key) else {
            self.recycle(exchange);
            return true;
        };
        let mut is_whole = true;
        let mut result = Ok(());
        if connection.ending == Ending::No {
            match exchange.sending {
                Sending::Chunked => {
                    result = writable(&mut connection.output, &mut self.writes)
                        .and_then(write_last_chunk);
                }
                Sending::Length(left) => is_whole = left == 0,
                Sending::No | Sending::UntilClose | Sending::Nothing => {}
            }
        }
        let closes = exchange.is_last() || self.drain.is_some() || !is_whole;
        self.conclude(connection_key, exchange, closes);
        if result.is_err() {
            self.begin_close(connection_key);
        }
        is_whole
    }

    /// Ends a response that was started and cannot be ended as it should: the connection ends behind
    /// what was written, so that the client sees that something is missing.
    pub fn abort_response(&mut self, ExchangeId(key): ExchangeId) {
        let Some(exchange) = self.take_exchange(key) else {
            return;
        };
        let connection_key = exchange.connection;
        self.conclude(connection_key, exchange, true);
    }

    /// Makes `value` due (60 bits, not 0) when the client leaves, be it only that it sends no more
    /// ([`is_disconnected`](Self::is_disconnected)), or the exchange is over, once.
    pub fn wait_for_end(&mut self, ExchangeId(key): ExchangeId, value: u64) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.watcher = value;
        }
    }

    /// Tells who waits for the client's end, if anybody does.
    pub(crate) fn wake_watcher(&mut self, key: Key) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            let watcher = std::mem::take(&mut exchange.watcher);
            if watcher != 0 {
                self.due.push_back(watcher);
            }
        }
    }

    /// Tells who waits for room, if anybody does.
    pub(crate) fn wake_writer(&mut self, key: Key) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            let writer = std::mem::take(&mut exchange.writer);
            if writer != 0 {
                self.due.push_back(writer);
            }
        }
    }
}

/// Appends one piece; a small one that the user kept comes back.
fn write_piece<B: KeptBytes>(
    write: &mut Write<B>,
    piece: Body<'_, B>,
    is_chunk: bool,
) -> Result<Option<B>, OutOfMemory> {
    /// The header of a chunk: a length in hexadecimal and a line end.
    const CHUNK_HEADER_MAX: usize = 18;
    let len = piece.as_bytes().len();
    let is_kept = len > COPY_MAX && matches!(piece, Body::Kept(_));
    let copied = if is_kept { 0 } else { len };
    // Nothing of it stands there if there is no memory for all of it.
    write
        .arena_mut()
        .reserve(CHUNK_HEADER_MAX + copied + CHUNK_END.len())?;
    if is_chunk {
        write_chunk_header(write.arena_mut(), len)?;
    }
    match piece {
        Body::Kept(kept) if is_kept => {
            write.set_body(kept);
            if is_chunk {
                write.extend_tail(CHUNK_END);
            }
            Ok(None)
        }
        piece => {
            write.arena_mut().extend(piece.as_bytes())?;
            if is_chunk {
                write.arena_mut().extend(CHUNK_END)?;
            }
            Ok(match piece {
                Body::Kept(kept) => Some(kept),
                Body::Copied(_) => None,
            })
        }
    }
}

const CHUNK_END: &[u8] = b"\r\n";

fn write_last_chunk<B: KeptBytes>(write: &mut Write<B>) -> Result<(), OutOfMemory> {
    if write.is_sealed() {
        // Behind the chunk that seals it: room for both ends is made for.
        write.extend_tail(LAST_CHUNK);
        Ok(())
    } else {
        write.arena_mut().extend(LAST_CHUNK)
    }
}

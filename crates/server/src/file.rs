//! A response that is an open file, sent without the handler.
//!
//! ```text
//! send_file --> head, and a window read behind it --> sent --> next window --> ... --> last window
//!     |                    |  cannot be read: 500            |  cannot be read,           |
//!     |                    v                                 v  or the file was cut       v
//!     |                 refused                           connection ends             exchange ends
//!     +--> 304, 412, 416, HEAD, an empty file: the head alone
//! ```
//!
//! The handler is over when the file was taken. What is left is an exchange that no id names, and an
//! entry in the table of files, which the events of reads find. A window is read into a write of its own
//! (the first one behind what the connection has finished before), and then sent; the next is read when
//! the socket has taken it. So one window is in memory for each connection, and the socket's own buffer
//! keeps the client busy meanwhile.
//!
//! # Invariants
//!
//! - An entry belongs to the exchange that names it, or to none that there is: then a read that was
//!   cancelled is still pending, whose end frees it.
//! - The file is closed after its last read has had its final event, by the driver.

use theframework_http::{
    Answer, ContentRange, EntityTag, Method, Representation, evaluate, format_date, parse_date,
};
use theframework_io::{Driver, Errno, KeptBytes, OpId, Outcome, SEND_AT_ONCE_MAX, Write};
use theframework_memory::{Key, OutOfMemory};

use crate::download::Room;
use crate::engine::Engine;
use crate::exchange::{ExchangeId, NOBODY, Progress, Sending};
use crate::respond::HeaderError;
use crate::token::{self, Kind};

/// Bytes that one write holds while a file is sent: a power of two, which buffers come in.
const WINDOW: usize = 128 * 1024;

/// An open file, and what was known of it when it was opened.
#[derive(Debug)]
pub struct FileBody<S> {
    /// The descriptor's owner: a regular file.
    pub file: S,
    /// Its length in bytes. If it has fewer when it is sent, the connection ends.
    pub len: u64,
    /// When it was last modified: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
}

/// A file that is being sent.
#[derive(Debug)]
pub(crate) struct SentFile<S> {
    file: S,
    /// Whose response it is. When that was given up, and a read is still pending, this finds nothing.
    exchange: Key,
    /// The next byte to read.
    offset: u64,
    /// Bytes that are still to be read.
    left: u64,
    reading: Option<OpId>,
    /// Where the response begins in the write that its first window is read into.
    head_at: Option<usize>,
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Ends the handler's part of the exchange with a file, which is sent from here on without it: the
    /// id means nothing afterwards. False if there is nobody to answer.
    ///
    /// With status 200, and for GET and HEAD, the request's conditions and `Range` are honoured (RFC
    /// 9110 §13, §14), so that it may become a 206, 304, 412 or 416, and `ETag`, `Last-Modified` and
    /// `Accept-Ranges` are added. An `ETag` or `Last-Modified` that was set counts instead of the file's.
    ///
    /// The bytes are copied by the kernel alone. In memory is one window of 128 KiB for each
    /// connection. A file that cannot be read is a 500 if nothing was sent, else the connection ends, as
    /// it does behind the last byte of a file that has become shorter.
    pub fn send_file(&mut self, id: ExchangeId, status: u16, body: FileBody<D::Socket>) -> bool {
        let (status, offset, left) = match self.settle_head(id, status, &body) {
            Ok(settled) => settled,
            Err(_) => {
                self.driver.close(body.file);
                self.abort_response(id);
                return false;
            }
        };
        let ExchangeId(key) = id;
        self.give_up_body(id);
        let before = self.pending(key).map_or(0, Write::len);
        if !self.start_response(id, status, Some(left)) || self.room(id) == Room::Gone {
            self.driver.close(body.file);
            self.abort_response(id);
            return false;
        }
        let has_body = self
            .exchanges
            .get(key)
            .is_some_and(|exchange| matches!(exchange.sending, Sending::Length(1..)));
        if !has_body {
            self.driver.close(body.file);
            self.finish_response(id);
            return true;
        }
        let sent = SentFile {
            file: body.file,
            exchange: NOBODY,
            offset,
            left,
            reading: None,
            // With much else before it the head has been submitted already.
            head_at: self.pending(key).map(|_| before),
        };
        match self.hand_over(key, sent) {
            Ok(file) => self.read_window(file),
            Err(OutOfMemory) => self.abort_response(id),
        }
        true
    }

    /// Decides what the answer consists of, and sets its fields: the status, the first byte and how many.
    fn settle_head(
        &mut self,
        id: ExchangeId,
        status: u16,
        body: &FileBody<D::Socket>,
    ) -> Result<(u16, u64, u64), HeaderError> {
        let exchange = self.exchanges.get(id.0).ok_or(HeaderError::Over)?;
        let view = self.request(id).ok_or(HeaderError::Over)?;
        let method = view.head().method;
        if status != 200 || !matches!(method, Method::Get | Method::Head) {
            return Ok((status, 0, body.len));
        }
        let own = |name: &[u8]| {
            let mut fields = exchange.fields.iter(&exchange.arena);
            fields.find(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let now = self.driver.unix_time().as_secs();
        let tag = EntityTag::of_file(body.modified.0, body.modified.1, body.len);
        // A file from the future was modified now (§8.8.2.1).
        let modified = u64::try_from(body.modified.0).ok().map(|at| at.min(now));
        let (own_tag, own_date) = (own(b"etag"), own(b"last-modified"));
        let current = Representation {
            len: body.len,
            etag: Some(own_tag.map_or(tag.as_bytes(), |(_, value)| value)),
            last_modified: match own_date {
                Some((_, value)) => parse_date(value),
                None => modified,
            },
        };
        let fields = (0..view.field_count()).filter_map(|index| view.field(index));
        let answer = evaluate(method, fields, &current, now);
        let has_own = (own_tag.is_some(), own_date.is_some());

        if !has_own.0 {
            self.set_field(id, b"ETag", tag.as_bytes(), false)?;
        }
        if let (false, Some(modified)) = (has_own.1, modified) {
            self.set_field(id, b"Last-Modified", &format_date(modified), false)?;
        }
        self.set_field(id, b"Accept-Ranges", b"bytes", true)?;
        let len = body.len;
        Ok(match answer {
            Answer::Whole => (200, 0, len),
            Answer::Partial { first, last } => {
                let range = ContentRange::part(first, last, len);
                self.set_field(id, b"Content-Range", range.as_bytes(), true)?;
                (206, first, last - first + 1)
            }
            Answer::NotModified => (self.without_body(id, 304), 0, 0),
            Answer::PreconditionFailed => (self.without_body(id, 412), 0, 0),
            Answer::Unsatisfiable => {
                let range = ContentRange::unsatisfied(len);
                self.set_field(id, b"Content-Range", range.as_bytes(), true)?;
                (self.without_body(id, 416), 0, 0)
            }
        })
    }

    /// The file's bytes are not sent: what was said of them is not either.
    fn without_body(&mut self, ExchangeId(key): ExchangeId, status: u16) -> u16 {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            for name in [&b"content-type"[..], b"content-disposition"] {
                exchange.fields.remove(&mut exchange.arena, name);
            }
        }
        status
    }

    /// What the connection of an exchange has finished and not submitted.
    fn pending(&self, key: Key) -> Option<&Write<B>> {
        let exchange = self.exchanges.get(key)?;
        let connection = self.connections.get(exchange.connection)?;
        connection.output.pending.as_deref()
    }

    /// The exchange is the file's from here on: the handler's id names it no longer.
    fn hand_over(&mut self, key: Key, sent: SentFile<D::Socket>) -> Result<Key, OutOfMemory> {
        let file = self.files.insert(sent)?;
        let Some(mut exchange) = self.exchanges.remove(key) else {
            return Err(OutOfMemory);
        };
        exchange.progress = Progress::SendingFile;
        exchange.file = Some(file);
        exchange.tag = 0;
        // Short of memory it stays where it is: larger, but right.
        let _ = exchange.arena.park();
        let connection = exchange.connection;
        // The slot that was left just now is free, so there is one.
        let key = self.exchanges.insert(exchange)?;
        if let Some(sent) = self.files.get_mut(file) {
            sent.exchange = key;
        }
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.exchange = Some(key);
        }
        Ok(file)
    }

    /// Reads the next window behind what the connection has finished.
    fn read_window(&mut self, key: Key) {
        let Some(sent) = self.files.get_mut(key) else {
            return;
        };
        let connection = self
            .exchanges
            .get(sent.exchange)
            .and_then(|exchange| self.connections.get_mut(exchange.connection));
        let Some(connection) = connection else {
            return;
        };
        let write = match connection.output.pending.take() {
            Some(write) => Ok(write),
            None => self.writes.acquire(),
        };
        let write = write.and_then(|mut write| {
            let room = WINDOW - write.len().min(WINDOW / 2);
            let most = usize::try_from(sent.left).map_or(room, |left| left.min(room));
            match write.arena_mut().reserve(most) {
                Ok(()) => Ok((write, most)),
                Err(OutOfMemory) => {
                    connection.output.pending = Some(write);
                    Err(OutOfMemory)
                }
            }
        });
        let Ok((write, most)) = write else {
            return self.give_up(key);
        };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&sent.file);
        let token = token::of_key(Kind::File, key);
        match self.driver.read_file(fd, token, sent.offset, most, write) {
            Ok(op) => sent.reading = Some(op),
            Err(write) => {
                connection.output.pending = Some(write);
                self.give_up(key);
            }
        }
    }

    pub(crate) fn on_file(&mut self, key: Key, outcome: Outcome<D::Socket, B>) {
        let Outcome::FileRead(write, result) = outcome else {
            debug_assert!(false, "not an event of a file");
            return;
        };
        let Some(sent) = self.files.get_mut(key) else {
            self.released.extend(self.writes.release(write));
            return;
        };
        sent.reading = None;
        let Some(exchange) = self.exchanges.get_mut(sent.exchange) else {
            self.released.extend(self.writes.release(write));
            return self.close_file(key);
        };
        let (exchange_key, connection_key) = (sent.exchange, exchange.connection);
        let Some(connection) = self.connections.get_mut(connection_key) else {
            self.released.extend(self.writes.release(write));
            return;
        };
        match result {
            Ok(count @ 1..) => {
                sent.head_at = None;
                sent.offset += count as u64;
                sent.left -= count as u64;
                exchange.sending = Sending::Length(sent.left);
                let is_last = sent.left == 0;
                let is_short = write.len() <= SEND_AT_ONCE_MAX;
                connection.output.pending = Some(write);
                if is_last {
                    exchange.file = None;
                    self.close_file(key);
                    self.finish_response(ExchangeId(exchange_key));
                } else {
                    self.submit(connection_key);
                    // The end of a short write ends no wait, and the next window follows it.
                    self.must_not_wait |= is_short;
                }
            }
            failure => self.cut(key, write, failure),
        }
    }

    /// The socket has taken everything: the next window of the file that the connection sends, if it
    /// does.
    pub(crate) fn go_on_with_file(&mut self, connection_key: Key) {
        let Some(connection) = self.connections.get(connection_key) else {
            return;
        };
        let Some(file) = connection
            .exchange
            .and_then(|key| self.exchanges.get(key)?.file)
        else {
            return;
        };
        let is_reading = self
            .files
            .get(file)
            .is_some_and(|sent| sent.reading.is_some());
        if !connection.output.is_empty() {
            // A window waited for this write to end, and is submitted now: see `on_file`.
            self.must_not_wait = true;
        } else if !is_reading {
            self.read_window(file);
        }
    }

    /// The file has less than it had, or cannot be read: `write` has what was finished before.
    fn cut(&mut self, key: Key, mut write: Box<Write<B>>, failure: Result<usize, Errno>) {
        let Some(sent) = self.files.get_mut(key) else {
            return;
        };
        debug_assert!(failure != Err(Errno::CANCELLED), "nobody has given it up");
        let (head_at, exchange_key) = (sent.head_at, sent.exchange);
        let Some(exchange) = self.exchanges.get_mut(exchange_key) else {
            return;
        };
        let (connection_key, is_head) = (exchange.connection, exchange.head.method.is_head());
        exchange.file = None;
        self.close_file(key);
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        if let Some(head_at) = head_at {
            write.arena_mut().truncate(head_at);
        }
        if write.is_empty() {
            self.released.extend(self.writes.release(write));
        } else {
            connection.output.pending = Some(write);
        }
        if head_at.is_some() {
            self.refuse(connection_key, 500, is_head);
        } else {
            self.abort_response(ExchangeId(exchange_key));
        }
    }

    /// There is no memory for the next window.
    fn give_up(&mut self, key: Key) {
        let Some(sent) = self.files.get(key) else {
            return;
        };
        let connection = self
            .exchanges
            .get(sent.exchange)
            .map(|exchange| exchange.connection);
        if let Some(connection) = connection {
            self.begin_close(connection);
        }
    }

    /// The exchange of a file has ended before the file has.
    pub(crate) fn end_file(&mut self, key: Key) {
        let Some(sent) = self.files.get(key) else {
            return;
        };
        match sent.reading {
            Some(op) => self.driver.cancel(op),
            None => self.close_file(key),
        }
    }

    fn close_file(&mut self, key: Key) {
        if let Some(sent) = self.files.remove(key) {
            self.driver.close(sent.file);
        }
    }
}

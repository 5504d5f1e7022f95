//! Response heads (RFC 9112 §4, §5) and the frame of chunked bodies, written into a `WriteArena`.
//!
//! Purpose: [`write_head`] puts a whole head behind what the arena holds already, with one reservation;
//! [`validate_name`] and [`validate_value`] are what a user's fields must pass before, so that no
//! response can be split (CWE-113).
//!
//! Invariants: the fields of framing and connection (`Content-Length`, `Transfer-Encoding`, `Connection`)
//! are the server's: the user's are dropped; each of them is written at most once, and so are `Date` and
//! `Server`, of which the user's own win. A user's `Upgrade` is named in `Connection`. On `OutOfMemory`
//! nothing was written.
//!
//! What it does not do: it writes no body but that of [`simple_response`], and does not decide the framing.

use std::fmt;

use theframework_memory::{OutOfMemory, WriteArena};

use crate::bytes::{is_field_value, is_token};
use crate::status::{forbids_body, reason};

/// The interim response to `Expect: 100-continue` (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a response says how long its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentLength {
    /// It does not: there is no body, or the end of the connection ends it.
    None,
    /// `Content-Length`. For HEAD and 304: the length that the body would have.
    Known(u64),
    /// `Transfer-Encoding: chunked`; not for an HTTP/1.0 client.
    Chunked,
}

/// What a response says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: the version's default.
    Default,
    /// `Connection: close`.
    Close,
    /// `Connection: keep-alive`, which an HTTP/1.0 client needs to see.
    KeepAlive,
}

/// A response head to be written.
#[derive(Clone, Debug)]
pub struct ResponseHead<'a, I> {
    /// The status, 100 to 599.
    pub status: u16,
    /// The value of `Date`, see `DateCache`.
    pub date: &'a [u8; 29],
    /// The value of `Server`, if there shall be one.
    pub server: Option<&'a [u8]>,
    /// The body's length. With 1xx and 204 nothing is written for it (RFC 9110 §8.6, RFC 9112 §6.1).
    pub content_length: ContentLength,
    /// What is said about the connection.
    pub connection: Connection,
    /// The user's fields in order, validated: an iterator of name and value, cheap to clone.
    pub fields: I,
}

/// A field that must not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidHeader {
    /// The name is not a token (RFC 9110 §5.1).
    Name,
    /// The value has CR, LF, NUL or another control byte than HTAB (RFC 9110 §5.5).
    Value,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => {
                "a header name must be one or more of A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~"
            }
            Self::Value => "a header value must not have CR, LF, NUL or other control bytes",
        })
    }
}

impl std::error::Error for InvalidHeader {}

/// Whether `name` may be a field name.
///
/// # Errors
///
/// [`InvalidHeader::Name`] unless it is a token of at least one byte.
#[inline]
pub fn validate_name(name: &[u8]) -> Result<(), InvalidHeader> {
    if !name.is_empty() && name.iter().all(|&b| is_token(b)) {
        Ok(())
    } else {
        Err(InvalidHeader::Name)
    }
}

/// Whether `value` may be a field value. It may be empty, and may have bytes over 127.
///
/// # Errors
///
/// [`InvalidHeader::Value`] for CR, LF, NUL, DEL and all other control bytes but HTAB.
#[inline]
pub fn validate_value(value: &[u8]) -> Result<(), InvalidHeader> {
    if value.iter().all(|&b| is_field_value(b)) {
        Ok(())
    } else {
        Err(InvalidHeader::Value)
    }
}

/// Writes `head` to the end of `out`.
///
/// The fields must have passed [`validate_name`] and [`validate_value`]: here only debug builds look.
///
/// # Errors
///
/// [`OutOfMemory`] when `out` cannot grow; nothing was written then.
///
/// Cost: two passes over the fields, one reservation, copies; no formatting machinery.
pub fn write_head<'f, I>(
    out: &mut WriteArena,
    head: &ResponseHead<'_, I>,
) -> Result<(), OutOfMemory>
where
    I: Iterator<Item = (&'f [u8], &'f [u8])> + Clone,
{
    let mut has_date = false;
    let mut has_server = false;
    let mut has_upgrade = false;
    let mut fields_len = 0;
    for (name, value) in head.fields.clone() {
        debug_assert!(
            validate_name(name).is_ok() && validate_value(value).is_ok(),
            "field was not validated"
        );
        fields_len += name.len() + value.len() + 4;
        match name.len() {
            4 => has_date |= name.eq_ignore_ascii_case(b"date"),
            6 => has_server |= name.eq_ignore_ascii_case(b"server"),
            7 => has_upgrade |= name.eq_ignore_ascii_case(b"upgrade"),
            _ => {}
        }
    }
    let server = head.server.filter(|_| !has_server);
    out.reserve(FIXED_LEN_MAX + server.map_or(0, <[u8]>::len) + fields_len)?;

    write_status_line(out, head.status)?;
    if !has_date {
        out.extend(b"Date: ")?;
        out.extend(head.date)?;
        out.extend(b"\r\n")?;
    }
    if let Some(server) = server {
        write_field(out, b"Server", server)?;
    }
    for (name, value) in head.fields.clone() {
        if !is_servers(name) {
            write_field(out, name, value)?;
        }
    }
    if head.status >= 200 && head.status != 204 {
        match head.content_length {
            ContentLength::None => {}
            ContentLength::Known(len) => {
                write_field(
                    out,
                    b"Content-Length",
                    itoa::Buffer::new().format(len).as_bytes(),
                )?;
            }
            ContentLength::Chunked => out.extend(b"Transfer-Encoding: chunked\r\n")?,
        }
    }
    // Who sends `Upgrade` says in `Connection` that it is for this connection (RFC 9110 §7.8).
    out.extend(match (head.connection, has_upgrade) {
        (Connection::Default, false) => b"",
        (Connection::Default, true) => b"Connection: upgrade\r\n",
        (Connection::Close, false) => b"Connection: close\r\n",
        (Connection::Close, true) => b"Connection: close, upgrade\r\n",
        (Connection::KeepAlive, false) => b"Connection: keep-alive\r\n",
        (Connection::KeepAlive, true) => b"Connection: keep-alive, upgrade\r\n",
    })?;
    out.extend(b"\r\n")
}

/// Bytes of a head without its fields and without the value of `Server`: the status line with the
/// longest reason (under 64), `Date`, `Server`, the longest framing and connection fields, the empty line.
const FIXED_LEN_MAX: usize = 17 + 64 + 37 + 10 + 38 + 33 + 2;

/// Fields that only the server writes.
#[inline]
fn is_servers(name: &[u8]) -> bool {
    match name.len() {
        10 => name.eq_ignore_ascii_case(b"connection"),
        14 => name.eq_ignore_ascii_case(b"content-length"),
        17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
        _ => false,
    }
}

#[inline]
fn write_field(out: &mut WriteArena, name: &[u8], value: &[u8]) -> Result<(), OutOfMemory> {
    out.extend(name)?;
    out.extend(b": ")?;
    out.extend(value)?;
    out.extend(b"\r\n")
}

#[inline]
fn write_status_line(out: &mut WriteArena, status: u16) -> Result<(), OutOfMemory> {
    out.extend(match status {
        200 => b"HTTP/1.1 200 OK\r\n",
        201 => b"HTTP/1.1 201 Created\r\n",
        204 => b"HTTP/1.1 204 No Content\r\n",
        302 => b"HTTP/1.1 302 Found\r\n",
        304 => b"HTTP/1.1 304 Not Modified\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        500 => b"HTTP/1.1 500 Internal Server Error\r\n",
        _ => return write_rare_status_line(out, status),
    })
}

#[cold]
fn write_rare_status_line(out: &mut WriteArena, status: u16) -> Result<(), OutOfMemory> {
    debug_assert!(crate::status::is_valid(status), "invalid status {status}");
    out.extend(b"HTTP/1.1 ")?;
    out.extend(itoa::Buffer::new().format(status).as_bytes())?;
    // The space stays when there is no reason (RFC 9112 §4).
    out.extend(b" ")?;
    out.extend(reason(status).as_bytes())?;
    out.extend(b"\r\n")
}

/// Writes the line before a chunk of `len` bytes; CRLF must follow the bytes. `len` is not 0: that would
/// end the body (see [`LAST_CHUNK`]).
///
/// # Errors
///
/// [`OutOfMemory`] when `out` cannot grow; nothing was written then.
pub fn write_chunk_header(out: &mut WriteArena, len: usize) -> Result<(), OutOfMemory> {
    debug_assert!(len > 0, "an empty chunk would end the body");
    let mut line = [0_u8; 18];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut rest = len;
    loop {
        at -= 1;
        line[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return out.extend(&line[at..]);
        }
    }
}

/// Writes a whole small response, head and body: `text/plain`, saying `{status} {reason}`. For what the
/// server itself answers: refused requests, no capacity, no such route. `extra` are further fields,
/// such as `Retry-After`; `close` adds `Connection: close`.
///
/// With 1xx, 204 and 304 there is no body, and none in answer to HEAD (`is_head`).
///
/// # Errors
///
/// [`OutOfMemory`] when `out` cannot grow; nothing was written then.
pub fn simple_response(
    out: &mut WriteArena,
    status: u16,
    date: &[u8; 29],
    extra: &[(&[u8], &[u8])],
    close: bool,
    is_head: bool,
) -> Result<(), OutOfMemory> {
    let connection = if close {
        Connection::Close
    } else {
        Connection::Default
    };
    let fields = extra.iter().copied();
    if forbids_body(status) {
        let content_length = ContentLength::None;
        return write_head(
            out,
            &ResponseHead {
                status,
                date,
                server: None,
                content_length,
                connection,
                fields,
            },
        );
    }
    let reason = reason(status);
    let body_len = 3 + 1 + reason.len() + 1;
    let extra_len: usize = extra
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    out.reserve(FIXED_LEN_MAX + TEXT_PLAIN_LEN + extra_len + body_len)?;
    let fields = std::iter::once((CONTENT_TYPE, TEXT_PLAIN)).chain(fields);
    let content_length = ContentLength::Known(body_len as u64);
    write_head(
        out,
        &ResponseHead {
            status,
            date,
            server: None,
            content_length,
            connection,
            fields,
        },
    )?;
    if is_head {
        return Ok(());
    }
    out.extend(itoa::Buffer::new().format(status).as_bytes())?;
    out.extend(b" ")?;
    out.extend(reason.as_bytes())?;
    out.extend(b"\n")
}

const CONTENT_TYPE: &[u8] = b"Content-Type";
const TEXT_PLAIN: &[u8] = b"text/plain; charset=utf-8";
const TEXT_PLAIN_LEN: usize = CONTENT_TYPE.len() + TEXT_PLAIN.len() + 4;

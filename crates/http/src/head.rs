//! Request heads: the request line and the fields (RFC 9112 §3, §5), parsed in place.
//!
//! Purpose: [`parse_head`] turns the bytes of a connection into a [`Head`] of offsets, with all that
//! framing, connection reuse and `Host` need read from it once.
//!
//! States: none are kept. A head is incomplete (`Ok(None)`), complete, or refused; a prefix of a good
//! head is never refused, and a bad one is refused as soon as its bad byte is seen where that is cheap.
//!
//! Invariants:
//!
//! - Every line of an accepted head ends in CRLF; it has no control byte but HTAB within field values.
//! - An accepted head has one framing: no, one, or several equal `Content-Length`, or `chunked` alone.
//! - An accepted HTTP/1.1 head has exactly one well-formed `Host`; no head has two `Content-Type`.
//! - Spans count from the first byte passed in, so the bytes may be moved, and the head is plain data.
//!
//! What it does not do: it reads no body, limits no body, decodes no target (see `target`), joins no
//! repeated fields, drops no field, and does not look into fields other than those named below.
//!
//! `httparse` finds the parts (its table is on the stack and not initialised); what it is lenient about
//! (bare LF, non-ASCII and `#` in targets, empty lines) is refused here.

use std::fmt;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use memchr::{memchr, memchr_iter, memchr2};
use theframework_memory::{Arena, ArenaSlice, OutOfMemory, Span};

use crate::bytes::{hex_pair, is_reg_name, is_token, trim_ows};
use crate::method::Method;

/// Fields that fit the table on the stack; a head with more is parsed once more, with a table of the
/// right size from the heap.
const FIELDS_ON_STACK: usize = 64;

/// Most heads have no more fields than this, and then less of the stack is touched.
const FIELDS_USUAL: usize = 16;

/// The longest method accepted, in bytes; the longest registered one has 17.
const METHOD_LEN_MAX: usize = 32;

/// Empty lines skipped before a request line (RFC 9112 §2.2 asks for at least one).
const BLANK_LINES_MAX: usize = 4;

/// Limits of a request head, in bytes. What is exactly as long as its limit passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The longest request target; a longer one is answered by 414.
    pub max_target_size: usize,
    /// The longest head: request line, fields and the empty line, and also the empty lines before it;
    /// a longer one is answered by 431.
    pub max_header_size: usize,
}

impl Default for HeadLimits {
    /// 8 KiB for the target (RFC 9112 §3 recommends at least 8,000 bytes), 32 KiB for the head.
    fn default() -> Self {
        Self {
            max_target_size: 8 * 1024,
            max_header_size: 32 * 1024,
        }
    }
}

/// The protocol version that a request is served as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1; also what calls itself 1.2 to 1.9 (RFC 9110 §2.5).
    Http11,
}

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither `Content-Length` nor `Transfer-Encoding`: there is no body.
    None,
    /// A body of this many bytes, 0 included.
    Length(u64),
    /// The chunked coding, alone; see `ChunkedDecoder`.
    Chunked,
}

/// The four forms of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetForm {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`.
    Absolute,
    /// `*`, with OPTIONS only.
    Asterisk,
    /// `host:port`, with CONNECT only.
    Authority,
}

/// A parsed request head: plain data, offsets from the first byte that was given to [`parse_head`].
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The version that it is served as.
    pub version: Version,
    /// The form of the target.
    pub target_form: TargetForm,
    /// Whether the connection may serve another request afterwards (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client may be waiting for `100 Continue` (RFC 9110 §10.1.1); never with HTTP/1.0. It
    /// may be set for a request without body.
    pub expects_continue: bool,
    /// The length of the whole head: empty lines before it, request line, fields and the empty line.
    /// The body, or the next head, begins here.
    pub len: u32,
    /// The method as received.
    pub method_span: Span,
    /// The target as received.
    pub target: Span,
    /// The path as received, up to the `?`. Empty in authority-form, and in absolute-form without a
    /// path (`http://host`), where it stands for `/`: see [`Head::path_or_root`].
    pub path: Span,
    /// What follows the `?`, perhaps empty; `None` without `?`.
    pub query: Option<Span>,
    /// Host and optional port that the request is for: the authority of an absolute-form or
    /// authority-form target (which overrides `Host`, RFC 9112 §3.2.2), else the `Host` field. It may be
    /// empty in the latter case. `None` only with HTTP/1.0.
    pub host: Option<Span>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Name and value of each field, in order, as received but without the white space around values.
    /// One exception: with an authority in the target, the value of `Host` is that (RFC 9112 §3.2.2).
    pub fields: ArenaSlice<[Span; 2]>,
}

impl Default for Head {
    /// A head of no length: what stands where none was parsed yet.
    fn default() -> Self {
        Head {
            method: Method::Get,
            version: Version::Http11,
            target_form: TargetForm::Origin,
            keep_alive: false,
            expects_continue: false,
            len: 0,
            method_span: Span::default(),
            target: Span::default(),
            path: Span::default(),
            query: None,
            host: None,
            framing: Framing::None,
            fields: ArenaSlice::default(),
        }
    }
}

impl Head {
    /// The value of the first field called `name` (in any case), or `None`. `bytes` are those that were
    /// parsed, wherever they are now; `arena` the one they were parsed into.
    ///
    /// Cost: linear in the number of fields; no allocation.
    #[must_use]
    pub fn header<'a>(&self, bytes: &'a [u8], arena: &Arena, name: &str) -> Option<&'a [u8]> {
        let name = name.as_bytes();
        arena
            .get(self.fields)
            .iter()
            .find(|[field, _]| {
                field.len as usize == name.len() && field.of(bytes).eq_ignore_ascii_case(name)
            })
            .map(|[_, value]| value.of(bytes))
    }

    /// Names and values of all fields, in order.
    pub fn fields<'a>(
        &self,
        bytes: &'a [u8],
        arena: &'a Arena,
    ) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> {
        arena
            .get(self.fields)
            .iter()
            .map(|[name, value]| (name.of(bytes), value.of(bytes)))
    }

    /// The path as received, where the missing path of `http://host` is `/`.
    #[must_use]
    pub fn path_or_root<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if self.path.is_empty() && self.target_form == TargetForm::Absolute {
            b"/"
        } else {
            self.path.of(bytes)
        }
    }
}

/// Why a request head is refused. After any of these the connection cannot be used for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeadError {
    /// The request line, a line end (bare CR or LF), or the empty lines before it are malformed.
    Malformed,
    /// The method is longer than 32 bytes.
    MethodTooLong,
    /// The target has forbidden bytes, a form that its method does not have, or a bad authority.
    TargetInvalid,
    /// The version is not `HTTP/digit.digit`.
    VersionInvalid,
    /// A field name is empty or not a token, is followed by white space, or a line is folded.
    FieldNameInvalid,
    /// A field value has a control byte.
    FieldValueInvalid,
    /// HTTP/1.1 without `Host`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// `Host` is not a host with an optional port.
    HostInvalid,
    /// More than one `Content-Type`.
    ContentTypeRepeated,
    /// `Content-Length` is not a number of 64 bits in digits alone.
    ContentLengthInvalid,
    /// Several `Content-Length` of different values.
    ContentLengthConflict,
    /// `Content-Length` together with `Transfer-Encoding`.
    ContentLengthWithTransferEncoding,
    /// `Transfer-Encoding` is not a list that ends in one `chunked`.
    TransferEncodingInvalid,
    /// `Transfer-Encoding` in HTTP/1.0.
    TransferEncodingInHttp10,
    /// A transfer coding other than `chunked`, before a final `chunked`.
    TransferCodingUnknown,
    /// An expectation other than `100-continue`.
    ExpectationFailed,
    /// The target is over its limit.
    TargetTooLong,
    /// The head is over its limit.
    TooLarge,
    /// A major version other than 1, the HTTP/2 preface included.
    VersionNotSupported,
    /// No memory for the field table.
    OutOfMemory,
}

impl HeadError {
    /// The status that answers it: 400, 414, 417, 431, 501, 503 or 505. A method longer than any that
    /// is known is one that is not implemented (RFC 9112 §3).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::TooLarge => 431,
            Self::TransferCodingUnknown | Self::MethodTooLong => 501,
            Self::OutOfMemory => 503,
            Self::VersionNotSupported => 505,
            Self::Malformed
            | Self::TargetInvalid
            | Self::VersionInvalid
            | Self::FieldNameInvalid
            | Self::FieldValueInvalid
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::ContentTypeRepeated
            | Self::ContentLengthInvalid
            | Self::ContentLengthConflict
            | Self::ContentLengthWithTransferEncoding
            | Self::TransferEncodingInvalid
            | Self::TransferEncodingInHttp10 => 400,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed request line or line end",
            Self::MethodTooLong => "the method is longer than 32 bytes",
            Self::TargetInvalid => "invalid request target",
            Self::VersionInvalid => "malformed HTTP version",
            Self::FieldNameInvalid => {
                "invalid field name, white space before a colon, or a folded line"
            }
            Self::FieldValueInvalid => "control byte in a field value",
            Self::HostMissing => "an HTTP/1.1 request needs a Host field",
            Self::HostRepeated => "more than one Host field",
            Self::HostInvalid => "Host is not a host name or address with an optional port",
            Self::ContentTypeRepeated => "more than one Content-Type field",
            Self::ContentLengthInvalid => "Content-Length is not a number",
            Self::ContentLengthConflict => "Content-Length fields of different values",
            Self::ContentLengthWithTransferEncoding => {
                "Content-Length together with Transfer-Encoding"
            }
            Self::TransferEncodingInvalid => "Transfer-Encoding does not end in one chunked",
            Self::TransferEncodingInHttp10 => "Transfer-Encoding in an HTTP/1.0 request",
            Self::TransferCodingUnknown => "a transfer coding other than chunked",
            Self::ExpectationFailed => "an expectation other than 100-continue",
            Self::TargetTooLong => "the request target is too long",
            Self::TooLarge => "the request head is too large",
            Self::VersionNotSupported => "only HTTP/1.0 and HTTP/1.1 are served here",
            Self::OutOfMemory => "no memory for the request head",
        })
    }
}

impl std::error::Error for HeadError {}

impl From<OutOfMemory> for HeadError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Parses the request head at the start of `bytes`; `Ok(None)` when more bytes are needed. Bytes after
/// the head are not looked at.
///
/// The field table is allocated in `arena` (16 bytes per field), only when the head is complete and
/// accepted so far. There is no limit on the number of fields other than the head's size.
///
/// # Errors
///
/// A [`HeadError`] with its status. Bytes that fill `max_header_size` without an end are refused, so a
/// buffer of that size is enough.
///
/// Cost: one pass by `httparse` and one over the field table; no heap allocation with up to 64 fields
/// and HTTP/1.0 or 1.1. An incomplete head is parsed anew at each call: use [`find_head_end`] to call
/// this again only when the end has come.
pub fn parse_head(
    bytes: &[u8],
    limits: &HeadLimits,
    arena: &mut Arena,
) -> Result<Option<Head>, HeadError> {
    let len_max = limits.max_header_size.min(u32::MAX as usize);
    let window = &bytes[..bytes.len().min(len_max)];
    match parse_window(window, limits, arena) {
        Ok(None) if window.len() == len_max => Err(HeadError::TooLarge),
        result => result,
    }
}

/// Where the head that begins at `bytes[0]` ends, if its end is there: the offset after the first empty
/// line that follows a line. `from` is how many bytes were searched before (0 at first); the search
/// begins a little earlier, so a line end may be split anywhere.
///
/// Empty lines before the request line do not count. What is sure to be refused by [`parse_head`] but
/// would have no end, a head with bare LF line ends or a run of empty lines, is given one. So: call
/// `parse_head` on the first bytes, then again when this finds an end or the size limit is reached.
///
/// Cost: one `memchr` per line.
#[must_use]
pub fn find_head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let blank = bytes
        .iter()
        .take_while(|&&b| b == b'\r' || b == b'\n')
        .count();
    if blank > 2 * BLANK_LINES_MAX + 1 {
        return Some(blank);
    }
    let begin = from.saturating_sub(3).max(blank);
    let searched = bytes.get(begin..)?;
    memchr_iter(b'\n', searched).find_map(|at| match &searched[at + 1..] {
        [b'\n', ..] => Some(begin + at + 2),
        [b'\r', b'\n', ..] => Some(begin + at + 3),
        _ => None,
    })
}

/// Whether a field's name has an underscore: CGI and WSGI give it the same name as one with a hyphen.
#[must_use]
pub fn is_ambiguous_name(name: &[u8]) -> bool {
    memchr(b'_', name).is_some()
}

type Fields<'h, 'b> = &'h [httparse::Header<'b>];

fn parse_window(
    window: &[u8],
    limits: &HeadLimits,
    arena: &mut Arena,
) -> Result<Option<Head>, HeadError> {
    let Some(start) = skip_blank_lines(window)? else {
        return Ok(None);
    };
    let input = &window[start..];
    let mut table = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(input, &mut table) {
        Ok(httparse::Status::Complete(len)) => {
            finish(&window[..start + len], start, &request, limits, arena).map(Some)
        }
        Ok(httparse::Status::Partial) => check_partial(input, limits).map(|()| None),
        Err(httparse::Error::TooManyHeaders) => parse_many(window, start, limits, arena),
        Err(httparse::Error::Version) => parse_other_version(window, start, limits, arena),
        Err(error) => Err(from_httparse(error)),
    }
}

/// Where the request line begins, or `None` if that is not there yet.
fn skip_blank_lines(window: &[u8]) -> Result<Option<usize>, HeadError> {
    for line in 0..=BLANK_LINES_MAX {
        match &window[line * 2..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => {}
            [b'\r' | b'\n', ..] => return Err(HeadError::Malformed),
            _ => return Ok(Some(line * 2)),
        }
    }
    Err(HeadError::Malformed)
}

fn from_httparse(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::FieldNameInvalid,
        httparse::Error::HeaderValue => HeadError::FieldValueInvalid,
        httparse::Error::Version => HeadError::VersionInvalid,
        _ => HeadError::Malformed,
    }
}

/// Refuses an incomplete head of which the method or the target is too long already.
fn check_partial(input: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
    let Some(method_len) = memchr(b' ', &input[..input.len().min(METHOD_LEN_MAX + 1)]) else {
        return if input.len() > METHOD_LEN_MAX {
            Err(HeadError::MethodTooLong)
        } else {
            Ok(())
        };
    };
    let rest = &input[method_len + 1..];
    if rest.len() > limits.max_target_size
        && memchr(b' ', &rest[..=limits.max_target_size]).is_none()
    {
        return Err(HeadError::TargetTooLong);
    }
    Ok(())
}

/// The cold path of more fields than the table on the stack holds: as many as there are lines.
#[cold]
#[inline(never)]
fn parse_many(
    window: &[u8],
    start: usize,
    limits: &HeadLimits,
    arena: &mut Arena,
) -> Result<Option<Head>, HeadError> {
    let input = &window[start..];
    let head_len = find_head_end(input, 0).unwrap_or(input.len());
    let lines = memchr_iter(b'\n', &input[..head_len]).count();
    let mut table = Vec::new();
    table
        .try_reserve_exact(lines)
        .map_err(|_| HeadError::OutOfMemory)?;
    table.resize_with(lines, MaybeUninit::uninit);
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(input, &mut table) {
        Ok(httparse::Status::Complete(len)) => {
            finish(&window[..start + len], start, &request, limits, arena).map(Some)
        }
        Ok(httparse::Status::Partial) => check_partial(input, limits).map(|()| None),
        Err(error) => Err(from_httparse(error)),
    }
}

/// The cold path of a version that `httparse` does not know: 1.2 to 1.9 are parsed as 1.1 in a patched
/// copy (offsets are the same), other major versions are refused by their own status.
#[cold]
#[inline(never)]
fn parse_other_version(
    window: &[u8],
    start: usize,
    limits: &HeadLimits,
    arena: &mut Arena,
) -> Result<Option<Head>, HeadError> {
    const PATTERN: &[u8; 10] = b"HTTP/0.0\r\n";
    let input = &window[start..];
    // The method and the target were accepted: both end in a space.
    let mut spaces = memchr_iter(b' ', input);
    let (Some(_), Some(space)) = (spaces.next(), spaces.next()) else {
        return Err(HeadError::Malformed);
    };
    let version = &input[space + 1..];
    for (&expected, &b) in PATTERN.iter().zip(version) {
        let matches = if expected == b'0' {
            b.is_ascii_digit()
        } else {
            b == expected
        };
        if !matches {
            return Err(HeadError::VersionInvalid);
        }
    }
    if version.len() < PATTERN.len() {
        return check_partial(input, limits).map(|()| None);
    }
    if version[5] != b'1' {
        return Err(HeadError::VersionNotSupported);
    }
    let mut copy = Vec::new();
    copy.try_reserve_exact(window.len())
        .map_err(|_| HeadError::OutOfMemory)?;
    copy.extend_from_slice(window);
    copy[start + space + 1 + 7] = b'1';
    parse_window(&copy, limits, arena)
}

/// Checks a head that `httparse` found complete, and makes offsets of it. `head` ends where the head ends.
fn finish(
    head: &[u8],
    start: usize,
    request: &httparse::Request<'_, '_>,
    limits: &HeadLimits,
    arena: &mut Arena,
) -> Result<Head, HeadError> {
    let (Some(method_text), Some(target_text), Some(minor)) =
        (request.method, request.path, request.version)
    else {
        return Err(HeadError::Malformed);
    };
    if method_text.len() > METHOD_LEN_MAX {
        return Err(HeadError::MethodTooLong);
    }
    if target_text.len() > limits.max_target_size {
        return Err(HeadError::TargetTooLong);
    }
    // Each field checks the line end before it; this is the last line's, and that of the empty line.
    if !head.ends_with(b"\r\n\r\n") {
        return Err(HeadError::Malformed);
    }
    let method = Method::from_bytes(method_text.as_bytes());
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let target_at = start + method_text.len() + 1;
    let target = Target::parse(target_text.as_bytes(), target_at, method)?;

    let mut facts = Facts::default();
    let empty = [Span::default(); 2];
    // A window is never longer than `u32::MAX`, so all offsets fit a span.
    let fields = match request.headers.len() {
        count if count <= FIELDS_USUAL => collect(
            head,
            request.headers,
            &mut [empty; FIELDS_USUAL],
            &mut facts,
            arena,
        ),
        count if count <= FIELDS_ON_STACK => collect(
            head,
            request.headers,
            &mut [empty; FIELDS_ON_STACK],
            &mut facts,
            arena,
        ),
        count => {
            let mut table = Vec::new();
            table
                .try_reserve_exact(count)
                .map_err(|_| HeadError::OutOfMemory)?;
            table.resize(count, empty);
            collect(head, request.headers, &mut table, &mut facts, arena)
        }
    }?;

    facts.check_host(version)?;
    // RFC 9112 §3.2.2: what `Host` says is ignored then, so nobody above gets to see it.
    if let (Some(authority), Some(host)) = (target.authority, facts.host) {
        let table = arena.get_mut(fields);
        for [_, value] in table.iter_mut().filter(|[_, value]| *value == host) {
            *value = authority;
        }
    }
    let framing = facts.framing(version)?;
    let expects_continue = facts.expects_continue(version)?;
    Ok(Head {
        method,
        version,
        target_form: target.form,
        keep_alive: !facts.close && (version == Version::Http11 || facts.keep_alive),
        expects_continue,
        len: head.len() as u32,
        method_span: Span::new(start, target_at - 1),
        target: Span::new(target_at, target_at + target_text.len()),
        path: target.path,
        query: target.query,
        host: target.authority.or(facts.host),
        framing,
        fields,
    })
}

/// Notes what the fields say and puts their spans into the arena, by way of `table`.
fn collect(
    head: &[u8],
    fields: Fields<'_, '_>,
    table: &mut [[Span; 2]],
    facts: &mut Facts,
    arena: &mut Arena,
) -> Result<ArenaSlice<[Span; 2]>, HeadError> {
    let origin = head.as_ptr().addr();
    let table = &mut table[..fields.len()];
    for (field, entry) in fields.iter().zip(table.iter_mut()) {
        let name_at = field.name.as_ptr().addr() - origin;
        let value_at = field.value.as_ptr().addr() - origin;
        // `httparse` ends a line at CRLF or at LF, and takes CR nowhere else.
        if !head[..name_at].ends_with(b"\r\n") {
            return Err(HeadError::Malformed);
        }
        let value = Span::new(value_at, value_at + field.value.len());
        facts.note(field.name.as_bytes(), field.value, value)?;
        *entry = [Span::new(name_at, name_at + field.name.len()), value];
    }
    Ok(arena.alloc_copy(table)?)
}

/// What the fields say about framing, connection and host, collected field by field.
#[derive(Default)]
struct Facts {
    host: Option<Span>,
    has_content_type: bool,
    content_length: Option<u64>,
    has_transfer_encoding: bool,
    /// Whether the last transfer coding so far is `chunked`.
    is_chunked: bool,
    has_unknown_coding: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    expects_other: bool,
    /// Errors kept until all lines are read, because HTTP/1.0 or a worse error changes the answer.
    transfer_encoding_invalid: bool,
}

impl Facts {
    #[inline]
    fn note(&mut self, name: &[u8], value: &[u8], span: Span) -> Result<(), HeadError> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.note_host(value, span),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                // A list, of which empty elements are ignored (RFC 9110 §5.6.1.2).
                for expectation in value.split(|&b| b == b',').map(trim_ows) {
                    let is_continue = expectation.eq_ignore_ascii_case(b"100-continue");
                    self.expects_continue |= is_continue;
                    self.expects_other |= !is_continue && !expectation.is_empty();
                }
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|&b| b == b',').map(trim_ows) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                Ok(())
            }
            12 if name.eq_ignore_ascii_case(b"content-type") => self.note_content_type(),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.note_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.note_transfer_encoding(value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn note_host(&mut self, value: &[u8], span: Span) -> Result<(), HeadError> {
        if self.host.is_some() {
            return Err(HeadError::HostRepeated);
        }
        if Authority::parse(value).is_none() {
            return Err(HeadError::HostInvalid);
        }
        self.host = Some(span);
        Ok(())
    }

    /// RFC 9110 §8.3: one value; of two, who checks and who reads the content may each take another.
    fn note_content_type(&mut self) -> Result<(), HeadError> {
        if std::mem::replace(&mut self.has_content_type, true) {
            return Err(HeadError::ContentTypeRepeated);
        }
        Ok(())
    }

    /// RFC 9110 §8.6: digits. A list of equal values, which a recipient may accept, is refused.
    fn note_content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        let length = parse_digits(value).ok_or(HeadError::ContentLengthInvalid)?;
        match self.content_length.replace(length) {
            Some(before) if before != length => Err(HeadError::ContentLengthConflict),
            _ => Ok(()),
        }
    }

    /// RFC 9112 §6.1. Several lines are one list; each element must be a coding, and `chunked` the last.
    fn note_transfer_encoding(&mut self, value: &[u8]) {
        self.has_transfer_encoding = true;
        for coding in value.split(|&b| b == b',').map(trim_ows) {
            // Nothing may follow chunked, not even a second one.
            self.transfer_encoding_invalid |= self.is_chunked;
            if coding.eq_ignore_ascii_case(b"chunked") {
                self.is_chunked = true;
                continue;
            }
            let name = trim_ows(coding.split(|&b| b == b';').next().unwrap_or_default());
            let is_other = !name.is_empty()
                && name.iter().all(|&b| is_token(b))
                && !name.eq_ignore_ascii_case(b"chunked");
            self.has_unknown_coding |= is_other;
            self.transfer_encoding_invalid |= !is_other;
        }
    }

    fn check_host(&self, version: Version) -> Result<(), HeadError> {
        match self.host {
            None if version == Version::Http11 => Err(HeadError::HostMissing),
            _ => Ok(()),
        }
    }

    fn framing(&self, version: Version) -> Result<Framing, HeadError> {
        if !self.has_transfer_encoding {
            return Ok(self.content_length.map_or(Framing::None, Framing::Length));
        }
        if self.content_length.is_some() {
            return Err(HeadError::ContentLengthWithTransferEncoding);
        }
        if version == Version::Http10 {
            return Err(HeadError::TransferEncodingInHttp10);
        }
        if self.transfer_encoding_invalid || !self.is_chunked {
            return Err(HeadError::TransferEncodingInvalid);
        }
        if self.has_unknown_coding {
            return Err(HeadError::TransferCodingUnknown);
        }
        Ok(Framing::Chunked)
    }

    /// RFC 9110 §10.1.1: an expectation in an HTTP/1.0 request is ignored.
    fn expects_continue(&self, version: Version) -> Result<bool, HeadError> {
        match version {
            Version::Http10 => Ok(false),
            Version::Http11 if self.expects_other => Err(HeadError::ExpectationFailed),
            Version::Http11 => Ok(self.expects_continue),
        }
    }
}

/// A number in decimal digits alone, of 64 bits.
fn parse_digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The parts of a request target, as spans of the head.
struct Target {
    form: TargetForm,
    path: Span,
    query: Option<Span>,
    authority: Option<Span>,
}

impl Target {
    /// RFC 9112 §3.2. `at` is where `text` begins in the head.
    fn parse(text: &[u8], at: usize, method: Method) -> Result<Self, HeadError> {
        // RFC 3986 knows visible ASCII only, and a fragment is never sent. A
        // fold, not `all`, so that the compiler may take many bytes at once.
        let is_clean = text.iter().fold(true, |clean, &b| {
            clean & matches!(b, 0x21..=0x7e) & (b != b'#')
        });
        if !is_clean {
            return Err(HeadError::TargetInvalid);
        }
        let end = at + text.len();
        if method == Method::Connect {
            return match Authority::parse(text) {
                Some(authority) if authority.has_host && authority.has_port => Ok(Self {
                    form: TargetForm::Authority,
                    path: Span::new(at, at),
                    query: None,
                    authority: Some(Span::new(at, end)),
                }),
                _ => Err(HeadError::TargetInvalid),
            };
        }
        if text.first() == Some(&b'/') {
            return Ok(Self::with_path(TargetForm::Origin, text, at, None));
        }
        if text == b"*" && method == Method::Options {
            return Ok(Self {
                form: TargetForm::Asterisk,
                path: Span::new(at, end),
                query: None,
                authority: None,
            });
        }
        let scheme_len = [&b"http://"[..], b"https://"]
            .iter()
            .find(|scheme| {
                text.get(..scheme.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            })
            .map(|scheme| scheme.len())
            .ok_or(HeadError::TargetInvalid)?;
        let after = &text[scheme_len..];
        let authority_len = memchr2(b'/', b'?', after).unwrap_or(after.len());
        // RFC 9110 §4.2.1: an http URI with an empty host is invalid.
        match Authority::parse(&after[..authority_len]) {
            Some(authority) if authority.has_host => {}
            _ => return Err(HeadError::TargetInvalid),
        }
        let authority_at = at + scheme_len;
        let path_at = authority_at + authority_len;
        let authority = Some(Span::new(authority_at, path_at));
        Ok(Self::with_path(
            TargetForm::Absolute,
            &after[authority_len..],
            path_at,
            authority,
        ))
    }

    fn with_path(form: TargetForm, text: &[u8], at: usize, authority: Option<Span>) -> Self {
        let end = at + text.len();
        let mark = memchr(b'?', text).map(|mark| at + mark);
        Self {
            form,
            path: Span::new(at, mark.unwrap_or(end)),
            query: mark.map(|mark| Span::new(mark + 1, end)),
            authority,
        }
    }
}

/// A host with an optional port (RFC 3986 §3.2 without user information, RFC 9110 §7.2).
struct Authority {
    has_host: bool,
    /// Whether there is a port, and it is not blank.
    has_port: bool,
}

impl Authority {
    fn parse(text: &[u8]) -> Option<Self> {
        let (host_len, port) = if let [b'[', address @ ..] = text {
            let close = memchr(b']', address)?;
            std::str::from_utf8(&address[..close])
                .ok()?
                .parse::<Ipv6Addr>()
                .ok()?;
            match &address[close + 1..] {
                [] => (close + 2, None),
                [b':', port @ ..] => (close + 2, Some(port)),
                _ => return None,
            }
        } else {
            let host_len = memchr(b':', text).unwrap_or(text.len());
            if !is_registered_name(&text[..host_len]) {
                return None;
            }
            (host_len, text.get(host_len + 1..))
        };
        let has_port = match port {
            None | Some([]) => false,
            Some(port) if port.len() <= 5 && parse_digits(port)? <= 65_535 => true,
            Some(_) => return None,
        };
        Some(Self {
            has_host: host_len > 0,
            has_port,
        })
    }
}

fn is_registered_name(mut name: &[u8]) -> bool {
    loop {
        match name {
            [] => return true,
            [b'%', rest @ ..] if hex_pair(rest).is_some() => name = &rest[2..],
            [b, rest @ ..] if is_reg_name(*b) => name = rest,
            _ => return false,
        }
    }
}

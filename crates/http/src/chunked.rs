//! The chunked transfer coding (RFC 9112 §7.1), decoded in place, byte by byte strict.
//!
//! Purpose: [`ChunkedDecoder`] takes the raw bytes of a body as they arrive, split anywhere, and moves
//! the data together, so that the body ends up contiguous in the buffer it was received into.
//!
//! ```text
//!        ┌────────────── digits ──────────────┐
//!   Size ┤                                    ├─ CR ─> SizeLf ─ LF ─> Data ─> DataCr ─> DataLf ─> Size
//!        └─ ';' ─> Extension ── its grammar ──┘           │ size 0
//!                                                         v
//!   Done <─ LF ─ EndLf <─ CR ─ TrailerStart ─ token ─> TrailerName ─ ':' ─> TrailerValue ─ CR ─> TrailerLf
//!                                   ^──────────────────────────────────────────────────── LF ─────┘
//! ```
//!
//! Invariants: every byte given is consumed at once, unless the body ends or is refused before it; after
//! an error the decoder stays refused; it never reads or writes outside `buf[decoded..]`; the state does
//! not depend on where the input was split.
//!
//! An extension is dropped, and yet read to the letter: for a reader to whom a quoted string goes on over the
//! end of its line, the body would end elsewhere.
//!
//! What it does not do: trailer fields are checked and dropped, extensions are checked and dropped; it
//! owns no bytes; it does not limit how many chunks make a body, only their sum.

use std::fmt;

use crate::bytes::{hex_value, is_field_value, is_token};

/// The most digits of a chunk size: 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Fields that must not be sent as trailers (RFC 9110 §6.5.1): framing, routing, request modifiers,
/// authentication, and what says how to read the content. In lower case; the index is a bit number.
const FORBIDDEN_TRAILERS: [&[u8]; 24] = [
    b"age",
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"host",
    b"keep-alive",
    b"max-forwards",
    b"pragma",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"via",
];

/// All forbidden names, while none of a name's bytes is read.
const ALL_FORBIDDEN: u32 = (1 << FORBIDDEN_TRAILERS.len()) - 1;

/// Limits of a chunked body, in bytes. What is exactly as long as its limit passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkedLimits {
    /// The longest body, decoded; a longer one is answered by 413.
    pub max_body: u64,
    /// The longest extension of one chunk, its first `;` included; a longer one is answered by 400.
    pub max_extension: usize,
    /// The longest extensions of all chunks of a body together (RFC 9112 §7.1.1 asks for such a limit);
    /// longer ones are answered by 400.
    pub max_extensions: usize,
    /// The longest trailer section, line ends included but not the empty line after it; a longer one is
    /// answered by 431.
    pub max_trailer: usize,
}

impl Default for ChunkedLimits {
    /// 1 MiB of body, 256 bytes of extension per chunk and 16 KiB for all, 8 KiB of trailers.
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            max_extension: 256,
            max_extensions: 16 * 1024,
            max_trailer: 8192,
        }
    }
}

/// Why a chunked body is refused. After any of these the connection cannot be used for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChunkedError {
    /// A chunk size is not 1 to 16 hexadecimal digits alone.
    BadChunkSize,
    /// A chunk extension is not as RFC 9112 §7.1.1 has it.
    BadExtension,
    /// A chunk extension, or all of them together, is over its limit.
    ExtensionTooLong,
    /// A line, or the data of a chunk, does not end in CRLF.
    BadLineEnd,
    /// A trailer is not a field, or has a control byte.
    BadTrailer,
    /// A trailer has the name of a field that must not be one.
    ForbiddenTrailer,
    /// The trailer section is over its limit.
    TrailerTooLarge,
    /// The body is over its limit.
    TooLarge,
}

impl ChunkedError {
    /// The status that answers it: 413 for the body's limit, 431 for the trailers', else 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::TrailerTooLarge => 431,
            Self::BadChunkSize
            | Self::BadExtension
            | Self::ExtensionTooLong
            | Self::BadLineEnd
            | Self::BadTrailer
            | Self::ForbiddenTrailer => 400,
        }
    }
}

impl fmt::Display for ChunkedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadChunkSize => "a chunk size is not 1 to 16 hexadecimal digits",
            Self::BadExtension => "malformed chunk extension",
            Self::ExtensionTooLong => "a chunk extension is too long",
            Self::BadLineEnd => "CRLF is missing in a chunked body",
            Self::BadTrailer => "malformed trailer field",
            Self::ForbiddenTrailer => "a trailer field of a name that must not be one",
            Self::TrailerTooLarge => "the trailer section is too large",
            Self::TooLarge => "the request body is too large",
        })
    }
}

impl std::error::Error for ChunkedError {}

/// How far a call of [`ChunkedDecoder::decode`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The new end of the decoded bytes.
    pub decoded: usize,
    /// The new raw position: everything before it was taken. What lies between `decoded` and here is
    /// garbage, and may be closed. It is the end of the buffer unless `done`, and then what follows
    /// belongs to the next request.
    pub consumed: usize,
    /// Whether the body is complete, trailers included.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(ChunkedError),
}

/// Where in an extension: `;name=value`, with white space around `;` and `=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// Behind `;`.
    Start,
    Name,
    /// Behind a name and white space.
    NameEnd,
    /// Behind `=`.
    Equals,
    Value,
    Quoted,
    /// Behind a backslash in quotes.
    Escaped,
    /// Behind closing quotes.
    QuotedEnd,
    /// Behind a value and white space.
    ValueEnd,
}

impl Extension {
    /// Whether the line may end here.
    fn is_complete(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::QuotedEnd)
    }

    /// What comes with `byte`, which ends no line; `None` if it has no place here.
    fn step(self, byte: u8) -> Option<Self> {
        let is_white = matches!(byte, b' ' | b'\t');
        match self {
            Self::Quoted => match byte {
                b'"' => Some(Self::QuotedEnd),
                b'\\' => Some(Self::Escaped),
                byte => is_field_value(byte).then_some(Self::Quoted),
            },
            Self::Escaped => is_field_value(byte).then_some(Self::Quoted),
            Self::Start | Self::Equals if is_white => Some(self),
            Self::Start => is_token(byte).then_some(Self::Name),
            Self::Equals if byte == b'"' => Some(Self::Quoted),
            Self::Equals => is_token(byte).then_some(Self::Value),
            _ if byte == b';' => Some(Self::Start),
            Self::Name | Self::NameEnd if is_white => Some(Self::NameEnd),
            Self::Name | Self::NameEnd if byte == b'=' => Some(Self::Equals),
            Self::Value | Self::QuotedEnd | Self::ValueEnd if is_white => Some(Self::ValueEnd),
            Self::Name | Self::Value => is_token(byte).then_some(self),
            Self::NameEnd | Self::QuotedEnd | Self::ValueEnd => None,
        }
    }
}

/// The state of a chunked body. Small (at most 40 bytes), without a buffer of its own.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    /// What the body may still grow by, the current chunk excluded from the moment its size is known.
    body_left: u64,
    /// The size being read, then what is missing of the chunk.
    chunk_left: u64,
    extension_max: u32,
    extensions_left: u32,
    trailer_left: u32,
    /// Bytes of the current extension, or of the current trailer's name.
    line_len: u32,
    /// The forbidden trailer names that agree with the name so far.
    forbidden: u32,
    digits: u8,
    state: State,
}

const _: () = assert!(size_of::<ChunkedDecoder>() <= 40);

impl ChunkedDecoder {
    /// A decoder at the start of a body. The limits for extensions and trailers are capped at `u32::MAX`.
    #[must_use]
    pub fn new(limits: ChunkedLimits) -> Self {
        Self {
            body_left: limits.max_body,
            chunk_left: 0,
            extension_max: u32::try_from(limits.max_extension).unwrap_or(u32::MAX),
            extensions_left: u32::try_from(limits.max_extensions).unwrap_or(u32::MAX),
            trailer_left: u32::try_from(limits.max_trailer).unwrap_or(u32::MAX),
            line_len: 0,
            forbidden: 0,
            digits: 0,
            state: State::Size,
        }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes `buf[raw..]` to `buf[decoded..]`. What lies before `decoded` (the head, the body so far)
    /// is not touched; the caller may also take the body away between two calls, since no position is
    /// remembered.
    ///
    /// # Errors
    ///
    /// A [`ChunkedError`]; the bytes from `decoded` on are unspecified then, and further calls return
    /// the same error.
    ///
    /// # Panics
    ///
    /// Unless `decoded <= raw <= buf.len()`.
    ///
    /// Cost: linear in the bytes given; data is moved at most once, and not at all while
    /// `decoded == raw`. No allocation.
    pub fn decode(
        &mut self,
        buf: &mut [u8],
        decoded: usize,
        raw: usize,
    ) -> Result<Progress, ChunkedError> {
        assert!(
            decoded <= raw && raw <= buf.len(),
            "positions of a chunked body out of order"
        );
        let mut decoded = decoded;
        let mut consumed = raw;
        while consumed < buf.len() && self.state != State::Done {
            if self.state == State::Data {
                let available = buf.len() - consumed;
                let len = usize::try_from(self.chunk_left)
                    .unwrap_or(usize::MAX)
                    .min(available);
                if consumed != decoded {
                    buf.copy_within(consumed..consumed + len, decoded);
                }
                decoded += len;
                consumed += len;
                self.chunk_left -= len as u64;
                if self.chunk_left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            if let Some(len) = self.short_line(&buf[consumed..]) {
                consumed += len;
                continue;
            }
            match self.step(buf[consumed]) {
                Ok(next) => self.state = next,
                Err(error) => self.state = State::Failed(error),
            }
            consumed += 1;
            if let State::Failed(error) = self.state {
                return Err(error);
            }
        }
        match self.state {
            State::Failed(error) => Err(error),
            state => Ok(Progress {
                decoded,
                consumed,
                done: state == State::Done,
            }),
        }
    }

    /// What tiny chunks are made of, taken at once when it is there as a whole and good: the line end
    /// behind data and a size line of one digit. Says how many bytes it is; all else goes byte by byte.
    #[inline]
    fn short_line(&mut self, bytes: &[u8]) -> Option<usize> {
        match (self.state, bytes) {
            (State::DataCr, [b'\r', b'\n', ..]) => {
                self.digits = 0;
                self.state = State::Size;
                Some(2)
            }
            (State::Size, [digit, b'\r', b'\n', ..]) if self.digits == 0 => {
                let size = u64::from(hex_value(*digit)?);
                if size == 0 || size > self.body_left {
                    return None;
                }
                self.chunk_left = size;
                self.body_left -= size;
                self.state = State::Data;
                Some(3)
            }
            _ => None,
        }
    }

    /// Takes one byte outside chunk data.
    fn step(&mut self, byte: u8) -> Result<State, ChunkedError> {
        match self.state {
            State::Size => self.step_size(byte),
            State::Extension(at) => match byte {
                b'\r' if at.is_complete() => Ok(State::SizeLf),
                b'\n' => Err(ChunkedError::BadLineEnd),
                byte => {
                    let next = at.step(byte).ok_or(ChunkedError::BadExtension)?;
                    self.count_extension(next)
                }
            },
            State::SizeLf => {
                expect(byte, b'\n')?;
                self.begin_chunk()
            }
            State::DataCr => expect(byte, b'\r').map(|()| State::DataLf),
            State::DataLf => {
                expect(byte, b'\n')?;
                self.digits = 0;
                Ok(State::Size)
            }
            State::TrailerStart if byte == b'\r' => Ok(State::EndLf),
            State::TrailerStart => {
                self.line_len = 0;
                self.forbidden = ALL_FORBIDDEN;
                self.step_trailer_name(byte)
            }
            State::TrailerName => self.step_trailer_name(byte),
            State::TrailerValue => {
                self.count_trailer()?;
                match byte {
                    b'\r' => Ok(State::TrailerLf),
                    b'\n' => Err(ChunkedError::BadLineEnd),
                    byte if is_field_value(byte) => Ok(State::TrailerValue),
                    _ => Err(ChunkedError::BadTrailer),
                }
            }
            State::TrailerLf => {
                self.count_trailer()?;
                expect(byte, b'\n').map(|()| State::TrailerStart)
            }
            State::EndLf => expect(byte, b'\n').map(|()| State::Done),
            State::Failed(error) => Err(error),
            // Data is moved as a whole by `decode`, which also stops at the end.
            State::Data | State::Done => Ok(self.state),
        }
    }

    fn step_size(&mut self, byte: u8) -> Result<State, ChunkedError> {
        if let Some(digit) = hex_value(byte) {
            if self.digits == SIZE_DIGITS_MAX {
                return Err(ChunkedError::BadChunkSize);
            }
            self.digits += 1;
            // At most 16 digits: nothing is shifted out.
            self.chunk_left = self.chunk_left << 4 | u64::from(digit);
            return Ok(State::Size);
        }
        match byte {
            _ if self.digits == 0 => Err(ChunkedError::BadChunkSize),
            b'\r' => Ok(State::SizeLf),
            b';' => {
                self.line_len = 0;
                self.count_extension(Extension::Start)
            }
            b'\n' => Err(ChunkedError::BadLineEnd),
            _ => Err(ChunkedError::BadChunkSize),
        }
    }

    /// The end of a size line.
    fn begin_chunk(&mut self) -> Result<State, ChunkedError> {
        if self.chunk_left == 0 {
            return Ok(State::TrailerStart);
        }
        self.body_left = self
            .body_left
            .checked_sub(self.chunk_left)
            .ok_or(ChunkedError::TooLarge)?;
        Ok(State::Data)
    }

    fn step_trailer_name(&mut self, byte: u8) -> Result<State, ChunkedError> {
        self.count_trailer()?;
        let at = self.line_len as usize;
        if byte == b':' && at > 0 {
            let is_forbidden = candidates(self.forbidden).any(|name| name.len() == at);
            return if is_forbidden {
                Err(ChunkedError::ForbiddenTrailer)
            } else {
                Ok(State::TrailerValue)
            };
        }
        if !is_token(byte) {
            return Err(ChunkedError::BadTrailer);
        }
        let byte = byte.to_ascii_lowercase();
        let mut agreeing = 0;
        if self.forbidden != 0 {
            for (bit, name) in FORBIDDEN_TRAILERS.iter().enumerate() {
                agreeing |= u32::from(name.get(at) == Some(&byte)) << bit;
            }
        }
        self.forbidden &= agreeing;
        self.line_len += 1;
        Ok(State::TrailerName)
    }

    fn count_extension(&mut self, next: Extension) -> Result<State, ChunkedError> {
        if self.line_len == self.extension_max {
            return Err(ChunkedError::ExtensionTooLong);
        }
        self.line_len += 1;
        self.extensions_left = self
            .extensions_left
            .checked_sub(1)
            .ok_or(ChunkedError::ExtensionTooLong)?;
        Ok(State::Extension(next))
    }

    fn count_trailer(&mut self) -> Result<(), ChunkedError> {
        self.trailer_left = self
            .trailer_left
            .checked_sub(1)
            .ok_or(ChunkedError::TrailerTooLarge)?;
        Ok(())
    }
}

fn expect(byte: u8, wanted: u8) -> Result<(), ChunkedError> {
    if byte == wanted {
        Ok(())
    } else {
        Err(ChunkedError::BadLineEnd)
    }
}

/// The forbidden trailer names whose bit is set.
fn candidates(bits: u32) -> impl Iterator<Item = &'static [u8]> {
    FORBIDDEN_TRAILERS
        .into_iter()
        .enumerate()
        .filter(move |(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, name)| name)
}

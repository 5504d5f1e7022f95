//! Decoding of request targets: percent-encoding (RFC 3986 §2.1) and the query
//! (application/x-www-form-urlencoded, WHATWG URL §5.1).
//!
//! Invariants: text without an escape is borrowed, never copied; what cannot be decoded to UTF-8 is an
//! error in a path (a route must not match by accident) and replaced in a query. A decoded NUL is an
//! error in a path.
//!
//! What it does not do: dot segments and double slashes are left as they are; nothing is normalised.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};

use crate::bytes::hex_pair;

/// A path that cannot be decoded: a `%` without two hexadecimal digits, text that is not UTF-8, or a
/// NUL. Answered by 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEncoding;

impl BadEncoding {
    /// The status that answers it: 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        400
    }
}

impl fmt::Display for BadEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the path has a bad percent-encoding, a NUL, or is not UTF-8")
    }
}

impl std::error::Error for BadEncoding {}

/// The whole path, percent-decoded.
///
/// # Errors
///
/// [`BadEncoding`] for an incomplete or non-hexadecimal escape, a NUL, or a result that is not UTF-8.
///
/// Cost: one pass; allocates once when there is an escape, never otherwise.
pub fn decode_path(raw: &[u8]) -> Result<Cow<'_, str>, BadEncoding> {
    decode_except(raw, |_| false)
}

/// The path percent-decoded, but for `%2F` and `%25`, which stay (in upper case), so that an encoded
/// slash does not split a segment and the rest can be told apart later: [`decode_param`] decodes it.
///
/// # Errors
///
/// As for [`decode_path`].
///
/// Cost: one pass; allocates once when there is an escape, never otherwise.
pub fn decode_for_routing(raw: &[u8]) -> Result<Cow<'_, str>, BadEncoding> {
    decode_except(raw, |byte| byte == b'/' || byte == b'%')
}

/// A parameter cut out of a path from [`decode_for_routing`], with its `%2F` and `%25` decoded. Anything
/// else stays as it is: it is decoded already.
///
/// Cost: allocates once when there is such an escape, never otherwise.
#[must_use]
pub fn decode_param(param: &str) -> Cow<'_, str> {
    if memchr(b'%', param.as_bytes()).is_none() {
        return Cow::Borrowed(param);
    }
    let mut out = String::with_capacity(param.len());
    let mut rest = param;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("%2F") {
            out.push('/');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("%25") {
            out.push('%');
            rest = after;
        } else {
            out.push('%');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn decode_except(raw: &[u8], stays: impl Fn(u8) -> bool) -> Result<Cow<'_, str>, BadEncoding> {
    if memchr2(b'%', 0, raw).is_none() {
        return std::str::from_utf8(raw)
            .map(Cow::Borrowed)
            .map_err(|_| BadEncoding);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr2(b'%', 0, rest) {
        if rest[at] == 0 {
            return Err(BadEncoding);
        }
        out.extend_from_slice(&rest[..at]);
        let byte = hex_pair(&rest[at + 1..]).ok_or(BadEncoding)?;
        match byte {
            0 => return Err(BadEncoding),
            byte if stays(byte) => {
                out.push(b'%');
                out.extend(rest[at + 1..at + 3].iter().map(u8::to_ascii_uppercase));
            }
            byte => out.push(byte),
        }
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    String::from_utf8(out)
        .map(Cow::Owned)
        .map_err(|_| BadEncoding)
}

/// The pairs of a query, in order: split at `&` (only), name and value at the first `=`, `+` is a
/// space, escapes decoded, a bad escape left as it is, bad UTF-8 replaced by U+FFFD. Empty pieces are
/// skipped; a name without value, or with a blank one, is kept.
///
/// `raw` is what follows the `?`, or a form body. Cost: lazy; a part without `+` and `%` is borrowed.
pub fn query_pairs(raw: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    raw.split(|&b| b == b'&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let (name, value) = match memchr(b'=', piece) {
                Some(at) => (&piece[..at], &piece[at + 1..]),
                None => (piece, &piece[piece.len()..]),
            };
            (decode_form(name), decode_form(value))
        })
}

fn decode_form(raw: &[u8]) -> Cow<'_, str> {
    if memchr2(b'%', b'+', raw).is_none() {
        return String::from_utf8_lossy(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr2(b'%', b'+', rest) {
        out.extend_from_slice(&rest[..at]);
        let after = &rest[at + 1..];
        rest = match (rest[at], hex_pair(after)) {
            (b'%', Some(byte)) => {
                out.push(byte);
                &after[2..]
            }
            (b'%', None) => {
                out.push(b'%');
                after
            }
            _ => {
                out.push(b' ');
                after
            }
        };
    }
    out.extend_from_slice(rest);
    let text = String::from_utf8(out)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Cow::Owned(text)
}

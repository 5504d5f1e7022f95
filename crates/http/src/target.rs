//! Decoding of request targets: percent-encoding (RFC 3986 §2.1) and the query
//! (application/x-www-form-urlencoded, WHATWG URL §5.1).
//!
//! Invariants: text without an escape is borrowed, never copied; decoded text lies in a buffer of the
//! caller's, which is used again and again; what cannot be decoded to UTF-8 is an
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

/// The whole path, percent-decoded. `scratch` is overwritten if there is an escape.
///
/// # Errors
///
/// [`BadEncoding`] for an incomplete or non-hexadecimal escape, a NUL, or a result that is not UTF-8.
///
/// Cost: one pass; allocates only where `scratch` is too small.
pub fn decode_path<'a>(raw: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a str, BadEncoding> {
    decode_except(raw, scratch, |_| false)
}

/// The path percent-decoded, but for `%2F` and `%25`, which stay (in upper case), so that an encoded
/// slash does not split a segment and the rest can be told apart later: [`decode_param`] decodes it.
///
/// # Errors
///
/// As for [`decode_path`], and at the same cost.
pub fn decode_for_routing<'a>(
    raw: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<&'a str, BadEncoding> {
    decode_except(raw, scratch, |byte| byte == b'/' || byte == b'%')
}

/// A parameter cut out of a path from [`decode_for_routing`], with its `%2F` and `%25` decoded. Anything
/// else stays as it is: it is decoded already.
///
/// Cost: allocates only where `scratch` is too small.
#[must_use]
pub fn decode_param<'a>(param: &'a str, scratch: &'a mut Vec<u8>) -> &'a str {
    if memchr(b'%', param.as_bytes()).is_none() {
        return param;
    }
    scratch.clear();
    let mut rest = param.as_bytes();
    while let Some(at) = memchr(b'%', rest) {
        scratch.extend_from_slice(&rest[..at]);
        let (byte, taken) = match &rest[at..] {
            [b'%', b'2', b'F', ..] => (b'/', 3),
            [b'%', b'2', b'5', ..] => (b'%', 3),
            _ => (b'%', 1),
        };
        scratch.push(byte);
        rest = &rest[at + taken..];
    }
    scratch.extend_from_slice(rest);
    // Only whole ASCII characters were replaced, so this is still UTF-8.
    std::str::from_utf8(scratch).unwrap_or(param)
}

fn decode_except<'a>(
    raw: &'a [u8],
    scratch: &'a mut Vec<u8>,
    stays: impl Fn(u8) -> bool,
) -> Result<&'a str, BadEncoding> {
    if memchr2(b'%', 0, raw).is_none() {
        return std::str::from_utf8(raw).map_err(|_| BadEncoding);
    }
    scratch.clear();
    let mut rest = raw;
    while let Some(at) = memchr2(b'%', 0, rest) {
        if rest[at] == 0 {
            return Err(BadEncoding);
        }
        scratch.extend_from_slice(&rest[..at]);
        let byte = hex_pair(&rest[at + 1..]).ok_or(BadEncoding)?;
        match byte {
            0 => return Err(BadEncoding),
            byte if stays(byte) => {
                scratch.push(b'%');
                scratch.extend(rest[at + 1..at + 3].iter().map(u8::to_ascii_uppercase));
            }
            byte => scratch.push(byte),
        }
        rest = &rest[at + 3..];
    }
    scratch.extend_from_slice(rest);
    std::str::from_utf8(scratch).map_err(|_| BadEncoding)
}

/// The pairs of a query or form body as received, in order: split at `&` (only), name and value at the
/// first `=`. Empty pieces are skipped; a name without value, or with a blank one, is kept.
/// [`decode_form`] decodes each part. Cost: lazy, no allocation.
pub fn query_pairs(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    raw.split(|&b| b == b'&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| match memchr(b'=', piece) {
            Some(at) => (&piece[..at], &piece[at + 1..]),
            None => (piece, &piece[piece.len()..]),
        })
}

/// A name or value of a query: `+` is a space, escapes are decoded, a bad escape is left as it is, bad
/// UTF-8 is replaced by U+FFFD.
///
/// Cost: one pass; allocates where `scratch` is too small, or for bad UTF-8.
#[must_use]
pub fn decode_form<'a>(raw: &'a [u8], scratch: &'a mut Vec<u8>) -> Cow<'a, str> {
    if memchr2(b'%', b'+', raw).is_none() {
        return String::from_utf8_lossy(raw);
    }
    scratch.clear();
    let mut rest = raw;
    while let Some(at) = memchr2(b'%', b'+', rest) {
        scratch.extend_from_slice(&rest[..at]);
        let after = &rest[at + 1..];
        rest = match (rest[at], hex_pair(after)) {
            (b'%', Some(byte)) => {
                scratch.push(byte);
                &after[2..]
            }
            (b'%', None) => {
                scratch.push(b'%');
                after
            }
            _ => {
                scratch.push(b' ');
                after
            }
        };
    }
    scratch.extend_from_slice(rest);
    String::from_utf8_lossy(scratch)
}

//! The oracle of the chunked coding: one shot, line by line, written from RFC 9112 §7.1 without regard
//! to cost. The fuzz target uses it too.

use theframework_http::{ChunkedError, ChunkedLimits};

/// What a body comes to: its bytes and where the next request begins; or an error; or not all there.
pub type Outcome = Result<Option<(Vec<u8>, usize)>, ChunkedError>;

/// Decodes a body of which all that will ever come is there.
pub fn decode_all(bytes: &[u8], limits: ChunkedLimits) -> Outcome {
    let mut at = 0;
    let mut body = Vec::new();
    let mut in_extensions = 0;
    loop {
        let digits = bytes[at..]
            .iter()
            .take_while(|b| b.is_ascii_hexdigit())
            .count();
        if digits > 16 {
            return Err(ChunkedError::BadChunkSize);
        }
        let text = std::str::from_utf8(&bytes[at..at + digits]).expect("digits alone");
        at += digits;
        match bytes.get(at) {
            None => return Ok(None),
            Some(_) if digits == 0 => return Err(ChunkedError::BadChunkSize),
            Some(b'\r' | b';') => {}
            Some(b'\n') => return Err(ChunkedError::BadLineEnd),
            Some(_) => return Err(ChunkedError::BadChunkSize),
        }
        let (extension, may_end) = extensions(&bytes[at..]);
        in_extensions += extension;
        if extension > limits.max_extension || in_extensions > limits.max_extensions {
            return Err(ChunkedError::ExtensionTooLong);
        }
        at += extension;
        match &bytes[at..] {
            [] => return Ok(None),
            [b'\r'] if may_end => return Ok(None),
            [b'\r', b'\n', ..] if may_end => at += 2,
            [b'\r', ..] if may_end => return Err(ChunkedError::BadLineEnd),
            [b'\n', ..] => return Err(ChunkedError::BadLineEnd),
            _ => return Err(ChunkedError::BadExtension),
        }
        let size = u64::from_str_radix(text, 16).expect("digits alone");
        if size == 0 {
            return Ok(end_of_trailers(bytes, at, limits)?.map(|end| (body, end)));
        }
        if u128::from(size) + body.len() as u128 > u128::from(limits.max_body) {
            return Err(ChunkedError::TooLarge);
        }
        let Some(data) = bytes[at..].get(..size as usize) else {
            return Ok(None);
        };
        body.extend_from_slice(data);
        at += data.len();
        match &bytes[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => at += 2,
            _ => return Err(ChunkedError::BadLineEnd),
        }
    }
}

/// How many bytes agree with the grammar of extensions, and whether the line may end behind them.
fn extensions(text: &[u8]) -> (usize, bool) {
    let count = |from: usize, is_one: &dyn Fn(u8) -> bool| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter().take_while(|&&b| is_one(b)).count()
    };
    let white = |from: usize| count(from, &|b| b == b' ' || b == b'\t');
    let token = |from: usize| count(from, &is_token);
    let mut at = 0;
    while text.get(at) == Some(&b';') {
        at += 1;
        at += white(at);
        let name = token(at);
        if name == 0 {
            return (at, false);
        }
        at += name;
        let mut end = at;
        at += white(at);
        if text.get(at) == Some(&b'=') {
            at += 1;
            at += white(at);
            if text.get(at) == Some(&b'"') {
                at += 1;
                loop {
                    at += count(at, &|b| is_text(b) && b != b'"' && b != b'\\');
                    match text.get(at..).unwrap_or_default() {
                        [b'"', ..] => break,
                        [b'\\', next, ..] if is_text(*next) => at += 2,
                        [b'\\', ..] => return (at + 1, false),
                        _ => return (at, false),
                    }
                }
                at += 1;
            } else {
                let value = token(at);
                if value == 0 {
                    return (at, false);
                }
                at += value;
            }
            end = at;
            at += white(at);
        }
        if text.get(at) != Some(&b';') {
            return (at, at == end);
        }
    }
    (at, true)
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn is_text(b: u8) -> bool {
    b == b'\t' || (b' '..=b'~').contains(&b) || b >= 0x80
}

/// Where the trailer section ends that begins at `begin`.
fn end_of_trailers(
    bytes: &[u8],
    begin: usize,
    limits: ChunkedLimits,
) -> Result<Option<usize>, ChunkedError> {
    let forbidden = "age authorization cache-control connection content-encoding content-length content-range content-type cookie date \
        expect host keep-alive max-forwards pragma proxy-authorization proxy-connection range set-cookie te trailer \
        transfer-encoding upgrade via";
    let mut name = Vec::new();
    let mut at = begin;
    let mut in_value = false;
    loop {
        let is_line_start = !in_value && name.is_empty();
        match &bytes[at..] {
            [] => return Ok(None),
            [b'\r', rest @ ..] if is_line_start => match rest {
                [] => return Ok(None),
                [b'\n', ..] => return Ok(Some(at + 2)),
                _ => return Err(ChunkedError::BadLineEnd),
            },
            [b, rest @ ..] => {
                if at - begin >= limits.max_trailer {
                    return Err(ChunkedError::TrailerTooLarge);
                }
                if in_value && *b == b'\r' {
                    match rest {
                        [] => return Ok(None),
                        _ if at + 1 - begin >= limits.max_trailer => {
                            return Err(ChunkedError::TrailerTooLarge);
                        }
                        [b'\n', ..] => {}
                        _ => return Err(ChunkedError::BadLineEnd),
                    }
                    in_value = false;
                    at += 2;
                    continue;
                }
                if in_value {
                    match b {
                        b'\n' => return Err(ChunkedError::BadLineEnd),
                        b'\t' | b' '..=b'~' | 0x80.. => {}
                        _ => return Err(ChunkedError::BadTrailer),
                    }
                } else if *b == b':' && !name.is_empty() {
                    let lower = String::from_utf8(name.to_ascii_lowercase()).expect("ASCII alone");
                    if forbidden.split_whitespace().any(|other| other == lower) {
                        return Err(ChunkedError::ForbiddenTrailer);
                    }
                    name.clear();
                    in_value = true;
                } else if is_token(*b) {
                    name.push(*b);
                } else {
                    return Err(ChunkedError::BadTrailer);
                }
            }
        }
        at += 1;
    }
}

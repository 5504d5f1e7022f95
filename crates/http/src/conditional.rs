//! Conditional requests (RFC 9110 §13): what the answer consists of, given what the client has.
//!
//! Purpose: [`evaluate`] reads `If-Match`, `If-Unmodified-Since`, `If-None-Match`, `If-Modified-Since`,
//! `If-Range` and `Range` in the order of §13.2.2, and says which of the few possible answers it is;
//! [`EntityTag`] is the validator of a file.
//!
//! Invariants: a field that cannot be read changes nothing, except that a condition which would protect
//! something does not hold then (`If-Match`, `If-Range`); a range is always inside the representation; no
//! allocation.
//!
//! What it does not do: look at files or clocks. And it must not be asked after a handler has changed
//! what the request is about: a precondition of a POST is about the state before it.

use std::time::UNIX_EPOCH;

use crate::bytes::trim_ows;
use crate::inline::Inline;
use crate::method::Method;
use crate::range::{self, Selected};

/// What is known of the representation that would be sent with a 200.
#[derive(Clone, Copy, Debug)]
pub struct Representation<'a> {
    /// Its length in bytes.
    pub len: u64,
    /// Its entity tag as in the field `ETag`: `"…"`, or `W/"…"` for a weak one.
    pub etag: Option<&'a [u8]>,
    /// Its `Last-Modified`, in seconds since 1970, not later than now.
    pub last_modified: Option<u64>,
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The whole representation (200).
    Whole,
    /// The bytes from `first` to `last`, both included (206).
    Partial {
        /// The first byte's offset.
        first: u64,
        /// The last byte's offset, below the length.
        last: u64,
    },
    /// The client has it (304).
    NotModified,
    /// It is not what the client thinks (412).
    PreconditionFailed,
    /// There are no such bytes (416, with `Content-Range: bytes */len`).
    Unsatisfiable,
}

/// Evaluates the conditions among a request's `fields` (name and value) for `current`, at `now` in
/// seconds since 1970. One pass over the fields.
#[must_use]
pub fn evaluate<'f>(
    method: Method,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    current: &Representation<'_>,
    now: u64,
) -> Answer {
    let conditions = Conditions::read(fields, current);
    let is_get_or_head = matches!(method, Method::Get | Method::Head);

    // The steps of §13.2.2.
    let is_unchanged = match (conditions.if_match, conditions.if_unmodified_since) {
        (Some(matches), _) => matches,
        (None, Single::Once(value)) => match (parse_date(value), current.last_modified) {
            (Some(date), Some(modified)) => modified <= date,
            _ => true,
        },
        (None, _) => true,
    };
    if !is_unchanged {
        return Answer::PreconditionFailed;
    }
    match (conditions.if_none_match, conditions.if_modified_since) {
        (Some(true), _) if is_get_or_head => return Answer::NotModified,
        (Some(true), _) => return Answer::PreconditionFailed,
        (None, Single::Once(value)) if is_get_or_head => {
            if let (Some(date), Some(modified)) = (parse_date(value), current.last_modified)
                && modified <= date
            {
                return Answer::NotModified;
            }
        }
        _ => {}
    }

    // Ranges are defined for GET only (§14.2).
    let Single::Once(range) = conditions.range else {
        return Answer::Whole;
    };
    let holds = match conditions.if_range {
        Single::Never => true,
        Single::Once(value) => is_same(value, current, now),
        Single::Repeated => false,
    };
    if method != Method::Get || !holds {
        return Answer::Whole;
    }
    match range::select(range, current.len) {
        Selected::Whole => Answer::Whole,
        Selected::Range { first, last } => Answer::Partial { first, last },
        Selected::Unsatisfiable => Answer::Unsatisfiable,
    }
}

/// A field that may occur once. One that is repeated cannot be read.
#[derive(Clone, Copy)]
enum Single<'f> {
    Never,
    Once(&'f [u8]),
    Repeated,
}

impl<'f> Single<'f> {
    fn add(&mut self, value: &'f [u8]) {
        *self = match self {
            Single::Never => Single::Once(value),
            _ => Single::Repeated,
        };
    }
}

/// The conditions of a request. Those with lists of tags are evaluated on the way, since they may be
/// spread over several fields: whether one of the tags is the current one.
struct Conditions<'f> {
    if_match: Option<bool>,
    if_none_match: Option<bool>,
    if_unmodified_since: Single<'f>,
    if_modified_since: Single<'f>,
    if_range: Single<'f>,
    range: Single<'f>,
}

impl<'f> Conditions<'f> {
    fn read(
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        current: &Representation<'_>,
    ) -> Self {
        let mut found = Conditions {
            if_match: None,
            if_none_match: None,
            if_unmodified_since: Single::Never,
            if_modified_since: Single::Never,
            if_range: Single::Never,
            range: Single::Never,
        };
        for (name, value) in fields {
            match name.len() {
                5 if name.eq_ignore_ascii_case(b"range") => found.range.add(value),
                8 if name.eq_ignore_ascii_case(b"if-match") => {
                    *found.if_match.get_or_insert(false) |=
                        lists(value, current.etag, Comparison::Strong);
                }
                8 if name.eq_ignore_ascii_case(b"if-range") => found.if_range.add(value),
                13 if name.eq_ignore_ascii_case(b"if-none-match") => {
                    *found.if_none_match.get_or_insert(false) |=
                        lists(value, current.etag, Comparison::Weak);
                }
                17 if name.eq_ignore_ascii_case(b"if-modified-since") => {
                    found.if_modified_since.add(value);
                }
                19 if name.eq_ignore_ascii_case(b"if-unmodified-since") => {
                    found.if_unmodified_since.add(value);
                }
                _ => {}
            }
        }
        found
    }
}

/// Whether the validator of an `If-Range` is that of what is there now, beyond doubt (§13.1.5).
fn is_same(value: &[u8], current: &Representation<'_>, now: u64) -> bool {
    let value = trim_ows(value);
    if let Some((tag, [])) = split_tag(value) {
        return current
            .etag
            .is_some_and(|etag| is_equal(tag, etag, Comparison::Strong));
    }
    // A date tells versions apart only once its second is over (§8.8.2.2).
    match (parse_date(value), current.last_modified) {
        (Some(date), Some(modified)) => date == modified && modified < now,
        _ => false,
    }
}

/// How two entity tags are compared (RFC 9110 §8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Both are strong and equal.
    Strong,
    /// They are equal, strong or not.
    Weak,
}

/// Whether a list of entity tags, or `*`, names the current one. What is behind a malformed member is
/// not read.
fn lists(value: &[u8], current: Option<&[u8]>, comparison: Comparison) -> bool {
    let mut rest = trim_ows(value);
    if rest == b"*" {
        return true;
    }
    let Some(current) = current else {
        return false;
    };
    loop {
        while let [b' ' | b'\t' | b',', behind @ ..] = rest {
            rest = behind;
        }
        let Some((tag, behind)) = split_tag(rest) else {
            return false;
        };
        if is_equal(tag, current, comparison) {
            return true;
        }
        rest = trim_ows(behind);
        if !matches!(rest, [b',', ..]) {
            return false;
        }
    }
}

/// The entity tag that `bytes` begin with, and what is behind it. A tag may have commas in it.
fn split_tag(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = if bytes.starts_with(b"W/") { 2 } else { 0 };
    let [b'"', opaque @ ..] = &bytes[start..] else {
        return None;
    };
    let end = memchr::memchr(b'"', opaque)?;
    Some(bytes.split_at(start + end + 2))
}

fn is_equal(one: &[u8], other: &[u8], comparison: Comparison) -> bool {
    let is_weak = |tag: &[u8]| tag.starts_with(b"W/");
    let opaque = |tag: &[u8]| tag.iter().position(|&b| b == b'"');
    match comparison {
        Comparison::Strong => !is_weak(one) && one == other,
        Comparison::Weak => match (opaque(one), opaque(other)) {
            (Some(at), Some(other_at)) => one[at..] == other[other_at..],
            _ => false,
        },
    }
}

/// The time that an HTTP-date says, in any of its three forms (RFC 9110 §5.6.7), in seconds since 1970.
/// One before 1970, with a leap second or with the wrong day of the week is none. The two digits of a
/// year in the obsolete RFC 850 form mean 1970 to 2069.
#[must_use]
pub fn parse_date(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(trim_ows(value)).ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// A strong entity tag made of a file's modification time and length, as nginx, h2o and others do.
///
/// It is as strong as the file system's clock is fine: two versions of one length that are written in
/// the same tick (nanoseconds on Linux 6.13 and later, before that 1 to 10 ms) share it.
#[derive(Clone, Copy, Debug)]
pub struct EntityTag(Inline<35>);

impl EntityTag {
    /// Of a file that was modified at this time since 1970 (which may be before it) and has `len` bytes.
    #[must_use]
    pub fn of_file(seconds: i64, nanoseconds: u32, len: u64) -> Self {
        // Modulo 2⁶⁴ nanoseconds, which is 584 years.
        let time = (seconds as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(u64::from(nanoseconds));
        let mut text = Inline::new();
        text.push(b"\"");
        text.push_hex(time);
        text.push(b"-");
        text.push_hex(len);
        text.push(b"\"");
        EntityTag(text)
    }

    /// The tag as it goes on the wire, with its quotes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: u64 = 784_111_777;
    const NOW: u64 = MODIFIED + 1000;
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const BAD_DATE: &str = "Mon, 06 Nov 1994 08:49:37 GMT";

    const PART: Answer = Answer::Partial { first: 1, last: 2 };
    use Answer::{NotModified, PreconditionFailed, Unsatisfiable, Whole};

    const STRONG: Representation<'_> = Representation {
        len: 1000,
        etag: Some(b"\"abc\""),
        last_modified: Some(MODIFIED),
    };
    const WEAK: Representation<'_> = Representation {
        etag: Some(b"W/\"abc\""),
        ..STRONG
    };
    const BARE: Representation<'_> = Representation {
        etag: None,
        last_modified: None,
        ..STRONG
    };

    fn ask(method: Method, current: &Representation<'_>, fields: &[(&str, &str)]) -> Answer {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        evaluate(method, fields, current, NOW)
    }

    fn get(fields: &[(&str, &str)]) -> Answer {
        ask(Method::Get, &STRONG, fields)
    }

    #[test]
    fn a_request_without_conditions_gets_the_whole() {
        assert_eq!(get(&[]), Whole);
        assert_eq!(get(&[("Host", "a"), ("Accept", "*/*")]), Whole);
        assert_eq!(ask(Method::Get, &BARE, &[]), Whole);
    }

    #[test]
    fn if_match_needs_a_strong_match() {
        for (value, current, expected) in [
            ("\"abc\"", &STRONG, Whole),
            ("*", &STRONG, Whole),
            (" * ", &STRONG, Whole),
            ("*", &BARE, Whole),
            ("\"x\", \"abc\"", &STRONG, Whole),
            ("\"x\" ,,\t\"abc\" , \"y\"", &STRONG, Whole),
            ("\"a,b\", \"abc\"", &STRONG, Whole),
            ("\"x\"", &STRONG, PreconditionFailed),
            ("\"ABC\"", &STRONG, PreconditionFailed),
            ("W/\"abc\"", &STRONG, PreconditionFailed),
            ("\"abc\"", &WEAK, PreconditionFailed),
            ("W/\"abc\"", &WEAK, PreconditionFailed),
            ("\"abc\"", &BARE, PreconditionFailed),
            // Malformed: it protects.
            ("", &STRONG, PreconditionFailed),
            ("abc", &STRONG, PreconditionFailed),
            ("\"abc", &STRONG, PreconditionFailed),
            ("w/\"abc\"", &STRONG, PreconditionFailed),
            ("\"x\" \"abc\"", &STRONG, PreconditionFailed),
            ("\"x\", *", &STRONG, PreconditionFailed),
        ] {
            for method in [Method::Get, Method::Head, Method::Put] {
                let fields = [("If-Match", value)];
                assert_eq!(ask(method, current, &fields), expected, "{value}");
            }
        }
        assert_eq!(
            get(&[("if-match", "\"x\""), ("IF-MATCH", "\"abc\"")]),
            Whole
        );
    }

    #[test]
    fn if_unmodified_since_compares_seconds() {
        for (value, current, expected) in [
            (AT, &STRONG, Whole),
            (AFTER, &STRONG, Whole),
            (BEFORE, &STRONG, PreconditionFailed),
            // What cannot be compared is ignored.
            (BEFORE, &BARE, Whole),
            (BAD_DATE, &STRONG, Whole),
            ("yesterday", &STRONG, Whole),
        ] {
            let fields = [("If-Unmodified-Since", value)];
            assert_eq!(ask(Method::Put, current, &fields), expected, "{value}");
        }
        let twice = [("If-Unmodified-Since", BEFORE); 2];
        assert_eq!(get(&twice), Whole, "a repeated date cannot be read");
    }

    #[test]
    fn if_none_match_needs_a_weak_match() {
        for (value, current, matches) in [
            ("\"abc\"", &STRONG, true),
            ("W/\"abc\"", &STRONG, true),
            ("\"abc\"", &WEAK, true),
            ("W/\"abc\"", &WEAK, true),
            ("*", &BARE, true),
            ("\"x\", W/\"abc\"", &STRONG, true),
            ("\"a\"bc\"", &STRONG, false),
            ("\"x\"", &STRONG, false),
            ("\"ABC\"", &STRONG, false),
            ("\"abc\"", &BARE, false),
            ("abc", &STRONG, false),
            ("", &STRONG, false),
        ] {
            let fields = [("If-None-Match", value)];
            for (method, failed) in [
                (Method::Get, NotModified),
                (Method::Head, NotModified),
                (Method::Put, PreconditionFailed),
            ] {
                let expected = if matches { failed } else { Whole };
                assert_eq!(ask(method, current, &fields), expected, "{value}");
            }
        }
        assert_eq!(
            get(&[("If-None-Match", "\"x\""), ("If-None-Match", "\"abc\"")]),
            NotModified
        );
    }

    #[test]
    fn if_modified_since_compares_seconds_for_get_and_head() {
        for (value, current, expected) in [
            (AT, &STRONG, NotModified),
            (AFTER, &STRONG, NotModified),
            ("Sunday, 06-Nov-94 08:49:37 GMT", &STRONG, NotModified),
            ("Sun Nov  6 08:49:37 1994", &STRONG, NotModified),
            (BEFORE, &STRONG, Whole),
            (AT, &BARE, Whole),
            (BAD_DATE, &STRONG, Whole),
            ("0", &STRONG, Whole),
        ] {
            let fields = [("If-Modified-Since", value)];
            assert_eq!(ask(Method::Get, current, &fields), expected, "{value}");
            assert_eq!(ask(Method::Head, current, &fields), expected, "{value}");
            assert_eq!(ask(Method::Post, current, &fields), Whole, "{value}");
        }
        assert_eq!(get(&[("If-Modified-Since", AT); 2]), Whole);
    }

    #[test]
    fn tags_come_before_dates() {
        // If-Match before If-Unmodified-Since, which is then ignored, either way.
        assert_eq!(
            get(&[("If-Unmodified-Since", BEFORE), ("If-Match", "\"abc\"")]),
            Whole
        );
        assert_eq!(
            get(&[("If-Unmodified-Since", AFTER), ("If-Match", "\"x\"")]),
            PreconditionFailed
        );
        // If-None-Match before If-Modified-Since.
        assert_eq!(
            get(&[("If-Modified-Since", AFTER), ("If-None-Match", "\"x\"")]),
            Whole
        );
        assert_eq!(
            get(&[("If-Modified-Since", BEFORE), ("If-None-Match", "\"abc\"")]),
            NotModified
        );
        // Preconditions of the first kind before those of the second, and both before ranges.
        assert_eq!(
            get(&[("If-None-Match", "\"abc\""), ("If-Match", "\"x\"")]),
            PreconditionFailed
        );
        assert_eq!(
            get(&[("Range", "bytes=1-2"), ("If-None-Match", "\"abc\"")]),
            NotModified
        );
        assert_eq!(
            get(&[("Range", "bytes=5000-"), ("If-Match", "\"x\"")]),
            PreconditionFailed
        );
        assert_eq!(
            get(&[("Range", "bytes=1-2"), ("If-Match", "\"abc\"")]),
            PART
        );
    }

    #[test]
    fn ranges_are_for_get_alone() {
        let fields = [("Range", "bytes=1-2")];
        assert_eq!(get(&fields), PART);
        for method in [Method::Head, Method::Post, Method::Put, Method::Other] {
            assert_eq!(ask(method, &STRONG, &fields), Whole, "{method:?}");
        }
        assert_eq!(get(&[("Range", "bytes=1000-")]), Unsatisfiable);
        assert_eq!(
            get(&[("Range", "bytes=1-2"), ("Range", "bytes=1-2")]),
            Whole
        );
    }

    #[test]
    fn if_range_needs_the_same_version_beyond_doubt() {
        let with = |current: &Representation<'_>, value| {
            ask(
                Method::Get,
                current,
                &[("Range", "bytes=1-2"), ("If-Range", value)],
            )
        };
        for (value, current, expected) in [
            ("\"abc\"", &STRONG, PART),
            ("\"x\"", &STRONG, Whole),
            ("W/\"abc\"", &STRONG, Whole),
            ("W/\"abc\"", &WEAK, Whole),
            ("\"abc\"", &WEAK, Whole),
            ("\"abc\"", &BARE, Whole),
            // One tag, not a list; and no star.
            ("\"abc\", \"abc\"", &STRONG, Whole),
            ("*", &STRONG, Whole),
            ("abc", &STRONG, Whole),
            ("", &STRONG, Whole),
            // A date is a name here: neither earlier nor later will do.
            (AT, &STRONG, PART),
            (BEFORE, &STRONG, Whole),
            (AFTER, &STRONG, Whole),
            (AT, &BARE, Whole),
            (BAD_DATE, &STRONG, Whole),
        ] {
            assert_eq!(with(current, value), expected, "{value}");
        }
        // Without a Range it says nothing; and what it guards may be out of reach.
        assert_eq!(get(&[("If-Range", "\"abc\"")]), Whole);
        assert_eq!(
            get(&[("If-Range", "\"abc\""), ("Range", "bytes=5000-")]),
            Unsatisfiable
        );
        assert_eq!(
            get(&[("If-Range", "\"x\""), ("Range", "bytes=5000-")]),
            Whole
        );
        let twice = [("If-Range", "\"abc\""), ("If-Range", "\"abc\"")];
        assert_eq!(get(&[twice[0], twice[1], ("Range", "bytes=1-2")]), Whole);
    }

    #[test]
    fn a_date_of_this_very_second_is_no_strong_validator() {
        let fields = [
            (&b"Range"[..], &b"bytes=1-2"[..]),
            (b"If-Range", AT.as_bytes()),
        ];
        let at = |now| evaluate(Method::Get, fields.into_iter(), &STRONG, now);
        assert_eq!(at(MODIFIED), Whole);
        assert_eq!(at(MODIFIED + 1), PART);
    }

    #[test]
    fn dates_in_three_forms() {
        for (text, expected) in [
            (AT, Some(MODIFIED)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(MODIFIED)),
            ("Sun Nov  6 08:49:37 1994", Some(MODIFIED)),
            (" \tSun, 06 Nov 1994 08:49:37 GMT ", Some(MODIFIED)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("Thu, 30 Feb 2024 00:00:00 GMT", None),
            ("Sun, 06 Nov 1994 08:49:60 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("sun, 06 nov 1994 08:49:37 gmt", None),
            (BAD_DATE, None),
            ("", None),
        ] {
            assert_eq!(parse_date(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse_date(b"Sun, 06 Nov 1994 08:49:37 GM\xff"), None);
        assert_eq!(
            parse_date(&crate::format_date(1_709_164_800)),
            Some(1_709_164_800)
        );
    }

    #[test]
    fn the_tag_of_a_file() {
        let tag = |seconds, nanoseconds, len| {
            String::from_utf8(
                EntityTag::of_file(seconds, nanoseconds, len)
                    .as_bytes()
                    .to_vec(),
            )
        };
        assert_eq!(tag(0, 0, 0).as_deref(), Ok("\"0-0\""));
        assert_eq!(tag(1, 5, 4096).as_deref(), Ok("\"3b9aca05-1000\""));
        assert_eq!(
            tag(-1, 999_999_999, u64::MAX).as_deref(),
            Ok("\"ffffffffffffffff-ffffffffffffffff\"")
        );
        // It matches itself, and what has changed does not.
        let one = EntityTag::of_file(1_700_000_000, 1, 10);
        let other = EntityTag::of_file(1_700_000_000, 2, 10);
        assert!(lists(
            one.as_bytes(),
            Some(one.as_bytes()),
            Comparison::Strong
        ));
        assert!(!lists(
            one.as_bytes(),
            Some(other.as_bytes()),
            Comparison::Weak
        ));
    }
}

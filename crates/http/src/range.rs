//! The `Range` field of a request and the `Content-Range` of a response (RFC 9110 §14), for bytes.
//!
//! Purpose: [`select`] finds the one range that a response may consist of; [`ContentRange`] says which it
//! is. One range is served. A request for several gets the whole representation, which §14.2 allows for
//! any `Range`: parts in `multipart/byteranges` cost a server more than they help a client, many
//! overlapping ones were a denial of service (CVE-2011-3192), and clients that want several ranges ask
//! for one after the other.
//!
//! Invariants: a selected range has at least one byte and lies inside the representation; no number in a
//! field overflows: what is beyond `u64` is beyond every representation.
//!
//! What it does not do: decide whether `Range` counts at all, see [`evaluate`](crate::evaluate).

use crate::bytes::trim_ows;
use crate::inline::Inline;

/// What a `Range` field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// Everything: the field is malformed, has another unit or several ranges, or there are no bytes.
    Whole,
    /// The bytes from `first` to `last`, both included.
    Range {
        /// The first byte's offset.
        first: u64,
        /// The last byte's offset, below the length.
        last: u64,
    },
    /// Nothing that is there (416).
    Unsatisfiable,
}

/// What the value of a `Range` field selects from `len` bytes.
///
/// An empty representation has no ranges, and is sent whole: some clients ask for `bytes=0-` always.
#[must_use]
pub fn select(value: &[u8], len: u64) -> Selected {
    let Some(spec) = single_spec(value) else {
        return Selected::Whole;
    };
    let Some(dash) = spec.iter().position(|&b| b == b'-') else {
        return Selected::Whole;
    };
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    match (number(first), number(last)) {
        (Number::Absent, Number::Is(suffix)) => match suffix {
            _ if len == 0 => Selected::Whole,
            0 => Selected::Unsatisfiable,
            _ => Selected::Range {
                first: len - suffix.min(len),
                last: len - 1,
            },
        },
        (Number::Is(first), Number::Is(last)) if last < first => Selected::Whole,
        (Number::Is(first), last @ (Number::Is(_) | Number::Absent)) => match last {
            _ if len == 0 => Selected::Whole,
            _ if first >= len => Selected::Unsatisfiable,
            Number::Is(last) => Selected::Range {
                first,
                last: last.min(len - 1),
            },
            _ => Selected::Range {
                first,
                last: len - 1,
            },
        },
        _ => Selected::Whole,
    }
}

/// The only range in a set of byte ranges; empty members of a list do not count (RFC 9110 §5.6.1).
fn single_spec(value: &[u8]) -> Option<&[u8]> {
    let (unit, set) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut specs = set
        .split(|&b| b == b',')
        .map(trim_ows)
        .filter(|spec| !spec.is_empty());
    let first = specs.next()?;
    specs.next().is_none().then_some(first)
}

#[derive(Clone, Copy)]
enum Number {
    Absent,
    Is(u64),
    Malformed,
}

/// `1*DIGIT`, or nothing; no sign and no space. What does not fit is `u64::MAX`.
fn number(digits: &[u8]) -> Number {
    if digits.is_empty() {
        return Number::Absent;
    }
    let mut value = 0_u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Number::Malformed;
        }
        value = value
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'));
    }
    Number::Is(value)
}

/// The value of a `Content-Range` field.
#[derive(Clone, Copy, Debug)]
pub struct ContentRange(Inline<68>);

impl ContentRange {
    /// Of a 206 with the bytes from `first` to `last` of `len`.
    #[must_use]
    pub fn part(first: u64, last: u64, len: u64) -> Self {
        debug_assert!(first <= last && last < len, "a range outside of its bytes");
        let mut text = Inline::new();
        text.push(b"bytes ");
        text.push_decimal(first);
        text.push(b"-");
        text.push_decimal(last);
        text.push(b"/");
        text.push_decimal(len);
        ContentRange(text)
    }

    /// Of a 416: what there would have been.
    #[must_use]
    pub fn unsatisfied(len: u64) -> Self {
        let mut text = Inline::new();
        text.push(b"bytes */");
        text.push_decimal(len);
        ContentRange(text)
    }

    /// The value as it goes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(first: u64, last: u64) -> Selected {
        Selected::Range { first, last }
    }

    #[test]
    fn one_range_is_selected() {
        for (value, expected) in [
            ("bytes=0-0", range(0, 0)),
            ("bytes=0-499", range(0, 499)),
            ("bytes=500-999", range(500, 999)),
            ("bytes=999-999", range(999, 999)),
            ("bytes=500-", range(500, 999)),
            ("bytes=0-", range(0, 999)),
            ("bytes=-1", range(999, 999)),
            ("bytes=-500", range(500, 999)),
            // The unit's case, zeros in front, empty members and spaces around members do not matter.
            ("BYTES=0-1", range(0, 1)),
            ("bytes=007-0008", range(7, 8)),
            ("bytes= 0-1", range(0, 1)),
            ("bytes=,,0-1 ,\t", range(0, 1)),
            // More than there is.
            ("bytes=900-5000", range(900, 999)),
            ("bytes=-5000", range(0, 999)),
            ("bytes=1-18446744073709551615", range(1, 999)),
            ("bytes=1-99999999999999999999999999", range(1, 999)),
            ("bytes=-99999999999999999999999999", range(0, 999)),
        ] {
            assert_eq!(select(value.as_bytes(), 1000), expected, "{value}");
        }
    }

    #[test]
    fn what_begins_behind_the_end_is_unsatisfiable() {
        for value in [
            "bytes=1000-",
            "bytes=1000-1000",
            "bytes=5000-6000",
            "bytes=18446744073709551616-",
            "bytes=99999999999999999999999999-99999999999999999999999999",
            "bytes=-0",
            "bytes=-000",
        ] {
            assert_eq!(
                select(value.as_bytes(), 1000),
                Selected::Unsatisfiable,
                "{value}"
            );
        }
    }

    #[test]
    fn everything_else_is_the_whole() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes= , ,",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=0-1x",
            "bytes=+0-1",
            "bytes=0--1",
            "bytes=--1",
            "bytes=0 -1",
            "bytes=0- 1",
            "bytes =0-1",
            "bytes:0-1",
            "bytes=0x0-0x1",
            "items=0-1",
            "none",
            "seconds=1-2",
            // Several, whatever they are.
            "bytes=0-1,2-3",
            "bytes=0-,0-,0-,0-",
            "bytes=0-1,5000-",
            "bytes=0-1,x",
        ] {
            assert_eq!(select(value.as_bytes(), 1000), Selected::Whole, "{value}");
        }
        for byte in 0..=255_u8 {
            let value = [b"bytes=0".as_slice(), &[byte], b"1"].concat();
            let expected = match byte {
                b'-' => range(0, 1),
                _ => Selected::Whole,
            };
            assert_eq!(select(&value, 1000), expected, "{byte:#x}");
        }
    }

    #[test]
    fn nothing_has_no_ranges() {
        for value in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0", "bytes=7-9"] {
            assert_eq!(select(value.as_bytes(), 0), Selected::Whole, "{value}");
        }
    }

    #[test]
    fn the_largest_numbers_fit() {
        let last = u64::MAX - 1;
        assert_eq!(select(b"bytes=-1", u64::MAX), range(last, last));
        assert_eq!(select(b"bytes=0-", u64::MAX), range(0, last));
        assert_eq!(
            ContentRange::part(last, last, u64::MAX).as_bytes(),
            b"bytes 18446744073709551614-18446744073709551614/18446744073709551615"
        );
        assert_eq!(
            ContentRange::unsatisfied(u64::MAX).as_bytes(),
            b"bytes */18446744073709551615"
        );
        assert_eq!(ContentRange::part(0, 0, 1).as_bytes(), b"bytes 0-0/1");
    }
}

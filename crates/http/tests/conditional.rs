//! Conditions and ranges made of anything.

use proptest::prelude::*;
use theframework_http::range::{Selected, select};
use theframework_http::{Answer, Method, Representation, evaluate, format_date, parse_date};

/// A field value: made of the pieces that values are made of, or of any bytes.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\"abc\"".to_vec()),
        Just(b"W/\"abc\"".to_vec()),
        Just(b"*".to_vec()),
        Just(b",".to_vec()),
        Just(b" ".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"bytes=".to_vec()),
        Just(b"-".to_vec()),
        Just(b"Sun, 06 Nov 1994 08:49:37 GMT".to_vec()),
        any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        (0..200_u64).prop_map(|number| number.to_string().into_bytes()),
        (0..400_000_000_000_u64).prop_map(|seconds| format_date(seconds).to_vec()),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn field() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let names = prop::sample::select(vec![
        "If-Match",
        "If-None-Match",
        "If-Modified-Since",
        "If-Unmodified-Since",
        "If-Range",
        "Range",
        "Host",
    ]);
    (names, value())
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, any::<u64>()]
}

proptest! {
    #[test]
    fn a_range_is_inside(value in value(), len in length()) {
        if let Selected::Range { first, last } = select(&value, len) {
            prop_assert!(first <= last && last < len);
        }
    }

    #[test]
    fn a_range_that_was_written_is_the_one_selected(first in any::<u64>(), more in any::<u64>(), len in length()) {
        let last = first.saturating_add(more);
        let value = format!("bytes={first}-{last}");
        let expected = if len == 0 {
            Selected::Whole
        } else if first >= len {
            Selected::Unsatisfiable
        } else {
            Selected::Range { first, last: last.min(len - 1) }
        };
        prop_assert_eq!(select(value.as_bytes(), len), expected);
    }

    #[test]
    fn an_answer_fits_its_method(
        fields in prop::collection::vec(field(), 0..8),
        len in length(),
        tag in prop::sample::select(vec![None, Some("\"abc\""), Some("W/\"abc\"")]),
        last_modified in prop::option::of(any::<u64>()),
        now in any::<u64>(),
        method in prop::sample::select(vec![Method::Get, Method::Head, Method::Put, Method::Other]),
    ) {
        let current = Representation { len, etag: tag.map(str::as_bytes), last_modified };
        let has = |wanted: &str| fields.iter().any(|(name, _)| *name == wanted);
        let bytes = fields.iter().map(|(name, value)| (name.as_bytes(), &value[..]));
        match evaluate(method, bytes, &current, now) {
            Answer::Whole => {}
            Answer::Partial { first, last } => {
                prop_assert!(first <= last && last < len);
                prop_assert!(method == Method::Get && has("Range"));
            }
            Answer::Unsatisfiable => {
                prop_assert!(method == Method::Get && has("Range") && len > 0);
            }
            Answer::NotModified => {
                prop_assert!(matches!(method, Method::Get | Method::Head));
                prop_assert!(has("If-None-Match") || has("If-Modified-Since"));
            }
            Answer::PreconditionFailed => {
                prop_assert!(has("If-Match") || has("If-Unmodified-Since") || has("If-None-Match"));
            }
        }
    }

    #[test]
    fn a_date_that_was_written_is_the_one_read(seconds in 0..253_402_300_800_u64) {
        prop_assert_eq!(parse_date(&format_date(seconds)), Some(seconds));
    }

    #[test]
    fn any_bytes_are_a_date_or_not(value in value()) {
        let _ = parse_date(&value);
    }
}

//! Decoding of request targets, against the `percent-encoding` and `form_urlencoded` crates: what is
//! decoded in two steps (for routing, then a parameter) is what one step gives; paths that cannot be
//! decoded are refused and nothing else is; queries are read as browsers write them.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use theframework_http::{decode_for_routing, decode_form, decode_param, decode_path, query_pairs};

pub fn check(bytes: &[u8]) {
    // As a worker does, every decoding uses the same buffers.
    let mut scratch = b"left over from the last request %2F".to_vec();
    let mut second = scratch.clone();
    check_path(bytes, &mut scratch, &mut second);
    check_query(bytes, &mut scratch, &mut second);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let expected = text.replace("%2F", "/").replace("%25", "%");
        // Replacing one after the other would decode `%252F` twice.
        if !text.contains("%25") {
            assert_eq!(decode_param(text, &mut scratch), expected);
        }
        assert!(decode_param(text, &mut scratch).len() <= text.len());
    }
}

fn check_path(bytes: &[u8], scratch: &mut Vec<u8>, second: &mut Vec<u8>) {
    let expected = naive_path(bytes);
    assert_eq!(decode_path(bytes, scratch).ok(), expected.as_deref());
    let routed = decode_for_routing(bytes, scratch).map(str::to_owned);
    assert_eq!(
        routed.is_ok(),
        expected.is_some(),
        "both refuse the same paths"
    );
    let Ok(routed) = routed else { return };
    let param = decode_param(&routed, second);
    assert_eq!(
        Some(param),
        expected.as_deref(),
        "two steps are as good as one"
    );
    // A segment of the routed path decodes to no more than itself: slashes split as they were sent.
    let split = routed
        .split('/')
        .map(|part| decode_param(part, second).to_owned());
    let raw = bytes.split(|&byte| byte == b'/').map(naive_path);
    assert!(
        split.map(Some).eq(raw),
        "segments are those of the raw path"
    );
}

/// The whole path decoded; `None` for a bad escape, a NUL, or what is not UTF-8.
fn naive_path(bytes: &[u8]) -> Option<String> {
    for (at, &byte) in bytes.iter().enumerate() {
        let digits = bytes.get(at + 1..at + 3);
        if byte == b'%' && !digits.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)) {
            return None;
        }
    }
    let decoded: Vec<u8> = percent_decode(bytes).collect();
    // An escaped or plain NUL ends strings elsewhere.
    let text = String::from_utf8(decoded).ok()?;
    (!text.contains('\0')).then_some(text)
}

fn check_query(bytes: &[u8], scratch: &mut Vec<u8>, second: &mut Vec<u8>) {
    let ours: Vec<(String, String)> = query_pairs(bytes)
        .map(|(name, value)| {
            (
                decode_form(name, scratch).into_owned(),
                decode_form(value, second).into_owned(),
            )
        })
        .collect();
    let theirs: Vec<(String, String)> = form_urlencoded::parse(bytes)
        .map(|(name, value)| (Cow::into_owned(name), Cow::into_owned(value)))
        .collect();
    assert_eq!(ours, theirs);
    // Written again and read again, it is the same.
    let written = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&ours)
        .finish();
    let again: Vec<(String, String)> = query_pairs(written.as_bytes())
        .map(|(name, value)| {
            (
                decode_form(name, scratch).into_owned(),
                decode_form(value, second).into_owned(),
            )
        })
        .collect();
    assert_eq!(again, ours);
}

//! Percent-decoding of paths and queries.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::borrow::Cow;

use proptest::prelude::*;
use theframework_http::BadEncoding;

// The tests compare owned text; the scratch buffer of each call is thrown away.
fn decode_path(raw: &[u8]) -> Result<String, BadEncoding> {
    theframework_http::decode_path(raw, &mut Vec::new()).map(str::to_owned)
}

fn decode_for_routing(raw: &[u8]) -> Result<String, BadEncoding> {
    theframework_http::decode_for_routing(raw, &mut Vec::new()).map(str::to_owned)
}

fn decode_param(param: &str) -> String {
    theframework_http::decode_param(param, &mut Vec::new()).to_owned()
}

fn query_pairs(raw: &[u8]) -> impl Iterator<Item = (String, String)> {
    let text = |raw| theframework_http::decode_form(raw, &mut Vec::new()).into_owned();
    theframework_http::query_pairs(raw).map(move |(name, value)| (text(name), text(value)))
}

fn pairs(raw: &str) -> Vec<(String, String)> {
    query_pairs(raw.as_bytes()).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn paths_are_decoded() {
    for (raw, decoded, routing) in [
        ("/", "/", "/"),
        ("", "", ""),
        ("/a%20b", "/a b", "/a b"),
        ("/a+b", "/a+b", "/a+b"),
        ("/%c3%A4", "/ä", "/ä"),
        ("/a%2fb%2Fc", "/a/b/c", "/a%2Fb%2Fc"),
        ("/100%25", "/100%", "/100%25"),
        ("/%252F", "/%2F", "/%252F"),
        ("/%2e%2E/", "/../", "/../"),
        ("%41%42", "AB", "AB"),
    ] {
        assert_eq!(decode_path(raw.as_bytes()).unwrap(), decoded, "{raw}");
        assert_eq!(
            decode_for_routing(raw.as_bytes()).unwrap(),
            routing,
            "{raw}"
        );
        assert_eq!(decode_param(routing), decoded, "{raw}");
    }
}

#[test]
fn undecodable_paths() {
    for raw in [
        &b"/%"[..],
        b"/%4",
        b"/%zz",
        b"/%4g",
        b"/% 4",
        b"/%ff",
        b"/%c3",
        b"/%c3%28",
        b"/\xff",
        b"/%00",
        b"/a%00b",
        b"/\0",
        b"/\0%41",
        b"/%+41",
        b"/%ed%a0%80",
        b"/%c0%af",
        b"/%%41",
    ] {
        assert_eq!(
            decode_path(raw),
            Err(BadEncoding),
            "{:?}",
            String::from_utf8_lossy(raw)
        );
        assert_eq!(
            decode_for_routing(raw),
            Err(BadEncoding),
            "{:?}",
            String::from_utf8_lossy(raw)
        );
    }
    assert_eq!(BadEncoding.status(), 400);
}

#[test]
fn nothing_is_copied_without_an_escape() {
    let raw = b"/a/b";
    let mut scratch = vec![7];
    let decoded = theframework_http::decode_path(raw, &mut scratch).unwrap();
    assert_eq!(decoded.as_ptr(), raw.as_ptr());
    let decoded = theframework_http::decode_for_routing(raw, &mut scratch).unwrap();
    assert_eq!(decoded.as_ptr(), raw.as_ptr());
    let decoded = theframework_http::decode_param("ab", &mut scratch);
    assert_eq!(decoded, "ab");
    assert!(matches!(
        theframework_http::decode_form(b"a", &mut scratch),
        Cow::Borrowed("a")
    ));
    assert_eq!(scratch, [7], "nothing was decoded");
}

#[test]
fn parameters_decode_only_what_routing_left() {
    assert_eq!(decode_param("a%2Fb%25c%20%2f%"), "a/b%c%20%2f%");
    assert_eq!(decode_param("%252F"), "%2F");
    assert_eq!(decode_param("ä%2Fö"), "ä/ö");
}

#[test]
fn queries() {
    for (raw, expected) in [
        ("", &[][..]),
        ("&&", &[]),
        ("a=b&c=d", &[("a", "b"), ("c", "d")]),
        ("a=1&a=2", &[("a", "1"), ("a", "2")]),
        ("a&b=&=c&=", &[("a", ""), ("b", ""), ("", "c"), ("", "")]),
        ("a=b=c", &[("a", "b=c")]),
        ("a+b=c+d%2Be", &[("a b", "c d+e")]),
        ("a%3Db=c%26d", &[("a=b", "c&d")]),
        (
            "a=%&b=%4&c=%zz%41",
            &[("a", "%"), ("b", "%4"), ("c", "%zzA")],
        ),
        ("a=%ff&b=%c3%a4", &[("a", "\u{fffd}"), ("b", "ä")]),
        ("a;b=c", &[("a;b", "c")]),
        ("a=%00", &[("a", "\0")]),
    ] {
        assert_eq!(pairs(raw), owned(expected), "{raw}");
    }
    let raw: Vec<_> = query_pairs(b"\xff=\xe4+").collect();
    assert_eq!(raw, owned(&[("\u{fffd}", "\u{fffd} ")]));
}

fn escape_all(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02x}")).collect()
}

proptest! {
    #[test]
    fn escaped_text_comes_back(text in "[^\0]{0,40}") {
        let raw = escape_all(&text);
        prop_assert_eq!(decode_path(raw.as_bytes()).unwrap(), text.as_str());
        let routing = decode_for_routing(raw.as_bytes()).unwrap();
        prop_assert!(!routing.contains('/'));
        prop_assert_eq!(decode_param(&routing), text.as_str());
        prop_assert_eq!(pairs(&format!("{raw}={raw}")).pop().unwrap_or_default(), (text.clone(), text));
    }

    #[test]
    fn two_steps_equal_one(raw in proptest::collection::vec(prop::sample::select(b"a/%2525fF0cC3Aa4\xc3\xa4".to_vec()), 0..40)) {
        let one = decode_path(&raw);
        let two = decode_for_routing(&raw).map(|routing| decode_param(&routing));
        prop_assert_eq!(one, two);
        let _ = query_pairs(&raw).count();
    }
}

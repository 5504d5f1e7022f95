//! Percent-decoding of paths and queries.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::borrow::Cow;

use proptest::prelude::*;
use theframework_http::{BadEncoding, decode_for_routing, decode_param, decode_path, query_pairs};

fn pairs(raw: &str) -> Vec<(String, String)> {
    query_pairs(raw.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
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
    assert!(matches!(decode_path(b"/a/b"), Ok(Cow::Borrowed("/a/b"))));
    assert!(matches!(
        decode_for_routing(b"/a/b"),
        Ok(Cow::Borrowed("/a/b"))
    ));
    assert!(matches!(decode_param("ab"), Cow::Borrowed("ab")));
    let (name, value) = query_pairs(b"a=b").next().unwrap();
    assert!(matches!(
        (name, value),
        (Cow::Borrowed("a"), Cow::Borrowed("b"))
    ));
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
    let raw: Vec<_> = query_pairs(b"\xff=\xe4+")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
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
        let two = decode_for_routing(&raw).map(|routing| decode_param(&routing).into_owned());
        prop_assert_eq!(one.map(Cow::into_owned), two);
        let _ = query_pairs(&raw).count();
    }
}

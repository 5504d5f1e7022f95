//! Request heads: what is accepted, with every prefix of it incomplete, and what is refused, and how.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod common;

use common::{arena, bad, good, parse, parse_with};
use proptest::prelude::*;
use theframework_http::{
    Framing, HeadError, HeadLimits, Method, TargetForm, Version, find_head_end, is_ambiguous_name,
    parse_head,
};

/// A head of a GET with these lines after `Host`.
fn get_with(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn get_target(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: field\r\n\r\n").into_bytes()
}

// ---- seed 003 §12.1, tryParse ----

#[test]
fn complete_get() {
    let head = good(b"GET /a/b?c=d&e HTTP/1.1\r\nHost: example.com:8000\r\nAccept: */*\r\n\r\n");
    assert_eq!(
        (head.method, head.method_text.as_str()),
        (Method::Get, "GET")
    );
    assert_eq!(
        (head.version, head.form),
        (Version::Http11, TargetForm::Origin)
    );
    assert_eq!(
        (head.target.as_str(), head.path.as_str()),
        ("/a/b?c=d&e", "/a/b")
    );
    assert_eq!(head.query.as_deref(), Some("c=d&e"));
    assert_eq!(head.host.as_deref(), Some("example.com:8000"));
    assert_eq!(head.framing, Framing::None);
    assert!(head.keep_alive && !head.expects_continue);
    assert_eq!(
        head.fields,
        [
            ("Host".to_owned(), b"example.com:8000".to_vec()),
            ("Accept".to_owned(), b"*/*".to_vec())
        ]
    );
    assert_eq!(head.len, 64);
}

#[test]
fn content_length_zero_and_absent() {
    assert_eq!(
        good(&get_with("Content-Length: 0\r\n")).framing,
        Framing::Length(0)
    );
    assert_eq!(good(&get_with("")).framing, Framing::None);
    assert_eq!(
        good(&get_with("content-LENGTH: \t 5 \t\r\n")).framing,
        Framing::Length(5)
    );
    assert_eq!(
        good(&get_with("Content-Length: 18446744073709551615\r\n")).framing,
        Framing::Length(u64::MAX)
    );
    assert_eq!(
        good(&get_with("Content-Length: 0000000000000000000000005\r\n")).framing,
        Framing::Length(5)
    );
}

#[test]
fn repeated_fields_are_kept_in_order() {
    let head = good(&get_with("X: 1\r\nx: 2\r\nY:\r\nX: 1\r\n"));
    let fields: Vec<_> = head
        .fields
        .iter()
        .map(|(name, value)| (name.as_str(), &value[..]))
        .collect();
    assert_eq!(
        fields,
        [
            ("Host", &b"a"[..]),
            ("X", b"1"),
            ("x", b"2"),
            ("Y", b""),
            ("X", b"1")
        ]
    );
}

#[test]
fn any_number_of_fields() {
    for count in [
        0, 14, 15, 16, 31, 32, 33, 62, 63, 64, 65, 100, 127, 128, 129, 1000,
    ] {
        let lines: String = (0..count)
            .map(|i| format!("X-{i}: value {i}\r\n"))
            .collect();
        let head = parse(&get_with(&lines)).unwrap().unwrap();
        assert_eq!(head.fields.len(), count + 1);
        for (i, (name, value)) in head.fields[1..].iter().enumerate() {
            assert_eq!(
                (name, value),
                (&format!("X-{i}"), &format!("value {i}").into_bytes())
            );
        }
    }
    good(&get_with(&"a:\r\n".repeat(70)));
}

#[test]
fn many_fields_are_as_strict_as_few() {
    let many = "a: b\r\n".repeat(100);
    assert_eq!(
        bad(&get_with(&format!("{many}a: b\nc: d\r\n"))),
        HeadError::Malformed
    );
    assert_eq!(
        bad(&get_with(&format!("{many}a : b\r\n"))),
        HeadError::FieldNameInvalid
    );
    assert_eq!(
        bad(&get_with(&format!("{many}Host: b\r\n"))),
        HeadError::HostRepeated
    );
}

#[test]
fn values_lie_in_the_input() {
    let bytes = get_with("X-Test: hello\r\n");
    let mut arena = arena();
    let head = parse_head(&bytes, &HeadLimits::default(), &mut arena)
        .unwrap()
        .unwrap();
    let value = head.header(&bytes, &arena, "x-test").unwrap();
    assert_eq!(value, b"hello");
    assert!(bytes.as_ptr_range().contains(&value.as_ptr()));
    assert_eq!(head.header(&bytes, &arena, "x-tes"), None);
    assert_eq!(head.fields(&bytes, &arena).len(), 2);
}

#[test]
fn a_head_is_small() {
    assert!(
        size_of::<theframework_http::Head>() <= 128,
        "{}",
        size_of::<theframework_http::Head>()
    );
}

// ---- limits ----

#[test]
fn a_head_of_exactly_the_limit_passes() {
    for blank in ["", "\r\n\r\n"] {
        let mut bytes = blank.as_bytes().to_vec();
        bytes.extend(get_with("X: 0123456789\r\n"));
        let limits = |max_header_size| HeadLimits {
            max_header_size,
            ..HeadLimits::default()
        };
        assert_eq!(
            parse_with(&bytes, &limits(bytes.len()))
                .unwrap()
                .unwrap()
                .len,
            bytes.len()
        );
        assert_eq!(
            parse_with(&bytes, &limits(bytes.len() - 1)),
            Err(HeadError::TooLarge)
        );
        // A strict prefix that is under the limit is incomplete; one that fills it has lost.
        let len = bytes.len();
        assert_eq!(parse_with(&bytes[..len - 1], &limits(len)), Ok(None));
        assert_eq!(
            parse_with(&bytes[..len - 1], &limits(len - 1)),
            Err(HeadError::TooLarge)
        );
        // A body behind it does not count.
        bytes.extend([b'x'; 1000]);
        assert_eq!(parse_with(&bytes, &limits(len)).unwrap().unwrap().len, len);
    }
    assert_eq!(HeadError::TooLarge.status(), 431);
}

#[test]
fn a_target_of_exactly_the_limit_passes() {
    let limits = HeadLimits {
        max_target_size: 20,
        max_header_size: 1000,
    };
    for method in ["GET", "POST", "PROPFIND"] {
        let exact = get_target(method, &format!("/{}", "a".repeat(19)));
        assert_eq!(
            parse_with(&exact, &limits).unwrap().unwrap().target.len(),
            20
        );
        for len in 0..exact.len() {
            assert_eq!(parse_with(&exact[..len], &limits), Ok(None));
        }
        let over = get_target(method, &format!("/{}", "a".repeat(20)));
        let seen = method.len() + 1 + 21;
        for len in 0..=over.len() {
            let expected = if len < seen {
                Ok(None)
            } else {
                Err(HeadError::TargetTooLong)
            };
            assert_eq!(
                parse_with(&over[..len], &limits),
                expected,
                "{method} {len}"
            );
        }
    }
    // Long before the head's limit, and also with another version.
    assert_eq!(
        parse(&[b"GET /", &[b'a'; 9000][..]].concat()),
        Err(HeadError::TargetTooLong)
    );
    assert_eq!(
        parse(&[b"GET /", &[b'a'; 9000][..], b" HTTP/1.2\r\nHost: a\r\n\r\n"].concat()),
        Err(HeadError::TargetTooLong)
    );
    assert_eq!(HeadError::TargetTooLong.status(), 414);
}

#[test]
fn a_method_of_32_bytes_passes() {
    let head = good(&get_target(&"M".repeat(32), "/"));
    assert_eq!(
        (head.method, head.method_text),
        (Method::Other, "M".repeat(32))
    );
    assert_eq!(
        bad(&get_target(&"M".repeat(33), "/")),
        HeadError::MethodTooLong
    );
    assert_eq!(parse(&[b'M'; 33]), Err(HeadError::MethodTooLong));
    assert_eq!(HeadError::MethodTooLong.status(), 501);
}

// ---- request line ----

#[test]
fn methods_are_tokens() {
    assert_eq!(good(&get_target("get", "/")).method, Method::Other);
    assert_eq!(good(&get_target("M-SEARCH", "/")).method, Method::Other);
    assert_eq!(good(&get_target("DELETE", "/")).method, Method::Delete);
    for method in [
        "G\u{e4}T", "GET\t", "G:T", "(GET)", "G\0T", "G\rT", "\"GET\"", "", " GET", "G\u{b}",
    ] {
        assert_eq!(bad(&get_target(method, "/")).status(), 400, "{method:?}");
    }
}

#[test]
fn request_line_is_exactly_three_parts_of_one_space() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "GET / x HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET /",
        "GET",
        "GET / ",
        "GET /\t HTTP/1.1",
        "GET / HTTP/1.1\r",
        "GET /\u{b}HTTP/1.1",
    ] {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(bad(bytes.as_bytes()).status(), 400, "{line:?}");
    }
}

#[test]
fn empty_lines_before_the_request_line() {
    for count in 0..=4 {
        let bytes = ["\r\n".repeat(count).as_bytes(), &get_with("X: y\r\n")].concat();
        assert_eq!(good(&bytes).len, bytes.len());
    }
    assert_eq!(
        bad(&["\r\n".repeat(5).as_bytes(), &get_with("")].concat()),
        HeadError::Malformed
    );
    for start in [
        "\n", "\r", "\r\r\n", "\r\n\n", " ", "\t", " \r\n", "\0", "\u{b}",
    ] {
        assert_eq!(
            bad(&[start.as_bytes(), &get_with("")].concat()),
            HeadError::Malformed,
            "{start:?}"
        );
    }
}

#[test]
fn versions() {
    let with = |version: &str| {
        format!("GET /x?y {version}\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let head = good(&with("HTTP/1.0"));
    assert_eq!(head.version, Version::Http10);
    let expected = good(&with("HTTP/1.1"));
    for minor in 2..=9 {
        assert_eq!(good(&with(&format!("HTTP/1.{minor}"))), expected);
    }
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"] {
        assert_eq!(
            bad(&with(version)),
            HeadError::VersionNotSupported,
            "{version}"
        );
    }
    for version in [
        "HTTP/1",
        "HTTP/1.",
        "HTTP/2",
        "HTTP/11",
        "HTTP/1.10",
        "HTTP/10.1",
        "http/1.1",
        "HTTP/1,1",
        "HTTP 1.1",
        "HTTPS/1.1",
        "HTTP/+1.1",
        "HTTP/1.1x",
        "ICY",
        "HTTP/1.a",
        "HTTP/1.2 ",
        "HTTP/1.2x",
        "HTTP/\u{b9}.1",
        "xHTTP/1.1",
    ] {
        assert_eq!(bad(&with(version)).status(), 400, "{version}");
    }
    assert_eq!(HeadError::VersionNotSupported.status(), 505);
}

#[test]
fn http2_preface() {
    assert_eq!(
        bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        HeadError::VersionNotSupported
    );
}

#[test]
fn another_major_version_is_refused_with_its_line() {
    for line in [&b"PRI * HTTP/2.0\r\n"[..], b"GET / HTTP/0.9\r\n"] {
        assert_eq!(parse(line), Err(HeadError::VersionNotSupported));
        assert_eq!(parse(&line[..line.len() - 1]), Ok(None));
    }
    assert_eq!(parse(b"GET / HTTP/1.2\r\n"), Ok(None));
}

#[test]
fn a_version_line_ending_in_a_bare_lf() {
    assert_eq!(bad(b"GET / HTTP/1.3\nHost: a\r\n\r\n").status(), 400);
    assert_eq!(bad(b"GET / HTTP/1.3\r\nHost: a\n\r\n").status(), 400);
}

#[test]
fn garbage_is_refused_before_it_is_complete() {
    assert_eq!(
        parse(b"\x16\x03\x01\x02\x00\x01\x00").unwrap_err().status(),
        400
    );
    assert_eq!(
        parse(b"GET / HTTP/1.1\r\n : ").unwrap_err(),
        HeadError::FieldNameInvalid
    );
    assert_eq!(
        parse(b"GET / HTTP/1.1\r\nA: \0").unwrap_err(),
        HeadError::FieldValueInvalid
    );
    assert_eq!(parse(b"GET / FTP").unwrap_err(), HeadError::VersionInvalid);
}

// ---- targets ----

#[test]
fn origin_form() {
    let of = |target: &str| good(&get_target("GET", target));
    assert_eq!(of("/").path, "/");
    assert_eq!(of("//a//b").path, "//a//b");
    assert_eq!(
        (of("/a?").path.as_str(), of("/a?").query.as_deref()),
        ("/a", Some(""))
    );
    assert_eq!(
        (of("/?a?b").path.as_str(), of("/?a?b").query.as_deref()),
        ("/", Some("a?b"))
    );
    assert_eq!(of("/%zz/../\"<>\\^`{|}").path, "/%zz/../\"<>\\^`{|}");
    assert_eq!(of("/http://b/").form, TargetForm::Origin);
}

#[test]
fn absolute_form() {
    for (target, host, path, query) in [
        ("http://h.example/a/b?c", "h.example", "/a/b", Some("c")),
        ("HTTPS://h:443/", "h:443", "/", None),
        ("http://h", "h", "", None),
        ("http://h?q", "h", "", Some("q")),
        ("http://[::1]:8080?", "[::1]:8080", "", Some("")),
        ("http://[::]/", "[::]", "/", None),
        ("http://[::]:80/", "[::]:80", "/", None),
        ("http://127.0.0.1:/x", "127.0.0.1:", "/x", None),
    ] {
        let bytes = get_target("GET", target);
        let head = good(&bytes);
        assert_eq!(head.form, TargetForm::Absolute);
        assert_eq!(
            (head.target.as_str(), head.host.as_deref()),
            (target, Some(host))
        );
        assert_eq!((head.path.as_str(), head.query.as_deref()), (path, query));
        // The field says the same, whatever it said.
        assert_eq!(head.fields, [("Host".to_owned(), host.as_bytes().to_vec())]);
        let head = parse_head(&bytes, &HeadLimits::default(), &mut arena())
            .unwrap()
            .unwrap();
        assert_eq!(
            head.path_or_root(&bytes),
            if path.is_empty() {
                b"/"
            } else {
                path.as_bytes()
            }
        );
    }
    // Host is still demanded, and checked.
    assert_eq!(
        bad(b"GET http://h/ HTTP/1.1\r\n\r\n"),
        HeadError::HostMissing
    );
    assert_eq!(
        bad(b"GET http://h/ HTTP/1.1\r\nHost: a b\r\n\r\n"),
        HeadError::HostInvalid
    );
    assert_eq!(
        good(b"GET http://h/ HTTP/1.0\r\n\r\n").host.as_deref(),
        Some("h")
    );
}

#[test]
fn asterisk_and_authority_forms() {
    let head = good(&get_target("OPTIONS", "*"));
    assert_eq!(
        (head.form, head.path.as_str(), head.host.as_deref()),
        (TargetForm::Asterisk, "*", Some("field"))
    );
    let head = good(&get_target("CONNECT", "example.com:443"));
    assert_eq!((head.form, head.path.as_str()), (TargetForm::Authority, ""));
    assert_eq!(head.host.as_deref(), Some("example.com:443"));
    assert_eq!(
        good(&get_target("CONNECT", "[::1]:80")).form,
        TargetForm::Authority
    );
}

#[test]
fn bad_targets() {
    for (method, target) in [
        ("GET", "*"),
        ("OPTIONS", "*x"),
        ("OPTIONS", "**"),
        ("GET", "a"),
        ("GET", "example.com:80"),
        ("GET", "?a"),
        ("GET", "%2F"),
        ("GET", "ftp://h/"),
        ("GET", "http:/h"),
        ("GET", "http://"),
        ("GET", "http:///a"),
        ("GET", "http://:80/"),
        ("GET", "http://u@h/"),
        ("GET", "http://u:p@h/"),
        ("GET", "http://h:x/"),
        ("GET", "http://h:65536/"),
        ("GET", "http://[::1/"),
        ("GET", "http://a,b/"),
        ("GET", "javascript:1"),
        ("GET", "/#"),
        ("GET", "/a#b"),
        ("GET", "/a?b#c"),
        ("GET", "http://h/#a"),
        ("GET", "/\u{e4}"),
        ("GET", "/?\u{e4}"),
        ("CONNECT", "/"),
        ("CONNECT", "h"),
        ("CONNECT", "h:"),
        ("CONNECT", ":443"),
        ("CONNECT", "http://h:80/"),
        ("CONNECT", "u@h:80"),
        ("CONNECT", "h:80/"),
        ("CONNECT", "*"),
        ("CONNECT", "h:99999"),
    ] {
        assert_eq!(
            bad(&get_target(method, target)),
            HeadError::TargetInvalid,
            "{method} {target}"
        );
    }
}

#[test]
fn no_byte_but_visible_ascii_in_a_target() {
    for byte in 0..=255_u8 {
        for at in [1, 8, 17, 40] {
            let mut target = [b'a'; 64];
            target[0] = b'/';
            target[at] = byte;
            let bytes = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let is_good = matches!(byte, 0x21..=0x7e) && byte != b'#';
            match parse(&bytes) {
                Ok(Some(_)) => assert!(is_good, "{byte:#x} at {at}"),
                Err(error) => assert!(!is_good && error.status() == 400, "{byte:#x} at {at}"),
                Ok(None) => panic!("{byte:#x} at {at}"),
            }
        }
    }
}

// ---- lines and fields ----

#[test]
fn bare_line_feeds_and_carriage_returns() {
    for bytes in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\nY: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \t\n\r\n",
        b"GET / HTTP/1.0\n\n",
        b"GET / HTTP/1.0\n\r\n",
        b"GET / HTTP/1.0\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\rZ",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
    ] {
        assert_eq!(
            bad(bytes).status(),
            400,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn folded_lines_and_bad_names() {
    for lines in [
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        " X: a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X Y: a\r\n",
        "X\0: a\r\n",
        "X(: a\r\n",
        "X\u{e4}: a\r\n",
        "\u{b}X: a\r\n",
        "X\u{b}: a\r\n",
        "X\u{7f}: a\r\n",
        "X@: a\r\n",
        "X\r: a\r\n",
    ] {
        assert_eq!(
            bad(&get_with(lines)),
            HeadError::FieldNameInvalid,
            "{lines:?}"
        );
    }
    assert_eq!(
        bad(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        HeadError::FieldNameInvalid
    );
}

#[test]
fn no_control_byte_in_a_value() {
    for byte in 0..=255_u8 {
        for (at, len) in [
            (0, 1),
            (1, 3),
            (7, 9),
            (20, 64),
            (40, 64),
            (63, 64),
            (0, 64),
        ] {
            let mut value = vec![b'v'; len];
            value[at] = byte;
            let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\nX:", &value[..], b"\r\n\r\n"].concat();
            let is_good = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
            match parse(&bytes) {
                Ok(Some(head)) => {
                    assert!(is_good, "{byte:#x} at {at} of {len}");
                    assert_eq!(head.fields[1].1, value.trim_ascii());
                }
                // A bare LF ends the line in `httparse`, which then may find something else.
                Err(error) => assert!(
                    !is_good && error.status() == 400,
                    "{byte:#x} at {at} of {len}"
                ),
                Ok(None) => panic!("{byte:#x} at {at} of {len}"),
            }
        }
    }
}

// ---- Host ----

#[test]
fn hosts() {
    for host in [
        "a",
        "example.com",
        "example.com:80",
        "127.0.0.1:8000",
        "[::1]",
        "[::1]:8000",
        "[::ffff:1.2.3.4]",
        "",
        ":80",
        "a:",
        "a_b-c~d.e",
        "xn--bcher-kva.example",
        "%41b",
        "a!$&'()*+;=b",
        "a:65535",
        "a:00080",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nhOST:  {host} \r\n\r\n");
        assert_eq!(good(bytes.as_bytes()).host.as_deref(), Some(host));
    }
    for host in [
        "a b",
        "a,b",
        "u@h",
        "u:p@h",
        "a/b",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:+1",
        "a:65536",
        "a:100000",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:x",
        "[1.2.3.4]",
        "[]",
        "[::g]",
        "[fe80::1%25eth0]",
        "a\"b",
        "a<b",
        "a\\b",
        "a?b",
        "a#b",
        "%4",
        "%zz",
        "a%",
        "\u{e4}",
        "http://a",
        "a;b c",
        "a\tb",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(bad(bytes.as_bytes()), HeadError::HostInvalid, "{host:?}");
    }
}

#[test]
fn host_missing_or_repeated() {
    assert_eq!(bad(b"GET / HTTP/1.1\r\n\r\n"), HeadError::HostMissing);
    assert_eq!(
        bad(b"GET / HTTP/1.2\r\nX: y\r\n\r\n"),
        HeadError::HostMissing
    );
    assert_eq!(bad(&get_with("Host: b\r\n")), HeadError::HostRepeated);
    assert_eq!(bad(&get_with("HOST: a\r\n")), HeadError::HostRepeated);
    assert_eq!(
        bad(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        HeadError::HostRepeated
    );
    let head = good(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(head.host, None);
    assert!(head.fields.is_empty());
}

#[test]
fn content_type_repeated() {
    assert_eq!(
        bad(&get_with(
            "Content-Type: a/b\r\nX: y\r\ncontent-type: a/b\r\n"
        )),
        HeadError::ContentTypeRepeated
    );
    assert_eq!(HeadError::ContentTypeRepeated.status(), 400);
    assert_eq!(good(&get_with("Content-Type: a/b\r\n")).fields.len(), 2);
}

#[test]
fn ambiguous_names_have_an_underscore() {
    for name in [
        "_",
        "X_User",
        "X-User_",
        "_X",
        "a-very-long-name-with-one_there",
    ] {
        assert!(is_ambiguous_name(name.as_bytes()), "{name}");
    }
    for name in ["", "X-User", "Host", "x~y!z"] {
        assert!(!is_ambiguous_name(name.as_bytes()), "{name}");
    }
}

// ---- framing ----

#[test]
fn content_length_that_is_not_digits() {
    for value in [
        "+5",
        "-5",
        "-0",
        "5, 5",
        "5,5",
        "5 5",
        "",
        " ",
        "0x5",
        "5.0",
        "5e0",
        "abc",
        "5a",
        "\u{663}",
        "18446744073709551616",
        "99999999999999999999999",
        "5;",
        "5,",
        ",5",
        "5\t5",
        "_5",
        "1_000",
    ] {
        assert_eq!(
            bad(&get_with(&format!("Content-Length: {value}\r\n"))),
            HeadError::ContentLengthInvalid,
            "{value:?}"
        );
    }
    assert_eq!(
        bad(&get_with("Content-Length: \u{b}5\r\n")),
        HeadError::FieldValueInvalid
    );
    assert_eq!(
        bad(&get_with("Content-Length : 5\r\n")),
        HeadError::FieldNameInvalid
    );
}

#[test]
fn content_length_repeated() {
    assert_eq!(
        good(&get_with(
            "Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n"
        ))
        .framing,
        Framing::Length(5)
    );
    assert_eq!(
        bad(&get_with("Content-Length: 5\r\nContent-Length: 6\r\n")),
        HeadError::ContentLengthConflict
    );
    assert_eq!(
        bad(&get_with(
            "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 50\r\n"
        )),
        HeadError::ContentLengthConflict
    );
    assert_eq!(
        bad(&get_with("Content-Length: 5\r\nContent-Length:\r\n")),
        HeadError::ContentLengthInvalid
    );
}

#[test]
fn chunked_alone() {
    for lines in [
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:CHUNKED\r\n",
        "Transfer-Encoding: \t Chunked \t\r\n",
    ] {
        assert_eq!(
            good(&get_with(lines)).framing,
            Framing::Chunked,
            "{lines:?}"
        );
    }
}

#[test]
fn smuggling_cl_te_and_te_cl() {
    for lines in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: gzip, chunked\r\nContent-Length: 6\r\n",
        "Transfer-Encoding:\r\nContent-Length: 6\r\n",
    ] {
        assert_eq!(
            bad(&get_with(lines)),
            HeadError::ContentLengthWithTransferEncoding,
            "{lines:?}"
        );
    }
    assert_eq!(
        bad(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n").status(),
        400
    );
}

#[test]
fn smuggling_te_te_obfuscations() {
    for lines in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: ,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: chun ked\r\n",
        "Transfer-Encoding: chunked gzip\r\n",
        "Transfer-Encoding: gzip chunked\r\n",
        "Transfer-Encoding: gzip;chunked\r\n",
        "Transfer-Encoding: chunked\u{a0}\r\n",
        "Transfer-Encoding: \u{85}chunked\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: g zip, chunked\r\n",
    ] {
        assert_eq!(
            bad(&get_with(lines)),
            HeadError::TransferEncodingInvalid,
            "{lines:?}"
        );
    }
    for lines in [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: chunked\u{c}\r\n",
        "Transfer-Encoding: \u{b}\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r \r\n",
        "Transfer-\u{b}Encoding: chunked\r\n",
        "Transfer-Encoding: \u{7f}chunked\r\n",
    ] {
        assert_eq!(bad(&get_with(lines)).status(), 400, "{lines:?}");
    }
    // An underscore is another name: no framing, and it must not become one above.
    assert_eq!(
        good(&get_with("Transfer_Encoding: chunked\r\n")).framing,
        Framing::None
    );
}

#[test]
fn unknown_codings_before_chunked_are_not_implemented() {
    for lines in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip;level=9 , chunked\r\n",
    ] {
        assert_eq!(
            bad(&get_with(lines)),
            HeadError::TransferCodingUnknown,
            "{lines:?}"
        );
    }
    assert_eq!(HeadError::TransferCodingUnknown.status(), 501);
}

#[test]
fn transfer_encoding_in_http10() {
    assert_eq!(
        bad(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        HeadError::TransferEncodingInHttp10
    );
    assert_eq!(
        bad(b"POST / HTTP/1.0\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        HeadError::TransferEncodingInHttp10
    );
    assert_eq!(
        bad(b"POST / HTTP/1.0\r\nTransfer-Encoding: x\r\n\r\n"),
        HeadError::TransferEncodingInHttp10
    );
}

// ---- connection, expectation ----

#[test]
fn connection_reuse() {
    for (version, lines, expected) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Keep-Alive\r\n", true),
        ("1.1", "Connection: keep-alive, CLOSE\r\n", false),
        (
            "1.1",
            "Connection: close\r\nConnection: keep-alive\r\n",
            false,
        ),
        (
            "1.1",
            "Connection: keep-alive\r\nConnection: x ,\tclose\t, y\r\n",
            false,
        ),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection: \"close\"\r\n", true),
        ("1.1", "Connection: upgrade\r\n", true),
        ("1.1", "Connection:\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: x\r\nConnection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Connection: close\r\n", false),
    ] {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(
            good(bytes.as_bytes()).keep_alive,
            expected,
            "{version} {lines:?}"
        );
    }
}

#[test]
fn expectations() {
    assert!(good(&get_with("Expect: 100-Continue\r\nContent-Length: 1\r\n")).expects_continue);
    // Empty elements of a list are ignored.
    assert!(good(&get_with("Expect: , 100-continue,\r\n")).expects_continue);
    assert!(!good(&get_with("Expect: ,\r\n")).expects_continue);
    assert!(!good(&get_with("Expect:\r\n")).expects_continue);
    for value in ["200-ok", "100-continue, x", "100", "\"100-continue\""] {
        assert_eq!(
            bad(&get_with(&format!("Expect: {value}\r\n"))),
            HeadError::ExpectationFailed,
            "{value:?}"
        );
    }
    assert_eq!(
        bad(&get_with("Expect: 100-continue\r\nExpect: x\r\n")).status(),
        417
    );
    // A worse error is told first.
    assert_eq!(
        bad(&get_with("Expect: x\r\nContent-Length: x\r\n")).status(),
        400
    );
    // RFC 9110 §10.1.1: HTTP/1.0 clients cannot expect.
    assert!(
        !good(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
            .expects_continue
    );
    good(b"POST / HTTP/1.0\r\nExpect: x\r\n\r\n");
}

#[test]
fn a_field_as_long_as_a_known_one_means_nothing() {
    let plain = good(&get_with(""));
    for line in [
        "Hose: b",
        "Expert: 100-continue",
        "Export: something else",
        "Connectiom: close",
        "Keep-Alive: close",
        "Content-Lengti: 5",
        "Content-Length-: 5",
        "Transfer-Encodinh: chunked",
    ] {
        let head = good(&get_with(&format!("{line}\r\n")));
        assert_eq!(
            (head.host, head.framing, head.keep_alive),
            (plain.host.clone(), plain.framing, plain.keep_alive),
            "{line}"
        );
        assert!(!head.expects_continue, "{line}");
    }
    let old = good(b"GET / HTTP/1.0\r\nConnectiom: keep-alive\r\n\r\n");
    assert!(!old.keep_alive);
}

// ---- the search for the end ----

#[test]
fn the_end_is_found_wherever_the_input_is_split() {
    let many = "a: b\r\n".repeat(40);
    for head in [
        get_with(""),
        get_with(&many),
        [&b"\r\n\r\n"[..], &get_with("X: y\r\n")].concat(),
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
    ] {
        let bytes = [&head[..], b"body\r\n\r\nmore"].concat();
        for first in 0..=head.len() {
            let early = find_head_end(&bytes[..first], 0);
            assert_eq!(
                early,
                (first == head.len()).then_some(head.len()),
                "{first}"
            );
            assert_eq!(
                find_head_end(&bytes, first.min(head.len() - 1)),
                Some(head.len()),
                "{first}"
            );
        }
        let mut searched = 0;
        for len in 0..head.len() {
            assert_eq!(find_head_end(&bytes[..len], searched), None);
            searched = len;
        }
    }
}

#[test]
fn what_will_be_refused_is_given_an_end() {
    for bytes in [
        &b"GET / HTTP/1.1\nHost: a\n\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\nHost: a\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\n",
    ] {
        let mut searched = 0;
        let found = (0..=bytes.len()).find_map(|len| {
            let end = find_head_end(&bytes[..len], searched);
            searched = len;
            end.map(|end| (len, end))
        });
        assert_eq!(found, Some((bytes.len(), bytes.len())));
        assert_eq!(find_head_end(bytes, 0), Some(bytes.len()));
        assert!(parse(bytes).is_err());
    }
    assert_eq!(find_head_end(b"", 0), None);
    assert_eq!(find_head_end(b"\r\n\r\n", 0), None);
    assert_eq!(find_head_end(b"", 10), None);
}

// ---- errors ----

#[test]
fn errors_say_what_was_wrong() {
    assert_eq!(
        HeadError::HostMissing.to_string(),
        "an HTTP/1.1 request needs a Host field"
    );
    assert_eq!(
        HeadError::TooLarge.to_string(),
        "the request head is too large"
    );
    assert_eq!(
        HeadError::from(theframework_memory::OutOfMemory),
        HeadError::OutOfMemory
    );
    assert_eq!(HeadError::OutOfMemory.status(), 503);
    assert!(size_of::<HeadError>() == 1);
}

// ---- properties ----

fn token() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}").unwrap()
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![0x20..0x7f_u8, Just(b'\t'), 0x80..=0xff_u8];
    proptest::collection::vec(byte, 0..40)
}

fn trim(value: &[u8]) -> &[u8] {
    let is_ows = |b: &u8| *b == b' ' || *b == b'\t';
    let start = value.iter().position(|b| !is_ows(b)).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|b| !is_ows(b))
        .map_or(start, |at| at + 1);
    &value[start..end]
}

const SPECIAL: [&str; 5] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
];

proptest! {
    #[test]
    fn generated_heads_round_trip(
        method in token(),
        path in "/[!-\"$->@-~]{0,40}",
        query in proptest::option::of("[!-\"$-~]{0,20}"),
        minor in 1..10_u8,
        blank in 0..5_usize,
        fields in proptest::collection::vec((token(), value()), 0..90),
        host in "[a-z.0-9-]{0,20}(:[0-9]{0,4})?",
        length in proptest::option::of(any::<u64>()),
    ) {
        prop_assume!(method != "CONNECT");
        let fields: Vec<_> = fields.into_iter()
            .filter(|(name, _)| !SPECIAL.contains(&name.to_lowercase().as_str())).collect();
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut bytes = "\r\n".repeat(blank).into_bytes();
        bytes.extend(format!("{method} {target} HTTP/1.{minor}\r\n").bytes());
        for (name, value) in &fields {
            bytes.extend([name.as_bytes(), b":", value, b"\r\n"].concat());
        }
        bytes.extend(format!("Host: {host}\r\n").bytes());
        if let Some(length) = length {
            bytes.extend(format!("Content-Length: {length}\r\n").bytes());
        }
        bytes.extend(b"\r\n");
        let head = parse(&bytes).unwrap().unwrap();
        prop_assert_eq!(head.len, bytes.len());
        prop_assert_eq!(head.method_text, method);
        prop_assert_eq!((head.target, head.path, head.query), (target, path, query));
        prop_assert_eq!(head.host, Some(host));
        prop_assert_eq!(head.framing, length.map_or(Framing::None, Framing::Length));
        for ((name, value), (sent_name, sent_value)) in head.fields.iter().zip(&fields) {
            prop_assert_eq!(name, sent_name);
            prop_assert_eq!(&value[..], trim(sent_value));
        }
        prop_assert_eq!(head.fields.len(), fields.len() + 1 + usize::from(length.is_some()));
        for len in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 3, bytes.len() - 1] {
            prop_assert_eq!(parse(&bytes[..len]), Ok(None));
        }
        prop_assert_eq!(find_head_end(&bytes, 0), Some(bytes.len()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), target in 0..50_usize, head in 0..150_usize) {
        let limits = HeadLimits { max_target_size: target, max_header_size: head };
        if let Ok(Some(parsed)) = parse_with(&bytes, &limits) {
            prop_assert!(parsed.len <= head);
        }
        let _ = find_head_end(&bytes, target);
    }

    /// Nearly good heads: a good one with a few bytes changed. Whatever is accepted obeys the rules of
    /// lines, and is what its prefix of `len` bytes says.
    #[test]
    fn what_is_accepted_is_clean(changes in proptest::collection::vec((0..200_usize, any::<u8>()), 0..4)) {
        let mut bytes = b"POST /a?b HTTP/1.1\r\nHost: a.b:1\r\nTransfer-Encoding: chunked\r\nConnection: close, x\r\nX-Y: z\r\n\
            Expect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        match parse(&bytes) {
            Ok(Some(head)) => {
                prop_assert_eq!(parse(&bytes[..head.len]), Ok(Some(head.clone())));
                prop_assert_eq!(parse(&bytes[..head.len - 1]), Ok(None));
                let text = &bytes[..head.len];
                for (at, &byte) in text.iter().enumerate() {
                    match byte {
                        b'\n' => prop_assert_eq!(text[at - 1], b'\r'),
                        b'\r' => prop_assert_eq!(text[at + 1], b'\n'),
                        b'\t' => {}
                        _ => prop_assert!(byte >= 0x20 && byte != 0x7f),
                    }
                }
                prop_assert_eq!(find_head_end(&bytes, 0), Some(head.len));
            }
            Ok(None) => {}
            Err(error) => prop_assert!([400, 417, 501, 505].contains(&error.status())),
        }
    }
}

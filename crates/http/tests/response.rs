//! Response heads: the exact bytes, what of a user's fields is dropped, and that a parser reads back
//! what was written.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod common;

use common::{DATE, write_arena};
use proptest::prelude::*;
use theframework_http::{
    Connection, ContentLength, InvalidHeader, LAST_CHUNK, ResponseHead, forbids_body, reason,
    simple_response, validate_name, validate_value, write_chunk_header, write_head,
};

type Field<'a> = (&'a [u8], &'a [u8]);

fn written(
    status: u16,
    server: Option<&[u8]>,
    content_length: ContentLength,
    connection: Connection,
    fields: &[Field<'_>],
) -> String {
    let mut out = write_arena();
    let head = ResponseHead {
        status,
        date: DATE,
        server,
        content_length,
        connection,
        fields: fields.iter().copied(),
    };
    write_head(&mut out, &head).unwrap();
    String::from_utf8(out.as_slice().to_vec()).unwrap()
}

fn plain(status: u16, content_length: ContentLength) -> String {
    written(status, None, content_length, Connection::Default, &[])
}

#[test]
fn a_whole_head() {
    assert_eq!(
        written(
            200,
            Some(b"theframework"),
            ContentLength::Known(5),
            Connection::KeepAlive,
            &[
                (b"Content-Type", b"text/plain"),
                (b"X-Empty", b""),
                (b"Set-Cookie", b"a"),
                (b"Set-Cookie", b"b"),
            ]
        ),
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: theframework\r\nContent-Type: text/plain\r\nX-Empty: \r\n\
         Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"
    );
}

#[test]
fn framing_and_connection() {
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(
        plain(200, ContentLength::None),
        format!("HTTP/1.1 200 OK\r\n{date}\r\n")
    );
    assert_eq!(
        plain(404, ContentLength::Known(u64::MAX)),
        format!("HTTP/1.1 404 Not Found\r\n{date}Content-Length: 18446744073709551615\r\n\r\n")
    );
    assert_eq!(
        written(500, None, ContentLength::Chunked, Connection::Close, &[]),
        format!(
            "HTTP/1.1 500 Internal Server Error\r\n{date}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
    );
    // RFC 9110 §8.6: none in 1xx and 204; 304 may say what 200 would have said.
    assert_eq!(
        plain(204, ContentLength::Known(0)),
        format!("HTTP/1.1 204 No Content\r\n{date}\r\n")
    );
    assert_eq!(
        plain(204, ContentLength::Chunked),
        format!("HTTP/1.1 204 No Content\r\n{date}\r\n")
    );
    assert_eq!(
        plain(103, ContentLength::Known(0)),
        format!("HTTP/1.1 103 Early Hints\r\n{date}\r\n")
    );
    assert_eq!(
        plain(304, ContentLength::Known(9)),
        format!("HTTP/1.1 304 Not Modified\r\n{date}Content-Length: 9\r\n\r\n")
    );
}

#[test]
fn every_status_has_its_line_and_room() {
    for status in 100..=599 {
        let head = plain(status, ContentLength::Known(u64::MAX));
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} {}\r\n", reason(status))),
            "{head}"
        );
    }
    let longest = (100..=599).map(|status| reason(status).len()).max();
    assert!(longest <= Some(64));
}

#[test]
fn the_servers_fields_are_not_the_users() {
    let head = written(
        200,
        Some(b"s"),
        ContentLength::Known(5),
        Connection::Close,
        &[
            (b"Content-Length", b"50"),
            (b"content-length", b"5"),
            (b"TRANSFER-ENCODING", b"chunked"),
            (b"connection", b"keep-alive"),
            (b"Content-Lengths", b"kept"),
            (b"X-Connection", b"kept"),
        ],
    );
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: s\r\nContent-Lengths: kept\r\nX-Connection: kept\r\n\
         Content-Length: 5\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn the_users_date_and_server_win() {
    let head = written(
        200,
        Some(b"s"),
        ContentLength::None,
        Connection::Default,
        &[(b"date", b"today"), (b"SERVER", b"mine")],
    );
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\ndate: today\r\nSERVER: mine\r\n\r\n"
    );
}

#[test]
fn an_upgrade_is_named_in_connection() {
    for (connection, expected) in [
        (Connection::Default, "upgrade"),
        (Connection::Close, "close, upgrade"),
        (Connection::KeepAlive, "keep-alive, upgrade"),
    ] {
        assert_eq!(
            written(
                426,
                None,
                ContentLength::None,
                connection,
                &[(b"UPGRADE", b"h2c")]
            ),
            format!(
                "HTTP/1.1 426 Upgrade Required\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nUPGRADE: h2c\r\n\
                 Connection: {expected}\r\n\r\n"
            )
        );
    }
}

#[test]
fn heads_are_appended() {
    let mut out = write_arena();
    for _ in 0..200 {
        let head = ResponseHead {
            status: 204,
            date: DATE,
            server: None,
            content_length: ContentLength::None,
            connection: Connection::Default,
            fields: [].iter().copied(),
        };
        write_head(&mut out, &head).unwrap();
    }
    assert_eq!(
        out.as_slice(),
        plain(204, ContentLength::None).repeat(200).as_bytes()
    );
}

#[test]
fn names_and_values_that_would_split_a_response() {
    for name in [
        &b""[..],
        b"X Y",
        b"X:",
        b"X\r\nY",
        b"X\n",
        b"X\0",
        b"\xe4",
        b"X\t",
        b"(X)",
        b"X\x7f",
    ] {
        assert_eq!(validate_name(name), Err(InvalidHeader::Name), "{name:?}");
    }
    for byte in 0..=255_u8 {
        let is_good = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        assert_eq!(
            validate_value(&[b'a', byte, b'b']).is_ok(),
            is_good,
            "{byte:#x}"
        );
    }
    assert_eq!(
        validate_value(b"a\r\nSet-Cookie: b"),
        Err(InvalidHeader::Value)
    );
    assert_eq!(
        (validate_value(b""), validate_name(b"X-Y_z")),
        (Ok(()), Ok(()))
    );
}

#[test]
fn chunk_frames() {
    for (len, line) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (0xabcd, "abcd\r\n"),
        (usize::MAX, "ffffffffffffffff\r\n"),
    ] {
        let mut out = write_arena();
        write_chunk_header(&mut out, len).unwrap();
        assert_eq!(out.as_slice(), line.as_bytes());
    }
    assert_eq!(LAST_CHUNK, b"0\r\n\r\n");
}

#[test]
fn simple_responses() {
    let answer = |status, extra: &[Field<'_>], close, is_head| {
        let mut out = write_arena();
        simple_response(&mut out, status, DATE, extra, close, is_head).unwrap();
        String::from_utf8(out.as_slice().to_vec()).unwrap()
    };
    let simple = |status, extra: &[Field<'_>], close| answer(status, extra, close, false);
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(
        simple(503, &[(b"Retry-After", b"1")], true),
        format!(
            "HTTP/1.1 503 Service Unavailable\r\n{date}Content-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n\
             Content-Length: 24\r\nConnection: close\r\n\r\n503 Service Unavailable\n"
        )
    );
    assert_eq!(
        simple(304, &[], false),
        format!("HTTP/1.1 304 Not Modified\r\n{date}\r\n")
    );
    for status in 100..=599 {
        let text = simple(status, &[], false);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        if forbids_body(status) {
            assert_eq!(body, "");
        } else {
            assert_eq!(body, format!("{status} {}\n", reason(status)));
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            assert_eq!(answer(status, &[], false, true), format!("{head}\r\n\r\n"));
        }
    }
}

const SERVERS: [&str; 5] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "date",
    "server",
];

proptest! {
    #[test]
    fn a_parser_reads_back_what_was_written(
        status in 100..600_u16,
        length in 0..3_u64,
        fields in proptest::collection::vec(("[!#-'*+.^_`|~0-9A-Za-z-]{1,20}", "([!-~]([ -~\t]{0,200}[!-~])?)?"), 0..60),
    ) {
        let fields: Vec<_> = fields.into_iter().filter(|(name, _)| !SERVERS.contains(&name.to_lowercase().as_str())).collect();
        let mut out = write_arena();
        let head = ResponseHead {
            status,
            date: DATE,
            server: Some(&b"s"[..]),
            content_length: ContentLength::Known(length),
            connection: Connection::Close,
            fields: fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        };
        write_head(&mut out, &head).unwrap();
        let mut table = [httparse::EMPTY_HEADER; 80];
        let mut response = httparse::Response::new(&mut table);
        let parsed = response.parse(out.as_slice());
        prop_assert_eq!(parsed, Ok(httparse::Status::Complete(out.as_slice().len())));
        prop_assert_eq!((response.code, response.reason), (Some(status), Some(reason(status))));
        let length = length.to_string();
        let mut expected: Vec<(&str, &[u8])> = vec![("Date", DATE), ("Server", b"s")];
        expected.extend(fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        if status >= 200 && status != 204 {
            expected.push(("Content-Length", length.as_bytes()));
        }
        expected.push(("Connection", b"close"));
        let read: Vec<_> = response.headers.iter().map(|field| (field.name, field.value)).collect();
        prop_assert_eq!(read, expected);
    }
}

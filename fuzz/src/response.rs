//! The response writer: what passes validation is read back as the same fields by `httparse`, line by
//! line, and what could begin another line does not pass.
//!
//! An input is four bytes of control (see [`Plan`]), then fields, each ended by 0x1e, with 0x1f between
//! name and value: both bytes may stand in neither, so nothing else is lost to the format.

use theframework_http::{
    Connection, ContentLength, ResponseHead, forbids_body, reason, simple_response, validate_name,
    validate_value, write_chunk_header, write_head,
};
use theframework_memory::{BufferRecycler, WriteArena};

const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

type Field<'a> = (&'a [u8], &'a [u8]);

/// What is written, beside the fields.
struct Plan {
    status: u16,
    content_length: ContentLength,
    connection: Connection,
    has_server: bool,
    is_head: bool,
}

impl Plan {
    fn of(control: [u8; 4]) -> Self {
        let [high, low, how, length] = control;
        Plan {
            status: 100 + u16::from_be_bytes([high, low]) % 500,
            content_length: match how & 3 {
                0 => ContentLength::None,
                1 => ContentLength::Chunked,
                2 => ContentLength::Known(u64::MAX - u64::from(length)),
                _ => ContentLength::Known(u64::from(length)),
            },
            connection: match how >> 2 & 3 {
                0 => Connection::Close,
                1 => Connection::KeepAlive,
                _ => Connection::Default,
            },
            has_server: how & 16 != 0,
            is_head: how & 32 != 0,
        }
    }
}

pub fn check(bytes: &[u8]) {
    let Some((&control, rest)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let plan = Plan::of(control);
    let mut fields: Vec<Field<'_>> = Vec::new();
    for record in rest.split(|&byte| byte == 0x1e) {
        let mut parts = record.splitn(2, |&byte| byte == 0x1f);
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        if is_allowed(name, value) {
            fields.push((name, value));
        }
    }
    check_head(&plan, &fields);
    check_simple(&plan, &fields);
    check_chunk_header(usize::from_be_bytes([
        0, 0, control[0], control[1], control[2], control[3], 0, 1,
    ]));
}

/// Whether the writer's own checks let the field pass; they are judged byte by byte.
fn is_allowed(name: &[u8], value: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    assert_eq!(
        validate_name(name).is_ok(),
        !name.is_empty() && name.iter().all(is_token)
    );
    let is_text = |&byte: &u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    assert_eq!(validate_value(value).is_ok(), value.iter().all(is_text));
    validate_name(name).is_ok() && validate_value(value).is_ok()
}

fn arena() -> WriteArena {
    let mut out = WriteArena::new(BufferRecycler::new()).expect("a small machine has 4 KiB");
    // Responses are appended to what others have written.
    out.extend(BEFORE).expect("it fits");
    out
}

fn check_head(plan: &Plan, fields: &[Field<'_>]) {
    let mut out = arena();
    let server = plan.has_server.then_some(&b"theframework"[..]);
    let head = ResponseHead {
        status: plan.status,
        date: DATE,
        server,
        content_length: plan.content_length,
        connection: plan.connection,
        fields: fields.iter().copied(),
    };
    write_head(&mut out, &head).expect("there is memory");
    let expected = expected(plan, server, plan.content_length, fields);
    let body = read_back(&out, plan.status, &expected);
    assert!(body.is_empty(), "bytes behind the head: {body:?}");
}

fn check_simple(plan: &Plan, fields: &[Field<'_>]) {
    let mut out = arena();
    let close = plan.connection == Connection::Close;
    let status = plan.status;
    simple_response(&mut out, status, DATE, fields, close, plan.is_head).expect("there is memory");
    let text = format!("{status} {}\n", reason(status));
    let plan = Plan {
        connection: if close {
            Connection::Close
        } else {
            Connection::Default
        },
        ..*plan
    };
    let mut all: Vec<Field<'_>> = fields.to_vec();
    let mut length = ContentLength::None;
    if !forbids_body(status) {
        all.insert(0, (b"Content-Type", b"text/plain; charset=utf-8"));
        length = ContentLength::Known(text.len() as u64);
    }
    let expected = expected(&plan, None, length, &all);
    let body = read_back(&out, status, &expected);
    let has_body = !forbids_body(status) && !plan.is_head;
    assert_eq!(body, if has_body { text.as_bytes() } else { b"" });
}

/// The fields that must be on the wire, in order.
fn expected(
    plan: &Plan,
    server: Option<&[u8]>,
    length: ContentLength,
    fields: &[Field<'_>],
) -> Vec<(String, Vec<u8>)> {
    let has = |name: &str| {
        let is_it = |known: &Field<'_>| known.0.eq_ignore_ascii_case(name.as_bytes());
        fields.iter().any(is_it)
    };
    let mut all = Vec::new();
    if !has("date") {
        all.push(("Date".to_owned(), DATE.to_vec()));
    }
    if let Some(server) = server.filter(|_| !has("server")) {
        all.push(("Server".to_owned(), server.to_vec()));
    }
    for (name, value) in fields {
        let name = String::from_utf8(name.to_vec()).expect("a token is ASCII");
        let lower = name.to_ascii_lowercase();
        if !["connection", "content-length", "transfer-encoding"].contains(&&lower[..]) {
            all.push((name, value.to_vec()));
        }
    }
    if plan.status >= 200 && plan.status != 204 {
        match length {
            ContentLength::None => {}
            ContentLength::Known(length) => {
                all.push(("Content-Length".to_owned(), length.to_string().into_bytes()));
            }
            ContentLength::Chunked => {
                all.push(("Transfer-Encoding".to_owned(), b"chunked".to_vec()));
            }
        }
    }
    let option = match plan.connection {
        Connection::Default => None,
        Connection::Close => Some("close"),
        Connection::KeepAlive => Some("keep-alive"),
    };
    let upgrade = has("upgrade").then_some("upgrade");
    let options: Vec<_> = option.into_iter().chain(upgrade).collect();
    if !options.is_empty() {
        all.push(("Connection".to_owned(), options.join(", ").into_bytes()));
    }
    all
}

/// Reads what was written, by `httparse` and by splitting lines; returns what stands behind the head.
fn read_back<'a>(out: &'a WriteArena, status: u16, expected: &[(String, Vec<u8>)]) -> &'a [u8] {
    let written = out.as_slice();
    assert!(written.starts_with(BEFORE), "what was there before stays");
    let written = &written[BEFORE.len()..];
    let end = written.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.expect("the head has an end");
    let head = String::from_utf8_lossy(&written[..end]).into_owned();
    let mut lines = head.split("\r\n");
    assert_eq!(
        lines.next(),
        Some(&format!("HTTP/1.1 {status} {}", reason(status))[..])
    );
    assert_eq!(lines.count(), expected.len(), "one line for each field");

    let mut table = vec![httparse::EMPTY_HEADER; expected.len()];
    let mut response = httparse::Response::new(&mut table);
    let parsed = response.parse(written);
    assert_eq!(parsed, Ok(httparse::Status::Complete(end + 4)));
    assert_eq!(
        (response.code, response.reason),
        (Some(status), Some(reason(status)))
    );
    let read: Vec<_> = response
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), field.value.to_vec()))
        .collect();
    // A reader takes white space around a value away.
    let trimmed: Vec<_> = expected
        .iter()
        .map(|(name, value)| (name.clone(), trim(value).to_vec()))
        .collect();
    assert_eq!(read, trimmed);
    &written[end + 4..]
}

fn trim(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| *byte != b' ' && *byte != b'\t';
    match (
        value.iter().position(is_text),
        value.iter().rposition(is_text),
    ) {
        (Some(first), Some(last)) => &value[first..=last],
        _ => b"",
    }
}

fn check_chunk_header(len: usize) {
    let mut out = WriteArena::new(BufferRecycler::new()).expect("a small machine has 4 KiB");
    write_chunk_header(&mut out, len).expect("it fits");
    assert_eq!(out.as_slice(), format!("{len:x}\r\n").as_bytes());
}

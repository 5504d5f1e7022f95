//! The head parser: it accepts what the plain oracle accepts, with the same parts; any prefix of a good
//! head is incomplete and of a refused one refused or incomplete; a connection that calls it only when
//! `find_head_end` says so comes to the same; and what was accepted can be written and read again.

use theframework_http::{HeadLimits, Method, TargetForm, find_head_end, parse_head};
use theframework_memory::{Arena, BlockRecycler, ChunkRecycler, Span};

use crate::cuts;
use crate::naive_head::{Parsed, parse_all};

/// Limits that small inputs reach.
const TIGHT: HeadLimits = HeadLimits {
    max_target_size: 24,
    max_header_size: 120,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Head(Parsed),
    Incomplete,
    Refused(u16),
}

pub fn check(bytes: &[u8]) {
    for limits in [TIGHT, HeadLimits::default()] {
        let whole = parse(bytes, &limits);
        match (&whole, parse_all(bytes, &limits)) {
            (Outcome::Head(ours), Some(theirs)) => assert_eq!(*ours, theirs),
            (Outcome::Head(ours), None) => panic!("accepted what the oracle refuses: {ours:?}"),
            (other, Some(theirs)) => panic!("{other:?}, but the oracle accepts {theirs:?}"),
            (_, None) => {}
        }
        for way in cuts::ways(bytes) {
            check_prefixes(bytes, &way, &limits, &whole);
            check_connection(bytes, &way, &limits, &whole);
        }
        if let Outcome::Head(head) = &whole {
            check_end(bytes, head);
            check_again(head, &HeadLimits::default());
        }
    }
}

fn parse(bytes: &[u8], limits: &HeadLimits) -> Outcome {
    let mut arena = Arena::new(ChunkRecycler::new(), BlockRecycler::new());
    let head = match parse_head(bytes, limits, &mut arena) {
        Ok(Some(head)) => head,
        Ok(None) => return Outcome::Incomplete,
        Err(error) => {
            let status = error.status();
            assert!(
                [400, 414, 417, 431, 501, 505].contains(&status),
                "{error:?} answered by {status}"
            );
            return Outcome::Refused(status);
        }
    };
    // Spans count from the first byte, wherever the bytes are by now; none reaches beyond the head.
    let moved = bytes[..head.len as usize].to_vec();
    let text = |span: Span| span.of(&moved).to_vec();
    let mut from = head.target.end();
    for &[name, value] in arena.get(head.fields) {
        assert!(from <= name.range().start);
        // The value of `Host` stands in the target, if that has a host.
        let has_host = matches!(
            head.target_form,
            TargetForm::Absolute | TargetForm::Authority
        );
        if has_host && Some(value) == head.host {
            assert!(head.target.range().start <= value.range().start);
            assert!(value.end() <= head.target.end());
            from = name.end();
            continue;
        }
        assert!(name.end() < value.range().start);
        from = value.end();
    }
    assert!(from + 4 <= moved.len(), "spans lie inside the head");
    let fields: Vec<_> = head
        .fields(&moved, &arena)
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    for (name, _) in &fields {
        let first = fields
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| &value[..]);
        let upper = String::from_utf8_lossy(name).to_uppercase();
        assert_eq!(head.header(&moved, &arena, &upper), first);
    }
    assert_eq!(
        head.method,
        Method::from_bytes(head.method_span.of(&moved)),
        "the method is its text"
    );
    Outcome::Head(Parsed {
        method: text(head.method_span),
        version: head.version,
        form: head.target_form,
        target: text(head.target),
        path: text(head.path),
        query: head.query.map(text),
        host: head.host.map(text),
        keep_alive: head.keep_alive,
        expects_continue: head.expects_continue,
        framing: head.framing,
        len: head.len as usize,
        fields,
    })
}

fn check_prefixes(bytes: &[u8], lengths: &[usize], limits: &HeadLimits, whole: &Outcome) {
    for &len in lengths {
        let prefix = parse(&bytes[..len], limits);
        match whole {
            Outcome::Head(head) if len >= head.len => assert_eq!(prefix, *whole, "of {len} bytes"),
            Outcome::Head(_) | Outcome::Incomplete => {
                assert_eq!(prefix, Outcome::Incomplete, "of {len} bytes");
            }
            Outcome::Refused(_) => {
                assert!(
                    !matches!(prefix, Outcome::Head(_)),
                    "of {len} bytes: {prefix:?}"
                );
            }
        }
    }
}

/// Bytes come in pieces; the parser is called for the first, and then when an end was found or the
/// limit is reached.
fn check_connection(bytes: &[u8], lengths: &[usize], limits: &HeadLimits, whole: &Outcome) {
    let mut scanned = 0;
    let mut outcome = Outcome::Incomplete;
    for &len in lengths {
        let so_far = &bytes[..len];
        let found = find_head_end(so_far, scanned);
        let is_asked = scanned == 0 || len >= limits.max_header_size || found.is_some();
        scanned = len;
        if is_asked {
            outcome = parse(so_far, limits);
        }
        if found.is_some() {
            assert_ne!(
                outcome,
                Outcome::Incomplete,
                "an end was found in {len} bytes, and the head is waited for"
            );
        }
        if outcome != Outcome::Incomplete {
            break;
        }
    }
    match (&outcome, whole) {
        // A connection does not look at what may never become a head until it must.
        (Outcome::Incomplete, Outcome::Refused(_)) => assert_eq!(find_head_end(bytes, 0), None),
        // Which of several faults is seen first depends on what has come.
        (Outcome::Refused(_), Outcome::Refused(_)) => {}
        (outcome, whole) => assert_eq!(outcome, whole),
    }
}

/// The end of a good head is found, neither early nor late, from wherever the search begins.
fn check_end(bytes: &[u8], head: &Parsed) {
    let len = head.len;
    for from in [0, 1, len / 2, len - 3, len - 2, len - 1] {
        assert_eq!(find_head_end(bytes, from), Some(len), "from {from}");
        assert_eq!(find_head_end(&bytes[..len - 1], from), None, "from {from}");
    }
}

/// An accepted head, written anew from its parts, is accepted with the same parts.
fn check_again(head: &Parsed, limits: &HeadLimits) {
    let version = match head.version {
        theframework_http::Version::Http10 => &b"HTTP/1.0"[..],
        theframework_http::Version::Http11 => b"HTTP/1.1",
    };
    let mut bytes = [&head.method[..], b" ", &head.target, b" ", version, b"\r\n"].concat();
    for (name, value) in &head.fields {
        bytes.extend([&name[..], b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    let expected = Parsed {
        len: bytes.len(),
        ..head.clone()
    };
    if bytes.len() <= limits.max_header_size {
        assert_eq!(parse(&bytes, limits), Outcome::Head(expected));
    }
}

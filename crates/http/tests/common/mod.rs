//! What the tests of this crate share: arenas, and a parsed head as owned, comparable data.

#![allow(dead_code)]

use theframework_http::{Framing, HeadError, HeadLimits, Method, TargetForm, Version, parse_head};
use theframework_memory::{Arena, BlockRecycler, BufferRecycler, ChunkRecycler, WriteArena};

pub const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

pub fn arena() -> Arena {
    Arena::new(ChunkRecycler::new(), BlockRecycler::new())
}

pub fn write_arena() -> WriteArena {
    WriteArena::new(BufferRecycler::new()).expect("a test has memory")
}

/// All of a head, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub method: Method,
    pub method_text: String,
    pub version: Version,
    pub form: TargetForm,
    pub target: String,
    pub path: String,
    pub query: Option<String>,
    pub host: Option<String>,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub framing: Framing,
    pub len: usize,
    pub fields: Vec<(String, Vec<u8>)>,
}

pub fn parse_with(bytes: &[u8], limits: &HeadLimits) -> Result<Option<Parsed>, HeadError> {
    let mut arena = arena();
    let Some(head) = parse_head(bytes, limits, &mut arena)? else {
        return Ok(None);
    };
    // Offsets stay right when the bytes move.
    let moved = bytes.to_vec();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("checked to be ASCII");
    let fields: Vec<_> = head
        .fields(&moved, &arena)
        .map(|(name, value)| (text(name), value.to_vec()))
        .collect();
    for (name, _) in &fields {
        let first = fields
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| &value[..]);
        assert_eq!(head.header(&moved, &arena, &name.to_uppercase()), first);
    }
    Ok(Some(Parsed {
        method: head.method,
        method_text: text(head.method_span.of(&moved)),
        version: head.version,
        form: head.target_form,
        target: text(head.target.of(&moved)),
        path: text(head.path.of(&moved)),
        query: head.query.map(|span| text(span.of(&moved))),
        host: head.host.map(|span| text(span.of(&moved))),
        keep_alive: head.keep_alive,
        expects_continue: head.expects_continue,
        framing: head.framing,
        len: head.len as usize,
        fields,
    }))
}

pub fn parse(bytes: &[u8]) -> Result<Option<Parsed>, HeadError> {
    parse_with(bytes, &HeadLimits::default())
}

/// Parses a good head, and asserts that each strict prefix of it is incomplete, and that bytes behind
/// it change nothing.
pub fn good(bytes: &[u8]) -> Parsed {
    let whole = match parse(bytes) {
        Ok(Some(parsed)) => parsed,
        other => panic!("{:?} gave {other:?}", String::from_utf8_lossy(bytes)),
    };
    for len in 0..whole.len {
        assert_eq!(
            parse(&bytes[..len]),
            Ok(None),
            "prefix {len} of {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    let mut followed = bytes.to_vec();
    followed.extend_from_slice(b"GET / HTTP/1.1\r\n\0\n\n\r\n\r\n");
    assert_eq!(parse(&followed), Ok(Some(whole.clone())));
    whole
}

/// The error of a bad head; asserts that no prefix of it is accepted, and that the error does not
/// depend on what follows.
pub fn bad(bytes: &[u8]) -> HeadError {
    let error = match parse(bytes) {
        Err(error) => error,
        other => panic!("{:?} gave {other:?}", String::from_utf8_lossy(bytes)),
    };
    for len in 0..bytes.len() {
        match parse(&bytes[..len]) {
            Ok(None) => {}
            Err(early) => assert_eq!(early.status(), error.status(), "prefix {len} of {bytes:?}"),
            Ok(Some(_)) => panic!(
                "prefix {len} of {:?} was accepted",
                String::from_utf8_lossy(bytes)
            ),
        }
    }
    error
}

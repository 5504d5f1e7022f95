//! Counted, not timed: the normal path of this crate does not allocate.
//!
//! Without the test harness, whose own thread allocates while a test begins, and would be counted.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod common;

use common::{DATE, arena, write_arena};
use theframework_http::{
    Answer, ChunkedDecoder, ChunkedLimits, Connection, ContentLength, ContentRange, DateCache,
    EntityTag, HeadLimits, Method, Representation, ResponseHead, decode_for_routing, evaluate,
    find_head_end, parse_head, query_pairs, simple_response, write_chunk_header, write_head,
};
use theframework_memory::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

fn main() {
    let fields: String = (0..63).map(|i| format!("X-{i}: value\r\n")).collect();
    let request = format!("POST /a/b?c=d&e HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut body = b"5;x=y\r\nhello\r\n5\r\nworld\r\n0\r\nX: y\r\n\r\n".to_vec();
    let limits = HeadLimits::default();
    let mut arena = arena();
    let mut out = write_arena();
    let mut date = DateCache::default();
    // The arena takes its first chunk once.
    parse_head(request.as_bytes(), &limits, &mut arena)
        .unwrap()
        .unwrap();
    arena.reset();

    let before = ALLOCATOR.counts();
    let bytes = request.as_bytes();
    assert_eq!(find_head_end(bytes, 0), Some(bytes.len()));
    assert!(
        parse_head(&bytes[..bytes.len() - 1], &limits, &mut arena)
            .unwrap()
            .is_none()
    );
    let head = parse_head(bytes, &limits, &mut arena).unwrap().unwrap();
    assert_eq!(head.header(bytes, &arena, "x-62"), Some(&b"value"[..]));
    assert_eq!(
        decode_for_routing(head.path.of(bytes), &mut Vec::new()).unwrap(),
        "/a/b"
    );
    assert_eq!(query_pairs(head.query.unwrap().of(bytes)).count(), 2);
    assert!(parse_head(b"GET / HTTP/1.1\r\n\r\n", &limits, &mut arena).is_err());
    let progress = ChunkedDecoder::new(ChunkedLimits::default())
        .decode(&mut body, 0, 0)
        .unwrap();
    assert!(progress.done && progress.decoded == 10);
    date.update(784_111_777);
    let response = ResponseHead {
        status: 200,
        date: date.as_bytes(),
        server: Some(&b"theframework"[..]),
        content_length: ContentLength::Known(5),
        connection: Connection::KeepAlive,
        fields: [(&b"Content-Type"[..], &b"text/plain"[..])].into_iter(),
    };
    write_head(&mut out, &response).unwrap();
    let tag = EntityTag::of_file(784_111_777, 0, 100);
    let current = Representation {
        len: 100,
        etag: Some(tag.as_bytes()),
        last_modified: Some(784_111_777),
    };
    let fields: [(&[u8], &[u8]); 3] = [
        (b"If-Unmodified-Since", date.as_bytes()),
        (b"If-Range", tag.as_bytes()),
        (b"Range", b"bytes=-1"),
    ];
    let answer = evaluate(Method::Get, fields.into_iter(), &current, 784_111_778);
    let (first, last) = (99, 99);
    assert_eq!(answer, Answer::Partial { first, last });
    assert_eq!(
        ContentRange::part(first, last, 100).as_bytes(),
        b"bytes 99-99/100"
    );
    write_chunk_header(&mut out, 4096).unwrap();
    simple_response(&mut out, 431, DATE, &[], true, false).unwrap();
    assert_eq!(ALLOCATOR.counts(), before);
    println!("test the_normal_path_does_not_allocate ... ok");
}

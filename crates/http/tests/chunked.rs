//! Chunked bodies: the incremental decoder against a plain one that sees the whole input at once, with
//! every fixture split at each byte.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

#[path = "common/naive_chunked.rs"]
mod naive_chunked;

use naive_chunked::{Outcome, decode_all as naive};
use proptest::prelude::*;
use theframework_http::{ChunkedDecoder, ChunkedError, ChunkedLimits};

const LIMITS: ChunkedLimits = ChunkedLimits {
    max_body: 100,
    max_extension: 12,
    max_extensions: 30,
    max_trailer: 40,
};

/// Feeds the decoder as a connection does: pieces are appended to one buffer that begins with a head;
/// the gap is closed after some of the calls.
fn incremental(bytes: &[u8], cuts: &[usize], limits: ChunkedLimits) -> Outcome {
    const HEAD: &[u8] = b"head of the request\r\n\r\n";
    let mut decoder = ChunkedDecoder::new(limits);
    let mut buf = HEAD.to_vec();
    let (mut decoded, mut raw, mut dropped) = (HEAD.len(), HEAD.len(), 0);
    let mut from = 0;
    for (call, &to) in cuts.iter().chain([&bytes.len()]).enumerate() {
        buf.extend_from_slice(&bytes[from..to]);
        from = to;
        let progress = match decoder.decode(&mut buf, decoded, raw) {
            Ok(progress) => progress,
            Err(error) => {
                assert_eq!(
                    decoder.decode(&mut buf, decoded, raw),
                    Err(error),
                    "an error stays"
                );
                return Err(error);
            }
        };
        assert!(
            decoded <= progress.decoded
                && progress.decoded <= progress.consumed
                && raw <= progress.consumed
        );
        assert_eq!(progress.done, decoder.is_done());
        assert!(buf.starts_with(HEAD));
        (decoded, raw) = (progress.decoded, progress.consumed);
        if progress.done {
            return Ok(Some((
                buf[HEAD.len()..decoded].to_vec(),
                raw + dropped - HEAD.len(),
            )));
        }
        assert_eq!(raw, buf.len(), "all is taken until the end");
        if call % 3 != 2 {
            buf.drain(decoded..raw);
            dropped += raw - decoded;
            raw = decoded;
        }
    }
    Ok(None)
}

/// Asserts that the decoder and the oracle agree on `bytes` and all its prefixes, at every single split
/// and byte by byte, and returns the outcome.
fn check_with(bytes: &[u8], limits: ChunkedLimits) -> Outcome {
    let expected = naive(bytes, limits);
    let show = String::from_utf8_lossy(bytes);
    assert_eq!(incremental(bytes, &[], limits), expected, "{show:?} in one");
    for cut in 0..=bytes.len() {
        assert_eq!(
            incremental(bytes, &[cut], limits),
            expected,
            "{show:?} cut at {cut}"
        );
        assert_eq!(
            incremental(&bytes[..cut], &[], limits),
            naive(&bytes[..cut], limits),
            "{show:?} up to {cut}"
        );
    }
    let all: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(
        incremental(bytes, &all, limits),
        expected,
        "{show:?} byte by byte"
    );
    expected
}

fn check(bytes: &[u8]) -> Outcome {
    check_with(bytes, LIMITS)
}

#[track_caller]
fn good(bytes: &[u8], body: &[u8]) {
    assert_eq!(check(bytes), Ok(Some((body.to_vec(), bytes.len()))));
    for len in 0..bytes.len() {
        assert_eq!(naive(&bytes[..len], LIMITS), Ok(None));
    }
    // What follows is the next request's.
    let followed = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(check(&followed), Ok(Some((body.to_vec(), bytes.len()))));
}

#[test]
fn bodies() {
    good(b"0\r\n\r\n", b"");
    good(b"5\r\nhello\r\n0\r\n\r\n", b"hello");
    good(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world");
    good(
        b"A\r\n0123456789\r\na\r\n0123456789\r\n000\r\n\r\n",
        b"01234567890123456789",
    );
    good(
        b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n",
        b"hello",
    );
    good(b"3\r\n\r\n\n\r\n0\r\n\r\n", b"\r\n\n");
    good(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n");
    good(
        &[b"64\r\n", &[b'x'; 100][..], b"\r\n0\r\n\r\n"].concat(),
        &[b'x'; 100],
    );
    good(
        &b"1\r\nx\r\n"
            .repeat(20)
            .into_iter()
            .chain(*b"0\r\n\r\n")
            .collect::<Vec<_>>(),
        &[b'x'; 20],
    );
}

#[test]
fn extensions_are_dropped() {
    good(b"5;a=b\r\nhello\r\n0;x\r\n\r\n", b"hello");
    good(b"5; a = \"b;\"\r\nhello\r\n0\r\n\r\n", b"hello");
    good(b"5;a ;\tb\r\nhello\r\n0;a=\"\"\r\n\r\n", b"hello");
    good(b"5;a=\"\\\"\xe4\"\r\nhello\r\n0;a;b;c=d\r\n\r\n", b"hello");
    good(b"5;\ta\r\nhello\r\n0\r\n\r\n", b"hello");
    good(b"5;0123456789a\r\nhello\r\n0;0123456789a\r\n\r\n", b"hello");
}

#[test]
fn trailers_are_dropped() {
    good(b"0\r\nX-Sum: 1\r\n\r\n", b"");
    good(b"1\r\nx\r\n0\r\na:\r\nb: \t\xe4 \r\n\r\n", b"x");
    good(b"0\r\nHosts: a\r\nHos: a\r\nxhost: a\r\nt: e\r\n\r\n", b"");
    // Exactly 40 bytes, in one line and in two.
    good(b"0\r\nX: 01234567890123456789012345678901234\r\n\r\n", b"");
    good(
        b"0\r\nX: 012345678901234\r\nY: 012345678901234\r\n\r\n",
        b"",
    );
}

#[test]
fn bad_sizes() {
    for bytes in [
        &b"\r\n"[..],
        b"\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5 ;a\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"x\r\n",
        b"5x\r\n",
        b"g\r\n",
        b";a\r\n",
        b"5_0\r\n",
        b"5.\r\n",
        b"5\t\r\n",
        b"5\x0b\r\n",
        b"5\0\r\n",
        b"\xb55\r\n",
        b"00000000000000005\r\nhello\r\n",
        b"10000000000000000\r\n",
        b"fffffffffffffffff\r\n",
        b"00000000000000000\r\n\r\n",
        b"5\r\nhello\r\n\r\n",
        b"5\r\nhello\r\n 0\r\n\r\n",
        b"5,\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        assert_eq!(
            check(bytes),
            Err(ChunkedError::BadChunkSize),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn bad_line_ends() {
    for bytes in [
        &b"5\nhello\r\n0\r\n\r\n"[..],
        b"5\rhello\r\n",
        b"5\r\rhello",
        b"5;a\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"5;a\r\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello!\n",
        b"0\n\n",
        b"0\r\n\rX",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: y\rZ: a\r\n\r\n",
        b"0\r\nX: y\r\r\n",
    ] {
        assert_eq!(
            check(bytes),
            Err(ChunkedError::BadLineEnd),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

/// For a reader to whom quotes go on over a line's end, the body would end elsewhere.
#[test]
fn quotes_in_an_extension_end_before_its_line() {
    for extension in ["a=\"", "a=\"b", "a=\"\\\"", "a=\"\\"] {
        assert_eq!(
            check(format!("5;{extension}\r\nhello\r\n0\r\n\r\n").as_bytes()),
            Err(ChunkedError::BadExtension),
            "{extension:?}"
        );
    }
}

#[test]
fn bad_extensions() {
    for byte in (0..0x20)
        .chain(0x7f..=0xff_u8)
        .filter(|b| !b"\t\r\n".contains(b))
    {
        assert_eq!(
            check(&[b"5;a", &[byte][..], b"\r\nhello\r\n"].concat()),
            Err(ChunkedError::BadExtension),
            "{byte:#x}"
        );
    }
    // RFC 9112 §7.1.1, to the letter.
    for extension in [
        "",
        " ",
        "=",
        "=a",
        ";a",
        "a;",
        "a=",
        "a= ",
        "a=b ",
        "a ",
        "a==b",
        "a=b=c",
        "a b",
        "a=b c",
        "a/b",
        "a=/",
        "\"a\"",
        "a=\"b\"c",
        "a=\"b\" ",
        "a=\"\u{7f}\"",
        "a=b\"c\"",
    ] {
        assert_eq!(
            check(format!("5;{extension}\r\nhello\r\n0\r\n\r\n").as_bytes()),
            Err(ChunkedError::BadExtension),
            "{extension:?}"
        );
    }
    assert_eq!(
        check(b"5;0123456789ab\r\nhello\r\n"),
        Err(ChunkedError::ExtensionTooLong)
    );
    assert_eq!(
        check(b"5;0123456789ab"),
        Err(ChunkedError::ExtensionTooLong)
    );
    assert_eq!(
        check(b"0;aaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        Err(ChunkedError::ExtensionTooLong)
    );
}

#[test]
fn extensions_of_all_chunks_have_a_limit_together() {
    let three = "1;23456789\r\nx\r\n".repeat(3);
    good(format!("{three}0;ab\r\n\r\n").as_bytes(), b"xxx");
    assert_eq!(
        check(format!("{three}0;abc\r\n\r\n").as_bytes()),
        Err(ChunkedError::ExtensionTooLong)
    );
}

#[test]
fn bad_trailers() {
    for bytes in [
        &b"0\r\nX\r\n\r\n"[..],
        b"0\r\n: a\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\n X: a\r\n\r\n",
        b"0\r\nX: a\r\n b\r\n\r\n",
        b"0\r\nX: \0\r\n\r\n",
        b"0\r\nX: \x0b\r\n\r\n",
        b"0\r\nX: \x7f\r\n\r\n",
        b"0\r\n\n",
        b"0\r\nGET / HTTP/1.1\r\n",
        b"0\r\nX\xe4: a\r\n\r\n",
        b"0\r\n\0",
        b"0\r\nX\nY: a\r\n\r\n",
    ] {
        assert_eq!(
            check(bytes),
            Err(ChunkedError::BadTrailer),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    for name in [
        "Transfer-Encoding",
        "content-length",
        "HOST",
        "Content-Encoding",
        "te",
        "Trailer",
        "Connection",
        "Authorization",
        "Set-Cookie",
        "Via",
        "Age",
    ] {
        assert_eq!(
            check(format!("0\r\nX: y\r\n{name}: 5\r\n\r\n").as_bytes()),
            Err(ChunkedError::ForbiddenTrailer),
            "{name}"
        );
    }
    assert_eq!(
        check(b"0\r\nX: 012345678901234567890123456789012345\r\n\r\n"),
        Err(ChunkedError::TrailerTooLarge)
    );
    assert_eq!(
        check(&[b"0\r\n", &b"a:\r\n".repeat(10)[..], b"\r\n"].concat()).map(|o| o.is_some()),
        Ok(true)
    );
    assert_eq!(
        check(&[b"0\r\n", &b"a:\r\n".repeat(11)[..], b"\r\n"].concat()),
        Err(ChunkedError::TrailerTooLarge)
    );
}

#[test]
fn bodies_over_the_limit() {
    assert_eq!(check(b"65\r\n"), Err(ChunkedError::TooLarge));
    assert_eq!(check(b"ffffffffffffffff\r\n"), Err(ChunkedError::TooLarge));
    assert_eq!(
        check(&[b"64\r\n", &[b'x'; 100][..], b"\r\n1\r\n"].concat()),
        Err(ChunkedError::TooLarge)
    );
    assert_eq!(
        check(b"2\r\nab\r\nfffffffffffffffe\r\n"),
        Err(ChunkedError::TooLarge)
    );
    // No arithmetic wraps without a limit either.
    let unlimited = ChunkedLimits {
        max_body: u64::MAX,
        ..LIMITS
    };
    assert_eq!(check_with(b"ffffffffffffffff\r\nabc", unlimited), Ok(None));
    assert_eq!(
        check_with(b"2\r\nab\r\nffffffffffffffff\r\n", unlimited),
        Err(ChunkedError::TooLarge)
    );
    let none = ChunkedLimits {
        max_body: 0,
        max_extension: 0,
        max_extensions: 0,
        max_trailer: 0,
    };
    assert_eq!(check_with(b"0\r\n\r\n", none), Ok(Some((vec![], 5))));
    assert_eq!(check_with(b"1\r\n", none), Err(ChunkedError::TooLarge));
    assert_eq!(
        check_with(b"0;a\r\n", none),
        Err(ChunkedError::ExtensionTooLong)
    );
    assert_eq!(
        check_with(b"0\r\na", none),
        Err(ChunkedError::TrailerTooLarge)
    );
}

#[test]
fn data_that_is_in_place_is_not_moved_and_the_head_is_kept() {
    let mut decoder = ChunkedDecoder::new(LIMITS);
    let mut buf = b"HEAD5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\nnext".to_vec();
    let progress = decoder.decode(&mut buf, 4, 4).unwrap();
    assert_eq!(
        (progress.decoded, progress.consumed, progress.done),
        (14, 29, true)
    );
    assert!(buf.starts_with(b"HEADhelloworld") && buf.ends_with(b"next"));
    // After the end nothing is taken any more.
    let again = decoder.decode(&mut buf, 14, 29).unwrap();
    assert_eq!((again.decoded, again.consumed, again.done), (14, 29, true));
}

#[test]
fn the_body_may_be_taken_away_between_calls() {
    let mut decoder = ChunkedDecoder::new(LIMITS);
    let mut body = Vec::new();
    for piece in [
        &b"5\r\nhe"[..],
        b"llo",
        b"\r\n5\r\nworld\r",
        b"\n0\r\n",
        b"\r\n",
    ] {
        let mut buf = piece.to_vec();
        let progress = decoder.decode(&mut buf, 0, 0).unwrap();
        body.extend_from_slice(&buf[..progress.decoded]);
    }
    assert!(decoder.is_done());
    assert_eq!(body, b"helloworld");
}

#[test]
fn statuses_and_texts() {
    assert_eq!(ChunkedError::TooLarge.status(), 413);
    assert_eq!(ChunkedError::TrailerTooLarge.status(), 431);
    assert_eq!(ChunkedError::BadChunkSize.status(), 400);
    assert_eq!(
        ChunkedError::TooLarge.to_string(),
        "the request body is too large"
    );
    assert!(size_of::<ChunkedDecoder>() <= 40);
}

#[test]
#[should_panic(expected = "out of order")]
fn positions_out_of_order_are_a_bug_of_the_caller() {
    let _ = ChunkedDecoder::new(LIMITS).decode(&mut [0; 4], 3, 2);
}

/// Chunks as a client would write them, with extensions and trailers.
fn encoded() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunk = (
        proptest::collection::vec(any::<u8>(), 1..30),
        "(;[ \t]?[a-z!]{1,2}( ?= ?([a-z]{1,3}|\"[a-z;=]{0,2}\"))?)?",
        0..8_usize,
        any::<bool>(),
    );
    let trailer = "[a-z]{1,4}-x:[ -~\t]{0,6}";
    (
        proptest::collection::vec(chunk, 0..6),
        proptest::collection::vec(trailer, 0..3),
    )
        .prop_map(|(chunks, trailers)| {
            let mut bytes = Vec::new();
            let mut body = Vec::new();
            for (data, extension, zeros, upper) in chunks {
                let size = if upper {
                    format!("{:X}", data.len())
                } else {
                    format!("{:x}", data.len())
                };
                bytes.extend(format!("{}{size}{extension}\r\n", "0".repeat(zeros)).bytes());
                bytes.extend_from_slice(&data);
                bytes.extend(b"\r\n");
                body.extend(data);
            }
            bytes.extend(b"0\r\n");
            for trailer in trailers {
                bytes.extend(trailer.bytes());
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"\r\n");
            (bytes, body)
        })
}

const ROOMY: ChunkedLimits = ChunkedLimits {
    max_body: 1000,
    max_extension: 12,
    max_extensions: 72,
    max_trailer: 100,
};

fn cuts_of(len: usize, cuts: &[prop::sample::Index]) -> Vec<usize> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn encoded_bodies_decode_however_they_are_split(
        (bytes, body) in encoded(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let outcome = incremental(&bytes, &cuts_of(bytes.len(), &cuts), ROOMY);
        prop_assert_eq!(&outcome, &Ok(Some((body, bytes.len()))));
        prop_assert_eq!(outcome, naive(&bytes, ROOMY));
    }

    #[test]
    fn damaged_bodies_agree_with_the_oracle(
        (mut bytes, _) in encoded(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), tight in any::<bool>(),
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let limits = if tight { LIMITS } else { ROOMY };
        prop_assert_eq!(incremental(&bytes, &cuts_of(bytes.len(), &cuts), limits), naive(&bytes, limits));
    }

    #[test]
    fn soup_agrees_with_the_oracle(
        bytes in proptest::collection::vec(prop::sample::select(b"0015aF;:=\"\\\r\n\r\n\r\n x\t\0\x80host".to_vec()), 0..60),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        prop_assert_eq!(incremental(&bytes, &cuts_of(bytes.len(), &cuts), LIMITS), naive(&bytes, LIMITS));
    }
}

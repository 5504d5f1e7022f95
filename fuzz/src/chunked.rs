//! The chunked decoder: any split of the input gives the same result, which is the plain oracle's.

use theframework_http::{ChunkedDecoder, ChunkedLimits};

use crate::cuts;
use crate::naive_chunked::{Outcome, decode_all};

/// Limits that small inputs reach.
const TIGHT: ChunkedLimits = ChunkedLimits {
    max_body: 40,
    max_extension: 12,
    max_extensions: 20,
    max_trailer: 40,
};

pub fn check(bytes: &[u8]) {
    for limits in [TIGHT, ChunkedLimits::default()] {
        let expected = decode_all(bytes, limits);
        for way in cuts::ways(bytes) {
            assert_eq!(
                decode_in_pieces(bytes, &way, limits),
                expected,
                "cut at {way:?} with {limits:?}"
            );
        }
    }
}

/// Feeds the decoder as a connection does: pieces are appended to one buffer that begins with a head,
/// and the gap behind the decoded bytes is closed after some of the calls.
fn decode_in_pieces(bytes: &[u8], lengths: &[usize], limits: ChunkedLimits) -> Outcome {
    const HEAD: &[u8] = b"head of the request\r\n\r\n";
    let mut decoder = ChunkedDecoder::new(limits);
    let mut buf = HEAD.to_vec();
    let (mut decoded, mut raw, mut dropped) = (HEAD.len(), HEAD.len(), 0);
    let mut from = 0;
    for (call, &to) in lengths.iter().enumerate() {
        buf.extend_from_slice(&bytes[from..to]);
        from = to;
        let before = buf.clone();
        let progress = match decoder.decode(&mut buf, decoded, raw) {
            Ok(progress) => progress,
            Err(error) => {
                let again = decoder.decode(&mut buf, decoded, raw);
                assert_eq!(again, Err(error), "an error stays");
                return Err(error);
            }
        };
        assert!(decoded <= progress.decoded && progress.decoded <= progress.consumed);
        assert!(raw <= progress.consumed && progress.consumed <= buf.len());
        assert_eq!(buf[..decoded], before[..decoded], "decoded bytes stay");
        assert_eq!(
            buf[progress.consumed..],
            before[progress.consumed..],
            "what follows the body stays"
        );
        assert_eq!(progress.done, decoder.is_done());
        (decoded, raw) = (progress.decoded, progress.consumed);
        if progress.done {
            let next = raw + dropped - HEAD.len();
            return Ok(Some((buf[HEAD.len()..decoded].to_vec(), next)));
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

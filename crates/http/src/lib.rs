//! The wire format of HTTP/1.1, without I/O: bytes in, bytes out.
//!
//! Purpose: parse request heads ([`parse_head`]), decode chunked bodies ([`ChunkedDecoder`]), decode
//! request targets ([`decode_path`], [`query_pairs`]), evaluate conditions and ranges ([`evaluate`]),
//! write response heads ([`write_head`]), read what trusted proxies say of a request's origin
//! ([`Origin`]). Strict wherever a proxy in front could read the same bytes another way (RFC 9112
//! §11.2): what is ambiguous is refused, never repaired.
//!
//! States: only [`ChunkedDecoder`] and [`DateCache`] keep any; everything else is a function of the
//! bytes that it is given.
//!
//! Invariants: no `unsafe`; no allocation on the normal path (tables of heads come from an `Arena`,
//! written heads go to a `WriteArena`); results are offsets, so that the bytes may be moved.
//!
//! What it does not do: it reads no socket, owns no buffer, knows no time-outs and no routes, and does
//! not decide what happens to a connection after an error, beyond the status that belongs to it.

#![forbid(unsafe_code)]

pub mod chunked;
pub mod conditional;
pub mod date;
pub mod forwarded;
pub mod head;
pub mod method;
pub mod range;
pub mod response;
pub mod status;
pub mod target;

mod bytes;
mod inline;

pub use chunked::{ChunkedDecoder, ChunkedError, ChunkedLimits, Progress};
pub use conditional::{Answer, EntityTag, Representation, evaluate, parse_date};
pub use date::{DateCache, format_date};
pub use forwarded::{Hop, InvalidNetwork, Origin, Scheme, TrustedPeers};
pub use head::{
    Framing, Head, HeadError, HeadLimits, TargetForm, Version, find_head_end, is_ambiguous_name,
    parse_head,
};
pub use method::Method;
pub use range::ContentRange;
pub use response::{
    CONTINUE, Connection, ContentLength, InvalidHeader, LAST_CHUNK, ResponseHead, simple_response,
    validate_name, validate_value, write_chunk_header, write_head,
};
pub use status::{forbids_body, is_empty, is_final, is_valid, reason};
pub use target::{
    BadEncoding, decode_for_routing, decode_form, decode_param, decode_path, query_pairs,
};

//! Limits and timeouts of a worker, with the defaults of DESIGN §8.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use theframework_http::TrustedPeers;

/// What becomes of a request that has a field with an underscore in its name. A gateway interface
/// (CGI, WSGI) gives `X_User` and `X-User` one name, so a client can pass one off as the other behind
/// a proxy's back.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum HeaderMap {
    /// It is served without the field, wherever fields are looked up by name.
    #[default]
    Drop,
    /// It is answered by 400.
    Refuse,
    /// It is served with the field.
    Dangerous,
}

/// Limits and timeouts of one worker. Sizes are bytes, times milliseconds; 0 switches a timeout off.
#[derive(Clone, Debug)]
pub struct Config {
    /// Request line target; longer is 414.
    pub max_target_size: usize,
    /// Whole request head; longer is 431.
    pub max_header_size: usize,
    /// Body that is buffered for a handler; longer is 413. Exactly this size passes.
    pub max_body_size: usize,
    /// Body that a handler takes while it arrives, where the route sets no limit of its own; longer
    /// is 413. 0: no limit.
    pub max_stream_size: u64,
    /// Connections of this worker.
    pub max_connections: usize,
    /// How long the worker may stay full before waiting clients are told 503; 0: at once.
    pub accept_pause_ms: u64,
    /// The whole head, and between two reads of a body.
    pub read_timeout_ms: u64,
    /// Bytes per second that a body must bring on average, after `read_timeout`, or 30 s if that is
    /// longer; 0: none.
    pub min_body_rate: u64,
    /// A write that the socket takes nothing of.
    pub write_timeout_ms: u64,
    /// Between two requests.
    pub keepalive_timeout_ms: u64,
    /// A handler, until its response is complete.
    pub handler_timeout_ms: u64,
    /// Bytes of later requests that are read while one is with its handler.
    pub read_ahead: usize,
    /// Value of the `Server` field; empty: none is sent.
    pub server: Vec<u8>,
    /// What becomes of fields with an underscore in their names.
    pub header_map: HeaderMap,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; a peer on a Unix socket is one of
    /// them in any case.
    pub forwarded_allow_ips: TrustedPeers,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_target_size: 8192,
            max_header_size: 32_768,
            max_body_size: 1_048_576,
            max_stream_size: 0,
            max_connections: 4096,
            accept_pause_ms: 1000,
            read_timeout_ms: 30_000,
            min_body_rate: 1024,
            write_timeout_ms: 30_000,
            keepalive_timeout_ms: 75_000,
            handler_timeout_ms: 30_000,
            read_ahead: 65_536,
            server: Vec::new(),
            header_map: HeaderMap::default(),
            forwarded_allow_ips: TrustedPeers::from_iter([
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]),
        }
    }
}

//! Limits and timeouts of a worker, with the defaults of DESIGN §8.

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
        }
    }
}

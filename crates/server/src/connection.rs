//! A connection's slot: a few hundred bytes, no buffers.
//!
//! What a connection is doing is derived from what it holds:
//!
//! | holds | it is |
//! | --- | --- |
//! | no exchange, no input | idle: waits `keepalive_timeout` for a request |
//! | no exchange, some input | in the middle of a head: `read_timeout` for the whole of it |
//! | an exchange that receives | in the middle of a body: `read_timeout` between two reads |
//! | an exchange that is queued or runs | busy |
//! | `ending` | see [`Ending`] |
//!
//! One receive is armed at any time at most, one write is in flight at most. The descriptor is
//! closed when both have had their final event.

use std::os::fd::{AsRawFd, RawFd};

use theframework_io::{OpId, TimerId};
use theframework_memory::Key;

use crate::input::Input;
use crate::output::Output;

/// How far a connection's end has come.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// It serves on.
    No,
    /// No further request is read; it ends when the output is sent.
    AfterOutput,
    /// Our side is shut; what the peer still sends is discarded so that no reset destroys the
    /// final response on its way.
    Lingering,
    /// Operations are cancelled; it ends when they have ended.
    Closing,
}

#[derive(Debug)]
pub(crate) struct Connection<S, B> {
    pub(crate) socket: S,
    pub(crate) ending: Ending,
    /// The peer has sent FIN.
    pub(crate) peer_ended: bool,
    /// The peer has closed its side or reset, and bytes may stand before that; seen by a watch.
    pub(crate) hung_up: bool,
    /// The receive was cancelled, to be armed again later, or to be followed by a single one.
    pub(crate) receive_cancelled: bool,
    /// What is armed as `receive` is a poll for the peer's end: nothing is to be read now.
    pub(crate) watches: bool,
    /// It stands in the list of connections with finished responses to submit.
    pub(crate) is_dirty: bool,
    /// It was over the limit: answered 503 from the reserve.
    pub(crate) is_reserve: bool,
    /// The armed receive, multishot or single, or the watch in its place.
    pub(crate) receive: Option<OpId>,
    pub(crate) input: Input,
    /// The request that is being received, queued or handled.
    pub(crate) exchange: Option<Key>,
    pub(crate) output: Output<B>,
    /// Bytes of an incomplete head that have been looked at.
    pub(crate) scanned: u32,
    /// Bytes in the socket's buffer when the peer was last seen to take some.
    pub(crate) untaken: u32,
    /// The armed timer may be earlier than what it stands for; it is then armed again.
    pub(crate) timer: Option<TimerId>,
    pub(crate) timer_ms: u64,
    /// When the peer has to have sent something; `u64::MAX` while we do not wait for it.
    pub(crate) read_deadline_ms: u64,
    /// When the peer has to have taken something.
    pub(crate) write_deadline_ms: u64,
}

impl<S: AsRawFd, B> Connection<S, B> {
    pub(crate) fn new(socket: S) -> Self {
        Connection {
            socket,
            ending: Ending::No,
            peer_ended: false,
            hung_up: false,
            watches: false,
            receive_cancelled: false,
            is_dirty: false,
            is_reserve: false,
            receive: None,
            input: Input::Empty,
            exchange: None,
            output: Output::default(),
            scanned: 0,
            untaken: 0,
            timer: None,
            timer_ms: 0,
            read_deadline_ms: u64::MAX,
            write_deadline_ms: u64::MAX,
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether it serves on and has no request, not even a part of one.
    pub(crate) fn is_idle(&self) -> bool {
        self.ending == Ending::No && self.exchange.is_none() && self.input.len() == 0
    }

    /// Whether the driver still holds something of this connection.
    pub(crate) fn has_operations(&self) -> bool {
        self.receive.is_some() || self.output.in_flight.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_136_bytes() {
        let size = size_of::<Connection<std::os::fd::OwnedFd, &'static [u8]>>();
        assert_eq!(size, 136, "docs/architecture.md says so");
    }
}

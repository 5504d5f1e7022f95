//! Everything in a loop that waits: timers, streams, readers, protocols, work elsewhere.
//!
//! A task is taken out of its place while code of the user's runs for it, and put back if it goes on; so
//! that code may do to tasks what it likes, its own included.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use theframework_io::TimerId;

use crate::app::body::{BodyReader, Pieces};
use crate::app::link::{Protocol, Wire};
use crate::app::worker::{Call, Done};
use crate::exchange::ExchangeId;

impl Task {
    /// The exchange that it is about.
    pub(crate) fn exchange(&self) -> Option<ExchangeId> {
        match self {
            Task::Deferred { id }
            | Task::Pieces { id, .. }
            | Task::Channel { id, .. }
            | Task::Reader { id, .. }
            | Task::Protocol { id, .. } => Some(*id),
            _ => None,
        }
    }
}

pub(crate) enum Task {
    /// Its handler has not returned, or has decided otherwise.
    Reserved,
    /// Waits for other threads.
    Inbox,
    /// Ends what a drain has not.
    DrainEnd,
    Timer {
        call: Call,
        period: Option<Duration>,
        armed: Option<TimerId>,
    },
    /// A timer that is being called.
    Firing,
    Done(Done),
    /// A response that somebody else answers.
    Deferred {
        id: ExchangeId,
    },
    /// A response whose pieces are asked for when there is room.
    Pieces {
        id: ExchangeId,
        pieces: Pieces,
    },
    /// A response whose pieces come from elsewhere.
    Channel {
        id: ExchangeId,
        wire: Arc<Wire>,
        out: VecDeque<Bytes>,
        /// No more pieces come.
        is_ended: bool,
        /// A client that sends no more has left.
        ends_with_client: bool,
    },
    /// A request whose body is taken as it comes.
    Reader {
        id: ExchangeId,
        reader: Box<dyn BodyReader>,
    },
    /// A connection that was taken over: reading and writing wait for the same key.
    Protocol {
        id: ExchangeId,
        protocol: Box<dyn Protocol>,
        wire: Arc<Wire>,
        out: VecDeque<Bytes>,
        /// It ends behind what is in `out`.
        closes: bool,
        /// The client's end was told.
        was_ended: bool,
    },
}

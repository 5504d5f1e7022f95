//! What holds of an engine between two turns, whatever has happened: for tests (feature `audit`).
//!
//! These are the rules of `connection.rs`, `timeouts.rs` and `close.rs` read the other way round:
//! not what is done, but what must be so when it was done.

use theframework_http::Framing;
use theframework_io::{Driver, KeptBytes};
use theframework_memory::{Chunk, Key};

use crate::accept::RESERVE;
use crate::close::{DRAIN_IDLE_MS, LINGER_MS};
use crate::connection::{Connection, Ending};
use crate::engine::Engine;
use crate::exchange::{BodyPlace, Exchange, NOBODY, Progress, Sending};
use crate::input::Input;
use crate::receive::after;
use crate::token::{self, Kind};

/// What an engine holds that somebody has to give back.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Open connections.
    pub connections: usize,
    /// Exchanges that have not ended.
    pub exchanges: usize,
    /// Files that are sent, or whose last read is still pending.
    pub files: usize,
    /// Chunks in arenas.
    pub chunks: usize,
    /// Parked bytes.
    pub blocks: usize,
    /// Buffers of inputs and of pending writes; not those of idle writes.
    pub buffers: usize,
    /// Timers of connections and handlers.
    pub timers: usize,
    /// Exchanges on the ready queue, connections to be flushed, connections with a lease.
    pub queued: usize,
}

/// What an engine keeps although nobody uses it, so that the next one finds it there.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Spare {
    /// Exchanges, each with an arena.
    pub exchanges: usize,
    /// Writes, each with the first buffer of its arena.
    pub writes: usize,
    /// Boxes for bodies.
    pub fillings: usize,
    /// Chunks, blocks and buffers, in bytes.
    pub bytes: usize,
    /// Slots for connections, exchanges and files, taken ones included.
    pub slots: usize,
}

macro_rules! must {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// What it holds now.
    pub fn held(&self) -> Held {
        let timers = self
            .wheel
            .tokens()
            .filter(|&token| matches!(token::kind(token), Some(Kind::Connection | Kind::Handler)));
        // A key of a connection that has gone stands there until the next turn, and holds nothing.
        let listed = self.dirty.iter().chain(&self.leased);
        let listed = listed.filter(|&&key| self.connections.get(key).is_some());
        Held {
            connections: self.connections.len(),
            exchanges: self.exchanges.len(),
            files: self.files.len(),
            chunks: self.chunks.total_allocated() - self.chunks.cached(),
            blocks: self.blocks.live(),
            buffers: self.buffers.live() - self.writes.idle_len(),
            timers: timers.count(),
            queued: self.ready_len() + listed.count(),
        }
    }

    /// What it keeps for later.
    pub fn spare(&self) -> Spare {
        let chunks = self.chunks.cached() * size_of::<Chunk>();
        let slots = [
            self.connections.capacity(),
            self.exchanges.capacity(),
            self.files.capacity(),
        ];
        Spare {
            exchanges: self.exchange_pool.idle_len(),
            writes: self.writes.idle_len(),
            fillings: self.fillings.len(),
            bytes: chunks + self.blocks.cached_bytes() + self.buffers.cached_bytes(),
            slots: slots.into_iter().sum(),
        }
    }

    /// Bytes of the longest write that is being filled.
    pub fn longest_output(&self) -> usize {
        let pending = self.connections.iter();
        let pending = pending.filter_map(|(_, connection)| connection.output.pending.as_ref());
        pending.map(|write| write.len()).max().unwrap_or(0)
    }

    /// Checks every connection and exchange. To be called between [`turn`](Self::turn) and the
    /// next call that changes anything.
    ///
    /// # Errors
    /// The first rule that does not hold, in words.
    pub fn audit(&self) -> Result<(), String> {
        let mut in_reserve = 0;
        for (key, connection) in self.connections.iter() {
            in_reserve += usize::from(connection.is_reserve);
            self.audit_connection(key, connection)
                .map_err(|rule| format!("connection {}: {rule}", key.index))?;
        }
        must!(
            in_reserve == self.listeners.in_reserve(),
            "{in_reserve} connections are of the reserve, {} are counted",
            self.listeners.in_reserve()
        );
        // Who was accepted and had to wait is served all the same when the drain begins.
        must!(
            in_reserve <= RESERVE
                && (self.connections.len() - in_reserve <= self.config.max_connections
                    || self.drain.is_some()),
            "{} connections are open, {in_reserve} of them of the reserve",
            self.connections.len()
        );
        for (key, exchange) in self.exchanges.iter() {
            let owner = self.connections.get(exchange.connection);
            must!(
                exchange.connection == NOBODY
                    || owner.is_some_and(|connection| connection.exchange == Some(key)),
                "exchange {}: its connection has another one",
                key.index
            );
            must!(
                exchange.progress != Progress::Parked
                    || exchange.handler_timer.is_some()
                    || exchange.is_overtime
                    || exchange.owes_timeout
                    || exchange.sending != Sending::No
                    || exchange.streams
                    || self.config.handler_timeout_ms == 0
                    || self.overdue.contains(&crate::exchange::ExchangeId(key)),
                "exchange {}: parked, and no time limit runs",
                key.index
            );
            must!(
                exchange.progress != Progress::Receiving
                    || !matches!(exchange.body, BodyPlace::Own(_))
                    || owner.is_none_or(|connection| {
                        connection.receive.is_none() || connection.receive_cancelled
                    }),
                "exchange {}: its body has its place, and is received elsewhere",
                key.index
            );
            must!(
                exchange.progress != Progress::Queued
                    || self.next_in_pipeline == Some(key)
                    || self.ready.contains(&key),
                "exchange {}: queued, and in no queue",
                key.index
            );
            must!(
                (exchange.progress == Progress::SendingFile)
                    == exchange
                        .file
                        .is_some_and(|file| self.files.get(file).is_some()),
                "exchange {}: sends a file that there is not, or the other way round",
                key.index
            );
            if let Some(connection) = owner
                && connection.ending == Ending::No
            {
                self.audit_stream(connection, exchange)
                    .map_err(|rule| format!("exchange {}: {rule}", key.index))?;
            }
        }
        Ok(())
    }

    /// Who waits for more of a body, or for room, waits for something that is not there, and for no
    /// longer than is allowed.
    fn audit_stream(
        &self,
        connection: &Connection<D::Socket, B>,
        exchange: &Exchange<B>,
    ) -> Result<(), String> {
        let waits = exchange.reader != 0;
        must!(
            !waits || (exchange.body_len == 0 && exchange.is_streaming() && !connection.peer_ended),
            "waits for a body that is there, or will not come"
        );
        let is_timed = connection.read_deadline_ms != u64::MAX;
        must!(
            exchange.progress == Progress::Receiving
                || is_timed == (waits && !exchange.taken_over && self.config.read_timeout_ms > 0),
            "waits for its body: {waits}; its client's time runs: {is_timed}"
        );
        must!(
            exchange.writer == 0 || connection.output.is_blocked(),
            "waits for room, and there is some"
        );
        must!(
            exchange.sending == Sending::No || exchange.handler_timer.is_none(),
            "sends, and a time limit runs"
        );
        must!(
            exchange.own_head.is_some()
                == (exchange.streams && exchange.progress != Progress::Receiving)
                || exchange.head.framing == Framing::None,
            "its head is not where it should be"
        );
        Ok(())
    }

    fn audit_connection(
        &self,
        key: Key,
        connection: &Connection<D::Socket, B>,
    ) -> Result<(), String> {
        let exchange = match connection.exchange {
            Some(key) => Some(
                self.exchanges
                    .get(key)
                    .ok_or("its exchange has ended and it was not told")?,
            ),
            None => None,
        };
        must!(
            exchange.is_none_or(|exchange| exchange.connection == key),
            "its exchange belongs to another one"
        );
        let progress = exchange.map(|exchange| exchange.progress);
        if connection.ending == Ending::Closing {
            must!(
                connection.has_operations() || exchange.is_some(),
                "closing, held by nobody, and not freed"
            );
            return Ok(());
        }
        let deadline_ms = connection
            .read_deadline_ms
            .min(connection.write_deadline_ms);
        if deadline_ms != u64::MAX {
            must!(
                deadline_ms > self.now_ms,
                "its deadline was {} ms ago and nothing happened",
                self.now_ms - deadline_ms
            );
            // A write that was submitted just now ends with the submission, nearly always.
            let is_just_sent =
                connection.write_deadline_ms == self.now_ms + self.config.write_timeout_ms;
            must!(
                connection
                    .timer
                    .is_some_and(|_| connection.timer_ms <= deadline_ms)
                    || is_just_sent,
                "no timer stands at or before its deadline"
            );
        }
        must!(
            connection.output.pending.is_none()
                || connection.output.in_flight.is_some()
                || connection.is_dirty,
            "finished responses that nobody will send"
        );
        must!(
            connection.is_dirty == self.dirty.contains(&key),
            "it is dirty and not in the list, or the other way round"
        );
        must!(
            !connection.input.is_leased() || self.leased.contains(&key),
            "its lease would not be ended"
        );
        let waits_for_peer = match (connection.ending, progress) {
            (Ending::Lingering, _) | (Ending::No, Some(Progress::Receiving)) => true,
            (Ending::No, None) => !connection.output.is_blocked() && connection.output.is_empty(),
            _ => false,
        };
        let times_out = match connection.ending {
            Ending::No if connection.is_idle() => self.config.keepalive_timeout_ms > 0,
            Ending::No => self.config.read_timeout_ms > 0,
            _ => true,
        };
        must!(
            !waits_for_peer || !times_out || connection.read_deadline_ms != u64::MAX,
            "waits for its peer ({progress:?}, {:?}) without a deadline",
            connection.ending
        );
        must!(
            self.drain.is_none()
                || !connection.is_idle()
                || !connection.output.is_empty()
                || connection.read_deadline_ms <= self.now_ms + DRAIN_IDLE_MS,
            "idle, and stays although the drain has begun"
        );
        must!(
            connection.output.in_flight.is_none()
                || self.config.write_timeout_ms == 0
                || connection.write_deadline_ms != u64::MAX,
            "sends without a deadline"
        );
        must!(
            connection.ending != Ending::Lingering
                || !connection.peer_ended
                || connection.receive.is_some(),
            "lingers for a peer that has gone"
        );
        if connection.ending == Ending::AfterOutput {
            must!(
                !connection.output.is_empty(),
                "everything is sent, and it does not end"
            );
        }
        if connection.ending != Ending::No {
            must!(
                matches!(connection.input, Input::Empty)
                    || (matches!(connection.input, Input::InKernel)
                        && connection.receive.is_some()),
                "reads no further request, and keeps bytes"
            );
        }
        must!(
            !connection.is_idle() || matches!(connection.input, Input::Empty),
            "idle, and holds memory for bytes"
        );
        self.audit_limits(connection, exchange.map(AsRef::as_ref))
    }

    /// What it waits for lasts no longer than is allowed, and it reads no further than that.
    fn audit_limits(
        &self,
        connection: &Connection<D::Socket, B>,
        exchange: Option<&Exchange<B>>,
    ) -> Result<(), String> {
        let config = &self.config;
        let progress = exchange.map(|exchange| exchange.progress);
        let longest_ms = match (connection.ending, progress) {
            (Ending::Lingering, _) => self.now_ms + LINGER_MS,
            (Ending::No, None) if connection.input.len() == 0 => self.idle_deadline_ms(),
            (Ending::No, None | Some(Progress::Receiving)) => {
                after(self.now_ms, config.read_timeout_ms)
            }
            // It does not wait for the peer.
            _ => u64::MAX,
        };
        must!(
            connection.read_deadline_ms == u64::MAX || connection.read_deadline_ms <= longest_ms,
            "its peer has {} ms more than is allowed ({progress:?}, {:?})",
            connection.read_deadline_ms - longest_ms,
            connection.ending
        );
        must!(
            connection.write_deadline_ms == u64::MAX
                || connection.write_deadline_ms <= after(self.now_ms, config.write_timeout_ms),
            "its write may take longer than is allowed"
        );
        let is_busy = match exchange {
            Some(exchange) => exchange.progress != Progress::Receiving,
            None => connection.output.is_blocked(),
        };
        let streams = exchange.is_some_and(Exchange::is_streaming);
        let own = match exchange {
            Some(exchange) if !streams => exchange.input_len(),
            _ => 0,
        };
        let backlog = connection.input.len().saturating_sub(own);
        let is_held_back =
            connection.ending == Ending::No && is_busy && backlog > config.read_ahead;
        must!(
            !is_held_back
                || connection.receive.is_none()
                || connection.receive_cancelled
                || connection.watches,
            "reads on, with {backlog} bytes read ahead"
        );
        let has_bytes_first = streams && backlog > 0;
        must!(
            !connection.watches
                || connection.receive_cancelled
                || is_held_back
                || has_bytes_first
                || connection.ending == Ending::AfterOutput,
            "watches for its peer's end alone ({progress:?}, {:?})",
            connection.ending
        );
        must!(
            is_held_back
                || has_bytes_first
                || connection.receive.is_some()
                || connection.peer_ended
                || connection.ending == Ending::AfterOutput,
            "nothing is received on it ({progress:?}, {:?})",
            connection.ending
        );
        Ok(())
    }
}

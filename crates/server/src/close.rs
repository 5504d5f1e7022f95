//! How a connection ends.
//!
//! ```text
//! serving --(last response queued)--> AfterOutput --(sent)--> Lingering --(FIN, or time)--+
//!    |                                                                                     v
//!    +--(reset, timeout, stop)---------------------------------------------------------> Closing
//! ```
//!
//! In Closing the operations are cancelled. When both have had their final event, and the handler
//! (if one still runs) has finished, the slot is freed and the descriptor closed, in this order and
//! once.

use theframework_io::{Driver, KeptBytes};
use theframework_memory::Key;

use crate::connection::Ending;
use crate::engine::Engine;
use crate::exchange::{ExchangeId, Progress};

/// How long the peer has for reading the last response and closing its side.
pub(crate) const LINGER_MS: u64 = 2000;
/// How long an idle connection stays readable when the drain begins: a request that is on its way
/// is answered.
pub(crate) const DRAIN_IDLE_MS: u64 = 1000;

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Nothing more is read; the connection ends when what is queued has been sent.
    pub(crate) fn end_after_output(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.ending = Ending::AfterOutput;
        connection.read_deadline_ms = u64::MAX;
        connection.input.clear(&mut self.inputs);
        if connection.output.is_empty() {
            self.linger(key);
        } else {
            self.must_not_wait = true;
        }
    }

    pub(crate) fn linger(&mut self, key: Key) {
        let deadline_ms = self.now_ms + LINGER_MS;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.peer_ended {
            return self.begin_close(key);
        }
        connection.ending = Ending::Lingering;
        connection.read_deadline_ms = deadline_ms;
        self.driver.shutdown_write(connection.raw_fd());
        self.arm_receive(key);
        self.arm_timer(key);
    }

    /// Ends the connection now: cancels what is pending, and a request that nobody handles yet.
    pub(crate) fn begin_close(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.ending != Ending::Closing {
            connection.ending = Ending::Closing;
            connection.read_deadline_ms = u64::MAX;
            connection.write_deadline_ms = u64::MAX;
            for op in [connection.receive, connection.output.in_flight]
                .into_iter()
                .flatten()
            {
                self.driver.cancel(op);
            }
            if let Some(exchange) = connection.exchange
                && self.exchanges.get(exchange).is_none_or(|exchange| {
                    matches!(
                        exchange.progress,
                        Progress::Receiving | Progress::Queued | Progress::SendingFile
                    )
                })
            {
                connection.exchange = None;
                self.end_exchange(exchange);
            } else if let Some(exchange) = connection.exchange {
                self.wake_reader(exchange);
                self.wake_writer(exchange);
                self.wake_watcher(exchange);
            }
        }
        self.free_if_ended(key);
    }

    /// Frees a closing connection that neither the driver nor a handler holds any more.
    pub(crate) fn free_if_ended(&mut self, key: Key) {
        let is_ended = self.connections.get(key).is_some_and(|connection| {
            connection.ending == Ending::Closing
                && !connection.has_operations()
                && connection.exchange.is_none()
        });
        if !is_ended {
            return;
        }
        let Some(mut connection) = self.connections.remove(key) else {
            return;
        };
        connection.input.clear(&mut self.inputs);
        if let Some(write) = connection.output.pending.take() {
            self.released.extend(self.writes.release(write));
        }
        if let Some(timer) = connection.timer {
            self.wheel.cancel(timer);
        }
        self.listeners.connection_ended(connection.is_reserve);
        self.driver.close(connection.socket);
        self.publish_load();
    }

    /// Begins the end of the worker: accepts nobody, answers what is in flight with
    /// `Connection: close`, lets idle connections go after a short grace.
    pub fn drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        self.drain = Some(self.now_ms);
        self.stop_accepting();
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            if let Some(connection) = self.connections.get_mut(key)
                && connection.exchange.is_none()
                && connection.ending == Ending::No
                && (connection.output.is_empty() || connection.read_deadline_ms != u64::MAX)
            {
                let grace = self.now_ms + DRAIN_IDLE_MS;
                connection.read_deadline_ms = connection.read_deadline_ms.min(grace);
                self.arm_timer(key);
            }
        }
    }

    /// When a connection that waits for its next request is given up.
    pub(crate) fn idle_deadline_ms(&self) -> u64 {
        match self.drain {
            Some(_) => self.now_ms + DRAIN_IDLE_MS,
            None => crate::receive::after(self.now_ms, self.config.keepalive_timeout_ms),
        }
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether the drain is over: nobody is connected.
    pub fn is_drained(&self) -> bool {
        self.drain.is_some() && self.connections.is_empty() && self.listeners.is_closed()
    }

    /// The exchanges that are with their handlers, whatever became of their connections.
    pub fn unanswered(&self) -> Vec<ExchangeId> {
        let exchanges = self.exchanges.iter();
        exchanges
            .filter(|(_, exchange)| {
                matches!(exchange.progress, Progress::Running | Progress::Parked)
            })
            .map(|(key, _)| ExchangeId(key))
            .collect()
    }

    /// Ends every connection at once, whatever it is doing. Returns how many requests are lost. Those that
    /// are with their handlers end with [`abort_response`](Self::abort_response).
    pub fn abort(&mut self) -> usize {
        self.drain();
        let lost = self.exchanges.len();
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            self.begin_close(key);
        }
        lost
    }
}

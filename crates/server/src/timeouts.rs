//! One timer for each connection, armed lazily.
//!
//! A connection's deadlines move with every request; its timer does not. It stands at or before the
//! earliest deadline, and when it fires early it is armed again. So a busy connection costs the
//! wheel nothing, and a quiet one a single entry.

use theframework_io::{Driver, KeptBytes, TICK_US};
use theframework_memory::Key;

use crate::connection::Ending;
use crate::engine::Engine;
use crate::exchange::ExchangeId;
use crate::receive::after;
use crate::token::{self, Kind};

/// The tick at which a time in milliseconds has come.
pub(crate) fn tick_of_ms(at_ms: u64) -> u64 {
    tick_of_us(at_ms.saturating_mul(1000))
}

/// The first tick at or after a time in microseconds.
pub(crate) fn tick_of_us(at_us: u64) -> u64 {
    at_us.div_ceil(TICK_US)
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Sees to it that the timer fires at the connection's earliest deadline, or before.
    pub(crate) fn arm_timer(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let deadline_ms = connection
            .read_deadline_ms
            .min(connection.write_deadline_ms);
        if deadline_ms == u64::MAX {
            return;
        }
        if let Some(timer) = connection.timer {
            if connection.timer_ms <= deadline_ms {
                return;
            }
            self.wheel.cancel(timer);
        }
        connection.timer_ms = deadline_ms;
        let token = token::of_key(Kind::Connection, key);
        connection.timer = Some(self.wheel.insert(tick_of_ms(deadline_ms), token));
    }

    /// If everything was answered, and is sent or about to be: the time for the next request runs.
    pub(crate) fn rest_idle(&mut self, key: Key) {
        let idle_deadline_ms = self.idle_deadline_ms();
        if let Some(connection) = self.connections.get_mut(key)
            && connection.is_idle()
        {
            connection.read_deadline_ms = idle_deadline_ms;
            self.arm_timer(key);
        }
    }

    pub(crate) fn run_timers(&mut self) {
        while let Some((_, due)) = self.wheel.pop_expired(self.now_us / TICK_US) {
            match token::kind(due) {
                Some(Kind::User) => self.due.push_back(token::user(due)),
                Some(Kind::Connection) => self.on_deadline(token::key(due)),
                Some(Kind::Listener) => self.listeners.postponement_over(),
                Some(Kind::Handler) => {
                    let key = token::key(due);
                    if let Some(exchange) = self.exchanges.get_mut(key) {
                        exchange.handler_timer = None;
                        self.overdue.push_back(ExchangeId(key));
                    }
                }
                _ => debug_assert!(false, "the wheel was given no such token"),
            }
        }
    }

    fn on_deadline(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.timer = None;
        if connection.write_deadline_ms <= self.now_ms {
            // The socket asks for more only when a good part of its buffer is empty again; a slow
            // peer takes bytes all the while.
            let untaken = self.driver.untaken(connection.raw_fd()) as u32;
            if untaken >= connection.untaken {
                return self.begin_close(key);
            }
            connection.untaken = untaken;
            connection.write_deadline_ms = after(self.now_ms, self.config.write_timeout_ms);
            return self.arm_timer(key);
        }
        if connection.read_deadline_ms > self.now_ms {
            return self.arm_timer(key);
        }
        if connection.ending == Ending::No && !connection.output.is_empty() {
            // It is still taking its last response: the write's own deadline counts, and what
            // follows begins with the write's end.
            connection.read_deadline_ms = if connection.is_idle() {
                u64::MAX
            } else {
                after(self.now_ms, self.config.read_timeout_ms)
            };
            return self.arm_timer(key);
        }
        connection.read_deadline_ms = u64::MAX;
        if let Some(exchange) = connection.exchange
            && self.reader_times_out(exchange)
        {
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match connection.ending {
            // In the middle of a head or body: the client is told why. Empty lines are no request.
            Ending::No
                if connection.exchange.is_some()
                    || !connection.input.bytes().trim_ascii().is_empty() =>
            {
                let is_head = connection
                    .exchange
                    .and_then(|key| self.exchanges.get(key))
                    .is_some_and(|exchange| exchange.head.method.is_head());
                self.refuse(key, 408, is_head);
            }
            Ending::No | Ending::Lingering => self.begin_close(key),
            Ending::AfterOutput | Ending::Closing => {}
        }
    }
}

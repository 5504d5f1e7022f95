//! `OPTIONS *`: the one request that the engine answers itself.
//!
//! It asks about the server, not about anything that a handler stands for (RFC 9110 §9.3.7). The answer
//! is 204 with `Allow`: there is nothing to say beyond the field, and a 204 ends with its head for every
//! reader. It takes its turn on the ready queue, so answers stay in order and a run of such requests
//! costs the others no more than a run of quick handlers.

use theframework_io::{Driver, KeptBytes};

use crate::engine::Engine;
use crate::exchange::ExchangeId;
use crate::respond::Body;

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    pub(crate) fn answer_options(&mut self, id: ExchangeId) {
        let allow = self.router.allow_of_server();
        // Without memory for the field, the answer goes without.
        let _ = self.set_field(id, b"Allow", allow.as_bytes(), true);
        self.respond(id, 204, Body::Copied(b""));
    }
}

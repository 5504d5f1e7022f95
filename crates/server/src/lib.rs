//! The HTTP server engine: one state machine for each connection, on any completion driver.
//!
//! [`Engine`] owns connections, exchanges, timeouts and limits of one worker. Whoever runs it (the
//! Python hub, or a loop in Rust) does this, for ever:
//!
//! 1. [`Engine::turn`]: submit what is queued, gather events, run them. Complete requests come to
//!    stand on the ready queue.
//! 2. [`Engine::next_ready`]: take an exchange, look at its request ([`Engine::request`]), answer it
//!    ([`Engine::respond`]), or [`Engine::park`] it while its handler waits.
//!    A handler that streams takes its request's body as it comes ([`Engine::body_state`]) and sends
//!    its response as it is made ([`Engine::start_response`]).
//! 3. [`Engine::flush`] when the batch ends: one write for all finished responses of a connection.
//!
//! The engine calls nobody: what happened is asked for. So no borrow of it ever crosses a call into
//! a handler.

#![forbid(unsafe_code)]

mod accept;
#[cfg(feature = "audit")]
mod audit;
mod close;
mod config;
mod connection;
mod download;
mod engine;
mod exchange;
mod fields;
mod file;
mod input;
mod options;
mod origin;
mod output;
mod peers;
mod receive;
mod respond;
mod router;
mod timeouts;
mod token;
mod upload;

pub use accept::{AcceptMode, Peers};
#[cfg(feature = "audit")]
pub use audit::{Held, Spare};
pub use config::{Config, HeaderMap};
pub use download::{Room, WriteError};
pub use engine::{Engine, Stats};
pub use exchange::{ExchangeId, RequestView, Route};
pub use file::FileBody;
pub use peers::{PeerSlot, SlotPeers};
pub use respond::{Body, HeaderError};
pub use router::{RouteError, Router, StreamLimit};
pub use upload::BodyState;

//! The face for Rust: applications, handlers, and the loop that calls them.
//!
//! ```text
//! App ── bind ──> Server ── run, start ──> Handle        app, settings, listener, server
//!                    |
//!                   Loop, one for each thread            run, tasks, inbox, pool, stats
//!                    |  calls
//!              middleware, handler                       handler, dispatch, request, response
//!                    |  which may leave
//!     a reply for later, pieces, a reader, a protocol    reply, responder, body, link, worker
//! ```
//!
//! It holds no connection state and no protocol logic: those are the engine's, below.

mod accept_header;
#[expect(clippy::module_inception, reason = "an App is put together there")]
mod app;
mod body;
mod dispatch;
mod error;
mod handler;
mod inbox;
mod link;
mod listener;
mod pool;
mod reply;
mod request;
mod responder;
mod response;
mod run;
mod server;
mod settings;
mod stats;
mod tasks;
mod testing;
mod worker;

pub use app::{App, Group, Part, Whole};
pub use body::BodyReader;
pub use error::{Error, Result};
pub use handler::{IntoResult, Next};
pub use link::{Event, Link, Protocol, QUEUED_MAX, SendError, Sender};
pub use listener::Address;
pub use reply::Reply;
pub use request::Request;
pub use responder::Responder;
pub use response::Response;
pub use server::{Handle, Server, StartError, Stopper};
pub use settings::Settings;
pub use testing::{LiveClient, ReadWrite, TestClient};
pub use worker::{Remote, Timer, Worker};

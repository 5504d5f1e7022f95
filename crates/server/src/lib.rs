//! A web server and framework without an async runtime: handlers are plain functions, one loop serves each
//! core, on io_uring or, where that is turned off, on epoll.
//!
//! ```no_run
//! use theframework::{App, Request, Response};
//!
//! fn hello(request: &mut Request, response: &mut Response) {
//!     response.text(format!("hello {}", request.param("name").unwrap_or_default()));
//! }
//!
//! fn main() -> Result<(), theframework::StartError> {
//!     App::new()
//!         .get("/hello/{name}", hello)
//!         .workers(0) // one loop for each core
//!         .bind("127.0.0.1:8000")?
//!         .run()
//! }
//! ```
//!
//! **It is for** HTTP/1.1 services on Linux whose handlers answer quickly, or hand what takes long to threads
//! ([`Response::offload`]), timers and other programs ([`Response::defer`]): a handler holds up the connections of
//! its loop for as long as it runs. **It is not for** Windows or macOS, TLS or HTTP/2 (the work of a proxy
//! in front), or `async fn`.
//!
//! | to do | there is |
//! | --- | --- |
//! | routes, groups, middleware, state | [`App`] |
//! | reading a request, without a copy | [`Request`] |
//! | answering: text, JSON, files, streams, events | [`Response`] |
//! | answering later, from any thread | [`Responder`], [`Sender`], [`Reply`] |
//! | taking a large body while it comes | [`App::streaming`], [`BodyReader`] |
//! | another protocol on the connection | [`Response::upgrade`], [`Protocol`] |
//! | timers, work that blocks, figures | [`Worker`] |
//! | threads, sockets, stopping | [`Server`], [`Handle`], [`Settings`] |
//! | limits and timeouts | [`Config`] |
//! | what most services want of middleware; files of a folder | [`middleware`] |
//! | tests | [`App::test`], [`TestClient`], [`LiveClient`] |
//!
//! # Memory
//!
//! A request is parsed where the kernel put it, and borrowed from there. What a response consists of lies in
//! an arena that goes with the exchange. In steady state a request allocates nothing but what its handler
//! allocates. An idle connection costs about 250 bytes (`docs/performance-rust.md`).
//!
//! # Below
//!
//! [`engine`] is the state machine of the connections, without handlers: the same that serves Python.

#![forbid(unsafe_code)]

mod accept;
mod app;
#[cfg(feature = "audit")]
mod audit;
mod close;
mod config;
mod connection;
mod download;
pub mod engine;
mod exchange;
mod fields;
mod file;
mod input;
pub mod middleware;
mod options;
mod origin;
mod output;
mod peers;
mod receive;
mod respond;
mod router;
mod takeover;
mod timeouts;
mod token;
mod upload;

pub use app::*;
pub use bytes::Bytes;
pub use config::{Config, HeaderMap};
pub use cookie;
pub use engine::{MemoryStats, Stats};
pub use http::{self, Method, StatusCode, Version};
pub use respond::HeaderError;
pub use router::RouteError;
pub use theframework_http::{Hop, Scheme, TrustedPeers};
pub use theframework_io::DriverKind;
pub use theframework_memory::{Allocate, Appender, ArenaSlice, OutOfMemory};

//! Handlers and middleware, and how a request goes through them.
//!
//! ```text
//! first middleware ── next.run ──> second ── next.run ──> handler
//!        ^                            ^                      │
//!        └── what stands behind ──────┴── next.run ──────────┘
//! ```
//!
//! The chain of each route is put together once, when the server is bound. A call is one call through a
//! pointer for each middleware and for the handler; nothing is allocated.

use std::fmt;
use std::sync::Arc;

use crate::app::error::Result;
use crate::app::request::Request;
use crate::app::response::Response;

/// What a handler may return: nothing, or a [`Result`].
pub trait IntoResult {
    /// As a [`Result`].
    ///
    /// # Errors
    /// What the handler said.
    fn into_result(self) -> Result;
}

impl IntoResult for () {
    fn into_result(self) -> Result {
        Ok(())
    }
}

impl IntoResult for Result {
    fn into_result(self) -> Result {
        self
    }
}

pub(crate) type Handler = dyn Fn(&mut Request<'_>, &mut Response<'_>) -> Result + Send + Sync;
pub(crate) type Middleware =
    dyn Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync;

/// The rest of the way: the middleware behind this one, and the handler.
#[derive(Copy, Clone)]
pub struct Next<'n> {
    pub(crate) middleware: &'n [Arc<Middleware>],
    pub(crate) handler: &'n Handler,
}

impl Next<'_> {
    /// Goes on. A middleware that does not call this answers by itself; what it does afterwards sees
    /// the handler's response, and may change it.
    ///
    /// # Errors
    /// What the handler, or a middleware behind, returned. Pass it on with `?`, or answer for it.
    pub fn run(self, request: &mut Request<'_>, response: &mut Response<'_>) -> Result {
        match self.middleware.split_first() {
            Some((first, rest)) => {
                let next = Next {
                    middleware: rest,
                    handler: self.handler,
                };
                first(request, response, next)
            }
            None => (self.handler)(request, response),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("middleware", &self.middleware.len())
            .finish_non_exhaustive()
    }
}

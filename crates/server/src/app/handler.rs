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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::StatusCode;

use crate::app::dispatch::OnError;
use crate::app::error::{Error, Result};
use crate::app::reply::{Reply, error_text};
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
    pub(crate) on_error: Option<&'n OnError>,
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
                    ..self
                };
                first(request, response, next)
            }
            None => (self.handler)(request, response),
        }
    }

    /// Goes on, and answers an error or a panic at once, as it would be at the end of the chain: what stands
    /// in the response then is what the client gets. For middleware that looks at the status, or sets fields
    /// that belong to failures as well. Those outside see a response and no error.
    ///
    /// ```
    /// use theframework::{App, Error, Next, Request, Response, StatusCode};
    ///
    /// let app = App::new()
    ///     .middleware(|request: &mut Request, response: &mut Response, next: Next| {
    ///         next.answer(request, response);
    ///         let status = response.status().as_u16();
    ///         response.set_header("X-Was", status.to_string()).map(drop)?;
    ///         Ok(())
    ///     })
    ///     .get("/", |_: &mut Request, _: &mut Response| -> theframework::Result {
    ///         Err(Error::new(StatusCode::IM_A_TEAPOT, "no coffee"))
    ///     });
    /// let answer = app.test(http::Request::get("/").body("").unwrap()).unwrap();
    /// assert_eq!(answer.headers()["x-was"], "418");
    /// ```
    pub fn answer(self, request: &mut Request<'_>, response: &mut Response<'_>) {
        // What a panic leaves half done is the response, which is made anew.
        let called = catch_unwind(AssertUnwindSafe(|| self.run(request, response)));
        let error = match called {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler panicked"),
        };
        response.set_reply(Reply::text(error_text(&error)).with_status(error.status()));
        if let Some(on_error) = self.on_error {
            let answered = catch_unwind(AssertUnwindSafe(|| on_error(request, &error, response)));
            if !matches!(answered, Ok(Ok(()))) {
                response.set_reply(StatusCode::INTERNAL_SERVER_ERROR.into());
            }
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

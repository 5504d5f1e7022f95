//! From a route to its chain of middleware and its handler.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::app::error::{Error, Result};
use crate::app::handler::{Handler, Middleware, Next};
use crate::app::reply::status_text;
use crate::app::request::{Request, State};
use crate::app::response::Response;
use crate::app::worker::Worker;
use crate::exchange::Route;
use crate::router::Router;

/// Called with an error, to answer for it.
pub(crate) type OnError =
    dyn Fn(&mut Request<'_>, &Error, &mut Response<'_>) -> Result + Send + Sync;
pub(crate) type Hook = dyn Fn(&Worker) + Send + Sync;

/// What a route leads to: its own middleware behind the application's, and its handler.
pub(crate) struct Endpoint {
    pub(crate) middleware: Box<[Arc<Middleware>]>,
    pub(crate) handler: Arc<Handler>,
}

/// An application, put together: shared by all loops.
pub(crate) struct Dispatch {
    pub(crate) router: Router,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) not_found: Endpoint,
    pub(crate) method_not_allowed: Endpoint,
    pub(crate) on_error: Option<Arc<OnError>>,
    pub(crate) state: State,
    pub(crate) start: Vec<Arc<Hook>>,
    pub(crate) stop: Vec<Arc<Hook>>,
}

impl Dispatch {
    /// Runs a request through its chain. Whatever happens there, the response is one to be sent.
    pub(crate) fn call(&self, request: &mut Request<'_>, response: &mut Response<'_>) {
        let endpoint = match request.view().route() {
            Route::Endpoint(endpoint) => &self.endpoints[endpoint as usize],
            Route::MethodNotAllowed => &self.method_not_allowed,
            Route::NotFound => &self.not_found,
        };
        let next = Next {
            middleware: &endpoint.middleware,
            handler: &*endpoint.handler,
            on_error: self.on_error.as_deref(),
        };
        next.answer(request, response);
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch")
            .field("router", &self.router)
            .finish_non_exhaustive()
    }
}

pub(crate) fn not_found(_: &mut Request<'_>, response: &mut Response<'_>) -> Result {
    plain(response, StatusCode::NOT_FOUND);
    Ok(())
}

pub(crate) fn method_not_allowed(_: &mut Request<'_>, response: &mut Response<'_>) -> Result {
    plain(response, StatusCode::METHOD_NOT_ALLOWED);
    Ok(())
}

fn plain(response: &mut Response<'_>, status: StatusCode) {
    response.set_status(status);
    response.text(status_text(status));
}

//! Putting an application together.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::app::dispatch::{Dispatch, Endpoint, Hook, method_not_allowed, not_found};
use crate::app::error::{Error, Result};
use crate::app::handler::{Handler, IntoResult, Middleware, Next, OnError};
use crate::app::request::{Request, State};
use crate::app::response::Response;
use crate::app::server::{Server, StartError};
use crate::app::settings::Settings;
use crate::app::worker::Worker;
use crate::config::Config;
use crate::router::{Router, StreamLimit};

/// What [`App::any`] stands for; HEAD comes with GET.
const ANY: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Routes that stand for themselves: an [`App`].
#[derive(Debug)]
pub struct Whole(());
/// Routes of a part of an application: a [`Group`].
#[derive(Debug)]
pub struct Part(());

/// Routes below a prefix, with middleware of their own: see [`App::group`].
pub type Group = App<Part>;

struct RouteSpec {
    method: String,
    pattern: String,
    handler: Arc<Handler>,
    /// Of the groups that it is in, the outermost first.
    middleware: Vec<Arc<Middleware>>,
    streams: Option<StreamLimit>,
}

/// An application: routes, middleware, state, settings. Handlers are called on the loop that has the
/// connection, one at a time; they may be called on several loops at once.
///
/// Patterns are `{param}` for a segment and `{*rest}` for the remainder of a path.
///
/// ```no_run
/// use theframework::{App, Request, Response};
///
/// fn main() -> Result<(), theframework::StartError> {
///     App::new()
///         .get("/users/{id}", |request: &mut Request, response: &mut Response| {
///             response.text(format!("user {}", request.param("id").unwrap_or_default()));
///         })
///         .bind("127.0.0.1:8000")?
///         .run()
/// }
/// ```
pub struct App<Scope = Whole> {
    routes: Vec<RouteSpec>,
    /// How many of them the last call has added.
    last: usize,
    middleware: Vec<Arc<Middleware>>,
    not_found: Arc<Handler>,
    method_not_allowed: Arc<Handler>,
    on_error: Option<Arc<OnError>>,
    state: State,
    start: Vec<Arc<Hook>>,
    stop: Vec<Arc<Hook>>,
    settings: Settings,
    scope: PhantomData<fn() -> Scope>,
}

impl<Scope> App<Scope> {
    fn empty() -> Self {
        App {
            routes: Vec::new(),
            last: 0,
            middleware: Vec::new(),
            not_found: Arc::new(not_found),
            method_not_allowed: Arc::new(method_not_allowed),
            on_error: None,
            state: State::default(),
            start: Vec::new(),
            stop: Vec::new(),
            settings: Settings::default(),
            scope: PhantomData,
        }
    }

    /// A handler for a method, whose name is case-sensitive, and a pattern. A pattern or method that is not
    /// one, or that there is already, is an error of [`bind`](App::bind).
    #[must_use]
    pub fn route<F, R>(mut self, method: &str, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.routes.push(RouteSpec {
            method: method.to_owned(),
            pattern: pattern.to_owned(),
            handler: Arc::new(move |request, response| handler(request, response).into_result()),
            middleware: Vec::new(),
            streams: None,
        });
        self.last = 1;
        self
    }

    /// A handler for GET, and for HEAD, which is answered without the body.
    #[must_use]
    pub fn get<F, R>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.route("GET", pattern, handler)
    }

    /// A handler for POST.
    #[must_use]
    pub fn post<F, R>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.route("POST", pattern, handler)
    }

    /// A handler for PUT.
    #[must_use]
    pub fn put<F, R>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.route("PUT", pattern, handler)
    }

    /// A handler for PATCH.
    #[must_use]
    pub fn patch<F, R>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.route("PATCH", pattern, handler)
    }

    /// A handler for DELETE.
    #[must_use]
    pub fn delete<F, R>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.route("DELETE", pattern, handler)
    }

    /// A handler for HEAD, in place of that for GET.
    #[must_use]
    pub fn head<F, R>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.route("HEAD", pattern, handler)
    }

    /// A handler for OPTIONS. `OPTIONS *` is answered by the server.
    #[must_use]
    pub fn options<F, R>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.route("OPTIONS", pattern, handler)
    }

    /// A handler for GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS.
    #[must_use]
    pub fn any<F, R>(mut self, pattern: &str, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        let handler = Arc::new(handler);
        for method in ANY {
            let handler = Arc::clone(&handler);
            self = self.route(method, pattern, move |request, response| {
                handler(request, response)
            });
        }
        self.last = ANY.len();
        self
    }

    /// Has what was added last (a route, [`any`](Self::any)'s, or a [`group`](Self::group)'s) start with the
    /// head of a request, and take its body as it comes: [`Response::read_body`]. The limit is the setting
    /// `max_stream_size`.
    #[must_use]
    pub fn streaming(self) -> Self {
        self.stream(StreamLimit::Default)
    }

    /// As [`streaming`](Self::streaming), with a limit of its own in bytes; 0: none.
    #[must_use]
    pub fn streaming_up_to(self, bytes: u64) -> Self {
        self.stream(StreamLimit::Bytes(bytes))
    }

    fn stream(mut self, limit: StreamLimit) -> Self {
        for route in self.routes.iter_mut().rev().take(self.last) {
            route.streams = Some(limit);
        }
        self
    }

    /// Middleware for all routes here, behind what was added before. An application's middleware also runs
    /// for requests that no route has.
    ///
    /// ```
    /// use theframework::{App, Next, Request, Response, StatusCode};
    ///
    /// fn only_friends(request: &mut Request, response: &mut Response, next: Next) -> theframework::Result {
    ///     if request.header("x-friend").is_none() {
    ///         response.set_status(StatusCode::FORBIDDEN); // answers by itself
    ///         return Ok(());
    ///     }
    ///     next.run(request, response); // goes on
    ///     response.set_header("X-Greeted", "yes")?; // runs after
    ///     Ok(())
    /// }
    ///
    /// let app = App::new().middleware(only_friends).get("/", |_: &mut Request, response: &mut Response| {
    ///     response.text("hello, friend");
    /// });
    /// # drop(app);
    /// ```
    #[must_use]
    pub fn middleware<F, R>(mut self, middleware: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.middleware
            .push(Arc::new(move |request, response, next| {
                middleware(request, response, next).into_result()
            }));
        self
    }

    /// Routes below a prefix, whose middleware runs behind what is outside, for these routes alone. Groups
    /// nest.
    ///
    /// ```
    /// use theframework::{App, Next, Request, Response};
    ///
    /// let app = App::new().group("/api", |group| {
    ///     group
    ///         .middleware(|request: &mut Request, response: &mut Response, next: Next| {
    ///             next.run(request, response);
    ///             response.set_header("X-Api", "1")?;
    ///             Ok(())
    ///         })
    ///         .get("/status", |_: &mut Request, response: &mut Response| response.text("fine"))
    /// });
    /// # drop(app);
    /// ```
    #[must_use]
    pub fn group(mut self, prefix: &str, make: impl FnOnce(Group) -> Group) -> Self {
        let group = make(Group::empty());
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        self.last = group.routes.len();
        for mut route in group.routes {
            route.pattern = format!("{prefix}{}", route.pattern);
            route
                .middleware
                .splice(0..0, group.middleware.iter().cloned());
            self.routes.push(route);
        }
        self
    }
}

impl Default for App {
    fn default() -> Self {
        App::new()
    }
}

impl App {
    /// An application without routes: every request is answered with 404.
    #[must_use]
    pub fn new() -> Self {
        App::empty()
    }

    /// Gives all handlers a value, one of each type: [`Request::state`]. It is shared by all loops.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use theframework::{App, Request, Response};
    ///
    /// let app = App::new().state(AtomicU64::new(0)).get("/", |request: &mut Request, response: &mut Response| {
    ///     let visits = request.state::<AtomicU64>().fetch_add(1, Ordering::Relaxed);
    ///     response.text(visits.to_string());
    /// });
    /// # drop(app);
    /// ```
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.state.insert(value);
        self
    }

    /// The handler for paths that no route has, in place of a plain 404.
    #[must_use]
    pub fn not_found<F, R>(mut self, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.not_found =
            Arc::new(move |request, response| handler(request, response).into_result());
        self
    }

    /// The handler for methods that a path does not have, in place of a plain 405. `Allow` is set before
    /// it is called.
    #[must_use]
    pub fn method_not_allowed<F, R>(mut self, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.method_not_allowed =
            Arc::new(move |request, response| handler(request, response).into_result());
        self
    }

    /// Called with the error that a handler or a middleware has returned, or a panic, to change the answer:
    /// status and body stand in the response already. For logging, too. What comes later
    /// ([`Response::defer`], [`Response::offload`], [`Response::read_body`]) is answered without it.
    ///
    /// ```
    /// use theframework::{App, Error, Request, Response};
    ///
    /// let app = App::new().on_error(|request: &mut Request, error: &Error, response: &mut Response| {
    ///     eprintln!("{} {}: {error}", request.method(), request.target());
    ///     response.json(&serde_json::json!({"status": error.status().as_u16()}))
    /// });
    /// # drop(app);
    /// ```
    #[must_use]
    pub fn on_error<F, R>(mut self, handler: F) -> Self
    where
        F: Fn(&mut Request<'_>, &Error, &mut Response<'_>) -> R + Send + Sync + 'static,
        R: IntoResult,
    {
        self.on_error = Some(Arc::new(move |request, error, response| {
            handler(request, error, response).into_result()
        }));
        self
    }

    /// Called on each loop before it serves.
    #[must_use]
    pub fn on_start(mut self, hook: impl Fn(&Worker) + Send + Sync + 'static) -> Self {
        self.start.push(Arc::new(hook));
        self
    }

    /// Called on each loop when it has served everybody.
    #[must_use]
    pub fn on_stop(mut self, hook: impl Fn(&Worker) + Send + Sync + 'static) -> Self {
        self.stop.push(Arc::new(hook));
        self
    }

    /// Limits and timeouts of each loop.
    ///
    /// ```
    /// use theframework::{App, Config};
    ///
    /// let app = App::new().config(Config { max_body_size: 10 << 20, ..Config::default() });
    /// # drop(app);
    /// ```
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.settings.config = config;
        self
    }

    /// Everything else that can be set: threads, driver, sockets, signals.
    ///
    /// ```
    /// use std::time::Duration;
    /// use theframework::{App, Settings};
    ///
    /// let app = App::new().settings(Settings { graceful_timeout: Duration::from_secs(5), ..Settings::default() });
    /// # drop(app);
    /// ```
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        let config = std::mem::take(&mut self.settings.config);
        self.settings = Settings { config, ..settings };
        self
    }

    /// So many loops, each on a thread of its own; 0: one for each core.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers;
        self
    }

    /// Listens. `address` is `host:port`, `[v6]:port` or `unix:path`; port 0 is any that is free. More are
    /// added by [`Server::bind`], and sockets that exist by [`Server::listener`].
    ///
    /// # Errors
    /// [`StartError`]: a route that cannot be added, or an address that cannot be had.
    pub fn bind(self, address: &str) -> Result<Server, StartError> {
        self.server()?.bind(address)
    }

    /// A server that does not listen yet.
    ///
    /// # Errors
    /// [`StartError`]: a route that cannot be added.
    pub fn server(self) -> Result<Server, StartError> {
        let dispatch = Arc::new(self.assemble()?);
        Ok(Server::new(dispatch, self.settings))
    }

    pub(crate) fn settings_ref(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn assemble(&self) -> Result<Dispatch, StartError> {
        let mut router = Router::new();
        let mut endpoints = Vec::with_capacity(self.routes.len());
        for (number, spec) in self.routes.iter().enumerate() {
            let endpoint = number as u32;
            router
                .add(&spec.pattern, &spec.method, endpoint)
                .map_err(StartError::Route)?;
            if let Some(limit) = spec.streams {
                router.stream(endpoint, limit);
            }
            let middleware = self.middleware.iter().chain(&spec.middleware);
            endpoints.push(Endpoint {
                middleware: middleware.cloned().collect(),
                handler: Arc::clone(&spec.handler),
            });
        }
        let of_all = |handler: Arc<Handler>| Endpoint {
            middleware: self.middleware.iter().cloned().collect(),
            handler,
        };
        let refused = Arc::clone(&self.method_not_allowed);
        let method_not_allowed: Arc<Handler> = Arc::new(move |request, response| {
            // An error is answered with what was set before.
            response.set_header("Allow", request.view().allow())?;
            refused(request, response)
        });
        Ok(Dispatch {
            router,
            endpoints,
            not_found: of_all(Arc::clone(&self.not_found)),
            method_not_allowed: of_all(method_not_allowed),
            on_error: self.on_error.clone(),
            state: self.state.clone(),
            start: self.start.clone(),
            stop: self.stop.clone(),
        })
    }
}

impl<Scope> fmt::Debug for App<Scope> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.routes.iter();
        f.debug_list()
            .entries(routes.map(|route| format!("{} {}", route.method, route.pattern)))
            .finish()
    }
}

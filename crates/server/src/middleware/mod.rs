//! Ready-made middleware, and a handler for the files of a folder.
//!
//! Each is a small builder whose `build` gives what [`App::middleware`](crate::App::middleware) takes. Whoever
//! does not use it pays nothing for it. What an error behind them was answered with is a response like any other
//! to them.
//!
//! ```
//! use std::time::Duration;
//! use theframework::middleware::{AccessLog, Cors, RateLimit, RequestIds, SecurityHeaders};
//! use theframework::{App, Request, Response};
//!
//! let app = App::new()
//!     .middleware(RequestIds::new().build())
//!     .middleware(AccessLog::combined(|line| println!("{line}")).build())
//!     .middleware(SecurityHeaders::new().build())
//!     .middleware(RateLimit::new(100, Duration::from_secs(1)).build())
//!     .middleware(Cors::origins(["https://example.org"]).methods(["GET", "POST"]).build())
//!     .get("/", |_: &mut Request, response: &mut Response| response.text("hello"));
//! # drop(app);
//! ```
//!
//! They keep to what a handler could do itself: no access to connections, no state in the engine.

mod access_log;
mod auth;
mod cors;
mod rate_limit;
mod request_id;
mod security_headers;
mod static_files;
mod timing;

pub use access_log::AccessLog;
pub use auth::{BasicAuth, BasicUser, BearerAuth};
pub use cors::Cors;
pub use rate_limit::RateLimit;
pub use request_id::{RequestId, RequestIds};
pub use security_headers::SecurityHeaders;
pub use static_files::{StaticFiles, safe_path};
pub use timing::Timing;

use crate::{Response, Result};

/// Sets a field, unless there is one of this name.
fn set_missing(response: &mut Response<'_>, name: &str, value: &str) -> Result {
    if response.header(name).is_none() {
        response.set_header(name, value)?;
    }
    Ok(())
}

/// Adds names to `Vary`, beside those that the handler has set.
fn vary(response: &mut Response<'_>, names: &str) -> Result {
    response.append_header("Vary", names)?;
    Ok(())
}

#[cfg(test)]
fn text_of(answer: &http::Response<bytes::Bytes>, name: &str) -> String {
    let values = answer.headers().get_all(name).iter();
    let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
    values.join(", ")
}

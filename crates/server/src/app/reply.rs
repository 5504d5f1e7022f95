//! A response that stands for itself, to be made anywhere and sent later.

use std::io;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response as HttpResponse, StatusCode};
use serde::Serialize;

use crate::app::error::{Error, Result};

/// A whole response: status, fields and body, owned. What a handler gives at once goes into its
/// [`Response`](crate::Response); this is for what comes later ([`Responder`](crate::Responder)) or from
/// another thread ([`Response::offload`](crate::Response::offload)). It is made of an [`http::Response`] too.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
    /// It answers for a failure: what the handler has said of a body is not true of it.
    pub(crate) is_failure: bool,
}

impl Reply {
    /// A response without a body.
    pub fn new(status: StatusCode) -> Self {
        Reply {
            status,
            fields: HeaderMap::new(),
            body: Bytes::new(),
            is_failure: false,
        }
    }

    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Reply::new(StatusCode::OK)
            .with_type("text/plain; charset=utf-8")
            .with_body(text.into())
    }

    /// HTML.
    pub fn html(html: impl Into<String>) -> Self {
        Reply::new(StatusCode::OK)
            .with_type("text/html; charset=utf-8")
            .with_body(html.into())
    }

    /// A value in JSON.
    ///
    /// # Errors
    /// 500 when it cannot be written in JSON.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        Ok(Reply::new(StatusCode::OK)
            .with_type("application/json")
            .with_body(serde_json::to_vec(value)?))
    }

    /// With another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With a field, in place of those of the same name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.insert(name, value);
        self
    }

    /// With one more field, beside those of the same name.
    #[must_use]
    pub fn with_added_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.append(name, value);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.fields
    }

    /// The fields, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.fields
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    fn into_failure(mut self) -> Self {
        self.is_failure = true;
        self
    }

    /// With this body, which is sent from where it is.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn with_type(self, media: &'static str) -> Self {
        self.with_header(CONTENT_TYPE, HeaderValue::from_static(media))
    }

    /// What a client is told that its server is too busy for: 503, come again in a second.
    pub(crate) fn overloaded() -> Self {
        Reply::text("503 Service Unavailable\n")
            .with_status(StatusCode::SERVICE_UNAVAILABLE)
            .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
            .into_failure()
    }
}

impl From<StatusCode> for Reply {
    fn from(status: StatusCode) -> Self {
        Reply::text(status_text(status))
            .with_status(status)
            .into_failure()
    }
}

impl<B: Into<Bytes>> From<HttpResponse<B>> for Reply {
    fn from(response: HttpResponse<B>) -> Self {
        let (parts, body) = response.into_parts();
        Reply {
            status: parts.status,
            fields: parts.headers,
            body: body.into(),
            is_failure: false,
        }
    }
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        let status = error.status();
        Reply::text(error_text(&error))
            .with_status(status)
            .into_failure()
    }
}

impl<R: Into<Reply>> From<Result<R>> for Reply {
    fn from(result: Result<R>) -> Self {
        match result {
            Ok(reply) => reply.into(),
            Err(error) => error.into(),
        }
    }
}

/// The body of an answer that nobody wrote one for, as the engine's own refusals have it.
pub(crate) fn status_text(status: StatusCode) -> String {
    let mut text = Vec::new();
    // Writing to a vector does not fail.
    let _ = write_status(&mut text, status);
    String::from_utf8(text).unwrap_or_default()
}

/// The same, written.
pub(crate) fn write_status(out: &mut impl io::Write, status: StatusCode) -> io::Result<()> {
    let reason = theframework_http::reason(status.as_u16());
    writeln!(out, "{} {reason}", status.as_u16())
}

/// What a client is told of an error: of those that are not its own, nothing but the status.
pub(crate) fn error_text(error: &Error) -> String {
    if error.status().is_server_error() || error.message().is_empty() {
        status_text(error.status())
    } else {
        format!("{}\n", error.message())
    }
}

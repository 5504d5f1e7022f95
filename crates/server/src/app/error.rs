//! What ends a handler that does not answer by itself.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;

/// What a handler or middleware returns: nothing, or an [`Error`] that is answered for it.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// A failed request: the status that it is answered with, and why.
///
/// Everything that is a [`std::error::Error`] becomes one of status 500 by `?`. What the client sees is
/// decided by [`App::on_error`](crate::App::on_error); unless that is set, the message of a status below 500,
/// and nothing but the status of others.
///
/// ```
/// use theframework::{Error, Request, Response, StatusCode};
///
/// fn show(request: &mut Request, response: &mut Response) -> theframework::Result {
///     let number: u32 = request.param("number").unwrap_or_default().parse()
///         .map_err(|_| Error::new(StatusCode::BAD_REQUEST, "not a number"))?;
///     let text = std::fs::read_to_string(format!("pages/{number}"))?; // 500
///     response.text(text);
///     Ok(())
/// }
/// ```
pub struct Error {
    status: StatusCode,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that is answered with `status`.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Error {
            status,
            message: message.into(),
            source: None,
        }
    }

    /// As [`new`](Self::new), because of another error.
    pub fn because(
        status: StatusCode,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Error {
            status,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What went wrong; of another error, its words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error behind it, if there is one.
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.source.as_deref()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("status", &self.status.as_u16())
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.message)
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Error {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: error.to_string().into(),
            source: Some(Box::new(error)),
        }
    }
}

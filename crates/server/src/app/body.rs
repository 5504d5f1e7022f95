//! Bodies that come or go in pieces.

use bytes::Bytes;
use http::StatusCode;

use crate::app::error::{Error, Result};
use crate::app::reply::Reply;

/// Gives the next piece of a response, until there is none.
pub(crate) type Pieces = Box<dyn FnMut() -> Option<Bytes>>;

/// Takes the body of a request while it arrives: see [`Response::read_body`](crate::Response::read_body).
///
/// ```
/// use theframework::{BodyReader, Reply, Request, Response};
///
/// #[derive(Default)]
/// struct Count(u64);
///
/// impl BodyReader for Count {
///     fn piece(&mut self, bytes: &[u8]) -> theframework::Result {
///         self.0 += bytes.len() as u64;
///         Ok(())
///     }
///
///     fn end(self: Box<Self>) -> theframework::Result<Reply> {
///         Ok(Reply::text(self.0.to_string()))
///     }
/// }
///
/// fn upload(_: &mut Request, response: &mut Response) {
///     response.read_body(Count::default());
/// }
/// ```
pub trait BodyReader: 'static {
    /// The next bytes, of which no more come until this returns: the client waits.
    ///
    /// # Errors
    /// Answers the request; no more of the body is read, and the connection ends.
    fn piece(&mut self, bytes: &[u8]) -> Result;

    /// The body is complete.
    ///
    /// # Errors
    /// Answers the request.
    fn end(self: Box<Self>) -> Result<Reply>;

    /// No more of it comes: the status says why (400, 408, 413), or there is none when the client has gone.
    /// The answer, if somebody is there, is that status.
    fn fail(self: Box<Self>, status: Option<StatusCode>) {
        let _ = status;
    }
}

/// What a client is told whose body was refused.
pub(crate) fn refusal(status: StatusCode) -> Error {
    Error::new(status, "")
}

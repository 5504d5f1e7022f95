//! An answer that comes later.

use std::fmt;
use std::sync::Arc;

use crate::app::inbox::{Inbox, Message};
use crate::app::reply::Reply;
use crate::app::worker::Worker;
use crate::exchange::ExchangeId;

/// Answers a request that was [deferred](crate::Response::defer), once, from any thread. Dropped without an
/// answer, it answers 503.
///
/// ```
/// use theframework::{Reply, Request, Response};
///
/// fn later(_: &mut Request, response: &mut Response) {
///     let responder = response.defer();
///     std::thread::spawn(move || responder.send(Reply::text("done")));
/// }
/// ```
#[must_use = "dropping it answers 503"]
pub struct Responder {
    inbox: Option<Arc<Inbox>>,
    id: ExchangeId,
}

impl Responder {
    pub(crate) fn new(worker: &Worker, id: ExchangeId) -> Self {
        Responder {
            inbox: Some(Arc::clone(worker.inbox())),
            id,
        }
    }

    /// Answers. If the client has gone meanwhile, or was answered because it took too long, nothing happens.
    pub fn send(mut self, reply: impl Into<Reply>) {
        self.answer(reply.into());
    }

    fn answer(&mut self, reply: Reply) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Message::Reply(self.id, Box::new(reply)));
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.answer(Reply::overloaded());
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

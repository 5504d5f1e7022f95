//! An answer that comes later.

use std::fmt;
use std::sync::Arc;

use theframework_memory::Key;

use crate::app::inbox::{Inbox, Message};
use crate::app::reply::Reply;
use crate::app::worker::Worker;

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
    task: Key,
}

impl Responder {
    pub(crate) fn new(worker: &Worker) -> Self {
        Responder {
            inbox: Some(Arc::clone(worker.inbox())),
            task: worker.reserve_task(),
        }
    }

    pub(crate) fn task(&self) -> Key {
        self.task
    }

    /// Answers. If the client has gone meanwhile, or was answered because it took too long, or the handler
    /// has decided on something else, nothing happens.
    pub fn send(mut self, reply: impl Into<Reply>) {
        self.answer(reply.into());
    }

    fn answer(&mut self, reply: Reply) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Message::Reply(self.task, Box::new(reply)));
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

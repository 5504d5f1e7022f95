//! What a handler can ask of the loop that calls it: timers, work elsewhere, figures.
//!
//! While a handler runs, the engine is borrowed. So nothing is done to it here: what is asked for stands in
//! a list, which the loop carries out when the handler has returned. Everything that waits for something
//! is a [`Task`] in a slab; what it waits for brings back its key.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use theframework_io::TimerId;
use theframework_memory::{Key, Slab};

use crate::app::inbox::{Inbox, Message};
use crate::app::pool::Pool;
use crate::app::stats::Published;
use crate::app::tasks::Task;
use crate::engine::{MemoryStats, Stats};

/// Called when a timer fires.
pub(crate) type Call = Box<dyn FnMut(&Worker)>;
/// Called with what work elsewhere has returned, if it has.
pub(crate) type Done = Box<dyn FnOnce(&Worker, Option<Box<dyn Any + Send>>)>;

/// What the loop does when the handler has returned.
pub(crate) enum Command {
    /// Lets a timer fire.
    Arm { task: Key, after: Duration },
    /// Takes it back.
    Disarm(TimerId),
}

/// One loop of the server, as its handlers know it. It stays on its thread: what is to be done from others
/// goes through a [`Responder`](crate::Responder), a [`Sender`](crate::Sender) or a [`Remote`].
#[derive(Clone)]
pub struct Worker(Rc<Inner>);

pub(crate) struct Inner {
    pub(crate) tasks: RefCell<Slab<Task>>,
    pub(crate) commands: RefCell<Vec<Command>>,
    inbox: Arc<Inbox>,
    pool: Arc<Pool>,
    number: usize,
    /// Work elsewhere whose end is waited for.
    pub(crate) pending: Cell<usize>,
    pub(crate) published: Arc<Published>,
}

/// A timer, to be cancelled.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Timer(Key);

impl Worker {
    pub(crate) fn new(
        number: usize,
        inbox: Arc<Inbox>,
        pool: Arc<Pool>,
        published: Arc<Published>,
    ) -> Self {
        Worker(Rc::new(Inner {
            tasks: RefCell::new(Slab::new()),
            commands: RefCell::new(Vec::new()),
            inbox,
            pool,
            number,
            pending: Cell::new(0),
            published,
        }))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.0.inbox
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// A place for a task that comes when its handler has returned.
    pub(crate) fn reserve_task(&self) -> Key {
        self.add_task(Task::Reserved)
    }

    /// Lets go of everything that waits, and of what comes later: its loop has ended.
    pub(crate) fn close(&self) {
        let keys: Vec<Key> = self.0.tasks.borrow().keys().collect();
        for key in keys {
            let task = self.0.tasks.borrow_mut().remove(key);
            // What is dropped may call back, and may panic.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
        }
        drop(self.0.commands.take());
        self.0.inbox.close();
    }

    pub(crate) fn add_task(&self, task: Task) -> Key {
        self.0
            .tasks
            .borrow_mut()
            .insert(task)
            .unwrap_or_else(|error| panic!("no room for a task: {error}"))
    }

    /// Which of the server's loops it is, from 0 on.
    pub fn number(&self) -> usize {
        self.0.number
    }

    /// Calls `call` once, after that time, to the millisecond.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use theframework::{Request, Response, Reply};
    /// fn delayed(_: &mut Request, response: &mut Response) {
    ///     let responder = response.defer();
    ///     response.worker().after(Duration::from_millis(50), |_| responder.send(Reply::text("late")));
    /// }
    /// ```
    pub fn after(&self, after: Duration, call: impl FnOnce(&Worker) + 'static) -> Timer {
        let mut call = Some(call);
        let call = move |worker: &Worker| {
            if let Some(call) = call.take() {
                call(worker);
            }
        };
        self.arm(after, None, Box::new(call))
    }

    /// Calls `call` again and again, with that time between two calls, until it is cancelled.
    pub fn every(&self, period: Duration, call: impl FnMut(&Worker) + 'static) -> Timer {
        self.arm(period, Some(period), Box::new(call))
    }

    fn arm(&self, after: Duration, period: Option<Duration>, call: Call) -> Timer {
        let task = self.add_task(Task::Timer {
            call,
            period,
            armed: None,
        });
        self.command(Command::Arm { task, after });
        Timer(task)
    }

    pub(crate) fn command(&self, command: Command) {
        self.0.commands.borrow_mut().push(command);
    }

    /// Cancels a timer; false if it has fired, or was cancelled before. A timer can cancel itself.
    pub fn cancel(&self, Timer(key): Timer) -> bool {
        let task = self.0.tasks.borrow_mut().remove(key);
        match task {
            Some(Task::Timer { armed, .. }) => {
                if let Some(timer) = armed {
                    self.command(Command::Disarm(timer));
                }
                true
            }
            Some(Task::Firing) => true,
            _ => false,
        }
    }

    /// Runs `work`, which may block, on a thread of the pool, and then calls `done` with what it returned,
    /// here. If it panics, `done` is not called. A drain waits for it.
    pub fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&Worker, T) + 'static,
    ) {
        let call: Done = Box::new(move |worker, result| {
            let Some(result) = result else { return };
            if let Ok(result) = result.downcast::<T>() {
                done(worker, *result);
            }
        });
        let task = self.add_task(Task::Done(call));
        self.0.pending.set(self.0.pending.get() + 1);
        let report = Report {
            inbox: Arc::clone(&self.0.inbox),
            task,
            result: None,
        };
        self.0.pool.run(move || {
            let mut report = report;
            report.result = Some(Box::new(work()));
        });
    }

    /// For calling this loop from other threads.
    pub fn remote(&self) -> Remote {
        Remote(Arc::clone(&self.0.inbox))
    }

    /// What this loop has counted, as of its last turn.
    pub fn stats(&self) -> Stats {
        self.0.published.stats()
    }

    /// What this loop's requests have of memory, as of its last turn.
    pub fn memory(&self) -> MemoryStats {
        self.0.published.memory()
    }

    /// Connections of this loop, as of its last turn.
    pub fn connections(&self) -> usize {
        self.0.published.connections()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("number", &self.0.number)
            .finish_non_exhaustive()
    }
}

/// Says, wherever it is dropped, what has become of work elsewhere.
struct Report {
    inbox: Arc<Inbox>,
    task: Key,
    result: Option<Box<dyn Any + Send>>,
}

impl Drop for Report {
    fn drop(&mut self) {
        self.inbox.put(match self.result.take() {
            Some(result) => Message::Done(self.task, result),
            None => Message::Lost(self.task),
        });
    }
}

/// Calls a loop from any thread.
#[derive(Clone)]
pub struct Remote(Arc<Inbox>);

impl Remote {
    /// Calls `call` on the loop, soon.
    pub fn call(&self, call: impl FnOnce(&Worker) + Send + 'static) {
        self.0.put(Message::Call(Box::new(call)));
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

//! A few threads for work that must not block a loop, shared by all workers.
//!
//! They are started when there is work, up to the setting `offload_threads`, and end with the server, when
//! the work that was given to them is done.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    comes: Condvar,
    threads_max: usize,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Work runs without it, so nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads. Dropping it lets them end.
pub(crate) struct Pool(Arc<Shared>);

impl Pool {
    pub(crate) fn new(threads_max: usize) -> Self {
        Pool(Arc::new(Shared {
            queue: Mutex::default(),
            comes: Condvar::new(),
            threads_max: threads_max.max(1),
        }))
    }

    /// Runs `work` on one of the threads, in its turn. Without a thread to be had, on this one.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.queue();
        queue.work.push_back(Box::new(work));
        // One that was woken counts as idle until it runs, so each piece of work has one of its own.
        if queue.work.len() <= queue.idle || queue.threads == self.0.threads_max {
            self.0.comes.notify_one();
            return;
        }
        queue.threads += 1;
        let is_first = queue.threads == 1;
        drop(queue);
        let shared = Arc::clone(&self.0);
        let started = std::thread::Builder::new()
            .name("offload".to_owned())
            .spawn(move || serve(&shared));
        if started.is_err() {
            let mut queue = self.0.queue();
            queue.threads -= 1;
            let work = is_first.then(|| queue.work.pop_back()).flatten();
            drop(queue);
            // The others will come to it, if there are any.
            if let Some(work) = work {
                work();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.queue().is_closed = true;
        self.0.comes.notify_all();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads_max", &self.0.threads_max)
            .finish_non_exhaustive()
    }
}

fn serve(shared: &Shared) {
    let mut queue = shared.queue();
    loop {
        if let Some(work) = queue.work.pop_front() {
            drop(queue);
            // Whoever waits for it is told by what it drops.
            let _ = catch_unwind(AssertUnwindSafe(work));
            queue = shared.queue();
        } else if queue.is_closed {
            queue.threads -= 1;
            return;
        } else {
            queue.idle += 1;
            queue = shared
                .comes
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_threads_run_than_were_allowed_and_a_panic_costs_none() {
        let pool = Pool::new(2);
        let (sender, receiver) = mpsc::channel();
        for number in 0..20 {
            let sender = sender.clone();
            pool.run(move || {
                sender.send(std::thread::current().id()).unwrap();
                std::thread::sleep(Duration::from_millis(2));
                assert!(number % 3 != 0, "some work panics");
            });
        }
        let mut threads: Vec<_> = (0..20)
            .map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap())
            .collect();
        threads.sort_by_key(|id| format!("{id:?}"));
        threads.dedup();
        assert!(threads.len() <= 2, "{threads:?}");
        let shared = Arc::clone(&pool.0);
        drop(pool);
        let ended = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            shared.queue().threads == 0
        });
        assert!(ended, "the threads go on");
    }
}

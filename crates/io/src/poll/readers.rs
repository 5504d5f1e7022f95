//! Threads that read from files what is not in memory, so that the loop never waits for a disk.
//!
//! Purpose: a job names a file, an offset and a space; a thread carries it out and writes to a descriptor
//! that the loop watches. Threads are started when all others are busy, [`THREADS_MAX`] at most, and stay
//! for the next time. A driver that reads no files, or only such as are in memory, has none.
//!
//! States of a job: waiting, begun (known only to its thread), done.
//!
//! # Invariants
//!
//! - The space of a job is the operation's, and stays where it is until the job was taken back while it
//!   waited, or is done. A driver that is dropped waits for begun jobs, a second at most, and gives up the
//!   memory of those that it cannot wait for.
//! - A thread holds the lock only to take a job and to leave a result.
//! - In the child of a fork there are no threads, and the lock may be held by one that is not there: it
//!   is never touched, and everything here is forgotten.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use theframework_memory::Key;

use super::sources::{Sources, errno_of};
use crate::driver::Errno;
use crate::file;
use crate::socket::last_errno;

/// Reads that are carried out at a time. Disks take several, and one that hangs holds up few others.
const THREADS_MAX: usize = 4;
/// What such a thread needs; it is only an address range until it is used.
const STACK_SIZE: usize = 128 << 10;
/// How long dropping the driver waits for reads that have begun.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// One read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) fd: RawFd,
    pub(super) offset: u64,
    pub(super) space: NonNull<[u8]>,
}

// SAFETY: the space is memory that belongs to this job alone until it is done, on whatever thread: see
// `Readers::submit`.
unsafe impl Send for Job {}

/// How a job is carried out; another way only in tests.
type Read = fn(&Job) -> Result<usize, Errno>;

fn read(job: &Job) -> Result<usize, Errno> {
    // SAFETY: the job has its space to itself: see `Readers::submit`.
    unsafe { file::read(job.fd, job.space, job.offset) }
}

/// The loop's side.
pub(super) struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    read: Read,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    has_work: Condvar,
    is_calm: Condvar,
    wake: OwnedFd,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    done: VecDeque<(Key, Result<usize, Errno>)>,
    /// Threads that wait for a job.
    idle: usize,
    /// Jobs that have begun.
    begun: usize,
    is_over: bool,
}

impl Shared {
    /// No thread panics with the lock held, and what it guards is whole at any time.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, read: Read) {
        let mut state = self.lock();
        while !state.is_over {
            let Some(job) = state.waiting.pop_front() else {
                state.idle += 1;
                state = self
                    .has_work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            state.begun += 1;
            drop(state);
            let result = read(&job);
            state = self.lock();
            state.begun -= 1;
            state.done.push_back((job.key, result));
            self.tell();
            if state.begun == 0 {
                self.is_calm.notify_all();
            }
        }
    }

    /// Each write is an edge for the loop, which never reads; the count has room for all of them.
    fn tell(&self) {
        let one = 1_u64;
        // SAFETY: the descriptor is open, and the eight bytes live during the call.
        unsafe { libc::write(self.wake.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl Readers {
    /// No threads yet, and a descriptor that the loop watches.
    pub(super) fn new(sources: &Sources) -> Result<Self, Errno> {
        // SAFETY: a plain system call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(last_errno());
        }
        // SAFETY: the kernel has just opened this descriptor for us.
        let wake = unsafe { OwnedFd::from_raw_fd(fd) };
        sources.watch_wake(fd)?;
        Ok(Readers {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                has_work: Condvar::new(),
                is_calm: Condvar::new(),
                wake,
            }),
            threads: Vec::new(),
            read,
        })
    }

    /// The descriptor that the loop watches.
    pub(super) fn descriptor(&self) -> RawFd {
        self.shared.wake.as_raw_fd()
    }

    /// Has a thread carry the job out.
    ///
    /// # Errors
    /// There is no thread and none can be started; nothing happens then.
    ///
    /// # Safety
    /// The job's space is valid for writes, and nobody else uses it, until the job was taken back, or is
    /// done, or for ever if [`end`](Self::end) says so.
    pub(super) unsafe fn submit(&mut self, job: Job) -> Result<(), Errno> {
        let mut state = self.shared.lock();
        state.waiting.push_back(job);
        let has_enough = state.waiting.len() <= state.idle || self.threads.len() == THREADS_MAX;
        if !has_enough {
            match start(&self.shared, self.read) {
                Ok(thread) => self.threads.push(thread),
                Err(errno) if self.threads.is_empty() => {
                    state.waiting.pop_back();
                    return Err(errno);
                }
                // Those that there are come to it.
                Err(_) => {}
            }
        }
        drop(state);
        self.shared.has_work.notify_one();
        Ok(())
    }

    /// Takes a job back that no thread has begun.
    pub(super) fn take_back(&self, key: Key) -> bool {
        let mut state = self.shared.lock();
        let before = state.waiting.len();
        state.waiting.retain(|job| job.key != key);
        state.waiting.len() < before
    }

    /// What has been done.
    pub(super) fn next_done(&self) -> Option<(Key, Result<usize, Errno>)> {
        self.shared.lock().done.pop_front()
    }

    /// Begins nothing more, and waits for what has begun. False: something has not ended, and its space
    /// is its thread's for ever.
    pub(super) fn end(self) -> bool {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.waiting.clear();
        self.shared.has_work.notify_all();
        let (state, _) = self
            .shared
            .is_calm
            .wait_timeout_while(state, DROP_WAIT, |state| state.begun > 0)
            .unwrap_or_else(PoisonError::into_inner);
        let is_calm = state.begun == 0;
        drop(state);
        if is_calm {
            for thread in self.threads {
                // They are on their way out, and do not panic.
                let _ = thread.join();
            }
        }
        is_calm
    }

    /// In the child of a fork: nothing of this is there, but for the descriptor.
    pub(super) fn abandon_after_fork(self) {
        let wake = self.descriptor();
        std::mem::forget(self);
        // SAFETY: its owner was forgotten just now.
        drop(unsafe { OwnedFd::from_raw_fd(wake) });
    }

    /// Lets tests have jobs carried out in another way.
    #[cfg(test)]
    pub(super) fn set_read(&mut self, read: Read) {
        self.read = read;
    }
}

/// Starts a thread that takes no signals: they are for the threads that know of them.
fn start(shared: &Arc<Shared>, read: Read) -> Result<JoinHandle<()>, Errno> {
    let shared = Arc::clone(shared);
    let blocked = Blocked::all();
    let started = std::thread::Builder::new()
        .name("file-reader".to_owned())
        .stack_size(STACK_SIZE)
        .spawn(move || shared.run(read));
    drop(blocked);
    started.map_err(|error| errno_of(&error))
}

/// All signals are blocked for this thread, and for those that it starts, until this is dropped.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        // SAFETY: all-zero bytes are a valid set, and the calls get valid sets.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before = all;
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Blocked(before)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one that was there before.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut());
        }
    }
}

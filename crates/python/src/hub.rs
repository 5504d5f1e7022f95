//! The hub: the loop of a worker, on the greenlet that called `serve`.
//!
//! ```text
//! hub greenlet        turn: woken greenlets, jobs, requests, then the one system call
//!    | switch ^ switch back
//!    v        |
//! worker greenlets    take requests off the ready queue until the batch is spent; pooled, LIFO
//! ```
//!
//! A handler that waits switches to the hub from wherever it is, and the hub goes on with another
//! worker. A batch of N quick requests costs two switches. What is woken is queued and run in the
//! next turn, never inside the loop that takes completions.
//!
//! The hub greenlet runs no Python code by itself: signal handlers, finalisers of released bodies and
//! everything else that could want to wait run as jobs in a worker greenlet. A finaliser that comes
//! to run on it all the same cannot wait there.
//!
//! Applications may switch and throw between greenlets as they like, into the hub too: `running` has
//! who is resumed then. Nothing here relies on a switch coming back in order.
//!
//! One `Hub` is made for each call of `serve`, and never freed: a greenlet that outlives the loop
//! finds it ended, not gone. It owns nothing by then.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Mutex;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use theframework::engine::{AcceptMode, Engine, ExchangeId};
use theframework_io::{Errno, SystemDriver};
use theframework_memory::{Key, Slab};

use crate::application::{Application, Dispatch};
use crate::body::PyBody;
use crate::gil::ObjectPool;
use crate::peers::shared_peers;
use crate::request::Request;
use crate::response::Response;
use crate::running::{Handling, Running};
use crate::{DriverError, HandlerTimeout, greenlet, heap, schedule, settings, worker};

pub(crate) type PyEngine = Engine<SystemDriver<PyBody>, PyBody>;

/// Handlers run in one batch at most, and for how long at most.
const BATCH_MAX: u32 = 64;
const BATCH_US: u64 = 1000;
/// Workers beyond this many are let go when they become idle.
const IDLE_WORKERS_MAX: usize = 4096;
/// How often the idle ones that nobody has needed are halved.
const TRIM_US: u64 = 10_000_000;
/// A worker under load leaves so many trims out for each millisecond that giving the heap's free
/// memory back has taken.
const HEAP_PAUSE_PER_MS: u32 = 2;
/// So many trims of a worker without requests give the heap's free memory back.
const IDLE_TRIMS: u32 = 6;
/// How often a greenlet that waits again is told that the hub ends.
const END_ROUNDS: usize = 8;
/// How long a handler may go on after its timeout was raised in it.
const OVERTIME_MS: u64 = 5000;

/// What may be due that is not a wait: values that no key of a wait has.
const DUE_SIGNAL: u64 = (1 << 60) - 1;
const DUE_DRAIN_END: u64 = (1 << 60) - 2;
const DUE_TRIM: u64 = (1 << 60) - 3;

/// A greenlet that waits.
struct Wait {
    greenlet: Py<PyAny>,
    /// It stands in the queue of those to be resumed.
    is_woken: bool,
    /// It is to be resumed with `HandlerTimeout`.
    times_out: bool,
}

/// What has to run in a worker greenlet, apart from requests.
enum Job {
    Signals,
    Release(PyBody),
    Ready(Py<PyAny>),
    /// An exception that somebody threw into the hub.
    Report(PyErr),
    /// Something to be logged as a warning.
    Warn(&'static str),
}

pub(crate) struct Hub {
    engine: RefCell<Option<PyEngine>>,
    pub(crate) dispatch: Dispatch,
    pub(crate) on_exception: Option<Py<PyAny>>,
    pub(crate) base_context: Py<PyAny>,
    pub(crate) requests: ObjectPool<Request>,
    pub(crate) responses: ObjectPool<Response>,
    running: Running,
    worker_function: Py<PyAny>,
    idle: RefCell<Vec<Py<PyAny>>>,
    /// The fewest that were idle since the last trim: nobody has needed those.
    idle_min: Cell<usize>,
    trims: Cell<bool>,
    /// Requests so far, as of the last trim.
    requests_trimmed: Cell<u64>,
    /// Trims without requests before them, one behind the other.
    idle_trims: Cell<u32>,
    /// Trims until the heap's free memory is given back again.
    heap_pause: Cell<u32>,
    waits: RefCell<Slab<Wait>>,
    woken: RefCell<VecDeque<Key>>,
    jobs: RefCell<VecDeque<Job>>,
    batch_left: Cell<u32>,
    batch_end_us: Cell<u64>,
    is_over: Cell<bool>,
    is_forked: Cell<bool>,
    abandoned: Cell<usize>,
    wakeup: WakeupPipe,
    /// How long a drain may take that no call has set a limit for.
    graceful_us: u64,
}

thread_local! {
    static HUB: Cell<Option<&'static Hub>> = const { Cell::new(None) };
}

/// The hub of this thread, while it runs.
pub(crate) fn hub() -> Option<&'static Hub> {
    HUB.get()
}

impl Hub {
    /// Whether this is the child of a fork: everything here is the parent's.
    pub(crate) fn is_forked(&self) -> bool {
        self.is_forked.get()
    }

    /// Uses the engine. Nothing in `act` may call the interpreter, but for making strings and bytes.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut PyEngine) -> R) -> Option<R> {
        self.engine.borrow_mut().as_mut().map(act)
    }

    /// The next request of this batch.
    pub(crate) fn next_request(&self) -> Option<ExchangeId> {
        let left = self.batch_left.get();
        if left == 0 {
            return None;
        }
        self.with(|engine| {
            if left < BATCH_MAX && engine.clock_us() >= self.batch_end_us.get() {
                self.batch_left.set(0);
                return None;
            }
            self.batch_left.set(left - 1);
            engine.next_ready()
        })
        .flatten()
    }

    fn next_job(&self) -> Option<Job> {
        if self.is_forked() {
            // They are the parent's.
            return None;
        }
        self.jobs.borrow_mut().pop_front()
    }

    /// Whether waiting is possible here; an error that says why not.
    fn waiting_greenlet<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let current = greenlet::current(py)?;
        if current.is(&self.running.hub) {
            return Err(PyRuntimeError::new_err("would block the hub"));
        }
        Ok(current)
    }

    /// Begins to stop; the first deadline stands.
    fn drain(&self, timeout_us: u64) {
        self.with(|engine| {
            if !engine.is_draining() {
                engine.drain();
                engine.set_timer(engine.clock_us() + timeout_us, DUE_DRAIN_END);
            }
        });
    }

    /// Runs another greenlet from the hub until control comes back; with `throws`, an exception of
    /// this class is raised in it. Fails in the child of a fork only, when the handler that forked
    /// ends it.
    fn run(
        &self,
        py: Python<'_>,
        target: Py<PyAny>,
        throws: Option<&Bound<'_, PyType>>,
    ) -> PyResult<()> {
        let target = self.running.begins(target);
        // SAFETY: `target` is alive: `running` holds it, and the interpreter does while it runs. The
        // hub's frame holds no borrow and nothing that the kernel writes to.
        let result = unsafe {
            match throws {
                Some(kind) => greenlet::throw(py, target, kind.as_ptr()),
                None => greenlet::switch(py, target),
            }
        };
        self.running.is_back(py);
        if let Err(error) = result {
            if self.is_forked() {
                return Err(error);
            }
            // A worker lets nothing escape: somebody threw this here, or a greenlet of the
            // application's own that hangs below the hub ended with it.
            self.jobs.borrow_mut().push_back(Job::Report(error));
        }
        Ok(())
    }

    fn run_woken(&self, py: Python<'_>) -> PyResult<()> {
        let timeout = py.get_type::<HandlerTimeout>();
        let count = self.woken.borrow().len();
        for _ in 0..count {
            let Some(key) = self.woken.borrow_mut().pop_front() else {
                break;
            };
            let target = self
                .waits
                .borrow()
                .get(key)
                .map(|wait| (wait.greenlet.clone_ref(py), wait.times_out));
            if let Some((target, times_out)) = target {
                self.run(py, target, times_out.then_some(&timeout))?;
            }
            if self.is_over.get() {
                return Ok(());
            }
        }
        for _ in 0..self.running.displaced_len() {
            let Some(next) = self.running.next_displaced(py) else {
                break;
            };
            // It has waited, like any other: its time runs.
            let exchange = self.running.exchange_of(next.greenlet.bind(py));
            self.with(|engine| exchange.map(|id| engine.park(id)));
            self.run(py, next.greenlet, next.times_out.then_some(&timeout))?;
            if self.is_over.get() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Switches to an idle worker, or to a new one.
    fn run_worker(&self, py: Python<'_>) -> PyResult<()> {
        let idle = self.idle.borrow_mut().pop();
        let left = self.idle.borrow().len();
        self.idle_min.set(self.idle_min.get().min(left));
        let target = match idle {
            Some(target) => target,
            None => {
                greenlet::new(self.worker_function.bind(py), self.running.hub.bind(py))?.unbind()
            }
        };
        self.run(py, target, None)
    }

    fn run_jobs(&self, py: Python<'_>) -> PyResult<()> {
        while !self.is_over.get() && !self.jobs.borrow().is_empty() {
            self.run_worker(py)?;
        }
        Ok(())
    }

    fn run_requests(&self, py: Python<'_>) -> PyResult<()> {
        let Some((waiting, now_us)) = self.with(|engine| (engine.ready_len(), engine.clock_us()))
        else {
            return Ok(());
        };
        if waiting == 0 {
            return Ok(());
        }
        self.batch_left.set(BATCH_MAX);
        self.batch_end_us.set(now_us + BATCH_US);
        while self.batch_left.get() > 0 && self.with(|engine| engine.ready_len() > 0) == Some(true)
        {
            self.run_worker(py)?;
        }
        self.batch_left.set(0);
        Ok(())
    }

    /// Submits, waits if there is nothing to do, and takes what has come.
    fn turn(&self, py: Python<'_>) -> Result<(), Errno> {
        let has_work = !self.woken.borrow().is_empty()
            || !self.jobs.borrow().is_empty()
            || self.running.displaced_len() > 0;
        let mut borrowed = self.engine.borrow_mut();
        let Some(engine) = borrowed.as_mut() else {
            return Ok(());
        };
        engine.before_turn();
        if has_work || engine.has_events() {
            engine.wait_for_events(false)?;
        } else {
            // The engine belongs to this thread; no other can come to it meanwhile.
            let without_gil = WithoutGil::new(py);
            let result = engine.wait_for_events(true);
            drop(without_gil);
            result?;
        }
        engine.after_turn();
        while let Some(due) = engine.next_due() {
            match due {
                DUE_SIGNAL => {
                    self.wakeup.clear();
                    let _ = engine.watch(self.wakeup.reader, DUE_SIGNAL);
                    self.jobs.borrow_mut().push_back(Job::Signals);
                }
                DUE_DRAIN_END => {
                    self.abandoned.set(engine.abort());
                    self.is_over.set(true);
                }
                DUE_TRIM => {
                    engine.set_timer(engine.clock_us() + TRIM_US, DUE_TRIM);
                    self.trims.set(true);
                }
                value => {
                    let key = Key {
                        index: (value >> 32) as u32,
                        generation: value as u32,
                    };
                    self.wake(key, false);
                }
            }
        }
        while let Some(id) = engine.next_overdue() {
            self.overdue(py, engine, id);
        }
        while let Some(body) = engine.take_released() {
            // What holds no object can go at once.
            if let PyBody::Object { .. } = body {
                self.jobs.borrow_mut().push_back(Job::Release(body));
            }
        }
        Ok(())
    }

    fn wake(&self, key: Key, times_out: bool) {
        if let Some(wait) = self.waits.borrow_mut().get_mut(key) {
            wait.times_out |= times_out;
            if !wait.is_woken {
                wait.is_woken = true;
                self.woken.borrow_mut().push_back(key);
            }
        }
    }

    /// A handler's time is over: first it is told so, by an exception; if it goes on all the same,
    /// its connection is closed.
    fn overdue(&self, py: Python<'_>, engine: &mut PyEngine, id: ExchangeId) {
        if engine.is_overtime(id) {
            engine.abandon(id);
            let text = "a handler went on after its timeout: its connection is closed";
            self.jobs.borrow_mut().push_back(Job::Warn(text));
        } else {
            engine.start_overtime(id, OVERTIME_MS);
            match engine.tag(id) {
                0 if self.running.tell_timeout(py, id) => {}
                0 => engine.owe_timeout(id),
                wait => self.wake(Key::from_u64(wait), true),
            }
        }
    }

    /// Lets go of half of the workers that nobody has needed since the last trim, and then of the heap's
    /// free memory: under load the more seldom the longer that takes; without requests a few times, until
    /// little is left of what a burst had made.
    fn trim(&self) {
        let let_go = {
            let mut idle = self.idle.borrow_mut();
            let kept = idle.len() - self.idle_min.get().div_ceil(2);
            self.idle_min.set(kept);
            // The coldest lie at the bottom.
            let cold = idle.len() - kept;
            let warm = idle.split_off(cold);
            std::mem::replace(&mut *idle, warm)
        };
        drop(let_go);
        let requests = self.with(|engine| engine.stats().requests).unwrap_or(0);
        let is_idle = self.requests_trimmed.replace(requests) == requests;
        let idle_trims = if is_idle {
            self.idle_trims.get() + 1
        } else {
            0
        };
        self.idle_trims.set(idle_trims.min(IDLE_TRIMS + 1));
        let is_time = if is_idle {
            idle_trims <= IDLE_TRIMS
        } else {
            self.heap_pause.get() == 0
        };
        if is_time {
            let took_ms = heap::give_back().as_millis() as u32;
            self.heap_pause.set(took_ms * HEAP_PAUSE_PER_MS);
        } else {
            self.heap_pause.set(self.heap_pause.get().saturating_sub(1));
        }
    }

    fn run_loop(&self, py: Python<'_>) -> PyResult<()> {
        while !self.is_over.get() {
            if self.trims.replace(false) {
                self.trim();
            }
            self.run_woken(py)?;
            self.run_jobs(py)?;
            self.run_requests(py)?;
            if self.is_over.get() || self.with(|engine| engine.is_drained()) == Some(true) {
                return Ok(());
            }
            self.turn(py)
                .map_err(|errno| PyOSError::new_err((errno.0, "the driver failed")))?;
        }
        Ok(())
    }

    /// Ends every greenlet, so that its `finally` blocks run: those of handlers first, then those of
    /// their own, the idle ones last. One that waits again is told again, some times; who insists
    /// then is left where it stands, and never runs again.
    fn end_greenlets(&self, py: Python<'_>) -> PyResult<()> {
        let exit = py.import("greenlet")?.getattr("GreenletExit")?;
        let exit = exit.cast::<PyType>()?;
        for _ in 0..END_ROUNDS {
            let count = self.jobs.borrow().len();
            for _ in 0..count {
                self.run_worker(py)?;
            }
            let mut left = self.running.workers(py);
            left.retain(|worker| !self.idle.borrow().iter().any(|idle| idle.is(worker)));
            for (_, wait) in self.waits.borrow().iter() {
                left.push(wait.greenlet.clone_ref(py));
            }
            while let Some(next) = self.running.next_displaced(py) {
                left.push(next.greenlet);
            }
            if left.is_empty() {
                break;
            }
            for target in left {
                if greenlet::is_active(target.bind(py)) {
                    self.run(py, target, Some(exit))?;
                }
            }
        }
        loop {
            let idle = self.idle.borrow_mut().pop();
            let Some(idle) = idle else { break };
            self.run(py, idle, Some(exit))?;
        }
        Ok(())
    }
}

/// The GIL is released until this is dropped, also by a panic.
struct WithoutGil(*mut ffi::PyThreadState);

impl WithoutGil {
    fn new(_: Python<'_>) -> Self {
        // SAFETY: the GIL is held; nothing of Python is touched before it is taken again.
        WithoutGil(unsafe { ffi::PyEval_SaveThread() })
    }
}

impl Drop for WithoutGil {
    fn drop(&mut self) {
        // SAFETY: the state that `new` was given, on the same thread.
        unsafe { ffi::PyEval_RestoreThread(self.0) };
    }
}

/// The hubs of this process that run, of all threads, by address. Locked with the GIL held only, so
/// that it is never locked when a process forks.
static HUBS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn hubs() -> std::sync::MutexGuard<'static, Vec<usize>> {
    HUBS.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// In the child of a fork: the hubs, their rings and connections are the parent's. The child closes
/// its copies of the descriptors, runs none of the greenlets, and may start a hub of its own.
#[pyfunction]
pub(crate) fn after_fork_in_child(py: Python<'_>) -> PyResult<()> {
    HUB.set(None);
    let inherited = std::mem::take(&mut *hubs());
    if inherited.is_empty() {
        return Ok(());
    }
    // Before the pipe behind it is closed. It fails where signals are another interpreter's.
    let reset = py.import("signal")?.call_method1("set_wakeup_fd", (-1,));
    drop(reset);
    for address in inherited {
        // SAFETY: hubs are never freed.
        let hub = unsafe { &*(address as *const Hub) };
        hub.is_over.set(true);
        hub.is_forked.set(true);
        // The hub of another thread may have waited for events just then, which holds the borrow.
        let was_waiting = hub.engine.try_borrow_mut().is_err();
        // SAFETY: this is the only thread of the process: whoever held the borrow does not exist
        // here, and has left the driver half way at most, which is not looked at then.
        let engine = unsafe { (*hub.engine.as_ptr()).take() };
        match engine {
            Some(engine) if was_waiting => engine.give_up_after_fork(),
            Some(mut engine) => engine.abandon_after_fork(),
            None => {}
        }
        hub.wakeup.close();
    }
    Ok(())
}

/// What a worker greenlet runs: jobs and requests, until the hub has no further use for it. An
/// exception leaves it in the child of a fork only.
#[pyfunction]
fn worker_main(py: Python<'_>) -> PyResult<()> {
    let Some(hub) = hub() else { return Ok(()) };
    // The address alone: a reference on its own stack would keep a greenlet alive for ever that
    // nobody can resume any more.
    let own = greenlet::current(py)?.as_ptr();
    let handling = Handling::default();
    let _entry = hub.running.enter(own, handling.clone());
    loop {
        while let Some(job) = hub.next_job() {
            run_job(py, hub, job)?;
        }
        while let Some(id) = hub.next_request() {
            let is_whole = worker::run_exchange(py, hub, id, &handling)?;
            // SAFETY: this greenlet runs.
            if !is_whole || !unsafe { hub.running.may_go_on(own) } {
                hub.running.leaves(&greenlet::current(py)?);
                return Ok(());
            }
        }
        if hub.is_over.get() || hub.idle.borrow().len() >= IDLE_WORKERS_MAX {
            return Ok(());
        }
        // SAFETY: this greenlet runs.
        if !rest(py, hub)? || !unsafe { hub.running.may_go_on(own) } {
            hub.running.leaves(&greenlet::current(py)?);
            return Ok(());
        }
    }
}

/// Lies idle until the hub needs this worker again. False if somebody else came, or it is to end: an
/// exception that is thrown here has nobody whom it could concern.
fn rest(py: Python<'_>, hub: &Hub) -> PyResult<bool> {
    let own = greenlet::current(py)?;
    hub.running.leaves(&own);
    let address = own.as_ptr();
    hub.idle.borrow_mut().push(own.unbind());
    // SAFETY: the hub greenlet lives as long as its hub, which is never freed; nothing is borrowed
    // here.
    let result = unsafe { greenlet::switch(py, hub.running.hub.as_ptr()) };
    let own = greenlet::current(py)?;
    let is_needed = hub.running.arrives(&own) && result.is_ok();
    if !is_needed {
        hub.idle
            .borrow_mut()
            .retain(|idle| idle.as_ptr() != address);
    }
    Ok(is_needed)
}

fn run_job(py: Python<'_>, hub: &Hub, job: Job) -> PyResult<()> {
    match job {
        Job::Signals => {
            if let Err(error) = py.check_signals() {
                if hub.is_forked() {
                    return Err(error);
                }
                // KeyboardInterrupt of the default handler: begin to stop.
                if error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) {
                    hub.drain(hub.graceful_us);
                } else {
                    error.write_unraisable(py, None);
                }
            }
        }
        Job::Release(body) => body.drop_with(py),
        Job::Report(error) => error.write_unraisable(py, None),
        Job::Warn(text) => {
            let logged = py
                .import("logging")
                .and_then(|logging| logging.call_method1("getLogger", ("theframework",)))
                .and_then(|logger| logger.call_method1("warning", (text,)));
            if let Err(error) = logged {
                error.write_unraisable(py, None);
            }
        }
        Job::Ready(call) => {
            if let Err(error) = call.call0(py) {
                error.write_unraisable(py, None);
            }
        }
    }
    Ok(())
}

/// A pipe that Python's C signal handler writes to: read through the ring, so that a signal between
/// the check and the wait is never lost.
struct WakeupPipe {
    reader: RawFd,
    writer: RawFd,
}

impl WakeupPipe {
    fn new() -> PyResult<Self> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for the two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(WakeupPipe {
            reader: ends[0],
            writer: ends[1],
        })
    }

    fn clear(&self) {
        let mut bytes = [0_u8; 64];
        // SAFETY: a non-blocking read into a local buffer.
        while unsafe { libc::read(self.reader, bytes.as_mut_ptr().cast(), bytes.len()) } > 0 {}
    }

    fn close(&self) {
        // SAFETY: both were opened by `new` and are closed once, by `serve` at its end.
        unsafe {
            libc::close(self.reader);
            libc::close(self.writer);
        }
    }
}

/// Takes the listeners over: from here on they close with the engine.
fn adopt(listeners: &[RawFd]) -> Vec<OwnedFd> {
    listeners
        .iter()
        // SAFETY: the caller of `serve` gives these descriptors away, as its documentation says.
        .map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect()
}

/// Runs a hub on this thread until it has drained; returns how many requests it had to abandon.
#[pyfunction]
#[pyo3(signature = (application, listeners, settings, *, worker = 0, shared = None, on_ready = None))]
#[expect(clippy::needless_pass_by_value, reason = "what PyO3 extracts")]
pub(crate) fn serve(
    py: Python<'_>,
    application: &Bound<'_, Application>,
    listeners: Vec<RawFd>,
    settings: &Bound<'_, PyDict>,
    worker: usize,
    shared: Option<Bound<'_, PyAny>>,
    on_ready: Option<Py<PyAny>>,
) -> PyResult<usize> {
    if hub().is_some() {
        return Err(PyRuntimeError::new_err("a hub runs on this thread already"));
    }
    let config = settings::config(settings)?;
    let sockets = adopt(&listeners);
    let driver = SystemDriver::new(&settings::driver(settings)?)
        .map_err(|error| DriverError::new_err(error.to_string()))?;
    let (router, dispatch) = application.get().snapshot(py);
    let mut engine = Engine::new(driver, config, Rc::new(router));
    let own_listener: bool = match settings.get_item("reuse_port")? {
        Some(value) => value.extract()?,
        None => false,
    };
    let mut mode = AcceptMode::Own;
    if let Some(shared) = shared {
        let peers = shared_peers(&shared, worker)?;
        if peers.has_others() && !own_listener {
            mode = AcceptMode::Shared;
        }
        engine.set_peers(Box::new(peers));
    }
    for socket in sockets {
        engine.listen(socket, mode);
    }
    engine.set_timer(engine.clock_us() + TRIM_US, DUE_TRIM);
    let graceful_us = match settings.get_item("graceful_timeout")? {
        Some(value) => (value.extract::<f64>()?.clamp(0.0, 1e9) * 1e6) as u64,
        None => 30_000_000,
    };
    if let Some(value) = settings.get_item("switch_interval")? {
        schedule::ask_for_short_slices((value.extract::<f64>()?.clamp(0.0001, 0.1) * 1e6) as u64);
    }
    heap::keep_more();
    let wakeup = WakeupPipe::new()?;
    engine
        .watch(wakeup.reader, DUE_SIGNAL)
        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    // SAFETY: the GIL is held; a new reference or null with an exception is returned.
    let base_context =
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())? }.unbind();
    let on_exception = settings
        .get_item("on_exception")?
        .filter(|value| !value.is_none())
        .map(Bound::unbind);
    let hub: &'static Hub = Box::leak(Box::new(Hub {
        engine: RefCell::new(Some(engine)),
        dispatch,
        on_exception,
        base_context,
        requests: ObjectPool::default(),
        responses: ObjectPool::default(),
        running: Running::new(greenlet::current(py)?.unbind()),
        worker_function: wrap_pyfunction!(worker_main, py)?.into_any().unbind(),
        idle: RefCell::default(),
        idle_min: Cell::new(0),
        trims: Cell::new(false),
        requests_trimmed: Cell::new(0),
        idle_trims: Cell::new(0),
        heap_pause: Cell::new(0),
        waits: RefCell::new(Slab::new()),
        woken: RefCell::default(),
        jobs: RefCell::default(),
        batch_left: Cell::new(0),
        batch_end_us: Cell::new(0),
        is_over: Cell::new(false),
        is_forked: Cell::new(false),
        abandoned: Cell::new(0),
        wakeup,
        graceful_us,
    }));
    HUB.set(Some(hub));
    hubs().push(std::ptr::from_ref(hub) as usize);
    let signal = py.import("signal")?;
    // Only the main thread may set it; elsewhere there are no signals to miss.
    let previous = signal
        .call_method1("set_wakeup_fd", (hub.wakeup.writer,))
        .ok();
    hub.jobs.borrow_mut().extend(on_ready.map(Job::Ready));
    let end = End(hub);
    let result = hub.run_loop(py);
    if hub.is_forked.get() {
        // The handler that forked has returned in the child: there is nothing to serve here.
        std::mem::forget(end);
        return result.map(|()| 0);
    }
    hub.is_over.set(true);
    let ended = hub.end_greenlets(py);
    if let Some(previous) = previous {
        signal.call_method1("set_wakeup_fd", (previous,))?;
    }
    drop(end);
    result.and(ended)?;
    Ok(hub.abandoned.get())
}

/// Ends a hub in order, also when the loop panicked: the ring lets go of listener and connections
/// before this process does, so that none of them is held by a ring that is being torn down.
struct End(&'static Hub);

impl Drop for End {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        HUB.set(None);
        let address = std::ptr::from_ref(self.0) as usize;
        hubs().retain(|&hub| hub != address);
        if let Ok(mut engine) = self.0.engine.try_borrow_mut() {
            drop(engine.take());
        }
        self.0.wakeup.close();
    }
}

/// Stops accepting and ends `serve` when everything in flight is answered, or after `timeout`
/// seconds. Without a hub there is nothing to end: a signal may come late.
#[pyfunction]
pub(crate) fn drain(timeout: f64) -> PyResult<()> {
    if !(0.0..=1e9).contains(&timeout) {
        return Err(PyValueError::new_err("timeout is a number of seconds"));
    }
    if let Some(hub) = hub() {
        hub.drain((timeout * 1e6) as u64);
    }
    Ok(())
}

/// Ends `serve` now; what is in flight is abandoned.
#[pyfunction]
pub(crate) fn stop() {
    if let Some(hub) = hub() {
        hub.with(|engine| {
            engine.drain();
            engine.set_timer(0, DUE_DRAIN_END);
        });
    }
}

/// Parks the calling greenlet for at least `seconds`. Without a hub it blocks, as `time.sleep` does.
///
/// Costs one timer and two switches, no system call.
///
/// When it returns, the time has passed. Whatever else ends the wait is raised, and leaves the timer
/// cancelled: `HandlerTimeout`, what somebody throws into the greenlet, and `RuntimeError` when
/// somebody switches to it (the values that they pass are dropped). Who did that goes on in the
/// hub's next round.
#[pyfunction]
pub(crate) fn sleep(py: Python<'_>, seconds: f64) -> PyResult<()> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err("sleep length must be non-negative"));
    }
    let Some(hub) = hub() else {
        py.import("time")?.call_method1("sleep", (seconds,))?;
        return Ok(());
    };
    wait(py, hub, WaitFor::Time((seconds * 1e6).min(1e15) as u64))
}

/// What a greenlet waits for.
#[derive(Copy, Clone)]
pub(crate) enum WaitFor {
    /// So many microseconds.
    Time(u64),
    /// More of a request's body.
    Body(ExchangeId),
    /// A client that takes more of its response.
    Room(ExchangeId),
}

/// Parks the calling greenlet until what it waits for is there, or may be. Whatever else ends the wait
/// is raised, and nothing of the wait is left then.
pub(crate) fn wait(py: Python<'_>, hub: &'static Hub, what: WaitFor) -> PyResult<()> {
    let own = hub.waiting_greenlet(py)?;
    let exchange = hub.running.exchange_of(&own);
    if let Some(id) = exchange
        && hub.with(|engine| engine.takes_timeout(id)) == Some(true)
    {
        return Err(HandlerTimeout::new_err(()));
    }
    let key = hub
        .waits
        .borrow_mut()
        .insert(Wait {
            greenlet: own.clone().unbind(),
            is_woken: false,
            times_out: false,
        })
        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    let value = u64::from(key.index) << 32 | u64::from(key.generation);
    let timer = hub.with(|engine| {
        let timer = match what {
            WaitFor::Time(wait_us) => Some(engine.set_timer(engine.clock_us() + wait_us, value)),
            WaitFor::Body(id) if engine.wait_for_body(id, value) => None,
            WaitFor::Room(id) if engine.wait_for_room(id, value) => None,
            WaitFor::Body(_) | WaitFor::Room(_) => return Err(()),
        };
        if let Some(id) = exchange {
            engine.set_tag(id, key.to_u64());
            engine.park(id);
        }
        Ok(timer)
    });
    let timer = match timer {
        Some(Ok(timer)) => timer,
        Some(Err(())) => {
            let ended = hub.waits.borrow_mut().remove(key);
            drop(ended);
            return Err(PyRuntimeError::new_err(
                "another greenlet waits for the same already",
            ));
        }
        None => None,
    };
    hub.running.leaves(&own);
    drop(own);
    // SAFETY: the hub greenlet lives as long as its hub, which is never freed; nothing is borrowed
    // and the operation's state lies in the hub's tables.
    let result = unsafe { greenlet::switch(py, hub.running.hub.as_ptr()) };
    hub.running.arrives(&greenlet::current(py)?);
    let ended = hub.waits.borrow_mut().remove(key);
    let (is_over, was_told) = match &ended {
        Some(wait) => (wait.is_woken && !wait.times_out, wait.times_out),
        None => (false, false),
    };
    // Something else came before the hub could tell it.
    let owes_timeout =
        was_told && !matches!(&result, Err(error) if error.is_instance_of::<HandlerTimeout>(py));
    hub.with(|engine| {
        if let Some(timer) = timer {
            engine.cancel_timer(timer);
        }
        if let WaitFor::Body(id) | WaitFor::Room(id) = what {
            engine.forget_waiter(id, value);
        }
        if let Some(id) = exchange {
            // A greenlet of the handler's own may have gone into a wait since.
            if engine.tag(id) == key.to_u64() {
                engine.set_tag(id, 0);
            }
            if owes_timeout {
                engine.owe_timeout(id);
            }
        }
    });
    drop(ended);
    match result {
        Ok(()) if !is_over => Err(PyRuntimeError::new_err(
            "the wait was cancelled: something switched to its greenlet",
        )),
        result => result,
    }
}

/// Counters of this thread's hub.
#[pyfunction]
pub(crate) fn stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let hub = hub().ok_or_else(|| PyRuntimeError::new_err("no hub runs on this thread"))?;
    let counts = hub.with(|engine| {
        let stats = engine.stats();
        [
            ("accepted", stats.accepted),
            ("requests", stats.requests),
            ("refused", stats.refused),
            ("overload", stats.overload),
            ("turns", stats.turns),
            ("connections", engine.connection_count() as u64),
            ("exchanges", engine.exchange_count() as u64),
            (
                "operations",
                theframework_io::Driver::operations(engine.driver()) as u64,
            ),
            (
                "leases",
                theframework_io::Driver::leases(engine.driver()) as u64,
            ),
        ]
    });
    let result = PyDict::new(py);
    for (name, value) in counts.into_iter().flatten() {
        result.set_item(name, value)?;
    }
    let counts = [
        ("workers", hub.running.worker_count()),
        ("workers_idle", hub.idle.borrow().len()),
        ("waits", hub.waits.borrow().len()),
    ];
    for (name, value) in counts {
        result.set_item(name, value)?;
    }
    Ok(result)
}

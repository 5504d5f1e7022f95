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
//! The hub greenlet runs no Python code: signal handlers, finalisers of released bodies and
//! everything else that could want to wait run as jobs in a worker greenlet.
//!
//! One `Hub` is made for each call of `serve`, and never freed: a greenlet that outlives the loop
//! finds it ended, not gone. It owns nothing by then.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use theframework::{AcceptMode, Engine, ExchangeId};
use theframework_io::{Errno, SystemDriver};
use theframework_memory::{Key, Slab};

use crate::application::{Application, Dispatch};
use crate::body::PyBody;
use crate::gil::ObjectPool;
use crate::peers::shared_peers;
use crate::request::Request;
use crate::response::Response;
use crate::{DriverError, HandlerTimeout, greenlet, heap, schedule, settings, worker};

pub(crate) type PyEngine = Engine<SystemDriver<PyBody>, PyBody>;

/// Handlers run in one batch at most, and for how long at most.
const BATCH_MAX: u32 = 64;
const BATCH_US: u64 = 1000;
/// Workers beyond this many are let go when they become idle.
const IDLE_WORKERS_MAX: usize = 4096;
/// How often the idle ones that nobody has needed are halved.
const TRIM_US: u64 = 10_000_000;
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
    greenlet: Py<PyAny>,
    worker_function: Py<PyAny>,
    idle: RefCell<Vec<Py<PyAny>>>,
    /// The fewest that were idle since the last trim: nobody has needed those.
    idle_min: Cell<usize>,
    trims: Cell<bool>,
    /// Requests so far, as of the last trim, and whether there were none before it.
    requests_trimmed: Cell<u64>,
    was_idle: Cell<bool>,
    waits: RefCell<Slab<Wait>>,
    woken: RefCell<VecDeque<Key>>,
    jobs: RefCell<VecDeque<Job>>,
    /// The exchange whose handler runs now.
    pub(crate) current: Cell<Option<ExchangeId>>,
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
        self.jobs.borrow_mut().pop_front()
    }

    /// Whether waiting is possible here; an error that says why not.
    fn waiting_greenlet<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let current = greenlet::current(py)?;
        if current.is(&self.greenlet) {
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

    /// Runs another greenlet from the hub until it comes back.
    fn run(&self, py: Python<'_>, target: &Py<PyAny>, throws: bool) {
        // SAFETY: `target` is a live greenlet that the caller holds; the hub's frame holds no
        // borrow and nothing that the kernel writes to.
        let result = unsafe {
            if throws {
                let kind = py.get_type::<HandlerTimeout>();
                greenlet::throw(py, target.as_ptr(), kind.as_ptr())
            } else {
                greenlet::switch(py, target.as_ptr())
            }
        };
        if let Err(error) = result {
            // A worker lets nothing escape, so this greenlet was not one of ours, or was killed.
            error.write_unraisable(py, None);
        }
    }

    fn run_woken(&self, py: Python<'_>) {
        let count = self.woken.borrow().len();
        for _ in 0..count {
            if self.is_over.get() {
                return;
            }
            let Some(key) = self.woken.borrow_mut().pop_front() else {
                return;
            };
            let target = self
                .waits
                .borrow()
                .get(key)
                .map(|wait| (wait.greenlet.clone_ref(py), wait.times_out));
            if let Some((target, throws)) = target {
                self.run(py, &target, throws);
            }
        }
    }

    /// Switches to an idle worker, or to a new one.
    fn run_worker(&self, py: Python<'_>) -> PyResult<()> {
        let idle = self.idle.borrow_mut().pop();
        self.idle_min
            .set(self.idle_min.get().min(self.idle.borrow().len()));
        let target = match idle {
            Some(target) => target,
            None => greenlet::new(self.worker_function.bind(py), self.greenlet.bind(py))?.unbind(),
        };
        self.run(py, &target, false);
        Ok(())
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
    fn turn(&self) -> Result<(), Errno> {
        let has_work = !self.woken.borrow().is_empty() || !self.jobs.borrow().is_empty();
        let mut borrowed = self.engine.borrow_mut();
        let Some(engine) = borrowed.as_mut() else {
            return Ok(());
        };
        engine.before_turn();
        if has_work || engine.has_events() {
            engine.wait_for_events(false)?;
        } else {
            // SAFETY: the GIL is held, and taken again before anything of Python is touched. The
            // engine belongs to this thread; no other can come to it meanwhile.
            let result = unsafe {
                let state = ffi::PyEval_SaveThread();
                let result = engine.wait_for_events(true);
                ffi::PyEval_RestoreThread(state);
                result
            };
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
            self.overdue(engine, id);
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
    fn overdue(&self, engine: &mut PyEngine, id: ExchangeId) {
        if engine.is_overtime(id) {
            engine.abandon(id);
            let text = "a handler went on after its timeout: its connection is closed";
            self.jobs.borrow_mut().push_back(Job::Warn(text));
        } else {
            engine.start_overtime(id, OVERTIME_MS);
            match engine.tag(id) {
                0 => engine.owe_timeout(id),
                wait => self.wake(Key::from_u64(wait), true),
            }
        }
    }

    /// Lets go of half of the workers that nobody has needed since the last trim; when there were no
    /// requests since, also of the heap's free memory, once.
    fn trim(&self) {
        let requests = self.with(|engine| engine.stats().requests).unwrap_or(0);
        let is_idle = self.requests_trimmed.replace(requests) == requests;
        if is_idle && !self.was_idle.replace(is_idle) {
            heap::give_back();
        }
        self.was_idle.set(is_idle);
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
    }

    fn run_loop(&self, py: Python<'_>) -> PyResult<()> {
        while !self.is_over.get() {
            if self.trims.replace(false) {
                self.trim();
            }
            self.run_woken(py);
            self.run_jobs(py)?;
            self.run_requests(py)?;
            if self.is_over.get() || self.with(|engine| engine.is_drained()) == Some(true) {
                return Ok(());
            }
            self.turn()
                .map_err(|errno| PyOSError::new_err((errno.0, "the driver failed")))?;
        }
        Ok(())
    }

    /// Ends every greenlet that waits, so that its `finally` blocks run; then the idle workers.
    fn end_greenlets(&self, py: Python<'_>) -> PyResult<()> {
        let exit = py.import("greenlet")?.getattr("GreenletExit")?;
        let keys: Vec<Key> = self.waits.borrow().keys().collect();
        for key in keys {
            let target = self
                .waits
                .borrow()
                .get(key)
                .map(|wait| wait.greenlet.clone_ref(py));
            if let Some(target) = target {
                // SAFETY: a live greenlet; the hub's frame holds no borrow.
                if let Err(error) = unsafe { greenlet::throw(py, target.as_ptr(), exit.as_ptr()) } {
                    error.write_unraisable(py, None);
                }
            }
        }
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        drop(idle);
        Ok(())
    }
}

/// In the child of a fork: the hub, its ring and its connections are the parent's. The child closes
/// its copies of the descriptors, runs none of the greenlets, and may start a hub of its own.
#[pyfunction]
pub(crate) fn after_fork_in_child(py: Python<'_>) -> PyResult<()> {
    let Some(hub) = HUB.take() else {
        return Ok(());
    };
    hub.is_over.set(true);
    hub.is_forked.set(true);
    if let Ok(mut engine) = hub.engine.try_borrow_mut()
        && let Some(mut engine) = engine.take()
    {
        engine.abandon_after_fork();
        drop(engine);
    }
    hub.wakeup.close();
    let main_only = py.import("signal")?.call_method1("set_wakeup_fd", (-1,));
    // In the child of a thread that was not the main one, there is none to set.
    drop(main_only);
    Ok(())
}

/// What a worker greenlet runs: jobs and requests, until the hub has no further use for it.
#[pyfunction]
fn worker_main(py: Python<'_>) -> PyResult<()> {
    loop {
        let Some(hub) = hub() else { return Ok(()) };
        while let Some(job) = hub.next_job() {
            run_job(py, hub, job);
        }
        while let Some(id) = hub.next_request() {
            if !worker::run_exchange(py, hub, id) {
                return Ok(());
            }
        }
        let own = greenlet::current(py)?;
        // Somebody else holds this greenlet: a late kill of theirs must not hit another request.
        let is_shared = greenlet::reference_count(&own) > worker_references();
        if is_shared || hub.is_over.get() || hub.idle.borrow().len() >= IDLE_WORKERS_MAX {
            return Ok(());
        }
        let target = hub.greenlet.as_ptr();
        hub.idle.borrow_mut().push(own.unbind());
        // SAFETY: the hub greenlet lives as long as its hub, which is never freed; nothing is
        // borrowed here.
        unsafe { greenlet::switch(py, target)? };
    }
}

/// References to a worker greenlet while it runs that are not the application's: `own`, the hub's
/// in `run`, and the interpreter's to the current greenlet.
const fn worker_references() -> isize {
    3
}

fn run_job(py: Python<'_>, hub: &Hub, job: Job) {
    match job {
        Job::Signals => {
            if let Err(error) = py.check_signals() {
                // KeyboardInterrupt of the default handler: begin to stop.
                if error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) {
                    hub.drain(hub.graceful_us);
                } else {
                    error.write_unraisable(py, None);
                }
            }
        }
        Job::Release(body) => body.drop_with(py),
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
        greenlet: greenlet::current(py)?.unbind(),
        worker_function: wrap_pyfunction!(worker_main, py)?.into_any().unbind(),
        idle: RefCell::default(),
        idle_min: Cell::new(0),
        trims: Cell::new(false),
        requests_trimmed: Cell::new(0),
        was_idle: Cell::new(false),
        waits: RefCell::new(Slab::new()),
        woken: RefCell::default(),
        jobs: RefCell::default(),
        current: Cell::new(None),
        batch_left: Cell::new(0),
        batch_end_us: Cell::new(0),
        is_over: Cell::new(false),
        is_forked: Cell::new(false),
        abandoned: Cell::new(0),
        wakeup,
        graceful_us,
    }));
    HUB.set(Some(hub));
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
        return Ok(0);
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
/// Costs one timer and two switches, no system call. A greenlet that is killed meanwhile leaves the
/// timer cancelled.
#[pyfunction]
pub(crate) fn sleep(py: Python<'_>, seconds: f64) -> PyResult<()> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err("sleep length must be non-negative"));
    }
    let Some(hub) = hub() else {
        py.import("time")?.call_method1("sleep", (seconds,))?;
        return Ok(());
    };
    let greenlet = hub.waiting_greenlet(py)?.unbind();
    let key = hub
        .waits
        .borrow_mut()
        .insert(Wait {
            greenlet,
            is_woken: false,
            times_out: false,
        })
        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    let exchange = hub.current.take();
    if let Some(id) = exchange
        && hub.with(|engine| engine.takes_timeout(id)) == Some(true)
    {
        hub.waits.borrow_mut().remove(key);
        hub.current.set(exchange);
        return Err(HandlerTimeout::new_err(()));
    }
    let wait_us = (seconds * 1e6).min(1e15) as u64;
    let timer = hub.with(|engine| {
        if let Some(id) = exchange {
            engine.set_tag(id, key.to_u64());
            engine.park(id);
        }
        let at_us = engine.clock_us() + wait_us;
        engine.set_timer(
            at_us,
            u64::from(key.index) << 32 | u64::from(key.generation),
        )
    });
    let target = hub.greenlet.as_ptr();
    // SAFETY: the hub greenlet lives as long as its hub, which is never freed; nothing is borrowed
    // and the operation's state lies in the hub's tables.
    let result = unsafe { greenlet::switch(py, target) };
    hub.current.set(exchange);
    let ended = hub.waits.borrow_mut().remove(key);
    hub.with(|engine| {
        if let Some(timer) = timer {
            engine.cancel_timer(timer);
        }
        if let Some(id) = exchange {
            engine.set_tag(id, 0);
        }
    });
    drop(ended);
    result
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
    result.set_item("workers_idle", hub.idle.borrow().len())?;
    result.set_item("waits", hub.waits.borrow().len())?;
    Ok(result)
}

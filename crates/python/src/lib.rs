//! `_framework_core`: the Python face of the engine.
//!
//! | file | what it has |
//! | --- | --- |
//! | `hub` | the loop of a worker: turns, ready queue, pooled worker greenlets, waits, drain |
//! | `running` | which greenlet runs, and who was pushed aside by a switch of the application's own |
//! | `worker` | one exchange: objects, context, middleware, handler, answer |
//! | `application` | routes, handlers and middleware as Python registers them |
//! | `request`, `response` | the two objects that a handler sees |
//! | `stream` | a request's body as an iterator, and the form of server-sent events |
//! | `greenlet` | greenlet's C API: nothing else switches |
//! | `file` | opening files to send, and their content types |
//! | `body` | Python objects that a pending write keeps alive |
//! | `gil` | state of a Python object that the GIL guards |
//! | `settings` | the settings table of Python as the engine's configuration |
//! | `peers` | the workers' load in shared memory |
//! | `heap` | the C library's heap: kept under load, given back when idle |
//! | `schedule` | how the operating system schedules the hub's thread |
//! | `scratch` | buffers for text in passing |
//! | `text` | between Python strings and bytes of the wire |
//!
//! Two rules hold everywhere. The engine is never borrowed while the interpreter is called, unless
//! the call can only make a `str` or `bytes` object: those run no finaliser, no collector and no
//! signal handler. And nothing but plain values is held over a switch, which returns when anybody
//! switches back: callers ask `running` whether it was the hub.

mod application;
mod body;
mod file;
mod gil;
mod greenlet;
mod heap;
mod hub;
mod peers;
mod request;
mod response;
mod running;
mod schedule;
mod scratch;
mod settings;
mod stream;
mod text;
mod worker;

use pyo3::prelude::*;
use theframework_io::{DriverConfig, Feature};
use theframework_memory::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

pyo3::create_exception!(
    theframework,
    HandlerTimeout,
    pyo3::exceptions::PyBaseException,
    "Raised in a handler at its next wait once handler_timeout has passed."
);

pyo3::create_exception!(
    theframework,
    ClientDisconnected,
    pyo3::exceptions::PyException,
    "The client has gone: raised by what would read more of its request, or write to it."
);

pyo3::create_exception!(
    theframework,
    BodyError,
    pyo3::exceptions::PyException,
    "A streamed request body cannot be read further. Its first argument is the status that says why: \
     400 (malformed), 408 (too slow) or 413 (too long). A handler that lets it pass answers with that."
);

pyo3::create_exception!(
    theframework,
    DriverError,
    pyo3::exceptions::PyException,
    "The driver that was asked for cannot be set up."
);

/// Decides for a driver, before any worker is forked: its name, the io_uring features that it does
/// without, and why it is not io_uring if that was not asked for.
#[pyfunction]
fn choose_driver(
    driver: &str,
    receive_buffers: u16,
    without: &str,
    workers: usize,
) -> PyResult<(&'static str, Vec<&'static str>, Option<String>)> {
    let wish = settings::wish(driver, receive_buffers, without, workers)?;
    let (config, problem) =
        theframework_io::choose(&wish).map_err(|error| DriverError::new_err(error.to_string()))?;
    let missing = match config {
        DriverConfig::IoUring(config) => config.features.missing().map(Feature::name).collect(),
        DriverConfig::Poll(_) => Vec::new(),
    };
    let problem = problem.map(|error| error.to_string());
    Ok((config.kind().name(), missing, problem))
}

/// What io_uring may lack: the name, the first kernel that has it, what the driver does instead.
#[pyfunction]
fn io_uring_features() -> Vec<(&'static str, &'static str, &'static str)> {
    let describe = |one: Feature| (one.name(), one.since(), one.replacement());
    Feature::ALL.map(describe).to_vec()
}

/// Refuses a list of trusted peers that the engine could not read: `ValueError` says why.
#[pyfunction]
fn check_trusted_peers(list: &str) -> PyResult<()> {
    settings::trusted_peers(list).map(drop)
}

/// Allocations, deallocations and live bytes of the Rust allocator since the process started.
#[pyfunction]
fn allocation_counts() -> (u64, u64, u64) {
    let counts = ALLOCATOR.counts();
    (
        counts.allocations + counts.reallocations,
        counts.deallocations,
        counts.live_bytes,
    )
}

/// The Rust core of theframework.
#[pymodule(gil_used = true)]
fn _framework_core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    greenlet::import(module.py())?;
    module.add_class::<application::Application>()?;
    module.add_class::<request::Request>()?;
    module.add_class::<response::Response>()?;
    module.add_class::<worker::Next>()?;
    module.add("HandlerTimeout", module.py().get_type::<HandlerTimeout>())?;
    module.add_function(wrap_pyfunction!(hub::serve, module)?)?;
    module.add_function(wrap_pyfunction!(hub::drain, module)?)?;
    module.add_function(wrap_pyfunction!(hub::stop, module)?)?;
    module.add_function(wrap_pyfunction!(hub::sleep, module)?)?;
    module.add_function(wrap_pyfunction!(hub::stats, module)?)?;
    let py = module.py();
    module.add("ClientDisconnected", py.get_type::<ClientDisconnected>())?;
    module.add("BodyError", py.get_type::<BodyError>())?;
    module.add_class::<stream::BodyStream>()?;
    module.add("DriverError", module.py().get_type::<DriverError>())?;
    module.add_function(wrap_pyfunction!(choose_driver, module)?)?;
    module.add_function(wrap_pyfunction!(io_uring_features, module)?)?;
    module.add_function(wrap_pyfunction!(check_trusted_peers, module)?)?;
    let py = module.py();
    let after_fork = wrap_pyfunction!(hub::after_fork_in_child, module)?;
    let hooks = pyo3::types::PyDict::new(py);
    hooks.set_item("after_in_child", after_fork)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&hooks))?;
    module.add_function(wrap_pyfunction!(allocation_counts, module)?)?;
    Ok(())
}

//! Routes, handlers and middleware as Python registers them.

use std::sync::Mutex;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use theframework::engine::{RouteError, Router, StreamLimit};

/// Route table and middleware of one application.
#[pyclass(frozen, module = "theframework")]
pub(crate) struct Application {
    // A plain lock: held for a few instructions, never over a call into the interpreter.
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    router: Router,
    handlers: Vec<Py<PyAny>>,
    middleware: Vec<Py<PyAny>>,
}

/// What a hub works with: the tables as they were when it started.
pub(crate) struct Dispatch {
    pub(crate) handlers: Vec<Py<PyAny>>,
    pub(crate) middleware: Vec<Py<PyAny>>,
}

impl Application {
    /// The tables as they are now.
    pub(crate) fn snapshot(&self, py: Python<'_>) -> (Router, Dispatch) {
        let tables = self.lock();
        let copy = |list: &[Py<PyAny>]| list.iter().map(|item| item.clone_ref(py)).collect();
        (
            tables.router.clone(),
            Dispatch {
                handlers: copy(&tables.handlers),
                middleware: copy(&tables.middleware),
            },
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[pymethods]
impl Application {
    #[new]
    fn new() -> Self {
        Application {
            tables: Mutex::new(Tables::default()),
        }
    }

    /// Adds a handler for a pattern and some methods; all of them, or none. With `stream` it takes
    /// request bodies as they arrive, of at most `max_stream_size` bytes (0: no limit; None: as the
    /// setting says).
    #[expect(clippy::needless_pass_by_value, reason = "what PyO3 extracts")]
    #[pyo3(signature = (pattern, methods, handler, stream = false, max_stream_size = None))]
    fn add_route(
        &self,
        pattern: &str,
        methods: Vec<String>,
        handler: Py<PyAny>,
        stream: bool,
        max_stream_size: Option<u64>,
    ) -> PyResult<()> {
        let mut tables = self.lock();
        let endpoint = tables.handlers.len() as u32;
        let mut router = tables.router.clone();
        for method in &methods {
            router
                .add(pattern, method, endpoint)
                .map_err(|error: RouteError| PyValueError::new_err(error.to_string()))?;
        }
        if stream {
            router.stream(
                endpoint,
                max_stream_size.map_or(StreamLimit::Default, StreamLimit::Bytes),
            );
        }
        tables.router = router;
        tables.handlers.push(handler);
        Ok(())
    }

    /// Adds a middleware inside all those added before.
    fn add_middleware(&self, middleware: Py<PyAny>) {
        self.lock().middleware.push(middleware);
    }
}

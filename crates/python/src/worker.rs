//! One exchange in a worker greenlet: objects, context, middleware, handler, answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyRuntimeError, PySystemExit, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use theframework::engine::{Body, ExchangeId, Route};
use theframework_http::reason;

use crate::hub::Hub;
use crate::request::Request;
use crate::response::Response;
use crate::running::Handling;
use crate::{BodyError, ClientDisconnected, HandlerTimeout};

/// Runs the handler of an exchange and answers. Lets no panic out, and no exception but the end of a
/// child that the handler has forked; says whether the greenlet may go on (a panic leaves its context
/// entered).
pub(crate) fn run_exchange(
    py: Python<'_>,
    hub: &'static Hub,
    id: ExchangeId,
    handling: &Handling,
) -> PyResult<bool> {
    handling.set(Some(id));
    let result = catch_unwind(AssertUnwindSafe(|| answer(py, hub, id)));
    let is_whole = result.is_ok();
    let error = match result {
        Ok(result) => result.err(),
        Err(_) => Some(PyRuntimeError::new_err("the core panicked")),
    };
    if let Some(error) = error {
        if hub.is_forked() {
            return Err(end_of_child(py, hub, id, error));
        }
        fail(py, hub, id, error);
    }
    handling.set(None);
    Ok(is_whole)
}

/// What ends the child of a fork in a handler, when an exception has left the handler there: nobody
/// is left to be answered, so it ends as any Python process would.
fn end_of_child(py: Python<'_>, hub: &Hub, id: ExchangeId, error: PyErr) -> PyErr {
    if error.is_instance_of::<PySystemExit>(py) {
        return error;
    }
    log(py, hub, id, error);
    PySystemExit::new_err(1)
}

fn answer(py: Python<'_>, hub: &'static Hub, id: ExchangeId) -> PyResult<()> {
    let request = Request::new(py, &hub.requests, id)?;
    let response = Response::new(py, &hub.responses, id)?;
    let called = in_fresh_context(py, hub, || {
        call_chain(py, hub, 0, id, request.as_any(), response.as_any())
    });
    Request::exchange_ends(request, &hub.requests);
    let finished = called.and_then(|()| response.get().finish(py, hub));
    if finished.is_err() {
        response.get().forget(py);
    }
    hub.responses.give(response);
    finished
}

/// Runs `act` in a copy of the application's context of its own.
fn in_fresh_context<R>(
    py: Python<'_>,
    hub: &Hub,
    act: impl FnOnce() -> PyResult<R>,
) -> PyResult<R> {
    // SAFETY: the base context is a live Context; the copy is a new reference. It is entered here
    // and left below, in the same greenlet: greenlet keeps each one's context over its switches.
    unsafe {
        let context =
            Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(hub.base_context.as_ptr()))?;
        if ffi::PyContext_Enter(context.as_ptr()) != 0 {
            return Err(PyErr::fetch(py));
        }
        let result = act();
        if ffi::PyContext_Exit(context.as_ptr()) != 0 {
            // The handler left a context entered: its own error, if any, says more.
            let error = PyErr::fetch(py);
            return result.and(Err(error));
        }
        result
    }
}

/// Calls middleware `index`, or the handler behind the last one.
fn call_chain(
    py: Python<'_>,
    hub: &Hub,
    index: usize,
    id: ExchangeId,
    request: &Bound<'_, PyAny>,
    response: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if let Some(middleware) = hub.dispatch.middleware.get(index) {
        let next = Next {
            index: index + 1,
            id,
            request: request.clone().unbind(),
            response: response.clone().unbind(),
        };
        middleware.call1(py, (request, response, next))?;
        return Ok(());
    }
    let route = hub
        .with(|engine| engine.request(id).map(|view| view.route()))
        .flatten();
    match route {
        Some(Route::Endpoint(endpoint)) => {
            let handler = &hub.dispatch.handlers[endpoint as usize];
            let arguments = [request.as_ptr(), response.as_ptr()];
            // SAFETY: a callable and two live arguments; a new reference or null with an exception.
            let result = unsafe {
                ffi::PyObject_Vectorcall(
                    handler.as_ptr(),
                    arguments.as_ptr(),
                    2,
                    std::ptr::null_mut(),
                )
            };
            if result.is_null() {
                return Err(PyErr::fetch(py));
            }
            // SAFETY: the new reference that the call returned.
            unsafe { ffi::Py_DECREF(result) };
            Ok(())
        }
        Some(Route::NotFound) => plain_answer(py, response, 404),
        Some(Route::MethodNotAllowed) => {
            hub.with(|engine| {
                let allow = engine
                    .request(id)
                    .map(|view| view.allow())
                    .unwrap_or_default();
                engine.set_field(id, b"Allow", allow.as_bytes(), true)
            });
            plain_answer(py, response, 405)
        }
        // The exchange is over; there is nobody to answer.
        None => Ok(()),
    }
}

fn plain_answer(py: Python<'_>, response: &Bound<'_, PyAny>, status: u16) -> PyResult<()> {
    let text = PyString::new(py, &status_text(status));
    let response = response.cast::<Response>()?;
    response.get().set_plain(py, status, text.as_any())
}

/// The body of an answer that nobody wrote one for, as the engine's own refusals have it.
fn status_text(status: u16) -> String {
    format!("{status} {}\n", reason(status))
}

/// Answers for a handler that raised, and says so in the log; never to the client.
fn fail(py: Python<'_>, hub: &Hub, id: ExchangeId, error: PyErr) {
    if error.is_instance_of::<ClientDisconnected>(py) {
        // Nobody is left to be answered, and nothing is wrong here.
        hub.with(|engine| engine.abort_response(id));
        return;
    }
    let is_timeout = error.is_instance_of::<HandlerTimeout>(py);
    let status = match refusal_of_body(py, &error) {
        Some(status) => status,
        None if is_timeout => 503,
        None => 500,
    };
    if status >= 500 {
        log(py, hub, id, error);
    }
    hub.with(|engine| {
        engine.clear_fields(id);
        // Two short fields: if there is no memory for them, the answer goes without.
        let _ = engine.set_field(id, b"Content-Type", b"text/plain; charset=utf-8", false);
        if is_timeout {
            let _ = engine.set_field(id, b"Retry-After", b"1", false);
        }
        engine.respond(id, status, Body::Copied(status_text(status).as_bytes()));
    });
}

/// The status that an unreadable request body is answered with.
fn refusal_of_body(py: Python<'_>, error: &PyErr) -> Option<u16> {
    if !error.is_instance_of::<BodyError>(py) {
        return None;
    }
    let arguments = error.value(py).getattr("args").ok()?;
    let status = arguments.get_item(0).ok()?.extract().ok()?;
    matches!(status, 400..=499).then_some(status)
}

fn log(py: Python<'_>, hub: &Hub, id: ExchangeId, error: PyErr) {
    let Some(on_exception) = &hub.on_exception else {
        return error.write_unraisable(py, None);
    };
    let named = hub.with(|engine| {
        engine.request(id).map(|view| {
            (
                crate::text::latin1(py, view.method()),
                crate::text::latin1(py, view.target()),
            )
        })
    });
    let (method, target) = match named.flatten() {
        Some((method, target)) => (method, target),
        None => (PyString::new(py, "?"), PyString::new(py, "?")),
    };
    if let Err(second) = on_exception.call1(py, (error.into_value(py), method, target)) {
        second.write_unraisable(py, None);
    }
}

/// The rest of the middleware chain and the handler, as one callable.
#[pyclass(frozen, module = "theframework")]
pub(crate) struct Next {
    index: usize,
    id: ExchangeId,
    request: Py<PyAny>,
    response: Py<PyAny>,
}

#[pymethods]
impl Next {
    /// Goes on: `next()`, or `next(request, response)`.
    #[pyo3(signature = (*arguments))]
    fn __call__(&self, py: Python<'_>, arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        if !matches!(arguments.len(), 0 | 2) {
            return Err(PyTypeError::new_err(
                "next() takes no arguments, or the request and the response",
            ));
        }
        let Some(hub) = crate::hub::hub() else {
            return Ok(());
        };
        call_chain(
            py,
            hub,
            self.index,
            self.id,
            self.request.bind(py),
            self.response.bind(py),
        )
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.request)?;
        visit.call(&self.response)
    }
}

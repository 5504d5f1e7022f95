//! A request's body as an iterator, and the form of server-sent events.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use theframework::engine::{BodyState, ExchangeId};

use crate::hub::{WaitFor, hub, wait};
use crate::{BodyError, ClientDisconnected};

/// What one step of a stream brings at most: as much as one receive does.
const PIECE_MAX: usize = 64 * 1024;

/// Yields a request's body as it arrives, in pieces of at most 64 KiB. Parks the handler while nothing
/// is there; the client is held back while nothing is taken.
#[pyclass(frozen, module = "theframework")]
pub(crate) struct BodyStream(pub(crate) ExchangeId);

#[pymethods]
impl BodyStream {
    fn __iter__(own: PyRef<'_, Self>) -> PyRef<'_, Self> {
        own
    }

    /// Raises `ClientDisconnected` when the client has gone before all of it came, `BodyError` when the
    /// body is malformed, too slow or too long, `RuntimeError` when the request is over.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let over = || PyRuntimeError::new_err("request is over");
        let hub = hub().ok_or_else(over)?;
        loop {
            let state = hub.with(|engine| engine.body_state(self.0));
            match state.unwrap_or(BodyState::Over) {
                BodyState::Ready => {
                    let piece = hub.with(|engine| {
                        engine.take_body(self.0, PIECE_MAX, |bytes| PyBytes::new(py, bytes))
                    });
                    return Ok(piece.flatten());
                }
                BodyState::Waits => wait(py, hub, WaitFor::Body(self.0))?,
                BodyState::Ended => return Ok(None),
                BodyState::Gone => {
                    return Err(ClientDisconnected::new_err(
                        "the client has gone before its body was complete",
                    ));
                }
                BodyState::Failed(status) => {
                    return Err(BodyError::new_err((
                        status,
                        "no more of the body can be read",
                    )));
                }
                BodyState::Over => return Err(over()),
            }
        }
    }
}

/// One server-sent event, as the HTML standard frames it.
pub(crate) fn event(
    data: &str,
    name: Option<&str>,
    id: Option<&str>,
    retry_ms: Option<u64>,
) -> PyResult<String> {
    let mut text = String::with_capacity(data.len() + 32);
    for (field, value) in [("event", name), ("id", id)] {
        let Some(value) = value else { continue };
        if value.contains(['\r', '\n', '\0']) {
            return Err(PyValueError::new_err(format!(
                "the {field} of an event is one line"
            )));
        }
        text.push_str(field);
        text.push_str(": ");
        text.push_str(value);
        text.push('\n');
    }
    if let Some(retry_ms) = retry_ms {
        text.push_str(&format!("retry: {retry_ms}\n"));
    }
    // A line may end in any of three ways, and is one field of the event in each of them.
    for line in data.replace("\r\n", "\n").split(['\r', '\n']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    Ok(text)
}

//! `Response`: what a handler answers. Sent when the handler and its middleware have returned.
//!
//! Fields go straight to the exchange's arena. Of the body, the first piece is kept as the object
//! that it is; only when a second one comes are they joined.

use std::cell::{Cell, RefCell};

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};
use theframework::{Body, ExchangeId, HeaderError};
use theframework_io::KeptBytes;

use crate::body::PyBody;
use crate::gil::{GilBound, ObjectPool};
use crate::hub::{Hub, PyEngine, hub};
use crate::text::with_latin1;

/// The response of one exchange.
#[pyclass(frozen, module = "theframework")]
pub(crate) struct Response(GilBound<State>);

struct State {
    id: Cell<ExchangeId>,
    status: Cell<u16>,
    /// Whether the body has text: decides the content type that is given by itself.
    is_text: Cell<bool>,
    body: RefCell<Content>,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    One(PyBody),
    Many(Vec<u8>),
}

impl Response {
    /// The object for an exchange: a used one that nobody holds any more, or a new one.
    pub(crate) fn new<'py>(
        py: Python<'py>,
        pool: &ObjectPool<Response>,
        id: ExchangeId,
    ) -> PyResult<Bound<'py, Response>> {
        if let Some(used) = pool.take(py) {
            let state = &used.get().0;
            state.id.set(id);
            state.status.set(200);
            return Ok(used);
        }
        let state = State {
            id: Cell::new(id),
            status: Cell::new(200),
            is_text: Cell::new(true),
            body: RefCell::new(Content::Empty),
        };
        Bound::new(py, Response(GilBound::new(state)))
    }

    /// A plain text answer in place of whatever was written.
    pub(crate) fn set_plain(
        &self,
        py: Python<'_>,
        status: u16,
        text: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.0.status.set(status);
        self.replace(py, text)
    }

    fn replace(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.forget(py);
        self.write(data)
    }

    /// Drops what was written.
    pub(crate) fn forget(&self, py: Python<'_>) {
        if let Content::One(old) = self.0.body.take() {
            old.drop_with(py);
        }
    }

    fn set_field(&self, name: &[u8], value: &[u8], replace: bool) -> PyResult<()> {
        let hub = hub().ok_or_else(over)?;
        match hub.with(|engine| engine.set_field(self.0.id.get(), name, value, replace)) {
            Some(Ok(())) => Ok(()),
            Some(Err(HeaderError::Invalid(why))) => Err(PyValueError::new_err(why.to_string())),
            Some(Err(HeaderError::OutOfMemory)) => Err(pyo3::exceptions::PyMemoryError::new_err(
                "no memory for a header",
            )),
            Some(Err(HeaderError::Over)) | None => Err(over()),
        }
    }

    fn set(
        &self,
        name: &Bound<'_, PyString>,
        value: &Bound<'_, PyString>,
        replace: bool,
    ) -> PyResult<()> {
        with_latin1(name, |name| {
            with_latin1(value, |value| self.set_field(name, value, replace))
        })??
    }

    /// Gives the finished answer to the engine.
    pub(crate) fn finish(&self, py: Python<'_>, hub: &Hub) {
        let content = self.0.body.take();
        let kept = hub.with(|engine| {
            let is_empty = match &content {
                Content::Empty => true,
                Content::One(body) => body.as_bytes().is_empty(),
                Content::Many(bytes) => bytes.is_empty(),
            };
            if !is_empty && !engine.has_field(self.0.id.get(), b"content-type") {
                let default: &[u8] = if self.0.is_text.get() {
                    b"text/plain; charset=utf-8"
                } else {
                    b"application/octet-stream"
                };
                // Without memory for it, the answer goes without.
                let _ = engine.set_field(self.0.id.get(), b"Content-Type", default, false);
            }
            let status = self.0.status.get();
            match content {
                Content::One(body) if body.as_bytes().len() > PyEngine::COPY_MAX => {
                    engine.respond(self.0.id.get(), status, Body::Kept(body));
                    None
                }
                Content::One(body) => {
                    engine.respond(self.0.id.get(), status, Body::Copied(body.as_bytes()));
                    Some(body)
                }
                Content::Many(bytes) if bytes.len() > PyEngine::COPY_MAX => {
                    let body = PyBody::Joined(bytes.into_boxed_slice());
                    engine.respond(self.0.id.get(), status, Body::Kept(body));
                    None
                }
                Content::Many(bytes) => {
                    engine.respond(self.0.id.get(), status, Body::Copied(&bytes));
                    None
                }
                Content::Empty => {
                    engine.respond(self.0.id.get(), status, Body::Copied(b""));
                    None
                }
            }
        });
        if let Some(body) = kept.flatten() {
            body.drop_with(py);
        }
    }
}

fn over() -> PyErr {
    PyRuntimeError::new_err("response is over")
}

#[pymethods]
impl Response {
    #[getter]
    fn status(&self) -> u16 {
        self.0.status.get()
    }

    #[setter(status)]
    fn assign_status(&self, status: i64) -> PyResult<()> {
        self.set_status(status)
    }

    /// Sets the status, 200 to 599.
    fn set_status(&self, status: i64) -> PyResult<()> {
        match u16::try_from(status) {
            Ok(status @ 200..=599) => {
                self.0.status.set(status);
                Ok(())
            }
            _ => Err(PyValueError::new_err(format!(
                "a status is a number from 200 to 599, not {status}"
            ))),
        }
    }

    /// Sets a header, in place of those of the same name.
    fn set_header(&self, name: &Bound<'_, PyString>, value: &Bound<'_, PyString>) -> PyResult<()> {
        self.set(name, value, true)
    }

    /// Adds a header beside those of the same name.
    fn add_header(&self, name: &Bound<'_, PyString>, value: &Bound<'_, PyString>) -> PyResult<()> {
        self.set(name, value, false)
    }

    /// Appends `str` (as UTF-8) or bytes-like data to the body.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = data.py();
        let is_text = data.is_instance_of::<PyString>();
        let piece = match PyBody::of(data) {
            Some(piece) => piece,
            None if is_text => {
                let encoded = data.cast::<PyString>()?.encode_utf8()?;
                PyBody::of(encoded.as_any()).ok_or_else(|| PyTypeError::new_err("not text"))?
            }
            None => {
                let copied = match data.cast::<PyBytes>() {
                    Ok(bytes) => bytes.as_bytes().to_vec(),
                    Err(_) => pyo3::buffer::PyBuffer::<u8>::get(data)
                        .map_err(|_| {
                            PyTypeError::new_err(format!(
                                "write() takes str or bytes, not {}",
                                data.get_type()
                                    .name()
                                    .map_or_else(|_| "this".into(), |name| name.to_string())
                            ))
                        })?
                        .to_vec(py)?,
                };
                PyBody::Joined(copied.into_boxed_slice())
            }
        };
        let before = self.0.body.take();
        let (after, done) = match before {
            Content::Empty => {
                self.0.is_text.set(is_text);
                (Content::One(piece), None)
            }
            Content::One(first) => {
                let mut bytes =
                    Vec::with_capacity((first.as_bytes().len() + piece.as_bytes().len()).max(256));
                bytes.extend_from_slice(first.as_bytes());
                bytes.extend_from_slice(piece.as_bytes());
                (Content::Many(bytes), Some([Some(first), Some(piece)]))
            }
            Content::Many(mut bytes) => {
                bytes.extend_from_slice(piece.as_bytes());
                (Content::Many(bytes), Some([Some(piece), None]))
            }
        };
        self.0.body.replace(after);
        for body in done.into_iter().flatten().flatten() {
            body.drop_with(py);
        }
        Ok(())
    }

    /// Answers with `obj` as JSON, in place of whatever was written.
    #[pyo3(signature = (obj, status = None))]
    fn json(&self, py: Python<'_>, obj: &Bound<'_, PyAny>, status: Option<i64>) -> PyResult<()> {
        static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let text = DUMPS.import(py, "json", "dumps")?.call1((obj,))?;
        if let Some(status) = status {
            self.set_status(status)?;
        }
        self.set_field(b"Content-Type", b"application/json", true)?;
        self.replace(py, &text)
    }

    /// Answers with a redirect.
    #[pyo3(signature = (url, status = 302))]
    fn redirect(&self, url: &Bound<'_, PyString>, status: i64) -> PyResult<()> {
        if !matches!(status, 300..=399) {
            return Err(PyValueError::new_err(format!(
                "a redirect has a status from 300 to 399, not {status}"
            )));
        }
        // A location is ASCII: what is not is percent-encoded as UTF-8 (RFC 3987, section 3.1).
        let mut location = String::new();
        for byte in url.to_str()?.bytes() {
            match byte {
                b' ' | 0x80.. => location.push_str(&format!("%{byte:02X}")),
                _ => location.push(char::from(byte)),
            }
        }
        self.set_field(b"Location", location.as_bytes(), true)?;
        self.set_status(status)
    }

    fn __repr__(&self) -> String {
        format!("<Response {}>", self.0.status.get())
    }
}

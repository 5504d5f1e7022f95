//! `Response`: what a handler answers. Sent when the handler and its middleware have returned, or, when
//! it streams, while they write.
//!
//! Fields go straight to the exchange's arena. Of the body, the first piece is kept as the object
//! that it is; only when a second one comes are they joined. A response that streams is started by its
//! first piece, and each piece goes to the engine at once.

use std::cell::{Cell, RefCell};

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};
use theframework::engine::{Body, ExchangeId, FileBody, HeaderError, Room, WriteError};
use theframework_io::{KeptBytes, OpenFile};

use crate::ClientDisconnected;
use crate::body::PyBody;
use crate::file;
use crate::gil::{GilBound, ObjectPool};
use crate::hub::{Hub, PyEngine, WaitFor, hub, wait};
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
    streams: Cell<bool>,
    /// The length that a streamed body will have, where the handler says so.
    length: Cell<Option<u64>>,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    One(PyBody),
    Many(Vec<u8>),
    File(OpenFile),
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
            state.streams.set(false);
            state.length.set(None);
            return Ok(used);
        }
        let state = State {
            id: Cell::new(id),
            status: Cell::new(200),
            is_text: Cell::new(true),
            body: RefCell::new(Content::Empty),
            streams: Cell::new(false),
            length: Cell::new(None),
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
        self.not_started(hub)?;
        match hub.with(|engine| engine.set_field(self.0.id.get(), name, value, replace)) {
            Some(Ok(())) => Ok(()),
            Some(Err(HeaderError::Invalid(why))) => Err(PyValueError::new_err(why.to_string())),
            Some(Err(HeaderError::OutOfMemory)) => Err(pyo3::exceptions::PyMemoryError::new_err(
                "no memory for a header",
            )),
            Some(Err(HeaderError::Over)) | None => Err(over()),
        }
    }

    fn not_a_file(&self) -> PyResult<()> {
        if matches!(*self.0.body.borrow(), Content::File(_)) {
            return Err(PyRuntimeError::new_err("the response is a file"));
        }
        Ok(())
    }

    fn not_streaming(&self) -> PyResult<()> {
        if self.0.streams.get() {
            return Err(PyRuntimeError::new_err("the response streams"));
        }
        Ok(())
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

    /// An error when the head has gone out: it cannot be changed any more.
    fn not_started(&self, hub: &Hub) -> PyResult<()> {
        if self.0.streams.get()
            && hub.with(|engine| engine.has_started(self.0.id.get())) == Some(true)
        {
            return Err(PyRuntimeError::new_err(
                "the head of the response has been sent",
            ));
        }
        Ok(())
    }

    /// From here on pieces go out as they are written; what was written before is the first.
    fn begin_stream(&self, py: Python<'_>) -> PyResult<()> {
        self.not_a_file()?;
        if self.0.streams.replace(true) {
            return Ok(());
        }
        match self.0.body.take() {
            Content::Empty => Ok(()),
            Content::One(body) => self.send(py, body),
            Content::Many(bytes) => self.send(py, PyBody::Joined(bytes.into_boxed_slice())),
            Content::File(_) => unreachable!("looked at above"),
        }
    }

    /// Writes the head, if that has not been done.
    fn start(&self, hub: &Hub, has_body: bool) -> PyResult<()> {
        let id = self.0.id.get();
        let is_started = hub.with(|engine| {
            if engine.has_started(id) {
                return true;
            }
            if has_body && !engine.has_field(id, b"content-type") {
                let _ = engine.set_field(id, b"Content-Type", self.default_type(), false);
            }
            let length = self.0.length.get().or_else(|| engine.announced_length(id));
            engine.start_response(id, self.0.status.get(), length)
        });
        match is_started {
            Some(true) => Ok(()),
            _ => Err(gone()),
        }
    }

    /// Sends one piece; parks the handler while the client takes nothing.
    fn send(&self, py: Python<'_>, piece: PyBody) -> PyResult<()> {
        let result = self.make_room(py).and_then(|hub| {
            let id = self.0.id.get();
            if piece.as_bytes().len() <= PyEngine::COPY_MAX {
                let sent = hub.with(|engine| {
                    engine
                        .write_body(id, Body::Copied(piece.as_bytes()))
                        .map_err(|(error, _)| error)
                });
                return sent.unwrap_or(Err(WriteError::NoRoom)).map_err(refused);
            }
            Ok(())
        });
        if result.is_err() || piece.as_bytes().len() <= PyEngine::COPY_MAX {
            piece.drop_with(py);
            return result;
        }
        let Some(hub) = hub() else {
            piece.drop_with(py);
            return Err(over());
        };
        let sent = hub.with(
            |engine| match engine.write_body(self.0.id.get(), Body::Kept(piece)) {
                Ok(()) => Ok(()),
                Err((error, Body::Kept(piece))) => Err((error, Some(piece))),
                Err((error, Body::Copied(_))) => Err((error, None)),
            },
        );
        match sent {
            Some(Err((error, piece))) => {
                if let Some(piece) = piece {
                    piece.drop_with(py);
                }
                Err(refused(error))
            }
            _ => Ok(()),
        }
    }

    /// Waits until a piece can be written; the head is out then.
    fn make_room(&self, py: Python<'_>) -> PyResult<&'static Hub> {
        let hub = hub().ok_or_else(over)?;
        self.start(hub, true)?;
        let id = self.0.id.get();
        loop {
            match hub.with(|engine| engine.room(id)).unwrap_or(Room::Over) {
                Room::Ready => return Ok(hub),
                Room::Full => wait(py, hub, WaitFor::Room(id))?,
                Room::Gone => return Err(gone()),
                Room::Over => return Err(over()),
            }
        }
    }

    /// The content type that a body gets which was given none.
    fn default_type(&self) -> &'static [u8] {
        if self.0.is_text.get() {
            b"text/plain; charset=utf-8"
        } else {
            b"application/octet-stream"
        }
    }

    /// Gives the finished answer to the engine.
    pub(crate) fn finish(&self, py: Python<'_>, hub: &Hub) -> PyResult<()> {
        if self.0.streams.get() {
            // Without a piece it is an empty body.
            if self.start(hub, false).is_err() {
                hub.with(|engine| engine.abort_response(self.0.id.get()));
                return Ok(());
            }
            let is_whole = hub.with(|engine| engine.finish_response(self.0.id.get()));
            if is_whole == Some(false) {
                return Err(PyRuntimeError::new_err(
                    "the response ended before the length that it had announced",
                ));
            }
            return Ok(());
        }
        let content = self.0.body.take();
        let kept = hub.with(|engine| {
            let is_empty = match &content {
                Content::Empty | Content::File(_) => true,
                Content::One(body) => body.as_bytes().is_empty(),
                Content::Many(bytes) => bytes.is_empty(),
            };
            if !is_empty && !engine.has_field(self.0.id.get(), b"content-type") {
                // Without memory for it, the answer goes without.
                let default = self.default_type();
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
                Content::File(OpenFile {
                    file,
                    len,
                    modified,
                }) => {
                    let body = FileBody {
                        file,
                        len,
                        modified,
                    };
                    engine.send_file(self.0.id.get(), status, body);
                    None
                }
            }
        });
        if let Some(body) = kept.flatten() {
            body.drop_with(py);
        }
        Ok(())
    }
}

fn gone() -> PyErr {
    ClientDisconnected::new_err("the client has gone")
}

fn refused(error: WriteError) -> PyErr {
    match error {
        WriteError::NoRoom => gone(),
        WriteError::TooLong => {
            PyValueError::new_err("more is written than the Content-Length that was announced")
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
        if let Some(hub) = hub() {
            self.not_started(hub)?;
        }
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

    /// Appends `str` (as UTF-8) or bytes-like data to the body; sends it, if the response streams.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.not_a_file()?;
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
        if self.0.streams.get() {
            if hub().is_some_and(|hub| self.not_started(hub).is_ok()) {
                self.0.is_text.set(is_text);
            }
            return self.send(py, piece);
        }
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
            Content::File(_) => unreachable!("looked at above"),
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
        self.not_streaming()?;
        let text = DUMPS.import(py, "json", "dumps")?.call1((obj,))?;
        if let Some(status) = status {
            self.set_status(status)?;
        }
        self.set_field(b"Content-Type", b"application/json", true)?;
        self.replace(py, &text)
    }

    /// Answers with a file, in place of whatever was written.
    #[pyo3(signature = (path, content_type = None, filename = None))]
    fn send_file(
        &self,
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        content_type: Option<&str>,
        filename: Option<&str>,
    ) -> PyResult<()> {
        self.not_streaming()?;
        let hub = hub().ok_or_else(over)?;
        let (path, file) = file::open(path)?;
        let has_type = hub.with(|engine| engine.has_field(self.0.id.get(), b"content-type"));
        match content_type {
            Some(given) => self.set_field(b"Content-Type", given.as_bytes(), true)?,
            None if has_type == Some(true) => {}
            None => {
                let guessed = file::content_type(py, &path)?;
                self.set_field(b"Content-Type", guessed.as_bytes(), true)?;
            }
        }
        if let Some(name) = filename {
            let value = file::disposition(name);
            self.set_field(b"Content-Disposition", value.as_bytes(), true)?;
        }
        self.forget(py);
        self.0.body.replace(Content::File(file));
        Ok(())
    }

    /// Answers with a redirect.
    #[pyo3(signature = (url, status = 302))]
    fn redirect(&self, url: &Bound<'_, PyString>, status: i64) -> PyResult<()> {
        self.not_streaming()?;
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

    /// Sends the response while it is made: each `write` from here on goes out, and so does each item of
    /// `iterable`. Parks the handler while the client is slow. The head goes out with the first piece.
    /// Its framing is chunked, but for `content_length` (or a header that says it).
    #[pyo3(signature = (iterable = None, *, content_length = None))]
    fn stream(
        &self,
        py: Python<'_>,
        iterable: Option<&Bound<'_, PyAny>>,
        content_length: Option<u64>,
    ) -> PyResult<()> {
        if let Some(length) = content_length {
            if let Some(hub) = hub() {
                self.not_started(hub)?;
            }
            self.0.length.set(Some(length));
        }
        let Some(iterable) = iterable else {
            return self.begin_stream(py);
        };
        let items = iterable.try_iter()?;
        let result = self.begin_stream(py).and_then(|()| {
            for item in &items {
                self.write(&item?)?;
                // The answer to HEAD is complete with its head, however much there may be.
                if hub().and_then(|hub| hub.with(|engine| engine.drops_body(self.0.id.get())))
                    == Some(true)
                {
                    break;
                }
            }
            Ok(())
        });
        // A generator's `finally` runs now, whatever has ended the stream.
        let closed = match iterable.getattr_opt("close")? {
            Some(close) => close.call0().map(|_| ()),
            None => Ok(()),
        };
        result.and(closed)
    }

    /// Sends a server-sent event; the first one starts the response, with the headers that they need.
    #[pyo3(signature = (data, event = None, *, id = None, retry = None))]
    fn send_event(
        &self,
        py: Python<'_>,
        data: &str,
        event: Option<&str>,
        id: Option<&str>,
        retry: Option<u64>,
    ) -> PyResult<()> {
        let text = crate::stream::event(data, event, id, retry)?;
        if !self.0.streams.get() {
            self.set_field(b"Content-Type", b"text/event-stream", true)?;
            self.set_field(b"Cache-Control", b"no-cache", false)?;
            // nginx would gather them.
            self.set_field(b"X-Accel-Buffering", b"no", false)?;
            self.begin_stream(py)?;
        }
        self.send(py, PyBody::Joined(text.into_bytes().into_boxed_slice()))
    }

    fn __repr__(&self) -> String {
        format!("<Response {}>", self.0.status.get())
    }
}

//! `Request`: what a handler reads. Fields become Python objects on first access, and are kept.
//!
//! While the exchange lives, they are read from the engine's bytes. When it ends and somebody still
//! holds the object, head and body are copied out, and it goes on working.

use std::cell::{Cell, OnceCell, RefCell};

use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use theframework::HeaderMap;
use theframework::engine::{ExchangeId, RequestView};
use theframework_http::{Scheme, decode_form, decode_param, decode_path, query_pairs};

use crate::body::PyBody;
use crate::gil::{GilBound, ObjectPool, Slot};
use crate::greenlet::reference_count;
use crate::hub::{Hub, hub};
use crate::scratch;
use crate::stream::BodyStream;
use crate::text::{header_name, latin1};

type View<'a> = RequestView<'a, PyBody>;

/// One request. Read-only, but for attributes that middleware adds.
#[pyclass(frozen, module = "theframework")]
pub(crate) struct Request(GilBound<State>);

struct State {
    id: Cell<ExchangeId>,
    /// Set when the exchange is over and the object is not.
    kept: OnceCell<Box<Kept>>,

    method: Slot<PyString>,
    path: Slot<PyString>,
    full_path: Slot<PyString>,
    query_params: Slot<PyDict>,
    headers: Slot<PyDict>,
    raw_headers: Slot<PyList>,
    body: Slot<PyBytes>,
    params: Slot<PyDict>,
    client: Slot<PyString>,
    /// Attributes that middleware has added.
    added: Slot<PyDict>,
}

/// What a request needs when its exchange is over.
struct Kept {
    method: Vec<u8>,
    target: Vec<u8>,
    path: Vec<u8>,
    query: Vec<u8>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    params: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    streams: bool,
    origin: KeptOrigin,
    header_map: HeaderMap,
}

/// What the engine alone can tell, with more than the request's bytes.
struct KeptOrigin {
    client: Option<String>,
    scheme: Scheme,
}

/// Fields that are read under one borrow.
const FIELDS_AT_ONCE: usize = 32;

fn over() -> PyErr {
    PyRuntimeError::new_err("request is over")
}

impl Request {
    /// The object for an exchange: a used one that nobody holds any more, or a new one.
    pub(crate) fn new<'py>(
        py: Python<'py>,
        pool: &ObjectPool<Request>,
        id: ExchangeId,
    ) -> PyResult<Bound<'py, Request>> {
        if let Some(used) = pool.take(py) {
            used.get().0.id.set(id);
            return Ok(used);
        }
        let state = State {
            id: Cell::new(id),
            kept: OnceCell::new(),
            method: Slot::default(),
            path: Slot::default(),
            full_path: Slot::default(),
            query_params: Slot::default(),
            headers: Slot::default(),
            raw_headers: Slot::default(),
            body: Slot::default(),
            params: Slot::default(),
            client: Slot::default(),
            added: Slot::default(),
        };
        Bound::new(py, Request(GilBound::new(state)))
    }

    /// The exchange is about to end: if somebody else holds the object, it takes what it needs; else
    /// it is used again.
    pub(crate) fn exchange_ends(own: Bound<'_, Request>, pool: &ObjectPool<Request>) {
        let py = own.py();
        let state = &own.get().0;
        if reference_count(own.as_any()) == 1 {
            // Their finalisers may run, and could come by the object: it is looked at again below.
            state.method.clear(py);
            state.path.clear(py);
            state.full_path.clear(py);
            state.query_params.clear(py);
            state.headers.clear(py);
            state.raw_headers.clear(py);
            state.body.clear(py);
            state.params.clear(py);
            state.client.clear(py);
            state.added.clear(py);
            pool.give(own);
            return;
        }
        let id = state.id.get();
        let kept = hub().and_then(|hub| {
            hub.with(|engine| {
                let origin = KeptOrigin {
                    client: engine.client(id),
                    scheme: engine.scheme(id),
                };
                let header_map = engine.config().header_map;
                let view = engine.request(id)?;
                Some(Kept::of(&view, origin, header_map))
            })
            .flatten()
        });
        if let Some(kept) = kept {
            let _ = state.kept.set(Box::new(kept));
        }
    }

    /// Reads from the engine, or from what was kept. `read` may make strings and bytes only.
    fn read<R>(
        &self,
        live: impl FnOnce(&View<'_>) -> R,
        kept: impl FnOnce(&Kept) -> R,
    ) -> PyResult<R> {
        if let Some(own) = self.0.kept.get() {
            return Ok(kept(own));
        }
        let hub = hub().ok_or_else(over)?;
        hub.with(|engine| engine.request(self.0.id.get()).map(|view| live(&view)))
            .flatten()
            .ok_or_else(over)
    }

    fn field_count(&self) -> PyResult<usize> {
        self.read(
            |view: &View<'_>| View::field_count(view),
            |kept| kept.fields.len(),
        )
    }

    fn header_map(&self) -> PyResult<HeaderMap> {
        if let Some(kept) = self.0.kept.get() {
            return Ok(kept.header_map);
        }
        let hub = hub().ok_or_else(over)?;
        hub.with(|engine| engine.config().header_map)
            .ok_or_else(over)
    }

    fn make_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        let mut repeated = Vec::new();
        let drops = self.header_map()? == HeaderMap::Drop;
        let count = self.field_count()?;
        let mut start = 0;
        while start < count {
            // Strings are made under one borrow, for some fields at a time; they go into the dict,
            // which may run other code, when nothing is borrowed.
            let mut strings = [const { None }; FIELDS_AT_ONCE];
            let made = &mut strings[..(count - start).min(FIELDS_AT_ONCE)];
            self.read_fields(start, made, |name, value| {
                (header_name(py, name), latin1(py, value))
            })?;
            start += made.len();
            for (name, value) in made.iter_mut().filter_map(Option::take) {
                if !(drops && name.is_ambiguous) {
                    add_header(&headers, &mut repeated, &name.text, value)?;
                }
            }
        }
        for name in repeated {
            let separator = if name == "cookie" { "; " } else { ", " };
            if let Some(values) = headers.get_item(&name)? {
                let joined = PyString::new(py, separator).call_method1("join", (values,))?;
                headers.set_item(name, joined)?;
            }
        }
        Ok(headers)
    }

    /// Reads the fields from `start` on, as many as `into` has places for.
    fn read_fields<T>(
        &self,
        start: usize,
        into: &mut [Option<T>],
        make: impl Fn(&[u8], &[u8]) -> T,
    ) -> PyResult<()> {
        let into = RefCell::new(into);
        self.read(
            |view| {
                for (index, place) in into.borrow_mut().iter_mut().enumerate() {
                    *place = view
                        .field(start + index)
                        .map(|(name, value)| make(name, value));
                }
            },
            |kept| {
                for (place, (name, value)) in
                    into.borrow_mut().iter_mut().zip(&kept.fields[start..])
                {
                    *place = Some(make(name, value));
                }
            },
        )
    }

    fn make_raw_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for index in 0..self.field_count()? {
            let mut pair = [None];
            self.read_fields(index, &mut pair, |name, value| {
                (PyBytes::new(py, name), PyBytes::new(py, value))
            })?;
            list.append(pair[0].take())?;
        }
        Ok(list)
    }

    fn make_query_params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let params = PyDict::new(py);
        // Making a dict may run anything, so the query is copied out of the engine first.
        let query = RefCell::new(scratch::take());
        self.read(
            |view| query.borrow_mut().extend_from_slice(view.query()),
            |kept| query.borrow_mut().extend_from_slice(&kept.query),
        )?;
        let query = query.into_inner();
        let mut decoded = scratch::take();
        for (name, value) in query_pairs(&query) {
            let name = PyString::new(py, &decode_form(name, &mut decoded));
            let value = PyString::new(py, &decode_form(value, &mut decoded));
            // SAFETY: a dict, and live key and value; a borrowed reference or null with an exception.
            // The first value of a repeated name stays.
            unsafe {
                Bound::from_borrowed_ptr_or_err(
                    py,
                    ffi::PyDict_SetDefault(params.as_ptr(), name.as_ptr(), value.as_ptr()),
                )?;
            }
        }
        scratch::give(decoded);
        scratch::give(query);
        Ok(params)
    }

    fn make_params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let params = PyDict::new(py);
        let text = |value: &[u8]| {
            // The whole path was decoded once before, so a part of it is UTF-8.
            let value = std::str::from_utf8(value).unwrap_or_default();
            scratch::with(|scratch| PyString::new(py, decode_param(value, scratch)))
        };
        let mut index = 0;
        while let Some((name, value)) = self.read(
            |view| {
                let name = view.param_names().get(index)?;
                Some((PyString::new(py, name), text(view.param(index)?)))
            },
            |kept| {
                let (name, value) = kept.params.get(index)?;
                Some((PyString::new(py, name), text(value)))
            },
        )? {
            params.set_item(name, value)?;
            index += 1;
        }
        Ok(params)
    }
}

impl Kept {
    fn of(view: &View<'_>, origin: KeptOrigin, header_map: HeaderMap) -> Kept {
        Kept {
            method: view.method().to_vec(),
            target: view.target().to_vec(),
            path: view.raw_path().to_vec(),
            query: view.query().to_vec(),
            fields: (0..view.field_count())
                .filter_map(|index| view.field(index))
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
            params: view
                .param_names()
                .iter()
                .enumerate()
                .filter_map(|(index, name)| Some((name.clone(), view.param(index)?.to_vec())))
                .collect(),
            body: if view.streams() {
                Vec::new()
            } else {
                view.body().to_vec()
            },
            streams: view.streams(),
            origin,
            header_map,
        }
    }
}

/// Adds a header; equal lengths are one. Values of one that is there already are gathered in a list, and
/// its name is noted: they are joined once, for joining each to those before would cost the square of
/// their number.
fn add_header<'py>(
    headers: &Bound<'py, PyDict>,
    repeated: &mut Vec<Bound<'py, PyString>>,
    name: &Bound<'py, PyString>,
    value: Bound<'py, PyString>,
) -> PyResult<()> {
    let before = headers.len();
    // SAFETY: a dict, and live key and value; a borrowed reference or null with an exception.
    let known = unsafe {
        Bound::from_borrowed_ptr_or_err(
            headers.py(),
            ffi::PyDict_SetDefault(headers.as_ptr(), name.as_ptr(), value.as_ptr()),
        )?
    };
    // Not told by the object: a value of one character is the same object each time.
    if headers.len() > before || name == "content-length" {
        return Ok(());
    }
    match known.cast::<PyList>() {
        Ok(values) => values.append(value),
        Err(_) => {
            repeated.push(name.clone());
            headers.set_item(name, PyList::new(headers.py(), [known, value.into_any()])?)
        }
    }
}

/// A method's name; the usual ones are made once.
fn method_name<'py>(py: Python<'py>, name: &[u8]) -> Bound<'py, PyString> {
    match name {
        b"GET" => pyo3::intern!(py, "GET").clone(),
        b"POST" => pyo3::intern!(py, "POST").clone(),
        b"PUT" => pyo3::intern!(py, "PUT").clone(),
        b"HEAD" => pyo3::intern!(py, "HEAD").clone(),
        b"DELETE" => pyo3::intern!(py, "DELETE").clone(),
        b"PATCH" => pyo3::intern!(py, "PATCH").clone(),
        b"OPTIONS" => pyo3::intern!(py, "OPTIONS").clone(),
        _ => latin1(py, name),
    }
}

#[pymethods]
impl Request {
    #[getter]
    fn method<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.0.method.get_or_make(py, || {
            self.read(
                |view| method_name(py, view.method()),
                |kept| method_name(py, &kept.method),
            )
        })
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        let text = |raw: &[u8]| {
            // An undecodable path was refused with 400 before it came here.
            scratch::with(|scratch| match decode_path(raw, scratch) {
                Ok(path) => PyString::new(py, path),
                Err(_) => latin1(py, raw),
            })
        };
        self.0.path.get_or_make(py, || {
            self.read(|view| text(view.raw_path()), |kept| text(&kept.path))
        })
    }

    #[getter]
    fn full_path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.0.full_path.get_or_make(py, || {
            self.read(
                |view| latin1(py, view.target()),
                |kept| latin1(py, &kept.target),
            )
        })
    }

    #[getter]
    fn query_params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0
            .query_params
            .get_or_make(py, || self.make_query_params(py))
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.headers.get_or_make(py, || self.make_headers(py))
    }

    #[getter]
    fn raw_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.0
            .raw_headers
            .get_or_make(py, || self.make_raw_headers(py))
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.0.body.get_or_make(py, || {
            if self.read(|view: &View<'_>| View::streams(view), |kept| kept.streams)? {
                return Err(PyRuntimeError::new_err(
                    "this route streams its body: iterate over request.stream()",
                ));
            }
            self.read(
                |view| {
                    // A large body was received into the object itself.
                    view.body_object()
                        .and_then(|body| body.as_py_bytes(py))
                        .unwrap_or_else(|| PyBytes::new(py, view.body()))
                },
                |kept| PyBytes::new(py, &kept.body),
            )
        })
    }

    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.params.get_or_make(py, || self.make_params(py))
    }

    /// Who has sent it: see `Engine::client`. One system call, at the first access.
    #[getter]
    fn client<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        if let Some(known) = self.0.client.get(py) {
            return Ok(Some(known));
        }
        let client = match self.0.kept.get() {
            Some(kept) => kept.origin.client.clone(),
            None => {
                let hub: &Hub = hub().ok_or_else(over)?;
                hub.with(|engine| engine.client(self.0.id.get())).flatten()
            }
        };
        client
            .map(|client| {
                self.0
                    .client
                    .get_or_make(py, || Ok(PyString::new(py, &client)))
            })
            .transpose()
    }

    /// `http` or `https`: see `Engine::scheme`.
    #[getter]
    fn scheme<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        let scheme = match self.0.kept.get() {
            Some(kept) => kept.origin.scheme,
            None => {
                let hub: &Hub = hub().ok_or_else(over)?;
                hub.with(|engine| engine.scheme(self.0.id.get()))
                    .unwrap_or_default()
            }
        };
        Ok(match scheme {
            Scheme::Http => pyo3::intern!(py, "http").clone(),
            Scheme::Https => pyo3::intern!(py, "https").clone(),
        })
    }

    /// The body as it arrives: an iterator of `bytes`. Where the route does not stream, all of it at
    /// once.
    fn stream<'py>(own: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = own.py();
        let state = &own.get().0;
        if state.kept.get().is_some() {
            return Err(over());
        }
        if own
            .get()
            .read(|view: &View<'_>| View::streams(view), |_| false)?
        {
            return Ok(Bound::new(py, BodyStream(state.id.get()))?.into_any());
        }
        let body = own.get().body(py)?;
        let pieces = PyList::empty(py);
        if !body.as_bytes().is_empty() {
            pieces.append(body)?;
        }
        Ok(pieces.try_iter()?.into_any())
    }

    /// Whether the client has gone, or has closed its side of the connection at least.
    #[getter]
    fn disconnected(&self) -> bool {
        hub()
            .and_then(|hub| hub.with(|engine| engine.is_disconnected(self.0.id.get())))
            .unwrap_or(false)
    }

    /// The body as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        LOADS.import(py, "json", "loads")?.call1((self.body(py)?,))
    }

    fn __getattr__<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        let py = name.py();
        let added = match self.0.added.get(py) {
            Some(added) => added.get_item(name)?,
            None => None,
        };
        added.ok_or_else(|| {
            PyAttributeError::new_err(format!("'Request' object has no attribute {name:?}"))
        })
    }

    fn __setattr__(
        own: &Bound<'_, Self>,
        name: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = own.py();
        if own.get_type().hasattr(name)? {
            return Err(PyAttributeError::new_err(format!(
                "attribute {name:?} of 'Request' objects is read-only"
            )));
        }
        own.get()
            .0
            .added
            .get_or_make(py, || Ok(PyDict::new(py)))?
            .set_item(name, value)
    }

    fn __delattr__(&self, name: &Bound<'_, PyString>) -> PyResult<()> {
        self.__getattr__(name)?;
        match self.0.added.get(name.py()) {
            Some(added) => added.del_item(name),
            None => Ok(()),
        }
    }

    fn __dir__(own: &Bound<'_, Self>) -> PyResult<Py<PyList>> {
        let py = own.py();
        let names = own.get_type().dir()?;
        if let Some(added) = own.get().0.added.get(py) {
            for name in added.keys() {
                names.append(name)?;
            }
        }
        Ok(names.unbind())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<Request {} {}>",
            self.method(py)?,
            self.full_path(py)?
        ))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        // Strings, bytes and dicts of strings refer to nothing; a handler can put more in a dict.
        self.0.query_params.visit(&visit)?;
        self.0.headers.visit(&visit)?;
        self.0.raw_headers.visit(&visit)?;
        self.0.params.visit(&visit)?;
        self.0.added.visit(&visit)
    }
}

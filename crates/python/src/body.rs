//! Bodies that a pending write keeps alive: Python objects, or text that Rust has put together.

use std::ptr::NonNull;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use theframework_io::KeptBytes;

use crate::heap;

/// The bytes of one response body.
#[derive(Debug)]
pub(crate) enum PyBody {
    /// An exact `bytes` object, or an exact `str` that is ASCII: neither ever changes or moves.
    Object {
        object: Py<PyAny>,
        address: usize,
        len: usize,
    },
    /// Several writes joined.
    Joined(Box<[u8]>),
}

// SAFETY: an exact bytes or compact ASCII str object is immutable, its data lie inside the object,
// objects never move, and the strong reference keeps it alive. A boxed slice stays in place too.
unsafe impl KeptBytes for PyBody {
    fn as_bytes(&self) -> &[u8] {
        match self {
            PyBody::Object { address, len, .. } => {
                // SAFETY: taken from the object in `of`, which is kept alive beside it.
                unsafe { std::slice::from_raw_parts(*address as *const u8, *len) }
            }
            PyBody::Joined(bytes) => bytes,
        }
    }

    fn allocate(len: usize) -> Option<(Self, NonNull<u8>)> {
        // SAFETY: the hub holds the GIL while it takes events. A new bytes object with room for
        // `len` bytes, or null with an exception; making it runs no other code. Nobody else has a
        // reference until the hub gives the object to a handler.
        unsafe {
            let size = isize::try_from(len).ok()?;
            let object = heap::from_heap(len, || {
                ffi::PyBytes_FromStringAndSize(std::ptr::null(), size)
            });
            if object.is_null() {
                ffi::PyErr_Clear();
                return None;
            }
            let start = NonNull::new(ffi::PyBytes_AS_STRING(object).cast::<u8>().cast_mut())?;
            let object = Bound::from_owned_ptr(Python::assume_attached(), object).unbind();
            let address = start.as_ptr() as usize;
            Some((
                PyBody::Object {
                    object,
                    address,
                    len,
                },
                start,
            ))
        }
    }
}

impl PyBody {
    /// The object as a body, if it may be sent from where it is.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> Option<PyBody> {
        let (address, len) = if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            let bytes = bytes.as_bytes();
            (bytes.as_ptr() as usize, bytes.len())
        } else {
            ascii_data(object)?
        };
        Some(PyBody::Object {
            object: object.clone().unbind(),
            address,
            len,
        })
    }

    /// The object, as a `bytes`.
    pub(crate) fn as_py_bytes<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        match self {
            PyBody::Object { object, .. } => object.bind(py).cast_exact().ok().cloned(),
            PyBody::Joined(_) => None,
        }
    }

    /// Drops the object. Nothing may be borrowed: finalisers may run.
    pub(crate) fn drop_with(self, py: Python<'_>) {
        if let PyBody::Object { object, .. } = self {
            drop(object.into_bound(py));
        }
    }
}

/// Address and length of the text of an exact, ASCII-only `str`.
pub(crate) fn ascii_data(object: &Bound<'_, PyAny>) -> Option<(usize, usize)> {
    object.cast_exact::<PyString>().ok()?;
    // SAFETY: an exact str; the GIL is held. A compact ASCII string has its one-byte data inline.
    unsafe {
        let object = object.as_ptr();
        if ffi::PyUnicode_IS_COMPACT_ASCII(object) == 0 {
            return None;
        }
        Some((
            ffi::PyUnicode_1BYTE_DATA(object) as usize,
            ffi::PyUnicode_GET_LENGTH(object) as usize,
        ))
    }
}

//! Between Python strings and bytes of the wire.

use std::cell::RefCell;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use theframework_http::is_ambiguous_name;

use crate::body::ascii_data;

/// Bytes as a `str`, each byte a character (ISO-8859-1), as header fields are read.
pub(crate) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    // SAFETY: pointer and length are those of a live slice; a new str object is returned. Null
    // means that memory ran out, which `from_owned_ptr` turns into a panic that ends the call.
    unsafe {
        Bound::from_owned_ptr(
            py,
            ffi::PyUnicode_DecodeLatin1(
                bytes.as_ptr().cast(),
                bytes.len() as ffi::Py_ssize_t,
                std::ptr::null(),
            ),
        )
        .cast_into_unchecked()
    }
}

/// Calls `use_bytes` with a header name or value as bytes of the wire (ISO-8859-1).
pub(crate) fn with_latin1<R>(
    text: &Bound<'_, PyString>,
    use_bytes: impl FnOnce(&[u8]) -> R,
) -> PyResult<R> {
    if let Some((address, len)) = ascii_data(text) {
        // SAFETY: the data of a str that the caller's reference keeps alive and nobody changes.
        return Ok(use_bytes(unsafe {
            std::slice::from_raw_parts(address as *const u8, len)
        }));
    }
    // SAFETY: a live str; a new bytes object or null with an exception is returned.
    let encoded = unsafe {
        Bound::from_owned_ptr_or_err(text.py(), ffi::PyUnicode_AsLatin1String(text.as_ptr()))
    }
    .map_err(|_| PyValueError::new_err("header names and values are ISO-8859-1 text"))?;
    Ok(use_bytes(encoded.cast::<PyBytes>()?.as_bytes()))
}

/// Names kept, and how many places one of them may lie in.
const NAMES: usize = 1024;
const WAYS: usize = 4;
/// A longer name is not kept.
const NAME_MAX: usize = 40;

/// Lower-case header names that were seen lately, so that the usual ones are not made anew for each
/// request. Set-associative and bounded: a stranger only evicts a neighbour.
struct Names {
    entries: Vec<Option<Name>>,
    /// Which place of a set is taken from next.
    next: usize,
}

/// A name as it was received, and its text.
struct Name {
    bytes: Box<[u8]>,
    text: Py<PyString>,
    is_ambiguous: bool,
}

/// A header name as a lower-case `str`.
pub(crate) struct HeaderName<'py> {
    pub(crate) text: Bound<'py, PyString>,
    /// It has an underscore; remembered with the text, so that looking costs nothing.
    pub(crate) is_ambiguous: bool,
}

thread_local! {
    static SEEN: RefCell<Names> = const {
        RefCell::new(Names {
            entries: Vec::new(),
            next: 0,
        })
    };
}

/// Where the places of a name begin: by its length, its first and its last bytes.
fn set(name: &[u8]) -> usize {
    let ends = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            u64::from_ne_bytes(*first) ^ u64::from_ne_bytes(*last).rotate_left(29)
        }
        _ => name
            .iter()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    let hash = (ends ^ name.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash >> 48) as usize % (NAMES / WAYS) * WAYS
}

/// The text of a header name.
pub(crate) fn header_name<'py>(py: Python<'py>, name: &[u8]) -> HeaderName<'py> {
    let set = set(name);
    let known = SEEN.with_borrow(|seen| {
        seen.entries
            .get(set..set + WAYS)?
            .iter()
            .flatten()
            .find(|known| *known.bytes == *name)
            .map(|known| HeaderName {
                text: known.text.bind(py).clone(),
                is_ambiguous: known.is_ambiguous,
            })
    });
    if let Some(known) = known {
        return known;
    }
    let text = latin1(py, &name.to_ascii_lowercase());
    let is_ambiguous = is_ambiguous_name(name);
    if name.len() <= NAME_MAX {
        let evicted = SEEN.with_borrow_mut(|seen| {
            if seen.entries.is_empty() {
                seen.entries.resize_with(NAMES, || None);
            }
            let places = &mut seen.entries[set..set + WAYS];
            seen.next = seen.next.wrapping_add(1);
            let place = places
                .iter()
                .position(Option::is_none)
                .unwrap_or(seen.next % WAYS);
            places[place].replace(Name {
                bytes: name.into(),
                text: text.clone().unbind(),
                is_ambiguous,
            })
        });
        drop(evicted);
    }
    HeaderName { text, is_ambiguous }
}

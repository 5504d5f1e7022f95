//! What `Response.send_file` makes of a path: an open file, its content type, the name to save it by.
//!
//! The type is `mimetypes`', asked once for each suffix and then kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use theframework_io::{OpenFile, open_file};

/// Suffixes whose types are kept; further ones are asked for each time.
const SUFFIXES_MAX: usize = 1000;

/// What is not known.
const UNKNOWN: &str = "application/octet-stream";

/// Opens a file, or raises what `open` would.
pub(crate) fn open(path: &Bound<'_, PyAny>) -> PyResult<(PathBuf, OpenFile)> {
    let native: PathBuf = path.extract()?;
    match open_file(&native) {
        Ok(file) => Ok((native, file)),
        Err(error) => Err(match error.raw_os_error() {
            Some(errno) => {
                let py = path.py();
                let text = py.import("os")?.call_method1("strerror", (errno,))?;
                PyOSError::new_err((errno, text.unbind(), path.clone().unbind()))
            }
            // The path has a NUL.
            None => PyValueError::new_err(error.to_string()),
        }),
    }
}

/// The content type that goes with the file's suffix.
pub(crate) fn content_type(py: Python<'_>, path: &Path) -> PyResult<String> {
    let suffix = match path.extension().and_then(|suffix| suffix.to_str()) {
        Some(suffix) => suffix.to_ascii_lowercase(),
        None => return Ok(UNKNOWN.to_owned()),
    };
    if let Some(known) = types().get(&suffix) {
        return Ok(known.clone());
    }
    let found = guess(py, &suffix)?;
    let mut types = types();
    if types.len() < SUFFIXES_MAX {
        types.insert(suffix, found.clone());
    }
    Ok(found)
}

/// Never held while Python runs.
fn types() -> MutexGuard<'static, HashMap<String, String>> {
    static TYPES: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);
    TYPES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks `mimetypes`. A compressed file is sent as what it is, to be saved so: a `Content-Encoding` would
/// have the client unpack it. Text is taken to be UTF-8.
fn guess(py: Python<'_>, suffix: &str) -> PyResult<String> {
    static GUESS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let guess = GUESS.import(py, "mimetypes", "guess_type")?;
    let found = guess.call1((format!("file.{suffix}"),))?;
    let (kind, packed): (Option<String>, Option<String>) = found.extract()?;
    Ok(match packed.as_deref() {
        Some("gzip") => "application/gzip".to_owned(),
        Some("bzip2") => "application/x-bzip".to_owned(),
        Some("compress") => "application/x-compress".to_owned(),
        Some("xz") => "application/x-xz".to_owned(),
        Some(_) => UNKNOWN.to_owned(),
        None => match kind {
            Some(kind) if kind.starts_with("text/") => kind + "; charset=utf-8",
            Some(kind) => kind,
            None => UNKNOWN.to_owned(),
        },
    })
}

/// The `Content-Disposition` of a file that is to be saved by this name (RFC 6266): for what is not plain
/// ASCII in two forms, of which old clients take the first.
pub(crate) fn disposition(name: &str) -> String {
    let is_plain = |c: char| (' '..='~').contains(&c) && !matches!(c, '"' | '\\' | '%');
    let mut value = String::from("attachment; filename=\"");
    value.extend(name.chars().map(|c| if is_plain(c) { c } else { '_' }));
    value.push('"');
    if !name.chars().all(is_plain) {
        value.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                value.push(char::from(byte));
            } else {
                value.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    value
}

//! greenlet's C API, through its capsule. The only file that switches.
//!
//! A switch returns when somebody switches back, perhaps never, perhaps with an exception, and
//! meanwhile everything may have changed. So the functions here take what they need by value, and
//! callers look everything up again afterwards.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

/// The capsule's table of function pointers.
static API: AtomicPtr<*mut c_void> = AtomicPtr::new(std::ptr::null_mut());

// Positions in the table: greenlet.h, unchanged since greenlet 1.0.
const NEW: usize = 3;
const GET_CURRENT: usize = 4;
const THROW: usize = 5;
const SWITCH: usize = 6;
const ACTIVE: usize = 10;
const GET_PARENT: usize = 11;

/// Imports greenlet and its C API.
pub(crate) fn import(py: Python<'_>) -> PyResult<()> {
    py.import("greenlet")?;
    // SAFETY: the name is a valid C string; the GIL is held.
    let table = unsafe { ffi::PyCapsule_Import(c"greenlet._C_API".as_ptr(), 0) };
    if table.is_null() {
        return Err(PyErr::take(py)
            .unwrap_or_else(|| PyImportError::new_err("greenlet has no C API capsule")));
    }
    API.store(table.cast(), Ordering::Release);
    Ok(())
}

/// The function at a position of the table, as `F`.
///
/// # Safety
/// * `F` is the function pointer type that greenlet.h gives for `position`.
unsafe fn function<F: Copy>(position: usize) -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let table = API.load(Ordering::Acquire);
    assert!(!table.is_null(), "greenlet was imported with this module");
    // SAFETY: the table has at least 12 entries, and the caller names the right type.
    unsafe { std::mem::transmute_copy(&*table.add(position)) }
}

/// Makes a greenlet that will call `run`, with `parent` to return to.
pub(crate) fn new<'py>(
    run: &Bound<'py, PyAny>,
    parent: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    type New = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
    // SAFETY: the type is greenlet.h's; both arguments are live objects, `parent` is a greenlet,
    // and a new reference or null with an exception is returned.
    unsafe {
        let new: New = function(NEW);
        Bound::from_owned_ptr_or_err(run.py(), new(run.as_ptr(), parent.as_ptr()))
    }
}

/// The greenlet that runs now.
pub(crate) fn current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    type GetCurrent = unsafe extern "C" fn() -> *mut PyObject;
    // SAFETY: the type is greenlet.h's; a new reference or null with an exception is returned.
    unsafe {
        let get_current: GetCurrent = function(GET_CURRENT);
        Bound::from_owned_ptr_or_err(py, get_current())
    }
}

/// Switches to a greenlet; returns when something switches back here.
///
/// # Safety
/// * `target` is a live greenlet, and the caller's frame holds nothing that must not be copied away
///   with its stack: no borrow of the engine, no buffer that the kernel may write to.
pub(crate) unsafe fn switch(py: Python<'_>, target: *mut PyObject) -> PyResult<()> {
    type Switch =
        unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
    // SAFETY: the type is greenlet.h's; the caller vouches for the target; null arguments mean none.
    let result = unsafe {
        let switch: Switch = function(SWITCH);
        switch(target, std::ptr::null_mut(), std::ptr::null_mut())
    };
    finish(py, result)
}

/// Throws an exception in a greenlet, and returns when something switches back here.
///
/// # Safety
/// * As for [`switch`]; `kind` is an exception class.
pub(crate) unsafe fn throw(
    py: Python<'_>,
    target: *mut PyObject,
    kind: *mut PyObject,
) -> PyResult<()> {
    type Throw = unsafe extern "C" fn(
        *mut PyObject,
        *mut PyObject,
        *mut PyObject,
        *mut PyObject,
    ) -> *mut PyObject;
    // SAFETY: the type is greenlet.h's; the caller vouches for target and kind.
    let result = unsafe {
        let throw: Throw = function(THROW);
        throw(target, kind, std::ptr::null_mut(), std::ptr::null_mut())
    };
    finish(py, result)
}

fn finish(py: Python<'_>, result: *mut PyObject) -> PyResult<()> {
    if result.is_null() {
        return Err(PyErr::fetch(py));
    }
    // SAFETY: a new reference that nobody else owns.
    unsafe { ffi::Py_DECREF(result) };
    Ok(())
}

/// Whether a greenlet has begun and not ended.
pub(crate) fn is_active(greenlet: &Bound<'_, PyAny>) -> bool {
    type Active = unsafe extern "C" fn(*mut PyObject) -> c_int;
    // SAFETY: the type is greenlet.h's; a live greenlet, for which there is no error.
    unsafe {
        let active: Active = function(ACTIVE);
        active(greenlet.as_ptr()) > 0
    }
}

/// The greenlet that a greenlet returns to when it ends.
pub(crate) fn parent<'py>(greenlet: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    type GetParent = unsafe extern "C" fn(*mut PyObject) -> *mut PyObject;
    // SAFETY: the type is greenlet.h's; a live greenlet; a new reference, or null without an
    // exception, is returned.
    unsafe {
        let get_parent: GetParent = function(GET_PARENT);
        Bound::from_owned_ptr_or_opt(greenlet.py(), get_parent(greenlet.as_ptr()))
    }
}

/// References to an object, for telling whether somebody else holds it.
pub(crate) fn reference_count(object: &Bound<'_, PyAny>) -> isize {
    // SAFETY: a live object; the GIL is held.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

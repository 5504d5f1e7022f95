//! State of a Python object that the GIL guards.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use pyo3::prelude::*;
use theframework_memory::RECYCLES;

use crate::greenlet::reference_count;

/// A value inside a Python object, reached only with the GIL held.
#[derive(Default)]
pub(crate) struct GilBound<T>(T);

impl<T> GilBound<T> {
    pub(crate) fn new(value: T) -> Self {
        GilBound(value)
    }
}

impl<T> Deref for GilBound<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

// SAFETY: the module declares that it needs the GIL, so on every build it runs on, whoever has a
// reference to a Python object's inside holds the GIL, one thread at a time. No reference into the
// value is kept over a call that could let the GIL go: cells in it are taken, replaced or read
// between such calls (the rule in `lib.rs`). The values have no tie to the thread that made them.
unsafe impl<T> Sync for GilBound<T> {}
// SAFETY: as above.
unsafe impl<T> Send for GilBound<T> {}

/// A Python object that is made on first access.
pub(crate) struct Slot<T>(Cell<Option<Py<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot(Cell::new(None))
    }
}

impl<T> Slot<T> {
    /// The object, if it was made.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        let known = self.0.take();
        let result = known.as_ref().map(|known| known.bind(py).clone());
        self.0.set(known);
        result
    }

    /// The object, made now if need be. Making it may run Python code that asks for it too: the
    /// first one that was made stays.
    pub(crate) fn get_or_make<'py>(
        &self,
        py: Python<'py>,
        make: impl FnOnce() -> PyResult<Bound<'py, T>>,
    ) -> PyResult<Bound<'py, T>> {
        if let Some(known) = self.get(py) {
            return Ok(known);
        }
        let made = make()?;
        Ok(self.get(py).unwrap_or_else(|| {
            self.0.set(Some(made.clone().unbind()));
            made
        }))
    }

    /// Forgets the object. Its finaliser may run: nothing is borrowed here.
    pub(crate) fn clear(&self, py: Python<'_>) {
        if let Some(known) = self.0.take() {
            drop(known.into_bound(py));
        }
    }

    /// Shows the object to the cyclic garbage collector.
    pub(crate) fn visit(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        let known = self.0.take();
        let result = visit.call(&known);
        self.0.set(known);
        result
    }
}

/// Objects of one class that nobody holds any more, to be used again.
pub(crate) struct ObjectPool<T>(RefCell<Vec<Py<T>>>);

/// Objects kept; a batch needs one at a time, handlers that wait need more.
const POOL_MAX: usize = 64;

impl<T> Default for ObjectPool<T> {
    fn default() -> Self {
        ObjectPool(RefCell::new(Vec::new()))
    }
}

impl<T> ObjectPool<T> {
    /// An object that nobody else holds.
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        // Whoever walks the heap may have come by one that lay here.
        let object = self.0.borrow_mut().pop()?.into_bound(py);
        (reference_count(object.as_any()) == 1).then_some(object)
    }

    /// Takes an object back, if the caller's is the only reference to it.
    pub(crate) fn give(&self, object: Bound<'_, T>) {
        let is_ours = reference_count(object.as_any()) == 1;
        if RECYCLES && is_ours && self.0.borrow().len() < POOL_MAX {
            self.0.borrow_mut().push(object.unbind());
        }
    }
}

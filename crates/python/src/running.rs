//! Who runs, and who was pushed aside.
//!
//! The hub switches to one greenlet and gets control back when that one waits. Code of the
//! application may switch and throw by itself in between: into a handler that waits, into an idle
//! worker, into the hub. Then whoever did it stands in the middle of a call that nobody will ever
//! return from.
//!
//! ```text
//! hub --run--> A   ..throw..>   B (waits) : notices that the hub ran A, not B: A is pushed aside
//! hub <----------- waits or ends -- B     the hub runs A again in its next round: `throw` returns
//! ```
//!
//! So the hub notes whom it ran. Whoever comes out of a wait, goes into one, or comes back to the hub
//! is compared with that; another one is pushed aside and run again, unless the two are of one
//! handler: a handler may hand over between greenlets of its own as it likes.
//!
//! What is seen is each arrival in the core, not each switch. When a handler has several greenlets of
//! its own and one throws that the hub has not run yet, the one that the hub ran is resumed.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use theframework::engine::ExchangeId;

use crate::greenlet;

/// The exchange whose handler a worker runs; shared by the worker's frame and the table.
pub(crate) type Handling = Rc<Cell<Option<ExchangeId>>>;

/// References to a worker greenlet while it runs that are not the application's: `Running::now`,
/// and the interpreter's to the current greenlet.
const OWN_REFERENCES: isize = 2;

/// A greenlet that has to be run again.
pub(crate) struct Displaced {
    pub(crate) greenlet: Py<PyAny>,
    /// Its handler's time is over, and it is to be told.
    pub(crate) times_out: bool,
}

pub(crate) struct Running {
    pub(crate) hub: Py<PyAny>,
    now: Cell<Option<Py<PyAny>>>,
    /// Worker greenlets between the first and the last line of their function, by address. An
    /// exchange belongs to the worker that its greenlet descends from, whoever switched to it.
    workers: RefCell<HashMap<usize, Handling>>,
    displaced: RefCell<VecDeque<Displaced>>,
}

impl Running {
    pub(crate) fn new(hub: Py<PyAny>) -> Self {
        Running {
            hub,
            now: Cell::new(None),
            workers: RefCell::default(),
            displaced: RefCell::default(),
        }
    }

    /// The hub is about to switch to `target`.
    pub(crate) fn begins(&self, target: Py<PyAny>) -> *mut PyObject {
        let address = target.as_ptr();
        drop(self.now.replace(Some(target)));
        address
    }

    /// The hub has control again. Who has not gone into a wait or ended is pushed aside.
    pub(crate) fn is_back(&self, py: Python<'_>) {
        if let Some(ran) = self.now.take() {
            self.push_aside(ran.into_bound(py), None);
        }
    }

    /// `own` comes out of a wait. Says whether it was the hub that resumed it.
    pub(crate) fn arrives(&self, own: &Bound<'_, PyAny>) -> bool {
        self.is_not_displaced(own);
        match self.now.take() {
            Some(ran) if ran.is(own) => {
                self.now.set(Some(ran));
                true
            }
            Some(ran) => {
                self.now.set(Some(own.clone().unbind()));
                self.push_aside(ran.into_bound(own.py()), Some(own));
                false
            }
            // The hub itself let go of it: it gets its end.
            None => false,
        }
    }

    /// `own` is about to switch to the hub, or to end.
    pub(crate) fn leaves(&self, own: &Bound<'_, PyAny>) {
        self.is_not_displaced(own);
        if let Some(ran) = self.now.take()
            && !ran.is(own)
        {
            self.push_aside(ran.into_bound(own.py()), Some(own));
        }
    }

    /// Whether a worker may serve another request: the hub ran it, and nobody else holds it (a late
    /// kill of theirs must not hit another request).
    ///
    /// # Safety
    /// * `own` is the greenlet that runs now.
    pub(crate) unsafe fn may_go_on(&self, own: *mut PyObject) -> bool {
        let ran = self.now.take();
        let is_own = ran.as_ref().is_some_and(|ran| ran.as_ptr() == own);
        self.now.set(ran);
        // SAFETY: the greenlet that runs is alive, as the caller says; the GIL is held.
        is_own && unsafe { pyo3::ffi::Py_REFCNT(own) } == OWN_REFERENCES
    }

    /// The next one to be run again; those that have ended meanwhile are passed over.
    pub(crate) fn next_displaced(&self, py: Python<'_>) -> Option<Displaced> {
        loop {
            let next = self.displaced.borrow_mut().pop_front()?;
            if greenlet::is_active(next.greenlet.bind(py)) {
                return Some(next);
            }
        }
    }

    pub(crate) fn displaced_len(&self) -> usize {
        self.displaced.borrow().len()
    }

    /// Notes a worker, until the result is dropped.
    pub(crate) fn enter(&self, own: *mut PyObject, handling: Handling) -> Entry<'_> {
        let address = own as usize;
        self.workers.borrow_mut().insert(address, handling);
        Entry {
            running: self,
            address,
        }
    }

    pub(crate) fn worker_count(&self) -> usize {
        self.workers.borrow().len()
    }

    /// All workers that have not ended.
    pub(crate) fn workers(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let workers = self.workers.borrow();
        // SAFETY: an address stands in the table while the greenlet's function has not returned; it
        // is alive so long.
        let greenlet = |&address: &usize| unsafe {
            Bound::from_borrowed_ptr(py, address as *mut PyObject).unbind()
        };
        workers.keys().map(greenlet).collect()
    }

    /// The exchange that the greenlet works for.
    pub(crate) fn exchange_of(&self, own: &Bound<'_, PyAny>) -> Option<ExchangeId> {
        let worker = self.worker_of(own)?;
        self.workers.borrow().get(&worker)?.get()
    }

    /// The handler of `id` neither computes nor waits in a call of ours: it has switched away, and
    /// is told that its time is over where it stands. False if there is no such handler. Nothing is
    /// called here but the reference count.
    pub(crate) fn tell_timeout(&self, py: Python<'_>, id: ExchangeId) -> bool {
        let workers = self.workers.borrow();
        let found = workers
            .iter()
            .find(|(_, handling)| handling.get() == Some(id));
        let Some((&address, _)) = found else {
            return false;
        };
        let mut displaced = self.displaced.borrow_mut();
        for known in displaced.iter_mut() {
            if known.greenlet.as_ptr() as usize == address {
                known.times_out = true;
                return true;
            }
        }
        // SAFETY: as in `workers`.
        let greenlet = unsafe { Bound::from_borrowed_ptr(py, address as *mut PyObject).unbind() };
        displaced.push_back(Displaced {
            greenlet,
            times_out: true,
        });
        true
    }

    /// The worker that a greenlet is, or descends from.
    fn worker_of(&self, own: &Bound<'_, PyAny>) -> Option<usize> {
        let mut next = Some(own.clone());
        while let Some(greenlet) = next {
            let address = greenlet.as_ptr() as usize;
            if self.workers.borrow().contains_key(&address) {
                return Some(address);
            }
            next = greenlet::parent(&greenlet);
        }
        None
    }

    fn push_aside(&self, ran: Bound<'_, PyAny>, by: Option<&Bound<'_, PyAny>>) {
        if let Some(by) = by
            && let Some(worker) = self.worker_of(by)
            && self.worker_of(&ran) == Some(worker)
        {
            return;
        }
        // One that has ended returned to its parent, which then was who ran.
        let mut found = Some(ran);
        while let Some(greenlet) = found {
            if greenlet.is(&self.hub) || by.is_some_and(|by| by.is(&greenlet)) {
                return;
            }
            if greenlet::is_active(&greenlet) {
                let mut displaced = self.displaced.borrow_mut();
                if !displaced.iter().any(|known| known.greenlet.is(&greenlet)) {
                    displaced.push_back(Displaced {
                        greenlet: greenlet.unbind(),
                        times_out: false,
                    });
                }
                return;
            }
            found = greenlet::parent(&greenlet);
        }
    }

    /// Somebody has resumed it already. If it was to be told that its time is over, it still is.
    fn is_not_displaced(&self, own: &Bound<'_, PyAny>) {
        if !self.displaced.borrow().is_empty() {
            // The greenlet runs now, so that these are not the last references.
            self.displaced
                .borrow_mut()
                .retain(|known| known.times_out || !known.greenlet.is(own));
        }
    }
}

/// A worker's place in the table.
pub(crate) struct Entry<'a> {
    running: &'a Running,
    address: usize,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.running.workers.borrow_mut().remove(&self.address);
    }
}

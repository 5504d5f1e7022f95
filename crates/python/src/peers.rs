//! The workers' load in shared memory: 64 bytes for each, mapped before they were forked.
//!
//! A slot's first four bytes are the worker's connections plus one; 0 means that nobody is there.
//! The supervisor clears the slot of a worker that has ended.

use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use theframework::Peers;

const SLOT: usize = 64;

/// This worker's place among the others.
#[derive(Debug)]
pub(crate) struct SharedPeers {
    /// Keeps the mapping exported: it can be neither closed nor resized.
    buffer: PyBuffer<u8>,
    own: usize,
}

impl SharedPeers {
    pub(crate) fn new(memory: &Bound<'_, PyAny>, own: usize) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(memory)?;
        let is_usable = !buffer.readonly()
            && buffer.is_c_contiguous()
            && buffer.buf_ptr().align_offset(align_of::<AtomicU32>()) == 0
            && buffer.len_bytes() >= (own + 1) * SLOT;
        if !is_usable {
            return Err(PyValueError::new_err(
                "shared must be writable memory with 64 bytes for each worker",
            ));
        }
        Ok(SharedPeers { buffer, own })
    }

    /// Whether the memory has room for other workers.
    pub(crate) fn has_others(&self) -> bool {
        self.slots() > 1
    }

    fn slots(&self) -> usize {
        self.buffer.len_bytes() / SLOT
    }

    fn slot(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.slots());
        // SAFETY: inside the exported buffer, aligned (both checked), kept mapped by the export;
        // every process that touches it does so atomically.
        unsafe { &*self.buffer.buf_ptr().cast::<u8>().add(index * SLOT).cast() }
    }
}

impl Peers for SharedPeers {
    fn publish(&self, connections: usize) {
        self.slot(self.own)
            .store(connections as u32 + 1, Ordering::Relaxed);
    }

    fn lowest(&self) -> Option<usize> {
        (0..self.slots())
            .filter(|&index| index != self.own)
            .filter_map(|index| self.slot(index).load(Ordering::Relaxed).checked_sub(1))
            .min()
            .map(|lowest| lowest as usize)
    }
}

impl Drop for SharedPeers {
    fn drop(&mut self) {
        self.slot(self.own).store(0, Ordering::Relaxed);
    }
}

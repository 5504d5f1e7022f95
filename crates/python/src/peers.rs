//! The workers' load in shared memory: 64 bytes for each, mapped before they were forked. What they
//! mean is said in the engine's `peers`; the supervisor clears the slot of a worker that has ended.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use theframework::engine::{PeerSlot, SlotPeers};

/// The mapped slots. Kept exported: the memory can be neither closed nor resized.
#[derive(Debug)]
pub(crate) struct SharedSlots(PyBuffer<u8>);

impl AsRef<[PeerSlot]> for SharedSlots {
    fn as_ref(&self) -> &[PeerSlot] {
        let count = self.0.len_bytes() / size_of::<PeerSlot>();
        // SAFETY: writable, contiguous and aligned (checked in `shared_peers`), kept mapped by the
        // export; any bytes are valid slots, and every process touches them as atomics only.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), count) }
    }
}

/// This worker's place among the others.
pub(crate) fn shared_peers(
    memory: &Bound<'_, PyAny>,
    own: usize,
) -> PyResult<SlotPeers<SharedSlots>> {
    let buffer = PyBuffer::<u8>::get(memory)?;
    let is_usable = !buffer.readonly()
        && buffer.is_c_contiguous()
        && buffer.buf_ptr().cast::<PeerSlot>().is_aligned();
    is_usable
        .then(|| SlotPeers::new(SharedSlots(buffer), own))
        .flatten()
        .ok_or_else(|| {
            PyValueError::new_err("shared must be writable memory with 64 bytes for each worker")
        })
}

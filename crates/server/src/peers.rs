//! The workers' load in memory that they share: one slot for each.
//!
//! A slot's number is the worker's connections plus one; 0 means that nobody is there. Only the owner
//! writes a slot while it lives; the numbers are hints, and order nothing else, so they are relaxed.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::accept::Peers;

/// One worker's number, on a cache line of its own, so that writers do not disturb each other. All
/// zeroes is a slot without a worker.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct PeerSlot(AtomicU32);

/// A worker's place among the others; the slot is cleared when it is dropped.
pub struct SlotPeers<S: AsRef<[PeerSlot]>> {
    slots: S,
    own: usize,
    /// The slot is another process's: that of the parent.
    is_disowned: bool,
}

impl<S: AsRef<[PeerSlot]>> SlotPeers<S> {
    /// The worker whose slot is `own`; `None` if there is no such slot.
    pub fn new(slots: S, own: usize) -> Option<Self> {
        (own < slots.as_ref().len()).then_some(SlotPeers {
            slots,
            own,
            is_disowned: false,
        })
    }

    /// Whether there is room for other workers.
    pub fn has_others(&self) -> bool {
        self.slots.as_ref().len() > 1
    }

    fn store(&self, number: u32) {
        if let Some(PeerSlot(slot)) = self.slots.as_ref().get(self.own) {
            slot.store(number, Ordering::Relaxed);
        }
    }
}

impl<S: AsRef<[PeerSlot]>> Peers for SlotPeers<S> {
    fn publish(&self, connections: usize) {
        self.store(connections as u32 + 1);
    }

    fn lowest(&self) -> Option<usize> {
        let slots = self.slots.as_ref().iter().enumerate();
        slots
            .filter(|&(index, _)| index != self.own)
            .filter_map(|(_, PeerSlot(slot))| slot.load(Ordering::Relaxed).checked_sub(1))
            .min()
            .map(|lowest| lowest as usize)
    }

    fn disown(&mut self) {
        self.is_disowned = true;
    }
}

impl<S: AsRef<[PeerSlot]>> Drop for SlotPeers<S> {
    fn drop(&mut self) {
        if !self.is_disowned {
            self.store(0);
        }
    }
}

impl<S: AsRef<[PeerSlot]>> fmt::Debug for SlotPeers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotPeers")
            .field("slots", &self.slots.as_ref())
            .field("own", &self.own)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot go on fails.

    use std::sync::Arc;

    use super::*;

    fn slots(count: usize) -> Arc<[PeerSlot]> {
        (0..count).map(|_| PeerSlot::default()).collect()
    }

    #[test]
    fn the_lowest_is_of_the_others_that_live() {
        let slots = slots(3);
        let first = SlotPeers::new(Arc::clone(&slots), 0).unwrap();
        first.publish(0);
        assert_eq!(first.lowest(), None);
        let second = SlotPeers::new(Arc::clone(&slots), 1).unwrap();
        second.publish(7);
        let third = SlotPeers::new(Arc::clone(&slots), 2).unwrap();
        third.publish(9);
        assert_eq!((first.lowest(), second.lowest()), (Some(7), Some(0)));
        drop(second);
        assert_eq!(first.lowest(), Some(9));
        assert!(first.has_others());
        assert!(SlotPeers::new(slots, 3).is_none());
    }

    /// Run under ThreadSanitizer by `make sanitize`.
    #[test]
    fn workers_on_threads_publish_and_read() {
        const WORKERS: usize = 4;
        let slots = slots(WORKERS);
        std::thread::scope(|scope| {
            for own in 0..WORKERS {
                let slots = Arc::clone(&slots);
                scope.spawn(move || {
                    let peers = SlotPeers::new(slots, own).unwrap();
                    for connections in 0..5_000 {
                        peers.publish(connections * WORKERS + own);
                        if let Some(lowest) = peers.lowest() {
                            assert!(lowest < 5_000 * WORKERS);
                            assert_ne!(lowest % WORKERS, own, "never its own");
                        }
                    }
                });
            }
        });
        let last = SlotPeers::new(slots, 0).unwrap();
        assert_eq!(last.lowest(), None, "all have ended");
    }
}

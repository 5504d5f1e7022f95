//! Figures of a loop that other threads can read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::engine::{MemoryStats, Stats};

/// A loop's counters as of its last turn: each is right for itself.
#[derive(Default, Debug)]
pub(crate) struct Published {
    accepted: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
    overload: AtomicU64,
    turns: AtomicU64,
    connections: AtomicU64,
    exchanges: AtomicU64,
    cached_bytes: AtomicU64,
    chunks: AtomicU64,
    buffers: AtomicU64,
    blocks: AtomicU64,
}

impl Published {
    pub(crate) fn publish(&self, stats: Stats, memory: MemoryStats, connections: usize) {
        self.accepted.store(stats.accepted, Relaxed);
        self.requests.store(stats.requests, Relaxed);
        self.refused.store(stats.refused, Relaxed);
        self.overload.store(stats.overload, Relaxed);
        self.turns.store(stats.turns, Relaxed);
        self.connections.store(connections as u64, Relaxed);
        self.exchanges.store(memory.exchanges, Relaxed);
        self.cached_bytes.store(memory.cached_bytes, Relaxed);
        self.chunks.store(memory.chunks, Relaxed);
        self.buffers.store(memory.buffers, Relaxed);
        self.blocks.store(memory.blocks, Relaxed);
    }

    pub(crate) fn memory(&self) -> MemoryStats {
        MemoryStats {
            exchanges: self.exchanges.load(Relaxed),
            cached_bytes: self.cached_bytes.load(Relaxed),
            chunks: self.chunks.load(Relaxed),
            buffers: self.buffers.load(Relaxed),
            blocks: self.blocks.load(Relaxed),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            accepted: self.accepted.load(Relaxed),
            requests: self.requests.load(Relaxed),
            refused: self.refused.load(Relaxed),
            overload: self.overload.load(Relaxed),
            turns: self.turns.load(Relaxed),
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed) as usize
    }
}

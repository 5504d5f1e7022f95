//! The contract of the driver trait, kept by every driver alike.
//!
//! The cases (`receive`, `send`, `polls`, `accept`, `files`, `whole`) are plain functions over a [`World`], which
//! makes drivers, connections and their other ends. They assume nothing else of the world: no real
//! descriptors, no threads, no time but the driver's. `descriptors` has what only drivers on the
//! operating system can be asked. Each driver's module lists all cases, so that a missing one is seen.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod accept;
mod bench;
mod descriptors;
mod files;
mod poll;
mod polls;
mod receive;
mod send;
mod sim;
mod system;
mod uring;
mod whole;
mod world;

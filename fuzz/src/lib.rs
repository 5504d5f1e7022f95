//! What the fuzz targets check: one module for each, with a slow, plain oracle that was written from
//! the RFCs and shares no code with what it judges.
//!
//! A `check` panics on a finding. It does not depend on the fuzzer, so a reproducer that became a test
//! can call the same thing.

pub mod chunked;
pub mod connection;
pub mod cuts;
pub mod head;
#[path = "../../crates/http/tests/common/naive_chunked.rs"]
pub mod naive_chunked;
pub mod naive_head;
pub mod response;
pub mod target;

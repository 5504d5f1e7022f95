//! Completion drivers and timers. Knows no HTTP.
//!
//! * [`Driver`]: submit an operation with a token, get events with that token.
//! * [`UringDriver`]: the driver on io_uring.
//! * [`PollDriver`]: the driver on epoll, for hosts without io_uring.
//! * [`SystemDriver`]: one of the two, as [`choose`] found it best for this host.
//! * [`Write`]: one pending write, the owner of every byte that it sends.
//! * [`Filling`]: a request body on its way into its final place.
//! * [`Lease`]: bytes that arrived in a buffer of the receive pool.
//! * [`TimerWheel`]: every timeout and sleep of a worker.
//! * `sim` (feature `sim`): the driver on a simulated network, for tests.
//!
//! Everything here belongs to one thread; nothing is `Send`.

mod clock;
mod driver;
mod file;
mod filling;
mod lease;
mod poll;
#[cfg(feature = "sim")]
pub mod sim;
mod socket;
mod system;
mod timer;
mod uring;
mod write;

pub use driver::{Driver, Errno, Event, Interest, OpId, Outcome, Peer, SEND_AT_ONCE_MAX, Wait};
pub use file::{OpenFile, open_file};
pub use filling::{Filling, Space};
pub use lease::{LEASE_SIZE, Lease, LeasePool};
pub use poll::{PollConfig, PollDriver};
pub use system::{DriverConfig, DriverError, DriverKind, SystemDriver, Wish, choose};
pub use timer::{TICK_US, TimerId, TimerWheel};
pub use uring::{Feature, Features, SetupError, UringConfig, UringDriver, probe};
pub use write::{KeptBytes, NoBody, Write};

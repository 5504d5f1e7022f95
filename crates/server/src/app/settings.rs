//! What can be set of a server beside the limits of its loops.

use std::time::Duration;

use theframework_io::DriverKind;

use crate::config::Config;

/// How a server runs. Limits and timeouts of a connection are in [`Config`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits and timeouts of each loop. [`App::settings`](crate::App::settings) leaves them as they are:
    /// [`App::config`](crate::App::config) sets them.
    pub config: Config,
    /// Loops, each on a thread of its own; 0: one for each core.
    pub workers: usize,
    /// Connections that the kernel queues before they are accepted; `net.core.somaxconn` is its cap.
    pub backlog: u32,
    /// Each loop has TCP sockets of its own, among which the kernel spreads connections; else they share one,
    /// and the loop with fewest connections comes first.
    pub reuse_port: bool,
    /// This driver or none; `None`: io_uring where it works, else epoll.
    pub driver: Option<DriverKind>,
    /// Receive buffers of 4 KiB for each loop, a power of two.
    pub receive_buffers: u16,
    /// How long what is in flight may take when the server is stopped.
    pub graceful_timeout: Duration,
    /// Threads for work that blocks, of all loops together, at most.
    pub offload_threads: usize,
    /// SIGTERM and SIGINT stop the server: the first one lets it finish, a second one does not.
    pub handles_signals: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            config: Config::default(),
            workers: 1,
            backlog: 2048,
            reuse_port: false,
            driver: None,
            receive_buffers: 512,
            graceful_timeout: Duration::from_secs(30),
            offload_threads: 4,
            handles_signals: true,
        }
    }
}

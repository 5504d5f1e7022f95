//! The time of the drivers that run on the operating system.

use std::time::{Duration, Instant, SystemTime};

/// Starts at zero with its driver.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock {
            started: Instant::now(),
        }
    }

    pub(crate) fn now_us(self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    pub(crate) fn unix_time(self) -> Duration {
        // A clock before 1970 is wrong whatever it says.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

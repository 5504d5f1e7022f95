//! The driver of this host: io_uring where it works, else poll.
//!
//! [`choose`] decides once, before workers are forked, so that they never differ; what it decided is
//! plain data ([`DriverConfig`]), from which each worker makes its [`SystemDriver`].
//!
//! The driver is an enum of the two and each call a match. One of the variants is taken every time,
//! so the branch costs next to nothing, and nothing is dispatched by pointer.

use std::fmt;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use theframework_memory::OutOfMemory;

use crate::driver::{Driver, Errno, Event, Interest, OpId, Peer, Wait};
use crate::filling::Space;
use crate::poll::{PollConfig, PollDriver};
use crate::uring::{self, Features, SetupError, UringConfig, UringDriver};
use crate::write::{KeptBytes, Write};

/// The two drivers of an operating system.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DriverKind {
    /// Completions, by io_uring.
    IoUring,
    /// Readiness, by epoll.
    Poll,
}

impl DriverKind {
    /// Its name in settings, messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            DriverKind::IoUring => "io_uring",
            DriverKind::Poll => "poll",
        }
    }
}

/// What a user wishes of [`choose`].
#[derive(Copy, Clone, Debug)]
pub struct Wish {
    /// This driver or none; `None` takes io_uring where it works, else poll.
    pub kind: Option<DriverKind>,
    /// Receive buffers of 4 KiB for each driver, a power of two.
    pub receive_buffers: u16,
    /// What io_uring may use, if the kernel has it.
    pub features: Features,
    /// How many workers will have a driver at a time.
    pub workers: usize,
}

/// A driver that was chosen: all that is needed to make one.
#[derive(Copy, Clone, Debug)]
pub enum DriverConfig {
    /// With what was found to work.
    IoUring(UringConfig),
    /// Works wherever the process can open descriptors.
    Poll(PollConfig),
}

impl DriverConfig {
    /// Which of the two it is.
    pub fn kind(&self) -> DriverKind {
        match self {
            DriverConfig::IoUring(_) => DriverKind::IoUring,
            DriverConfig::Poll(_) => DriverKind::Poll,
        }
    }
}

/// Decides for a driver by trying io_uring with throw-away rings (a few milliseconds). Beside poll
/// comes the reason why it is not io_uring, if that was not asked for.
///
/// # Errors
/// [`SetupError`] when io_uring was asked for and does not work.
pub fn choose(wish: &Wish) -> Result<(DriverConfig, Option<SetupError>), SetupError> {
    let receive_buffers = wish.receive_buffers;
    let poll = DriverConfig::Poll(PollConfig { receive_buffers });
    if wish.kind == Some(DriverKind::Poll) {
        return Ok((poll, None));
    }
    let mut config = UringConfig {
        receive_buffers,
        features: wish.features,
        ..UringConfig::default()
    };
    match uring::probe(&config, wish.workers) {
        Ok(features) => {
            config.features = features;
            Ok((DriverConfig::IoUring(config), None))
        }
        Err(error) if wish.kind == Some(DriverKind::IoUring) => Err(error),
        Err(error) => Ok((poll, Some(error))),
    }
}

/// Either driver.
pub enum SystemDriver<B: KeptBytes> {
    /// See [`UringDriver`].
    IoUring(UringDriver<B>),
    /// See [`PollDriver`].
    Poll(PollDriver<B>),
}

impl<B: KeptBytes> fmt::Debug for SystemDriver<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SystemDriver::IoUring(driver) => driver.fmt(f),
            SystemDriver::Poll(driver) => driver.fmt(f),
        }
    }
}

impl<B: KeptBytes> SystemDriver<B> {
    /// Makes the chosen driver, on the thread that uses it.
    ///
    /// # Errors
    /// [`DriverError`]: what could be had when it was chosen is not there any more.
    pub fn new(config: &DriverConfig) -> Result<Self, DriverError> {
        match config {
            DriverConfig::IoUring(config) => UringDriver::new(config)
                .map(SystemDriver::IoUring)
                .map_err(DriverError::IoUring),
            DriverConfig::Poll(config) => PollDriver::new(config)
                .map(SystemDriver::Poll)
                .map_err(DriverError::Poll),
        }
    }

    /// Which of the two it is.
    pub fn kind(&self) -> DriverKind {
        match self {
            SystemDriver::IoUring(_) => DriverKind::IoUring,
            SystemDriver::Poll(_) => DriverKind::Poll,
        }
    }
}

/// Why a chosen driver could not be made.
#[derive(Debug)]
pub enum DriverError {
    /// Says the remedy itself.
    IoUring(SetupError),
    /// Memory or descriptors are short.
    Poll(std::io::Error),
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverError::IoUring(error) => write!(f, "{error}, or choose the driver poll"),
            DriverError::Poll(error) => write!(f, "the poll driver cannot be set up ({error})"),
        }
    }
}

impl std::error::Error for DriverError {}

impl<B: KeptBytes> Driver<B> for SystemDriver<B> {
    type Socket = OwnedFd;

    fn now_us(&self) -> u64 {
        match self {
            SystemDriver::IoUring(driver) => driver.now_us(),
            SystemDriver::Poll(driver) => driver.now_us(),
        }
    }

    fn unix_time(&self) -> Duration {
        match self {
            SystemDriver::IoUring(driver) => driver.unix_time(),
            SystemDriver::Poll(driver) => driver.unix_time(),
        }
    }

    fn accept(&mut self, listener: RawFd, token: u64) -> Result<OpId, OutOfMemory> {
        match self {
            SystemDriver::IoUring(driver) => driver.accept(listener, token),
            SystemDriver::Poll(driver) => driver.accept(listener, token),
        }
    }

    fn accept_now(&mut self, listener: RawFd) -> Result<Option<OwnedFd>, Errno> {
        match self {
            SystemDriver::IoUring(driver) => driver.accept_now(listener),
            SystemDriver::Poll(driver) => driver.accept_now(listener),
        }
    }

    fn receive(&mut self, fd: RawFd, token: u64) -> Result<OpId, OutOfMemory> {
        match self {
            SystemDriver::IoUring(driver) => driver.receive(fd, token),
            SystemDriver::Poll(driver) => driver.receive(fd, token),
        }
    }

    fn receive_into(&mut self, fd: RawFd, token: u64, space: Space<B>) -> Result<OpId, Space<B>> {
        match self {
            SystemDriver::IoUring(driver) => driver.receive_into(fd, token, space),
            SystemDriver::Poll(driver) => driver.receive_into(fd, token, space),
        }
    }

    fn send(&mut self, fd: RawFd, token: u64, write: Box<Write<B>>) -> Result<OpId, Box<Write<B>>> {
        match self {
            SystemDriver::IoUring(driver) => driver.send(fd, token, write),
            SystemDriver::Poll(driver) => driver.send(fd, token, write),
        }
    }

    fn read_file(
        &mut self,
        file: RawFd,
        token: u64,
        offset: u64,
        most: usize,
        write: Box<Write<B>>,
    ) -> Result<OpId, Box<Write<B>>> {
        match self {
            SystemDriver::IoUring(driver) => driver.read_file(file, token, offset, most, write),
            SystemDriver::Poll(driver) => driver.read_file(file, token, offset, most, write),
        }
    }

    fn poll(&mut self, fd: RawFd, interest: Interest, token: u64) -> Result<OpId, OutOfMemory> {
        match self {
            SystemDriver::IoUring(driver) => driver.poll(fd, interest, token),
            SystemDriver::Poll(driver) => driver.poll(fd, interest, token),
        }
    }

    fn cancel(&mut self, op: OpId) {
        match self {
            SystemDriver::IoUring(driver) => driver.cancel(op),
            SystemDriver::Poll(driver) => driver.cancel(op),
        }
    }

    fn shutdown_write(&mut self, fd: RawFd) {
        match self {
            SystemDriver::IoUring(driver) => driver.shutdown_write(fd),
            SystemDriver::Poll(driver) => driver.shutdown_write(fd),
        }
    }

    fn untaken(&self, fd: RawFd) -> usize {
        match self {
            SystemDriver::IoUring(driver) => driver.untaken(fd),
            SystemDriver::Poll(driver) => driver.untaken(fd),
        }
    }

    fn close(&mut self, socket: OwnedFd) {
        match self {
            SystemDriver::IoUring(driver) => driver.close(socket),
            SystemDriver::Poll(driver) => driver.close(socket),
        }
    }

    fn peer(&self, fd: RawFd) -> Peer {
        match self {
            SystemDriver::IoUring(driver) => driver.peer(fd),
            SystemDriver::Poll(driver) => driver.peer(fd),
        }
    }

    fn has_events(&mut self) -> bool {
        match self {
            SystemDriver::IoUring(driver) => driver.has_events(),
            SystemDriver::Poll(driver) => driver.has_events(),
        }
    }

    fn turn(&mut self, wait: Wait) -> Result<(), Errno> {
        match self {
            SystemDriver::IoUring(driver) => driver.turn(wait),
            SystemDriver::Poll(driver) => driver.turn(wait),
        }
    }

    fn next_event(&mut self) -> Option<Event<OwnedFd, B>> {
        match self {
            SystemDriver::IoUring(driver) => driver.next_event(),
            SystemDriver::Poll(driver) => driver.next_event(),
        }
    }

    fn give_up_after_fork(self) {
        match self {
            SystemDriver::IoUring(driver) => driver.give_up_after_fork(),
            SystemDriver::Poll(driver) => driver.give_up_after_fork(),
        }
    }

    fn abandon_after_fork(&mut self) {
        match self {
            SystemDriver::IoUring(driver) => driver.abandon_after_fork(),
            SystemDriver::Poll(driver) => driver.abandon_after_fork(),
        }
    }

    fn operations(&self) -> usize {
        match self {
            SystemDriver::IoUring(driver) => driver.operations(),
            SystemDriver::Poll(driver) => driver.operations(),
        }
    }

    fn leases(&self) -> usize {
        match self {
            SystemDriver::IoUring(driver) => driver.leases(),
            SystemDriver::Poll(driver) => driver.leases(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Outcome;
    use crate::write::NoBody;
    use std::io::Write as _;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const WISH: Wish = Wish {
        kind: None,
        receive_buffers: 16,
        features: Features::ALL,
        workers: 2,
    };

    fn links() -> Vec<String> {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .map(|link| link.display().to_string())
            .collect()
    }

    /// Receives through a driver of this configuration, and looks at the process's descriptors.
    fn serve(config: &DriverConfig, link: &str) {
        let mut driver = SystemDriver::<NoBody>::new(config).unwrap();
        assert_eq!(driver.kind(), config.kind());
        assert!(links().iter().any(|open| open == link), "{:?}", links());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        driver.receive(ours.as_raw_fd(), 7).unwrap();
        theirs.write_all(b"hello").unwrap();
        let event = loop {
            driver.turn(Wait::For(None)).unwrap();
            if let Some(event) = driver.next_event() {
                break event;
            }
        };
        let Outcome::Received(lease) = event.outcome else {
            panic!("{event:?}");
        };
        assert_eq!((event.token, event.more, &*lease), (7, true, &b"hello"[..]));
        assert_eq!((driver.operations(), driver.leases()), (1, 1));
    }

    #[test]
    fn the_one_that_was_asked_for_is_the_one_that_runs() {
        let poll = Wish {
            kind: Some(DriverKind::Poll),
            ..WISH
        };
        let (config, problem) = choose(&poll).unwrap();
        assert_eq!((config.kind(), problem.is_none()), (DriverKind::Poll, true));
        serve(&config, "anon_inode:[eventpoll]");

        let uring = Wish {
            kind: Some(DriverKind::IoUring),
            ..WISH
        };
        let (config, _) =
            choose(&uring).expect("io_uring works on the machine that runs the tests");
        assert_eq!(config.kind(), DriverKind::IoUring);
        serve(&config, "anon_inode:[io_uring]");
        assert_eq!(choose(&WISH).unwrap().0.kind(), DriverKind::IoUring);
    }
}

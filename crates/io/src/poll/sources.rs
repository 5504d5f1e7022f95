//! What is known of each descriptor, and its registration with the readiness library.
//!
//! A descriptor is registered once, edge-triggered, when an operation first has to wait for it, and
//! stays registered until it is closed: an edge is noted here, whether or not anybody waits for it.
//!
//! # Invariants
//!
//! - An event carries the generation that its source had at registration. Closing a source begins a new
//!   one, so an event of an earlier user of the same number (a forked child may still hold what it was
//!   registered for) finds nothing.
//! - While `is_sure`, the registration is that of the open descriptor: an operation has been watching it
//!   ever since, and a descriptor with operations is kept open. Without, the number may have been closed
//!   elsewhere and name something else by now, so whoever is to wait registers again. That reports the
//!   state as it is then, so no edge is lost.
//! - `is_readable` is set from an edge until a receive has shown that nothing is left.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use theframework_memory::{Key, OutOfMemory};

use crate::driver::Errno;

/// A token holds a generation and a descriptor.
const _: () = assert!(usize::BITS >= 64, "a token needs 64 bits");

/// Ends the list of a source's operations: a key that never finds anything.
pub(super) const NONE: Key = Key {
    index: 0,
    generation: 0,
};

/// The token of the descriptor that other threads wake the driver by: no source has its number.
pub(super) const WAKE: Token = Token(usize::MAX);

/// What is registered for a descriptor.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Registered {
    No,
    Read,
    ReadAndWrite,
}

/// One descriptor.
#[derive(Debug)]
pub(super) struct Source {
    /// The first of the operations that wait for it, or [`NONE`]; each names the next.
    pub(super) first: Key,
    generation: u32,
    registered: Registered,
    pub(super) is_sure: bool,
    /// A receive or an accept may find something.
    pub(super) is_readable: bool,
    /// The peer has closed or reset: a short read does not mean that nothing is left.
    pub(super) is_hung_up: bool,
}

impl Source {
    const fn new(generation: u32) -> Self {
        Source {
            first: NONE,
            generation,
            registered: Registered::No,
            is_sure: false,
            is_readable: false,
            is_hung_up: false,
        }
    }

    /// Forgets what the number meant: it names something else.
    fn renew(&mut self) {
        *self = Source {
            first: self.first,
            ..Source::new(self.generation.wrapping_add(1))
        };
    }

    fn token(&self, fd: RawFd) -> Token {
        Token((self.generation as usize) << 32 | fd as usize)
    }
}

/// What one event says.
#[derive(Copy, Clone, Debug)]
pub(super) struct Readiness {
    pub(super) token: Token,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    pub(super) is_hung_up: bool,
}

impl Readiness {
    pub(super) fn of(event: &mio::event::Event) -> Self {
        let is_hung_up = event.is_read_closed() || event.is_error();
        Readiness {
            token: event.token(),
            is_readable: event.is_readable() || is_hung_up,
            is_writable: event.is_writable() || event.is_write_closed() || event.is_error(),
            is_hung_up,
        }
    }
}

/// All descriptors by number, and the epoll instance that they are registered with.
#[derive(Debug)]
pub(super) struct Sources {
    poll: Poll,
    table: Vec<Source>,
}

impl Sources {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Sources {
            poll: Poll::new()?,
            table: Vec::new(),
        })
    }

    /// The epoll instance's.
    pub(super) fn descriptor(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Has what others write to `fd` reported as [`WAKE`], each time.
    pub(super) fn watch_wake(&self, fd: RawFd) -> Result<(), Errno> {
        SourceFd(&fd)
            .register(self.poll.registry(), WAKE, Interest::READABLE)
            .map_err(|error| errno_of(&error))
    }

    /// Gathers events; false when a signal came instead.
    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> Result<bool, Errno> {
        match self.poll.poll(events, timeout) {
            Ok(()) => Ok(true),
            Err(error) => match errno_of(&error) {
                Errno(libc::EINTR) => Ok(false),
                errno => Err(errno),
            },
        }
    }

    /// Makes sure that [`get_mut`](Self::get_mut) finds the descriptor. A negative number names none.
    pub(super) fn make_room(&mut self, fd: RawFd) -> Result<(), OutOfMemory> {
        let needed = usize::try_from(fd).map_or(0, |fd| fd + 1);
        if let Some(missing) = needed.checked_sub(self.table.len())
            && missing > 0
        {
            if needed > self.table.capacity() {
                // By an eighth, not by half: ten thousand idle connections have little else.
                let spare = missing.max(self.table.len() / 8).max(64);
                self.table
                    .try_reserve_exact(spare)
                    .map_err(|_| OutOfMemory)?;
            }
            self.table.resize_with(needed, || Source::new(0));
        }
        Ok(())
    }

    pub(super) fn get_mut(&mut self, fd: RawFd) -> Option<&mut Source> {
        self.table.get_mut(usize::try_from(fd).ok()?)
    }

    /// The descriptor that an event is about, unless it has been closed since.
    pub(super) fn find(&mut self, token: Token) -> Option<&mut Source> {
        let source = self.table.get_mut(token.0 & 0xffff_ffff)?;
        (source.generation == (token.0 >> 32) as u32).then_some(source)
    }

    /// The descriptor is about to be closed: its registration ends with it.
    pub(super) fn forget(&mut self, fd: RawFd) {
        if let Some(source) = self.get_mut(fd) {
            source.renew();
            source.first = NONE;
        }
    }

    /// Makes sure that the descriptor's next edge is reported; also that for writing, if asked.
    ///
    /// # Errors
    /// The operating system's: `EPERM` for what is always ready.
    pub(super) fn watch(&mut self, fd: RawFd, for_writing: bool) -> Result<(), Errno> {
        match self.get_mut(fd) {
            Some(source)
                if source.is_sure
                    && (!for_writing || source.registered == Registered::ReadAndWrite) =>
            {
                Ok(())
            }
            _ => self.watch_anew(fd, for_writing),
        }
    }

    /// As [`watch`](Self::watch), and has the present state reported as an edge.
    pub(super) fn watch_anew(&mut self, fd: RawFd, for_writing: bool) -> Result<(), Errno> {
        let registry = self.poll.registry();
        let source = usize::try_from(fd).ok();
        let Some(source) = source.and_then(|fd| self.table.get_mut(fd)) else {
            return Err(Errno(libc::EBADF));
        };
        let registered = if for_writing || source.registered == Registered::ReadAndWrite {
            Registered::ReadAndWrite
        } else {
            Registered::Read
        };
        let result = if source.registered == Registered::No {
            register(registry, fd, source, registered)
        } else {
            match reregister(registry, fd, source, registered) {
                // The number was closed elsewhere, and names something else now.
                Err(Errno(libc::ENOENT)) => {
                    source.renew();
                    let registered = if for_writing {
                        Registered::ReadAndWrite
                    } else {
                        Registered::Read
                    };
                    register(registry, fd, source, registered)
                }
                result => result,
            }
        };
        result?;
        source.is_sure = true;
        Ok(())
    }
}

fn register(
    registry: &Registry,
    fd: RawFd,
    source: &mut Source,
    registered: Registered,
) -> Result<(), Errno> {
    let result = SourceFd(&fd).register(registry, source.token(fd), interest(registered));
    noted(result, source, registered)
}

fn reregister(
    registry: &Registry,
    fd: RawFd,
    source: &mut Source,
    registered: Registered,
) -> Result<(), Errno> {
    let result = SourceFd(&fd).reregister(registry, source.token(fd), interest(registered));
    noted(result, source, registered)
}

fn noted(
    result: std::io::Result<()>,
    source: &mut Source,
    registered: Registered,
) -> Result<(), Errno> {
    result.map_err(|error| errno_of(&error))?;
    source.registered = registered;
    Ok(())
}

fn interest(registered: Registered) -> Interest {
    match registered {
        Registered::ReadAndWrite => Interest::READABLE | Interest::WRITABLE,
        Registered::Read | Registered::No => Interest::READABLE,
    }
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

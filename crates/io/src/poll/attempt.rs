//! One attempt at an operation whose descriptor is thought to be ready.

use std::os::fd::RawFd;
use std::ptr::NonNull;

use theframework_memory::Key;

use super::readers::{Job, Readers};
use super::{Core, Kind, Payload, State};
use crate::driver::{Errno, Outcome};
use crate::file;
use crate::filling::Space;
use crate::lease::LEASE_SIZE;
use crate::socket;
use crate::write::{KeptBytes, Write};

/// Buffers that one receive may fill in one turn (64 KiB): a peer that floods waits for the others.
const RECEIVES_MAX: usize = 16;
/// Connections that one accept may take in one turn.
const ACCEPTS_MAX: usize = 64;

impl<B: KeptBytes> Core<B> {
    /// Tries a receive or an accept.
    pub(super) fn try_read(&mut self, key: Key) {
        let Some(op) = self.ops.get_mut(key) else {
            return; // Cancelled meanwhile.
        };
        let (kind, fd, token) = (op.kind, op.fd, op.token);
        op.state = State::Waiting;
        match kind {
            Kind::Accept => self.try_accept(key, fd, token),
            Kind::Receive => self.try_receive(key, fd, token),
            Kind::ReceiveInto => self.try_receive_into(key, fd),
            Kind::ReadFile => self.try_read_file(key, fd),
            Kind::SendAtOnce | Kind::Send | Kind::Poll(_) => {
                unreachable!("neither is queued for reading")
            }
        }
    }

    fn try_receive(&mut self, key: Key, fd: RawFd, token: u64) {
        for _ in 0..RECEIVES_MAX {
            if !self.is_readable(fd) {
                return self.wait_to_read(key, fd);
            }
            let Some(id) = self.free.pop() else {
                if let Some(op) = self.ops.get_mut(key) {
                    op.state = State::Starved;
                    self.starved.push_back(key);
                }
                return;
            };
            match receive(fd, self.pool.address(id), LEASE_SIZE) {
                Ok(count) if count > 0 => {
                    self.note_received(fd, count < LEASE_SIZE);
                    // SAFETY: the buffer was free until now, and `count` bytes were read into it.
                    let lease = unsafe { self.pool.lease(id, count) };
                    self.tell(key, token, Outcome::Received(lease));
                }
                Ok(_) => {
                    self.free.push(id);
                    return self.finish(key, |_| Outcome::EndOfStream);
                }
                Err(Errno(libc::EAGAIN)) => {
                    self.free.push(id);
                    self.set_unreadable(fd);
                }
                Err(errno) => {
                    self.free.push(id);
                    return self.fail(key, errno);
                }
            }
        }
        self.go_on_later(key, fd);
    }

    fn try_receive_into(&mut self, key: Key, fd: RawFd) {
        if !self.is_readable(fd) {
            return self.wait_to_read(key, fd);
        }
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let Payload::Space(space) = &mut op.payload else {
            unreachable!("a single receive owns its space")
        };
        let (start, len) = match space {
            Space::Input(input) => {
                let free = input.free_mut();
                (NonNull::from(&mut *free).cast(), free.len())
            }
            Space::Body(body) => (
                body.free_ptr().unwrap_or(NonNull::dangling()),
                body.free_len(),
            ),
        };
        debug_assert!(
            len > 0,
            "a receive of nothing looks like the end of the stream"
        );
        let len = len.min(1 << 30);
        match receive(fd, start, len) {
            Ok(count) => {
                match space {
                    Space::Input(input) => input.commit(count),
                    Space::Body(body) => body.commit(count),
                }
                // The end of the stream is there for whoever reads next.
                self.note_received(fd, count > 0 && count < len);
                self.finish(key, |payload| match payload {
                    Payload::Space(space) => Outcome::ReceivedInto(space, Ok(count)),
                    _ => unreachable!("a single receive owns its space"),
                });
            }
            Err(Errno(libc::EAGAIN)) => {
                self.set_unreadable(fd);
                self.wait_to_read(key, fd);
            }
            Err(errno) => self.fail(key, errno),
        }
    }

    /// Reads what is in memory; a thread reads what is not.
    fn try_read_file(&mut self, key: Key, fd: RawFd) {
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let Payload::Reading(write) = &mut op.payload else {
            unreachable!("a read owns its write")
        };
        let (offset, space) = write.reading();
        match file::read_now(fd, space, offset) {
            Ok(count) if count > 0 => self.finish_file_read(key, Ok(count)),
            // Linux 5.9 and 5.10 may say 0 where the file goes on: the thread finds out. And whatever
            // refuses the quick way need not refuse the plain one.
            Ok(_) | Err(Errno(libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM)) => {
                self.send_away(key);
            }
            Err(errno) => self.fail(key, errno),
        }
    }

    /// Gives a read to the threads.
    fn send_away(&mut self, key: Key) {
        if let Some(op) = self.ops.get_mut(key)
            && let Payload::Reading(write) = &mut op.payload
            && let Some(readers) = &mut self.readers
        {
            let (offset, space) = write.reading();
            let job = Job {
                key,
                fd: op.fd,
                offset,
                space: NonNull::from(space),
            };
            op.state = State::Away;
            // SAFETY: the space belongs to the operation, which nobody takes it from while it is away:
            // see `take_back`, `take_file_reads` and `end_file_reads`.
            if let Err(errno) = unsafe { readers.submit(job) } {
                self.fail(key, errno);
            }
        }
    }

    /// Takes a read back that no thread has begun with. False: one has, and will tell.
    pub(super) fn take_back(&self, key: Key) -> bool {
        self.readers
            .as_ref()
            .is_some_and(|readers| readers.take_back(key))
    }

    /// The threads have something to tell.
    pub(super) fn take_file_reads(&mut self) {
        while let Some((key, result)) = self.readers.as_ref().and_then(Readers::next_done) {
            self.finish_file_read(key, result);
        }
    }

    fn finish_file_read(&mut self, key: Key, result: Result<usize, Errno>) {
        self.finish(key, |payload| {
            let Payload::Reading(mut write) = payload else {
                unreachable!("a read owns its write")
            };
            if let Ok(count) = result {
                write.commit_read(count);
            }
            Outcome::FileRead(write, result)
        });
    }

    /// The driver is dropped: no thread begins anything more, and what one does not end with in time
    /// keeps its space for ever.
    pub(super) fn end_file_reads(&mut self) {
        let Some(readers) = self.readers.take() else {
            return;
        };
        if readers.end() {
            return;
        }
        let keys: Vec<Key> = self.ops.keys().collect();
        for key in keys {
            if let Some(op) = self.ops.get_mut(key)
                && op.state == State::Away
            {
                std::mem::forget(std::mem::replace(&mut op.payload, Payload::None));
            }
        }
    }

    fn try_accept(&mut self, key: Key, listener: RawFd, token: u64) {
        for _ in 0..ACCEPTS_MAX {
            if !self.is_readable(listener) {
                return self.wait_to_read(key, listener);
            }
            match socket::accept_next(listener) {
                Ok(socket) => self.tell(key, token, Outcome::Accepted(socket)),
                Err(Errno(libc::EAGAIN)) => self.set_unreadable(listener),
                // Who waited has gone; the next one may not.
                Err(Errno(libc::ECONNABORTED | libc::EINTR)) => {}
                Err(errno) => return self.fail(key, errno),
            }
        }
        self.go_on_later(key, listener);
    }

    /// Sends what the socket takes.
    pub(super) fn try_send(&mut self, key: Key) {
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let Payload::Write(write) = &mut op.payload else {
            unreachable!("a send owns its write")
        };
        let before = write.sent();
        match send(op.fd, write) {
            Ok(count) => write.advance(count),
            Err(Errno(libc::EAGAIN)) => {}
            Err(errno) => return self.fail(key, errno),
        }
        let (fd, token, sent) = (op.fd, op.token, write.sent());
        let was_at_once = std::mem::replace(&mut op.kind, Kind::Send) == Kind::SendAtOnce;
        op.state = State::Waiting;
        if sent == write.len() {
            let event = self.end(key, |payload| match payload {
                Payload::Write(write) => Outcome::Sent(write, Ok(())),
                _ => unreachable!("a send owns its write"),
            });
            if was_at_once {
                self.sent.extend(event);
            } else {
                self.events.extend(event);
            }
            return;
        }
        if op.is_cancelling {
            return self.fail(key, Errno::CANCELLED);
        }
        if was_at_once || sent > before {
            self.tell(key, token, Outcome::SendProgress(sent));
        }
        self.link(key);
        if let Err(errno) = self.sources.watch(fd, true) {
            self.fail(key, errno);
        }
    }

    fn is_readable(&mut self, fd: RawFd) -> bool {
        self.sources
            .get_mut(fd)
            .is_some_and(|source| source.is_readable)
    }

    fn set_unreadable(&mut self, fd: RawFd) {
        if let Some(source) = self.sources.get_mut(fd) {
            source.is_readable = false;
        }
    }

    /// Bytes were read. A stream that had fewer than were asked for has no more, unless its end is
    /// there: the edge that told of the end will not come again.
    fn note_received(&mut self, fd: RawFd, was_short: bool) {
        if let Some(source) = self.sources.get_mut(fd)
            && was_short
            && !source.is_hung_up
        {
            source.is_readable = false;
        }
    }

    /// The operation has had its share of this turn.
    fn go_on_later(&mut self, key: Key, fd: RawFd) {
        if !self.is_readable(fd) {
            return self.wait_to_read(key, fd);
        }
        if let Some(op) = self.ops.get_mut(key) {
            op.state = State::Queued;
            self.later.push_back(key);
        }
    }

    /// Nothing is left to read: the operation waits for the next edge.
    fn wait_to_read(&mut self, key: Key, fd: RawFd) {
        if let Err(errno) = self.sources.watch(fd, false) {
            self.fail(key, errno);
        }
    }
}

/// Receives without waiting.
fn receive(fd: RawFd, start: NonNull<u8>, len: usize) -> Result<usize, Errno> {
    loop {
        // SAFETY: the caller has `len` writable bytes at `start` to itself during the call: a free
        // buffer of the pool, or the free end of a space that its operation owns.
        let count = unsafe { libc::recv(fd, start.as_ptr().cast(), len, libc::MSG_DONTWAIT) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) => match socket::last_errno() {
                Errno(libc::EINTR) => {}
                errno => return Err(errno),
            },
        }
    }
}

/// Sends what remains of a write, as much as the socket takes without waiting.
fn send<B: KeptBytes>(fd: RawFd, write: &mut Write<B>) -> Result<usize, Errno> {
    const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    loop {
        let [first, second, _] = write.remaining();
        let count = if second.is_empty() {
            let len = first.len().min(1 << 30);
            // SAFETY: the slice lives during the call.
            unsafe { libc::send(fd, first.as_ptr().cast(), len, FLAGS) }
        } else {
            // SAFETY: the header and its vectors lie in the write, and point at what it owns; it is
            // neither moved nor changed during the call.
            unsafe { libc::sendmsg(fd, write.message(), FLAGS) }
        };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) => match socket::last_errno() {
                Errno(libc::EINTR) => {}
                errno => return Err(errno),
            },
        }
    }
}

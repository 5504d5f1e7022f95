//! System calls on sockets that are made at once, by every driver on the operating system alike.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::SockRef;

use crate::driver::{Errno, Peer};

/// What the last system call of this thread failed with.
pub(crate) fn last_errno() -> Errno {
    Errno(
        std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO),
    )
}

/// Takes one waiting connection from a non-blocking listener; `None` when nobody waits.
pub(crate) fn accept(listener: RawFd) -> Result<Option<OwnedFd>, Errno> {
    match accept_next(listener) {
        Ok(socket) => Ok(Some(socket)),
        // Nobody waits, or who waited has gone.
        Err(Errno(libc::EAGAIN | libc::ECONNABORTED | libc::EINTR)) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// As [`accept`], with every error as it is.
pub(crate) fn accept_next(listener: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: plain system call with null address pointers.
    let fd = unsafe {
        libc::accept4(
            listener,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends FIN. A peer that has gone already makes it fail, which changes nothing.
pub(crate) fn shutdown_write(fd: RawFd) {
    // SAFETY: a plain system call on a descriptor that its connection owns.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Bytes in the socket's own buffer: taken from us, and not yet by the peer.
pub(crate) fn untaken(fd: RawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one `int`, which lives until the call returns.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        usize::try_from(bytes).unwrap_or(0)
    } else {
        0
    }
}

/// Who is at the other end.
pub(crate) fn peer(fd: RawFd) -> Peer {
    // SAFETY: whoever names a descriptor to the driver keeps it open for the call.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    match SockRef::from(&socket).peer_addr() {
        Ok(address) if address.is_unix() => Peer::Local,
        Ok(address) => address.as_socket().map_or(Peer::Gone, Peer::At),
        Err(_) => Peer::Gone,
    }
}

//! System calls that read from files: the driver on epoll makes them itself.

use std::os::fd::RawFd;
use std::ptr::NonNull;

use crate::driver::Errno;
use crate::socket::last_errno;

/// Reads what is in memory already, without waiting for the disk. The errors of a file that has nothing
/// there, or of a system that cannot tell: `EAGAIN`, `EOPNOTSUPP`, `ENOSYS`.
pub(crate) fn read_now(file: RawFd, space: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let vector = libc::iovec {
        iov_base: space.as_mut_ptr().cast(),
        iov_len: space.len(),
    };
    retried(|| {
        // SAFETY: the vector and the space that it names live during the call. By number, since the C
        // library's function may try to do without the flag. An offset has 64 bits, like a register; so
        // its upper half, which comes behind it, counts for nothing.
        let count = unsafe {
            libc::syscall(
                libc::SYS_preadv2,
                libc::c_long::from(file),
                &raw const vector,
                1_i64,
                offset,
                0_i64,
                libc::c_long::from(libc::RWF_NOWAIT),
            )
        };
        count as isize
    })
}

/// Reads, for as long as that takes.
///
/// # Safety
/// `space` is valid for writes during the call, and nobody else uses it.
pub(crate) unsafe fn read(file: RawFd, space: NonNull<[u8]>, offset: u64) -> Result<usize, Errno> {
    let start: *mut u8 = space.as_ptr().cast();
    retried(|| {
        // SAFETY: the caller's promise.
        unsafe { libc::pread64(file, start.cast(), space.len(), offset as i64) }
    })
}

fn retried(call: impl Fn() -> isize) -> Result<usize, Errno> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => match last_errno() {
                Errno(libc::EINTR) => {}
                errno => return Err(errno),
            },
        }
    }
}

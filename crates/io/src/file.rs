//! System calls on files: opening, and the reads that the driver on epoll makes itself.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;

use crate::driver::Errno;
use crate::socket::last_errno;

/// A regular file that is open for reading, and what was known of it then.
#[derive(Debug)]
pub struct OpenFile {
    /// The descriptor.
    pub file: OwnedFd,
    /// Length in bytes.
    pub len: u64,
    /// When it was last modified: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
}

/// Opens a regular file for [`Driver::read_file`](crate::Driver::read_file). Three system calls, the
/// first of which waits for the disk if the way to the file is not in memory.
///
/// # Errors
/// The operating system's; `EISDIR` for a directory, `EINVAL` for what is neither that nor a file.
pub fn open_file(path: &Path) -> std::io::Result<OpenFile> {
    // A pipe without a writer would be waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let errno = if metadata.is_dir() {
            libc::EISDIR
        } else {
            libc::EINVAL
        };
        return Err(std::io::Error::from_raw_os_error(errno));
    }
    block(&file)?;
    Ok(OpenFile {
        file: file.into(),
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec() as u32),
    })
}

/// Takes `O_NONBLOCK` back: io_uring would give up where it is to wait for the disk.
fn block(file: &File) -> std::io::Result<()> {
    // SAFETY: a plain system call on an open descriptor; of what it sets, only that flag was asked for.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let open = |path: &str| open_file(Path::new(path));
        let file = open("/proc/self/exe").unwrap();
        let metadata = std::fs::metadata("/proc/self/exe").unwrap();
        assert_eq!(
            (file.len, file.modified.0),
            (metadata.len(), metadata.mtime())
        );
        // SAFETY: a plain system call on an open descriptor.
        let flags = unsafe { libc::fcntl(file.file.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        let errno = |path: &str| open(path).unwrap_err().raw_os_error();
        assert_eq!(errno("/"), Some(libc::EISDIR));
        assert_eq!(errno("/dev/null"), Some(libc::EINVAL));
        assert_eq!(errno("/no/such/file"), Some(libc::ENOENT));
        let pipe = std::env::temp_dir().join(format!("theframework-pipe-{}", std::process::id()));
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: a path that ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let refused = errno(pipe.to_str().unwrap());
        std::fs::remove_file(pipe).unwrap();
        assert_eq!(refused, Some(libc::EINVAL));
    }
}

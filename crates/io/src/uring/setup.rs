//! Setting a ring up, and saying why it could not be.

use std::fmt;
use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Sizes of a driver.
#[derive(Copy, Clone, Debug)]
pub struct UringConfig {
    /// Submission queue entries; more than this many in one turn cost a further system call.
    pub entries: u32,
    /// Receive buffers of 4 KiB, a power of two. They are needed for one turn's arrivals only.
    pub receive_buffers: u16,
}

impl Default for UringConfig {
    fn default() -> Self {
        UringConfig {
            entries: 1024,
            receive_buffers: 512,
        }
    }
}

/// Why io_uring cannot be used here, and what to do about it.
#[derive(Debug)]
pub struct SetupError {
    errno: i32,
    missing: Option<&'static str>,
}

impl SetupError {
    pub(super) fn from_os(error: io::Error) -> Self {
        SetupError {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            missing: None,
        }
    }

    pub(super) fn memory() -> Self {
        SetupError {
            errno: libc::ENOMEM,
            missing: None,
        }
    }

    /// The operating system's error number.
    pub fn errno(&self) -> i32 {
        self.errno
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(missing) = self.missing {
            return write!(
                f,
                "this kernel's io_uring lacks {missing}: use Linux 6.1 or newer"
            );
        }
        let error = io::Error::from_raw_os_error(self.errno);
        let hint = match self.errno {
            libc::EPERM | libc::EACCES => {
                "a seccomp profile (Docker's and Kubernetes' defaults) or the sysctl \
                 kernel.io_uring_disabled blocks it: allow the io_uring system calls in the \
                 profile, or set kernel.io_uring_disabled=0"
            }
            libc::ENOSYS | libc::EOPNOTSUPP => {
                "this kernel or sandbox has no io_uring: use Linux 6.1 or newer"
            }
            libc::ENOMEM => "locked memory or memory is short: raise RLIMIT_MEMLOCK (ulimit -l)",
            libc::EINVAL => "this kernel's io_uring is too old: use Linux 6.1 or newer",
            libc::EMFILE | libc::ENFILE => "too many open files: raise the nofile limit",
            _ => "see the operating system's message",
        };
        write!(f, "io_uring cannot be set up ({error}): {hint}")
    }
}

impl std::error::Error for SetupError {}

pub(super) fn ring(config: &UringConfig) -> Result<IoUring, SetupError> {
    IoUring::builder()
        .setup_cqsize(config.entries * 4)
        .setup_clamp()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(config.entries)
        .map_err(SetupError::from_os)
}

/// Sets a small ring up and takes it down again: can this host run the driver?
///
/// # Errors
/// [`SetupError`] with the cause and what to do about it.
pub fn probe() -> Result<(), SetupError> {
    let ring = ring(&UringConfig {
        entries: 8,
        receive_buffers: 1,
    })?;
    let mut found = Probe::new();
    ring.submitter()
        .register_probe(&mut found)
        .map_err(SetupError::from_os)?;
    let needed = [
        (opcode::Accept::CODE, "accept"),
        (opcode::Recv::CODE, "receive"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::AsyncCancel::CODE, "cancel"),
        (opcode::Close::CODE, "close"),
        (opcode::Shutdown::CODE, "shutdown"),
        // Came with 6.0, as multishot receive did, which has no code of its own.
        (opcode::SendZc::CODE, "multishot receive"),
    ];
    for (code, name) in needed {
        if !found.is_supported(code) {
            return Err(SetupError {
                errno: libc::EOPNOTSUPP,
                missing: Some(name),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_errno_names_a_cause_and_a_remedy() {
        for errno in [
            libc::EPERM,
            libc::ENOSYS,
            libc::ENOMEM,
            libc::EOPNOTSUPP,
            libc::EINVAL,
        ] {
            let text = SetupError::from_os(io::Error::from_raw_os_error(errno)).to_string();
            assert!(!text.contains("operating system's message"), "{text}");
            assert!(text.starts_with("io_uring cannot be set up ("), "{text}");
        }
    }
}

//! Setting a ring up, and saying why it could not be.

use std::fmt;
use std::io;
use std::time::Duration;

use io_uring::IoUring;

use super::features::{Feature, Features};

/// How often a ring that lacks memory is tried again, and how long apart: the memory of a ring that
/// was closed a moment ago comes back late.
const MEMORY_RETRIES: u32 = 20;
const MEMORY_PAUSE: Duration = Duration::from_millis(20);

/// Sizes of a driver, and what it may use.
#[derive(Copy, Clone, Debug)]
pub struct UringConfig {
    /// Submission queue entries; more than this many in one turn cost a further system call.
    pub entries: u32,
    /// Receive buffers of 4 KiB, a power of two. They are needed for one turn's arrivals only.
    pub receive_buffers: u16,
    /// What the kernel has; see [`probe`](super::probe).
    pub features: Features,
}

impl Default for UringConfig {
    fn default() -> Self {
        UringConfig {
            entries: 1024,
            receive_buffers: 512,
            features: Features::ALL,
        }
    }
}

/// Why io_uring cannot be used here, and what to do about it.
#[derive(Debug)]
pub struct SetupError {
    errno: i32,
    missing: Option<&'static str>,
    confinement: Confinement,
}

impl SetupError {
    pub(crate) fn from_os(error: io::Error) -> Self {
        Self::from_errno(error.raw_os_error().unwrap_or(libc::EIO))
    }

    pub(crate) fn from_errno(errno: i32) -> Self {
        SetupError {
            errno,
            missing: None,
            confinement: Confinement::of_this_process(),
        }
    }

    /// The kernel has io_uring, but not this part of it, which nothing replaces.
    pub(super) fn missing(what: &'static str) -> Self {
        SetupError {
            missing: Some(what),
            ..Self::from_errno(libc::EOPNOTSUPP)
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
                "this kernel's io_uring lacks {missing}: use Linux 5.19 or newer"
            );
        }
        let error = io::Error::from_raw_os_error(self.errno);
        let hint = match (self.errno, self.confinement) {
            (libc::EPERM | libc::EACCES, Confinement::Sysctl) => {
                "the sysctl kernel.io_uring_disabled forbids it: set it to 0"
            }
            (libc::EPERM | libc::EACCES, Confinement::Seccomp) => {
                "a seccomp profile (as Docker's and Kubernetes' defaults) blocks it: allow \
                 io_uring_setup, io_uring_enter and io_uring_register in the profile"
            }
            (libc::EPERM | libc::EACCES, Confinement::Unknown) => {
                "a security policy of this host forbids it: allow io_uring in it"
            }
            (libc::ENOSYS | libc::EOPNOTSUPP, Confinement::Seccomp) => {
                "a seccomp profile or sandbox hides it, or the kernel has none: allow the io_uring \
                 system calls in the profile, on Linux 5.19 or newer"
            }
            (libc::ENOSYS | libc::EOPNOTSUPP, _) => {
                "this kernel or sandbox has no io_uring: use Linux 5.19 or newer"
            }
            (libc::ENOMEM, _) => {
                "locked memory or memory is short: raise RLIMIT_MEMLOCK (ulimit -l)"
            }
            (libc::EINVAL, _) => "this kernel's io_uring is too old: use Linux 5.19 or newer",
            (libc::EMFILE | libc::ENFILE, _) => "too many open files: raise the nofile limit",
            _ => "see the operating system's message",
        };
        write!(f, "io_uring cannot be set up ({error}): {hint}")
    }
}

impl std::error::Error for SetupError {}

/// What is known to stand between this process and io_uring.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Confinement {
    /// `kernel.io_uring_disabled` is not 0.
    Sysctl,
    /// A seccomp filter is active, as in most containers.
    Seccomp,
    Unknown,
}

impl Confinement {
    fn of_this_process() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        if matches!(read("/proc/sys/kernel/io_uring_disabled").trim(), "1" | "2") {
            Confinement::Sysctl
        } else if read("/proc/self/status")
            .lines()
            .any(|line| line.strip_prefix("Seccomp:").map(str::trim) == Some("2"))
        {
            Confinement::Seccomp
        } else {
            Confinement::Unknown
        }
    }
}

/// Sets a ring up with the flags of `config.features`.
pub(super) fn ring(config: &UringConfig) -> Result<IoUring, SetupError> {
    let mut tries = 0;
    loop {
        match build(config) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && tries < MEMORY_RETRIES => {
                tries += 1;
                std::thread::sleep(MEMORY_PAUSE);
            }
            result => return result.map_err(SetupError::from_os),
        }
    }
}

fn build(config: &UringConfig) -> io::Result<IoUring> {
    let has = |feature| config.features.has(feature);
    let mut builder = IoUring::builder();
    builder.setup_cqsize(config.entries * 4).setup_clamp();
    if has(Feature::SubmitAll) {
        builder.setup_submit_all();
    }
    if has(Feature::SingleIssuer) {
        builder.setup_single_issuer();
    }
    if has(Feature::SingleIssuer) && has(Feature::DeferTaskrun) {
        builder.setup_defer_taskrun().setup_taskrun_flag();
    } else if has(Feature::CoopTaskrun) {
        builder.setup_coop_taskrun().setup_taskrun_flag();
    }
    builder.build(config.entries)
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
            for confinement in [
                Confinement::Sysctl,
                Confinement::Seccomp,
                Confinement::Unknown,
            ] {
                let error = SetupError {
                    errno,
                    missing: None,
                    confinement,
                };
                let text = error.to_string();
                assert!(!text.contains("operating system's message"), "{text}");
                assert!(text.starts_with("io_uring cannot be set up ("), "{text}");
                assert!(!text.contains('\n'), "{text}");
            }
        }
    }
}

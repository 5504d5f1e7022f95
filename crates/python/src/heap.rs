//! The C library's heap, from which Python takes large objects.
//!
//! glibc gives memory back to the kernel as soon as it is free: a megabyte of request body would be
//! mapped, faulted in page by page, and unmapped, for each request (measured: 300 µs of CPU for a 1 MiB
//! upload, against 138 with the limits below). So it keeps more, and gives it back every
//! ten seconds, more seldom where that takes longer: what a burst took does not stay.

use std::time::Duration;

/// Objects below this size come from the heap, not from mappings of their own: the most that glibc takes.
#[cfg(target_env = "gnu")]
const MAPPED_MIN: libc::c_int = 32 * 1024 * 1024;
/// This much free memory is kept at the end of the heap: two bodies of 64 MiB and more, since one is let
/// go a little after the next has come.
#[cfg(target_env = "gnu")]
const KEPT_MAX: libc::c_int = 256 * 1024 * 1024;
/// How many mappings glibc may make, unless it is told otherwise.
#[cfg(target_env = "gnu")]
const MAPPINGS_MAX: libc::c_int = 65_536;

#[cfg(target_env = "gnu")]
fn is_left_to_us() -> bool {
    let ours = [
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_MMAP_MAX_",
        "MALLOC_TRIM_THRESHOLD_",
    ];
    ours.iter().all(|name| std::env::var_os(name).is_none())
}

/// Sets the limits; what the environment says (`MALLOC_…_`) comes first.
pub(crate) fn keep_more() {
    #[cfg(target_env = "gnu")]
    if is_left_to_us() {
        // SAFETY: plain settings of the allocator.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_MIN);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_MAX);
        }
    }
}

/// Calls `allocate` for an object of `len` bytes, and has it come from the heap also when it is so large
/// that glibc would map it: new pages for each body of 64 MiB made its bytes a quarter more expensive.
pub(crate) fn from_heap<T>(len: usize, allocate: impl FnOnce() -> T) -> T {
    #[cfg(target_env = "gnu")]
    if len >= MAPPED_MIN as usize && is_left_to_us() {
        // SAFETY: a plain setting of the allocator, which locks itself. What another thread allocates
        // meanwhile comes from the heap too.
        unsafe { libc::mallopt(libc::M_MMAP_MAX, 0) };
        let allocated = allocate();
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_MMAP_MAX, MAPPINGS_MAX) };
        return allocated;
    }
    allocate()
}

/// Gives free memory back to the kernel. Takes time in proportion to the heap (20 MiB: 0.4 ms); returns the
/// thread's own, which what else runs on the machine does not lengthen.
pub(crate) fn give_back() -> Duration {
    let began = thread_time();
    #[cfg(target_env = "gnu")]
    // SAFETY: no condition; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
    thread_time().saturating_sub(began)
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes to a local value only; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

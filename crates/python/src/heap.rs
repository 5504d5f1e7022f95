//! The C library's heap, from which Python takes large objects.
//!
//! glibc gives memory back to the kernel as soon as it is free: a megabyte of request body would be
//! mapped, faulted in page by page, and unmapped, for each request (measured: 300 µs of CPU for a 1 MiB
//! upload, against 138 with the limits below). So it keeps more, and gives it back every
//! ten seconds, more seldom where that takes longer: what a burst took does not stay.

/// Objects below this size come from the heap, not from mappings of their own.
#[cfg(target_env = "gnu")]
const MAPPED_MIN: libc::c_int = 32 * 1024 * 1024;
/// This much free memory is kept at the end of the heap.
#[cfg(target_env = "gnu")]
const KEPT_MAX: libc::c_int = 64 * 1024 * 1024;

/// Sets the limits; what the environment says (`MALLOC_…_`) comes first.
pub(crate) fn keep_more() {
    #[cfg(target_env = "gnu")]
    if std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_none()
        && std::env::var_os("MALLOC_TRIM_THRESHOLD_").is_none()
    {
        // SAFETY: plain settings of the allocator.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_MIN);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_MAX);
        }
    }
}

/// Gives free memory back to the kernel. Takes time in proportion to the heap (20 MiB: 0.4 ms).
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no condition; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

//! How the operating system schedules the hub's thread.

/// Asks for short time slices: a hub that wakes up beside a computing thread of the same process, or
/// of another, then runs within `slice_us` instead of within that thread's slice (3 ms and more).
///
/// Linux 6.12 and newer take the wish; older ones ignore it, and so do we: it is an improvement, not a
/// condition.
pub(crate) fn ask_for_short_slices(slice_us: u64) {
    // The kernel's `sched_attr`, in its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    let mut attributes = Attributes::default();
    let size = size_of::<Attributes>() as u32;
    // SAFETY: both calls are given a live structure of the size that they are told; 0 means this
    // thread.
    unsafe {
        let found = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0);
        if found == 0 && attributes.policy == libc::SCHED_OTHER as u32 {
            attributes.size = size;
            attributes.runtime_ns = slice_us * 1000;
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
        }
    }
}

//! What only this driver promises; the rest is in the contract suite.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use super::*;
use crate::write::NoBody;

/// Raises the kernel's flag for deferred work in a driver's ring, as the kernel does.
fn raise_taskrun(driver: &UringDriver<NoBody>) {
    const TASKRUN: u32 = 1 << 2;
    // The kernel's `io_uring_params`; the offset of the flags is the same in every ring.
    let mut params = [0_u32; 30];
    // SAFETY: the structure has 120 bytes; the ring that it makes is closed at once. The driver's ring
    // is mapped as the interface describes, and the flags are written as the kernel writes them.
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr());
        assert!(ring >= 0);
        libc::close(ring as i32);
        let flags_offset = params[14] as usize;
        let fd = driver.ring.as_raw_fd();
        let map = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        let flags = map.cast::<u8>().add(flags_offset).cast::<u32>();
        std::sync::atomic::AtomicU32::from_ptr(flags)
            .fetch_or(TASKRUN, std::sync::atomic::Ordering::SeqCst);
        libc::munmap(map, 4096);
    }
}

/// The kernel raises its flag for deferred work after it has queued that work: when the work is done
/// in between, the flag stays up with nothing behind it. Who takes it at its word polls for ever and
/// never waits (found on 6.18, with peers on another processor).
#[test]
fn a_flag_without_work_behind_it_does_not_keep_the_driver_from_waiting() {
    let config = UringConfig {
        entries: 64,
        receive_buffers: 4,
        ..UringConfig::default()
    };
    let mut driver: UringDriver<NoBody> = UringDriver::new(&config).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    driver.receive(ours.as_raw_fd(), 1).unwrap();
    let for_a_moment = Wait::For(Some(Duration::from_millis(20)));
    driver.turn(for_a_moment).unwrap();
    assert!(driver.next_event().is_none());
    assert!(!driver.has_events());
    raise_taskrun(&driver);
    assert!(driver.has_events());
    driver.turn(Wait::Poll).unwrap();
    assert!(driver.next_event().is_none());
    assert!(!driver.has_events(), "it would never wait again");
    // What comes then is found by the wait, and believed again afterwards.
    theirs.write_all(b"one").unwrap();
    driver
        .turn(Wait::For(Some(Duration::from_secs(2))))
        .unwrap();
    let event = driver.next_event().unwrap();
    assert!(matches!(event.outcome, Outcome::Received(lease) if &*lease == b"one"));
    raise_taskrun(&driver);
    assert!(driver.has_events());
}

#[test]
fn turns_that_only_poll_find_what_comes_behind_a_stale_flag() {
    let config = UringConfig {
        entries: 64,
        receive_buffers: 4,
        ..UringConfig::default()
    };
    let mut driver: UringDriver<NoBody> = UringDriver::new(&config).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    driver.receive(ours.as_raw_fd(), 1).unwrap();
    driver
        .turn(Wait::For(Some(Duration::from_millis(20))))
        .unwrap();
    raise_taskrun(&driver);
    driver.turn(Wait::Poll).unwrap();
    theirs.write_all(b"one").unwrap();
    let found = (0..10_000).any(|_| {
        driver.turn(Wait::Poll).unwrap();
        driver.next_event().is_some()
    });
    assert!(found, "a driver that polls does not look any more");
}

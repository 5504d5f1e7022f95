//! What can be asked of drivers on the operating system only: real descriptors, forks, limits.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use theframework_io::{Errno, Interest, Outcome, Wait};

use crate::bench::{Bench, pattern, write};
use crate::system::{OnSystem, System};
use crate::world::{Peer, World};

fn bench<D: OnSystem>(receive_buffers: u16) -> Bench<System<D>> {
    Bench::new(receive_buffers)
}

/// A pipe: what is read from, what is written to.
fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors, which nobody else owns.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

pub fn unix_sockets_are_served_alike<D: OnSystem>() {
    let mut bench = bench::<D>(4);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let receive = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    let sent = pattern(2_000_000);
    let send = bench
        .driver
        .send(ours.as_raw_fd(), 2, write(&sent, None))
        .unwrap();
    theirs.write_all(b"question").unwrap();
    theirs.set_nonblocking(true).unwrap();
    let (mut arrived, mut got, mut is_sent) = (Vec::new(), Vec::new(), false);
    let mut buffer = vec![0; 65_536];
    let mut turns = 0;
    while arrived.len() < sent.len() || !is_sent {
        turns += 1;
        assert!(turns < 5000, "the write does not end");
        bench.turn(Wait::For(Some(Duration::from_millis(1))));
        while let Some(event) = bench.driver.next_event() {
            match event.outcome {
                Outcome::Received(lease) => got.extend_from_slice(&lease),
                Outcome::SendProgress(_) => assert_eq!(event.op, send),
                Outcome::Sent(_, Ok(())) => is_sent = true,
                other => panic!("{other:?}"),
            }
        }
        while let Ok(count) = theirs.read(&mut buffer) {
            arrived.extend_from_slice(&buffer[..count]);
        }
    }
    assert!(arrived == sent, "bytes differ");
    assert_eq!(got, b"question");
    // The peer has read everything: that is no event.
    bench.quiet();
    let before_us = bench.driver.now_us();
    bench.turn(Wait::For(Some(Duration::from_millis(30))));
    assert!(bench.driver.now_us() - before_us >= 30_000);
    drop(theirs);
    assert!(matches!(bench.last(receive), Outcome::EndOfStream));
    let send = bench
        .driver
        .send(ours.as_raw_fd(), 2, write(b"x", None))
        .unwrap();
    match bench.last(send) {
        Outcome::Sent(_, Err(errno)) => assert_eq!(errno, Errno(libc::EPIPE)),
        other => panic!("{other:?}"),
    }
    bench.assert_clean();
}

/// An operation on what is no socket, or not open, fails in its event and not before.
pub fn what_is_not_a_socket_fails_with_its_error<D: OnSystem>() {
    let mut bench = bench::<D>(4);
    let file = File::open("/proc/self/exe").unwrap();
    let (pipe, _write_end) = pipe();
    for (fd, errno) in [
        (-1, libc::EBADF),
        (1_000_000, libc::EBADF),
        (file.as_raw_fd(), libc::ENOTSOCK),
        (pipe.as_raw_fd(), libc::ENOTSOCK),
    ] {
        let op = bench.driver.send(fd, 1, write(b"x", None)).unwrap();
        match bench.last(op) {
            Outcome::Sent(_, Err(found)) => assert_eq!(found, Errno(errno)),
            other => panic!("{other:?}"),
        }
        let op = bench.driver.receive(fd, 1).unwrap();
        if fd == pipe.as_raw_fd() {
            // Whether it is found out now or when there is something to read is not said.
            bench.driver.cancel(op);
            let event = bench.event();
            assert!(!event.more && matches!(event.outcome, Outcome::Failed(_)));
            continue;
        }
        match bench.last(op) {
            Outcome::Failed(found) => assert_eq!(found, Errno(errno)),
            other => panic!("{other:?}"),
        }
        if errno == libc::EBADF {
            let op = bench.driver.poll(fd, Interest::Readable, 1).unwrap();
            match bench.last(op) {
                Outcome::Failed(found) => assert_eq!(found, Errno(errno)),
                other => panic!("{other:?}"),
            }
        }
    }
    bench.assert_clean();
}

pub fn regular_files_are_always_ready<D: OnSystem>() {
    let mut bench = bench::<D>(1);
    let file = File::open("/proc/self/exe").unwrap();
    for interest in [Interest::Readable, Interest::Writable] {
        let op = bench.driver.poll(file.as_raw_fd(), interest, 1).unwrap();
        assert!(matches!(bench.last(op), Outcome::Ready));
    }
    let op = bench
        .driver
        .poll(file.as_raw_fd(), Interest::HangUp, 1)
        .unwrap();
    match bench.last(op) {
        Outcome::Failed(errno) => assert_eq!(errno, Errno(libc::EINVAL), "there is no such event"),
        other => panic!("{other:?}"),
    }
    bench.assert_clean();
}

/// As for a wake-up descriptor: written by others, drained by its owner, polled again.
pub fn a_pipe_is_polled_again_and_again<D: OnSystem>() {
    let mut bench = bench::<D>(1);
    let (reader, writer) = pipe();
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    for round in 0..20 {
        let op = bench
            .driver
            .poll(reader.as_raw_fd(), Interest::Readable, round)
            .unwrap();
        if round % 2 == 0 {
            bench.quiet();
        }
        writer.write_all(b"xy").unwrap();
        assert!(matches!(bench.last(op), Outcome::Ready));
        reader.read_exact(&mut [0]).unwrap();
        let op = bench
            .driver
            .poll(reader.as_raw_fd(), Interest::Readable, round)
            .unwrap();
        assert!(matches!(bench.last(op), Outcome::Ready));
        reader.read_exact(&mut [0]).unwrap();
    }
    let write_side = bench
        .driver
        .poll(writer.as_raw_fd(), Interest::HangUp, 1)
        .unwrap();
    bench.quiet();
    drop(reader);
    assert!(matches!(bench.last(write_side), Outcome::Ready));
    bench.assert_clean();
}

/// A descriptor that was polled, closed by its owner, and whose number names a connection now.
pub fn a_number_that_was_closed_elsewhere_means_the_new_connection<D: OnSystem>() {
    let mut bench = bench::<D>(4);
    let number = high_number();
    for round in 0..12 {
        let (polled, mut polled_peer) = at(number, bench.world.pair());
        if round % 2 == 0 {
            polled_peer.write(b"x");
        }
        let op = bench
            .driver
            .poll(polled.as_raw_fd(), Interest::Readable, 1)
            .unwrap();
        if round % 2 == 0 {
            assert!(matches!(bench.last(op), Outcome::Ready));
        } else {
            bench.driver.cancel(op);
            assert!(matches!(bench.last(op), Outcome::Failed(_)));
        }
        if round % 3 == 0 {
            // The number is closed with an edge that nobody has taken.
            polled_peer.shutdown_write();
            bench.world.settle();
        }
        drop(polled);
        let (ours, mut theirs) = at(number, bench.world.pair());
        let op = bench.driver.receive(ours.as_raw_fd(), 2).unwrap();
        bench.quiet();
        theirs.write(b"new");
        assert_eq!(bench.receive(3), b"new");
        assert_eq!(bench.cancel(op), b"");
        // The same once more, closed by its owner too.
        drop(ours);
        let (ours, mut theirs) = at(number, bench.world.pair());
        theirs.write(b"newest");
        bench.driver.receive(ours.as_raw_fd(), 3).unwrap();
        assert_eq!(bench.receive(6), b"newest");
        theirs.shutdown_write();
        assert!(matches!(bench.event().outcome, Outcome::EndOfStream));
        bench.driver.close(ours);
        bench.turn(Wait::Poll);
    }
    bench.assert_clean();
}

/// A number that no other test uses.
fn high_number() -> RawFd {
    use std::sync::atomic::{AtomicI32, Ordering};
    static NEXT: AtomicI32 = AtomicI32::new(900);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Moves our end to the given number.
fn at<P>(number: RawFd, (ours, peer): (OwnedFd, P)) -> (OwnedFd, P) {
    // SAFETY: the number is free, see `high_number`; the duplicate is owned by nobody else.
    let moved = unsafe {
        assert_eq!(libc::fcntl(number, libc::F_GETFD), -1, "{number} is in use");
        assert_eq!(libc::dup2(ours.as_raw_fd(), number), number);
        OwnedFd::from_raw_fd(number)
    };
    (moved, peer)
}

/// A child holds copies of everything: dropping its driver takes nothing from the parent. And what the
/// parent closes stays open in the child, with its registrations: their events mean nothing.
pub fn a_forked_child_takes_nothing_and_brings_nothing<D: OnSystem>() {
    for is_closed_elsewhere in [false, true] {
        fork_beside::<D>(is_closed_elsewhere);
    }
}

/// What was given to `close` and has not been in a turn ends with the child, too.
pub fn a_forked_child_closes_what_was_to_be_closed<D: OnSystem>() {
    let mut bench = bench::<D>(4);
    let (ours, mut theirs) = bench.world.pair();
    bench.driver.close(ours);
    bench.driver.abandon_after_fork();
    drop(bench.driver);
    bench.world.settle();
    assert!(theirs.read_available().is_end, "it is still open");
}

/// Also when nothing was pending: what is registered with the kernel stays registered.
pub fn a_forked_child_of_an_idle_driver_takes_nothing<D: OnSystem>() {
    let mut bench = bench::<D>(4);
    bench.turn(Wait::Poll);
    // SAFETY: the child touches only what is its own, and ends without running any more of the test.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        bench.driver.abandon_after_fork();
        drop(bench);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: waits for the child that was made above.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    let (ours, mut theirs) = bench.world.pair();
    let receive = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    theirs.write(b"still there");
    assert_eq!(bench.receive(11), b"still there");
    assert_eq!(bench.cancel(receive), b"");
    bench.assert_clean();
}

fn fork_beside<D: OnSystem>(is_closed_elsewhere: bool) {
    let mut bench = bench::<D>(4);
    let number = high_number();
    let (ours, mut theirs) = at(number, bench.world.pair());
    let receive = bench.driver.receive(number, 1).unwrap();
    bench.quiet();
    // Submitted, and in no turn yet: it goes out once, from the parent.
    let send = bench.driver.send(number, 3, write(b"once", None)).unwrap();
    let (told, tell) = pipe();
    let (dropped, drop_done) = pipe();
    // SAFETY: the child touches only what is its own, and ends without running any more of the test.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        bench.driver.abandon_after_fork();
        drop(tell);
        drop(bench);
        let _ = File::from(drop_done).write_all(b"x");
        let _ = File::from(told).read(&mut [0]);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    drop(told);
    File::from(dropped).read_exact(&mut [0]).unwrap();
    bench.world.settle();
    assert_eq!(theirs.read_available().bytes, b"");
    bench.turn(Wait::Poll);
    assert!(matches!(bench.last(send), Outcome::Sent(_, Ok(()))));
    bench.world.settle();
    assert_eq!(theirs.read_available().bytes, b"once");
    theirs.write(b"still ours");
    assert_eq!(bench.receive(10), b"still ours");
    assert_eq!(bench.cancel(receive), b"");
    if is_closed_elsewhere {
        drop(ours);
    } else {
        bench.driver.close(ours);
        bench.turn(Wait::Poll);
    }
    let (ours, mut new_peer) = at(number, bench.world.pair());
    let receive = bench.driver.receive(number, 2).unwrap();
    let hang_up = bench.driver.poll(number, Interest::HangUp, 3).unwrap();
    theirs.write(b"for the child's copy");
    bench.quiet();
    theirs.shutdown_write();
    bench.quiet();
    new_peer.write(b"new");
    assert_eq!(bench.receive(3), b"new");
    assert_eq!(bench.cancel(receive), b"");
    assert_eq!(bench.cancel(hang_up), b"");
    bench.driver.close(ours);
    bench.assert_clean();
    drop(tell);
    let mut status = -1;
    // SAFETY: waits for the child that was made above.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
}

/// Two drivers poll one listener, as two workers do: each hears of everybody who waits.
pub fn a_shared_listener_is_polled_by_all<D: OnSystem>() {
    let mut one = bench::<D>(1);
    let mut two = bench::<D>(1);
    let listener = one.world.listener();
    let fd = listener.as_raw_fd();
    for _ in 0..10 {
        let first = one.driver.poll(fd, Interest::Readable, 1).unwrap();
        let second = two.driver.poll(fd, Interest::Readable, 1).unwrap();
        one.quiet();
        two.quiet();
        let _client = one.world.connect(&listener);
        assert!(matches!(one.last(first), Outcome::Ready));
        assert!(matches!(two.last(second), Outcome::Ready));
        assert!(two.driver.accept_now(fd).unwrap().is_some());
        assert!(one.driver.accept_now(fd).unwrap().is_none());
    }
    one.assert_clean();
    two.assert_clean();
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// A signal ends a wait, so that whoever runs the driver can look what it was.
pub fn a_signal_ends_a_wait<D: OnSystem>() {
    let mut bench = bench::<D>(1);
    // SAFETY: the handler does nothing; the thread that is told lives until it has joined the other.
    let this = unsafe {
        libc::signal(libc::SIGUSR1, ignore as *const () as libc::sighandler_t);
        libc::pthread_self()
    };
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        // SAFETY: see above.
        unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
    });
    let before_us = bench.driver.now_us();
    bench.turn(Wait::For(Some(Duration::from_secs(5))));
    let waited_us = bench.driver.now_us() - before_us;
    assert!((40_000..2_000_000).contains(&waited_us), "{waited_us} us");
    assert!(bench.driver.next_event().is_none());
    other.join().unwrap();
    bench.assert_clean();
}

/// Data come for a receive that has no buffer: the wait ends when its time is over, and no later.
pub fn what_nobody_can_take_does_not_lengthen_a_wait<D: OnSystem>() {
    let mut bench = bench::<D>(1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    theirs.write_all(&[1; 6000]).unwrap();
    let held = bench.event();
    bench.quiet();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        theirs.write_all(b"x").unwrap();
        theirs
    });
    let before_us = bench.driver.now_us();
    bench.turn(Wait::For(Some(Duration::from_millis(400))));
    let waited_us = bench.driver.now_us() - before_us;
    assert!((400_000..650_000).contains(&waited_us), "{waited_us} us");
    drop(held);
    let _theirs = other.join().unwrap();
    assert_eq!(bench.receive(1905).len(), 1905);
}

const CHILD: &str = "THEFRAMEWORK_CONTRACT_CHILD";

/// Out of descriptors: the accept ends with the error, and accepting goes on when it is asked for
/// again. In a process of its own, since the limit is the process's.
pub fn accepting_without_descriptors_fails_and_recovers<D: OnSystem>(name: &str) {
    if std::env::var_os(CHILD).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
            "{output:?}"
        );
        return;
    }
    let mut bench = bench::<D>(1);
    let listener = bench.world.listener();
    let fd = listener.as_raw_fd();
    let clients: Vec<_> = (0..3).map(|_| bench.world.connect(&listener)).collect();
    // The next free number is the limit.
    let next = File::open("/proc/self/exe").unwrap().as_raw_fd();
    let set_limit = |limit: u64| {
        let mut limits = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: both calls get a valid structure.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits), 0);
            limits.rlim_cur = limit;
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits), 0);
        }
    };
    set_limit(next as u64);
    let accept = bench.driver.accept(fd, 1).unwrap();
    match bench.last(accept) {
        Outcome::Failed(errno) => {
            assert_eq!(errno, Errno(libc::EMFILE));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        bench.driver.accept_now(fd).unwrap_err(),
        Errno(libc::EMFILE)
    );
    bench.quiet();
    set_limit(1000);
    let accept = bench.driver.accept(fd, 2).unwrap();
    let mut sockets = Vec::new();
    for _ in &clients {
        match bench.event().outcome {
            Outcome::Accepted(socket) => sockets.push(socket),
            other => panic!("{other:?}"),
        }
    }
    bench.driver.cancel(accept);
    assert!(matches!(
        bench.last(accept),
        Outcome::Failed(Errno::CANCELLED)
    ));
    bench.assert_clean();
}

//! Reading from files: into a write, which is then sent.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use theframework_io::{Driver, Errno, OpId, Outcome, Wait, Write};

use crate::bench::{Bench, pattern, write};
use crate::system::{OnSystem, System};
use crate::world::{Body, Peer, World};

/// A write of bytes with room for so many more behind them.
fn space(bytes: &[u8], room: usize) -> Box<Write<Body>> {
    let mut write = write(bytes, None);
    write.arena_mut().reserve(room).unwrap();
    write
}

fn bytes_of(write: Write<Body>) -> Vec<u8> {
    write.into_parts().0.as_slice().to_vec()
}

/// The write that a read brought home, and how much was read.
fn came_home<S: std::fmt::Debug>(
    outcome: Outcome<S, Body>,
) -> (Box<Write<Body>>, Result<usize, Errno>) {
    match outcome {
        Outcome::FileRead(write, result) => (write, result),
        other => panic!("{other:?}"),
    }
}

impl<W: World> Bench<W> {
    fn read(&mut self, file: RawFd, offset: u64, most: usize, write: Box<Write<Body>>) -> OpId {
        self.driver.read_file(file, 7, offset, most, write).unwrap()
    }

    /// Reads until so many bytes are there, or the file is at its end.
    fn read_all(&mut self, file: RawFd, mut offset: u64, len: usize) -> Vec<u8> {
        let mut got = space(b"", len);
        while got.len() < len {
            let op = self.read(file, offset, len - got.len(), got);
            let (write, result) = came_home(self.last(op));
            got = write;
            match result.unwrap() {
                0 => break,
                count => offset += count as u64,
            }
        }
        bytes_of(*got)
    }
}

pub fn a_file_is_read_behind_what_the_write_has_and_sent<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let file = bench.world.file(b"0123456789");
    let op = bench.read(file.as_raw_fd(), 2, 5, space(b"head ", 100));
    assert!(
        bench.driver.next_event().is_none(),
        "nothing was submitted yet"
    );
    let event = bench.event();
    assert_eq!((event.token, event.op, event.more), (7, op, false));
    let (write, result) = came_home(event.outcome);
    let count = result.unwrap();
    assert!(Bench::<W>::is_legal_amount(count, 5));
    let expected = [b"head ", &b"23456"[..count]].concat();
    assert_eq!((write.len(), write.sent()), (expected.len(), 0));
    let op = bench.driver.send(ours.as_raw_fd(), 3, write).unwrap();
    assert_eq!(bench.small_write(op, 3).sent(), expected.len());
    bench.world.settle();
    assert_eq!(theirs.read_available().bytes, expected);
    bench.assert_clean();
}

pub fn a_read_takes_what_fits_and_no_more<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let bytes = pattern(20_000);
    let file = bench.world.file(&bytes);
    let read = |bench: &mut Bench<W>, most, write| {
        let op = bench.read(file.as_raw_fd(), 0, most, write);
        let (write, result) = came_home(bench.last(op));
        (bytes_of(*write), result.unwrap())
    };
    // Less than there is room for; exactly one byte; all that there is room for.
    let (got, count) = read(&mut bench, 700, space(b"", 4000));
    assert!(Bench::<W>::is_legal_amount(count, 700));
    assert_eq!(got, bytes[..count]);
    assert_eq!(read(&mut bench, 1, space(b"", 1)), (bytes[..1].to_vec(), 1));
    let mut full = space(b"x", 1);
    let room = full.arena_mut().capacity() - 1;
    let (got, count) = read(&mut bench, usize::MAX, full);
    assert!(Bench::<W>::is_legal_amount(count, room));
    assert_eq!((got[0], &got[1..]), (b'x', &bytes[..count]));
    bench.assert_clean();
}

pub fn a_read_at_the_end_brings_nothing<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let file = bench.world.file(b"0123456789");
    let empty = bench.world.file(b"");
    for (fd, offset) in [
        (file.as_raw_fd(), 10),
        (file.as_raw_fd(), 11),
        (file.as_raw_fd(), 1 << 40),
        (empty.as_raw_fd(), 0),
    ] {
        let op = bench.read(fd, offset, 100, space(b"head", 100));
        let (write, result) = came_home(bench.last(op));
        assert_eq!((write.len(), result), (4, Ok(0)));
    }
    assert_eq!(bench.read_all(file.as_raw_fd(), 8, 100), b"89");
    bench.assert_clean();
}

pub fn a_file_is_read_in_pieces<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let bytes = pattern(300_000);
    let file = bench.world.file(&bytes);
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        let piece = bench.read_all(file.as_raw_fd(), got.len() as u64, 65_536);
        assert_eq!(piece.len(), (bytes.len() - got.len()).min(65_536));
        got.extend(piece);
    }
    assert!(got == bytes, "bytes differ");
    bench.assert_clean();
}

pub fn a_file_that_has_changed_is_read_as_it_is<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let file = bench.world.file(&pattern(50_000));
    let fd = file.as_raw_fd();
    assert_eq!(bench.read_all(fd, 0, 10_000), pattern(10_000));
    bench.world.change(&file, b"short");
    assert_eq!(bench.read_all(fd, 10_000, 10_000), b"");
    assert_eq!(bench.read_all(fd, 0, 10_000), b"short");
    bench.world.change(&file, &pattern(20_000));
    assert_eq!(bench.read_all(fd, 5, 19_995), pattern(20_000)[5..]);
    bench.assert_clean();
}

pub fn many_reads_end_each_for_itself<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let bytes = pattern(100_000);
    let file = bench.world.file(&bytes);
    for token in 0..300 {
        let write = space(&token.to_string().into_bytes(), 100);
        let fd = file.as_raw_fd();
        bench
            .driver
            .read_file(fd, token, token * 300, 50, write)
            .unwrap();
    }
    let mut tokens = Vec::new();
    while tokens.len() < 300 {
        let event = bench.event();
        assert!(!event.more);
        let (write, result) = came_home(event.outcome);
        let count = result.unwrap();
        assert!(Bench::<W>::is_legal_amount(count, 50));
        let start = event.token as usize * 300;
        let mut expected = event.token.to_string().into_bytes();
        expected.extend(&bytes[start..start + count]);
        assert_eq!(bytes_of(*write), expected);
        tokens.push(event.token);
    }
    tokens.sort_unstable();
    assert_eq!(tokens, (0..300).collect::<Vec<_>>());
    bench.assert_clean();
}

pub fn a_read_ends_a_wait<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, _theirs) = bench.world.pair();
    let receive = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    let file = bench.world.file(b"x");
    let op = bench.read(file.as_raw_fd(), 0, 1, space(b"", 1));
    bench.turn(Wait::For(None));
    let event = bench.driver.next_event().expect("one turn is enough");
    assert_eq!(event.op, op);
    assert_eq!(came_home(event.outcome).1, Ok(1));
    assert_eq!(bench.cancel(receive), b"");
    bench.assert_clean();
}

pub fn a_cancelled_read_brings_its_write_home<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let bytes = pattern(100_000);
    let file = bench.world.file(&bytes);
    for turns in [0, 0, 1, 2] {
        let op = bench.read(file.as_raw_fd(), 0, 100_000, space(b"head", 100_000));
        let mut event = None;
        for _ in 0..turns {
            bench.turn(Wait::Poll);
            event = event.or_else(|| bench.driver.next_event());
        }
        bench.driver.cancel(op);
        bench.driver.cancel(op);
        let event = event.unwrap_or_else(|| bench.event());
        assert_eq!((event.op, event.more), (op, false));
        let (write, result) = came_home(event.outcome);
        let count = result.or_else(|errno| (errno == Errno::CANCELLED).then_some(0).ok_or(errno));
        assert_eq!(
            bytes_of(*write),
            [b"head", &bytes[..count.unwrap()]].concat()
        );
    }
    bench.assert_clean();
}

/// Reads go on all the time, and so does a connection.
pub fn a_read_does_not_hold_up_a_connection<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let bytes = pattern(100_000);
    let file = bench.world.file(&bytes);
    let receive = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    let (mut got, mut reads) = (0, 0);
    let mut home = Some(space(b"", 65_536));
    for _ in 0..20 {
        theirs.write(b"x");
        bench.world.settle();
        let sent = got + 1;
        while got < sent || reads < sent {
            if let Some(mut write) = home.take() {
                write.arena_mut().truncate(0);
                bench.read(file.as_raw_fd(), 1000, 65_536, write);
            }
            match bench.event().outcome {
                Outcome::Received(lease) => got += lease.len(),
                outcome => {
                    let (write, result) = came_home(outcome);
                    let count = result.unwrap();
                    let mut write = write;
                    assert!(write.arena_mut().as_slice() == &bytes[1000..1000 + count]);
                    home = Some(write);
                    reads += 1;
                }
            }
        }
    }
    if home.is_none() {
        let (_, result) = came_home(bench.event().outcome);
        result.unwrap();
    }
    assert_eq!(bench.cancel(receive), b"");
    bench.assert_clean();
}

pub fn dropping_the_driver_with_reads_pending_is_clean<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let file = bench.world.file(&pattern(100_000));
    for turns in [0, 1] {
        bench.read(file.as_raw_fd(), 0, 100_000, space(b"", 100_000));
        for _ in 0..turns {
            bench.turn(Wait::Poll);
        }
        bench.read(file.as_raw_fd(), 0, 100_000, space(b"", 100_000));
        let fresh = bench.world.driver(1);
        drop(std::mem::replace(&mut bench.driver, fresh));
    }
    drop(file);
    bench.assert_clean();
}

pub fn what_cannot_be_read_fails_with_its_error<D: OnSystem>() {
    let mut bench = Bench::<System<D>>::new(1);
    let folder = File::open("/").unwrap();
    let write_only = File::options().write(true).open("/dev/null").unwrap();
    for (fd, errno) in [
        (-1, libc::EBADF),
        (1_000_000, libc::EBADF),
        (write_only.as_raw_fd(), libc::EBADF),
        (folder.as_raw_fd(), libc::EISDIR),
    ] {
        let op = bench.read(fd, 0, 10, space(b"head", 10));
        let (write, result) = came_home(bench.last(op));
        assert_eq!((write.len(), result), (4, Err(Errno(errno))));
    }
    bench.assert_clean();
}

/// Pages that the kernel has dropped, where it does what it was asked for.
pub fn a_file_that_is_not_in_memory_is_read<D: OnSystem>() {
    let mut bench = Bench::<System<D>>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let receive = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    let bytes = pattern(3_000_000);
    let file = bench.world.file(&bytes);
    // SAFETY: plain system calls on an open descriptor.
    unsafe {
        assert_eq!(libc::fsync(file.as_raw_fd()), 0);
        let advice = libc::POSIX_FADV_DONTNEED;
        assert_eq!(libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice), 0);
    }
    for (token, start) in (0..bytes.len()).step_by(500_000).enumerate() {
        let fd = file.as_raw_fd();
        let write = space(b"", 500_000);
        bench
            .driver
            .read_file(fd, 10 + token as u64, start as u64, 500_000, write)
            .unwrap();
    }
    theirs.write(b"x");
    let mut got = 0;
    let mut reads = 0;
    while got < 1 || reads < 6 {
        let event = bench.event();
        match event.outcome {
            Outcome::Received(lease) => got += lease.len(),
            outcome => {
                let (write, result) = came_home(outcome);
                let start = (event.token as usize - 10) * 500_000;
                // Behind what is in memory the kernel may stop, and go on with the next read.
                let count = result.unwrap();
                assert!(count > 0);
                assert!(bytes_of(*write) == bytes[start..start + count]);
                reads += 1;
            }
        }
    }
    assert!(bench.read_all(file.as_raw_fd(), 0, 3_000_000) == bytes);
    assert_eq!(bench.cancel(receive), b"");
    bench.assert_clean();
}

/// Files of this kind do not know what reading without waiting is.
pub fn a_file_that_only_a_thread_can_read_is_read<D: OnSystem>() {
    let mut bench = Bench::<System<D>>::new(1);
    let file = File::open("/proc/sys/kernel/ostype").unwrap();
    for _ in 0..20 {
        let op = bench.read(file.as_raw_fd(), 0, 100, space(b"it is ", 100));
        let (write, result) = came_home(bench.last(op));
        assert_eq!(result, Ok(6));
        assert_eq!(bytes_of(*write), b"it is Linux\n");
    }
    assert_eq!(bench.read_all(file.as_raw_fd(), 6, 100), b"");
    bench.assert_clean();
}

/// Also when the child's copy of the driver is dropped while a thread of the parent's reads.
pub fn a_forked_child_leaves_reads_to_the_parent<D: OnSystem>() {
    let mut bench = Bench::<System<D>>::new(1);
    let file = File::open("/proc/sys/kernel/ostype").unwrap();
    // The threads are there, if the driver has any.
    assert_eq!(bench.read_all(file.as_raw_fd(), 0, 6), b"Linux\n");
    let ops: Vec<_> = (0..8)
        .map(|_| bench.read(file.as_raw_fd(), 0, 100, space(b"", 100)))
        .collect();
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
    let mut status = -1;
    // SAFETY: waits for the child that was made above.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    for _ in ops {
        let (write, result) = came_home(bench.event().outcome);
        assert_eq!((bytes_of(*write), result), (b"Linux\n".to_vec(), Ok(6)));
    }
    bench.turn(Wait::For(Some(Duration::from_millis(1))));
    bench.assert_clean();
}

//! What only this driver promises; the rest is in the contract suite.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use theframework_memory::{BufferRecycler, WriteArena};

use super::readers::Job;
use super::*;
use crate::write::NoBody;

#[test]
fn a_connection_is_read_64_kib_in_a_turn_and_goes_on_without_a_new_edge() {
    let mut driver: PollDriver<NoBody> = PollDriver::new(&PollConfig::default()).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    driver.receive(ours.as_raw_fd(), 1).unwrap();
    theirs.write_all(&[1; 150_000]).unwrap();
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < 150_000 {
        assert!(driver.has_events());
        driver.turn(Wait::For(None)).unwrap();
        let mut bytes = 0;
        while let Some(event) = driver.next_event() {
            match event.outcome {
                Outcome::Received(lease) => bytes += lease.len(),
                other => panic!("{other:?}"),
            }
        }
        turns.push(bytes);
    }
    assert_eq!(turns, [65_536, 65_536, 150_000 - 2 * 65_536]);
    assert!(!driver.has_events());
}

/// An idle connection costs a slot of the first and an entry of the second.
#[test]
fn an_operation_and_a_source_are_small() {
    assert!(size_of::<Op<NoBody>>() <= 40);
    assert!(size_of::<sources::Source>() <= 16);
}

/// A driver whose threads read in another way; what they read is a file that only they can.
fn driver_with(read: fn(&Job) -> Result<usize, Errno>) -> (PollDriver<NoBody>, File) {
    let mut driver = PollDriver::new(&PollConfig::default()).unwrap();
    driver.core.readers.as_mut().unwrap().set_read(read);
    (driver, File::open("/proc/sys/kernel/ostype").unwrap())
}

fn space() -> Box<Write<NoBody>> {
    Box::new(Write::new(WriteArena::new(BufferRecycler::new()).unwrap()))
}

fn slow(_: &Job) -> Result<usize, Errno> {
    std::thread::sleep(Duration::from_millis(200));
    Ok(3)
}

fn hanging(_: &Job) -> Result<usize, Errno> {
    std::thread::sleep(Duration::from_secs(3));
    Ok(3)
}

#[test]
fn a_slow_disk_does_not_hold_up_a_connection() {
    let (mut driver, file) = driver_with(slow);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    driver.receive(ours.as_raw_fd(), 1).unwrap();
    driver
        .read_file(file.as_raw_fd(), 2, 0, 10, space())
        .unwrap();
    let started = Instant::now();
    for _ in 0..10 {
        theirs.write_all(b"x").unwrap();
        driver.turn(Wait::For(None)).unwrap();
        let event = driver.next_event().unwrap();
        assert!(matches!(event.outcome, Outcome::Received(_)));
    }
    assert!(started.elapsed() < Duration::from_millis(150));
    driver.turn(Wait::For(None)).unwrap();
    let event = driver.next_event().unwrap();
    assert!(matches!(event.outcome, Outcome::FileRead(write, Ok(3)) if write.len() == 3));
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(driver.operations(), 1);
}

/// Four are read at a time; the others can be taken back.
#[test]
fn a_read_that_has_not_begun_is_cancelled_and_one_that_has_is_not() {
    let (mut driver, file) = driver_with(slow);
    let ops: Vec<_> = (0..6)
        .map(|token| {
            driver
                .read_file(file.as_raw_fd(), token, 0, 10, space())
                .unwrap()
        })
        .collect();
    driver.turn(Wait::Poll).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    for &op in &ops {
        driver.cancel(op);
        driver.cancel(op);
    }
    let mut ends = [None; 6];
    while driver.operations() > 0 {
        driver
            .turn(Wait::For(Some(Duration::from_secs(1))))
            .unwrap();
        while let Some(event) = driver.next_event() {
            match event.outcome {
                Outcome::FileRead(_, result) => ends[event.token as usize] = Some(result),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(ends[..4], [Some(Ok(3)); 4]);
    assert_eq!(ends[4..], [Some(Err(Errno::CANCELLED)); 2]);
}

#[test]
fn dropping_the_driver_waits_for_reads_that_have_begun() {
    let (mut driver, file) = driver_with(slow);
    for _ in 0..6 {
        driver
            .read_file(file.as_raw_fd(), 1, 0, 10, space())
            .unwrap();
    }
    driver.turn(Wait::Poll).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let started = Instant::now();
    drop(driver);
    let took = started.elapsed();
    assert!((100..300).contains(&took.as_millis()), "{took:?}");
}

/// And its memory is never used again: its thread may still write there.
#[test]
fn dropping_the_driver_does_not_wait_for_ever() {
    let (mut driver, file) = driver_with(hanging);
    let buffers = BufferRecycler::new();
    for _ in 0..5 {
        let write = Box::new(Write::new(WriteArena::new(buffers.clone()).unwrap()));
        driver.read_file(file.as_raw_fd(), 1, 0, 10, write).unwrap();
    }
    driver.turn(Wait::Poll).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(buffers.live(), 5);
    let started = Instant::now();
    drop(driver);
    let took = started.elapsed();
    assert!((1000..2000).contains(&took.as_millis()), "{took:?}");
    // The one that had not begun is given up with them: nobody has asked which it was.
    assert_eq!(buffers.live(), 5);
}

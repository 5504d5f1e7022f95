//! What only this driver promises; the rest is in the contract suite.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

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

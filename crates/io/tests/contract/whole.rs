//! The driver as a whole: turns, waits, ids, the clock, closing, dropping.

use std::os::fd::AsRawFd;
use std::time::Duration;

use theframework_io::{Driver, Errno, Interest, Outcome, Space, Wait};

use crate::bench::{Bench, input, write};
use crate::world::{Peer, World};

pub fn the_clock_is_monotonic<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let mut last_us = bench.driver.now_us();
    for _ in 0..20 {
        bench.turn(Wait::For(Some(Duration::from_millis(1))));
        let now_us = bench.driver.now_us();
        assert!(now_us >= last_us + 1000, "{last_us} then {now_us}");
        last_us = now_us;
    }
    // After 2020.
    assert!(bench.driver.unix_time() > Duration::from_secs(1_577_836_800));
}

pub fn a_turn_waits_as_long_as_it_may_and_no_longer<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, _theirs) = bench.world.pair();
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    for (wait, least_us, most_us) in [
        (Wait::Poll, 0, 15_000),
        (Wait::For(Some(Duration::ZERO)), 0, 15_000),
        (Wait::For(Some(Duration::from_micros(300))), 300, 20_000),
        (Wait::For(Some(Duration::from_millis(40))), 40_000, 60_000),
    ] {
        // The machine may be busy with something else, once.
        let is_met = (0..5).any(|_| {
            let before_us = bench.driver.now_us();
            bench.turn(wait);
            let waited_us = bench.driver.now_us() - before_us;
            assert!(waited_us >= least_us, "{wait:?} took {waited_us} us");
            waited_us <= most_us
        });
        assert!(is_met, "{wait:?} always took too long");
    }
    assert!(bench.driver.next_event().is_none());
    drop(bench);
}

pub fn what_is_there_ends_a_wait_at_once<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    for _ in 0..20 {
        theirs.write(b"x");
        bench.turn(Wait::For(None));
        let event = bench.driver.next_event().expect("one turn is enough");
        assert!(matches!(event.outcome, Outcome::Received(_)));
    }
    drop(bench);
}

pub fn what_can_be_had_without_waiting_is_known<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    for _ in 0..20 {
        assert!(!bench.driver.has_events());
        theirs.write(b"x");
        bench.world.settle();
        assert!(bench.finds_events());
        assert!(bench.driver.has_events(), "asking changes nothing");
        bench.turn(Wait::Poll);
        assert!(bench.driver.has_events());
        let event = bench.driver.next_event().expect("it said so");
        assert!(matches!(event.outcome, Outcome::Received(_)));
        assert!(bench.driver.next_event().is_none());
    }
    theirs.write(b"x");
    bench.world.settle();
    assert!(bench.finds_events());
    bench.turn(Wait::For(None));
    assert_eq!(bench.receive(1), b"x");
    drop(bench);
}

/// A question between submission and turn changes nothing, though a driver may submit with it.
pub fn asking_does_not_disturb_a_submission<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 1, write(b"x", None))
        .unwrap();
    bench.driver.has_events();
    assert_eq!(bench.small_write(op, 1).sent(), 1);
    bench.world.settle();
    assert_eq!(theirs.read_available().bytes, b"x");
    bench.assert_clean();
}

/// What `has_events` found is not lost when something else is submitted, or comes, before the turn.
pub fn what_was_found_early_comes_with_what_comes_late<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let mut pairs: Vec<_> = (0..3).map(|_| bench.world.pair()).collect();
    for (token, (ours, _)) in pairs.iter().enumerate().take(2) {
        bench
            .driver
            .receive(ours.as_raw_fd(), token as u64)
            .unwrap();
    }
    bench.quiet();
    pairs[0].1.write(b"x");
    bench.world.settle();
    assert!(bench.finds_events());
    pairs[1].1.write(b"x");
    pairs[2].1.write(b"x");
    bench.world.settle();
    bench.driver.receive(pairs[2].0.as_raw_fd(), 2).unwrap();
    let mut tokens = Vec::new();
    while tokens.len() < 3 {
        let event = bench.event();
        assert!(matches!(event.outcome, Outcome::Received(_)));
        tokens.push(event.token);
    }
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2]);
    drop(bench);
}

pub fn stale_ids_are_harmless<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let fd = ours.as_raw_fd();
    let stale = bench.driver.poll(fd, Interest::Writable, 1).unwrap();
    assert!(matches!(bench.last(stale), Outcome::Ready));
    bench.driver.cancel(stale);
    // The next operation has the same slot.
    let op = bench.driver.receive(fd, 2).unwrap();
    bench.driver.cancel(stale);
    bench.quiet();
    theirs.write(b"x");
    let event = bench.event();
    assert_eq!((event.op, event.more), (op, true));
    assert_ne!(op, stale);
    assert_eq!(bench.driver.operations(), 1);
    drop(event);
    drop(bench);
}

/// Its final event is on its way: a cancel changes nothing.
pub fn an_ended_operation_is_not_cancelled<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench
        .driver
        .poll(ours.as_raw_fd(), Interest::Readable, 1)
        .unwrap();
    theirs.write(b"x");
    bench.world.settle();
    bench.turn(Wait::For(Some(Duration::from_secs(1))));
    assert_eq!(bench.driver.operations(), 1, "until the event is taken");
    bench.driver.cancel(op);
    assert!(matches!(bench.last(op), Outcome::Ready));
    bench.assert_clean();
}

pub fn a_closed_connection_ends_for_the_peer<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    bench.driver.cancel(op);
    assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
    assert!(!theirs.read_available().is_end);
    bench.driver.close(ours);
    bench.turn(Wait::Poll);
    bench.world.settle();
    assert!(theirs.read_available().is_end);
}

pub fn the_end_of_our_sending_leaves_the_other_direction_open<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    bench.driver.shutdown_write(ours.as_raw_fd());
    bench.world.settle();
    assert!(theirs.read_available().is_end);
    bench.quiet();
    theirs.write(b"still here");
    assert_eq!(bench.receive(10), b"still here");
    drop(theirs);
    assert!(matches!(bench.last(op), Outcome::EndOfStream));
    bench.assert_clean();
}

/// Connections come and go under the same numbers, with events of the earlier ones still on their way.
pub fn a_number_that_is_used_again_means_the_new_connection<W: World>() {
    let mut bench = Bench::<W>::new(16);
    for round in 0..30_u64 {
        let (ours, mut theirs) = bench.world.pair();
        let op = bench.driver.receive(ours.as_raw_fd(), round).unwrap();
        theirs.write(b"one");
        bench.receive_from(op, round, b"one");
        bench.driver.cancel(op);
        assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
        // Edges of the old connection that nobody has taken.
        theirs.write(b"unread");
        if round % 3 == 0 {
            theirs.shutdown_write();
        }
        bench.world.settle();
        if round % 2 == 0 {
            bench.driver.has_events();
        }
        bench.driver.close(ours);
        bench.turn(Wait::Poll);
        assert!(bench.driver.next_event().is_none());
        let (ours, mut new_peer) = bench.world.pair();
        let op = bench.driver.receive(ours.as_raw_fd(), 1000).unwrap();
        drop(theirs);
        bench.quiet();
        new_peer.write(b"two");
        assert_eq!(bench.receive(3), b"two");
        bench.driver.cancel(op);
        assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
        bench.driver.close(ours);
    }
    bench.assert_clean();
}

pub fn dropping_the_driver_with_operations_pending_is_clean<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let (other, mut other_peer) = bench.world.pair();
    let (third, _third_peer) = bench.world.pair();
    let listener = bench.world.listener();
    let fd = ours.as_raw_fd();
    bench.driver.accept(listener.as_raw_fd(), 1).unwrap();
    bench.driver.receive(fd, 2).unwrap();
    bench.driver.poll(fd, Interest::HangUp, 3).unwrap();
    bench
        .driver
        .receive_into(third.as_raw_fd(), 4, Space::Input(input(b"", 4096)))
        .unwrap();
    theirs.write(b"never taken");
    bench.world.settle();
    bench.turn(Wait::Poll);
    // Submitted, and in no turn yet.
    bench.driver.send(fd, 5, write(b"sent", None)).unwrap();
    bench.driver.close(other);
    let fresh = bench.world.driver(1);
    let before_us = fresh.now_us();
    drop(std::mem::replace(&mut bench.driver, fresh));
    assert!(bench.driver.now_us() - before_us < 500_000);
    bench.world.settle();
    let arrived = theirs.read_available().bytes;
    assert!(Bench::<W>::is_legal_amount(arrived.len(), 4));
    assert_eq!(arrived, b"sent"[..arrived.len()]);
    assert!(other_peer.read_available().is_end);
}

//! Polls: once, for the state as it is at submission or becomes later.

use std::os::fd::AsRawFd;
use std::time::Duration;

use theframework_io::{Driver, Errno, Interest, Outcome, Space, Wait};

use crate::bench::{Bench, came_home, input, pattern, write};
use crate::world::{Peer, World};

pub fn a_poll_is_ready_once<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench
        .driver
        .poll(ours.as_raw_fd(), Interest::Readable, 4)
        .unwrap();
    bench.quiet();
    theirs.write(b"x");
    let ready = bench.event();
    assert_eq!((ready.token, ready.op, ready.more), (4, op, false));
    assert!(matches!(ready.outcome, Outcome::Ready));
    theirs.write(b"y");
    bench.assert_clean();
}

/// What is unread is reported to each poll anew.
pub fn a_poll_sees_what_was_there_before<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    theirs.write(b"xy");
    bench.world.settle();
    // Alone, and beside another that has been watching all the while.
    let mut hang_up = None;
    for round in 0..6 {
        if round == 3 {
            let fd = ours.as_raw_fd();
            hang_up = Some(bench.driver.poll(fd, Interest::HangUp, 3).unwrap());
        }
        for _ in 0..2 {
            let op = bench
                .driver
                .poll(ours.as_raw_fd(), Interest::Readable, 4)
                .unwrap();
            assert!(matches!(bench.last(op), Outcome::Ready));
        }
        bench.quiet();
    }
    assert_eq!(bench.cancel(hang_up.unwrap()), b"");
    for unread in [true, false] {
        let space = Space::Input(input(b"", 1));
        let mut space = Some(space);
        if let Some(Space::Input(input)) = &mut space {
            // Room for one byte and no more.
            let room = input.free_len();
            input.extend(&vec![0; room - 1]).unwrap();
        }
        let op = bench
            .driver
            .receive_into(ours.as_raw_fd(), 5, space.take().unwrap())
            .unwrap();
        assert_eq!(came_home(bench.last(op)).1, Ok(1));
        let op = bench
            .driver
            .poll(ours.as_raw_fd(), Interest::Readable, 6)
            .unwrap();
        if unread {
            assert!(matches!(bench.last(op), Outcome::Ready));
        } else {
            bench.quiet();
            bench.driver.cancel(op);
            assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
        }
    }
    bench.assert_clean();
}

pub fn a_poll_for_writing_waits_while_the_socket_is_full<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench
        .driver
        .poll(ours.as_raw_fd(), Interest::Writable, 1)
        .unwrap();
    assert!(matches!(bench.last(op), Outcome::Ready));
    let send = bench
        .driver
        .send(ours.as_raw_fd(), 2, write(&pattern(2_000_000), None))
        .unwrap();
    assert!(matches!(bench.event().outcome, Outcome::SendProgress(_)));
    bench.until_nothing_moves();
    bench.driver.cancel(send);
    assert!(matches!(bench.last(send), Outcome::Sent(_, Err(_))));
    let op = bench
        .driver
        .poll(ours.as_raw_fd(), Interest::Writable, 3)
        .unwrap();
    bench.quiet();
    for _ in 0..100 {
        theirs.read_available();
        bench.turn(Wait::For(Some(Duration::from_millis(2))));
        if let Some(event) = bench.driver.next_event() {
            assert_eq!((event.op, event.more), (op, false));
            assert!(matches!(event.outcome, Outcome::Ready));
            return bench.assert_clean();
        }
    }
    panic!("never writable");
}

pub fn a_poll_does_not_disturb_a_blocked_write<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let sent = pattern(2_000_000);
    let send = bench
        .driver
        .send(ours.as_raw_fd(), 2, write(&sent, None))
        .unwrap();
    let progress = bench.until_nothing_moves();
    assert!(!progress.is_empty());
    for interest in [Interest::Readable, Interest::HangUp] {
        let op = bench.driver.poll(ours.as_raw_fd(), interest, 3).unwrap();
        assert_eq!(bench.cancel(op), b"");
    }
    assert!(
        bench.send_to(&mut theirs, send).arrived == sent,
        "bytes differ"
    );
    bench.assert_clean();
}

/// Data do not end it, and do not keep the driver busy.
pub fn a_poll_for_a_hang_up_is_not_ended_by_data<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    theirs.write(b"before");
    bench.world.settle();
    let op = bench
        .driver
        .poll(ours.as_raw_fd(), Interest::HangUp, 5)
        .unwrap();
    bench.quiet();
    theirs.write(b"after");
    bench.quiet();
    assert!(!bench.driver.has_events());
    let before_us = bench.driver.now_us();
    bench.turn(Wait::For(Some(Duration::from_millis(50))));
    assert!(bench.driver.now_us() - before_us >= 50_000);
    theirs.shutdown_write();
    assert!(matches!(bench.last(op), Outcome::Ready));
    // It is still so.
    let op = bench
        .driver
        .poll(ours.as_raw_fd(), Interest::HangUp, 6)
        .unwrap();
    assert!(matches!(bench.last(op), Outcome::Ready));
    // And the data are still there.
    let op = bench.driver.receive(ours.as_raw_fd(), 7).unwrap();
    assert_eq!(bench.receive(11), b"beforeafter");
    assert!(matches!(bench.last(op), Outcome::EndOfStream));
    bench.assert_clean();
}

pub fn a_reset_ends_every_poll<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, theirs) = bench.world.pair();
    let fd = ours.as_raw_fd();
    bench.driver.poll(fd, Interest::HangUp, 1).unwrap();
    bench.driver.poll(fd, Interest::Readable, 2).unwrap();
    bench.quiet();
    theirs.reset();
    let mut tokens = [bench.event().token, bench.event().token];
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2]);
    let op = bench.driver.poll(fd, Interest::Writable, 3).unwrap();
    assert!(matches!(bench.last(op), Outcome::Ready));
    bench.assert_clean();
}

pub fn a_cancelled_poll_ends<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    for interest in [Interest::Readable, Interest::HangUp] {
        let op = bench.driver.poll(ours.as_raw_fd(), interest, 1).unwrap();
        bench.quiet();
        bench.driver.cancel(op);
        assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
        let op = bench.driver.poll(ours.as_raw_fd(), interest, 1).unwrap();
        bench.driver.cancel(op);
        assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
    }
    theirs.write(b"x");
    bench.assert_clean();
}

/// Several polls and a receive on one descriptor: each has its own end.
pub fn operations_on_one_descriptor_end_each_for_itself<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let fd = ours.as_raw_fd();
    let hang_up = bench.driver.poll(fd, Interest::HangUp, 1).unwrap();
    let first = bench.driver.poll(fd, Interest::Readable, 2).unwrap();
    let second = bench.driver.poll(fd, Interest::Readable, 3).unwrap();
    let third = bench.driver.poll(fd, Interest::Readable, 4).unwrap();
    bench.quiet();
    bench.driver.cancel(second);
    assert!(matches!(
        bench.last(second),
        Outcome::Failed(Errno::CANCELLED)
    ));
    theirs.write(b"x");
    let mut ended = [bench.event().op, bench.event().op];
    ended.sort_unstable_by_key(|&op| op != first);
    assert_eq!(ended, [first, third]);
    let receive = bench.driver.receive(fd, 5).unwrap();
    assert_eq!(bench.receive(1), b"x");
    bench.quiet();
    theirs.shutdown_write();
    let events = [bench.event(), bench.event()];
    for event in events {
        match event.outcome {
            Outcome::Ready => assert_eq!(event.op, hang_up),
            Outcome::EndOfStream => assert_eq!(event.op, receive),
            other => panic!("{other:?}"),
        }
        assert!(!event.more);
    }
    bench.assert_clean();
}

pub fn completions_beyond_the_queue_are_not_lost<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let mut pairs: Vec<_> = (0..300).map(|_| bench.world.pair()).collect();
    for (token, (ours, theirs)) in pairs.iter_mut().enumerate() {
        bench
            .driver
            .poll(ours.as_raw_fd(), Interest::Readable, token as u64)
            .unwrap();
        theirs.write(b"x");
    }
    let mut tokens: Vec<u64> = (0..300)
        .map(|_| {
            let event = bench.event();
            assert!(matches!(event.outcome, Outcome::Ready));
            event.token
        })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..300).collect::<Vec<_>>());
    bench.assert_clean();
}

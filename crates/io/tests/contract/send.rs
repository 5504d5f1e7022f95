//! Sending: small writes at once, large ones as the peer takes them.

use std::os::fd::AsRawFd;
use std::time::Duration;

use theframework_io::{Driver, Errno, Outcome, SEND_AT_ONCE_MAX, Wait};

use crate::bench::{Bench, pattern, write};
use crate::world::{Peer, World};

pub fn a_small_write_ends_without_waiting_and_in_full<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(b"head ", Some(b"body")))
        .unwrap();
    assert!(
        bench.driver.next_event().is_none(),
        "nothing was submitted yet"
    );
    assert_eq!(bench.small_write(op, 3).sent(), 9);
    bench.world.settle();
    assert_eq!(theirs.read_available().bytes, b"head body");
    bench.assert_clean();
}

pub fn an_empty_write_ends<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, _theirs) = bench.world.pair();
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(b"", None))
        .unwrap();
    bench.turn(Wait::Poll);
    assert!(matches!(bench.last(op), Outcome::Sent(_, Ok(()))));
    bench.assert_clean();
}

pub fn the_end_of_a_small_write_does_not_end_a_wait<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, _theirs) = bench.world.pair();
    // What a first wait may hear apart from this is over.
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    bench
        .driver
        .send(ours.as_raw_fd(), 3, write(b"x", None))
        .unwrap();
    let before_us = bench.driver.now_us();
    bench.turn(Wait::For(Some(Duration::from_millis(50))));
    assert!(bench.driver.now_us() - before_us >= 50_000);
    assert!(!bench.driver.has_events());
    let event = bench.driver.next_event().unwrap();
    assert!(matches!(event.outcome, Outcome::Sent(_, Ok(()))));
    drop(bench);
}

pub fn a_write_to_a_full_socket_goes_on_when_the_peer_reads<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let bytes = pattern(60_000);
    let mut expected = 0;
    let mut arrived = Vec::new();
    let mut blocked = 0;
    for _ in 0..40 {
        let op = bench
            .driver
            .send(ours.as_raw_fd(), 3, write(&bytes, None))
            .unwrap();
        expected += bytes.len();
        bench.turn(Wait::Poll);
        let event = bench.driver.next_event().expect("it ends, or says not");
        assert_eq!(event.op, op);
        match event.outcome {
            Outcome::Sent(_, Ok(())) => assert!(!event.more),
            Outcome::SendProgress(sent) => {
                assert!(event.more && sent < bytes.len());
                blocked += 1;
                let sending = bench.send_to(&mut theirs, op);
                assert_eq!(sending.sent, bytes.len());
                assert!(sending.progress.iter().all(|&sent| sent < bytes.len()));
                arrived.extend(sending.arrived);
            }
            other => panic!("{other:?}"),
        }
    }
    bench.world.settle();
    arrived.extend(theirs.read_available().bytes);
    assert!(blocked > 0, "the socket never was full");
    assert_eq!(arrived.len(), expected);
    assert!(
        arrived.chunks(bytes.len()).all(|part| part == bytes),
        "bytes differ"
    );
    bench.assert_clean();
}

pub fn a_large_write_tells_its_progress<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    for (body, tail) in [
        (None, ""),
        (Some(pattern(3_000_000)), ""),
        (Some(pattern(2_999_999)), "tail"),
    ] {
        let head = pattern(if body.is_some() { 900 } else { 2_000_000 });
        let mut expected = head.clone();
        expected.extend(body.iter().flatten());
        expected.extend(tail.bytes());
        assert!(expected.len() > SEND_AT_ONCE_MAX);
        let mut write = write(&head, body.as_deref());
        if !tail.is_empty() {
            assert!(write.extend_tail(tail.as_bytes()));
        }
        let op = bench.driver.send(ours.as_raw_fd(), 3, write).unwrap();
        let sending = bench.send_to(&mut theirs, op);
        assert_eq!(sending.sent, expected.len());
        assert!(!sending.progress.is_empty());
        assert!(sending.progress.is_sorted_by(|a, b| a < b));
        assert!(sending.arrived == expected, "bytes differ");
    }
    bench.assert_clean();
}

pub fn a_cancelled_write_comes_home<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(&pattern(2_000_000), None))
        .unwrap();
    let event = bench.event();
    assert!(matches!(event.outcome, Outcome::SendProgress(_)));
    bench.until_nothing_moves();
    bench.driver.cancel(op);
    bench.driver.cancel(op);
    let sent = match bench.last(op) {
        Outcome::Sent(write, Err(Errno::CANCELLED)) => write.sent(),
        other => panic!("{other:?}"),
    };
    assert!(sent < 2_000_000);
    // No byte is sent that the write does not know of.
    let mut arrived = 0;
    for _ in 0..50 {
        bench.quiet();
        match theirs.read_available().bytes.len() {
            0 => break,
            count => arrived += count,
        }
    }
    assert_eq!(arrived, sent);
    bench.assert_clean();
}

/// A large write says nothing until something was taken; a small one says at once that it waits.
pub fn a_write_to_a_socket_that_takes_nothing_waits<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let mut expected = 0;
    let large = pattern(2_000_000);
    let is_full = (0..20).any(|_| {
        let op = bench
            .driver
            .send(ours.as_raw_fd(), 3, write(&large, None))
            .unwrap();
        let progress = bench.until_nothing_moves();
        assert!(progress.first() != Some(&0) && progress.is_sorted_by(|a, b| a < b));
        bench.driver.cancel(op);
        match bench.last(op) {
            Outcome::Sent(write, Err(Errno::CANCELLED)) => {
                expected += write.sent();
                write.sent() == 0
            }
            other => panic!("{other:?}"),
        }
    });
    assert!(is_full);
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(b"small", None))
        .unwrap();
    bench.turn(Wait::Poll);
    let event = bench.driver.next_event().expect("it says that it waits");
    assert_eq!((event.op, event.more), (op, true));
    assert!(matches!(event.outcome, Outcome::SendProgress(0)));
    let sending = bench.send_to(&mut theirs, op);
    assert_eq!((sending.arrived.len(), sending.sent), (expected + 5, 5));
    assert!(sending.arrived.ends_with(b"small"));
    bench.assert_clean();
}

pub fn a_small_write_that_is_cancelled_ends_in_its_turn<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(b"x", None))
        .unwrap();
    bench.driver.cancel(op);
    bench.turn(Wait::Poll);
    let event = bench.driver.next_event().unwrap();
    assert!(!event.more);
    assert!(matches!(event.outcome, Outcome::Sent(_, Ok(()))));
    bench.world.settle();
    assert_eq!(theirs.read_available().bytes, b"x");
    bench.assert_clean();
}

pub fn a_large_write_that_is_cancelled_before_its_turn_ends_in_it<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(&pattern(2_000_000), None))
        .unwrap();
    bench.driver.cancel(op);
    // A cancel that takes effect late finds a write that has told of its progress.
    let sent = loop {
        let event = bench.event();
        assert_eq!(event.op, op);
        match event.outcome {
            Outcome::Sent(write, Err(Errno::CANCELLED)) => break write.sent(),
            Outcome::SendProgress(_) if event.more && !W::IS_PROMPT => {}
            other => panic!("{other:?}"),
        }
    };
    let mut arrived = 0;
    for _ in 0..20 {
        bench.quiet();
        arrived += theirs.read_available().bytes.len();
    }
    assert_eq!(arrived, sent);
    bench.assert_clean();
}

pub fn a_write_after_a_reset_comes_home_with_the_error<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, theirs) = bench.world.pair();
    theirs.reset();
    bench.world.settle();
    for expected in [libc::ECONNRESET, libc::EPIPE] {
        let op = bench
            .driver
            .send(ours.as_raw_fd(), 3, write(b"x", None))
            .unwrap();
        match bench.last(op) {
            Outcome::Sent(write, Err(errno)) => {
                assert_eq!((write.sent(), errno), (0, Errno(expected)));
            }
            other => panic!("{other:?}"),
        }
    }
    bench.assert_clean();
}

pub fn a_blocked_write_ends_when_the_peer_resets<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, theirs) = bench.world.pair();
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(&pattern(2_000_000), None))
        .unwrap();
    bench.until_nothing_moves();
    theirs.reset();
    match bench.last(op) {
        Outcome::Sent(_, Err(errno)) => assert_eq!(errno, Errno(libc::ECONNRESET)),
        other => panic!("{other:?}"),
    }
    bench.assert_clean();
}

pub fn we_may_send_after_the_peer_has_finished<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let receive = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    theirs.write(b"question");
    theirs.shutdown_write();
    assert_eq!(bench.receive(8), b"question");
    assert!(matches!(bench.last(receive), Outcome::EndOfStream));
    let answer = pattern(500_000);
    let op = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(&answer, None))
        .unwrap();
    assert!(bench.send_to(&mut theirs, op).arrived == answer);
    bench.driver.shutdown_write(ours.as_raw_fd());
    bench.driver.close(ours);
    bench.turn(Wait::Poll);
    bench.world.settle();
    assert!(theirs.read_available().is_end);
    bench.assert_clean();
}

/// Both directions of a connection at once: neither takes the other's events.
pub fn a_blocked_write_and_a_receive_do_not_disturb_each_other<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let receive = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    let sent = pattern(2_000_000);
    let send = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(&sent, None))
        .unwrap();
    let mut arrived = Vec::new();
    let mut got = 0;
    let mut asked = 0;
    let mut is_sent = false;
    let mut turns = 0;
    while !is_sent || got < asked {
        turns += 1;
        assert!(turns < 5000, "the write does not end");
        if !is_sent {
            theirs.write(b"more");
            asked += 4;
        }
        bench.turn(Wait::For(Some(Duration::from_millis(1))));
        while let Some(event) = bench.driver.next_event() {
            match event.outcome {
                Outcome::Received(lease) => {
                    assert_eq!(event.op, receive);
                    got += lease.len();
                }
                Outcome::SendProgress(_) => assert_eq!(event.op, send),
                Outcome::Sent(_, Ok(())) => is_sent = true,
                other => panic!("{other:?}"),
            }
        }
        arrived.extend(theirs.read_available().bytes);
    }
    bench.world.settle();
    arrived.extend(theirs.read_available().bytes);
    assert!(arrived == sent, "bytes differ");
    drop(bench);
}

pub fn more_sends_than_queue_entries_all_end<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let mut pairs: Vec<_> = (0..200).map(|_| bench.world.pair()).collect();
    for (token, (ours, _)) in pairs.iter().enumerate() {
        bench
            .driver
            .send(ours.as_raw_fd(), token as u64, write(b"answer", None))
            .unwrap();
    }
    bench.turn(Wait::Poll);
    let mut tokens = Vec::new();
    while tokens.len() < 200 {
        let event = bench.event();
        match event.outcome {
            Outcome::Sent(_, Ok(())) => tokens.push(event.token),
            Outcome::SendProgress(_) if !W::IS_PROMPT => {}
            other => panic!("{other:?}"),
        }
    }
    tokens.sort_unstable();
    assert_eq!(tokens, (0..200).collect::<Vec<_>>());
    bench.world.settle();
    for (_, theirs) in &mut pairs {
        assert_eq!(theirs.read_available().bytes, b"answer");
    }
    bench.assert_clean();
}

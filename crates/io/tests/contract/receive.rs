//! Receiving, into leases and into the caller's memory.

use std::time::Duration;

use theframework_io::{Driver, Errno, Filling, Interest, LEASE_SIZE, Outcome, Space, Wait};

use std::os::fd::AsRawFd;

use crate::bench::{Bench, came_home, input, pattern, write};
use crate::world::{Peer, World};

pub fn bytes_arrive_in_leases_until_the_end_of_the_stream<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench.driver.receive(ours.as_raw_fd(), 7).unwrap();
    for text in ["one", "two"] {
        theirs.write(text.as_bytes());
        bench.receive_from(op, 7, text.as_bytes());
    }
    drop(theirs);
    assert!(matches!(bench.last(op), Outcome::EndOfStream));
    bench.assert_clean();
}

pub fn data_before_the_end_of_the_stream_comes_first<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    theirs.write(b"last words");
    theirs.shutdown_write();
    bench.world.settle();
    let op = bench.driver.receive(ours.as_raw_fd(), 7).unwrap();
    assert_eq!(bench.receive(10), b"last words");
    assert!(matches!(bench.last(op), Outcome::EndOfStream));
    // Whoever asks again is told again.
    let op = bench.driver.receive(ours.as_raw_fd(), 8).unwrap();
    assert!(matches!(bench.last(op), Outcome::EndOfStream));
    bench.assert_clean();
}

pub fn data_and_the_end_behind_an_armed_receive<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench.driver.receive(ours.as_raw_fd(), 7).unwrap();
    bench.quiet();
    theirs.write(b"last words");
    theirs.shutdown_write();
    bench.world.settle();
    assert_eq!(bench.receive(10), b"last words");
    assert!(matches!(bench.last(op), Outcome::EndOfStream));
    bench.assert_clean();
}

/// More data than buffers, completions and any limit of a turn: the receive goes on by itself.
pub fn a_receive_goes_on_through_any_amount<W: World>() {
    let mut bench = Bench::<W>::new(8);
    let (ours, mut theirs) = bench.world.pair();
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    let part = pattern(200_000);
    for _ in 0..20 {
        theirs.write(&part);
        assert!(bench.receive(part.len()) == part, "bytes differ");
    }
    bench.quiet();
    assert_eq!(bench.driver.leases(), 0);
    for length in [1, 4095, 4096, 4097, 65_536, 65_537, 131_072] {
        theirs.write(&part[..length]);
        assert!(bench.receive(length) == part[..length], "bytes differ");
        bench.quiet();
    }
    drop(bench);
}

pub fn a_receive_without_buffers_waits_for_one_and_loses_nothing<W: World>() {
    let mut bench = Bench::<W>::new(2);
    let (ours, mut theirs) = bench.world.pair();
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    let sent = pattern(20_000);
    theirs.write(&sent);
    let mut held = Vec::new();
    let mut got = Vec::new();
    while got.len() < sent.len() {
        match bench.event().outcome {
            Outcome::Received(lease) => {
                got.extend_from_slice(&lease);
                held.push(lease);
            }
            other => panic!("{other:?}"),
        }
        if held.len() == 2 {
            assert_eq!(bench.driver.leases(), 2);
            bench.quiet();
            held.clear();
        }
    }
    assert_eq!(got, sent);
    drop(bench);
}

pub fn starved_receives_all_go_on<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let mut pairs: Vec<_> = (0..5).map(|_| bench.world.pair()).collect();
    for (token, (ours, theirs)) in pairs.iter_mut().enumerate() {
        bench
            .driver
            .receive(ours.as_raw_fd(), token as u64)
            .unwrap();
        theirs.write(&pattern(10_000));
    }
    let mut got = vec![Vec::new(); pairs.len()];
    while got.iter().any(|bytes| bytes.len() < 10_000) {
        let event = bench.event();
        match event.outcome {
            Outcome::Received(lease) => got[event.token as usize].extend_from_slice(&lease),
            other => panic!("{other:?}"),
        }
    }
    assert!(got.iter().all(|bytes| *bytes == pattern(10_000)));
    drop(bench);
}

/// While a receive starves, a turn that waits does wait.
pub fn a_starved_receive_does_not_spin<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    theirs.write(&[1; 6000]);
    let held = bench.event();
    let Outcome::Received(lease) = &held.outcome else {
        panic!("{held:?}");
    };
    assert!(Bench::<W>::is_legal_amount(lease.len(), LEASE_SIZE));
    let rest = 6000 - lease.len();
    let until_us = bench.driver.now_us() + 200_000;
    let mut turns = 0;
    while bench.driver.now_us() < until_us {
        bench.turn(Wait::For(Some(Duration::from_millis(50))));
        assert!(bench.driver.next_event().is_none());
        assert!(!bench.driver.has_events());
        turns += 1;
        // New data change nothing.
        theirs.write(b"x");
    }
    assert!(turns <= 12, "{turns} turns in 200 ms");
    drop(held);
    assert_eq!(bench.receive(rest + turns).len(), rest + turns);
    drop(bench);
}

pub fn a_starved_receive_can_be_cancelled<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    theirs.write(&[1; 6000]);
    let first = bench.event();
    bench.quiet();
    bench.driver.cancel(op);
    bench.driver.cancel(op);
    assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
    drop(first);
    bench.assert_clean();
}

pub fn a_starved_receive_that_was_cancelled_leaves_its_buffer_to_others<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (one, mut one_peer) = bench.world.pair();
    let (two, mut two_peer) = bench.world.pair();
    let first = bench.driver.receive(one.as_raw_fd(), 1).unwrap();
    one_peer.write(&[1; 6000]);
    let held = bench.event();
    bench.driver.receive(two.as_raw_fd(), 2).unwrap();
    two_peer.write(b"two");
    bench.quiet();
    bench.driver.cancel(first);
    assert!(matches!(
        bench.last(first),
        Outcome::Failed(Errno::CANCELLED)
    ));
    drop(held);
    let before_us = bench.driver.now_us();
    bench.turn(Wait::For(Some(Duration::from_secs(2))));
    assert!(bench.driver.now_us() - before_us < 1_000_000);
    assert_eq!(bench.receive(3), b"two");
    drop(bench);
}

pub fn a_cancelled_receive_ends_without_data<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, _theirs) = bench.world.pair();
    let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    assert_eq!(bench.cancel(op), b"");
    bench.assert_clean();
    // Also one that has never been in a turn.
    let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    assert_eq!(bench.cancel(op), b"");
    bench.assert_clean();
}

/// A cancel may lose: what it brings and what the next receive brings are the whole, in order.
pub fn a_cancelled_receive_may_still_bring_data<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    theirs.write(b"late");
    bench.world.settle();
    let mut got = bench.cancel(op);
    theirs.write(b"r");
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    got.extend(bench.receive(5 - got.len()));
    assert_eq!(got, b"later");
    drop(bench);
}

/// Data that was gathered before the cancel comes, and before the final event.
pub fn many_completions_come_before_a_cancel_lands<W: World>() {
    let mut bench = Bench::<W>::new(64);
    let (ours, mut theirs) = bench.world.pair();
    let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    bench.quiet();
    let sent = pattern(100_000);
    theirs.write(&sent);
    bench.world.settle();
    // One that waits sees what is there, and no more than a poll does.
    bench.turn(Wait::For(Some(Duration::from_secs(1))));
    let mut got = bench.cancel(op);
    assert!(!got.is_empty(), "what was gathered was lost");
    bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
    got.extend(bench.receive(sent.len() - got.len()));
    assert!(got == sent, "bytes differ");
    drop(bench);
}

pub fn a_reset_ends_a_receive_with_its_error<W: World>() {
    let mut bench = Bench::<W>::new(1);
    for _ in 0..3 {
        let (ours, mut theirs) = bench.world.pair();
        let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
        // The one buffer is still to be had.
        theirs.write(b"x");
        assert_eq!(bench.receive(1), b"x");
        theirs.reset();
        match bench.last(op) {
            Outcome::Failed(errno) => assert_eq!(errno, Errno(libc::ECONNRESET)),
            other => panic!("{other:?}"),
        }
        bench.assert_clean();
    }
}

/// Whoever asks again finds an end, in both directions.
pub fn a_reset_is_told_once<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, theirs) = bench.world.pair();
    let fd = ours.as_raw_fd();
    let op = bench.driver.receive(fd, 1).unwrap();
    bench.quiet();
    theirs.reset();
    assert!(matches!(
        bench.last(op),
        Outcome::Failed(Errno(libc::ECONNRESET))
    ));
    for _ in 0..2 {
        let op = bench.driver.receive(fd, 1).unwrap();
        assert!(matches!(bench.last(op), Outcome::EndOfStream));
        let space = Space::Input(input(b"", 8000));
        let op = bench.driver.receive_into(fd, 1, space).unwrap();
        assert_eq!(came_home(bench.last(op)).1, Ok(0));
        let op = bench.driver.send(fd, 2, write(b"x", None)).unwrap();
        assert!(matches!(
            bench.last(op),
            Outcome::Sent(_, Err(Errno(libc::EPIPE)))
        ));
    }
    bench.assert_clean();
}

/// The other connections' data come while one peer floods.
pub fn a_flooding_peer_does_not_hold_up_a_quiet_one<W: World>() {
    let mut bench = Bench::<W>::new(512);
    let (loud, mut loud_peer) = bench.world.pair();
    let (quiet, mut quiet_peer) = bench.world.pair();
    bench.driver.receive(loud.as_raw_fd(), 1).unwrap();
    bench.driver.receive(quiet.as_raw_fd(), 2).unwrap();
    let mut flood = 0;
    // The flood itself is over then, where every event may be late and bring little.
    let turns_max = if W::IS_PROMPT { 3 } else { 1000 };
    for _ in 0..20 {
        let missing = 250_000 - flood;
        loud_peer.write(&pattern(missing));
        flood += missing;
        quiet_peer.write(b"?");
        bench.world.settle();
        let mut was_heard = false;
        for _ in 0..turns_max {
            bench.turn(Wait::For(Some(Duration::from_millis(20))));
            while let Some(event) = bench.driver.next_event() {
                match event.outcome {
                    Outcome::Received(lease) if event.token == 1 => flood -= lease.len(),
                    Outcome::Received(lease) => {
                        assert_eq!(&*lease, b"?");
                        was_heard = true;
                    }
                    other => panic!("{other:?}"),
                }
            }
            if was_heard {
                break;
            }
        }
        assert!(was_heard, "not in {turns_max} turns");
    }
    while flood > 0 {
        match bench.event().outcome {
            Outcome::Received(lease) => flood -= lease.len(),
            other => panic!("{other:?}"),
        }
    }
    bench.quiet();
    drop(bench);
}

pub fn a_single_receive_brings_its_buffer_home<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let space = Space::Input(input(b"head", 8000));
    let op = bench
        .driver
        .receive_into(ours.as_raw_fd(), 5, space)
        .unwrap();
    bench.quiet();
    theirs.write(b" and body");
    let (input, result) = came_home(bench.last(op));
    let count = result.unwrap();
    assert!(Bench::<W>::is_legal_amount(count, 9));
    assert_eq!(input.unconsumed(), &b"head and body"[..4 + count]);
    bench.assert_clean();
}

pub fn a_cancelled_single_receive_brings_its_buffer_home<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let space = Space::Input(input(b"head", 8000));
    let op = bench
        .driver
        .receive_into(ours.as_raw_fd(), 5, space)
        .unwrap();
    bench.quiet();
    bench.driver.cancel(op);
    let (input, result) = came_home(bench.last(op));
    assert_eq!(result, Err(Errno::CANCELLED));
    assert_eq!(input.unconsumed(), b"head");
    // Nothing more is written to it.
    theirs.write(b"tail");
    bench.quiet();
    assert_eq!(input.unconsumed(), b"head");
    bench.assert_clean();
}

/// A cancel that comes after the data have been gathered changes nothing.
pub fn a_single_receive_that_has_succeeded_is_not_cancelled<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let space = Space::Input(input(b"", 8000));
    let op = bench
        .driver
        .receive_into(ours.as_raw_fd(), 5, space)
        .unwrap();
    theirs.write(b"data");
    bench.world.settle();
    bench.turn(Wait::For(Some(Duration::from_secs(1))));
    bench.driver.cancel(op);
    let (input, result) = came_home(bench.last(op));
    let count = result.unwrap();
    assert!(Bench::<W>::is_legal_amount(count, 4));
    assert_eq!(input.unconsumed(), &b"data"[..count]);
    bench.assert_clean();
}

pub fn a_single_receive_takes_what_fits_and_no_more<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let sent = pattern(10_000);
    theirs.write(&sent);
    theirs.shutdown_write();
    bench.world.settle();
    let mut got = Vec::new();
    loop {
        let mut filling = Box::new(Filling::default());
        assert!(filling.start(3000));
        let op = bench
            .driver
            .receive_into(ours.as_raw_fd(), 5, Space::Body(filling))
            .unwrap();
        match bench.last(op) {
            Outcome::ReceivedInto(Space::Body(filling), Ok(count)) => {
                assert_eq!(filling.bytes().len(), count);
                got.extend_from_slice(filling.bytes());
                if count == 0 {
                    break;
                }
                let available = sent.len() - (got.len() - count);
                assert!(Bench::<W>::is_legal_amount(count, available.min(3000)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(got == sent, "bytes differ");
    bench.assert_clean();
}

pub fn a_body_is_received_into_its_final_place<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, mut theirs) = bench.world.pair();
    let mut filling = Box::new(Filling::default());
    assert!(filling.start(10));
    assert_eq!(filling.extend(b"abc"), 3);
    theirs.write(b"defghijk");
    bench.world.settle();
    while filling.bytes().len() < 10 {
        let room = 10 - filling.bytes().len();
        let op = bench
            .driver
            .receive_into(ours.as_raw_fd(), 1, Space::Body(filling))
            .unwrap();
        match bench.last(op) {
            Outcome::ReceivedInto(Space::Body(body), Ok(count)) => {
                assert!(Bench::<W>::is_legal_amount(count, room));
                assert_eq!(body.bytes().len(), 10 - room + count);
                filling = body;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(filling.bytes(), b"abcdefghij");
    assert_eq!(filling.extend(b"k"), 0);
    assert_eq!(filling.body().map(|body| body.len()), Some(10));
    assert_eq!(filling.take().as_deref(), Some(&b"abcdefghij"[..]));
    // The byte that did not fit is still there.
    bench.driver.receive(ours.as_raw_fd(), 2).unwrap();
    assert_eq!(bench.receive(1), b"k");
    drop(bench);
}

/// As for a large body: the receive into leases is cancelled, single receives follow, and then leases
/// again. Every byte comes once, in order.
pub fn receives_of_both_kinds_take_turns<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let (ours, mut theirs) = bench.world.pair();
    let sent = pattern(150_000);
    // Something watches the connection all the while.
    let hang_up = bench
        .driver
        .poll(ours.as_raw_fd(), Interest::HangUp, 3)
        .unwrap();
    for round in 0..10 {
        let op = bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
        theirs.write(&sent[..sent.len() / 2]);
        let mut got = bench.receive(1);
        got.extend(bench.cancel(op));
        theirs.write(&sent[sent.len() / 2..]);
        while got.len() < sent.len() {
            let room = if round % 2 == 0 { 4096 } else { 50_000 };
            let space = Space::Input(input(b"", room.min(sent.len() - got.len())));
            let op = bench
                .driver
                .receive_into(ours.as_raw_fd(), 2, space)
                .unwrap();
            let (input, result) = came_home(bench.last(op));
            assert_eq!(result, Ok(input.len()));
            got.extend_from_slice(input.unconsumed());
        }
        assert!(got == sent, "bytes differ");
        bench.quiet();
    }
    assert_eq!(bench.cancel(hang_up), b"");
    bench.assert_clean();
}

pub fn a_reset_brings_the_space_of_a_single_receive_home<W: World>() {
    let mut bench = Bench::<W>::new(1);
    let (ours, theirs) = bench.world.pair();
    let space = Space::Input(input(b"head", 8000));
    let op = bench
        .driver
        .receive_into(ours.as_raw_fd(), 5, space)
        .unwrap();
    bench.quiet();
    theirs.reset();
    let (input, result) = came_home(bench.last(op));
    assert_eq!(result, Err(Errno(libc::ECONNRESET)));
    assert_eq!(input.unconsumed(), b"head");
    bench.assert_clean();
}

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use super::*;
use crate::filling::Filling;
use crate::write::NoBody;
use std::io::{Read, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use theframework_memory::{BufferRecycler, InputBuffer, WriteArena};

type Driver_ = UringDriver<&'static [u8]>;

fn driver(receive_buffers: u16) -> Driver_ {
    UringDriver::new(&UringConfig {
        entries: 64,
        receive_buffers,
    })
    .expect("io_uring works on the machine that runs the tests")
}

/// Turns until an event comes.
fn event(driver: &mut Driver_) -> Event<OwnedFd, &'static [u8]> {
    for _ in 0..200 {
        if let Some(event) = driver.next_event() {
            return event;
        }
        driver
            .turn(Wait::For(Some(Duration::from_millis(20))))
            .unwrap();
    }
    panic!("no event in four seconds: {driver:?}");
}

fn quiet(driver: &mut Driver_) {
    driver
        .turn(Wait::For(Some(Duration::from_millis(20))))
        .unwrap();
    assert!(driver.next_event().is_none());
}

fn write(bytes: &[u8], body: Option<&'static [u8]>) -> Box<Write<&'static [u8]>> {
    let mut arena = WriteArena::new(BufferRecycler::new()).unwrap();
    arena.extend(bytes).unwrap();
    let mut write = Box::new(Write::new(arena));
    if let Some(body) = body {
        write.set_body(body);
    }
    write
}

#[test]
fn bytes_arrive_in_leases_until_the_end_of_the_stream() {
    let mut driver = driver(4);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    driver.receive(ours.as_raw_fd(), 7).unwrap();
    for text in ["one", "two"] {
        theirs.write_all(text.as_bytes()).unwrap();
        let event = event(&mut driver);
        assert_eq!((event.token, event.more), (7, true));
        match event.outcome {
            Outcome::Received(lease) => assert_eq!(&*lease, text.as_bytes()),
            other => panic!("{other:?}"),
        }
    }
    drop(theirs);
    let last = event(&mut driver);
    assert!(!last.more && matches!(last.outcome, Outcome::EndOfStream));
    assert_eq!((driver.operations(), driver.leases()), (0, 0));
}

#[test]
fn a_receive_without_buffers_waits_for_one_and_loses_nothing() {
    let mut driver = driver(2);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    driver.receive(ours.as_raw_fd(), 1).unwrap();
    let sent: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
    theirs.write_all(&sent).unwrap();
    let mut held = Vec::new();
    let mut got = Vec::new();
    while got.len() < sent.len() {
        match event(&mut driver).outcome {
            Outcome::Received(lease) => {
                got.extend_from_slice(&lease);
                held.push(lease);
            }
            other => panic!("{other:?}"),
        }
        if held.len() == 2 {
            quiet(&mut driver);
            held.clear();
        }
    }
    assert_eq!(got, sent);
}

#[test]
fn a_starved_receive_can_be_cancelled() {
    let mut driver = driver(1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let op = driver.receive(ours.as_raw_fd(), 1).unwrap();
    theirs.write_all(&[1; 6000]).unwrap();
    let first = event(&mut driver);
    quiet(&mut driver);
    driver.cancel(op);
    let last = event(&mut driver);
    assert!(matches!(last.outcome, Outcome::Failed(Errno::CANCELLED)) && !last.more);
    drop(first);
    quiet(&mut driver);
    assert_eq!(driver.operations(), 0);
}

#[test]
fn a_small_write_ends_without_waiting_and_in_full() {
    let mut driver = driver(1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    driver
        .send(ours.as_raw_fd(), 3, write(b"head ", Some(b"body")))
        .unwrap();
    assert!(driver.next_event().is_none(), "nothing was submitted yet");
    driver.turn(Wait::Poll).unwrap();
    let event = driver.next_event().unwrap();
    match event.outcome {
        Outcome::Sent(write, Ok(())) => assert_eq!(write.sent(), 9),
        other => panic!("{other:?}"),
    }
    let mut got = [0; 9];
    theirs.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"head body");
    assert_eq!(driver.operations(), 0);
}

#[test]
fn a_write_to_a_full_socket_goes_on_when_the_peer_reads() {
    let mut driver = driver(1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let bytes: Vec<u8> = (0..60_000_u32).map(|n| (n / 7) as u8).collect();
    let mut expected = Vec::new();
    // Enough to fill any socket buffer, one write at a time.
    for _ in 0..40 {
        expected.extend_from_slice(&bytes);
    }
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        got
    });
    for _ in 0..40 {
        driver
            .send(ours.as_raw_fd(), 3, write(&bytes, None))
            .unwrap();
        loop {
            match event(&mut driver).outcome {
                Outcome::SendProgress(sent) => assert!(sent < bytes.len()),
                Outcome::Sent(write, Ok(())) => {
                    assert_eq!(write.sent(), bytes.len());
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    drop(ours);
    drop(driver);
    assert!(reader.join().unwrap() == expected, "bytes differ");
}

#[test]
fn a_write_to_a_gone_peer_comes_home_with_the_error() {
    let mut driver = driver(1);
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    driver.send(ours.as_raw_fd(), 3, write(b"x", None)).unwrap();
    match event(&mut driver).outcome {
        Outcome::Sent(_, Err(errno)) => assert_eq!(errno, Errno(libc::EPIPE)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_single_receive_brings_its_buffer_home_also_when_cancelled() {
    let mut driver = driver(1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut input = Box::new(InputBuffer::new(BufferRecycler::new()));
    input.extend(b"head").unwrap();
    input.reserve(8000).unwrap();
    let op = driver
        .receive_into(ours.as_raw_fd(), 5, Space::Input(input))
        .unwrap();
    theirs.write_all(b" and body").unwrap();
    let done = event(&mut driver);
    assert_eq!((done.op, done.more), (op, false));
    let Outcome::ReceivedInto(Space::Input(input), Ok(9)) = done.outcome else {
        panic!("{done:?}");
    };
    assert_eq!(input.unconsumed(), b"head and body");
    let op = driver
        .receive_into(ours.as_raw_fd(), 5, Space::Input(input))
        .unwrap();
    quiet(&mut driver);
    driver.cancel(op);
    match event(&mut driver).outcome {
        Outcome::ReceivedInto(Space::Input(input), Err(Errno::CANCELLED)) => {
            assert_eq!(input.unconsumed(), b"head and body");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cancelled_receive_may_still_bring_data() {
    let mut driver = driver(4);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let op = driver.receive(ours.as_raw_fd(), 1).unwrap();
    quiet(&mut driver);
    theirs.write_all(b"late").unwrap();
    driver.cancel(op);
    let mut got = Vec::new();
    loop {
        let event = event(&mut driver);
        match event.outcome {
            Outcome::Received(lease) => got.extend_from_slice(&lease),
            Outcome::Failed(errno) => assert_eq!(errno, Errno::CANCELLED),
            other => panic!("{other:?}"),
        }
        if !event.more {
            break;
        }
    }
    // What the cancelled receive did not bring is still in the socket.
    let mut rest = Vec::new();
    drop(theirs);
    let mut ours = ours;
    ours.read_to_end(&mut rest).unwrap();
    got.extend_from_slice(&rest);
    assert_eq!(got, b"late");
}

#[test]
fn accepts_many_and_stops_when_cancelled() {
    let mut driver = driver(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let op = driver.accept(listener.as_raw_fd(), 2).unwrap();
    quiet(&mut driver);
    let mut held = Vec::new();
    for _ in 0..3 {
        let client = std::net::TcpStream::connect(address).unwrap();
        let accepted = event(&mut driver);
        assert!(accepted.more);
        held.push((client, accepted));
    }
    driver.cancel(op);
    let last = event(&mut driver);
    assert!(matches!(last.outcome, Outcome::Failed(Errno::CANCELLED)) && !last.more);
    assert!(driver.accept_now(listener.as_raw_fd()).unwrap().is_none());
}

#[test]
fn a_poll_is_ready_once() {
    let mut driver = driver(1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    driver
        .poll(ours.as_raw_fd(), Interest::Readable, 4)
        .unwrap();
    quiet(&mut driver);
    theirs.write_all(b"x").unwrap();
    let ready = event(&mut driver);
    assert!(matches!(ready.outcome, Outcome::Ready) && !ready.more);
    driver.poll(ours.as_raw_fd(), Interest::HangUp, 5).unwrap();
    quiet(&mut driver);
    drop(theirs);
    assert_eq!(event(&mut driver).token, 5);
}

#[test]
fn completions_beyond_the_queue_are_not_lost() {
    // 64 entries give a completion queue of 256.
    let mut driver = driver(1);
    let pairs: Vec<_> = (0..400).map(|_| UnixStream::pair().unwrap()).collect();
    for (ours, theirs) in &pairs {
        driver
            .poll(ours.as_raw_fd(), Interest::Readable, 9)
            .unwrap();
        (&*theirs).write_all(b"x").unwrap();
    }
    for _ in 0..400 {
        assert!(matches!(event(&mut driver).outcome, Outcome::Ready));
    }
    assert_eq!(driver.operations(), 0);
}

#[test]
fn more_sends_than_queue_entries_all_end() {
    let mut driver = driver(1);
    let pairs: Vec<_> = (0..200).map(|_| UnixStream::pair().unwrap()).collect();
    for (token, (ours, _)) in pairs.iter().enumerate() {
        driver
            .send(ours.as_raw_fd(), token as u64, write(b"answer", None))
            .unwrap();
    }
    let mut tokens: Vec<u64> = (0..200).map(|_| event(&mut driver).token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..200).collect::<Vec<_>>());
}

#[test]
fn dropping_the_driver_with_operations_pending_is_clean() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut driver: UringDriver<NoBody> = UringDriver::new(&UringConfig::default()).unwrap();
    driver.receive(ours.as_raw_fd(), 1).unwrap();
    let mut input = Box::new(InputBuffer::new(BufferRecycler::new()));
    input.reserve(4096).unwrap();
    driver
        .receive_into(ours.as_raw_fd(), 2, Space::Input(input))
        .unwrap();
    driver.turn(Wait::Poll).unwrap();
    let started = Instant::now();
    drop(driver);
    assert!(started.elapsed() < DROP_WAIT);
}

#[test]
fn a_body_is_received_into_its_final_place() {
    let mut driver: UringDriver<Box<[u8]>> = UringDriver::new(&UringConfig::default()).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut filling = Box::new(Filling::default());
    assert!(filling.start(10));
    assert_eq!(filling.extend(b"abc"), 3);
    theirs.write_all(b"defghijk").unwrap();
    driver
        .receive_into(ours.as_raw_fd(), 1, Space::Body(filling))
        .unwrap();
    driver.turn(Wait::For(None)).unwrap();
    let Some(Event {
        outcome: Outcome::ReceivedInto(Space::Body(mut filling), Ok(7)),
        ..
    }) = driver.next_event()
    else {
        panic!("the body did not come");
    };
    assert_eq!(filling.bytes(), b"abcdefghij");
    assert_eq!(filling.extend(b"k"), 0);
    assert_eq!(filling.body().map(|body| body.len()), Some(10));
    assert_eq!(filling.take().as_deref(), Some(&b"abcdefghij"[..]));
}

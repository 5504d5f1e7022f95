//! Accepting: by one operation that goes on, and one at a time.

use std::os::fd::AsRawFd;

use theframework_io::{Driver, Errno, Interest, Outcome};

use crate::bench::{Bench, write};
use crate::world::{Peer, Socket, World};

fn accepted<W: World>(bench: &mut Bench<W>) -> Socket<W> {
    let event = bench.event();
    assert!(event.more);
    match event.outcome {
        Outcome::Accepted(socket) => socket,
        other => panic!("{other:?}"),
    }
}

pub fn accepts_many_and_stops_when_cancelled<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let listener = bench.world.listener();
    let op = bench.driver.accept(listener.as_raw_fd(), 2).unwrap();
    bench.quiet();
    let mut held = Vec::new();
    for _ in 0..3 {
        let client = bench.world.connect(&listener);
        held.push((client, accepted(&mut bench)));
    }
    bench.driver.cancel(op);
    assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
    assert!(
        bench
            .driver
            .accept_now(listener.as_raw_fd())
            .unwrap()
            .is_none()
    );
    // Who comes now waits.
    let _client = bench.world.connect(&listener);
    bench.assert_clean();
    assert!(
        bench
            .driver
            .accept_now(listener.as_raw_fd())
            .unwrap()
            .is_some()
    );
}

pub fn accepts_all_who_wait<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let listener = bench.world.listener();
    let clients: Vec<_> = (0..100).map(|_| bench.world.connect(&listener)).collect();
    let op = bench.driver.accept(listener.as_raw_fd(), 2).unwrap();
    let sockets: Vec<_> = clients.iter().map(|_| accepted(&mut bench)).collect();
    assert_eq!(sockets.len(), 100);
    bench.quiet();
    let late = bench.world.connect(&listener);
    drop(accepted(&mut bench));
    drop(late);
    bench.driver.cancel(op);
    assert!(matches!(bench.last(op), Outcome::Failed(Errno::CANCELLED)));
    bench.assert_clean();
}

pub fn an_accepted_connection_serves<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let listener = bench.world.listener();
    let accept = bench.driver.accept(listener.as_raw_fd(), 1).unwrap();
    let mut client = bench.world.connect(&listener);
    client.write(b"question");
    let ours = accepted(&mut bench);
    let receive = bench.driver.receive(ours.as_raw_fd(), 2).unwrap();
    assert_eq!(bench.receive(8), b"question");
    let send = bench
        .driver
        .send(ours.as_raw_fd(), 3, write(b"answer", None))
        .unwrap();
    assert_eq!(bench.send_to(&mut client, send).arrived, b"answer");
    drop(client);
    assert!(matches!(bench.last(receive), Outcome::EndOfStream));
    bench.driver.close(ours);
    bench.driver.cancel(accept);
    assert!(matches!(
        bench.last(accept),
        Outcome::Failed(Errno::CANCELLED)
    ));
    bench.assert_clean();
}

/// As on a listener that several workers share: who is left in the backlog is reported again.
pub fn a_polled_listener_is_taken_from_one_by_one<W: World>() {
    let mut bench = Bench::<W>::new(4);
    let listener = bench.world.listener();
    let fd = listener.as_raw_fd();
    let op = bench.driver.poll(fd, Interest::Readable, 1).unwrap();
    bench.quiet();
    let clients: Vec<_> = (0..3).map(|_| bench.world.connect(&listener)).collect();
    assert!(matches!(bench.last(op), Outcome::Ready));
    for _ in &clients {
        let op = bench.driver.poll(fd, Interest::Readable, 1).unwrap();
        assert!(matches!(bench.last(op), Outcome::Ready));
        assert!(bench.driver.accept_now(fd).unwrap().is_some());
    }
    assert!(bench.driver.accept_now(fd).unwrap().is_none());
    let op = bench.driver.poll(fd, Interest::Readable, 1).unwrap();
    bench.quiet();
    let _client = bench.world.connect(&listener);
    assert!(matches!(bench.last(op), Outcome::Ready));
    bench.assert_clean();
}

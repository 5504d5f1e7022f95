//! A listener that fails for good: a process that has inherited it may have shut it.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use theframework::Config;
use theframework::engine::{AcceptMode, Engine, Router};
use theframework_io::{Driver, PollConfig, PollDriver, UringConfig, UringDriver};

type Kept = &'static [u8];

/// Turns that an engine takes in 300 ms, woken every 100, after its listener was shut.
fn turns_after_shutdown<D: Driver<Kept, Socket = OwnedFd>>(driver: D, mode: AcceptMode) -> u32 {
    let mut engine = Engine::new(driver, Config::default(), Rc::new(Router::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let elsewhere = socket2::Socket::from(listener.try_clone().unwrap());
    engine.listen(OwnedFd::from(listener), mode);
    engine.turn(false).unwrap();
    elsewhere.shutdown(Shutdown::Both).unwrap();
    let until = Instant::now() + Duration::from_millis(300);
    let mut turns = 0;
    while Instant::now() < until {
        engine.set_timer(engine.clock_us() + 100_000, 1);
        engine.turn(true).unwrap();
        while engine.next_due().is_some() {}
        turns += 1;
    }
    turns
}

#[test]
fn a_listener_that_was_shut_elsewhere_does_not_keep_the_worker_busy() {
    for mode in [AcceptMode::Own, AcceptMode::Shared] {
        let uring = UringDriver::new(&UringConfig::default()).unwrap();
        let turns = turns_after_shutdown(uring, mode);
        assert!(turns < 30, "io_uring, {mode:?}: {turns} turns");
        let poll = PollDriver::new(&PollConfig::default()).unwrap();
        let turns = turns_after_shutdown(poll, mode);
        assert!(turns < 30, "poll, {mode:?}: {turns} turns");
    }
}

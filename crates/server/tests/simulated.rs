//! What the simulator has found, and what it cannot, each as a case of its own on the simulated
//! network.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;

use theframework::{AcceptMode, Body, Config, Engine, ExchangeId, Peers, Route, Router};
use theframework_io::sim::{ClientId, Faults, Net, NoAgenda, SimDriver, SimSocket};

type Kept = Box<[u8]>;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Another worker, with as many connections; and what it was told.
#[derive(Clone, Debug, Default)]
struct Other {
    has: Rc<Cell<usize>>,
    told: Rc<Cell<usize>>,
}

impl Peers for Other {
    fn publish(&self, connections: usize) {
        self.told.set(connections);
    }

    fn lowest(&self) -> Option<usize> {
        Some(self.has.get())
    }
}

struct World {
    net: Rc<RefCell<Net>>,
    listener: RawFd,
    engine: Engine<SimDriver<Kept>, Kept>,
}

impl World {
    fn new(config: Config) -> Self {
        World::listening(config, AcceptMode::Own)
    }

    fn listening(config: Config, mode: AcceptMode) -> Self {
        let net = Rc::new(RefCell::new(Net::new(1, Faults::default())));
        let driver = SimDriver::new(&net, Rc::new(RefCell::new(NoAgenda)), 8).unwrap();
        let mut router = Router::new();
        router.add("/", "GET", 0).unwrap();
        let mut engine = Engine::new(driver, config, Rc::new(router));
        let listener = net.borrow_mut().listen();
        engine.listen(SimSocket::new(&net, listener), mode);
        World {
            net,
            listener,
            engine,
        }
    }

    fn client(&self) -> ClientId {
        let mut net = self.net.borrow_mut();
        net.connect(self.listener, 100_000, 100_000).unwrap()
    }

    fn now_ms(&self) -> u64 {
        self.net.borrow().now_us() / 1000
    }

    fn send(&self, client: ClientId, bytes: impl AsRef<[u8]>) {
        let sent = self.net.borrow_mut().client_send(client, bytes.as_ref());
        assert_eq!(sent, bytes.as_ref().len());
    }

    /// What the client has received since the last time.
    fn received(&self, client: ClientId) -> String {
        let mut bytes = Vec::new();
        let mut net = self.net.borrow_mut();
        net.client_read(client, usize::MAX, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    /// Turns for so long, with nothing to do.
    fn wait(&mut self, ms: u64) {
        let until_us = self.engine.clock_us() + ms * 1000;
        self.engine.set_timer(until_us, 1);
        while self.engine.next_due().is_none() {
            self.turn();
        }
    }

    /// Sends a request and turns until it is with its handler.
    fn ask(&mut self, client: ClientId) -> ExchangeId {
        self.send(client, GET);
        self.next()
    }

    /// Turns until a request is with its handler.
    fn next(&mut self) -> ExchangeId {
        loop {
            self.turn();
            if let Some(id) = self.engine.next_ready() {
                return id;
            }
        }
    }

    fn turn(&mut self) {
        self.engine.turn(true).unwrap();
        self.engine.audit().unwrap();
    }
}

#[test]
fn an_idle_connection_ends_in_time_after_a_body_that_was_sent_from_where_it_is() {
    let mut world = World::new(Config {
        keepalive_timeout_ms: 1000,
        ..Config::default()
    });
    let client = world.client();
    let id = world.ask(client);
    let body = vec![b'x'; 5000].into_boxed_slice();
    world.engine.respond(id, 200, Body::Kept(body));
    let answered_ms = world.now_ms();
    while world.engine.connection_count() > 0 {
        world.turn();
    }
    let lasted_ms = world.now_ms() - answered_ms;
    assert!((1000..1020).contains(&lasted_ms), "{lasted_ms} ms");
}

#[test]
fn a_drain_does_not_wait_for_a_connection_whose_answer_is_just_being_sent() {
    let mut world = World::new(Config {
        keepalive_timeout_ms: 60_000,
        ..Config::default()
    });
    let client = world.client();
    let id = world.ask(client);
    let body = vec![b'x'; 5000].into_boxed_slice();
    world.engine.respond(id, 200, Body::Kept(body));
    world.engine.drain();
    let began_ms = world.now_ms();
    while !world.engine.is_drained() {
        world.turn();
    }
    let lasted_ms = world.now_ms() - began_ms;
    assert!((900..1100).contains(&lasted_ms), "{lasted_ms} ms");
}

#[test]
fn a_handler_that_parks_again_after_its_timeout_leaves_no_second_timer() {
    let mut world = World::new(Config {
        handler_timeout_ms: 100,
        ..Config::default()
    });
    let client = world.client();
    let id = world.ask(client);
    world.engine.park(id);
    let overdue = loop {
        world.turn();
        if let Some(overdue) = world.engine.next_overdue() {
            break overdue;
        }
    };
    assert_eq!(overdue, id);
    world.engine.park(id);
    world.engine.start_overtime(id, 5000);
    // That of the connection and that of the handler.
    assert!(world.engine.held().timers <= 2, "{:?}", world.engine.held());
    world.engine.respond(id, 503, Body::Copied(b"late"));
    world.net.borrow_mut().client_close(client);
    while world.engine.connection_count() > 0 {
        world.turn();
    }
    assert_eq!(world.engine.held().timers, 0);
}

#[test]
fn other_workers_are_told_of_those_who_are_refused_for_want_of_a_slot() {
    let mut world = World::new(Config {
        max_connections: 1,
        accept_pause_ms: 0,
        ..Config::default()
    });
    let other = Other::default();
    world.engine.set_peers(Box::new(other.clone()));
    let clients = [world.client(), world.client()];
    while world.engine.stats().overload == 0 {
        world.turn();
    }
    assert_eq!(world.engine.connection_count(), 2);
    assert_eq!(other.told.get(), 2);
    world.net.borrow_mut().client_close(clients[1]);
    while world.engine.connection_count() > 1 {
        world.turn();
    }
    assert_eq!(other.told.get(), 1);
}

#[test]
fn a_worker_clearly_above_another_lets_it_go_first_for_two_milliseconds() {
    let mut world = World::listening(Config::default(), AcceptMode::Shared);
    let other = Other::default();
    world.engine.set_peers(Box::new(other.clone()));
    let takes_us = |world: &mut World| {
        world.wait(10);
        let began_us = world.engine.clock_us();
        let client = world.client();
        let id = world.ask(client);
        world.engine.respond(id, 200, Body::Copied(b"x"));
        world.engine.clock_us() - began_us
    };
    for count in 0..4 {
        let us = takes_us(&mut world);
        assert!(us < 1000, "{us} us with {count} more than the other");
    }
    // Each time anew.
    for _ in 0..3 {
        let us = takes_us(&mut world);
        assert!((1500..3500).contains(&us), "{us} us");
    }
    other.has.set(4);
    let us = takes_us(&mut world);
    assert!(us < 1000, "{us} us with three more than the other");
}

#[test]
fn requests_of_one_connection_give_way_to_others_after_thirty_two() {
    let mut world = World::new(Config::default());
    let (greedy, modest) = (world.client(), world.client());
    world.send(greedy, GET.repeat(100));
    while world.engine.ready_len() == 0 {
        world.turn();
    }
    world.send(modest, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    while world.engine.ready_len() == 1 {
        world.turn();
    }
    let mut taken = Vec::new();
    for _ in 0..101 {
        let id = world.engine.next_ready().unwrap();
        taken.push(world.engine.request(id).unwrap().method() == b"HEAD");
        world.engine.respond(id, 200, Body::Copied(b""));
    }
    // The first one and the thirty-two that follow it.
    assert_eq!(taken.iter().position(|&is_modest| is_modest), Some(33));
}

#[test]
fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    for (head, tail) in [
        ("Content-Length: 100\r\n\r\n", ""),
        ("Transfer-Encoding: chunked\r\n\r\n64\r\n", "\r\n0\r\n\r\n"),
    ] {
        for (max_body_size, is_taken) in [(100, true), (99, false)] {
            let mut world = World::new(Config {
                max_body_size,
                ..Config::default()
            });
            let client = world.client();
            let body = "b".repeat(100);
            world.send(
                client,
                format!("POST / HTTP/1.1\r\nHost: x\r\n{head}{body}{tail}"),
            );
            world.wait(10);
            assert_eq!(world.engine.next_ready().is_some(), is_taken, "{head}");
            let answer = world.received(client);
            assert_eq!(answer.starts_with("HTTP/1.1 413 "), !is_taken, "{answer}");
        }
    }
}

#[test]
fn a_request_for_the_server_as_a_whole_is_not_one_for_its_first_page() {
    let mut world = World::new(Config::default());
    let client = world.client();
    world.send(client, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    let id = world.next();
    assert_eq!(world.engine.request(id).unwrap().route(), Route::NotFound);
}

#[test]
fn a_body_may_last_as_long_as_it_brings_what_is_asked_for() {
    for (bytes, is_refused) in [(150, false), (50, true)] {
        let mut world = World::new(Config {
            min_body_rate: 1000,
            read_timeout_ms: 500,
            ..Config::default()
        });
        let client = world.client();
        world.send(
            client,
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6000\r\n\r\n",
        );
        let mut answer = String::new();
        for _ in 0..6000 / bytes {
            world.wait(100);
            answer.push_str(&world.received(client));
            if !answer.is_empty() {
                break;
            }
            world.send(client, "b".repeat(bytes));
        }
        world.wait(100);
        assert_eq!(answer.starts_with("HTTP/1.1 408 "), is_refused, "{answer}");
        assert_eq!(world.engine.next_ready().is_some(), !is_refused);
    }
}

#[test]
fn a_drain_ends_connections_that_might_be_idle_for_ever() {
    let mut world = World::new(Config {
        keepalive_timeout_ms: 0,
        ..Config::default()
    });
    let client = world.client();
    let id = world.ask(client);
    world.engine.respond(id, 200, Body::Copied(b"x"));
    world.wait(100_000);
    assert_eq!(world.engine.connection_count(), 1);
    world.engine.drain();
    let began_ms = world.now_ms();
    while !world.engine.is_drained() {
        world.turn();
    }
    let lasted_ms = world.now_ms() - began_ms;
    assert!((900..1100).contains(&lasted_ms), "{lasted_ms} ms");
}

#[test]
fn fields_that_were_set_can_be_asked_for_and_forgotten() {
    let mut world = World::new(Config::default());
    let client = world.client();
    let id = world.ask(client);
    world.engine.set_field(id, b"X-One", b"1", false).unwrap();
    assert!(world.engine.has_field(id, b"x-one"));
    assert!(!world.engine.has_field(id, b"x-two"));
    world.engine.clear_fields(id);
    assert!(!world.engine.has_field(id, b"x-one"));
    world.engine.set_field(id, b"X-Two", b"2", false).unwrap();
    world.engine.respond(id, 200, Body::Copied(b"x"));
    world.wait(10);
    let answer = world.received(client).to_ascii_lowercase();
    assert!(answer.contains("\r\nx-two: 2\r\n"), "{answer}");
    assert!(!answer.contains("x-one"), "{answer}");
}

#[test]
fn the_connection_field_says_what_the_client_may_not_know() {
    for (request, said) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            Some("close"),
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            Some("keep-alive"),
        ),
    ] {
        let mut world = World::new(Config::default());
        let client = world.client();
        world.send(client, request);
        let id = world.next();
        world.engine.respond(id, 200, Body::Copied(b"x"));
        world.wait(10);
        let answer = world.received(client).to_ascii_lowercase();
        let field = answer
            .lines()
            .find_map(|line| line.strip_prefix("connection: "));
        assert_eq!(field, said, "{answer}");
    }
}

#[test]
fn a_small_body_is_copied_and_a_larger_one_is_kept_until_it_is_sent() {
    for (size, is_copied) in [(4096, true), (4097, false)] {
        let mut world = World::new(Config::default());
        let client = world.client();
        let id = world.ask(client);
        let body = vec![b'x'; size].into_boxed_slice();
        world.engine.respond(id, 200, Body::Kept(body));
        assert_eq!(world.engine.take_released().is_some(), is_copied);
        world.wait(10);
        assert_eq!(world.engine.take_released().is_some(), !is_copied);
        assert!(world.received(client).ends_with("xx"));
    }
}

//! What the simulator has found, each as a case of its own on the simulated network.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;

use theframework::{AcceptMode, Body, Config, Engine, ExchangeId, Peers, Router};
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

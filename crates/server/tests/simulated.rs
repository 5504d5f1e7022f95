//! What the simulator has found, and what it cannot, each as a case of its own on the simulated
//! network.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;

use theframework::Config;
use theframework::engine::{
    AcceptMode, Body, BodyState, Engine, ExchangeId, PeerSlot, Peers, Room, Route, Router,
    SlotPeers, Spare, StreamLimit, WriteError,
};
use theframework_http::parse_date;
use theframework_io::sim::{ClientId, Faults, Net, NoAgenda, SimDriver, SimSocket};
use theframework_io::{Driver as _, Wait};
use theframework_memory::RECYCLES;

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

    fn disown(&mut self) {}
}

struct World {
    net: Rc<RefCell<Net>>,
    listener: RawFd,
    engine: Engine<SimDriver<Kept>, Kept>,
    turns: u32,
}

/// No test needs as many turns.
const TURNS_MAX: u32 = 20_000;

impl World {
    fn new(config: Config) -> Self {
        World::listening(config, AcceptMode::Own)
    }

    fn listening(config: Config, mode: AcceptMode) -> Self {
        let net = Rc::new(RefCell::new(Net::new(1, Faults::default())));
        let driver = SimDriver::new(&net, Rc::new(RefCell::new(NoAgenda)), 8).unwrap();
        World::on(net, driver, config, mode)
    }

    fn on(
        net: Rc<RefCell<Net>>,
        driver: SimDriver<Kept>,
        config: Config,
        mode: AcceptMode,
    ) -> Self {
        let mut router = Router::new();
        router.add("/", "GET", 0).unwrap();
        router.add("/up", "POST", 1).unwrap();
        router.add("/users/{id}/{*rest}", "GET", 2).unwrap();
        router.stream(1, StreamLimit::Default);
        let mut engine = Engine::new(driver, config, Rc::new(router));
        let listener = net.borrow_mut().listen();
        engine.listen(SimSocket::new(&net, listener), mode);
        World {
            net,
            listener,
            engine,
            turns: 0,
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

    /// Answers a new client with a body that is sent from where it is.
    fn serve_kept_body(&mut self) {
        let client = self.client();
        let id = self.ask(client);
        let body = vec![b'x'; 5000].into_boxed_slice();
        self.engine.respond(id, 200, Body::Kept(body));
    }

    /// Turns until something is due.
    fn due(&mut self) -> u64 {
        loop {
            if let Some(value) = self.engine.next_due() {
                return value;
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "it is waited for in vain");
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
    world.serve_kept_body();
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
    world.serve_kept_body();
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
    // Each time anew. The clock that it is taken from is read in whole milliseconds.
    for _ in 0..3 {
        let us = takes_us(&mut world);
        assert!((1000..3500).contains(&us), "{us} us");
    }
    other.has.set(4);
    let us = takes_us(&mut world);
    assert!(us < 1000, "{us} us with three more than the other");
}

#[test]
fn a_worker_lets_another_go_first_in_the_middle_of_a_batch() {
    let mut world = World::listening(Config::default(), AcceptMode::Shared);
    world.engine.set_peers(Box::new(Other::default()));
    world.wait(10);
    for _ in 0..8 {
        world.client();
    }
    while world.engine.connection_count() < 4 {
        world.turn();
    }
    assert_eq!(world.engine.connection_count(), 4);
    world.wait(4);
    assert_eq!(world.engine.connection_count(), 8);
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
fn the_next_request_of_a_pipeline_is_counted_among_those_that_wait() {
    let mut world = World::new(Config::default());
    let client = world.client();
    world.send(client, GET.repeat(2));
    let id = world.next();
    assert_eq!(world.engine.ready_len(), 0);
    world.engine.respond(id, 200, Body::Copied(b"x"));
    assert_eq!(world.engine.ready_len(), 1);
    assert!(world.engine.next_ready().is_some());
    assert_eq!(world.engine.ready_len(), 0);
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
    let request = "OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
    world.send(client, request.repeat(3));
    let id = world.ask(client);
    assert_eq!(
        world.engine.request(id).unwrap().route(),
        Route::Endpoint(0)
    );
    world.engine.respond(id, 200, Body::Copied(b"page"));
    world.wait(1);
    let answers = world.received(client);
    let answers: Vec<_> = answers.split_inclusive("\r\n\r\n").collect();
    assert_eq!(answers.len(), 5, "{answers:?}");
    for answer in &answers[..3] {
        assert!(
            answer.starts_with("HTTP/1.1 204 ")
                && answer.contains("\r\nAllow: GET, HEAD, OPTIONS, POST\r\n")
        );
    }
    assert_eq!(answers[4], "page");
}

#[test]
fn what_cannot_be_served_here_is_refused() {
    for (line, status) in [
        ("CONNECT a:80", 501),
        ("TRACE /", 501),
        ("BREW /nowhere", 501),
        ("OPTIONS /", 0),
        ("GET HTTPS://x/", 421),
        ("OPTIONS https://x", 421),
        ("GET http://x", 0),
    ] {
        let mut world = World::new(Config::default());
        let client = world.client();
        world.send(client, format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
        world.wait(10);
        let answer = world.received(client);
        if status == 0 {
            assert!(world.engine.next_ready().is_some(), "{line}");
        } else {
            let expected = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&expected), "{line}: {answer}");
        }
    }
}

#[test]
fn a_response_has_a_final_status_and_no_body_that_it_may_not_have() {
    for (status, sent, length) in [
        (200, 200, Some(9)),
        (204, 204, None),
        (205, 205, Some(0)),
        (304, 304, None),
        (100, 500, Some(9)),
        (199, 500, Some(9)),
        (0, 500, Some(9)),
        (600, 500, Some(9)),
    ] {
        let mut world = World::new(Config::default());
        let client = world.client();
        let id = world.ask(client);
        world.engine.respond(id, status, Body::Copied(b"some text"));
        world.wait(1);
        let answer = world.received(client);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {sent} ")), "{answer}");
        let said = head.split("Content-Length: ").nth(1);
        let said = said.map(|text| text.lines().next().unwrap().parse().unwrap());
        assert_eq!(
            (said, body.len()),
            (length, length.unwrap_or(0)),
            "{answer}"
        );
    }
}

#[test]
fn a_refused_head_gets_no_body_however_bad_it_is() {
    for request in [
        "HEAD / HTTP/1.1\r\n\r\n",
        "\r\nHEAD / HTTP/1.1\r\nX : y\r\n\r\n",
    ] {
        let mut world = World::new(Config::default());
        let client = world.client();
        world.send(client, request);
        world.wait(1);
        let answer = world.received(client);
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"),
            "{answer}"
        );
    }
}

#[test]
fn empty_lines_alone_are_no_request_that_is_late() {
    for (bytes, is_told) in [("\r\n\r\n", false), ("\r\nG", true)] {
        let mut world = World::new(Config {
            read_timeout_ms: 100,
            ..Config::default()
        });
        let client = world.client();
        world.send(client, bytes);
        world.wait(200);
        let answer = world.received(client);
        assert_eq!(answer.starts_with("HTTP/1.1 408 "), is_told, "{answer}");
        assert!(is_told || answer.is_empty(), "{answer}");
    }
}

#[test]
fn the_server_is_named_in_refusals_too() {
    let mut world = World::new(Config {
        server: b"sim".to_vec(),
        ..Config::default()
    });
    let client = world.client();
    world.send(client, "nonsense\r\n\r\n");
    world.wait(1);
    assert!(world.received(client).contains("\r\nServer: sim\r\n"));
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

#[test]
fn accepting_rests_for_a_second_when_descriptors_have_run_out() {
    for mode in [AcceptMode::Own, AcceptMode::Shared] {
        let mut world = World::listening(Config::default(), mode);
        let first = world.client();
        let id = world.ask(first);
        world.engine.respond(id, 200, Body::Copied(b"x"));
        world.wait(10);
        world.net.borrow_mut().faults.exhaustion = 1000;
        let second = world.client();
        world.send(second, GET);
        let (began_ms, turns) = (world.now_ms(), world.engine.stats().turns);
        world.wait(500);
        assert!(world.engine.stats().turns < turns + 20, "a busy loop");
        world.net.borrow_mut().faults.exhaustion = 0;
        let id = world.next();
        let lasted_ms = world.now_ms() - began_ms;
        assert!((1000..1010).contains(&lasted_ms), "{lasted_ms} ms");
        world.engine.respond(id, 200, Body::Copied(b"x"));
        world.wait(10);

        // A descriptor that is closed can be used at once.
        world.net.borrow_mut().faults.exhaustion = 1000;
        let third = world.client();
        world.send(third, GET);
        world.wait(100);
        world.net.borrow_mut().faults.exhaustion = 0;
        world.net.borrow_mut().client_reset(first);
        let began_ms = world.now_ms();
        world.next();
        let lasted_ms = world.now_ms() - began_ms;
        assert!(lasted_ms < 10, "{lasted_ms} ms");
    }
}

#[test]
fn accepting_that_was_stopped_goes_on_with_the_next_free_slot() {
    let mut world = World::new(Config {
        max_connections: 1,
        ..Config::default()
    });
    world.net.borrow_mut().faults.late_cancels = 1000;
    for _ in 0..20 {
        let client = world.client();
        let began_ms = world.now_ms();
        let id = world.ask(client);
        let lasted_ms = world.now_ms() - began_ms;
        assert!(lasted_ms < 10, "{lasted_ms} ms");
        world.engine.respond(id, 200, Body::Copied(b"x"));
        world.net.borrow_mut().client_reset(client);
        while world.engine.connection_count() > 0 {
            world.turn();
        }
        world.wait(20);
    }
}

#[test]
fn those_who_are_told_503_take_no_place() {
    let mut world = World::new(Config {
        max_connections: 2,
        accept_pause_ms: 0,
        ..Config::default()
    });
    let clients = [world.client(), world.client(), world.client()];
    world.wait(10);
    let answer = world.received(clients[2]);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    world.net.borrow_mut().client_reset(clients[0]);
    world.wait(10);
    let next = world.client();
    let id = world.ask(next);
    world.engine.respond(id, 200, Body::Copied(b"x"));
    world.wait(10);
    let answer = world.received(next);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // The third one has not closed its side yet.
    assert_eq!(world.engine.connection_count(), 3);
}

#[test]
fn only_a_full_worker_asks_its_client_to_come_again() {
    let mut world = World::new(Config::default());
    let client = world.client();
    world.send(client, "nonsense\r\n\r\n");
    world.wait(10);
    let answer = world.received(client);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(!answer.contains("Retry-After"), "{answer}");
    assert_eq!(world.engine.stats().refused, 1);
}

#[test]
fn only_what_is_missing_of_a_large_body_is_received_in_one_piece() {
    for (missing, is_large) in [(16 * 1024, false), (16 * 1024 + 1, true)] {
        let mut world = World::new(Config::default());
        let client = world.client();
        let length = missing + 1000;
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        world.send(client, head + &"b".repeat(1000));
        world.wait(10);
        world.net.borrow_mut().start_trace();
        world.send(client, "b".repeat(missing));
        let id = world.next();
        assert_eq!(world.engine.request(id).unwrap().body().len(), length);
        let trace = world.net.borrow_mut().take_trace().join("\n");
        let in_one = format!("the server receives {missing} bytes");
        assert_eq!(trace.contains(&in_one), is_large, "{trace}");
    }
}

#[test]
fn who_has_its_last_answer_is_read_from_for_two_seconds() {
    let mut world = World::new(Config {
        read_timeout_ms: 500,
        ..Config::default()
    });
    let client = world.client();
    world.send(
        client,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n",
    );
    world.wait(600);
    let answer = world.received(client);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let ended_ms = world.now_ms() - 100;
    // Where the body was to go, a receive is still pending.
    world.send(client, "b".repeat(1000));
    world.wait(100);
    assert_eq!(world.engine.held().buffers, 0, "{:?}", world.engine.held());
    while world.engine.connection_count() > 0 {
        world.turn();
    }
    let lasted_ms = world.now_ms() - ended_ms;
    assert!((1980..2020).contains(&lasted_ms), "{lasted_ms} ms");
}

#[test]
fn who_comes_to_a_full_worker_is_told_when_the_pause_is_over() {
    for mode in [AcceptMode::Own, AcceptMode::Shared] {
        let mut world = World::listening(
            Config {
                max_connections: 1,
                accept_pause_ms: 300,
                ..Config::default()
            },
            mode,
        );
        // The clock does not stand at zero when the worker becomes full.
        world.wait(1000);
        let first = world.client();
        let id = world.ask(first);
        let full_ms = world.now_ms();
        world.engine.respond(id, 200, Body::Copied(b"x"));
        world.wait(100);
        let second = world.client();
        while world.engine.stats().overload == 0 {
            world.turn();
        }
        let lasted_ms = world.now_ms() - full_ms;
        assert!((299..310).contains(&lasted_ms), "{lasted_ms} ms, {mode:?}");
        world.wait(10);
        let answer = world.received(second);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}

#[test]
fn at_most_thirty_two_are_being_told_at_the_same_time() {
    for mode in [AcceptMode::Own, AcceptMode::Shared] {
        let mut world = World::listening(
            Config {
                max_connections: 1,
                accept_pause_ms: 0,
                ..Config::default()
            },
            mode,
        );
        let clients: Vec<_> = (0..50).map(|_| world.client()).collect();
        world.wait(10);
        assert_eq!(world.engine.stats().overload, 32);
        // Nobody has closed; the rest is told when they may.
        world.wait(2500);
        assert_eq!(world.engine.stats().overload, 49);
        for client in &clients[1..] {
            let answer = world.received(*client);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        }
    }
}

#[test]
fn who_still_takes_its_answer_has_time_for_the_next_head() {
    let mut world = World::new(Config {
        read_timeout_ms: 500,
        keepalive_timeout_ms: 500,
        write_timeout_ms: 500,
        ..Config::default()
    });
    let client = world.client();
    let id = world.ask(client);
    let body = vec![b'x'; 300_000].into_boxed_slice();
    world.engine.respond(id, 200, Body::Kept(body));
    let (start, end) = GET.split_at(10);
    world.wait(100);
    world.send(client, start);
    let mut received = Vec::new();
    // The last 100,000 bytes are in the socket before the client has read the others.
    while received.len() < 180_000 {
        let mut net = world.net.borrow_mut();
        net.client_read(client, 20_000, &mut received);
        drop(net);
        world.wait(100);
    }
    assert!(world.now_ms() > 700);
    world.send(client, end);
    let id = world.next();
    world.engine.respond(id, 200, Body::Copied(b"x"));
}

#[test]
fn answers_that_nobody_takes_are_joined_and_do_not_pile_up() {
    let mut world = World::new(Config::default());
    let client = {
        let mut net = world.net.borrow_mut();
        net.connect(world.listener, 1000, 100_000).unwrap()
    };
    world.send(client, GET.repeat(500));
    let mut answered = 0;
    for _ in 0..100 {
        world.wait(1);
        while let Some(id) = world.engine.next_ready() {
            world.engine.respond(id, 200, Body::Copied(&[b'x'; 1000]));
            answered += 1;
        }
    }
    // One write is being sent, another one of 64 KiB waits.
    assert!((90..150).contains(&answered), "{answered}");
}

#[test]
fn what_comes_behind_the_last_answer_is_not_kept() {
    let mut world = World::new(Config {
        read_ahead: 1,
        read_timeout_ms: 500,
        ..Config::default()
    });
    let client = world.client();
    let first = world.ask(client);
    world.engine.park(first);
    // So much is not read ahead: afterwards a single receive waits for the rest of the body.
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n";
    world.send(client, head.to_owned() + "bb");
    world.wait(10);
    world.engine.respond(first, 200, Body::Copied(b"x"));
    world.wait(600);
    let answers = world.received(client);
    assert!(answers.contains("HTTP/1.1 408 "), "{answers}");
    world.send(client, "b".repeat(1000));
    world.wait(10);
    assert_eq!(world.engine.connection_count(), 1);
    assert_eq!(world.engine.held().buffers, 0, "{:?}", world.engine.held());
}

#[test]
fn without_a_time_limit_a_handler_is_never_overdue() {
    let mut world = World::new(Config {
        handler_timeout_ms: 0,
        ..Config::default()
    });
    let client = world.client();
    let id = world.ask(client);
    world.engine.park(id);
    world.wait(200_000);
    assert_eq!(world.engine.next_overdue(), None);
    world.engine.respond(id, 200, Body::Copied(b"late"));
    world.wait(10);
    assert!(world.received(client).ends_with("late"));
}

#[test]
fn the_child_of_a_fork_does_not_tell_the_others_that_the_parent_has_ended() {
    let slots: Rc<[PeerSlot]> = Rc::new([PeerSlot::default(), PeerSlot::default()]);
    let mut parent = World::new(Config::default());
    let seen = SlotPeers::new(Rc::clone(&slots), 1).unwrap();
    parent
        .engine
        .set_peers(Box::new(SlotPeers::new(slots, 0).unwrap()));
    assert_eq!(seen.lowest(), Some(0));
    parent.engine.abandon_after_fork();
    drop(parent);
    assert_eq!(seen.lowest(), Some(0));
}

/// A request whose handler takes the body while it comes, of so many bytes.
fn upload(len: usize) -> String {
    format!("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n")
}

#[test]
fn what_was_not_read_of_a_body_is_no_request_after_an_answer_that_was_streamed() {
    let mut world = World::new(Config::default());
    let client = world.client();
    world.send(client, upload(GET.len()));
    let id = world.next();
    world.engine.start_response(id, 200, Some(2));
    let ok = Body::Copied(b"ok");
    assert!(world.engine.write_body(id, ok).is_ok());
    assert!(world.engine.finish_response(id), "all of the answer");
    world.send(client, GET);
    for _ in 0..5 {
        world.turn();
    }
    assert!(world.engine.next_ready().is_none(), "a body is no request");
    assert!(world.received(client).ends_with("\r\n\r\nok"));
    let mut rest = Vec::new();
    let read = world
        .net
        .borrow_mut()
        .client_read(client, usize::MAX, &mut rest);
    assert!(read.is_end, "no further request is served");
}

/// Turns until no more can happen at once.
fn settle(world: &mut World) {
    for _ in 0..40 {
        world.engine.turn(false).unwrap();
    }
}

fn copied<'a>(bytes: &'a [u8]) -> Body<'a, Kept> {
    Body::Copied(bytes)
}

#[test]
fn a_response_takes_no_more_than_was_announced_and_only_once_it_has_begun() {
    let mut world = World::new(Config::default());
    let client = world.client();
    let id = world.ask(client);
    assert!(!world.engine.has_started(id));
    let early = world.engine.write_body(id, copied(b"x"));
    assert!(matches!(early, Err((WriteError::NoRoom, _))));
    assert!(world.engine.start_response(id, 200, Some(3)));
    assert!(world.engine.has_started(id));
    assert!(
        !world.engine.start_response(id, 200, None),
        "it has one head"
    );
    assert_eq!(world.engine.room(id), Room::Ready);
    assert!(world.engine.write_body(id, copied(b"abc")).is_ok());
    let more = world.engine.write_body(id, copied(b"d"));
    assert!(matches!(more, Err((WriteError::TooLong, _))));
    assert!(world.engine.write_body(id, copied(b"")).is_ok());
    assert!(world.engine.finish_response(id));
    assert_eq!(world.engine.room(id), Room::Over);
    assert!(!world.engine.has_started(id));
    settle(&mut world);
    assert!(world.received(client).ends_with("\r\n\r\nabc"));
    // The connection is kept.
    world.ask(client);
}

#[test]
fn an_answer_that_was_started_is_not_replaced_by_another_one() {
    let mut world = World::new(Config::default());
    let client = world.client();
    let id = world.ask(client);
    assert!(world.engine.start_response(id, 200, None));
    assert!(!world.engine.respond(id, 500, copied(b"no")));
    settle(&mut world);
    let received = world.received(client);
    assert!(received.ends_with("Transfer-Encoding: chunked\r\n\r\n"));
    assert!(!received.contains("500"), "{received}");
}

#[test]
fn what_has_no_body_is_framed_as_such() {
    let mut world = World::new(Config::default());
    // The status, the announced length, and what the head says of it.
    for (status, length, framing) in [
        (204, None, ""),
        (204, Some(3), ""),
        (304, Some(3), ""),
        (205, None, "Content-Length: 0"),
        (205, Some(3), "Content-Length: 0"),
        (200, Some(3), "Content-Length: 3"),
        (200, None, "Transfer-Encoding: chunked"),
    ] {
        let client = world.client();
        let id = world.ask(client);
        assert!(world.engine.start_response(id, status, length));
        assert!(world.engine.write_body(id, copied(b"abc")).is_ok());
        assert!(world.engine.finish_response(id));
        settle(&mut world);
        let received = world.received(client);
        let (head, body) = received.split_once("\r\n\r\n").unwrap();
        let fields: Vec<_> = head
            .lines()
            .filter(|line| line.starts_with("Content-Length") || line.starts_with("Transfer"))
            .collect();
        assert_eq!(fields.concat(), framing, "{status} {length:?}");
        let expected = match framing {
            "" | "Content-Length: 0" => "",
            "Content-Length: 3" => "abc",
            _ => "3\r\nabc\r\n0\r\n\r\n",
        };
        assert_eq!(body, expected, "{status} {length:?}");
        world.ask(client);
    }
}

#[test]
fn to_an_old_client_the_end_of_the_connection_is_the_end_of_the_body() {
    let mut world = World::new(Config::default());
    let client = world.client();
    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    world.send(client, old);
    let id = world.next();
    assert!(world.engine.start_response(id, 200, Some(1)));
    assert!(world.engine.write_body(id, copied(b"a")).is_ok());
    assert!(world.engine.finish_response(id));
    settle(&mut world);
    let received = world.received(client);
    assert!(received.contains("Connection: keep-alive"), "{received}");
    assert!(received.contains("Content-Length: 1"), "{received}");
    world.send(client, old);
    let id = world.next();
    assert!(world.engine.start_response(id, 200, None));
    assert!(world.engine.write_body(id, copied(b"abc")).is_ok());
    assert!(world.engine.finish_response(id));
    settle(&mut world);
    let received = world.received(client);
    assert!(received.contains("Connection: close"), "{received}");
    assert!(!received.contains("Content-Length"), "{received}");
    assert!(!received.contains("Transfer-Encoding"), "{received}");
    assert!(received.ends_with("\r\n\r\nabc"), "{received}");
    let mut rest = Vec::new();
    assert!(
        world
            .net
            .borrow_mut()
            .client_read(client, 9, &mut rest)
            .is_end
    );
}

#[test]
fn a_small_piece_is_copied_and_a_larger_one_is_kept_until_it_is_sent() {
    let mut world = World::new(Config::default());
    let client = world.client();
    let id = world.ask(client);
    assert!(world.engine.start_response(id, 200, None));
    for (len, is_copied) in [(0, true), (4096, true), (4097, false)] {
        let piece = vec![b'x'; len].into_boxed_slice();
        assert!(world.engine.write_body(id, Body::Kept(piece)).is_ok());
        let released = world.engine.take_released();
        assert_eq!(released.is_some(), is_copied, "{len}");
    }
    assert!(world.engine.finish_response(id));
    settle(&mut world);
    assert!(world.engine.take_released().is_some());
    let received = world.received(client);
    let (_, body) = received.split_once("\r\n\r\n").unwrap();
    let (small, large) = ("x".repeat(4096), "x".repeat(4097));
    assert_eq!(
        body,
        format!("1000\r\n{small}\r\n1001\r\n{large}\r\n0\r\n\r\n")
    );
}

#[test]
fn who_waits_for_room_is_told_when_the_client_has_taken_something() {
    let mut world = World::new(Config::default());
    let client = {
        let mut net = world.net.borrow_mut();
        net.connect(world.listener, 1000, 100_000).unwrap()
    };
    let id = world.ask(client);
    assert!(world.engine.start_response(id, 200, Some(20_000)));
    for _ in 0..2 {
        assert_eq!(world.engine.room(id), Room::Ready);
        let piece = vec![b'x'; 10_000].into_boxed_slice();
        assert!(world.engine.write_body(id, Body::Kept(piece)).is_ok());
        settle(&mut world);
    }
    assert_eq!(world.engine.room(id), Room::Full);
    world.engine.wait_for_room(id, 7);
    settle(&mut world);
    assert_eq!(world.engine.next_due(), None);
    for _ in 0..100 {
        assert_eq!(world.engine.room(id), Room::Full);
        world.received(client);
        settle(&mut world);
        if world.engine.due_len() > 0 {
            break;
        }
    }
    assert_eq!(world.engine.next_due(), Some(7));
    assert_eq!(world.engine.room(id), Room::Ready);
    // Once, and not if it has given up.
    world.engine.wait_for_room(id, 8);
    world.engine.forget_waiter(id, 9);
    world.engine.forget_waiter(id, 8);
    world.net.borrow_mut().client_reset(client);
    settle(&mut world);
    assert_eq!(world.engine.next_due(), None);
    assert_eq!(world.engine.room(id), Room::Gone);
    world.engine.abort_response(id);
    settle(&mut world);
    assert_eq!(world.engine.connection_count(), 0);
}

#[test]
fn who_waits_for_a_body_is_told_once_and_only_as_long_as_it_waits() {
    let mut world = World::new(Config::default());
    let client = world.client();
    world.send(client, upload(6));
    let id = world.next();
    assert_eq!(world.engine.body_state(id), BodyState::Waits);
    world.engine.wait_for_body(id, 7);
    world.send(client, "abc");
    settle(&mut world);
    assert_eq!(world.engine.next_due(), Some(7));
    assert_eq!(world.engine.body_state(id), BodyState::Ready);
    assert_eq!(
        world.engine.take_body(id, 2, <[u8]>::to_vec),
        Some(b"ab".to_vec())
    );
    assert_eq!(
        world.engine.take_body(id, 9, <[u8]>::to_vec),
        Some(b"c".to_vec())
    );
    assert_eq!(world.engine.body_state(id), BodyState::Waits);
    world.engine.wait_for_body(id, 8);
    // Another one's.
    world.engine.forget_waiter(id, 9);
    world.engine.forget_waiter(id, 8);
    world.send(client, "def");
    settle(&mut world);
    assert_eq!(world.engine.next_due(), None);
    assert_eq!(
        world.engine.take_body(id, 9, <[u8]>::to_vec),
        Some(b"def".to_vec())
    );
    assert_eq!(world.engine.body_state(id), BodyState::Ended);
    assert!(world.engine.respond(id, 200, copied(b"")));
    assert_eq!(world.engine.body_state(id), BodyState::Over);
    world.ask(client);
}

#[test]
fn a_handler_can_know_that_its_client_has_gone() {
    // With so much behind its request that nothing more is received for now, or with nothing.
    for (resets, behind) in [(false, 90_000), (true, 90_000), (false, 0), (true, 0)] {
        let mut world = World::new(Config::default());
        let client = world.client();
        let id = world.ask(client);
        assert!(!world.engine.is_disconnected(id));
        world.send(client, vec![b'x'; behind]);
        settle(&mut world);
        assert!(!world.engine.is_disconnected(id));
        if resets {
            world.net.borrow_mut().client_reset(client);
        } else {
            world.net.borrow_mut().client_finish(client);
        }
        settle(&mut world);
        assert!(
            world.engine.is_disconnected(id),
            "resets: {resets}, {behind} bytes"
        );
        world.engine.respond(id, 200, copied(b""));
        assert!(!world.engine.is_disconnected(id), "it is over");
    }
}

#[test]
fn what_is_long_of_a_body_that_streams_comes_in_large_pieces_and_one_at_a_time() {
    // All that the multishot receive of this world can bring at once.
    const BUFFERS: usize = 8 * 4096;
    const SPACE: usize = 64 * 1024;
    const LEN: usize = 300_000;
    let body = "x".repeat(LEN);
    let chunked = "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (head, body) in [
        (upload(LEN), body.clone()),
        (
            chunked.to_owned(),
            format!("{LEN:x}\r\n{body}\r\n0\r\n\r\n"),
        ),
    ] {
        let mut world = World::new(Config::default());
        let client = {
            let mut net = world.net.borrow_mut();
            net.connect(world.listener, 100_000, LEN + 1000).unwrap()
        };
        world.send(client, head);
        let id = world.next();
        world.send(client, body);
        let (mut taken, mut largest) = (0, 0);
        while taken < LEN {
            world.engine.wait_for_body(id, 7);
            world.due();
            // What is not taken stays in the socket.
            settle(&mut world);
            let piece = world.engine.take_body(id, LEN, <[u8]>::len).unwrap();
            assert!(piece <= SPACE, "{piece} at once");
            largest = largest.max(piece);
            taken += piece;
        }
        assert!(largest > BUFFERS, "{largest} at once");
        settle(&mut world);
        assert_eq!(world.engine.body_state(id), BodyState::Ended);
        world.engine.respond(id, 200, copied(b""));
    }
}

#[test]
fn whether_a_wait_would_return_at_once_can_be_asked() {
    let mut world = World::new(Config::default());
    let client = world.client();
    let id = world.ask(client);
    world.engine.respond(id, 200, copied(b"x"));
    world.wait(50);
    settle(&mut world);
    assert!(!world.engine.has_events());

    // A timer of this engine's: one that has come, and one that has not.
    world.engine.set_timer(world.engine.clock_us() + 5000, 7);
    assert!(!world.engine.has_events());
    world.net.borrow_mut().pass(5500);
    assert!(world.engine.has_events());
    world.engine.turn(false).unwrap();
    assert!(world.engine.has_events(), "something is due");
    assert_eq!(world.engine.next_due(), Some(7));
    assert!(!world.engine.has_events());

    // Something that has come in meanwhile; the simulated driver may overlook it for a while.
    world.send(
        client,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!((0..20).any(|_| world.engine.has_events()));
    while world.engine.ready_len() == 0 {
        world.turn();
    }
    settle(&mut world);
    assert!(world.engine.has_events(), "a request is ready");
    let id = world.engine.next_ready().unwrap();
    assert!(!world.engine.has_events());

    // The end of this write ends no wait, and the end of the connection follows it.
    world.engine.respond(id, 200, copied(b"x"));
    assert!(world.engine.has_events());
    settle(&mut world);
    assert!(!world.engine.has_events());
}

#[test]
fn a_worker_with_nothing_to_do_turns_once_in_ten_seconds() {
    let mut world = World::new(Config::default());
    for turns in 1..4 {
        world.turn();
        let at_ms = turns * 10_000;
        assert!((at_ms..at_ms + 5).contains(&world.now_ms()));
        assert_eq!(world.engine.stats().turns, turns);
    }
}

#[test]
fn a_worker_does_not_wait_while_something_is_ready_or_due() {
    let mut world = World::new(Config::default());
    let client = world.client();
    world.send(client, GET);
    while world.engine.ready_len() == 0 {
        world.turn();
    }
    let began_us = world.engine.clock_us();
    for _ in 0..10 {
        world.turn();
    }
    assert!(world.engine.clock_us() < began_us + 1000, "a request waits");
    world.engine.next_ready().unwrap();
    world.engine.set_timer(world.engine.clock_us() + 5000, 7);
    while world.engine.due_len() == 0 {
        world.turn();
    }
    let began_us = world.engine.clock_us();
    for _ in 0..10 {
        world.turn();
    }
    assert!(world.engine.clock_us() < began_us + 1000, "a timer is due");
}

/// Answers for two seconds, and compares the dates.
fn assert_dates(world: &mut World) {
    let client = world.client();
    for _ in 0..30 {
        world.wait(77);
        let id = world.ask(client);
        let now = world.engine.driver().unix_time().as_secs();
        world.engine.respond(id, 200, copied(b""));
        settle(world);
        let answer = world.received(client);
        let date = answer.lines().find_map(|line| line.strip_prefix("Date: "));
        assert_eq!(parse_date(date.unwrap().as_bytes()), Some(now), "{answer}");
    }
}

#[test]
fn the_date_is_the_second_of_each_answer_from_the_first_one_on() {
    let net = Rc::new(RefCell::new(Net::new(1, Faults::default())));
    let mut driver = SimDriver::new(&net, Rc::new(RefCell::new(NoAgenda)), 8).unwrap();
    // A worker does not start with a second.
    net.borrow_mut().faults.wall_jumps = 10_000;
    driver.turn(Wait::Poll).unwrap();
    net.borrow_mut().faults.wall_jumps = 0;
    assert!(driver.unix_time().subsec_millis() > 100);
    let mut world = World::on(net, driver, Config::default(), AcceptMode::Own);
    assert_dates(&mut world);
}

#[test]
fn a_clock_that_is_set_counts_within_a_second() {
    let mut world = World::new(Config::default());
    assert_dates(&mut world);
    world.net.borrow_mut().faults.wall_jumps = 10_000;
    world.turn();
    world.net.borrow_mut().faults.wall_jumps = 0;
    world.wait(1000);
    assert_dates(&mut world);
}

#[test]
#[cfg(not(feature = "no-recycle"))]
fn memory_is_kept_for_those_who_come_next_and_half_of_it_given_back_every_ten_seconds() {
    let mut world = World::new(Config::default());
    serve_at_once(&mut world, 50);
    assert_eq!(world.engine.connection_count(), 0);
    let kept = world.engine.spare();
    assert_eq!((kept.exchanges, kept.writes), (50, 50), "{kept:?}");
    assert!(kept.bytes > 50 * 4096 && kept.slots >= 100, "{kept:?}");
    // Nobody can know yet who will need it.
    world.wait(9000);
    settle(&mut world);
    assert_eq!(world.engine.spare(), kept);
    world.wait(3000);
    settle(&mut world);
    assert_eq!(world.engine.spare(), Spare { slots: 0, ..kept });
    world.wait(10_000);
    let half = world.engine.spare();
    assert_eq!((half.exchanges, half.writes), (25, 25), "{half:?}");
    // What was needed in between stays.
    let clients: Vec<_> = (0..10).map(|_| world.client()).collect();
    for &client in &clients {
        world.send(client, GET);
    }
    while world.engine.ready_len() < 10 {
        world.turn();
    }
    assert_eq!(world.engine.spare().exchanges, 15);
    while let Some(id) = world.engine.next_ready() {
        world.engine.respond(id, 200, copied(b"x"));
    }
    for client in clients {
        world.net.borrow_mut().client_reset(client);
    }
    world.wait(9000);
    let rest = world.engine.spare();
    assert_eq!((rest.exchanges, rest.writes), (17, 17), "{rest:?}");
    // One timer that is far away changes nothing.
    world.wait(200_000);
    assert_eq!(world.engine.spare(), Spare::default());
}

/// Answers one request of each of so many new clients, all of which wait at the same moment.
#[cfg(not(feature = "no-recycle"))]
fn serve_at_once(world: &mut World, count: usize) {
    let clients: Vec<_> = (0..count).map(|_| world.client()).collect();
    for &client in &clients {
        world.send(client, GET);
    }
    while world.engine.ready_len() < count {
        world.turn();
    }
    while let Some(id) = world.engine.next_ready() {
        world.engine.respond(id, 200, copied(b"x"));
    }
    settle(world);
    for client in clients {
        world.net.borrow_mut().client_reset(client);
    }
    settle(world);
}

/// Trims every ten seconds gave away what a load with peaks needed again at its next one.
#[test]
#[cfg(not(feature = "no-recycle"))]
fn under_load_what_a_peak_needs_that_comes_once_a_minute_is_kept() {
    let mut world = World::new(Config::default());
    serve_at_once(&mut world, 50);
    let client = world.client();
    let mut until_ms = world.now_ms();
    let mut after_ten_seconds = |world: &mut World| {
        world.turns = 0;
        until_ms += 10_000;
        while world.now_ms() < until_ms {
            world.send(client, GET.repeat(10));
            for _ in 0..10 {
                let id = world.next();
                world.engine.respond(id, 200, copied(b"x"));
            }
            world.wait(10);
            world.received(client);
        }
        world.engine.spare().exchanges
    };
    // The fewest that lay idle in the first minute were none: everything was just being made.
    let first: Vec<_> = (0..6).map(|_| after_ten_seconds(&mut world)).collect();
    assert_eq!(first, [50; 6]);
    // A peak in the next minute needs them all again; of those that lie idle in the minute behind it
    // half is let go of at its end.
    serve_at_once(&mut world, 50);
    let second: Vec<_> = (0..12).map(|_| after_ten_seconds(&mut world)).collect();
    assert_eq!((&second[..11], second[11]), (&[50; 11][..], 25));
    // Without load, every ten seconds.
    world.wait(20_000);
    assert!(world.engine.spare().exchanges < 20);
}

#[test]
fn large_bodies_come_back_to_be_dropped_and_their_boxes_are_kept_up_to_256() {
    const CLIENTS: usize = 300;
    let mut world = World::new(Config::default());
    let clients: Vec<_> = (0..CLIENTS).map(|_| world.client()).collect();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n";
    for &client in &clients {
        world.send(client, head);
    }
    while world.engine.exchange_count() < CLIENTS {
        world.turn();
    }
    for &client in &clients {
        world.send(client, "b".repeat(20_000));
    }
    while world.engine.ready_len() < CLIENTS {
        world.turn();
    }
    while let Some(id) = world.engine.next_ready() {
        world.engine.respond(id, 200, copied(b"x"));
    }
    assert_eq!(world.engine.exchange_count(), 0);
    let bodies = std::iter::from_fn(|| world.engine.take_released());
    assert_eq!(
        bodies.map(|body| body.len()).sum::<usize>(),
        CLIENTS * 20_000
    );
    if RECYCLES {
        assert_eq!(world.engine.spare().fillings, 256);
    }
}

#[test]
fn a_descriptor_that_is_watched_is_told_of_once() {
    let mut world = World::new(Config::default());
    let other = world.net.borrow_mut().listen();
    world.engine.watch(other, 42).unwrap();
    settle(&mut world);
    assert_eq!(world.engine.next_due(), None);
    world.net.borrow_mut().connect(other, 1, 1).unwrap();
    assert_eq!(world.due(), 42);
    settle(&mut world);
    assert_eq!(world.engine.next_due(), None);
}

#[test]
fn a_timer_that_is_cancelled_does_not_fire() {
    let mut world = World::new(Config::default());
    let timer = world.engine.set_timer(1000, 5);
    assert!(world.engine.cancel_timer(timer));
    assert!(!world.engine.cancel_timer(timer));
    let timer = world.engine.set_timer(2000, 6);
    assert_eq!(world.due(), 6);
    assert!(!world.engine.cancel_timer(timer));
}

#[test]
fn what_is_noted_of_a_handler_is_its_own_and_goes_with_it() {
    let mut world = World::new(Config::default());
    let client = world.client();
    let mut id = world.ask(client);
    for round in 0..2 {
        assert_eq!(ExchangeId::from_u64(id.to_u64()), id);
        assert_eq!(world.engine.tag(id), 0, "round {round}");
        assert!(!world.engine.takes_timeout(id), "round {round}");
        assert!(!world.engine.is_overtime(id), "round {round}");
        world.engine.set_tag(id, 7);
        world.engine.owe_timeout(id);
        world.engine.start_overtime(id, 1000);
        assert_eq!(world.engine.tag(id), 7);
        assert!(world.engine.is_overtime(id));
        assert!(world.engine.takes_timeout(id));
        assert!(!world.engine.takes_timeout(id), "it has been told");
        world.engine.owe_timeout(id);
        world.engine.respond(id, 200, copied(b""));
        assert_eq!(world.engine.tag(id), 0);
        assert!(!world.engine.is_overtime(id));
        assert!(!world.engine.takes_timeout(id));
        let next = world.ask(client);
        assert_ne!(next.to_u64(), id.to_u64());
        id = next;
    }
}

#[test]
fn who_is_late_is_late_again_after_the_time_that_it_was_given() {
    let mut world = World::new(Config::default());
    let client = world.client();
    let id = world.ask(client);
    world.wait(3000);
    let began_ms = world.now_ms();
    world.engine.start_overtime(id, 1000);
    while world.engine.next_overdue().is_none() {
        world.turn();
    }
    let lasted_ms = world.now_ms() - began_ms;
    assert!((1000..1005).contains(&lasted_ms), "{lasted_ms} ms");
}

#[test]
#[cfg_attr(
    feature = "no-recycle",
    ignore = "what the child gives up is never freed, which a sanitizer reports"
)]
fn a_fork_beside_a_wait_does_not_tell_the_others_that_the_parent_has_ended() {
    let slots: Rc<[PeerSlot]> = Rc::new([PeerSlot::default(), PeerSlot::default()]);
    let mut parent = World::new(Config::default());
    let seen = SlotPeers::new(Rc::clone(&slots), 1).unwrap();
    parent
        .engine
        .set_peers(Box::new(SlotPeers::new(slots, 0).unwrap()));
    let World { engine, .. } = parent;
    engine.give_up_after_fork();
    assert_eq!(seen.lowest(), Some(0));
}

#[test]
fn a_request_is_what_the_client_sent() {
    let config = Config {
        max_body_size: 77_777,
        ..Config::default()
    };
    let mut world = World::new(config);
    assert_eq!(world.engine.config().max_body_size, 77_777);
    let client = world.client();
    let body = "b".repeat(50_000);
    let head = "GET /users/a%20b/c/d%2Fe?f=g&h HTTP/1.1\r\nHost: x\r\nAccept: one\r\n\
                Cookie: no\r\nACCEPT: two\r\nContent-Length: 50000\r\n\r\n";
    assert_eq!(world.engine.exchange_count(), 0);
    world.send(client, head.to_owned() + &body);
    let id = world.next();
    assert_eq!(world.engine.exchange_count(), 1);
    let request = world.engine.request(id).unwrap();
    assert_eq!(request.head().method_span.of(head.as_bytes()), b"GET");
    assert_eq!(request.head().len as usize, head.len());
    assert_eq!(request.method(), b"GET");
    assert_eq!(request.target(), b"/users/a%20b/c/d%2Fe?f=g&h");
    assert_eq!(request.raw_path(), b"/users/a%20b/c/d%2Fe");
    assert_eq!(request.query(), b"f=g&h");
    let fields: Vec<_> = (0..request.field_count())
        .map(|index| request.field(index).unwrap())
        .collect();
    let expected: [(&[u8], &[u8]); 5] = [
        (b"Host", b"x"),
        (b"Accept", b"one"),
        (b"Cookie", b"no"),
        (b"ACCEPT", b"two"),
        (b"Content-Length", b"50000"),
    ];
    assert_eq!(fields, expected);
    assert_eq!(request.field(5), None);
    assert_eq!(request.header("cookie"), Some(&b"no"[..]));
    assert_eq!(request.header("x-other"), None);
    let accepted: Vec<_> = request.values("accept").collect();
    assert_eq!(accepted, [b"one", b"two"]);
    assert_eq!(request.route(), Route::Endpoint(2));
    assert_eq!(request.allow(), "GET, HEAD");
    assert_eq!(request.param_names(), ["id", "rest"]);
    assert_eq!(request.param(0), Some(&b"a b"[..]));
    assert_eq!(request.param(1), Some(&b"c/d%2Fe"[..]));
    assert_eq!(request.param(2), None);
    assert!(!request.streams());
    assert!(request.body() == body.as_bytes());
    let object = request.body_object().map(|object| &object[..]);
    assert!(object == Some(body.as_bytes()), "it was large");
    world.engine.respond(id, 200, copied(b""));

    // Nothing of it is in the next one.
    world.send(client, upload(3) + "abc");
    let id = world.next();
    let request = world.engine.request(id).unwrap();
    assert_eq!(
        (request.method(), request.raw_path()),
        (&b"POST"[..], &b"/up"[..])
    );
    assert_eq!((request.query(), request.field_count()), (&b""[..], 2));
    assert_eq!(request.param_names(), [""; 0]);
    assert_eq!(request.param(0), None);
    assert!(request.streams());
    assert_eq!(request.body(), b"abc");
    assert_eq!(request.body_object(), None);
}

#[test]
fn a_route_leads_to_what_its_path_and_method_have() {
    for (line, route, allow) in [
        ("GET /", Route::Endpoint(0), "GET, HEAD"),
        ("HEAD /", Route::Endpoint(0), "GET, HEAD"),
        ("PUT /", Route::MethodNotAllowed, "GET, HEAD"),
        ("GET /up", Route::MethodNotAllowed, "POST"),
        ("GET /nowhere", Route::NotFound, ""),
    ] {
        let mut world = World::new(Config::default());
        let client = world.client();
        world.send(client, format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let id = world.next();
        let request = world.engine.request(id).unwrap();
        assert_eq!(
            (request.route(), &*request.allow()),
            (route, allow),
            "{line}"
        );
    }
}

#[test]
fn only_one_may_wait_for_a_body_and_only_one_for_room() {
    let mut world = World::new(Config::default());
    let client = {
        let mut net = world.net.borrow_mut();
        net.connect(world.listener, 1000, 100_000).unwrap()
    };
    world.send(client, upload(6));
    let id = world.next();
    assert!(world.engine.wait_for_body(id, 1));
    assert!(!world.engine.wait_for_body(id, 2));
    world.send(client, "abcdef");
    assert_eq!(world.due(), 1);
    assert!(world.engine.start_response(id, 200, None));
    while world.engine.room(id) == Room::Ready {
        let piece = vec![b'x'; 10_000].into_boxed_slice();
        assert!(world.engine.write_body(id, Body::Kept(piece)).is_ok());
        settle(&mut world);
    }
    assert!(world.engine.wait_for_room(id, 3));
    assert!(!world.engine.wait_for_room(id, 4));
    world.net.borrow_mut().client_reset(client);
    assert_eq!(world.due(), 3);
    settle(&mut world);
    assert_eq!(world.engine.next_due(), None);
    world.engine.abort_response(id);
    assert!(!world.engine.wait_for_room(id, 5), "it is over");
    assert!(!world.engine.wait_for_body(id, 6), "it is over");
}

#[test]
fn whether_a_body_is_dropped_can_be_asked() {
    for (method, status, drops) in [("HEAD", 200, true), ("GET", 304, true), ("GET", 200, false)] {
        let mut world = World::new(Config::default());
        let client = world.client();
        world.send(client, format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        let id = world.next();
        assert!(!world.engine.drops_body(id), "it has not begun");
        world.engine.start_response(id, status, None);
        assert_eq!(world.engine.drops_body(id), drops, "{method} {status}");
        world.engine.finish_response(id);
        assert!(!world.engine.drops_body(id), "it is over");
    }
}

#[test]
fn who_waits_for_a_body_is_not_told_of_framing_alone() {
    let mut world = World::new(Config::default());
    let client = world.client();
    world.send(
        client,
        "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let id = world.next();
    assert!(world.engine.wait_for_body(id, 1));
    world.send(client, "3;ext=1\r\n");
    settle(&mut world);
    assert_eq!(world.engine.next_due(), None);
    world.send(client, "a");
    assert_eq!(world.due(), 1);
    assert_eq!(world.engine.take_body(id, 9, <[u8]>::len), Some(1));
    assert!(world.engine.wait_for_body(id, 2));
    world.send(client, "bc\r\n0\r\n");
    assert_eq!(world.due(), 2);
    assert_eq!(world.engine.take_body(id, 9, <[u8]>::len), Some(2));
    assert!(world.engine.wait_for_body(id, 3));
    settle(&mut world);
    assert_eq!(world.engine.next_due(), None);
    world.send(client, "\r\n");
    assert_eq!(world.due(), 3);
    assert_eq!(world.engine.body_state(id), BodyState::Ended);
}

#[test]
fn only_what_is_missing_of_a_large_body_that_streams_is_received_in_large_pieces() {
    for (missing, is_large) in [(16 * 1024, false), (16 * 1024 + 1, true)] {
        let mut world = World::new(Config::default());
        let client = world.client();
        world.send(client, upload(missing + 1));
        let id = world.next();
        world.send(client, "b");
        settle(&mut world);
        assert_eq!(world.engine.take_body(id, 9, <[u8]>::len), Some(1));
        settle(&mut world);
        world.net.borrow_mut().start_trace();
        world.send(client, "b".repeat(missing));
        let mut taken = 0;
        while taken < missing {
            settle(&mut world);
            taken += world.engine.take_body(id, missing, <[u8]>::len).unwrap();
        }
        let trace = world.net.borrow_mut().take_trace().join("\n");
        let in_one = format!("the server receives {missing} bytes");
        assert_eq!(trace.contains(&in_one), is_large, "{trace}");
        assert_eq!(world.engine.body_state(id), BodyState::Ended);
    }
}

#[test]
fn a_body_that_streams_may_take_as_long_as_its_handler_but_has_to_come_when_it_waits() {
    for (bytes, last) in [(150, BodyState::Ended), (50, BodyState::Failed(408))] {
        let mut world = World::new(Config {
            min_body_rate: 1000,
            read_timeout_ms: 500,
            ..Config::default()
        });
        let client = world.client();
        world.send(client, upload(6000));
        let id = world.next();
        let mut state = world.engine.body_state(id);
        while state == BodyState::Waits {
            // The handler's own time does not count.
            world.wait(1000);
            assert!(world.engine.wait_for_body(id, 7));
            let in_a_while = world.engine.clock_us() + 100_000;
            world.engine.set_timer(in_a_while, 1);
            assert_eq!(world.due(), 1);
            world.send(client, "b".repeat(bytes));
            assert_eq!(world.due(), 7);
            assert_eq!(world.engine.take_body(id, 9999, <[u8]>::len), Some(bytes));
            state = world.engine.body_state(id);
        }
        assert_eq!(state, last, "{bytes} bytes in 100 ms");
    }
}

#[test]
fn who_waits_for_a_body_in_vain_is_told_why() {
    for (how, state) in [
        ("silence", BodyState::Failed(408)),
        ("end", BodyState::Gone),
        ("reset", BodyState::Gone),
    ] {
        let mut world = World::new(Config {
            read_timeout_ms: 500,
            ..Config::default()
        });
        let client = world.client();
        world.send(client, upload(10) + "ab");
        let id = world.next();
        assert_eq!(world.engine.body_state(id), BodyState::Ready);
        assert_eq!(world.engine.take_body(id, 9, <[u8]>::len), Some(2));
        assert!(world.engine.wait_for_body(id, 7));
        let began_ms = world.now_ms();
        match how {
            "end" => world.net.borrow_mut().client_finish(client),
            "reset" => world.net.borrow_mut().client_reset(client),
            _ => {}
        }
        assert_eq!(world.due(), 7, "{how}");
        let lasted_ms = world.now_ms() - began_ms;
        let expected_ms = if how == "silence" { 500..510 } else { 0..10 };
        assert!(expected_ms.contains(&lasted_ms), "{how}: {lasted_ms} ms");
        assert_eq!(world.engine.body_state(id), state, "{how}");
    }
}

#[test]
fn a_client_is_told_to_continue_when_its_handler_wants_the_body_and_has_not_answered() {
    for has_begun in [false, true] {
        let mut world = World::new(Config::default());
        let client = world.client();
        world.send(
            client,
            "POST /up HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        );
        let id = world.next();
        settle(&mut world);
        assert_eq!(world.received(client), "");
        if has_begun {
            world.engine.start_response(id, 200, None);
            settle(&mut world);
            assert!(world.received(client).starts_with("HTTP/1.1 200 "));
        }
        let told = if has_begun {
            ""
        } else {
            "HTTP/1.1 100 Continue\r\n\r\n"
        };
        for expected in [told, ""] {
            assert_eq!(world.engine.body_state(id), BodyState::Waits);
            settle(&mut world);
            assert_eq!(world.received(client), expected);
        }
        world.send(client, "abc");
        settle(&mut world);
        assert_eq!(world.engine.body_state(id), BodyState::Ready);
    }
}

/// Whether the server has ended the connection, once everything was read.
fn is_ended(world: &World, client: ClientId) -> bool {
    let mut net = world.net.borrow_mut();
    net.client_read(client, usize::MAX, &mut Vec::new()).is_end
}

#[test]
fn a_streamed_answer_ends_the_connection_when_it_has_to_and_says_so_when_it_is_known() {
    for (case, is_said, ends) in [
        ("kept", false, false),
        ("the request says so", true, true),
        ("the drain has begun", true, true),
        ("the drain begins meanwhile", false, true),
        ("less than was announced", false, true),
        ("a handler that breaks off", false, true),
    ] {
        let mut world = World::new(Config::default());
        let client = world.client();
        let close = match case {
            "the request says so" => "Connection: close\r\n",
            _ => "",
        };
        world.send(client, format!("GET / HTTP/1.1\r\nHost: x\r\n{close}\r\n"));
        let id = world.next();
        if case == "the drain has begun" {
            world.engine.drain();
        }
        assert!(world.engine.start_response(id, 200, Some(3)));
        if case == "the drain begins meanwhile" {
            world.engine.drain();
        }
        let is_whole = case != "less than was announced" && case != "a handler that breaks off";
        let piece: &[u8] = if is_whole { b"abc" } else { b"ab" };
        assert!(world.engine.write_body(id, copied(piece)).is_ok());
        if case == "a handler that breaks off" {
            world.engine.abort_response(id);
        } else {
            assert_eq!(world.engine.finish_response(id), is_whole, "{case}");
        }
        settle(&mut world);
        let answer = world.received(client);
        assert_eq!(
            answer.contains("\r\nConnection: close\r\n"),
            is_said,
            "{case}"
        );
        assert!(answer.as_bytes().ends_with(piece), "{case}: {answer}");
        assert_eq!(is_ended(&world, client), ends, "{case}");
    }
}

#[test]
fn a_handler_that_is_given_up_loses_its_client_and_nothing_else() {
    let mut world = World::new(Config::default());
    let client = world.client();
    world.send(client, upload(10));
    let id = world.next();
    assert!(world.engine.wait_for_body(id, 7));
    world.engine.abandon(id);
    assert_eq!(world.due(), 7, "it waits for nothing any more");
    settle(&mut world);
    assert_eq!(world.engine.connection_count(), 0);
    assert_eq!(world.engine.exchange_count(), 1);
    assert!(world.engine.request(id).is_none());
    assert!(world.engine.is_disconnected(id));
    assert_eq!(world.engine.body_state(id), BodyState::Gone);
    assert_eq!(world.engine.room(id), Room::Gone);
    assert!(!world.engine.respond(id, 200, copied(b"late")));
    assert_eq!(world.engine.exchange_count(), 0);
    assert_eq!(world.engine.next_due(), None);
}

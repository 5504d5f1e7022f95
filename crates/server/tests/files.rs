//! Files as responses, on the simulated network: from many seeds, with everything that a disk, a
//! socket and a client may do in between.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use theframework::Config;
use theframework::engine::{
    AcceptMode, Body, Engine, ExchangeId, FileBody, HeaderError, Held, Router,
};
use theframework_io::sim::{ClientId, Faults, Net, NoAgenda, SimDriver, SimSocket};

type Kept = Box<[u8]>;

/// The time of day at which the simulated system begins, in seconds.
const NOW: i64 = 1_700_000_000;
const MODIFIED: i64 = 784_111_777;
/// Of a file of ten bytes that was modified then.
const TAG: &str = "\"ae1b981bc490a00-a\"";
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Seeds of each case, with faults in all but the first.
const SEEDS: u64 = 60;

struct World {
    net: Rc<RefCell<Net>>,
    listener: RawFd,
    engine: Engine<SimDriver<Kept>, Kept>,
    /// The most buffers that were in use.
    buffers: usize,
}

fn faults(seed: u64) -> Faults {
    if seed == 0 {
        return Faults::default();
    }
    Faults {
        short_reads: 300,
        short_writes: 300,
        late_events: 200,
        late_cancels: 500,
        late_write_ends: 300,
        ..Faults::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, faults(seed))
    }

    fn with(seed: u64, faults: Faults) -> Self {
        let net = Rc::new(RefCell::new(Net::new(seed, faults)));
        let driver = SimDriver::new(&net, Rc::new(RefCell::new(NoAgenda)), 8).unwrap();
        let mut router = Router::new();
        for method in ["GET", "HEAD", "POST"] {
            router.add("/{*path}", method, 0).unwrap();
        }
        let mut engine = Engine::new(driver, Config::default(), Rc::new(router));
        let listener = net.borrow_mut().listen();
        engine.listen(SimSocket::new(&net, listener), AcceptMode::Own);
        World {
            net,
            listener,
            engine,
            buffers: 0,
        }
    }

    fn client(&self) -> ClientId {
        self.client_with(100_000)
    }

    /// A client whose connection takes so many bytes before it reads.
    fn client_with(&self, capacity: usize) -> ClientId {
        let mut net = self.net.borrow_mut();
        net.connect(self.listener, capacity, 100_000).unwrap()
    }

    /// Turns until the connection has taken so many bytes, and not for long: nothing but the sending
    /// ends a wait.
    fn sends(&mut self, client: ClientId, len: u64) {
        let began_us = self.engine.clock_us();
        while self.net.borrow().look(client).sent_by_server < len {
            self.turn();
            while self.engine.next_due().is_some() {}
        }
        // The end of the last write may be heard of late.
        let took_us = self.net.borrow().look(client).last_sent_us - began_us;
        assert!(took_us < 500_000, "it stood still for {took_us} us");
    }

    fn send(&self, client: ClientId, text: &str) {
        let bytes = text.as_bytes();
        assert_eq!(
            self.net.borrow_mut().client_send(client, bytes),
            bytes.len()
        );
    }

    fn open(&self, bytes: &[u8]) -> FileBody<SimSocket> {
        let fd = self.net.borrow_mut().open(bytes.to_vec());
        FileBody {
            file: SimSocket::new(&self.net, fd),
            len: bytes.len() as u64,
            modified: (MODIFIED, 0),
        }
    }

    fn turn(&mut self) {
        self.engine.turn(true).unwrap();
        self.engine.audit().unwrap();
        self.buffers = self.buffers.max(self.engine.held().buffers);
        while self.engine.take_released().is_some() {}
    }

    /// Turns until a request is with its handler.
    fn next(&mut self) -> ExchangeId {
        loop {
            if let Some(id) = self.engine.next_ready() {
                return id;
            }
            self.turn();
        }
    }

    /// As [`next`](Self::next), while the client reads on.
    fn next_with(&mut self, client: ClientId, got: &mut Vec<u8>) -> ExchangeId {
        loop {
            if let Some(id) = self.engine.next_ready() {
                return id;
            }
            self.net.borrow_mut().client_read(client, 30_000, got);
            self.turn_a_while();
        }
    }

    /// Reads what the client is sent, at most `step` bytes at a time, until `is_enough` says so or the
    /// connection ends.
    fn read(
        &mut self,
        client: ClientId,
        step: usize,
        is_enough: impl Fn(&[u8]) -> bool,
    ) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        let value = 77;
        for _ in 0..100_000 {
            let read = self.net.borrow_mut().client_read(client, step, &mut got);
            if is_enough(&got) || read.is_end || read.is_reset {
                return (got, read.is_end);
            }
            if self.engine.due_len() == 0 {
                self.engine.set_timer(self.engine.clock_us() + 500, value);
            }
            self.turn();
            while self.engine.next_due().is_some() {}
        }
        panic!("it does not end: {} bytes", got.len());
    }

    /// Sends a request, answers it with the file, and returns head and body of the answer.
    fn ask(&mut self, request: &str, status: u16, file: FileBody<SimSocket>) -> (String, Vec<u8>) {
        let client = self.client();
        self.send(client, request);
        let id = self.next();
        self.engine
            .set_field(id, b"Content-Type", b"text/plain", true)
            .unwrap();
        self.engine.send_file(id, status, file);
        assert!(self.engine.request(id).is_none(), "the handler is over");
        let is_head = request.starts_with("HEAD");
        let (got, _) = self.read(client, 7000, |got| is_whole(got, is_head));
        self.net.borrow_mut().client_close(client);
        split(&got)
    }

    /// Everybody has gone, and nothing is left.
    fn assert_clean(&mut self) {
        for _ in 0..2000 {
            self.turn_a_while();
            if self.engine.held() == Held::default() {
                break;
            }
        }
        assert_eq!(self.engine.held(), Held::default());
        assert_eq!(self.net.borrow().open_descriptors(), 1, "the listener's");
    }

    /// Turns until no timer is left, and everything has had time to happen.
    fn rest(&mut self) {
        let last = 99;
        self.engine.set_timer(self.engine.clock_us() + 50_000, last);
        while self.engine.next_due() != Some(last) {
            self.turn();
        }
    }

    fn turn_a_while(&mut self) {
        if self.engine.due_len() == 0 {
            self.engine.set_timer(self.engine.clock_us() + 10_000, 1);
        }
        self.turn();
        while self.engine.next_due().is_some() {}
    }
}

fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {}", answer.escape_ascii()));
    let head = String::from_utf8(answer[..end + 2].to_vec()).unwrap();
    // The date is the simulated system's.
    let lines = head.split_inclusive("\r\n");
    let head = lines.filter(|line| !line.starts_with("Date: ")).collect();
    (head, answer[end + 4..].to_vec())
}

fn length(head: &str) -> usize {
    head.lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap())
}

fn has_head(answer: &[u8]) -> bool {
    answer.windows(4).any(|bytes| bytes == b"\r\n\r\n")
}

/// Whether it is an answer from the first to the last byte.
fn is_whole(answer: &[u8], is_head: bool) -> bool {
    has_head(answer) && {
        let (head, body) = split(answer);
        is_head || body.len() >= length(&head)
    }
}

/// The whole answers that the bytes begin with.
fn answers(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut answers = Vec::new();
    while is_whole(bytes, false) {
        let (head, rest) = split(bytes);
        let len = length(&head);
        bytes = &bytes[bytes.len() - rest.len() + len..];
        answers.push((head, rest[..len].to_vec()));
    }
    answers
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

#[test]
fn a_file_is_sent_as_it_is() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let file = world.open(b"0123456789");
        let answer = world.ask("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 200, file);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: {TAG}\r\n\
             Last-Modified: {DATE}\r\nAccept-Ranges: bytes\r\nContent-Length: 10\r\n"
        );
        assert_eq!(answer, (head, b"0123456789".to_vec()), "seed {seed}");
        world.assert_clean();
    }
}

#[test]
fn conditions_and_ranges_are_honoured() {
    let validators = format!("ETag: {TAG}\r\nLast-Modified: {DATE}\r\nAccept-Ranges: bytes\r\n");
    let whole = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    let part = "HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\n";
    for (method, fields, status, rest, body) in [
        (
            "GET",
            "Range: bytes=2-4",
            part,
            "Content-Range: bytes 2-4/10\r\nContent-Length: 3\r\n",
            "234",
        ),
        (
            "GET",
            "Range: bytes=-1",
            part,
            "Content-Range: bytes 9-9/10\r\nContent-Length: 1\r\n",
            "9",
        ),
        (
            "GET",
            "Range: bytes=0-1,3-4",
            whole,
            "Content-Length: 10\r\n",
            "0123456789",
        ),
        (
            "GET",
            "Range: bytes=10-",
            "HTTP/1.1 416 Range Not Satisfiable\r\n",
            "Content-Range: bytes */10\r\nContent-Length: 0\r\n",
            "",
        ),
        (
            "GET",
            &format!("If-None-Match: {TAG}"),
            "HTTP/1.1 304 Not Modified\r\n",
            "",
            "",
        ),
        (
            "HEAD",
            &format!("If-None-Match: {TAG}"),
            "HTTP/1.1 304 Not Modified\r\n",
            "",
            "",
        ),
        (
            "GET",
            &format!("If-Modified-Since: {DATE}"),
            "HTTP/1.1 304 Not Modified\r\n",
            "",
            "",
        ),
        (
            "GET",
            "If-Match: \"other\"",
            "HTTP/1.1 412 Precondition Failed\r\n",
            "Content-Length: 0\r\n",
            "",
        ),
        (
            "HEAD",
            "Range: bytes=2-4",
            whole,
            "Content-Length: 10\r\n",
            "",
        ),
        ("HEAD", "Accept: */*", whole, "Content-Length: 10\r\n", ""),
    ] {
        for seed in 0..SEEDS / 10 {
            let mut world = World::new(seed);
            let file = world.open(b"0123456789");
            let request = format!("{method} /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
            let answer = world.ask(&request, 200, file);
            let head = format!("{status}{validators}{rest}");
            assert_eq!(answer, (head, body.as_bytes().to_vec()), "{fields}");
            world.assert_clean();
        }
    }
}

#[test]
fn conditions_are_for_what_was_asked_for_and_found() {
    let mut world = World::new(0);
    for (method, status, first) in [("POST", 200, "200 OK"), ("GET", 404, "404 Not Found")] {
        let file = world.open(b"0123456789");
        let request = format!(
            "{method} /a HTTP/1.1\r\nHost: x\r\nIf-None-Match: {TAG}\r\nRange: bytes=1-2\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let answer = world.ask(&request, status, file);
        let head =
            format!("HTTP/1.1 {first}\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n");
        assert_eq!(answer, (head, b"0123456789".to_vec()));
    }
    world.assert_clean();
}

#[test]
fn validators_of_the_handlers_own_count() {
    let mut world = World::new(0);
    let client = world.client();
    let request = "GET /a HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"mine\"\r\n\r\n";
    world.send(client, request);
    let id = world.next();
    let file = world.open(b"0123456789");
    world
        .engine
        .set_field(id, b"etag", b"\"mine\"", true)
        .unwrap();
    assert!(world.engine.send_file(id, 200, file));
    let (got, _) = world.read(client, 1000, |got| is_whole(got, true));
    let (head, _) = split(&got);
    assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\netag: \"mine\"\r\nLast-Modified: "));
    assert!(!head.contains("ETag"));
    world.net.borrow_mut().client_close(client);
    world.assert_clean();
}

#[test]
fn a_file_from_the_future_was_modified_now() {
    let mut world = World::new(0);
    let mut file = world.open(b"x");
    file.modified = (NOW + 1_000_000, 0);
    let (head, _) = world.ask("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 200, file);
    assert!(
        head.contains("Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\n"),
        "{head}"
    );
    let mut file = world.open(b"x");
    file.modified = (-1, 0);
    let (head, _) = world.ask("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 200, file);
    assert!(!head.contains("Last-Modified"), "{head}");
    world.assert_clean();
}

#[test]
fn an_empty_file_is_an_empty_body() {
    let mut world = World::new(0);
    let file = world.open(b"");
    let request = "GET /a HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\n\r\n";
    let (head, body) = world.ask(request, 200, file);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("Content-Length: 0\r\n"));
    assert_eq!(body, b"");
    world.assert_clean();
}

#[test]
fn a_large_file_takes_one_window_of_memory() {
    let bytes = pattern(1_000_000);
    for seed in 0..SEEDS / 4 {
        let mut world = World::new(seed);
        let file = world.open(&bytes);
        let (_, body) = world.ask("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 200, file);
        assert!(body == bytes, "seed {seed}: bytes differ");
        // Beside it, a buffer of what the client sent.
        assert!(world.buffers <= 2, "{} buffers", world.buffers);
        world.assert_clean();
    }
}

/// Short reads make short writes, whose ends end no wait.
#[test]
fn a_file_goes_on_without_anything_else_happening() {
    for seed in 0..SEEDS {
        let short = Faults {
            short_reads: 700,
            ..Faults::default()
        };
        let mut world = World::with(seed, short);
        let client = world.client_with(1_000_000);
        world.send(client, &"GET /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
        let id = world.next();
        let file = world.open(&pattern(300_000));
        assert!(world.engine.send_file(id, 200, file));
        world.sends(client, 300_000);
        // Behind a response that the connection cannot take as a whole.
        let id = world.next();
        world
            .engine
            .respond(id, 200, Body::Kept(vec![b'x'; 1_000_000].into()));
        world.send(client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        let id = world.next();
        let file = world.open(&pattern(300_000));
        assert!(world.engine.send_file(id, 200, file));
        world.rest();
        let mut got = Vec::new();
        let mut net = world.net.borrow_mut();
        net.client_read(client, usize::MAX, &mut got);
        drop(net);
        world.sends(client, 1_600_000);
        world.net.borrow_mut().client_close(client);
        world.assert_clean();
    }
}

#[test]
fn answers_stay_in_order() {
    let bytes = pattern(200_000);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let client = world.client();
        let get = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        world.send(client, &get.repeat(6));
        let mut bodies = Vec::new();
        for len in [None, Some(200_000), None, Some(10), Some(70_000), None] {
            let id = world.next_with(client, &mut bodies);
            match len {
                Some(len) => {
                    let file = world.open(&bytes[..len]);
                    assert!(world.engine.send_file(id, 200, file));
                }
                None => assert!(world.engine.respond(id, 200, Body::Copied(b"plain"))),
            }
        }
        let (rest, _) = world.read(client, 50_000, |rest| {
            answers(&[&bodies, rest].concat()).len() == 6
        });
        bodies.extend(rest);
        let lens: Vec<_> = answers(&bodies)
            .iter()
            .map(|(_, body)| body.len())
            .collect();
        assert_eq!(lens, [5, 200_000, 5, 10, 70_000, 5], "seed {seed}");
        for (_, body) in answers(&bodies) {
            assert!(body == b"plain" || bytes.starts_with(&body), "seed {seed}");
        }
        world.net.borrow_mut().client_close(client);
        world.assert_clean();
    }
}

#[test]
fn a_file_that_has_become_shorter_ends_the_connection() {
    let bytes = pattern(600_000);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let client = world.client();
        world.send(client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        let id = world.next();
        let file = world.open(&bytes);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file.file);
        assert!(world.engine.send_file(id, 200, file));
        let (mut got, _) = world.read(client, 10_000, |got| got.len() > 20_000);
        world.net.borrow_mut().file(fd).truncate(300_000);
        let (rest, is_end) = world.read(client, 10_000, |_| false);
        got.extend(rest);
        let (head, body) = split(&got);
        assert!(head.contains("Content-Length: 600000\r\n"));
        assert!(is_end, "seed {seed}: the client sees where it was cut");
        assert!(
            body.len() == 300_000 && bytes.starts_with(&body),
            "seed {seed}"
        );
        world.net.borrow_mut().client_close(client);
        world.assert_clean();
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_of_the_servers() {
    for seed in 0..SEEDS {
        let unreadable = Faults {
            file_errors: 1000,
            ..faults(seed)
        };
        let mut world = World::with(seed, unreadable);
        let client = world.client();
        let get = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        world.send(client, &get.repeat(3));
        let id = world.next();
        world.engine.respond(id, 200, Body::Copied(b"before"));
        let id = world.next();
        let file = world.open(b"0123456789");
        world.engine.send_file(id, 200, file);
        let (got, is_end) = world.read(client, 1000, |_| false);
        let text = String::from_utf8(got).unwrap();
        assert!(is_end && text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        let (first, second) = text.split_once("before").unwrap();
        assert!(first.contains("Content-Length: 6\r\n"), "{text}");
        assert!(second.starts_with("HTTP/1.1 500 "), "{text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 2, "{text}");
        world.net.borrow_mut().client_close(client);
        world.assert_clean();
    }
}

#[test]
fn a_client_that_goes_ends_it() {
    let bytes = pattern(600_000);
    for seed in 0..SEEDS * 2 {
        let mut world = World::new(seed);
        let client = world.client();
        world.send(client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        let id = world.next();
        let file = world.open(&bytes);
        world.engine.send_file(id, 200, file);
        for _ in 0..seed % 7 {
            world.turn_a_while();
        }
        if seed % 2 == 0 {
            world.net.borrow_mut().client_reset(client);
        } else {
            world.net.borrow_mut().client_close(client);
        }
        world.assert_clean();
    }
}

#[test]
fn a_drain_waits_for_it_and_an_end_by_force_does_not() {
    let bytes = pattern(300_000);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let client = world.client();
        world.send(client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        let id = world.next();
        let file = world.open(&bytes);
        assert!(world.engine.send_file(id, 200, file));
        world.turn();
        world.engine.drain();
        assert!(!world.engine.is_drained());
        if seed % 3 == 0 {
            assert_eq!(world.engine.abort(), 1, "a request is lost");
        } else {
            let (got, is_end) = world.read(client, 30_000, |_| false);
            assert!(is_end && split(&got).1 == bytes);
        }
        world.net.borrow_mut().client_close(client);
        for _ in 0..2000 {
            world.turn_a_while();
        }
        assert!(world.engine.is_drained());
        assert_eq!(world.engine.held(), Held::default());
        assert_eq!(world.net.borrow().open_descriptors(), 0);
    }
}

#[test]
fn the_handlers_id_means_nothing_any_more() {
    let mut world = World::new(0);
    let client = world.client();
    world.send(client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    let id = world.next();
    let file = world.open(&pattern(300_000));
    assert!(world.engine.send_file(id, 200, file));
    assert_eq!(
        world.engine.set_field(id, b"X", b"y", true),
        Err(HeaderError::Over)
    );
    assert!(!world.engine.respond(id, 200, Body::Copied(b"again")));
    let file = world.open(b"again");
    assert!(!world.engine.send_file(id, 200, file));
    let (got, _) = world.read(client, 100_000, |got| is_whole(got, false));
    assert!(split(&got).1 == pattern(300_000));
    world.net.borrow_mut().client_close(client);
    world.assert_clean();
}

#[test]
fn an_http_1_0_client_is_told_how_it_goes_on() {
    for (fields, connection) in [("", "close"), ("Connection: keep-alive\r\n", "keep-alive")] {
        let mut world = World::new(0);
        let file = world.open(b"0123456789");
        let (head, body) = world.ask(&format!("GET /a HTTP/1.0\r\n{fields}\r\n"), 200, file);
        assert!(head.ends_with(&format!(
            "Content-Length: 10\r\nConnection: {connection}\r\n"
        )));
        assert_eq!(body, b"0123456789");
        world.assert_clean();
    }
}

/// How many bytes each read of a file has brought.
fn reads(trace: &[String]) -> Vec<usize> {
    let lines = trace
        .iter()
        .filter_map(|line| line.split_once("the server reads "));
    lines
        .map(|(_, rest)| rest.split_once(' ').unwrap().0.parse().unwrap())
        .collect()
}

#[test]
fn a_file_is_read_in_windows_of_128_kib_each_with_what_goes_before_it() {
    const WINDOW: usize = 128 * 1024;
    for before in [0, 60_000] {
        let mut world = World::new(0);
        let client = world.client_with(2_000_000);
        world.send(client, &"GET /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
        let id = world.next();
        world.net.borrow_mut().start_trace();
        world
            .engine
            .respond(id, 200, Body::Copied(&vec![b'x'; before]));
        let id = world.engine.next_ready().unwrap();
        let file = world.open(&pattern(1_000_000));
        assert!(world.engine.send_file(id, 200, file));
        let (got, _) = world.read(client, 2_000_000, |got| answers(got).len() == 2);
        let trace = world.net.borrow_mut().take_trace();
        let first = WINDOW - (got.len() - 1_000_000);
        let windows = (1_000_000 - first) / WINDOW;
        let mut expected = vec![WINDOW; windows + 1];
        expected[0] = first;
        expected.push((1_000_000 - first) % WINDOW);
        assert_eq!(reads(&trace), expected, "behind {before} bytes");
        world.net.borrow_mut().client_close(client);
        world.assert_clean();
    }
}

#[test]
fn behind_much_that_waits_half_a_window_is_read() {
    let mut world = World::new(0);
    let client = world.client_with(1000);
    world.send(client, &"GET /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
    let id = world.next();
    // It stays in flight, so that what comes behind it has to wait.
    world
        .engine
        .respond(id, 200, Body::Kept(vec![b'x'; 10_000].into()));
    world.turn();
    let id = world.next();
    for name in [&b"X-One"[..], b"X-Two", b"X-Three"] {
        world
            .engine
            .set_field(id, name, &vec![b'v'; 50_000], true)
            .unwrap();
    }
    world.net.borrow_mut().start_trace();
    let file = world.open(&pattern(100_000));
    assert!(world.engine.send_file(id, 200, file));
    let (got, _) = world.read(client, 1000, |got| answers(got).len() == 2);
    let trace = world.net.borrow_mut().take_trace();
    assert_eq!(reads(&trace), [64 * 1024, 100_000 - 64 * 1024]);
    assert!(answers(&got)[1].1 == pattern(100_000));
    world.net.borrow_mut().client_close(client);
    world.assert_clean();
}

#[test]
fn a_file_does_not_follow_the_head_of_another_response() {
    let mut world = World::new(0);
    let client = world.client();
    world.send(client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    let id = world.next();
    assert!(world.engine.start_response(id, 200, None));
    let file = world.open(b"0123456789");
    assert!(!world.engine.send_file(id, 200, file));
    let (got, is_end) = world.read(client, 1000, |_| false);
    let (head, body) = split(&got);
    assert!(head.ends_with("Transfer-Encoding: chunked\r\n"), "{head}");
    assert!(is_end && body.is_empty());
    world.net.borrow_mut().client_close(client);
    world.assert_clean();
}

#[test]
fn without_memory_for_a_read_the_connection_ends() {
    for turns in 0..12 {
        let mut world = World::new(0);
        let client = world.client();
        world.send(client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        let id = world.next();
        let file = world.open(&pattern(400_000));
        if turns == 0 {
            world.net.borrow_mut().faults.no_slot = 1000;
        }
        assert!(world.engine.send_file(id, 200, file));
        let mut got = Vec::new();
        for _ in 1..turns {
            world.turn_a_while();
            let mut net = world.net.borrow_mut();
            net.client_read(client, 20_000, &mut got);
        }
        world.net.borrow_mut().faults.no_slot = 1000;
        let (_, _) = world.read(client, 20_000, |_| false);
        assert_eq!(world.engine.exchange_count(), 0);
        world.net.borrow_mut().faults.no_slot = 0;
        world.net.borrow_mut().client_close(client);
        world.assert_clean();
    }
}

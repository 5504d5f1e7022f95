//! The connection machine: bytes of clients, cut anywhere, through the engine that ships on the
//! simulated driver, against a model that reads the same bytes at once, request by request, with the
//! plain oracles.
//!
//! An input is what the clients send, one after the other, separated by 0x1d; a client whose bytes end
//! in 0x1c resets the connection, one that ends in 0x1a finishes its side (FIN). When, and in which
//! pieces, is drawn from the input's hash; so are the faults of the driver.
//!
//! Checked are the answers (each request has one, in order, bytes intact, and nothing follows the
//! last), the engine's own audit after each turn, and at the end that nothing is held.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use theframework::engine::{AcceptMode, Body, Engine, ExchangeId, Held, Router};
use theframework::Config;
use theframework_http::{ChunkedLimits, Framing, HeadLimits, TargetForm};
use theframework_io::Driver;
use theframework_io::sim::{Agenda, ClientId, Faults, Net, SimDriver, SimSocket};

use crate::cuts::Random;
use crate::naive_chunked::decode_all;
use crate::naive_head::parse_all;

type SimEngine = Engine<SimDriver<Box<[u8]>>, Box<[u8]>>;

const CLIENTS_MAX: usize = 4;
const BODY_MAX: usize = 40_000;
/// Between two looks of the clients at what has come.
const LOOK_US: u64 = 500;
/// By then every time limit has passed, also that of a connection that lingers.
const TURNS_MAX: usize = 20_000;
const LIMITS: HeadLimits = HeadLimits {
    max_target_size: 64,
    max_header_size: 512,
};

pub fn check(bytes: &[u8]) {
    let mut random = Random::new(bytes);
    let clients: Vec<Client> = bytes
        .split(|&byte| byte == 0x1d)
        .take(CLIENTS_MAX)
        .map(|script| Client::new(script, &mut random))
        .collect();
    let clients = run(clients, &mut random);
    for client in &clients {
        judge(client);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Waits,
    Finishes,
    Resets,
}

/// One client: what it will send, and what it has read.
#[derive(Debug)]
struct Client {
    sent: Vec<u8>,
    pieces: VecDeque<(u64, Vec<u8>)>,
    ending: Ending,
    id: Option<ClientId>,
    read: Vec<u8>,
    is_over: bool,
    /// The server has reset it: what was sent last may be lost.
    is_refused: bool,
}

impl Client {
    fn new(script: &[u8], random: &mut Random) -> Self {
        let (sent, ending) = match script {
            [sent @ .., 0x1c] => (sent, Ending::Resets),
            [sent @ .., 0x1a] => (sent, Ending::Finishes),
            sent => (sent, Ending::Waits),
        };
        let mut pieces = VecDeque::new();
        let mut rest = sent;
        let mut at_us = random.below(1000) as u64;
        let piece_max = [1, 7, 100, 5000, 50_000][random.below(4)];
        while !rest.is_empty() {
            let len = (1 + random.below(piece_max)).min(rest.len());
            pieces.push_back((at_us, rest[..len].to_vec()));
            rest = &rest[len..];
            // Pieces may arrive together; no pause comes near a time limit.
            at_us += random.below(40).saturating_sub(20) as u64 * 10;
        }
        Client {
            sent: sent.to_vec(),
            pieces,
            ending,
            id: None,
            read: Vec::new(),
            is_over: false,
            is_refused: false,
        }
    }

    /// Does what is due; reads all that has come.
    fn act(&mut self, net: &mut Net, listener: i32) {
        if self.is_over {
            return;
        }
        let Some(id) = self.id else {
            self.id = net.connect(listener, 3000, 3000);
            return;
        };
        let got = net.client_read(id, usize::MAX, &mut self.read);
        self.is_refused |= got.is_reset;
        if got.is_end || got.is_reset {
            self.is_over = true;
            net.client_close(id);
            return;
        }
        while let Some((at_us, piece)) = self.pieces.front_mut() {
            if *at_us > net.now_us() {
                return;
            }
            let taken = net.client_send(id, piece);
            piece.drain(..taken);
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        match self.ending {
            Ending::Waits => {}
            Ending::Finishes => net.client_finish(id),
            Ending::Resets => {
                self.is_over = true;
                net.client_reset(id);
            }
        }
    }
}

struct Clients {
    all: Vec<Client>,
    listener: i32,
    next_us: u64,
}

impl Agenda for Clients {
    fn next_us(&mut self, _: &mut Net) -> Option<u64> {
        let is_over = self.all.iter().all(|client| client.is_over);
        (!is_over).then_some(self.next_us)
    }

    fn run(&mut self, net: &mut Net) {
        for client in &mut self.all {
            client.act(net, self.listener);
        }
        self.next_us = net.now_us() + LOOK_US;
    }
}

/// Serves until all clients are gone and the engine is drained.
fn run(clients: Vec<Client>, random: &mut Random) -> Vec<Client> {
    let often = [0, 0, 50, 300][random.below(3)];
    let faults = Faults {
        short_reads: often,
        short_writes: often,
        late_events: often,
        late_cancels: often,
        late_write_ends: often,
        ..Faults::default()
    };
    let seed = random.below(usize::MAX - 1) as u64;
    let net = Rc::new(RefCell::new(Net::new(seed, faults)));
    let listener = net.borrow_mut().listen();
    let agenda = Rc::new(RefCell::new(Clients {
        all: clients,
        listener,
        next_us: 0,
    }));
    let buffers = [1, 2, 8][random.below(2)];
    let mut driver = SimDriver::new(&net, Rc::clone(&agenda) as Rc<RefCell<dyn Agenda>>, buffers)
        .expect("a small machine has memory");
    driver.forbids_held_leases = true;
    let mut engine = engine(driver);
    engine.listen(SimSocket::new(&net, listener), AcceptMode::Own);
    let mut is_draining = false;
    for _ in 0..TURNS_MAX {
        turn(&mut engine, &net);
        let is_over = agenda.borrow().all.iter().all(|client| client.is_over);
        if is_over && engine.connection_count() == 0 && !is_draining {
            is_draining = true;
            engine.drain();
        }
        if is_draining && engine.is_drained() {
            break;
        }
    }
    assert!(engine.is_drained(), "it does not end: {:?}", engine.held());
    assert_eq!(engine.held(), Held::default(), "something is held");
    let left = (engine.driver().operations(), engine.driver().leases());
    assert_eq!(left, (0, 0), "operations, leases");
    drop(engine);
    assert_eq!(net.borrow().open_descriptors(), 0);
    std::mem::take(&mut agenda.borrow_mut().all)
}

fn engine(driver: SimDriver<Box<[u8]>>) -> SimEngine {
    let mut router = Router::new();
    for method in ["GET", "POST"] {
        router.add("/e/{id}", method, 0).expect("a good route");
        router.add("/w/{id}", method, 1).expect("a good route");
    }
    let config = Config {
        max_target_size: LIMITS.max_target_size,
        max_header_size: LIMITS.max_header_size,
        max_body_size: BODY_MAX,
        read_timeout_ms: 100,
        keepalive_timeout_ms: 150,
        min_body_rate: 0,
        read_ahead: 1000,
        ..Config::default()
    };
    Engine::new(driver, config, Rc::new(router))
}

fn turn(engine: &mut SimEngine, net: &RefCell<Net>) {
    engine.before_turn();
    engine.wait_for_events(true).expect("the driver works");
    engine.after_turn();
    if let Err(rule) = engine.audit() {
        net.borrow_mut().violation(&rule);
    }
    while let Some(due) = engine.next_due() {
        respond(engine, ExchangeId::from_u64(due));
    }
    for _ in 0..3 {
        let Some(id) = engine.next_ready() else {
            break;
        };
        let view = engine.request(id).expect("what is ready is there");
        // A handler that waits, and one that does not.
        if view.raw_path().starts_with(b"/w/") {
            engine.set_timer(engine.clock_us() + 700, id.to_u64());
            engine.park(id);
        } else {
            respond(engine, id);
        }
    }
    while engine.take_released().is_some() {}
}

/// The parameter, then the body backwards.
fn answer_to(id: &[u8], body: &[u8]) -> Vec<u8> {
    id.iter().chain(body.iter().rev()).copied().collect()
}

fn respond(engine: &mut SimEngine, id: ExchangeId) {
    let Some(view) = engine.request(id) else {
        return;
    };
    let Some(param) = view.param(0) else {
        engine.respond(id, 404, Body::Copied(b""));
        return;
    };
    let answer = answer_to(param, view.body());
    if answer.len() > 4096 {
        engine.respond(id, 200, Body::Kept(answer.into_boxed_slice()));
    } else {
        engine.respond(id, 200, Body::Copied(&answer));
    }
}

/// What a request must be answered by.
enum Expected {
    /// 200 with these bytes; whether the connection goes on.
    Echo(Vec<u8>, bool),
    /// Any one answer that is not for the echo; to HEAD, without a body.
    Other { goes_on: bool },
    /// A refusal, or nothing: after it the connection ends.
    End,
}

/// What the bytes at the start of `rest` must be answered by, and how many they are.
fn model(rest: &[u8]) -> (Expected, usize) {
    let Some(head) = parse_all(rest, &LIMITS) else {
        return (Expected::End, rest.len());
    };
    let after = &rest[head.len..];
    let limits = ChunkedLimits {
        max_body: BODY_MAX as u64,
        ..ChunkedLimits::default()
    };
    let (body, body_len) = match head.framing {
        Framing::None => (Vec::new(), 0),
        Framing::Length(len) => {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            if len > BODY_MAX || len > after.len() {
                return (Expected::End, rest.len());
            }
            (after[..len].to_vec(), len)
        }
        Framing::Chunked => match decode_all(after, limits) {
            Ok(Some(body)) => body,
            _ => return (Expected::End, rest.len()),
        },
    };
    let len = head.len + body_len;
    let id = head.path.get(3..).unwrap_or_default();
    let is_ours = matches!(&head.path[..], [b'/', b'e' | b'w', b'/', ..])
        && !id.is_empty()
        && id.iter().all(u8::is_ascii_alphanumeric);
    let is_echo =
        is_ours && head.form == TargetForm::Origin && matches!(&head.method[..], b"GET" | b"POST");
    let expected = if is_echo {
        Expected::Echo(answer_to(id, &body), head.keep_alive)
    } else {
        Expected::Other {
            goes_on: head.keep_alive,
        }
    };
    (expected, len)
}

fn judge(client: &Client) {
    let mut sent = &client.sent[..];
    let mut read = &client.read[..];
    // What the client, or the server by a reset, has cut off may end anywhere.
    let is_cut = client.ending == Ending::Resets || client.is_refused;
    while !sent.is_empty() {
        let before = sent;
        let (expected, len) = model(before);
        sent = &sent[len..];
        let head = parse_all(before, &LIMITS);
        // Also a refusal of its body is an answer to HEAD, which has none.
        let is_head = match &head {
            Some(head) => head.method == b"HEAD",
            None => before.trim_ascii_start().starts_with(b"HEAD "),
        };
        let may_continue = head.is_some_and(|head| head.expects_continue);
        let Some(answer) = Answer::read(&mut read, is_head, is_cut, may_continue) else {
            assert!(
                is_cut || matches!(expected, Expected::End),
                "a request was not answered"
            );
            break;
        };
        let goes_on = match expected {
            Expected::Echo(body, goes_on) => {
                assert_eq!(answer.status, 200);
                assert_eq!(answer.body, body, "not its own answer");
                assert_eq!(answer.closes, !goes_on);
                goes_on
            }
            Expected::Other { goes_on } => {
                assert_ne!(answer.status, 500);
                goes_on && !answer.closes
            }
            Expected::End => {
                assert!(answer.status >= 400, "{} for no request", answer.status);
                assert!(answer.closes, "a refusal ends the connection");
                false
            }
        };
        if !goes_on {
            break;
        }
    }
    assert!(
        read.is_empty(),
        "more than the answers: {:?}",
        String::from_utf8_lossy(read)
    );
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    closes: bool,
}

impl Answer {
    /// Takes the next final answer off `read`; `None` when there is none, or it was cut off.
    fn read(read: &mut &[u8], is_head: bool, is_cut: bool, mut may_continue: bool) -> Option<Self> {
        loop {
            if read.is_empty() {
                return None;
            }
            let mut table = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut table);
            let Ok(httparse::Status::Complete(len)) = response.parse(read) else {
                assert!(
                    is_cut,
                    "a broken answer: {:?}",
                    String::from_utf8_lossy(read)
                );
                *read = &[];
                return None;
            };
            let status = response.code.expect("a parsed answer has a status");
            let field = |name: &str| {
                let is_it = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
                let mut all = response.headers.iter().filter(is_it);
                let first = all.next().map(|field| field.value.to_vec());
                assert!(all.next().is_none(), "{name} came twice");
                first
            };
            let closes = field("connection").is_some_and(|value| value == b"close");
            let length = field("content-length").map_or(0, |value| {
                let text = String::from_utf8(value).expect("digits");
                text.parse::<usize>().expect("digits")
            });
            let body_len = if is_head || status < 200 { 0 } else { length };
            let Some(body) = read.get(len..len + body_len) else {
                assert!(is_cut, "a short answer");
                *read = &[];
                return None;
            };
            *read = &read[len + body_len..];
            if status >= 200 {
                return Some(Answer {
                    status,
                    body: body.to_vec(),
                    closes,
                });
            }
            assert!(
                status == 100 && may_continue,
                "{status} was not asked for, or came twice"
            );
            may_continue = false;
        }
    }
}

//! Whoever runs the engine: what the Python hub does, without Python.
//!
//! Handlers do what the request's path says: `/h/{action}/{id}/{size}/{wait_us}/{fields}`, or `/s/…` for
//! those that take the body while it arrives.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use fastrand::Rng;

use theframework::engine::{
    Body, BodyState, Engine, ExchangeId, FileBody, Held, Peers, RequestView, Room, Route, Router,
    StreamLimit,
};
use theframework_io::sim::{FNV_START, Net, SimDriver, SimSocket, fnv};
use theframework_io::{Driver as _, TimerId};

use crate::client::Shared;
use crate::plan::{Plan, filler};

pub type SimEngine = Engine<SimDriver<Box<[u8]>>, Box<[u8]>>;

/// How long a handler may go on after its timeout.
const OVERTIME_MS: u64 = 200;
/// What may stand in one write that is being filled: 64 KiB, and behind that one answer or piece.
const OUTPUT_MAX: usize = 64 * 1024 + 220_000;
/// Within this time a handler can know that its client has gone.
const NOTICED_US: u64 = 100_000;

/// A handler that waits.
struct Parked {
    id: ExchangeId,
    digest: u64,
    /// How often it will wait.
    waits: u32,
    wait_us: u64,
    answer: Answer,
    /// It does not end when it is told to.
    is_stubborn: bool,
    /// Which ends its wait.
    timer: TimerId,
}

/// A handler that takes its body while it comes, or sends its answer while it makes it.
struct Streamer {
    id: ExchangeId,
    /// Of the head alone.
    digest: u64,
    answer: Answer,
    is_head: bool,
    way: Way,
    /// What has come of the body.
    body: Vec<u8>,
    /// How much of the answer has been written; none until its head was.
    written: Option<usize>,
    /// How often it will wait between two steps, and for how long.
    waits: u32,
    wait_us: u64,
    /// How many more pieces of the body it takes before it answers.
    reads: u32,
    /// How much of its answer it writes before it breaks off.
    breaks_off_at: Option<usize>,
}

/// How a streamer answers.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Way {
    /// As a whole.
    Whole,
    /// In chunks.
    Chunks,
    /// With a length that was announced.
    Length,
    /// Each piece of the body as it comes.
    Echo,
    /// Likewise, and begins before it reads.
    First,
}

impl Way {
    fn is_echo(self) -> bool {
        matches!(self, Way::Echo | Way::First)
    }
}

#[derive(Clone)]
struct Answer {
    id: u32,
    /// When its handler began.
    began_us: u64,
    size: usize,
    fields: usize,
    is_kept: bool,
    is_file: bool,
    closes: bool,
}

/// Other workers that there are not: what this one tells them, and what it is told.
#[derive(Debug, Default)]
struct OtherWorkers {
    told: Cell<usize>,
    lowest: Cell<Option<usize>>,
}

#[derive(Debug)]
struct View(Rc<OtherWorkers>);

impl Peers for View {
    fn publish(&self, connections: usize) {
        self.0.told.set(connections);
    }

    fn lowest(&self) -> Option<usize> {
        self.0.lowest.get()
    }

    fn disown(&mut self) {}
}

pub struct Server {
    pub engine: SimEngine,
    others: Rc<OtherWorkers>,
    steps: u64,
    /// Requests that came to a handler.
    handled: u64,
    parked: HashMap<u64, Parked>,
    streaming: HashMap<u64, Streamer>,
    /// Requests whose bodies were refused by handlers that took them.
    refused: u64,
    next_value: u64,
    /// Timers of streamers that wait no longer than that: what they end.
    alarms: HashMap<u64, u64>,
    /// Waits that ended otherwise, and in which step.
    forgotten: HashMap<u64, u64>,
    /// Faults take its memory: it may be blind to who has gone.
    pub loses_memory: bool,
    seen: HashSet<u32>,
    batch_max: usize,
    /// Where files are opened.
    net: Rc<RefCell<Net>>,
    /// Exchanges that have ended; who names them later must be told so.
    over: VecDeque<ExchangeId>,
    rng: Rng,
    shared: Rc<RefCell<Shared>>,
}

impl Server {
    pub fn new(
        driver: SimDriver<Box<[u8]>>,
        plan: &Plan,
        seed: u64,
        net: &Rc<RefCell<Net>>,
        shared: &Rc<RefCell<Shared>>,
    ) -> Self {
        let mut router = Router::new();
        for (endpoint, method) in ["GET", "POST", "PUT", "HEAD"].into_iter().enumerate() {
            router
                .add(
                    "/h/{action}/{id}/{size}/{wait}/{fields}",
                    method,
                    endpoint as u32,
                )
                .and_then(|()| {
                    let pattern = "/s/{action}/{id}/{size}/{wait}/{fields}";
                    router.add(pattern, method, endpoint as u32 + 4)
                })
                .unwrap_or_else(|error| unreachable!("a good route: {error}"));
            router.stream(endpoint as u32 + 4, StreamLimit::Default);
        }
        let others = Rc::new(OtherWorkers::default());
        let mut engine = Engine::new(driver, plan.config.clone(), Rc::new(router));
        engine.set_peers(Box::new(View(Rc::clone(&others))));
        Server {
            engine,
            others,
            steps: 0,
            handled: 0,
            parked: HashMap::new(),
            streaming: HashMap::new(),
            refused: 0,
            next_value: 0,
            alarms: HashMap::new(),
            forgotten: HashMap::new(),
            loses_memory: false,
            seen: HashSet::new(),
            batch_max: plan.batch_max,
            net: Rc::clone(net),
            over: VecDeque::new(),
            rng: Rng::with_seed(seed ^ 0xbad),
            shared: Rc::clone(shared),
        }
    }

    /// One turn, and everything that follows from it.
    pub fn step(&mut self, net: &RefCell<Net>) {
        self.steps += 1;
        let lowest = self.rng.usize(0..16);
        self.others.lowest.set((lowest < 8).then_some(lowest));
        self.engine.before_turn();
        if let Err(errno) = self.engine.wait_for_events(true) {
            net.borrow_mut()
                .violation(&format!("the driver failed: {errno:?}"));
        }
        self.engine.after_turn();
        if let Err(rule) = self.engine.audit() {
            net.borrow_mut().violation(&rule);
        }
        let longest = self.engine.longest_output();
        if longest > OUTPUT_MAX {
            net.borrow_mut().violation(&format!(
                "more and more is written to a client that takes nothing: {longest} bytes"
            ));
        }
        if self.others.told.get() != self.engine.connection_count() {
            net.borrow_mut()
                .violation("the other workers were told another number of connections");
        }
        // Before any handler goes on, as the hub does.
        while let Some(id) = self.engine.next_overdue() {
            self.overdue(id);
        }
        while let Some(value) = self.engine.next_due() {
            self.resume(net, value);
        }
        self.name_what_is_over(net);
        for _ in 0..self.batch_max {
            let Some(id) = self.engine.next_ready() else {
                break;
            };
            self.handled += 1;
            self.handle(net, id);
        }
        while let Some(body) = self.engine.take_released() {
            drop(body);
        }
    }

    /// A late call for an exchange that has ended: nothing may come of it.
    fn name_what_is_over(&mut self, net: &RefCell<Net>) {
        if self.over.is_empty() || self.rng.u32(0..4) > 0 {
            return;
        }
        let id = self.over[self.rng.usize(0..self.over.len())];
        let is_taken = match self.rng.u32(0..3) {
            0 => self.engine.respond(id, 200, Body::Copied(b"late\n")),
            1 => self.engine.set_field(id, b"X-Late", b"1", false).is_ok(),
            _ => {
                self.engine.park(id);
                self.engine.close_after(id);
                self.engine.abandon(id);
                self.engine.request(id).is_some()
            }
        };
        if is_taken {
            net.borrow_mut()
                .violation("an exchange that had ended took a late call");
        }
    }

    fn ended(&mut self, id: ExchangeId) {
        if self.over.len() == 64 {
            self.over.pop_front();
        }
        self.over.push_back(id);
    }

    fn handle(&mut self, net: &RefCell<Net>, id: ExchangeId) {
        let Some(view) = self.engine.request(id) else {
            net.borrow_mut()
                .violation("a request is ready and cannot be looked at");
        };
        let status = match view.route() {
            Route::Endpoint(_) => 200,
            Route::NotFound => 404,
            Route::MethodNotAllowed => 405,
        };
        if status != 200 {
            self.engine.respond(id, status, Body::Copied(b"no\n"));
            return self.ended(id);
        }
        let number = |index| -> u64 {
            let text = view.param(index).unwrap_or_default();
            std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let action = String::from_utf8_lossy(view.param(0).unwrap_or_default()).into_owned();
        let answer = Answer {
            id: number(1) as u32,
            began_us: self.engine.clock_us(),
            size: number(2) as usize,
            fields: number(4) as usize,
            is_kept: action == "kept",
            is_file: action == "file",
            closes: action == "last",
        };
        let wait_us = number(3);
        let is_head = view.method() == b"HEAD";
        let digest = digest_of(&view);
        let head_digest = head_digest_of(&view);
        let buffered = if view.streams() {
            Vec::new()
        } else {
            view.body().to_vec()
        };
        if answer.id != 0 && !self.seen.insert(answer.id) {
            let text = format!("request {} reached a handler twice", answer.id);
            net.borrow_mut().violation(&text);
        }
        net.borrow_mut()
            .note(|| format!("request {}: {action}", answer.id));
        let way = match action.as_str() {
            "take" => Some(Way::Whole),
            "chunks" => Some(Way::Chunks),
            "length" => Some(Way::Length),
            "echo" => Some(Way::Echo),
            "first" => Some(Way::First),
            "cut" if self.rng.bool() => Some(Way::Length),
            "cut" => Some(Way::Chunks),
            "early" => {
                let ways = [Way::Whole, Way::Chunks, Way::Length];
                self.rng.choice(ways)
            }
            _ => None,
        };
        if let Some(way) = way {
            let breaks_off_at = (action == "cut").then(|| self.rng.usize(0..answer.size.max(1)));
            let reads = match action.as_str() {
                "early" => self.rng.u32(0..4),
                _ => u32::MAX,
            };
            return self.stream(
                net,
                Streamer {
                    id,
                    digest: head_digest,
                    answer,
                    is_head,
                    way,
                    body: buffered,
                    written: None,
                    waits: if wait_us == 0 { 0 } else { 3 },
                    wait_us: wait_us / 4,
                    reads,
                    breaks_off_at,
                },
            );
        }
        let waits = match action.as_str() {
            "park" => 1,
            "parks" => 3,
            "never" | "stubborn" => u32::MAX,
            _ => 0,
        };
        if waits == 0 {
            return self.answer(id, digest, &answer);
        }
        let wait_us = if waits == u32::MAX {
            50_000
        } else {
            wait_us / u64::from(waits)
        };
        let (value, timer) = self.park(id, wait_us);
        let parked = Parked {
            id,
            digest,
            waits: waits - u32::from(waits != u32::MAX),
            wait_us,
            answer,
            is_stubborn: action == "stubborn",
            timer,
        };
        self.parked.insert(value, parked);
    }

    fn park(&mut self, id: ExchangeId, wait_us: u64) -> (u64, TimerId) {
        let value = self.new_value();
        self.engine.park(id);
        let at_us = self.engine.clock_us() + wait_us;
        (value, self.engine.set_timer(at_us, value))
    }

    fn resume(&mut self, net: &RefCell<Net>, value: u64) {
        if let Some(waits_for) = self.alarms.remove(&value) {
            if let Some(streamer) = self.streaming.remove(&waits_for) {
                self.engine.forget_waiter(streamer.id, waits_for);
                self.forgotten.insert(waits_for, self.steps);
                self.stream(net, streamer);
            }
            return;
        }
        if let Some(streamer) = self.streaming.remove(&value) {
            return self.stream(net, streamer);
        }
        let Some(parked) = self.parked.remove(&value) else {
            // It may have been due before it was forgotten.
            if self.forgotten.remove(&value) != Some(self.steps) {
                net.borrow_mut()
                    .violation("somebody is woken who does not wait");
            }
            return;
        };
        self.look_for_client(net, parked.id, &parked.answer);
        if let Some(view) = self.engine.request(parked.id)
            && digest_of(&view) != parked.digest
        {
            net.borrow_mut()
                .violation("a request has changed while its handler waited");
        }
        // One that does not end does end when nobody listens any more.
        let is_gone = self.engine.request(parked.id).is_none();
        if parked.waits == 0 || (parked.waits == u32::MAX && is_gone) {
            self.answer(parked.id, parked.digest, &parked.answer);
        } else {
            let (value, timer) = self.park(parked.id, parked.wait_us);
            let parked = Parked {
                waits: parked.waits - u32::from(parked.waits != u32::MAX),
                timer,
                ..parked
            };
            self.parked.insert(value, parked);
        }
    }

    /// That a client has gone is known to a handler that has waited, whatever it waited for.
    fn look_for_client(&self, net: &RefCell<Net>, id: ExchangeId, answer: &Answer) {
        let Some(&gone_us) = self.shared.borrow().gone_us.get(&answer.id) else {
            return;
        };
        let net = &mut *net.borrow_mut();
        let is_known = self.engine.request(id).is_none() || self.engine.is_disconnected(id);
        let is_excused = self.loses_memory || net.counts.clock_jumps > 0;
        if !is_known && !is_excused && net.now_us() > gone_us.max(answer.began_us) + NOTICED_US {
            net.violation("a client has gone, and its handler cannot know");
        }
    }

    fn overdue(&mut self, id: ExchangeId) {
        if self.engine.is_overtime(id) {
            self.engine.abandon(id);
            return;
        }
        self.engine.start_overtime(id, OVERTIME_MS);
        let told = self
            .parked
            .iter()
            .find(|(_, parked)| parked.id == id && !parked.is_stubborn)
            .map(|(&value, _)| value);
        if let Some(value) = told {
            if let Some(parked) = self.parked.remove(&value) {
                self.engine.cancel_timer(parked.timer);
            }
            self.forgotten.insert(value, self.steps);
            self.engine.clear_fields(id);
            self.engine.respond(id, 503, Body::Copied(b"late\n"));
            self.ended(id);
        }
    }

    /// Goes on until the handler has to wait, or ends.
    fn stream(&mut self, net: &RefCell<Net>, mut streamer: Streamer) {
        let id = streamer.id;
        self.look_for_client(net, id, &streamer.answer);
        if let Some(view) = self.engine.request(id)
            && head_digest_of(&view) != streamer.digest
        {
            net.borrow_mut()
                .violation("a head has changed while its handler took the body");
        }
        loop {
            // With its last byte an answer of known length is complete, and with its head one to
            // HEAD: the client goes on.
            let is_sent = streamer.written.is_some_and(|written| {
                streamer.is_head || (streamer.way == Way::Length && written == streamer.answer.size)
            });
            if streamer.waits > 0 && !is_sent && self.rng.u32(0..4) == 0 {
                streamer.waits -= 1;
                let at_us = self.engine.clock_us() + streamer.wait_us;
                let value = self.new_value();
                self.engine.set_timer(at_us, value);
                return self.wait(streamer, value);
            }
            let is_reading = match streamer.way {
                Way::Echo => true,
                Way::First => streamer.written.is_some(),
                _ => streamer.written.is_none() && streamer.reads > 0,
            };
            if is_reading {
                match self.engine.body_state(id) {
                    BodyState::Ready => {
                        let max = self.rng.usize(1..100_000);
                        let Some(piece) = self.engine.take_body(id, max, <[u8]>::to_vec) else {
                            net.borrow_mut()
                                .violation("a body is ready, and is not there");
                        };
                        streamer.body.extend_from_slice(&piece);
                        if !streamer.way.is_echo() {
                            streamer.reads -= u32::from(streamer.reads != u32::MAX);
                            continue;
                        }
                    }
                    BodyState::Waits => {
                        let value = self.new_value();
                        if !self.engine.wait_for_body(id, value) {
                            net.borrow_mut().violation("a body is not to be waited for");
                        }
                        self.set_alarm(&streamer, value);
                        return self.wait(streamer, value);
                    }
                    BodyState::Ended => {}
                    BodyState::Gone => {
                        self.engine.abort_response(id);
                        return self.ended(id);
                    }
                    BodyState::Failed(status) => {
                        self.refused += 1;
                        self.engine.clear_fields(id);
                        self.engine.respond(id, status, Body::Copied(b"no\n"));
                        return self.ended(id);
                    }
                    BodyState::Over => return,
                }
            }
            let Some(written) = streamer.written else {
                let digest = match streamer.way {
                    Way::Echo | Way::First => streamer.digest,
                    _ if streamer.reads != u32::MAX => streamer.digest,
                    _ => fnv(streamer.digest, &streamer.body),
                };
                if streamer.way == Way::Whole {
                    return self.answer(id, digest, &streamer.answer);
                }
                let length = (streamer.way == Way::Length).then_some(streamer.answer.size as u64);
                if !self.set_fields(id, digest, &streamer.answer) {
                    return;
                }
                if !self.engine.start_response(id, 200, length) {
                    self.engine.abort_response(id);
                    return self.ended(id);
                }
                streamer.written = Some(0);
                continue;
            };
            if streamer.breaks_off_at == Some(written) {
                if streamer.way == Way::Length {
                    self.engine.finish_response(id);
                } else {
                    self.engine.abort_response(id);
                }
                return self.ended(id);
            }
            let end = match streamer.way {
                Way::Echo | Way::First => streamer.body.len(),
                _ => streamer.breaks_off_at.unwrap_or(streamer.answer.size),
            };
            if written == end {
                let is_over =
                    !streamer.way.is_echo() || self.engine.body_state(id) == BodyState::Ended;
                if is_over {
                    if !self.engine.finish_response(id) {
                        net.borrow_mut()
                            .violation("a whole answer was taken for a part of one");
                    }
                    return self.ended(id);
                }
                continue;
            }
            match self.engine.room(id) {
                Room::Ready => {
                    let len = match self.rng.u32(0..3) {
                        0 => self.rng.usize(1..200),
                        1 => self.rng.usize(1..10_000),
                        _ => self.rng.usize(1..100_000),
                    }
                    .min(end - written);
                    let piece: Vec<u8> = (written..written + len)
                        .map(|at| filler(streamer.answer.id, at))
                        .collect();
                    let sent = if self.rng.bool() {
                        self.engine
                            .write_body(id, Body::Kept(piece.into_boxed_slice()))
                            .is_ok()
                    } else {
                        self.engine.write_body(id, Body::Copied(&piece)).is_ok()
                    };
                    if !sent {
                        net.borrow_mut().violation("there is room, and it is not");
                    }
                    streamer.written = Some(written + len);
                }
                Room::Full => {
                    let value = self.new_value();
                    if !self.engine.wait_for_room(id, value) {
                        net.borrow_mut().violation("room is not to be waited for");
                    }
                    self.set_alarm(&streamer, value);
                    return self.wait(streamer, value);
                }
                Room::Gone => {
                    self.engine.abort_response(id);
                    return self.ended(id);
                }
                Room::Over => return,
            }
        }
    }

    /// Now and then, one that has time waits for a while only, and looks again.
    fn set_alarm(&mut self, streamer: &Streamer, waits_for: u64) {
        if streamer.waits > 0 && self.rng.bool() {
            let at_us = self.engine.clock_us() + self.rng.u64(0..=streamer.wait_us);
            let alarm = self.new_value();
            self.engine.set_timer(at_us, alarm);
            self.alarms.insert(alarm, waits_for);
        }
    }

    fn wait(&mut self, streamer: Streamer, value: u64) {
        self.engine.park(streamer.id);
        self.streaming.insert(value, streamer);
    }

    fn new_value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    fn answer(&mut self, id: ExchangeId, digest: u64, answer: &Answer) {
        if !self.set_fields(id, digest, answer) {
            return;
        }
        let engine = &mut self.engine;
        let body: Vec<u8> = (0..answer.size).map(|at| filler(answer.id, at)).collect();
        if answer.is_file {
            let len = body.len() as u64;
            let fd = self.net.borrow_mut().open(body);
            let file = FileBody {
                file: SimSocket::new(&self.net, fd),
                len,
                modified: (i64::from(answer.id), 0),
            };
            engine.send_file(id, 200, file);
        } else if answer.is_kept {
            engine.respond(id, 200, Body::Kept(body.into_boxed_slice()));
        } else {
            engine.respond(id, 200, Body::Copied(&body));
        }
        self.ended(id);
    }

    /// Sets what an answer's head says; false if it was answered otherwise.
    fn set_fields(&mut self, id: ExchangeId, digest: u64, answer: &Answer) -> bool {
        let engine = &mut self.engine;
        // Without memory for a field there is no right answer: nobody gets a wrong one.
        let mut set =
            |name: &[u8], value: &[u8], replace| engine.set_field(id, name, value, replace).is_ok();
        let mut is_whole = set(b"X-Id", b"replaced by what follows", true)
            && set(b"X-Id", answer.id.to_string().as_bytes(), true)
            && set(b"X-Digest", format!("{digest:016x}").as_bytes(), true);
        for index in 0..answer.fields {
            let value = "f".repeat(index * 3);
            is_whole = is_whole
                && set(
                    format!("X-Field-{index}").as_bytes(),
                    value.as_bytes(),
                    false,
                );
        }
        if !is_whole {
            engine.clear_fields(id);
            engine.close_after(id);
            engine.respond(id, 503, Body::Copied(b"no memory\n"));
            self.ended(id);
            return false;
        }
        if answer.closes {
            engine.close_after(id);
        }
        if engine.is_draining() {
            self.shared.borrow_mut().last_answers.insert(answer.id);
        }
        true
    }

    /// Handlers that still wait.
    pub fn waiting(&self) -> usize {
        self.parked.len() + self.streaming.len()
    }

    /// The engine's counters against what was seen of it from both sides.
    pub fn check_stats(&self, net: &mut Net, shared: &Shared) {
        let stats = self.engine.stats();
        // A request whose client has gone is counted, and handled by nobody.
        let is_right = stats.turns == self.steps
            && stats.requests >= self.handled
            && stats.refused + self.refused >= shared.refused
            && stats.accepted + stats.overload >= shared.heard;
        if !is_right {
            net.violation(&format!(
                "{stats:?}, but {} turns, {} requests handled, {} refused, {} clients heard",
                self.steps, self.handled, shared.refused, shared.heard
            ));
        }
    }

    /// Nothing may be held when nobody is connected; the operations that are left are `listeners`.
    pub fn check_at_rest(&self, net: &mut Net, listeners: usize) {
        let held = self.engine.held();
        if held != Held::default() {
            net.violation(&format!(
                "nobody is connected, and the engine holds {held:?}"
            ));
        }
        let (operations, leases) = (
            self.engine.driver().operations(),
            self.engine.driver().leases(),
        );
        if operations > listeners || leases > 0 {
            net.violation(&format!(
                "nobody is connected, and the driver holds {operations} operations for \
                 {listeners} listeners, {leases} leases"
            ));
        }
        if net.open_descriptors() != listeners {
            let count = net.open_descriptors();
            net.violation(&format!(
                "{count} descriptors are open for {listeners} listeners"
            ));
        }
    }
}

fn digest_of<B: theframework_io::KeptBytes>(view: &RequestView<'_, B>) -> u64 {
    fnv(head_digest_of(view), view.body())
}

fn head_digest_of<B: theframework_io::KeptBytes>(view: &RequestView<'_, B>) -> u64 {
    let mut digest = fnv(FNV_START, view.method());
    digest = fnv(digest, view.target());
    fnv(digest, view.header("x-token").unwrap_or_default())
}

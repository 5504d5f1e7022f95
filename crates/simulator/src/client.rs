//! Simulated clients: each follows its plan, and holds the server to what must come back.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::os::fd::RawFd;
use std::rc::Rc;

use fastrand::Rng;
use theframework_io::sim::{Agenda, ClientId, Net};

use crate::plan::{Act, ClientPlan, Cutting, Expected, Plan, Reading, Timeout, filler};

/// How far a timeout may be from its time: a tick, a millisecond, and what the simulated system
/// itself is late by.
const LATE_US: u64 = 15_000;
const EARLY_US: u64 = 5_000;
/// No client of any plan needs as long as this.
const PATIENCE_US: u64 = 400_000_000;

/// The field with which a client asks to be told.
const EXPECT: &[u8] = b"Expect: 100-continue";

/// All clients of a run.
pub struct Clients {
    clients: Vec<Client>,
    listeners: Vec<RawFd>,
    rng: Rng,
    shared: Rc<RefCell<Shared>>,
    changed: Vec<usize>,
    /// By the number of the connection: its client.
    of_connection: Vec<usize>,
    times: Times,
    is_punctual: bool,
}

#[derive(Copy, Clone)]
struct Times {
    read_us: u64,
    write_us: u64,
    keepalive_us: u64,
    handler_us: u64,
}

/// What clients and server know of each other.
#[derive(Debug, Default)]
pub struct Shared {
    /// The server is draining or has been cut off: who is not answered has no complaint.
    pub is_ending: bool,
    /// Complete, right answers.
    pub answered: u64,
    /// Answers of the engine's own that were asked for: 400, 408, 413 and so on.
    pub refused: u64,
    /// Clients that got an answer, whatever it was.
    pub heard: u64,
    /// Answers 503 that nobody asked for.
    pub overloaded: u64,
    /// Connections that ended without a reason that their client knows.
    pub unexplained: u64,
    /// Requests that were answered while the server drained: no other follows.
    pub last_answers: HashSet<u32>,
    /// By the number of a request: when its client closed its side, or reset.
    pub gone_us: HashMap<u32, u64>,
    /// Clients that have not ended.
    pub left: usize,
}

struct Client {
    plan: ClientPlan,
    /// Each handler's answer has a `Server` field.
    server_has_name: bool,
    connection: Option<ClientId>,
    act: usize,
    sent: usize,
    got: Vec<u8>,
    answers: usize,
    continues: usize,
    next_us: Option<u64>,
    is_done: bool,
    first_sent_us: Option<u64>,
    last_sent_us: u64,
    waits_since_us: Option<u64>,
    last_read_us: u64,
    has_finished: bool,
    finished_us: u64,
    is_heard: bool,
    /// It was told 503, or 408 after a jump of the clock, and asks for nothing more.
    has_given_up: bool,
}

/// A complete answer at the start of what was received.
struct Answer {
    status: u16,
    len: usize,
    closes: bool,
    head: String,
    body: Vec<u8>,
}

/// A chunked body at the start of `bytes`: its length with and its bytes without the framing; none if
/// it is not complete.
fn dechunked(bytes: &[u8]) -> Result<Option<(usize, Vec<u8>)>, &'static str> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let rest = &bytes[at..];
        let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return if rest.len() > 20 {
                Err("got a chunk without a size")
            } else {
                Ok(None)
            };
        };
        let size = std::str::from_utf8(&rest[..line])
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .ok_or("got a chunk with a strange size")?;
        let start = at + line + 2;
        let Some(piece) = bytes.get(start..start + size + 2) else {
            return Ok(None);
        };
        if !piece.ends_with(b"\r\n") {
            return Err("got a chunk that does not end");
        }
        body.extend_from_slice(&piece[..size]);
        at = start + size + 2;
        if size == 0 {
            return Ok(Some((at, body)));
        }
    }
}

impl Clients {
    pub fn new(
        plan: &Plan,
        seed: u64,
        listeners: Vec<RawFd>,
        shared: &Rc<RefCell<Shared>>,
    ) -> Self {
        shared.borrow_mut().left = plan.clients.len();
        Clients {
            clients: plan
                .clients
                .iter()
                .map(|client| Client::new(client.clone(), !plan.config.server.is_empty()))
                .collect(),
            listeners,
            rng: Rng::with_seed(seed ^ 0x5eed),
            shared: Rc::clone(shared),
            changed: Vec::new(),
            of_connection: Vec::new(),
            times: Times {
                read_us: plan.config.read_timeout_ms * 1000,
                write_us: plan.config.write_timeout_ms * 1000,
                keepalive_us: plan.config.keepalive_timeout_ms * 1000,
                handler_us: plan.config.handler_timeout_ms * 1000,
            },
            is_punctual: plan.is_punctual(),
        }
    }

    fn wake_changed(&mut self, net: &mut Net) {
        net.take_changed(&mut self.changed);
        for connection in self.changed.drain(..) {
            let Some(&index) = self.of_connection.get(connection) else {
                continue;
            };
            let client = &mut self.clients[index];
            if !client.is_done {
                // The way to the client takes time.
                let at_us = net.now_us() + self.rng.u64(0..100);
                client.next_us = Some(client.next_us.map_or(at_us, |next_us| next_us.min(at_us)));
            }
        }
    }
}

impl Agenda for Clients {
    fn next_us(&mut self, net: &mut Net) -> Option<u64> {
        self.wake_changed(net);
        self.clients
            .iter()
            .filter(|client| !client.is_done)
            .filter_map(|client| client.next_us)
            .min()
    }

    fn run(&mut self, net: &mut Net) {
        self.wake_changed(net);
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.is_done || client.next_us.is_none_or(|at_us| at_us > net.now_us()) {
                continue;
            }
            client.next_us = None;
            if client.connection.is_none() {
                let listener = self.listeners[client.plan.listener];
                let plan = &client.plan;
                client.connection =
                    net.connect(listener, plan.outbound_capacity, plan.inbound_capacity);
                let Some(ClientId(number)) = client.connection else {
                    // Nobody listens any more.
                    client.is_done = true;
                    self.shared.borrow_mut().left -= 1;
                    continue;
                };
                self.of_connection.resize(number + 1, usize::MAX);
                self.of_connection[number] = index;
                let kind = client.plan.kind;
                net.note(|| format!("client {number}: is {kind}"));
            }
            let mut shared = self.shared.borrow_mut();
            client.run(
                net,
                &mut shared,
                &mut self.rng,
                self.times,
                self.is_punctual,
            );
            if client.is_done {
                shared.left -= 1;
            } else if net.now_us() > client.plan.starts_us + PATIENCE_US
                && net.counts.clock_jumps == 0
            {
                let text = client.describe("waits in vain");
                net.violation(&text);
            }
        }
    }
}

impl Client {
    fn new(plan: ClientPlan, server_has_name: bool) -> Self {
        Client {
            server_has_name,
            next_us: Some(plan.starts_us),
            plan,
            connection: None,
            act: 0,
            sent: 0,
            got: Vec::new(),
            answers: 0,
            continues: 0,
            is_done: false,
            first_sent_us: None,
            last_sent_us: 0,
            waits_since_us: None,
            last_read_us: 0,
            has_finished: false,
            finished_us: 0,
            is_heard: false,
            has_given_up: false,
        }
    }

    fn describe(&self, what: &str) -> String {
        let number = self
            .connection
            .map_or(usize::MAX, |ClientId(number)| number);
        format!(
            "client {number} ({}) {what}: {} of {} answers, at act {} of {} ({:?})",
            self.plan.kind,
            self.answers,
            self.plan.expected.len(),
            self.act,
            self.plan.acts.len(),
            self.plan.acts.get(self.act),
        )
    }

    fn at(&mut self, at_us: u64) {
        self.next_us = Some(self.next_us.map_or(at_us, |next_us| next_us.min(at_us)));
    }

    fn run(
        &mut self,
        net: &mut Net,
        shared: &mut Shared,
        rng: &mut Rng,
        times: Times,
        is_punctual: bool,
    ) {
        let Some(id) = self.connection else { return };
        let is_over = self.read(net, shared, id);
        if is_over {
            self.end(net, shared, id, times, is_punctual);
            return;
        }
        while !self.is_done && self.perform(net, shared, id, rng, is_punctual) {}
        // A lost wake-up must not hang the client: it looks again.
        let later_us = net.now_us() + 5_000_000;
        self.at(later_us);
    }

    /// Reads what there is; says whether the connection is over.
    fn read(&mut self, net: &mut Net, shared: &mut Shared, id: ClientId) -> bool {
        let max = match self.plan.reading {
            Reading::Prompt => usize::MAX,
            Reading::Never => 0,
            Reading::Slow(bytes, every_us) => {
                let now_us = net.now_us();
                if now_us < self.last_read_us + every_us {
                    self.at(self.last_read_us + every_us);
                    0
                } else {
                    self.last_read_us = now_us;
                    self.at(now_us + every_us);
                    bytes
                }
            }
        };
        let read = net.client_read(id, max, &mut self.got);
        let is_over = match self.plan.reading {
            Reading::Never => net.look(id).ended_us.is_some(),
            _ => read.is_end || (read.is_reset && read.len == 0),
        };
        while let Some(answer) = self.next_answer(net, is_over) {
            shared.heard += u64::from(!self.is_heard);
            self.is_heard = true;
            self.take(net, shared, &answer);
            self.got.drain(..answer.len);
        }
        is_over
    }

    fn fail(&self, net: &mut Net, what: &str) -> ! {
        let text = self.describe(what);
        let got = String::from_utf8_lossy(&self.got[..self.got.len().min(600)]).into_owned();
        net.note(|| format!("received and not understood: {got:?}"));
        net.violation(&text)
    }

    fn next_answer(&mut self, net: &mut Net, is_over: bool) -> Option<Answer> {
        loop {
            let end = self.got.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
            let head = String::from_utf8_lossy(&self.got[..end]).into_owned();
            let mut lines = head.split("\r\n");
            let status_line = lines.next().unwrap_or_default();
            let status = status_line
                .strip_prefix("HTTP/1.1 ")
                .and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
            let Some(status) = status else {
                self.fail(net, "got something that is no answer");
            };
            if status == 100 {
                if head != "HTTP/1.1 100 Continue\r\n\r\n" {
                    self.fail(net, "got a strange interim answer");
                }
                self.continues += 1;
                let asked = self.plan.script.windows(EXPECT.len());
                if self.continues > asked.filter(|&line| line == EXPECT).count() {
                    self.fail(net, "was told to continue and had not asked");
                }
                self.got.drain(..end);
                continue;
            }
            let (mut length, mut closes, mut dates) = (None::<usize>, false, 0);
            let (mut is_chunked, mut keeps) = (false, false);
            for line in lines.filter(|line| !line.is_empty()) {
                let Some((name, value)) = line.split_once(": ") else {
                    self.fail(net, "got a line that is no field");
                };
                match name.to_ascii_lowercase().as_str() {
                    "content-length" if length.is_none() && !is_chunked => {
                        length = value.parse().ok();
                    }
                    "transfer-encoding" if length.is_none() && value == "chunked" => {
                        is_chunked = true;
                    }
                    "content-length" | "transfer-encoding" => {
                        self.fail(net, "got two framings");
                    }
                    "connection" if value == "close" => closes = true,
                    "connection" if value == "keep-alive" => keeps = true,
                    "connection" => self.fail(net, "got a connection field for nothing"),
                    "date" => dates += usize::from(value.len() == 29),
                    _ => {}
                }
            }
            if dates != 1 {
                self.fail(net, "got no date, or more than one");
            }
            let expected = self.plan.expected.get(self.answers);
            let until_close = expected.and_then(Expected::until_close);
            if length.is_none() && !is_chunked && until_close.is_none() {
                self.fail(net, "got an answer without a length");
            }
            let is_head = expected.is_some_and(Expected::is_head);
            // Most ask for nothing of the kind.
            if keeps != expected.is_some_and(Expected::keeps) && !closes {
                self.fail(net, "got a connection field for nothing, or none");
            }
            if is_chunked && until_close.is_some() {
                self.fail(net, "got chunks and is too old for them");
            }
            let behind = &self.got[end..];
            let (len, body) = match (length, until_close) {
                _ if is_head => (0, Vec::new()),
                (Some(length), _) => (length, behind.get(..length)?.to_vec()),
                (None, Some(size)) => {
                    // Cut off for want of memory it looks like a whole one.
                    if !is_over || behind.len() < size {
                        return None;
                    }
                    (behind.len(), behind.to_vec())
                }
                (None, None) => match dechunked(behind) {
                    Ok(whole) => whole?,
                    Err(what) => self.fail(net, what),
                },
            };
            return Some(Answer {
                status,
                len: end + len,
                closes,
                head,
                body,
            });
        }
    }

    /// Compares an answer with what must come.
    fn take(&mut self, net: &mut Net, shared: &mut Shared, answer: &Answer) {
        if let Some(Expected::Anything) = self.plan.expected.first() {
            return;
        }
        let Some(expected) = self.plan.expected.get(self.answers).cloned() else {
            if answer.status == 503 && answer.closes && self.plan.expected.is_empty() {
                shared.overloaded += 1;
                return self.finish_early();
            }
            self.fail(net, "got more answers than it asked for");
        };
        let is_expected = match expected {
            Expected::Handler {
                id,
                is_head,
                digest,
                size,
                fields,
                closes,
                may_close,
                ..
            } => {
                let is_last = shared.last_answers.contains(&id);
                answer.status == 200
                    && (may_close || answer.closes == (closes || is_last))
                    && self.is_right(answer, id, is_head, digest, size, fields)
            }
            Expected::Status { status, closes, .. } => {
                answer.status == status
                    && answer.closes == (closes || (shared.is_ending && answer.closes))
            }
            Expected::Anything | Expected::Abandoned | Expected::Cut => false,
        };
        if is_expected {
            if let Expected::Status { closes: true, .. } = expected {
                shared.refused += 1;
            }
            self.answers += 1;
            shared.answered += 1;
            return;
        }
        let is_jumped = net.counts.clock_jumps > 0;
        if answer.status == 503 && is_jumped {
            // The handler's time was over in a jump.
            self.answers += 1;
            self.has_given_up |= answer.closes;
        } else if answer.status == 503 && answer.closes {
            net.note(|| self.describe("was told 503"));
            shared.overloaded += 1;
            self.finish_early();
        } else if answer.status == 408 && answer.closes && is_jumped {
            self.finish_early();
        } else {
            let text = format!(
                "got {} ({}) and not {expected:?}",
                answer.status, answer.head
            );
            self.fail(net, &text);
        }
    }

    fn finish_early(&mut self) {
        self.has_given_up = true;
        self.answers = self.plan.expected.len();
        self.act = self.plan.acts.len();
    }

    fn is_right(
        &self,
        answer: &Answer,
        id: u32,
        is_head: bool,
        digest: u64,
        size: usize,
        fields: usize,
    ) -> bool {
        let lower = answer.head.to_ascii_lowercase();
        let has_id = lower.contains(&format!("\r\nx-id: {id}\r\n"));
        let has_digest = lower.contains(&format!("\r\nx-digest: {digest:016x}\r\n"));
        let found = lower.matches("\r\nx-field-").count();
        let body = &answer.body;
        let is_body_right = is_head
            || (body.len() == size && body.iter().enumerate().all(|(at, &b)| b == filler(id, at)));
        let has_name = lower.contains("\r\nserver: sim\r\n");
        let is_named_right =
            has_name == self.server_has_name && has_name == lower.contains("\r\nserver:");
        is_named_right && has_id && has_digest && found == fields && is_body_right
    }

    /// Does the next thing of the plan; whether there may be another one right now.
    fn perform(
        &mut self,
        net: &mut Net,
        shared: &mut Shared,
        id: ClientId,
        rng: &mut Rng,
        is_punctual: bool,
    ) -> bool {
        let now_us = net.now_us();
        let Some(act) = self.plan.acts.get(self.act).cloned() else {
            if !self.has_finished {
                self.finish(net, shared, id);
            }
            return false;
        };
        let is_done = match act {
            Act::Send(range) => self.send(net, id, &range, self.plan.cutting, rng),
            Act::SendWhole(range) => self.send(net, id, &range, Cutting::Whole, rng),
            Act::Pause(time_us) => {
                let since_us = *self.waits_since_us.get_or_insert(now_us);
                self.at(since_us + time_us);
                now_us >= since_us + time_us
            }
            Act::Await(answers) => self.answers >= answers,
            Act::AwaitContinue(time_us, must_come) => {
                let since_us = *self.waits_since_us.get_or_insert(now_us);
                self.at(since_us + time_us);
                if now_us >= since_us + time_us && is_punctual && self.continues == 0 && must_come {
                    self.fail(net, "was not told to continue");
                }
                now_us >= since_us + time_us || self.continues > 0
            }
            Act::Finish => {
                self.finish(net, shared, id);
                true
            }
            Act::Reset => {
                net.client_reset(id);
                self.note_gone(net, shared);
                self.is_done = true;
                true
            }
            Act::AwaitEnd => false,
        };
        if is_done {
            self.act += 1;
            self.waits_since_us = None;
        }
        is_done
    }

    fn finish(&mut self, net: &mut Net, shared: &mut Shared, id: ClientId) {
        net.client_finish(id);
        self.has_finished = true;
        self.finished_us = net.now_us();
        self.note_gone(net, shared);
    }

    fn note_gone(&self, net: &Net, shared: &mut Shared) {
        let ids = self.plan.ids.iter().copied();
        shared.gone_us.extend(ids.map(|id| (id, net.now_us())));
    }

    fn send(
        &mut self,
        net: &mut Net,
        id: ClientId,
        range: &std::ops::Range<usize>,
        cutting: Cutting,
        rng: &mut Rng,
    ) -> bool {
        let now_us = net.now_us();
        if self.sent < range.start {
            self.sent = range.start;
        }
        if let Cutting::Pieces(_, pause_us) = cutting
            && self.first_sent_us.is_some()
            && now_us < self.last_sent_us + pause_us
        {
            self.at(self.last_sent_us + pause_us);
            return false;
        }
        let rest = &self.plan.script[self.sent..range.end];
        let len = match cutting {
            Cutting::Whole => rest.len(),
            Cutting::Pieces(1, _) => rest.len().min(1),
            Cutting::Pieces(most, _) => rest.len().min(rng.usize(1..=most)),
        };
        let count = net.client_send(id, &rest[..len]);
        self.sent += count;
        if count > 0 {
            self.first_sent_us.get_or_insert(now_us);
            self.last_sent_us = now_us;
        }
        if self.sent >= range.end {
            return true;
        }
        if let (Cutting::Pieces(_, pause_us), true) = (cutting, count == len) {
            self.at(now_us + pause_us);
        }
        // A full socket wakes the client when the server has read.
        false
    }

    /// The server has ended the connection: was it right to?
    fn end(
        &mut self,
        net: &mut Net,
        shared: &mut Shared,
        id: ClientId,
        times: Times,
        is_punctual: bool,
    ) {
        self.is_done = true;
        net.client_close(id);
        if let Some(Expected::Anything) = self.plan.expected.first() {
            return;
        }
        // Who had no slot may get a body for HEAD: nobody had read what it asked.
        let has_all = self.answers == self.plan.expected.len() && !self.has_given_up;
        if has_all && !self.got.is_empty() {
            self.fail(net, "got more than its answers");
        }
        let is_complete = match self.plan.timeout {
            Some(Timeout::Write) => true,
            _ => match self.plan.expected.get(self.answers) {
                None | Some(Expected::Abandoned) => true,
                Some(Expected::Cut) => self.got.starts_with(b"HTTP/1.1 200 "),
                Some(_) => false,
            },
        };
        if !is_complete {
            if !shared.is_ending && net.counts.clock_jumps == 0 {
                net.note(|| self.describe("was left without an answer"));
                shared.unexplained += 1;
            }
            return;
        }
        let ended_us = net.look(id).ended_us.unwrap_or(0);
        let last_answer_us = net.look(id).last_sent_us;
        if is_punctual && self.act < self.plan.acts.len() {
            self.check_time(net, times, ended_us, last_answer_us);
        }
    }

    fn check_time(&self, net: &mut Net, times: Times, ended_us: u64, last_answer_us: u64) {
        let first_us = self.first_sent_us.unwrap_or(self.plan.starts_us);
        let (since_us, timeout_us) = match self.plan.timeout {
            Some(Timeout::Head) => (first_us, times.read_us),
            Some(Timeout::Body) => (self.last_sent_us, times.read_us),
            Some(Timeout::Write) => (last_answer_us, times.write_us),
            Some(Timeout::Idle) if self.plan.expected.is_empty() => {
                (self.plan.starts_us, times.keepalive_us)
            }
            Some(Timeout::Idle) => (last_answer_us, times.keepalive_us),
            Some(Timeout::Handler) => return self.check_handler(net, times, last_answer_us),
            Some(Timeout::Rate) => {
                if ended_us > first_us + 4 * times.read_us + LATE_US {
                    self.fail(net, "was allowed to go on too slowly");
                }
                return;
            }
            Some(Timeout::Cut) => (last_answer_us, 0),
            Some(Timeout::Gone) => (last_answer_us.max(self.finished_us), 0),
            None => return,
        };
        let at_us = since_us + timeout_us;
        if ended_us + EARLY_US < at_us || ended_us > at_us + LATE_US {
            let timeout = self.plan.timeout;
            let text = format!(
                "was ended at {} ms, not at {} ms ({timeout:?})",
                ended_us / 1000,
                at_us / 1000
            );
            self.fail(net, &text);
        }
    }

    fn check_handler(&self, net: &mut Net, times: Times, answered_us: u64) {
        let at_us = self.last_sent_us + times.handler_us;
        if answered_us + EARLY_US < at_us || answered_us > at_us + LATE_US {
            self.fail(net, "was told of its handler's timeout at the wrong time");
        }
    }
}

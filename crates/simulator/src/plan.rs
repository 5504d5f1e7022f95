//! What a seed stands for: limits, faults, and clients with what they send and what must come back.

use std::ops::Range;

use fastrand::Rng;
use theframework::Config;
use theframework::engine::AcceptMode;
use theframework_io::sim::{FNV_START, Faults, fnv};

/// The largest answer that is made while it goes out.
const LARGE_MAX: usize = 700_000;
/// Of one that may be written at once.
const WHOLE_MAX: usize = 200_000;

/// What must come back for one request.
#[derive(Clone, Debug)]
pub enum Expected {
    /// A handler's answer.
    Handler {
        id: u32,
        is_head: bool,
        digest: u64,
        size: usize,
        fields: usize,
        closes: bool,
        /// It may end the connection: not all of the request is read.
        may_close: bool,
        /// The end of the connection is the end of its body: the client is old.
        until_close: bool,
        /// It says that the connection is kept: the client is old, and has asked for that.
        keeps: bool,
    },
    /// An answer with this status, whoever gives it.
    Status {
        status: u16,
        is_head: bool,
        closes: bool,
    },
    /// Any answers at all.
    Anything,
    /// No answer: the connection ends, for the handler does not, or for the client has gone.
    Abandoned,
    /// A part of an answer, and the end of the connection.
    Cut,
}

impl Expected {
    pub fn is_head(&self) -> bool {
        matches!(
            self,
            Expected::Handler { is_head: true, .. } | Expected::Status { is_head: true, .. }
        )
    }

    pub fn closes(&self) -> bool {
        match self {
            Expected::Handler {
                closes, may_close, ..
            } => *closes || *may_close,
            Expected::Status { closes, .. } => *closes,
            Expected::Anything | Expected::Abandoned | Expected::Cut => true,
        }
    }

    pub fn keeps(&self) -> bool {
        matches!(self, Expected::Handler { keeps: true, .. })
    }

    /// The size of a body that lasts until the end of the connection.
    pub fn until_close(&self) -> Option<usize> {
        match self {
            Expected::Handler {
                size,
                until_close: true,
                ..
            } => Some(*size),
            _ => None,
        }
    }
}

/// One thing that a client does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sends bytes of its script.
    Send(Range<usize>),
    /// Sends them in one piece.
    SendWhole(Range<usize>),
    Pause(u64),
    /// Waits until this many answers have come.
    Await(usize),
    /// Waits for `100 Continue`, for so long at most; whether it must come.
    AwaitContinue(u64, bool),
    Finish,
    Reset,
    /// Waits until the server ends the connection.
    AwaitEnd,
}

/// How a script's bytes are cut into pieces.
#[derive(Copy, Clone, Debug)]
pub enum Cutting {
    Whole,
    /// Pieces of at most so many bytes, with a pause of at most so many microseconds.
    Pieces(usize, u64),
}

/// How a client reads.
#[derive(Copy, Clone, Debug)]
pub enum Reading {
    Prompt,
    /// At most so many bytes, every so many microseconds.
    Slow(usize, u64),
    Never,
}

/// Which of the server's timeouts ends this client's connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// From the first byte of a head.
    Head,
    /// From the last bytes of a body.
    Body,
    /// From the end of the last answer.
    Idle,
    /// From the last byte that went out.
    Write,
    /// From the end of the request.
    Handler,
    /// From the first byte of a body that comes too slowly.
    Rate,
    /// None: at once, when an answer is broken off.
    Cut,
    /// None: at once, when the client has closed its side in the middle of a request.
    Gone,
}

#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub kind: &'static str,
    pub starts_us: u64,
    pub listener: usize,
    pub script: Vec<u8>,
    pub acts: Vec<Act>,
    pub expected: Vec<Expected>,
    /// The numbers of its requests.
    pub ids: Vec<u32>,
    pub cutting: Cutting,
    pub reading: Reading,
    pub timeout: Option<Timeout>,
    pub outbound_capacity: usize,
    pub inbound_capacity: usize,
}

#[derive(Debug)]
pub struct Plan {
    pub config: Config,
    pub faults: Faults,
    pub refused_per_mille: u32,
    pub receive_buffers: u16,
    pub listeners: usize,
    pub mode: AcceptMode,
    pub clients: Vec<ClientPlan>,
    /// When the drain begins.
    pub drain_us: Option<u64>,
    /// Instead of a drain, everything is cut off.
    pub aborts: bool,
    /// The most handlers that run in one batch.
    pub batch_max: usize,
    pub requests: usize,
}

impl Plan {
    /// Whether timeouts can be foretold: no fault moves the clock, delays accepting or takes memory.
    pub fn is_punctual(&self) -> bool {
        self.faults.clock_jumps == 0
            && self.faults.exhaustion == 0
            && self.faults.no_slot == 0
            && self.refused_per_mille == 0
            && self.drain_us.is_none()
            && self.config.max_connections >= self.clients.len()
    }

    pub fn from_seed(seed: u64) -> Plan {
        let rng = &mut Rng::with_seed(seed);
        let config = config(rng);
        let faults = faults(rng);
        let count = match rng.u32(0..10) {
            0 => 1,
            1..7 => rng.usize(2..10),
            _ => rng.usize(10..40),
        };
        let drains = rng.u32(0..8) == 0;
        let mut plan = Plan {
            refused_per_mille: if rng.u32(0..6) == 0 {
                rng.u32(1..80)
            } else {
                0
            },
            faults,
            receive_buffers: *rng.choice(&[1, 2, 4, 8, 32, 64]).unwrap_or(&8),
            listeners: rng.usize(1..3),
            mode: if rng.bool() {
                AcceptMode::Own
            } else {
                AcceptMode::Shared
            },
            clients: Vec::new(),
            drain_us: drains.then(|| rng.u64(0..300_000)),
            aborts: drains && rng.u32(0..3) == 0,
            batch_max: *rng.choice(&[1, 3, 64]).unwrap_or(&64),
            requests: 0,
            config,
        };
        let mut ids = 1..;
        for _ in 0..count {
            let mut client = Writer::new(rng, &plan).client(&mut ids);
            client.listener = rng.usize(0..plan.listeners);
            plan.requests += client.expected.len();
            plan.clients.push(client);
        }
        plan
    }
}

fn config(rng: &mut Rng) -> Config {
    let tight = rng.u32(0..4) == 0;
    Config {
        max_target_size: 2000,
        max_header_size: 8192,
        max_body_size: 128 * 1024,
        max_stream_size: 150_000,
        max_connections: if tight { rng.usize(1..8) } else { 64 },
        accept_pause_ms: *rng.choice(&[0, 20, 300]).unwrap_or(&0),
        read_timeout_ms: rng.u64(100..1500),
        min_body_rate: 1024,
        write_timeout_ms: rng.u64(100..1500),
        keepalive_timeout_ms: rng.u64(100..3000),
        handler_timeout_ms: rng.u64(200..2000),
        read_ahead: *rng.choice(&[1, 1000, 8192, 65_536]).unwrap_or(&8192),
        server: if rng.bool() {
            b"sim".to_vec()
        } else {
            Vec::new()
        },
        ..Config::default()
    }
}

fn faults(rng: &mut Rng) -> Faults {
    let mut some = |most: u32| if rng.bool() { rng.u32(0..most) } else { 0 };
    let mut faults = Faults {
        short_reads: some(500),
        short_writes: some(500),
        late_events: some(300),
        late_cancels: some(700),
        late_write_ends: some(700),
        exhaustion: 0,
        file_errors: 0,
        no_slot: 0,
        clock_jumps: 0,
        wall_jumps: some(100),
    };
    if rng.u32(0..8) == 0 {
        faults.exhaustion = rng.u32(1..400);
    }
    if rng.u32(0..8) == 0 {
        faults.no_slot = rng.u32(1..60);
    }
    if rng.u32(0..10) == 0 {
        faults.clock_jumps = rng.u32(1..100);
    }
    faults
}

/// Writes one client's script.
struct Writer<'a> {
    rng: &'a mut Rng,
    plan: &'a Plan,
    script: Vec<u8>,
    acts: Vec<Act>,
    expected: Vec<Expected>,
    ids: Vec<u32>,
    timeout: Option<Timeout>,
    kind: &'static str,
}

/// How a request is to be.
#[derive(Default)]
struct Wanted {
    action: &'static str,
    /// Bytes of the answer, or milliseconds that the handler waits, or both.
    size: usize,
    wait_us: u64,
    body: usize,
    is_chunked: bool,
    expects_continue: bool,
    closes: bool,
    fields: usize,
    /// The answer has a body.
    is_get: bool,
}

impl<'a> Writer<'a> {
    fn new(rng: &'a mut Rng, plan: &'a Plan) -> Self {
        Writer {
            rng,
            plan,
            script: Vec::new(),
            acts: Vec::new(),
            expected: Vec::new(),
            ids: Vec::new(),
            timeout: None,
            kind: "",
        }
    }

    fn client(mut self, ids: &mut impl Iterator<Item = u32>) -> ClientPlan {
        let mut reading = Reading::Prompt;
        match self.rng.u32(0..27) {
            0..9 => self.well_behaved(ids),
            9..14 => self.pipelining(ids),
            14 => self.half_closing(ids),
            15 => self.resetting(ids),
            16..19 => self.hostile(ids),
            19 => self.stalling(ids),
            20 => self.idling(ids),
            21 => {
                reading = Reading::Never;
                self.never_reading(ids);
            }
            22 => self.waiting_for_slow_handlers(ids),
            23 => self.dribbling(ids),
            24 => self.dripping(ids),
            25 => self.leaving(ids),
            _ => self.sending_garbage(),
        }
        // Who reads slowly must not be the one to speak next: the server need not wait for that.
        if matches!(self.kind, "pipelining" | "half-closing" | "hostile") && self.rng.u32(0..3) == 0
        {
            reading = Reading::Slow(self.rng.usize(2000..60_000), self.rng.u64(1..20_000));
        }
        let cutting = match self.rng.u32(0..4) {
            _ if self.kind == "dribbling" => {
                Cutting::Pieces(1, self.plan.config.read_timeout_ms * 600)
            }
            _ if self.kind == "dripping" => {
                Cutting::Pieces(1, self.plan.config.read_timeout_ms * 125)
            }
            0 | 1 => Cutting::Whole,
            // Never so slow that a timeout strikes: about 200 pieces, 40 ms.
            2 => Cutting::Pieces(
                self.rng.usize(1..3000).max(self.script.len() / 100),
                self.rng.u64(1..200),
            ),
            // Byte by byte, if there are few.
            _ => Cutting::Pieces((self.script.len() / 150).max(1), 50),
        };
        ClientPlan {
            kind: self.kind,
            starts_us: self.rng.u64(0..100_000),
            listener: 0,
            outbound_capacity: *self.rng.choice(&[300, 4000, 70_000]).unwrap_or(&4000),
            inbound_capacity: *self.rng.choice(&[500, 5000, 200_000]).unwrap_or(&5000),
            script: self.script,
            acts: self.acts,
            expected: self.expected,
            ids: self.ids,
            cutting,
            reading,
            timeout: self.timeout,
        }
    }

    fn size(&mut self) -> usize {
        match self.rng.u32(0..10) {
            0..7 => self.rng.usize(0..300),
            7 | 8 => self.rng.usize(0..6000),
            _ => self.rng.usize(0..100_000),
        }
    }

    fn wanted(&mut self) -> Wanted {
        let has_body = self.rng.u32(0..3) == 0;
        let body = match self.rng.u32(0..8) {
            _ if !has_body => 0,
            0..5 => self.rng.usize(1..2000),
            5 | 6 => self.rng.usize(1..20_000),
            _ => self.rng.usize(1..120_000),
        };
        let action = [
            "now", "now", "now", "kept", "park", "park", "parks", "fields", "last", "take",
            "chunks", "chunks", "length", "echo", "first", "file",
        ][self.rng.usize(0..16)];
        let size = match action {
            // More than a connection holds while its client takes nothing.
            "chunks" | "length" if self.rng.u32(0..25) == 0 => self.rng.usize(0..LARGE_MAX),
            _ => self.size(),
        };
        Wanted {
            action,
            size,
            wait_us: self.rng.u64(0..self.plan.config.handler_timeout_ms * 300),
            body,
            is_chunked: has_body && self.rng.u32(0..3) == 0,
            expects_continue: has_body && self.rng.u32(0..6) == 0,
            closes: false,
            fields: if action == "fields" {
                self.rng.usize(0..40)
            } else {
                0
            },
            is_get: false,
        }
    }

    /// One that others may follow at once: it neither waits for `100 Continue` nor ends the connection.
    fn wanted_in_a_row(&mut self) -> Wanted {
        let mut wanted = self.wanted();
        wanted.expects_continue = false;
        if wanted.action == "last" {
            wanted.action = "now";
        }
        wanted
    }

    fn send_rest(&mut self) {
        let from = self
            .acts
            .iter()
            .rev()
            .find_map(|act| match act {
                Act::Send(range) => Some(range.end),
                _ => None,
            })
            .unwrap_or(0);
        if from < self.script.len() {
            self.acts.push(Act::Send(from..self.script.len()));
        }
    }

    /// Adds a whole request, and what must come back.
    fn request(&mut self, id: u32, mut wanted: Wanted) {
        let rng = &mut *self.rng;
        if wanted.action == "last" {
            wanted.closes = true;
        }
        let method = match (wanted.body > 0, rng.u32(0..12)) {
            (true, 0..6) => "POST",
            (true, _) => "PUT",
            (false, 0) if !wanted.is_get => "HEAD",
            (false, _) => "GET",
        };
        let is_old = wanted.closes
            && !matches!(wanted.action, "last" | "early" | "cut")
            && !wanted.is_chunked
            && rng.bool();
        let streams = match wanted.action {
            "take" | "echo" | "first" | "early" => true,
            "chunks" | "length" => rng.bool(),
            _ => false,
        };
        let is_echo = matches!(wanted.action, "echo" | "first");
        if is_echo {
            wanted.size = wanted.body;
        }
        if streams && wanted.expects_continue {
            // Told at the first read, which must not be late then.
            wanted.wait_us = 0;
        }
        let mut id_text = id.to_string();
        if rng.u32(0..8) == 0 {
            // A percent-encoded digit: the path is decoded into the arena.
            let first = id_text.remove(0);
            id_text = format!("%{:02X}{id_text}", first as u32);
        }
        let Wanted {
            size,
            fields,
            wait_us,
            action,
            ..
        } = wanted;
        let route = if streams { 's' } else { 'h' };
        let mut target = format!("/{route}/{action}/{id_text}/{size}/{wait_us}/{fields}");
        if rng.u32(0..4) == 0 {
            target.push_str(&format!("?q={}", "v".repeat(rng.usize(0..500))));
        }
        let token: String = (0..rng.usize(0..100)).map(|_| rng.alphanumeric()).collect();
        let version = if is_old { "1.0" } else { "1.1" };
        let mut head =
            format!("{method} {target} HTTP/{version}\r\nHost: sim\r\nX-Token: {token}\r\n");
        for index in 0..rng.usize(0..12) {
            let value = "x".repeat(rng.usize(0..60));
            head.push_str(&format!("X-Other-{index}: {value}\r\n"));
        }
        let body: Vec<u8> = (0..wanted.body).map(|at| filler(id, at)).collect();
        if wanted.is_chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if wanted.body > 0 || rng.u32(0..6) == 0 {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        if wanted.expects_continue && !is_old {
            head.push_str("Expect: 100-continue\r\n");
        }
        let until_close = is_old && (is_echo || action == "chunks");
        let keeps = is_old && rng.bool();
        if keeps {
            head.push_str("Connection: keep-alive\r\n");
            wanted.closes = until_close && method != "HEAD";
        } else if wanted.closes && !is_old && action != "last" {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        self.script.extend_from_slice(head.as_bytes());
        if wanted.expects_continue && !is_old {
            self.send_rest();
            // Behind the head of an answer it would be a part of the body.
            let must_come = action != "first";
            self.acts.push(Act::AwaitContinue(20_000, must_come));
        }
        if wanted.is_chunked {
            self.chunks(&body);
        } else {
            self.script.extend_from_slice(&body);
        }
        let mut digest = fnv(FNV_START, method.as_bytes());
        digest = fnv(digest, target.as_bytes());
        digest = fnv(digest, token.as_bytes());
        if !is_echo && action != "early" {
            digest = fnv(digest, &body);
        }
        self.ids.push(id);
        if action == "cut" {
            self.expected.push(Expected::Cut);
            self.timeout = Some(Timeout::Cut);
            return;
        }
        self.expected.push(Expected::Handler {
            id,
            is_head: method == "HEAD",
            digest,
            size,
            fields,
            closes: wanted.closes,
            may_close: action == "early",
            until_close,
            keeps: keeps && !wanted.closes,
        });
    }

    fn chunks(&mut self, body: &[u8]) {
        let mut rest = body;
        while !rest.is_empty() {
            let len = self.rng.usize(1..=rest.len().min(5000));
            let (chunk, behind) = rest.split_at(len);
            rest = behind;
            let extension = if self.rng.u32(0..5) == 0 { ";a=b" } else { "" };
            self.script
                .extend_from_slice(format!("{len:x}{extension}\r\n").as_bytes());
            self.script.extend_from_slice(chunk);
            self.script.extend_from_slice(b"\r\n");
        }
        self.script.extend_from_slice(if self.rng.u32(0..5) == 0 {
            b"0\r\nX-Trailer: y\r\n\r\n"
        } else {
            b"0\r\n\r\n"
        });
    }

    /// A request of which no body is sent, with an answer of the application's own.
    fn unroutable(&mut self) {
        let is_head = self.rng.u32(0..3) == 0;
        let (method, path, status) = match self.rng.u32(0..2) {
            0 => (if is_head { "HEAD" } else { "GET" }, "/nowhere/at/all", 404),
            _ => ("DELETE", "/h/now/0/1/1/1", 405),
        };
        self.script
            .extend_from_slice(format!("{method} {path} HTTP/1.1\r\nHost: sim\r\n\r\n").as_bytes());
        self.expected.push(Expected::Status {
            status,
            is_head: is_head && status == 404,
            closes: false,
        });
    }

    /// One request after the other, each when the last one is answered; at the end, either side closes.
    fn well_behaved(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "well-behaved";
        let count = self.rng.usize(1..8);
        for (index, id) in (0..count).zip(ids) {
            if self.rng.u32(0..12) == 0 {
                self.unroutable();
            } else {
                let mut wanted = self.wanted();
                wanted.closes = index + 1 == count && self.rng.bool();
                if index + 1 == count {
                    self.make_unruly(&mut wanted);
                }
                if wanted.action == "last" && index + 1 < count {
                    wanted.action = "now";
                }
                self.request(id, wanted);
            }
            self.send_rest();
            self.acts.push(Act::Await(index + 1));
            if self.rng.u32(0..4) == 0 {
                let pause_us = self.rng.u64(0..self.plan.config.keepalive_timeout_ms * 700);
                self.acts.push(Act::Pause(pause_us));
            }
        }
        self.end();
    }

    /// Now and then, the last request has a handler that does not read all of it, or does not end its
    /// answer as it should.
    fn make_unruly(&mut self, wanted: &mut Wanted) {
        match self.rng.u32(0..12) {
            0 => {
                wanted.action = "early";
                // It may be answered as a whole, which is more than a piece of a large one.
                wanted.size = wanted.size.min(WHOLE_MAX);
                wanted.body = wanted.body.max(1);
                wanted.expects_continue = false;
            }
            1 => {
                wanted.action = "cut";
                wanted.size = wanted.size.max(1);
                wanted.wait_us = 0;
                wanted.is_get = true;
            }
            _ => return,
        }
        wanted.closes = false;
        wanted.fields = 0;
    }

    /// The client closes, unless the server must.
    fn end(&mut self) {
        let closes = self.expected.last().is_some_and(Expected::closes);
        self.acts.push(if closes || self.rng.u32(0..4) == 0 {
            Act::AwaitEnd
        } else {
            Act::Finish
        });
        if matches!(self.acts.last(), Some(Act::Finish)) {
            self.acts.push(Act::AwaitEnd);
        } else if !closes {
            self.timeout = Some(Timeout::Idle);
        }
    }

    fn pipelining(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "pipelining";
        let count = self.rng.usize(2..30);
        for (index, id) in (0..count).zip(ids) {
            let mut wanted = self.wanted();
            // All of them together stay within every timeout.
            wanted.wait_us /= count as u64;
            if wanted.body > 4000 {
                wanted.body = 0;
            }
            wanted.expects_continue = false;
            wanted.is_chunked &= wanted.body > 0;
            if wanted.action == "last" {
                wanted.action = "now";
            }
            wanted.closes = index + 1 == count && self.rng.u32(0..3) == 0;
            self.request(id, wanted);
        }
        self.send_rest();
        self.acts.push(Act::Await(count));
        self.end();
    }

    /// Sends FIN right behind its requests: all are answered, then the server closes.
    fn half_closing(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "half-closing";
        for (_, id) in (0..self.rng.usize(1..5)).zip(ids) {
            let wanted = self.wanted_in_a_row();
            self.request(id, wanted);
        }
        self.send_rest();
        self.acts.extend([Act::Finish, Act::AwaitEnd]);
    }

    /// Resets the connection, wherever it is.
    fn resetting(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "resetting";
        for (_, id) in (0..self.rng.usize(1..6)).zip(ids) {
            let wanted = self.wanted_in_a_row();
            self.request(id, wanted);
        }
        let end = self.rng.usize(0..=self.script.len());
        self.acts.push(Act::Send(0..end));
        let pause_us = self.rng.u64(0..50_000);
        self.acts.extend([Act::Pause(pause_us), Act::Reset]);
    }

    /// A few good requests, then one that must be refused.
    fn hostile(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "hostile";
        for (_, id) in (0..self.rng.usize(0..4)).zip(ids) {
            let mut wanted = self.wanted();
            wanted.expects_continue = false;
            if wanted.action == "last" {
                wanted.action = "kept";
            }
            wanted.wait_us /= 4;
            self.request(id, wanted);
        }
        let long = "a".repeat(3000);
        let large = "b".repeat(9000);
        let action = if self.rng.bool() { "h/now" } else { "s/take" };
        let head = format!("POST /{action}/0/1/1/1 HTTP/1.1\r\nHost: sim\r\n");
        let (text, status) = match self.rng.u32(0..15) {
            0 => ("GET\r\n\r\n".into(), 400),
            1 => ("GET / HTTP/1.1\r\n\r\n".into(), 400),
            2 => (format!("GET /{long} HTTP/1.1\r\nHost: sim\r\n\r\n"), 414),
            3 => (
                // It need not end to be too long.
                format!("GET / HTTP/1.1\r\nHost: sim\r\nX: {large}"),
                431,
            ),
            4 => (format!("{head}Content-Length: 200000\r\n\r\n"), 413),
            5 => (
                format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
                400,
            ),
            6 => (
                format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n"),
                501,
            ),
            7 => (
                format!("{head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
                400,
            ),
            8 => (
                format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n"),
                400,
            ),
            9 => (format!("{head}Content-Length: -1\r\n\r\n"), 400),
            10 => ("GET / HTTP/1.1\r\nHost: sim\r\nA : b\r\n\r\n".into(), 400),
            11 => ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400),
            12 => ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
            13 => (
                format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n30d40\r\n"),
                413,
            ),
            _ => {
                let method = if self.rng.bool() { "HEAD" } else { "GET" };
                (format!("{method} /%zz HTTP/1.1\r\nHost: sim\r\n\r\n"), 400)
            }
        };
        let is_head = text.starts_with("HEAD");
        self.script.extend_from_slice(text.as_bytes());
        if self.rng.bool() {
            // What follows must not be taken for a request.
            let behind = self.rng.usize(0..3000);
            self.script.extend((0..behind).map(|_| b'G'));
        }
        self.send_rest();
        self.expected.push(Expected::Status {
            status,
            is_head,
            closes: true,
        });
        self.acts.push(Act::AwaitEnd);
    }

    /// Stops in the middle of a head or of a body.
    fn stalling(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "stalling";
        let Some(id) = ids.next() else { return };
        let mut wanted = self.wanted();
        wanted.body = self.rng.usize(1..100_000);
        wanted.expects_continue = false;
        if matches!(
            wanted.action,
            "take" | "chunks" | "length" | "echo" | "first"
        ) {
            // Its handler waits for nothing but the body, and has not answered before.
            wanted.wait_us = 0;
            wanted.action = "take";
        }
        self.request(id, wanted);
        let head_end = self.head_end();
        let stops_in_head = self.rng.bool();
        let stop = if stops_in_head {
            self.rng.usize(1..head_end)
        } else {
            self.rng.usize(head_end..self.script.len())
        };
        self.timeout = Some(if stops_in_head {
            Timeout::Head
        } else {
            Timeout::Body
        });
        let is_head = self.script.starts_with(b"HEAD");
        self.expected = vec![Expected::Status {
            status: 408,
            is_head: is_head && !stops_in_head,
            closes: true,
        }];
        self.acts = vec![Act::Send(0..stop), Act::AwaitEnd];
    }

    /// Closes its side in the middle of a head or of a body: nobody waits for the rest.
    fn leaving(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "leaving";
        let Some(id) = ids.next() else { return };
        let mut wanted = self.wanted();
        wanted.body = self.rng.usize(1..100_000);
        wanted.expects_continue = false;
        wanted.wait_us = 0;
        self.request(id, wanted);
        let head_end = self.head_end();
        let stop = self.rng.usize(1..self.script.len());
        self.timeout = Some(Timeout::Gone);
        self.expected = vec![if stop < head_end {
            Expected::Status {
                status: 400,
                is_head: false,
                closes: true,
            }
        } else {
            Expected::Abandoned
        }];
        self.acts = vec![Act::Send(0..stop), Act::Finish, Act::AwaitEnd];
    }

    /// Where the first head of the script ends.
    fn head_end(&self) -> usize {
        let mut windows = self.script.windows(4);
        windows
            .position(|window| window == b"\r\n\r\n")
            .map_or(self.script.len(), |at| at + 4)
    }

    /// Sends a body far below the lowest rate, and never stops for as long as `read_timeout`.
    fn dribbling(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "dribbling";
        let Some(id) = ids.next() else { return };
        let wanted = Wanted {
            action: if self.rng.bool() { "now" } else { "take" },
            body: 20_000,
            ..Wanted::default()
        };
        let start = self.script.len();
        self.request(id, wanted);
        let head_end = self.head_end();
        self.timeout = Some(Timeout::Rate);
        self.expected = vec![Expected::Status {
            status: 408,
            is_head: false,
            closes: true,
        }];
        self.acts = vec![
            Act::SendWhole(start..head_end),
            Act::Send(head_end..self.script.len()),
            Act::AwaitEnd,
        ];
    }

    /// Sends a head so slowly that it never ends, and never stops for as long as `read_timeout`.
    fn dripping(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "dripping";
        let Some(id) = ids.next() else { return };
        // Whether 408 has a body for HEAD depends on how much of that word has come.
        let wanted = Wanted {
            action: "now",
            is_get: true,
            ..Wanted::default()
        };
        self.request(id, wanted);
        self.timeout = Some(Timeout::Head);
        self.expected = vec![Expected::Status {
            status: 408,
            is_head: false,
            closes: true,
        }];
        self.acts = vec![Act::Send(0..self.script.len() - 1), Act::AwaitEnd];
    }

    fn idling(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "idling";
        for (index, id) in (0..self.rng.usize(0..3)).zip(ids) {
            let wanted = Wanted {
                action: "now",
                size: self.rng.usize(0..200),
                ..Wanted::default()
            };
            self.request(id, wanted);
            self.send_rest();
            self.acts.push(Act::Await(index + 1));
        }
        self.timeout = Some(Timeout::Idle);
        self.acts.push(Act::AwaitEnd);
    }

    fn never_reading(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "never reading";
        for (_, id) in (0..self.rng.usize(1..6)).zip(ids) {
            let wanted = Wanted {
                action: ["kept", "now", "file"][self.rng.usize(0..3)],
                size: self.rng.usize(80_000..200_000),
                is_get: true,
                ..Wanted::default()
            };
            self.request(id, wanted);
        }
        self.send_rest();
        self.timeout = Some(Timeout::Write);
        self.acts.push(Act::AwaitEnd);
    }

    fn waiting_for_slow_handlers(&mut self, ids: &mut impl Iterator<Item = u32>) {
        self.kind = "waiting for a handler";
        let Some(id) = ids.next() else { return };
        let is_stubborn = self.rng.u32(0..3) == 0;
        let wanted = Wanted {
            action: if is_stubborn { "stubborn" } else { "never" },
            ..Wanted::default()
        };
        self.request(id, wanted);
        let is_head = self.script.starts_with(b"HEAD");
        self.expected = vec![if is_stubborn {
            Expected::Abandoned
        } else {
            Expected::Status {
                status: 503,
                is_head,
                closes: false,
            }
        }];
        self.send_rest();
        if is_stubborn {
            self.acts.push(Act::AwaitEnd);
        } else {
            self.timeout = Some(Timeout::Handler);
            self.acts
                .extend([Act::Await(1), Act::Finish, Act::AwaitEnd]);
        }
    }

    /// Bytes that may mean anything.
    fn sending_garbage(&mut self) {
        self.kind = "sending garbage";
        let pieces: &[&[u8]] = &[
            b"GET ",
            b"POST ",
            b"/h/now/0/2/3/4",
            b" HTTP/1.1",
            b"\r\n",
            b"\r\n\r\n",
            b"Host: sim",
            b"Content-Length: ",
            b"7",
            b"Transfer-Encoding: chunked",
            b"\0",
            b"\n",
            b" ",
            b":",
            b"0\r\n\r\n",
            b"\xff",
            b"5\r\nhello\r\n",
        ];
        for _ in 0..self.rng.usize(1..30) {
            let piece = pieces[self.rng.usize(0..pieces.len())];
            self.script.extend_from_slice(piece);
        }
        self.expected.push(Expected::Anything);
        self.send_rest();
        self.acts.push(Act::Finish);
        self.acts.push(Act::AwaitEnd);
    }
}

/// Byte `at` of what request `id` carries, in both directions.
pub fn filler(id: u32, at: usize) -> u8 {
    (id as usize)
        .wrapping_mul(31)
        .wrapping_add(at.wrapping_mul(7)) as u8
}

//! From received bytes to a request on the ready queue.

use theframework_http::{
    BadEncoding, ChunkedDecoder, ChunkedLimits, Framing, Head, HeadLimits, Method, TargetForm,
    decode_for_routing, find_head_end, is_ambiguous_name, parse_head,
};
use theframework_io::{Driver, Errno, Interest, KeptBytes, Outcome, Space};
use theframework_memory::{ArenaSlice, Key, OutOfMemory, Span};

use crate::config::{Config, HeaderMap};
use crate::connection::{Connection, Ending};
use crate::engine::Engine;
use crate::exchange::{BodyPlace, Exchange, Progress, Sending};
use crate::fields::Fields;
use crate::input::{Input, InputPool};
use crate::router::{Found, PARAMS_MAX, Router, StreamLimit};

/// When more than this is missing of a body, it is received straight into its final place.
pub(crate) const DIRECT_MIN: u64 = 16 * 1024;
/// For this long at most a body may come as slowly as it likes; less if `read_timeout` is less.
const RATE_GRACE_MS: u64 = 30_000;

/// Requests of one connection that are handled one after the other, before others have their turn.
const PIPELINE_RUN_MAX: u32 = 32;

enum Parsed {
    Exchange,
    Partial,
    /// With this status; the answer to HEAD has no body.
    Refused(u16, bool),
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    pub(crate) fn on_receive(&mut self, key: Key, more: bool, outcome: Outcome<D::Socket, B>) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !more {
            connection.receive = None;
            connection.watches = false;
        }
        let is_served = connection.ending == Ending::No;
        match outcome {
            Outcome::Received(lease) => {
                if is_served {
                    if connection.input.append(lease, &mut self.inputs).is_err() {
                        return self.begin_close(key);
                    }
                    if connection.input.is_leased() {
                        self.leased.push(key);
                    }
                    self.advance(key);
                }
            }
            Outcome::ReceivedInto(space, result) => {
                let leftover = match space {
                    Space::Input(input) => {
                        connection.input = Input::Buffer(input);
                        None
                    }
                    Space::Body(filling) => {
                        let exchange = connection
                            .exchange
                            .and_then(|key| self.exchanges.get_mut(key));
                        match exchange {
                            Some(exchange) => {
                                exchange.body = BodyPlace::Own(filling);
                                None
                            }
                            None => Some(filling),
                        }
                    }
                };
                match result {
                    Ok(0) => connection.peer_ended = true,
                    Ok(_) | Err(Errno::CANCELLED) => {}
                    Err(_) => {
                        leftover
                            .into_iter()
                            .for_each(|body| self.recycle_filling(body));
                        return self.begin_close(key);
                    }
                }
                if connection.exchange.is_none() && !is_served {
                    connection.input.clear(&mut self.inputs);
                }
                leftover
                    .into_iter()
                    .for_each(|body| self.recycle_filling(body));
                if is_served {
                    self.advance(key);
                }
            }
            Outcome::EndOfStream => {
                connection.peer_ended = true;
                if is_served {
                    self.advance(key);
                }
            }
            Outcome::Ready => {
                connection.hung_up = true;
            }
            Outcome::Failed(Errno::CANCELLED) => {}
            Outcome::Failed(_) => return self.begin_close(key),
            _ => debug_assert!(false, "not an event of a receive"),
        }
        if let Some(connection) = self.connections.get(key)
            && (connection.peer_ended || connection.hung_up)
            && let Some(exchange) = connection.exchange
        {
            self.wake_watcher(exchange);
        }
        if !more {
            self.receive_ended(key);
        }
    }

    /// The receive has had its final event: what comes next?
    fn receive_ended(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match connection.ending {
            Ending::Lingering if connection.peer_ended => self.begin_close(key),
            Ending::Closing => self.free_if_ended(key),
            _ => self.arm_receive(key),
        }
    }

    /// Arms the receive that the connection needs now, if any and if none is armed; a watch for the
    /// peer's end, while nothing is to be read.
    pub(crate) fn arm_receive(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let is_receiving = connection.receive.is_some() && !connection.watches;
        if is_receiving || connection.peer_ended || connection.ending == Ending::Closing {
            return;
        }
        let is_held_back = self.is_held_back(connection);
        match connection.receive {
            // What follows the watch's end arms the receive.
            Some(_) if !is_held_back => return self.cancel_receive(key),
            Some(_) => return,
            None if is_held_back => return self.watch_peer(key),
            None => {}
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.receive_cancelled = false;
        let fd = connection.raw_fd();
        let token = crate::token::of_key(crate::token::Kind::Receive, key);
        if connection.ending == Ending::No
            && let Some(exchange) = connection
                .exchange
                .and_then(|key| self.exchanges.get_mut(key))
        {
            let space = if exchange.progress == Progress::Receiving {
                match exchange.head.framing {
                    Framing::Length(_) => space_for_body(&mut exchange.body, &mut connection.input),
                    _ => None,
                }
            } else if exchange.is_streaming() && exchange.is_long() {
                match connection.input.stream_space(&mut self.inputs) {
                    Ok(space) => Some(Space::Input(space)),
                    Err(OutOfMemory) => return self.begin_close(key),
                }
            } else {
                None
            };
            if let Some(space) = space {
                match self.driver.receive_into(fd, token, space) {
                    Ok(op) => connection.receive = Some(op),
                    Err(Space::Input(input)) => {
                        connection.input = Input::Buffer(input);
                        self.begin_close(key);
                    }
                    Err(Space::Body(filling)) => {
                        exchange.body = BodyPlace::Own(filling);
                        self.begin_close(key);
                    }
                }
                return;
            }
        }
        match self.driver.receive(fd, token) {
            Ok(op) => connection.receive = Some(op),
            Err(OutOfMemory) => self.begin_close(key),
        }
    }

    /// Whether enough has been read ahead of what is being handled.
    fn is_held_back(&self, connection: &Connection<D::Socket, B>) -> bool {
        if connection.ending != Ending::No {
            return false;
        }
        let there = connection.input.len();
        match connection.exchange.and_then(|key| self.exchanges.get(key)) {
            Some(exchange) if exchange.progress == Progress::Receiving => false,
            Some(exchange) if exchange.is_streaming() => there > 0,
            Some(exchange) => there - exchange.input_len() > self.config.read_ahead,
            None => connection.output.is_blocked() && there > self.config.read_ahead,
        }
    }

    /// A handler runs and nothing is received: its client's end is to be seen all the same.
    fn watch_peer(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.hung_up || connection.exchange.is_none() {
            return;
        }
        let token = crate::token::of_key(crate::token::Kind::Receive, key);
        // Without memory for it, the end is seen later.
        let watch = self
            .driver
            .poll(connection.raw_fd(), Interest::HangUp, token);
        if let Ok(watch) = watch {
            connection.receive = Some(watch);
            connection.receive_cancelled = false;
            connection.watches = true;
        }
    }

    pub(crate) fn cancel_receive(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && let Some(op) = connection.receive
            && !connection.receive_cancelled
        {
            connection.receive_cancelled = true;
            self.driver.cancel(op);
        }
    }

    /// Goes as far as the received bytes allow: parses heads, fills bodies, queues requests.
    pub(crate) fn advance(&mut self, key: Key) {
        let idle_deadline_ms = self.idle_deadline_ms();
        loop {
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            if connection.ending != Ending::No {
                return;
            }
            let Some(exchange) = connection.exchange else {
                if connection.output.is_blocked() {
                    connection.read_deadline_ms = u64::MAX;
                    if connection.input.len() > self.config.read_ahead {
                        self.cancel_receive(key);
                    }
                    return;
                }
                if connection.input.len() == 0 {
                    if connection.peer_ended {
                        return self.end_after_output(key);
                    }
                    // While a response is being sent, `submit` and `on_send` say which deadline
                    // counts.
                    if connection.output.is_empty() {
                        connection.read_deadline_ms = idle_deadline_ms;
                    }
                    return self.arm_timer(key);
                }
                match self.parse(key) {
                    Parsed::Exchange => continue,
                    Parsed::Partial => return self.wait_for_head(key),
                    Parsed::Refused(status, is_head) => return self.refuse(key, status, is_head),
                }
            };
            let Some(progress) = self.exchanges.get(exchange).map(|e| e.progress) else {
                return;
            };
            if progress != Progress::Receiving {
                if self.receive_stream(key, exchange) {
                    return;
                }
                let Some(connection) = self.connections.get(key) else {
                    return;
                };
                if connection.input.len() > self.config.read_ahead
                    && self.backlog(key) > self.config.read_ahead
                {
                    self.cancel_receive(key);
                }
                return;
            }
            match self.receive_body(key, exchange) {
                Ok(true) => {
                    self.queue(exchange);
                    self.arm_receive(key);
                }
                Ok(false) => return,
                Err(status) => {
                    let is_head = self
                        .exchanges
                        .get(exchange)
                        .is_some_and(|exchange| exchange.head.method.is_head());
                    return self.refuse(key, status, is_head);
                }
            }
        }
    }

    fn backlog(&self, key: Key) -> usize {
        self.connections.get(key).map_or(0, |connection| {
            let own = connection
                .exchange
                .and_then(|key| self.exchanges.get(key))
                .map_or(0, |exchange| exchange.input_len());
            connection.input.len().saturating_sub(own)
        })
    }

    fn queue(&mut self, key: Key) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.progress = Progress::Queued;
            if let Some(connection) = self.connections.get_mut(exchange.connection) {
                connection.read_deadline_ms = u64::MAX;
            }
            let follows = self.answered == Some(exchange.connection);
            if follows && self.pipeline_run < PIPELINE_RUN_MAX {
                self.pipeline_run += 1;
                // Outside of a batch nobody took the one before: it queues up.
                self.ready.extend(self.next_in_pipeline.replace(key));
            } else {
                self.ready.push_back(key);
            }
            self.stats.requests += 1;
        }
    }

    fn wait_for_head(&mut self, key: Key) {
        let now_ms = self.now_ms;
        let timeout_ms = self.config.read_timeout_ms;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.peer_ended {
            return self.refuse(key, 400, false);
        }
        // The time runs from the first byte, for the whole head.
        if connection.scanned == 0 {
            connection.read_deadline_ms = after(now_ms, timeout_ms);
        }
        connection.scanned = connection.input.len() as u32;
        self.arm_timer(key);
    }

    fn parse(&mut self, key: Key) -> Parsed {
        let Some(connection) = self.connections.get_mut(key) else {
            return Parsed::Partial;
        };
        let bytes = connection.input.bytes();
        let limits = HeadLimits {
            max_target_size: self.config.max_target_size,
            max_header_size: self.config.max_header_size,
        };
        let scanned = connection.scanned as usize;
        if scanned > 0
            && bytes.len() < limits.max_header_size
            && find_head_end(bytes, scanned).is_none()
        {
            return Parsed::Partial;
        }
        let mut exchange = self.exchange_pool.acquire();
        exchange.head.len = 0;
        let parsed = match parse_head(bytes, &limits, &mut exchange.arena) {
            Ok(Some(head)) => {
                exchange.head = head;
                begin(
                    &mut exchange,
                    bytes,
                    &self.config,
                    &self.router,
                    &mut self.scratch,
                )
            }
            Ok(None) => Err(None),
            Err(error) => Err(Some(error.status())),
        };
        if let Err(refusal) = parsed {
            let is_head = exchange.head.len > 0 && exchange.head.method.is_head();
            self.exchange_pool.release(exchange);
            return match refusal {
                Some(status) => Parsed::Refused(status, is_head),
                None => Parsed::Partial,
            };
        }
        exchange.connection = key;
        exchange.waited_before_ms = self.waited_ms;
        let Ok(exchange) = self.exchanges.insert(exchange) else {
            return Parsed::Refused(503, false);
        };
        connection.exchange = Some(exchange);
        connection.scanned = 0;
        Parsed::Exchange
    }

    /// Takes what has arrived of a body; says whether it is complete, or the status of its refusal.
    fn receive_body(&mut self, key: Key, exchange: Key) -> Result<bool, u16> {
        let (Some(connection), Some(exchange)) = (
            self.connections.get_mut(key),
            self.exchanges.get_mut(exchange),
        ) else {
            return Ok(false);
        };
        if exchange.head.framing == Framing::None {
            return Ok(true);
        }
        if exchange.streams {
            let block = connection
                .input
                .split_head(exchange.head.len as usize, &mut self.inputs)
                .map_err(|_| 503_u16)?;
            exchange.own_head = Some(block);
        }
        take_arrived(&mut connection.input, exchange, &mut self.inputs)?;
        if exchange.streams {
            // The handler comes first, and takes the body as it comes: what is long of it by single receives.
            if exchange.is_long() && exchange.is_streaming() {
                self.cancel_receive(key);
            }
            return Ok(true);
        }
        let head_len = exchange.head_len();
        if exchange.is_complete() {
            return Ok(true);
        }
        if connection.peer_ended {
            // The client has gone in the middle of its body: nobody to answer.
            self.begin_close(key);
            return Ok(false);
        }
        // Only time that the worker spent waiting counts.
        let waited_ms = self.waited_ms - exchange.waited_before_ms;
        if is_too_slow(&self.config, exchange.body_len as u64, waited_ms) {
            return Err(408);
        }
        connection.read_deadline_ms = after(self.now_ms, self.config.read_timeout_ms);
        let wants_continue = exchange.head.expects_continue
            && !exchange.continue_sent
            && connection.input.len() == head_len;
        if wants_continue && !matches!(exchange.found, Found::Endpoint { .. }) {
            // The final answer goes without the body, and the connection with it.
            exchange.closes = true;
            exchange.head.framing = Framing::None;
            exchange.decoder = None;
            return Ok(true);
        }
        exchange.continue_sent = true;
        if let Framing::Length(len) = exchange.head.framing {
            let missing = len - exchange.body_len as u64;
            let is_long = missing > DIRECT_MIN;
            if is_long && matches!(exchange.body, BodyPlace::Input) {
                let mut filling = self.fillings.pop().unwrap_or_default();
                if filling.start(len as usize) {
                    let moved = connection
                        .input
                        .move_to(&mut filling, head_len, &mut self.inputs);
                    exchange.body = BodyPlace::Own(filling);
                    moved.map_err(|_| 503_u16)?;
                } else {
                    self.fillings.push(filling);
                }
            }
            if matches!(exchange.body, BodyPlace::Input) {
                // Sized once: later calls find the room there.
                connection
                    .input
                    .as_buffer(&mut self.inputs)
                    .and_then(|input| input.reserve_exact_total(head_len + len as usize))
                    .map_err(|_| 503_u16)?;
            }
            if is_long {
                self.cancel_receive(key);
            }
        }
        self.arm_timer(key);
        if wants_continue {
            self.send_continue(key);
        }
        Ok(false)
    }
}

/// Takes what has arrived of a body for the exchange's; the error is the status of a refusal.
pub(crate) fn take_arrived<B: KeptBytes>(
    input: &mut Input,
    exchange: &mut Exchange<B>,
    inputs: &mut InputPool,
) -> Result<(), u16> {
    let head_len = exchange.head_len();
    match exchange.head.framing {
        Framing::None => {}
        Framing::Length(len) => {
            if let BodyPlace::Own(filling) = &mut exchange.body {
                input
                    .move_to(filling, head_len, inputs)
                    .map_err(|_| 503_u16)?;
                exchange.body_len = filling.bytes().len();
            } else {
                let there = input.len().saturating_sub(head_len) as u64;
                exchange.body_len = there.min(len - exchange.body_taken) as usize;
            }
        }
        Framing::Chunked => {
            if matches!(input, Input::Block { .. }) {
                input.as_buffer(inputs).map_err(|_| 503_u16)?;
            }
            if let Some(decoder) = &mut exchange.decoder {
                let end = head_len + exchange.body_len;
                let progress = decoder
                    .decode(input.bytes_mut(), end, end)
                    .map_err(theframework_http::ChunkedError::status)?;
                input.remove(progress.decoded, progress.consumed - progress.decoded);
                exchange.body_len = progress.decoded - head_len;
            }
        }
    }
    Ok(())
}

/// Whether a body comes too slowly: `len` bytes of it in `waited_ms` of waiting for them.
pub(crate) fn is_too_slow(config: &Config, len: u64, waited_ms: u64) -> bool {
    let grace_ms = RATE_GRACE_MS.min(after(0, config.read_timeout_ms));
    waited_ms > grace_ms
        && len.saturating_mul(1000) < config.min_body_rate.saturating_mul(waited_ms)
}

/// Where a single receive may write what is missing of a body.
fn space_for_body<B>(place: &mut BodyPlace<B>, input: &mut Input) -> Option<Space<B>> {
    match std::mem::replace(place, BodyPlace::InKernel) {
        BodyPlace::Own(filling) => Some(Space::Body(filling)),
        before => {
            *place = before;
            match std::mem::take(input) {
                Input::Buffer(buffer) => {
                    *input = Input::InKernel;
                    Some(Space::Input(buffer))
                }
                before => {
                    *input = before;
                    None
                }
            }
        }
    }
}

/// A deadline `timeout_ms` from now; 0 means never.
pub(crate) fn after(now_ms: u64, timeout_ms: u64) -> u64 {
    if timeout_ms == 0 {
        u64::MAX
    } else {
        now_ms + timeout_ms
    }
}

/// A limit of which 0 says that there is none.
fn unless_zero(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit }
}

enum RouteFailure {
    Encoding,
    Memory,
    /// The method.
    NotImplemented,
    /// An `https` target on a connection that is not secured.
    Misdirected,
}

impl From<OutOfMemory> for RouteFailure {
    fn from(_: OutOfMemory) -> Self {
        RouteFailure::Memory
    }
}

impl From<BadEncoding> for RouteFailure {
    fn from(_: BadEncoding) -> Self {
        RouteFailure::Encoding
    }
}

/// Makes an exchange of a parsed head: where it leads, and how its body comes. The error is the
/// status of a refusal.
fn begin<B>(
    exchange: &mut Exchange<B>,
    bytes: &[u8],
    config: &Config,
    router: &Router,
    scratch: &mut Vec<u8>,
) -> Result<(), Option<u16>> {
    if config.header_map == HeaderMap::Refuse {
        let mut fields = exchange.head.fields(bytes, &exchange.arena);
        if fields.any(|(name, _)| is_ambiguous_name(name)) {
            return Err(Some(400));
        }
    }
    exchange.decoder = None;
    exchange.progress = Progress::Receiving;
    exchange.closes = !exchange.head.keep_alive;
    exchange.body_len = 0;
    exchange.body_taken = 0;
    exchange.body_error = 0;
    exchange.body_waited_ms = 0;
    exchange.reader = 0;
    exchange.writer = 0;
    exchange.watcher = 0;
    exchange.sending = Sending::No;
    exchange.fields = Fields::default();
    exchange.handler_timer = None;
    exchange.is_overtime = false;
    exchange.owes_timeout = false;
    exchange.taken_over = false;
    exchange.continue_sent = false;
    exchange.tag = 0;
    route(exchange, bytes, router, scratch).map_err(|failure| match failure {
        RouteFailure::Encoding => Some(400),
        RouteFailure::Memory => Some(503),
        RouteFailure::NotImplemented => Some(501),
        RouteFailure::Misdirected => Some(421),
    })?;
    let limit = router.stream_limit(exchange.found);
    exchange.streams = limit.is_some();
    let max_body = match limit {
        None => config.max_body_size as u64,
        Some(StreamLimit::Default) => unless_zero(config.max_stream_size),
        Some(StreamLimit::Bytes(bytes)) => unless_zero(bytes),
    };
    match exchange.head.framing {
        Framing::Length(len) if len > max_body => return Err(Some(413)),
        Framing::Chunked => {
            exchange.decoder = Some(ChunkedDecoder::new(ChunkedLimits {
                max_body,
                ..ChunkedLimits::default()
            }));
        }
        _ => {}
    }
    Ok(())
}

fn route<B>(
    exchange: &mut Exchange<B>,
    bytes: &[u8],
    router: &Router,
    scratch: &mut Vec<u8>,
) -> Result<(), RouteFailure> {
    let head = &exchange.head;
    let name = head.method_span.of(bytes);
    if !router.implements(head.method, name) {
        return Err(RouteFailure::NotImplemented);
    }
    if head.target_form != TargetForm::Origin && is_for_server(head, bytes)? {
        exchange.found = Found::Server;
        exchange.decoded_path = ArenaSlice::default();
        exchange.params = ArenaSlice::default();
        return Ok(());
    }
    let raw = head.path_or_root(bytes);
    // Checks the encoding of the whole path too, so that `request.path` can rely on it.
    let path = decode_for_routing(raw, scratch)?;
    let is_as_received = std::ptr::eq(path.as_ptr(), raw.as_ptr());
    let base = if is_as_received {
        exchange.decoded_path = ArenaSlice::default();
        bytes
    } else {
        exchange.decoded_path = exchange.arena.alloc_copy(path.as_bytes())?;
        path.as_bytes()
    };
    let mut spans = [Span::default(); PARAMS_MAX];
    let mut count = 0;
    exchange.found = router.find(path, head.method, name, |value| {
        // The value is a part of `base`, so the distance of their addresses is its offset.
        let start = value.as_ptr() as usize - base.as_ptr() as usize;
        spans[count] = Span::new(start, start + value.len());
        count += 1;
    });
    exchange.params = if count == 0 {
        ArenaSlice::default()
    } else {
        exchange.arena.alloc_copy(&spans[..count])?
    };
    Ok(())
}

/// Whether a target that is not just a path stands for the server as a whole.
fn is_for_server(head: &Head, bytes: &[u8]) -> Result<bool, RouteFailure> {
    if head.target_form != TargetForm::Absolute {
        return Ok(true);
    }
    // RFC 9110 §7.4: such a request must not be served, and there is no TLS here. A gateway that has
    // ended it says so in fields of its own.
    const HTTPS: &[u8] = b"https:";
    let scheme = head.target.of(bytes).get(..HTTPS.len());
    if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(HTTPS)) {
        return Err(RouteFailure::Misdirected);
    }
    // RFC 9112 §3.2.4: `OPTIONS http://host` is `OPTIONS *`, asked of a proxy.
    Ok(head.method == Method::Options && head.path.is_empty() && head.query.is_none())
}

//! The simulated system: descriptors, connections, time and chance.
//!
//! ```text
//! client --send--> inbound  --(receives of the driver)--> server
//! client <--read-- outbound <--(sends of the driver)----- server
//! ```
//!
//! It behaves as Linux does where a server could notice: the lowest free descriptor number is used
//! next; closing a socket with unread bytes resets the connection, and then bytes that the client
//! has not read may be lost; a client that sends to a closed socket is reset; that the client has
//! reset the connection is told once, to the first who receives or sends.
//!
//! What must never happen is a *violation*: it panics, with a text that begins with [`VIOLATION`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use fastrand::Rng;

/// How the text of a violation begins.
pub const VIOLATION: &str = "violation: ";

/// How often a server may be told of one end of a stream: by a receive that was pending, by one
/// that was armed meanwhile.
const ENDS_TOLD_MAX: u32 = 4;

/// The lowest descriptor number; those below belong to nobody here.
const FIRST_FD: RawFd = 3;

/// How often each fault happens, in 1/1000 of the occasions.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A receive brings less than has arrived.
    pub short_reads: u32,
    /// A send takes less than it could.
    pub short_writes: u32,
    /// An event is seen later than it happened.
    pub late_events: u32,
    /// A cancel takes effect later, and may lose.
    pub late_cancels: u32,
    /// A long write's last event comes well after its last byte.
    pub late_write_ends: u32,
    /// Accepting fails: no descriptors.
    pub exhaustion: u32,
    /// A read from a file fails.
    pub file_errors: u32,
    /// There is no memory for an operation.
    pub no_slot: u32,
    /// The monotonic clock jumps forward, by minutes.
    pub clock_jumps: u32,
    /// The time of day jumps.
    pub wall_jumps: u32,
}

/// What happened, for the report.
#[derive(Copy, Clone, Debug, Default)]
pub struct Counts {
    /// Events that the driver handed out.
    pub events: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Among them: requests for memory that were refused.
    pub memory_faults: u64,
    /// Forward jumps of the clock.
    pub clock_jumps: u64,
    /// Descriptors refused.
    pub exhaustions: u64,
    /// The longest that a client has waited to be accepted, beyond [`Net::exhaustion_rest_us`] for
    /// each refused descriptor.
    pub longest_wait_us: u64,
}

/// Names a connection for its client; numbers are not used again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ClientId(pub usize);

#[derive(Debug)]
enum Resource {
    Listener { backlog: VecDeque<usize> },
    Connection(usize),
    File(Vec<u8>),
}

#[derive(Debug)]
struct Descriptor {
    resource: Resource,
    /// Operations that have not had their final event.
    operations: u32,
}

/// One connection, seen from both sides.
#[derive(Debug, Default)]
pub struct Connection {
    pub(crate) inbound: VecDeque<u8>,
    pub(crate) inbound_ended: bool,
    pub(crate) outbound: VecDeque<u8>,
    outbound_capacity: usize,
    inbound_capacity: usize,
    connected_us: u64,
    exhaustions_before: u64,
    ends_told: u32,
    outbound_ended: bool,
    /// The client has reset it, or the network has.
    pub(crate) is_reset: bool,
    /// The server has been told of it.
    is_reset_told: bool,
    /// The server has reset it.
    pub(crate) is_refused: bool,
    server_closed: bool,
    client_closed: bool,
    /// Bytes that the server has put into it, ever.
    pub sent_by_server: u64,
    /// When the server last put bytes into it.
    pub last_sent_us: u64,
    /// When the server began to end it: FIN, close or reset.
    pub ended_us: Option<u64>,
}

/// What a client finds when it reads.
#[derive(Copy, Clone, Debug)]
pub struct ClientRead {
    /// Bytes that were read.
    pub len: usize,
    /// The server has finished, and everything was read.
    pub is_end: bool,
    /// The connection was reset.
    pub is_reset: bool,
}

/// The system that a simulated driver runs on.
pub struct Net {
    now_us: u64,
    unix_us: i64,
    /// How long a server may rest when it was refused a descriptor.
    pub exhaustion_rest_us: u64,
    /// Every decision of the simulated system comes from here.
    pub rng: Rng,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// What has happened.
    pub counts: Counts,
    descriptors: Vec<Option<Descriptor>>,
    connections: Vec<Connection>,
    /// Clients for which something has changed.
    changed: Vec<usize>,
    trace: Option<Vec<String>>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("now_us", &self.now_us)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Net {
    /// A system without descriptors, at time zero.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Net {
            now_us: 0,
            unix_us: 1_700_000_000_000_000,
            exhaustion_rest_us: 1_050_000,
            rng: Rng::with_seed(seed),
            faults,
            counts: Counts::default(),
            descriptors: Vec::new(),
            connections: Vec::new(),
            changed: Vec::new(),
            trace: None,
        }
    }

    /// Begins a run: time zero, nothing open, chance from `seed`.
    pub fn start(&mut self, seed: u64, faults: Faults) {
        let trace = self.trace.take();
        *self = Net::new(seed, faults);
        self.trace = trace;
    }

    /// Frees what it keeps of connections that have ended.
    pub fn clear(&mut self) {
        self.descriptors = Vec::new();
        self.connections = Vec::new();
        self.changed = Vec::new();
    }

    /// Whether it notes what happens.
    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Notes from now on what happens, for a person to read.
    pub fn start_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// What was noted.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// Notes a line, if anybody wants it.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{:>12.3} ms  {}",
                self.now_us as f64 / 1000.0,
                line()
            ));
        }
    }

    /// Something happened that must never happen.
    ///
    /// # Panics
    /// Always.
    pub fn violation(&mut self, text: &str) -> ! {
        self.note(|| format!("{VIOLATION}{text}"));
        panic!("{VIOLATION}{text}")
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    pub(crate) fn unix_us(&self) -> i64 {
        self.unix_us + self.now_us as i64
    }

    /// Lets time go by outside of the driver's turns.
    pub fn pass(&mut self, us: u64) {
        self.now_us += us;
    }

    pub(crate) fn advance_to(&mut self, at_us: u64) {
        debug_assert!(at_us >= self.now_us);
        self.now_us = self.now_us.max(at_us);
    }

    /// Whether a fault of this frequency happens now.
    pub fn happens(&mut self, per_mille: u32) -> bool {
        let happens = per_mille > 0 && self.rng.u32(0..1000) < per_mille;
        self.counts.faults += u64::from(happens);
        happens
    }

    pub(crate) fn jump(&mut self) {
        // A fault of the clock is rarer than others: a turn is an occasion.
        if self.faults.clock_jumps > 0 && self.rng.u32(0..100_000) < self.faults.clock_jumps {
            let by_us = self.rng.u64(1_000_000..200_000_000);
            self.note(|| format!("the clock jumps by {} ms", by_us / 1000));
            self.now_us += by_us;
            self.counts.faults += 1;
            self.counts.clock_jumps += 1;
        }
        if self.faults.wall_jumps > 0 && self.rng.u32(0..10_000) < self.faults.wall_jumps {
            self.unix_us += self.rng.i64(-5_000_000_000..5_000_000_000);
            self.counts.faults += 1;
        }
    }

    fn insert(&mut self, resource: Resource) -> RawFd {
        let descriptor = Some(Descriptor {
            resource,
            operations: 0,
        });
        let index = match self.descriptors.iter().position(Option::is_none) {
            Some(index) => {
                self.descriptors[index] = descriptor;
                index
            }
            None => {
                self.descriptors.push(descriptor);
                self.descriptors.len() - 1
            }
        };
        index as RawFd + FIRST_FD
    }

    fn descriptor(&mut self, fd: RawFd, act: &str) -> &mut Descriptor {
        let index = (fd - FIRST_FD) as usize;
        if !matches!(self.descriptors.get(index), Some(Some(_))) {
            self.violation(&format!("{act} on descriptor {fd}, which is not open"));
        }
        match &mut self.descriptors[index] {
            Some(descriptor) => descriptor,
            None => unreachable!("looked at just now"),
        }
    }

    /// Opens a listener.
    pub fn listen(&mut self) -> RawFd {
        self.insert(Resource::Listener {
            backlog: VecDeque::new(),
        })
    }

    /// Open descriptors, listeners included.
    pub fn open_descriptors(&self) -> usize {
        self.descriptors.iter().flatten().count()
    }

    pub(crate) fn operation_starts(&mut self, fd: RawFd, what: &str) {
        self.descriptor(fd, what).operations += 1;
    }

    pub(crate) fn operation_ends(&mut self, fd: RawFd) {
        let descriptor = self.descriptor(fd, "the end of an operation");
        descriptor.operations -= 1;
    }

    pub(crate) fn forget_operations(&mut self) {
        for descriptor in self.descriptors.iter_mut().flatten() {
            descriptor.operations = 0;
        }
    }

    pub(crate) fn is_listener(&mut self, fd: RawFd) -> bool {
        matches!(
            self.descriptor(fd, "poll").resource,
            Resource::Listener { .. }
        )
    }

    pub(crate) fn has_waiting(&mut self, listener: RawFd) -> bool {
        match &self.descriptor(listener, "accept").resource {
            Resource::Listener { backlog } => !backlog.is_empty(),
            Resource::Connection(_) | Resource::File(_) => false,
        }
    }

    /// Takes a waiting connection; its new descriptor.
    pub fn accept(&mut self, listener: RawFd) -> Option<RawFd> {
        let Resource::Listener { backlog } = &mut self.descriptor(listener, "accept").resource
        else {
            self.violation("accept on a connection");
        };
        let client = backlog.pop_front()?;
        let fd = self.insert(Resource::Connection(client));
        let waited_us = self.now_us - self.connections[client].connected_us;
        // The rest after a refusal may have begun before the client came.
        let before = self.connections[client]
            .exhaustions_before
            .saturating_sub(1);
        let refusals = self.counts.exhaustions - before;
        self.counts.longest_wait_us = self
            .counts
            .longest_wait_us
            .max(waited_us.saturating_sub(refusals * self.exhaustion_rest_us));
        self.note(|| format!("client {client}: accepted as descriptor {fd}"));
        Some(fd)
    }

    /// A receive finds the end of the stream: once is enough for anybody.
    pub(crate) fn tell_end(&mut self, fd: RawFd) {
        let (_, connection) = self.connection(fd, "receive");
        connection.ends_told += 1;
        if connection.ends_told > ENDS_TOLD_MAX {
            self.violation(&format!(
                "descriptor {fd} is received from again and again after its end"
            ));
        }
    }

    /// The connection behind a descriptor, and its client.
    pub(crate) fn connection(&mut self, fd: RawFd, act: &str) -> (ClientId, &mut Connection) {
        match self.descriptor(fd, act).resource {
            Resource::Connection(client) => (ClientId(client), &mut self.connections[client]),
            Resource::Listener { .. } => self.violation(&format!("{act} on a listener")),
            Resource::File(_) => self.violation(&format!("{act} on a file")),
        }
    }

    /// Opens a file with these bytes.
    pub fn open(&mut self, bytes: Vec<u8>) -> RawFd {
        self.insert(Resource::File(bytes))
    }

    /// What an open file has; others may change it at any time.
    pub fn file(&mut self, fd: RawFd) -> &mut Vec<u8> {
        if !matches!(self.descriptor(fd, "read").resource, Resource::File(_)) {
            self.violation(&format!("descriptor {fd} is no file"));
        }
        match &mut self.descriptor(fd, "read").resource {
            Resource::File(bytes) => bytes,
            _ => unreachable!("looked at just now"),
        }
    }

    /// Takes bytes that have arrived; the client may send more then.
    pub(crate) fn take(&mut self, fd: RawFd, into: &mut [u8]) {
        let (ClientId(client), connection) = self.connection(fd, "receive");
        let count = into.len();
        for (place, byte) in into.iter_mut().zip(connection.inbound.drain(..count)) {
            *place = byte;
        }
        self.changed.push(client);
        self.note(|| format!("client {client}: the server receives {count} bytes"));
    }

    /// How much a send could put into the connection now.
    pub(crate) fn send_room(&mut self, fd: RawFd) -> usize {
        let (_, connection) = self.connection(fd, "send");
        connection.outbound_capacity - connection.outbound.len()
    }

    /// The error of a reset connection, for the first who asks.
    pub(crate) fn take_error(&mut self, fd: RawFd) -> Option<i32> {
        let (_, connection) = self.connection(fd, "receive");
        let is_news = connection.is_reset && !connection.is_reset_told;
        connection.is_reset_told |= is_news;
        is_news.then_some(libc::ECONNRESET)
    }

    /// Whether a send would fail.
    pub(crate) fn has_send_error(&mut self, fd: RawFd) -> bool {
        let (_, connection) = self.connection(fd, "send");
        if connection.outbound_ended {
            self.violation(&format!("a send on descriptor {fd} after its FIN"));
        }
        connection.client_closed || connection.is_reset
    }

    /// The error that a send finds.
    pub(crate) fn take_send_error(&mut self, fd: RawFd) -> Option<i32> {
        let is_closed = self.has_send_error(fd);
        self.take_error(fd).or(is_closed.then_some(libc::EPIPE))
    }

    pub(crate) fn put(&mut self, fd: RawFd, bytes: impl Iterator<Item = u8>) {
        let now_us = self.now_us;
        let (ClientId(client), connection) = self.connection(fd, "send");
        let before = connection.outbound.len();
        connection.outbound.extend(bytes);
        let count = connection.outbound.len() - before;
        if count == 0 {
            return;
        }
        connection.sent_by_server += count as u64;
        connection.last_sent_us = now_us;
        self.changed.push(client);
        self.note(|| format!("client {client}: the server sends {count} bytes"));
    }

    pub(crate) fn server_finishes(&mut self, fd: RawFd) {
        let now_us = self.now_us;
        let (ClientId(client), connection) = self.connection(fd, "shutdown");
        connection.outbound_ended = true;
        connection.ended_us.get_or_insert(now_us);
        self.changed.push(client);
        self.note(|| format!("client {client}: the server sends FIN"));
    }

    fn close(&mut self, fd: RawFd) {
        let descriptor = self.descriptor(fd, "close");
        if descriptor.operations > 0 {
            let count = descriptor.operations;
            self.violation(&format!(
                "descriptor {fd} is closed before the final event of {count} operations"
            ));
        }
        let resource = self.descriptors[(fd - FIRST_FD) as usize].take();
        match resource.map(|descriptor| descriptor.resource) {
            Some(Resource::Connection(client)) => self.server_closes(client),
            Some(Resource::Listener { backlog }) => {
                for client in backlog {
                    self.connections[client].is_refused = true;
                    self.server_closes(client);
                }
            }
            Some(Resource::File(_)) | None => {}
        }
    }

    fn server_closes(&mut self, client: usize) {
        let now_us = self.now_us;
        let loses = self.rng.bool();
        let connection = &mut self.connections[client];
        connection.server_closed = true;
        connection.ended_us.get_or_insert(now_us);
        let is_abrupt = !connection.inbound.is_empty();
        if is_abrupt {
            connection.is_refused = true;
            if loses {
                connection.outbound.clear();
            }
        }
        connection.outbound_ended = true;
        self.changed.push(client);
        self.note(|| {
            let how = if is_abrupt { ", with a reset" } else { "" };
            format!("client {client}: the server closes{how}")
        });
    }

    /// A client connects; none when nobody listens.
    pub fn connect(
        &mut self,
        listener: RawFd,
        outbound_capacity: usize,
        inbound_capacity: usize,
    ) -> Option<ClientId> {
        let client = self.connections.len();
        let index = (listener - FIRST_FD) as usize;
        let Some(Some(Descriptor {
            resource: Resource::Listener { backlog },
            ..
        })) = self.descriptors.get_mut(index)
        else {
            return None;
        };
        backlog.push_back(client);
        self.connections.push(Connection {
            outbound_capacity: outbound_capacity.max(1),
            inbound_capacity: inbound_capacity.max(1),
            connected_us: self.now_us,
            exhaustions_before: self.counts.exhaustions,
            ..Connection::default()
        });
        self.note(|| format!("client {client}: connects"));
        Some(ClientId(client))
    }

    /// A client sends; how much the server's socket takes.
    pub fn client_send(&mut self, ClientId(client): ClientId, bytes: &[u8]) -> usize {
        let connection = &mut self.connections[client];
        if connection.server_closed {
            connection.is_refused = true;
            return bytes.len();
        }
        let room = connection
            .inbound_capacity
            .saturating_sub(connection.inbound.len());
        let count = room.min(bytes.len());
        connection.inbound.extend(&bytes[..count]);
        if count > 0 {
            self.note(|| format!("client {client}: sends {count} bytes"));
        }
        count
    }

    /// A client ends its side (FIN).
    pub fn client_finish(&mut self, ClientId(client): ClientId) {
        self.connections[client].inbound_ended = true;
        self.note(|| format!("client {client}: sends FIN"));
    }

    /// A client resets the connection.
    pub fn client_reset(&mut self, ClientId(client): ClientId) {
        let connection = &mut self.connections[client];
        connection.is_reset = true;
        connection.client_closed = true;
        self.changed.push(client);
        self.note(|| format!("client {client}: resets"));
    }

    /// A client closes: it sends FIN, and reads no more.
    pub fn client_close(&mut self, ClientId(client): ClientId) {
        let connection = &mut self.connections[client];
        connection.inbound_ended = true;
        connection.client_closed = true;
        connection.outbound.clear();
        self.note(|| format!("client {client}: closes"));
    }

    /// A client reads at most `max` bytes into `out`.
    pub fn client_read(
        &mut self,
        ClientId(client): ClientId,
        max: usize,
        out: &mut Vec<u8>,
    ) -> ClientRead {
        let connection = &mut self.connections[client];
        let len = max.min(connection.outbound.len());
        out.extend(connection.outbound.drain(..len));
        ClientRead {
            len,
            is_end: connection.outbound_ended && connection.outbound.is_empty(),
            is_reset: connection.is_refused || connection.is_reset,
        }
    }

    /// A connection, for looking at.
    pub fn look(&self, ClientId(client): ClientId) -> &Connection {
        &self.connections[client]
    }

    /// Clients for which the server has done something since the last call.
    pub fn take_changed(&mut self, into: &mut Vec<usize>) {
        into.append(&mut self.changed);
    }
}

/// A descriptor of the simulated system; dropping it closes it.
pub struct SimSocket {
    fd: RawFd,
    net: Rc<RefCell<Net>>,
}

impl SimSocket {
    /// Takes a descriptor that [`Net`] has opened over.
    pub fn new(net: &Rc<RefCell<Net>>, fd: RawFd) -> Self {
        SimSocket {
            fd,
            net: Rc::clone(net),
        }
    }
}

impl AsRawFd for SimSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({})", self.fd)
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        // While a violation unwinds, the books need not be right any more.
        if !std::thread::panicking() {
            self.net.borrow_mut().close(self.fd);
        }
    }
}

//! One request and its response, from the parsed head to the finished answer.

use theframework_http::{ChunkedDecoder, Framing, Head};
use theframework_io::{Filling, KeptBytes};
use theframework_memory::{
    Appender, Arena, ArenaSlice, Block, BlockRecycler, ChunkRecycler, Key, OutOfMemory, RECYCLES,
    Span,
};

use crate::fields::Fields;
use crate::router::{Found, Router};

/// No slab makes this key.
pub(crate) const NOBODY: Key = Key {
    index: 0,
    generation: 0,
};

/// Names an exchange; stale ids are noticed.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct ExchangeId(pub(crate) Key);

impl ExchangeId {
    /// The id as a number, for keeping it outside of Rust.
    pub fn to_u64(self) -> u64 {
        self.0.to_u64()
    }

    /// The inverse of [`to_u64`](Self::to_u64); any number is harmless.
    pub fn from_u64(bits: u64) -> Self {
        ExchangeId(Key::from_u64(bits))
    }
}

/// How far an exchange has come.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// The body is not complete.
    Receiving,
    /// On the ready queue.
    Queued,
    /// With its handler.
    Running,
    /// With its handler, which waits for something; all memory is of exact size.
    Parked,
    /// Its handler is over, and a file is sent: see `file.rs`.
    SendingFile,
}

/// Where a body is.
#[derive(Debug)]
pub(crate) enum BodyPlace<B> {
    /// Behind the head, in the connection's input.
    Input,
    /// In memory of its own, its final place.
    Own(Box<Filling<B>>),
    /// There too, and a receive is pending on it.
    InKernel,
}

/// A response that goes out while the handler makes it: how its body is framed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    /// Its head has not been written.
    No,
    /// In chunks.
    Chunked,
    /// So many bytes are still to come.
    Length(u64),
    /// The end of the connection is the end of the body.
    UntilClose,
    /// There is none (HEAD, 204, 304): what is written for it is dropped.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Exchange<B> {
    pub(crate) connection: Key,
    pub(crate) progress: Progress,
    /// The request ends the connection, or its body was not read: no further one is served.
    pub(crate) closes: bool,
    pub(crate) head: Head,
    pub(crate) arena: Arena,
    /// The handler takes the body while it arrives: see `upload.rs`.
    pub(crate) streams: bool,
    /// It is no request any more, but the connection: see `takeover.rs`.
    pub(crate) taken_over: bool,
    /// The head's bytes, if the body streams: the input then holds nothing but the body.
    pub(crate) own_head: Option<Block>,
    /// Bytes of the body that the handler has taken, if it streams.
    pub(crate) body_taken: u64,
    /// The status that says why no more of it will come; 0: there is no reason.
    pub(crate) body_error: u16,
    /// Who waits for the body, and who for room in the output: the user's numbers, or 0.
    pub(crate) reader: u64,
    pub(crate) writer: u64,
    /// Who is told when the client leaves: the user's number, or 0.
    pub(crate) watcher: u64,
    pub(crate) sending: Sending,
    /// The file that is its response, if it is one.
    pub(crate) file: Option<Key>,
    /// Bytes of the body that are in place (decoded, if it came chunked) and not taken.
    pub(crate) body_len: usize,
    pub(crate) body: BodyPlace<B>,
    pub(crate) decoder: Option<ChunkedDecoder>,
    /// How long the worker had waited for its peers when the body began to arrive. If it streams:
    /// when the handler last began to wait for it.
    pub(crate) waited_before_ms: u64,
    /// How long the handler has waited for a body that streams, all in all.
    pub(crate) body_waited_ms: u64,
    /// `100 Continue` was sent, or is of no use any more.
    pub(crate) continue_sent: bool,
    pub(crate) found: Found,
    /// The path without percent-encoding (but `%2F`, `%25`); empty: it had none.
    pub(crate) decoded_path: ArenaSlice<u8>,
    /// Parameter values, in the decoded path or else in the request's bytes.
    pub(crate) params: ArenaSlice<Span>,
    pub(crate) fields: Fields,
    pub(crate) handler_timer: Option<theframework_io::TimerId>,
    /// When the handler got it.
    pub(crate) started_ms: u64,
    /// The handler was told that its time is over.
    pub(crate) is_overtime: bool,
    /// It is to be told at its next wait.
    pub(crate) owes_timeout: bool,
    /// A number of the user's own.
    pub(crate) tag: u64,
}

impl<B> Exchange<B> {
    /// An exchange that stands for nothing yet, with an arena that holds nothing.
    pub(crate) fn idle(chunks: &ChunkRecycler, blocks: &BlockRecycler) -> Self {
        Exchange {
            connection: NOBODY,
            progress: Progress::Receiving,
            closes: false,
            head: Head::default(),
            arena: Arena::new(chunks.clone(), blocks.clone()),
            streams: false,
            taken_over: false,
            own_head: None,
            body_taken: 0,
            body_error: 0,
            reader: 0,
            writer: 0,
            watcher: 0,
            sending: Sending::No,
            file: None,
            body_len: 0,
            body: BodyPlace::Input,
            decoder: None,
            waited_before_ms: 0,
            body_waited_ms: 0,
            continue_sent: false,
            found: Found::Nothing,
            decoded_path: ArenaSlice::default(),
            params: ArenaSlice::default(),
            fields: Fields::default(),
            handler_timer: None,
            started_ms: 0,
            is_overtime: false,
            owes_timeout: false,
            tag: 0,
        }
    }

    /// Bytes of the head in the connection's input.
    pub(crate) fn head_len(&self) -> usize {
        match self.own_head {
            Some(_) => 0,
            None => self.head.len as usize,
        }
    }

    /// Bytes of this request in the connection's input.
    pub(crate) fn input_len(&self) -> usize {
        match self.body {
            BodyPlace::Input => self.head_len() + self.body_len,
            BodyPlace::Own(_) | BodyPlace::InKernel => self.head_len(),
        }
    }

    /// The handler takes the body while it arrives, and more is to come.
    pub(crate) fn is_streaming(&self) -> bool {
        self.streams && self.body_error == 0 && !self.is_complete()
    }

    /// Whether no further request is served. What was not read of a body is not read any more: it would
    /// be taken for one.
    pub(crate) fn is_last(&self) -> bool {
        self.closes || !self.is_complete()
    }

    pub(crate) fn is_complete(&self) -> bool {
        match self.head.framing {
            Framing::None => true,
            Framing::Length(len) => self.body_taken + self.body_len as u64 == len,
            Framing::Chunked => self.decoder.as_ref().is_none_or(ChunkedDecoder::is_done),
        }
    }
}

/// What a request's path and method lead to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// The caller's number for the endpoint.
    Endpoint(u32),
    /// The path is known, the method is not: 405, with [`RequestView::allow`].
    MethodNotAllowed,
    /// 404.
    NotFound,
}

/// A request, as long as its engine is borrowed: nothing is copied.
#[derive(Debug)]
pub struct RequestView<'a, B> {
    pub(crate) head: &'a Head,
    /// The head's bytes, and what stands behind them.
    pub(crate) bytes: &'a [u8],
    pub(crate) fields: &'a [[Span; 2]],
    pub(crate) params: &'a [Span],
    pub(crate) decoded_path: &'a [u8],
    pub(crate) body: ViewedBody<'a, B>,
    pub(crate) streams: bool,
    pub(crate) found: Found,
    pub(crate) router: &'a Router,
}

/// Where the body of a request is that is looked at.
#[derive(Debug)]
pub(crate) enum ViewedBody<'a, B> {
    /// In the connection's input.
    There(&'a [u8]),
    Own(&'a Filling<B>),
}

impl<B> Exchange<B> {
    /// Its request and its response, in two hands. `input` is the connection's.
    pub(crate) fn split<'a>(
        &'a mut self,
        input: &'a [u8],
        router: &'a Router,
    ) -> Result<(RequestView<'a, B>, Answering<'a>), OutOfMemory> {
        let start = self.head_len();
        let (fields, params, decoded_path, arena) =
            self.arena
                .split(self.head.fields, self.params, self.decoded_path)?;
        let view = RequestView {
            head: &self.head,
            bytes: self.own_head.as_deref().unwrap_or(input),
            fields,
            params,
            decoded_path,
            body: viewed(&self.body, input, start, self.body_len),
            streams: self.streams,
            found: self.found,
            router,
        };
        let answering = Answering {
            fields: &mut self.fields,
            arena,
        };
        Ok((view, answering))
    }

    /// Its request alone.
    pub(crate) fn view<'a>(&'a self, input: &'a [u8], router: &'a Router) -> RequestView<'a, B> {
        RequestView {
            head: &self.head,
            bytes: self.own_head.as_deref().unwrap_or(input),
            fields: self.arena.get(self.head.fields),
            params: self.arena.get(self.params),
            decoded_path: self.arena.get(self.decoded_path),
            body: viewed(&self.body, input, self.head_len(), self.body_len),
            streams: self.streams,
            found: self.found,
            router,
        }
    }
}

fn viewed<'a, B>(
    place: &'a BodyPlace<B>,
    input: &'a [u8],
    start: usize,
    len: usize,
) -> ViewedBody<'a, B> {
    match place {
        BodyPlace::Input => ViewedBody::There(&input[start..start + len]),
        BodyPlace::Own(filling) => ViewedBody::Own(filling),
        BodyPlace::InKernel => ViewedBody::There(&[]),
    }
}

/// The response of an exchange while its request is looked at: its fields, and room in its arena.
#[derive(Debug)]
pub struct Answering<'a> {
    pub(crate) fields: &'a mut Fields,
    pub(crate) arena: Appender<'a>,
}

impl<'a, B: KeptBytes> RequestView<'a, B> {
    /// The parsed head.
    pub fn head(&self) -> &'a Head {
        self.head
    }

    /// The method's name.
    pub fn method(&self) -> &'a [u8] {
        self.head.method_span.of(self.bytes)
    }

    /// The target as received.
    pub fn target(&self) -> &'a [u8] {
        self.head.target.of(self.bytes)
    }

    /// The path as received.
    pub fn raw_path(&self) -> &'a [u8] {
        self.head.path_or_root(self.bytes)
    }

    /// The query as received.
    pub fn query(&self) -> &'a [u8] {
        match self.head.query {
            Some(query) => query.of(self.bytes),
            None => &[],
        }
    }

    /// How many fields there are.
    pub fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// Name and value of field `index`, in the order received.
    pub fn field(&self, index: usize) -> Option<(&'a [u8], &'a [u8])> {
        let [name, value] = self.fields.get(index)?;
        Some((name.of(self.bytes), value.of(self.bytes)))
    }

    /// The first field of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The values of all fields of this name, in any case, in the order received.
    pub fn values<'n>(
        &self,
        name: &'n str,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + Clone + use<'a, 'n, B> {
        let bytes = self.bytes;
        self.fields.iter().filter_map(move |[field, value]| {
            let is_it = field.len as usize == name.len()
                && field.of(bytes).eq_ignore_ascii_case(name.as_bytes());
            is_it.then(|| value.of(bytes))
        })
    }

    /// The body (decoded, if it came chunked); if it streams, what is there of it.
    pub fn body(&self) -> &'a [u8] {
        match self.body {
            ViewedBody::There(bytes) => bytes,
            ViewedBody::Own(filling) => filling.bytes(),
        }
    }

    /// The object that the body was received into, if it was large and there was one.
    pub fn body_object(&self) -> Option<&'a B> {
        match self.body {
            ViewedBody::There(_) => None,
            ViewedBody::Own(filling) => filling.body(),
        }
    }

    /// Whether the handler takes the body while it arrives.
    pub fn streams(&self) -> bool {
        self.streams
    }

    /// Where it leads.
    pub fn route(&self) -> Route {
        match self.found {
            Found::Endpoint { endpoint, .. } => Route::Endpoint(endpoint),
            Found::MethodNotAllowed { .. } => Route::MethodNotAllowed,
            // Nobody gets to see the latter: the engine answers it.
            Found::Nothing | Found::Server => Route::NotFound,
        }
    }

    /// The `Allow` field of a 405.
    pub fn allow(&self) -> String {
        match self.found {
            Found::MethodNotAllowed { path } | Found::Endpoint { path, .. } => {
                self.router.allow(path)
            }
            Found::Server => self.router.allow_of_server(),
            Found::Nothing => String::new(),
        }
    }

    /// Names of the path's parameters.
    pub fn param_names(&self) -> &'a [String] {
        match self.found {
            Found::Endpoint { path, .. } => self.router.params(path),
            _ => &[],
        }
    }

    /// Value of parameter `index`; `%2F` and `%25` in it are still encoded.
    pub fn param(&self, index: usize) -> Option<&'a [u8]> {
        let span = self.params.get(index)?;
        let decoded = self.decoded_path;
        Some(span.of(if decoded.is_empty() {
            self.bytes
        } else {
            decoded
        }))
    }
}

/// Exchanges that stand for nothing: boxes with an arena each, used again and again.
#[derive(Debug)]
pub(crate) struct ExchangePool<B> {
    chunks: ChunkRecycler,
    blocks: BlockRecycler,
    #[expect(clippy::vec_box, reason = "an exchange moves often, and is large")]
    idle: Vec<Box<Exchange<B>>>,
    /// The fewest that lay idle since the last trim: nobody has needed those.
    idle_min: usize,
}

/// Idle exchanges kept.
const IDLE_MAX: usize = 4096;

impl<B> ExchangePool<B> {
    pub(crate) fn new(chunks: ChunkRecycler, blocks: BlockRecycler) -> Self {
        ExchangePool {
            chunks,
            blocks,
            idle: Vec::new(),
            idle_min: 0,
        }
    }

    pub(crate) fn acquire(&mut self) -> Box<Exchange<B>> {
        match self.idle.pop() {
            Some(exchange) => {
                self.idle_min = self.idle_min.min(self.idle.len());
                exchange
            }
            None => Box::new(Exchange::idle(&self.chunks, &self.blocks)),
        }
    }

    pub(crate) fn release(&mut self, mut exchange: Box<Exchange<B>>) {
        debug_assert!(
            !matches!(exchange.body, BodyPlace::Own(_)),
            "the body was let go"
        );
        exchange.arena.reset();
        exchange.own_head = None;
        if RECYCLES && self.idle.len() < IDLE_MAX {
            self.idle.push(exchange);
        }
    }

    #[cfg(feature = "audit")]
    pub(crate) fn idle_len(&self) -> usize {
        self.idle.len()
    }

    /// Lets go of half of what nobody has needed since the last trim.
    pub(crate) fn trim(&mut self) {
        self.idle
            .truncate(self.idle.len() - self.idle_min.div_ceil(2));
        self.idle_min = self.idle.len();
    }
}

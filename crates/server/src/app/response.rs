//! The response, as a handler makes it: fields and body lie in the exchange's arena.

use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use theframework_http::{InvalidHeader, validate_name, validate_value};
use theframework_io::{OpenFile, open_file};
use theframework_memory::{Allocate, Appender, ArenaSlice, Key};

use crate::app::body::{BodyReader, Pieces};
use crate::app::error::{Error, Result};
use crate::app::link::{Claim, Protocol, Sender};
use crate::app::reply::Reply;
use crate::app::responder::Responder;
use crate::app::worker::Worker;
use crate::exchange::Answering;
use crate::respond::HeaderError;

const TYPE: &[u8] = b"Content-Type";

/// Fields that say something of a body, or of how long it is good for: an answer for an error does not keep
/// them.
pub(crate) const ABOUT_THE_BODY: [&[u8]; 13] = [
    TYPE,
    b"Content-Length",
    b"Content-Encoding",
    b"Content-Language",
    b"Content-Location",
    b"Content-Disposition",
    b"Content-Range",
    b"Accept-Ranges",
    b"ETag",
    b"Last-Modified",
    b"Cache-Control",
    b"Expires",
    b"Location",
];

/// Room that a body takes in the arena when it begins; it grows by doubling.
const BODY_MIN: usize = 256;

/// What a handler has decided on.
pub(crate) enum Outcome {
    /// What was written: the first so many bytes of the slice.
    Written(ArenaSlice<u8>, usize),
    Kept(Bytes),
    File(OpenFile),
    Pieces(Pieces, Option<u64>),
    /// With whether a client that sends no more has left.
    Channel(Claim, bool),
    Deferred(Key),
    Reader(Box<dyn BodyReader>),
    TakeOver(Option<StatusCode>, Box<dyn Protocol>, Claim),
}

impl Outcome {
    /// Whether a [`Reply`] is to come.
    pub(crate) fn comes_later(&self) -> bool {
        matches!(self, Outcome::Deferred(_) | Outcome::Reader(_))
    }
}

/// Called with a reply that comes later.
pub(crate) type OnReply = Box<dyn FnOnce(&mut Reply)>;

/// A response that is being made. A handler that does nothing with it answers 200 without a body.
///
/// Fields and what is [written](Self::text) go to the exchange's arena, and with it when the exchange
/// ends: nothing is freed one by one, and nothing is allocated in steady state. The last body that is set
/// counts.
///
/// ```
/// use theframework::{Request, Response, StatusCode};
///
/// fn create(_: &mut Request, response: &mut Response) -> theframework::Result {
///     response.set_status(StatusCode::CREATED);
///     response.set_header("Location", "/things/7")?;
///     response.json(&serde_json::json!({"id": 7}))
/// }
/// ```
pub struct Response<'a> {
    answering: Answering<'a>,
    worker: &'a Worker,
    status: StatusCode,
    outcome: Outcome,
    on_reply: Vec<OnReply>,
    /// `Content-Type` was set by whoever answers, not by the kind of body.
    has_own_type: bool,
    is_out_of_memory: bool,
}

impl<'a> Response<'a> {
    pub(crate) fn new(answering: Answering<'a>, worker: &'a Worker) -> Self {
        Response {
            answering,
            worker,
            has_own_type: false,
            status: StatusCode::OK,
            outcome: Outcome::Written(ArenaSlice::default(), 0),
            on_reply: Vec::new(),
            is_out_of_memory: false,
        }
    }

    /// What became of it, and who wants to see what comes later.
    pub(crate) fn finish(self) -> (StatusCode, Outcome, Vec<OnReply>) {
        if self.is_out_of_memory {
            *self.answering.fields = crate::fields::Fields::default();
            let outcome = Outcome::Kept(Bytes::from_static(b"503 Service Unavailable\n"));
            return (StatusCode::SERVICE_UNAVAILABLE, outcome, Vec::new());
        }
        (self.status, self.outcome, self.on_reply)
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Sets the status. One that no final response may have (1xx) becomes 500.
    pub fn set_status(&mut self, status: StatusCode) -> &mut Self {
        self.status = status;
        self
    }

    /// Sets a field, in place of those of the same name.
    ///
    /// # Errors
    /// [`HeaderError`] when the name is no name, or CR, LF or NUL is in the value; nothing was changed then.
    pub fn set_header(
        &mut self,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self, HeaderError> {
        let (name, value) = valid(name.as_ref(), value.as_ref())?;
        self.has_own_type |= name.eq_ignore_ascii_case(TYPE);
        self.remove_valid(name);
        self.append_valid(name, value);
        Ok(self)
    }

    /// Adds a field beside those of the same name.
    ///
    /// # Errors
    /// As for [`set_header`](Self::set_header).
    pub fn append_header(
        &mut self,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self, HeaderError> {
        let (name, value) = valid(name.as_ref(), value.as_ref())?;
        self.has_own_type |= name.eq_ignore_ascii_case(TYPE);
        self.append_valid(name, value);
        Ok(self)
    }

    /// Removes all fields of this name, in any case; says whether there was one.
    pub fn remove_header(&mut self, name: impl AsRef<[u8]>) -> bool {
        self.remove_valid(name.as_ref())
    }

    /// The first field of this name, in any case, that was set so far.
    pub fn header(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.headers()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_ref()))
            .map(|(_, value)| value)
    }

    /// Names and values of all fields that were set so far.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.answering.fields.iter(&self.answering.arena)
    }

    fn remove_valid(&mut self, name: &[u8]) -> bool {
        self.answering
            .fields
            .remove(&mut self.answering.arena, name)
    }

    fn append_valid(&mut self, name: &[u8], value: &[u8]) {
        let pushed = self
            .answering
            .fields
            .push(&mut self.answering.arena, name, value);
        self.is_out_of_memory |= pushed.is_err();
    }

    fn set_valid(&mut self, name: &str, value: &str) {
        self.remove_valid(name.as_bytes());
        self.append_valid(name.as_bytes(), value.as_bytes());
    }

    /// Sets `Content-Type` for a kind of body, unless it was set otherwise.
    fn say_type(&mut self, media: &str) {
        if !self.has_own_type {
            self.remove_valid(TYPE);
            self.append_valid(TYPE, media.as_bytes());
        }
    }

    /// Plain text, copied to the arena.
    pub fn text(&mut self, text: impl AsRef<str>) {
        self.say_type("text/plain; charset=utf-8");
        self.copy_body(text.as_ref().as_bytes());
    }

    /// HTML, copied to the arena.
    pub fn html(&mut self, html: impl AsRef<str>) {
        self.say_type("text/html; charset=utf-8");
        self.copy_body(html.as_ref().as_bytes());
    }

    /// A value in JSON, written straight to the arena.
    ///
    /// # Errors
    /// 500 when it cannot be written in JSON.
    pub fn json(&mut self, value: &(impl Serialize + ?Sized)) -> Result {
        self.say_type("application/json");
        self.clear_body();
        serde_json::to_writer(self.body_writer(), value)?;
        Ok(())
    }

    /// Any bytes, copied to the arena. `Content-Type` is yours to set.
    pub fn copy_body(&mut self, bytes: &[u8]) {
        self.clear_body();
        self.extend(bytes);
    }

    /// A body that is sent from where it is, without a copy, if it is larger than 4 KiB: of static memory
    /// (`&'static [u8]`, `&'static str`), shared ([`Bytes`]), or given away (`Vec<u8>`, `String`).
    /// `Content-Type` is yours to set.
    ///
    /// ```
    /// use theframework::{Bytes, Request, Response};
    ///
    /// static LOGO: &[u8] = &[0; 100_000];
    ///
    /// fn logo(_: &mut Request, response: &mut Response) {
    ///     response.set_body(LOGO);
    /// }
    ///
    /// fn shared(request: &mut Request, response: &mut Response) {
    ///     response.set_body(request.state::<Bytes>().clone());
    /// }
    /// ```
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        self.outcome = Outcome::Kept(body.into());
    }

    /// Forgets the body.
    pub fn clear_body(&mut self) {
        // What was written before stays in the arena, to be written over.
        self.outcome = match self.outcome {
            Outcome::Written(slice, _) => Outcome::Written(slice, 0),
            _ => Outcome::Written(ArenaSlice::default(), 0),
        };
    }

    /// What was written of the body, or set as one. Empty for a file, a stream, and whatever comes later.
    pub fn body(&self) -> &[u8] {
        match &self.outcome {
            Outcome::Written(slice, len) => &self.answering.arena.get(*slice)[..*len],
            Outcome::Kept(bytes) => bytes,
            _ => &[],
        }
    }

    /// Bytes of the body as it stands, of a file too; `None` for a stream, and for whatever comes later.
    pub fn body_len(&self) -> Option<usize> {
        match &self.outcome {
            Outcome::Written(_, len) => Some(*len),
            Outcome::Kept(bytes) => Some(bytes.len()),
            Outcome::File(file) => usize::try_from(file.len).ok(),
            Outcome::Pieces(_, length) => length.and_then(|length| usize::try_from(length).ok()),
            _ => None,
        }
    }

    /// Writes to the body, behind what was written before.
    ///
    /// ```
    /// use std::io::Write;
    /// use theframework::{Request, Response};
    ///
    /// fn table(_: &mut Request, response: &mut Response) -> theframework::Result {
    ///     for number in 1..=10 {
    ///         writeln!(response.body_writer(), "{number} {}", number * number)?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn body_writer(&mut self) -> impl io::Write + use<'_, 'a> {
        BodyWriter(self)
    }

    fn extend(&mut self, bytes: &[u8]) -> bool {
        let (slice, len) = match self.outcome {
            Outcome::Written(slice, len) => (slice, len),
            Outcome::Kept(_) => {
                let none = Outcome::Written(ArenaSlice::default(), 0);
                // What was set as the body comes first.
                if let Outcome::Kept(body) = std::mem::replace(&mut self.outcome, none)
                    && !self.extend(&body)
                {
                    return false;
                }
                return self.extend(bytes);
            }
            _ => (ArenaSlice::default(), 0),
        };
        let end = len + bytes.len();
        let slice = if end > slice.len() {
            let room = end.max(slice.len() * 2).max(BODY_MIN);
            match self.answering.arena.grow_stale(slice, room) {
                Ok(larger) => larger,
                Err(_) => {
                    self.is_out_of_memory = true;
                    return false;
                }
            }
        } else {
            slice
        };
        self.answering.arena.get_mut(slice)[len..end].copy_from_slice(bytes);
        self.outcome = Outcome::Written(slice, end);
        true
    }

    /// Sends the client elsewhere, with 302 unless another 3xx was set.
    ///
    /// # Errors
    /// [`HeaderError`] when CR, LF or NUL is in the address.
    pub fn redirect(&mut self, location: impl AsRef<[u8]>) -> Result<(), HeaderError> {
        self.set_header("Location", location)?;
        if !self.status.is_redirection() {
            self.status = StatusCode::FOUND;
        }
        self.clear_body();
        Ok(())
    }

    /// Sets a cookie, beside others. Allocates.
    ///
    /// ```
    /// use theframework::cookie::{Cookie, SameSite};
    /// use theframework::{Request, Response};
    ///
    /// fn sign_in(_: &mut Request, response: &mut Response) -> theframework::Result {
    ///     let cookie = Cookie::build(("session", "c0ffee"))
    ///         .path("/").http_only(true).secure(true).same_site(SameSite::Lax);
    ///     response.set_cookie(&cookie.build())?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`HeaderError`] when the name or value cannot stand in a field.
    pub fn set_cookie(&mut self, cookie: &cookie::Cookie<'_>) -> Result<(), HeaderError> {
        self.append_header("Set-Cookie", cookie.encoded().to_string())?;
        Ok(())
    }

    /// Sends a file: with ranges, conditions, validators and a content type by its suffix, window by window,
    /// without the handler and without waiting for the disk. Opening it are three system calls.
    ///
    /// # Errors
    /// 404 when there is no such regular file, 403 when it may not be read, else 500.
    pub fn send_file(&mut self, path: impl AsRef<Path>) -> Result {
        let path = path.as_ref();
        let file = open_file(path).map_err(|error| {
            let status = match error.kind() {
                io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
                io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidFilename => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Error::because(status, crate::app::reply::status_text(status), error)
        })?;
        let guess = mime_guess::from_path(path).first_raw();
        self.say_type(guess.unwrap_or("application/octet-stream"));
        self.outcome = Outcome::File(file);
        Ok(())
    }

    /// Sends pieces as the client takes them: the next is asked for when there is room. Chunked.
    ///
    /// ```
    /// use theframework::{Request, Response};
    ///
    /// fn numbers(_: &mut Request, response: &mut Response) {
    ///     response.stream((0..1_000_000).map(|number| format!("{number}\n")));
    /// }
    /// ```
    pub fn stream<I>(&mut self, pieces: I)
    where
        I: IntoIterator<Item: Into<Bytes>, IntoIter: 'static>,
    {
        let mut pieces = pieces.into_iter();
        let next = move || pieces.next().map(Into::into);
        self.outcome = Outcome::Pieces(Box::new(next), None);
    }

    /// As [`stream`](Self::stream), with a `Content-Length`. If fewer bytes come, or more, the connection
    /// ends behind what was right.
    pub fn stream_of<I>(&mut self, length: u64, pieces: I)
    where
        I: IntoIterator<Item: Into<Bytes>, IntoIter: 'static>,
    {
        let mut pieces = pieces.into_iter();
        let next = move || pieces.next().map(Into::into);
        self.outcome = Outcome::Pieces(Box::new(next), Some(length));
    }

    /// A body that is sent while it is made elsewhere, by whoever has the [`Sender`], on any thread. That
    /// the client has left is known when it has reset the connection, or something is sent.
    pub fn channel(&mut self) -> Sender {
        self.open_channel(false)
    }

    /// Server-sent events: [`Sender::event`]. `Content-Type` and `Cache-Control` are set. A client that
    /// ends its side of the connection has left.
    pub fn events(&mut self) -> Sender {
        self.say_type("text/event-stream; charset=utf-8");
        self.set_valid("Cache-Control", "no-cache");
        self.open_channel(true)
    }

    fn open_channel(&mut self, ends_with_client: bool) -> Sender {
        let sender = Sender::new(self.worker);
        self.outcome = Outcome::Channel(sender.claim(), ends_with_client);
        sender
    }

    /// Answers later: by the [`Responder`], on any thread. What was set here is kept, unless it sets the
    /// same. If it is dropped, the answer is 503, and so it is when `handler_timeout` is over.
    pub fn defer(&mut self) -> Responder {
        let responder = Responder::new(self.worker);
        self.outcome = Outcome::Deferred(responder.task());
        responder
    }

    /// Answers later with what `work` returns, which may block: it runs on a thread of the pool. If it
    /// panics, the answer is 500.
    ///
    /// ```
    /// use theframework::{Reply, Request, Response};
    ///
    /// fn slow(request: &mut Request, response: &mut Response) {
    ///     let name = request.param("name").unwrap_or_default().into_owned();
    ///     response.offload(move || {
    ///         let text = std::fs::read_to_string(format!("pages/{name}"))?;
    ///         Ok(Reply::text(text))
    ///     });
    /// }
    /// ```
    pub fn offload(&mut self, work: impl FnOnce() -> Result<Reply> + Send + 'static) {
        let responder = self.defer();
        self.worker.pool().run(move || {
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            responder.send(match worked {
                Ok(result) => result.into(),
                Err(_) => Reply::from(StatusCode::INTERNAL_SERVER_ERROR),
            });
        });
    }

    /// Whether the answer comes later, as a [`Reply`]: it was [deferred](Self::defer),
    /// [offloaded](Self::offload), or is what a [reader](Self::read_body) makes of the body.
    pub fn is_deferred(&self) -> bool {
        self.outcome.comes_later()
    }

    /// Calls `call` with the reply of an answer that [comes later](Self::is_deferred), on this loop, before it is
    /// sent; it may change the reply. Of several, the one that was given first is called first. It is dropped
    /// without a call if the handler answers by itself, or the client has gone. Allocates.
    ///
    /// ```
    /// use theframework::{App, Next, Reply, Request, Response};
    ///
    /// let app = App::new()
    ///     .middleware(|request: &mut Request, response: &mut Response, next: Next| {
    ///         next.run(request, response);
    ///         response.on_reply(|reply| println!("{} later", reply.status()));
    ///     })
    ///     .get("/", |_: &mut Request, response: &mut Response| response.offload(|| Ok(Reply::text("done"))));
    /// # drop(app);
    /// ```
    pub fn on_reply(&mut self, call: impl FnOnce(&mut Reply) + 'static) {
        self.on_reply.push(Box::new(call));
    }

    /// Takes the body piece by piece while it arrives, on a route that [streams](crate::App::streaming); the
    /// reader answers when it has ended. Without it, the body of such a route is not read.
    pub fn read_body(&mut self, reader: impl BodyReader) {
        self.outcome = Outcome::Reader(Box::new(reader));
    }

    /// Goes on as another protocol: `101 Switching Protocols` is sent, with the fields that were set, and
    /// the connection is the protocol's from there on. The [`Sender`] sends to it from anywhere.
    pub fn upgrade(&mut self, protocol: impl Protocol) -> Sender {
        self.take_over(Some(StatusCode::SWITCHING_PROTOCOLS), protocol)
    }

    /// As [`upgrade`](Self::upgrade), with another head, or none.
    pub fn take_over(&mut self, status: Option<StatusCode>, protocol: impl Protocol) -> Sender {
        let sender = Sender::new(self.worker);
        self.outcome = Outcome::TakeOver(status, Box::new(protocol), sender.claim());
        sender
    }

    /// The exchange's arena, for what a handler wants to keep until it returns without allocating: it goes when
    /// the response is made. Values are named by handles, so that the arena can be used meanwhile.
    ///
    /// ```
    /// use theframework::{Allocate, ArenaSlice, Request, Response};
    ///
    /// fn shout(request: &mut Request, response: &mut Response) -> theframework::Result {
    ///     let name = request.query();
    ///     let mut copy: ArenaSlice<u8> = response.arena().alloc_copy(name.as_bytes())?;
    ///     response.arena().get_mut(copy).make_ascii_uppercase();
    ///     copy = response.arena().grow(copy, name.len() + 1)?; // one more, which is zero
    ///     assert_eq!(response.arena().get(copy).len(), name.len() + 1);
    ///     response.text(name);
    ///     Ok(())
    /// }
    /// ```
    pub fn arena(&mut self) -> &mut Appender<'a> {
        &mut self.answering.arena
    }

    /// The loop that serves this request: timers, work elsewhere, figures.
    pub fn worker(&self) -> &'a Worker {
        self.worker
    }

    /// Answers for an error, in place of what was set: fields that say something of a body go.
    pub(crate) fn set_reply(&mut self, reply: Reply) {
        for name in ABOUT_THE_BODY {
            self.remove_valid(name);
        }
        self.has_own_type = false;
        self.status = reply.status;
        for (name, value) in &reply.fields {
            self.append_valid(name.as_str().as_bytes(), value.as_bytes());
        }
        self.outcome = Outcome::Kept(reply.body);
    }
}

impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status.as_u16())
            .finish_non_exhaustive()
    }
}

fn valid<'v>(name: &'v [u8], value: &'v [u8]) -> Result<(&'v [u8], &'v [u8]), HeaderError> {
    let invalid = |error: InvalidHeader| HeaderError::Invalid(error);
    validate_name(name).map_err(invalid)?;
    validate_value(value).map_err(invalid)?;
    Ok((name, value))
}

struct BodyWriter<'r, 'a>(&'r mut Response<'a>);

impl io::Write for BodyWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.0.extend(bytes) {
            Ok(())
        } else {
            Err(io::ErrorKind::OutOfMemory.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Clients for tests: one without a socket, and a live one.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use theframework_io::OpenFile;
use theframework_io::sim::{ClientId, Faults, Net, NoAgenda, SimDriver, SimSocket};

use crate::accept::AcceptMode;
use crate::app::app::App;
use crate::app::error::Result;
use crate::app::inbox::Inbox;
use crate::app::listener::Address;
use crate::app::pool::Pool;
use crate::app::run::Loop;
use crate::app::server::StartError;
use crate::app::stats::Published;
use crate::app::worker::Worker;
use crate::engine::Engine;
use crate::file::FileBody;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a test waits for other threads before it looks again.
const PAUSE: Duration = Duration::from_millis(1);
/// What a client's and a server's socket hold, in bytes.
const SOCKET_SIZE: usize = 256 * 1024;
const HEADERS_MAX: usize = 1024;

impl App {
    /// Answers one request, without a socket: through the very engine, parser, limits and handlers that
    /// serve, on a network in memory. State is shared with later calls; connections are not.
    ///
    /// ```
    /// use theframework::{App, Request, Response};
    ///
    /// let app = App::new().get("/hello", |_: &mut Request, response: &mut Response| response.text("hello world"));
    /// let answer = app.test(http::Request::get("/hello").body("").unwrap()).unwrap();
    /// assert_eq!(answer.status(), 200);
    /// assert_eq!(answer.body(), "hello world");
    /// ```
    ///
    /// # Errors
    /// A route that cannot be added, or no whole answer within a minute.
    pub fn test<B: Into<Bytes>>(&self, request: Request<B>) -> io::Result<Response<Bytes>> {
        TestClient::new(self)
            .map_err(io::Error::other)?
            .send(request)
    }
}

/// A server in memory, and its client: see [`App::test`]. It keeps what a loop keeps: timers, streams.
pub struct TestClient {
    this: Loop<SimDriver<Bytes>>,
    net: Rc<RefCell<Net>>,
    listener: RawFd,
    inbox: Arc<Inbox>,
}

impl TestClient {
    /// A server with an application's routes and settings.
    ///
    /// # Errors
    /// [`StartError`]: a route that cannot be added.
    pub fn new(app: &App) -> Result<Self, StartError> {
        let settings = app.settings_ref();
        let dispatch = Arc::new(app.assemble()?);
        let net = Rc::new(RefCell::new(Net::new(1, Faults::default())));
        let agenda = Rc::new(RefCell::new(NoAgenda));
        let driver = SimDriver::new(&net, agenda, settings.receive_buffers)
            .map_err(|error| StartError::Loop(error.to_string()))?;
        let router = Rc::new(dispatch.router.clone());
        let mut engine = Engine::new(driver, settings.config.clone(), router);
        let listener = net.borrow_mut().listen();
        engine.listen(SimSocket::new(&net, listener), AcceptMode::Own);
        let inbox = Arc::new(Inbox::new().map_err(StartError::System)?);
        let pool = Arc::new(Pool::new(settings.offload_threads));
        let worker = Worker::new(0, Arc::clone(&inbox), pool, Arc::new(Published::default()));
        let files = Rc::clone(&net);
        let own_file = Box::new(move |file: OpenFile| {
            let mut bytes = Vec::new();
            std::fs::File::from(file.file)
                .read_to_end(&mut bytes)
                .ok()?;
            let fd = files.borrow_mut().open(bytes);
            Some(FileBody {
                file: SimSocket::new(&files, fd),
                len: file.len,
                modified: file.modified,
            })
        });
        Ok(TestClient {
            this: Loop::new(engine, worker, dispatch, own_file, false),
            net,
            listener,
            inbox,
        })
    }

    /// Sends a request on a connection of its own, and waits for the answer. `Host` and `Content-Length` are
    /// added where they are missing.
    ///
    /// # Errors
    /// The connection ended before the answer was whole, or a minute has passed.
    pub fn send<B: Into<Bytes>>(&mut self, request: Request<B>) -> io::Result<Response<Bytes>> {
        let (is_head, bytes) = request_bytes(request);
        self.exchange(&bytes, is_head)
    }

    /// As [`send`](Self::send), with the bytes of a request as they are, right or wrong.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<Response<Bytes>> {
        self.exchange(bytes, bytes.starts_with(b"HEAD "))
    }

    fn exchange(&mut self, bytes: &[u8], is_head: bool) -> io::Result<Response<Bytes>> {
        let client = self
            .net
            .borrow_mut()
            .connect(self.listener, SOCKET_SIZE, SOCKET_SIZE)
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        let answered = self.wait_for_answer(client, bytes, is_head);
        self.net.borrow_mut().client_close(client);
        self.turn(false)?;
        answered
    }

    fn wait_for_answer(
        &mut self,
        client: ClientId,
        mut bytes: &[u8],
        is_head: bool,
    ) -> io::Result<Response<Bytes>> {
        let began = Instant::now();
        let mut got = Vec::new();
        while began.elapsed() < PATIENCE {
            let sent = self.net.borrow_mut().client_send(client, bytes);
            bytes = &bytes[sent..];
            let has_worked = self.turn(sent == 0)?;
            let read = self
                .net
                .borrow_mut()
                .client_read(client, usize::MAX, &mut got);
            let has_ended = read.is_end || read.is_reset;
            if let Some((response, _)) = parse(&got, is_head, has_ended)? {
                return Ok(response);
            }
            if has_ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !has_worked && sent == 0 && read.len == 0 {
                self.pause();
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn turn(&mut self, reads_inbox: bool) -> io::Result<bool> {
        if reads_inbox {
            self.this.read_inbox();
        }
        let failed = |errno| io::Error::other(format!("{errno:?}"));
        self.this.turn(false).map_err(failed)
    }

    /// Lets real time pass: other threads may work meanwhile, and timers count it.
    fn pause(&mut self) {
        let began = Instant::now();
        self.inbox.wait(PAUSE);
        let passed_us = began.elapsed().as_micros() as u64;
        self.net.borrow_mut().pass(passed_us.max(1));
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").finish_non_exhaustive()
    }
}

/// A client of a server that runs: one connection, kept alive, one request at a time.
///
/// ```
/// use theframework::{App, LiveClient, Request, Response};
///
/// let server = App::new()
///     .get("/", |_: &mut Request, response: &mut Response| response.text("live"))
///     .bind("127.0.0.1:0").unwrap()
///     .start().unwrap();
/// let mut client = LiveClient::connect(&server.addresses()[0]).unwrap();
/// let answer = client.send(http::Request::get("/").body("").unwrap()).unwrap();
/// assert_eq!(answer.body(), "live");
/// server.stop();
/// server.join().unwrap();
/// ```
pub struct LiveClient {
    stream: Box<dyn Stream>,
    got: Vec<u8>,
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

impl LiveClient {
    /// Connects. What a minute passes over is an error.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(address: &Address) -> io::Result<Self> {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(LiveClient {
            stream,
            got: Vec::new(),
        })
    }

    /// Sends a request, and waits for the answer. `Host` and `Content-Length` are added where they are
    /// missing.
    ///
    /// # Errors
    /// The system's, or the connection ended before the answer was whole.
    pub fn send<B: Into<Bytes>>(&mut self, request: Request<B>) -> io::Result<Response<Bytes>> {
        let (is_head, bytes) = request_bytes(request);
        self.stream.write_all(&bytes)?;
        let mut piece = vec![0; 64 * 1024];
        let mut has_ended = false;
        loop {
            if let Some((response, len)) = parse(&self.got, is_head, has_ended)? {
                self.got.drain(..len);
                return Ok(response);
            }
            if has_ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = match self.stream.read(&mut piece) {
                // A ring that was let go of interrupts, like a signal, the thread that made it.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            has_ended = count == 0;
            self.got.extend_from_slice(&piece[..count]);
        }
    }

    /// What has come behind the last answer, and the connection: for what is no HTTP any more.
    pub fn into_parts(self) -> (Vec<u8>, Box<dyn ReadWrite>) {
        (self.got, Box::new(Both(self.stream)))
    }
}

/// Both ways of a connection.
pub trait ReadWrite: Read + Write + Send {}

struct Both(Box<dyn Stream>);

impl ReadWrite for Both {}

impl Read for Both {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl fmt::Debug for LiveClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveClient").finish_non_exhaustive()
    }
}

fn request_bytes<B: Into<Bytes>>(request: Request<B>) -> (bool, Vec<u8>) {
    let (mut parts, body) = request.into_parts();
    let body: Bytes = body.into();
    parts
        .headers
        .entry(HOST)
        .or_insert(HeaderValue::from_static("test"));
    let is_framed = parts.headers.contains_key(TRANSFER_ENCODING);
    let may_have_body = !matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
    if !is_framed && (may_have_body || !body.is_empty()) {
        parts
            .headers
            .entry(CONTENT_LENGTH)
            .or_insert(HeaderValue::from(body.len()));
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let mut bytes = format!("{} {target} HTTP/1.1\r\n", parts.method).into_bytes();
    for (name, value) in &parts.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    (parts.method == Method::HEAD, bytes)
}

/// The first final response in `bytes`, and how long it is, interim ones before it included; none while it
/// is incomplete.
fn parse(
    bytes: &[u8],
    is_head: bool,
    has_ended: bool,
) -> io::Result<Option<(Response<Bytes>, usize)>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut start = 0;
    loop {
        let mut fields = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let parsed = head.parse(&bytes[start..]);
        let parsed = parsed.map_err(|error| invalid(&error.to_string()))?;
        let httparse::Status::Complete(len) = parsed else {
            return Ok(None);
        };
        let body = &bytes[start + len..];
        let status = StatusCode::from_u16(head.code.unwrap_or_default())
            .map_err(|_| invalid("no status"))?;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            start += len;
            continue;
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        for field in head.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                response.headers_mut().append(name, value);
            }
        }
        let has_body = !is_head && !matches!(status.as_u16(), 101 | 204 | 304);
        let length = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let (content, body_len) = if !has_body {
            (Bytes::new(), 0)
        } else if response.headers().contains_key(TRANSFER_ENCODING) {
            match dechunked(body)? {
                Some((content, len)) => (content.into(), len),
                None => return Ok(None),
            }
        } else if let Some(length) = length {
            match body.get(..length) {
                Some(content) => (Bytes::copy_from_slice(content), length),
                None => return Ok(None),
            }
        } else if has_ended {
            (Bytes::copy_from_slice(body), body.len())
        } else {
            return Ok(None);
        };
        *response.body_mut() = content;
        return Ok(Some((response, start + len + body_len)));
    }
}

/// A whole chunked body, and its length on the wire; none while it is incomplete.
fn dechunked(mut rest: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a bad chunk");
    let all = rest.len();
    let mut content = Vec::new();
    loop {
        let (at, size) = match httparse::parse_chunk_size(rest).map_err(|_| invalid())? {
            httparse::Status::Complete(found) => found,
            httparse::Status::Partial => return Ok(None),
        };
        let size = usize::try_from(size).map_err(|_| invalid())?;
        let end = at + size;
        match rest.get(end..end + 2) {
            Some(b"\r\n") => content.extend_from_slice(&rest[at..end]),
            Some(_) => return Err(invalid()),
            None => return Ok(None),
        }
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(Some((content, all - rest.len())));
        }
    }
}

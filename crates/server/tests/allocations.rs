//! Steady state allocates nothing: 100,000 keep-alive requests through each real driver, with a
//! handler in Rust, counted by the global allocator. The clients are threads of this process; they
//! allocate nothing either, so what is counted is the engine's.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use theframework::Config;
use theframework::engine::{AcceptMode, Body, Engine, Route, Router};
use theframework_io::{Driver, PollConfig, PollDriver, UringConfig, UringDriver};
use theframework_memory::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

type StaticBody = &'static [u8];

static LARGE: [u8; 20_000] = [b'x'; 20_000];

fn engine<D>(driver: D, listener: TcpListener) -> Engine<D, StaticBody>
where
    D: Driver<StaticBody, Socket = OwnedFd>,
{
    let mut router = Router::new();
    router.add("/users/{id}", "GET", 0).unwrap();
    router.add("/upload", "POST", 1).unwrap();
    router.add("/large", "GET", 2).unwrap();
    let mut engine = Engine::new(driver, Config::default(), Rc::new(router));
    listener.set_nonblocking(true).unwrap();
    engine.listen(OwnedFd::from(listener), AcceptMode::Own);
    engine
}

fn serve<D: Driver<StaticBody>>(engine: &mut Engine<D, StaticBody>) {
    while let Some(id) = engine.next_ready() {
        let (route, answer) = {
            let view = engine.request(id).unwrap();
            let mut answer = [0_u8; 64];
            let text = match view.route() {
                Route::Endpoint(0) => {
                    assert!(view.header("host").is_some());
                    view.param(0).unwrap()
                }
                Route::Endpoint(1) => &view.body()[..view.body().len().min(60)],
                _ => b"",
            };
            answer[..text.len()].copy_from_slice(text);
            (view.route(), (answer, text.len()))
        };
        engine
            .set_field(id, b"Content-Type", b"text/plain", true)
            .unwrap();
        match route {
            Route::Endpoint(2) => engine.respond(id, 200, Body::Kept(&LARGE)),
            Route::Endpoint(_) => engine.respond(id, 200, Body::Copied(&answer.0[..answer.1])),
            _ => engine.respond(id, 404, Body::Copied(b"")),
        };
        while engine.take_released().is_some() {}
    }
}

struct Load {
    connections: usize,
    request: Vec<u8>,
    /// The length of one response, found by the first exchange.
    response_len: usize,
    requests: usize,
}

/// Reads one whole response and returns its length.
fn first_response(stream: &mut TcpStream, request: &[u8]) -> usize {
    stream.write_all(request).unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&got);
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        if let Some(end) = text.find("\r\n\r\n") {
            let lower = text.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if got.len() == end + 4 + length {
                return got.len();
            }
        }
    }
}

/// All connections ask, then all read, until `rounds` are over.
fn rounds(streams: &mut [TcpStream], load: &Load, rounds: usize, buffer: &mut [u8]) {
    for _ in 0..rounds {
        for stream in streams.iter_mut() {
            stream.write_all(&load.request).unwrap();
        }
        for stream in streams.iter_mut() {
            stream.read_exact(&mut buffer[..load.response_len]).unwrap();
        }
    }
}

fn uring() -> UringDriver<StaticBody> {
    UringDriver::new(&UringConfig::default()).unwrap()
}

fn poll() -> PollDriver<StaticBody> {
    PollDriver::new(&PollConfig::default()).unwrap()
}

fn allocations_of<D>(
    driver: fn() -> D,
    connections: usize,
    requests: usize,
    request: Vec<u8>,
) -> (u64, usize)
where
    D: Driver<StaticBody, Socket = OwnedFd> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let is_slow = Arc::new(AtomicBool::new(true));
    let server = {
        let done = Arc::clone(&done);
        let is_slow = Arc::clone(&is_slow);
        std::thread::spawn(move || {
            let mut engine = engine(driver(), listener);
            while !done.load(Ordering::Relaxed) {
                if is_slow.load(Ordering::Relaxed) {
                    // Every connection's request waits by then.
                    std::thread::sleep(Duration::from_millis(5));
                }
                engine.turn(true).unwrap();
                serve(&mut engine);
            }
            engine.abort();
        })
    };
    let mut streams: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        })
        .collect();
    let response_len = first_response(&mut streams[0], &request);
    let load = Load {
        connections,
        request,
        response_len,
        requests,
    };
    let mut buffer = vec![0; response_len];
    // Warm: every pool reaches the size that this load needs at most, all requests at once, and then
    // what the usual pace needs.
    rounds(&mut streams, &load, 20, &mut buffer);
    is_slow.store(false, Ordering::Relaxed);
    let usual = 10_000_usize.div_ceil(connections).max(20);
    rounds(&mut streams, &load, usual, &mut buffer);
    let before = ALLOCATOR.counts();
    let count = load.requests / load.connections;
    rounds(&mut streams, &load, count, &mut buffer);
    let after = ALLOCATOR.counts();
    served.store(count * connections, Ordering::Relaxed);
    done.store(true, Ordering::Relaxed);
    // Wakes the loop.
    let _ = streams[0].write_all(&load.request);
    drop(streams);
    server.join().unwrap();
    let made =
        (after.allocations + after.reallocations) - (before.allocations + before.reallocations);
    (made, served.load(Ordering::Relaxed))
}

fn with_headers(first: &str, fields: usize, body: &str) -> Vec<u8> {
    let mut request = format!("{first}\r\nHost: localhost\r\n");
    for index in 1..fields {
        request.push_str(&format!(
            "X-Header-Number-{index}: value of header {index}\r\n"
        ));
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body);
    request.into_bytes()
}

/// One test: the allocator counts for the whole process.
#[test]
fn steady_state_allocates_nothing() {
    let small = "x".repeat(500);
    let large = "y".repeat(30_000);
    let chunked = b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\n\r\n";
    let all = &[1, 64, 1000][..];
    let cases = [
        (
            "20 headers",
            100_000,
            all,
            with_headers("GET /users/7%20x?a=b HTTP/1.1", 20, ""),
        ),
        (
            "body of 500 bytes",
            100_000,
            &[64],
            with_headers("POST /upload HTTP/1.1", 3, &small),
        ),
        (
            "body of 30,000 bytes",
            10_000,
            &[64],
            with_headers("POST /upload HTTP/1.1", 3, &large),
        ),
        (
            "answer of 20,000 bytes",
            10_000,
            &[64],
            with_headers("GET /large HTTP/1.1", 3, ""),
        ),
        ("chunked body", 10_000, &[64], chunked.to_vec()),
    ];
    let mut failed = Vec::new();
    for (name, requests, connections, request) in cases {
        for &connections in connections {
            for (driver, (made, served)) in [
                (
                    "io_uring",
                    allocations_of(uring, connections, requests, request.clone()),
                ),
                (
                    "poll",
                    allocations_of(poll, connections, requests, request.clone()),
                ),
            ] {
                let result = format!("{driver}, {name}, {connections} connections: {made}");
                println!("{result} allocations in {served} requests");
                if made * 1000 >= served as u64 {
                    failed.push(format!("{result} in {served}"));
                }
            }
        }
    }
    assert!(
        failed.is_empty(),
        "allocations in steady state: {failed:#?}"
    );
}

//! Two engines on threads of their own share a listener and tell each other their load, as workers do,
//! while client threads ask, pipeline, dribble, upload and reset. Every answer is checked whole.
//!
//! The workers of a server are processes, and an engine is never shared; what threads do share here is
//! the listener, the load, and the counting allocator. `make sanitize` runs this under AddressSanitizer
//! and ThreadSanitizer.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use theframework::Config;
use theframework::engine::{AcceptMode, Body, Engine, ExchangeId, PeerSlot, Router, SlotPeers};
use theframework_io::{UringConfig, UringDriver};
use theframework_memory::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const WORKERS: usize = 2;
const CLIENTS: usize = 6;
const ROUNDS: usize = 40;

type Kept = Box<[u8]>;
type TestEngine = Engine<UringDriver<Kept>, Kept>;

fn engine(listener: TcpListener, slots: Arc<[PeerSlot]>, own: usize) -> TestEngine {
    let mut router = Router::new();
    router.add("/echo/{id}", "POST", 0).unwrap();
    router.add("/later/{id}", "GET", 1).unwrap();
    let driver = UringDriver::new(&UringConfig::default()).unwrap();
    let mut engine = Engine::new(driver, Config::default(), Rc::new(router));
    engine.set_peers(Box::new(SlotPeers::new(slots, own).unwrap()));
    listener.set_nonblocking(true).unwrap();
    engine.listen(listener.into(), AcceptMode::Shared);
    engine
}

/// What the answer to a request is: its parameter, then its body backwards.
fn answer_to(id: &[u8], body: &[u8]) -> Vec<u8> {
    id.iter().chain(body.iter().rev()).copied().collect()
}

fn respond(engine: &mut TestEngine, id: ExchangeId) {
    let Some(view) = engine.request(id) else {
        return;
    };
    let answer = answer_to(view.param(0).unwrap_or_default(), view.body());
    engine
        .set_field(id, b"X-Length", answer.len().to_string().as_bytes(), true)
        .unwrap();
    let body = if answer.len() > 3000 {
        Body::Kept(answer.into_boxed_slice())
    } else {
        Body::Copied(&answer)
    };
    engine.respond(id, 200, body);
}

/// Serves until told to stop; handlers of `/later` wait a millisecond.
fn serve(engine: &mut TestEngine, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        engine.set_timer(engine.clock_us() + 20_000, 0);
        engine.turn(true).unwrap();
        while let Some(due) = engine.next_due() {
            if due != 0 {
                respond(engine, ExchangeId::from_u64(due));
            }
        }
        while let Some(id) = engine.next_ready() {
            let waits = engine
                .request(id)
                .is_some_and(|view| view.target().starts_with(b"/later"));
            if waits {
                engine.set_timer(engine.clock_us() + 1_000, id.to_u64());
                engine.park(id);
            } else {
                respond(engine, id);
            }
        }
        while engine.take_released().is_some() {}
    }
    engine.abort();
}

/// Reads one response and returns its body.
fn read_response(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    let length = |name: &str| -> usize {
        let value = head.split(name).nth(1).unwrap();
        value.split("\r\n").next().unwrap().parse().unwrap()
    };
    assert_eq!(length("\r\ncontent-length: "), length("\r\nx-length: "));
    let mut body = vec![0; length("\r\ncontent-length: ")];
    stream.read_exact(&mut body).unwrap();
    body
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(700) {
        out.extend(format!("{:x}\r\n", chunk.len()).bytes());
        out.extend([chunk, b"\r\n"].concat());
    }
    out.extend(b"0\r\n\r\n");
    out
}

fn post(id: usize, body: &[u8], is_chunked: bool) -> Vec<u8> {
    let (framing, body) = if is_chunked {
        ("Transfer-Encoding: chunked".to_owned(), chunked(body))
    } else {
        (format!("Content-Length: {}", body.len()), body.to_vec())
    };
    let head = format!("POST /echo/{id} HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n");
    [head.as_bytes(), &body].concat()
}

fn get(id: usize) -> Vec<u8> {
    format!("GET /later/{id} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

/// One client's requests, in its own order.
fn ask(address: SocketAddr, client: usize) {
    let mut stream = connect(address);
    for round in 0..ROUNDS {
        let id = client * 1000 + round;
        let name = id.to_string();
        let body: Vec<u8> = (0..round * 37 % 9000)
            .map(|byte| (byte * id) as u8)
            .collect();
        match (client + round) % 6 {
            0 => {
                // Several at once, the later ones before the first is answered.
                let all = [
                    get(id),
                    post(id, &body, false),
                    get(id),
                    post(id, &body, true),
                ];
                stream.write_all(&all.concat()).unwrap();
                for expected in [&b""[..], &body, b"", &body] {
                    assert_eq!(
                        read_response(&mut stream),
                        answer_to(name.as_bytes(), expected)
                    );
                }
            }
            1 => {
                for piece in post(id, &body, true).chunks(333) {
                    stream.write_all(piece).unwrap();
                    std::thread::yield_now();
                }
                assert_eq!(
                    read_response(&mut stream),
                    answer_to(name.as_bytes(), &body)
                );
            }
            2 => {
                // Received into its final place, and sent from where it is.
                let body = vec![b'x'; 150_000];
                stream.write_all(&post(id, &body, false)).unwrap();
                assert_eq!(
                    read_response(&mut stream),
                    answer_to(name.as_bytes(), &body)
                );
            }
            3 => {
                // Gone in the middle of a body, of a wait, or before the answer is read.
                let mut lost = connect(address);
                let request = if round % 2 == 0 {
                    get(id)
                } else {
                    post(id, &body, false)
                };
                let sent = request.len() - round % 3;
                lost.write_all(&request[..sent]).unwrap();
                drop(lost);
            }
            _ => {
                stream.write_all(&post(id, &body, false)).unwrap();
                assert_eq!(
                    read_response(&mut stream),
                    answer_to(name.as_bytes(), &body)
                );
            }
        }
        if round % 10 == 9 {
            stream = connect(address);
        }
    }
}

#[test]
fn client_threads_get_their_own_answers_from_two_engines() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let slots: Arc<[PeerSlot]> = (0..WORKERS).map(|_| PeerSlot::default()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|own| {
                let (listener, slots, stop) =
                    (listener.try_clone().unwrap(), Arc::clone(&slots), &stop);
                scope.spawn(move || {
                    let mut engine = engine(listener, slots, own);
                    serve(&mut engine, stop);
                    engine.stats().requests
                })
            })
            .collect();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || ask(address, client)))
            .collect();
        let results: Vec<_> = clients
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        stop.store(true, Ordering::Relaxed);
        let served: u64 = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum();
        for result in results {
            result.unwrap();
        }
        assert!(
            served as usize >= CLIENTS * ROUNDS * 4 / 6,
            "{served} requests"
        );
    });
    assert!(ALLOCATOR.counts().allocations > 0);
}

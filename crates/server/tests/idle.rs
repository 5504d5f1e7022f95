//! What an idle connection costs: live bytes of the engine and its driver by the counting allocator,
//! with 10,000 connections that have each been served once and wait for their next request.
//!
//! It is counted as growth, and against an engine that was made for 64 connections and has none, so
//! that memory taken at the start counts too.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use theframework::Config;
use theframework::engine::{AcceptMode, Body, Engine, Router};
use theframework_io::{Driver, PollConfig, PollDriver, UringConfig, UringDriver};
use theframework_memory::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

type Kept = &'static [u8];

const CONNECTIONS: usize = 10_000;
/// DESIGN §9: user memory per idle connection of the Rust face, in bytes.
const BYTES_MAX: u64 = 256;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: somebody\r\n\r\n";

fn engine<D: Driver<Kept, Socket = OwnedFd>>(
    driver: D,
    listener: TcpListener,
    max_connections: usize,
) -> Engine<D, Kept> {
    let mut router = Router::new();
    router.add("/", "GET", 0).unwrap();
    let config = Config {
        max_connections,
        ..Config::default()
    };
    let mut engine = Engine::new(driver, config, Rc::new(router));
    listener.set_nonblocking(true).unwrap();
    engine.listen(OwnedFd::from(listener), AcceptMode::Own);
    engine
}

fn run<D: Driver<Kept, Socket = OwnedFd>>(engine: &mut Engine<D, Kept>, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        engine.turn(true).unwrap();
        while let Some(id) = engine.next_ready() {
            engine.respond(id, 200, Body::Copied(b"hello"));
        }
    }
    engine.abort();
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(REQUEST).unwrap();
    let mut answer = [0; 512];
    let len = stream.read(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer[..len]);
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nhello"),
        "{text}"
    );
}

/// The clients, in a process of their own: their descriptors and memory are not the server's. Each
/// asks once, and again when a line comes in.
fn be_the_clients(address: &str) {
    let count: usize = std::env::var("IDLE_COUNT").unwrap().parse().unwrap();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        ask(&mut stream);
        streams.push(stream);
    }
    println!("IDLE");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    streams.iter_mut().for_each(ask);
    println!("AGAIN");
}

/// Live bytes that serving `count` connections has brought, all of them idle; then each is asked
/// again.
fn with_idle<D: Driver<Kept, Socket = OwnedFd> + 'static>(
    driver: fn() -> D,
    max_connections: usize,
    count: usize,
) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let before = ALLOCATOR.counts().live_bytes;
    let server = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut engine = engine(driver(), listener, max_connections);
            run(&mut engine, &done);
        })
    };
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "an_idle_connection_costs_at_most_256_bytes",
            "--nocapture",
        ])
        .env("IDLE_CLIENTS_OF", address.to_string())
        .env("IDLE_COUNT", count.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(clients.stdout.take().unwrap()).lines();
    let mut hear = |word: &str| assert!(said.any(|line| line.unwrap().ends_with(word)), "{word}");
    hear("IDLE");
    let live = ALLOCATOR.counts().live_bytes - before;
    clients.stdin.take().unwrap().write_all(b"\n").unwrap();
    hear("AGAIN");
    assert!(clients.wait().unwrap().success());
    done.store(true, Ordering::Relaxed);
    // Wakes the loop.
    drop(TcpStream::connect(address));
    server.join().unwrap();
    live
}

fn measure<D: Driver<Kept, Socket = OwnedFd> + 'static>(name: &str, driver: fn() -> D) {
    let at_rest = with_idle(driver, 64, 1);
    let live = with_idle(driver, CONNECTIONS + 100, CONNECTIONS);
    let each = live.saturating_sub(at_rest) / CONNECTIONS as u64;
    println!(
        "{name}: {each} bytes for each of {CONNECTIONS} idle connections \
         ({live} live, {at_rest} with one connection and room for 64)"
    );
    assert!(
        each <= BYTES_MAX,
        "{name}: {each} bytes for an idle connection"
    );
}

/// One test: the allocator counts for the whole process.
#[test]
fn an_idle_connection_costs_at_most_256_bytes() {
    if let Ok(address) = std::env::var("IDLE_CLIENTS_OF") {
        return be_the_clients(&address);
    }
    measure("io_uring", || {
        UringDriver::new(&UringConfig::default()).unwrap()
    });
    measure("poll", || PollDriver::new(&PollConfig::default()).unwrap());
}

//! A request through the whole face for Rust allocates nothing: a route with parameters, three middlewares,
//! fields, a query, a JSON response of a prepared value; 100,000 of them on each driver, counted by the
//! global allocator. The clients are threads of this process that allocate nothing either.
//!
//! Pools grow while peaks come that were not there before, each by what one more connection needs at once;
//! so it is counted again until they have ended. If requests allocate, no run is without.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use theframework::{Address, App, DriverKind, Next, Remote, Request, Response, Settings};
use theframework_memory::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const REQUESTS: usize = 100_000;
const RUNS_MAX: usize = 30;

#[derive(serde::Serialize)]
struct Answer<'a> {
    user: &'a str,
    page: &'a str,
    agent: &'a str,
    numbers: [u32; 8],
}

fn through(
    request: &mut Request<'_>,
    response: &mut Response<'_>,
    next: Next<'_>,
) -> theframework::Result {
    assert_eq!(request.header("host"), Some("localhost"));
    next.run(request, response);
    response.append_header("X-Seen", "yes")?;
    Ok(())
}

fn user(request: &mut Request<'_>, response: &mut Response<'_>) -> theframework::Result {
    let (user, page) = (request.param("id"), request.query_value("page"));
    response.json(&Answer {
        user: user.as_deref().unwrap_or_default(),
        page: page.as_deref().unwrap_or_default(),
        agent: request.header("user-agent").unwrap_or_default(),
        numbers: [1, 2, 3, 4, 5, 6, 7, 8],
    })
}

fn app() -> App {
    App::new()
        .middleware(through)
        .middleware(through)
        .group("/api", |group| {
            group.middleware(through).get("/users/{id}/{*rest}", user)
        })
        .post("/len", |request: &mut Request, response: &mut Response| {
            response.text(if request.body().len() == 500 {
                "500"
            } else {
                "?"
            });
        })
        .get("/large", |_: &mut Request, response: &mut Response| {
            static LARGE: [u8; 20_000] = [b'x'; 20_000];
            response.set_body(&LARGE[..]);
        })
}

fn requests() -> Vec<(&'static str, usize, Vec<u8>)> {
    let mut typical = String::from(
        "GET /api/users/7/a/b?page=3&sort=name HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a client\r\n",
    );
    for number in 0..17 {
        typical.push_str(&format!("X-Header-{number}: value {number}\r\n"));
    }
    let body = "x".repeat(500);
    vec![
        ("typical", REQUESTS, (typical + "\r\n").into_bytes()),
        (
            "body of 500 bytes",
            REQUESTS / 4,
            format!("POST /len HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{body}")
                .into_bytes(),
        ),
        (
            "answer of 20,000 bytes",
            REQUESTS / 10,
            b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        (
            "no route",
            REQUESTS / 10,
            b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
    ]
}

/// All connections ask, then all read.
fn rounds(streams: &mut [TcpStream], request: &[u8], answer: &mut [u8], rounds: usize) {
    for _ in 0..rounds {
        for stream in streams.iter_mut() {
            stream.write_all(request).unwrap();
        }
        for stream in streams.iter_mut() {
            stream.read_exact(answer).unwrap();
        }
    }
}

fn first_answer(stream: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).unwrap();
    let mut got = vec![0; 100_000];
    let mut len = 0;
    // Whole when nothing more comes: the next answer would only be asked for then.
    loop {
        len += stream.read(&mut got[len..]).unwrap();
        let text = String::from_utf8_lossy(&got[..len]);
        let length = text.split("Content-Length: ").nth(1);
        let length: Option<usize> = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if let (Some(head), Some(length)) = (text.find("\r\n\r\n"), length)
            && len == head + 4 + length
        {
            got.truncate(len);
            return got;
        }
    }
}

fn made() -> u64 {
    let counts = ALLOCATOR.counts();
    counts.allocations + counts.reallocations
}

/// One test: the allocator counts for the whole process.
#[test]
fn a_request_through_routes_middleware_and_json_allocates_nothing() {
    let mut failed = Vec::new();
    for driver in [DriverKind::IoUring, DriverKind::Poll] {
        let remote: Arc<Mutex<Option<Remote>>> = Arc::default();
        let keeps = Arc::clone(&remote);
        let app = app().on_start(move |worker| *keeps.lock().unwrap() = Some(worker.remote()));
        let settings = Settings {
            driver: Some(driver),
            ..Settings::default()
        };
        let server = app
            .settings(settings)
            .bind("127.0.0.1:0")
            .unwrap()
            .start()
            .unwrap();
        let Address::Tcp(address) = server.addresses()[0] else {
            panic!("not TCP");
        };
        for (name, count, request) in requests() {
            let all: &[usize] = if name == "typical" {
                &[1, 64, 500]
            } else {
                &[64]
            };
            for &connections in all {
                let mut streams: Vec<_> = (0..connections)
                    .map(|_| {
                        let stream = TcpStream::connect(address).unwrap();
                        stream.set_nodelay(true).unwrap();
                        stream
                    })
                    .collect();
                let mut answer = first_answer(&mut streams[0], &request);
                let status = if name == "no route" { "404" } else { "200" };
                assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
                for _ in 0..20 {
                    // The loop is busy meanwhile: every connection's request waits by then.
                    let remote = remote.lock().unwrap().clone().unwrap();
                    remote.call(|_| std::thread::sleep(Duration::from_millis(10)));
                    rounds(&mut streams, &request, &mut answer, 1);
                }
                rounds(&mut streams, &request, &mut answer, 3000 / connections + 20);
                let mut runs = Vec::new();
                while runs.len() < RUNS_MAX && runs.last() != Some(&0) {
                    let before = made();
                    rounds(&mut streams, &request, &mut answer, count / connections);
                    runs.push(made() - before);
                }
                let driver = driver.name();
                println!(
                    "{driver}, {name}, {connections} connections: {runs:?} allocations in {count} requests each"
                );
                if runs.last() != Some(&0) {
                    failed.push(format!(
                        "{driver}, {name}, {connections} connections: {runs:?}"
                    ));
                }
            }
        }
        server.stop();
        server.join().unwrap();
    }
    assert!(
        failed.is_empty(),
        "allocations in steady state: {failed:#?}"
    );
}

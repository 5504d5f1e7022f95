//! The examples do what their heads say: each is started as a program of its own on a free port, driven over
//! sockets, and stopped by SIGTERM, which it has to obey within five seconds.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use http::{Request, Response};
use theframework::{Address, Bytes, LiveClient};

const PATIENCE: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(5);

/// An example that runs.
struct Example {
    process: Child,
    address: SocketAddr,
    /// Kept open: a program that prints into a closed pipe dies of it.
    output: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str) -> Self {
        Self::start_with(name, None)
    }

    fn start_with(name: &str, more: Option<&Path>) -> Self {
        // Beside `deps`, where this test is.
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.pop();
        let program: PathBuf = program.join("examples").join(name);
        let process = Command::new(&program)
            .arg("127.0.0.1:0")
            .args(more)
            .stdout(Stdio::piped())
            .spawn();
        let mut process = process.unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo build --examples`", program.display())
        });
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ");
        let address = address.unwrap_or_else(|| panic!("{name} said {line:?}"));
        Example {
            address: address.parse().unwrap(),
            process,
            output,
        }
    }

    fn client(&self) -> LiveClient {
        LiveClient::connect(&Address::Tcp(self.address)).unwrap()
    }

    fn send(&self, request: http::request::Builder, body: &str) -> Response<Bytes> {
        let request: Request<Bytes> = request.body(body.to_owned().into()).unwrap();
        self.client().send(request).unwrap()
    }

    fn get(&self, target: &str) -> (u16, String) {
        said(self.send(Request::get(target), ""))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Stops it, and says what else it has printed.
    fn stop(mut self) -> String {
        let command = format!("kill -TERM {}", self.process.id());
        let told = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(told.success());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < STOP_MAX, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}");
        let mut printed = String::new();
        self.output.read_to_string(&mut printed).unwrap();
        printed
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // After a test that failed; otherwise it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn said(response: Response<Bytes>) -> (u16, String) {
    let body = String::from_utf8(response.body().to_vec()).unwrap();
    (response.status().as_u16(), body)
}

fn ok(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

/// Reads lines until one is this.
fn read_until(lines: &mut impl BufRead, wanted: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let mut line = String::new();
        let count = lines.read_line(&mut line);
        assert!(
            matches!(count, Ok(1..)),
            "{count:?} after {} lines: {:?}",
            seen.len(),
            seen.last()
        );
        let line = line.trim_end().to_owned();
        if line == wanted {
            return seen;
        }
        seen.push(line);
    }
}

#[test]
fn hello_answers_with_parameters_queries_forms_and_json() {
    let example = Example::start("hello");
    assert_eq!(example.get("/"), ok("hello world\n"));
    assert_eq!(example.get("/hello/ann"), ok("Hello, ann!\n"));
    assert_eq!(
        example.get("/hello/ann?greeting=Welcome"),
        ok("Welcome, ann!\n")
    );
    let json = || Request::post("/double").header("Content-Type", "application/json");
    assert_eq!(
        said(example.send(json(), r#"{"number": 21}"#)),
        ok(r#"{"doubled":42}"#)
    );
    let (status, text) = said(example.send(json(), r#"{"number": "many"}"#));
    assert_eq!(status, 400);
    assert!(text.starts_with("the body: invalid type"), "{text}");
    let large = format!(r#"{{"number": {}}}"#, i64::MAX);
    assert_eq!(
        said(example.send(json(), &large)),
        (400, "the number is too large\n".to_owned())
    );
    assert_eq!(
        example
            .send(Request::post("/double"), "{}")
            .status()
            .as_u16(),
        415
    );
    let form = Request::post("/greet").header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(
        said(example.send(form, "name=ben+b&times=2")),
        ok("Hello, ben b!\nHello, ben b!\n")
    );
    assert_eq!(example.get("/nowhere"), (404, "404 Not Found\n".to_owned()));
    let refused = example.send(Request::delete("/"), "");
    assert_eq!(refused.status(), 405);
    assert_eq!(refused.headers()["allow"], "GET, HEAD");
    example.stop();
}

#[test]
fn streaming_counts_uploads_sends_numbers_and_ticks() {
    let example = Example::start("streaming");
    let upload = "line\n".repeat(1_000_000);
    assert_eq!(
        said(example.send(Request::post("/upload"), &upload)),
        ok(r#"{"bytes":5000000,"lines":1000000}"#)
    );
    // In chunks, as curl sends what it reads from a pipe.
    let mut stream = example.connect();
    let head = "POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..1000 {
        stream.write_all(b"4\r\na\nb\n\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with(r#"{"bytes":4000,"lines":2000}"#),
        "{answer}"
    );

    let numbers: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(example.get("/numbers?to=1000000"), ok(&numbers));
    assert_eq!(example.get("/numbers?to=many").0, 400);

    // Listeners on both loops; the last one stays while it is stopped.
    let mut listeners: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = example.connect();
            stream
                .write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            BufReader::new(stream)
        })
        .collect();
    for listener in &mut listeners {
        let head = read_until(listener, "").join("\n");
        assert!(head.contains("text/event-stream"), "{head}");
        read_until(listener, "data: welcome");
        read_until(listener, "event: tick");
        read_until(listener, "data: tick");
        read_until(listener, "data: tock");
        read_until(listener, "event: tick");
    }
    let last = listeners.pop();
    drop(listeners);
    example.stop();
    drop(last);
}

#[test]
fn blocking_answers_others_meanwhile() {
    let example = Example::start("blocking");
    assert_eq!(example.get("/primes/100000"), ok("9592\n"));
    assert_eq!(example.get("/primes/none").0, 404);
    assert_eq!(example.get("/primes/4000000000").0, 400);
    // One loop: what is asked last is answered first.
    let mut slow = example.connect();
    slow.write_all(b"GET /late/400 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let began = Instant::now();
    assert_eq!(
        said(example.send(Request::post("/jobs"), "any text")),
        ok("txet yna")
    );
    assert!(began.elapsed() < Duration::from_millis(300));
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("late\n"), "{answer}");
    assert!(began.elapsed() > Duration::from_millis(350));

    assert_eq!(example.get("/letters"), ok("0\n"));
    assert_eq!(
        example
            .send(Request::post("/letters"), "")
            .status()
            .as_u16(),
        202
    );
    while example.get("/letters") != ok("1\n") {
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(example.get("/broken").0, 500);
    example.send(Request::post("/letters"), "");
    example.stop();
}

/// Comes into the chat, and says on which loop; what others say is read from it.
fn join(example: &Example, name: &str) -> BufReader<TcpStream> {
    let mut stream = example.connect();
    let head = format!(
        "GET /chat?name={name} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream);
    let head = read_until(&mut lines, "");
    assert_eq!(head[0], "HTTP/1.1 101 Switching Protocols");
    assert!(head.contains(&"Upgrade: chat".to_owned()), "{head:?}");
    read_until(&mut lines, &format!("* welcome, {name}"));
    lines
}

#[test]
fn chat_carries_lines_between_loops_and_drops_who_does_not_read() {
    let example = Example::start("chat");
    let refused = example.send(Request::get("/chat"), "");
    assert_eq!(refused.status(), 426);
    assert_eq!(refused.headers()["upgrade"], "chat");
    let mut old = example.connect();
    old.write_all(b"GET /chat?name=ann HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 426 "), "{answer}");
    let bad = Request::get("/chat?name=a%20b").header("Upgrade", "chat");
    assert_eq!(
        example
            .send(bad.header("Connection", "Upgrade"), "")
            .status(),
        400
    );

    let mut ann = join(&example, "ann");
    // On both loops there is somebody, and ann hears of each.
    let mut others = Vec::new();
    let mut loops = [0; 2];
    while loops.contains(&0) {
        assert!(others.len() < 500, "all are on one loop: {loops:?}");
        let name = format!("guest{}", others.len());
        others.push(join(&example, &name));
        let mut line = String::new();
        ann.read_line(&mut line).unwrap();
        let number = line
            .trim()
            .strip_prefix(&format!("* {name} has come, on loop "));
        loops[number.unwrap().parse::<usize>().unwrap()] += 1;
    }
    let taken = Request::get("/chat?name=ann").header("Upgrade", "chat");
    assert_eq!(
        example
            .send(taken.header("Connection", "Upgrade"), "")
            .status(),
        409
    );

    // In pieces, and two lines in one.
    ann.get_mut().write_all(b"good ").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    ann.get_mut().write_all(b"mor\x1bning\nall\n").unwrap();
    for (number, other) in others.iter_mut().enumerate() {
        read_until(other, "ann: good morning");
        read_until(other, "ann: all");
        other.get_mut().write_all(b"and to you\n").unwrap();
        let heard = read_until(&mut ann, &format!("guest{number}: and to you"));
        assert_eq!(heard, [""; 0]);
    }
    let mut guest = others.remove(0);
    guest.get_mut().write_all(b"/quit\n").unwrap();
    guest.read_to_string(&mut String::new()).unwrap();
    read_until(&mut ann, "* guest0 has gone");
    for number in 1..=others.len() {
        drop(others.remove(0));
        read_until(&mut ann, &format!("* guest{number} has gone"));
    }

    // One who never reads. Another talks, not faster than ann listens, until it is gone.
    let mut slow = join(&example, "slow");
    let mut talker = join(&example, "talker");
    let said = format!("talker: {}\n", "x".repeat(1000));
    let mut burst = said.strip_prefix("talker: ").unwrap().repeat(15);
    burst.push_str("over\n");
    let began = Instant::now();
    let mut was_dropped = false;
    while !was_dropped {
        assert!(began.elapsed() < PATIENCE, "slow is still there");
        talker.get_mut().write_all(burst.as_bytes()).unwrap();
        let heard = read_until(&mut ann, "talker: over");
        was_dropped = heard.contains(&"* slow was too slow".to_owned());
    }
    // What it did not read, it gets for a while; then its connection ends.
    std::thread::sleep(Duration::from_secs(3));
    let _ = slow.read_to_end(&mut Vec::new());
    ann.get_mut().write_all(b"/who\n").unwrap();
    read_until(&mut ann, "* here: ann, talker");
    example.stop();
}

/// A path that is free, and free again after the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let name = format!("theframework-{}-{name}", std::process::id());
        Temporary(std::env::temp_dir().join(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn todo_keeps_its_list_over_a_restart_and_refuses_in_json() {
    let file = Temporary::new("todo.db");
    let example = Example::start_with("todo", Some(&file.0));
    let json = |request: http::request::Builder| request.header("Content-Type", "application/json");
    let add = |body: &str| example.send(json(Request::post("/todos")), body);
    let change = |id: u32, body: &str| {
        said(example.send(json(Request::patch(format!("/todos/{id}"))), body))
    };
    assert_eq!(example.get("/todos"), ok("[]"));
    let added = add(r#"{"title": " buy bread "}"#);
    assert_eq!(added.headers()["location"], "/todos/1");
    let bread = r#"{"id":1,"title":"buy bread","done":false}"#;
    assert_eq!(said(added), (201, bread.to_owned()));
    assert_eq!(add(r#"{"title": "bake"}"#).status(), 201);
    assert_eq!(example.get("/todos/1"), ok(bread));
    let done = r#"{"id":1,"title":"buy bread","done":true}"#;
    assert_eq!(change(1, r#"{"done": true}"#), ok(done));
    let bake = r#"{"id":2,"title":"bake","done":false}"#;
    assert_eq!(example.get("/todos"), ok(&format!("[{done},{bake}]")));
    assert_eq!(
        example.get("/todos?done=false&limit=10"),
        ok(&format!("[{bake}]"))
    );
    assert_eq!(example.get("/todos?limit=1"), ok(&format!("[{done}]")));

    let error = |status: u16, text: &str| (status, format!(r#"{{"error":"{text}"}}"#));
    let empty = add(r#"{"title": ""}"#);
    assert_eq!(empty.headers()["content-type"], "application/json");
    assert_eq!(said(empty), error(400, "the title is empty"));
    let long = format!(r#"{{"title": "{}"}}"#, "x".repeat(201));
    assert_eq!(
        said(add(&long)),
        error(400, "the title has more than 200 characters")
    );
    assert_eq!(
        change(1, r#"{"title": " "}"#),
        error(400, "the title is empty")
    );
    let (status, text) = said(add(r#"{"name": "x"}"#));
    assert_eq!(status, 400);
    assert!(
        text.starts_with(r#"{"error":"the body: unknown field"#),
        "{text}"
    );
    assert_eq!(
        example.get("/todos?limit=1000"),
        error(400, "the limit is 100 at most")
    );
    assert_eq!(example.get("/todos?done=maybe").0, 400);
    for missing in ["/todos/3", "/todos/x", "/none"] {
        assert_eq!(
            example.get(missing),
            error(404, "there is no such thing"),
            "{missing}"
        );
    }
    assert_eq!(
        change(3, r#"{"done": true}"#),
        error(404, "there is no such thing")
    );
    let plain = said(example.send(Request::post("/todos"), "{}"));
    assert_eq!(plain, error(415, "the body has to be application/json"));

    let remove = || {
        example
            .send(Request::delete("/todos/1"), "")
            .status()
            .as_u16()
    };
    assert_eq!((remove(), remove()), (204, 404));
    example.stop();
    let example = Example::start_with("todo", Some(&file.0));
    assert_eq!(example.get("/todos"), ok(&format!("[{bake}]")));
    example.stop();
}

#[test]
fn shared_state_runs_its_middleware_in_groups() {
    let folder = Temporary::new("public");
    std::fs::create_dir(&folder.0).unwrap();
    std::fs::write(folder.0.join("index.html"), "<p>index</p>").unwrap();
    let example = Example::start_with("shared_state", Some(&folder.0));
    let text = |response: &Response<Bytes>, name: &str| -> String {
        let value = response.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };

    let index = example.send(Request::get("/"), "");
    assert_eq!(text(&index, "x-request-id").len(), 32);
    assert_eq!(text(&index, "x-content-type-options"), "nosniff");
    assert!(
        text(&index, "server-timing").starts_with("app;dur="),
        "{index:?}"
    );
    assert_eq!(said(index), ok("<p>Visited 0 times.</p>\n"));
    for number in 1..=10 {
        let visit = said(example.send(Request::post("/visits"), ""));
        assert_eq!(visit, ok(&format!("you are number {number}\n")));
    }

    let visits = || Request::get("/api/visits").header("Origin", "https://example.org");
    let allowed = example.send(visits(), "");
    assert_eq!(
        text(&allowed, "access-control-allow-origin"),
        "https://example.org"
    );
    assert_eq!(said(allowed), ok(r#"{"visits":10}"#));
    let preflight = Request::options("/api/visits")
        .header("Origin", "https://example.org")
        .header("Access-Control-Request-Method", "GET");
    let preflight = example.send(preflight, "");
    assert_eq!(preflight.status(), 204);
    assert_eq!(
        text(&preflight, "access-control-allow-methods"),
        "GET, HEAD, POST"
    );

    let refused = example.send(Request::get("/admin/stats"), "");
    assert_eq!(text(&refused, "www-authenticate"), "Bearer realm=\"admin\"");
    assert_eq!(refused.status(), 401);
    let stats = Request::get("/admin/stats").header("Authorization", "Bearer secret");
    let (status, stats) = said(example.send(stats, ""));
    assert_eq!(status, 200);
    assert!(stats.contains("\"requests\":14}"), "{stats}");
    // ann:pa55
    let whoami = Request::get("/admin/whoami").header("Authorization", "Basic YW5uOnBhNTU=");
    assert_eq!(said(example.send(whoami, "")), ok("ann"));

    let statuses: Vec<u16> = (0..30).map(|_| example.get("/api/visits").0).collect();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!((1..=11).contains(&refused), "{statuses:?}");
    assert_eq!(example.get("/files/"), ok("<p>index</p>"));
    assert_eq!(example.get("/files/index.html"), ok("<p>index</p>"));
    assert_eq!(example.get("/files/..%2fsecret").0, 404);

    let printed = example.stop();
    let logged: Vec<serde_json::Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(logged.len(), 1 + 10 + 2 + 3 + 30 + 3);
    assert_eq!(logged[0]["client"], "127.0.0.1");
    assert_eq!(logged[0]["target"], "/");
    assert_eq!(logged[1]["method"], "POST");
    let too_many = logged.iter().filter(|line| line["status"] == 429).count();
    assert_eq!(too_many, refused);
}

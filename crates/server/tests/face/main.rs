//! The face for Rust, from outside: each case in memory and over sockets, on both drivers.

#![allow(clippy::unwrap_used, missing_docs, missing_debug_implementations)] // A test.

mod later;
mod protocols;
mod request;
mod response;
mod routing;
mod running;
mod streams;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use theframework::http::{Request as HttpRequest, Response as HttpResponse};
use theframework::{
    Address, App, Bytes, DriverKind, Handle, LiveClient, Request, Response, Settings, TestClient,
};

pub type Answer = HttpResponse<Bytes>;

/// Somebody who asks: in memory, or over a socket.
pub enum Client {
    InMemory(Box<TestClient>),
    Live(LiveClient),
}

impl Client {
    pub fn send<B: Into<Bytes>>(&mut self, request: HttpRequest<B>) -> Answer {
        match self {
            Client::InMemory(client) => client.send(request).unwrap(),
            Client::Live(client) => client.send(request).unwrap(),
        }
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send(HttpRequest::get(target).body("").unwrap())
    }

    pub fn post(&mut self, target: &str, media: &str, body: &'static str) -> Answer {
        let request = HttpRequest::post(target).header("Content-Type", media);
        self.send(request.body(body).unwrap())
    }
}

pub const DRIVERS: [DriverKind; 2] = [DriverKind::IoUring, DriverKind::Poll];

/// A server with an application, on any port.
pub fn serve(app: App, driver: DriverKind) -> Handle {
    serve_with(app, Settings::default(), driver)
}

pub fn serve_with(app: App, settings: Settings, driver: DriverKind) -> Handle {
    let settings = Settings {
        driver: Some(driver),
        ..settings
    };
    app.settings(settings)
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap()
}

pub fn stop(server: Handle) {
    server.stop();
    server.join().unwrap();
}

/// Runs `check` against an application in memory, and over a socket on each driver.
pub fn on_all(make: impl Fn() -> App, check: impl Fn(&mut Client)) {
    let in_memory = TestClient::new(&make()).unwrap();
    check(&mut Client::InMemory(Box::new(in_memory)));
    for driver in DRIVERS {
        let server = serve(make(), driver);
        let client = LiveClient::connect(&server.addresses()[0]).unwrap();
        check(&mut Client::Live(client));
        stop(server);
    }
}

pub fn text(answer: &Answer) -> &str {
    std::str::from_utf8(answer.body()).unwrap()
}

pub fn field<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

pub fn fields<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let values = answer.headers().get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

/// A plain connection.
pub fn connect(server: &Handle) -> TcpStream {
    let Address::Tcp(address) = &server.addresses()[0] else {
        panic!("not TCP");
    };
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

pub fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// Reads until `end` has come.
pub fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut got = Vec::new();
    let mut byte = [0];
    while !got.ends_with(end.as_bytes()) {
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{error} behind {:?}", String::from_utf8_lossy(&got)));
        got.push(byte[0]);
    }
    String::from_utf8(got).unwrap()
}

pub fn read_to_end(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    String::from_utf8(got).unwrap()
}

/// Looks again until it holds.
pub fn wait_for(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}: waited in vain");
}

pub fn say(what: &'static str) -> impl Fn(&mut Request<'_>, &mut Response<'_>) {
    move |_, response| response.text(what)
}

//! The server that benchmarks drive: `cargo run --release --example bench -- 8000`.
//!
//! `GET /hello` answers `hello world`, `POST /len` the length of its body, taken as it comes (`/whole`: as one),
//! `GET /json` a small value in JSON.
//! One loop, up to 20,000 connections, everything else as it ships. A second argument `poll` or `io_uring`
//! chooses the driver.

use theframework::{
    App, BodyReader, Config, DriverKind, Reply, Request, Response, Settings, StartError,
};

fn hello(_: &mut Request, response: &mut Response) {
    response.text("hello world");
}

/// Counts a body while it comes.
struct Len(u64);

impl BodyReader for Len {
    fn piece(&mut self, bytes: &[u8]) -> theframework::Result {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn end(self: Box<Self>) -> theframework::Result<Reply> {
        Ok(Reply::text(self.0.to_string()))
    }
}

fn len(_: &mut Request, response: &mut Response) {
    response.read_body(Len(0));
}

/// The same of a body that is there as a whole.
fn whole(request: &mut Request, response: &mut Response) {
    response.text(request.body().len().to_string());
}

#[derive(serde::Serialize)]
struct Message {
    message: &'static str,
    number: u32,
}

fn json(_: &mut Request, response: &mut Response) -> theframework::Result {
    response.json(&Message {
        message: "Hello, World!",
        number: 7,
    })
}

fn main() -> Result<(), StartError> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().unwrap_or_else(|| "8000".to_owned());
    let driver = arguments.next().map(|name| match name.as_str() {
        "poll" => DriverKind::Poll,
        _ => DriverKind::IoUring,
    });
    App::new()
        .get("/hello", hello)
        .get("/json", json)
        .post("/len", len)
        .streaming_up_to(4 << 20)
        .post("/whole", whole)
        .config(Config {
            max_connections: 20_000,
            max_body_size: 4 << 20,
            ..Config::default()
        })
        .settings(Settings {
            driver,
            ..Settings::default()
        })
        .bind(&format!("127.0.0.1:{port}"))?
        .run()
}

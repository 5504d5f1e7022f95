//! The server that benchmarks drive: `cargo run --release --example bench -- 8000`.
//!
//! `GET /hello` answers `hello world`, `POST /len` the length of its body, `GET /json` a small value in JSON.
//! One loop, up to 20,000 connections, everything else as it ships. A second argument `poll` or `io_uring`
//! chooses the driver.

use theframework::{App, Config, DriverKind, Request, Response, Settings, StartError};

fn hello(_: &mut Request, response: &mut Response) {
    response.text("hello world");
}

fn len(request: &mut Request, response: &mut Response) {
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

// xitca-web, one worker; built with --features io-uring it serves on io_uring.
use std::pin::pin;
use xitca_web::{
    App,
    body::{BodyExt, RequestBody},
    handler::{body::Body, handler_service, json::Json},
    http::header::{CONTENT_TYPE, HeaderName, HeaderValue},
    route::{get, post},
};

#[derive(serde::Serialize)]
struct Message {
    message: &'static str,
    number: u32,
}

const MESSAGE: Message = Message {
    message: "Hello, World!",
    number: 7,
};

const TEXT: (HeaderName, HeaderValue) = (CONTENT_TYPE, HeaderValue::from_static("text/plain"));

async fn hello() -> ((HeaderName, HeaderValue), &'static str) {
    (TEXT, "hello world")
}

async fn json() -> Json<Message> {
    Json(MESSAGE)
}

async fn len(Body(b): Body<RequestBody>) -> ((HeaderName, HeaderValue), String) {
    let mut b = pin!(b);
    let mut n = 0usize;
    while let Some(Ok(d)) = b.as_mut().data().await {
        n += d.len();
    }
    (TEXT, n.to_string())
}

fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let s = App::new()
        .at("/hello", get(handler_service(hello)))
        .at("/json", get(handler_service(json)))
        .at("/len", post(handler_service(len)))
        .serve()
        .worker_threads(1)
        .backlog(4096)
        .keep_alive_timeout(std::time::Duration::from_secs(75));
    #[cfg(feature = "io-uring")]
    let s = s.enable_io_uring();
    s.bind(("127.0.0.1", port))?.run().wait()
}

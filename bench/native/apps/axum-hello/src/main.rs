// axum on a tokio current_thread runtime.
use axum::{
    Json, Router,
    body::Body,
    routing::{get, post},
    serve::ListenerExt,
};
use http_body_util::BodyExt;

#[derive(serde::Serialize)]
struct Message {
    message: &'static str,
    number: u32,
}

const MESSAGE: Message = Message {
    message: "Hello, World!",
    number: 7,
};

async fn hello() -> &'static str {
    "hello world"
}

async fn json() -> Json<Message> {
    Json(MESSAGE)
}

async fn len(mut body: Body) -> String {
    let mut n = 0usize;
    while let Some(Ok(f)) = body.frame().await {
        n += f.data_ref().map_or(0, |d| d.len());
    }
    n.to_string()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let sock = tokio::net::TcpSocket::new_v4().unwrap();
    sock.set_reuseaddr(true).unwrap();
    sock.bind(([127, 0, 0, 1], port).into()).unwrap();
    let l = sock.listen(4096).unwrap().tap_io(|s| {
        let _ = s.set_nodelay(true);
    });
    let app = Router::new()
        .route("/hello", get(hello))
        .route("/json", get(json))
        .route("/len", post(len));
    axum::serve(l, app).await.unwrap();
}

// actix-web, one worker.
use actix_web::{App, HttpResponse, HttpServer, http::header::ContentType, web};
use futures_util::StreamExt;

#[derive(serde::Serialize)]
struct Message {
    message: &'static str,
    number: u32,
}

const MESSAGE: Message = Message {
    message: "Hello, World!",
    number: 7,
};

async fn hello() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(ContentType::plaintext())
        .body("hello world")
}

async fn json() -> HttpResponse {
    HttpResponse::Ok().json(&MESSAGE)
}

async fn len(mut p: web::Payload) -> HttpResponse {
    let mut n = 0usize;
    while let Some(Ok(c)) = p.next().await {
        n += c.len();
    }
    HttpResponse::Ok()
        .insert_header(ContentType::plaintext())
        .body(n.to_string())
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    HttpServer::new(|| {
        App::new()
            .route("/hello", web::get().to(hello))
            .route("/json", web::get().to(json))
            .route("/len", web::post().to(len))
    })
    .workers(1)
    .backlog(4096)
    .max_connections(100_000)
    .keep_alive(std::time::Duration::from_secs(75))
    .bind(("127.0.0.1", port))?
    .run()
    .await
}

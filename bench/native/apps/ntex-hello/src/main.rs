// ntex web, one worker; the I/O runtime is chosen by cargo feature.
use ntex::web::{self, App, HttpResponse, HttpServer};

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
        .content_type("text/plain")
        .body("hello world")
}

async fn json() -> HttpResponse {
    HttpResponse::Ok().json(&MESSAGE)
}

async fn len(mut p: web::types::Payload) -> HttpResponse {
    let mut n = 0usize;
    while let Some(Ok(c)) = p.recv().await {
        n += c.len();
    }
    HttpResponse::Ok()
        .content_type("text/plain")
        .body(n.to_string())
}

#[ntex::main]
async fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    HttpServer::new(async || {
        App::new()
            .service(web::resource("/hello").route(web::get().to(hello)))
            .service(web::resource("/json").route(web::get().to(json)))
            .service(web::resource("/len").route(web::post().to(len)))
    })
    .workers(1)
    .backlog(4096)
    .maxconn(100_000)
    .bind(("127.0.0.1", port))?
    .run()
    .await
}

//! Routes, parameters, queries, forms and JSON.
//!
//! ```text
//! cargo run --example hello -- 127.0.0.1:8000
//! curl localhost:8000/
//! curl 'localhost:8000/hello/ann?greeting=Welcome'
//! curl localhost:8000/double -H 'Content-Type: application/json' -d '{"number": 21}'
//! curl localhost:8000/greet -d 'name=ben&times=2'
//! curl -i localhost:8000/nowhere
//! curl -i -X DELETE localhost:8000/
//! ```

use serde::{Deserialize, Serialize};
use theframework::{App, Error, Request, Response, StartError, StatusCode};

fn index(_: &mut Request, response: &mut Response) {
    response.text("hello world\n");
}

fn hello(request: &mut Request, response: &mut Response) {
    let name = request.param("name").unwrap_or_default();
    let greeting = request.query_value("greeting").unwrap_or("Hello".into());
    response.text(format!("{greeting}, {name}!\n"));
}

#[derive(Deserialize)]
struct Double {
    number: i64,
}

#[derive(Serialize)]
struct Doubled {
    doubled: i64,
}

fn double(request: &mut Request, response: &mut Response) -> theframework::Result {
    let Double { number } = request.json()?; // 400 or 415 when it is not one
    let doubled = number
        .checked_mul(2)
        .ok_or_else(|| Error::new(StatusCode::BAD_REQUEST, "the number is too large"))?;
    response.json(&Doubled { doubled })
}

#[derive(Deserialize)]
struct Greet<'a> {
    name: std::borrow::Cow<'a, str>,
    times: Option<u8>,
}

fn greet(request: &mut Request, response: &mut Response) -> theframework::Result {
    let Greet { name, times } = request.form()?;
    response.text(format!("Hello, {name}!\n").repeat(times.unwrap_or(1).into()));
    Ok(())
}

fn main() -> Result<(), StartError> {
    let address = std::env::args().nth(1);
    let server = App::new()
        .get("/", index)
        .get("/hello/{name}", hello)
        .post("/double", double)
        .post("/greet", greet)
        .bind(address.as_deref().unwrap_or("127.0.0.1:8000"))?;
    println!("listening on {}", server.addresses()[0]);
    server.run()
}

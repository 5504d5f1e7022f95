//! A JSON API on SQLite: a list of things to do.
//!
//! ```text
//! cargo run --example todo -- 127.0.0.1:8000 todo.db
//! curl -i localhost:8000/todos -H 'Content-Type: application/json' -d '{"title": "buy bread"}'
//! curl localhost:8000/todos
//! curl 'localhost:8000/todos?done=false&limit=10'
//! curl localhost:8000/todos/1
//! curl -X PATCH localhost:8000/todos/1 -H 'Content-Type: application/json' -d '{"done": true}'
//! curl -i -X DELETE localhost:8000/todos/1
//! curl -i localhost:8000/todos -H 'Content-Type: application/json' -d '{"title": ""}'
//! ```
//!
//! The second argument is the database's file; without it, the database is in memory. What waits for the database
//! does so on the pool's threads, one at a time. Every failure is answered in JSON.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use theframework::http::HeaderValue;
use theframework::http::header::LOCATION;
use theframework::{App, Error, Reply, Request, Response, Result, StatusCode};

const TITLE_MAX: usize = 200;
const LIMIT_MAX: u32 = 100;

#[derive(Serialize)]
struct Todo {
    id: i64,
    title: String,
    done: bool,
}

impl Todo {
    fn of_row(row: &Row) -> rusqlite::Result<Self> {
        Ok(Todo {
            id: row.get("id")?,
            title: row.get("title")?,
            done: row.get("done")?,
        })
    }
}

/// The database: one connection, which one thread has at a time.
#[derive(Clone)]
struct Store(Arc<Mutex<Connection>>);

impl Store {
    fn open(path: Option<&str>) -> rusqlite::Result<Self> {
        let connection = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS todo (
                 id INTEGER PRIMARY KEY AUTOINCREMENT,
                 title TEXT NOT NULL,
                 done INTEGER NOT NULL DEFAULT 0
             )",
        )?;
        Ok(Store(Arc::new(Mutex::new(connection))))
    }

    fn list(&self, done: Option<bool>, limit: u32) -> rusqlite::Result<Vec<Todo>> {
        self.with(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, title, done FROM todo WHERE ?1 IS NULL OR done = ?1 ORDER BY id LIMIT ?2",
            )?;
            query.query_map(params![done, limit], Todo::of_row)?.collect()
        })
    }

    fn find(&self, id: i64) -> rusqlite::Result<Option<Todo>> {
        self.with(|connection| {
            let mut query =
                connection.prepare_cached("SELECT id, title, done FROM todo WHERE id = ?1")?;
            query.query_row([id], Todo::of_row).optional()
        })
    }

    fn add(&self, title: &str) -> rusqlite::Result<Todo> {
        self.with(|connection| {
            let mut query = connection
                .prepare_cached("INSERT INTO todo (title) VALUES (?1) RETURNING id, title, done")?;
            query.query_row([title], Todo::of_row)
        })
    }

    /// Sets what is given, and leaves the rest.
    fn change(&self, id: i64, change: &Change) -> rusqlite::Result<Option<Todo>> {
        self.with(|connection| {
            let mut query = connection.prepare_cached(
                "UPDATE todo SET title = ifnull(?2, title), done = ifnull(?3, done)
                 WHERE id = ?1 RETURNING id, title, done",
            )?;
            let row = params![id, change.title, change.done];
            query.query_row(row, Todo::of_row).optional()
        })
    }

    fn remove(&self, id: i64) -> rusqlite::Result<bool> {
        self.with(|connection| Ok(connection.execute("DELETE FROM todo WHERE id = ?1", [id])? > 0))
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        // Each piece of work is one statement: a panic leaves nothing half done.
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    title: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    title: Option<String>,
    done: Option<bool>,
}

#[derive(Deserialize)]
struct Filter {
    done: Option<bool>,
    limit: Option<u32>,
}

fn invalid(message: &'static str) -> Error {
    Error::new(StatusCode::BAD_REQUEST, message)
}

fn valid_title(title: &str) -> Result<String> {
    let title = title.trim();
    match title.chars().count() {
        0 => Err(invalid("the title is empty")),
        1..=TITLE_MAX => Ok(title.to_owned()),
        _ => Err(invalid("the title has more than 200 characters")),
    }
}

/// A failure in JSON, whether it comes from a handler or from the pool.
fn failure(error: &Error) -> Reply {
    let message = match error.status() {
        status if status.is_server_error() => "something went wrong here",
        StatusCode::NOT_FOUND => "there is no such thing",
        _ => error.message(),
    };
    let body = serde_json::json!({"error": message}).to_string();
    Reply::new(error.status())
        .with_header(
            theframework::http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )
        .with_body(body)
}

fn not_there() -> Error {
    Error::new(StatusCode::NOT_FOUND, "there is no such thing")
}

/// Answers with what `work` makes of the database, on a thread of the pool.
fn with_store(
    request: &Request,
    response: &mut Response,
    work: impl FnOnce(&Store) -> Result<Reply> + Send + 'static,
) {
    let store = request.state::<Store>().clone();
    response.offload(move || {
        work(&store).or_else(|error| {
            if error.status().is_server_error() {
                eprintln!("{error}");
            }
            Ok(failure(&error))
        })
    });
}

fn list(request: &mut Request, response: &mut Response) -> Result {
    let Filter { done, limit } = request.query_as()?;
    let limit = limit.unwrap_or(LIMIT_MAX);
    if limit > LIMIT_MAX {
        return Err(invalid("the limit is 100 at most"));
    }
    with_store(request, response, move |store| {
        Reply::json(&store.list(done, limit)?)
    });
    Ok(())
}

fn show(request: &mut Request, response: &mut Response) -> Result {
    let id: i64 = request.param_as("id")?;
    with_store(request, response, move |store| {
        Reply::json(&store.find(id)?.ok_or_else(not_there)?)
    });
    Ok(())
}

fn add(request: &mut Request, response: &mut Response) -> Result {
    let New { title } = request.json()?;
    let title = valid_title(&title)?;
    with_store(request, response, move |store| {
        let todo = store.add(&title)?;
        let location = HeaderValue::try_from(format!("/todos/{}", todo.id))?;
        Ok(Reply::json(&todo)?
            .with_status(StatusCode::CREATED)
            .with_header(LOCATION, location))
    });
    Ok(())
}

fn change(request: &mut Request, response: &mut Response) -> Result {
    let id: i64 = request.param_as("id")?;
    let mut change: Change = request.json()?;
    change.title = change.title.map(|title| valid_title(&title)).transpose()?;
    with_store(request, response, move |store| {
        Reply::json(&store.change(id, &change)?.ok_or_else(not_there)?)
    });
    Ok(())
}

fn remove(request: &mut Request, response: &mut Response) -> Result {
    let id: i64 = request.param_as("id")?;
    with_store(request, response, move |store| {
        if store.remove(id)? {
            Ok(Reply::new(StatusCode::NO_CONTENT))
        } else {
            Err(not_there())
        }
    });
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next();
    let server = App::new()
        .state(Store::open(arguments.next().as_deref())?)
        .get("/todos", list)
        .post("/todos", add)
        .get("/todos/{id}", show)
        .patch("/todos/{id}", change)
        .delete("/todos/{id}", remove)
        .not_found(|_: &mut Request, _: &mut Response| -> Result { Err(not_there()) })
        .on_error(|_: &mut Request, error: &Error, response: &mut Response| {
            let reply = failure(error);
            response.set_header("Content-Type", "application/json")?;
            response.copy_body(reply.body());
            Ok(())
        })
        .bind(address.as_deref().unwrap_or("127.0.0.1:8000"))?;
    println!("listening on {}", server.addresses()[0]);
    server.run()?;
    Ok(())
}

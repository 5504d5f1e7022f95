//! Middleware sees what the client gets: errors that are answered where it stands, and replies that come later.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use theframework::{
    App, BodyReader, Bytes, Config, Error, Next, Reply, Request, Response, Result, StatusCode,
    TestClient,
};

fn fails(_: &mut Request, response: &mut Response) -> Result {
    response.set_header("X-Half", "done")?;
    Err(Error::new(StatusCode::IM_A_TEAPOT, "no coffee"))
}

fn panics(_: &mut Request, response: &mut Response) -> Result {
    response.text("half");
    panic!("as it should")
}

fn get(app: &App, path: &str) -> http::Response<Bytes> {
    app.test(http::Request::get(path).body("").unwrap())
        .unwrap()
}

/// Says what stands in the response when the rest was answered.
fn shows(request: &mut Request, response: &mut Response, next: Next) -> Result {
    next.run(request, response);
    let seen = format!("{} {:?}", response.status().as_u16(), response.body_len());
    response.set_header("X-Seen", seen)?;
    Ok(())
}

#[test]
fn an_error_or_panic_is_answered_where_middleware_stands() {
    let app = App::new()
        .middleware(shows)
        .get("/fails", fails)
        .get("/panics", panics);
    let answer = get(&app, "/fails");
    assert_eq!(answer.status(), 418);
    assert_eq!(answer.headers()["x-seen"], "418 Some(10)");
    // What was said of the body is gone; what was said otherwise is not.
    assert!(answer.headers().contains_key("x-half"));
    assert_eq!(answer.body(), "no coffee\n");
    let answer = get(&app, "/panics");
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.headers()["x-seen"], "500 Some(26)");
    assert_eq!(answer.body(), "500 Internal Server Error\n");
}

#[test]
fn an_error_is_answered_once_by_on_error() {
    let app = App::new()
        .middleware(shows)
        .middleware(shows)
        .get("/fails", fails)
        .on_error(|_: &mut Request, error: &Error, response: &mut Response| {
            response.set_status(StatusCode::BAD_REQUEST);
            response.append_header("X-Error", error.message())?;
            response.text("handled");
            Ok(())
        });
    let answer = get(&app, "/fails");
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.headers()["x-seen"], "400 Some(7)");
    assert_eq!(answer.headers().get_all("x-error").iter().count(), 1);
    assert_eq!(answer.body(), "handled");
}

#[test]
fn an_error_of_middleware_is_answered_too() {
    let app = App::new()
        .on_error(|_: &mut Request, _: &Error, _: &mut Response| -> Result { panic!("again") })
        .middleware(
            |request: &mut Request, response: &mut Response, next: Next| {
                next.run(request, response);
                fails(request, response)
            },
        )
        .get("/", |_: &mut Request, response: &mut Response| {
            response.text("fine");
        });
    assert_eq!(get(&app, "/").status(), 500);
}

struct Length(usize);

impl BodyReader for Length {
    fn piece(&mut self, bytes: &[u8]) -> Result {
        self.0 += bytes.len();
        Ok(())
    }

    fn end(self: Box<Self>) -> Result<Reply> {
        Ok(Reply::text(self.0.to_string()))
    }
}

#[test]
fn replies_that_come_later_are_seen_and_changed_before_they_are_sent() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let watch = move |request: &mut Request, response: &mut Response, next: Next| {
        next.run(request, response);
        let (kept, is_deferred) = (Arc::clone(&kept), response.is_deferred());
        response.on_reply(move |reply| {
            let status = reply.status().as_u16();
            kept.lock()
                .unwrap()
                .push((is_deferred, status, reply.body().clone()));
            let value = HeaderValue::from_static("yes");
            reply.headers_mut().insert("x-watched", value);
            panic!("a panic costs nothing but the call");
        });
    };
    let app = App::new()
        .config(Config {
            handler_timeout_ms: 50,
            ..Config::default()
        })
        .middleware(watch)
        .get("/now", |_: &mut Request, response: &mut Response| {
            response.text("now");
        })
        .get("/offload", |_: &mut Request, response: &mut Response| {
            response.offload(|| Ok(Reply::text("made").with_status(StatusCode::CREATED)));
        })
        .get("/dropped", |_: &mut Request, response: &mut Response| {
            drop(response.defer());
        })
        .get("/slow", |_: &mut Request, response: &mut Response| {
            response.offload(|| {
                std::thread::sleep(Duration::from_millis(200));
                Ok(Reply::text("too late"))
            });
        })
        .post("/read", |_: &mut Request, response: &mut Response| {
            response.read_body(Length(0));
        })
        .streaming();
    let mut client = TestClient::new(&app).unwrap();
    let mut watched = |request: http::request::Builder, body: &str| {
        let answer = client.send(request.body(body.to_owned()).unwrap()).unwrap();
        answer.headers().contains_key("x-watched")
    };
    assert!(!watched(http::Request::get("/now"), ""));
    assert!(watched(http::Request::get("/offload"), ""));
    assert!(watched(http::Request::get("/dropped"), ""));
    assert!(watched(http::Request::get("/slow"), ""));
    assert!(watched(http::Request::post("/read"), "four"));
    // What is too late is seen by nobody.
    std::thread::sleep(Duration::from_millis(250));
    assert!(!watched(http::Request::get("/now"), ""));
    let seen = seen.lock().unwrap();
    let busy = Bytes::from_static(b"503 Service Unavailable\n");
    assert_eq!(
        *seen,
        [
            (true, 201, Bytes::from_static(b"made")),
            (true, 503, busy.clone()),
            (true, 503, busy),
            (true, 200, Bytes::from_static(b"4")),
        ]
    );
}

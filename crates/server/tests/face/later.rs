//! Answers that come later, timers, work on other threads.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use theframework::http::Request as HttpRequest;
use theframework::http::header::{HeaderName, HeaderValue};
use theframework::{
    App, Config, Error, Reply, Request, Responder, Response, Settings, StatusCode, Worker,
};

use crate::{
    DRIVERS, connect, field, on_all, read_until, say, serve, serve_with, stop, text, write,
};

#[test]
fn an_answer_may_come_from_another_thread() {
    let make = || {
        App::new().get("/", |_: &mut Request, response: &mut Response| {
            response.set_header("X-From", "the handler")?;
            response.set_header("X-Both", "the handler")?;
            let responder = response.defer();
            std::thread::spawn(move || {
                let reply = Reply::text("later")
                    .with_status(StatusCode::ACCEPTED)
                    .with_header(
                        HeaderName::from_static("x-both"),
                        HeaderValue::from_static("the reply"),
                    );
                responder.send(reply);
            });
            Ok(())
        })
    };
    on_all(make, |client| {
        for _ in 0..20 {
            let answer = client.get("/");
            assert_eq!((answer.status().as_u16(), text(&answer)), (202, "later"));
            assert_eq!(field(&answer, "x-from"), "the handler");
            assert_eq!(field(&answer, "x-both"), "the reply");
        }
    });
}

#[test]
fn a_responder_that_is_dropped_answers_503() {
    let make = || {
        App::new()
            .get("/dropped", |_: &mut Request, response: &mut Response| {
                drop(response.defer());
            })
            .get("/panics", |_: &mut Request, response: &mut Response| {
                let responder = response.defer();
                let _ = std::thread::spawn(move || {
                    let _held = responder;
                    panic!("a thread that panics");
                });
            })
            .get("/", say("fine"))
    };
    on_all(make, |client| {
        for target in ["/dropped", "/panics"] {
            let answer = client.get(target);
            assert_eq!(
                (answer.status().as_u16(), text(&answer)),
                (503, "503 Service Unavailable\n")
            );
            assert_eq!(field(&answer, "retry-after"), "1");
        }
        assert_eq!(text(&client.get("/")), "fine");
    });
}

#[test]
fn who_does_not_answer_in_time_is_answered_for() {
    let kept: Arc<Mutex<Vec<Responder>>> = Arc::default();
    for driver in DRIVERS {
        let keeps = Arc::clone(&kept);
        let app = App::new()
            .get("/", move |_: &mut Request, response: &mut Response| {
                keeps.lock().unwrap().push(response.defer());
            })
            .config(Config {
                handler_timeout_ms: 100,
                ..Config::default()
            });
        let server = serve(app, driver);
        let mut stream = connect(&server);
        let began = Instant::now();
        write(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = read_until(&mut stream, "\r\n\r\n503 Service Unavailable\n");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(95) && took < Duration::from_secs(5),
            "{took:?}"
        );
        // Too late: nobody is answered twice.
        for responder in kept.lock().unwrap().drain(..) {
            responder.send(Reply::text("too late"));
        }
        write(&mut stream, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n");
        read_until(&mut stream, "\r\n\r\n404 Not Found\n");
        stop(server);
    }
}

#[test]
fn work_that_blocks_runs_elsewhere_and_its_loop_goes_on() {
    for driver in DRIVERS {
        let app = App::new()
            .get("/slow", |request: &mut Request, response: &mut Response| {
                let name = request.query().to_owned();
                response.offload(move || {
                    std::thread::sleep(Duration::from_millis(300));
                    match name.as_str() {
                        "fails" => Err(Error::new(StatusCode::CONFLICT, "it failed")),
                        "panics" => panic!("work that panics"),
                        _ => Ok(Reply::text(name)),
                    }
                });
            })
            .get("/", say("at once"));
        let server = serve(app, driver);
        let mut slow: Vec<_> = ["a", "fails", "panics", "b"]
            .map(|name| {
                let mut stream = connect(&server);
                write(
                    &mut stream,
                    &format!("GET /slow?{name} HTTP/1.1\r\nHost: x\r\n\r\n"),
                );
                stream
            })
            .into();
        let began = Instant::now();
        let mut quick = connect(&server);
        write(&mut quick, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        read_until(&mut quick, "at once");
        assert!(began.elapsed() < Duration::from_millis(250));
        for (stream, end) in slow.iter_mut().zip([
            "\r\n\r\na",
            "\r\n\r\nit failed\n",
            "\r\n\r\n500 Internal Server Error\n",
            "\r\n\r\nb",
        ]) {
            read_until(stream, end);
        }
        stop(server);
    }
}

#[test]
fn timers_fire_once_or_again_and_again_until_they_are_cancelled() {
    let make = || {
        App::new()
            .get("/after", |_: &mut Request, response: &mut Response| {
                let responder = response.defer();
                let began = Instant::now();
                response
                    .worker()
                    .after(Duration::from_millis(30), move |_| {
                        responder.send(Reply::text(began.elapsed().as_millis().to_string()));
                    });
            })
            .get("/every", |_: &mut Request, response: &mut Response| {
                let mut responder = Some(response.defer());
                let (count, own) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
                let timer = response.worker().every(Duration::from_millis(5), {
                    let own = Rc::clone(&own);
                    move |worker: &Worker| {
                        count.set(count.get() + 1);
                        if count.get() == 4 {
                            assert!(worker.cancel(own.get().unwrap()));
                            let responder = responder.take().unwrap();
                            let count = Rc::clone(&count);
                            // It is cancelled: it does not fire again.
                            worker.after(Duration::from_millis(40), move |_| {
                                responder.send(Reply::text(count.get().to_string()));
                            });
                        }
                    }
                });
                own.set(Some(timer));
            })
            .get("/cancelled", |_: &mut Request, response: &mut Response| {
                let worker = response.worker();
                let timer = worker.after(Duration::from_millis(5), |_| panic!("cancelled"));
                assert!(worker.cancel(timer));
                assert!(!worker.cancel(timer));
                response.text("never");
            })
            .get("/panics", |_: &mut Request, response: &mut Response| {
                let responder = response.defer();
                response
                    .worker()
                    .every(Duration::from_millis(1), |_| panic!("a timer that panics"));
                response.worker().after(Duration::from_millis(20), |_| {
                    responder.send(Reply::text("alive"));
                });
            })
    };
    on_all(make, |client| {
        let waited: u64 = text(&client.get("/after")).parse().unwrap();
        assert!((29..5000).contains(&waited), "{waited} ms");
        assert_eq!(text(&client.get("/every")), "4");
        assert_eq!(text(&client.get("/cancelled")), "never");
        assert_eq!(text(&client.get("/panics")), "alive");
    });
}

#[test]
fn work_elsewhere_brings_back_what_it_made_to_its_loop() {
    let make = || {
        App::new().get("/", |_: &mut Request, response: &mut Response| {
            let responder = response.defer();
            let here = std::thread::current().id();
            response.worker().offload(
                || (std::thread::current().id(), 6 * 7),
                move |worker, (there, answer)| {
                    assert_eq!(std::thread::current().id(), here);
                    assert_ne!(there, here);
                    let remote = worker.remote();
                    std::thread::spawn(move || {
                        remote.call(move |_| responder.send(Reply::text(answer.to_string())));
                    });
                },
            );
        })
    };
    on_all(make, |client| assert_eq!(text(&client.get("/")), "42"));
}

/// Those who never answer.
static KEPT: Mutex<Vec<Responder>> = Mutex::new(Vec::new());

/// The drain waits for what is under way, and no longer than it may.
#[test]
fn a_server_that_stops_finishes_what_it_has_begun() {
    for driver in DRIVERS {
        let done = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&done);
        let app = App::new()
            .get("/", move |_: &mut Request, response: &mut Response| {
                let counts = Arc::clone(&counts);
                response.worker().offload(
                    || std::thread::sleep(Duration::from_millis(200)),
                    move |_, ()| {
                        counts.fetch_add(1, Ordering::SeqCst);
                    },
                );
                response.offload(|| {
                    std::thread::sleep(Duration::from_millis(200));
                    Ok(Reply::text("finished"))
                });
            })
            .get("/never", |_: &mut Request, response: &mut Response| {
                KEPT.lock().unwrap().push(response.defer());
            });
        let settings = Settings {
            graceful_timeout: Duration::from_millis(600),
            ..Settings::default()
        };
        let server = serve_with(app, settings, driver);
        let mut stream = connect(&server);
        write(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut other = connect(&server);
        write(&mut other, "GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
        crate::wait_for("both requests", || server.stats().requests == 2);
        let began = Instant::now();
        server.stop();
        let answer = read_until(&mut stream, "finished");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert_eq!(crate::read_to_end(&mut other), "");
        server.join().unwrap();
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(590) && took < Duration::from_secs(5),
            "{took:?}"
        );
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn an_http_response_is_a_reply() {
    let app = App::new().get("/", |_: &mut Request, response: &mut Response| {
        let reply = theframework::http::Response::builder()
            .status(418)
            .header("X-A", "1")
            .body("tea");
        response.defer().send(reply.unwrap());
    });
    let answer = app.test(HttpRequest::get("/").body("").unwrap()).unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            text(&answer),
            field(&answer, "x-a")
        ),
        (418, "tea", "1")
    );
}

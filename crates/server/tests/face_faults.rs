//! Faults that a review of the face for Rust has found: each failed before.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use theframework::{
    Address, App, Config, Error, Handle, Reply, Request, Responder, Response, SendError, Sender,
    Settings, StatusCode, TestClient, http,
};

/// What handlers put away, for as long as the process lives; a leak detector finds its way there.
fn keep<T: Send + 'static>() -> &'static Mutex<Vec<T>> {
    static ALL: Mutex<Vec<&'static (dyn std::any::Any + Send + Sync)>> = Mutex::new(Vec::new());
    let kept: &'static Mutex<Vec<T>> = Box::leak(Box::default());
    ALL.lock().unwrap().push(kept);
    kept
}

fn settings() -> Settings {
    Settings {
        graceful_timeout: Duration::from_millis(200),
        handles_signals: false,
        ..Settings::default()
    }
}
fn addr(h: &Handle) -> std::net::SocketAddr {
    match &h.addresses()[0] {
        Address::Tcp(a) => *a,
        _ => unreachable!(),
    }
}
fn within<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tx.send(f());
    });
    rx.recv_timeout(limit).ok()
}
fn raw(a: std::net::SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut s = TcpStream::connect(a).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    s.write_all(bytes).unwrap();
    s
}
fn read_some(s: &mut TcpStream) -> String {
    let mut b = vec![0; 65536];
    let got = loop {
        match s.read(&mut b) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            got => break got,
        }
    };
    match got {
        Ok(n) => String::from_utf8_lossy(&b[..n]).into_owned(),
        Err(e) => format!("ERR {e}"),
    }
}

#[test]
fn head_of_a_channel_is_the_whole_answer() {
    let kept: &'static Mutex<Vec<Sender>> = keep();
    let server = App::new()
        .settings(settings())
        .get("/events", move |_: &mut Request, r: &mut Response| {
            kept.lock().unwrap().push(r.events());
        })
        .get("/", |_: &mut Request, r: &mut Response| r.text("root"))
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(addr(&server), b"HEAD /events HTTP/1.1\r\nHost: x\r\n\r\n");
    let first = read_some(&mut s);
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    s.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let second = read_some(&mut s);
    assert!(second.contains("root"), "second answer: {second:?}");
}

#[test]
fn a_drain_ends_beside_a_channel_that_says_nothing() {
    let kept: &'static Mutex<Vec<Sender>> = keep();
    let server = App::new()
        .settings(settings())
        .get("/events", move |_: &mut Request, r: &mut Response| {
            kept.lock().unwrap().push(r.events());
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(addr(&server), b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(read_some(&mut s).starts_with("HTTP/1.1 200"));
    server.stop();
    assert!(
        within(Duration::from_secs(5), move || server.join()).is_some(),
        "the drain does not end"
    );
}

#[test]
fn a_drain_ends_beside_a_channel_that_has_said_something() {
    let kept: &'static Mutex<Vec<Sender>> = keep();
    let server = App::new()
        .settings(settings())
        .get("/events", move |_: &mut Request, r: &mut Response| {
            let s = r.events();
            s.send("data: x\n\n").unwrap();
            kept.lock().unwrap().push(s);
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(addr(&server), b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(read_some(&mut s).starts_with("HTTP/1.1 200"));
    std::thread::sleep(Duration::from_millis(100));
    server.stop();
    assert!(
        within(Duration::from_secs(5), move || server.join()).is_some(),
        "the drain does not end"
    );
}

#[test]
fn a_drain_ends_beside_an_answer_that_does_not_come() {
    let kept: &'static Mutex<Vec<Responder>> = keep();
    let server = App::new()
        .settings(settings())
        .get("/", move |_: &mut Request, r: &mut Response| {
            kept.lock().unwrap().push(r.defer());
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let _s = raw(addr(&server), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    server.stop();
    assert!(
        within(Duration::from_secs(8), move || server.join()).is_some(),
        "the drain does not end"
    );
}

#[test]
fn a_drain_ends_beside_work_that_never_does() {
    let server = App::new()
        .settings(settings())
        .on_start(|w| {
            w.every(Duration::from_millis(50), |w| {
                w.offload(
                    || std::thread::sleep(Duration::from_millis(150)),
                    |_, ()| {},
                );
            });
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    server.stop();
    assert!(
        within(Duration::from_secs(6), move || server.join()).is_some(),
        "the drain does not end"
    );
}

#[test]
fn an_abort_does_not_wait_for_work() {
    let (tx, rx) = mpsc::channel::<()>();
    let rx = Mutex::new(Some(rx));
    let server = App::new()
        .settings(settings())
        .on_start(move |w| {
            let rx = rx.lock().unwrap().take();
            w.offload(
                move || {
                    let _ = rx.map(|r| r.recv());
                },
                |_, ()| {},
            );
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.stopper().abort();
    assert!(
        within(Duration::from_secs(4), move || server.join()).is_some(),
        "abort does not end it"
    );
    drop(tx);
}

#[test]
fn a_start_hook_that_panics_is_an_error_of_the_start() {
    let got = within(Duration::from_secs(4), || {
        App::new()
            .settings(settings())
            .on_start(|_| panic!("hook"))
            .bind("127.0.0.1:0")
            .unwrap()
            .start()
            .is_err()
    });
    assert_eq!(got, Some(true), "start() hangs");
}

#[test]
fn the_pool_starts_threads_when_the_idle_ones_are_spoken_for() {
    let mut stuck = 0;
    for _ in 0..20 {
        let (done_tx, done_rx) = mpsc::channel();
        let server = App::new()
            .settings(Settings {
                offload_threads: 4,
                ..settings()
            })
            .on_start(move |w| {
                let done_tx = done_tx.clone();
                // makes one idle thread
                w.offload(|| (), |_, ()| {});
                w.after(Duration::from_millis(50), move |w| {
                    let (tx, rx) = mpsc::channel::<()>();
                    let d = done_tx.clone();
                    w.offload(
                        move || {
                            let _ = d.send(rx.recv_timeout(Duration::from_secs(1)).is_ok());
                        },
                        |_, ()| {},
                    );
                    w.offload(
                        move || {
                            let _ = tx.send(());
                            std::thread::sleep(Duration::from_millis(5));
                        },
                        |_, ()| {},
                    );
                });
            })
            .bind("127.0.0.1:0")
            .unwrap()
            .start()
            .unwrap();
        if !done_rx.recv_timeout(Duration::from_secs(5)).unwrap() {
            stuck += 1;
        }
        server.stop();
        server.join().unwrap();
    }
    assert_eq!(
        stuck, 0,
        "of 20 pairs, so many had the second wait for the first, with 3 threads to be had"
    );
}

#[test]
fn an_error_that_is_answered_in_json_says_so() {
    let app = App::new()
        .on_error(|_: &mut Request, e: &Error, r: &mut Response| {
            r.json(&serde_json::json!({"s": e.status().as_u16()}))
        })
        .get(
            "/",
            |_: &mut Request, _: &mut Response| -> theframework::Result {
                Err(Error::new(StatusCode::BAD_REQUEST, "no"))
            },
        );
    let a = app.test(http::Request::get("/").body("").unwrap()).unwrap();
    assert_eq!(a.body(), "{\"s\":400}");
    assert_eq!(a.headers()["content-type"], "application/json");
}

#[test]
fn all_methods_of_any_stream() {
    let app = App::new()
        .config(Config {
            max_body_size: 10,
            ..Config::default()
        })
        .any("/", |_: &mut Request, r: &mut Response| r.text("ok"))
        .streaming();
    let a = app
        .test(http::Request::post("/").body("x".repeat(100)).unwrap())
        .unwrap();
    assert_eq!(a.status(), 200);
}

#[test]
fn nobody_can_connect_while_it_drains() {
    let kept: &'static Mutex<Vec<Responder>> = keep();
    let server = App::new()
        .settings(Settings {
            graceful_timeout: Duration::from_secs(20),
            ..settings()
        })
        .get("/", move |_: &mut Request, r: &mut Response| {
            kept.lock().unwrap().push(r.defer());
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let a = addr(&server);
    let _s = raw(a, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    server.stop();
    std::thread::sleep(Duration::from_millis(1000));
    let second = TcpStream::connect(a);
    let refused = second.is_err();
    kept.lock().unwrap().clear();
    server.join().unwrap();
    assert!(refused, "a connection is made that nobody will serve");
}

#[test]
fn the_sender_of_a_channel_that_was_replaced_is_told() {
    let kept: &'static Mutex<Vec<Sender>> = keep();
    let app = App::new().get(
        "/",
        move |_: &mut Request, r: &mut Response| -> theframework::Result {
            kept.lock().unwrap().push(r.channel());
            Err(Error::new(StatusCode::BAD_REQUEST, "changed my mind"))
        },
    );
    let mut c = TestClient::new(&app).unwrap();
    assert_eq!(
        c.send(http::Request::get("/").body("").unwrap())
            .unwrap()
            .status(),
        400
    );
    let s = kept.lock().unwrap().pop().unwrap();
    for _ in 0..10 {
        let _ = s.send(vec![0; 30_000]);
        let _ = c.send(http::Request::get("/").body("").unwrap());
    }
    assert_eq!(s.send("x".repeat(40_000)), Err(SendError::Gone));
}

#[test]
fn a_reset_is_seen_before_the_first_piece() {
    let kept: &'static Mutex<Vec<Sender>> = keep();
    let server = App::new()
        .settings(settings())
        .get("/events", move |_: &mut Request, r: &mut Response| {
            kept.lock().unwrap().push(r.events());
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(addr(&server), b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(read_some(&mut s).starts_with("HTTP/1.1 200"));
    let s2 = socket2::Socket::from(s);
    s2.set_linger(Some(Duration::ZERO)).unwrap();
    drop(s2);
    std::thread::sleep(Duration::from_millis(500));
    let gone = kept.lock().unwrap()[0].is_gone();
    let conns = server.connections();
    assert!(gone && conns == 0, "gone {gone}, connections {conns}");
}

#[test]
fn a_responder_that_was_replaced_does_nothing() {
    let app = App::new().get("/", |_: &mut Request, r: &mut Response| {
        let responder = r.defer();
        drop(responder);
        let worker = r.worker().clone();
        let sender = r.channel();
        sender.send("one").unwrap();
        worker.after(Duration::from_millis(50), move |_| {
            let _ = sender.send("two");
        });
    });
    let a = app.test(http::Request::get("/").body("").unwrap());
    assert_eq!(a.unwrap().body(), "onetwo");
}

struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("in drop");
        }
    }
}

#[test]
fn a_panic_in_a_drop_does_not_end_the_loop() {
    let server = App::new()
        .settings(settings())
        .get("/bomb", |_: &mut Request, r: &mut Response| {
            let bomb = Bomb;
            r.stream((0..3).map(move |n| {
                let _ = &bomb;
                format!("{n}")
            }));
        })
        .get("/", |_: &mut Request, r: &mut Response| r.text("root"))
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let a = addr(&server);
    let mut s = raw(a, b"GET /bomb HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = read_some(&mut s);
    let mut s = raw(a, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let got = read_some(&mut s);
    assert!(got.contains("root"), "{got:?}");
}

#[test]
fn an_error_of_status_405_has_allow() {
    let app = App::new()
        .method_not_allowed(
            |_: &mut Request, _: &mut Response| -> theframework::Result {
                Err(Error::new(StatusCode::METHOD_NOT_ALLOWED, "not so"))
            },
        )
        .get("/", |_: &mut Request, r: &mut Response| r.text("x"));
    let a = app
        .test(http::Request::post("/").body("").unwrap())
        .unwrap();
    assert_eq!(a.status(), 405);
    assert!(a.headers().contains_key("allow"));
}

#[test]
fn a_503_does_not_say_what_was_meant_for_the_answer() {
    let app = App::new().get("/", |_: &mut Request, r: &mut Response| {
        r.set_header("Cache-Control", "public, max-age=3600")
            .unwrap();
        r.set_header("Content-Encoding", "gzip").unwrap();
        drop(r.defer());
    });
    let a = app.test(http::Request::get("/").body("").unwrap()).unwrap();
    assert_eq!(a.status(), 503);
    assert!(
        !a.headers().contains_key("content-encoding"),
        "{:?}",
        a.headers()
    );
}

#[test]
fn a_reply_has_one_content_type() {
    let app = App::new().get("/", |_: &mut Request, r: &mut Response| {
        r.defer().send(Reply::text("a,b").with_header(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("text/csv"),
        ));
    });
    let a = app.test(http::Request::get("/").body("").unwrap()).unwrap();
    assert_eq!(a.headers().get_all("content-type").iter().count(), 1);
}

#[test]
fn what_is_written_comes_behind_a_body_that_was_set() {
    let app = App::new().get("/", |_: &mut Request, r: &mut Response| {
        r.set_body("abc");
        r.body_writer().write_all(b"def").unwrap();
    });
    let a = app.test(http::Request::get("/").body("").unwrap()).unwrap();
    assert_eq!(a.body(), "abcdef");
}

#[test]
fn a_panic_of_what_was_replaced_does_not_end_the_loop() {
    // An error after a stream whose iterator panics in Drop
    static OK: AtomicBool = AtomicBool::new(false);
    let app = App::new().get(
        "/",
        |_: &mut Request, r: &mut Response| -> theframework::Result {
            let bomb = Bomb;
            r.stream((0..3).map(move |n| {
                let _ = &bomb;
                format!("{n}")
            }));
            Err(Error::new(StatusCode::BAD_REQUEST, "no"))
        },
    );
    let a = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        app.test(http::Request::get("/").body("").unwrap())
    }));
    OK.store(a.is_ok(), Ordering::SeqCst);
    assert!(a.is_ok(), "it left the loop");
}

use theframework::{DriverKind, Link, Protocol};
fn read_all(s: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut b = vec![0; 65536];
    loop {
        match s.read(&mut b) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&b[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => {
                all.extend_from_slice(format!("ERR {e}").as_bytes());
                return all;
            }
        }
    }
}
#[test]
fn an_unread_body_that_is_whole_does_not_end_the_connection() {
    let server = App::new()
        .settings(settings())
        .post("/", |_: &mut Request, r: &mut Response| {
            r.stream(["a", "b"]);
        })
        .streaming()
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(addr(&server), b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let got = String::from_utf8_lossy(&read_all(&mut s)).into_owned();
    assert_eq!(got.matches("HTTP/1.1 200").count(), 3, "{got}");
}

#[test]
fn a_successor_on_the_same_port_gets_all_who_come() {
    let kept: &'static Mutex<Vec<Responder>> = keep();
    let make = move |at: String| {
        App::new()
            .settings(Settings {
                reuse_port: true,
                graceful_timeout: Duration::from_secs(20),
                ..settings()
            })
            .get("/hold", move |_: &mut Request, r: &mut Response| {
                kept.lock().unwrap().push(r.defer());
            })
            .get("/", |_: &mut Request, r: &mut Response| r.text("root"))
            .bind(&at)
            .unwrap()
            .start()
            .unwrap()
    };
    let old = make("127.0.0.1:0".to_owned());
    let a = addr(&old);
    let _hold = raw(a, b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    let new = make(a.to_string());
    old.stop();
    std::thread::sleep(Duration::from_millis(1500));
    let mut streams: Vec<_> = (0..40)
        .map(|_| raw(a, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let mut lost = 0;
    for s in &mut streams {
        s.set_nonblocking(true).unwrap();
        if !read_some(s).contains("root") {
            lost += 1;
        }
    }
    kept.lock().unwrap().clear();
    new.stop();
    old.join().unwrap();
    new.join().unwrap();
    assert_eq!(
        lost, 0,
        "of 40 new connections, so many hang in the old server's socket"
    );
}

#[test]
fn a_streamed_answer_to_an_unread_body_says_close() {
    let server = App::new()
        .settings(settings())
        .post("/", |_: &mut Request, r: &mut Response| {
            r.stream(["a", "b"]);
        })
        .streaming()
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(
        addr(&server),
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab",
    );
    let got = String::from_utf8_lossy(&read_all(&mut s)).into_owned();
    assert!(
        got.to_ascii_lowercase().contains("connection: close"),
        "{got}"
    );
}

#[test]
fn a_channel_without_a_body_is_over_at_once() {
    let kept: &'static Mutex<Vec<Sender>> = keep();
    let server = App::new()
        .settings(settings())
        .get("/n", move |_: &mut Request, r: &mut Response| {
            r.set_status(StatusCode::NO_CONTENT);
            kept.lock().unwrap().push(r.channel());
        })
        .get("/", |_: &mut Request, r: &mut Response| r.text("root"))
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(
        addr(&server),
        b"GET /n HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let first = read_some(&mut s);
    let second = if first.contains("root") {
        first.clone()
    } else {
        read_some(&mut s)
    };
    assert!(second.contains("root"), "{first} {second}");
}

#[test]
fn a_task_that_holds_its_worker_is_freed_with_it() {
    struct Told(Arc<AtomicBool>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let freed = Arc::new(AtomicBool::new(false));
    let f = freed.clone();
    let server = App::new()
        .settings(settings())
        .on_start(move |w| {
            let (own, told) = (w.clone(), Told(f.clone()));
            w.every(Duration::from_secs(1), move |_| {
                let _ = (&own, &told);
            });
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    server.stop();
    server.join().unwrap();
    assert!(freed.load(Ordering::SeqCst));
}

#[test]
fn a_timer_that_is_set_in_a_drop_is_in_time() {
    // A stream's iterator is dropped and sets a timer: in time?
    struct After(theframework::Worker, Instant);
    impl Drop for After {
        fn drop(&mut self) {
            let at = self.1;
            self.0.after(Duration::from_millis(1), move |_| {
                LATE.store(at.elapsed().as_millis() as usize + 1, Ordering::SeqCst);
            });
        }
    }
    static LATE: AtomicUsize = AtomicUsize::new(0);
    let server = App::new()
        .settings(settings())
        .get("/", |_: &mut Request, r: &mut Response| {
            let a = After(r.worker().clone(), Instant::now());
            r.stream(["a"].into_iter().inspect(move |_| {
                let _ = &a;
            }));
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(addr(&server), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = read_some(&mut s);
    std::thread::sleep(Duration::from_millis(200));
    let late = LATE.load(Ordering::SeqCst);
    assert!(late > 0 && late < 100, "{late}");
}

#[test]
fn an_answer_is_not_waited_for_when_its_client_has_reset() {
    let kept: &'static Mutex<Vec<Responder>> = keep();
    let server = App::new()
        .settings(settings())
        .config(Config {
            handler_timeout_ms: 0,
            ..Config::default()
        })
        .get("/", move |_: &mut Request, r: &mut Response| {
            kept.lock().unwrap().push(r.defer());
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let s = raw(addr(&server), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    let s2 = socket2::Socket::from(s);
    s2.set_linger(Some(Duration::ZERO)).unwrap();
    drop(s2);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.connections(), 0);
}

#[test]
fn an_answer_that_comes_later_has_its_time_where_bodies_stream_too() {
    let kept: &'static Mutex<Vec<Responder>> = keep();
    let server = App::new()
        .settings(settings())
        .config(Config {
            handler_timeout_ms: 200,
            ..Config::default()
        })
        .post("/", move |_: &mut Request, r: &mut Response| {
            kept.lock().unwrap().push(r.defer());
        })
        .streaming()
        .post("/b", move |_: &mut Request, r: &mut Response| {
            kept.lock().unwrap().push(r.defer());
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(
        addr(&server),
        b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na",
    );
    assert!(read_some(&mut s).starts_with("HTTP/1.1 503"));
    let mut s = raw(
        addr(&server),
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na",
    );
    let got = read_some(&mut s);
    assert!(got.starts_with("HTTP/1.1 503"), "{got}");
}

#[test]
fn no_loop_turns_in_vain() {
    struct Quiet;
    impl Protocol for Quiet {
        fn data(&mut self, bytes: &[u8], link: &mut Link<'_>) {
            for _ in 0..64 {
                link.send(bytes.to_vec());
            }
        }
        fn end(&mut self, _: &mut Link<'_>) {}
    }
    struct R;
    impl theframework::BodyReader for R {
        fn piece(&mut self, _: &[u8]) -> theframework::Result {
            Ok(())
        }
        fn end(self: Box<Self>) -> theframework::Result<Reply> {
            Ok(Reply::text("x"))
        }
    }
    for driver in [DriverKind::IoUring, DriverKind::Poll] {
        let kept: &'static Mutex<Vec<Sender>> = keep();
        let server = App::new()
            .settings(Settings {
                driver: Some(driver),
                ..settings()
            })
            .get("/p", |_: &mut Request, r: &mut Response| {
                r.upgrade(Quiet);
            })
            .get("/c", move |_: &mut Request, r: &mut Response| {
                kept.lock().unwrap().push(r.channel());
            })
            .get("/s", |_: &mut Request, r: &mut Response| {
                r.stream(std::iter::repeat_with(|| vec![b'x'; 10_000]));
            })
            .post("/r", |_: &mut Request, r: &mut Response| r.read_body(R))
            .streaming()
            .bind("127.0.0.1:0")
            .unwrap()
            .start()
            .unwrap();
        let a = addr(&server);
        let turns = |what: &str| {
            std::thread::sleep(Duration::from_millis(500));
            let before = server.stats().turns;
            std::thread::sleep(Duration::from_millis(500));
            let n = server.stats().turns - before;
            println!("{driver:?} {what}: {n}");
            n
        };
        let p1 = raw(a, b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n");
        let n0 = turns("idle protocol");
        p1.shutdown(std::net::Shutdown::Write).unwrap();
        let n1 = turns("protocol, fin");
        let mut p2 = raw(a, b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n");
        let w = p2.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut w = w;
            let _ = w.write_all(&vec![b'x'; 3_000_000]);
        });
        let n2 = turns("protocol, full");
        let mut c = raw(a, b"GET /c HTTP/1.1\r\nHost: x\r\n\r\n");
        std::thread::sleep(Duration::from_millis(50));
        {
            let k = kept.lock().unwrap();
            for _ in 0..2000 {
                let _ = k[0].send(vec![b'x'; 30_000]);
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        let n3 = turns("channel, full");
        let mut st = raw(a, b"GET /s HTTP/1.1\r\nHost: x\r\n\r\n");
        let n4 = turns("stream, full");
        let rr = raw(
            a,
            b"POST /r HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc",
        );
        let n5 = turns("reader");
        let _ = (&mut p2, &mut c, &mut st, &rr);
        assert!([n0, n1, n2, n3, n4, n5].iter().all(|n| *n < 20));
        server.stopper().abort();
        kept.lock().unwrap().clear();
        assert!(within(Duration::from_secs(6), move || server.join()).is_some());
    }
}

#[test]
fn an_error_of_a_reader_does_not_say_what_was_meant_for_the_answer() {
    struct R;
    impl theframework::BodyReader for R {
        fn piece(&mut self, _: &[u8]) -> theframework::Result {
            Err(Error::new(StatusCode::BAD_REQUEST, "x"))
        }
        fn end(self: Box<Self>) -> theframework::Result<Reply> {
            Ok(Reply::text("x"))
        }
    }
    let app = App::new()
        .post("/", |_: &mut Request, r: &mut Response| {
            r.set_header("ETag", "\"a\"").unwrap();
            r.read_body(R);
        })
        .streaming();
    let a = app
        .test(http::Request::post("/").body("abc").unwrap())
        .unwrap();
    assert_eq!(a.status(), 400);
    assert!(!a.headers().contains_key("etag"));
}

#[test]
fn a_reader_gets_no_empty_piece() {
    static EMPTY: AtomicUsize = AtomicUsize::new(0);
    struct R;
    impl theframework::BodyReader for R {
        fn piece(&mut self, b: &[u8]) -> theframework::Result {
            if b.is_empty() {
                EMPTY.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
        fn end(self: Box<Self>) -> theframework::Result<Reply> {
            Ok(Reply::text("x"))
        }
    }
    let app = App::new().get("/", |_: &mut Request, r: &mut Response| r.read_body(R));
    app.test(http::Request::get("/").body("").unwrap()).unwrap();
    assert_eq!(EMPTY.load(Ordering::SeqCst), 0);
}

#[test]
fn a_client_that_closes_is_seen_by_a_quiet_stream_of_events() {
    let kept: &'static Mutex<Vec<Sender>> = keep();
    let server = App::new()
        .settings(settings())
        .get("/", move |_: &mut Request, r: &mut Response| {
            let s = r.events();
            s.send("data: x\n\n").unwrap();
            kept.lock().unwrap().push(s);
        })
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let mut s = raw(addr(&server), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    read_some(&mut s);
    drop(s); // FIN
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        kept.lock().unwrap()[0].is_gone(),
        "connections {}",
        server.connections()
    );
}

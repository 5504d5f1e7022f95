//! Responses and requests in pieces.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use theframework::http::Request as HttpRequest;
use theframework::{
    App, BodyReader, Bytes, Config, Error, Event, Reply, Request, Response, SendError, Sender,
    StatusCode,
};

use crate::{
    DRIVERS, connect, field, on_all, read_to_end, read_until, say, serve, stop, text, wait_for,
    write,
};

#[test]
fn pieces_are_sent_chunked_or_with_their_length() {
    let make = || {
        App::new()
            .get("/numbers", |_: &mut Request, response: &mut Response| {
                response.stream((0..20_000).map(|number| format!("{number}\n")));
            })
            .get("/large", |_: &mut Request, response: &mut Response| {
                response.stream((0..30).map(|_| vec![b'x'; 50_000]));
            })
            .get("/known", |_: &mut Request, response: &mut Response| {
                response.stream_of(6, ["abc", "", "def"]);
            })
            .get("/nothing", |_: &mut Request, response: &mut Response| {
                response.stream(std::iter::empty::<Bytes>());
            })
    };
    on_all(make, |client| {
        let numbers: String = (0..20_000).map(|number| format!("{number}\n")).collect();
        for _ in 0..2 {
            let answer = client.get("/numbers");
            assert_eq!(field(&answer, "transfer-encoding"), "chunked");
            assert!(text(&answer) == numbers);
            assert_eq!(client.get("/large").body().len(), 1_500_000);
            let answer = client.get("/known");
            assert_eq!(
                (field(&answer, "content-length"), text(&answer)),
                ("6", "abcdef")
            );
            assert_eq!(text(&client.get("/nothing")), "");
            let head = client.send(HttpRequest::head("/numbers").body("").unwrap());
            assert_eq!(text(&head), "");
        }
    });
}

#[test]
fn a_stream_that_is_not_as_announced_ends_the_connection() {
    for driver in DRIVERS {
        let app = App::new()
            .get("/short", |_: &mut Request, response: &mut Response| {
                response.stream_of(6, ["abc"]);
            })
            .get("/long", |_: &mut Request, response: &mut Response| {
                response.stream_of(6, ["abc", "defg"]);
            })
            .get("/panics", |_: &mut Request, response: &mut Response| {
                response.stream((0..3).map(|number| {
                    assert!(number < 2, "a stream that panics");
                    "piece"
                }));
            });
        let server = serve(app, driver);
        for (target, end) in [
            ("/short", "Content-Length: 6\r\n\r\nabc"),
            ("/long", "Content-Length: 6\r\n\r\nabc"),
            ("/panics", "\r\n\r\n5\r\npiece\r\n5\r\npiece\r\n"),
        ] {
            let mut stream = connect(&server);
            write(
                &mut stream,
                &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
            );
            let answer = read_to_end(&mut stream);
            assert!(answer.ends_with(end), "{target}: {answer:?}");
        }
        stop(server);
    }
}

/// Who does not read is not written for.
#[test]
fn pieces_are_asked_for_as_the_client_takes_them() {
    for driver in DRIVERS {
        let asked = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&asked);
        let app = App::new().get("/", move |_: &mut Request, response: &mut Response| {
            let counts = Arc::clone(&counts);
            response.stream((0..1000).map(move |_| {
                counts.fetch_add(1, Ordering::SeqCst);
                vec![b'x'; 100_000]
            }));
        });
        let server = serve(app, driver);
        let mut stream = connect(&server);
        write(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for("the first piece", || asked.load(Ordering::SeqCst) > 0);
        std::thread::sleep(Duration::from_millis(200));
        let before = asked.load(Ordering::SeqCst);
        assert!(
            before < 150,
            "{before} pieces for a client that reads nothing"
        );
        let mut taken = 0;
        let mut piece = vec![0; 1 << 20];
        while asked.load(Ordering::SeqCst) < 1000 {
            taken += stream.read(&mut piece).unwrap();
        }
        assert!(taken > 50_000_000);
        drop(stream);
        wait_for("the end", || server.connections() == 0);
        stop(server);
    }
}

#[test]
fn events_come_from_any_thread_until_the_client_leaves() {
    for driver in DRIVERS {
        let senders: Arc<Mutex<Vec<Sender>>> = Arc::default();
        let keeps = Arc::clone(&senders);
        let app = App::new().get("/", move |_: &mut Request, response: &mut Response| {
            let sender = response.events();
            sender.event(&Event::new("welcome\nto all")).unwrap();
            keeps.lock().unwrap().push(sender);
        });
        let server = serve(app, driver);
        let mut clients: Vec<_> = (0..3)
            .map(|_| {
                let mut stream = connect(&server);
                write(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                let head = read_until(&mut stream, "\r\n\r\n");
                assert!(head.contains("Content-Type: text/event-stream; charset=utf-8\r\n"));
                read_until(&mut stream, "data: welcome\ndata: to all\n\n\r\n");
                stream
            })
            .collect();
        let event = Event {
            name: Some("news"),
            id: Some("7"),
            ..Event::new("hot")
        };
        for sender in senders.lock().unwrap().iter() {
            sender.event(&event).unwrap();
        }
        for stream in &mut clients {
            read_until(stream, "event: news\nid: 7\ndata: hot\n\n\r\n");
        }
        drop(clients.pop());
        // Whether somebody is there is known when something is sent.
        wait_for("one has left", || {
            let senders = senders.lock().unwrap();
            for sender in senders.iter() {
                let _ = sender.send(": are you there?\n\n");
            }
            senders.iter().filter(|sender| sender.is_gone()).count() == 1
        });
        let mut senders = std::mem::take(&mut *senders.lock().unwrap());
        let gone = senders.iter().position(Sender::is_gone).unwrap();
        assert_eq!(senders.remove(gone).send("x"), Err(SendError::Gone));
        // One is ended, the other dropped: both responses are whole.
        senders[0].end();
        assert_eq!(senders[0].send("x"), Err(SendError::Gone));
        drop(senders);
        for stream in &mut clients {
            read_until(stream, "0\r\n\r\n");
        }
        stop(server);
    }
}

#[test]
fn a_sender_is_told_when_its_client_does_not_read() {
    for driver in DRIVERS {
        let senders: Arc<Mutex<Vec<Sender>>> = Arc::default();
        let keeps = Arc::clone(&senders);
        let app = App::new().get("/", move |_: &mut Request, response: &mut Response| {
            keeps.lock().unwrap().push(response.channel());
        });
        let server = serve(app, driver);
        let mut stream = connect(&server);
        write(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for("the request", || !senders.lock().unwrap().is_empty());
        let sender = senders.lock().unwrap().pop().unwrap();
        let mut sent = 0;
        let mut refused = 0;
        while refused < 20 {
            match sender.send(vec![b'x'; 10_000]) {
                Ok(()) => (sent, refused) = (sent + 10_000, 0),
                Err(SendError::Full) => {
                    refused += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(other) => panic!("{other}"),
            }
            assert!(sent < 100_000_000, "nothing holds it back");
        }
        assert!(sender.queued() > 0 && sender.queued() <= theframework::QUEUED_MAX);
        let reads = std::thread::spawn(move || {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got.iter().filter(|&&byte| byte == b'x').count()
        });
        wait_for("it has room again", || sender.queued() == 0);
        sender.send("xxx").unwrap();
        drop(sender);
        server.stop();
        // The client's own `Host: x` is not sent back.
        assert_eq!(reads.join().unwrap(), sent + 3);
        server.join().unwrap();
    }
}

struct Count {
    len: u64,
    pieces: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<Option<StatusCode>>>>,
}

impl BodyReader for Count {
    fn piece(&mut self, bytes: &[u8]) -> theframework::Result {
        if bytes.contains(&b'!') {
            return Err(Error::new(StatusCode::UNPROCESSABLE_ENTITY, "no shouting"));
        }
        self.len += bytes.len() as u64;
        self.pieces.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn end(self: Box<Self>) -> theframework::Result<Reply> {
        Ok(Reply::text(self.len.to_string()))
    }

    fn fail(self: Box<Self>, status: Option<StatusCode>) {
        self.failed.lock().unwrap().push(status);
    }
}

#[derive(Clone, Default)]
struct Seen {
    pieces: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<Option<StatusCode>>>>,
}

fn uploads(seen: &Seen) -> App {
    let seen = seen.clone();
    let read = move |_: &mut Request<'_>, response: &mut Response<'_>| {
        response.read_body(Count {
            len: 0,
            pieces: Arc::clone(&seen.pieces),
            failed: Arc::clone(&seen.failed),
        });
    };
    App::new()
        .post("/up", read.clone())
        .streaming()
        .post("/small", read.clone())
        .streaming_up_to(1000)
        .post("/buffered", read)
        .post("/unread", say("did not read"))
        .streaming()
        .get("/", say("fine"))
}

#[test]
fn a_body_is_taken_while_it_comes() {
    let seen = Seen::default();
    on_all(
        || uploads(&seen),
        |client| {
            for len in [0, 1, 5000, 100_000, 5_000_000] {
                let request = HttpRequest::post("/up").body(vec![b'x'; len]).unwrap();
                assert_eq!(text(&client.send(request)), len.to_string());
            }
            let request = HttpRequest::post("/buffered")
                .body(vec![b'x'; 30_000])
                .unwrap();
            assert_eq!(text(&client.send(request)), "30000");
            let request = HttpRequest::post("/small").body(vec![b'x'; 1000]).unwrap();
            assert_eq!(text(&client.send(request)), "1000");
            assert_eq!(text(&client.get("/")), "fine");
        },
    );
    assert!(seen.pieces.load(Ordering::SeqCst) > 3 * 50);
    let request = HttpRequest::post("/small").body(vec![b'x'; 1001]).unwrap();
    assert_eq!(uploads(&seen).test(request).unwrap().status(), 413);
    let request = HttpRequest::post("/up").body("hey!").unwrap();
    let answer = uploads(&seen).test(request).unwrap();
    assert_eq!(
        (answer.status().as_u16(), text(&answer)),
        (422, "no shouting\n")
    );
    let request = HttpRequest::post("/unread").body("a body").unwrap();
    assert_eq!(text(&uploads(&seen).test(request).unwrap()), "did not read");
}

#[test]
fn a_reader_is_told_why_no_more_comes() {
    for driver in DRIVERS {
        let seen = Seen::default();
        let config = Config {
            read_timeout_ms: 150,
            ..Config::default()
        };
        let server = serve(uploads(&seen).config(config), driver);
        let head = "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc";
        let mut stalls = connect(&server);
        write(&mut stalls, head);
        assert!(read_to_end(&mut stalls).starts_with("HTTP/1.1 408 "));
        let mut leaves = connect(&server);
        write(&mut leaves, head);
        drop(leaves);
        let mut lies = connect(&server);
        write(
            &mut lies,
            "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        );
        assert!(read_to_end(&mut lies).starts_with("HTTP/1.1 400 "));
        wait_for("all three", || seen.failed.lock().unwrap().len() >= 2);
        wait_for("nobody is left", || server.connections() == 0);
        let failed = seen.failed.lock().unwrap().clone();
        assert!(
            failed.contains(&Some(StatusCode::REQUEST_TIMEOUT)),
            "{failed:?}"
        );
        assert!(failed.contains(&None), "{failed:?}");
        stop(server);
    }
}

/// `100 Continue` goes out when the reader wants the body.
#[test]
fn a_client_that_waits_to_continue_is_told_to() {
    for driver in DRIVERS {
        let server = serve(uploads(&Seen::default()), driver);
        let mut stream = connect(&server);
        write(
            &mut stream,
            "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        );
        read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"abc").unwrap();
        read_until(&mut stream, "\r\n\r\n3");
        stop(server);
    }
}

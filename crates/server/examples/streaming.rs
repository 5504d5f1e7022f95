//! Bodies that come and go in pieces: an upload that is counted while it arrives, a download that is made while
//! it is sent, and events that a timer sends to everybody who listens.
//!
//! ```text
//! cargo run --example streaming -- 127.0.0.1:8000
//! head -c 100000000 /dev/zero | curl localhost:8000/upload -T - -X POST
//! curl 'localhost:8000/numbers?to=1000000' | tail -1
//! curl -N localhost:8000/events
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use theframework::{
    App, BodyReader, Error, Event, Reply, Request, Response, SendError, Sender, Settings,
    StartError, StatusCode,
};

/// Bytes of an upload at most.
const UPLOAD_MAX: u64 = 1 << 30;
const NUMBERS_MAX: u64 = 10_000_000;

/// What is known of an upload so far: it is never in memory as a whole.
#[derive(Default)]
struct Upload {
    bytes: u64,
    lines: u64,
}

impl BodyReader for Upload {
    fn piece(&mut self, bytes: &[u8]) -> theframework::Result {
        self.bytes += bytes.len() as u64;
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(())
    }

    fn end(self: Box<Self>) -> theframework::Result<Reply> {
        Reply::json(&serde_json::json!({"bytes": self.bytes, "lines": self.lines}))
    }

    fn fail(self: Box<Self>, status: Option<StatusCode>) {
        eprintln!("an upload ended after {} bytes: {status:?}", self.bytes);
    }
}

fn upload(_: &mut Request, response: &mut Response) {
    response.read_body(Upload::default());
}

fn numbers(request: &mut Request, response: &mut Response) -> theframework::Result {
    let to = request.query_value("to").unwrap_or("10".into());
    let to = to.parse().ok().filter(|to| *to <= NUMBERS_MAX);
    let to: u64 =
        to.ok_or_else(|| Error::new(StatusCode::BAD_REQUEST, "to is no number up to 10000000"))?;
    response.set_header("Content-Type", "text/plain")?;
    // Each piece is made when there is room for it: as many lines as make a piece worth sending.
    response.stream((1..=to).step_by(1000).map(move |from| {
        (from..=to.min(from + 999))
            .map(|number| format!("{number}\n"))
            .collect::<String>()
    }));
    Ok(())
}

/// Those who listen to the events, on whichever loop.
#[derive(Default)]
struct Listeners(Mutex<Vec<Sender>>);

impl Listeners {
    fn add(&self, sender: Sender) {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.push(sender);
    }

    /// Those who are slow miss an event; those who have gone are forgotten.
    fn tell(&self, event: &Event) {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|sender| sender.event(event) != Err(SendError::Gone));
    }
}

fn events(request: &mut Request, response: &mut Response) {
    let sender = response.events();
    // A fresh channel takes it.
    let _ = sender.event(&Event::new("welcome"));
    request.state::<Arc<Listeners>>().add(sender);
}

fn main() -> Result<(), StartError> {
    let address = std::env::args().nth(1);
    let listeners = Arc::new(Listeners::default());
    let told = Arc::clone(&listeners);
    let server = App::new()
        .state(listeners)
        .on_start(move |worker| {
            // One clock for all loops: a sender sends from any thread.
            if worker.number() == 0 {
                let (told, mut count) = (Arc::clone(&told), 0_u64);
                worker.every(Duration::from_millis(100), move |_| {
                    count += 1;
                    told.tell(&Event {
                        name: Some("tick"),
                        id: Some(&count.to_string()),
                        ..Event::new("tick\ntock")
                    });
                });
            }
        })
        .post("/upload", upload)
        .streaming_up_to(UPLOAD_MAX)
        .get("/numbers", numbers)
        .get("/events", events)
        .settings(Settings {
            workers: 2,
            // An event stream has no end of its own.
            graceful_timeout: Duration::from_secs(1),
            ..Settings::default()
        })
        .bind(address.as_deref().unwrap_or("127.0.0.1:8000"))?;
    println!("listening on {}", server.addresses()[0]);
    server.run()
}

//! A chat, line by line, on connections that were taken over from HTTP. Who is on another loop hears what is
//! said as well; who does not read is dropped.
//!
//! ```text
//! cargo run --example chat -- 127.0.0.1:8000
//! (printf 'GET /chat?name=ann HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n'; cat) | nc 127.0.0.1 8000
//! (printf 'GET /chat?name=ben HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n'; cat) | nc 127.0.0.1 8000
//! curl -i localhost:8000/chat
//! ```
//!
//! What is typed there is said to the others; `/who` lists them, `/quit` goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use theframework::{
    App, Bytes, Config, Error, Link, Protocol, Request, Response, SendError, Sender, Settings,
    StartError, StatusCode, Version,
};

/// Bytes of a line at most; who sends more goes.
const LINE_MAX: usize = 1024;
const NAME_MAX: usize = 20;

/// Everybody who is there, by name, with the way to them.
#[derive(Default)]
struct Room(Mutex<BTreeMap<String, Sender>>);

impl Room {
    fn members(&self) -> MutexGuard<'_, BTreeMap<String, Sender>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_taken(&self, name: &str) -> bool {
        let members = self.members();
        members.get(name).is_some_and(|sender| !sender.is_gone())
    }

    fn leave(&self, name: &str) {
        if self.members().remove(name).is_some() {
            self.tell(name, &format!("* {name} has gone\n"));
        }
    }

    /// Says a line to all but one. Those for whom too much waits already are dropped, which the others are
    /// told.
    fn tell(&self, from: &str, line: &str) {
        let mut lines = vec![(from.to_owned(), Bytes::copy_from_slice(line.as_bytes()))];
        while let Some((from, line)) = lines.pop() {
            self.members().retain(|name, sender| {
                if *name == from {
                    return true;
                }
                match sender.send(line.clone()) {
                    Ok(()) => true,
                    Err(SendError::Full) => {
                        sender.end();
                        lines.push((name.clone(), format!("* {name} was too slow\n").into()));
                        false
                    }
                    Err(_) => false,
                }
            });
        }
    }
}

/// One who is there: its connection is here, and its place in the room.
struct Member {
    room: Arc<Room>,
    name: String,
    /// The line that is not complete.
    line: Vec<u8>,
}

impl Member {
    fn hear(&self, line: &str, link: &mut Link) {
        match line.trim() {
            "" => {}
            "/quit" => link.close(),
            "/who" => {
                let names: Vec<String> = self.room.members().keys().cloned().collect();
                link.send(format!("* here: {}\n", names.join(", ")));
            }
            text => {
                // No escape sequences for the others' terminals.
                let text = text.replace(char::is_control, "");
                self.room
                    .tell(&self.name, &format!("{}: {text}\n", self.name));
            }
        }
    }
}

impl Protocol for Member {
    fn open(&mut self, link: &mut Link) {
        link.send(format!("* welcome, {}\n", self.name));
        let loop_number = link.worker().number();
        let line = format!("* {} has come, on loop {loop_number}\n", self.name);
        self.room.tell(&self.name, &line);
    }

    fn data(&mut self, bytes: &[u8], link: &mut Link) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() > LINE_MAX {
                link.send("* that line is too long\n");
                return link.close();
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.hear(&String::from_utf8_lossy(&line), link);
            }
        }
    }

    fn closed(&mut self) {
        self.room.leave(&self.name);
    }
}

fn chat(request: &mut Request, response: &mut Response) -> theframework::Result {
    let wanted = request.header("upgrade").unwrap_or_default();
    // HTTP/1.0 has no upgrades: RFC 9110, 7.8.
    if request.version() != Version::HTTP_11 || !wanted.eq_ignore_ascii_case("chat") {
        response.set_header("Upgrade", "chat")?;
        response.set_status(StatusCode::UPGRADE_REQUIRED);
        response.text("this is a chat: see the head of its source\n");
        return Ok(());
    }
    let name = request.query_value("name").unwrap_or_default().into_owned();
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(char::is_alphanumeric) {
        let message = "a name has 1 to 20 letters and digits";
        return Err(Error::new(StatusCode::BAD_REQUEST, message));
    }
    let room = request.state::<Arc<Room>>();
    if room.is_taken(&name) {
        return Err(Error::new(StatusCode::CONFLICT, "that name is taken"));
    }
    response.set_header("Upgrade", "chat")?;
    let sender = response.upgrade(Member {
        room: Arc::clone(room),
        name: name.clone(),
        line: Vec::new(),
    });
    room.members().insert(name, sender);
    Ok(())
}

fn main() -> Result<(), StartError> {
    let address = std::env::args().nth(1);
    let server = App::new()
        .state(Arc::new(Room::default()))
        .get("/chat", chat)
        .config(Config {
            // What was said to one who was dropped goes after that, if it is not read.
            write_timeout_ms: 2000,
            ..Config::default()
        })
        .settings(Settings {
            workers: 2,
            // A chat has no end of its own.
            graceful_timeout: Duration::from_secs(1),
            ..Settings::default()
        })
        .bind(address.as_deref().unwrap_or("127.0.0.1:8000"))?;
    println!("listening on {}", server.addresses()[0]);
    server.run()
}

//! Connections that go on as something else.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use theframework::{App, Bytes, Config, Link, Protocol, Request, Response, Sender};

use crate::{DRIVERS, connect, read_to_end, read_until, serve, stop, wait_for, write};

const UPGRADE: &str =
    "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

/// Says back what it hears, until it hears a full stop; a question mark makes it panic.
struct Echo {
    closed: Arc<AtomicUsize>,
}

impl Protocol for Echo {
    fn open(&mut self, link: &mut Link<'_>) {
        link.send("welcome\n");
    }

    fn data(&mut self, bytes: &[u8], link: &mut Link<'_>) {
        assert!(!bytes.contains(&b'?'), "a protocol that panics");
        link.send(Bytes::copy_from_slice(bytes));
        if bytes.contains(&b'.') {
            link.close();
        }
    }

    fn end(&mut self, link: &mut Link<'_>) {
        link.send("bye\n");
        link.close();
    }

    fn closed(&mut self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

fn echo(closed: &Arc<AtomicUsize>, senders: &Arc<Mutex<Vec<Sender>>>) -> App {
    let (closed, senders) = (Arc::clone(closed), Arc::clone(senders));
    App::new().any("/echo", move |_: &mut Request, response: &mut Response| {
        response.set_header("Upgrade", "echo")?;
        let closed = Arc::clone(&closed);
        senders
            .lock()
            .unwrap()
            .push(response.upgrade(Echo { closed }));
        Ok(())
    })
}

#[test]
fn after_the_upgrade_the_connection_is_the_protocols() {
    for driver in DRIVERS {
        let closed = Arc::new(AtomicUsize::new(0));
        let senders = Arc::default();
        let config = Config {
            // None of these is about protocols.
            read_timeout_ms: 50,
            keepalive_timeout_ms: 50,
            handler_timeout_ms: 50,
            ..Config::default()
        };
        let server = serve(echo(&closed, &senders).config(config), driver);
        let mut stream = connect(&server);
        // What comes with the request is the protocol's, too.
        write(&mut stream, &format!("{UPGRADE}early "));
        let head = read_until(&mut stream, "\r\n\r\n");
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nUpgrade: echo\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: upgrade\r\n"), "{head}");
        assert!(
            !head.contains("Content-Length") && !head.contains("Transfer-Encoding"),
            "{head}"
        );
        read_until(&mut stream, "welcome\nearly ");
        std::thread::sleep(Duration::from_millis(200));
        write(&mut stream, "one ");
        read_until(&mut stream, "one ");
        // From elsewhere.
        let sender = senders.lock().unwrap().pop().unwrap();
        sender.send("from elsewhere ").unwrap();
        read_until(&mut stream, "from elsewhere ");
        drop(sender);
        // More than anybody holds at once, both ways.
        let mut writes = stream.try_clone().unwrap();
        let wrote = std::thread::spawn(move || writes.write_all(&vec![b'x'; 3_000_000]).unwrap());
        let mut got = vec![0; 3_000_000];
        stream.read_exact(&mut got).unwrap();
        wrote.join().unwrap();
        assert!(got.iter().all(|&byte| byte == b'x'));
        write(&mut stream, "the end.");
        assert_eq!(read_to_end(&mut stream), "the end.");
        assert_eq!(closed.load(Ordering::SeqCst), 1);
        wait_for("it is gone", || server.connections() == 0);
        stop(server);
    }
}

#[test]
fn a_protocol_is_told_of_its_clients_end() {
    for driver in DRIVERS {
        let closed = Arc::new(AtomicUsize::new(0));
        let senders = Arc::default();
        let server = serve(echo(&closed, &senders), driver);
        // Half an end: it may still be sent something.
        let mut stream = connect(&server);
        write(&mut stream, &format!("{UPGRADE}x"));
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_to_end(&mut stream);
        assert!(answer.ends_with("\r\n\r\nwelcome\nxbye\n"), "{answer}");
        // A whole one.
        let mut stream = connect(&server);
        write(&mut stream, UPGRADE);
        read_until(&mut stream, "welcome\n");
        drop(stream);
        wait_for("both are closed", || closed.load(Ordering::SeqCst) == 2);
        // A panic ends it, and nothing else.
        let mut stream = connect(&server);
        write(&mut stream, UPGRADE);
        read_until(&mut stream, "welcome\n");
        write(&mut stream, "?");
        assert_eq!(read_to_end(&mut stream), "");
        let mut stream = connect(&server);
        write(&mut stream, UPGRADE);
        read_until(&mut stream, "welcome\n");
        wait_for("senders know", || {
            let senders: std::sync::MutexGuard<'_, Vec<Sender>> = senders.lock().unwrap();
            senders.iter().filter(|sender| sender.is_gone()).count() == 3
        });
        // The end that is said from elsewhere.
        senders.lock().unwrap()[3].end();
        assert_eq!(read_to_end(&mut stream), "");
        wait_for("nobody is left", || server.connections() == 0);
        assert_eq!(closed.load(Ordering::SeqCst), 4);
        stop(server);
    }
}

/// What is read waits while what is written does.
#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    for driver in DRIVERS {
        let server = serve(echo(&Arc::default(), &Arc::default()), driver);
        let mut stream = connect(&server);
        write(&mut stream, UPGRADE);
        read_until(&mut stream, "welcome\n");
        stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut sent = 0;
        let piece = vec![b'x'; 100_000];
        let refused = loop {
            match stream.write(&piece) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            assert!(sent < 100_000_000, "nothing holds it back");
        };
        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
        let mut got = vec![0; sent];
        stream.read_exact(&mut got).unwrap();
        stop_and_see(server, stream);
    }
}

/// A drain gives protocols the time that there is, and then ends them.
fn stop_and_see(server: theframework::Handle, mut stream: std::net::TcpStream) {
    server.stopper().abort();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    server.join().unwrap();
}

#[test]
fn a_request_with_a_body_is_upgraded_when_it_is_whole() {
    for driver in DRIVERS {
        let closed = Arc::default();
        let server = serve(echo(&closed, &Arc::default()), driver);
        for len in [3, 50_000] {
            let mut stream = connect(&server);
            let body = "b".repeat(len);
            write(
                &mut stream,
                &format!(
                    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{body}behind."
                ),
            );
            let answer = read_to_end(&mut stream);
            assert!(answer.ends_with("\r\n\r\nwelcome\nbehind."), "{answer}");
        }
        stop(server);
    }
}

//! Servers: loops, listeners, limits, ends.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use theframework::http::Request as HttpRequest;
use theframework::{
    Address, App, Config, LiveClient, Request, Response, Settings, StartError, TrustedPeers,
};

use crate::{DRIVERS, connect, read_to_end, read_until, say, serve_with, stop, text, write};

fn ask(address: &Address) -> String {
    let mut client = LiveClient::connect(address).unwrap();
    let answer = client
        .send(HttpRequest::get("/").body("").unwrap())
        .unwrap();
    text(&answer).to_owned()
}

#[test]
fn it_listens_on_addresses_of_all_kinds_and_on_sockets_that_exist() {
    let path = std::env::temp_dir().join(format!("theframework-face-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    for driver in DRIVERS {
        let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = App::new()
            .get("/", say("here"))
            .settings(Settings {
                driver: Some(driver),
                workers: 2,
                ..Settings::default()
            })
            .bind("127.0.0.1:0")
            .unwrap()
            .bind("[::1]:0")
            .unwrap()
            .bind(&unix)
            .unwrap()
            .listener(inherited)
            .unwrap()
            .start()
            .unwrap();
        let addresses = server.addresses().to_vec();
        assert_eq!(addresses.len(), 4);
        assert!(matches!(addresses[1], Address::Tcp(address) if address.is_ipv6()));
        assert_eq!(addresses[2].to_string(), unix);
        for address in &addresses {
            assert_eq!(ask(address), "here", "{address}");
        }
        // Another one is told that it is taken.
        let taken = addresses[0].to_string();
        for address in [&taken, &unix] {
            let refused = App::new().bind(address).unwrap_err();
            assert!(
                matches!(&refused, StartError::Address(which, _) if which == address),
                "{refused}"
            );
        }
        stop(server);
        assert!(!path.exists(), "the socket's file stays");
    }
    // What a server that died has left is replaced; what somebody else has is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = App::new()
        .get("/", say("again"))
        .bind(&unix)
        .unwrap()
        .start()
        .unwrap();
    assert_eq!(ask(&server.addresses()[0]), "again");
    stop(server);
    std::fs::write(&path, "precious").unwrap();
    assert!(App::new().bind(&unix).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    assert!(App::new().bind("nonsense").is_err());
    assert!(matches!(
        App::new().server().unwrap().start().unwrap_err(),
        StartError::NoAddress
    ));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(App::new().server().unwrap().listener(socket).is_err());
}

#[test]
fn several_loops_share_the_connections_and_each_has_its_hooks() {
    for driver in DRIVERS {
        for reuse_port in [false, true] {
            let (started, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (starts, stops) = (Arc::clone(&started), Arc::clone(&stopped));
            let app = App::new()
                .get("/", |_: &mut Request, response: &mut Response| {
                    response.text(response.worker().number().to_string());
                })
                .on_start(move |worker| {
                    starts.fetch_add(1 + worker.number(), Ordering::SeqCst);
                })
                .on_stop(move |_| {
                    stops.fetch_add(1, Ordering::SeqCst);
                });
            let settings = Settings {
                workers: 3,
                reuse_port,
                ..Settings::default()
            };
            let server = serve_with(app, settings, driver);
            assert_eq!(started.load(Ordering::SeqCst), 6);
            let mut clients: Vec<_> = (0..60)
                .map(|_| LiveClient::connect(&server.addresses()[0]).unwrap())
                .collect();
            let mut served = [0; 3];
            for client in &mut clients {
                let answer = client
                    .send(HttpRequest::get("/").body("").unwrap())
                    .unwrap();
                served[text(&answer).parse::<usize>().unwrap()] += 1;
            }
            // The kernel spreads by chance with sockets of their own.
            assert!(
                served
                    .iter()
                    .all(|&count| count > if reuse_port { 0 } else { 8 }),
                "{served:?}"
            );
            crate::wait_for("figures", || server.stats().requests == 60);
            assert_eq!((server.stats().accepted, server.connections()), (60, 60));
            drop(clients);
            stop(server);
            assert_eq!(stopped.load(Ordering::SeqCst), 3);
        }
    }
}

#[test]
fn limits_of_the_configuration_are_kept() {
    for driver in DRIVERS {
        let app = App::new()
            .get("/", say("fine"))
            .post("/", say("taken"))
            .config(Config {
                max_target_size: 100,
                max_header_size: 1000,
                max_body_size: 10,
                max_connections: 2,
                accept_pause_ms: 1,
                read_timeout_ms: 200,
                keepalive_timeout_ms: 400,
                server: b"mine".to_vec(),
                ..Config::default()
            });
        let server = serve_with(app, Settings::default(), driver);
        for (request, status) in [
            (
                format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100)),
                "414",
            ),
            (
                format!(
                    "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
                    "x".repeat(1000)
                ),
                "431",
            ),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n".to_owned(),
                "413",
            ),
            ("GET / HTTP/1.1\r\n".to_owned(), "408"),
        ] {
            let mut stream = connect(&server);
            write(&mut stream, &request);
            let answer = read_to_end(&mut stream);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(answer.contains("\r\nServer: mine\r\n"), "{answer}");
            crate::wait_for("it is gone", || server.connections() == 0);
        }
        // A third connection is told to come again.
        let (mut first, mut second) = (connect(&server), connect(&server));
        for stream in [&mut first, &mut second] {
            write(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            read_until(stream, "\r\n\r\nfine");
        }
        let answer = read_to_end(&mut connect(&server));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        // Idle for too long.
        assert_eq!(read_to_end(&mut first), "");
        stop(server);
    }
}

#[test]
fn figures_of_memory_come_back_to_where_they_were() {
    for driver in DRIVERS {
        let app = App::new().post("/", |request: &mut Request, response: &mut Response| {
            response.copy_body(request.body());
        });
        let server = serve_with(app, Settings::default(), driver);
        for _ in 0..20 {
            let mut client = LiveClient::connect(&server.addresses()[0]).unwrap();
            let request = HttpRequest::post("/").body(vec![b'x'; 100_000]).unwrap();
            assert_eq!(client.send(request).unwrap().body().len(), 100_000);
        }
        crate::wait_for("nobody is left", || server.connections() == 0);
        let memory = server.memory();
        assert_eq!(
            (memory.exchanges, memory.chunks, memory.blocks),
            (0, 0, 0),
            "{memory:?}"
        );
        assert!(
            memory.cached_bytes > 100_000 || !theframework_memory::RECYCLES,
            "{memory:?}"
        );
        stop(server);
    }
}

/// What `/proc` says of this process's descriptors.
fn has_ring() -> bool {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    descriptors.into_iter().any(|descriptor| {
        let target = std::fs::read_link(descriptor.unwrap().path());
        target.is_ok_and(|target| target.to_string_lossy().contains("io_uring"))
    })
}

/// In a process of its own: what is seen of descriptors is the whole process's.
#[test]
fn the_driver_that_is_asked_for_serves() {
    const TEST: &str = "running::the_driver_that_is_asked_for_serves";
    if let Ok(name) = std::env::var("FACE_DRIVER") {
        let driver = DRIVERS
            .into_iter()
            .find(|driver| driver.name() == name)
            .unwrap();
        let server = serve_with(
            App::new().get("/", say("here")),
            Settings::default(),
            driver,
        );
        assert_eq!(ask(&server.addresses()[0]), "here");
        assert_eq!(has_ring(), name == "io_uring");
        return stop(server);
    }
    for driver in DRIVERS {
        let served = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST])
            .env("FACE_DRIVER", driver.name())
            .status();
        assert!(served.unwrap().success(), "{driver:?}");
    }
}

#[test]
fn limits_of_bodies_and_slow_peers_are_kept() {
    for driver in DRIVERS {
        let app = App::new()
            .post("/up", |_: &mut Request, response: &mut Response| {
                response.read_body(Drain);
            })
            .streaming()
            .post("/", say("whole"))
            .get("/large", |_: &mut Request, response: &mut Response| {
                response.set_body(vec![b'x'; 64 << 20]);
            })
            .config(Config {
                max_stream_size: 1000,
                min_body_rate: 1 << 20,
                read_timeout_ms: 300,
                write_timeout_ms: 300,
                ..Config::default()
            });
        let server = serve_with(app, Settings::default(), driver);
        let mut stream = connect(&server);
        write(
            &mut stream,
            "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n",
        );
        assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 413 "));
        // It sends all the time, and too little.
        let mut stream = connect(&server);
        write(
            &mut stream,
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
        );
        let mut drips = stream.try_clone().unwrap();
        let dripped = std::thread::spawn(move || {
            let began = std::time::Instant::now();
            while std::io::Write::write_all(&mut drips, b"x").is_ok()
                && began.elapsed() < Duration::from_secs(10)
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            began.elapsed()
        });
        assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 408 "));
        drop(stream);
        assert!(dripped.join().unwrap() < Duration::from_secs(9));
        // It takes nothing.
        let mut stream = connect(&server);
        write(&mut stream, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
        crate::wait_for("the request", || server.stats().requests == 1);
        crate::wait_for("it is given up", || server.connections() == 0);
        stop(server);
    }
}

struct Drain;

impl theframework::BodyReader for Drain {
    fn piece(&mut self, _: &[u8]) -> theframework::Result {
        Ok(())
    }

    fn end(self: Box<Self>) -> theframework::Result<theframework::Reply> {
        Ok(theframework::Reply::text("drained"))
    }
}

/// Requests of one client are read ahead of the one that is answered, up to a limit.
#[test]
fn no_more_is_read_ahead_than_allowed() {
    for driver in DRIVERS {
        let app = App::new()
            .get("/", |_: &mut Request, response: &mut Response| {
                response.offload(|| {
                    std::thread::sleep(Duration::from_millis(2000));
                    Ok(theframework::Reply::text("slow"))
                });
            })
            .config(Config {
                read_ahead: 8 << 10,
                ..Config::default()
            });
        let server = serve_with(app, Settings::default(), driver);
        let mut stream = connect(&server);
        stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        write(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut sent = 0;
        while sent < 200 << 20 {
            match std::io::Write::write(&mut stream, &[b'G'; 64 << 10]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        assert!(
            sent < 100 << 20,
            "{sent} bytes were read for a client that has to wait"
        );
        let memory = server.memory();
        assert!(memory.buffers < 10, "{memory:?}");
        server.stopper().abort();
        server.join().unwrap();
    }
}

#[test]
fn nobody_is_believed_who_is_not_trusted() {
    let app = App::new()
        .get("/", |request: &mut Request, response: &mut Response| {
            let client = request.client().map(|hop| hop.address.to_string());
            response.text(format!("{client:?} {}", request.scheme().as_str()));
        })
        .config(Config {
            forwarded_allow_ips: TrustedPeers::parse("192.0.2.1").unwrap(),
            ..Config::default()
        });
    let server = serve_with(app, Settings::default(), DRIVERS[0]);
    let mut client = LiveClient::connect(&server.addresses()[0]).unwrap();
    let request = HttpRequest::get("/")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Forwarded-Proto", "https");
    let answer = client.send(request.body("").unwrap()).unwrap();
    assert_eq!(text(&answer), "Some(\"127.0.0.1\") http");
    stop(server);
}

/// Who is not accepted waits in the kernel, if there is room.
#[test]
fn the_backlog_is_as_long_as_it_is_set() {
    let connected = |backlog: u32| {
        let settings = Settings {
            backlog,
            ..Settings::default()
        };
        let server = App::new().settings(settings).bind("127.0.0.1:0").unwrap();
        let Address::Tcp(address) = server.addresses()[0] else {
            panic!("not TCP");
        };
        let limit = Duration::from_millis(200);
        let streams: Vec<_> = (0..8)
            .map_while(|_| std::net::TcpStream::connect_timeout(&address, limit).ok())
            .collect();
        streams.len()
    };
    assert!(connected(1) < 8);
    assert_eq!(connected(64), 8);
}

#[test]
fn the_pool_has_as_many_threads_as_allowed() {
    for (threads, most) in [(1, 1), (3, 3)] {
        let (now, top) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counts, tops) = (Arc::clone(&now), Arc::clone(&top));
        let app = App::new().get("/", move |_: &mut Request, response: &mut Response| {
            let (now, top) = (Arc::clone(&counts), Arc::clone(&tops));
            response.offload(move || {
                top.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(theframework::Reply::text("done"))
            });
        });
        let settings = Settings {
            offload_threads: threads,
            ..Settings::default()
        };
        let server = serve_with(app, settings, DRIVERS[0]);
        let mut clients: Vec<_> = (0..9).map(|_| connect(&server)).collect();
        for client in &mut clients {
            write(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        for client in &mut clients {
            read_until(client, "done");
        }
        assert_eq!(top.load(Ordering::SeqCst), most);
        stop(server);
    }
}

/// In a process of its own, as signals are the whole process's.
#[test]
fn a_signal_lets_it_finish_and_a_second_one_does_not() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    const TEST: &str = "running::a_signal_lets_it_finish_and_a_second_one_does_not";
    if let Ok(path) = std::env::var("FACE_SIGNALS") {
        let handles_signals = std::env::var("FACE_UNHANDLED").is_err();
        let server = App::new()
            .settings(Settings {
                handles_signals,
                ..Settings::default()
            })
            .get("/slow", |_: &mut Request, response: &mut Response| {
                response.offload(|| {
                    std::thread::sleep(Duration::from_millis(400));
                    Ok(theframework::Reply::text("finished"))
                });
            })
            .bind(&path)
            .unwrap();
        println!("READY");
        return server.run().unwrap();
    }
    for (signals, answer) in [(&["TERM"][..], "finished"), (&["INT", "INT"], "")] {
        let path = std::env::temp_dir().join(format!(
            "theframework-signals-{}-{}",
            std::process::id(),
            signals.len()
        ));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env("FACE_SIGNALS", format!("unix:{}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("READY")));
        let mut stream = UnixStream::connect(&path).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        for signal in signals {
            let sent = Command::new("kill")
                .args([&format!("-{signal}"), &child.id().to_string()])
                .status();
            assert!(sent.unwrap().success());
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut got = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut got);
        assert!(String::from_utf8(got).unwrap().ends_with(answer));
        assert!(child.wait().unwrap().success());
    }
    // Where nobody handles it, it does what it does by default.
    let path = std::env::temp_dir().join(format!("theframework-unhandled-{}", std::process::id()));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env("FACE_SIGNALS", format!("unix:{}", path.display()))
        .env("FACE_UNHANDLED", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("READY")));
    std::thread::sleep(Duration::from_millis(200));
    let sent = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()),
        Some(15)
    );
    let _ = std::fs::remove_file(path);
}

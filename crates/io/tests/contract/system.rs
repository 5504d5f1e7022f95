//! The world of the drivers on the operating system: TCP on the loopback.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use socket2::SockRef;
use theframework_io::Driver;

use crate::world::{Arrived, Body, Peer, World};

/// A driver on the operating system.
pub trait OnSystem: Driver<Body, Socket = OwnedFd> + Sized {
    fn start(receive_buffers: u16) -> Self;
}

pub struct System<D> {
    listener: TcpListener,
    driver: PhantomData<D>,
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // What is accepted has these sizes too.
    SockRef::from(&listener)
        .set_recv_buffer_size(400_000)
        .unwrap();
    SockRef::from(&listener)
        .set_send_buffer_size(32_768)
        .unwrap();
    listener
}

/// The other end of a TCP connection.
pub struct Client(TcpStream);

fn connect(address: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32_768).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    Client(socket.into())
}

/// Where a listener that is only a descriptor listens.
fn address_of(listener: &OwnedFd) -> SocketAddr {
    SockRef::from(listener)
        .local_addr()
        .unwrap()
        .as_socket()
        .unwrap()
}

/// Several cases run at once, each with hundreds of connections.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a valid structure.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(65_536);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

impl<D: OnSystem> World for System<D> {
    type Driver = D;
    type Peer = Client;

    const IS_PROMPT: bool = true;

    fn new() -> Self {
        raise_descriptor_limit();
        System {
            listener: listen(),
            driver: PhantomData,
        }
    }

    fn driver(&mut self, receive_buffers: u16) -> D {
        D::start(receive_buffers)
    }

    fn pair(&mut self) -> (OwnedFd, Client) {
        let theirs = connect(self.listener.local_addr().unwrap());
        let (ours, _) = self.listener.accept().unwrap();
        // As the drivers accept them: blocking.
        (ours.into(), theirs)
    }

    fn listener(&mut self) -> OwnedFd {
        let listener = listen();
        listener.set_nonblocking(true).unwrap();
        listener.into()
    }

    fn connect(&mut self, listener: &OwnedFd) -> Client {
        connect(address_of(listener))
    }

    fn file(&mut self, bytes: &[u8]) -> OwnedFd {
        let name = format!("theframework-contract-{}", std::process::id());
        let path = std::env::temp_dir().join(format!("{name}-{:?}", std::thread::current().id()));
        std::fs::write(&path, bytes).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.into()
    }

    fn change(&mut self, file: &OwnedFd, bytes: &[u8]) {
        let file = File::from(file.try_clone().unwrap());
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }

    fn settle(&mut self) {
        // Segments on the loopback are delivered within the call that sends them, unless the machine
        // leaves them to its own thread for a while.
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Peer for Client {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn read_available(&mut self) -> Arrived {
        self.0.set_nonblocking(true).unwrap();
        let mut arrived = Arrived {
            bytes: Vec::new(),
            is_end: false,
        };
        let mut buffer = [0; 65_536];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => {
                    arrived.is_end = true;
                    break;
                }
                Ok(count) => arrived.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // We closed with something unread: the end, too.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    arrived.is_end = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.0.set_nonblocking(false).unwrap();
        arrived
    }

    fn shutdown_write(&mut self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }

    fn reset(self) {
        SockRef::from(&self.0)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

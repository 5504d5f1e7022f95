//! Listening sockets: addresses, options, files of Unix sockets.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::app::server::StartError;
use crate::app::settings::Settings;

/// What the kernel holds at most for a peer that does not read, beside what it has sent.
const UNSENT_MAX: u32 = 128 << 10;

/// An address with its sockets: one that all loops share, or one for each.
pub(crate) struct Listener {
    sockets: Vec<Socket>,
    address: Address,
    /// Device and inode of a Unix socket's file: only our own is removed.
    file: Option<(PathBuf, u64, u64)>,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// TCP, with the port that was found if any would do.
    Tcp(SocketAddr),
    /// A Unix socket. Of one that was given as it is and has no path: an empty one.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    pub(crate) fn open(address: &str, settings: &Settings) -> Result<Self, StartError> {
        let refused = |error: io::Error| StartError::Address(address.to_owned(), error);
        match address.strip_prefix("unix:") {
            Some(path) => open_unix(Path::new(path), settings).map_err(refused),
            None => open_tcp(address, settings).map_err(refused),
        }
    }

    /// A socket that exists and listens. It is shared by all loops.
    pub(crate) fn adopt(socket: OwnedFd) -> Result<Self, StartError> {
        let socket = Socket::from(socket);
        let refused = |error| StartError::Address("a descriptor".to_owned(), error);
        if !socket.is_listener().map_err(refused)? {
            return Err(refused(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it does not listen",
            )));
        }
        socket.set_nonblocking(true).map_err(refused)?;
        let local = socket.local_addr().map_err(refused)?;
        let address = match local.as_socket() {
            Some(address) => Address::Tcp(address),
            None => Address::Unix(local.as_pathname().map(Path::to_owned).unwrap_or_default()),
        };
        Ok(Listener {
            sockets: vec![socket],
            address,
            file: None,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// A socket for each of so many loops, and whether they have it together. None are left here: when the
    /// last loop closes its own, nobody can connect any more.
    pub(crate) fn take_sockets(&mut self, loops: usize) -> io::Result<(Vec<OwnedFd>, bool)> {
        let is_shared = self.sockets.len() < loops;
        let mut sockets = std::mem::take(&mut self.sockets);
        while sockets.len() < loops {
            sockets.push(sockets[0].try_clone()?);
        }
        Ok((sockets.into_iter().map(OwnedFd::from).collect(), is_shared))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, device, inode)) = &self.file
            && let Ok(metadata) = path.symlink_metadata()
            && (metadata.dev(), metadata.ino()) == (*device, *inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn open_tcp(address: &str, settings: &Settings) -> io::Result<Listener> {
    // Of a name with both, the IPv4 address.
    let mut found: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    let mut address = *found
        .first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    let count = if settings.reuse_port {
        settings.workers
    } else {
        1
    };
    let mut sockets = Vec::new();
    for _ in 0..count.max(1) {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if settings.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            // A wildcard takes IPv4 too.
            socket.set_only_v6(false)?;
        }
        // Accepted sockets inherit what follows.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_MAX)?;
        let write_timeout_ms = settings.config.write_timeout_ms;
        if write_timeout_ms > 0 {
            socket.set_tcp_user_timeout(Some(Duration::from_millis(write_timeout_ms)))?;
        }
        socket.bind(&SockAddr::from(address))?;
        // The first one has chosen the port if it was 0; the others follow it.
        if let Some(bound) = socket.local_addr()?.as_socket() {
            address = bound;
        }
        socket.listen(i32::try_from(settings.backlog).unwrap_or(i32::MAX))?;
        sockets.push(socket);
    }
    Ok(Listener {
        sockets,
        address: Address::Tcp(address),
        file: None,
    })
}

fn open_unix(path: &Path, settings: &Settings) -> io::Result<Listener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(i32::try_from(settings.backlog).unwrap_or(i32::MAX))?;
    let metadata = path.symlink_metadata()?;
    Ok(Listener {
        sockets: vec![socket],
        address: Address::Unix(path.to_owned()),
        file: Some((path.to_owned(), metadata.dev(), metadata.ino())),
    })
}

/// Removes the socket file of a server that died, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it exists and is not a socket",
        ));
    }
    // A live server with a full backlog answers at once rather than making us wait.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

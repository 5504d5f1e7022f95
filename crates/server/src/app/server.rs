//! A bound application: its loops, from the first thread to the last.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use theframework_io::{
    DriverConfig, DriverError, Features, OpenFile, SetupError, SystemDriver, Wish, choose,
};

use crate::accept::AcceptMode;
use crate::app::dispatch::Dispatch;
use crate::app::error::Result;
use crate::app::inbox::{Inbox, Message};
use crate::app::listener::{Address, Listener};
use crate::app::pool::Pool;
use crate::app::run::Loop;
use crate::app::settings::Settings;
use crate::app::stats::Published;
use crate::app::worker::Worker;
use crate::engine::{Engine, MemoryStats, Stats};
use crate::file::FileBody;
use crate::peers::{PeerSlot, SlotPeers};
use crate::router::RouteError;

/// Descriptors that a server needs beside those of its connections.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Why a server could not be started, or has ended otherwise than by being stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A route could not be added.
    Route(RouteError),
    /// An address could not be listened on.
    Address(String, io::Error),
    /// There is nothing to listen on: see [`Server::bind`].
    NoAddress,
    /// The driver that was asked for does not work here.
    Driver(SetupError),
    /// A loop's driver could not be made, or broke down.
    Loop(String),
    /// The system had no thread, socket or signal to give.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Route(error) => error.fmt(f),
            StartError::Address(address, error) => write!(f, "cannot listen on {address}: {error}"),
            StartError::NoAddress => f.write_str("there is no address to listen on"),
            StartError::Driver(error) => error.fmt(f),
            StartError::Loop(error) => f.write_str(error),
            StartError::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Route(error) => Some(error),
            StartError::Address(_, error) | StartError::System(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DriverError> for StartError {
    fn from(error: DriverError) -> Self {
        StartError::Loop(error.to_string())
    }
}

/// An application that listens, and does not serve yet: clients that connect wait.
pub struct Server {
    dispatch: Arc<Dispatch>,
    settings: Settings,
    listeners: Vec<Listener>,
}

impl Server {
    pub(crate) fn new(dispatch: Arc<Dispatch>, mut settings: Settings) -> Self {
        if settings.workers == 0 {
            settings.workers = std::thread::available_parallelism().map_or(1, usize::from);
        }
        Server {
            dispatch,
            settings,
            listeners: Vec::new(),
        }
    }

    /// Listens on one more address: `host:port`, `[v6]:port`, `unix:path`.
    ///
    /// # Errors
    /// [`StartError::Address`].
    pub fn bind(mut self, address: &str) -> Result<Self, StartError> {
        self.listeners
            .push(Listener::open(address, &self.settings)?);
        Ok(self)
    }

    /// Serves a socket that listens already: one that was inherited, or made elsewhere.
    ///
    /// # Errors
    /// [`StartError::Address`] if it does not listen.
    pub fn listener(mut self, socket: impl Into<OwnedFd>) -> Result<Self, StartError> {
        self.listeners.push(Listener::adopt(socket.into())?);
        Ok(self)
    }

    /// Serves the sockets that the service manager has passed on (`LISTEN_FDS`, as systemd does), if there are
    /// any. Others cannot take them afterwards.
    ///
    /// # Errors
    /// [`StartError::Address`] if one of them does not listen.
    pub fn inherited(mut self) -> Result<Self, StartError> {
        let mut inherited = listenfd::ListenFd::from_env();
        for index in 0..inherited.len() {
            let refused = |error| StartError::Address(format!("descriptor {}", index + 3), error);
            // Of either family: it is asked what it is afterwards.
            let socket: OwnedFd = match inherited.take_tcp_listener(index) {
                Ok(Some(socket)) => socket.into(),
                Ok(None) => continue,
                Err(_) => match inherited.take_unix_listener(index).map_err(refused)? {
                    Some(socket) => socket.into(),
                    None => continue,
                },
            };
            self.listeners.push(Listener::adopt(socket)?);
        }
        Ok(self)
    }

    /// Where it listens, with the ports that were found.
    pub fn addresses(&self) -> Vec<Address> {
        let addresses = self.listeners.iter().map(Listener::address);
        addresses.cloned().collect()
    }

    /// Serves until SIGTERM or SIGINT, then finishes what is in flight.
    ///
    /// # Errors
    /// [`StartError`], when it cannot start or a loop breaks down.
    pub fn run(self) -> Result<(), StartError> {
        if !self.settings.handles_signals {
            return self.start()?.join();
        }
        // When nobody handles signals any more, they do what they do by default.
        let is_over = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&is_over))
                .map_err(StartError::System)?;
        }
        let signals = Signals::new([SIGTERM, SIGINT]).map_err(StartError::System)?;
        let result = self
            .start()
            .and_then(|handle| join_or_stop(handle, signals, &is_over));
        is_over.store(true, Ordering::SeqCst);
        result
    }

    /// Serves on threads of its own, and returns. Signals are yours.
    ///
    /// # Errors
    /// [`StartError`], when it cannot start.
    pub fn start(self) -> Result<Handle, StartError> {
        let Server {
            dispatch,
            mut settings,
            mut listeners,
        } = self;
        if listeners.is_empty() {
            return Err(StartError::NoAddress);
        }
        let loops = settings.workers;
        fit_descriptors(&mut settings);
        let wish = Wish {
            kind: settings.driver,
            receive_buffers: settings.receive_buffers,
            features: Features::ALL,
            workers: loops,
        };
        let (driver, _) = choose(&wish).map_err(StartError::Driver)?;
        let mut sockets: Vec<Vec<_>> = (0..loops).map(|_| Vec::new()).collect();
        for listener in &mut listeners {
            let (taken, is_shared) = listener.take_sockets(loops).map_err(StartError::System)?;
            let mode = if is_shared {
                AcceptMode::Shared
            } else {
                AcceptMode::Own
            };
            for (place, socket) in sockets.iter_mut().zip(taken) {
                place.push((socket, mode));
            }
        }
        let inboxes: io::Result<Vec<_>> = (0..loops).map(|_| Inbox::new().map(Arc::new)).collect();
        let mut handle = Handle {
            stopper: Stopper {
                graceful_timeout: settings.graceful_timeout,
                inboxes: inboxes.map_err(StartError::System)?,
            },
            published: (0..loops).map(|_| Arc::default()).collect(),
            threads: Vec::new(),
            addresses: listeners
                .iter()
                .map(|listener| listener.address().clone())
                .collect(),
        };
        let shared = Arc::new(Shared {
            slots: Slots::new(loops),
            pool: Arc::new(Pool::new(settings.offload_threads)),
            dispatch,
            settings,
            driver,
            _files: listeners,
        });
        for (number, sockets) in sockets.into_iter().enumerate() {
            if let Err(error) = handle.start_loop(number, sockets, &shared) {
                handle.stopper.abort();
                let _ = handle.join();
                return Err(error);
            }
        }
        Ok(handle)
    }
}

/// Waits for the end, which a signal brings about: the first one lets it finish, a second one does not, and
/// a third one is nobody's.
fn join_or_stop(
    handle: Handle,
    mut signals: Signals,
    is_over: &Arc<AtomicBool>,
) -> Result<(), StartError> {
    let (waker, stopper, is_over) = (signals.handle(), handle.stopper(), Arc::clone(is_over));
    let waits = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut signals = signals.forever();
            if signals.next().is_some() {
                stopper.stop();
            }
            if signals.next().is_some() {
                is_over.store(true, Ordering::SeqCst);
                stopper.abort();
            }
        });
    if waits.is_err() {
        handle.stop();
    }
    let result = handle.join();
    waker.close();
    match waits {
        Ok(waits) => {
            let _ = waits.join();
            result
        }
        Err(error) => Err(StartError::System(error)),
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// As many descriptors as may be had, and no more connections than fit.
fn fit_descriptors(settings: &mut Settings) {
    let max = &mut settings.config.max_connections;
    let each = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
    let each = each.saturating_sub(DESCRIPTORS_RESERVED) / settings.workers as u64;
    *max = (*max)
        .min(usize::try_from(each).unwrap_or(usize::MAX))
        .max(1);
}

/// What all loops have together.
struct Shared {
    dispatch: Arc<Dispatch>,
    settings: Settings,
    driver: DriverConfig,
    slots: Slots,
    pool: Arc<Pool>,
    /// Files of Unix sockets, which go when the last loop has ended.
    _files: Vec<Listener>,
}

/// The loops' load, for each other to see.
#[derive(Clone)]
struct Slots(Arc<[PeerSlot]>);

impl Slots {
    fn new(count: usize) -> Self {
        Slots((0..count).map(|_| PeerSlot::default()).collect())
    }
}

impl AsRef<[PeerSlot]> for Slots {
    fn as_ref(&self) -> &[PeerSlot] {
        &self.0
    }
}

impl Shared {
    /// Makes a loop, on the thread that runs it.
    fn make_loop(
        &self,
        number: usize,
        sockets: Vec<(OwnedFd, AcceptMode)>,
        inbox: Arc<Inbox>,
        published: Arc<Published>,
    ) -> Result<Loop<SystemDriver<Bytes>>, StartError> {
        let driver = SystemDriver::new(&self.driver)?;
        let router = std::rc::Rc::new(self.dispatch.router.clone());
        let mut engine = Engine::new(driver, self.settings.config.clone(), router);
        for (socket, mode) in sockets {
            engine.listen(socket, mode);
        }
        if let Some(peers) = SlotPeers::new(self.slots.clone(), number)
            && self.settings.workers > 1
        {
            engine.set_peers(Box::new(peers));
        }
        let worker = Worker::new(number, inbox, Arc::clone(&self.pool), published);
        let dispatch = Arc::clone(&self.dispatch);
        Ok(Loop::new(
            engine,
            worker,
            dispatch,
            Box::new(own_file),
            true,
        ))
    }
}

fn own_file(file: OpenFile) -> Option<FileBody<OwnedFd>> {
    Some(FileBody {
        file: file.file,
        len: file.len,
        modified: file.modified,
    })
}

/// A server that runs. Dropping it leaves it running.
pub struct Handle {
    stopper: Stopper,
    published: Vec<Arc<Published>>,
    threads: Vec<JoinHandle<Result<(), StartError>>>,
    addresses: Vec<Address>,
}

impl Handle {
    /// Starts a loop, and waits until it is made.
    fn start_loop(
        &mut self,
        number: usize,
        sockets: Vec<(OwnedFd, AcceptMode)>,
        shared: &Arc<Shared>,
    ) -> Result<(), StartError> {
        let (ready, is_ready) = mpsc::channel();
        let inbox = Arc::clone(&self.stopper.inboxes[number]);
        let published = Arc::clone(&self.published[number]);
        let (shared, stopper) = (Arc::clone(shared), self.stopper());
        let serve = move || {
            let mut this = match shared.make_loop(number, sockets, inbox, published) {
                Ok(this) => this,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return Ok(());
                }
            };
            let _ = ready.send(Ok(()));
            this.run()
                .map_err(|errno| StartError::Loop(format!("the driver failed: {errno:?}")))
        };
        let thread = std::thread::Builder::new()
            .name(format!("loop {number}"))
            .spawn(move || {
                let served = catch_unwind(AssertUnwindSafe(serve))
                    .unwrap_or_else(|_| Err(StartError::Loop("a loop panicked".to_owned())));
                if served.is_err() {
                    // The others do not go on alone.
                    stopper.stop();
                }
                served
            });
        self.threads.push(thread.map_err(StartError::System)?);
        is_ready
            .recv()
            .unwrap_or_else(|_| Err(StartError::Loop("a loop panicked at its start".to_owned())))
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Lets it finish what is in flight, for the setting `graceful_timeout` at most, and end. Returns at
    /// once: see [`join`](Self::join).
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// For stopping it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// What all loops have counted, as of their last turns.
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for stats in self.published.iter().map(|published| published.stats()) {
            sum.accepted += stats.accepted;
            sum.requests += stats.requests;
            sum.refused += stats.refused;
            sum.overload += stats.overload;
            sum.turns += stats.turns;
        }
        sum
    }

    /// What the requests of all loops have of memory, as of their last turns.
    pub fn memory(&self) -> MemoryStats {
        let mut sum = MemoryStats::default();
        for memory in self.published.iter().map(|published| published.memory()) {
            sum.exchanges += memory.exchanges;
            sum.cached_bytes += memory.cached_bytes;
            sum.chunks += memory.chunks;
            sum.buffers += memory.buffers;
            sum.blocks += memory.blocks;
        }
        sum
    }

    /// Connections of all loops, as of their last turns.
    pub fn connections(&self) -> usize {
        self.published.iter().map(|one| one.connections()).sum()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// What a loop broke down with; the others were stopped then.
    pub fn join(self) -> Result<(), StartError> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(StartError::Loop("a loop panicked".to_owned())));
            result = result.and(ended);
        }
        result
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("addresses", &self.addresses)
            .field("loops", &self.threads.len())
            .finish_non_exhaustive()
    }
}

/// Stops a server, from any thread.
#[derive(Clone)]
pub struct Stopper {
    graceful_timeout: Duration,
    inboxes: Vec<Arc<Inbox>>,
}

impl Stopper {
    /// As [`Handle::stop`].
    pub fn stop(&self) {
        for inbox in &self.inboxes {
            inbox.put(Message::Drain(self.graceful_timeout));
        }
    }

    /// Ends all connections at once, whatever they are doing.
    pub fn abort(&self) {
        for inbox in &self.inboxes {
            inbox.put(Message::Abort);
        }
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper")
            .field("graceful_timeout", &self.graceful_timeout)
            .finish_non_exhaustive()
    }
}

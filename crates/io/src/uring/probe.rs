//! Finding out what this kernel's io_uring has, by using it.
//!
//! | what | how it is found |
//! | --- | --- |
//! | set-up flags | from the newest to the oldest, while the kernel answers EINVAL |
//! | feature flags | from the ring's parameters |
//! | what has no replacement | by its opcode; SOCKET came with 5.19, and so did the rest of the floor |
//! | buffer ring, multishot | by a trial: the driver itself serves one connection |
//!
//! The trial sends, receives, accepts and cancels on sockets of its own, so a sandbox that lets a
//! ring be made but refuses operations is found here too, and not by the first client.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};
use socket2::{Domain, SockAddr, Socket, Type};
use theframework_memory::{BufferRecycler, WriteArena};

use super::UringDriver;
use super::features::{Feature, Features};
use super::setup::{self, SetupError, UringConfig};
use crate::driver::{Driver, Errno, OpId, Outcome, Wait};
use crate::write::{NoBody, Write};

/// Rings that are made at once, at most, to see whether each worker can have one.
const RINGS_MAX: usize = 64;
/// How long the trial waits for what should be there at once.
const TRIAL_WAIT: Duration = Duration::from_millis(20);
const TRIAL_WAITS: u32 = 50;

/// What this host's io_uring has of `config.features`, found with throw-away rings of these very
/// sizes. `rings` of them are made at once, as so many workers would.
///
/// # Errors
/// [`SetupError`] with the cause and what to do about it.
pub fn probe(config: &UringConfig, rings: usize) -> Result<Features, SetupError> {
    let mut config = *config;
    let ring = newest_ring(&mut config)?;
    config.features = from_parameters(&ring, config.features)?;
    check_opcodes(&ring)?;
    drop(ring);
    loop {
        match trial(&config) {
            Ok(()) => break,
            Err((Some(feature), _)) if config.features.has(feature) => {
                config.features = config.features.without(feature);
            }
            Err((_, error)) => return Err(error),
        }
    }
    let mut held = Vec::new();
    for _ in 0..rings.min(RINGS_MAX) {
        held.push(UringDriver::<NoBody>::new(&config)?);
    }
    Ok(config.features)
}

/// A ring with as many set-up flags as the kernel knows.
fn newest_ring(config: &mut UringConfig) -> Result<IoUring, SetupError> {
    for newest in [
        Feature::DeferTaskrun,
        Feature::SingleIssuer,
        Feature::CoopTaskrun,
        Feature::SubmitAll,
    ] {
        match setup::ring(config) {
            Err(error) if error.errno() == libc::EINVAL => {
                config.features = config.features.without(newest);
            }
            result => return result,
        }
    }
    setup::ring(config)
}

fn from_parameters(ring: &IoUring, mut features: Features) -> Result<Features, SetupError> {
    let parameters = ring.params();
    if !parameters.is_feature_nodrop() {
        return Err(SetupError::missing("completions that are never dropped"));
    }
    if !parameters.is_feature_ext_arg() {
        features = features.without(Feature::ExtArg);
    }
    if !parameters.is_feature_skip_cqe_on_success() {
        features = features.without(Feature::SkipSuccess);
    }
    if !features.has(Feature::SingleIssuer) {
        features = features.without(Feature::DeferTaskrun);
    }
    Ok(features)
}

fn check_opcodes(ring: &IoUring) -> Result<(), SetupError> {
    let mut found = Probe::new();
    ring.submitter()
        .register_probe(&mut found)
        .map_err(SetupError::from_os)?;
    let needed = [
        (opcode::Accept::CODE, "accept"),
        (opcode::Recv::CODE, "receive"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::Read::CODE, "reads from files"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::Timeout::CODE, "timeout"),
        (opcode::AsyncCancel::CODE, "cancel"),
        (opcode::Close::CODE, "close"),
        (opcode::ProvideBuffers::CODE, "provided buffers"),
        // Came with 5.19, as the failure of a short send with MSG_WAITALL did, which is needed and
        // has no code of its own.
        (opcode::Socket::CODE, "sends that end whole"),
    ];
    for (code, name) in needed {
        if !found.is_supported(code) {
            return Err(SetupError::missing(name));
        }
    }
    Ok(())
}

/// A feature that could be left out, if it was the reason, and the error if it cannot.
type Refusal = (Option<Feature>, SetupError);

/// Serves one connection with a driver of these features.
fn trial(config: &UringConfig) -> Result<(), Refusal> {
    let mut driver: UringDriver<NoBody> = UringDriver::new(config).map_err(|error| {
        let is_memory = error.errno() == libc::ENOMEM;
        ((!is_memory).then_some(Feature::BufferRing), error)
    })?;
    let os = |error| (None, SetupError::from_os(error));

    let memory = |_| (None, SetupError::from_errno(libc::ENOMEM));
    let (ours, theirs) = UnixStream::pair().map_err(os)?;
    let mut arena = WriteArena::new(BufferRecycler::new()).map_err(memory)?;
    arena.extend(b"trial").map_err(memory)?;
    let write = Box::new(Write::new(arena));
    // An abstract address that the kernel chooses: no file, no port.
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(os)?;
    listener
        .bind(&SockAddr::unix("").map_err(os)?)
        .map_err(os)?;
    listener.listen(1).map_err(os)?;
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(os)?;
    client
        .connect(&listener.local_addr().map_err(os)?)
        .map_err(os)?;

    let receive = driver.receive(ours.as_raw_fd(), 0).map_err(memory)?;
    let accept = driver.accept(listener.as_raw_fd(), 0).map_err(memory)?;
    let send = driver
        .send(theirs.as_raw_fd(), 0, write)
        .map_err(|_| (None, SetupError::from_errno(libc::ENOMEM)))?;
    succeed(
        &mut driver,
        vec![
            (send, None, "send"),
            (receive, Some(Feature::MultishotReceive), "receive"),
            (accept, Some(Feature::MultishotAccept), "accept"),
        ],
    )
    // Dropping the driver cancels what goes on, and waits for its end.
}

/// An operation, what may have to be left out if it does not work, and its name.
type Trial = (OpId, Option<Feature>, &'static str);

/// Waits until each operation has had a success.
fn succeed(driver: &mut UringDriver<NoBody>, mut pending: Vec<Trial>) -> Result<(), Refusal> {
    for _ in 0..TRIAL_WAITS {
        while let Some(event) = driver.next_event() {
            let Some(index) = pending.iter().position(|&(op, ..)| op == event.op) else {
                continue;
            };
            let (_, feature, _) = pending.swap_remove(index);
            if let Outcome::Failed(errno) | Outcome::Sent(_, Err(errno)) = event.outcome {
                return Err((feature, SetupError::from_errno(errno.0)));
            }
        }
        if pending.is_empty() {
            return Ok(());
        }
        driver
            .turn(Wait::For(Some(TRIAL_WAIT)))
            .map_err(|Errno(errno)| (None, SetupError::from_errno(errno)))?;
    }
    let (_, feature, name) = pending[0];
    Err((feature, SetupError::missing(name)))
}

//! A driver in its world, and what the cases do with it again and again.

use std::time::Duration;

use theframework_io::{Driver, Errno, Event, OpId, Outcome, Space, Wait, Write};
use theframework_memory::{BufferRecycler, InputBuffer, WriteArena};

use crate::world::{Body, Peer, Socket, World};

/// How long a turn waits for what is expected to come.
const WAIT: Duration = Duration::from_millis(20);

pub struct Bench<W: World> {
    pub world: W,
    pub driver: W::Driver,
}

impl<W: World> Bench<W> {
    pub fn new(receive_buffers: u16) -> Self {
        let mut world = W::new();
        let driver = world.driver(receive_buffers);
        Bench { world, driver }
    }

    pub fn turn(&mut self, wait: Wait) {
        self.driver.turn(wait).unwrap();
    }

    /// Turns until an event comes.
    pub fn event(&mut self) -> Event<Socket<W>, Body> {
        for _ in 0..200 {
            if let Some(event) = self.driver.next_event() {
                return event;
            }
            self.turn(Wait::For(Some(WAIT)));
        }
        panic!("no event in four seconds");
    }

    /// The next event is the last of its operation, and this is what it brings.
    pub fn last(&mut self, op: OpId) -> Outcome<Socket<W>, Body> {
        let event = self.event();
        assert_eq!((event.op, event.more), (op, false), "{event:?}");
        event.outcome
    }

    /// Nothing happens, though everything has had time to; and the driver waits meanwhile. What is of no
    /// interest to anybody may end a wait, but not again and again.
    pub fn quiet(&mut self) {
        self.world.settle();
        let mut waits = 0;
        for _ in 0..6 {
            let before_us = self.driver.now_us();
            self.turn(Wait::For(Some(WAIT)));
            if let Some(event) = self.driver.next_event() {
                panic!("it should be quiet: {event:?}");
            }
            let waited_us = self.driver.now_us() - before_us;
            waits += usize::from(waited_us >= WAIT.as_micros() as u64);
            if waits == 2 {
                return;
            }
        }
        panic!("turns that should wait do not");
    }

    /// A socket that seems full may take a little more when the other side's kernel acknowledges: takes
    /// the progress of a write until there is none for a third of a second.
    pub fn until_nothing_moves(&mut self) -> Vec<usize> {
        let mut progress = Vec::new();
        let mut calm_turns = 0;
        while calm_turns < 16 {
            self.turn(Wait::For(Some(WAIT)));
            calm_turns += 1;
            while let Some(event) = self.driver.next_event() {
                match event.outcome {
                    Outcome::SendProgress(sent) => progress.push(sent),
                    other => panic!("{other:?}"),
                }
                calm_turns = 0;
            }
        }
        progress
    }

    /// Whether an event may bring so many bytes of those that are there.
    pub fn is_legal_amount(count: usize, available: usize) -> bool {
        if W::IS_PROMPT {
            count == available
        } else {
            (1..=available).contains(&count)
        }
    }

    /// Whether the driver says that something has arrived, asked often enough.
    pub fn finds_events(&mut self) -> bool {
        if W::IS_PROMPT {
            return self.driver.has_events();
        }
        (0..100).any(|_| {
            self.world.settle();
            self.driver.has_events()
        })
    }

    /// The end of a small write, which one turn is to bring. Where chance decides, the write may say in
    /// that turn that it goes on, and does.
    pub fn small_write(&mut self, op: OpId, token: u64) -> Box<Write<Body>> {
        self.turn(Wait::Poll);
        let mut event = self.driver.next_event().expect("it ends, or says not");
        loop {
            assert_eq!((event.token, event.op), (token, op));
            match event.outcome {
                Outcome::Sent(write, Ok(())) => {
                    assert!(!event.more);
                    return write;
                }
                Outcome::SendProgress(_) if event.more && !W::IS_PROMPT => {}
                other => panic!("{other:?}"),
            }
            event = self.event();
        }
    }

    /// Everything has come home.
    pub fn assert_clean(&mut self) {
        self.quiet();
        assert_eq!((self.driver.operations(), self.driver.leases()), (0, 0));
    }

    /// Takes a cancelled operation to its end: `Received` data is kept, the rest is of no interest.
    pub fn cancel(&mut self, op: OpId) -> Vec<u8> {
        self.driver.cancel(op);
        let mut got = Vec::new();
        loop {
            let event = self.event();
            assert_eq!(event.op, op);
            match event.outcome {
                Outcome::Received(lease) => got.extend_from_slice(&lease),
                Outcome::Failed(errno) => assert_eq!(errno, Errno::CANCELLED),
                other => panic!("{other:?}"),
            }
            if !event.more {
                return got;
            }
        }
    }

    /// Receives until so many bytes are there.
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while got.len() < len {
            match self.event().outcome {
                Outcome::Received(lease) => got.extend_from_slice(&lease),
                other => panic!("{other:?} after {} bytes", got.len()),
            }
        }
        got
    }

    /// Receives these bytes by this operation, in one event where nothing is left to chance.
    pub fn receive_from(&mut self, op: OpId, token: u64, expected: &[u8]) {
        let mut rest = expected;
        while !rest.is_empty() {
            let event = self.event();
            assert_eq!((event.token, event.op, event.more), (token, op, true));
            match event.outcome {
                Outcome::Received(lease) => {
                    assert!(Self::is_legal_amount(lease.len(), rest.len()));
                    assert_eq!(&*lease, &rest[..lease.len()]);
                    rest = &rest[lease.len()..];
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Turns and reads until the write has ended. What came, the progress, and how the write ended.
    pub fn send_to(&mut self, peer: &mut W::Peer, op: OpId) -> Sending {
        let mut sending = Sending::default();
        for _ in 0..10_000 {
            sending.arrived.extend(peer.read_available().bytes);
            self.turn(Wait::For(Some(Duration::from_millis(1))));
            while let Some(event) = self.driver.next_event() {
                assert_eq!(event.op, op);
                match event.outcome {
                    Outcome::SendProgress(sent) if event.more => sending.progress.push(sent),
                    Outcome::Sent(write, result) if !event.more => {
                        assert_eq!(result, Ok(()));
                        sending.sent = write.sent();
                        self.world.settle();
                        sending.arrived.extend(peer.read_available().bytes);
                        return sending;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("the write does not end");
    }
}

#[derive(Default)]
pub struct Sending {
    pub arrived: Vec<u8>,
    pub progress: Vec<usize>,
    pub sent: usize,
}

/// A write of bytes that are copied, and a body that is not.
pub fn write(bytes: &[u8], body: Option<&[u8]>) -> Box<Write<Body>> {
    let mut arena = WriteArena::new(BufferRecycler::new()).unwrap();
    arena.extend(bytes).unwrap();
    let mut write = Box::new(Write::new(arena));
    if let Some(body) = body {
        write.set_body(body.into());
    }
    write
}

/// An input buffer with bytes in it, and room for at least so many more.
pub fn input(bytes: &[u8], room: usize) -> Box<InputBuffer> {
    let mut input = Box::new(InputBuffer::new(BufferRecycler::new()));
    input.extend(bytes).unwrap();
    input.reserve(room).unwrap();
    input
}

/// The input buffer that a single receive brought home.
pub fn came_home<S>(outcome: Outcome<S, Body>) -> (Box<InputBuffer>, Result<usize, Errno>)
where
    S: std::fmt::Debug,
{
    match outcome {
        Outcome::ReceivedInto(Space::Input(input), result) => (input, result),
        other => panic!("{other:?}"),
    }
}

/// Bytes that differ from place to place.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

//! What a driver's world has to offer to the cases.

use theframework_io::Driver;

/// The body type of all cases.
pub type Body = Box<[u8]>;

/// The socket type of a world's drivers.
pub type Socket<W> = <<W as World>::Driver as Driver<Body>>::Socket;

/// Makes drivers, connections and their other ends.
pub trait World: Sized {
    type Driver: Driver<Body>;
    type Peer: Peer;

    /// Whether the first look finds whatever has arrived, and takes all of it. Drivers on a system that
    /// has settled do, and are held to it; where chance decides, the cases ask for what the contract
    /// promises, and no more.
    const IS_PROMPT: bool;

    fn new() -> Self;

    /// A driver with this many receive buffers, a power of two.
    fn driver(&mut self, receive_buffers: u16) -> Self::Driver;

    /// A connected stream. At least 256 KiB fit into our receiving side, and less than 1 MiB into what
    /// we send before the peer reads.
    fn pair(&mut self) -> (Socket<Self>, Self::Peer);

    /// A non-blocking listener.
    fn listener(&mut self) -> Socket<Self>;

    /// A client that connects to it, and waits there.
    fn connect(&mut self, listener: &Socket<Self>) -> Self::Peer;

    /// A file with these bytes, open for reading.
    fn file(&mut self, bytes: &[u8]) -> Socket<Self>;

    /// Somebody writes these bytes, and no more, in place of those that the file had.
    fn change(&mut self, file: &Socket<Self>, bytes: &[u8]);

    /// Lets what was done arrive at the other side.
    fn settle(&mut self);
}

/// The other end of a connection; dropping it closes it.
pub trait Peer {
    /// Writes all of it, or panics: cases write no more than fits.
    fn write(&mut self, bytes: &[u8]);

    /// Takes what has arrived.
    fn read_available(&mut self) -> Arrived;

    /// Sends FIN.
    fn shutdown_write(&mut self);

    /// Ends the connection with a reset.
    fn reset(self);
}

/// What a peer found.
#[derive(PartialEq, Eq, Debug)]
pub struct Arrived {
    pub bytes: Vec<u8>,
    /// Our side has finished sending.
    pub is_end: bool,
}

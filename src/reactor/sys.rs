use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    time::Duration,
};

use super::SocketOptions;
use crate::{addr::Addr, strategy::DetachedSocket, time::Clock};

/// What the reactor needs of the system. One implementation uses mio, another is a simulated network for tests.
///
/// Polling is edge-triggered: a state is announced when it changes, and when a socket is registered. All calls return
/// at once, but for `poll`.
pub(crate) trait Sys {
    type Listener;
    type Stream;
    /// A socket for datagrams, bound, which many peers share.
    type Datagrams;
    /// A descriptor held in reserve.
    type Spare;

    /// The clock.
    fn clock(&self) -> Box<dyn Clock>;

    /// Waits for events (without end when `wait` is `None`) and appends them to `ready`.
    fn poll(&mut self, ready: &mut Vec<Ready>, wait: Option<Duration>) -> io::Result<()>;

    /// Registers the stream under this token, for readable and writable events. Called once per stream.
    fn register(&mut self, stream: &mut Self::Stream, token: u64) -> io::Result<()>;

    fn register_listener(&mut self, listener: &mut Self::Listener, token: u64) -> io::Result<()>;

    /// Registers the socket under this token, for readable and writable events.
    fn register_datagrams(&mut self, socket: &mut Self::Datagrams, token: u64) -> io::Result<()>;

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Addr)>;

    /// Registers a stream under another token than before. Its present state is announced.
    fn reregister(&mut self, stream: &mut Self::Stream, token: u64) -> io::Result<()>;

    /// Begins to connect to an address. Where that is under way, the stream gets a writable event in the end, once it is
    /// registered. `WouldBlock` means that it may be tried again later.
    fn connect(&mut self, addr: &Addr, options: &SocketOptions) -> io::Result<(Self::Stream, Connecting)>;

    /// Returns what has become of a connection that was under way, or the error with which it has failed.
    fn finish_connect(&mut self, stream: &mut Self::Stream) -> io::Result<Connecting>;

    /// Returns the address of this side.
    fn local_addr(&mut self, stream: &Self::Stream) -> io::Result<Addr>;

    /// Receives bytes; 0 means the end of the stream.
    fn recv(&mut self, stream: &mut Self::Stream, into: &mut [u8]) -> io::Result<usize>;

    fn send(&mut self, stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<usize>;

    fn send_vectored(&mut self, stream: &mut Self::Stream, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Makes a socket for datagrams that go to this address and come from it, and returns it with its own address. An error
    /// that the other side reports is found by a later call.
    fn connect_datagrams(
        &mut self,
        to: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<(Self::Datagrams, Addr)>;

    /// Receives one datagram. Returns its length, even if that is more than fits, and who has sent it.
    fn recv_from(&mut self, socket: &mut Self::Datagrams, into: &mut [u8])
    -> io::Result<(usize, SocketAddr)>;

    /// Sends one datagram, whole or not at all; through a socket that is connected, to where that is.
    fn send_to(&mut self, socket: &mut Self::Datagrams, datagram: &[u8], to: SocketAddr) -> io::Result<()>;

    /// Ends the stream in the sending direction.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Makes the closing of the stream a reset.
    fn make_reset(&mut self, stream: &mut Self::Stream);

    /// Takes a stream that was never registered out of the reactor, so that its calls wait. Fails where there is no socket
    /// of the system behind it.
    fn detach(&mut self, stream: Self::Stream) -> io::Result<DetachedSocket>;

    /// Takes the error that is pending on the stream.
    fn take_error(&mut self, stream: &mut Self::Stream) -> Option<io::Error>;

    /// Returns a number by which the pauses of one client differ from those of others.
    fn seed(&mut self) -> u64;

    /// Takes a descriptor in reserve.
    fn spare(&mut self) -> io::Result<Self::Spare>;
}

/// How far a connection is that this side makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connecting {
    UnderWay,
    Done,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer has ended its side, or the connection has failed: read until the end is found, past any short read.
    pub(crate) hangup: bool,
    pub(crate) error: bool,
}

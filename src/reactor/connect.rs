use std::io;

use super::{Connecting, SocketOptions, Sys};
use crate::addr::Addr;

/// How the connections of a service are made.
pub(crate) trait Connect<Y: Sys> {
    /// What a session has of its socket.
    type Io;

    /// Whether a connection that was made may lead nowhere, so that a dial that is made again goes on with its next
    /// address.
    const IS_BLIND: bool;

    /// Begins to connect to an address, as [`Sys::connect`] does.
    fn connect(
        &self,
        sys: &mut Y,
        addr: &Addr,
        options: &SocketOptions,
    ) -> io::Result<(Self::Io, Connecting)>;

    /// Registers what is being connected.
    fn register(&self, sys: &mut Y, io: &mut Self::Io, token: u64) -> io::Result<()>;

    /// Returns what has become of a connection that was under way, or the error with which it has failed.
    fn finish_connect(&self, sys: &mut Y, io: &mut Self::Io) -> io::Result<Connecting>;

    /// Returns the address of this side.
    fn local_addr(&self, sys: &mut Y, io: &Self::Io) -> io::Result<Addr>;
}

/// Over TCP and Unix sockets.
pub(crate) struct Streams;

impl<Y: Sys> Connect<Y> for Streams {
    type Io = Y::Stream;

    const IS_BLIND: bool = false;

    fn connect(
        &self,
        sys: &mut Y,
        addr: &Addr,
        options: &SocketOptions,
    ) -> io::Result<(Y::Stream, Connecting)> {
        sys.connect(addr, options)
    }

    fn register(&self, sys: &mut Y, io: &mut Y::Stream, token: u64) -> io::Result<()> {
        sys.register(io, token)
    }

    fn finish_connect(&self, sys: &mut Y, io: &mut Y::Stream) -> io::Result<Connecting> {
        sys.finish_connect(io)
    }

    fn local_addr(&self, sys: &mut Y, io: &Y::Stream) -> io::Result<Addr> {
        sys.local_addr(io)
    }
}

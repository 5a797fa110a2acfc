#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::{io, net::TcpStream};

use crate::{
    reactor::BlockingSocket,
    strategy::{Detached, DetachedPlace, DetachedSocket},
};

/// A connected socket, for [`Client::from_stream`](super::Client::from_stream): a [`TcpStream`], a
/// [`UnixStream`](std::os::unix::net::UnixStream), or a [`Detached`] connection of a server, which counts for its limits
/// until the client is dropped.
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
    place: Option<DetachedPlace>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    /// One that was connected or accepted here.
    Own(BlockingSocket),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Kind::Tcp(stream).into()
    }
}

#[cfg(unix)]
impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Kind::Unix(stream).into()
    }
}

impl From<BlockingSocket> for Stream {
    fn from(socket: BlockingSocket) -> Self {
        Kind::Own(socket).into()
    }
}

impl From<Detached> for Stream {
    fn from(connection: Detached) -> Self {
        let (socket, place) = connection.into_parts();
        let kind = match socket {
            DetachedSocket::Tcp(stream) => Kind::Tcp(stream),
            #[cfg(unix)]
            DetachedSocket::Unix(stream) => Kind::Unix(stream),
        };
        Self { kind, place: Some(place) }
    }
}

impl From<Kind> for Stream {
    fn from(kind: Kind) -> Self {
        Self { kind, place: None }
    }
}

impl Stream {
    pub(super) fn open(self) -> io::Result<(BlockingSocket, Option<DetachedPlace>)> {
        let socket = match self.kind {
            Kind::Tcp(stream) => BlockingSocket::new(stream),
            #[cfg(unix)]
            Kind::Unix(stream) => BlockingSocket::new(stream),
            Kind::Own(socket) => Ok(socket),
        };
        Ok((socket?, self.place))
    }
}

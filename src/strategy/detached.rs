#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::{fmt, net::TcpStream};

use super::NewConnection;
use crate::{addr::Endpoints, sync::AdmissionPermit};

/// A connection that a strategy has taken ([`Placement::Detach`](super::Placement::Detach)): it is handed to
/// [`ForkingStrategy::detach`](super::ForkingStrategy::detach), and lives for as long as the strategy wants.
///
/// Nothing was read from its socket, which blocks, and has the options of its server (`TCP_NODELAY` unless
/// [`Server::nagle`](crate::Server::nagle) was set). The framing, the layers and the timeouts of the server do not apply to
/// it. It counts for [`Limits::connections`](crate::Limits::connections) and
/// [`connections_per_peer`](crate::Limits::connections_per_peer) until it is dropped. The server does not close it when it
/// stops, nor does it wait for it.
///
/// [`blocking::Client::from_stream`](crate::blocking::Client::from_stream) takes it, as it is.
pub struct Detached {
    /// Dropped first: it is closed before it leaves the counts.
    socket: DetachedSocket,
    endpoints: Endpoints,
    place: DetachedPlace,
}

/// The socket of a [`Detached`] connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum DetachedSocket {
    /// Accepted by a TCP listener.
    Tcp(TcpStream),
    /// Accepted by a listener of a Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

/// The place of a [`Detached`] connection among those of its server. Drop it when the socket is closed.
#[derive(Debug)]
pub struct DetachedPlace {
    #[expect(dead_code, reason = "leaves the counts when it is dropped")]
    permit: AdmissionPermit,
}

impl Detached {
    pub(crate) fn new(socket: DetachedSocket, endpoints: Endpoints, permit: AdmissionPermit) -> Self {
        Self { socket, endpoints, place: DetachedPlace { permit } }
    }

    /// Returns what [`ForkingStrategy::place`](super::ForkingStrategy::place) was shown of it.
    #[must_use]
    pub fn connection(&self) -> NewConnection<'_> {
        NewConnection::new(&self.endpoints)
    }

    /// Returns the socket, which can be read from and written to by reference.
    #[must_use]
    pub fn socket(&self) -> &DetachedSocket {
        &self.socket
    }

    /// Returns the socket, and the place that the connection takes until that is dropped.
    #[must_use]
    pub fn into_parts(self) -> (DetachedSocket, DetachedPlace) {
        (self.socket, self.place)
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("connection", &self.connection())
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

//! Endpoints of a gateway for programs that block: a client's or a server's link, with its virtual connections.
//!
//! A thread reads the link; every call that waits has a deadline, and ends also when the link does.
//!
//! ```no_run
//! use std::time::Duration;
//! use framewire_gateway::blocking::{Endpoint, EndpointError};
//!
//! const PATIENCE: Duration = Duration::from_secs(5);
//!
//! fn main() -> Result<(), EndpointError> {
//!     let link = Endpoint::client("127.0.0.1:7000")?;
//!     let server = link.dial(1, PATIENCE)?; // the server with the ID 1
//!     server.send(b"hello")?;
//!     while let Some(message) = server.recv(PATIENCE)? {
//!         println!("{}", String::from_utf8_lossy(&message));
//!     }
//!     Ok(()) // the server has closed the connection
//! }
//! ```

mod connection;
mod error;
mod link;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, Read},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

pub use connection::Connection;
pub use error::EndpointError;

use crate::{
    keys::{Dialect, MAX_CHALLENGE},
    protocol::{Command, DEFAULT_MAX_LENGTH},
};
use link::Link;

/// How an endpoint talks to its gateway.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// The largest LENGTH of a frame, in bytes: that of the gateway. Default 524,288.
    pub max_length: u32,
    /// The time for connecting, for the handshake of a server, and for each write. Default 10 s.
    pub timeout: Duration,
    /// Bytes of messages that may wait for [`Connection::recv`], for each connection, each message with 24 bytes more. A
    /// connection that exceeds it is closed: what waits can still be read. Default 1 MiB.
    pub queue: usize,
    /// Connections that may wait for [`Endpoint::accept`]; further ones are closed. Default 128.
    pub backlog: usize,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            max_length: DEFAULT_MAX_LENGTH,
            timeout: Duration::from_secs(10),
            queue: 1024 * 1024,
            backlog: 128,
        }
    }
}

/// A link to a gateway, of a client or of a server. When it and all of its [`Connection`]s are dropped, the link is
/// closed.
#[derive(Clone)]
pub struct Endpoint {
    link: Arc<Link>,
}

impl Endpoint {
    /// Connects to the side of the clients.
    ///
    /// # Errors
    /// [`EndpointError::Connect`] if no address can be connected to in time.
    pub fn client(gateway: impl ToSocketAddrs) -> Result<Self, EndpointError> {
        Self::client_with(gateway, EndpointOptions::default())
    }

    /// As [`client`](Self::client), with options.
    ///
    /// # Errors
    /// As for `client`.
    pub fn client_with(gateway: impl ToSocketAddrs, options: EndpointOptions) -> Result<Self, EndpointError> {
        let stream = connect(gateway, options.timeout)?;
        Ok(Self { link: Link::start(stream, options)? })
    }

    /// Connects to the side of the servers, as the server with this ID.
    ///
    /// The gateway does not say whether it takes the answer to its challenge: after a wrong one the link ends.
    ///
    /// # Errors
    /// [`EndpointError::Connect`] as for [`client`](Self::client), and if the gateway sends no challenge in time.
    pub fn server(
        gateway: impl ToSocketAddrs,
        id: u32,
        key: &[u8],
        dialect: Dialect,
    ) -> Result<Self, EndpointError> {
        Self::server_with(gateway, id, key, dialect, EndpointOptions::default())
    }

    /// As [`server`](Self::server), with options.
    ///
    /// # Errors
    /// As for `server`.
    pub fn server_with(
        gateway: impl ToSocketAddrs,
        id: u32,
        key: &[u8],
        dialect: Dialect,
        options: EndpointOptions,
    ) -> Result<Self, EndpointError> {
        let mut stream = connect(gateway, options.timeout)?;
        let mut challenge = [0; MAX_CHALLENGE];
        let challenge = challenge.get_mut(..dialect.challenge_len()).unwrap_or_default();
        stream.set_read_timeout(Some(options.timeout))?;
        stream.read_exact(challenge)?;
        stream.set_read_timeout(None)?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| EndpointError::connect(io::Error::other(error)))?;
        let link = Link::start(stream, options)?;
        link.write(&dialect.answer(challenge, &nonce, key, id))?;
        Ok(Self { link })
    }

    /// Opens a virtual connection to a server if this is a client, to a client if this is a server.
    ///
    /// # Errors
    /// [`EndpointError::Refused`] if the gateway refuses it: there is no such remote, or one of both ends has as many
    /// connections as it may have. [`EndpointError::TimedOut`] if it does not answer `within` this time.
    /// [`EndpointError::Ended`] if the link ends.
    pub fn dial(&self, remote: u32, within: Duration) -> Result<Connection, EndpointError> {
        let deadline = Instant::now() + within;
        let conn = self.link.new_conn(deadline, within)?;
        self.link.await_accept(conn);
        let dialed = self
            .link
            .command(Command::Dial { conn, remote })
            .and_then(|()| self.link.accepted(conn, deadline, within));
        if let Err(error) = dialed {
            self.link.forget(conn, &error);
            return Err(match error {
                EndpointError::Closed => EndpointError::Refused { remote },
                error => error,
            });
        }
        Ok(Connection::new(self.link.clone(), conn, remote))
    }

    /// Waits for a connection that the other side has dialed.
    ///
    /// # Errors
    /// [`EndpointError::TimedOut`] if none comes `within` this time, [`EndpointError::Ended`] if the link ends.
    pub fn accept(&self, within: Duration) -> Result<Connection, EndpointError> {
        let (conn, remote) = self.link.incoming(Instant::now() + within, within)?;
        Ok(Connection::new(self.link.clone(), conn, remote))
    }

    /// Ends the link, and with it all of its connections. Messages that were received can still be read.
    pub fn close(&self) {
        self.link.close();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("gateway", &self.link.gateway()).finish_non_exhaustive()
    }
}

fn connect(gateway: impl ToSocketAddrs, within: Duration) -> Result<TcpStream, EndpointError> {
    let mut last = None;
    for addr in gateway.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, within) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(within))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(EndpointError::connect(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())))
}

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{EndpointError, link::Link};

/// A virtual connection. Dropping it closes it.
pub struct Connection {
    link: Arc<Link>,
    conn: u32,
    remote: u32,
}

impl Connection {
    pub(super) fn new(link: Arc<Link>, conn: u32, remote: u32) -> Self {
        Self { link, conn, remote }
    }

    /// Returns the connection's ID, which is unique at the gateway while it is open.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.conn
    }

    /// Returns the ID of the other end.
    #[must_use]
    pub fn remote(&self) -> u32 {
        self.remote
    }

    /// Sends a message. Blocks while the gateway does not read, for at most
    /// [`EndpointOptions::timeout`](super::EndpointOptions::timeout).
    ///
    /// # Errors
    /// [`EndpointError::Closed`] if the connection is closed; [`EndpointError::TooLong`] if the message is longer than the
    /// gateway forwards: nothing is sent then. [`EndpointError::Ended`] if the link has ended, also because this call
    /// ran out of time: a message that is written in part cannot be followed by another.
    pub fn send(&self, message: &[u8]) -> Result<(), EndpointError> {
        self.link.send(self.conn, message)
    }

    /// Waits for the next message. Returns `None` when the connection is closed and every message was received.
    ///
    /// # Errors
    /// [`EndpointError::TimedOut`] if none comes `within` this time; [`EndpointError::Ended`] if the link has ended and
    /// every message was received.
    pub fn recv(&self, within: Duration) -> Result<Option<Vec<u8>>, EndpointError> {
        self.link.recv(self.conn, Instant::now() + within, within)
    }

    /// Closes the connection. Messages that were received can still be read. Does nothing if it is closed already.
    pub fn close(&self) {
        self.link.close_conn(self.conn);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.drop_conn(self.conn);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.conn)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

use std::{io::ErrorKind, sync::Arc, time::Duration};

use super::{Client, ClientError, Stream};
use crate::{
    addr::{Addr, BindAddr},
    error::ServeError,
    framing::Framing,
    reactor::{BlockingListener, deadline},
    server::bind,
};

/// Accepts connections, one after the other, each as a [`Client`] with a framing like that of the listener.
///
/// For a test, a tool, or a server of few connections with a thread for each. It limits nothing by itself: for a server
/// that strangers can reach, use [`Server`](crate::Server) with
/// [`ThreadPerConnection`](crate::ThreadPerConnection), whose handlers may block as well.
///
/// ```
/// use framewire::{Separator, blocking::{Client, Listener}};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut listener = Listener::bind("127.0.0.1:0", Separator::lines())?;
/// let mut asking = Client::connect(listener.local_addr().socket_addr().ok_or("not TCP")?, Separator::lines())?;
/// let mut replying = listener.accept()?;
///
/// asking.send("hello")?;
/// assert_eq!(replying.recv()?, Some(&b"hello"[..]));
/// replying.send("good day")?;
/// assert_eq!(asking.recv()?, Some(&b"good day"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener<F> {
    socket: BlockingListener,
    framing: F,
}

impl<F: Framing + Clone> Listener<F> {
    /// Binds one address, as [`Server::bind`](crate::Server::bind) does, and listens there. The file of a Unix socket is
    /// replaced if a dead server has left it behind, and removed when the listener is dropped.
    ///
    /// # Errors
    /// [`ServeError::Address`] if there is no such address, or if there are several; [`ServeError::Bind`] if it cannot be
    /// bound.
    pub fn bind(addr: impl BindAddr, framing: F) -> Result<Self, ServeError> {
        let mut bound = bind(addr, false)?;
        match (bound.pop(), bound.pop()) {
            (Some(socket), None) => Ok(Self { socket: BlockingListener::new(socket), framing }),
            (last, _) => {
                let text = last.map_or_else(String::new, |last| last.addr().to_string());
                let why = "a blocking listener has one address; bind a listener for each".into();
                Err(ServeError::Address { text, why })
            }
        }
    }

    /// Waits for the next connection, for as long as none comes; to be able to stop, use
    /// [`accept_timeout`](Self::accept_timeout).
    ///
    /// # Errors
    /// [`ClientError::Accept`].
    pub fn accept(&mut self) -> Result<Client<F>, ClientError> {
        loop {
            if let Some(client) = self.accept_until(None)? {
                return Ok(client);
            }
        }
    }

    /// Waits for the next connection, for at most this long. Returns `None` if none came.
    ///
    /// # Errors
    /// [`ClientError::Accept`].
    pub fn accept_timeout(&mut self, within: Duration) -> Result<Option<Client<F>>, ClientError> {
        self.accept_until(Some(within))
    }

    fn accept_until(&mut self, within: Option<Duration>) -> Result<Option<Client<F>>, ClientError> {
        match self.socket.accept(deadline(within)) {
            Ok(socket) => Ok(Some(Client::new(Stream::from(socket), self.framing.clone())?)),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(ClientError::Accept(Arc::new(error))),
        }
    }

    /// Returns the address that is bound; for port 0, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> &Addr {
        self.socket.addr()
    }
}

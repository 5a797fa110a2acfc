use std::fmt;

use super::{Addr, Endpoints, Origin};

/// A connection that is about to become a session: for a [`ForkingStrategy`](crate::ForkingStrategy), which places it,
/// and for what makes its [layers](crate::Layer).
#[derive(Clone, Copy)]
pub struct NewConnection<'a> {
    endpoints: &'a Endpoints,
}

impl<'a> NewConnection<'a> {
    pub(crate) fn new(endpoints: &'a Endpoints) -> Self {
        Self { endpoints }
    }

    /// Returns the address of the peer.
    #[must_use]
    pub fn peer(&self) -> Addr {
        self.endpoints.peer()
    }

    /// Returns the address of the connection on our side: the one that the peer connected to, even if the listener is
    /// bound to a wildcard.
    #[must_use]
    pub fn local(&self) -> Addr {
        self.endpoints.local()
    }

    /// Returns where the connection comes from, as [`Session::origin`](crate::Session::origin) does later. A strategy
    /// is shown only connections that were accepted.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.endpoints.origin()
    }

    /// Returns which of the server's listeners accepted it: the index in
    /// [`Server::local_addrs`](crate::Server::local_addrs), which are in the order in which they were bound. `None` for
    /// a connection that this side has made, and for a stream that is carried.
    #[must_use]
    pub fn listener(&self) -> Option<usize> {
        self.endpoints.listener()
    }
}

impl fmt::Debug for NewConnection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewConnection")
            .field("peer", &self.peer())
            .field("local", &self.local())
            .field("origin", &self.origin())
            .finish()
    }
}

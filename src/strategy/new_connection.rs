use std::fmt;

use crate::addr::{Addr, Endpoints};

/// A connection that was accepted and is to be placed.
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

    /// Returns the server's address of the connection: the one that the peer connected to, even if the listener is
    /// bound to a wildcard.
    #[must_use]
    pub fn local(&self) -> Addr {
        self.endpoints.local()
    }

    /// Returns which of the server's listeners accepted it: the index in
    /// [`Server::local_addrs`](crate::Server::local_addrs), which are in the order in which they were bound.
    /// [`Session::origin`](crate::Session::origin) tells the same of its session.
    #[must_use]
    pub fn listener(&self) -> usize {
        self.endpoints.listener()
    }
}

impl fmt::Debug for NewConnection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewConnection")
            .field("peer", &self.peer())
            .field("local", &self.local())
            .field("listener", &self.listener())
            .finish()
    }
}

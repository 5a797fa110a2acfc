use std::fmt;

use crate::addr::{Addr, Endpoints};

/// A connection that was accepted, and has no place yet.
#[derive(Clone, Copy)]
pub struct NewConnection<'a> {
    endpoints: &'a Endpoints,
    listener: usize,
}

impl<'a> NewConnection<'a> {
    pub(crate) fn new(endpoints: &'a Endpoints, listener: usize) -> Self {
        Self { endpoints, listener }
    }

    /// The address of the peer.
    #[must_use]
    pub fn peer(&self) -> Addr {
        self.endpoints.peer()
    }

    /// The address on our side: the one that the peer connected to, also where the listener is bound to a wildcard.
    #[must_use]
    pub fn local(&self) -> Addr {
        self.endpoints.local()
    }

    /// Which of the server's addresses accepted it: its place in [`Server::local_addrs`](crate::Server::local_addrs), which are
    /// in the order in which they were bound.
    #[must_use]
    pub fn listener(&self) -> usize {
        self.listener
    }
}

impl fmt::Debug for NewConnection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewConnection")
            .field("peer", &self.peer())
            .field("local", &self.local())
            .field("listener", &self.listener)
            .finish()
    }
}

//! Where an accepted connection lives: the one line to change.
//!
//! A strategy decides nothing else. Reading, writing, limits and callbacks are the same for all.

mod boxed;
mod detached;
mod resident;
mod single_reactor;
mod thread_per_connection;
mod worker_pool;

pub use detached::{Detached, DetachedPlace, DetachedSocket};
pub use single_reactor::SingleReactor;
pub use thread_per_connection::ThreadPerConnection;
pub use worker_pool::WorkerPool;

pub(crate) use resident::Resident;

use std::fmt;

use crate::{
    addr::{Addr, NewConnection},
    id::ShardId,
    sync::Admission,
};

/// Decides where an accepted connection lives.
///
/// Called on the acceptor's thread, once per connection; it should not block.
///
/// ```
/// use framewire::{ForkingStrategy, NewConnection, Placement, ShardId, ShardLoads};
///
/// /// One shard for even ports of peers, one for odd ports.
/// #[derive(Debug)]
/// struct ByPort;
///
/// impl ForkingStrategy for ByPort {
///     fn workers(&self) -> usize {
///         2
///     }
///
///     fn place(&mut self, connection: &NewConnection<'_>, _loads: ShardLoads<'_>) -> Placement {
///         match connection.peer().socket_addr() {
///             Some(addr) => Placement::On(ShardId::new(1 + u32::from(addr.port() % 2))),
///             None => Placement::Refuse,
///         }
///     }
/// }
/// ```
pub trait ForkingStrategy: Send {
    /// Returns how many standing shards there are besides the acceptor's own, each with a thread. They are numbered
    /// from 1; [`ShardId::ACCEPTOR`] is 0. Default 0.
    fn workers(&self) -> usize {
        0
    }

    /// Returns which threads accept. By default the acceptor's thread does, and calls [`place`](Self::place).
    fn accepting(&self) -> AcceptMode {
        AcceptMode::Central
    }

    /// Decides where this connection lives. A shard that does not exist means [`Placement::Refuse`].
    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement;

    /// Decides where a connection lives that is to be made for
    /// [`ServerHandle::connect`](crate::ServerHandle::connect). Called on the acceptor's thread, before it is made. By
    /// default it lives on the worker with the fewest sessions or, without workers, on the acceptor's own shard.
    /// [`Placement::Detach`] counts as [`Placement::Refuse`].
    fn place_dial(&mut self, loads: ShardLoads<'_>) -> Placement {
        Placement::On(loads.least_loaded().map_or(ShardId::ACCEPTOR, |(shard, _)| shard))
    }

    /// Takes a connection for which [`place`](Self::place) has returned [`Placement::Detach`]. By default it is dropped, and
    /// so closed.
    ///
    /// This too is called on the acceptor's thread: it hands the connection to a thread of the strategy's own.
    ///
    /// ```
    /// use framewire::{
    ///     Detached, ForkingStrategy, NewConnection, Placement, Separator, Server, ShardId, ShardLoads,
    ///     blocking::Client, packet_fn,
    /// };
    ///
    /// /// Connections of the second listener get a thread each, in which a blocking client serves them: at most 16.
    /// #[derive(Debug)]
    /// struct Console;
    ///
    /// impl ForkingStrategy for Console {
    ///     fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
    ///         match connection.listener() {
    ///             Some(0) => Placement::On(ShardId::ACCEPTOR),
    ///             _ if loads.detached() < 16 => Placement::Detach,
    ///             _ => Placement::Refuse,
    ///         }
    ///     }
    ///
    ///     fn detach(&mut self, connection: Detached) {
    ///         std::thread::spawn(move || {
    ///             let mut client = Client::from_stream(connection, Separator::lines())?;
    ///             client.process(|replies, line| Ok(replies.send(line)?))?;
    ///             client.close()
    ///         });
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::bind(["127.0.0.1:0", "127.0.0.1:0"])?.framing(Separator::lines()).strategy(Console);
    /// let running = server.spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
    /// let mut console = Client::connect(running.local_addrs()[1].to_string(), Separator::lines())?;
    /// console.send("status")?;
    /// assert_eq!(console.recv()?, Some(&b"status"[..]));
    /// # Ok(())
    /// # }
    /// ```
    fn detach(&mut self, connection: Detached) {
        drop(connection);
    }

    /// Returns how many descriptors one session takes, its socket included. If
    /// [`Limits::connections`](crate::Limits::connections) is 0, the server divides the descriptors that it may have by
    /// this to find its maximum of connections. Default 1; a session with a shard of its own ([`Placement::Fork`])
    /// takes 3: its socket, a poll and a waker.
    fn descriptors_per_session(&self) -> usize {
        1
    }

    /// Checks the strategy's own settings when the server starts. By default they are fine.
    ///
    /// # Errors
    /// What cannot work, and what to do: the server does not start and reports
    /// [`ServeError::Config`](crate::ServeError::Config).
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    /// Returns how many UDP peers one shard may have, for a server that was bound with
    /// [`Server::bind_udp`](crate::Server::bind_udp). Default: no limit but those of the server.
    ///
    /// [`place`](Self::place) is not called for such peers: with workers, each has a socket of its own and the kernel
    /// chooses one for each peer, by a hash of its address.
    ///
    /// # Errors
    /// Why the strategy cannot serve UDP peers, and what to do: the server does not start and reports
    /// [`ServeError::Config`](crate::ServeError::Config).
    fn udp_peers(&self) -> Result<usize, String> {
        Ok(usize::MAX)
    }

    /// Checks whether streams can be [carried](crate::Server::carried) by sessions that this strategy places. By default they
    /// can.
    ///
    /// # Errors
    /// Why not, and what to do: the server does not start and reports [`ServeError::Config`](crate::ServeError::Config).
    fn carried(&self) -> Result<(), String> {
        Ok(())
    }

    /// Called when the server listens on `addrs` and its workers run.
    fn on_start(&mut self, addrs: &[Addr]) {
        let _ = addrs;
    }

    /// Called when the server has stopped accepting.
    fn on_stop(&mut self) {}
}

/// A place for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// On this standing shard: [`ShardId::ACCEPTOR`], or a worker, from 1 to [`workers`](ForkingStrategy::workers).
    On(ShardId),
    /// On a new shard with a thread of its own, which ends with the connection.
    Fork,
    /// With the strategy, which is handed the socket by [`detach`](ForkingStrategy::detach) and runs it as it likes. It is
    /// no session: no callback is called for it.
    Detach,
    /// Nowhere: the connection is reset, or not made.
    Refuse,
}

/// Which threads accept connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptMode {
    /// One acceptor, which places each connection.
    Central,
    /// Each worker has a listener of its own (`SO_REUSEPORT`), and the kernel spreads the connections by a hash of their
    /// addresses. [`place`](ForkingStrategy::place) is not called.
    PerWorker {
        /// Sessions that one worker may have; beyond it, connections are refused.
        max_sessions: usize,
    },
}

/// How many sessions each shard has, at the time of each call.
#[derive(Clone, Copy)]
pub struct ShardLoads<'a> {
    admission: &'a Admission,
}

impl<'a> ShardLoads<'a> {
    pub(crate) fn new(admission: &'a Admission) -> Self {
        Self { admission }
    }

    /// Returns the standing shards: the acceptor's own, then the workers.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = ShardId> + use<> {
        (0..self.admission.standing() as u32).map(ShardId::new)
    }

    /// Returns the number of sessions of a standing shard; 0 for one that does not exist.
    #[must_use]
    pub fn sessions(&self, shard: ShardId) -> usize {
        self.admission.sessions(shard).unwrap_or(0)
    }

    /// Returns the number of sessions with a thread of their own.
    #[must_use]
    pub fn forked(&self) -> usize {
        self.admission.forked()
    }

    /// Returns the number of [detached](Placement::Detach) connections.
    #[must_use]
    pub fn detached(&self) -> usize {
        self.admission.detached()
    }

    /// Returns the number of sessions of the whole server, and of detached connections.
    #[must_use]
    pub fn total(&self) -> usize {
        self.admission.total()
    }

    /// Returns the worker with the fewest sessions, and how many it has; `None` without workers.
    #[must_use]
    pub fn least_loaded(&self) -> Option<(ShardId, usize)> {
        let workers = self.shards().filter(|shard| *shard != ShardId::ACCEPTOR);
        workers.map(|shard| (shard, self.sessions(shard))).min_by_key(|(_, sessions)| *sessions)
    }
}

impl fmt::Debug for ShardLoads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shards().map(|shard| (shard, self.sessions(shard)))).finish()
    }
}

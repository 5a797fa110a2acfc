//! Where an accepted connection lives: the one line to change.
//!
//! A strategy decides nothing but the place. Reading, writing, limits and callbacks are the same for all.

mod new_connection;
mod resident;
mod single_reactor;
mod thread_per_connection;
mod worker_pool;

pub use new_connection::NewConnection;
pub use single_reactor::SingleReactor;
pub use thread_per_connection::ThreadPerConnection;
pub use worker_pool::WorkerPool;

pub(crate) use resident::Resident;

use std::fmt;

use crate::{addr::Addr, id::ShardId, sync::Admission};

/// Decides where an accepted connection lives.
///
/// Called on the acceptor's thread, once per connection; it should not block.
///
/// ```
/// use framewire::{ForkingStrategy, NewConnection, Placement, ShardId, ShardLoads};
///
/// /// Even and odd ports, each with a shard.
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
    /// Standing shards besides the acceptor's own, each with a thread. They are numbered from 1;
    /// [`ShardId::ACCEPTOR`] is 0.
    fn workers(&self) -> usize {
        0
    }

    /// Who accepts. By default the acceptor's thread does, and asks [`place`](Self::place).
    fn accepting(&self) -> AcceptMode {
        AcceptMode::Central
    }

    /// Where this connection is to live. A shard that does not exist is as [`Placement::Refuse`].
    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement;

    /// Descriptors that one session takes, its socket included. Where [`Limits::connections`](crate::Limits::connections) is 0,
    /// the server has as many connections as the descriptor limit leaves when each takes so many. Default 1; a session
    /// with a shard of its own ([`Placement::Fork`]) takes 3: its socket, a poll and a waker.
    fn descriptors_per_session(&self) -> usize {
        1
    }

    /// Looks at its own settings, when the server starts.
    ///
    /// # Errors
    /// What cannot work, and what to do: the server does not start, with
    /// [`ServeError::Config`](crate::ServeError::Config).
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    /// The server listens on `addrs`, and its workers run.
    fn on_start(&mut self, addrs: &[Addr]) {
        let _ = addrs;
    }

    /// The server accepts no more.
    fn on_stop(&mut self) {}
}

/// A place for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// On this standing shard: [`ShardId::ACCEPTOR`], or a worker, from 1 to [`workers`](ForkingStrategy::workers).
    On(ShardId),
    /// On a fresh shard with a thread of its own, which ends with the connection.
    Fork,
    /// Nowhere: the connection is reset.
    Refuse,
}

/// Who accepts connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptMode {
    /// One acceptor, which places each connection.
    Central,
    /// Each worker has a listener of its own (`SO_REUSEPORT`), and the kernel spreads the connections by a hash of their
    /// addresses. [`place`](ForkingStrategy::place) is not asked.
    PerWorker {
        /// Sessions that one worker may have; beyond it, connections are refused.
        max_sessions: usize,
    },
}

/// How many sessions each shard has, at the time of the question.
#[derive(Clone, Copy)]
pub struct ShardLoads<'a> {
    admission: &'a Admission,
}

impl<'a> ShardLoads<'a> {
    pub(crate) fn new(admission: &'a Admission) -> Self {
        Self { admission }
    }

    /// The standing shards: the acceptor's own, then the workers.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = ShardId> + use<> {
        (0..self.admission.standing() as u32).map(ShardId::new)
    }

    /// Sessions of a standing shard; 0 for one that does not exist.
    #[must_use]
    pub fn sessions(&self, shard: ShardId) -> usize {
        self.admission.sessions(shard).unwrap_or(0)
    }

    /// Sessions with a thread of their own.
    #[must_use]
    pub fn forked(&self) -> usize {
        self.admission.forked()
    }

    /// Sessions of the whole server.
    #[must_use]
    pub fn total(&self) -> usize {
        self.admission.total()
    }

    /// The worker with the fewest sessions, and how many it has; `None` without workers.
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

//! Where an accepted connection lives: the one line to change.
//!
//! A strategy decides nothing but the place. Reading, writing, limits and callbacks are the same for all.

mod resident;
mod single_reactor;
mod thread_per_connection;
mod worker_pool;

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
/// use framewire::{ForkingStrategy, ShardLoads, Addr, Placement};
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
///     fn place(&mut self, peer: &Addr, _loads: ShardLoads<'_>) -> Placement {
///         match peer.socket_addr() {
///             Some(addr) => Placement::On(1 + usize::from(addr.port() % 2)),
///             None => Placement::Refuse,
///         }
///     }
/// }
/// ```
pub trait ForkingStrategy: Send {
    /// Standing shards besides the acceptor's own, each with a thread. They are numbered from 1; 0 is the acceptor's.
    fn workers(&self) -> usize {
        0
    }

    /// Who accepts. By default the acceptor's thread does, and asks [`place`](Self::place).
    fn accepting(&self) -> AcceptMode {
        AcceptMode::Central
    }

    /// Where this connection is to live. A shard that does not exist is as [`Placement::Refuse`].
    fn place(&mut self, peer: &Addr, loads: ShardLoads<'_>) -> Placement;

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
pub enum Placement {
    /// On this standing shard: 0 is the acceptor's own, 1 to [`workers`](ForkingStrategy::workers) are the workers.
    On(usize),
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

    /// Standing shards, the acceptor's own (number 0) included.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.admission.standing()
    }

    /// Sessions of a standing shard; 0 for one that does not exist.
    #[must_use]
    pub fn sessions(&self, shard: usize) -> usize {
        self.admission.sessions(ShardId(shard as u32)).unwrap_or(0)
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

    /// The worker (number 1 and up) with the fewest sessions, and how many it has.
    #[must_use]
    pub fn least_loaded(&self) -> Option<(usize, usize)> {
        (1..self.shards()).map(|shard| (shard, self.sessions(shard))).min_by_key(|(_, sessions)| *sessions)
    }
}

impl fmt::Debug for ShardLoads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..self.shards()).map(|shard| self.sessions(shard))).finish()
    }
}

use super::{AcceptMode, ForkingStrategy, Placement, ShardLoads};
use crate::addr::NewConnection;

/// A fixed number of reactor threads, each with its own poll, sessions and handler; nothing is shared between them.
///
/// Each worker has a handler of its own, whose fields only the sessions of that worker see: a list of users that is one
/// on a [`SingleReactor`](crate::SingleReactor) is one per worker here, unless it is behind an `Arc` (see
/// [`Handlers`](crate::Handlers)).
///
/// By default one acceptor hands each connection to the worker with the fewest sessions. With
/// [`reuse_port`](Self::reuse_port) each worker accepts for itself.
///
/// ```
/// use framewire::{Server, WorkerPool};
///
/// let server = Server::bind("127.0.0.1:0")?.strategy(WorkerPool::new(4).max_sessions(25_000));
/// # Ok::<(), framewire::ServeError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct WorkerPool {
    workers: usize,
    max_sessions: usize,
    per_worker: bool,
}

impl WorkerPool {
    /// A pool of `workers` threads. The server does not start with 0.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers, max_sessions: usize::MAX, per_worker: false }
    }

    /// One worker for each core that this process may use.
    #[must_use]
    pub fn per_core() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Sets how many sessions one worker may have. When all have as many, connections are refused. Default: no limit
    /// but those of the server. The server does not start with 0.
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// Gives each worker a listener of its own (`SO_REUSEPORT`): connections are not handed over, but the kernel
    /// spreads them by hash, which is uneven for few connections, and clients in the queue of a worker that blocks wait
    /// for it. TCP only.
    #[must_use]
    pub fn reuse_port(mut self) -> Self {
        self.per_worker = true;
        self
    }
}

impl ForkingStrategy for WorkerPool {
    fn workers(&self) -> usize {
        self.workers
    }

    fn accepting(&self) -> AcceptMode {
        if self.per_worker {
            AcceptMode::PerWorker { max_sessions: self.max_sessions }
        } else {
            AcceptMode::Central
        }
    }

    fn validate(&self) -> Result<(), String> {
        match (self.workers, self.max_sessions) {
            (0, _) => Err("a WorkerPool of 0 workers serves nobody; give at least 1".into()),
            (_, 0) => Err("WorkerPool::max_sessions(0) refuses everybody; give at least 1".into()),
            _ => Ok(()),
        }
    }

    fn udp_peers(&self) -> Result<usize, String> {
        Ok(self.max_sessions)
    }

    fn place(&mut self, _connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        self.place_dial(loads)
    }

    fn place_dial(&mut self, loads: ShardLoads<'_>) -> Placement {
        match loads.least_loaded() {
            Some((shard, sessions)) if sessions < self.max_sessions => Placement::On(shard),
            _ => Placement::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        addr::{Addr, Endpoints},
        id::ShardId,
        sync::Admission,
    };

    #[test]
    fn connections_go_to_the_worker_with_the_fewest_until_all_are_full() {
        let admission = Admission::new(3, 100, None);
        let mut pool = WorkerPool::new(2).max_sessions(2);
        let endpoints = Endpoints::new(Addr::Unix(None), Addr::Unix(None), 0);
        let connection = NewConnection::new(&endpoints);
        let (mut places, mut permits) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let place = pool.place(&connection, ShardLoads::new(&admission));
            if let Placement::On(shard) = place {
                permits.push(admission.admit(Some(shard), &connection.peer()));
            }
            places.push(place);
        }
        let on = |shard| Placement::On(ShardId::new(shard));
        assert_eq!(places, [on(1), on(2), on(1), on(2), Placement::Refuse]);
        assert!(permits.iter().all(Result::is_ok));
        drop(permits.remove(1));
        assert_eq!(pool.place(&connection, ShardLoads::new(&admission)), on(2));
    }
}

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use crate::id::{ServerNumber, SessionId, ShardId};

/// How the shards of one service are numbered.
///
/// ```text
/// threads   0 1 2     standing shards of the first service: 0 1 2, of the second: 3 4 5;  forked ones, of both: 6, 7 …
/// ```
#[derive(Debug, Clone)]
pub(crate) struct ShardNumbers {
    /// The number of the service's shard on the acceptor's thread.
    first: u32,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: ServerNumber,
    /// How many standing shards all services have: these have the smallest numbers.
    standing: u32,
    next_fork: AtomicU32,
    /// The instant of tick 0, on all threads.
    origin: Instant,
}

impl ShardNumbers {
    /// Numbers the shards of `services` services on `threads` threads.
    pub(crate) fn of_services(services: u32, threads: u32) -> Vec<Self> {
        let standing = services.saturating_mul(threads);
        let shared = Arc::new(Shared {
            server: ServerNumber::next(),
            standing,
            next_fork: AtomicU32::new(standing),
            origin: Instant::now(),
        });
        (0..services).map(|service| Self { first: service * threads, shared: shared.clone() }).collect()
    }

    /// Numbers the shards of a single service.
    #[cfg(test)]
    pub(crate) fn alone(threads: u32) -> Self {
        Self::of_services(1, threads).swap_remove(0)
    }

    /// Returns the service's shard on this thread, which is named by the number of the first service's shard there.
    pub(crate) fn on_thread(&self, thread: ShardId) -> ShardId {
        ShardId(self.first.saturating_add(thread.0))
    }

    /// Returns the thread of a standing shard of the service.
    pub(crate) fn thread_of(&self, shard: ShardId) -> ShardId {
        ShardId(shard.0.saturating_sub(self.first))
    }

    /// Returns the next number for a forked shard for which `is_free` returns `true`.
    pub(crate) fn next_fork(&self, is_free: impl Fn(ShardId) -> bool) -> ShardId {
        loop {
            let id = ShardId(self.shared.next_fork.fetch_add(1, Ordering::Relaxed));
            if id.0 >= self.shared.standing && is_free(id) {
                return id;
            }
        }
    }

    /// The number of the server that all these services belong to.
    pub(crate) fn server(&self) -> ServerNumber {
        self.shared.server
    }

    /// Returns `true` if the session is, or was, one of that server.
    pub(crate) fn are_of_server_of(&self, session: SessionId) -> bool {
        session.server == self.shared.server
    }

    pub(crate) fn origin(&self) -> Instant {
        self.shared.origin
    }

    /// Continues as if that many shards had been forked.
    #[cfg(test)]
    pub(crate) fn begin_forks_at(&self, number: u32) {
        self.shared.next_fork.store(number, Ordering::Relaxed);
    }
}

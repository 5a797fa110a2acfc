use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use crate::id::ShardId;

/// How the shards of one service are numbered.
///
/// ```text
/// threads   0 1 2     standing shards of the first service: 0 1 2, of the second: 3 4 5;  forked ones, of both: 6, 7 …
/// ```
#[derive(Debug, Clone)]
pub(crate) struct ShardNumbers {
    /// That of its shard on the acceptor's thread.
    first: u32,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Standing shards of all services: the smaller numbers.
    standing: u32,
    next_fork: AtomicU32,
    /// What tick 0 is, on all threads.
    origin: Instant,
}

impl ShardNumbers {
    /// Those of so many services on so many threads.
    pub(crate) fn of_services(services: u32, threads: u32) -> Vec<Self> {
        let standing = services.saturating_mul(threads);
        let shared = Shared { standing, next_fork: AtomicU32::new(standing), origin: Instant::now() };
        let shared = Arc::new(shared);
        (0..services).map(|service| Self { first: service * threads, shared: shared.clone() }).collect()
    }

    /// Those of the only service.
    #[cfg(test)]
    pub(crate) fn alone(threads: u32) -> Self {
        Self::of_services(1, threads).swap_remove(0)
    }

    /// The shard of the service on this thread, which is named by the first service's there.
    pub(crate) fn on_thread(&self, thread: ShardId) -> ShardId {
        ShardId(self.first.saturating_add(thread.0))
    }

    /// The thread of a standing shard of the service.
    pub(crate) fn thread_of(&self, shard: ShardId) -> ShardId {
        ShardId(shard.0.saturating_sub(self.first))
    }

    /// A number for a shard that is forked, if `is_free` says that it is.
    pub(crate) fn next_fork(&self, is_free: impl Fn(ShardId) -> bool) -> ShardId {
        loop {
            let id = ShardId(self.shared.next_fork.fetch_add(1, Ordering::Relaxed));
            if id.0 >= self.shared.standing && is_free(id) {
                return id;
            }
        }
    }

    pub(crate) fn origin(&self) -> Instant {
        self.shared.origin
    }

    /// As if that many shards had been forked.
    #[cfg(test)]
    pub(crate) fn begin_forks_at(&self, number: u32) {
        self.shared.next_fork.store(number, Ordering::Relaxed);
    }
}

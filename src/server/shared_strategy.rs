use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    addr::{Addr, NewConnection},
    contained::Contained,
    strategy::{AcceptMode, Detached, ForkingStrategy, Placement, ShardLoads},
};

/// One strategy that places the connections of several services. They accept on one thread, so the lock is never
/// contended.
pub(super) struct SharedStrategy {
    shared: Arc<Mutex<Shared>>,
    facts: Facts,
}

struct Shared {
    strategy: Contained<Box<dyn ForkingStrategy>>,
    /// The addresses of all services, until the strategy's `on_start` was called with them.
    addrs: Option<Vec<Addr>>,
    /// How many services still accept.
    accepting: usize,
}

/// The constant properties of a strategy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) workers: usize,
    pub(super) accepting: AcceptMode,
    /// Per session.
    pub(super) descriptors: usize,
    /// Of one shard.
    pub(super) udp_peers: usize,
}

impl Facts {
    pub(super) fn of(strategy: &dyn ForkingStrategy) -> Self {
        let (workers, accepting) = (strategy.workers(), strategy.accepting());
        let descriptors = strategy.descriptors_per_session();
        // A service for which it matters has checked that the strategy allows any.
        let udp_peers = strategy.udp_peers().unwrap_or(0);
        Self { workers, accepting, descriptors, udp_peers }
    }
}

impl SharedStrategy {
    /// Returns one share per service; for a single service, the strategy itself.
    pub(super) fn shares(
        strategy: Contained<Box<dyn ForkingStrategy>>,
        services: usize,
        addrs: Vec<Addr>,
    ) -> Vec<Contained<Box<dyn ForkingStrategy>>> {
        if services == 1 {
            return vec![strategy];
        }
        let facts = Facts::of(&**strategy);
        let shared = Shared { strategy, addrs: Some(addrs), accepting: services };
        let shared = Arc::new(Mutex::new(shared));
        let share = || -> Box<dyn ForkingStrategy> { Box::new(Self { shared: shared.clone(), facts }) };
        (0..services).map(|_| Contained::new(share())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ForkingStrategy for SharedStrategy {
    fn workers(&self) -> usize {
        self.facts.workers
    }

    fn accepting(&self) -> AcceptMode {
        self.facts.accepting
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        self.lock().strategy.place(connection, loads)
    }

    fn place_dial(&mut self, loads: ShardLoads<'_>) -> Placement {
        self.lock().strategy.place_dial(loads)
    }

    fn detach(&mut self, connection: Detached) {
        self.lock().strategy.detach(connection);
    }

    fn descriptors_per_session(&self) -> usize {
        self.facts.descriptors
    }

    /// Forwarded once, with the addresses of all services.
    fn on_start(&mut self, _addrs: &[Addr]) {
        let mut shared = self.lock();
        if let Some(addrs) = shared.addrs.take() {
            shared.strategy.on_start(&addrs);
        }
    }

    /// Forwarded once, when the last service stops accepting.
    fn on_stop(&mut self) {
        let mut shared = self.lock();
        shared.accepting -= 1;
        if shared.accepting == 0 {
            shared.strategy.on_stop();
        }
    }
}

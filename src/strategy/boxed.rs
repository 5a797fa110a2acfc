use super::{AcceptMode, Detached, ForkingStrategy, Placement, ShardLoads};
use crate::addr::{Addr, NewConnection};

/// A strategy that is chosen at run time.
impl<S: ForkingStrategy + ?Sized> ForkingStrategy for Box<S> {
    fn workers(&self) -> usize {
        (**self).workers()
    }

    fn accepting(&self) -> AcceptMode {
        (**self).accepting()
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        (**self).place(connection, loads)
    }

    fn place_dial(&mut self, loads: ShardLoads<'_>) -> Placement {
        (**self).place_dial(loads)
    }

    fn detach(&mut self, connection: Detached) {
        (**self).detach(connection);
    }

    fn descriptors_per_session(&self) -> usize {
        (**self).descriptors_per_session()
    }

    fn validate(&self) -> Result<(), String> {
        (**self).validate()
    }

    fn udp_peers(&self) -> Result<usize, String> {
        (**self).udp_peers()
    }

    fn carried(&self) -> Result<(), String> {
        (**self).carried()
    }

    fn on_start(&mut self, addrs: &[Addr]) {
        (**self).on_start(addrs);
    }

    fn on_stop(&mut self) {
        (**self).on_stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::{SingleReactor, ThreadPerConnection, WorkerPool};

    #[test]
    fn a_strategy_in_a_box_is_the_same_strategy() {
        let strategies: [Box<dyn ForkingStrategy>; 4] = [
            Box::new(SingleReactor::new()),
            Box::new(WorkerPool::new(3)),
            Box::new(WorkerPool::new(2).reuse_port()),
            Box::new(ThreadPerConnection::max(0)),
        ];
        for strategy in strategies {
            let facts = |strategy: &dyn ForkingStrategy| {
                let checks = (strategy.validate(), strategy.udp_peers(), strategy.carried());
                (strategy.workers(), strategy.accepting(), strategy.descriptors_per_session(), checks)
            };
            let own = facts(&*strategy);
            assert_eq!(facts(&strategy), own);
        }
    }
}

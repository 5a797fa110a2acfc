use super::ServerHandle;
use crate::{
    dial::{Dial, NewDial, Upstream},
    error::QueryError,
    id::{DialId, ShardId},
    runtime::PostOutcome,
    shard::Command,
};

impl ServerHandle {
    /// Makes a connection, which becomes a session of the server, from any thread and within callbacks. Never blocks.
    ///
    /// The strategy decides where it lives ([`ForkingStrategy::place_dial`](crate::ForkingStrategy::place_dial)): on the
    /// one thread, on the worker with the fewest sessions, or on a thread of its own. A handle to several services, as a
    /// [`Reactor`](crate::Reactor) has one, connects for the first of them.
    ///
    /// [`Server::unbound`](crate::Server::unbound) has an example, and [`Dial::to_udp`](crate::Dial::to_udp) one over UDP.
    ///
    /// # Errors
    /// [`QueryError::NotRunning`] if the server does not run (yet, or any more), [`QueryError::Busy`] if the mailbox of the
    /// acceptor's shard is full. Everything else is reported by
    /// [`on_dial_failed`](crate::PacketHandler::on_dial_failed), on the shard on which it fails.
    pub fn connect(&self, dial: Dial) -> Result<Upstream, QueryError> {
        let registry = self.registries().next().ok_or(QueryError::NotRunning)?;
        let id = DialId::next();
        let (upstream, side) = Upstream::new(id, dial.while_down, &registry.limits);
        let dial = NewDial::with_upstream(id, dial, side);
        match registry.ask(registry.shard_on(ShardId::ACCEPTOR), Command::Dial(dial)) {
            PostOutcome::Posted => Ok(upstream),
            PostOutcome::Full => Err(QueryError::Busy),
            PostOutcome::Closed => Err(QueryError::NotRunning),
        }
    }
}

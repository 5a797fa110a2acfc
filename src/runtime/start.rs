use std::sync::Arc;

use super::{
    AcceptorParts, HandlerFactory, Platform, ShardLauncher, ShardRegistry, hand_over::HandOver,
    platform::ListenerOf,
};
use crate::{
    addr::Addr, contained::Contained, error::ServeError, framing::Framing, handler::PacketHandler,
    id::ShardId, strategy::ForkingStrategy,
};

/// What the shards of a server are started with.
pub(crate) struct ServerParts<P: Platform, F, S> {
    pub(crate) platform: P,
    pub(crate) registry: Arc<ShardRegistry<P>>,
    /// It was offered its maximum.
    pub(crate) framing: Contained<F>,
    pub(crate) factory: Contained<S>,
    pub(crate) strategy: Contained<Box<dyn ForkingStrategy>>,
    pub(crate) addrs: Vec<Addr>,
    /// Those of the acceptor.
    pub(crate) listeners: Vec<(ListenerOf<P>, Addr)>,
    /// For the workers, where each accepts for itself; the first is that of the first worker.
    pub(crate) workers: Vec<AcceptorParts<P::Sys>>,
}

/// Starts the workers, each on a thread that is told of; the acceptor's shard is ready to start.
pub(crate) fn start_workers<P, H, F, S>(
    parts: ServerParts<P, F, S>,
    mut started: impl FnMut(P::Thread),
) -> Result<ShardLauncher<P, H, F>, ServeError>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    let ServerParts { platform, registry, framing, mut factory, mut strategy, addrs, listeners, workers } =
        parts;
    let mut acceptors = workers.into_iter();
    for worker in 1..=strategy.workers() as u32 {
        let launcher = ShardLauncher::standing(
            platform.clone(),
            &registry,
            ShardId(worker),
            framing.clone(),
            &mut *factory,
            acceptors.next(),
        )?;
        started(launcher.spawn().map_err(ServeError::system("start a thread"))?);
    }
    strategy.on_start(&addrs);
    let forks: Box<dyn HandlerFactory<H>> = Box::new(S::clone(&factory));
    let dispatch = Box::new(HandOver::new(platform.clone(), registry.clone(), framing.clone(), forks));
    let parts = AcceptorParts { listeners, strategy, dispatch };
    ShardLauncher::standing(platform, &registry, ShardId::ACCEPTOR, framing, &mut *factory, Some(parts))
}

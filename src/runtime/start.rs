use std::{marker::PhantomData, sync::Arc, vec};

use super::{
    AcceptorParts, HandlerFactory, Platform, ShardRegistry, ThreadLauncher,
    assemble::serve_streams,
    hand_over::HandOver,
    launcher::{LaunchShard, ShardLauncher},
    platform::ListenerOf,
};
use crate::{
    addr::Addr, contained::Contained, error::ServeError, framing::Framing, handler::PacketHandler,
    id::ShardId, session::Medium, shard::Framings, strategy::ForkingStrategy, sync::Wake,
};

/// What is needed to start the shards of a service.
pub(crate) struct ServiceParts<P: Platform, H, F, S> {
    platform: P,
    registry: Arc<ShardRegistry<P>>,
    /// They were offered their maximum already.
    framings: Framings<F>,
    factory: Contained<S>,
    /// Set until the acceptor takes it.
    strategy: Option<Contained<Box<dyn ForkingStrategy>>>,
    addrs: Vec<Addr>,
    /// The listeners of the acceptor.
    listeners: Vec<(ListenerOf<P>, Addr)>,
    /// For the workers, in order, if each accepts for itself.
    workers: vec::IntoIter<AcceptorParts<P::Sys>>,
    handler: PhantomData<fn() -> H>,
}

/// The listeners of the acceptor, and the parts with which workers accept for themselves.
pub(crate) type Listening<P> = (Vec<(ListenerOf<P>, Addr)>, Vec<AcceptorParts<<P as Platform>::Sys>>);

/// A service that makes its shards; the types of its handler and framing are erased.
pub(crate) trait StartService<P: Platform> {
    /// Returns the service's shard for this thread. The acceptor's is made last.
    fn launcher(&mut self, thread: ShardId, waker: Arc<dyn Wake>) -> Box<dyn LaunchShard<P>>;

    fn registry(&self) -> &Arc<ShardRegistry<P>>;
}

impl<P: Platform, H, F, S> ServiceParts<P, H, F, S> {
    pub(crate) fn new(
        platform: P,
        registry: Arc<ShardRegistry<P>>,
        framings: Framings<F>,
        factory: Contained<S>,
        strategy: Contained<Box<dyn ForkingStrategy>>,
        addrs: Vec<Addr>,
        (listeners, workers): Listening<P>,
    ) -> Self {
        let (strategy, workers) = (Some(strategy), workers.into_iter());
        let handler = PhantomData;
        Self { platform, registry, framings, factory, strategy, addrs, listeners, workers, handler }
    }
}

impl<P, H, F, S> StartService<P> for ServiceParts<P, H, F, S>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    fn launcher(&mut self, thread: ShardId, waker: Arc<dyn Wake>) -> Box<dyn LaunchShard<P>> {
        let parts = if thread == ShardId::ACCEPTOR {
            self.strategy.take().map(|mut strategy| {
                strategy.on_start(&self.addrs);
                let forks: Box<dyn HandlerFactory<H>> = Box::new(S::clone(&self.factory));
                let (platform, registry) = (self.platform.clone(), self.registry.clone());
                let dispatch = Box::new(HandOver::new(platform, registry, self.framings.clone(), forks));
                AcceptorParts { listeners: std::mem::take(&mut self.listeners), strategy, dispatch }
            })
        } else {
            self.workers.next()
        };
        let (id, framings) = (self.registry.numbers.on_thread(thread), self.framings.clone());
        let (medium, factory) = (Medium::Streams, &mut *self.factory);
        let assemble = serve_streams(parts);
        Box::new(ShardLauncher::standing(&self.registry, waker, id, medium, framings, factory, assemble))
    }

    fn registry(&self) -> &Arc<ShardRegistry<P>> {
        &self.registry
    }
}

/// Starts the workers and passes the thread of each to the caller. Returns the acceptor's thread, ready to start.
pub(crate) fn start_workers<P: Platform>(
    platform: &P,
    workers: u32,
    services: &mut [Box<dyn StartService<P> + '_>],
    mut started: impl FnMut(P::Thread),
) -> Result<ThreadLauncher<P>, ServeError> {
    for worker in 1..=workers {
        let thread = launcher(platform, ShardId(worker), services)?;
        started(thread.spawn().map_err(ServeError::system("start a thread"))?);
    }
    launcher(platform, ShardId::ACCEPTOR, services)
}

fn launcher<P: Platform>(
    platform: &P,
    thread: ShardId,
    services: &mut [Box<dyn StartService<P> + '_>],
) -> Result<ThreadLauncher<P>, ServeError> {
    let origin = services.first().map(|service| service.registry().numbers.origin());
    let made = platform.sys(origin.unwrap_or_else(std::time::Instant::now));
    let (sys, waker) = made.map_err(ServeError::system("make a poll"))?;
    let shards = services.iter_mut().map(|service| service.launcher(thread, waker.clone())).collect();
    Ok(ThreadLauncher::new(platform.clone(), sys, shards))
}

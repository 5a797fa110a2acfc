use std::{marker::PhantomData, sync::Arc};

use super::{
    HandlerFactory, Platform, ShardRegistry, StartService,
    assemble::ServiceParts,
    launcher::{LaunchShard, ShardLauncher},
};
use crate::{
    contained::Contained,
    error::ServeError,
    framing::LengthPrefix,
    handler::PacketHandler,
    id::ShardId,
    reactor::{Service, StreamConfig, StreamPort},
    session::{CarriedService, Medium, Mux},
    shard::{Framings, OtherFramings, Shard},
    strategy::ForkingStrategy,
    sync::Wake,
};

/// What is needed to start the shards of a service of streams that are carried by sessions of others.
pub(crate) struct StreamParts<P: Platform, H, S> {
    registry: Arc<ShardRegistry<P>>,
    factory: Contained<S>,
    /// Set until the shard on the acceptor's thread takes it.
    strategy: Option<Contained<Box<dyn ForkingStrategy>>>,
    carrying: Carrying,
    handler: PhantomData<fn() -> H>,
}

/// How a service is carried.
#[derive(Clone)]
pub(crate) struct Carrying {
    pub(crate) mux: Arc<dyn Mux>,
    pub(crate) service: Arc<CarriedService>,
    /// Bytes that may wait in the inbox of a stream.
    pub(crate) inbox: usize,
}

impl<P: Platform, H, S> StreamParts<P, H, S> {
    pub(crate) fn new(
        registry: Arc<ShardRegistry<P>>,
        factory: Contained<S>,
        strategy: Contained<Box<dyn ForkingStrategy>>,
        carrying: Carrying,
        threads: u32,
    ) -> Self {
        let numbers = &registry.numbers;
        let (first, last) = (numbers.on_thread(ShardId(0)), numbers.on_thread(ShardId(threads - 1)));
        carrying.service.begin(numbers.server(), first.0..=last.0);
        Self { registry, factory, strategy: Some(strategy), carrying, handler: PhantomData }
    }
}

impl<P, H, S> StartService<P> for StreamParts<P, H, S>
where
    P: Platform,
    H: PacketHandler + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    fn launcher(&mut self, thread: ShardId, waker: Arc<dyn Wake>) -> Box<dyn LaunchShard<P>> {
        let strategy = if thread == ShardId::ACCEPTOR { self.strategy.take() } else { None };
        let strategy = strategy.map(|mut strategy| {
            strategy.on_start(&[]);
            strategy
        });
        // In an inbox and an outbox each packet stands behind its length.
        let own = Contained::new(LengthPrefix::u32_be().max(self.registry.limits.frame));
        let framings = Framings::new(own, OtherFramings::default());
        let carrying = self.carrying.clone();
        let assemble = move |_: &mut P::Sys, service: ServiceParts<'_, P, H, LengthPrefix>| {
            let ServiceParts { handler, shard, mailbox, registry, here, reporter, connector, .. } = service;
            let Carrying { mux, service, inbox } = carrying;
            let made: Box<dyn Service<P::Sys>> = StreamPort::serve(StreamConfig {
                shard: Shard::new(handler, shard),
                mailbox,
                connector,
                mux: Contained::new(mux),
                service,
                admission: registry.admission.clone(),
                here,
                inbox,
                strategy,
                reporter,
            });
            Ok::<_, ServeError>(made)
        };
        let id = self.registry.numbers.on_thread(thread);
        Box::new(ShardLauncher::standing(
            &self.registry,
            waker,
            id,
            Medium::Carriers,
            framings,
            &mut *self.factory,
            Box::new(assemble),
        ))
    }

    fn registry(&self) -> &Arc<ShardRegistry<P>> {
        &self.registry
    }
}

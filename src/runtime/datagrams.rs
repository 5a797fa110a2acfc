use std::{io, marker::PhantomData, sync::Arc, vec};

use super::{
    HandlerFactory, Platform, ShardRegistry, StartService,
    assemble::ServiceParts,
    hand_over::hand_dial,
    launcher::{LaunchShard, ShardLauncher},
    platform::SysOf,
};
use crate::{
    addr::Addr,
    contained::Contained,
    dial::NewDial,
    error::ServeError,
    framing::LengthPrefix,
    handler::PacketHandler,
    id::ShardId,
    reactor::{
        Connector, DatagramConfig, DatagramPort, Datagrams, DispatchDials, Gate, Placing, Service, Sys,
    },
    session::Medium,
    shard::{Beyond, Framings, OtherFramings, Shard},
    strategy::ForkingStrategy,
    sync::Wake,
};

/// What is needed to start the shards of a service of datagrams.
pub(crate) struct DatagramParts<P: Platform, H, S> {
    registry: Arc<ShardRegistry<P>>,
    factory: Contained<S>,
    /// Set until the shard on the acceptor's thread takes it.
    strategy: Option<Contained<Box<dyn ForkingStrategy>>>,
    addrs: Vec<Addr>,
    /// For the workers, in order; without workers, for the acceptor's thread.
    sockets: vec::IntoIter<Sockets<P>>,
    intake: Intake,
    handler: PhantomData<fn() -> H>,
}

/// The sockets of one thread, one for each address.
pub(crate) type Sockets<P> = Vec<(<SysOf<P> as Sys>::Datagrams, Addr)>;

/// Which datagrams and peers a service takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intake {
    /// The longest datagram, in bytes.
    pub(crate) longest: usize,
    /// Peers that one shard may have.
    pub(crate) peers_per_shard: usize,
    pub(crate) beyond: Beyond,
}

impl<P: Platform, H, S> DatagramParts<P, H, S> {
    pub(crate) fn new(
        registry: Arc<ShardRegistry<P>>,
        factory: Contained<S>,
        strategy: Contained<Box<dyn ForkingStrategy>>,
        sockets: Vec<Sockets<P>>,
        intake: Intake,
    ) -> Self {
        let addrs = sockets.first().into_iter().flatten().map(|(_, addr)| addr.clone()).collect();
        let (strategy, sockets) = (Some(strategy), sockets.into_iter());
        Self { registry, factory, strategy, addrs, sockets, intake, handler: PhantomData }
    }
}

impl<P, H, S> StartService<P> for DatagramParts<P, H, S>
where
    P: Platform,
    H: PacketHandler + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    fn launcher(&mut self, thread: ShardId, waker: Arc<dyn Wake>) -> Box<dyn LaunchShard<P>> {
        // The acceptor's thread is the last: with workers, none is left for it.
        let (sockets, intake) = (self.sockets.next().unwrap_or_default(), self.intake);
        let strategy = if thread == ShardId::ACCEPTOR { self.strategy.take() } else { None };
        let strategy = strategy.map(|mut strategy| {
            strategy.on_start(&self.addrs);
            let dispatch: Box<dyn DispatchDials> = Box::new(ToWorkers(self.registry.clone()));
            (strategy, dispatch)
        });
        // In an outbox, and on its way to the handler, a datagram stands behind its length.
        let own = Contained::new(LengthPrefix::u32_be().max(intake.longest));
        let framings = Framings::new(own, OtherFramings::default());
        let assemble = move |sys: &mut P::Sys, service: ServiceParts<'_, P, H, LengthPrefix>| {
            assemble(sys, service, sockets, intake, strategy)
        };
        let id = self.registry.numbers.on_thread(thread);
        Box::new(ShardLauncher::standing(
            &self.registry,
            waker,
            id,
            Medium::Datagrams,
            framings,
            &mut *self.factory,
            Box::new(assemble),
        ))
    }

    fn registry(&self) -> &Arc<ShardRegistry<P>> {
        &self.registry
    }
}

/// Hands dials to the threads of workers: no peer has a thread of its own.
struct ToWorkers<P: Platform>(Arc<ShardRegistry<P>>);

impl<P: Platform> DispatchDials for ToWorkers<P> {
    fn send_dial(&mut self, shard: ShardId, dial: Box<NewDial>) -> io::Result<()> {
        hand_dial(&self.0, shard, dial)
    }

    fn fork_dial(&mut self, _dial: Box<NewDial>) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a UDP peer has no thread of its own"))
    }
}

fn assemble<P: Platform, H: PacketHandler + 'static>(
    sys: &mut P::Sys,
    service: ServiceParts<'_, P, H, LengthPrefix>,
    sockets: Sockets<P>,
    intake: Intake,
    strategy: Option<Placing>,
) -> Result<Box<dyn Service<P::Sys>>, ServeError> {
    let ServiceParts { handler, shard, number, mailbox, registry, here, reporter, connector, .. } = service;
    // Where several threads have sockets at one address, a reply may come to any of them.
    let is_alone = registry.admission.standing() == 1;
    let from = sockets.iter().filter(|_| is_alone).map(|(_, addr)| addr.clone()).collect();
    let most = intake.peers_per_shard;
    let gate = Gate::new(registry.admission.clone(), here, most, intake.beyond, strategy, reporter);
    let service = DatagramPort::serve(
        sys,
        DatagramConfig {
            shard: Shard::new(handler, shard),
            number,
            sockets,
            gate,
            connector: Connector::new(Datagrams::from(from), connector),
            longest: intake.longest,
            most_waiting: registry.limits.outbox_hard,
            mailbox,
        },
    );
    Ok(service.map_err(ServeError::system("poll a socket"))?)
}

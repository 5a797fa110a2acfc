use std::sync::Arc;

use super::{Platform, ShardRegistry, launcher::AcceptorParts, platform::StreamOf};
use crate::{
    error::ServeError,
    events::Reporter,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    reactor::{
        Acceptor, AcceptorConfig, Connector, ConnectorConfig, Lifetime, Service, ServiceConfig, ServiceLoop,
        Streams,
    },
    shard::{Command, Shard, ShardConfig},
    sync::Mailbox,
};

/// Makes the service of a shard.
pub(super) type Assemble<P, H, F> = Box<
    dyn FnOnce(
            &mut <P as Platform>::Sys,
            ServiceParts<'_, P, H, F>,
        ) -> Result<Box<dyn Service<<P as Platform>::Sys>>, ServeError>
        + Send,
>;

/// What the services of a shard are made of, whatever brings their sessions.
pub(super) struct ServiceParts<'a, P: Platform, H, F> {
    pub(super) handler: H,
    pub(super) shard: ShardConfig<F>,
    /// Of the service, on its thread.
    pub(super) number: u8,
    pub(super) mailbox: Arc<Mailbox<Command<StreamOf<P>>>>,
    pub(super) lifetime: Lifetime,
    pub(super) registry: &'a ShardRegistry<P>,
    /// The thread, as the counts of connections know it.
    pub(super) here: ShardId,
    pub(super) reporter: Reporter,
    pub(super) connector: ConnectorConfig,
}

/// Makes a service whose sessions are connections: accepted here by `parts`, or handed over.
pub(super) fn serve_streams<P, H, F>(parts: Option<AcceptorParts<P::Sys>>) -> Assemble<P, H, F>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + 'static,
{
    Box::new(move |sys, service| {
        let ServiceParts { handler, shard, number, mailbox, lifetime, registry, here, reporter, connector } =
            service;
        let shard = Shard::new(handler, shard);
        let acceptor = parts.map(|parts| {
            let AcceptorParts { listeners, strategy, dispatch } = parts;
            let admission = registry.admission.clone();
            Acceptor::new(
                sys,
                AcceptorConfig { listeners, strategy, dispatch, admission, here, service: number, reporter },
            )
        });
        let acceptor = acceptor.transpose().map_err(ServeError::system("poll a listener"))?;
        let connector = Connector::new(Streams, connector);
        let read_budget = registry.limits.read_budget;
        Ok(ServiceLoop::new(ServiceConfig {
            shard,
            number,
            acceptor,
            connector,
            mailbox,
            lifetime,
            read_budget,
        }))
    })
}

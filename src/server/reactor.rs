use std::{fmt, sync::Arc};

use super::{
    Handlers, RunningServer, Server, ServerHandle,
    signals::OnSignal,
    start::{PendingService, Starting},
    transport::Transport,
};
use crate::{
    contained::Contained, error::ServeError, handler::PacketHandler, reactor::MAX_SERVICES,
    strategy::ForkingStrategy,
};

/// Several services on one set of threads, each with its own handler, framing, limits and addresses. One strategy
/// places the connections of all of them.
///
/// Each thread has one shard of every service and runs them in one event loop. Sessions of one thread reach each other
/// without a lock, whatever service they belong to ([`Session::send_to`](crate::Session::send_to),
/// [`Session::close_session`](crate::Session::close_session)): use this for an admin port, a proxy or a gateway.
/// [`Server::serve`] is the short form for a single service.
///
/// ```no_run
/// use framewire::{LengthPrefix, Reactor, Separator, Server, WorkerPool, packet_fn};
///
/// fn main() -> Result<(), framewire::ServeError> {
///     let users = Server::bind("0.0.0.0:7000")?.framing(LengthPrefix::u32_be());
///     let admin = Server::bind("127.0.0.1:7001")?.framing(Separator::lines());
///     let watched = users.handle();
///     Reactor::new(WorkerPool::per_core())
///         .service(users, packet_fn(|session, packet| Ok(session.send(packet)?)))
///         .service(admin, packet_fn(move |session, line| {
///             let answer = match line {
///                 b"count" => watched.session_count().to_string(),
///                 _ => "count: how many users are there".to_owned(),
///             };
///             Ok(session.send(answer)?)
///         }))
///         .run()
/// }
/// ```
///
/// **Numbers.** A service's shard on thread `t` (of `n`) has the number `t + n × service`, both counted from 0; a
/// strategy names the thread, as it does for a single server. **Limits** hold for each service; where
/// [`Limits::connections`](crate::Limits::connections) is left to the descriptor limit, the services share it equally.
/// **A service that fails** (its listener breaks, its handler cannot be made) stops all of them; one that is shut down
/// by its own [`Server::handle`] leaves the others running.
pub struct Reactor {
    strategy: Contained<Box<dyn ForkingStrategy>>,
    services: Vec<Box<dyn PendingService>>,
    pub(super) on_signal: OnSignal,
}

impl Reactor {
    /// Creates a reactor without services. `strategy` places the connections of all services.
    #[must_use]
    pub fn new(strategy: impl ForkingStrategy + 'static) -> Self {
        let strategy: Box<dyn ForkingStrategy> = Box::new(strategy);
        Self { strategy: Contained::new(strategy), services: Vec::new(), on_signal: OnSignal::default() }
    }

    /// Adds a service. A strategy that was given to `server` is ignored in favour of the reactor's.
    #[must_use]
    pub fn service<F, H>(mut self, server: Server<F>, handlers: impl Handlers<H>) -> Self
    where
        F: Transport,
        H: PacketHandler + 'static,
    {
        self.on_signal = self.on_signal.sooner(server.on_signal);
        let (service, _) = F::service(server, handlers.into_factory());
        self.services.push(service);
        self
    }

    /// Serves on this thread and on those that the strategy asks for, as [`Server::serve`] does, until every service
    /// was shut down.
    ///
    /// # Errors
    /// As [`Server::serve`]; [`ServeError::Config`] for a reactor without a service, or with more than 254.
    pub fn run(self) -> Result<(), ServeError> {
        self.starting()?.serve()
    }

    /// Like [`run`](Self::run), but on threads of its own: returns the running server. Keep it: dropping it stops it.
    /// Its handle is a handle to all services together.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn spawn(self) -> Result<RunningServer, ServeError> {
        self.starting()?.spawn()
    }

    fn starting(self) -> Result<Starting, ServeError> {
        let Self { strategy, services, on_signal } = self;
        if services.is_empty() || services.len() > MAX_SERVICES {
            let why = format!("{} services; 1 to {MAX_SERVICES} are possible", services.len());
            return Err(ServeError::config(("reactor", why)));
        }
        let addrs = services.iter().flat_map(|service| service.handle().local_addrs()).collect();
        Ok(Starting { services, strategy, on_signal, handle: ServerHandle::new(addrs, Arc::default()) })
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addrs: Vec<_> = self.services.iter().map(|service| service.handle().local_addrs()).collect();
        f.debug_struct("Reactor").field("services", &addrs).finish_non_exhaustive()
    }
}

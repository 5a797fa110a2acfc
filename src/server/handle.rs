use std::{
    any::{TypeId, type_name},
    error::Error,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    time::{Duration, Instant},
};

use crate::{
    addr::Addr,
    contained::Contained,
    error::{QueryError, Why},
    events::{Events, Hub},
    handler::PacketHandler,
    id::{SessionId, ShardId},
    metrics::Metrics,
    reactor::Stream,
    runtime::{PostOutcome, ShardRegistry, Stop, System},
    session::{SessionCommand, SessionInfo, ShardContext},
    shard::{Command, HandlerJob, Job},
};

/// How long a query waits for the shards to reply.
const PATIENCE: Duration = Duration::from_secs(5);

/// A handle to a server, usable from any thread and within callbacks. Clones are cheap, and none keeps the server
/// running. [`Server::handle`](crate::Server::handle) returns one before the start, to give to the handler or to a
/// thread that stops the server.
///
/// ```
/// use std::{net::TcpStream, sync::mpsc::channel, time::Duration};
/// use framewire::{Raw, Server, ShardId, packet_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::bind("127.0.0.1:0")?
///     .framing(Raw::new())
///     .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
/// let peer = TcpStream::connect(server.local_addr().ok_or("not TCP")?)?;
/// let me = peer.local_addr()?;
///
/// let handle = server.handle(); // for other threads
/// while !handle.sessions()?.iter().any(|session| session.peer.socket_addr() == Some(me)) {
///     std::thread::yield_now(); // not accepted yet
/// }
/// assert_eq!(handle.session_count(), 1);
///
/// let (answer, answers) = channel();
/// handle.execute(ShardId::ACCEPTOR, move |shard| {
///     let _ = answer.send(shard.sessions().len());
/// })?;
/// assert_eq!(answers.recv()?, 1);
///
/// handle.close_peer(me)?;
/// drop(peer); // while it stands, a graceful close waits for its end
/// server.stop(Duration::from_secs(5))?;
/// assert_eq!((handle.metrics().opened, handle.metrics().closed_total()), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

struct Shared {
    /// Complete when the server starts.
    addrs: Mutex<Vec<Addr>>,
    /// Set when the server starts.
    services: OnceLock<Vec<Attached>>,
    /// The soonest stop that was asked for.
    stop: Mutex<Option<Stop>>,
    /// Until the server starts; from then on its services have one each, and a single one has this.
    hub: Arc<Hub>,
}

/// A service that runs.
#[derive(Clone)]
pub(super) struct Attached {
    registry: Arc<ShardRegistry<System>>,
    /// The type of its handlers.
    handler: TypeId,
    handler_name: &'static str,
}

impl Attached {
    pub(super) fn of<H: 'static>(registry: Arc<ShardRegistry<System>>) -> Self {
        Self { registry, handler: TypeId::of::<H>(), handler_name: type_name::<H>() }
    }
}

impl ServerHandle {
    pub(super) fn new(addrs: Vec<Addr>, hub: Arc<Hub>) -> Self {
        Self {
            shared: Arc::new(Shared {
                addrs: Mutex::new(addrs),
                services: OnceLock::new(),
                stop: Mutex::new(None),
                hub,
            }),
        }
    }

    /// Called when the server has bound further addresses.
    pub(super) fn add_addrs(&self, addrs: impl Iterator<Item = Addr>) {
        self.addrs().extend(addrs);
    }

    fn addrs(&self) -> MutexGuard<'_, Vec<Addr>> {
        self.shared.addrs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called when the server starts.
    pub(super) fn attach(&self, services: Vec<Attached>) {
        let _held = self.stop_asked();
        let _ = self.shared.services.set(services);
    }

    pub(super) fn attached(&self) -> Vec<Attached> {
        self.shared.services.get().cloned().unwrap_or_default()
    }

    /// Called when all shards exist: a stop that was asked for earlier reaches them now.
    pub(super) fn started(&self) {
        if let Some(stop) = *self.stop_asked() {
            self.registries().for_each(|registry| registry.stop(stop));
        }
    }

    /// Shuts the server down gracefully: it stops accepting, hands out packets that were received earlier and wait
    /// behind a full outbox, calls `on_shutdown` for every session, closes the sessions gracefully unless `on_shutdown`
    /// returned [`Then::Stay`](crate::Then::Stay), and after `grace` cuts those that are left. It does not wait for the
    /// packets of a paused session. A shard whose handler blocks does all this once its callback has returned.
    ///
    /// Returns at once. [`RunningServer::wait`](crate::RunningServer::wait) waits for the end, and
    /// [`RunningServer::stop`](crate::RunningServer::stop) does so with a deadline. If called several times, the
    /// earliest deadline counts. A server that has not started yet stops as soon as it has.
    pub fn shutdown(&self, grace: Duration) {
        self.stop(Stop::Within(grace));
    }

    /// Stops the server at once and resets every connection.
    pub fn abort(&self) {
        self.stop(Stop::Now);
    }

    pub(super) fn stop(&self, stop: Stop) {
        let mut asked = self.stop_asked();
        *asked = Some(asked.map_or(stop, |before| before.sooner(stop)));
        self.registries().for_each(|registry| registry.stop(stop));
    }

    fn stop_asked(&self) -> MutexGuard<'_, Option<Stop>> {
        self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> &[Attached] {
        self.shared.services.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn registries(&self) -> impl Iterator<Item = &Arc<ShardRegistry<System>>> {
        self.services().iter().map(|service| &service.registry)
    }

    pub(super) fn registry_of(&self, shard: ShardId) -> Option<&ShardRegistry<System>> {
        self.service_of(shard).map(|service| &*service.registry)
    }

    /// Returns the service that this shard belongs to.
    fn service_of(&self, shard: ShardId) -> Option<&Attached> {
        self.services().iter().find(|service| service.registry.member(shard).is_some())
    }

    /// Returns the addresses that the server was bound to, in the order in which they were bound. For a
    /// [`Reactor`](crate::Reactor) these are the addresses of its services, one service after the other.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<Addr> {
        self.addrs().clone()
    }

    /// Returns the first TCP address of the server, for the common case of a single one.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addrs().iter().find_map(Addr::socket_addr)
    }

    /// Returns the number of sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.registries().map(|registry| registry.admission.total()).sum()
    }

    /// Returns all open sessions. The shards reply one by one, so the list is not a snapshot of a single moment.
    ///
    /// # Errors
    /// [`QueryError`]; within a callback always [`QueryError::WouldDeadlock`].
    #[expect(clippy::disallowed_methods, reason = "it waits on a thread that is not the server's")]
    pub fn sessions(&self) -> Result<Vec<SessionInfo>, QueryError> {
        if self.is_within_callback() {
            return Err(QueryError::WouldDeadlock);
        }
        let (sender, answers) = mpsc::channel();
        let all = self
            .registries()
            .flat_map(|registry| registry.shards().into_iter().map(move |shard| (registry, shard)));
        for (registry, shard) in all {
            let sender = sender.clone();
            let ask = Box::new(move |shard: &mut ShardContext<'_>| {
                let _ = sender.send(shard.sessions());
            });
            if registry.ask(shard, Command::Execute(Contained::new(Job::Plain(ask)))) == PostOutcome::Full {
                return Err(QueryError::Busy);
            }
        }
        drop(sender);
        // A shard that ends before it replies drops its sender, so the channel closes in either case.
        let deadline = Instant::now() + PATIENCE;
        let mut sessions = Vec::new();
        loop {
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(mut some) => sessions.append(&mut some),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(sessions),
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(QueryError::TimedOut(PATIENCE)),
            }
        }
    }

    /// Closes a session gracefully, without waiting. Does nothing if the session has ended.
    ///
    /// # Errors
    /// [`QueryError::NotRunning`] if its shard is gone, or belongs to another server, [`QueryError::Busy`] if its mailbox is full.
    pub fn close(&self, session: SessionId) -> Result<(), QueryError> {
        self.ask_session(session, SessionCommand::Close(None))
    }

    /// Like [`close`](Self::close), with a reason: a text or any error. The log and
    /// [`on_close`](crate::PacketHandler::on_close) get it, as [`CloseReason::Handler`](crate::CloseReason::Handler).
    ///
    /// ```
    /// use framewire::{QueryError, ServerHandle, SessionId};
    ///
    /// fn kick(server: &ServerHandle, user: SessionId) -> Result<(), QueryError> {
    ///     server.close_with(user, "kicked by a moderator")
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_with(
        &self,
        session: SessionId,
        why: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<(), QueryError> {
        self.ask_session(session, SessionCommand::Close(Some(why.into().into())))
    }

    fn ask_session(&self, session: SessionId, command: SessionCommand) -> Result<(), QueryError> {
        if !self.may_know(session) {
            return Err(QueryError::NotRunning);
        }
        self.ask(session.shard, Command::Session(session.key, Contained::new(command)))
    }

    /// Returns `true` if the session is, or was, one of this server, and not of another.
    pub(super) fn may_know(&self, session: SessionId) -> bool {
        self.registries().any(|registry| registry.numbers.are_of_server_of(session))
    }

    /// Closes the sessions of this peer (address and port) gracefully, without waiting.
    ///
    /// # Errors
    /// [`QueryError::Busy`] if the mailbox of a shard is full; the other shards were asked all the same.
    pub fn close_peer(&self, peer: SocketAddr) -> Result<(), QueryError> {
        self.ask_to_close(peer, None)
    }

    /// Like [`close_peer`](Self::close_peer), with a reason, as in [`close_with`](Self::close_with).
    ///
    /// # Errors
    /// As [`close_peer`](Self::close_peer).
    pub fn close_peer_with(
        &self,
        peer: SocketAddr,
        why: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<(), QueryError> {
        self.ask_to_close(peer, Some(why.into().into()))
    }

    fn ask_to_close(&self, peer: SocketAddr, why: Option<Why>) -> Result<(), QueryError> {
        let mut outcome = Ok(());
        for registry in self.registries() {
            if registry.ask_all(|| Command::ClosePeer(peer, Contained::new(why.clone()))) == PostOutcome::Full
            {
                outcome = Err(QueryError::Busy);
            }
        }
        outcome
    }

    /// Runs a closure on a shard's thread, without waiting for it. A panic in it is caught and counted.
    ///
    /// # Errors
    /// [`QueryError::NotRunning`] if there is no such shard (yet, or any more), [`QueryError::Busy`] if its mailbox is
    /// full.
    pub fn execute(
        &self,
        shard: ShardId,
        job: impl FnOnce(&mut ShardContext<'_>) + Send + 'static,
    ) -> Result<(), QueryError> {
        self.ask(shard, Command::Execute(Contained::new(Job::Plain(Box::new(job)))))
    }

    /// Runs a closure on a shard's thread, with the shard's handler and the states of its sessions, without waiting for
    /// it. A panic in it is caught and counted.
    ///
    /// ```
    /// use framewire::{Handled, PacketHandler, QueryError, ServerHandle, Session};
    ///
    /// /// Says a greeting that can be changed while the server runs.
    /// #[derive(Clone)]
    /// struct Greeter {
    ///     greeting: String,
    /// }
    ///
    /// impl PacketHandler for Greeter {
    ///     type State = u32; // how often it has greeted
    ///
    ///     fn on_open(&mut self, _: &mut Session<'_>) -> Handled<u32> {
    ///         Ok(0)
    ///     }
    ///
    ///     fn on_packet(&mut self, session: &mut Session<'_>, greeted: &mut u32, _: &[u8]) -> Handled {
    ///         *greeted += 1;
    ///         Ok(session.send(&self.greeting)?)
    ///     }
    /// }
    ///
    /// /// Changes the greeting everywhere, and tells those who know the old one.
    /// fn change(server: &ServerHandle, greeting: &str) -> Result<(), QueryError> {
    ///     for shard in server.shards() {
    ///         let greeting = greeting.to_owned();
    ///         server.execute_with(shard, move |greeter: &mut Greeter, shard| {
    ///             shard.each(|session, greeted| {
    ///                 if *greeted > 0 && session.send(&greeting).is_err() {
    ///                     session.close();
    ///                 }
    ///             });
    ///             greeter.greeting = greeting;
    ///         })?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`execute`](Self::execute); [`QueryError::OtherHandler`] if that shard's handler is of another type.
    pub fn execute_with<H: PacketHandler + 'static>(
        &self,
        shard: ShardId,
        job: impl FnOnce(&mut H, &mut ShardContext<'_, H::State>) + Send + 'static,
    ) -> Result<(), QueryError> {
        let service = self.service_of(shard).ok_or(QueryError::NotRunning)?;
        if service.handler != TypeId::of::<H>() {
            return Err(QueryError::OtherHandler { asked: type_name::<H>(), serves: service.handler_name });
        }
        let job: HandlerJob<H> = Box::new(job);
        self.ask(shard, Command::Execute(Contained::new(Job::WithHandler(Box::new(job)))))
    }

    fn ask(&self, shard: ShardId, command: Command<Stream>) -> Result<(), QueryError> {
        match self
            .service_of(shard)
            .map_or(PostOutcome::Closed, |service| service.registry.ask(shard, command))
        {
            PostOutcome::Posted => Ok(()),
            PostOutcome::Full => Err(QueryError::Busy),
            PostOutcome::Closed => Err(QueryError::NotRunning),
        }
    }

    /// Returns the shards that run now: the acceptor's, the workers', and one for each forked connection.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardId> {
        let mut shards: Vec<ShardId> = self.registries().flat_map(|registry| registry.shards()).collect();
        shards.sort_unstable();
        shards
    }

    /// Returns the server's counters. This is cheap: no shard is asked.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let mut sum = Metrics::default();
        self.registries().for_each(|registry| sum += &registry.metrics(registry.uptime()));
        sum
    }

    /// Subscribes to what happens from now on: refused connections, sessions that end and why, panics, pauses of accepting,
    /// and callbacks that take longer than 100 ms. `capacity` is how many events may wait, at least 1; beyond that the
    /// oldest goes. An event takes some 150 bytes, and the text of its reason.
    ///
    /// Nobody has to read them: the server waits for no subscriber. There may be several, and each gets every event.
    /// While there is one, a shard reads the clock after every packet (some 20 ns), to know how long each callback
    /// takes; without one, events cost nothing.
    ///
    /// ```
    /// use std::thread;
    /// use framewire::ServerHandle;
    ///
    /// fn log_events(server: &ServerHandle) {
    ///     let events = server.events(10_000);
    ///     thread::spawn(move || {
    ///         for event in events.iter() {
    ///             eprintln!("{event}");
    ///         }
    ///         eprintln!("the server has ended; {} events were not seen", events.dropped());
    ///     });
    /// }
    /// ```
    #[must_use = "dropping it ends the subscription"]
    pub fn events(&self, capacity: usize) -> Events {
        // A server that starts at this moment does so before or after this.
        let _held = self.stop_asked();
        let mut hubs: Vec<_> = self.registries().map(|registry| registry.hub().clone()).collect();
        if hubs.is_empty() {
            hubs.push(self.shared.hub.clone());
        }
        Events::new(capacity, hubs)
    }

    pub(super) fn close_timeout(&self) -> Duration {
        self.registries().map(|registry| registry.limits.close_timeout).max().unwrap_or_default()
    }

    pub(super) fn is_within_callback(&self) -> bool {
        self.registries().any(|registry| registry.is_on_a_shard())
    }

    /// Waits until the last shard has ended, and returns what is left of the time. If that takes longer than `within`,
    /// returns the shards that still run.
    pub(super) fn wait_for_threads(
        &self,
        within: Option<Duration>,
    ) -> Result<Option<Duration>, Vec<ShardId>> {
        ShardRegistry::wait_for_all(self.registries(), within)
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("addrs", &self.shared.addrs)
            .field("sessions", &self.session_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::{Raw, Server, ThreadPerConnection, packet_fn};

    #[test]
    fn a_server_that_has_forked_as_many_shards_as_there_are_numbers_goes_on_and_stops() {
        let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Raw::new());
        let server = server.strategy(ThreadPerConnection::max(10));
        let running =
            server.spawn(packet_fn(|session, packet| Ok(session.send(packet)?))).expect("it starts");
        running.registries().for_each(|registry| registry.begin_forks_at(u32::MAX));
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = TcpStream::connect(running.local_addr().expect("TCP")).expect("it listens");
            client.write_all(b"!").expect("it reads");
            client.read_exact(&mut [0]).expect("it echoes");
            clients.push(client);
        }
        assert_eq!(running.shards(), [0, 1, 2, 3, u32::MAX].map(ShardId));
        drop(clients);
        running.stop(Duration::from_secs(20)).expect("every shard was told");
    }
}

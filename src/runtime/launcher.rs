use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

use super::{
    Platform, ShardRegistry,
    assemble::{Assemble, ServiceParts, serve_streams},
    platform::StreamOf,
    registry::RegisteredShard,
    resolver::ShardNames,
};
use crate::{
    addr::Addr,
    contained::Contained,
    error::{CloseReason, ServeError, panic_message},
    events::Reporter,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    metrics::SharedCounters,
    reactor::{ConnectorConfig, Dispatch, EventLoop, Flow, Lifetime, Service, Sys},
    session::{CoreConfig, Deliver, Medium, ShardCore},
    shard::{Command, Framings, ShardConfig},
    strategy::ForkingStrategy,
    sync::{DeferredAnswers, Mailbox, MailboxLimits, Wake, give_answers},
};

/// Turns after which a thread is marked again as one that runs its shards: so many make that disappear beside them.
const TURNS: usize = 1024;

/// Makes the handler of a shard: the first half where the server is started, the second on the shard's own thread.
pub trait HandlerFactory<H>: Send {
    fn factory(&mut self, shard: ShardId) -> Box<dyn FnOnce() -> H + Send>;
}

/// A thread that is not started yet: its poll, and the shards that will live on it, one of each service.
pub(crate) struct ThreadLauncher<P: Platform> {
    platform: P,
    sys: P::Sys,
    shards: Vec<Box<dyn LaunchShard<P>>>,
}

/// A thread that runs its shards.
pub(crate) struct RunningThread<P: Platform> {
    /// Set until the last turn.
    event_loop: Option<EventLoop<P::Sys>>,
    /// Indexed by the numbers of the services; services that have ended leave a gap.
    registrations: Vec<Option<ShardRegistration<P>>>,
    answers: DeferredAnswers,
    /// The first failure counts.
    outcome: Result<(), ServeError>,
}

/// A [`ShardLauncher`], with the types of its handler and framing erased.
pub(crate) trait LaunchShard<P: Platform>: Send {
    fn id(&self) -> ShardId;

    /// Returns the shard's mailbox.
    fn mailbox(&self) -> Arc<dyn Deliver>;

    /// Makes the shard, on the thread that is to run it. A failure ends the server; its registry knows of it.
    fn begin(
        self: Box<Self>,
        sys: &mut P::Sys,
        number: u8,
        neighbours: Arc<[Neighbour]>,
    ) -> Result<Begun<P>, ServeError>;
}

/// The loop of a thread, and the shards that it runs.
type Made<P> = (EventLoop<<P as Platform>::Sys>, Vec<Option<ShardRegistration<P>>>);

/// A shard of another service on the same thread, and its mailbox.
type Neighbour = (ShardId, Arc<dyn Deliver>);

/// A shard that was made, and is listed for as long as it lives.
pub(crate) type Begun<P> = (Box<dyn Service<<P as Platform>::Sys>>, ShardRegistration<P>);

/// A shard that is listed, has a mailbox, and waits for its thread.
pub(super) struct ShardLauncher<P: Platform, H, F> {
    member: RegisteredShard<P>,
    framings: Framings<F>,
    make: Contained<Box<dyn FnOnce() -> H + Send>>,
    medium: Medium,
    assemble: Assemble<P, H, F>,
    first: FirstCommand<StreamOf<P>>,
    registration: ShardRegistration<P>,
}

/// What a shard is forked for: to adopt a connection, or to make one. The forking thread can take it back until the new
/// thread has taken it.
pub(super) type FirstCommand<T> = Arc<Mutex<Option<Command<T>>>>;

/// What a shard needs in order to accept connections.
pub(crate) struct AcceptorParts<Y: Sys> {
    pub(crate) listeners: Vec<(Y::Listener, Addr)>,
    pub(crate) strategy: Contained<Box<dyn ForkingStrategy>>,
    pub(crate) dispatch: Box<dyn Dispatch<Y::Stream>>,
}

/// A shard is listed until its registration is dropped.
pub(crate) struct ShardRegistration<P: Platform> {
    registry: Arc<ShardRegistry<P>>,
    id: ShardId,
    lifetime: Lifetime,
}

impl<P: Platform> ThreadLauncher<P> {
    pub(super) fn new(platform: P, sys: P::Sys, shards: Vec<Box<dyn LaunchShard<P>>>) -> Self {
        Self { platform, sys, shards }
    }

    /// Runs the shards on a thread of their own.
    pub(crate) fn spawn(self) -> io::Result<P::Thread> {
        let shard = self.shards.first().map(|shard| shard.id());
        let name = shard.map_or_else(|| "framewire".to_owned(), |shard| format!("framewire-{shard}"));
        self.platform.clone().spawn(name, self)
    }

    /// Runs the shards on this thread, until the last has ended.
    pub(crate) fn run(self) -> Result<(), ServeError> {
        let mut thread = self.begin()?;
        loop {
            if let Some(ended) = thread.run_turns(TURNS) {
                return ended;
            }
        }
    }

    /// Makes the shards, on the thread that is to run them. If one cannot be made, the others end as well.
    pub(crate) fn begin(self) -> Result<RunningThread<P>, ServeError> {
        let mut answers = DeferredAnswers::default();
        let (event_loop, registrations) = answers.during(|| self.make())?;
        Ok(RunningThread { event_loop: Some(event_loop), registrations, answers, outcome: Ok(()) })
    }

    fn make(self) -> Result<Made<P>, ServeError> {
        let Self { mut sys, shards, .. } = self;
        let ways: Vec<Neighbour> = shards.iter().map(|shard| (shard.id(), shard.mailbox())).collect();
        let (mut services, mut registrations) = (Vec::new(), Vec::new());
        for (number, shard) in shards.into_iter().enumerate() {
            let own = shard.id();
            let neighbours = ways.iter().filter(|(other, _)| *other != own).cloned().collect();
            match shard.begin(&mut sys, number as u8, neighbours) {
                Ok((service, registration)) => {
                    services.push(service);
                    registrations.push(Some(registration));
                }
                Err(error) => {
                    services.into_iter().for_each(|service| drop(service.finish(&mut sys)));
                    return Err(error);
                }
            }
        }
        Ok((EventLoop::new(sys, services), registrations))
    }
}

impl<P: Platform> RunningThread<P> {
    /// Runs one turn. Returns how the thread ended if it was the last.
    #[cfg(test)]
    pub(crate) fn turn(&mut self) -> Option<Result<(), ServeError>> {
        self.run_turns(1)
    }

    /// Runs that many turns, or fewer if the last is among them: then it returns how the thread ended.
    fn run_turns(&mut self, turns: usize) -> Option<Result<(), ServeError>> {
        let Self { event_loop, registrations, answers, outcome } = self;
        let running = event_loop.as_mut()?;
        let mut note_end = |number, ended| {
            let registration: Option<ShardRegistration<P>> =
                registrations.get_mut(number).and_then(Option::take);
            if let (Some(registration), Err(error)) = (registration, ended) {
                let error = registration.fail(ServeError::system("poll")(error));
                *outcome = std::mem::replace(outcome, Ok(())).and(Err(error));
            }
        };
        let turned = answers.during(|| {
            catch_unwind(AssertUnwindSafe(|| {
                for left in (0..turns).rev() {
                    if running.turn(&mut note_end) == Flow::Stop {
                        return Flow::Stop;
                    }
                    // Those of the last one are given below.
                    if left > 0 {
                        give_answers();
                    }
                }
                Flow::Continue
            }))
        });
        match turned {
            Ok(Flow::Continue) => return None,
            Ok(Flow::Stop) => {}
            Err(panic) => {
                let defect = note_defect(panic);
                *outcome = Err(defect);
                // All shards are told, and each ends with its thread.
                for registration in registrations.iter_mut().filter_map(Option::take) {
                    registration.fail(ServeError::Defect);
                }
            }
        }
        *event_loop = None;
        Some(std::mem::replace(outcome, Ok(())))
    }

    #[cfg(test)]
    pub(crate) fn ids(&self) -> Vec<ShardId> {
        self.registrations.iter().flatten().map(|registration| registration.id).collect()
    }

    #[cfg(test)]
    pub(crate) fn has_answers_left(&self) -> bool {
        !self.answers.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn sys(&self) -> Option<&P::Sys> {
        self.event_loop.as_ref().map(EventLoop::sys)
    }
}

impl<P, H, F> ShardLauncher<P, H, F>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    /// For a standing shard.
    pub(super) fn standing(
        registry: &Arc<ShardRegistry<P>>,
        waker: Arc<dyn Wake>,
        id: ShardId,
        medium: Medium,
        framings: Framings<F>,
        factory: &mut dyn HandlerFactory<H>,
        assemble: Assemble<P, H, F>,
    ) -> Self {
        let make = Contained::new(factory.factory(id));
        let launcher = Self::new(registry, waker, id, Lifetime::Server, framings, make, assemble);
        Self { medium, ..launcher }
    }

    /// For a shard of the connection that `first` is about.
    pub(super) fn forked(
        registry: &Arc<ShardRegistry<P>>,
        waker: Arc<dyn Wake>,
        framings: Framings<F>,
        factory: &mut dyn HandlerFactory<H>,
        first: FirstCommand<StreamOf<P>>,
    ) -> io::Result<Self> {
        let id = registry.next_fork();
        let make = Contained::new(factory.factory(id));
        let launcher =
            Self::new(registry, waker, id, Lifetime::Connection, framings, make, serve_streams(None));
        // Checked only now: a stop that began before this shard was listed is seen here; one that begins later reaches
        // it.
        if registry.is_stopping() {
            take(&first);
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(Self { first, ..launcher })
    }

    fn new(
        registry: &Arc<ShardRegistry<P>>,
        waker: Arc<dyn Wake>,
        id: ShardId,
        lifetime: Lifetime,
        framings: Framings<F>,
        make: Contained<Box<dyn FnOnce() -> H + Send>>,
        assemble: Assemble<P, H, F>,
    ) -> Self {
        let limits = MailboxLimits {
            commands: registry.limits.mailbox_commands,
            bytes: registry.limits.mailbox_bytes,
        };
        let member = RegisteredShard {
            mailbox: Arc::new(Mailbox::new(limits, waker)),
            counters: Arc::new(SharedCounters::new(registry.crowd.clone())),
            thread: Arc::new(OnceLock::new()),
        };
        let registration = ShardRegistration::begin(registry, id, lifetime, &member);
        let (medium, first) = (Medium::Streams, FirstCommand::default());
        Self { member, framings, make, medium, assemble, first, registration }
    }
}

impl<P, H, F> LaunchShard<P> for ShardLauncher<P, H, F>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    fn id(&self) -> ShardId {
        self.registration.id
    }

    fn mailbox(&self) -> Arc<dyn Deliver> {
        self.registration.registry.sender_to(self.registration.id, &self.member)
    }

    fn begin(
        self: Box<Self>,
        sys: &mut P::Sys,
        number: u8,
        neighbours: Arc<[Neighbour]>,
    ) -> Result<Begun<P>, ServeError> {
        let Self { member, framings, make, medium, assemble, first, registration } = *self;
        let _ = member.thread.set(thread::current().id());
        if let Some(first) = take(&first) {
            // If this thread gets no further, the connection is dropped with the mailbox.
            let _ = member.mailbox.post_control(first);
        }
        let made = catch_unwind(AssertUnwindSafe(|| {
            let reporter = registration.reporter(&member);
            let handler = make_handler(make)?;
            let core = registration.core(sys, &member, medium, reporter.clone(), neighbours);
            let service = registration.service(handler, &member, framings, core, reporter, number);
            start(sys, assemble, service)
        }));
        match made.unwrap_or_else(|panic| Err(note_defect(panic))) {
            Ok(service) => Ok((service, registration)),
            Err(error) => Err(registration.fail(error)),
        }
    }
}

/// The user's code runs, and the user's values are dropped, where panics are caught: a panic that gets here is ours.
fn note_defect(panic: Box<dyn Any + Send>) -> ServeError {
    tracing::error!(panic = panic_message(panic), "outside of any callback");
    ServeError::Defect
}

fn message_of(panic: CloseReason) -> String {
    match panic {
        CloseReason::Panicked { message, .. } => message,
        other => other.to_string(),
    }
}

/// Takes what is still there.
pub(super) fn take<T>(first: &FirstCommand<T>) -> Option<Command<T>> {
    first.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn make_handler<H>(make: Contained<Box<dyn FnOnce() -> H + Send>>) -> Result<H, ServeError> {
    let made = catch_unwind(AssertUnwindSafe(make.into_inner()));
    made.map_err(|panic| ServeError::Factory { message: panic_message(panic) })
}

/// Makes a service, and starts its handler.
fn start<P: Platform, H, F>(
    sys: &mut P::Sys,
    assemble: Assemble<P, H, F>,
    service: ServiceParts<'_, P, H, F>,
) -> Result<Box<dyn Service<P::Sys>>, ServeError> {
    let mut service = assemble(sys, service)?;
    match service.start() {
        Ok(()) => Ok(service),
        Err(panic) => {
            service.finish(sys);
            Err(ServeError::OnStart { message: message_of(panic) })
        }
    }
}

fn connector_config<P: Platform>(
    registration: &ShardRegistration<P>,
    member: &RegisteredShard<P>,
    service: u8,
) -> ConnectorConfig {
    let registry = &registration.registry;
    let here = registry.numbers.thread_of(registration.id);
    let names = ShardNames { registry: registry.clone(), mailbox: member.mailbox.clone() };
    ConnectorConfig {
        service,
        options: registry.options.clone(),
        admission: registry.admission.clone(),
        here: (registration.lifetime == Lifetime::Server).then_some(here),
        resolver: Box::new(names),
    }
}

impl<P: Platform> ShardRegistration<P> {
    fn begin(
        registry: &Arc<ShardRegistry<P>>,
        id: ShardId,
        lifetime: Lifetime,
        member: &RegisteredShard<P>,
    ) -> Self {
        registry.thread_started();
        registry.enlist(id, member.clone());
        Self { registry: registry.clone(), id, lifetime }
    }

    fn reporter(&self, member: &RegisteredShard<P>) -> Reporter {
        let reporter = self.registry.reporter(self.id, self.lifetime);
        if self.lifetime == Lifetime::Server {
            let mailbox = self.registry.sender_to(self.id, member);
            reporter.gate.set_reminder(move || mailbox.sum_up_log());
        }
        reporter
    }

    fn core(
        &self,
        sys: &P::Sys,
        member: &RegisteredShard<P>,
        medium: Medium,
        reporter: Reporter,
        neighbours: Arc<[Neighbour]>,
    ) -> Box<ShardCore> {
        let registry = &self.registry;
        ShardCore::new(CoreConfig {
            server: registry.numbers.server(),
            shard: self.id,
            medium,
            limits: &registry.limits,
            clock: sys.clock(),
            origin: registry.numbers.origin(),
            reporter,
            mailbox: registry.sender_to(self.id, member),
            shards: registry.clone(),
            neighbours,
        })
    }

    fn service<H, F>(
        &self,
        handler: H,
        member: &RegisteredShard<P>,
        framings: Framings<F>,
        core: Box<ShardCore>,
        reporter: Reporter,
        number: u8,
    ) -> ServiceParts<'_, P, H, F> {
        let registry = &*self.registry;
        let shard = ShardConfig {
            framings,
            layers: registry.layers.clone(),
            core,
            published: member.counters.clone(),
            first_generation: registry.first_generation(),
            is_standing: self.lifetime == Lifetime::Server,
        };
        let (mailbox, lifetime) = (member.mailbox.clone(), self.lifetime);
        let here = registry.numbers.thread_of(self.id);
        let connector = connector_config(self, member, number);
        ServiceParts { handler, shard, number, mailbox, lifetime, registry, here, reporter, connector }
    }

    /// Called when the shard could not go on. A server needs all of its standing shards; the end of a forked one
    /// concerns no other.
    fn fail(&self, error: ServeError) -> ServeError {
        tracing::error!(shard = %self.id, %error, "a shard failed");
        if self.lifetime == Lifetime::Server {
            self.registry.fail();
        }
        error
    }
}

impl<P: Platform> Drop for ShardRegistration<P> {
    fn drop(&mut self) {
        self.registry.retire(self.id);
        self.registry.thread_ended();
    }
}

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

use super::{Platform, ShardRegistry, platform::StreamOf, registry::RegisteredShard};
use crate::{
    addr::Addr,
    contained::Contained,
    error::{ServeError, panic_message},
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    metrics::SharedCounters,
    reactor::{Acceptor, AcceptorConfig, Dispatch, EventLoop, EventLoopConfig, Flow, Lifetime, Sys},
    shard::{Command, CommandSender, Incoming, Shard, ShardConfig},
    strategy::ForkingStrategy,
    sync::{Mailbox, MailboxLimits},
};

/// Makes the handler of a shard: the first half where the server is started, the second on the shard's own thread.
pub trait HandlerFactory<H>: Send {
    fn factory(&mut self, shard: ShardId) -> Box<dyn FnOnce() -> H + Send>;
}

/// A shard that is listed, can be written to, and waits for its thread.
pub(crate) struct ShardLauncher<P: Platform, H, F> {
    platform: P,
    sys: P::Sys,
    member: RegisteredShard<P>,
    framing: Contained<F>,
    make: Contained<Box<dyn FnOnce() -> H + Send>>,
    parts: Option<AcceptorParts<P::Sys>>,
    first: FirstConnection<StreamOf<P>>,
    registration: ShardRegistration<P>,
}

/// A shard on the thread that runs it.
pub(crate) struct RunningShard<P: Platform, H: PacketHandler, F> {
    /// Until its last turn.
    event_loop: Option<EventLoop<P::Sys, H, F>>,
    registration: ShardRegistration<P>,
}

/// The connection that a shard is forked for. The thread that forks it keeps a hold of it until the new one has it.
pub(super) type FirstConnection<T> = Arc<Mutex<Option<Incoming<T>>>>;

/// What makes a shard an accepting one.
pub(crate) struct AcceptorParts<Y: Sys> {
    pub(crate) listeners: Vec<(Y::Listener, Addr)>,
    pub(crate) strategy: Contained<Box<dyn ForkingStrategy>>,
    pub(crate) dispatch: Box<dyn Dispatch<Y::Stream>>,
}

/// A shard is listed from here until this is dropped.
struct ShardRegistration<P: Platform> {
    registry: Arc<ShardRegistry<P>>,
    id: ShardId,
    lifetime: Lifetime,
}

impl<P, H, F> ShardLauncher<P, H, F>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    /// For a standing shard.
    pub(super) fn standing(
        platform: P,
        registry: &Arc<ShardRegistry<P>>,
        id: ShardId,
        framing: Contained<F>,
        factory: &mut dyn HandlerFactory<H>,
        parts: Option<AcceptorParts<P::Sys>>,
    ) -> Result<Self, ServeError> {
        let make = Contained::new(factory.factory(id));
        let launcher = Self::new(platform, registry, id, Lifetime::Server, framing, make)
            .map_err(ServeError::system("make a poll"))?;
        Ok(Self { parts, ..launcher })
    }

    /// For a shard of the connection that `first` holds.
    pub(super) fn forked(
        platform: P,
        registry: &Arc<ShardRegistry<P>>,
        framing: Contained<F>,
        factory: &mut dyn HandlerFactory<H>,
        first: FirstConnection<StreamOf<P>>,
    ) -> io::Result<Self> {
        let id = registry.next_fork();
        let make = Contained::new(factory.factory(id));
        let launcher = Self::new(platform, registry, id, Lifetime::Connection, framing, make)?;
        // Looked at only now: a stop that began before this shard was listed is seen here, one that begins later sees it.
        if registry.is_stopping() {
            take(&first);
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(Self { first, ..launcher })
    }

    fn new(
        platform: P,
        registry: &Arc<ShardRegistry<P>>,
        id: ShardId,
        lifetime: Lifetime,
        framing: Contained<F>,
        make: Contained<Box<dyn FnOnce() -> H + Send>>,
    ) -> io::Result<Self> {
        let (sys, waker) = platform.sys(registry.origin)?;
        let limits = MailboxLimits {
            commands: registry.limits.mailbox_commands,
            bytes: registry.limits.mailbox_bytes,
        };
        let member = RegisteredShard {
            mailbox: Arc::new(Mailbox::new(limits, waker)),
            counters: Arc::<SharedCounters>::default(),
            thread: Arc::new(OnceLock::new()),
        };
        let registration = ShardRegistration::begin(registry, id, lifetime, &member);
        let first = FirstConnection::default();
        Ok(Self { platform, sys, member, framing, make, parts: None, first, registration })
    }

    /// Runs the shard on a thread of its own.
    pub(crate) fn spawn(self) -> io::Result<P::Thread> {
        let (platform, name) = (self.platform.clone(), format!("framewire-{}", self.registration.id));
        platform.spawn(name, self)
    }

    /// Runs the shard on this thread, until it ends.
    pub(crate) fn run(self) -> Result<(), ServeError> {
        self.begin()?.run()
    }

    /// Makes the shard, on the thread that is to run it.
    pub(crate) fn begin(self) -> Result<RunningShard<P, H, F>, ServeError> {
        let Self { sys, member, framing, make, parts, first, registration, .. } = self;
        let _ = member.thread.set(thread::current().id());
        if let Some(first) = take(&first) {
            // Should this thread get no further, it is let go with the mailbox.
            let _ = member.mailbox.post_control(Command::Adopt(first));
        }
        let made = contain(registration.id, || event_loop(&registration, sys, &member, framing, make, parts));
        match made {
            Ok(event_loop) => Ok(RunningShard { event_loop: Some(event_loop), registration }),
            Err(error) => Err(registration.fail(error)),
        }
    }
}

impl<P, H, F> RunningShard<P, H, F>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone,
{
    /// One turn; how the shard ended if it was the last.
    pub(crate) fn turn(&mut self) -> Option<Result<(), ServeError>> {
        let ended = match self.event_loop.as_mut()?.turn() {
            Ok(Flow::Continue) => return None,
            Ok(Flow::Stop) => Ok(()),
            Err(error) => Err(ServeError::system("poll")(error)),
        };
        if let Some(event_loop) = self.event_loop.take() {
            event_loop.finish();
        }
        Some(ended.map_err(|error| self.registration.fail(error)))
    }

    fn run(mut self) -> Result<(), ServeError> {
        let id = self.registration.id;
        let turns = || loop {
            if let Some(ended) = self.turn() {
                break Ok(ended);
            }
        };
        contain(id, turns).unwrap_or_else(|defect| Err(self.registration.fail(defect)))
    }

    #[cfg(test)]
    pub(crate) fn id(&self) -> ShardId {
        self.registration.id
    }

    #[cfg(test)]
    pub(crate) fn sys(&self) -> Option<&P::Sys> {
        self.event_loop.as_ref().map(EventLoop::sys)
    }
}

/// The user's code is called, and its values are dropped, where their panics are caught: a panic that gets here is ours.
fn contain<R>(shard: ShardId, body: impl FnOnce() -> Result<R, ServeError>) -> Result<R, ServeError> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        tracing::error!(%shard, panic = panic_message(panic), "outside of any callback");
        Err(ServeError::Defect)
    })
}

/// What is still there to be taken.
pub(super) fn take<T>(first: &FirstConnection<T>) -> Option<Incoming<T>> {
    first.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn event_loop<P: Platform, H: PacketHandler + 'static, F: Framing + Clone>(
    registration: &ShardRegistration<P>,
    mut sys: P::Sys,
    member: &RegisteredShard<P>,
    framing: Contained<F>,
    make: Contained<Box<dyn FnOnce() -> H + Send>>,
    parts: Option<AcceptorParts<P::Sys>>,
) -> Result<EventLoop<P::Sys, H, F>, ServeError> {
    let registry = &registration.registry;
    let acceptor = parts.map(|parts| {
        let AcceptorParts { listeners, strategy, dispatch } = parts;
        let (admission, here) = (registry.admission.clone(), registration.id);
        Acceptor::new(&mut sys, AcceptorConfig { listeners, strategy, dispatch, admission, here })
    });
    let acceptor = acceptor.transpose().map_err(ServeError::system("poll a listener"))?;
    let made = catch_unwind(AssertUnwindSafe(make.into_inner()));
    let handler = made.map_err(|panic| ServeError::Factory { message: panic_message(panic) })?;
    let config = ShardConfig {
        id: registration.id,
        framing,
        limits: registry.limits.clone(),
        clock: sys.clock(),
        origin: registry.origin,
        mailbox: Arc::new(CommandSender(member.mailbox.clone())),
        shards: registry.clone(),
        published: member.counters.clone(),
        first_generation: registry.first_generation(),
    };
    let mut event_loop = EventLoop::new(EventLoopConfig {
        sys,
        shard: Shard::new(handler, config),
        acceptor,
        mailbox: member.mailbox.clone(),
        lifetime: registration.lifetime,
        read_budget: registry.limits.read_budget,
    });
    match event_loop.start() {
        Ok(()) => Ok(event_loop),
        Err(panic) => {
            event_loop.finish();
            Err(ServeError::Factory { message: panic.to_string() })
        }
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

    /// The shard could not go on. A server without one of its standing shards is no server; the end of one that was forked
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

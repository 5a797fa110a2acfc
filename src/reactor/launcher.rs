use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::{self, JoinHandle},
};

use super::{
    Acceptor, AcceptorConfig, Dispatch, EventLoop, EventLoopConfig, Lifetime, MioSys, ShardRegistry, Stream,
    Sys, registry::RegisteredShard, socket::Listener,
};
use crate::{
    addr::Addr,
    contained::Contained,
    error::{ServeError, panic_message},
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    metrics::SharedCounters,
    shard::{Command, CommandSender, Incoming, Shard, ShardConfig},
    strategy::ForkingStrategy,
    sync::{Mailbox, MailboxLimits},
};

/// Makes the handler of a shard: the first half where the server is started, the second on the shard's own thread.
pub trait HandlerFactory<H>: Send {
    fn factory(&mut self, shard: ShardId) -> Box<dyn FnOnce() -> H + Send>;
}

/// A thread of a shard.
pub(crate) type ShardThread = JoinHandle<Result<(), ServeError>>;

/// A shard that is listed, can be written to, and waits for its thread.
pub(crate) struct ShardLauncher<H, F> {
    sys: MioSys,
    member: RegisteredShard,
    framing: Contained<F>,
    make: Contained<Box<dyn FnOnce() -> H + Send>>,
    parts: Option<AcceptorParts>,
    first: FirstConnection,
    registration: ShardRegistration,
}

/// The connection that a shard is forked for. Whoever forks it keeps a hold of it until the thread has it.
pub(super) type FirstConnection = Arc<Mutex<Option<Incoming<Stream>>>>;

/// What makes a shard an accepting one.
pub(crate) struct AcceptorParts {
    pub(crate) listeners: Vec<(Listener, Addr)>,
    pub(crate) strategy: Contained<Box<dyn ForkingStrategy>>,
    pub(crate) dispatch: Box<dyn Dispatch<Stream>>,
}

/// A shard is listed from here until this is dropped.
struct ShardRegistration {
    registry: Arc<ShardRegistry>,
    id: ShardId,
    lifetime: Lifetime,
}

impl<H, F> ShardLauncher<H, F>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    /// For a standing shard.
    pub(crate) fn standing(
        registry: &Arc<ShardRegistry>,
        id: ShardId,
        framing: Contained<F>,
        factory: &mut dyn HandlerFactory<H>,
        parts: Option<AcceptorParts>,
    ) -> Result<Self, ServeError> {
        let make = Contained::new(factory.factory(id));
        let launcher = Self::new(registry, id, Lifetime::Server, framing, make)
            .map_err(ServeError::system("make a poll"))?;
        Ok(Self { parts, ..launcher })
    }

    /// For a shard of the connection that `first` holds.
    pub(super) fn forked(
        registry: &Arc<ShardRegistry>,
        framing: Contained<F>,
        factory: &mut dyn HandlerFactory<H>,
        first: FirstConnection,
    ) -> io::Result<Self> {
        let id = registry.next_fork();
        let make = Contained::new(factory.factory(id));
        let launcher = Self::new(registry, id, Lifetime::Connection, framing, make)?;
        // Looked at only now: whoever began to stop before this shard was listed is seen here, whoever did after sees it.
        if registry.is_stopping() {
            take(&first);
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(Self { first, ..launcher })
    }

    fn new(
        registry: &Arc<ShardRegistry>,
        id: ShardId,
        lifetime: Lifetime,
        framing: Contained<F>,
        make: Contained<Box<dyn FnOnce() -> H + Send>>,
    ) -> io::Result<Self> {
        let (sys, waker) = MioSys::new(registry.origin)?;
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
        Ok(Self { sys, member, framing, make, parts: None, first: FirstConnection::default(), registration })
    }

    /// Is the shard, on a thread of its own.
    pub(crate) fn spawn(self) -> io::Result<ShardThread> {
        let name = format!("framewire-{}", self.registration.id);
        thread::Builder::new().name(name).spawn(move || self.work())
    }

    /// Is the shard, on this thread, until it ends.
    pub(crate) fn work(self) -> Result<(), ServeError> {
        let Self { sys, member, framing, make, parts, first, registration } = self;
        let _ = member.thread.set(thread::current().id());
        if let Some(first) = take(&first) {
            // Should this thread get no further, it is let go with the mailbox.
            let _ = member.mailbox.post_control(Command::Adopt(first));
        }
        let lived =
            catch_unwind(AssertUnwindSafe(|| live(&registration, sys, &member, framing, make, parts)));
        let done = lived.unwrap_or_else(|panic| {
            // The user's code is called, and its values are dropped, where their panics are caught.
            tracing::error!(shard = %registration.id, panic = panic_message(panic), "outside of any callback");
            Err(ServeError::Defect)
        });
        if let Err(error) = &done {
            registration.fail(error);
        }
        done
    }
}

/// What is still there to be taken.
pub(super) fn take(first: &FirstConnection) -> Option<Incoming<Stream>> {
    first.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn live<H: PacketHandler, F: Framing + Clone>(
    registration: &ShardRegistration,
    mut sys: MioSys,
    member: &RegisteredShard,
    framing: Contained<F>,
    make: Contained<Box<dyn FnOnce() -> H + Send>>,
    parts: Option<AcceptorParts>,
) -> Result<(), ServeError> {
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
        published: member.counters.clone(),
        first_generation: 0,
    };
    let event_loop = EventLoop::new(EventLoopConfig {
        sys,
        shard: Shard::new(handler, config),
        acceptor,
        mailbox: member.mailbox.clone(),
        lifetime: registration.lifetime,
        read_budget: registry.limits.read_budget,
    });
    event_loop.run().map_err(ServeError::system("poll"))
}

impl ShardRegistration {
    fn begin(
        registry: &Arc<ShardRegistry>,
        id: ShardId,
        lifetime: Lifetime,
        member: &RegisteredShard,
    ) -> Self {
        registry.thread_started();
        registry.enlist(id, member.clone());
        Self { registry: registry.clone(), id, lifetime }
    }

    /// The shard could not go on. A server without one of its standing shards is no server; one that was forked takes
    /// nobody along.
    fn fail(&self, error: &ServeError) {
        tracing::error!(shard = %self.id, %error, "a shard failed");
        if self.lifetime == Lifetime::Server {
            self.registry.fail();
        }
    }
}

impl Drop for ShardRegistration {
    fn drop(&mut self) {
        self.registry.retire(self.id);
        self.registry.thread_ended();
    }
}

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::{self, JoinHandle},
};

use super::{
    Acceptor, AcceptorConfig, Crew, Dispatch, EventLoop, EventLoopConfig, Lifetime, MioSys, Stream, Sys,
    crew::Member, socket::Listener,
};
use crate::{
    addr::PeerAddr,
    contained::Contained,
    error::{ServeError, panic_message},
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    mailbox::{Mailbox, MailboxLimits},
    metrics::SharedCounters,
    shard::{Arrival, Command, Inlet, Shard, ShardConfig},
    strategy::ForkingStrategy,
};

/// Makes the handler of a shard: the first half where the server is started, the second on the shard's own thread.
pub trait Seed<H>: Send {
    fn seed(&mut self, shard: ShardId) -> Box<dyn FnOnce() -> H + Send>;
}

/// A thread of a shard.
pub(crate) type ShardThread = JoinHandle<Result<(), ServeError>>;

/// A shard that is listed, can be written to, and waits for its thread.
pub(crate) struct Berth<H, F> {
    sys: MioSys,
    member: Member,
    framing: Contained<F>,
    make: Contained<Box<dyn FnOnce() -> H + Send>>,
    ears: Option<Ears>,
    first: First,
    shift: Shift,
}

/// The connection that a shard is forked for. Whoever forks it keeps a hold of it until the thread has it.
pub(super) type First = Arc<Mutex<Option<Arrival<Stream>>>>;

/// What makes a shard an accepting one.
pub(crate) struct Ears {
    pub(crate) listeners: Vec<(Listener, PeerAddr)>,
    pub(crate) strategy: Contained<Box<dyn ForkingStrategy>>,
    pub(crate) dispatch: Box<dyn Dispatch<Stream>>,
}

/// A shard is listed from here until this is dropped.
struct Shift {
    crew: Arc<Crew>,
    id: ShardId,
    lifetime: Lifetime,
}

impl<H, F> Berth<H, F>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    /// For a standing shard.
    pub(crate) fn standing(
        crew: &Arc<Crew>,
        id: ShardId,
        framing: Contained<F>,
        seed: &mut dyn Seed<H>,
        ears: Option<Ears>,
    ) -> Result<Self, ServeError> {
        let make = Contained::new(seed.seed(id));
        let berth = Self::new(crew, id, Lifetime::Server, framing, make)
            .map_err(ServeError::system("make a poll"))?;
        Ok(Self { ears, ..berth })
    }

    /// For a shard of the connection that `first` holds.
    pub(super) fn forked(
        crew: &Arc<Crew>,
        framing: Contained<F>,
        seed: &mut dyn Seed<H>,
        first: First,
    ) -> io::Result<Self> {
        let id = crew.next_fork();
        let make = Contained::new(seed.seed(id));
        let berth = Self::new(crew, id, Lifetime::Connection, framing, make)?;
        // Looked at only now: whoever began to stop before this shard was listed is seen here, whoever did after sees it.
        if crew.is_stopping() {
            take(&first);
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(Self { first, ..berth })
    }

    fn new(
        crew: &Arc<Crew>,
        id: ShardId,
        lifetime: Lifetime,
        framing: Contained<F>,
        make: Contained<Box<dyn FnOnce() -> H + Send>>,
    ) -> io::Result<Self> {
        let (sys, ring) = MioSys::new(crew.origin)?;
        let limits =
            MailboxLimits { commands: crew.limits.mailbox_commands, bytes: crew.limits.mailbox_bytes };
        let member = Member {
            mailbox: Arc::new(Mailbox::new(limits, ring)),
            counters: Arc::<SharedCounters>::default(),
            thread: Arc::new(OnceLock::new()),
            seat: (lifetime == Lifetime::Server).then_some(id.index()),
        };
        let shift = Shift::begin(crew, id, lifetime, &member);
        Ok(Self { sys, member, framing, make, ears: None, first: First::default(), shift })
    }

    /// Is the shard, on a thread of its own.
    pub(crate) fn spawn(self) -> io::Result<ShardThread> {
        let name = format!("framewire-{}", self.shift.id);
        thread::Builder::new().name(name).spawn(move || self.work())
    }

    /// Is the shard, on this thread, until it ends.
    pub(crate) fn work(self) -> Result<(), ServeError> {
        let Self { sys, member, framing, make, ears, first, shift } = self;
        let _ = member.thread.set(thread::current().id());
        if let Some(first) = take(&first) {
            // Should this thread get no further, it is let go with the mailbox.
            let _ = member.mailbox.post_control(Command::Adopt(first));
        }
        let lived = catch_unwind(AssertUnwindSafe(|| live(&shift, sys, &member, framing, make, ears)));
        let done = lived.unwrap_or_else(|panic| {
            // The user's code is called, and its values are dropped, where their panics are caught.
            tracing::error!(shard = %shift.id, panic = panic_message(panic), "outside of any callback");
            Err(ServeError::Defect)
        });
        if let Err(error) = &done {
            shift.fail(error);
        }
        done
    }
}

/// What is still there to be taken.
pub(super) fn take(first: &First) -> Option<Arrival<Stream>> {
    first.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn live<H: PacketHandler, F: Framing + Clone>(
    shift: &Shift,
    mut sys: MioSys,
    member: &Member,
    framing: Contained<F>,
    make: Contained<Box<dyn FnOnce() -> H + Send>>,
    ears: Option<Ears>,
) -> Result<(), ServeError> {
    let crew = &shift.crew;
    let acceptor = ears.map(|ears| {
        let Ears { listeners, strategy, dispatch } = ears;
        let (census, here) = (crew.census.clone(), shift.id.index());
        Acceptor::new(&mut sys, AcceptorConfig { listeners, strategy, dispatch, census, here })
    });
    let acceptor = acceptor.transpose().map_err(ServeError::system("poll a listener"))?;
    let made = catch_unwind(AssertUnwindSafe(make.into_inner()));
    let handler = made.map_err(|panic| ServeError::Factory { message: panic_message(panic) })?;
    let config = ShardConfig {
        id: shift.id,
        framing,
        limits: crew.limits.clone(),
        clock: sys.clock(),
        origin: crew.origin,
        mailbox: Arc::new(Inlet(member.mailbox.clone())),
        published: member.counters.clone(),
        first_generation: 0,
    };
    let event_loop = EventLoop::new(EventLoopConfig {
        sys,
        shard: Shard::new(handler, config),
        acceptor,
        mailbox: member.mailbox.clone(),
        census: crew.census.clone(),
        id: shift.id,
        lifetime: shift.lifetime,
        read_budget: crew.limits.read_budget,
    });
    event_loop.run().map_err(ServeError::system("poll"))
}

impl Shift {
    fn begin(crew: &Arc<Crew>, id: ShardId, lifetime: Lifetime, member: &Member) -> Self {
        crew.thread_started();
        crew.enlist(id, member.clone());
        Self { crew: crew.clone(), id, lifetime }
    }

    /// The shard could not go on. A server without one of its standing shards is no server; one that was forked takes
    /// nobody along.
    fn fail(&self, error: &ServeError) {
        tracing::error!(shard = %self.id, %error, "a shard failed");
        if self.lifetime == Lifetime::Server {
            self.crew.fail();
        }
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        self.crew.retire(self.id);
        self.crew.thread_ended();
    }
}

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle, ThreadId},
    time::Instant,
};

use super::{
    Acceptor, AcceptorConfig, Dispatch, EventLoop, EventLoopConfig, Lifetime, MioSys, Stream,
    socket::Listener,
};
use crate::{
    addr::PeerAddr,
    census::Census,
    error::{ServeError, panic_message},
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    limits::Limits,
    mailbox::{Mailbox, MailboxLimits},
    metrics::{Metrics, SharedCounters},
    shard::{Arrival, Command, Inlet, Shard, ShardConfig},
    strategy::ForkingStrategy,
};

/// Makes the handler of a shard: the first half where the server is started, the second on the shard's own thread.
pub(crate) trait Seed<H>: Send {
    fn seed(&mut self, shard: ShardId) -> Box<dyn FnOnce() -> H + Send>;
}

/// The shards of a server as the outside knows them.
pub(crate) struct Crew {
    shards: RwLock<HashMap<ShardId, Member>>,
    /// What the shards counted that have ended.
    retired: Mutex<Metrics>,
    /// Threads that still run, forked ones included.
    running: Mutex<usize>,
    changed: Condvar,
    stopping: AtomicBool,
    next_fork: AtomicU32,
    pub(crate) census: Arc<Census>,
    pub(crate) limits: Limits,
    pub(crate) origin: Instant,
}

/// One shard.
struct Member {
    mailbox: Arc<Mailbox<Command<Stream>>>,
    counters: Arc<SharedCounters>,
    thread: Arc<OnceLock<ThreadId>>,
}

/// A thread of a shard.
pub(crate) type ShardThread = JoinHandle<Result<(), ServeError>>;

/// What a shard is started with.
pub(crate) struct Berth<H, F> {
    id: ShardId,
    lifetime: Lifetime,
    sys: MioSys,
    mailbox: Arc<Mailbox<Command<Stream>>>,
    counters: Arc<SharedCounters>,
    thread: Arc<OnceLock<ThreadId>>,
    framing: F,
    make: Box<dyn FnOnce() -> H + Send>,
    ears: Option<Ears>,
}

/// What makes a shard an accepting one.
pub(crate) struct Ears {
    pub(crate) listeners: Vec<(Listener, PeerAddr)>,
    pub(crate) strategy: Box<dyn ForkingStrategy>,
    pub(crate) dispatch: Box<dyn Dispatch<Stream>>,
}

impl Crew {
    pub(crate) fn new(census: Census, limits: Limits, standing: u32) -> Arc<Self> {
        Arc::new(Self {
            shards: RwLock::default(),
            retired: Mutex::default(),
            running: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            next_fork: AtomicU32::new(standing),
            census: Arc::new(census),
            limits,
            origin: Instant::now(),
        })
    }

    /// Starts a standing shard on a thread of its own.
    pub(crate) fn start<H, F>(self: &Arc<Self>, berth: Berth<H, F>) -> Result<ShardThread, ServeError>
    where
        H: PacketHandler + 'static,
        F: Framing + Clone + Send + 'static,
    {
        self.spawn(berth).map_err(ServeError::system("start a thread"))
    }

    /// Is a standing shard, until it ends.
    pub(crate) fn work<H, F>(self: &Arc<Self>, berth: Berth<H, F>) -> Result<(), ServeError>
    where
        H: PacketHandler + 'static,
        F: Framing + Clone + Send + 'static,
    {
        Shift::begin(self.clone(), berth.id).work(berth)
    }

    /// What a standing shard is started with.
    pub(crate) fn standing<H, F>(
        &self,
        id: ShardId,
        framing: F,
        seed: &mut dyn Seed<H>,
        ears: Option<Ears>,
    ) -> Result<Berth<H, F>, ServeError> {
        let berth =
            self.berth(id, Lifetime::Server, framing, seed).map_err(ServeError::system("make a poll"))?;
        Ok(Berth { ears, ..berth })
    }

    /// Starts a shard for one connection.
    fn fork<H, F>(
        self: &Arc<Self>,
        framing: F,
        seed: &mut dyn Seed<H>,
        arrival: Arrival<Stream>,
    ) -> io::Result<()>
    where
        H: PacketHandler + 'static,
        F: Framing + Clone + Send + 'static,
    {
        let id = ShardId(self.next_fork.fetch_add(1, Ordering::Relaxed));
        let berth = self.berth(id, Lifetime::Connection, framing, seed)?;
        // Looked at only now: whoever began to stop before this shard was listed is seen here, whoever did after sees it.
        if self.stopping.load(Ordering::Acquire)
            || berth.mailbox.post_control(Command::Adopt(arrival)).is_err()
        {
            self.retire(id);
            return Err(io::ErrorKind::NotConnected.into());
        }
        let spawned = self.spawn(berth);
        if spawned.is_err() {
            self.retire(id);
        }
        spawned.map(drop)
    }

    fn berth<H, F>(
        &self,
        id: ShardId,
        lifetime: Lifetime,
        framing: F,
        seed: &mut dyn Seed<H>,
    ) -> io::Result<Berth<H, F>> {
        let (sys, ring) = MioSys::new(self.origin)?;
        let limits =
            MailboxLimits { commands: self.limits.mailbox_commands, bytes: self.limits.mailbox_bytes };
        let mailbox = Arc::new(Mailbox::new(limits, ring));
        let (counters, thread) = (Arc::<SharedCounters>::default(), Arc::new(OnceLock::new()));
        let member = Member { mailbox: mailbox.clone(), counters: counters.clone(), thread: thread.clone() };
        self.write().insert(id, member);
        Ok(Berth { id, lifetime, sys, mailbox, counters, thread, framing, make: seed.seed(id), ears: None })
    }

    fn spawn<H, F>(self: &Arc<Self>, berth: Berth<H, F>) -> io::Result<ShardThread>
    where
        H: PacketHandler + 'static,
        F: Framing + Clone + Send + 'static,
    {
        let shift = Shift::begin(self.clone(), berth.id);
        thread::Builder::new().name(format!("framewire-{}", berth.id)).spawn(move || shift.work(berth))
    }

    /// Posts a command to every shard. One that is behind, or has ended, gets it in any case, or needs it no more.
    pub(crate) fn tell_all(&self, command: impl Fn() -> Command<Stream>) {
        for member in self.read().values() {
            member.tell(command());
        }
    }

    /// Posts a command to one shard; whether there is such a shard.
    pub(crate) fn tell(&self, shard: ShardId, command: Command<Stream>) -> bool {
        self.read().get(&shard).is_some_and(|member| member.tell(command))
    }

    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.read().keys().copied().collect()
    }

    /// Lets no new shard be forked.
    pub(crate) fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the caller is one of the shards.
    pub(crate) fn is_aboard(&self) -> bool {
        let me = thread::current().id();
        self.read().values().any(|member| member.thread.get() == Some(&me))
    }

    /// Waits until the last thread has ended.
    pub(crate) fn wait(&self) {
        let mut running = self.running();
        while *running > 0 {
            running = self.changed.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn metrics(&self) -> Metrics {
        // Held until the end, as in `retire`: a shard that ends meanwhile is counted once, here or there.
        let retired = self.retired();
        let mut metrics = retired.clone();
        for member in self.read().values() {
            member.counters.add_to(&mut metrics);
        }
        metrics
    }

    fn retire(&self, id: ShardId) {
        let mut retired = self.retired();
        if let Some(member) = self.write().remove(&id) {
            member.counters.add_to(&mut retired);
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<ShardId, Member>> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<ShardId, Member>> {
        self.shards.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, Metrics> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, usize> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// In order behind what waits, if there is room; past it if there is none.
    fn tell(&self, command: Command<Stream>) -> bool {
        match self.mailbox.post(command, 0) {
            Ok(()) => true,
            Err(refused) => self.mailbox.post_control(refused.into_command()).is_ok(),
        }
    }
}

/// A thread that is counted as running, until it is dropped.
struct Shift {
    crew: Arc<Crew>,
    id: ShardId,
}

impl Shift {
    fn begin(crew: Arc<Crew>, id: ShardId) -> Self {
        *crew.running() += 1;
        Self { crew, id }
    }
}

impl Shift {
    fn work<H: PacketHandler, F: Framing + Clone>(self, berth: Berth<H, F>) -> Result<(), ServeError> {
        let done = berth.work(&self.crew);
        if done.is_err() {
            // A server without one of its standing shards is no server.
            self.crew.tell_all(|| Command::Abort);
        }
        done
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        if thread::panicking() {
            self.crew.tell_all(|| Command::Abort);
        }
        self.crew.retire(self.id);
        *self.crew.running() -= 1;
        self.crew.changed.notify_all();
    }
}

impl<H: PacketHandler, F: Framing + Clone> Berth<H, F> {
    /// The life of a shard's thread.
    fn work(self, crew: &Crew) -> Result<(), ServeError> {
        let _ = self.thread.set(thread::current().id());
        let mut sys = self.sys;
        let census = crew.census.clone();
        let here = self.id.index();
        let acceptor = self.ears.map(|ears| {
            let Ears { listeners, strategy, dispatch } = ears;
            let config = AcceptorConfig { listeners, strategy, dispatch, census: census.clone(), here };
            Acceptor::new(&mut sys, config)
        });
        let acceptor = acceptor.transpose().map_err(ServeError::system("poll a listener"))?;
        let handler = catch_unwind(AssertUnwindSafe(self.make));
        let handler = handler.map_err(|panic| ServeError::Factory { message: panic_message(&*panic) })?;
        let shard = Shard::new(
            handler,
            ShardConfig {
                id: self.id,
                framing: self.framing,
                limits: crew.limits.clone(),
                origin: crew.origin,
                mailbox: Arc::new(Inlet(self.mailbox.clone())),
                published: self.counters,
                first_generation: 0,
            },
        );
        let mut event_loop = EventLoop::new(EventLoopConfig {
            sys,
            shard,
            acceptor,
            mailbox: self.mailbox,
            census,
            id: self.id,
            lifetime: self.lifetime,
            read_budget: crew.limits.read_budget,
        });
        event_loop.run().map_err(ServeError::system("poll"))
    }
}

/// Carries connections between the threads of a server.
pub(crate) struct Carrier<H, F> {
    crew: Arc<Crew>,
    framing: F,
    seed: Box<dyn Seed<H>>,
}

impl<H, F> Carrier<H, F> {
    pub(crate) fn new(crew: Arc<Crew>, framing: F, seed: Box<dyn Seed<H>>) -> Self {
        Self { crew, framing, seed }
    }
}

impl<H, F> Dispatch<Stream> for Carrier<H, F>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    fn send(&mut self, shard: usize, arrival: Arrival<Stream>) -> io::Result<()> {
        let shards = self.crew.read();
        let member = shards.get(&ShardId(shard as u32));
        let posted = member.map(|member| member.mailbox.post_control(Command::Adopt(arrival)));
        match posted {
            Some(Ok(())) => Ok(()),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn fork(&mut self, arrival: Arrival<Stream>) -> io::Result<()> {
        self.crew.fork(self.framing.clone(), &mut *self.seed, arrival)
    }
}

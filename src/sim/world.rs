use std::{
    sync::{Arc, MutexGuard},
    time::Duration,
};

use super::{
    Conn, Faults, Heard, Log, Net, Network, Probe, SimFd, SimPlatform, SimSys, Sizes, platform::Probes,
};
use crate::{
    addr::{Addr, NewConnection},
    contained::Contained,
    dial::{Dial, NewDial, Upstream},
    error::ServeError,
    events::Publisher,
    framing::LengthPrefix,
    id::{DialId, ShardId},
    layer::LayerFactories,
    limits::Limits,
    metrics::Metrics,
    reactor::{NoDispatch, SocketOptions},
    runtime::{
        AcceptorParts, PostOutcome, RegisteredShard, RunningThread, ServiceParts, ShardNumbers,
        ShardRegistry, StartService, Stop, start_workers,
    },
    shard::{Beyond, Command, Framings, OtherFramings},
    strategy::{
        ForkingStrategy, Placement, Resident, ShardLoads, SingleReactor, ThreadPerConnection, WorkerPool,
    },
    sync::Admission,
    time::Tick,
};

/// The settings of a world.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    /// The framings of listeners that have one of their own.
    pub(crate) others: OtherFramings,
    pub(crate) layers: LayerFactories,
    pub(crate) faults: Faults,
    pub(crate) sizes: Sizes,
    /// 0: one reactor. Otherwise a pool, whose loops take turns in one thread.
    pub(crate) workers: usize,
    /// Each worker has a listener of its own.
    pub(crate) reuse_port: bool,
    /// Connections that may come, each to a shard of its own; 0: none does.
    pub(crate) forks: usize,
    pub(crate) listeners: usize,
    /// Peers of sockets instead of connections: what is done with more than `connections`.
    pub(crate) datagrams: Option<Beyond>,
    pub(crate) connections: usize,
    pub(crate) first_generation: u32,
    /// When the loops begin.
    pub(crate) from: Tick,
    /// See [`Clock::slack`](crate::time::Clock::slack), in milliseconds.
    pub(crate) slack: Tick,
    /// How long a strategy takes to place a connection, in milliseconds.
    pub(crate) place_takes: Tick,
    /// The shard whose handler cannot be made.
    pub(crate) no_handler: Option<ShardId>,
    /// How many of 1,000 threads do not get to their first instruction in a step.
    pub(crate) late_threads: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            limits: Limits::default(),
            others: OtherFramings::default(),
            layers: LayerFactories::default(),
            faults: Faults::none(),
            sizes: Sizes::default(),
            workers: 0,
            reuse_port: false,
            forks: 0,
            listeners: 1,
            datagrams: None,
            connections: 100_000,
            first_generation: 0,
            from: 0,
            slack: 0,
            place_takes: 0,
            no_handler: None,
            late_threads: 0,
        }
    }
}

impl Setup {
    fn has_threads(&self) -> bool {
        self.workers > 0 || self.forks > 0
    }

    pub(super) fn strategy(&self, network: &Network) -> Box<dyn ForkingStrategy> {
        let strategy: Box<dyn ForkingStrategy> = match (self.workers, self.forks) {
            (0, 0) => Box::new(SingleReactor::new()),
            (0, forks) => Box::new(ThreadPerConnection::max(forks)),
            (workers, _) => Box::new(WorkerPool::new(workers)),
        };
        Box::new(Slow { strategy, network: network.clone(), takes: self.place_takes })
    }
}

/// A strategy that takes its time.
struct Slow {
    strategy: Box<dyn ForkingStrategy>,
    network: Network,
    takes: Tick,
}

impl ForkingStrategy for Slow {
    fn workers(&self) -> usize {
        self.strategy.workers()
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        self.network.lock().pass(self.takes);
        self.strategy.place(connection, loads)
    }

    fn place_dial(&mut self, loads: ShardLoads<'_>) -> Placement {
        self.network.lock().pass(self.takes);
        self.strategy.place_dial(loads)
    }
}

/// A server of real event loops, started and run by the real runtime, on a simulated network. Frames have 4 bytes of
/// length, big-endian.
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) log: Log,
    pub(crate) registry: Arc<ShardRegistry<SimPlatform>>,
    platform: SimPlatform,
    threads: Vec<Thread>,
    pub(super) listeners: Vec<usize>,
    /// How shards have ended, in order.
    pub(crate) ended: Vec<Result<(), ServeError>>,
    pub(crate) late_threads: u32,
    /// Dials of other threads.
    dials: usize,
}

struct Thread {
    shard: RunningThread<SimPlatform>,
    id: ShardId,
    registered: RegisteredShard<SimPlatform>,
    /// Turns in a row that neither waited nor did anything.
    spins: u32,
}

type Listeners = Vec<(SimFd, Addr)>;

impl World {
    /// Handlers are echoes, unless `change` makes something else of them.
    pub(crate) fn new(setup: Setup, change: impl Fn(&mut Probe)) -> Self {
        let (world, started) = Self::start(setup, change);
        started.expect("it starts");
        world
    }

    /// Also returns the error of a server that could not start. Such a server is stopped, as its owner would do.
    pub(crate) fn start(setup: Setup, change: impl Fn(&mut Probe)) -> (Self, Result<(), ServeError>) {
        let network = Network::new(setup.seed, setup.sizes);
        let log = Log::new(network.clone());
        {
            let mut net = network.lock();
            net.faults = setup.faults.clone();
            (net.now, net.slack) = (setup.from, setup.slack);
            net.waits = !setup.has_threads();
        }
        let standing = setup.workers + 1;
        let admission = Admission::new(standing, setup.connections, setup.limits.connections_per_peer);
        let admission = admission.behind(setup.layers.proxies().clone());
        let platform = SimPlatform::new(&network);
        let registry = ShardRegistry::new(
            platform.clone(),
            admission,
            setup.limits.clone(),
            setup.layers.clone(),
            SocketOptions::default(),
            ShardNumbers::alone(standing as u32),
            Publisher::default(),
        );
        registry.begin_generations_at(setup.first_generation);
        let mut world = Self {
            network,
            log,
            registry,
            platform,
            threads: Vec::new(),
            listeners: Vec::new(),
            ended: Vec::new(),
            late_threads: setup.late_threads,
            dials: 0,
        };
        let started = world.start_shards(&setup, change);
        if started.is_err() {
            world.registry.stop(Stop::Within(setup.limits.close_timeout));
        }
        if !setup.has_threads() {
            world.begin_threads();
        }
        (world, started)
    }

    fn start_shards(&mut self, setup: &Setup, change: impl Fn(&mut Probe)) -> Result<(), ServeError> {
        let probes = (0..=setup.workers + setup.forks).map(|_| {
            let mut probe = Probe::new(self.log.clone());
            change(&mut probe);
            probe
        });
        let factory = Contained::new(Probes::new(probes, setup.no_handler));
        if let Some(beyond) = setup.datagrams {
            return self.start_datagrams(setup, beyond, factory);
        }
        let own = Contained::new(LengthPrefix::u32_be());
        let mut framings = Framings::new(own, setup.others.clone());
        framings.offer_max(setup.limits.frame);
        let listeners = self.listen(setup);
        let strategy = Contained::new(setup.strategy(&self.network));
        let (platform, registry) = (self.platform.clone(), self.registry.clone());
        let service = ServiceParts::<_, Probe, _, _>::new(
            platform,
            registry,
            framings,
            factory,
            strategy,
            Vec::new(),
            listeners,
        );
        self.start_service(setup, Box::new(service))
    }

    pub(super) fn start_service(
        &self,
        setup: &Setup,
        service: Box<dyn StartService<SimPlatform>>,
    ) -> Result<(), ServeError> {
        let workers = setup.workers as u32;
        let acceptor = start_workers(&self.platform, workers, &mut [service], |()| ())?;
        acceptor.spawn().map_err(ServeError::system("start a thread"))
    }

    /// The listeners of the acceptor, or of the workers.
    fn listen(&mut self, setup: &Setup) -> (Listeners, Vec<AcceptorParts<SimSys>>) {
        let mut listen = |count: usize| -> Listeners {
            let listeners: Listeners = (0..count).map(|_| self.network.listen()).collect();
            self.listeners.extend(listeners.iter().map(|(fd, _)| fd.number));
            listeners
        };
        if !setup.reuse_port {
            return (listen(setup.listeners), Vec::new());
        }
        let workers = (1..=setup.workers as u32).map(ShardId).map(|worker| {
            let strategy: Box<dyn ForkingStrategy> = Box::new(Resident { worker, max_sessions: usize::MAX });
            let (listeners, strategy) = (listen(setup.listeners), Contained::new(strategy));
            AcceptorParts { listeners, strategy, dispatch: Box::new(NoDispatch) }
        });
        let workers = workers.collect();
        (Vec::new(), workers)
    }

    /// Threads that were started get to their first instruction, unless they are late.
    fn begin_threads(&mut self) {
        for _ in 0..self.platform.waiting() {
            let late = self.late_threads;
            if late > 0 && self.net().rng.chance(late) {
                break;
            }
            let Some(thread) = self.platform.next() else { break };
            match thread.begin() {
                Ok(shard) => {
                    let id = shard.ids()[0];
                    let registered = self.registry.member(id).expect("it is listed");
                    self.threads.push(Thread { shard, id, registered, spins: 0 });
                }
                Err(error) => self.ended.push(Err(error)),
            }
        }
    }

    pub(crate) fn net(&self) -> MutexGuard<'_, Net> {
        self.network.lock()
    }

    pub(crate) fn now(&self) -> Tick {
        self.net().now
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.registry.metrics(Duration::from_millis(self.now()))
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.registry.admission
    }

    /// The descriptors of the listeners, for [`Net::connect`].
    pub(crate) fn listeners(&self) -> &[usize] {
        &self.listeners
    }

    /// To each listener in turn.
    pub(crate) fn connect(&self) -> Conn {
        let mut net = self.net();
        let listener = net.connections() % self.listeners.len();
        net.connect(self.listeners[listener])
    }

    pub(crate) fn post(&self, shard: usize, command: Command<SimFd>) {
        assert_eq!(self.registry.ask(ShardId(shard as u32), command), PostOutcome::Posted);
    }

    /// Another thread connects.
    pub(crate) fn dial(&mut self, dial: Dial) -> Upstream {
        let id = DialId::next();
        let (upstream, side) = Upstream::new(id, dial.while_down, &self.registry.limits);
        // Where no shard takes it, the upstream is closed with the command.
        let _ = self.registry.ask(ShardId(0), Command::Dial(NewDial::with_upstream(id, dial, side)));
        self.dials += 1;
        upstream
    }

    pub(crate) fn shut_down(&self, grace: Duration) {
        self.registry.stop(Stop::Within(grace));
    }

    pub(crate) fn abort(&self) {
        self.registry.stop(Stop::Now);
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.threads.is_empty() && self.platform.waiting() == 0
    }

    /// Shards that run, or are about to.
    pub(crate) fn shards(&self) -> usize {
        self.registry.shards().len()
    }

    /// One turn of one loop, with the checks that hold after each.
    fn turn_of(&mut self, at: usize) {
        let before = self.activity(at);
        let ended = self.threads[at].shard.turn();
        if let Some(epoll) = self.threads[at].shard.sys().map(SimSys::epoll) {
            self.net().fall_asleep(epoll);
        }
        let after = self.activity(at);
        let waits = {
            let net = self.net();
            net.waits && !net.resting
        };
        let spins = &mut self.threads[at].spins;
        *spins = if before == after { *spins + 1 } else { 0 };
        assert!(*spins <= 3 || !waits, "turn after turn without a wait and without progress");
        if let Some(ended) = ended {
            assert!(!matches!(ended, Err(ServeError::Defect)), "a panic outside of any callback");
            self.ended.push(ended);
            self.threads.remove(at);
        }
    }

    /// Everything that a turn may have changed, in numbers.
    fn activity(&self, at: usize) -> (Metrics, usize, u64, Tick) {
        let RegisteredShard { mailbox, counters, .. } = &self.threads[at].registered;
        let mut metrics = Metrics::default();
        counters.add_to(&mut metrics);
        metrics.turns = 0;
        let net = self.net();
        (metrics, mailbox.queued(), net.progress, net.now)
    }

    /// One turn of the one reactor.
    pub(crate) fn turn(&mut self) {
        self.turn_of(0);
    }

    /// One turn of this shard, if it runs.
    pub(crate) fn turn_shard(&mut self, shard: ShardId) {
        if let Some(at) = self.threads.iter().position(|thread| thread.id == shard) {
            self.turn_of(at);
        }
    }

    /// Turns until that time has come; the last turn is at it.
    pub(crate) fn run_until(&mut self, tick: Tick) {
        self.net().horizon = tick;
        while self.now() < tick && !self.has_stopped() {
            self.step();
        }
        self.net().horizon = Tick::MAX;
    }

    pub(crate) fn run_for(&mut self, time: Tick) {
        let until = self.now() + time;
        self.run_until(until);
    }

    /// Turns until a poll would wait for ever, or the loops have stopped.
    pub(crate) fn run_to_rest(&mut self) {
        let mut turns = 0;
        while !self.has_stopped() && self.step() {
            turns += 1;
            assert!(turns < 5_000_000, "no rest in sight");
        }
    }

    /// Runs a turn of each loop that has something to do. Returns `false` if none ever will.
    pub(crate) fn step(&mut self) -> bool {
        self.platform.answer_names();
        if self.net().waits {
            self.turn();
            return !self.net().resting;
        }
        self.begin_threads();
        let runnable: Vec<ShardId> =
            self.threads.iter().filter(|thread| self.is_runnable(thread)).map(|thread| thread.id).collect();
        if runnable.is_empty() {
            return self.platform.waiting() > 0 || self.net().skip_to_next();
        }
        for shard in runnable {
            self.turn_shard(shard);
        }
        true
    }

    fn is_runnable(&self, thread: &Thread) -> bool {
        // A loop that does not wait in its poll never counts as asleep, so its mailbox does not wake it.
        let called = thread.registered.mailbox.queued() > 0 || thread.shard.has_answers_left();
        called
            || thread.shard.sys().map(SimSys::epoll).is_some_and(|epoll| self.net().has_reason_to_turn(epoll))
    }

    /// Checks that nothing is left of any session.
    pub(crate) fn assert_empty(&self) {
        let metrics = self.metrics();
        let net = self.net();
        let left = (metrics.sessions, metrics.buffered, net.streams(), net.registered());
        assert_eq!(left, (0, 0, 0, 0), "sessions, bytes buffered, descriptors, registrations");
        assert_eq!((self.admission().total(), metrics.mailbox), (0, 0), "the counts, commands");
        drop(net);
        if !self.has_stopped() {
            assert_eq!(metrics.timers, 0, "timers");
        }
        self.log.assert_balanced(true);
    }

    /// The server has stopped, and nothing is left of it: no shard, no poll, no descriptor, no place in the counts.
    pub(crate) fn assert_gone(&self) {
        assert!(self.has_stopped(), "{} shards run", self.shards());
        let net = self.net();
        let left = (self.shards(), self.platform.waiting(), net.open_polls(), net.descriptors());
        assert_eq!(left, (0, 0, 0, 0), "shards, threads that wait, polls, descriptors");
        drop(net);
        self.assert_empty();
    }

    /// Sessions, descriptors and registrations agree, and no session buffers more than allowed.
    pub(crate) fn assert_consistent(&self, limits: &Limits) {
        let metrics = self.metrics();
        let net = self.net();
        let on_the_way = net.streams() - net.registered() - net.dialling();
        assert_eq!(metrics.sessions as usize, net.registered(), "sessions and registrations");
        let placed = self.admission().total().checked_sub(net.streams());
        assert!(placed.is_some_and(|placed| placed <= self.dials), "the counts and descriptors");
        assert!(on_the_way == 0 || !net.waits, "accepted, and nowhere");
        assert!(metrics.buffered <= (limits.shard_memory * self.threads.len()) as u64);
        drop(net);
        self.log.assert_balanced(false);
    }

    /// Reads what the client has to hear until it has `len` bytes or the loop rests.
    pub(crate) fn expect(&mut self, conn: Conn, len: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < len {
            heard.extend(self.net().hear_all(conn));
            if heard.len() < len && !self.step() {
                heard.extend(self.net().hear_all(conn));
                break;
            }
        }
        heard
    }

    pub(crate) fn hears(&self, conn: Conn) -> Heard {
        self.net().hear(conn, usize::MAX)
    }
}

/// A packet as a frame.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u32).to_be_bytes(), packet].concat()
}

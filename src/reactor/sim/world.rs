use std::{
    io,
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use super::{Conn, Faults, Heard, Log, Net, Network, Probe, SimFd, SimSys, Sizes};
use crate::{
    contained::Contained,
    framing::{Framing, LengthPrefix},
    id::ShardId,
    limits::Limits,
    metrics::{Metrics, SharedCounters},
    reactor::{
        Acceptor, AcceptorConfig, Dispatch, EventLoop, EventLoopConfig, HandOverError, Lifetime, NoDispatch,
        Sys, event_loop::Flow,
    },
    shard::{Command, CommandSender, Incoming, Shard, ShardConfig},
    strategy::{ForkingStrategy, SingleReactor, WorkerPool},
    sync::{Admission, Mailbox, MailboxLimits},
    time::Tick,
};

type Box_ = Arc<Mailbox<Command<SimFd>>>;

/// What a world begins with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    pub(crate) faults: Faults,
    pub(crate) sizes: Sizes,
    /// 0: one reactor. Otherwise a pool, whose loops take turns in one thread.
    pub(crate) workers: usize,
    pub(crate) listeners: usize,
    pub(crate) connections: usize,
    pub(crate) first_generation: u32,
    /// When the loops begin.
    pub(crate) from: Tick,
    /// See [`Clock::slack`](crate::time::Clock::slack), in milliseconds.
    pub(crate) slack: Tick,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            limits: Limits::default(),
            faults: Faults::none(),
            sizes: Sizes::default(),
            workers: 0,
            listeners: 1,
            connections: 100_000,
            first_generation: 0,
            from: 0,
            slack: 0,
        }
    }
}

/// A server of real event loops on a simulated network. Frames have 4 bytes of length, big-endian.
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) log: Log,
    pub(crate) admission: Arc<Admission>,
    members: Vec<Member>,
    listeners: Vec<usize>,
}

struct Member {
    event_loop: EventLoop<SimSys, Probe, LengthPrefix>,
    mailbox: Box_,
    counters: Arc<SharedCounters>,
    outcome: Option<io::Result<()>>,
    /// Turns in a row that neither waited nor did anything.
    spins: u32,
}

/// Carries connections between loops that share a thread.
struct Post(Vec<Box_>);

impl Dispatch<SimFd> for Post {
    fn send(&mut self, shard: ShardId, incoming: Incoming<SimFd>) -> io::Result<()> {
        let posted = self.0.get(shard.index()).map(|mailbox| mailbox.post_control(Command::Adopt(incoming)));
        posted.and_then(Result::ok).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn fork(&mut self, _incoming: Incoming<SimFd>) -> Result<(), HandOverError<SimFd>> {
        Err(HandOverError { error: io::ErrorKind::NotConnected.into(), incoming: None })
    }
}

impl World {
    /// Handlers are echoes, unless `change` makes something else of them.
    pub(crate) fn new(setup: Setup, change: impl Fn(&mut Probe)) -> Self {
        let network = Network::new(setup.seed, setup.sizes);
        let log = Log::new(network.clone());
        {
            let mut net = network.lock();
            net.faults = setup.faults.clone();
            (net.now, net.slack) = (setup.from, setup.slack);
            net.waits = setup.workers == 0;
        }
        let admission =
            Arc::new(Admission::new(setup.workers + 1, setup.connections, setup.limits.connections_per_peer));
        let limits =
            MailboxLimits { commands: setup.limits.mailbox_commands, bytes: setup.limits.mailbox_bytes };
        let worlds: Vec<_> = (0..=setup.workers).map(|_| SimSys::new(&network)).collect();
        let mailboxes: Vec<Box_> =
            worlds.iter().map(|(_, waker)| Arc::new(Mailbox::new(limits, waker.clone()))).collect();
        let mut world = Self {
            network: network.clone(),
            log: log.clone(),
            admission,
            members: Vec::new(),
            listeners: Vec::new(),
        };
        for (at, (mut sys, _)) in worlds.into_iter().enumerate() {
            let acceptor = (at == 0).then(|| world.acceptor(&mut sys, &setup, &mailboxes));
            let mut handler = Probe::new(log.clone());
            change(&mut handler);
            world.add(at, sys, acceptor, handler, mailboxes[at].clone(), &setup);
        }
        world
    }

    fn acceptor(&mut self, sys: &mut SimSys, setup: &Setup, mailboxes: &[Box_]) -> Acceptor<SimSys> {
        let listeners: Vec<_> = (0..setup.listeners).map(|_| sys.listen()).collect();
        self.listeners = listeners.iter().map(|(fd, _)| fd.number).collect();
        let strategy: Box<dyn ForkingStrategy> = if setup.workers == 0 {
            Box::new(SingleReactor::new())
        } else {
            Box::new(WorkerPool::new(setup.workers))
        };
        let dispatch: Box<dyn Dispatch<SimFd>> =
            if setup.workers == 0 { Box::new(NoDispatch) } else { Box::new(Post(mailboxes.to_vec())) };
        let admission = self.admission.clone();
        Acceptor::new(
            sys,
            AcceptorConfig {
                listeners,
                strategy: Contained::new(strategy),
                dispatch,
                admission,
                here: ShardId::ACCEPTOR,
            },
        )
        .expect("listeners are registered")
    }

    fn add(
        &mut self,
        at: usize,
        sys: SimSys,
        acceptor: Option<Acceptor<SimSys>>,
        handler: Probe,
        mailbox: Box_,
        setup: &Setup,
    ) {
        let (id, counters) = (ShardId(at as u32), Arc::<SharedCounters>::default());
        let mut framing = LengthPrefix::u32_be();
        framing.offer_max(setup.limits.frame);
        let shard = Shard::new(
            handler,
            ShardConfig {
                id,
                framing: Contained::new(framing),
                limits: setup.limits.clone(),
                clock: sys.clock(),
                origin: Instant::now(),
                mailbox: Arc::new(CommandSender(mailbox.clone())),
                published: counters.clone(),
                first_generation: setup.first_generation,
            },
        );
        let event_loop = EventLoop::new(EventLoopConfig {
            sys,
            shard,
            acceptor,
            mailbox: mailbox.clone(),
            lifetime: Lifetime::Server,
            read_budget: setup.limits.read_budget,
        });
        self.members.push(Member { event_loop, mailbox, counters, outcome: None, spins: 0 });
    }

    pub(crate) fn net(&self) -> MutexGuard<'_, Net> {
        self.network.lock()
    }

    pub(crate) fn now(&self) -> Tick {
        self.net().now
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::default();
        self.members.iter().for_each(|member| member.counters.add_to(&mut metrics));
        metrics
    }

    /// The descriptor of a listener, for [`Net::connect`].
    pub(crate) fn listener(&self) -> usize {
        self.listeners[0]
    }

    pub(crate) fn listeners(&self) -> &[usize] {
        &self.listeners
    }

    pub(crate) fn connect(&self) -> Conn {
        self.net().connect(self.listener())
    }

    pub(crate) fn post(&self, shard: usize, command: Command<SimFd>) {
        assert!(self.members[shard].mailbox.post(command, 0).is_ok());
    }

    pub(crate) fn shut_down(&self, grace: Duration) {
        (0..self.members.len()).for_each(|shard| self.post(shard, Command::Shutdown(grace)));
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.members.iter().all(|member| member.outcome.is_some())
    }

    /// How the one loop ended.
    pub(crate) fn outcome(&mut self) -> Option<io::Result<()>> {
        self.members[0].outcome.take()
    }

    /// One turn of one loop, with the checks that hold after each.
    pub(crate) fn turn_of(&mut self, at: usize) {
        let before = self.activity(at);
        let member = &mut self.members[at];
        match member.event_loop.turn() {
            Ok(Flow::Continue) => {}
            Ok(Flow::Stop) => member.end(Ok(())),
            Err(error) => member.end(Err(error)),
        }
        let after = self.activity(at);
        let waits = {
            let net = self.net();
            net.waits && !net.resting
        };
        let spins = &mut self.members[at].spins;
        *spins = if before == after { *spins + 1 } else { 0 };
        assert!(*spins <= 3 || !waits, "turn after turn without a wait and without progress");
    }

    /// Everything that a turn may have changed, in numbers.
    fn activity(&self, at: usize) -> (Metrics, usize, u64, Tick) {
        let mut metrics = Metrics::default();
        self.members[at].counters.add_to(&mut metrics);
        metrics.turns = 0;
        let net = self.net();
        (metrics, self.members[at].mailbox.queued(), net.progress, net.now)
    }

    /// One turn of the one reactor.
    pub(crate) fn turn(&mut self) {
        self.turn_of(0);
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

    /// A turn of whatever loop has something to do; false when none has, ever.
    pub(crate) fn step(&mut self) -> bool {
        if self.net().waits {
            self.turn();
            return !self.net().resting;
        }
        let runnable: Vec<usize> = (0..self.members.len()).filter(|at| self.is_runnable(*at)).collect();
        if runnable.is_empty() {
            return self.net().skip_to_next();
        }
        runnable.into_iter().for_each(|at| self.turn_of(at));
        true
    }

    fn is_runnable(&self, at: usize) -> bool {
        let member = &self.members[at];
        // A loop that does not wait in its poll is never asleep to its mailbox, which then does not ring.
        let called = member.mailbox.queued() > 0 || self.net().has_reason_to_turn(at);
        member.outcome.is_none() && called
    }

    /// Nothing is left of any session.
    pub(crate) fn assert_empty(&self) {
        let metrics = self.metrics();
        let net = self.net();
        let left = (metrics.sessions, metrics.buffered, net.streams(), net.registered());
        assert_eq!(left, (0, 0, 0, 0), "sessions, bytes buffered, descriptors, registrations");
        assert_eq!((self.admission.total(), metrics.mailbox), (0, 0), "the counts, commands");
        drop(net);
        if !self.has_stopped() {
            assert_eq!(metrics.timers, 0, "timers");
        }
        self.log.assert_balanced(true);
    }

    /// Sessions, descriptors and registrations agree, and nobody buffers more than allowed.
    pub(crate) fn assert_consistent(&self, limits: &Limits) {
        let metrics = self.metrics();
        let net = self.net();
        let on_the_way = net.streams() - net.registered();
        assert_eq!(metrics.sessions as usize, net.registered(), "sessions and registrations");
        assert_eq!(self.admission.total(), net.streams(), "the counts and descriptors");
        assert!(on_the_way == 0 || self.members.len() > 1, "accepted, and nowhere");
        assert!(metrics.buffered <= (limits.shard_memory * self.members.len()) as u64);
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

impl Member {
    fn end(&mut self, outcome: io::Result<()>) {
        self.event_loop.tear_down();
        self.outcome = Some(outcome);
    }
}

/// A packet as a frame.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u32).to_be_bytes(), packet].concat()
}

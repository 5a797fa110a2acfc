use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use super::{Platform, Resolver, ShardNumbers, platform::StreamOf};
use crate::{
    error::{Logged, SendError},
    events::{Hub, Publisher, Reporter},
    id::{SessionId, ShardId},
    layer::LayerFactories,
    limits::Limits,
    log::LogGate,
    metrics::{Crowd, Metrics, SharedCounters},
    reactor::{Lifetime, SocketOptions},
    session::{Deliver, Route, SessionCommand},
    shard::{Command, CommandSender, deliver, post},
    sync::{Admission, Mailbox, Rejected},
    time::ticks,
};

/// The shards of a service as other threads know them: how to reach each, and what it has counted.
pub(crate) struct ShardRegistry<P: Platform> {
    shards: RwLock<HashMap<ShardId, RegisteredShard<P>>>,
    /// The counters of shards that have ended.
    retired: Mutex<Metrics>,
    pub(super) crowd: Arc<Crowd>,
    /// Panics that no shard has counted: of what was called on other threads, or between two turns.
    panics: Arc<AtomicU64>,
    hub: Arc<Hub>,
    /// Until the last thread has ended.
    publisher: Mutex<Option<Publisher>>,
    /// That of the acceptor's shard, and of those that are forked.
    gate: Arc<LogGate>,
    /// Threads that still run, forked ones included.
    running: Mutex<usize>,
    changed: Condvar,
    stopping: AtomicBool,
    failed: AtomicBool,
    pub(crate) numbers: ShardNumbers,
    /// The registries of the other services on the same threads.
    others: OnceLock<Vec<Weak<Self>>>,
    /// The generation of the first session of a shard; 0 except in tests.
    first_generation: AtomicU32,
    pub(crate) admission: Arc<Admission>,
    pub(crate) limits: Limits,
    pub(crate) layers: LayerFactories,
    /// Of the connections that the service makes.
    pub(crate) options: SocketOptions,
    pub(super) platform: P,
    pub(super) resolver: Resolver,
}

/// One shard.
pub(crate) struct RegisteredShard<P: Platform> {
    pub(crate) mailbox: Arc<Mailbox<Command<StreamOf<P>>>>,
    pub(crate) counters: Arc<SharedCounters>,
    pub(super) thread: Arc<OnceLock<ThreadId>>,
}

/// How a server stops.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// Gracefully; what is left after this time is cut.
    Within(Duration),
    /// Everything is cut.
    Now,
}

impl Stop {
    pub(crate) fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Within(a), Self::Within(b)) => Self::Within(a.min(b)),
            _ => Self::Now,
        }
    }
}

/// What became of a command for a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostOutcome {
    /// It is in the mailbox.
    Posted,
    /// The mailbox is full.
    Full,
    /// There is no such shard (any more).
    Closed,
}

impl<P: Platform> ShardRegistry<P> {
    pub(crate) fn new(
        platform: P,
        admission: Admission,
        limits: Limits,
        layers: LayerFactories,
        options: SocketOptions,
        numbers: ShardNumbers,
        publisher: Publisher,
    ) -> Arc<Self> {
        Arc::new(Self {
            shards: RwLock::default(),
            retired: Mutex::default(),
            crowd: Arc::default(),
            panics: Arc::default(),
            hub: publisher.hub().clone(),
            publisher: Mutex::new(Some(publisher)),
            gate: Arc::new(LogGate::new()),
            running: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            numbers,
            others: OnceLock::new(),
            first_generation: AtomicU32::new(0),
            admission: Arc::new(admission),
            limits,
            layers,
            options,
            platform,
            resolver: Resolver::default(),
        })
    }

    /// Sends a command to one shard, if its mailbox has room.
    pub(crate) fn ask(&self, shard: ShardId, command: Command<StreamOf<P>>) -> PostOutcome {
        self.ask_holding(shard, command, 0)
    }

    /// As [`ask`](Self::ask); the command holds so many `bytes`, which count for the mailbox's limit.
    pub(super) fn ask_holding(
        &self,
        shard: ShardId,
        command: Command<StreamOf<P>>,
        bytes: usize,
    ) -> PostOutcome {
        self.member(shard).map_or(PostOutcome::Closed, |member| member.ask(command, bytes))
    }

    /// Sends a command to every shard. Returns `Full` if a mailbox was full; the other shards got the command all the
    /// same.
    pub(crate) fn ask_all(&self, command: impl Fn() -> Command<StreamOf<P>>) -> PostOutcome {
        let answers = self.members().into_iter().map(|member| member.ask(command(), 0));
        answers.fold(PostOutcome::Posted, |sum, told| if told == PostOutcome::Full { told } else { sum })
    }

    /// Sends every shard a command that a full mailbox must not refuse: to stop. A graceful stop keeps its order where
    /// there is room.
    fn order_all(&self, command: impl Fn() -> Command<StreamOf<P>>) {
        for member in self.members() {
            member.order(command());
        }
    }

    /// Returns the shard on the acceptor's thread, or on that of a worker.
    pub(crate) fn shard_on(&self, thread: ShardId) -> ShardId {
        self.numbers.on_thread(thread)
    }

    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.read().keys().copied().collect()
    }

    /// Stops every shard, and prevents new ones from being forked.
    pub(crate) fn stop(&self, stop: Stop) {
        self.begin_stopping();
        self.order_all(|| match stop {
            Stop::Within(grace) => Command::Shutdown(grace),
            Stop::Now => Command::Abort,
        });
    }

    fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Introduces services on the same threads to each other, once.
    pub(crate) fn join(registries: &[Arc<Self>]) {
        for registry in registries {
            let others = registries.iter().filter(|other| !Arc::ptr_eq(other, registry));
            let _ = registry.others.set(others.map(Arc::downgrade).collect());
        }
    }

    fn others(&self) -> impl Iterator<Item = Arc<Self>> {
        self.others.get().into_iter().flatten().filter_map(Weak::upgrade)
    }

    /// Called when a standing shard has failed, without which the server cannot go on: stops all other shards, those
    /// that are listed now and those that will be, and the other services on the same threads.
    pub(super) fn fail(&self) {
        self.fail_alone();
        self.others().for_each(|other| other.fail_alone());
    }

    fn fail_alone(&self) {
        self.begin_stopping();
        self.failed.store(true, Ordering::SeqCst);
        self.order_all(|| Command::Abort);
    }

    /// Returns `true` if the caller runs on the thread of one of the shards.
    pub(crate) fn is_on_a_shard(&self) -> bool {
        let me = thread::current().id();
        self.read().values().any(|member| member.thread.get() == Some(&me))
    }

    /// Like [`wait`](Self::wait), for several services within the same time. Returns what is left of it.
    pub(crate) fn wait_for_all<'a>(
        registries: impl Iterator<Item = &'a Arc<Self>>,
        within: Option<Duration>,
    ) -> Result<Option<Duration>, Vec<ShardId>> {
        let begun = Instant::now();
        let left = || within.map(|within| within.saturating_sub(begun.elapsed()));
        let mut running = Vec::new();
        for registry in registries {
            running.extend(registry.wait(left()).err().into_iter().flatten());
        }
        if running.is_empty() { Ok(left()) } else { Err(running) }
    }

    /// Waits until the last thread has ended. If that takes longer than `within`, returns the shards that still run, in
    /// order.
    pub(crate) fn wait(&self, within: Option<Duration>) -> Result<(), Vec<ShardId>> {
        // A deadline beyond the range of the clock is for ever.
        let deadline = within.and_then(|within| Instant::now().checked_add(within));
        let mut running = self.running();
        while *running > 0 {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                let mut shards = self.shards();
                shards.sort_unstable();
                return if shards.is_empty() { Ok(()) } else { Err(shards) };
            }
            let waited = self.changed.wait_timeout(running, left);
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Returns how long ago the server was started.
    pub(crate) fn uptime(&self) -> Duration {
        self.numbers.origin().elapsed()
    }

    /// Returns a snapshot of a server that was started `uptime` ago.
    pub(crate) fn metrics(&self, uptime: Duration) -> Metrics {
        // Held until the end, as in `retire`: a shard that ends meanwhile is counted once, here or there.
        let retired = self.retired();
        let mut metrics = retired.clone();
        metrics.panics += self.panics.load(Ordering::Relaxed);
        for member in self.read().values() {
            member.counters.add_to(&mut metrics);
            metrics.mailbox += member.mailbox.queued() as u64;
            metrics.mailbox_bytes += member.mailbox.queued_bytes() as u64;
            metrics.wakeups += member.mailbox.wakeups();
            metrics.shards += 1;
        }
        metrics.sessions_peak = self.crowd.peak();
        metrics.uptime = uptime;
        metrics
    }

    /// Returns an unused number for a forked shard: when the numbers wrap around, those of standing shards and of
    /// forked ones that still run are skipped.
    pub(super) fn next_fork(&self) -> ShardId {
        let listed = self.read();
        self.numbers.next_fork(|id| !listed.contains_key(&id))
    }

    /// Continues as if that many shards had been forked.
    #[cfg(test)]
    pub(crate) fn begin_forks_at(&self, number: u32) {
        self.numbers.begin_forks_at(number);
    }

    pub(super) fn first_generation(&self) -> u32 {
        self.first_generation.load(Ordering::Relaxed)
    }

    /// Makes shards that start from now on continue as if they had had that many sessions.
    #[cfg(test)]
    pub(crate) fn begin_generations_at(&self, number: u32) {
        self.first_generation.store(number, Ordering::Relaxed);
    }

    pub(super) fn enlist(&self, id: ShardId, member: RegisteredShard<P>) {
        let before = self.write().insert(id, member.clone());
        debug_assert!(before.is_none(), "shard {id} is listed twice");
        if self.failed.load(Ordering::SeqCst) {
            member.order(Command::Abort);
        }
    }

    /// Removes a shard, keeps what it counted, and drops the connections that it had not taken yet.
    pub(super) fn retire(&self, id: ShardId) {
        let member = {
            let mut retired = self.retired();
            let member = self.write().remove(&id);
            if let Some(member) = &member {
                member.counters.retire_to(&mut retired);
                retired.wakeups += member.mailbox.wakeups();
            }
            member
        };
        for command in member.into_iter().flat_map(|member| member.mailbox.close()) {
            if let Err(panic) = command.discard() {
                tracing::error!(shard = %id, panic = %Logged(&panic), "a command for a shard that has failed panicked");
            }
        }
    }

    pub(super) fn thread_started(&self) {
        *self.running() += 1;
    }

    pub(super) fn thread_ended(&self) {
        let is_last = {
            let mut running = self.running();
            *running -= 1;
            if *running == 0 {
                self.end_events();
                self.resolver.close();
            }
            *running == 0
        };
        if is_last {
            self.gate.finish(ticks(self.uptime()));
        }
        self.changed.notify_all();
    }

    /// The server could not be started: no event will come, unless from threads that run already.
    pub(crate) fn give_up(&self) {
        if *self.running() == 0 {
            self.end_events();
        }
    }

    fn end_events(&self) {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Returns where subscribers are known.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Returns what a shard tells subscribers and the log by.
    pub(super) fn reporter(&self, shard: ShardId, lifetime: Lifetime) -> Reporter {
        let is_standing = lifetime == Lifetime::Server;
        let has_own = is_standing && self.numbers.thread_of(shard) != ShardId::ACCEPTOR;
        let reporter = Reporter::new(shard, self.hub.clone());
        if has_own { reporter } else { Reporter { gate: self.gate.clone(), ..reporter } }
    }

    pub(crate) fn member(&self, id: ShardId) -> Option<RegisteredShard<P>> {
        self.read().get(&id).cloned()
    }

    /// Copied, so that nothing of the user's is dropped while the list is locked.
    fn members(&self) -> Vec<RegisteredShard<P>> {
        self.read().values().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ShardId, RegisteredShard<P>>> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mailbox of a shard, as session handles see it.
    pub(super) fn sender_to(&self, id: ShardId, shard: &RegisteredShard<P>) -> Arc<dyn Deliver> {
        Arc::new(CommandSender {
            server: self.numbers.server(),
            shard: id,
            mailbox: shard.mailbox.clone(),
            outbox_limit: self.limits.outbox_hard,
            panics: self.panics.clone(),
        })
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ShardId, RegisteredShard<P>>> {
        self.shards.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, Metrics> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, usize> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Platform> Route for ShardRegistry<P> {
    fn route(&self, to: SessionId, command: SessionCommand, bytes: usize) -> Result<(), SendError> {
        if !self.numbers.are_of_server_of(to) {
            return Err(SendError::Closed);
        }
        let elsewhere = || self.others().find_map(|other| other.member(to.shard));
        let shard = self.member(to.shard).or_else(elsewhere).ok_or(SendError::Closed)?;
        deliver(&shard.mailbox, to.key, command, bytes).map_err(|undelivered| undelivered.error)
    }
}

impl<P: Platform> Clone for RegisteredShard<P> {
    fn clone(&self) -> Self {
        let Self { mailbox, counters, thread } = self;
        Self { mailbox: mailbox.clone(), counters: counters.clone(), thread: thread.clone() }
    }
}

impl<P: Platform> RegisteredShard<P> {
    fn ask(&self, command: Command<StreamOf<P>>, bytes: usize) -> PostOutcome {
        match post(&self.mailbox, command, bytes) {
            Ok(()) => PostOutcome::Posted,
            Err(Rejected::Full { .. }) => PostOutcome::Full,
            Err(Rejected::Closed { .. }) => PostOutcome::Closed,
        }
    }

    fn order(&self, command: Command<StreamOf<P>>) {
        if matches!(command, Command::Abort) {
            // What is queued is lost anyway, and may take long.
            let _ = self.mailbox.post_control(command);
        } else if let Err(refused) = self.mailbox.post(command, 0) {
            // A shard that has ended need not be stopped.
            let _ = self.mailbox.post_control(refused.into_command());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::runtime::System;
    use crate::sync::{MailboxLimits, Wake};

    struct Silence;

    impl Wake for Silence {
        fn wake(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn member() -> RegisteredShard<System> {
        RegisteredShard {
            mailbox: Arc::new(Mailbox::new(MailboxLimits::default(), Arc::new(Silence))),
            counters: Arc::default(),
            thread: Arc::default(),
        }
    }

    #[test]
    fn numbers_of_forked_shards_that_begin_again_leave_out_those_in_use() {
        const STANDING: u32 = 3;
        let registry = ShardRegistry::new(
            System,
            Admission::new(3, 100, None),
            Limits::default(),
            LayerFactories::default(),
            SocketOptions::default(),
            ShardNumbers::alone(STANDING),
            Publisher::default(),
        );
        (0..STANDING).for_each(|id| registry.enlist(ShardId(id), member()));
        registry.begin_forks_at(u32::MAX - 1);
        registry.enlist(ShardId(STANDING + 1), member());
        let mut forked = Vec::new();
        for _ in 0..5 {
            let id = registry.next_fork();
            registry.enlist(id, member());
            forked.push(id.0);
        }
        assert_eq!(forked, [u32::MAX - 1, u32::MAX, STANDING, STANDING + 2, STANDING + 3]);
        registry.retire(ShardId(STANDING + 2));
        registry.begin_forks_at(0);
        assert_eq!(registry.next_fork(), ShardId(STANDING + 2), "it is free again");
    }
}

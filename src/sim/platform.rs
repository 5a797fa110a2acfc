use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{Call, Net, Network, Probe, SimSys};
use crate::{
    id::ShardId,
    runtime::{HandlerFactory, LookUp, Platform, Resolver, ThreadLauncher},
    sync::Wake,
    time::Tick,
};

/// Threads that take turns: each is a shard that waits to begin, or one that runs, and the test says whose turn it is.
#[derive(Clone)]
pub(crate) struct SimPlatform {
    network: Network,
    /// Started, and not at their first instruction yet.
    waiting: Arc<Mutex<VecDeque<ThreadLauncher<Self>>>>,
    /// Names that are being looked up, and when that is done.
    names: Arc<Mutex<Vec<(Tick, LookUp)>>>,
}

impl SimPlatform {
    pub(super) fn new(network: &Network) -> Self {
        Self { network: network.clone(), waiting: Arc::default(), names: Arc::default() }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Answers who asked for names, as far as the time has come.
    pub(super) fn answer_names(&self) {
        let now = self.network.lock().now;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let (due, later) = names.drain(..).partition(|(at, _)| *at <= now);
        *names = later;
        drop(names);
        for (_, LookUp { name, answer }) in Vec::from_iter::<Vec<_>>(due) {
            let found = self.network.lock().names.get(&name.host).cloned();
            let (found, _) = found.unwrap_or((Err(io::ErrorKind::NotFound), 0));
            answer(name, found.map_err(|kind| Arc::new(kind.into())));
        }
    }

    /// The thread that was started first.
    pub(super) fn next(&self) -> Option<ThreadLauncher<Self>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Platform for SimPlatform {
    type Sys = SimSys;
    type Thread = ();

    fn sys(&self, _origin: Instant) -> io::Result<(SimSys, Arc<dyn Wake>)> {
        self.network.lock().begin(Call::NewPoll)?;
        Ok(SimSys::new(&self.network))
    }

    fn look_up(&self, _resolver: &Resolver, asked: LookUp) -> io::Result<()> {
        let mut net = self.network.lock();
        let after = net.names.get(&asked.name.host).map_or(0, |(_, after)| *after);
        let due = net.now + after;
        net.at(due, Net::wake_all);
        drop(net);
        self.names.lock().unwrap_or_else(PoisonError::into_inner).push((due, asked));
        Ok(())
    }

    fn spawn(&self, _name: String, thread: ThreadLauncher<Self>) -> io::Result<()> {
        self.network.lock().begin(Call::Spawn)?;
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(thread);
        Ok(())
    }
}

/// The handlers of one world, made beforehand.
#[derive(Clone)]
pub(super) struct Probes {
    probes: Arc<Mutex<VecDeque<Probe>>>,
    /// The shard whose handler cannot be made.
    panics: Option<ShardId>,
}

impl Probes {
    pub(super) fn new(probes: impl IntoIterator<Item = Probe>, panics: Option<ShardId>) -> Self {
        Self { probes: Arc::new(Mutex::new(probes.into_iter().collect())), panics }
    }
}

impl HandlerFactory<Probe> for Probes {
    fn factory(&mut self, shard: ShardId) -> Box<dyn FnOnce() -> Probe + Send> {
        let probe = self.probes.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let panics = self.panics == Some(shard);
        Box::new(move || {
            assert!(!panics, "no handler for shard {shard}");
            probe.expect("as many shards as the setup says")
        })
    }
}

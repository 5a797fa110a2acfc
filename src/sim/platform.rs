use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{Call, Network, Probe, SimSys};
use crate::{
    id::ShardId,
    runtime::{HandlerFactory, Platform, ThreadLauncher},
    sync::Wake,
};

/// Threads that take turns: each is a shard that waits to begin, or one that runs, and the test says whose turn it is.
#[derive(Clone)]
pub(crate) struct SimPlatform {
    network: Network,
    /// Started, and not at their first instruction yet.
    waiting: Arc<Mutex<VecDeque<ThreadLauncher<Self>>>>,
}

impl SimPlatform {
    pub(super) fn new(network: &Network) -> Self {
        Self { network: network.clone(), waiting: Arc::default() }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
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

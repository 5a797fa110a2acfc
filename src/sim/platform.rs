use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{Call, Network, Probe, SimSys};
use crate::{
    error::ServeError,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    runtime::{HandlerFactory, Platform, RunningShard, ShardLauncher},
    sync::Wake,
};

/// Threads that take turns: each is a shard that waits to begin, or one that runs, and the test says whose turn it is.
#[derive(Clone)]
pub(crate) struct SimPlatform {
    network: Network,
    /// Started, and not at their first instruction yet.
    waiting: Arc<Mutex<VecDeque<Box<dyn Waiting>>>>,
}

/// A thread that was started.
pub(super) trait Waiting: Send {
    fn begin(self: Box<Self>) -> Result<Box<dyn Running>, ServeError>;
}

/// A thread that runs a shard.
pub(super) trait Running {
    fn id(&self) -> ShardId;
    /// The number of its poll.
    fn epoll(&self) -> Option<usize>;
    fn turn(&mut self) -> Option<Result<(), ServeError>>;
}

impl SimPlatform {
    pub(super) fn new(network: &Network) -> Self {
        Self { network: network.clone(), waiting: Arc::default() }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The thread that was started first.
    pub(super) fn next(&self) -> Option<Box<dyn Waiting>> {
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

    fn spawn<H, F>(&self, _name: String, shard: ShardLauncher<Self, H, F>) -> io::Result<()>
    where
        H: PacketHandler + 'static,
        F: Framing + Clone + Send + 'static,
    {
        self.network.lock().begin(Call::Spawn)?;
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(Box::new(shard));
        Ok(())
    }
}

impl<H, F> Waiting for ShardLauncher<SimPlatform, H, F>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    fn begin(self: Box<Self>) -> Result<Box<dyn Running>, ServeError> {
        Ok(Box::new((*self).begin()?))
    }
}

impl<H, F> Running for RunningShard<SimPlatform, H, F>
where
    H: PacketHandler + 'static,
    F: Framing + Clone,
{
    fn id(&self) -> ShardId {
        self.id()
    }

    fn epoll(&self) -> Option<usize> {
        self.sys().map(SimSys::epoll)
    }

    fn turn(&mut self) -> Option<Result<(), ServeError>> {
        self.turn()
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

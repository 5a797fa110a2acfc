use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{RunningServer, Server};
use crate::{
    addr::Addr,
    contained::Contained,
    error::ServeError,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    limits::Limits,
    reactor::{BoundSocket, Listener, MioSys, NoDispatch, SocketOptions, descriptors_left},
    runtime::{
        AcceptorParts, HandlerFactory, ServerParts, ShardLauncher, ShardRegistry, System, start_workers,
    },
    strategy::{AcceptMode, ForkingStrategy, Resident},
    sync::Admission,
};

/// Standing shards that a server may have. More than there are cores on any machine.
const MAX_WORKERS: usize = 4096;
/// What Linux takes: whole seconds, and no more than 15 bits tell.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);
/// Addresses that a server may have, each with a token of its own.
const MAX_LISTENERS: usize = 1024;
/// Descriptors left to everything else in the process.
const RESERVED: usize = 32;
/// Descriptors of a shard: its poll and its waker.
const PER_SHARD: usize = 2;

/// A handler that is cloned for each shard.
#[derive(Debug, Clone)]
pub struct CloneFactory<H>(pub(super) H);

impl<H: Clone + Send + 'static> HandlerFactory<H> for CloneFactory<H> {
    fn factory(&mut self, _shard: ShardId) -> Box<dyn FnOnce() -> H + Send> {
        let handler = self.0.clone();
        Box::new(move || handler)
    }
}

/// A factory that is called on each shard's thread.
#[derive(Debug)]
pub struct SharedFactory<C>(Arc<Contained<C>>);

impl<C> SharedFactory<C> {
    pub(super) fn new(factory: C) -> Self {
        Self(Arc::new(Contained::new(factory)))
    }
}

impl<C> Clone for SharedFactory<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: 'static, C: Fn(ShardId) -> H + Send + Sync + 'static> HandlerFactory<H> for SharedFactory<C> {
    fn factory(&mut self, shard: ShardId) -> Box<dyn FnOnce() -> H + Send> {
        let factory = self.0.clone();
        Box::new(move || (**factory)(shard))
    }
}

/// Starts every shard on a thread of its own.
pub(super) fn spawn<H, F, S>(server: Server<F>, factory: S) -> Result<RunningServer, ServeError>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    let (mut running, acceptor) = start(server, factory)?;
    running.add(acceptor.spawn().map_err(ServeError::system("start a thread"))?);
    Ok(running)
}

/// The same, with the acceptor's shard on this thread: a single reactor is then a process of a single thread, to which
/// system calls are cheaper.
pub(super) fn serve<H, F, S>(server: Server<F>, factory: S) -> Result<(), ServeError>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    let (running, acceptor) = start(server, factory)?;
    let served = acceptor.run();
    served.and(running.wait())
}

type Started<H, F> = (RunningServer, ShardLauncher<System, H, F>);

/// Listens and starts the workers; the acceptor is ready to start.
fn start<H, F, S>(server: Server<F>, factory: S) -> Result<Started<H, F>, ServeError>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    let Server { sockets, framing, strategy, limits, options, handle } = server;
    let (mut framing, strategy) = (Contained::new(framing), Contained::new(strategy));
    let factory = Contained::new(factory);
    validate(&limits, &**strategy, &options, &sockets)?;
    framing.offer_max(limits.frame);
    let (listeners, workers) = listen(sockets, &**strategy, options)?;

    let standing = strategy.workers() + 1;
    let max_total = most_connections(&limits, standing, strategy.descriptors_per_session());
    let admission = Admission::new(standing, max_total, limits.connections_per_peer);
    let registry = ShardRegistry::new(admission, limits, standing as u32);
    handle.attach::<H>(registry.clone());
    let mut running = RunningServer::new(handle.clone());
    let addrs = handle.local_addrs().to_vec();
    let parts =
        ServerParts { platform: System, registry, framing, factory, strategy, addrs, listeners, workers };
    let acceptor = start_workers(parts, |thread| running.add(thread))?;
    let addrs = handle.local_addrs();
    tracing::info!(?addrs, workers = standing - 1, max_connections = max_total, "serving");
    handle.started();
    Ok((running, acceptor))
}

fn validate(
    limits: &Limits,
    strategy: &dyn ForkingStrategy,
    options: &SocketOptions,
    sockets: &[BoundSocket],
) -> Result<(), ServeError> {
    limits.validate().map_err(ServeError::config)?;
    let config = |option, why: String| Err(ServeError::config((option, why)));
    if options.backlog == 0 {
        return config("backlog", "0 lets nobody connect; give at least 1".into());
    }
    if options.keepalive.is_some_and(|idle| !KEEPALIVE.contains(&idle)) {
        return config("keepalive", "kernels take 1 to 32,767 seconds; leave it out for none".into());
    }
    strategy.validate().map_err(|why| ServeError::config(("strategy", why)))?;
    if sockets.len() > MAX_LISTENERS {
        return config("bind", format!("{} addresses; at most {MAX_LISTENERS} are possible", sockets.len()));
    }
    if strategy.workers() > MAX_WORKERS {
        return config(
            "strategy",
            format!("{} workers; at most {MAX_WORKERS} are possible", strategy.workers()),
        );
    }
    if let AcceptMode::PerWorker { .. } = strategy.accepting() {
        if strategy.workers() == 0 {
            return config("strategy", "workers that accept for themselves, but no workers".into());
        }
        if let Some(socket) = sockets.iter().find(|socket| socket.addr().ip().is_none()) {
            return config("strategy", format!("reuse_port works for TCP only, not for {}", socket.addr()));
        }
    }
    Ok(())
}

type Bound = (Listener, Addr);

/// The listeners of the acceptor, and those of the workers where they accept for themselves.
fn listen(
    sockets: Vec<BoundSocket>,
    strategy: &dyn ForkingStrategy,
    mut options: SocketOptions,
) -> Result<(Vec<Bound>, Vec<AcceptorParts<MioSys>>), ServeError> {
    let named = |socket: BoundSocket, options: &SocketOptions| {
        let addr = socket.addr().to_string();
        socket.listen(options).map_err(|source| ServeError::Bind { addr, source })
    };
    let AcceptMode::PerWorker { max_sessions } = strategy.accepting() else {
        let listeners =
            sockets.into_iter().map(|socket| named(socket, &options)).collect::<Result<_, _>>()?;
        return Ok((listeners, Vec::new()));
    };
    options.reuse_port = true;
    let mut parts = Vec::new();
    for worker in 1..=strategy.workers() {
        let worker = ShardId(worker as u32);
        let strategy: Box<dyn ForkingStrategy> = Box::new(Resident { worker, max_sessions });
        let strategy = Contained::new(strategy);
        parts.push(AcceptorParts { listeners: Vec::new(), strategy, dispatch: Box::new(NoDispatch) });
    }
    for socket in sockets {
        let siblings = socket.siblings(parts.len().saturating_sub(1));
        let siblings =
            siblings.map_err(|source| ServeError::Bind { addr: socket.addr().to_string(), source })?;
        for (parts, socket) in parts.iter_mut().zip(siblings.into_iter().chain([socket])) {
            parts.listeners.push(named(socket, &options)?);
        }
    }
    Ok((Vec::new(), parts))
}

/// As many as asked for; by default as many as the descriptor limit leaves.
fn most_connections(limits: &Limits, shards: usize, each: usize) -> usize {
    if limits.connections > 0 {
        return limits.connections;
    }
    let taken = RESERVED + PER_SHARD * shards;
    descriptors_left().map_or(usize::MAX, |left| (left.saturating_sub(taken) / each.max(1)).max(1))
}

use std::{marker::PhantomData, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    RunningServer, Server, ServerHandle,
    handle::Attached,
    shared_strategy::{Facts, SharedStrategy},
    signals::OnSignal,
};
use crate::{
    addr::Addr,
    contained::Contained,
    error::ServeError,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    limits::Limits,
    reactor::{BoundSocket, Listener, MAX_LISTENERS, MioSys, NoDispatch, SocketOptions, descriptors_left},
    runtime::{
        AcceptorParts, HandlerFactory, ServiceParts, ShardNumbers, ShardRegistry, StartService, System,
        ThreadLauncher, start_workers,
    },
    session::MOST_LAYERS,
    shard::Framings,
    strategy::{AcceptMode, ForkingStrategy, Resident, SingleReactor},
    sync::Admission,
};

/// How many standing shards a server may have: more than any machine has cores.
const MAX_WORKERS: usize = 4096;
/// What Linux accepts: whole seconds, in 15 bits.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);
/// Descriptors left to everything else in the process.
const RESERVED: usize = 32;
/// Descriptors that each thread needs: its poll and its waker.
const PER_THREAD: usize = 2;

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

/// A server with its handlers; their types and that of the framing are erased.
pub(super) trait PendingService: Send {
    fn handle(&self) -> &ServerHandle;

    /// Checks that it can work with this strategy.
    fn validate(&self, strategy: &dyn ForkingStrategy) -> Result<(), ServeError>;

    /// Listens, and makes ready to create the shards. `placing`, the strategy with these `facts` or a share in it, places
    /// connections.
    fn prepare(
        self: Box<Self>,
        facts: Facts,
        placing: Contained<Box<dyn ForkingStrategy>>,
        numbers: ShardNumbers,
        services: usize,
    ) -> Result<Box<dyn StartService<System>>, ServeError>;
}

struct Pending<H, F, S> {
    server: Server<Contained<F>>,
    factory: Contained<S>,
    handler: PhantomData<fn() -> H>,
}

/// Makes a service of a server and its handlers. Returns it with the strategy that the server was given.
pub(super) fn service<H, F, S>(
    server: Server<F>,
    factory: S,
) -> (Box<dyn PendingService>, Contained<Box<dyn ForkingStrategy>>)
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    let factory = Contained::new(factory);
    let Server { sockets, framing, others, layers, strategy, limits, options, on_signal, handle, publisher } =
        server;
    let (framing, strategy) = (Contained::new(framing), Contained::new(strategy));
    let placeholder = Box::new(SingleReactor::new());
    let server = Server {
        sockets,
        framing,
        others,
        layers,
        strategy: placeholder,
        limits,
        options,
        on_signal,
        handle,
        publisher,
    };
    (Box::new(Pending { server, factory, handler: PhantomData::<fn() -> H> }), strategy)
}

impl<H, F, S> PendingService for Pending<H, F, S>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    fn handle(&self) -> &ServerHandle {
        &self.server.handle
    }

    fn validate(&self, strategy: &dyn ForkingStrategy) -> Result<(), ServeError> {
        let Server { sockets, layers, limits, options, .. } = &self.server;
        if layers.len() > MOST_LAYERS {
            let why = format!("{} layers; at most {MOST_LAYERS}", layers.len());
            return Err(ServeError::config(("layer", why)));
        }
        validate(limits, strategy, options, sockets)
    }

    fn prepare(
        self: Box<Self>,
        facts: Facts,
        placing: Contained<Box<dyn ForkingStrategy>>,
        numbers: ShardNumbers,
        services: usize,
    ) -> Result<Box<dyn StartService<System>>, ServeError> {
        let Self { server, factory, .. } = *self;
        let Server { sockets, framing, others, layers, limits, options, handle, publisher, .. } = server;
        let mut framings = Framings::new(framing, others);
        framings.offer_max(limits.frame);
        let listeners = listen(sockets, facts, options.clone())?;
        let standing = facts.workers + 1;
        let most = most_connections(&limits, standing, facts.descriptors, services);
        let admission = Admission::new(standing, most, limits.connections_per_peer);
        let admission = admission.behind(layers.proxies().clone());
        let admission =
            if layers.len() > 0 { admission.with_handshakes(limits.handshakes) } else { admission };
        let registry = ShardRegistry::new(System, admission, limits, layers, options, numbers, publisher);
        handle.attach(vec![Attached::of::<H>(registry.clone())]);
        let addrs = handle.local_addrs();
        let shown = addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        tracing::info!(addrs = %shown, workers = standing - 1, max_connections = most, "serving");
        Ok(Box::new(ServiceParts::<_, H, _, _>::new(
            System, registry, framings, factory, placing, addrs, listeners,
        )))
    }
}

/// What a reactor is started with.
pub(super) struct Starting {
    pub(super) services: Vec<Box<dyn PendingService>>,
    pub(super) strategy: Contained<Box<dyn ForkingStrategy>>,
    pub(super) on_signal: OnSignal,
    /// To all services together.
    pub(super) handle: ServerHandle,
}

impl Starting {
    /// Starts every thread.
    pub(super) fn spawn(self) -> Result<RunningServer, ServeError> {
        let (mut running, acceptor) = self.start()?;
        running.add(acceptor.spawn().map_err(ServeError::system("start a thread"))?);
        Ok(running)
    }

    /// Like `spawn`, with the acceptor's shards on this thread: a single reactor then is a process with a single
    /// thread, whose system calls are cheaper.
    pub(super) fn serve(self) -> Result<(), ServeError> {
        let (running, acceptor) = self.start()?;
        let served = acceptor.run();
        served.and(running.wait())
    }

    /// Listens and starts the workers. Returns the acceptor's thread, ready to start.
    fn start(self) -> Result<(RunningServer, ThreadLauncher<System>), ServeError> {
        let handles: Vec<_> = self.services.iter().map(|service| service.handle().clone()).collect();
        let started = self.start_all(&handles);
        if started.is_err() {
            handles.iter().flat_map(ServerHandle::registries).for_each(|registry| registry.give_up());
        }
        started
    }

    /// Starts the services, whose handles these are.
    fn start_all(
        self,
        handles: &[ServerHandle],
    ) -> Result<(RunningServer, ThreadLauncher<System>), ServeError> {
        let Self { services, strategy, on_signal, handle } = self;
        for service in &services {
            service.validate(&**strategy)?;
        }
        let facts = Facts::of(&**strategy);
        let (count, workers) = (services.len(), facts.workers as u32);
        let addrs = handles.iter().flat_map(ServerHandle::local_addrs).collect();
        let mut numbers = ShardNumbers::of_services(count as u32, workers + 1).into_iter();
        let mut shares = SharedStrategy::shares(strategy, count, addrs).into_iter();
        let mut prepared = Vec::new();
        for service in services {
            let (Some(numbers), Some(share)) = (numbers.next(), shares.next()) else { break };
            prepared.push(service.prepare(facts, share, numbers, count)?);
        }
        let registries: Vec<_> = prepared.iter().map(|service| service.registry().clone()).collect();
        ShardRegistry::join(&registries);
        handle.attach(handles.iter().flat_map(ServerHandle::attached).collect());
        let mut running = RunningServer::new(handle.clone(), on_signal.watch(&handle)?);
        let acceptor = start_workers(&System, workers, &mut prepared, |thread| running.add(thread))?;
        handles.iter().chain([&handle]).for_each(ServerHandle::started);
        Ok((running, acceptor))
    }
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
    check_count(sockets.len())?;
    check_workers(strategy)?;
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

/// Checks how many addresses are bound.
pub(super) fn check_count(addresses: usize) -> Result<(), ServeError> {
    if addresses > MAX_LISTENERS {
        let why = format!("{addresses} addresses; at most {MAX_LISTENERS} are possible");
        return Err(ServeError::config(("bind", why)));
    }
    Ok(())
}

/// Checks how many workers there are.
pub(super) fn check_workers(strategy: &dyn ForkingStrategy) -> Result<(), ServeError> {
    let workers = strategy.workers();
    if workers > MAX_WORKERS {
        let why = format!("{workers} workers; at most {MAX_WORKERS} are possible");
        return Err(ServeError::config(("strategy", why)));
    }
    Ok(())
}

type Bound = (Listener, Addr);

/// Returns the listeners of the acceptor, and those of the workers if they accept for themselves.
fn listen(
    sockets: Vec<BoundSocket>,
    facts: Facts,
    mut options: SocketOptions,
) -> Result<(Vec<Bound>, Vec<AcceptorParts<MioSys>>), ServeError> {
    let named = |socket: BoundSocket, options: &SocketOptions| {
        let addr = socket.addr().to_string();
        socket.listen(options).map_err(|source| ServeError::bind(addr, source))
    };
    let AcceptMode::PerWorker { max_sessions } = facts.accepting else {
        let listeners =
            sockets.into_iter().map(|socket| named(socket, &options)).collect::<Result<_, _>>()?;
        return Ok((listeners, Vec::new()));
    };
    options.reuse_port = true;
    let mut parts = Vec::new();
    for worker in 1..=facts.workers {
        let worker = ShardId(worker as u32);
        let strategy: Box<dyn ForkingStrategy> = Box::new(Resident { worker, max_sessions });
        let strategy = Contained::new(strategy);
        parts.push(AcceptorParts { listeners: Vec::new(), strategy, dispatch: Box::new(NoDispatch) });
    }
    for socket in sockets {
        let siblings = socket.siblings(parts.len().saturating_sub(1));
        let siblings = siblings.map_err(|source| ServeError::bind(socket.addr().to_string(), source))?;
        for (parts, socket) in parts.iter_mut().zip(siblings.into_iter().chain([socket])) {
            parts.listeners.push(named(socket, &options)?);
        }
    }
    Ok((Vec::new(), parts))
}

/// Returns the configured limit of connections; by default what the descriptor limit leaves, shared between the
/// services.
fn most_connections(limits: &Limits, threads: usize, each: usize, services: usize) -> usize {
    if limits.connections > 0 {
        return limits.connections;
    }
    let taken = RESERVED + PER_THREAD * threads;
    let share = |left: usize| left.saturating_sub(taken) / each.max(1) / services.max(1);
    descriptors_left().map_or(usize::MAX, |left| share(left).max(1))
}

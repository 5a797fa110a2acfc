use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use framewire::{
    Addr, Limits, Reactor, RunningServer, ServeError, Server, ServerHandle, SingleReactor, WorkerPool,
    per_shard,
};

use crate::{
    admin::Admin,
    counters::GatewayMetrics,
    keys::{Dialect, Keys},
    limits::GatewayLimits,
    links::{ClientLinks, Door, ServerLinks},
    local::{FEED, Local, Threads},
    protocol::WholeFrames,
    registry::GatewaySnapshot,
    threads::Shared,
};

/// Frames of one server that are forwarded in one turn: what they bring for one client is written to it at once, so many
/// of them cost fewer writes. As many as come with one read of small ones.
const SERVER_FRAMES: usize = 4096;
/// How often connections are closed while a gateway drains.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// A gateway that is being set up.
///
/// ```
/// use framewire_gateway::{Dialect, Gateway, Keys};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = Gateway::new()
///     .clients("127.0.0.1:0")
///     .servers("127.0.0.1:0", Dialect::Md5, Keys::new(["a long secret"])?)
///     .spawn()?;
/// println!("clients connect to {:?}, servers to {:?}", gateway.client_addrs(), gateway.server_addrs());
/// gateway.stop(std::time::Duration::from_secs(1))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a gateway does nothing until it is spawned"]
pub struct Gateway {
    clients: Vec<String>,
    servers: Vec<(String, Dialect, Keys)>,
    admin: Vec<String>,
    limits: GatewayLimits,
    workers: usize,
    reuse_port: bool,
}

impl Gateway {
    /// Begins without an address.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address that clients connect to: `host:port`, `[v6]:port` or `unix:/path`.
    pub fn clients(mut self, addr: impl Into<String>) -> Self {
        self.clients.push(addr.into());
        self
    }

    /// Adds an address that servers connect to, how they prove their key there, and which keys are valid.
    pub fn servers(mut self, addr: impl Into<String>, dialect: Dialect, keys: Keys) -> Self {
        self.servers.push((addr.into(), dialect, keys));
        self
    }

    /// Adds an address of the status page: `/`, `/status.json`, and `/metrics` for Prometheus, over plain HTTP and
    /// without a log-in. 64 connections at most.
    pub fn admin(mut self, addr: impl Into<String>) -> Self {
        self.admin.push(addr.into());
        self
    }

    /// What the gateway allows.
    pub fn limits(mut self, limits: GatewayLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves on this many threads beside the one that accepts. With 0, the default, one thread does everything, which
    /// costs least for each frame: ends of a connection that are on the same thread need no lock.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Gives each worker listeners of its own (`SO_REUSEPORT`), for clients, servers and the status page: it accepts for
    /// itself, and no link is handed over. Worthwhile where very many clients come and go; the kernel spreads them by a
    /// hash of their addresses, which is uneven for few. TCP only; [`spawn`](Self::spawn) fails without
    /// [`workers`](Self::workers).
    pub fn reuse_port(mut self) -> Self {
        self.reuse_port = true;
        self
    }

    /// Binds the addresses, and starts the gateway on threads of its own.
    ///
    /// # Errors
    /// [`ServeError::Bind`] and [`ServeError::Address`] if an address cannot be bound, also if there is none of a side;
    /// [`ServeError::Config`] for [`reuse_port`](Self::reuse_port) without workers, or with an address that is not one of
    /// TCP; otherwise as for [`Server::spawn`].
    pub fn spawn(self) -> Result<RunningGateway, ServeError> {
        let Self { clients, servers, admin, limits, workers, reuse_port } = self;
        let framing = WholeFrames::new(limits.max_length);
        let client_limits = of_both(&limits).connections(limits.clients).idle_timeout(limits.ping_interval);
        let clients = Server::bind(clients)?.limits(client_limits).framing(framing.clone());
        let (servers, doors) = server_side(servers, &limits, &framing)?;

        let shared = Arc::new(Shared::new(limits));
        let mut handles = vec![clients.handle(), servers.handle()];
        let threads = Arc::new(Threads::new(shared.clone(), [clients.handle(), servers.handle()]));
        let doors = Arc::new(RwLock::new(doors));
        let (here, there, valid) = (threads.clone(), threads.clone(), doors.clone());
        let mut reactor = match (workers, reuse_port) {
            (0, false) => Reactor::new(SingleReactor::new()),
            (_, false) => Reactor::new(WorkerPool::new(workers)),
            (_, true) => Reactor::new(WorkerPool::new(workers).reuse_port()),
        };
        reactor = reactor
            .service(clients, per_shard(move |_| ClientLinks::new(Local::of(&here))))
            .service(servers, per_shard(move |_| ServerLinks::new(Local::of(&there), valid.clone())));
        if !admin.is_empty() {
            let page = Server::bind(admin)?.limits(Admin::limits()).framing(Admin::framing());
            handles.push(page.handle());
            reactor = reactor.service(page, Admin::new(shared));
        }
        Ok(RunningGateway { running: reactor.spawn()?, handles, threads, doors })
    }
}

/// Binds the addresses of the servers. Returns also who may come in at which.
fn server_side(
    addrs: Vec<(String, Dialect, Keys)>,
    limits: &GatewayLimits,
    framing: &WholeFrames,
) -> Result<(Server<WholeFrames>, Vec<Door>), ServeError> {
    let mut addrs = addrs.into_iter();
    let first = addrs.next();
    let (addr, door) =
        first.map(|(addr, dialect, keys)| (vec![addr], Some(Door { dialect, keys }))).unwrap_or_default();
    let after = |door: &Door| framing.clone().after(door.dialect.answer_len());
    let server = Server::bind(addr)?;
    let server = server.limits(
        of_both(limits)
            .connections(limits.servers)
            .first_packet_timeout(limits.handshake)
            .packet_budget(SERVER_FRAMES),
    );
    let mut doors = vec![];
    let mut server = match door {
        Some(door) => {
            // A name may stand for several addresses.
            doors.resize(server.local_addrs().len(), door.clone());
            server.framing(after(&door))
        }
        None => server.framing(framing.clone()),
    };
    for (addr, dialect, keys) in addrs {
        let door = Door { dialect, keys };
        server = server.also(addr, after(&door))?;
        doors.resize(server.local_addrs().len(), door);
    }
    Ok((server, doors))
}

/// What holds for the links of both sides.
fn of_both(limits: &GatewayLimits) -> Limits {
    let frame = 4 + limits.max_length as usize;
    Limits::default()
        .frame(frame)
        .outbox_high(FEED)
        .outbox_low(FEED / 2)
        // One frame more than what is fed to an outbox, and a ping.
        .outbox_hard(FEED + frame + 1024)
        .packet_timeout(limits.ping_interval)
}

/// A gateway that runs. Dropping it stops it.
#[must_use = "dropping a running gateway stops it"]
pub struct RunningGateway {
    running: RunningServer,
    /// Of the clients, of the servers, and of the page if there is one.
    handles: Vec<ServerHandle>,
    threads: Arc<Threads>,
    /// By the number of the listener.
    doors: Arc<RwLock<Vec<Door>>>,
}

impl RunningGateway {
    /// Returns the addresses that clients connect to.
    #[must_use]
    pub fn client_addrs(&self) -> Vec<Addr> {
        self.addrs(0)
    }

    /// Returns the addresses that servers connect to.
    #[must_use]
    pub fn server_addrs(&self) -> Vec<Addr> {
        self.addrs(1)
    }

    /// Returns the addresses of the status page; none if it is off.
    #[must_use]
    pub fn admin_addrs(&self) -> Vec<Addr> {
        self.addrs(2)
    }

    fn addrs(&self, service: usize) -> Vec<Addr> {
        self.handles.get(service).map(ServerHandle::local_addrs).unwrap_or_default()
    }

    /// Returns what ends the gateway from another thread.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.running.handle()
    }

    /// Returns what the gateway has counted.
    #[must_use]
    pub fn metrics(&self) -> GatewayMetrics {
        self.threads.shared.metrics()
    }

    /// Returns how many clients and virtual connections there are now, and the links of the servers.
    #[must_use]
    pub fn snapshot(&self) -> GatewaySnapshot {
        self.threads.shared.registry.snapshot()
    }

    /// Replaces the keys that are valid at the `address`-th address of the servers, counted from 0. Servers that are
    /// connected stay. Does nothing if there is no such address.
    pub fn set_keys(&self, address: usize, keys: Keys) {
        if let Some(door) = self.doors.write().unwrap_or_else(PoisonError::into_inner).get_mut(address) {
            door.keys = keys;
        }
    }

    /// Replaces the limits, for the links that are there too. `max_length`, `clients`, `servers`, `handshake` and `ping_interval`
    /// stay as they were when the gateway was started.
    pub fn set_limits(&self, limits: GatewayLimits) {
        self.threads.shared.set_limits(limits);
        for thread in 0..self.threads.count() {
            self.threads.call(thread, |links, _| links.reload());
        }
    }

    /// Takes no new clients and refuses dials from now on, and closes the virtual connections, spread over `time`, so
    /// that clients do not come back all at once elsewhere. Returns when none is left, or a second later.
    pub fn drain(&self, time: Duration) {
        self.threads.shared.registry.drain();
        let began = Instant::now();
        loop {
            let left = self.snapshot().connections;
            let passed = began.elapsed();
            if left == 0 || passed > time + Duration::from_secs(1) {
                return;
            }
            let steps = time.saturating_sub(passed).as_millis() / DRAIN_STEP.as_millis() + 1;
            let share = left.div_ceil(usize::try_from(steps).unwrap_or(usize::MAX));
            let threads = self.threads.count();
            for thread in 0..threads {
                // Threads with fewer than the others leave the rest to the next steps.
                let share = share.div_ceil(usize::from(threads));
                self.threads.call(thread, move |links, shard| {
                    links.close_some(share, shard);
                });
            }
            thread::sleep(DRAIN_STEP);
        }
    }

    /// Closes all links, within `grace`, and ends the threads.
    ///
    /// # Errors
    /// As for [`RunningServer::stop`].
    pub fn stop(self, grace: Duration) -> Result<(), ServeError> {
        self.running.stop(grace)
    }

    /// Waits until the gateway has ended.
    ///
    /// # Errors
    /// As for [`RunningServer::wait`].
    pub fn wait(self) -> Result<(), ServeError> {
        self.running.wait()
    }
}

impl fmt::Debug for RunningGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningGateway")
            .field("clients", &self.client_addrs())
            .field("servers", &self.server_addrs())
            .finish_non_exhaustive()
    }
}

//! Endpoints on a framewire reactor: the same [`PacketHandler`] that serves connections serves virtual connections.

mod carry;
mod error;
mod handle;
mod link;
mod pending;

use std::{fmt, sync::Arc, time::Duration};

use framewire::{
    Dial, ForkingStrategy, Handlers, Limits, PacketHandler, Reactor, Reconnect, ServeError, Server, ShardId,
    SingleReactor, per_shard,
};

pub use carry::Virtual;
pub use error::VirtualDialError;
pub use handle::{DialNumber, EndpointHandle, RunningEndpoint};

use self::{
    carry::Frames,
    handle::Shared,
    link::{LinkHandler, Role},
};
use crate::{
    keys::Dialect,
    protocol::{DEFAULT_MAX_LENGTH, WholeFrames},
};

/// How an endpoint talks to its gateways.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// The largest LENGTH of a frame, in bytes: that of the gateways. Default 524,288. So a message may have 524,284
    /// bytes: `send` returns an error for a longer one.
    pub max_length: u32,
    /// When a link that has ended, or could not be made, is made again. Default: after random pauses of up to 100 ms, which double
    /// up to 10 s.
    pub reconnect: Reconnect,
    /// The time for connecting to an address of a gateway, and for its challenge. Default 10 s.
    pub timeout: Duration,
    /// A link ends if nothing comes from the gateway for so long. Default 75 s: a gateway pings every 30 s.
    pub silence: Duration,
    /// Bytes that may wait for a virtual connection that takes no packets, see [`Server::inbox`]: beyond it the virtual
    /// connection is closed, and the others go on. Default 1 MiB.
    pub inbox: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            max_length: DEFAULT_MAX_LENGTH,
            reconnect: Reconnect::exponential(Duration::from_millis(100), Duration::from_secs(10)),
            timeout: Duration::from_secs(10),
            silence: Duration::from_secs(75),
            inbox: 1024 * 1024,
        }
    }
}

/// A server behind gateways. It dials each of them, proves its key, and serves the virtual connections of clients with
/// the handler that it would serve their connections with: **a server moves behind the gateway by changing one line**.
///
/// ```no_run
/// use framewire::packet_fn;
/// use framewire_gateway::ServerEndpoint;
///
/// # fn main() -> Result<(), framewire::ServeError> {
/// let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
/// // Server::bind("0.0.0.0:7000")?.framing(LengthPrefix::u32_be()).serve(echo)
/// ServerEndpoint::new(["gateway-1:7001", "gateway-2:7001"], 1, "a long secret").serve(echo)
/// # }
/// ```
///
/// A virtual connection is a session: see [`Server::carried`]. [`Virtual::of`] tells its client, and by which gateway it came.
/// If a link ends, its sessions end with [`CloseReason::CarrierLost`](framewire::CloseReason::CarrierLost), and the link is made again.
#[must_use = "an endpoint does nothing until it is served"]
pub struct ServerEndpoint {
    setup: Setup,
}

/// A client of gateways, with virtual connections to the servers behind them: several over each link.
///
/// ```no_run
/// use std::time::Duration;
/// use framewire::session_fn;
/// use framewire_gateway::ClientEndpoint;
///
/// # fn main() -> Result<(), framewire::ServeError> {
/// let client = session_fn(
///     |session| Ok(session.send("hello")?),
///     |_, (), reply| Ok(println!("{}", String::from_utf8_lossy(reply))),
/// );
/// let endpoint = ClientEndpoint::new(["gateway-1:7000"]).spawn(client)?;
/// endpoint.wait_connected(Duration::from_secs(5));
/// endpoint.handle().dial(1, Duration::from_secs(5), |dialed| {
///     if let Err(error) = dialed {
///         eprintln!("server 1 cannot be reached: {error}");
///     }
/// });
/// # endpoint.wait()
/// # }
/// ```
///
/// What servers dial is accepted, up to [`Limits::connections`] sessions in all.
#[must_use = "an endpoint does nothing until it is served"]
pub struct ClientEndpoint {
    setup: Setup,
}

struct Setup {
    role: Role,
    gateways: Vec<String>,
    limits: Limits,
    options: LinkOptions,
    strategy: Box<dyn ForkingStrategy>,
}

impl ServerEndpoint {
    /// A server with this ID at these gateways (`host:port` of their servers' side, or `unix:/path`), which know the key. An empty key is
    /// what gateways take that are open to all.
    pub fn new<A: Into<String>>(
        gateways: impl IntoIterator<Item = A>,
        id: u32,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        let role = Role::Server { id, key: Arc::new(key.into()), dialect: Dialect::Md5 };
        Self { setup: Setup::new(role, gateways) }
    }

    /// How the key is proved. Default [`Dialect::Md5`].
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        if let Role::Server { dialect: ours, .. } = &mut self.setup.role {
            *ours = dialect;
        }
        self
    }

    /// The limits of virtual connections. [`Limits::frame`] is at most what the gateway forwards.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setup.limits = limits;
        self
    }

    /// How the endpoint talks to its gateways.
    pub fn options(mut self, options: LinkOptions) -> Self {
        self.setup.options = options;
        self
    }

    /// The threads: the links are spread over the workers of a pool, and virtual connections live where their link does.
    /// Default: one thread. [`ThreadPerConnection`](framewire::ThreadPerConnection) is refused.
    pub fn strategy(mut self, strategy: impl ForkingStrategy + 'static) -> Self {
        self.setup.strategy = Box::new(strategy);
        self
    }

    /// Serves until a shutdown, as [`Server::serve`].
    ///
    /// # Errors
    /// As for [`Server::serve`]. A gateway that cannot be reached is no error: it is dialed again.
    pub fn serve<H: PacketHandler + 'static>(self, handlers: impl Handlers<H>) -> Result<(), ServeError> {
        self.setup.reactor(handlers).0.run()
    }

    /// Serves on threads of its own, as [`Server::spawn`].
    ///
    /// # Errors
    /// As for [`serve`](Self::serve).
    pub fn spawn<H: PacketHandler + 'static>(
        self,
        handlers: impl Handlers<H>,
    ) -> Result<RunningEndpoint, ServeError> {
        self.setup.spawn(handlers)
    }
}

impl ClientEndpoint {
    /// A client of these gateways (`host:port` of their clients' side, or `unix:/path`).
    pub fn new<A: Into<String>>(gateways: impl IntoIterator<Item = A>) -> Self {
        Self { setup: Setup::new(Role::Client, gateways) }
    }

    /// The limits of virtual connections. [`Limits::frame`] is at most what the gateway forwards.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setup.limits = limits;
        self
    }

    /// How the endpoint talks to its gateways.
    pub fn options(mut self, options: LinkOptions) -> Self {
        self.setup.options = options;
        self
    }

    /// The threads, as for [`ServerEndpoint::strategy`].
    pub fn strategy(mut self, strategy: impl ForkingStrategy + 'static) -> Self {
        self.setup.strategy = Box::new(strategy);
        self
    }

    /// Serves on threads of its own, as [`Server::spawn`].
    ///
    /// # Errors
    /// As for [`Server::serve`]. A gateway that cannot be reached is no error: it is dialed again.
    pub fn spawn<H: PacketHandler + 'static>(
        self,
        handlers: impl Handlers<H>,
    ) -> Result<RunningEndpoint, ServeError> {
        self.setup.spawn(handlers)
    }
}

impl fmt::Debug for ServerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerEndpoint").field("gateways", &self.setup.gateways).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientEndpoint").field("gateways", &self.setup.gateways).finish_non_exhaustive()
    }
}

impl Setup {
    fn new<A: Into<String>>(role: Role, gateways: impl IntoIterator<Item = A>) -> Self {
        Self {
            role,
            gateways: gateways.into_iter().map(Into::into).collect(),
            limits: Limits::default(),
            options: LinkOptions::default(),
            strategy: Box::new(SingleReactor::new()),
        }
    }

    /// Makes the services of the links and of the virtual connections.
    fn reactor<H: PacketHandler + 'static>(self, handlers: impl Handlers<H>) -> (Reactor, EndpointHandle) {
        let Self { role, gateways, limits, options, strategy } = self;
        let framing = WholeFrames::new(options.max_length).after(role.challenge_len());
        let links = Server::unbound().limits(role.limits(&options)).framing(framing);
        let carried = Server::carried(Frames::new(options.max_length)).limits(limits).inbox(options.inbox);
        let (streams, workers) = (carried.streams(), strategy.workers());
        let shared = Arc::new(Shared::new(gateways.len()));
        let handle = EndpointHandle::new(links.handle(), carried.handle(), shared.clone());
        let handler = per_shard(move |shard: ShardId| {
            let is_here =
                |gateway: usize| shard.index() == if workers == 0 { 0 } else { 1 + gateway % workers };
            let here = gateways.iter().enumerate().filter(|(gateway, _)| is_here(*gateway));
            let dial =
                |addr: &String| Dial::to(addr).timeout(options.timeout).reconnect(options.reconnect.clone());
            let dials = here.map(|(gateway, addr)| (gateway, dial(addr))).collect();
            LinkHandler::new(role.clone(), streams.clone(), shared.clone(), dials)
        });
        (Reactor::new(strategy).service(links, handler).service(carried, handlers), handle)
    }

    fn spawn<H: PacketHandler + 'static>(
        self,
        handlers: impl Handlers<H>,
    ) -> Result<RunningEndpoint, ServeError> {
        let (reactor, handle) = self.reactor(handlers);
        Ok(RunningEndpoint::new(reactor.spawn()?, handle))
    }
}

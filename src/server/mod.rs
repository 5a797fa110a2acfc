//! What users hold: a server to build, one that runs, and a handle to it.

mod bind;
mod handle;
mod handlers;
mod reactor;
mod running;
mod shared_strategy;
mod start;

use std::{fmt, time::Duration};

pub use bind::BindAddr;
pub use handle::ServerHandle;
pub use handlers::{Handlers, PerShard, per_shard};
pub use reactor::Reactor;
pub use running::RunningServer;

use self::start::{Starting, service};
use crate::{
    addr::Addr,
    error::ServeError,
    framing::Framing,
    handler::PacketHandler,
    layer::Layer,
    limits::Limits,
    reactor::{BoundSocket, SocketOptions},
    shard::LayerFactories,
    strategy::{ForkingStrategy, NewConnection, SingleReactor},
};

/// A server that is being built: its addresses are bound, and clients that connect already wait until it serves.
///
/// | option | default |
/// |---|---|
/// | [`framing`](Self::framing) | none: it must be given |
/// | [`strategy`](Self::strategy) | [`SingleReactor`] |
/// | [`layer`](Self::layer) | none: frames are on the wire as they are |
/// | [`limits`](Self::limits) | see [`Limits`] |
/// | [`backlog`](Self::backlog) | 4096, which the kernel cuts to `net.core.somaxconn` |
/// | [`nagle`](Self::nagle) | off: `TCP_NODELAY` is set |
/// | [`keepalive`](Self::keepalive) | off |
/// | [`recv_buffer`](Self::recv_buffer), [`send_buffer`](Self::send_buffer) | the kernel's, which adapt |
///
/// ```no_run
/// use framewire::{packet_fn, LengthPrefix, Server, WorkerPool};
///
/// # fn main() -> Result<(), framewire::ServeError> {
/// Server::bind("127.0.0.1:7000")?
///     .framing(LengthPrefix::u32_be())
///     .strategy(WorkerPool::per_core())
///     .serve(packet_fn(|session, packet| Ok(session.send(packet)?)))
/// # }
/// ```
#[must_use = "a server does nothing until it is served or spawned"]
pub struct Server<F = Unframed> {
    sockets: Vec<BoundSocket>,
    framing: F,
    layers: LayerFactories,
    strategy: Box<dyn ForkingStrategy>,
    limits: Limits,
    options: SocketOptions,
    handle: ServerHandle,
}

/// The framing of a server that was not given one yet; it cannot be served.
#[derive(Debug, Clone, Copy)]
pub struct Unframed;

impl Server<Unframed> {
    /// Binds one address, or several: `"127.0.0.1:7000"`, `"[::1]:7000"`, `"localhost:0"`, `"unix:/run/chat.sock"`,
    /// `("0.0.0.0", 7000)`, a `SocketAddr`, a path, or an array, slice or `Vec` of such. Port 0 takes a free one: ask
    /// [`local_addrs`](Self::local_addrs).
    ///
    /// A name with several addresses is bound at the first that can be. An IPv6 wildcard takes IPv6 only: bind
    /// `["0.0.0.0:7000", "[::]:7000"]` for both. The file of a Unix socket is removed when the server stops
    /// listening, unless another server has put its own there by then; one that a dead server left behind is replaced. While
    /// that is done a lock is held on a file beside it, with `.lock` after its name: of servers that start at once one gets
    /// the path.
    ///
    /// # Errors
    /// [`ServeError::Address`] for a text that names no address, [`ServeError::Bind`] for one that is taken or not ours;
    /// both name it.
    pub fn bind(addrs: impl BindAddr) -> Result<Self, ServeError> {
        Self::with_sockets(bind::bind(addrs, false)?)
    }

    /// As [`bind`](Self::bind), with `SO_REUSEPORT`: several processes may serve the same TCP address, and the kernel
    /// spreads connections over them. That is how one machine holds more connections than one process has descriptors.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_shared(addrs: impl BindAddr) -> Result<Self, ServeError> {
        let mut server = Self::with_sockets(bind::bind(addrs, true)?)?;
        server.options.reuse_port = true;
        Ok(server)
    }

    fn with_sockets(sockets: Vec<BoundSocket>) -> Result<Self, ServeError> {
        let handle = ServerHandle::new(sockets.iter().map(|socket| socket.addr().clone()).collect());
        Ok(Self {
            handle,
            sockets,
            framing: Unframed,
            layers: LayerFactories::default(),
            strategy: Box::new(SingleReactor::new()),
            limits: Limits::default(),
            options: SocketOptions::default(),
        })
    }
}

impl<F> Server<F> {
    /// How packets are cut from the stream; each session gets a clone.
    pub fn framing<G: Framing + Clone + Send + 'static>(self, framing: G) -> Server<G> {
        let Self { sockets, layers, strategy, limits, options, handle, .. } = self;
        Server { sockets, framing, layers, strategy, limits, options, handle }
    }

    /// Puts a layer between each connection and its framing, made by `make` when it arrives. May be called several times: each
    /// further layer stands nearer to the framing.
    pub fn layer<L: Layer + 'static>(
        mut self,
        make: impl Fn(&NewConnection<'_>) -> L + Send + Sync + 'static,
    ) -> Self {
        self.layers.push(make);
        self
    }

    /// Where connections live, and so how many handlers there are: one on each shard, which see each other's fields only
    /// where they share an `Arc` (see [`serve`](Self::serve)).
    pub fn strategy(mut self, strategy: impl ForkingStrategy + 'static) -> Self {
        self.strategy = Box::new(strategy);
        self
    }

    /// The limits of sessions, shards and the server.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Connections that may wait to be accepted.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.options.backlog = connections;
        self
    }

    /// Lets the kernel hold small writes back to join them (Nagle). Whole frames are written here, so this costs
    /// latency and gains little.
    pub fn nagle(mut self) -> Self {
        self.options.nodelay = false;
        self
    }

    /// Lets the kernel probe peers that have been silent for `idle` (`SO_KEEPALIVE`): 1 s to 32,767 s, anything else is a
    /// [`ServeError::Config`] when the server starts. Cut to whole seconds.
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.options.keepalive = Some(idle);
        self
    }

    /// The kernel's receive buffer of each connection, in bytes (`SO_RCVBUF`; Linux doubles it).
    pub fn recv_buffer(mut self, bytes: usize) -> Self {
        self.options.recv_buffer = Some(bytes);
        self
    }

    /// The kernel's send buffer of each connection, in bytes (`SO_SNDBUF`; Linux doubles it).
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.options.send_buffer = Some(bytes);
        self
    }

    /// A handle to the server that this becomes.
    ///
    /// ```
    /// use std::{thread, time::Duration};
    /// use framewire::{Separator, Server, packet_fn};
    ///
    /// # fn main() -> Result<(), framewire::ServeError> {
    /// let server = Server::bind("127.0.0.1:0")?.framing(Separator::lines());
    /// let handle = server.handle();
    /// thread::spawn(move || handle.shutdown(Duration::from_secs(5)));
    /// server.serve(packet_fn(|session, packet| Ok(session.send(packet)?)))
    /// # }
    /// ```
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// The addresses that are bound, with the ports that the system chose.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<Addr> {
        self.handle.local_addrs().to_vec()
    }
}

// The bound on the framing stands at each method, so that the compiler says what is missing where none was given.
impl<F> Server<F> {
    /// Serves for as long as the process lives, or until a reactor fails: for a server that can be stopped or asked, see
    /// [`spawn`](Self::spawn). The acceptor, and with a single reactor everything, runs on the calling thread.
    ///
    /// Each shard has a handler of its own, a clone of this one or one made by [`per_shard`](crate::per_shard): what it keeps
    /// in a field is known to the sessions of its shard only, and what all are to share belongs behind an `Arc`. See
    /// [`Handlers`].
    ///
    /// When a [`handle`](Self::handle) shuts the server down, this returns once every shard has ended, however long a
    /// callback blocks, on this thread or on another: a deadline that holds then too takes [`spawn`](Self::spawn) and
    /// [`RunningServer::stop`].
    ///
    /// # Errors
    /// [`ServeError::Config`] names an option that cannot work, [`ServeError::System`] says what the system refused;
    /// also later, when a reactor fails. [`ServeError::Factory`] when the closure of `per_shard` panics.
    pub fn serve<H>(self, handlers: impl Handlers<H>) -> Result<(), ServeError>
    where
        F: Framing + Clone + Send + 'static,
        H: PacketHandler + 'static,
    {
        self.starting(handlers).serve()
    }

    /// As [`serve`](Self::serve), on other threads; returns the server that runs: keep it, since dropping it stops it.
    ///
    /// # Errors
    /// As [`serve`](Self::serve); a reactor or `per_shard` that fails later is told by [`RunningServer::wait`].
    pub fn spawn<H>(self, handlers: impl Handlers<H>) -> Result<RunningServer, ServeError>
    where
        F: Framing + Clone + Send + 'static,
        H: PacketHandler + 'static,
    {
        self.starting(handlers).spawn()
    }

    fn starting<H>(self, handlers: impl Handlers<H>) -> Starting
    where
        F: Framing + Clone + Send + 'static,
        H: PacketHandler + 'static,
    {
        let (service, strategy) = service(self, handlers.into_factory());
        let handle = service.handle().clone();
        Starting { services: vec![service], strategy, handle }
    }
}

impl<F> fmt::Debug for Server<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addrs", &self.local_addrs())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

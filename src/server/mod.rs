//! The facade: the server that users build, the server that runs, and the handle to it.

mod bind;
mod broadcast;
mod carried;
mod connect;
mod datagram;
mod handle;
mod handlers;
#[cfg(feature = "prometheus")]
mod prometheus;
mod reactor;
mod running;
mod shared_strategy;
#[cfg_attr(not(all(unix, feature = "signals")), path = "no_signals.rs")]
mod signals;
mod start;
mod transport;

use std::{fmt, time::Duration};

pub use carried::Carried;
pub use datagram::Datagram;
pub use handle::ServerHandle;
pub use handlers::{Handlers, PerShard, per_shard};
pub use reactor::Reactor;
pub use running::RunningServer;
pub use transport::Transport;

pub(crate) use bind::bind;

use self::{signals::OnSignal, start::Starting};
#[cfg(feature = "websocket")]
use crate::websocket::WebSocket;
use crate::{
    addr::{Addr, BindAddr, NewConnection},
    error::ServeError,
    events::Publisher,
    framing::Framing,
    handler::PacketHandler,
    layer::{Layer, LayerFactories, ProxyProtocol, Sniff},
    limits::Limits,
    reactor::{BoundSocket, SocketOptions},
    shard::OtherFramings,
    strategy::{ForkingStrategy, SingleReactor},
};

/// A server that is being built. Its addresses are bound already; clients that connect early wait until it serves.
///
/// | option | default |
/// |---|---|
/// | [`framing`](Self::framing) | none: you must give one |
/// | [`also`](Self::also) | none: all listeners have that framing |
/// | [`strategy`](Self::strategy) | [`SingleReactor`] |
/// | [`layer`](Self::layer), `tls` (feature `tls`) | none: frames go over the wire as they are |
/// | [`proxy_protocol`](Self::proxy_protocol) | off: clients have the addresses of their connections |
/// | [`limits`](Self::limits) | see [`Limits`] |
/// | [`backlog`](Self::backlog) | 4096, which the kernel cuts to `net.core.somaxconn` |
/// | [`nagle`](Self::nagle) | off: `TCP_NODELAY` is set |
/// | [`keepalive`](Self::keepalive) | off |
/// | [`beyond`](Self::beyond) | UDP: peers above the limit are refused |
/// | [`recv_buffer`](Self::recv_buffer), [`send_buffer`](Self::send_buffer) | chosen and adapted by the kernel |
/// | `stop_on_signal` (feature `signals`) | off: SIGINT and SIGTERM kill the process |
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
    others: OtherFramings,
    layers: LayerFactories,
    strategy: Box<dyn ForkingStrategy>,
    limits: Limits,
    options: SocketOptions,
    on_signal: OnSignal,
    handle: ServerHandle,
    /// Ends what [`ServerHandle::events`] has returned if the server never serves.
    publisher: Publisher,
}

/// Stands for the framing of a server that was not given one yet. Such a server cannot serve.
#[derive(Debug, Clone, Copy)]
pub struct Unframed;

impl Server<Unframed> {
    /// Binds one address, or several: `"127.0.0.1:7000"`, `"[::1]:7000"`, `"localhost:0"`, `"unix:/run/chat.sock"`,
    /// `("0.0.0.0", 7000)`, a `SocketAddr`, a path, or an array, slice or `Vec` of these. Port 0 takes a free port,
    /// which [`local_addrs`](Self::local_addrs) returns.
    ///
    /// A name with several addresses is bound to the first of them that works. An IPv6 wildcard accepts IPv6 only: bind
    /// `["0.0.0.0:7000", "[::]:7000"]` for both. The file of a Unix socket is removed when the server stops listening,
    /// unless another server has put its own there by then; a file that a dead server left behind is replaced. While it
    /// does so, the server holds a lock on a file beside it, of the same name with `.lock` appended: of several servers
    /// that start at the same time, only one gets the path.
    ///
    /// # Errors
    /// [`ServeError::Address`] for a text that names no address, [`ServeError::Bind`] for an address that is taken or
    /// does not belong to this machine. Both name the address.
    pub fn bind(addrs: impl BindAddr) -> Result<Self, ServeError> {
        Ok(Self::with_sockets(bind::bind(addrs, false)?))
    }

    /// A server that is bound to no address and accepts no connections: its sessions are those that it [dials](crate::Dial).
    ///
    /// ```
    /// use std::{sync::mpsc::channel, time::Duration};
    /// use framewire::{Dial, Handled, Separator, Server, SessionFn, session_fn, packet_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    /// let echo = Server::bind("127.0.0.1:0")?.framing(Separator::lines()).spawn(echo)?;
    ///
    /// let (heard, replies) = channel();
    /// let client = session_fn(
    ///     |session| Ok(session.send("hello")?),
    ///     move |_, (), reply| Ok(heard.send(reply.to_vec())?),
    /// );
    /// let client = Server::unbound().framing(Separator::lines()).spawn(client)?;
    /// let _upstream = client.connect(Dial::to(echo.local_addr().ok_or("not TCP")?))?;
    /// assert_eq!(replies.recv()?, b"hello");
    ///
    /// client.stop(Duration::from_secs(5))?;
    /// echo.stop(Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn unbound() -> Self {
        Self::with_sockets(Vec::new())
    }

    /// Like [`bind`](Self::bind), with `SO_REUSEPORT`: several processes may serve the same TCP address, and the kernel
    /// spreads connections over them. In this way one machine can hold more connections than one process has
    /// descriptors.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_shared(addrs: impl BindAddr) -> Result<Self, ServeError> {
        let mut server = Self::with_sockets(bind::bind(addrs, true)?);
        server.options.reuse_port = true;
        Ok(server)
    }

    /// Sets how packets are cut from the stream. Each session gets a clone.
    pub fn framing<G: Framing + Clone + Send + 'static>(self, framing: G) -> Server<G> {
        let Self { sockets, others, layers, strategy, limits, options, on_signal, handle, publisher, .. } =
            self;
        Server { sockets, framing, others, layers, strategy, limits, options, on_signal, handle, publisher }
    }

    fn with_sockets(sockets: Vec<BoundSocket>) -> Self {
        let publisher = Publisher::default();
        let addrs = sockets.iter().map(|socket| socket.addr().clone()).collect();
        Self {
            handle: ServerHandle::new(addrs, publisher.hub().clone()),
            publisher,
            sockets,
            framing: Unframed,
            others: OtherFramings::default(),
            layers: LayerFactories::default(),
            strategy: Box::new(SingleReactor::new()),
            limits: Limits::default(),
            options: SocketOptions::default(),
            on_signal: OnSignal::default(),
        }
    }
}

impl<F> Server<F> {
    /// Binds further addresses, whose sessions have a framing of their own. Everything else is common to all listeners:
    /// the handler, the strategy, the layers, the limits and the counters. Each session gets a clone of the framing,
    /// which is offered [`Limits::frame`] as its maximum.
    ///
    /// The addresses follow those that were bound before, in [`local_addrs`](Self::local_addrs) and in the numbers that
    /// [`NewConnection::listener`] returns. This may be called several times; a server may have at most 1024 listeners.
    /// A server that was bound with [`bind_shared`](Self::bind_shared) shares these addresses too.
    ///
    /// The framing of such a session is on the heap, as one that was set by
    /// [`Session::set_framing`](crate::Session::set_framing) is. For listeners with another handler, see [`Reactor`].
    ///
    /// ```
    /// use std::{io::{Read, Write}, net::TcpStream, time::Duration};
    /// use framewire::{LengthPrefix, Separator, Server, packet_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::bind("127.0.0.1:0")?
    ///     .framing(LengthPrefix::u32_be())
    ///     .also("127.0.0.1:0", Separator::lines())? // for people
    ///     .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
    ///
    /// for (addr, frame) in server.local_addrs().iter().zip([&b"\0\0\0\x05hello"[..], b"hello\n"]) {
    ///     let mut peer = TcpStream::connect(addr.socket_addr().ok_or("not TCP")?)?;
    ///     peer.write_all(frame)?;
    ///     let mut reply = vec![0; frame.len()];
    ///     peer.read_exact(&mut reply)?;
    ///     assert_eq!(reply, frame);
    /// }
    /// server.stop(Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`bind`](Server::bind).
    pub fn also(
        mut self,
        addrs: impl BindAddr,
        framing: impl Framing + Clone + Send + 'static,
    ) -> Result<Self, ServeError> {
        let sockets = bind::bind(addrs, self.options.reuse_port)?;
        self.handle.add_addrs(sockets.iter().map(|socket| socket.addr().clone()));
        self.others.push(self.sockets.len(), framing);
        self.sockets.extend(sockets);
        Ok(self)
    }

    /// Puts a layer between each connection and its framing. `make` is called for each connection as it arrives, on the
    /// thread that is to serve it; if it panics, the connection is closed. This may be called several times: each further
    /// layer is nearer to the framing. A server with more than 8 does not start.
    pub fn layer<L: Layer + 'static>(
        mut self,
        make: impl Fn(&NewConnection<'_>) -> L + Send + Sync + 'static,
    ) -> Self {
        self.layers.push(make);
        self
    }

    /// Takes the address of each client from the proxy in front of this server. The header of the proxy comes before
    /// everything else, so it is read below all [layers](Self::layer), wherever this is called among them. Call it once.
    pub fn proxy_protocol(mut self, protocol: ProxyProtocol) -> Self {
        self.layers.take_headers(protocol);
        self
    }

    /// Compresses both directions of each connection, as [`layer`](Self::layer) with
    /// [`Deflate::layer`](crate::Deflate::layer) does.
    #[cfg(feature = "deflate")]
    pub fn deflate(self, deflate: crate::Deflate) -> Self {
        self.layer(move |_| deflate.layer())
    }

    /// Tells by the first bytes of each connection what its peer speaks, so that one port serves several protocols:
    /// [`Sniff`] says how. It is a [layer](Self::layer).
    pub fn sniff(self, sniff: Sniff) -> Self {
        self.layer(move |_| sniff.layer())
    }

    /// Takes every connection as a WebSocket, by a [layer](Self::layer). Its messages are packets, whatever the framing of
    /// the server is; with [`Messages`](crate::websocket::Messages) as the framing, a session takes no memory for another.
    ///
    /// ```no_run
    /// use framewire::{Server, packet_fn, websocket::{Messages, WebSocket}};
    ///
    /// # fn main() -> Result<(), framewire::ServeError> {
    /// Server::bind("127.0.0.1:8080")?
    ///     .framing(Messages::new())
    ///     .websocket(WebSocket::new())
    ///     .serve(packet_fn(|session, message| Ok(session.send(message)?)))
    /// # }
    /// ```
    ///
    /// For browsers and other clients on one port, see [`sniff`](Self::sniff); for TLS, call `tls` before.
    #[cfg(feature = "websocket")]
    pub fn websocket(self, websocket: WebSocket) -> Self {
        self.layer(move |_| websocket.layer())
    }

    /// Puts TLS between each connection and its framing: a [`layer`](Self::layer), nearer to the framing than those that were
    /// put before. [`on_open`](PacketHandler::on_open) is called when the handshake is complete, and
    /// [`Session::tls`](crate::Session::tls) returns what was agreed on.
    #[cfg(feature = "tls")]
    pub fn tls(self, acceptor: &crate::tls::TlsAcceptor) -> Self {
        acceptor.report_to(self.publisher.hub());
        let acceptor = acceptor.clone();
        self.layer(move |_| acceptor.first_layer())
    }

    /// Sets where connections live, and so how many handlers there are: one on each shard. Handlers share only what
    /// they keep behind an `Arc` (see [`serve`](Self::serve)).
    pub fn strategy(mut self, strategy: impl ForkingStrategy + 'static) -> Self {
        self.strategy = Box::new(strategy);
        self
    }

    /// Sets the limits of sessions, shards and the server.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how many connections may wait to be accepted.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.options.backlog = connections;
        self
    }

    /// Lets the kernel delay small writes in order to join them (Nagle's algorithm). framewire writes whole frames, so
    /// this costs latency and gains little.
    pub fn nagle(mut self) -> Self {
        self.options.nodelay = false;
        self
    }

    /// Lets the kernel probe peers that have been silent for `idle` (`SO_KEEPALIVE`): 1 s to 32,767 s, cut to whole
    /// seconds. Anything else is a [`ServeError::Config`] when the server starts.
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.options.keepalive = Some(idle);
        self
    }

    /// Sets the size of the kernel's receive buffer of each connection (or UDP socket), in bytes (`SO_RCVBUF`; Linux doubles it).
    pub fn recv_buffer(mut self, bytes: usize) -> Self {
        self.options.recv_buffer = Some(bytes);
        self
    }

    /// Sets the size of the kernel's send buffer of each connection (or UDP socket), in bytes (`SO_SNDBUF`; Linux doubles it).
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.options.send_buffer = Some(bytes);
        self
    }

    /// Returns a handle to this server, which works before it serves and while it does.
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

    /// Returns the addresses that are bound, with the ports that the system chose.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<Addr> {
        self.handle.local_addrs()
    }
}

// The bound is on each method, so that the compiler's error says that the framing is missing.
impl<F> Server<F> {
    /// Serves until a [`handle`](Self::handle) shuts the server down, or until it fails. The calling thread runs the
    /// acceptor and, with a single reactor, everything else as well; see [`spawn`](Self::spawn) for other threads.
    ///
    /// Each shard has a handler of its own: a clone of the one given here, or one made by
    /// [`per_shard`](crate::per_shard). So the strategy, one line to change, also decides which sessions share what a
    /// handler keeps in a field:
    ///
    /// | strategy | a field of the handler is shared by |
    /// |---|---|
    /// | [`SingleReactor`] | all sessions |
    /// | [`WorkerPool`](crate::WorkerPool) | the sessions of one worker |
    /// | [`ThreadPerConnection`](crate::ThreadPerConnection) | nobody: each session has a handler of its own |
    ///
    /// What all sessions are to share under any strategy belongs behind an `Arc`. See [`Handlers`] and
    /// [the guide](crate::guide::state).
    ///
    /// After a shutdown this returns once every shard has ended, however long a callback blocks. For a deadline that
    /// holds even then, use [`spawn`](Self::spawn) and [`RunningServer::stop`].
    ///
    /// # Errors
    /// [`ServeError::Config`] names an option that cannot work. [`ServeError::System`] says what the system refused, at
    /// the start or later. [`ServeError::Factory`] means that the closure of `per_shard` panicked,
    /// [`ServeError::OnStart`] that [`PacketHandler::on_start`] did.
    pub fn serve<H>(self, handlers: impl Handlers<H>) -> Result<(), ServeError>
    where
        F: Transport,
        H: PacketHandler + 'static,
    {
        self.starting(handlers).serve()
    }

    /// Like [`serve`](Self::serve), but on threads of its own: returns the running server. Keep it: dropping it stops
    /// it.
    ///
    /// # Errors
    /// As [`serve`](Self::serve). [`RunningServer::wait`] returns the error of a shard that fails later.
    pub fn spawn<H>(self, handlers: impl Handlers<H>) -> Result<RunningServer, ServeError>
    where
        F: Transport,
        H: PacketHandler + 'static,
    {
        self.starting(handlers).spawn()
    }

    fn starting<H>(self, handlers: impl Handlers<H>) -> Starting
    where
        F: Transport,
        H: PacketHandler + 'static,
    {
        let on_signal = self.on_signal;
        let (service, strategy) = F::service(self, handlers.into_factory());
        let handle = service.handle().clone();
        Starting { services: vec![service], strategy, on_signal, handle }
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

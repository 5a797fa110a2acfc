//! What the tests with real sockets share: a server for each strategy, a blocking client, and the audit that ends a
//! test.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses its own part of this")]

mod client;
mod journal;
mod scenarios;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod websocket;

use std::{
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use framewire::{
    Addr, BindAddr, Framing, Layer, LengthPrefix, Limits, Metrics, NewConnection, PacketHandler,
    RunningServer, ServeError, Server, ServerHandle, SessionHandle, SingleReactor, ThreadPerConnection,
    Transport, Unframed, WorkerPool, packet_fn, testing::layers::StackedPeer,
};
#[cfg(feature = "deflate")]
use framewire::{Deflate, DeflateWindow};
use socket2::{SockAddr, Socket};

pub(crate) use client::{Client, frame};
use client::{SpeakLayers, Speech};
pub(crate) use journal::{Journal, Watched};
pub(crate) use scenarios::{
    instances, layered_instances, on_each_strategy, on_each_strategy_and_transport,
    on_each_strategy_uncompressed, on_each_strategy_without_layers, on_udp,
};

/// How long a test waits for what must come. Only a failing test ever waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where sessions live, and what carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    SingleReactor,
    WorkerPool,
    ThreadPerConnection,
    /// A single reactor behind a Unix socket.
    UnixSocket,
    /// A worker pool, and layers between each socket and its framing: one that takes the header of a proxy, and two that
    /// scramble.
    Layered,
    /// The same layers on a single reactor.
    LayeredReactor,
    /// And on a thread per connection.
    LayeredThreads,
    /// A worker pool, the same layers, and compression next to the framing, with nothing kept between batches.
    #[cfg(feature = "deflate")]
    Deflated,
    /// The same on a single reactor, with windows that are kept.
    #[cfg(feature = "deflate")]
    DeflatedReactor,
    /// And on a thread per connection.
    #[cfg(feature = "deflate")]
    DeflatedThreads,
    /// A single reactor, and a WebSocket that carries the stream.
    WebSocket,
    /// A worker pool, and a WebSocket on a layer that scrambles, behind the header of a proxy.
    StackedWebSocket,
    /// A thread per connection, and a WebSocket.
    ForkedWebSocket,
    /// A single reactor and TLS.
    Tls,
    /// A thread per connection and TLS.
    TlsOnThreads,
    /// A worker pool, and TLS between the header of a proxy and a layer that scrambles.
    TlsStacked,
}

impl On {
    /// Returns a server that is bound and has its strategy.
    pub(crate) fn bind(self) -> Server<Unframed> {
        match self {
            Self::UnixSocket => self.bind_at(free_path()),
            _ => self.bind_at("127.0.0.1:0"),
        }
    }

    pub(crate) fn bind_at(self, addr: impl BindAddr) -> Server<Unframed> {
        let server = Server::bind(addr).expect("a free address can be bound");
        let server = match self.strategy() {
            Self::WorkerPool => server.strategy(WorkerPool::new(2)),
            Self::ThreadPerConnection => server.strategy(ThreadPerConnection::max(2048)),
            _ => server.strategy(SingleReactor::new()),
        };
        let Some(speech) = self.speech() else { return server };
        // The server drops it with its layers, when it ends.
        let speak = SpeakLayers::to(&server.local_addrs(), speech);
        #[cfg(feature = "tls")]
        if let Speech::Tls | Speech::StackedTls = speech {
            return tls::secure(speech, server, speak);
        }
        let first = move |_: &NewConnection<'_>| {
            let _while_it_serves = &speak;
            if speech == Speech::WebSocket { websocket_layer() } else { StackedPeer::layer(1) }
        };
        let server = server.layer(first);
        match speech {
            Speech::Layers => server.layer(|_| StackedPeer::layer(2)).proxy_protocol(StackedPeer::proxies()),
            #[cfg(feature = "deflate")]
            Speech::Deflated(window) => {
                let server = server.layer(|_| StackedPeer::layer(2)).proxy_protocol(StackedPeer::proxies());
                server.deflate(deflate(window))
            }
            Speech::WebSocket | Speech::Tls | Speech::StackedTls => server,
            Speech::StackedWebSocket => {
                server.layer(|_| websocket_layer()).proxy_protocol(StackedPeer::proxies())
            }
        }
    }

    /// The strategy: one of the first three.
    pub(crate) fn strategy(self) -> Self {
        match self {
            #[cfg(feature = "deflate")]
            Self::DeflatedReactor => Self::SingleReactor,
            #[cfg(feature = "deflate")]
            Self::Deflated => Self::WorkerPool,
            #[cfg(feature = "deflate")]
            Self::DeflatedThreads => Self::ThreadPerConnection,
            Self::LayeredReactor => Self::SingleReactor,
            Self::LayeredThreads => Self::ThreadPerConnection,
            Self::SingleReactor | Self::UnixSocket | Self::WebSocket | Self::Tls => Self::SingleReactor,
            Self::WorkerPool | Self::Layered | Self::StackedWebSocket | Self::TlsStacked => Self::WorkerPool,
            Self::ThreadPerConnection | Self::ForkedWebSocket | Self::TlsOnThreads => {
                Self::ThreadPerConnection
            }
        }
    }

    /// What clients speak below their frames.
    fn speech(self) -> Option<Speech> {
        match self {
            Self::SingleReactor | Self::WorkerPool | Self::ThreadPerConnection | Self::UnixSocket => None,
            Self::Layered | Self::LayeredReactor | Self::LayeredThreads => Some(Speech::Layers),
            #[cfg(feature = "deflate")]
            Self::Deflated => Some(Speech::Deflated(DeflateWindow::PerBatch)),
            #[cfg(feature = "deflate")]
            Self::DeflatedReactor | Self::DeflatedThreads => Some(Speech::Deflated(DeflateWindow::Kept)),
            Self::WebSocket | Self::ForkedWebSocket => Some(Speech::WebSocket),
            Self::StackedWebSocket => Some(Speech::StackedWebSocket),
            Self::Tls | Self::TlsOnThreads => Some(Speech::Tls),
            Self::TlsStacked => Some(Speech::StackedTls),
        }
    }

    /// Bytes go through layers.
    pub(crate) fn is_layered(self) -> bool {
        self.speech().is_some()
    }

    /// Binds a further address, whose sessions have this framing.
    pub(crate) fn also<F>(
        self,
        server: Server<F>,
        framing: impl Framing + Clone + Send + 'static,
    ) -> Server<F> {
        let server = server.also("127.0.0.1:0", framing).expect("a free address can be bound");
        if self.is_layered() {
            SpeakLayers::also_to(&server.local_addrs());
        }
        server
    }

    /// Returns a server with length prefixes of four bytes, as [`Client`] uses.
    pub(crate) fn serve<H>(self, limits: Limits, handler: H) -> Served
    where
        H: PacketHandler + Clone + Send + 'static,
    {
        Served::start(self.bind().framing(LengthPrefix::u32_be()).limits(limits), handler)
    }

    pub(crate) fn echo(self, limits: Limits) -> Served {
        self.serve(limits, echo())
    }
}

/// How servers and clients compress. What the tests send repeats itself much.
#[cfg(feature = "deflate")]
fn deflate(window: DeflateWindow) -> Deflate {
    Deflate::new().window(window).max_ratio(2_000)
}

#[cfg(feature = "websocket")]
fn websocket_layer() -> Box<dyn Layer> {
    Box::new(framewire::websocket::WebSocket::new().bytes().layer())
}

#[cfg(not(feature = "websocket"))]
fn websocket_layer() -> Box<dyn Layer> {
    unreachable!("no test asks for one without the feature")
}

/// The handler of most tests: each packet comes back.
pub(crate) fn echo() -> impl PacketHandler<State = ()> + Clone + Send + 'static {
    packet_fn(|session, packet| Ok(session.send(packet)?))
}

/// A graceful close may take as long as the tests do; what is cut is cut by a shutdown.
pub(crate) fn patient() -> Limits {
    Limits::default().close_timeout(4 * PATIENCE).linger_timeout(4 * PATIENCE).stall_timeout(4 * PATIENCE)
}

/// A loopback address that no other process of the tests uses, and any free port of it. Connections to it come from
/// 127.0.0.1, so they take no port of it either.
pub(crate) fn own_address() -> (Ipv4Addr, u16) {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 64 | high & 0x3f, middle, low), 0)
}

fn free_path() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("framewire-test-{}-{number}.sock", std::process::id()))
}

/// A server under test, whose sessions are all recorded.
pub(crate) struct Served {
    pub(crate) running: RunningServer,
    pub(crate) journal: Journal,
    connected: AtomicUsize,
}

impl Served {
    pub(crate) fn start<F, H>(server: Server<F>, handler: H) -> Self
    where
        F: Transport,
        H: PacketHandler + Clone + Send + 'static,
    {
        let journal = Journal::default();
        let running = server.spawn(Watched::new(handler, &journal)).expect("the server starts");
        Self { running, journal, connected: AtomicUsize::new(0) }
    }

    /// Echoes packets with lengths of four bytes.
    pub(crate) fn echo(server: Server<Unframed>) -> Self {
        Self::start(server.framing(LengthPrefix::u32_be()), echo())
    }

    pub(crate) fn addr(&self) -> SockAddr {
        addr_of(&self.running.local_addrs()[0])
    }

    pub(crate) fn connect(&self) -> Client {
        self.connect_with(|_| Ok(()))
    }

    /// A client of one of the server's listeners.
    pub(crate) fn connect_to(&self, listener: usize) -> Client {
        self.connected.fetch_add(1, Ordering::Relaxed);
        Client::connect(&addr_of(&self.running.local_addrs()[listener])).expect("the server listens")
    }

    /// A client whose end of the connection holds as little as the kernel allows.
    pub(crate) fn connect_narrow(&self) -> Client {
        self.connect_with(|socket| socket.set_recv_buffer_size(4096))
    }

    pub(crate) fn connect_with(&self, prepare: impl FnOnce(&Socket) -> io::Result<()>) -> Client {
        self.connected.fetch_add(1, Ordering::Relaxed);
        Client::connect_with(&self.addr(), prepare).expect("the server listens")
    }

    /// A client, and the handle of its session. For tests whose connections are all accepted, one at a time.
    pub(crate) fn connect_known(&self) -> (Client, SessionHandle) {
        self.known(Self::connect)
    }

    /// As [`connect_known`](Self::connect_known), of another kind of client.
    pub(crate) fn known(&self, connect: impl FnOnce(&Self) -> Client) -> (Client, SessionHandle) {
        self.await_open();
        let client = connect(self);
        self.await_open();
        (client, self.journal.newest())
    }

    /// Waits until every client that has connected has its session.
    pub(crate) fn await_open(&self) {
        until("the session is open", || self.journal.opened() == self.connected.load(Ordering::Relaxed));
    }

    /// A connection that is refused: reset without a byte, perhaps while it is being made.
    pub(crate) fn assert_refused(&self) {
        self.assert_refused_with(|_| Ok(()));
    }

    pub(crate) fn assert_refused_with(&self, prepare: impl FnOnce(&Socket) -> io::Result<()>) {
        refused(Client::connect_with(&self.addr(), prepare));
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.running.metrics()
    }

    /// Waits until the counters say so. Each shard publishes its own at the end of a turn, so what a client has seen is
    /// counted a little later.
    pub(crate) fn until_counted(&self, what: &str, holds: impl Fn(&Metrics) -> bool) {
        until_counted(&self.running, what, holds);
    }

    /// Ends a test: all clients are gone, nothing is left of them, and the server stops.
    pub(crate) fn finish(self) {
        until("every session has ended", || self.running.session_count() == 0);
        until("every gauge is at 0", || gauges(&self.metrics()) == [0; 3]);
        let Self { running, journal, .. } = self;
        let handle = running.handle();
        running.stop(PATIENCE).expect("the server stops in peace");
        audit(&handle, &journal);
    }

    /// Ends a test in which the server was asked to stop already.
    pub(crate) fn await_stop(self) {
        let Self { running, journal, .. } = self;
        let handle = running.handle();
        running.wait().expect("the server stops in peace");
        audit(&handle, &journal);
    }
}

pub(crate) fn addr_of(bound: &Addr) -> SockAddr {
    match bound {
        Addr::Ip(addr) => (*addr).into(),
        Addr::Unix(path) => SockAddr::unix(path.as_ref().expect("bound to a path")).expect("a path"),
        other => panic!("no test knows how to connect to {other}"),
    }
}

fn gauges(metrics: &Metrics) -> [u64; 3] {
    [metrics.sessions, metrics.buffered, metrics.timers]
}

/// A stopped server has nothing left, and has reported the end of every session whose beginning it reported.
pub(crate) fn audit(stopped: &ServerHandle, journal: &Journal) {
    let metrics = stopped.metrics();
    assert_eq!(stopped.session_count(), 0, "sessions left: {metrics:?}");
    assert_eq!(gauges(&metrics), [0; 3], "sessions, buffered bytes or timers left: {metrics:?}");
    assert_eq!(metrics.opened, metrics.closed_total(), "opened and closed: {metrics:?}");
    assert_eq!(metrics.opened, journal.opened() as u64, "{metrics:?}");
    journal.assert_balanced();
}

/// Why a server could not be made, or could not serve.
pub(crate) fn failure<T>(outcome: Result<T, ServeError>) -> String {
    match outcome {
        Ok(_) => panic!("this must fail"),
        Err(error) => error.to_string(),
    }
}

/// Returns what a thread returns, which must not take for ever.
pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
    until("it has returned", || thread.is_finished());
    thread.join().expect("it does not panic")
}

/// Waits until the condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Like [`Served::until_counted`], for any server.
pub(crate) fn until_counted(server: &ServerHandle, what: &str, holds: impl Fn(&Metrics) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = server.metrics();
        if holds(&metrics) {
            return;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}: {metrics:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A connection that was, or is about to be, reset without a byte. The reset may come before `connect` has returned,
/// which then fails with it.
pub(crate) fn refused(connection: io::Result<Client>) {
    match connection {
        Ok(mut client) => assert_eq!(client.read_to_any_end(), (Vec::new(), true)),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// The beginning of the message of a panic on purpose, see [`hush`].
pub(crate) const ON_PURPOSE: &str = "on purpose";

/// Keeps panics that a test provokes out of its output.
pub(crate) fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let message = info.payload().downcast_ref::<String>().map_or("", String::as_str);
            if !message.starts_with(ON_PURPOSE) {
                loud(info);
            }
        }));
    });
}

use std::{marker::PhantomData, time::Duration};

use super::{
    Server, ServerHandle, Unframed, bind,
    handle::Attached,
    shared_strategy::Facts,
    start::{PendingService, check_count, check_workers},
};
use crate::{
    addr::BindAddr,
    contained::Contained,
    error::ServeError,
    events::Publisher,
    handler::PacketHandler,
    layer::LayerFactories,
    limits::Limits,
    reactor::{BoundDatagrams, SocketOptions},
    runtime::{
        DatagramParts, HandlerFactory, Intake, ShardNumbers, ShardRegistry, Sockets, StartService, System,
    },
    shard::Beyond,
    strategy::ForkingStrategy,
    sync::Admission,
};

/// The most that a datagram of UDP over IPv4 can carry, in bytes: 65,535 less the headers of IP (20) and UDP (8).
const LONGEST: usize = 65_507;
/// Peers of a server whose limits give no other number.
const PEERS: usize = 65_536;
/// When a peer is taken for gone, if the limits do not say.
const IDLE: Duration = Duration::from_secs(60);

/// Stands for the framing of a server on UDP ([`Server::bind_udp`]), which needs none: a datagram is a packet.
#[derive(Debug)]
pub struct Datagram {
    sockets: Vec<BoundDatagrams>,
    beyond: Beyond,
}

impl Server<Unframed> {
    /// Binds one UDP address, or several, in the forms that [`bind`](Self::bind) takes (but a path). A peer is a session,
    /// and a datagram a packet, in both directions: the same handler serves TCP and UDP.
    ///
    /// ```
    /// use std::{net::UdpSocket, time::Duration};
    /// use framewire::{Server, packet_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::bind_udp("127.0.0.1:0")?
    ///     .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
    ///
    /// let peer = UdpSocket::bind("127.0.0.1:0")?;
    /// peer.set_read_timeout(Some(Duration::from_secs(10)))?;
    /// peer.send_to(b"hello", server.local_addr().ok_or("not IP")?)?;
    /// let mut reply = [0; 10];
    /// assert_eq!(peer.recv(&mut reply)?, 5);
    /// assert_eq!(&reply[..5], b"hello");
    /// server.stop(Duration::from_secs(1))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// **Sessions.** [`on_open`](PacketHandler::on_open) is called when the first datagram of an address comes, followed by
    /// `on_packet` for it and each further one; an empty datagram is an empty packet. A peer does not say when it is
    /// gone: a session ends when nothing was received for [`Limits::idle_timeout`], or 60 s if that is off (a session
    /// can have another by [`Session::set_idle_timeout`](crate::Session::set_idle_timeout), also none), or when it is closed.
    /// A close sends what is queued, and that is all: there is no end of the stream, so [`on_end`](PacketHandler::on_end) is never
    /// called, and a datagram that comes later begins a new session. Timers, heartbeats, handles, channels, broadcasts,
    /// tickets and counters work as over TCP; framings and layers do not exist.
    ///
    /// **Limits.** A packet may have [`Limits::frame`] bytes, at most 65,507: one that is longer is refused by `send`
    /// ([`EncodeError::TooLong`](crate::EncodeError::TooLong)) or, if it was received, dropped whole and counted
    /// ([`Metrics::datagrams_too_long`](crate::Metrics::datagrams_too_long)). Above some 1,400 bytes a datagram travels in several
    /// parts, and is lost if one of them is. [`Limits::connections`] is the number of peers (65,536 if it is 0),
    /// [`beyond`](Server::beyond) says what happens to more; an idle peer takes some 300 bytes.
    /// While a session is paused, or its outbox is above [`Limits::outbox_high`], what comes for it is dropped
    /// ([`Metrics::datagrams_missed`](crate::Metrics::datagrams_missed)). While the kernel's send buffer is full, up to
    /// [`Limits::outbox_hard`] bytes of all peers of a shard wait; more are dropped
    /// ([`Metrics::datagrams_unsent`](crate::Metrics::datagrams_unsent)), as are datagrams that the kernel refuses. Neither ends the session.
    /// What nobody has read yet waits in the kernel's receive buffer, which on Linux holds some hundred datagrams by
    /// default and drops what follows, uncounted here: [`recv_buffer`](Self::recv_buffer) enlarges it.
    ///
    /// **Threads.** With [`SingleReactor`](crate::SingleReactor) there is one socket for each address; with a
    /// [`WorkerPool`](crate::WorkerPool) each worker has one (`SO_REUSEPORT`), and the kernel assigns each peer to a worker by a
    /// hash of its address. [`ThreadPerConnection`](crate::ThreadPerConnection) is refused.
    ///
    /// **Dials.** The server itself opens sessions with peers by [`Dial::to_udp`](crate::Dial::to_udp).
    ///
    /// **What UDP does not promise.** Datagrams may be lost, repeated, or overtake each other: "written" in a
    /// [`SendTicket`](crate::SendTicket) means that the kernel has taken one. The address of a peer can be forged: it proves nothing
    /// about the sender, each forged address takes the place of a peer until it is forgotten, and whatever the handler
    /// replies goes to the victim. Until a peer has sent back something that it can only know from a reply, send no
    /// more bytes than came from it, or the server can be used to amplify floods. Encryption and authentication are up to the
    /// handler. Where a host has several addresses, bind each of them rather than a wildcard: replies come from
    /// the address of the socket, which for a wildcard the kernel chooses.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_udp(addrs: impl BindAddr) -> Result<Server<Datagram>, ServeError> {
        Ok(Self::with_datagrams(bind::bind_udp(addrs)?))
    }

    /// A server on UDP that is bound to no address: its sessions are those that it dials, each over a socket of its own.
    /// [`Dial::to_udp`](crate::Dial::to_udp) has an example.
    pub fn unbound_udp() -> Server<Datagram> {
        Self::with_datagrams(Vec::new())
    }

    fn with_datagrams(sockets: Vec<BoundDatagrams>) -> Server<Datagram> {
        let server = Self::with_sockets(Vec::new());
        let Self { others, layers, strategy, limits, options, on_signal, publisher, .. } = server;
        let handle =
            ServerHandle::new(sockets.iter().map(BoundDatagrams::addr).collect(), publisher.hub().clone());
        let framing = Datagram { sockets, beyond: Beyond::default() };
        let sockets = Vec::new();
        Server { sockets, framing, others, layers, strategy, limits, options, on_signal, handle, publisher }
    }
}

impl Server<Datagram> {
    /// Sets what is done with a new peer when there are as many as [`Limits::connections`] allows. Default:
    /// [`Beyond::Refuse`].
    ///
    /// ```
    /// use framewire::{Beyond, Limits, Server};
    ///
    /// let server = Server::bind_udp("127.0.0.1:0")?
    ///     .limits(Limits::default().connections(10_000))
    ///     .beyond(Beyond::ForgetIdlest);
    /// # Ok::<(), framewire::ServeError>(())
    /// ```
    pub fn beyond(mut self, beyond: Beyond) -> Self {
        self.framing.beyond = beyond;
        self
    }
}

struct Pending<H, S> {
    datagram: Datagram,
    /// Listeners for streams, which were added to it.
    listeners: usize,
    layers: LayerFactories,
    limits: Limits,
    options: SocketOptions,
    handle: ServerHandle,
    publisher: Publisher,
    factory: Contained<S>,
    handler: PhantomData<fn() -> H>,
}

/// Makes a service of a server and its handlers. Returns it with the strategy that the server was given.
pub(super) fn service<H, S>(
    server: Server<Datagram>,
    factory: S,
) -> (Box<dyn PendingService>, Contained<Box<dyn ForkingStrategy>>)
where
    H: PacketHandler + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    let factory = Contained::new(factory);
    let Server { sockets, framing: datagram, layers, strategy, limits, options, handle, publisher, .. } =
        server;
    let (strategy, handler) = (Contained::new(strategy), PhantomData::<fn() -> H>);
    let listeners = sockets.len();
    (
        Box::new(Pending {
            datagram,
            listeners,
            layers,
            limits,
            options,
            handle,
            publisher,
            factory,
            handler,
        }),
        strategy,
    )
}

impl<H, S> PendingService for Pending<H, S>
where
    H: PacketHandler + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    fn validate(&self, strategy: &dyn ForkingStrategy) -> Result<(), ServeError> {
        let config = |option, why: &str| Err(ServeError::config((option, why.into())));
        if self.layers.len() > 0 {
            return config("layer", "a layer transforms a stream, and UDP has none");
        }
        if self.listeners > 0 {
            return config(
                "also",
                "a server on UDP has no framings; use a Reactor for a service on TCP beside it",
            );
        }
        self.limits.validate().map_err(ServeError::config)?;
        strategy.validate().map_err(|why| ServeError::config(("strategy", why)))?;
        strategy.udp_peers().map_err(|why| ServeError::config(("strategy", why)))?;
        check_workers(strategy)?;
        check_count(self.datagram.sockets.len())
    }

    fn prepare(
        self: Box<Self>,
        facts: Facts,
        placing: Contained<Box<dyn ForkingStrategy>>,
        numbers: ShardNumbers,
        _services: usize,
    ) -> Result<Box<dyn StartService<System>>, ServeError> {
        let Self { datagram, mut limits, options, handle, publisher, factory, .. } = *self;
        let Datagram { sockets, beyond } = datagram;
        limits.idle_timeout.get_or_insert(IDLE);
        let longest = limits.frame.min(LONGEST);
        let most = if limits.connections > 0 { limits.connections } else { PEERS };
        let sockets = open(sockets, facts.workers.max(1), &options)?;
        let admission = Admission::new(facts.workers + 1, most, limits.connections_per_peer);
        let registry = ShardRegistry::new(
            System,
            admission,
            limits,
            LayerFactories::default(),
            options,
            numbers,
            publisher,
        );
        handle.attach(vec![Attached::of::<H>(registry.clone())]);
        let addrs = handle.local_addrs();
        tracing::info!(?addrs, workers = facts.workers, max_peers = most, "serving UDP");
        // A worker can forget its own peers alone, so each has its share of them.
        let share = match beyond {
            Beyond::ForgetIdlest => most.div_ceil(facts.workers.max(1)),
            _ => usize::MAX,
        };
        let intake = Intake { longest, peers_per_shard: facts.udp_peers.min(share), beyond };
        Ok(Box::new(DatagramParts::<_, H, _>::new(registry, factory, placing, sockets, intake)))
    }
}

/// Opens the sockets, and as many more at the same addresses as there are further threads. Returns those of each thread.
fn open(
    sockets: Vec<BoundDatagrams>,
    threads: usize,
    options: &SocketOptions,
) -> Result<Vec<Sockets<System>>, ServeError> {
    let mut each: Vec<Sockets<System>> = (0..threads).map(|_| Vec::new()).collect();
    for socket in sockets {
        let addr = socket.addr().to_string();
        let named = |source| ServeError::bind(addr.clone(), source);
        let siblings = socket.siblings(threads - 1).map_err(named)?;
        for (sockets, socket) in each.iter_mut().zip([socket].into_iter().chain(siblings)) {
            sockets.push(socket.open(options).map_err(named)?);
        }
    }
    Ok(each)
}

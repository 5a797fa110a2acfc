use std::{fmt, marker::PhantomData, sync::Arc};

use super::{
    Server, ServerHandle, Unframed,
    handle::Attached,
    shared_strategy::Facts,
    start::{PendingService, check_workers},
};
use crate::{
    contained::Contained,
    error::ServeError,
    events::Publisher,
    handler::PacketHandler,
    layer::LayerFactories,
    limits::Limits,
    reactor::SocketOptions,
    runtime::{Carrying, HandlerFactory, ShardNumbers, ShardRegistry, StartService, StreamParts, System},
    session::{CarriedService, Mux, Streams},
    strategy::ForkingStrategy,
    sync::Admission,
};

/// Streams of a service whose limits give no other number.
const STREAMS: usize = 1_000_000;
/// Bytes that may wait in the inbox of a stream, by default.
const INBOX: usize = 1024 * 1024;

/// Stands for the framing of a server whose sessions are streams within sessions of another service
/// ([`Server::carried`]), which needs none: what the carrier brings is a packet.
pub struct Carried {
    carrying: Carrying,
}

impl Server<Unframed> {
    /// A server whose sessions are streams within sessions of another service of the same [`Reactor`](crate::Reactor), their
    /// *carriers*: for protocols that multiplex. The same handler serves TCP connections and streams.
    ///
    /// The handler of the carriers reads their protocol, and tells [`streams`](Server::streams) what comes for which stream;
    /// `mux` writes what the streams send into packets of their carrier.
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::{
    ///     EncodeError, LengthPrefix, Mux, NewStream, Reactor, Server, SingleReactor, blocking::Client,
    ///     bytes::{BufMut, BytesMut}, packet_fn,
    /// };
    ///
    /// /// A packet is the number of a stream, a letter (`o`pen, `d`ata, `c`lose), and the payload.
    /// struct Letters;
    ///
    /// impl Mux for Letters {
    ///     fn packet(&self, stream: u64, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    ///         out.put_slice(&[stream as u8, b'd']);
    ///         out.put_slice(payload);
    ///         Ok(())
    ///     }
    ///
    ///     fn close(&self, stream: u64, out: &mut BytesMut) {
    ///         out.put_slice(&[stream as u8, b'c']);
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let echo = packet_fn(|session, packet| Ok(session.send(packet)?)); // knows nothing of carriers
    ///
    /// let carried = Server::carried(Letters);
    /// let streams = carried.streams();
    /// let carriers = Server::bind("127.0.0.1:0")?.framing(LengthPrefix::u16_be());
    /// let addr = carriers.local_addrs().remove(0);
    /// let running = Reactor::new(SingleReactor::new())
    ///     .service(carriers, packet_fn(move |carrier, packet| match packet {
    ///         [stream, b'o'] => Ok(streams.open(carrier, NewStream::new((*stream).into()))?),
    ///         [stream, b'd', payload @ ..] => Ok(streams.deliver(carrier, (*stream).into(), payload)?),
    ///         [stream, b'c'] => Ok(streams.end(carrier, (*stream).into())?),
    ///         _ => Err(framewire::Failure::because("no such packet")),
    ///     }))
    ///     .service(carried, echo)
    ///     .spawn()?;
    ///
    /// let mut client = Client::connect(addr.to_string(), LengthPrefix::u16_be())?;
    /// for packet in [&b"\x01o"[..], b"\x02o", b"\x01dhello", b"\x02dworld"] {
    ///     client.send(packet)?;
    /// }
    /// assert_eq!(client.recv()?, Some(&b"\x01dhello"[..]));
    /// assert_eq!(client.recv()?, Some(&b"\x02dworld"[..]));
    /// running.stop(Duration::from_secs(1))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// **Sessions.** [`Session::origin`](crate::Session::origin) is [`Origin::Carried`](crate::Origin::Carried), and the address of
    /// the peer is [`Addr::Stream`](crate::Addr::Stream). Timers, timeouts, heartbeats, handles, channels, broadcasts, links and
    /// counters work as for a connection; framings and layers do not exist. A close sends what is queued and then
    /// [`Mux::close`], and waits for no answer. A session may carry streams of a further service in its turn.
    ///
    /// **Back-pressure.** What a stream sends goes to the outbox of its carrier at the end of each step of the event loop. While that
    /// is above the [high-water mark](Limits::outbox_high) of the carriers' service, it waits in the outboxes of the
    /// streams, with the limits of their own service; the carrier is read all the same, or two ends could wait for each other.
    /// When it has fallen to the low mark, its streams have their turns of some 16 KiB. "Written" in a [`SendTicket`](crate::SendTicket) means that the carrier
    /// has taken a packet. A stream that takes no packets keeps no other waiting: see [`inbox`](Server::inbox).
    ///
    /// **Ends.** When a carrier closes, for whatever reason, its streams end with
    /// [`CloseReason::CarrierLost`](crate::CloseReason::CarrierLost), after what was received before. When the server shuts
    /// down, streams close first: a carrier whose [`on_shutdown`](PacketHandler::on_shutdown) returns
    /// [`Then::Close`](crate::Then::Close) is closed when none of its streams is left. So shut down the whole reactor; of
    /// the carriers alone, it takes the grace period. A carrier whose peer opens streams and does not read closes with
    /// [`CloseReason::StreamBacklog`](crate::CloseReason::StreamBacklog) when one is opened while the ends of 65,536 wait.
    ///
    /// **Limits.** A packet may have [`Limits::frame`] bytes, at most [`Mux::max_payload`].
    /// [`Limits::connections`] is the number of streams (1,000,000 if it is 0).
    ///
    /// **Threads.** A stream lives on the thread of its carrier. [`ThreadPerConnection`](crate::ThreadPerConnection) is
    /// refused: its carriers have threads of their own.
    pub fn carried(mux: impl Mux) -> Server<Carried> {
        let Self { others, layers, strategy, limits, options, on_signal, handle, publisher, .. } =
            Self::with_sockets(Vec::new());
        let service = Arc::new(CarriedService::default());
        let framing = Carried { carrying: Carrying { mux: Arc::new(mux), service, inbox: INBOX } };
        let sockets = Vec::new();
        Server { sockets, framing, others, layers, strategy, limits, options, on_signal, handle, publisher }
    }
}

impl Server<Carried> {
    /// Returns what the handler of the carriers tells the streams by.
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams::new(self.framing.carrying.service.clone())
    }

    /// Sets how many bytes of packets, with 4 bytes for each, may wait for a stream that takes none, because it is
    /// [paused](crate::Session::pause) or its outbox is above the high-water mark: when more come, it is closed with
    /// [`CloseReason::InboxFull`](crate::CloseReason::InboxFull). A single packet may be longer. Default 1 MiB.
    pub fn inbox(mut self, bytes: usize) -> Self {
        self.framing.carrying.inbox = bytes;
        self
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("inbox", &self.carrying.inbox).finish_non_exhaustive()
    }
}

struct Pending<H, S> {
    carrying: Carrying,
    /// Listeners, which were added to it.
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
    server: Server<Carried>,
    factory: S,
) -> (Box<dyn PendingService>, Contained<Box<dyn ForkingStrategy>>)
where
    H: PacketHandler + 'static,
    S: HandlerFactory<H> + Clone + 'static,
{
    let factory = Contained::new(factory);
    let Server { sockets, framing, layers, strategy, limits, options, handle, publisher, .. } = server;
    let (carrying, listeners, handler) = (framing.carrying, sockets.len(), PhantomData::<fn() -> H>);
    let pending =
        Pending { carrying, listeners, layers, limits, options, handle, publisher, factory, handler };
    (Box::new(pending), Contained::new(strategy))
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
            return config("layer", "a layer transforms a stream of bytes; give it to the carriers");
        }
        if self.listeners > 0 {
            return config("also", "streams come over carriers; give the address to their service");
        }
        self.limits.validate().map_err(ServeError::config)?;
        strategy.validate().map_err(|why| ServeError::config(("strategy", why)))?;
        strategy.carried().map_err(|why| ServeError::config(("strategy", why)))?;
        check_workers(strategy)
    }

    fn prepare(
        self: Box<Self>,
        facts: Facts,
        placing: Contained<Box<dyn ForkingStrategy>>,
        numbers: ShardNumbers,
        services: usize,
    ) -> Result<Box<dyn StartService<System>>, ServeError> {
        if services < 2 {
            let why = "no carriers: add the service whose sessions they are, and this one, to a Reactor";
            return Err(ServeError::config(("carried", why.into())));
        }
        let Self { carrying, mut limits, options, handle, publisher, factory, .. } = *self;
        limits.frame = limits.frame.min(carrying.mux.max_payload());
        let most = if limits.connections > 0 { limits.connections } else { STREAMS };
        let threads = facts.workers + 1;
        let admission = Admission::new(threads, most, limits.connections_per_peer);
        let layers = LayerFactories::default();
        let registry = ShardRegistry::new(System, admission, limits, layers, options, numbers, publisher);
        handle.attach(vec![Attached::of::<H>(registry.clone())]);
        tracing::info!(workers = facts.workers, max_streams = most, "serving streams");
        let parts = StreamParts::<_, H, _>::new(registry, factory, placing, carrying, threads as u32);
        Ok(Box::new(parts))
    }
}

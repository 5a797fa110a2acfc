//! Connections that this side makes: what is dialled, and what is known of it from other threads.

mod book;
mod new_dial;
mod parcel;
mod reconnect;
mod upstream;

use std::{fmt, time::Duration};

pub use reconnect::Reconnect;
pub use upstream::{Upstream, UpstreamState, WhileDown};

pub(crate) use book::{DialBook, DialStep, EndedDial};
pub(crate) use new_dial::NewDial;
pub(crate) use reconnect::Backoff;
pub(crate) use upstream::{Kept, UpstreamSide};

#[cfg(feature = "websocket")]
use crate::websocket::WebSocketClient;
use crate::{
    addr::{BindAddr, NewConnection, Target},
    contained::Contained,
    error::DialError,
    framing::{AnyFraming, Framing},
    layer::{Layer, LayerFactories, ProxyHeader},
    session::Medium,
};

/// How long one address is tried.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The least that a timer can tell.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

/// A connection to be made from within a server. It becomes a session of that server, with the same handler, limits and
/// counters as those that are accepted: [`Session::origin`](crate::Session::origin) tells them apart.
///
/// | option | default |
/// |---|---|
/// | [`framing`](Self::framing) | that of the server |
/// | [`layer`](Self::layer) | none; those of the server are for accepted connections |
/// | [`proxy_header`](Self::proxy_header) | none |
/// | [`timeout`](Self::timeout) | 5 s for each address |
/// | [`reconnect`](Self::reconnect) | never: the dial ends with its connection, or with its failure |
/// | [`while_down`](Self::while_down) | what is sent while there is no connection is refused |
///
/// **Where it lives.** What a callback connects by [`Session::connect`](crate::Session::connect) or
/// [`ShardContext::connect`](crate::ShardContext::connect) lives on the callback's thread, so that its sessions reach
/// each other without a lock. For [`ServerHandle::connect`](crate::ServerHandle::connect) the strategy
/// [decides](crate::ForkingStrategy::place_dial): the worker of a pool with the fewest sessions, or a thread of its own.
///
/// **What comes of it.** [`on_open`](crate::PacketHandler::on_open) is called when the connection is made and its
/// layers are open; or [`on_dial_failed`](crate::PacketHandler::on_dial_failed) when that has failed for the last of
/// its addresses, or the server stops before. Exactly one of the two is called, but for a dial that is
/// [closed](Upstream::close) or [given up](crate::Session::hang_up) before. A dial that [reconnects](Self::reconnect) calls `on_open` for each
/// connection, all with the same [`DialId`](crate::DialId), and `on_dial_failed` once, when no attempt is left or the server
/// stops while there is no connection. A connection counts for [`Limits::connections`](crate::Limits::connections) from
/// the moment in which it is begun.
///
/// **Several addresses** are tried in turn, each with the whole timeout, and so are all addresses of a name. Names are
/// looked up on a thread of their own, which the server starts when it meets the first name; no shard waits for it.
///
/// **Over UDP**, see [`to_udp`](Self::to_udp).
///
/// ```
/// use framewire::{Dial, LengthPrefix};
///
/// let dial = Dial::to(["10.0.0.1:7000", "10.0.0.2:7000"]).framing(LengthPrefix::u32_be());
/// let local = Dial::to("unix:/run/queue.sock");
/// # drop((dial, local));
/// ```
#[derive(Clone)]
#[must_use = "it is given to `connect`"]
pub struct Dial {
    pub(crate) targets: Vec<Target>,
    pub(crate) medium: Medium,
    pub(crate) framing: Option<Contained<AnyFraming>>,
    pub(crate) layers: LayerFactories,
    pub(crate) timeout: Duration,
    pub(crate) reconnect: Option<Reconnect>,
    pub(crate) while_down: WhileDown,
}

impl Dial {
    /// Connects to an address, or to the first of several that answers: `"10.0.0.1:7000"`, `"[::1]:7000"`,
    /// `"example.com:7000"`, `"unix:/run/chat.sock"`, `("example.com", 7000)`, a `SocketAddr`, a path, or an array, slice
    /// or `Vec` of these. What is no address is found when the dial begins, and reported as [`DialError::Address`](crate::DialError::Address).
    pub fn to(addrs: impl BindAddr) -> Self {
        Self::over(Medium::Streams, addrs)
    }

    /// Opens a session over UDP with the peer at an address, in the forms that [`to`](Self::to) takes (but a path), for a
    /// server on UDP: [`Server::bind_udp`](crate::Server::bind_udp), or [`Server::unbound_udp`](crate::Server::unbound_udp) for
    /// one that has no address of its own. From then on it is a session as any other of that server: a datagram is a packet,
    /// it counts for [`Limits::connections`](crate::Limits::connections), and it ends after
    /// [`Limits::idle_timeout`](crate::Limits::idle_timeout) without a datagram from the peer.
    ///
    /// ```
    /// use std::{sync::mpsc::channel, time::Duration};
    /// use framewire::{Dial, Server, packet_fn, session_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let echo = Server::bind_udp("127.0.0.1:0")?
    ///     .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
    ///
    /// let (heard, replies) = channel();
    /// let client = session_fn(
    ///     |session| Ok(session.send("hello")?),
    ///     move |_, (), reply| Ok(heard.send(reply.to_vec())?),
    /// );
    /// let client = Server::unbound_udp().spawn(client)?;
    /// let _upstream = client.connect(Dial::to_udp(echo.local_addr().ok_or("not IP")?))?;
    /// assert_eq!(replies.recv()?, b"hello");
    ///
    /// client.stop(Duration::from_secs(5))?;
    /// echo.stop(Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// **Open does not mean reachable.** Nothing is sent to make such a connection, and no reply is awaited:
    /// [`on_open`](crate::PacketHandler::on_open) is called at once, whether the peer is there or not. [`timeout`](Self::timeout)
    /// bounds only the look-up of a name. Of several addresses, the first that this machine can send to is taken: it has a route
    /// to it.
    ///
    /// **Its socket.** With a [`SingleReactor`](crate::SingleReactor), a server that is bound to an address of the same family
    /// (IPv4 or IPv6) sends from there, from the first if there are several, so that the peer sees the server's own
    /// address; if that peer has a session there already, the dial fails ([`DialError::Known`](crate::DialError::Known)). In all other
    /// cases the session has a socket of its own, at a port that the system chooses, and takes a descriptor: from a server
    /// that is not bound, and from one on a [`WorkerPool`](crate::WorkerPool), whose workers share their port, so that a reply
    /// to it could come to any of them.
    ///
    /// **When the port is closed.** A socket of its own is told when the peer's machine replies that no socket is bound to that
    /// port (ICMP "port unreachable"): the session ends with [`CloseReason::Io`](crate::CloseReason::Io), of the kind
    /// [`ConnectionRefused`](std::io::ErrorKind::ConnectionRefused). One that sends from the server's address is not told, on
    /// most systems; it ends by its idle timeout, as sessions of peers that came to us do. A dial that
    /// [reconnects](Self::reconnect) then opens the next session after its pause, and of several addresses takes the next one.
    ///
    /// There are no [framings](Self::framing) and no [layers](Self::layer): with one, or from a server that is not on UDP, the
    /// dial fails with [`DialError::Unsuited`](crate::DialError::Unsuited), and so does a dial that is not for UDP from a server
    /// on UDP.
    pub fn to_udp(addrs: impl BindAddr) -> Self {
        Self::over(Medium::Datagrams, addrs)
    }

    fn over(medium: Medium, addrs: impl BindAddr) -> Self {
        Self {
            targets: addrs.targets(),
            medium,
            framing: None,
            layers: LayerFactories::default(),
            timeout: TIMEOUT,
            reconnect: None,
            while_down: WhileDown::Refuse,
        }
    }

    /// Sets the framing of the session, if it is not to be that of the server. It is offered
    /// [`Limits::frame`](crate::Limits::frame) as its maximum, and is on the heap, as one that was set by
    /// [`Session::set_framing`](crate::Session::set_framing) is.
    pub fn framing(mut self, framing: impl Framing + Clone + Send + 'static) -> Self {
        self.framing = Some(Contained::new(AnyFraming::new(framing)));
        self
    }

    /// Puts a layer between the connection and its framing, as [`Server::layer`](crate::Server::layer) does for accepted
    /// ones. `make` is called when the connection is made; if it panics, the dial fails for this address. This may be
    /// called several times: each further layer is nearer to the framing. With more than 8 of them, the dial fails.
    pub fn layer<L: Layer + 'static>(
        mut self,
        make: impl Fn(&NewConnection<'_>) -> L + Send + Sync + 'static,
    ) -> Self {
        self.layers.push(make);
        self
    }

    /// Sends a header of the PROXY protocol before everything else, so that the other side knows for whom this connection is
    /// made. It goes below all [layers](Self::layer), wherever this is called among them. A dial that
    /// [reconnects](Self::reconnect) sends the same header each time.
    ///
    /// ```
    /// use framewire::{Dial, Handled, ProxyHeader, Session};
    ///
    /// /// What a proxy does in `on_open`: the server behind it learns who the client is.
    /// fn dial(session: &mut Session<'_>) {
    ///     let header = ProxyHeader::v2(session.peer_addr(), session.local_addr());
    ///     session.connect(Dial::to("10.0.0.2:7000").proxy_header(header));
    /// }
    /// # let _ = dial;
    /// ```
    pub fn proxy_header(mut self, header: ProxyHeader) -> Self {
        self.layers.send_header(header);
        self
    }

    /// Compresses both directions, as [`layer`](Self::layer) with [`Deflate::layer`](crate::Deflate::layer) does.
    #[cfg(feature = "deflate")]
    pub fn deflate(self, deflate: crate::Deflate) -> Self {
        self.layer(move |_| deflate.layer())
    }

    /// Opens a WebSocket on the connection, by a [layer](Self::layer). Its messages are packets, whatever the framing is.
    #[cfg(feature = "websocket")]
    pub fn websocket(self, websocket: WebSocketClient) -> Self {
        self.layer(move |_| websocket.layer())
    }

    /// Puts TLS between the connection and its framing, as a [`layer`](Self::layer): the server must show a certificate for
    /// `server`, a host name or an IP address. If the text is no such name, or the handshake fails, the dial fails.
    ///
    /// ```no_run
    /// use framewire::{Dial, TlsConfigError, TlsConnector, TlsRoots};
    ///
    /// let connector = TlsConnector::new(TlsRoots::system()?)?;
    /// let dial = Dial::to("example.com:7000").tls(&connector, "example.com");
    /// # drop(dial);
    /// # Ok::<(), TlsConfigError>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(self, connector: &crate::tls::TlsConnector, server: impl Into<String>) -> Self {
        let (connector, server) = (connector.clone(), server.into());
        self.layer(move |_| connector.first_layer(&server))
    }

    /// Sets how long each address may take to answer, and how long a name may take to be looked up. Default 5 s; at least
    /// 1 ms. The handshakes of the layers have [`Limits::handshake_timeout`](crate::Limits::handshake_timeout) after
    /// that.
    pub fn timeout(mut self, each: Duration) -> Self {
        self.timeout = each.max(LEAST_TIMEOUT);
        self
    }

    /// Makes the connection again when it has ended or could not be made, until no attempt is left, it is given up by
    /// [`Upstream::close`] or [`Session::hang_up`](crate::Session::hang_up), or the server stops. All addresses are tried
    /// anew each time, and names are looked up anew. It stays on its thread, also on one of its own
    /// ([`ThreadPerConnection`](crate::ThreadPerConnection)): that counts for the limits of connections between two attempts
    /// as well. On a thread that it shares, it then counts for [`Limits::dials`](crate::Limits::dials) alone.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = Some(reconnect);
        self
    }

    /// Says what becomes of packets that are sent by an [`Upstream`] while it is not connected. Default:
    /// [`WhileDown::Refuse`].
    pub fn while_down(mut self, sends: WhileDown) -> Self {
        self.while_down = sends;
        self
    }

    /// Looks whether a server on this `medium` can make the connection.
    ///
    /// # Errors
    /// What of it cannot be done there.
    pub(crate) fn check(&self, medium: Medium) -> Result<(), DialError> {
        let unsuited = |why| Err(DialError::Unsuited { why });
        match (self.medium, medium) {
            (Medium::Streams, Medium::Streams) => return Ok(()),
            (Medium::Datagrams, Medium::Datagrams) => {}
            (Medium::Streams, Medium::Datagrams) => {
                return unsuited(
                    "a server on UDP makes no connections over TCP; use Dial::to_udp, or a server that is not on UDP \
                     beside it, in a Reactor",
                );
            }
            (_, Medium::Carriers) => {
                return unsuited(
                    "a stream is opened by the peer of its carrier; dial from the service of the carriers",
                );
            }
            // Such a dial is not made.
            (Medium::Carriers, Medium::Streams | Medium::Datagrams) => {}
            (Medium::Datagrams, Medium::Streams) => {
                return unsuited(
                    "only a server on UDP reaches peers over UDP; make it with Server::bind_udp or \
                     Server::unbound_udp",
                );
            }
        }
        if self.framing.is_some() {
            return unsuited("over UDP a datagram is a packet; leave out Dial::framing");
        }
        if self.layers.len() > 0 {
            return unsuited("a layer transforms a stream, and UDP has none; leave out Dial::layer");
        }
        match self.targets.iter().find(|target| target.is_path()) {
            Some(path) => Err(DialError::Address { text: path.to_string(), why: "UDP has no paths" }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        f.debug_struct("Dial").field("to", &to).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

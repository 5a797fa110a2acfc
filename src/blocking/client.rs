use std::{fmt, io::ErrorKind, ops::Range, time::Duration};

use super::{ClientError, Replies, Stream, connect::connect, outgoing::Outgoing};
use crate::{
    addr::{Addr, BindAddr},
    encode::Encode,
    error::Handled,
    framing::{DEFAULT_MAX_FRAME, Deframer, Found, Framing},
    reactor::{Deadline, deadline, now},
    session::Heartbeat,
    strategy::DetachedPlace,
};

/// How long one address may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long any other call may take, unless it was given another timeout.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a close waits for the peer's end.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that one read may bring, to begin with.
const FIRST_SPACE: usize = 4 * 1024;
/// And at most.
const SPACE: usize = 64 * 1024;
/// How many times its size the space grows to when a read has filled it.
const GROWTH: usize = 4;

/// A connection for a thread that sends a packet and waits for the reply: no reactor, no callbacks.
///
/// | what | limit |
/// |---|---|
/// | [`connect`](Self::connect) | 5 s for each address |
/// | [`send`](Self::send), [`recv`](Self::recv), [`process`](Self::process) | [`timeout`](Self::timeout): 30 s |
/// | [`close`](Self::close) | 2 s for the peer's end, after what is left to send |
/// | a frame | [`max_frame`](Self::max_frame): 1 MiB |
/// | what is received and not handed out yet | the unfinished frame, and one read of at most 64 KiB; it grows with the bytes that come, never by an announced length |
/// | what is kept for the next packet to be sent | 64 KiB |
///
/// **After a timeout** nothing is guessed. The bytes received of an unfinished packet are kept, and the next `recv`
/// continues behind them. A packet of which nothing was sent can be sent again. But when only a part of a packet was sent,
/// [`ClientError::CutOff`] is returned by this and every later `send`, because the peer would take whatever comes next for
/// the rest of that packet, and only the caller knows whether the packet may be sent twice: make a new connection. What the
/// peer sends can still be received.
///
/// **Sending much before receiving.** A server that replies to each packet stops reading when it cannot send its replies
/// (see [`Limits::outbox_high`](crate::Limits::outbox_high)); then a client that only sends gets a timeout. Receive in
/// between, as soon as more than a few hundred KiB are on their way.
///
/// ```
/// use framewire::{LengthPrefix, Server, blocking::Client, packet_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::bind("127.0.0.1:0")?
///     .framing(LengthPrefix::u32_be())
///     .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
///
/// let mut client = Client::connect(server.local_addr().ok_or("not TCP")?, LengthPrefix::u32_be())?;
/// for question in ["one", "two"] {
///     client.send(question)?;
/// }
/// assert_eq!(client.recv()?, Some(&b"one"[..]));
/// assert_eq!(client.recv()?, Some(&b"two"[..]));
/// client.close()?;
/// # Ok(())
/// # }
/// ```
pub struct Client<F> {
    deframer: Deframer<F>,
    /// What one read brings.
    space: Vec<u8>,
    out: Outgoing,
    /// Why nothing more can be received.
    over: Option<Over>,
    /// What came of a beat that was due when packets came, which are handed out first.
    late: Option<ClientError>,
    /// Among the connections of the server that it was taken from. Dropped behind the socket.
    _place: Option<DetachedPlace>,
}

/// How receiving has ended.
#[derive(Debug, Clone)]
enum Over {
    /// The peer has ended its side.
    End,
    Failed(ClientError),
}

impl<F: Framing> Client<F> {
    /// Connects to an address in any of the forms that [`Server::bind`](crate::Server::bind) takes, such as `"host:port"`
    /// or `"unix:/path"`. Several, and all that a name resolves to, are tried in turn, each for at most 5 s.
    ///
    /// A name is resolved by the system, within its own timeouts. TCP connections get `TCP_NODELAY`.
    ///
    /// # Errors
    /// [`ClientError::Address`] and [`ClientError::Connect`].
    pub fn connect(addrs: impl BindAddr, framing: F) -> Result<Self, ClientError> {
        Self::connect_timeout(addrs, framing, CONNECT_TIMEOUT)
    }

    /// As [`connect`](Self::connect), with another timeout for each address.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_timeout(addrs: impl BindAddr, framing: F, each: Duration) -> Result<Self, ClientError> {
        Self::new(connect(addrs, each)?.into(), framing)
    }

    /// Makes a client of a connected [`TcpStream`](std::net::TcpStream) or
    /// [`UnixStream`](std::os::unix::net::UnixStream), at the beginning of a frame, or of a
    /// [`Detached`](crate::Detached) connection. Timeouts that were set on it are removed.
    ///
    /// # Errors
    /// [`ClientError::Io`] if the system refuses to change its settings.
    pub fn from_stream(stream: impl Into<Stream>, framing: F) -> Result<Self, ClientError> {
        Self::new(stream.into(), framing)
    }

    pub(super) fn new(stream: Stream, framing: F) -> Result<Self, ClientError> {
        let (socket, place) = stream.open().map_err(ClientError::io)?;
        Ok(Self {
            deframer: Deframer::new(framing).max(DEFAULT_MAX_FRAME),
            space: Vec::new(),
            out: Outgoing::new(socket, Some(TIMEOUT)),
            over: None,
            late: None,
            _place: place,
        })
    }

    /// Switches to TLS, as the client: the server must show a certificate for `server`, a host name or an IP address. Returns
    /// when the handshake is complete, which may take as long as the [`timeout`](Self::timeout). Call it first, or in
    /// mid-stream (STARTTLS) behind the packet by which the server agrees: clear text that has come behind that packet is refused.
    ///
    /// With TLS, [`end`](Self::end) and [`close`](Self::close) say goodbye (`close_notify`); a server that has ended its side
    /// without that was cut, which is [`ClientError::Layer`]. A packet counts as partly sent as soon as it is encrypted.
    ///
    /// ```no_run
    /// use framewire::{LengthPrefix, TlsConnector, TlsRoots, blocking::Client};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let connector = TlsConnector::new(TlsRoots::system()?)?;
    /// let mut client = Client::connect("example.com:7000", LengthPrefix::u32_be())?.tls(&connector, "example.com")?;
    /// client.send("hello")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Layer`] says why there is no TLS with this server, [`ClientError::Io`] that the connection failed or
    /// the time was up. The connection is closed then.
    #[cfg(feature = "tls")]
    pub fn tls(self, connector: &crate::tls::TlsConnector, server: &str) -> Result<Self, ClientError> {
        self.secure(connector.layer(server))
    }

    /// Switches to TLS, as the server: for what a [`Listener`](super::Listener) has accepted. As [`tls`](Self::tls).
    ///
    /// # Errors
    /// As for [`tls`](Self::tls).
    #[cfg(feature = "tls")]
    pub fn accept_tls(self, acceptor: &crate::tls::TlsAcceptor) -> Result<Self, ClientError> {
        self.secure(acceptor.layer())
    }

    #[cfg(feature = "tls")]
    fn secure(mut self, tls: crate::tls::Tls) -> Result<Self, ClientError> {
        if self.out.socket.is_secure() {
            return Err(crate::error::LayerError::Misplaced("there is TLS already").into());
        }
        let until = deadline(self.out.timeout);
        let behind = self.deframer.take_held();
        self.out.socket.secure(tls, &behind, until).map_err(ClientError::io)?;
        Ok(self)
    }

    /// Returns what TLS has agreed on with the peer; `None` without TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_info(&self) -> Option<crate::tls::TlsInfo<'_>> {
        self.out.socket.tls()
    }

    /// Sets how long each call to send or to receive may take. Default 30 s. `None` means as long as it takes; then a peer
    /// that is gone without a word is found only by a [`Heartbeat`] with
    /// [`lost_after`](crate::Heartbeat::lost_after).
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.out.timeout = timeout.into();
        self
    }

    /// Sets the maximum length of a frame, in bytes, as [`Limits::frame`](crate::Limits::frame) does for a server. Default
    /// 1 MiB. Call it before the first packet is received.
    #[must_use]
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.deframer = self.deframer.max(bytes);
        self
    }

    /// Sets the heartbeat, in place of one that was set before; `None` stops it. Its first beat is due one period from now.
    ///
    /// Beats go out while the client receives ([`recv`](Self::recv), [`process`](Self::process) and the like); between
    /// these calls none does. The answers of the peer are packets like any other.
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::{Heartbeat, LengthPrefix, Server, blocking::Client, packet_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::bind("127.0.0.1:0")?
    ///     .framing(LengthPrefix::u32_be())
    ///     .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
    /// let mut client = Client::connect(server.local_addr().ok_or("not TCP")?, LengthPrefix::u32_be())?;
    ///
    /// client.set_heartbeat(Heartbeat::every(Duration::from_millis(20), "ping")?.lost_after(3));
    /// assert_eq!(client.recv()?, Some(&b"ping"[..])); // this server sends everything back
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_heartbeat(&mut self, heartbeat: impl Into<Option<Heartbeat>>) {
        self.out.set_heartbeat(heartbeat.into());
    }

    /// Sends one packet. Returns when the kernel has taken all of it.
    ///
    /// # Errors
    /// [`ClientError::Encode`], [`ClientError::SendTimedOut`] and [`ClientError::CutOff`], [`ClientError::Io`],
    /// [`ClientError::Ended`]; each says whether the client can still be used.
    pub fn send(&mut self, packet: impl Encode) -> Result<(), ClientError> {
        self.out.send(self.deframer.framing(), &packet)
    }

    /// Waits for the next packet, for at most the [`timeout`](Self::timeout), and returns it. It is borrowed until the next
    /// call, so that no other packet can take its place meanwhile. `None` means that the peer has ended its side; packets
    /// can still be sent.
    ///
    /// # Errors
    /// [`ClientError::RecvTimedOut`], [`ClientError::Frame`], [`ClientError::Rejected`],
    /// [`ClientError::HeartbeatLost`], [`ClientError::Io`]; each says whether the client can still be used. Packets that
    /// came before the error are returned first.
    pub fn recv(&mut self) -> Result<Option<&[u8]>, ClientError> {
        self.recv_within(self.out.timeout)
    }

    /// As [`recv`](Self::recv), with a timeout of its own. [`Duration::ZERO`] returns what has come, without waiting.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, within: Duration) -> Result<Option<&[u8]>, ClientError> {
        self.recv_within(Some(within))
    }

    fn recv_within(&mut self, within: Option<Duration>) -> Result<Option<&[u8]>, ClientError> {
        let place = self.find(within)?;
        Ok(place.map(|place| self.deframer.packet(place).0))
    }

    /// Waits for the next packet and calls `handle` with it, and with a way to reply. Returns what that returned; `None`
    /// means that the peer has ended its side.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn process_once<R>(
        &mut self,
        handle: impl FnOnce(&mut Replies<'_, F>, &[u8]) -> R,
    ) -> Result<Option<R>, ClientError> {
        let Some(place) = self.find(self.out.timeout)? else { return Ok(None) };
        let (packet, framing) = self.deframer.packet(place);
        Ok(Some(handle(&mut Replies::new(&mut self.out, framing), packet)))
    }

    /// Calls `handle` with each packet until the peer ends its side, which returns `Ok`, or until something fails. Each
    /// packet may take as long as the [`timeout`](Self::timeout).
    ///
    /// # Errors
    /// As for [`recv`](Self::recv). If `handle` fails: the error of [`Replies::send`], if that is what it passed on,
    /// otherwise [`ClientError::Handler`].
    ///
    /// ```
    /// use framewire::{Separator, blocking::{Client, Listener}};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut listener = Listener::bind("127.0.0.1:0", Separator::lines())?;
    /// let addr = listener.local_addr().socket_addr().ok_or("not TCP")?;
    /// let asking = std::thread::spawn(move || {
    ///     let mut client = Client::connect(addr, Separator::lines())?;
    ///     client.send("hello")?;
    ///     let reply = client.recv()?.map(<[u8]>::to_vec);
    ///     client.close()?;
    ///     Ok::<_, framewire::blocking::ClientError>(reply)
    /// });
    ///
    /// // An echo.
    /// listener.accept()?.process(|replies, packet| Ok(replies.send(packet)?))?;
    /// assert_eq!(asking.join().map_err(|_| "it panicked")??, Some(b"hello".to_vec()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn process(
        &mut self,
        mut handle: impl FnMut(&mut Replies<'_, F>, &[u8]) -> Handled,
    ) -> Result<(), ClientError> {
        while let Some(handled) = self.process_once(&mut handle)? {
            handled.map_err(ClientError::failed)?;
        }
        Ok(())
    }

    /// Ends this side of the stream, so that the peer knows that no more packets come. Its replies can still be received.
    /// Does nothing if that was done before.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn end(&mut self) -> Result<(), ClientError> {
        self.out.end(deadline(self.out.timeout))
    }

    /// Closes the connection gracefully: ends this side of the stream, then reads and discards what still comes until the
    /// peer has ended its own, for at most 2 s. So the peer gets everything that was sent: closing a socket with unread
    /// input resets the connection, which destroys what is on its way. That is what dropping a client does.
    ///
    /// # Errors
    /// [`ClientError::PeerStays`] if the peer did not end its side, [`ClientError::Io`] if the connection failed, and the
    /// error after which nothing could be sent, if there was one. The connection is closed in any case; it is reset if only
    /// a part of a packet was sent.
    pub fn close(mut self) -> Result<(), ClientError> {
        if let Err(error) = self.end() {
            self.out.socket.socket.make_reset();
            return Err(error);
        }
        if let Some(Over::End) = self.over {
            return Ok(());
        }
        let until = deadline(Some(LINGER));
        self.make_space();
        loop {
            match self.out.socket.recv(&mut self.space, until) {
                Ok(0) => return Ok(()),
                Ok(_) if until.is_none_or(|until| now() < until) => {}
                Ok(_) => return Err(ClientError::PeerStays(LINGER)),
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return Err(ClientError::PeerStays(LINGER));
                }
                Err(error) => return Err(ClientError::io(error)),
            }
        }
    }

    /// Resets the connection: what is on its way is lost, and the peer gets an error. Over a Unix socket this is an ordinary
    /// close.
    pub fn abort(self) {
        self.out.socket.socket.make_reset();
    }

    /// Returns the address of the peer.
    ///
    /// # Errors
    /// [`ClientError::Io`] if the connection has failed.
    pub fn peer_addr(&self) -> Result<Addr, ClientError> {
        self.out.socket.socket.peer_addr().map_err(ClientError::io)
    }

    /// Returns the address of this side.
    ///
    /// # Errors
    /// [`ClientError::Io`] if the connection has failed.
    pub fn local_addr(&self) -> Result<Addr, ClientError> {
        self.out.socket.socket.local_addr().map_err(ClientError::io)
    }

    /// Finds the next packet, for which it reads if there is none; returns its place.
    fn find(&mut self, within: Option<Duration>) -> Result<Option<Range<usize>>, ClientError> {
        // Set when there is something to wait for: a packet that is there already needs no clock.
        let mut until = None;
        loop {
            if let Some(Over::Failed(error)) = &self.over {
                return Err(error.clone());
            }
            match self.deframer.find() {
                Ok(Some(Found::Packet(place))) => return Ok(Some(place)),
                Ok(Some(Found::Rejected(error))) => return Err(ClientError::Rejected(Box::new(error))),
                Ok(None) if self.over.is_some() => return Ok(None),
                Ok(None) => self.receive(*until.get_or_insert_with(|| deadline(within)), within)?,
                Err(error) => self.over = Some(Over::Failed(error.into())),
            }
        }
    }

    /// Receives what comes next: bytes, or the end.
    fn receive(&mut self, until: Deadline, within: Option<Duration>) -> Result<(), ClientError> {
        if let Some(error) = self.late.take() {
            return Err(error);
        }
        self.make_space();
        loop {
            let wake = [until, self.out.next_beat()].into_iter().flatten().min();
            match self.out.socket.recv(&mut self.space, wake) {
                Ok(0) => {
                    self.deframer.end();
                    self.over = Some(Over::End);
                    return Ok(());
                }
                Ok(n) => {
                    self.deframer.feed(self.space.get(..n).unwrap_or_default());
                    if n == self.space.len() && n < SPACE {
                        self.space.resize(n * GROWTH, 0);
                    }
                    self.late = self.out.hear(self.deframer.framing()).err();
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    let now = now();
                    self.out.beat(self.deframer.framing(), now)?;
                    if until.is_some_and(|until| until <= now) {
                        let (after, held) = (within.unwrap_or_default(), self.deframer.held().len());
                        return Err(ClientError::RecvTimedOut { after, held });
                    }
                }
                Err(error) => {
                    self.over = Some(Over::Failed(ClientError::io(error)));
                    return Ok(());
                }
            }
        }
    }

    fn make_space(&mut self) {
        if self.space.is_empty() {
            self.space.resize(FIRST_SPACE, 0);
        }
    }
}

impl<F> fmt::Debug for Client<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("socket", &self.out.socket).finish_non_exhaustive()
    }
}

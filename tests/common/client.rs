use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use framewire::{
    Addr,
    testing::layers::{Scrambler, StackedPeer},
};
#[cfg(feature = "deflate")]
use std::sync::Arc;

#[cfg(feature = "deflate")]
use framewire::{DeflateWindow, Layer, testing::LayerDriver};
use socket2::{Domain, SockAddr, Socket, Type};

#[cfg(feature = "tls")]
use super::tls::SecurePeer;
use super::{PATIENCE, websocket::WebSocketStream};

/// The addresses of servers with layers, those of one server together, and what their clients speak.
static LAYERED: Mutex<Vec<(Vec<SocketAddr>, Speech)>> = Mutex::new(Vec::new());

/// Compression of one connection, without a socket.
#[cfg(feature = "deflate")]
type Compressed = Mutex<LayerDriver<Box<dyn Layer>>>;

#[cfg(feature = "deflate")]
fn lock(compressed: &Compressed) -> MutexGuard<'_, LayerDriver<Box<dyn Layer>>> {
    compressed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client speaks below its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// The layers of [`StackedPeer`].
    Layers,
    /// The same, and compression on them.
    #[cfg(feature = "deflate")]
    Deflated(DeflateWindow),
    WebSocket,
    /// The first two layers of [`StackedPeer`], and a WebSocket on them.
    StackedWebSocket,
    Tls,
    /// The header of a proxy, TLS, and a layer that scrambles.
    StackedTls,
}

/// The client's side of the layers.
#[derive(Clone)]
enum Layers {
    Stacked(StackedPeer),
    /// All owners of a connection share its compression.
    #[cfg(feature = "deflate")]
    Deflated(StackedPeer, Arc<Compressed>),
    WebSocket(WebSocketStream),
    StackedWebSocket(Scrambler, WebSocketStream),
    #[cfg(feature = "tls")]
    Secure(SecurePeer),
}

impl Layers {
    /// Begins on a new connection.
    fn begin(speech: Speech, socket: &Socket) -> io::Result<Self> {
        let from = socket.local_addr()?.as_socket().expect("bound to TCP");
        let (layers, greeting) = match speech {
            Speech::Layers => {
                let mut layers = StackedPeer::default();
                let greeting = layers.greet(from);
                (Self::Stacked(layers), greeting)
            }
            #[cfg(feature = "deflate")]
            Speech::Deflated(window) => {
                let layer: Box<dyn Layer> = Box::new(super::deflate(window).layer());
                let driver = LayerDriver::new(layer).expect("there is no handshake");
                let mut layers = StackedPeer::default();
                let greeting = layers.greet(from);
                (Self::Deflated(layers, Arc::new(Mutex::new(driver))), greeting)
            }
            Speech::WebSocket => {
                let stream = WebSocketStream::default();
                let greeting = stream.greet();
                (Self::WebSocket(stream), greeting)
            }
            Speech::StackedWebSocket => {
                let (mut below, stream) = (StackedPeer::second_of_three(), WebSocketStream::default());
                let inner = below.greet();
                let greeting = stream.greet();
                let wire = [StackedPeer::proxy_header(from), inner, below.encode(&greeting)].concat();
                (Self::StackedWebSocket(below, stream), wire)
            }
            #[cfg(feature = "tls")]
            Speech::Tls | Speech::StackedTls => {
                return SecurePeer::begin(speech, socket, from).map(Self::Secure);
            }
            #[cfg(not(feature = "tls"))]
            Speech::Tls | Speech::StackedTls => unreachable!("only with TLS"),
        };
        // A server that refuses the connection may have done so by now, and no later read would show it.
        let mut socket = socket;
        socket.write_all(&greeting).map_err(|_| ErrorKind::ConnectionReset)?;
        Ok(layers)
    }

    /// Waits until something can be read.
    fn ready(&self) -> io::Result<()> {
        match self {
            #[cfg(feature = "tls")]
            Self::Secure(peer) => peer.ready(),
            _ => Ok(()),
        }
    }

    fn is_shaking(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Secure(peer) => peer.is_shaking(),
            _ => false,
        }
    }

    fn encode(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Stacked(layers) => layers.encode(plain),
            #[cfg(feature = "deflate")]
            Self::Deflated(layers, deflated) => {
                let mut deflated = lock(deflated);
                deflated.send(plain).expect("it can be sent");
                layers.encode(&deflated.take_wire())
            }
            Self::WebSocket(stream) => stream.encode(plain),
            Self::StackedWebSocket(below, stream) => below.encode(&stream.encode(plain)),
            #[cfg(feature = "tls")]
            Self::Secure(peer) => peer.encode(plain)?,
        })
    }

    fn decode(&mut self, wire: &[u8]) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Stacked(layers) => layers.decode(wire),
            #[cfg(feature = "deflate")]
            Self::Deflated(layers, deflated) => {
                lock(deflated).receive(&layers.decode(wire)).expect("the server compresses")
            }
            Self::WebSocket(stream) => stream.decode(wire),
            Self::StackedWebSocket(below, stream) => stream.decode(&below.decode(wire)),
            #[cfg(feature = "tls")]
            Self::Secure(peer) => peer.decode(wire)?,
        })
    }

    fn end(&mut self) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Stacked(layers) => layers.end(),
            #[cfg(feature = "deflate")]
            Self::Deflated(layers, deflated) => {
                let mut deflated = lock(deflated);
                deflated.end().expect("it can end");
                [layers.encode(&deflated.take_wire()), layers.end()].concat()
            }
            Self::WebSocket(stream) => stream.end(),
            Self::StackedWebSocket(below, stream) => {
                let goodbye = stream.end();
                [below.encode(&goodbye), below.end()].concat()
            }
            #[cfg(feature = "tls")]
            Self::Secure(peer) => peer.end()?,
        })
    }

    /// A stream that ends without it was cut.
    fn need_goodbye(&self) -> bool {
        match self {
            Self::Stacked(_) => false,
            #[cfg(feature = "deflate")]
            Self::Deflated(..) => false,
            _ => true,
        }
    }

    fn was_ended(&self) -> bool {
        match self {
            Self::Stacked(layers) => layers.was_ended(),
            #[cfg(feature = "deflate")]
            Self::Deflated(layers, deflated) => lock(deflated).receive_end().is_ok() && layers.was_ended(),
            Self::WebSocket(stream) => stream.was_ended(),
            Self::StackedWebSocket(below, stream) => below.was_ended() && stream.was_ended(),
            #[cfg(feature = "tls")]
            Self::Secure(peer) => peer.was_ended(),
        }
    }
}

/// Clients of these addresses speak so for as long as this lives: another test of this process may be given the same port
/// afterwards.
#[derive(Debug)]
pub(crate) struct SpeakLayers(Option<SocketAddr>);

impl SpeakLayers {
    pub(crate) fn to(addrs: &[Addr], speech: Speech) -> Self {
        let addrs = tcp(addrs);
        let first = addrs.first().copied();
        layered().push((addrs, speech));
        Self(first)
    }

    /// The server, which has layers, has bound more addresses; the first is as before.
    pub(crate) fn also_to(addrs: &[Addr]) {
        let addrs = tcp(addrs);
        layered()
            .iter_mut()
            .filter(|(known, _)| known.first() == addrs.first())
            .for_each(|(known, _)| known.clone_from(&addrs));
    }
}

fn tcp(addrs: &[Addr]) -> Vec<SocketAddr> {
    addrs.iter().filter_map(Addr::socket_addr).collect()
}

impl Drop for SpeakLayers {
    fn drop(&mut self) {
        layered().retain(|(addrs, _)| addrs.first() != self.0.as_ref());
    }
}

fn layered() -> MutexGuard<'static, Vec<(Vec<SocketAddr>, Speech)>> {
    LAYERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A blocking client whose frames begin with a length of four bytes. It never waits longer than the tests do.
pub(crate) struct Client {
    pub(crate) socket: Socket,
    layers: Option<Layers>,
    /// What was read, after it went through the layers.
    plain: VecDeque<u8>,
    /// It says goodbye when it is dropped, if its layers have a word for that which must not be missing.
    says_goodbye: bool,
}

/// One frame on the wire.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    let len = u32::try_from(packet.len()).expect("a packet of a test is short");
    [&len.to_be_bytes(), packet].concat()
}

impl Client {
    pub(crate) fn connect(addr: &SockAddr) -> io::Result<Self> {
        Self::connect_with(addr, |_| Ok(()))
    }

    pub(crate) fn connect_with(
        addr: &SockAddr,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::from(i32::from(addr.family())), Type::STREAM, None)?;
        prepare(&socket)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        if addr.as_socket().is_some() {
            socket.set_tcp_nodelay(true)?;
        }
        socket.connect(addr)?;
        let speech = addr.as_socket().and_then(|addr| {
            layered().iter().find(|(known, _)| known.contains(&addr)).map(|(_, speech)| *speech)
        });
        let layers = speech.map(|speech| Layers::begin(speech, &socket)).transpose()?;
        let says_goodbye = layers.as_ref().is_some_and(Layers::need_goodbye);
        Ok(Self { socket, layers, plain: VecDeque::new(), says_goodbye })
    }

    /// The same connection, for writing only.
    pub(crate) fn writer(&self) -> Self {
        let socket = self.socket.try_clone().expect("a socket has many owners");
        Self { socket, layers: self.layers.clone(), plain: VecDeque::new(), says_goodbye: false }
    }

    fn encode(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.layers.as_mut().map_or_else(|| Ok(bytes.to_vec()), |layers| layers.encode(bytes))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let wire = self.encode(bytes).expect("the handshake succeeds");
        self.socket.write_all(&wire).expect("the server reads");
    }

    /// For a server that may reset the connection meanwhile. Returns `true` if everything was taken.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.encode(bytes).and_then(|wire| self.socket.write_all(&wire)).is_ok()
    }

    /// For a server that may end the connection instead.
    pub(crate) fn try_read(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_exact(&mut bytes).is_ok().then_some(bytes)
    }

    pub(crate) fn send(&mut self, packet: impl AsRef<[u8]>) {
        self.write(&frame(packet.as_ref()));
    }

    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    pub(crate) fn recv(&mut self) -> Vec<u8> {
        let header: [u8; 4] = self.read(4).try_into().expect("four bytes");
        self.read(u32::from_be_bytes(header) as usize)
    }

    pub(crate) fn recv_text(&mut self) -> String {
        String::from_utf8(self.recv()).expect("the server answers in text")
    }

    /// Sends a packet and receives it back.
    pub(crate) fn assert_echo(&mut self, packet: impl AsRef<[u8]>) {
        self.send(packet.as_ref());
        assert_eq!(self.recv(), packet.as_ref());
    }

    pub(crate) fn assert_reply(&mut self, packet: &str, reply: &str) {
        self.send(packet);
        assert_eq!(self.recv_text(), reply);
    }

    pub(crate) fn end(&mut self) {
        self.says_goodbye = false;
        if let Some(layers) = &mut self.layers {
            let goodbye = layers.end().expect("the handshake succeeds");
            self.socket.write_all(&goodbye).expect("the server reads");
        }
        self.socket.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Reads up to the end of the stream, which must be a clean one.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        Read::read_to_end(self, &mut rest).expect("the stream ends without a reset");
        assert!(self.layers.as_ref().is_none_or(Layers::was_ended), "an end, and no goodbye of the layers");
        rest
    }

    pub(crate) fn assert_end(&mut self) {
        assert_eq!(self.read_to_end(), b"", "nothing but the end is to come");
    }

    /// Reads up to the end of the connection; the flag is `true` if that was a reset.
    pub(crate) fn read_to_any_end(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        match Read::read_to_end(self, &mut bytes) {
            Ok(_) => (bytes, false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, true),
            Err(error) => panic!("neither an end nor a reset: {error}"),
        }
    }

    /// Ends the connection with a reset (over TCP).
    pub(crate) fn reset(mut self) {
        self.says_goodbye = false;
        // A handshake that is left before it is over ends in another way.
        let _ = self.layers.as_ref().map(Layers::ready);
        self.socket.set_linger(Some(Duration::ZERO)).expect("a socket lingers as told");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(layers) = self.layers.as_mut().filter(|_| self.says_goodbye) {
            // Nobody waits here for a handshake.
            let goodbye = if layers.is_shaking() { Vec::new() } else { layers.end().unwrap_or_default() };
            // The server may have gone first, or take no more.
            let _ = self.socket.set_nonblocking(true).and_then(|()| self.socket.write_all(&goodbye));
        }
    }
}

impl Read for Client {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(layers) = &mut self.layers else { return self.socket.read(into) };
        match layers.ready() {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            ready => ready?,
        }
        while self.plain.is_empty() {
            let mut wire = [0; 16 * 1024];
            match self.socket.read(&mut wire)? {
                0 => return Ok(0),
                n => self.plain.extend(layers.decode(&wire[..n])?),
            }
        }
        self.plain.read(into)
    }
}

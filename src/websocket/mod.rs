//! WebSockets: RFC 6455, as a [layer](crate::Layer) of a session. A message is a packet.
//!
//! ```text
//! socket ─▶ (PROXY header) ─▶ (TLS) ─▶ HTTP upgrade, then frames ─▶ messages ─▶ PacketHandler
//! ```
//!
//! A [`WebSocket`] is what a server takes: by [`Server::websocket`](crate::Server::websocket), for a port that serves nothing else, or by
//! [`Server::sniff`](crate::Server::sniff), for one port that serves browsers and other clients. A [`WebSocketClient`] is
//! what this side asks for, with [`Dial::websocket`](crate::Dial::websocket).
//!
//! ```
//! use std::time::Duration;
//! use framewire::{Server, packet_fn, websocket::{Messages, Response, WebSocket}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let websocket = WebSocket::new().check(|request| match (request.path(), request.origin()) {
//!     ("/chat", Some("https://chat.example")) => Ok(()),
//!     ("/chat", _) => Err(Response::new(403)),
//!     _ => Err(Response::new(404)),
//! });
//! let server = Server::bind("127.0.0.1:0")?
//!     .framing(Messages::new())
//!     .websocket(websocket)
//!     .spawn(packet_fn(|session, message| Ok(session.send(message)?)))?;
//! server.stop(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
//!
//! **Text and binary.** [`Session::message_kind`](crate::Session::message_kind) says what the present packet came as,
//! [`Session::set_message_kind`](crate::Session::set_message_kind) how packets are sent from now on, and
//! [`Session::send_message`](crate::Session::send_message) sends one as the other. Text is checked to be UTF-8 in both
//! directions, as it comes.
//!
//! **By itself.** Masks are applied and removed; fragments are joined; pings are answered (of several that wait, the
//! last); a [`Heartbeat`](crate::Heartbeat) is sent as a ping, with its packet of at most 125 bytes. What breaks the
//! protocol ends the session with [`CloseReason::Layer`](crate::CloseReason::Layer), and is answered with a close frame:
//! 1002 for a breach, 1007 for text that is not UTF-8, 1008 for a message in very many tiny fragments, 1009 for one that
//! is longer than [`Limits::frame`](crate::Limits::frame) (refused by its length, before it has come).
//!
//! **Closing.** A close frame of the peer is the end of its side: `on_end` is called, and the close frame is answered with
//! the same code when the session closes. A stream that ends without one is truncated. When this side closes, it says why
//! by a code:
//!
//! | the session closes because | code |
//! |---|---|
//! | [`close`](crate::Session::close) was called | 1000 |
//! | of a [`CloseFrame`], by `close_with` or `?` | that of the frame, with its reason |
//! | of another reason of the handler | 1008 |
//! | the server shuts down, of age, silence, or a lost heartbeat | 1001 |
//! | a packet was not completed, or never came | 1008 |
//! | the framing was broken (with [`WebSocket::bytes`]) | 1002, or 1009 for a frame that is too long |
//! | a packet could not be sent, or a callback panicked | 1011 |
//! | the shard had no memory | 1013 |
//! | the session that it was linked to ended | 1014 |
//!
//! **What it costs.** Nothing of a message is kept here: its bytes go to the session's inbox as they come, whose limits
//! and timeouts hold, and each is copied once, where its mask is removed. Handshakes have
//! [`Limits::handshake_timeout`](crate::Limits::handshake_timeout), and heads at most 8 KiB.

mod client;
mod close;
#[cfg(feature = "deflate")]
mod deflate;
mod frame;
mod http;
mod layer;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod utf8;

use std::{fmt, sync::Arc};

pub use client::{InvalidRequest, WebSocketClient};
pub use close::{CloseFrame, WebSocketError};
pub use http::{Request, Response};
pub use layer::WebSocketLayer;

pub use crate::framing::{MessageKind, Messages};

#[cfg(feature = "deflate")]
use crate::layer::Deflate;
use crate::layer::{Sniff, Sniffed};

type Check = dyn Fn(&Request) -> Result<(), Response> + Send + Sync;
type Answer = dyn Fn(&Request) -> Response + Send + Sync;

/// How a server takes WebSockets.
///
/// | option | default |
/// |---|---|
/// | [`check`](Self::check) | every path and every origin is taken |
/// | [`http`](Self::http) | a request for no WebSocket is answered with 426 |
/// | [`protocols`](Self::protocols) | no subprotocol is chosen |
/// | [`send_as`](Self::send_as) | packets are sent as binary messages |
/// | [`bytes`](Self::bytes) | a message is a packet |
/// | `deflate` (feature `deflate`) | messages are not compressed |
///
/// The [module](self) has an example.
#[derive(Clone, Default)]
pub struct WebSocket(Arc<Options>);

#[derive(Clone, Default)]
struct Options {
    check: Option<Arc<Check>>,
    http: Option<Arc<Answer>>,
    protocols: Vec<Box<str>>,
    sends: MessageKind,
    carries: Carries,
    #[cfg(feature = "deflate")]
    deflate: Option<Deflate>,
}

/// What the plain bytes of the layer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Carries {
    /// Messages, for the framing [`Messages`].
    #[default]
    Messages,
    /// A stream, whose cuts into messages mean nothing, for any framing.
    Bytes,
}

impl WebSocket {
    /// WebSockets on any path, for any origin. A browser lets a page of any site connect to your server, with the
    /// user's cookies: [`check`](Self::check) the origin where that matters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides on requests, by path, `Origin` or any header field; an error is sent in place of the WebSocket. Runs on
    /// the thread of the session, before `on_open`; it must not block. A panic in it ends the connection.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&Request) -> Result<(), Response> + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).check = Some(Arc::new(check));
        self
    }

    /// Answers requests by GET that ask for no WebSocket, for a page on the same port. The connection ends behind the
    /// response; no session is opened. This is no web server: it is right for a page or two.
    #[must_use]
    pub fn http(mut self, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).http = Some(Arc::new(answer));
        self
    }

    /// Sets the subprotocols of this server, the preferred one first. The first that the client offers too is chosen;
    /// [`Session::protocol`](crate::Session::protocol) returns it. If there is none, the WebSocket opens without one: a
    /// check can refuse it, by [`Request::protocols`].
    #[must_use]
    pub fn protocols<P: Into<Box<str>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        Arc::make_mut(&mut self.0).protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how packets are sent: see [`Session::set_message_kind`](crate::Session::set_message_kind).
    #[must_use]
    pub fn send_as(mut self, kind: MessageKind) -> Self {
        Arc::make_mut(&mut self.0).sends = kind;
        self
    }

    /// Compresses messages of 64 bytes or more in both directions with clients that offer it, as browsers do
    /// (`permessage-deflate`, RFC 7692). Each message is compressed by itself, whatever the
    /// [window](Deflate::window) of `deflate` is: between messages, a session holds no memory for it (312 KiB while one is
    /// compressed and 43 KiB while one is inflated). A client that wants a smaller window of the server than 32 KiB is served
    /// without compression.
    ///
    /// A message counts for [`Limits::frame`](crate::Limits::frame) by what it inflates to, and is given up as soon as that is
    /// exceeded (code 1009); a peer that exceeds [`Deflate::max_ratio`] and [`Deflate::allowance`] is closed with 1008.
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, deflate: Deflate) -> Self {
        Arc::make_mut(&mut self.0).deflate = Some(deflate);
        self
    }

    /// Carries a stream of bytes in binary messages, whose bounds mean nothing, in place of messages: the framing of the
    /// server cuts it, as that of a TCP connection. This is how MQTT (version 3.1.1, section 6) and other protocols of
    /// streams go over WebSocket. A text message is refused with 1003, and a heartbeat is a packet.
    #[must_use]
    pub fn bytes(mut self) -> Self {
        Arc::make_mut(&mut self.0).carries = Carries::Bytes;
        self
    }

    /// Returns the layer of one connection, for [`Server::layer`](crate::Server::layer). Together with
    /// [`Session::push_layer`](crate::Session::push_layer) it is up to you to set the framing first:
    /// `session.set_framing(Messages::new())`.
    #[must_use]
    pub fn layer(&self) -> WebSocketLayer {
        WebSocketLayer::server(self.0.clone())
    }
}

impl Sniff {
    /// Adds WebSockets, and HTTP: what begins with a line such as `GET /chat HTTP/1.1`. What begins otherwise goes to the
    /// framing of the server.
    ///
    /// ```no_run
    /// use framewire::{LengthPrefix, Server, Sniff, packet_fn, websocket::WebSocket};
    ///
    /// # fn main() -> Result<(), framewire::ServeError> {
    /// Server::bind("127.0.0.1:8080")?
    ///     .framing(LengthPrefix::u32_be())
    ///     .sniff(Sniff::new().websocket(WebSocket::new()))
    ///     .serve(packet_fn(|session, packet| Ok(session.send(packet)?)))
    /// # }
    /// ```
    #[must_use]
    pub fn websocket(self, websocket: WebSocket) -> Self {
        self.when(is_get, move || websocket.layer())
    }
}

/// Returns whether it is a request by GET: as far as its first line shows, so that a protocol of lines with a command
/// `GET` of its own is not mistaken for it.
fn is_get(first: &[u8]) -> Sniffed {
    let start = Sniffed::prefix(first, b"GET ");
    let line = memchr::memchr(b'\n', first).and_then(|end| first.get(..end));
    match (start, line) {
        (Sniffed::Yes, Some(line)) if line.ends_with(b" HTTP/1.1\r") || line.ends_with(b" HTTP/1.0\r") => {
            Sniffed::Yes
        }
        (Sniffed::Yes, Some(_)) => Sniffed::No,
        (Sniffed::Yes, None) => Sniffed::Unclear,
        (other, _) => other,
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { protocols, sends, carries, .. } = &*self.0;
        f.debug_struct("WebSocket")
            .field("protocols", protocols)
            .field("sends", sends)
            .field("carries", carries)
            .finish_non_exhaustive()
    }
}

use std::fmt;

use bytes::BytesMut;

#[cfg(feature = "websocket")]
use crate::websocket::{CloseFrame, Request};
use crate::{addr::Addr, error::LayerError, framing::Framing, layer::ProxyHeader};

/// Plain bytes that a layer may pass on in one call, so that the output of a decompressor is handed out before it grows
/// further.
const PLAIN_PER_CALL: usize = 64 * 1024;

/// The output of a [`Layer`](crate::Layer) while it receives, and what it can report about the connection.
pub struct LayerIo<'a> {
    plain: &'a mut Vec<u8>,
    /// Plain bytes before this call.
    before: usize,
    room: usize,
    wire: &'a mut BytesMut,
    requests: &'a mut LayerRequests,
    frame: usize,
}

/// What a layer asked for during one call.
#[derive(Default)]
pub(crate) struct LayerRequests {
    pub(crate) open: bool,
    pub(crate) done: bool,
    pub(crate) end: bool,
    pub(crate) again: bool,
    /// Why it ends.
    pub(crate) failure: Option<Box<LayerError>>,
    pub(crate) peer: Option<Addr>,
    pub(crate) proxied: Option<Box<ProxyHeader>>,
    pub(crate) protocol: Option<Box<[u8]>>,
    pub(crate) framing: Option<Box<dyn Framing>>,
    #[cfg(feature = "websocket")]
    pub(crate) websocket: Option<WebSocketNews>,
}

/// What a WebSocket layer has found out.
#[cfg(feature = "websocket")]
#[derive(Debug)]
pub(crate) enum WebSocketNews {
    Upgrade(Box<Request>),
    PeerClose(Box<CloseFrame>),
}

impl LayerRequests {
    /// Forgets what a layer asked for that concerns only itself.
    #[inline]
    pub(crate) fn begin(&mut self) {
        (self.open, self.done, self.end, self.again) = (false, false, false, false);
    }

    /// Returns `true` if something about the connection was reported.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        #[cfg(feature = "websocket")]
        if self.websocket.is_some() {
            return true;
        }
        self.peer.is_some() | self.proxied.is_some() | self.protocol.is_some() | self.framing.is_some()
    }
}

impl<'a> LayerIo<'a> {
    #[inline]
    pub(crate) fn new(
        plain: &'a mut Vec<u8>,
        wire: &'a mut BytesMut,
        requests: &'a mut LayerRequests,
        frame: usize,
    ) -> Self {
        Self { before: plain.len(), plain, room: PLAIN_PER_CALL, wire, requests, frame }
    }

    /// Passes plain bytes to the next layer or to the framing. Returns how many of them were taken, at most
    /// [`room`](Self::room). A layer that has more keeps them, and is called again when these were handed out: a block
    /// of more than 64 KiB is passed on in parts.
    #[inline]
    pub fn plain(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.get(..self.room).unwrap_or(bytes);
        self.plain.extend_from_slice(taken);
        self.room -= taken.len();
        taken.len()
    }

    /// Passes on the plain bytes that `write` writes to the front of the slice it is given, which is `most` bytes long, or
    /// as long as there is room. It returns how many they are.
    #[cfg(feature = "deflate")]
    pub(crate) fn plain_with<R>(&mut self, most: usize, write: impl FnOnce(&mut [u8]) -> (usize, R)) -> R {
        let (start, most) = (self.plain.len(), most.min(self.room));
        self.plain.resize(start + most, 0);
        let (made, outcome) = write(self.plain.get_mut(start..).unwrap_or_default());
        let made = made.min(most);
        self.plain.truncate(start + made);
        self.room -= made;
        outcome
    }

    /// Returns how many plain bytes may still be passed on in this call; 64 KiB at its beginning.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Returns the plain bytes that were passed on in this call, to be transformed where they are: a layer that removes a
    /// mask need not copy them twice.
    #[inline]
    pub fn passed(&mut self) -> &mut [u8] {
        self.plain.get_mut(self.before..).unwrap_or_default()
    }

    /// Asks for another call, with the same unread bytes, when what was passed on is handed out.
    #[cfg(all(feature = "websocket", feature = "deflate"))]
    pub(crate) fn call_again(&mut self) {
        self.requests.again = true;
    }

    /// Takes back the last `len` bytes that were passed on in this call, because they have turned out to be invalid.
    #[cfg(feature = "websocket")]
    #[cold]
    pub(crate) fn take_back(&mut self, len: usize) {
        let end = self.plain.len().saturating_sub(len).max(self.before);
        self.room += self.plain.len() - end;
        self.plain.truncate(end);
    }

    /// Returns [`Limits::frame`](crate::Limits::frame), in bytes, for a layer that cuts the stream into messages itself.
    #[inline]
    #[must_use]
    pub fn frame_limit(&self) -> usize {
        self.frame
    }

    /// Returns the buffer for the wire, to append bytes to. They are written before anything that is sent later.
    #[inline]
    pub fn wire(&mut self) -> &mut BytesMut {
        self.wire
    }

    /// Declares the layer open: its handshake, if it has one, is complete.
    #[inline]
    pub fn open(&mut self) {
        self.requests.open = true;
    }

    /// Removes the layer when this call has returned, because its work is done: received bytes after those that it
    /// consumed pass unchanged, and so does what is sent. Does nothing if the call also [ends](Self::end) the stream.
    pub fn done(&mut self) {
        self.requests.done = true;
    }

    /// Ends the plain stream here, as a TLS `close_notify` does: for the session, the peer has ended its side. Bytes
    /// that follow on the wire are discarded, and [`Layer::received`](crate::Layer::received) is not called again.
    pub fn end(&mut self) {
        self.requests.end = true;
    }

    /// Ends the plain stream here as [`end`](Self::end) does, but with an error, for which the session is then closed: the
    /// peer has violated the protocol, and is told so. Other than after an error of
    /// [`received`](crate::Layer::received), our side still works: replies to what came before are sent, and then
    /// [`Layer::end`](crate::Layer::end) is called.
    pub fn fail(&mut self, error: impl Into<LayerError>) {
        self.requests.failure = Some(Box::new(error.into()));
        self.end();
    }

    /// Sets the address that [`Session::peer_addr`](crate::Session::peer_addr) returns from now on, for example from a
    /// header of a proxy. [`Limits::connections_per_peer`](crate::Limits::connections_per_peer) counts the session by that
    /// address from now on; if there is no room for it, the session ends, with
    /// [`LayerError::PeerLimit`](crate::LayerError::PeerLimit).
    pub fn set_peer_addr(&mut self, peer: impl Into<Addr>) {
        self.requests.peer = Some(peer.into());
    }

    /// Replaces the framing of the session in both directions, for a layer whose plain bytes are frames of a kind of their
    /// own: what this call passes on goes to the new framing already, as does everything that is sent later. It is
    /// offered [`Limits::frame`](crate::Limits::frame) as its maximum. If several layers set one, the last counts.
    pub fn set_framing(&mut self, framing: impl Framing + 'static) {
        self.requests.framing = Some(Box::new(framing));
    }

    /// Keeps the request of a WebSocket for `on_open`.
    #[cfg(feature = "websocket")]
    pub(crate) fn set_upgrade(&mut self, request: Request) {
        self.requests.websocket = Some(WebSocketNews::Upgrade(Box::new(request)));
    }

    /// The peer has sent a close frame.
    #[cfg(feature = "websocket")]
    pub(crate) fn set_peer_close(&mut self, frame: CloseFrame) {
        self.requests.websocket = Some(WebSocketNews::PeerClose(Box::new(frame)));
    }

    /// Sets what [`Session::proxied`](crate::Session::proxied) returns from now on.
    pub(crate) fn set_proxied(&mut self, header: ProxyHeader) {
        self.requests.proxied = Some(Box::new(header));
    }

    /// Sets the negotiated protocol (ALPN, a WebSocket subprotocol), which
    /// [`Session::protocol`](crate::Session::protocol) returns from now on.
    pub fn set_protocol(&mut self, protocol: impl Into<Box<[u8]>>) {
        self.requests.protocol = Some(protocol.into());
    }
}

impl fmt::Debug for LayerIo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerIo").field("room", &self.room).finish_non_exhaustive()
    }
}

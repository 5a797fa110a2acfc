use std::fmt;

use bytes::BytesMut;

use crate::addr::Addr;

/// Plain bytes that a layer may give in one call: so what a few bytes are inflated to is handed out before more of it is.
const PLAIN_PER_CALL: usize = 64 * 1024;

/// What a [`Layer`](crate::Layer) can do while it receives.
pub struct LayerIo<'a> {
    plain: &'a mut Vec<u8>,
    room: usize,
    wire: &'a mut BytesMut,
    requests: &'a mut LayerRequests,
}

/// What a layer asked for.
#[derive(Debug, Default)]
pub(crate) struct LayerRequests {
    pub(crate) open: bool,
    pub(crate) done: bool,
    pub(crate) end: bool,
    pub(crate) peer: Option<Addr>,
    pub(crate) protocol: Option<Box<[u8]>>,
}

impl<'a> LayerIo<'a> {
    pub(crate) fn new(
        plain: &'a mut Vec<u8>,
        wire: &'a mut BytesMut,
        requests: &'a mut LayerRequests,
    ) -> Self {
        Self { plain, room: PLAIN_PER_CALL, wire, requests }
    }

    /// Gives plain bytes to the next layer, or to the framing. Returns how many of them were taken: no more than there is
    /// [`room`](Self::room) for. A layer that has more keeps them, and is called again when these were handed out.
    pub fn plain(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.get(..self.room).unwrap_or(bytes);
        self.plain.extend_from_slice(taken);
        self.room -= taken.len();
        taken.len()
    }

    /// Plain bytes that may still be given in this call; 64 KiB at its beginning.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Bytes for the wire: append to it. They go out before anything that is sent later.
    pub fn wire(&mut self) -> &mut BytesMut {
        self.wire
    }

    /// The layer is open: its handshake, if it has one, is over.
    pub fn open(&mut self) {
        self.requests.open = true;
    }

    /// The layer has done its part, and is removed when this call has returned: the bytes behind those that it consumed go
    /// on as they are, and so does what is sent.
    pub fn done(&mut self) {
        self.requests.done = true;
    }

    /// The plain stream ends here, as a TLS `close_notify` says: the session takes it for the end of the peer's side. What
    /// the wire brings behind it is discarded.
    pub fn end(&mut self) {
        self.requests.end = true;
    }

    /// Whom the connection is from, as a PROXY header says: what [`Session::peer_addr`](crate::Session::peer_addr) shows
    /// from now on. Limits per peer go by who has connected.
    pub fn set_peer_addr(&mut self, peer: impl Into<Addr>) {
        self.requests.peer = Some(peer.into());
    }

    /// What both sides have agreed to speak (ALPN, a WebSocket subprotocol): what
    /// [`Session::protocol`](crate::Session::protocol) shows from now on.
    pub fn set_protocol(&mut self, protocol: impl Into<Box<[u8]>>) {
        self.requests.protocol = Some(protocol.into());
    }
}

impl fmt::Debug for LayerIo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerIo").field("room", &self.room).field("requests", &self.requests).finish()
    }
}

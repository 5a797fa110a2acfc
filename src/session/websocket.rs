//! What a session knows of its WebSocket.

use crate::{
    encode::Encode,
    error::SendError,
    framing::MessageKind,
    layer::WebSocketNews,
    session::{Connection, FramingSlot, Session, ShardCore},
    websocket::{CloseFrame, Request},
};

impl Session<'_> {
    /// Returns the request that has opened the WebSocket: its path and its header fields. For `on_open`: it is dropped
    /// when that has returned. `None` for a session without a WebSocket, and on the side that has connected.
    #[must_use]
    pub fn upgrade(&self) -> Option<&Request> {
        self.connection.extra()?.upgrade.as_deref()
    }

    /// Returns what kind of message the present packet is, in `on_packet`. `None` if packets are not WebSocket messages.
    #[must_use]
    pub fn message_kind(&self) -> Option<MessageKind> {
        self.framing.messages().map(crate::websocket::Messages::received)
    }

    /// Sets how packets are sent from now on, by any sender: this callback, a handle, a channel. Packets that were
    /// sent before stay as they are. As text, a packet that is not UTF-8 is refused with [`SendError::Encode`]. Does
    /// nothing if packets are not WebSocket messages.
    pub fn set_message_kind(&mut self, kind: MessageKind) {
        if let Some(messages) = self.framing.messages_mut() {
            messages.sends = kind;
        }
    }

    /// As [`send`](Self::send), as a message of this kind. Without WebSocket messages, the kind has no meaning.
    ///
    /// # Errors
    /// As for `send`.
    pub fn send_message(&mut self, kind: MessageKind, packet: impl Encode) -> Result<(), SendError> {
        let before = self.framing.messages_mut().map(|messages| std::mem::replace(&mut messages.sends, kind));
        let sent = self.send(packet);
        if let Some(before) = before {
            self.set_message_kind(before);
        }
        sent
    }

    /// Returns the close frame of the peer, for `on_end` and later. `None` if it has sent none.
    #[must_use]
    pub fn peer_close(&self) -> Option<&CloseFrame> {
        self.connection.peer_close()
    }
}

impl Connection {
    #[cold]
    pub(super) fn note_websocket(&mut self, news: WebSocketNews) {
        let extra = self.extra_or_new();
        match news {
            WebSocketNews::Upgrade(request) => extra.upgrade = Some(request),
            WebSocketNews::PeerClose(frame) => extra.peer_close = Some(frame),
        }
    }

    pub(crate) fn forget_upgrade(&mut self) {
        if let Some(extra) = self.extra_mut() {
            extra.upgrade = None;
        }
    }

    pub(super) fn peer_close(&self) -> Option<&CloseFrame> {
        self.extra()?.peer_close.as_deref()
    }

    /// Queues a beat: a ping, where packets are messages.
    ///
    /// # Errors
    /// As for [`enqueue`](Self::enqueue).
    pub(crate) fn enqueue_ping(
        &mut self,
        framing: &mut dyn FramingSlot,
        payload: &[u8],
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        let swap = |framing: &mut dyn FramingSlot, kind| {
            framing.messages_mut().map(|messages| std::mem::replace(&mut messages.sends, kind))
        };
        let before = swap(framing, MessageKind::Ping);
        let queued = self.enqueue(framing, payload, core);
        if let Some(before) = before {
            swap(framing, before);
        }
        queued
    }
}

//! The layer on its own: handshakes, frames of every kind, and both sides against each other.

mod cases;
#[cfg(feature = "deflate")]
mod compressed;
mod handshakes;
mod pairs;

use bytes::BytesMut;

use super::{
    Messages, WebSocket, WebSocketLayer,
    frame::{FIN, Head, Opcode, Role, apply_mask, put_head},
};
use crate::{
    error::CloseReason,
    framing::{Deframed, Deframer, Framing, MessageKind},
    testing::LayerDriver,
};

pub(super) const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A frame of a client.
pub(super) fn frame(bits: u8, payload: &[u8]) -> Vec<u8> {
    let (mut wire, mut mask) = (BytesMut::new(), [0x37, 0xfa, 0x21, 0x3d]);
    put_head(bits, payload.len(), Some(mask), &mut wire);
    let start = wire.len();
    wire.extend_from_slice(payload);
    apply_mask(&mut wire[start..], &mut mask);
    wire.to_vec()
}

/// A frame that a server has sent: its opcode, and its payload.
pub(super) type Frame = (Opcode, Vec<u8>);

/// The frames in `wire`, which are whole.
pub(super) fn frames(mut wire: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !wire.is_empty() {
        let head = Head::parse(wire, Role::Client, 0).expect("a server sends what is right").expect("whole");
        let end = head.size + head.len as usize;
        assert!(head.is_last, "messages are sent whole");
        frames.push((head.opcode, wire[head.size..end].to_vec()));
        wire = &wire[end..];
    }
    frames
}

/// A server that echoes messages as what they came.
pub(super) struct Echo {
    pub(super) driver: LayerDriver<WebSocketLayer>,
    deframer: Deframer<Messages>,
}

impl Echo {
    pub(super) fn open(limit: usize) -> Self {
        Self::asked(&WebSocket::new(), REQUEST, limit)
    }

    /// After a handshake with this request.
    pub(super) fn asked(websocket: &WebSocket, request: &str, limit: usize) -> Self {
        let mut driver = LayerDriver::new(websocket.layer()).expect("nothing has come").frame_limit(limit);
        assert_eq!(driver.receive(request.as_bytes()).ok(), Some(Vec::new()));
        assert!(driver.is_open());
        assert!(driver.take_wire().starts_with(b"HTTP/1.1 101 "));
        Self { driver, deframer: Deframer::new(Messages::new()).max(limit) }
    }

    /// Receives, answers, and closes if the peer has. Returns `false` if the layer has failed.
    pub(super) fn receive(&mut self, wire: &[u8]) -> bool {
        let had_ended = self.driver.has_ended();
        let plain = self.driver.receive(wire).expect("a breach is no reason to be silent");
        self.deframer.feed(&plain);
        loop {
            let packet = match self.deframer.poll_frame().expect("the layer passes on frames") {
                Some(Deframed::Packet(packet)) => packet.to_vec(),
                Some(Deframed::Rejected(error)) => panic!("{error}"),
                None => break,
            };
            let (kind, mut plain) = (self.deframer.framing().received(), BytesMut::new());
            let mut messages = Messages::new().send_as(kind);
            messages.offer_max(usize::MAX);
            messages.encode(&packet, &mut plain).expect("what has come can be sent");
            if kind == MessageKind::Text {
                assert!(std::str::from_utf8(&packet).is_ok());
            }
            self.driver.send(&plain).expect("it is open");
        }
        let mut failed = None;
        if self.driver.has_ended() && !had_ended {
            failed = self.driver.receive_end().err();
            let reason = failed.clone().map_or(CloseReason::PeerClosed, CloseReason::Layer);
            self.driver.close(&reason).expect("the layer can close");
        }
        failed.is_none()
    }

    pub(super) fn answers(&mut self) -> Vec<Frame> {
        frames(&self.driver.take_wire())
    }
}

pub(super) fn whole(opcode: Opcode, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | opcode.bits(), payload.as_ref())
}

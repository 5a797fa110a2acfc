//! From messages to frames: each message becomes one frame, as its bytes come.

use bytes::BytesMut;

use super::{
    Carries,
    frame::{FIN, Opcode, Role, apply_mask, put_head},
};
#[cfg(feature = "deflate")]
use super::{deflate::Deflating, frame::RSV1};
#[cfg(feature = "deflate")]
use crate::layer::Deflate;
use crate::{
    error::LayerError,
    framing::{MessageKind, PartHeader},
};

/// Random bytes that are fetched from the system at a time: 16 masks.
const KEYS: usize = 64;

/// What is sent, and what has to wait until the frame under way is sent.
#[derive(Debug)]
pub(super) struct Sender {
    carries: Carries,
    /// The header of the next message, as far as it has come.
    header: [u8; PartHeader::WIDTH],
    header_len: u8,
    /// Bytes of the message under way that are to come.
    left: u32,
    /// Of that message, if messages are compressed.
    #[cfg(feature = "deflate")]
    kind: MessageKind,
    mask: [u8; 4],
    /// A client has keys for masks.
    keys: Option<Box<Keys>>,
    /// The answer to the last ping, which waits for the end of a frame.
    pending_pong: Option<Box<[u8]>>,
    /// Our close frame was sent: nothing may follow it.
    is_closed: bool,
    /// If it was agreed on.
    #[cfg(feature = "deflate")]
    deflate: Option<Box<Deflating>>,
}

/// Masks that nobody can predict: RFC 6455, section 10.3.
struct Keys {
    random: [u8; KEYS],
    used: usize,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    fn next(&mut self) -> Result<[u8; 4], LayerError> {
        if self.used == KEYS {
            getrandom::fill(&mut self.random).map_err(LayerError::other)?;
            self.used = 0;
        }
        let key = self.random.get(self.used..).and_then(|rest| rest.first_chunk()).copied();
        self.used += 4;
        key.ok_or_else(|| LayerError::other("no random bytes"))
    }
}

impl Sender {
    pub(super) fn new(role: Role, carries: Carries) -> Self {
        let keys = (role == Role::Client).then(|| Box::new(Keys { random: [0; KEYS], used: KEYS }));
        Self {
            carries,
            header: [0; PartHeader::WIDTH],
            header_len: 0,
            left: 0,
            #[cfg(feature = "deflate")]
            kind: MessageKind::Binary,
            mask: [0; 4],
            keys,
            pending_pong: None,
            is_closed: false,
            #[cfg(feature = "deflate")]
            deflate: None,
        }
    }

    /// Compresses messages.
    #[cfg(feature = "deflate")]
    pub(super) fn deflate_with(&mut self, deflate: Deflate) {
        self.deflate = Some(Box::new(Deflating::new(deflate)));
    }

    /// The compressor, while a message is given to it.
    #[cfg(feature = "deflate")]
    #[inline]
    fn busy(&mut self) -> Option<&mut Deflating> {
        self.deflate.as_deref_mut().filter(|deflate| deflate.is_busy())
    }

    /// Returns `true` within a frame whose head was sent.
    #[inline]
    fn is_mid_frame(&self) -> bool {
        #[cfg(feature = "deflate")]
        if self.deflate.as_ref().is_some_and(|deflate| deflate.is_busy()) {
            return false;
        }
        self.left > 0
    }

    /// Sends plain bytes: messages with their headers, or any bytes as one frame.
    #[inline]
    pub(super) fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if self.carries == Carries::Bytes {
            return self.send_bytes(plain, wire);
        }
        let mut rest = plain;
        loop {
            if self.left > 0 {
                let end = rest.len().min(self.left as usize);
                let Some((piece, behind)) = rest.split_at_checked(end) else { return Ok(()) };
                #[cfg(feature = "deflate")]
                let is_compressed = self.compress(piece)?;
                #[cfg(not(feature = "deflate"))]
                let is_compressed = false;
                if !is_compressed {
                    self.put_payload(piece, wire);
                }
                self.left -= piece.len() as u32;
                rest = behind;
                if self.left > 0 {
                    return Ok(());
                }
                #[cfg(feature = "deflate")]
                if is_compressed {
                    self.end_compressed(Opcode::of(self.kind), wire)?;
                }
                self.send_pending_pong(wire)?;
            }
            let Some(header) = self.next_header(&mut rest) else { return Ok(()) };
            self.begin(header, wire)?;
        }
    }

    fn send_bytes(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if plain.is_empty() {
            return Ok(());
        }
        #[cfg(feature = "deflate")]
        if self.deflate.as_mut().is_some_and(|deflate| deflate.begin(plain.len())) {
            self.compress(plain)?;
            return self.end_compressed(Opcode::Binary, wire);
        }
        self.put(Opcode::Binary, plain, wire)
    }

    /// Takes the header of the next message off the front of `rest`, where an earlier call may have ended within it.
    #[inline]
    fn next_header(&mut self, rest: &mut &[u8]) -> Option<PartHeader> {
        if self.header_len == 0 {
            if let Some((header, behind)) = rest.split_first_chunk() {
                *rest = behind;
                return Some(PartHeader::from_bytes(*header));
            }
        }
        while let Some((byte, behind)) = rest.split_first() {
            *rest = behind;
            *self.header.get_mut(usize::from(self.header_len))? = *byte;
            self.header_len += 1;
            if usize::from(self.header_len) == PartHeader::WIDTH {
                self.header_len = 0;
                return Some(PartHeader::from_bytes(self.header));
            }
        }
        None
    }

    #[inline]
    fn begin(&mut self, header: PartHeader, wire: &mut BytesMut) -> Result<(), LayerError> {
        let opcode = Opcode::of(header.kind);
        debug_assert!(header.kind != MessageKind::Ping || header.len <= 125, "the framing has checked it");
        self.left = header.len;
        #[cfg(feature = "deflate")]
        if let Some(deflate) = &mut self.deflate {
            self.kind = header.kind;
            if header.kind != MessageKind::Ping && deflate.begin(header.len as usize) {
                return Ok(());
            }
        }
        self.put_frame_head(opcode.bits(), header.len as usize, wire)?;
        if self.left == 0 { self.send_pending_pong(wire) } else { Ok(()) }
    }

    /// Gives a part of a message to the compressor, if it is to be compressed.
    #[cfg(feature = "deflate")]
    #[inline]
    fn compress(&mut self, piece: &[u8]) -> Result<bool, LayerError> {
        let Some(deflate) = self.busy() else { return Ok(false) };
        deflate.write(piece)?;
        Ok(true)
    }

    /// Sends what a message was compressed to.
    #[cfg(feature = "deflate")]
    fn end_compressed(&mut self, opcode: Opcode, wire: &mut BytesMut) -> Result<(), LayerError> {
        let Some(deflate) = self.busy() else { return Ok(()) };
        let payload = deflate.end()?;
        self.put_frame_head(RSV1 | opcode.bits(), payload.len(), wire)?;
        self.put_payload(&payload, wire);
        Ok(())
    }

    /// `bits` are the opcode, and whether the message is compressed.
    #[inline]
    fn put_frame_head(&mut self, bits: u8, len: usize, wire: &mut BytesMut) -> Result<(), LayerError> {
        let mask = match &mut self.keys {
            None => None,
            Some(keys) => {
                self.mask = keys.next()?;
                Some(self.mask)
            }
        };
        put_head(FIN | bits, len, mask, wire);
        Ok(())
    }

    #[inline]
    fn put_payload(&mut self, payload: &[u8], wire: &mut BytesMut) {
        let start = wire.len();
        wire.extend_from_slice(payload);
        if self.keys.is_some() {
            apply_mask(wire.get_mut(start..).unwrap_or_default(), &mut self.mask);
        }
    }

    /// Appends a whole frame. Not within another.
    fn put(&mut self, opcode: Opcode, payload: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        debug_assert!(!self.is_mid_frame(), "no frame is within another");
        self.put_frame_head(opcode.bits(), payload.len(), wire)?;
        self.put_payload(payload, wire);
        Ok(())
    }

    /// Answers a ping, now or when the frame under way is sent. Only the last of those that wait is answered, as RFC 6455,
    /// section 5.5.3, allows.
    pub(super) fn answer(&mut self, ping: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if self.is_mid_frame() {
            self.pending_pong = Some(ping.into());
            return Ok(());
        }
        if self.is_closed { Ok(()) } else { self.put(Opcode::Pong, ping, wire) }
    }

    /// A frame was sent: a pong that has waited for its end follows.
    #[inline]
    fn send_pending_pong(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        match self.pending_pong.take() {
            Some(ping) => self.put(Opcode::Pong, &ping, wire),
            None => Ok(()),
        }
    }

    /// Appends a close frame, once, unless that would be within another: then the peer finds the end without one.
    pub(super) fn close(&mut self, payload: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if self.is_mid_frame() || std::mem::replace(&mut self.is_closed, true) {
            return Ok(());
        }
        self.put(Opcode::Close, payload, wire)
    }

    /// Bytes of memory.
    pub(super) fn capacity(&self) -> usize {
        let pending_pong = self.pending_pong.as_ref().map_or(0, |pending_pong| pending_pong.len());
        #[cfg(feature = "deflate")]
        if let Some(deflate) = &self.deflate {
            return pending_pong + deflate.capacity();
        }
        pending_pong
    }
}

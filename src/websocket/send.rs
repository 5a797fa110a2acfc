//! From messages to frames: each message becomes one frame, as its bytes come.

use bytes::BytesMut;

use super::{
    Carries,
    frame::{FIN, Opcode, Role, apply_mask, put_head},
};
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
    /// Bytes of the frame under way that are to come.
    left: u32,
    mask: [u8; 4],
    /// A client has keys for masks.
    keys: Option<Box<Keys>>,
    /// The answer to the last ping, which waits for the end of a frame.
    owed: Option<Box<[u8]>>,
    /// Our close frame was sent: nothing may follow it.
    is_closed: bool,
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
            mask: [0; 4],
            keys,
            owed: None,
            is_closed: false,
        }
    }

    /// Sends plain bytes: messages with their headers, or any bytes as one frame.
    #[inline]
    pub(super) fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if self.carries == Carries::Bytes {
            return if plain.is_empty() { Ok(()) } else { self.put(Opcode::Binary, plain, wire) };
        }
        let mut rest = plain;
        loop {
            if self.left > 0 {
                let end = rest.len().min(self.left as usize);
                let Some((piece, behind)) = rest.split_at_checked(end) else { return Ok(()) };
                self.put_payload(piece, wire);
                self.left -= piece.len() as u32;
                rest = behind;
                if self.left > 0 {
                    return Ok(());
                }
                self.settle(wire)?;
            }
            let Some(header) = self.next_header(&mut rest) else { return Ok(()) };
            self.begin(header, wire)?;
        }
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
        self.put_frame_head(opcode, header.len as usize, wire)?;
        self.left = header.len;
        if self.left == 0 { self.settle(wire) } else { Ok(()) }
    }

    #[inline]
    fn put_frame_head(&mut self, opcode: Opcode, len: usize, wire: &mut BytesMut) -> Result<(), LayerError> {
        let mask = match &mut self.keys {
            None => None,
            Some(keys) => {
                self.mask = keys.next()?;
                Some(self.mask)
            }
        };
        put_head(FIN | opcode.bits(), len, mask, wire);
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
        debug_assert!(self.left == 0, "no frame is within another");
        self.put_frame_head(opcode, payload.len(), wire)?;
        self.put_payload(payload, wire);
        Ok(())
    }

    /// Answers a ping, now or when the frame under way is sent. Only the last of those that wait is answered, as RFC 6455,
    /// section 5.5.3, allows.
    pub(super) fn answer(&mut self, ping: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if self.left > 0 {
            self.owed = Some(ping.into());
            return Ok(());
        }
        if self.is_closed { Ok(()) } else { self.put(Opcode::Pong, ping, wire) }
    }

    /// A frame was sent: what has waited for that follows.
    #[inline]
    fn settle(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        match self.owed.take() {
            Some(ping) => self.put(Opcode::Pong, &ping, wire),
            None => Ok(()),
        }
    }

    /// Appends a close frame, once, unless that would be within another: then the peer finds the end without one.
    pub(super) fn close(&mut self, payload: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if self.left > 0 || std::mem::replace(&mut self.is_closed, true) {
            return Ok(());
        }
        self.put(Opcode::Close, payload, wire)
    }

    /// Bytes of memory.
    pub(super) fn capacity(&self) -> usize {
        self.owed.as_ref().map_or(0, |owed| owed.len())
    }
}

//! Frames on the wire: RFC 6455, section 5.2.
//!
//! ```text
//! │ fin rsv opcode │ masked len7 │ 0, 2 or 8 bytes of length │ 0 or 4 bytes of mask │ payload
//! ```

use bytes::{BufMut, BytesMut};

use super::close::Violation;
use crate::framing::MessageKind;

/// Which side we are. What a client sends is masked: RFC 6455, section 5.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub(super) fn of(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Binary => Self::Binary,
            MessageKind::Text => Self::Text,
            MessageKind::Ping => Self::Ping,
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

pub(super) const FIN: u8 = 0x80;
/// The message is compressed: RFC 7692, section 6.
pub(super) const RSV1: u8 = 0x40;
const RSV: u8 = 0x70;
const MASKED: u8 = 0x80;
/// The most bytes that a control frame may carry.
const MOST_CONTROL: u8 = 125;
const LEN_16: u8 = 126;
const LEN_64: u8 = 127;

/// What stands in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) is_last: bool,
    pub(super) is_compressed: bool,
    pub(super) opcode: Opcode,
    pub(super) len: u64,
    pub(super) mask: [u8; 4],
    /// Bytes of the head itself.
    pub(super) size: usize,
}

impl Head {
    /// Reads the head at the front of `buf`; `None` while it is not whole. What cannot be is refused with the first byte
    /// that shows it. `rsv` are the reserved bits that have a meaning.
    #[inline]
    pub(super) fn parse(buf: &[u8], role: Role, rsv: u8) -> Result<Option<Self>, Violation> {
        let Some((first, rest)) = buf.split_first() else { return Ok(None) };
        if first & RSV & !rsv != 0 {
            return Err(Violation::protocol("a reserved bit is set"));
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::protocol("a reserved opcode"))?;
        let (is_last, is_compressed) = (first & FIN != 0, first & RSV1 != 0);
        if opcode.is_control() && (!is_last || is_compressed) {
            return Err(Violation::protocol("a control frame that is fragmented or compressed"));
        }
        let Some((second, rest)) = rest.split_first() else { return Ok(None) };
        let (is_masked, short) = (second & MASKED != 0, second & !MASKED);
        match role {
            Role::Server if !is_masked => {
                return Err(Violation::protocol("a frame of a client without a mask"));
            }
            Role::Client if is_masked => return Err(Violation::protocol("a frame of a server with a mask")),
            Role::Server | Role::Client => {}
        }
        if opcode.is_control() && short > MOST_CONTROL {
            return Err(Violation::protocol("a control frame of more than 125 bytes"));
        }
        let (len, rest) = match short {
            LEN_16 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*len)), rest)
            }
            LEN_64 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*len), rest)
            }
            short => (u64::from(short), rest),
        };
        let is_minimal = match short {
            LEN_16 => len > u64::from(MOST_CONTROL),
            LEN_64 => len > u64::from(u16::MAX),
            _ => true,
        };
        if !is_minimal || len > i64::MAX as u64 {
            return Err(Violation::protocol(
                "a length that is not written in the shortest way, or is negative",
            ));
        }
        let (mask, rest) = match role {
            Role::Client => ([0; 4], rest),
            Role::Server => {
                let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (*mask, rest)
            }
        };
        Ok(Some(Self { is_last, is_compressed, opcode, len, mask, size: buf.len() - rest.len() }))
    }
}

/// Appends the head of a frame; `bits` are the opcode and what is set above it. `mask` is that of a client.
#[inline]
pub(super) fn put_head(bits: u8, len: usize, mask: Option<[u8; 4]>, wire: &mut BytesMut) {
    let masked = if mask.is_some() { MASKED } else { 0 };
    let mut head = [0; 10];
    let size = match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if short <= MOST_CONTROL => {
            head = [bits, masked | short, 0, 0, 0, 0, 0, 0, 0, 0];
            2
        }
        (_, Ok(len)) => {
            let [high, low] = len.to_be_bytes();
            head = [bits, masked | LEN_16, high, low, 0, 0, 0, 0, 0, 0];
            4
        }
        _ => {
            if let Some((front, behind)) = head.split_first_chunk_mut() {
                *front = [bits, masked | LEN_64];
                behind.copy_from_slice(&(len as u64).to_be_bytes());
            }
            10
        }
    };
    wire.put_slice(head.get(..size).unwrap_or_default());
    if let Some(mask) = mask {
        wire.put_slice(&mask);
    }
}

/// Masks, or removes the mask. `mask` is turned so that it fits what follows.
#[inline]
pub(super) fn apply_mask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    let wide = [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d];
    let mut chunks = bytes.chunks_exact_mut(wide.len());
    for chunk in &mut chunks {
        chunk.iter_mut().zip(wide).for_each(|(byte, mask)| *byte ^= mask);
    }
    let rest = chunks.into_remainder();
    rest.iter_mut().zip(wide).for_each(|(byte, mask)| *byte ^= mask);
    mask.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_at_every_width() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 40] {
            for (role, mask) in [(Role::Server, Some([1, 2, 3, 4])), (Role::Client, None)] {
                let mut wire = BytesMut::new();
                put_head(FIN | Opcode::Text.bits(), len, mask, &mut wire);
                let head = Head {
                    is_last: true,
                    is_compressed: false,
                    opcode: Opcode::Text,
                    len: len as u64,
                    mask: mask.unwrap_or_default(),
                    size: wire.len(),
                };
                assert_eq!(Head::parse(&wire, role, 0), Ok(Some(head)));
                for end in 0..wire.len() {
                    assert_eq!(Head::parse(&wire[..end], role, 0), Ok(None), "{end} of {}", wire.len());
                }
            }
        }
    }

    #[test]
    fn a_mask_in_pieces_is_the_mask_of_the_whole() {
        let plain: Vec<u8> = (0..100).collect();
        let mut whole = plain.clone();
        apply_mask(&mut whole, &mut [9, 8, 7, 6]);
        assert!(whole.iter().zip(&plain).enumerate().all(|(at, (a, b))| a ^ b == [9, 8, 7, 6][at % 4]));
        for piece in 1..=plain.len() {
            let (mut cut, mut mask) = (plain.clone(), [9, 8, 7, 6]);
            cut.chunks_mut(piece).for_each(|piece| apply_mask(piece, &mut mask));
            assert_eq!(cut, whole, "in pieces of {piece}");
        }
    }
}

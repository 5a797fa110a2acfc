use std::cmp::Ordering;

use bytes::BytesMut;

use super::{Decoded, EncodeError, FrameError, Framing, FramingConfigError};
use crate::encode::Encode;

/// Packets of one length, with nothing between them.
///
/// ```text
/// new(3)  | a b c | d e f | g h
/// packets   ^^^^^   ^^^^^   tail, waits for more
/// ```
///
/// **Limit:** the length itself, in bytes; the maximum that a server offers changes nothing.
///
/// **Errors:** [`FrameError::Truncated`] if the stream ends inside a frame. On encode, [`EncodeError::TooLong`] for a
/// longer payload, [`EncodeError::Unencodable`] for a shorter one: nothing is padded.
///
/// ```
/// use framewire::framing::{Decoded, FixedLength, Framing};
///
/// let mut framing = FixedLength::new(3)?;
/// assert_eq!(framing.decode(&mut b"abcd".to_owned())?, Some(Decoded::Packet { payload: 0..3, consumed: 3 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct FixedLength {
    /// At least 1.
    len: usize,
}

impl FixedLength {
    /// Packets of `bytes` bytes each.
    ///
    /// # Errors
    /// [`FramingConfigError::ZeroLength`] if `bytes` is 0.
    pub fn new(bytes: usize) -> Result<Self, FramingConfigError> {
        if bytes == 0 { Err(FramingConfigError::ZeroLength) } else { Ok(Self { len: bytes }) }
    }

    fn check(&self, len: usize) -> Result<(), EncodeError> {
        match len.cmp(&self.len) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(EncodeError::too_long(len as u64, self.len as u64)),
            Ordering::Less => Err(EncodeError::unencodable("payload is shorter than the fixed length")),
        }
    }
}

impl Framing for FixedLength {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        Ok((self.len <= buf.len()).then_some(Decoded::Packet { payload: 0..self.len, consumed: self.len }))
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.check(payload.len())?;
        out.extend_from_slice(payload);
        Ok(())
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        self.check(packet.append_to(out)?)
    }

    fn max_frame(&self) -> Option<usize> {
        Some(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_payload_of_the_very_length_is_sent() {
        let framing = FixedLength::new(3).unwrap();
        let mut out = BytesMut::new();
        assert_eq!(framing.encode(b"abc", &mut out), Ok(()));
        assert_eq!(framing.encode(b"abcd", &mut out), Err(EncodeError::too_long(4, 3)));
        assert!(matches!(framing.encode(b"ab", &mut out), Err(EncodeError::Unencodable { .. })));
        assert_eq!(out, b"abc"[..]);
    }

    #[test]
    fn a_length_of_nothing_is_refused_when_built() {
        assert_eq!(FixedLength::new(0).unwrap_err(), FramingConfigError::ZeroLength);
    }

    #[test]
    fn the_offer_of_a_server_changes_nothing() {
        let mut framing = FixedLength::new(3).unwrap();
        framing.offer_max(1);
        assert_eq!(framing.max_frame(), Some(3));
    }
}

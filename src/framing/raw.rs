use bytes::BytesMut;

use super::policy;
use super::{Decoded, EncodeError, FrameError, Framing};
use crate::encode::Encode;

/// No framing: whatever was read is a packet.
///
/// ```text
/// read    | 01 02 03 |  | 04 |  | 05 06 |
/// packets   ^^^^^^^^      ^^      ^^^^^     the network decides where the stream is cut
/// ```
///
/// For byte pipes and proxies. Packets are never empty; where one ends says nothing about how the peer sent them.
///
/// **Limit:** [`max`](Self::max) counts the bytes of one packet: a longer read is handed out as several packets;
/// [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) by default, or what the server offers.
///
/// **Errors:** none, in either direction. A payload is written as it is, however long.
///
/// ```
/// use framewire::framing::{Decoded, Framing, Raw};
///
/// let mut framing = Raw::new().max(2);
/// assert_eq!(framing.decode(&mut [1, 2, 3])?, Some(Decoded::Packet { payload: 0..2, consumed: 2 }));
/// # Ok::<(), framewire::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Raw {
    max: u32,
    max_is_chosen: bool,
}

impl Raw {
    /// Packets of at most [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) bytes.
    #[must_use]
    pub fn new() -> Self {
        Self { max: policy::DEFAULT_MAX, max_is_chosen: false }
    }

    /// Sets the most bytes of one packet (at least 1, at most 4 GiB - 1; other values are taken as the nearest of
    /// these).
    #[must_use]
    pub fn max(mut self, bytes: usize) -> Self {
        self.max = policy::clamp(bytes.max(1));
        self.max_is_chosen = true;
        self
    }
}

impl Default for Raw {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing for Raw {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        let consumed = buf.len().min(policy::in_memory(self.max.into()));
        Ok((consumed > 0).then_some(Decoded::Packet { payload: 0..consumed, consumed }))
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        out.extend_from_slice(payload);
        Ok(())
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        packet.append_to(out).map(|_| ())
    }

    fn offer_max(&mut self, max: usize) {
        if !self.max_is_chosen {
            self.max = policy::clamp(max.max(1));
        }
    }

    fn max_frame(&self) -> Option<usize> {
        Some(policy::in_memory(self.max.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_over_the_maximum_becomes_several_packets() {
        let mut framing = Raw::new().max(0);
        framing.offer_max(7);
        assert_eq!(framing.max_frame(), Some(1), "a packet of 0 bytes would never end");
        let two = Decoded::Packet { payload: 0..2, consumed: 2 };
        assert_eq!(Raw::new().max(2).decode(&mut [1, 2, 3]), Ok(Some(two.clone())));
        let mut offered = Raw::default();
        offered.offer_max(2);
        assert_eq!(offered.decode(&mut [1, 2, 3]), Ok(Some(two)));
    }
}

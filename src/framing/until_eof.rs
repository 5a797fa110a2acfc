use bytes::BytesMut;

use super::policy;
use super::{Decoded, EncodeError, FrameError, Framing};
use crate::encode::Encode;

/// The whole stream is one packet, handed out when the peer has ended its sending side.
///
/// ```text
/// | h  e  l  l  o  end of stream
/// packet
///   ^^^^^^^^^^^^^
/// ```
///
/// An empty stream has no packet. Payloads are sent as they are, and a peer with this framing receives several payloads
/// as one packet.
///
/// **Limit:** [`max`](Self::max) counts the bytes of the stream;
/// [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) by default, or what the server offers.
///
/// **Errors:** [`FrameError::TooLong`] as soon as more than the maximum has come, with the number of bytes seen so far
/// as its length; the session ends, since there is no next frame. On encode, [`EncodeError::TooLong`] for a payload
/// above the maximum.
///
/// ```
/// use framewire::framing::{Decoded, Framing, UntilEof};
///
/// let mut framing = UntilEof::new().max(1024);
/// let mut stream = b"hello".to_owned();
/// assert_eq!(framing.decode(&mut stream)?, None);
/// assert_eq!(framing.decode_eof(&mut stream)?, Some(Decoded::Packet { payload: 0..5, consumed: 5 }));
/// # Ok::<(), framewire::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct UntilEof {
    max: u32,
    max_is_chosen: bool,
}

impl UntilEof {
    /// Streams of at most [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) bytes.
    #[must_use]
    pub fn new() -> Self {
        Self { max: policy::DEFAULT_MAX, max_is_chosen: false }
    }

    /// Sets the most bytes of the stream (4 GiB - 1 at most; more is taken as that).
    #[must_use]
    pub fn max(mut self, bytes: usize) -> Self {
        self.max = policy::clamp(bytes);
        self.max_is_chosen = true;
        self
    }

    fn within(&self, bytes: &[u8]) -> Result<(), FrameError> {
        let (len, max) = (bytes.len() as u64, self.max.into());
        if len > max { Err(FrameError::too_long(len, max, bytes)) } else { Ok(()) }
    }

    fn check(&self, len: usize) -> Result<(), EncodeError> {
        let (len, max) = (len as u64, self.max.into());
        if len > max { Err(EncodeError::too_long(len, max)) } else { Ok(()) }
    }
}

impl Default for UntilEof {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing for UntilEof {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.within(buf).map(|()| None)
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.within(buf)?;
        let consumed = buf.len();
        Ok((consumed > 0).then_some(Decoded::Packet { payload: 0..consumed, consumed }))
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

    fn offer_max(&mut self, max: usize) {
        if !self.max_is_chosen {
            self.max = policy::clamp(max);
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
    fn the_maximum_is_exact_and_does_not_wait_for_the_end() {
        let mut framing = UntilEof::new().max(3);
        assert_eq!(framing.decode(&mut [1, 2, 3]), Ok(None));
        assert_eq!(
            framing.decode_eof(&mut [1, 2, 3]),
            Ok(Some(Decoded::Packet { payload: 0..3, consumed: 3 }))
        );
        assert_eq!(framing.decode(&mut [1, 2, 3, 4]), Err(FrameError::too_long(4, 3, &[1, 2, 3, 4])));
    }

    #[test]
    fn an_empty_stream_has_no_packet() {
        assert_eq!(UntilEof::new().decode_eof(&mut []), Ok(None));
    }
}

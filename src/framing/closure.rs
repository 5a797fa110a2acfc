use std::fmt;

use bytes::BytesMut;

use super::{DEFAULT_MAX_FRAME, Decoded, EncodeError, FrameError, Framing};

/// Makes a framing of two closures: one looks for a frame at the front of the bytes, the other appends a payload as a
/// frame.
///
/// They are [`Framing::decode`] and [`Framing::encode`], with the same duties; if the stream ends inside a frame, the
/// error is [`FrameError::Truncated`]. Each session has its own clone of the closures. For more, implement [`Framing`].
///
/// ```text
/// | 03 | a  b  c | …      decode: what is at the front?  → None, or a range and how much it took
/// ```
///
/// **Limit:** [`max`](FramingFn::max) counts the *whole frame* on the wire; [`DEFAULT_MAX_FRAME`] by default, or what
/// the server offers. It is checked for the closures; see there for the errors.
///
/// ```
/// use bytes::{BufMut, BytesMut};
/// use framewire::framing::{Decoded, EncodeError, FrameError, Framing, framing_fn};
///
/// // The top bit set ends a packet.
/// let mut framing = framing_fn(
///     |buf: &mut [u8]| {
///         let Some(last) = buf.iter().position(|byte| byte & 0x80 != 0) else { return Ok(None) };
///         buf[last] &= 0x7f;
///         Ok(Some(Decoded::Packet { payload: 0..last + 1, consumed: last + 1 }))
///     },
///     |payload: &[u8], out: &mut BytesMut| {
///         let Some((last, rest)) = payload.split_last() else {
///             return Err(EncodeError::unencodable("an empty packet has no last byte"));
///         };
///         out.put_slice(rest);
///         out.put_u8(last | 0x80);
///         Ok(())
///     },
/// );
/// assert_eq!(framing.decode(&mut [1, 2, 0x83, 4])?, Some(Decoded::Packet { payload: 0..3, consumed: 3 }));
/// # Ok::<(), FrameError>(())
/// ```
pub fn framing_fn<D, E>(decode: D, encode: E) -> FramingFn<D, E>
where
    D: FnMut(&mut [u8]) -> Result<Option<Decoded>, FrameError>,
    E: Fn(&[u8], &mut BytesMut) -> Result<(), EncodeError>,
{
    FramingFn { decode, encode, max: DEFAULT_MAX_FRAME, max_is_chosen: false }
}

/// The framing that [`framing_fn`] makes.
#[derive(Clone)]
pub struct FramingFn<D, E> {
    decode: D,
    encode: E,
    max: usize,
    max_is_chosen: bool,
}

impl<D, E> FramingFn<D, E> {
    /// Sets the most bytes that one whole frame may take on the wire. Above it, decode returns [`FrameError::TooLong`],
    /// with the length of the frame or the number of bytes seen so far, and the session ends; encode returns
    /// [`EncodeError::TooLong`], with the length of the frame.
    #[must_use]
    pub fn max(mut self, bytes: usize) -> Self {
        self.max = bytes;
        self.max_is_chosen = true;
        self
    }

    fn within(&self, len: usize, seen: &[u8]) -> Result<(), FrameError> {
        if len > self.max { Err(FrameError::too_long(len as u64, self.max as u64, seen)) } else { Ok(()) }
    }
}

impl<D, E> Framing for FramingFn<D, E>
where
    D: FnMut(&mut [u8]) -> Result<Option<Decoded>, FrameError>,
    E: Fn(&[u8], &mut BytesMut) -> Result<(), EncodeError>,
{
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        let decoded = (self.decode)(buf)?;
        match &decoded {
            None => self.within(buf.len(), buf)?,
            // Checked here too, so that a frame is judged the same whether it comes in one piece or in many.
            Some(Decoded::Packet { consumed, .. }) => self.within(*consumed, buf)?,
            Some(Decoded::Skipped { .. } | Decoded::Rejected { .. }) => {}
        }
        Ok(decoded)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        let before = out.len();
        (self.encode)(payload, out)?;
        let len = out.len().saturating_sub(before);
        if len > self.max { Err(EncodeError::too_long(len as u64, self.max as u64)) } else { Ok(()) }
    }

    fn offer_max(&mut self, max: usize) {
        if !self.max_is_chosen {
            self.max = max;
        }
    }

    fn max_frame(&self) -> Option<usize> {
        Some(self.max)
    }
}

impl<D, E> fmt::Debug for FramingFn<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramingFn").field("max", &self.max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_is_kept_for_closures_that_know_none() {
        let mut framing = framing_fn(
            |buf: &mut [u8]| {
                let end = buf.iter().position(|byte| *byte == b'.');
                Ok(end.map(|end| Decoded::Packet { payload: 0..end, consumed: end + 1 }))
            },
            |payload: &[u8], out: &mut BytesMut| {
                out.extend_from_slice(payload);
                out.extend_from_slice(b".");
                Ok(())
            },
        );
        framing.offer_max(4);
        assert_eq!(
            framing.decode(&mut b"abc.".to_owned()),
            Ok(Some(Decoded::Packet { payload: 0..3, consumed: 4 }))
        );
        assert_eq!(framing.decode(&mut b"abcd".to_owned()), Ok(None));
        let too_long = Err(FrameError::too_long(5, 4, b"abcd."));
        assert_eq!(framing.decode(&mut b"abcd.".to_owned()), too_long);
        let mut out = BytesMut::new();
        assert_eq!(framing.encode(b"abc", &mut out), Ok(()));
        assert_eq!(framing.encode(b"abcd", &mut out), Err(EncodeError::too_long(5, 4)));
    }
}

use bytes::BytesMut;

use super::policy::{self, Policy};
use super::{Decoded, EncodeError, FrameError, Framing, Oversize, fill_in};
use crate::encode::Encode;
use crate::wire::leb128::{self, Encoded, Width};

/// A length in LEB128 in front of each packet, as in Protocol Buffers' delimited streams and Minecraft.
///
/// ```text
/// | 05 | h  e  l  l  o |        7 bits a byte, the low ones first; the top bit says that another byte follows
/// | ac 02 | 300 bytes … |       0x2c + (0x02 << 7) = 300
/// packet    ^^^^^^^^^^^
/// ```
///
/// The length is unsigned, of at most 5 bytes ([`u32`](Self::u32)) or 10 bytes ([`u64`](Self::u64)). An over-long form (a
/// last byte of 0, such as `80 00`) is refused: each length has exactly one encoding.
///
/// **Limit:** [`max`](Self::max) counts *packet* bytes, without the length;
/// [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) by default, or what the server offers.
///
/// **Errors:** [`FrameError::TooLong`] above the maximum, as soon as the length is there (see [`Oversize`]);
/// [`FrameError::Malformed`] for a length that is over-long, never ends or has too many bits (this always ends the
/// session); [`FrameError::Truncated`] if the stream ends inside a frame. On encode, [`EncodeError::TooLong`] above the
/// maximum.
///
/// ```
/// use bytes::BytesMut;
/// use framewire::framing::{Decoded, Framing, VarintPrefix};
///
/// let mut framing = VarintPrefix::u32();
/// let mut wire = BytesMut::new();
/// framing.encode(&[7; 300], &mut wire)?;
/// assert_eq!(wire[..3], [0xac, 0x02, 7]);
/// assert_eq!(framing.decode(&mut wire)?, Some(Decoded::Packet { payload: 2..302, consumed: 302 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct VarintPrefix {
    /// Bytes of a refused frame that are still to come; 0 when none is being discarded.
    left: u64,
    max: u32,
    width: Width,
    policy: Policy,
}

impl VarintPrefix {
    /// Lengths of 32 bits, in at most 5 bytes.
    #[must_use]
    pub fn u32() -> Self {
        Self::new(Width::Bits32)
    }

    /// Lengths of 64 bits, in at most 10 bytes.
    #[must_use]
    pub fn u64() -> Self {
        Self::new(Width::Bits64)
    }

    /// Sets the most bytes that a packet may have, without its length (4 GiB - 1 at most; more is taken as that).
    #[must_use]
    pub fn max(mut self, bytes: usize) -> Self {
        self.max = policy::clamp(bytes);
        self.policy.max_is_chosen = true;
        self
    }

    /// Sets what happens to a frame above the maximum; [`Oversize::Close`] by default.
    #[must_use]
    pub fn oversize(mut self, oversize: Oversize) -> Self {
        self.policy.oversize = oversize;
        self
    }

    fn new(width: Width) -> Self {
        Self { left: 0, max: policy::DEFAULT_MAX, width, policy: Policy::default() }
    }

    #[cold]
    fn refuse(&mut self, header: usize, len: u64, buf: &[u8]) -> Result<Option<Decoded>, FrameError> {
        let error = FrameError::too_long(len, self.max.into(), buf);
        self.policy.refuse(&mut self.left, len.saturating_add(header as u64), buf, error)
    }
}

impl Framing for VarintPrefix {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if self.left != 0 {
            return Ok(Some(policy::skip(&mut self.left, buf)));
        }
        let (header, len) = match *buf {
            // The common case: for packets under 128 bytes the length is one byte, which cannot be malformed.
            [len @ 0..=0x7f, ..] => (1, len.into()),
            _ => match read(self.width, buf)? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        if len > self.max.into() {
            return self.refuse(header, len, buf);
        }
        let end = header.saturating_add(policy::in_memory(len));
        Ok((end <= buf.len()).then_some(Decoded::Packet { payload: header..end, consumed: end }))
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        policy::end(self.left, buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        let len = payload.len() as u64;
        if len > self.max.into() {
            return Err(EncodeError::too_long(len, self.max.into()));
        }
        let header = Encoded::new(len);
        out.reserve(header.as_bytes().len() + payload.len());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(payload);
        Ok(())
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let guess = leb128::len((packet.size_hint() as u64).min(self.max.into()));
        fill_in::behind(guess, packet, out, |len| {
            let (len, max) = (len as u64, self.max.into());
            if len > max { Err(EncodeError::too_long(len, max)) } else { Ok(Encoded::new(len)) }
        })
    }

    fn offer_max(&mut self, max: usize) {
        if !self.policy.max_is_chosen {
            self.max = policy::clamp(max);
        }
    }

    /// The maximum and its length; never less than the longest length, which has to be read before it can be refused.
    fn max_frame(&self) -> Option<usize> {
        let whole = policy::in_memory(self.max.into()).saturating_add(leb128::len(self.max.into()));
        Some(whole.max(self.width.most_bytes()))
    }

    fn is_discarding(&self) -> bool {
        self.left != 0
    }
}

/// How many bytes the length takes, and the length; `None` while it is not complete.
fn read(width: Width, buf: &[u8]) -> Result<Option<(usize, u64)>, FrameError> {
    match leb128::read(width, buf) {
        Ok(Some((bytes, len))) if bytes > leb128::len(len) => {
            Err(FrameError::malformed("a varint length is over-long", buf))
        }
        Ok(read) => Ok(read),
        Err(leb128::Overflow) => {
            Err(FrameError::malformed("a varint length has too many bits, or never ends", buf))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(framing: &VarintPrefix, header: &[u8]) -> bool {
        matches!(framing.clone().decode(&mut header.to_vec()), Err(FrameError::Malformed { .. }))
    }

    #[test]
    fn a_varint_prefix_takes_16_bytes_of_a_session() {
        assert!(size_of::<VarintPrefix>() <= 16, "{}", size_of::<VarintPrefix>());
    }

    #[test]
    fn every_length_of_a_header_goes_there_and_back() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut framing = VarintPrefix::u32().max(1 << 22);
            let mut wire = BytesMut::new();
            framing.encode(&vec![7; len], &mut wire).unwrap();
            let header = wire.len() - len;
            assert_eq!(header, leb128::len(len as u64));
            for cut in 1..header {
                assert_eq!(framing.decode(&mut wire[..cut].to_vec()), Ok(None), "cut in the length");
            }
            let packet = Decoded::Packet { payload: header..wire.len(), consumed: wire.len() };
            assert_eq!(framing.decode(&mut wire), Ok(Some(packet)));
        }
    }

    #[test]
    fn over_long_forms_are_refused() {
        let framing = VarintPrefix::u32();
        assert!(refused(&framing, &[0x80, 0]));
        assert!(refused(&framing, &[0x85, 0x80, 0]));
        assert_eq!(framing.clone().decode(&mut [0x80, 0x80, 0x80]), Ok(None));
        let error = FrameError::too_long(1 << 21, 1 << 20, &[0x80, 0x80, 0x80, 1]);
        assert_eq!(framing.clone().decode(&mut [0x80, 0x80, 0x80, 1]), Err(error), "not over-long");
    }

    #[test]
    fn a_length_that_never_ends_is_refused_at_its_last_possible_byte() {
        for (framing, most) in [(VarintPrefix::u32(), 5), (VarintPrefix::u64(), 10)] {
            assert!(!refused(&framing, &vec![0xff; most - 1]));
            assert!(refused(&framing, &vec![0xff; most]));
            assert!(refused(&framing, &vec![0x80; most]));
        }
    }

    #[test]
    fn the_largest_length_is_read_and_one_bit_more_is_refused() {
        let framing = VarintPrefix::u32();
        let largest = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let error = FrameError::too_long(u32::MAX.into(), 1 << 20, &largest);
        assert_eq!(framing.clone().decode(&mut largest.clone()), Err(error));
        assert!(refused(&framing, &[0xff, 0xff, 0xff, 0xff, 0x1f]));
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let error = FrameError::too_long(u64::MAX, 1 << 20, &largest);
        assert_eq!(VarintPrefix::u64().decode(&mut largest.clone()), Err(error));
        assert!(refused(&VarintPrefix::u64(), &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]));
    }

    #[test]
    fn the_longest_frame_is_the_maximum_and_its_length() {
        assert_eq!(VarintPrefix::u32().max(300).max_frame(), Some(302));
        assert_eq!(VarintPrefix::u32().max(2).max_frame(), Some(5), "a length is read before it is refused");
        assert_eq!(VarintPrefix::u64().max(2).max_frame(), Some(10));
    }
}

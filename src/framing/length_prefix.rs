use bytes::{BufMut, BytesMut};

use super::policy::{self, Policy};
use super::{ByteOrder, Decoded, EncodeError, FrameError, Framing, LengthHeader, Oversize};
use crate::encode::Encode;

/// A length in front of each packet: Erlang's `{packet, N}`.
///
/// ```text
/// u16_be  | 00 05 | h  e  l  l  o |     the length counts the packet only, not itself
///         '------- frame ---------'
/// packet          ^^^^^^^^^^^^^^^
/// ```
///
/// The header is 1, 2, 3, 4 or 8 bytes wide, unsigned, big- or little-endian; a length of 0 is an empty packet. For a
/// header with more than the length in it, see [`LengthField`](crate::framing::LengthField).
///
/// **Limit:** [`max`](Self::max) counts *packet* bytes, without the header; [`DEFAULT_MAX_FRAME`] by default, or what the
/// server offers. A greater length is refused as soon as the header is there, before a byte of the packet is kept.
///
/// **Errors:** [`FrameError::TooLong`] above the maximum (see [`Oversize`]), [`FrameError::Truncated`] if the stream
/// ends inside a frame. On encode, [`EncodeError::TooLong`] for a payload above the maximum, or above what the header
/// can express (255 bytes for `u8`).
///
/// [`DEFAULT_MAX_FRAME`]: crate::framing::DEFAULT_MAX_FRAME
///
/// ```
/// use bytes::BytesMut;
/// use framewire::framing::{Decoded, Framing, LengthPrefix};
///
/// let mut framing = LengthPrefix::u32_be().max(64 * 1024);
/// let mut wire = BytesMut::new();
/// framing.encode(b"hello", &mut wire)?;
/// assert_eq!(wire, b"\0\0\0\x05hello"[..]);
/// assert_eq!(framing.decode(&mut wire)?, Some(Decoded::Packet { payload: 4..9, consumed: 9 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LengthPrefix {
    /// Bytes of a refused frame that are still to come; 0 when none is being discarded.
    left: u64,
    header: LengthHeader,
    policy: Policy,
}

impl LengthPrefix {
    /// One byte: packets of at most 255 bytes.
    #[must_use]
    pub fn u8() -> Self {
        Self::new(1, ByteOrder::Big)
    }

    /// Two bytes, big-endian: packets of at most 65,535 bytes.
    #[must_use]
    pub fn u16_be() -> Self {
        Self::new(2, ByteOrder::Big)
    }

    /// Two bytes, little-endian: packets of at most 65,535 bytes.
    #[must_use]
    pub fn u16_le() -> Self {
        Self::new(2, ByteOrder::Little)
    }

    /// Three bytes, big-endian: packets of at most 16 MiB - 1.
    #[must_use]
    pub fn u24_be() -> Self {
        Self::new(3, ByteOrder::Big)
    }

    /// Three bytes, little-endian: packets of at most 16 MiB - 1.
    #[must_use]
    pub fn u24_le() -> Self {
        Self::new(3, ByteOrder::Little)
    }

    /// Four bytes, big-endian (network order): packets of at most 4 GiB - 1.
    #[must_use]
    pub fn u32_be() -> Self {
        Self::new(4, ByteOrder::Big)
    }

    /// Four bytes, little-endian: packets of at most 4 GiB - 1.
    #[must_use]
    pub fn u32_le() -> Self {
        Self::new(4, ByteOrder::Little)
    }

    /// Eight bytes, big-endian: packets up to the maximum.
    #[must_use]
    pub fn u64_be() -> Self {
        Self::new(8, ByteOrder::Big)
    }

    /// Eight bytes, little-endian: packets up to the maximum.
    #[must_use]
    pub fn u64_le() -> Self {
        Self::new(8, ByteOrder::Little)
    }

    /// Sets the most bytes that a packet may have, without its header (4 GiB - 1 at most; more is taken as that).
    #[must_use]
    pub fn max(mut self, bytes: usize) -> Self {
        self.header = self.header.with_max(bytes);
        self.policy.max_is_chosen = true;
        self
    }

    /// Sets what happens to a frame above the maximum; [`Oversize::Close`] by default.
    #[must_use]
    pub fn oversize(mut self, oversize: Oversize) -> Self {
        self.policy.oversize = oversize;
        self
    }

    fn new(width: u8, order: ByteOrder) -> Self {
        Self { left: 0, header: LengthHeader::new(width, order), policy: Policy::default() }
    }

    #[cold]
    fn refuse(&mut self, len: u64, buf: &[u8]) -> Result<Option<Decoded>, FrameError> {
        let error = FrameError::too_long(len, self.header.max() as u64, buf);
        self.policy.refuse(&mut self.left, len.saturating_add(self.header.width() as u64), buf, error)
    }
}

impl Framing for LengthPrefix {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if self.left != 0 {
            return Ok(Some(policy::skip(&mut self.left, buf)));
        }
        let Some(len) = self.header.read(buf) else { return Ok(None) };
        if len > self.header.max() as u64 {
            return self.refuse(len, buf);
        }
        let (width, len) = (self.header.width(), policy::in_memory(len));
        let end = width.saturating_add(len);
        Ok((end <= buf.len()).then_some(Decoded::Packet { payload: width..end, consumed: end }))
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        policy::end(self.left, buf)
    }

    #[inline]
    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        if payload.len() > self.header.max() {
            return Err(EncodeError::too_long(payload.len() as u64, self.header.max() as u64));
        }
        let (bytes, width) = (self.header.bytes(payload.len()), self.header.width());
        out.reserve(width.saturating_add(payload.len()));
        out.extend_from_slice(bytes.get(..width).unwrap_or_default());
        out.extend_from_slice(payload);
        Ok(())
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let (start, width) = (out.len(), self.header.width());
        out.put_bytes(0, width);
        let len = packet.append_to(out)?;
        if len > self.header.max() {
            return Err(EncodeError::too_long(len as u64, self.header.max() as u64));
        }
        if let Some(header) = out.get_mut(start..start + width) {
            header.copy_from_slice(self.header.bytes(len).get(..width).unwrap_or_default());
        }
        Ok(())
    }

    #[inline]
    fn length_header(&self) -> Option<&LengthHeader> {
        (self.left == 0).then_some(&self.header)
    }

    fn offer_max(&mut self, max: usize) {
        if !self.policy.max_is_chosen {
            self.header = self.header.with_max(max);
        }
    }

    fn max_frame(&self) -> Option<usize> {
        Some(self.header.max().saturating_add(self.header.width()))
    }

    fn is_discarding(&self) -> bool {
        self.left != 0
    }
}

#[cfg(test)]
impl LengthPrefix {
    /// One of each width and order.
    pub(super) fn all() -> [Self; 9] {
        [
            Self::u8(),
            Self::u16_be(),
            Self::u16_le(),
            Self::u24_be(),
            Self::u24_le(),
            Self::u32_be(),
            Self::u32_le(),
            Self::u64_be(),
            Self::u64_le(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_takes_16_bytes_of_a_session() {
        assert!(size_of::<LengthPrefix>() <= 16, "{}", size_of::<LengthPrefix>());
    }

    #[test]
    fn each_width_and_order_writes_what_its_name_says() {
        let expected: [&[u8]; 9] = [
            &[2],
            &[0, 2],
            &[2, 0],
            &[0, 0, 2],
            &[2, 0, 0],
            &[0, 0, 0, 2],
            &[2, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[2, 0, 0, 0, 0, 0, 0, 0],
        ];
        for (mut framing, header) in LengthPrefix::all().into_iter().zip(expected) {
            let mut wire = BytesMut::new();
            framing.encode(b"hi", &mut wire).unwrap();
            assert_eq!(wire, [header, b"hi"].concat());
            let end = header.len() + 2;
            let packet = Decoded::Packet { payload: header.len()..end, consumed: end };
            assert_eq!(framing.decode(&mut wire), Ok(Some(packet)));
        }
    }

    #[test]
    fn a_length_over_the_maximum_is_refused_with_its_header_alone() {
        for len in [11, 1 << 31, (1 << 32) - 1, (1 << 32) + 5, 1 << 63, u64::MAX - 8, u64::MAX] {
            for (framing, order) in
                [(LengthPrefix::u64_be(), ByteOrder::Big), (LengthPrefix::u64_le(), ByteOrder::Little)]
            {
                let mut framing = framing.max(10);
                let mut header = if order == ByteOrder::Big { len.to_be_bytes() } else { len.to_le_bytes() };
                let seen = header;
                assert_eq!(framing.decode(&mut header[..7]), Ok(None));
                assert_eq!(framing.decode(&mut header), Err(FrameError::too_long(len, 10, &seen)));
            }
        }
    }

    #[test]
    fn the_largest_lengths_of_a_field_are_read_unsigned() {
        let mut framing = LengthPrefix::u32_le().max(usize::MAX);
        assert_eq!(
            framing.decode(&mut [0xff; 12]),
            Ok(None),
            "4 GiB - 1 is waited for, not refused and not negative"
        );
        assert_eq!(framing.max_frame(), Some(4 + 0xffff_ffff));
    }

    #[test]
    fn a_payload_that_the_header_cannot_say_is_an_error_and_never_cut() {
        let mut out = BytesMut::new();
        LengthPrefix::u8().encode(&[7; 255], &mut out).unwrap();
        assert_eq!(out.len(), 256);
        let error = LengthPrefix::u8().encode(&[7; 256], &mut out).unwrap_err();
        assert_eq!(error, EncodeError::too_long(256, 255));
        let error = LengthPrefix::u16_be().encode(&[7; 65_536], &mut out).unwrap_err();
        assert_eq!(error, EncodeError::too_long(65_536, 65_535));
        assert_eq!(out.len(), 256);
    }

    #[test]
    fn the_offer_of_a_server_counts_only_where_no_maximum_was_chosen() {
        let (mut free, mut chosen) = (LengthPrefix::u32_be(), LengthPrefix::u32_be().max(10));
        free.offer_max(100);
        chosen.offer_max(100);
        assert_eq!((free.max_frame(), chosen.max_frame()), (Some(104), Some(14)));
        assert_eq!(LengthPrefix::u8().max_frame(), Some(256), "the header cannot say more");
    }

    #[test]
    fn an_end_while_discarding_is_truncated_even_with_nothing_left_over() {
        let mut framing = LengthPrefix::u8().max(2).oversize(Oversize::Discard);
        let seen = FrameError::too_long(9, 2, &[9, 1]);
        assert_eq!(framing.decode(&mut [9, 1]), Ok(Some(Decoded::Rejected { consumed: 2, error: seen })));
        assert_eq!(framing.decode(&mut [1, 1]), Ok(Some(Decoded::Skipped { consumed: 2 })));
        assert_eq!(framing.decode_eof(&mut []), Err(FrameError::truncated(&[])));
    }
}

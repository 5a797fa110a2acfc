use super::{ByteOrder, policy};

/// A length in front of a payload, for frames that are nothing else: a session reads and writes these itself.
///
/// ```text
///            |<- width ->|
/// U24, big   | 00  00 05 | h  e  l  l  o |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthHeader {
    /// No more than the header can express. As bytes, which need no padding: each of very many sessions holds one.
    max: [u8; 4],
    /// Bytes, 1 to 8.
    width: u8,
    layout: Layout,
}

/// The order of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Four bytes in network order, which most protocols use: the fast path.
    NetworkU32,
    Big,
    Little,
}

impl LengthHeader {
    /// A header of `width` bytes, 1 to 8.
    pub(super) fn new(width: u8, order: ByteOrder) -> Self {
        debug_assert!((1..=8).contains(&width), "a header of {width} bytes");
        let layout = match order {
            ByteOrder::Big if width == 4 => Layout::NetworkU32,
            ByteOrder::Big => Layout::Big,
            ByteOrder::Little => Layout::Little,
        };
        Self { max: [0; 4], width, layout }.with_max(policy::DEFAULT_MAX as usize)
    }

    /// With this maximum, or the greatest length that the header can express if that is less.
    pub(super) fn with_max(self, bytes: usize) -> Self {
        let most = u32::MAX >> (32 - 8 * u32::from(self.width.min(4)));
        Self { max: policy::clamp(bytes).min(most).to_ne_bytes(), ..self }
    }

    /// The most bytes that a payload may have.
    #[inline]
    pub(crate) fn max(&self) -> usize {
        u32::from_ne_bytes(self.max) as usize
    }

    /// Bytes of the header.
    #[inline]
    pub(crate) fn width(&self) -> usize {
        self.width.into()
    }

    /// The length at the front of `buf`; `None` while `buf` is shorter than the header.
    pub(super) fn read(&self, buf: &[u8]) -> Option<u64> {
        let mut bytes = [0; 8];
        let width = self.width();
        let header = buf.get(..width)?;
        if self.layout == Layout::Little {
            bytes.get_mut(..width)?.copy_from_slice(header);
            return Some(u64::from_le_bytes(bytes));
        }
        bytes.get_mut(8 - width..)?.copy_from_slice(header);
        Some(u64::from_be_bytes(bytes))
    }

    /// The header of a payload of `len` bytes, at most the maximum: the first [`width`](Self::width) of these eight
    /// bytes.
    pub(super) fn bytes(&self, len: usize) -> [u8; 8] {
        let len = len as u64;
        if self.layout == Layout::Little {
            return len.to_le_bytes();
        }
        (len << (64 - 8 * self.width())).to_be_bytes()
    }

    /// Writes the frame of `payload` to the front of `spare` and returns its length; `None` if there is no room for it
    /// or the payload is above the maximum.
    #[inline]
    pub fn write(&self, payload: &[u8], spare: &mut [u8]) -> Option<usize> {
        if payload.len() > self.max() {
            return None;
        }
        let (width, bytes) = (self.width(), self.bytes(payload.len()));
        let (header, behind) = spare.split_at_mut_checked(width)?;
        let body = behind.get_mut(..payload.len())?;
        header.copy_from_slice(bytes.get(..width)?);
        body.copy_from_slice(payload);
        Some(width + payload.len())
    }
}

/// The most common header, four bytes in network order, as a loop over many packets keeps it in one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct U32Header {
    /// The most bytes that a payload may have; negative for any other header, which is left to the framing.
    max: i64,
}

impl U32Header {
    #[inline]
    pub(crate) fn of(header: Option<&LengthHeader>) -> Self {
        let header = header.filter(|header| header.layout == Layout::NetworkU32);
        Self { max: header.map_or(-1, |header| u32::from_ne_bytes(header.max).into()) }
    }

    /// The end of the frame at the front of `buf`, if it is whole. Its payload begins behind the first
    /// [`WIDTH`](Self::WIDTH) bytes.
    #[inline]
    pub(crate) fn whole(self, buf: &[u8]) -> Option<usize> {
        let (header, behind) = buf.split_first_chunk()?;
        let len = u32::from_be_bytes(*header);
        // A slice is never so long that this wraps.
        (i64::from(len) <= self.max && len as usize <= behind.len())
            .then_some((len as usize).wrapping_add(Self::WIDTH))
    }

    /// Writes the header of a payload of `len` bytes to the front of `spare` and returns the bytes behind it, for the
    /// payload; `None` if there is no room for both, or the payload is above the maximum.
    #[inline]
    pub(crate) fn write(self, len: usize, spare: &mut [u8]) -> Option<&mut [u8]> {
        // A length that wraps leaves no room for the header.
        let (header, body) = spare.get_mut(..len.wrapping_add(Self::WIDTH))?.split_first_chunk_mut()?;
        if len as i64 > self.max {
            return None;
        }
        *header = (len as u32).to_be_bytes();
        Some(body)
    }

    /// Bytes of the header.
    pub(crate) const WIDTH: usize = 4;
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::framing::{Decoded, Framing, LengthPrefix, Oversize};

    fn all() -> [LengthPrefix; 9] {
        LengthPrefix::all().map(|prefix| prefix.max(100))
    }

    #[test]
    fn a_frame_in_place_is_the_one_that_encode_appends() {
        for framing in all() {
            let header = framing.length_header().unwrap();
            for payload in [&b""[..], b"hello", &[7; 100]] {
                let mut frame = BytesMut::new();
                framing.encode(payload, &mut frame).unwrap();
                let mut spare = vec![0xff; frame.len() + 9];
                assert_eq!(header.write(payload, &mut spare), Some(frame.len()));
                assert_eq!(spare[..frame.len()], frame);
                assert!(spare[frame.len()..].iter().all(|byte| *byte == 0xff), "{framing:?}");
                let mut short = vec![0; frame.len() - 1];
                assert_eq!(header.write(payload, &mut short), None, "{framing:?}");
            }
            assert_eq!(header.write(&[7; 101], &mut [0; 200]), None, "over the maximum");
        }
    }

    #[test]
    fn only_the_most_common_header_is_written_in_a_register() {
        for framing in all() {
            let (header, common) = (framing.length_header().unwrap(), U32Header::of(framing.length_header()));
            for payload in [&b""[..], b"hello", &[7; 100], &[7; 101]] {
                for room in [0, 3, 4, 8, 9, 103, 104, 200] {
                    let (mut expected, mut written) = (vec![0xff; room], vec![0xff; room]);
                    let has_room = match common.write(payload.len(), &mut written) {
                        Some(body) => {
                            body.copy_from_slice(payload);
                            true
                        }
                        None => false,
                    };
                    let is_common = header.layout == Layout::NetworkU32;
                    let frame = header.write(payload, &mut expected);
                    assert_eq!(has_room, is_common && frame.is_some(), "{framing:?}");
                    assert!(!has_room || written == expected, "{framing:?}");
                }
            }
        }
        assert_eq!(U32Header::of(None).write(0, &mut [0; 9]), None);
        assert_eq!(U32Header::of(None).whole(&[0; 9]), None);
    }

    #[test]
    fn a_frame_that_shows_by_its_header_is_the_one_that_decode_finds() {
        for mut framing in all() {
            let mut wire = BytesMut::new();
            framing.encode(b"hello", &mut wire).unwrap();
            wire.extend_from_slice(&[0xff; 8]);
            for end in 0..wire.len() {
                let seen = U32Header::of(framing.length_header()).whole(&wire[..end]);
                let decoded = if end == 0 { Ok(None) } else { framing.decode(&mut wire[..end]) };
                let packet = seen.map(|end| Decoded::Packet { payload: 4..end, consumed: end });
                // It may leave a frame to `decode`, but must not find another one.
                assert!(packet.is_none() || decoded == Ok(packet), "{framing:?}, {end} bytes");
            }
        }
        let framing = LengthPrefix::u32_be().max(5);
        let header = U32Header::of(framing.length_header());
        assert_eq!(header.whole(b"\0\0\0\x05hello and more"), Some(9));
        assert_eq!(header.whole(b"\0\0\0\x06hello and more"), None, "decode refuses it");
    }

    #[test]
    fn a_framing_that_discards_has_no_header() {
        let mut framing = LengthPrefix::u32_be().max(2).oversize(Oversize::Discard);
        assert!(matches!(
            framing.decode(b"\0\0\0\x09x".to_vec().as_mut()),
            Ok(Some(Decoded::Rejected { .. }))
        ));
        assert!(framing.length_header().is_none());
        assert!(matches!(framing.decode(&mut [0; 8]), Ok(Some(Decoded::Skipped { consumed: 8 }))));
        assert!(framing.length_header().is_some());
    }
}

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::policy::{self, Policy};
use super::{Decoded, EncodeError, FrameError, Framing, FramingConfigError, Oversize};
use crate::encode::Encode;

/// A length field anywhere in the frame's header, modelled on Netty's `LengthFieldBasedFrameDecoder`.
///
/// ```text
/// offset 2, width 2, adjustment 1, strip 5
///
///   | CA FE | 00 03 | 01 | f  o  o |      frame = offset + width + adjustment + the value of the field
///   |offset | width |adj.|  value  |
///   '------- strip ------'
/// packet                  ^^^^^^^^^       frame without its first `strip` bytes
/// ```
///
/// | setting | meaning | default |
/// |---|---|---|
/// | width | bytes of the field: 1, 2, 3, 4 or 8, unsigned | given to [`builder`](Self::builder) |
/// | byte order | of the field | [`ByteOrder::Big`] |
/// | offset | bytes before the field | 0 |
/// | adjustment | what to add to the value to get the bytes that *follow* the field | 0 |
/// | strip | bytes taken off the front of the frame to make the packet | 0: the packet is the whole frame |
/// | header | what encode writes into the stripped bytes, except the field | zeros |
///
/// For a length that counts the whole frame, use an adjustment of -(offset + width), or
/// [`length_includes_header`](LengthFieldBuilder::length_includes_header).
///
/// **Encode** is the inverse: the payload is what decode would hand out, so it becomes everything after the first
/// `strip` bytes. The stripped bytes are written from the header setting, and the field gets its value wherever it is:
/// with a strip of 0 the payload must contain the whole header, and the bytes in the place of the field are
/// overwritten.
///
/// **Limit:** [`max`](Self::max) counts the *whole frame* on the wire, after adjustment, header included;
/// [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) by default, or what the server offers. It is checked as soon
/// as the field is there.
///
/// **Errors:** [`FrameError::TooLong`] above the maximum (see [`Oversize`]); [`FrameError::Malformed`] if the adjusted
/// length does not reach the end of the field (this always ends the session, as it is unknown where the next frame
/// begins); [`FrameError::Truncated`] if the stream ends inside a frame. On encode, [`EncodeError::TooLong`] above the
/// maximum or above what the field can express, [`EncodeError::Unencodable`] for a payload that is shorter than the
/// part of the header that it must contain.
///
/// ```
/// use bytes::BytesMut;
/// use framewire::framing::{ByteOrder, Decoded, Framing, LengthField};
///
/// // A magic number, then a length that counts the whole frame.
/// let mut framing = LengthField::builder(4)
///     .byte_order(ByteOrder::Little)
///     .offset(2)
///     .length_includes_header()
///     .strip(6)
///     .header([0xca, 0xfe, 0, 0, 0, 0])
///     .build()?
///     .max(4096);
/// let mut wire = BytesMut::new();
/// framing.encode(b"foo", &mut wire)?;
/// assert_eq!(wire, b"\xca\xfe\x09\0\0\0foo"[..]);
/// assert_eq!(framing.decode(&mut wire)?, Some(Decoded::Packet { payload: 6..9, consumed: 9 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LengthField {
    /// Bytes of a refused frame that are still to come; 0 when none is being discarded.
    left: u64,
    /// As long as `strip`, or absent: then zeros are written.
    header: Option<Arc<[u8]>>,
    max: u32,
    adjustment: i32,
    offset: u16,
    /// At most the bytes of the shortest frame; never inside the field.
    strip: u16,
    width: u8,
    order: ByteOrder,
    policy: Policy,
}

/// The byte order of a number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ByteOrder {
    /// The most significant byte first: network order. The default.
    #[default]
    Big,
    /// The least significant byte first.
    Little,
}

/// The settings of a [`LengthField`], checked together by [`build`](Self::build).
#[derive(Debug, Clone)]
pub struct LengthFieldBuilder {
    width: usize,
    order: ByteOrder,
    offset: usize,
    /// `None`: the length counts the header too, whatever the offset is.
    adjustment: Option<i64>,
    strip: usize,
    header: Option<Vec<u8>>,
}

/// The most for the end of the field and for the bytes to strip: both are kept in two bytes.
const MAX_HEADER: usize = u16::MAX as usize;

impl LengthField {
    /// Starts with a field of `width` bytes: 1, 2, 3, 4 or 8 ([`build`](LengthFieldBuilder::build) refuses others).
    #[must_use]
    pub fn builder(width: usize) -> LengthFieldBuilder {
        LengthFieldBuilder {
            width,
            order: ByteOrder::Big,
            offset: 0,
            adjustment: Some(0),
            strip: 0,
            header: None,
        }
    }

    /// Sets the most bytes that a whole frame may take on the wire (4 GiB - 1 at most; more is taken as that).
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

    /// Where the field ends, counted from the front of the frame.
    fn field_end(&self) -> usize {
        usize::from(self.offset) + usize::from(self.width)
    }

    /// Bytes of the frame whose field says `value`: between -2^31 and 2^64 + 2^32, which no `i128` overflows.
    fn frame_len(&self, value: u64) -> i128 {
        i128::from(value) + i128::from(self.adjustment) + self.field_end() as i128
    }

    /// The value of the field in a frame of `frame` bytes.
    fn value_for(&self, frame: usize) -> Result<u64, EncodeError> {
        let most = u64::MAX >> (64 - 8 * u32::from(self.width));
        let max = self.frame_len(most).min(self.max.into());
        if frame as i128 > max {
            return Err(EncodeError::too_long(frame as u64, u64::try_from(max).unwrap_or(0)));
        }
        let value = frame as i128 - self.frame_len(0);
        match u64::try_from(value) {
            Ok(value) if frame >= self.field_end() => Ok(value),
            _ => Err(EncodeError::unencodable("payload is shorter than the header that it has to bring")),
        }
    }

    /// Appends what decode strips.
    fn put_header(&self, out: &mut BytesMut) {
        match &self.header {
            Some(header) => out.extend_from_slice(header),
            None => out.put_bytes(0, self.strip.into()),
        }
    }

    /// Writes `value` into the field of the frame that begins at `start`.
    fn fill_in(&self, value: u64, start: usize, out: &mut BytesMut) {
        if let Some(field) = out.get_mut(start + usize::from(self.offset)..start + self.field_end()) {
            self.order.write(value, field);
        }
    }
}

impl Framing for LengthField {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if self.left != 0 {
            return Ok(Some(policy::skip(&mut self.left, buf)));
        }
        let end = self.field_end();
        let Some(field) = buf.get(usize::from(self.offset)..end) else { return Ok(None) };
        let frame = self.frame_len(self.order.read(field));
        if frame < end as i128 {
            return Err(FrameError::malformed("the length does not reach the end of its own field", buf));
        }
        // Past 2^64 it is too long by any maximum, so the exact length does not matter.
        let frame = u64::try_from(frame).unwrap_or(u64::MAX);
        if frame > self.max.into() {
            let error = FrameError::too_long(frame, self.max.into(), buf);
            return self.policy.refuse(&mut self.left, frame, buf, error);
        }
        let frame = policy::in_memory(frame);
        let payload = usize::from(self.strip)..frame;
        Ok((frame <= buf.len()).then_some(Decoded::Packet { payload, consumed: frame }))
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        policy::end(self.left, buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        let strip = usize::from(self.strip);
        let frame = strip.saturating_add(payload.len());
        let value = self.value_for(frame)?;
        let start = out.len();
        out.reserve(frame);
        self.put_header(out);
        out.extend_from_slice(payload);
        self.fill_in(value, start, out);
        Ok(())
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        self.put_header(out);
        let frame = usize::from(self.strip).saturating_add(packet.append_to(out)?);
        self.fill_in(self.value_for(frame)?, start, out);
        Ok(())
    }

    fn offer_max(&mut self, max: usize) {
        if !self.policy.max_is_chosen {
            self.max = policy::clamp(max);
        }
    }

    /// The maximum, or what the field can express if that is less; never less than up to the end of the field, which
    /// has to be read before a frame can be refused.
    fn max_frame(&self) -> Option<usize> {
        let most = self.frame_len(u64::MAX >> (64 - 8 * u32::from(self.width))).min(self.max.into());
        Some(usize::try_from(most).unwrap_or(0).max(self.field_end()))
    }

    fn is_discarding(&self) -> bool {
        self.left != 0
    }
}

impl LengthFieldBuilder {
    /// Sets the byte order of the field; big-endian by default.
    #[must_use]
    pub fn byte_order(mut self, order: ByteOrder) -> Self {
        self.order = order;
        self
    }

    /// Sets how many bytes there are before the field; 0 by default.
    #[must_use]
    pub fn offset(mut self, bytes: usize) -> Self {
        self.offset = bytes;
        self
    }

    /// Sets what to add to the value of the field to get the number of bytes that follow it; 0 by default.
    #[must_use]
    pub fn adjustment(mut self, bytes: i64) -> Self {
        self.adjustment = Some(bytes);
        self
    }

    /// Makes the field count the whole frame: an adjustment of -(offset + width), whatever the offset.
    #[must_use]
    pub fn length_includes_header(mut self) -> Self {
        self.adjustment = None;
        self
    }

    /// Sets how many bytes to take off the front of a frame to make the packet; 0 by default.
    #[must_use]
    pub fn strip(mut self, bytes: usize) -> Self {
        self.strip = bytes;
        self
    }

    /// Sets what encode writes into the bytes that are stripped; it must have exactly as many bytes. The field in it is
    /// overwritten. Zeros by default.
    #[must_use]
    pub fn header(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.header = Some(bytes.into());
        self
    }

    /// Checks the settings and returns the framing.
    ///
    /// # Errors
    /// A width other than 1, 2, 3, 4 or 8; a field that ends past 65,535 bytes; an adjustment beyond ±(2^31 - 1); a
    /// strip that is more than the shortest frame has, or that ends inside the field; a header that is not as long as
    /// the strip.
    pub fn build(self) -> Result<LengthField, FramingConfigError> {
        let width = match self.width {
            1 | 2 | 3 | 4 | 8 => self.width as u8,
            width => return Err(FramingConfigError::Width { width }),
        };
        let end = self.offset.saturating_add(self.width);
        let (Ok(offset), true) = (u16::try_from(self.offset), end <= MAX_HEADER) else {
            return Err(FramingConfigError::Offset { end, max: MAX_HEADER });
        };
        let adjustment = self.adjustment.unwrap_or(-(end as i64));
        let max = i64::from(i32::MAX);
        let (Ok(adjustment), true) = (i32::try_from(adjustment), adjustment >= -max) else {
            return Err(FramingConfigError::Adjustment { adjustment, max });
        };
        Ok(LengthField {
            left: 0,
            strip: self.checked_strip(end, adjustment)?,
            header: self.header.map(Arc::from),
            max: policy::DEFAULT_MAX,
            adjustment,
            offset,
            width,
            order: self.order,
            policy: Policy::default(),
        })
    }

    fn checked_strip(&self, end: usize, adjustment: i32) -> Result<u16, FramingConfigError> {
        let strip = self.strip;
        // With a positive adjustment, the header continues after the field, so each frame has at least that.
        let max = end.saturating_add(usize::try_from(adjustment).unwrap_or(0)).min(MAX_HEADER);
        let (Ok(narrow), true) = (u16::try_from(strip), strip <= max) else {
            return Err(FramingConfigError::Strip { strip, max });
        };
        if self.offset < strip && strip < end {
            return Err(FramingConfigError::StripInField { strip });
        }
        match &self.header {
            Some(header) if header.len() != strip => {
                Err(FramingConfigError::Header { len: header.len(), strip })
            }
            _ => Ok(narrow),
        }
    }
}

impl ByteOrder {
    /// The number in `field`, which has at most 8 bytes.
    #[inline]
    fn read(self, field: &[u8]) -> u64 {
        let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        match self {
            Self::Big => field.iter().fold(0, push),
            Self::Little => field.iter().rev().fold(0, push),
        }
    }

    /// Writes the low bytes of `value`, as many as `field` has.
    fn write(self, value: u64, field: &mut [u8]) {
        let low_first = value.to_le_bytes();
        match self {
            Self::Big => field.iter_mut().rev().zip(low_first).for_each(|(to, byte)| *to = byte),
            Self::Little => field.iter_mut().zip(low_first).for_each(|(to, byte)| *to = byte),
        }
    }
}

#[cfg(test)]
mod tests;

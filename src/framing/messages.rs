use bytes::{BufMut, BytesMut};

use super::{Decoded, EncodeError, FrameError, Framing, policy};
use crate::encode::Encode;

/// The framing of a session whose packets are WebSocket messages: what its layer passes on and takes. The layer sets it
/// when the handshake is complete, unless it is that of the server.
///
/// ```text
/// | 40 00 00 05 | h  e  l  l  o |     four bytes: flags (more parts follow, text, ping) and length, then the payload
/// ```
///
/// This is what stands between the layer and the session, and never on the wire. A message that comes in fragments is
/// several of these parts, which are joined where they are when the last of them has come.
///
/// **Limit:** a message has at most [`Limits::frame`](crate::Limits::frame) bytes, 1 MiB by default, and no more than
/// 512 MiB - 1.
///
/// **Errors:** on encode, [`EncodeError::TooLong`] above the maximum, and [`EncodeError::Unencodable`] for a text
/// message that is not UTF-8.
#[derive(Debug, Clone)]
pub struct Messages {
    max: u32,
    /// Of the last packet that was found.
    received: MessageKind,
    /// How packets are sent.
    pub(crate) sends: MessageKind,
    /// The whole parts at the front of an unfinished message, in bytes with their headers.
    scanned: u32,
    /// Their number.
    parts: u32,
}

/// What a WebSocket message carries: RFC 6455, section 5.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MessageKind {
    /// Any bytes; a browser gets a `Blob` or an `ArrayBuffer`.
    #[default]
    Binary,
    /// UTF-8, which is checked in both directions; a browser gets a string.
    Text,
    /// Not a message: a ping, for heartbeats.
    #[doc(hidden)]
    Ping,
}

/// What stands in front of each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartHeader {
    pub(crate) has_more: bool,
    pub(crate) kind: MessageKind,
    pub(crate) len: u32,
}

/// The most bytes that a ping may carry: RFC 6455, section 5.5.
const MOST_PING: u32 = 125;

impl PartHeader {
    pub(crate) const WIDTH: usize = 4;
    /// The longest part.
    pub(crate) const MOST: u32 = Self::PING - 1;
    const MORE: u32 = 1 << 31;
    const TEXT: u32 = 1 << 30;
    const PING: u32 = 1 << 29;

    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; 4] {
        let more = if self.has_more { Self::MORE } else { 0 };
        let kind = match self.kind {
            MessageKind::Binary => 0,
            MessageKind::Text => Self::TEXT,
            MessageKind::Ping => Self::PING,
        };
        (more | kind | self.len & Self::MOST).to_be_bytes()
    }

    #[inline]
    pub(crate) fn from_bytes(bytes: [u8; 4]) -> Self {
        let bits = u32::from_be_bytes(bytes);
        let kind = match bits & (Self::TEXT | Self::PING) {
            0 => MessageKind::Binary,
            Self::TEXT => MessageKind::Text,
            _ => MessageKind::Ping,
        };
        Self { has_more: bits & Self::MORE != 0, kind, len: bits & Self::MOST }
    }

    #[inline]
    fn read(buf: &[u8]) -> Option<Self> {
        buf.first_chunk().copied().map(Self::from_bytes)
    }
}

impl Messages {
    /// Messages of at most [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) bytes, which are sent as binary ones.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max: policy::DEFAULT_MAX,
            received: MessageKind::Binary,
            sends: MessageKind::Binary,
            scanned: 0,
            parts: 0,
        }
    }

    /// Sets how packets are sent. By default, as [`MessageKind::Binary`].
    #[must_use]
    pub fn send_as(mut self, kind: MessageKind) -> Self {
        self.sends = kind;
        self
    }

    /// Returns the kind of the packet that was found last.
    pub(crate) fn received(&self) -> MessageKind {
        self.received
    }

    /// Returns how many bytes the headers of a message of at most `max` bytes may take: a peer that cuts a message
    /// into more parts than that is refused.
    pub(crate) fn most_headers(max: usize) -> usize {
        max.saturating_add(64 * 1024)
    }

    fn checked(&self, payload: &[u8]) -> Result<(), EncodeError> {
        let max = if self.sends == MessageKind::Ping { MOST_PING } else { self.max };
        if payload.len() > max as usize {
            return Err(EncodeError::too_long(payload.len() as u64, max.into()));
        }
        if self.sends == MessageKind::Text && std::str::from_utf8(payload).is_err() {
            return Err(EncodeError::unencodable("a text message of WebSocket has to be UTF-8"));
        }
        Ok(())
    }

    fn header(&self, len: usize) -> [u8; 4] {
        let len = u32::try_from(len).unwrap_or(PartHeader::MOST);
        PartHeader { has_more: false, kind: self.sends, len }.to_bytes()
    }

    fn too_long(&self, len: u64, buf: &[u8]) -> FrameError {
        FrameError::too_long(len, self.max.into(), buf)
    }

    /// Finds a message that came in parts, and joins them.
    #[cold]
    fn join(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        loop {
            let rest = buf.get(self.scanned as usize..).unwrap_or_default();
            let Some(PartHeader { has_more, len, .. }) = PartHeader::read(rest) else { return Ok(None) };
            let end = u64::from(self.scanned) + PartHeader::WIDTH as u64 + u64::from(len);
            let payload = end - (u64::from(self.parts) + 1) * PartHeader::WIDTH as u64;
            if payload > self.max.into() {
                return Err(self.too_long(payload, buf));
            }
            let (true, Ok(scanned)) = (end <= buf.len() as u64, u32::try_from(end)) else { return Ok(None) };
            (self.scanned, self.parts) = (scanned, self.parts.saturating_add(1));
            if !has_more {
                break;
            }
        }
        let consumed = std::mem::take(&mut self.scanned) as usize;
        self.parts = 0;
        let (mut from, mut to) = (0, PartHeader::WIDTH);
        while let Some(PartHeader { len, .. }) = buf.get(from..consumed).and_then(PartHeader::read) {
            let begin = from + PartHeader::WIDTH;
            from = begin + len as usize;
            buf.copy_within(begin..from, to);
            to += len as usize;
        }
        Ok(Some(Decoded::Packet { payload: PartHeader::WIDTH..to, consumed }))
    }
}

impl Default for Messages {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing for Messages {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        let Some(PartHeader { has_more, kind, len }) = PartHeader::read(buf) else { return Ok(None) };
        self.received = kind;
        if kind == MessageKind::Ping {
            return Err(FrameError::malformed("a ping is no message", buf));
        }
        if has_more {
            return self.join(buf);
        }
        if len > self.max {
            return Err(self.too_long(len.into(), buf));
        }
        let end = PartHeader::WIDTH + len as usize;
        Ok((end <= buf.len()).then_some(Decoded::Packet { payload: PartHeader::WIDTH..end, consumed: end }))
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.checked(payload)?;
        out.reserve(PartHeader::WIDTH.saturating_add(payload.len()));
        out.extend_from_slice(&self.header(payload.len()));
        out.extend_from_slice(payload);
        Ok(())
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        out.put_bytes(0, PartHeader::WIDTH);
        let len = packet.append_to(out)?;
        let frame = out.get_mut(start..).unwrap_or_default();
        if let Some((header, payload)) = frame.split_first_chunk_mut() {
            self.checked(payload)?;
            *header = self.header(len);
        }
        Ok(())
    }

    fn offer_max(&mut self, max: usize) {
        self.max = policy::clamp(max).min(PartHeader::MOST);
    }

    fn max_frame(&self) -> Option<usize> {
        let max = self.max as usize;
        Some(max.saturating_add(Self::most_headers(max)).saturating_add(2 * PartHeader::WIDTH))
    }

    fn messages(&self) -> Option<&Messages> {
        Some(self)
    }

    fn messages_mut(&mut self) -> Option<&mut Messages> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{encode::encode_fn, framing::Deframed, framing::Deframer};

    fn part(has_more: bool, kind: MessageKind, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("short");
        [&PartHeader { has_more, kind, len }.to_bytes()[..], payload].concat()
    }

    #[test]
    fn the_framing_takes_16_bytes_of_a_session() {
        assert!(size_of::<Messages>() <= 16, "{}", size_of::<Messages>());
    }

    #[test]
    fn headers_keep_what_they_are_made_of() {
        for has_more in [false, true] {
            for kind in [MessageKind::Binary, MessageKind::Text, MessageKind::Ping] {
                for len in [0, 1, 65_536, PartHeader::MOST] {
                    let header = PartHeader { has_more, kind, len };
                    assert_eq!(PartHeader::from_bytes(header.to_bytes()), header);
                }
            }
        }
    }

    #[test]
    fn parts_are_joined_however_they_are_cut() {
        let wire = [
            part(true, MessageKind::Text, b"he"),
            part(true, MessageKind::Text, b""),
            part(true, MessageKind::Text, b"ll"),
            part(false, MessageKind::Text, b"o"),
            part(false, MessageKind::Binary, b"world"),
            part(true, MessageKind::Binary, b"!"),
            part(false, MessageKind::Binary, b""),
        ]
        .concat();
        for piece in 1..=wire.len() {
            let (mut deframer, mut packets) = (Deframer::new(Messages::new()), Vec::new());
            for piece in wire.chunks(piece) {
                deframer.feed(piece);
                while let Ok(Some(Deframed::Packet(packet))) = deframer.poll_frame() {
                    let packet = packet.to_vec();
                    packets.push((deframer.framing().received(), packet));
                }
            }
            let expected = [
                (MessageKind::Text, b"hello".to_vec()),
                (MessageKind::Binary, b"world".to_vec()),
                (MessageKind::Binary, b"!".to_vec()),
            ];
            assert_eq!(packets, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_message_of_the_maximum_passes_and_one_byte_more_does_not() {
        let mut messages = Messages::new();
        messages.offer_max(10);
        let mut exact = part(false, MessageKind::Binary, &[7; 10]);
        assert_eq!(messages.decode(&mut exact), Ok(Some(Decoded::Packet { payload: 4..14, consumed: 14 })));
        let halves =
            |second| [part(true, MessageKind::Binary, &[7; 5]), part(false, MessageKind::Binary, second)];
        let whole = Some(Decoded::Packet { payload: 4..14, consumed: 18 });
        assert_eq!(messages.clone().decode(&mut halves(&[7; 5]).concat()), Ok(whole));
        for mut long in [part(false, MessageKind::Binary, &[7; 11]), halves(&[7; 6]).concat()] {
            let refused = messages.clone().decode(&mut long);
            assert!(matches!(refused, Err(FrameError::TooLong { len: 11, max: 10, .. })), "{refused:?}");
        }
        let mut out = BytesMut::new();
        assert_eq!(messages.encode(&[7; 10], &mut out), Ok(()));
        assert_eq!(messages.encode(&[7; 11], &mut out), Err(EncodeError::too_long(11, 10)));
    }

    #[test]
    fn values_and_bytes_make_the_same_frames_and_texts_are_checked() {
        for (kind, payload, is_fine) in [
            (MessageKind::Binary, &b"\xff"[..], true),
            (MessageKind::Text, "é".as_bytes(), true),
            (MessageKind::Text, b"\xff", false),
            (MessageKind::Ping, &[0; 125], true),
            (MessageKind::Ping, &[0; 126], false),
        ] {
            let messages = Messages::new().send_as(kind);
            let (mut plain, mut valued, mut scratch) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
            let value = encode_fn(|out| {
                out.put_slice(payload);
                Ok(())
            });
            let encoded = messages.encode(payload, &mut plain);
            assert_eq!(encoded.is_ok(), is_fine, "{encoded:?}");
            assert_eq!(messages.encode_with(&value, &mut scratch, &mut valued), encoded);
            if is_fine {
                assert_eq!(plain, part(false, kind, payload)[..]);
                assert_eq!(plain, valued);
            }
        }
    }
}

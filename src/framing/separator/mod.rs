//! Frames that end at a separator. `pattern.rs` finds one separator, `alternatives.rs` one of several.

mod alternatives;
mod pattern;

use bytes::BytesMut;

use self::pattern::{Found, Pattern, Stream};
use super::policy::{self, Policy};
use super::{Decoded, EncodeError, FrameError, Framing, FramingConfigError, Oversize};
use crate::encode::Encode;

pub use self::alternatives::{MAX_SEPARATOR, MAX_SEPARATORS};

/// Packets that end at a separator: lines, NUL-terminated strings, or any bytes.
///
/// ```text
/// lines()  | h  i \r \n | y  o  u \n | t  h
///          '-- frame ---'-- frame ---' tail, waits for its separator
/// packets    ^^^^         ^^^^^^^
/// ```
///
/// **Which separator:** the one that begins first ends the packet, so the shortest packet wins; of several that begin
/// at the same place, the longest wins. Separators do not overlap: the search goes on after the last one. A packet is
/// handed out with the last byte of its separator. If a longer alternative could still match at the same place (`\r`,
/// then `\r\n`), the packet is handed out at once, and the rest of the longer one is skipped when it comes. A packet
/// waits for the next byte only if an alternative that began *earlier* could still match (`abc` against `bx`, after
/// `ab`). So the packets are the same however the stream is cut.
///
/// **Limit:** [`max`](Self::max) counts *packet* bytes, without the separator;
/// [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) by default, or what the server offers. A longer packet is
/// refused as soon as that is certain, after maximum + separator bytes at the latest. Nothing is scanned twice, except
/// what could be the beginning of a separator.
///
/// **Errors:** [`FrameError::TooLong`] above the maximum (see [`Oversize`]), with the number of bytes seen so far as
/// its length. [`FrameError::Truncated`] for a tail without a separator at the end of the stream, unless
/// [`deliver_tail`](Self::deliver_tail) was called. On encode, [`EncodeError::TooLong`] above the maximum, and
/// [`EncodeError::Unencodable`] for a payload that would not be decoded as one packet, because it contains a separator
/// or forms one with the separator that follows it.
///
/// ```
/// use framewire::framing::{Decoded, Framing, Separator};
///
/// let mut lines = Separator::lines().max(1024);
/// assert_eq!(lines.decode(&mut b"hi\r\nyou".to_owned())?, Some(Decoded::Packet { payload: 0..2, consumed: 4 }));
/// assert_eq!(lines.decode(&mut b"you".to_owned())?, None);
/// # Ok::<(), framewire::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Separator {
    pattern: Pattern,
    /// No separator begins before this place; at most the length of the buffer at the last call.
    scanned: usize,
    max: u32,
    /// The alternative that ended the last packet, if a longer one may still grow out of it.
    growing: Option<u8>,
    /// The front of the buffer belongs to a packet that was refused.
    discarding: bool,
    deliver_tail: bool,
    policy: Policy,
}

impl Separator {
    /// A separator of one byte.
    #[must_use]
    pub fn byte(separator: u8) -> Self {
        Self::new(Pattern::Byte(separator))
    }

    /// A separator of one or more bytes, which may overlap with itself (`abab`).
    ///
    /// # Errors
    /// The separator is empty, or longer than [`MAX_SEPARATOR`].
    pub fn bytes(separator: impl AsRef<[u8]>) -> Result<Self, FramingConfigError> {
        Self::any_of([separator])
    }

    /// Any of these separators, each of one or more bytes.
    ///
    /// Packets are sent with the first one that is not the beginning of another.
    ///
    /// # Errors
    /// There are no separators, or more than [`MAX_SEPARATORS`]; one is empty, or longer than [`MAX_SEPARATOR`].
    ///
    /// ```
    /// use framewire::framing::{Decoded, Framing, Separator};
    ///
    /// let mut either = Separator::any_of(["\r", "\n", "\r\n"])?;
    /// assert_eq!(either.decode(&mut b"a\r\nb".to_owned())?, Some(Decoded::Packet { payload: 0..1, consumed: 3 }));
    /// assert!(Separator::any_of(["\n", ""]).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn any_of<I>(separators: I) -> Result<Self, FramingConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        Pattern::any_of(separators).map(Self::new)
    }

    /// Lines, which end at `\n`; one `\r` before it belongs to the separator.
    ///
    /// Sent with `\n`, or with `\r\n` if the packet itself ends in `\r` and would lose it.
    #[must_use]
    pub fn lines() -> Self {
        Self::new(Pattern::Line)
    }

    /// `\r\n` and nothing less: a lone `\n` is part of the packet.
    #[must_use]
    pub fn crlf() -> Self {
        Self::new(Pattern::bytes(b"\r\n"))
    }

    /// A NUL byte, which ends C strings.
    #[must_use]
    pub fn nul() -> Self {
        Self::byte(0)
    }

    /// Sets the most bytes that a packet may have, without its separator (4 GiB - 1 at most; more is taken as that).
    #[must_use]
    pub fn max(mut self, bytes: usize) -> Self {
        self.max = policy::clamp(bytes);
        self.policy.max_is_chosen = true;
        self
    }

    /// Sets what happens to a packet above the maximum; [`Oversize::Close`] by default.
    #[must_use]
    pub fn oversize(mut self, oversize: Oversize) -> Self {
        self.policy.oversize = oversize;
        self
    }

    /// Delivers what is left at the end of the stream as the last packet, as it is, though it has no separator.
    ///
    /// Without this, such a tail is [`FrameError::Truncated`], as it may not be all that the peer meant to send.
    #[must_use]
    pub fn deliver_tail(mut self) -> Self {
        self.deliver_tail = true;
        self
    }

    fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            scanned: 0,
            max: policy::DEFAULT_MAX,
            growing: None,
            discarding: false,
            deliver_tail: false,
            policy: Policy::default(),
        }
    }

    fn limit(&self) -> usize {
        policy::in_memory(self.max.into())
    }

    #[inline]
    fn next(&mut self, buf: &[u8], stream: Stream) -> Result<Option<Decoded>, FrameError> {
        if let Some(last) = self.growing {
            match self.pattern.grow(last, buf, stream) {
                Found::At { end: consumed, growing, .. } => {
                    self.growing = growing;
                    return Ok(Some(Decoded::Skipped { consumed }));
                }
                Found::NotYet { open: 0 } => return Ok(None),
                Found::NotYet { .. } => self.growing = None,
            }
        }
        match self.pattern.find(buf, self.scanned, stream) {
            Found::At { start, end, growing } => {
                self.scanned = 0;
                self.growing = growing;
                self.found(start, end, buf)
            }
            Found::NotYet { open } => {
                self.scanned = open;
                self.not_found(open, buf, stream)
            }
        }
    }

    #[inline]
    fn found(&mut self, start: usize, end: usize, buf: &[u8]) -> Result<Option<Decoded>, FrameError> {
        if self.discarding {
            self.discarding = false;
            return Ok(Some(Decoded::Skipped { consumed: end }));
        }
        if start > self.limit() {
            return self.refuse(end, FrameError::too_long(start as u64, self.max.into(), buf));
        }
        Ok(Some(Decoded::Packet { payload: 0..start, consumed: end }))
    }

    /// No separator is in `buf`, and none that is not yet whole begins before `open`.
    fn not_found(&mut self, open: usize, buf: &[u8], stream: Stream) -> Result<Option<Decoded>, FrameError> {
        if self.discarding {
            self.scanned = 0;
            return Ok((open > 0).then_some(Decoded::Skipped { consumed: open }));
        }
        if buf.len() <= self.limit() || stream == Stream::Ended {
            return Ok(None);
        }
        let open = self.pattern.open(buf, open);
        if open <= self.limit() {
            return Ok(None);
        }
        self.scanned = 0;
        self.discarding = true;
        self.refuse(open, FrameError::too_long(buf.len() as u64, self.max.into(), buf))
    }

    /// Appends the separator to the payload that begins at `start`, unless it would not be decoded as it is.
    #[inline]
    fn separate(&self, separator: &[u8], start: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
        let end = out.len();
        out.extend_from_slice(separator);
        let frame = out.get(start..).unwrap_or_default();
        match self.pattern.find(frame, 0, Stream::Open) {
            Found::At { start: found, .. } if start + found == end => Ok(()),
            _ => {
                out.truncate(start);
                Err(EncodeError::unencodable("payload contains its separator, or runs into it"))
            }
        }
    }

    #[cold]
    fn refuse(&self, consumed: usize, error: FrameError) -> Result<Option<Decoded>, FrameError> {
        match self.policy.oversize {
            Oversize::Close => Err(error),
            Oversize::Discard => Ok(Some(Decoded::Rejected { consumed, error })),
        }
    }
}

impl Framing for Separator {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.next(buf, Stream::Open)
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        // What was left undecided is decided now: no alternative can grow any more.
        let decoded = if buf.is_empty() { None } else { self.next(buf, Stream::Ended)? };
        if decoded.is_some() || (buf.is_empty() && !self.discarding) {
            return Ok(decoded);
        }
        if self.discarding || !self.deliver_tail {
            return Err(FrameError::truncated(buf));
        }
        if buf.len() > self.limit() {
            return Err(FrameError::too_long(buf.len() as u64, self.max.into(), buf));
        }
        self.scanned = 0;
        Ok(Some(Decoded::Packet { payload: 0..buf.len(), consumed: buf.len() }))
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        if payload.len() > self.limit() {
            return Err(EncodeError::too_long(payload.len() as u64, self.max.into()));
        }
        let separator = self.pattern.written_after(payload);
        let start = out.len();
        out.reserve(payload.len() + separator.len());
        out.extend_from_slice(payload);
        self.separate(separator, start, out)
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let len = packet.append_to(out)?;
        if len > self.limit() {
            return Err(EncodeError::too_long(len as u64, self.max.into()));
        }
        let separator = self.pattern.written_after(out.get(start..).unwrap_or_default());
        self.separate(separator, start, out)
    }

    fn offer_max(&mut self, max: usize) {
        if !self.policy.max_is_chosen {
            self.max = policy::clamp(max);
        }
    }

    /// The maximum and the longest separator.
    fn max_frame(&self) -> Option<usize> {
        Some(self.limit().saturating_add(self.pattern.longest()))
    }

    fn is_discarding(&self) -> bool {
        self.discarding
    }
}

#[cfg(test)]
mod tests;

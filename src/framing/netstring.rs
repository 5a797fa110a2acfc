use bytes::{BufMut, BytesMut};

use super::policy::{self, Policy};
use super::{Decoded, EncodeError, FrameError, Framing, Oversize, fill_in};
use crate::encode::Encode;

/// Netstrings, as specified by D. J. Bernstein (<https://cr.yp.to/proto/netstrings.txt>, 1997).
///
/// ```text
/// | 5  : | h  e  l  l  o | ,  |     length in decimal, colon, packet, comma
/// '------------ frame --------'
/// packet   ^^^^^^^^^^^^^
/// ```
///
/// The length has no leading zeros (`0:,` is the empty packet) and at most 19 digits.
///
/// **Limit:** [`max`](Self::max) counts *packet* bytes, without length, colon and comma;
/// [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) by default, or what the server offers.
///
/// **Errors:** [`FrameError::TooLong`] above the maximum, as soon as the colon is there (see [`Oversize`]);
/// [`FrameError::Malformed`] for anything but digits before the colon, for a leading zero, for more than 19 digits, and
/// for anything but a comma after the packet (this always ends the session); [`FrameError::Truncated`] if the stream
/// ends inside a frame. On encode, [`EncodeError::TooLong`] above the maximum.
///
/// ```
/// use framewire::framing::{Decoded, Framing, Netstring};
///
/// let mut framing = Netstring::new().max(1024);
/// assert_eq!(framing.decode(&mut b"5:hello,".to_owned())?, Some(Decoded::Packet { payload: 2..7, consumed: 8 }));
/// # Ok::<(), framewire::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Netstring {
    /// Bytes of a refused frame that are still to come, its comma the last of them; 0 when none is being discarded.
    left: u64,
    max: u32,
    policy: Policy,
}

/// The most digits of a length: any number of so many fits into 64 bits.
const MAX_DIGITS: usize = 19;

impl Netstring {
    /// Netstrings of at most [`DEFAULT_MAX_FRAME`](crate::framing::DEFAULT_MAX_FRAME) packet bytes.
    #[must_use]
    pub fn new() -> Self {
        Self { left: 0, max: policy::DEFAULT_MAX, policy: Policy::default() }
    }

    /// Sets the most bytes of a packet, without length, colon and comma (4 GiB - 1 at most; more is taken as that).
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

    /// The length of a payload, if it is within the maximum.
    fn checked(&self, len: usize) -> Result<u64, EncodeError> {
        let (len, max) = (len as u64, self.max.into());
        if len > max { Err(EncodeError::too_long(len, max)) } else { Ok(len) }
    }

    /// Skips more of a refused frame; its last byte has to be the comma, or it is unknown where the next frame begins.
    #[cold]
    fn skip(&mut self, buf: &[u8]) -> Result<Option<Decoded>, FrameError> {
        let end = usize::try_from(self.left).ok().and_then(|left| left.checked_sub(1));
        match end.and_then(|end| buf.get(end)) {
            None | Some(b',') => Ok(Some(policy::skip(&mut self.left, buf))),
            Some(_) => Err(no_comma(buf)),
        }
    }

    #[cold]
    fn refuse(&mut self, header: usize, len: u64, buf: &[u8]) -> Result<Option<Decoded>, FrameError> {
        let error = FrameError::too_long(len, self.max.into(), buf);
        // All but the comma, which is checked when it comes: so the report is the same however the frame is cut.
        let refused = self.policy.refuse(&mut self.left, len.saturating_add(header as u64), buf, error);
        if refused.is_ok() {
            self.left = self.left.saturating_add(1);
        }
        refused
    }
}

impl Default for Netstring {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing for Netstring {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if self.left != 0 {
            return self.skip(buf);
        }
        let Some((header, len)) = read_len(buf)? else { return Ok(None) };
        if len > self.max.into() {
            return self.refuse(header, len, buf);
        }
        let end = header.saturating_add(policy::in_memory(len));
        match buf.get(end) {
            None => Ok(None),
            Some(b',') => Ok(Some(Decoded::Packet { payload: header..end, consumed: end + 1 })),
            Some(_) => Err(no_comma(buf)),
        }
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        policy::end(self.left, buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        let header = Header::new(self.checked(payload.len())?);
        out.reserve(header.as_ref().len() + payload.len() + 1);
        out.extend_from_slice(header.as_ref());
        out.extend_from_slice(payload);
        out.put_u8(b',');
        Ok(())
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let guess = digits((packet.size_hint() as u64).min(self.max.into())) + 1;
        fill_in::behind(guess, packet, out, |len| self.checked(len).map(Header::new))?;
        out.put_u8(b',');
        Ok(())
    }

    fn offer_max(&mut self, max: usize) {
        if !self.policy.max_is_chosen {
            self.max = policy::clamp(max);
        }
    }

    /// The maximum with its length, colon and comma; never less than the longest length, which has to be read before it
    /// can be refused.
    fn max_frame(&self) -> Option<usize> {
        let whole = policy::in_memory(self.max.into()).saturating_add(digits(self.max.into()) + 2);
        Some(whole.max(MAX_DIGITS + 1))
    }

    fn is_discarding(&self) -> bool {
        self.left != 0
    }
}

/// Bytes of the length with its colon, and the length.
#[inline]
fn read_len(buf: &[u8]) -> Result<Option<(usize, u64)>, FrameError> {
    let mut len = 0;
    for (place, byte) in buf.iter().take(MAX_DIGITS + 1).enumerate() {
        match byte {
            b':' if place > 0 => return Ok(Some((place + 1, len))),
            b'0'..=b'9' if place == MAX_DIGITS => break,
            b'0'..=b'9' if place == 1 && len == 0 => {
                return Err(FrameError::malformed("a netstring length has a leading zero", buf));
            }
            // Of 19 digits, so below 10^19, which a u64 holds.
            b'0'..=b'9' => len = len * 10 + u64::from(byte - b'0'),
            _ => return Err(FrameError::malformed("a netstring length is not a decimal number", buf)),
        }
    }
    if buf.len() > MAX_DIGITS {
        return Err(FrameError::malformed("a netstring length has more than 19 digits", buf));
    }
    Ok(None)
}

fn no_comma(buf: &[u8]) -> FrameError {
    FrameError::malformed("a netstring does not end in a comma", buf)
}

/// A length in decimal, and its colon.
struct Header {
    bytes: [u8; MAX_DIGITS + 2],
    /// Where it begins: it is written from its end.
    start: usize,
}

impl Header {
    fn new(len: u64) -> Self {
        let (mut bytes, digits, mut rest) = ([b':'; MAX_DIGITS + 2], digits(len), len);
        for byte in bytes.iter_mut().rev().skip(1).take(digits) {
            *byte = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self { bytes, start: MAX_DIGITS + 1 - digits }
    }
}

impl AsRef<[u8]> for Header {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

fn digits(len: u64) -> usize {
    len.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(wire: &[u8]) -> bool {
        matches!(Netstring::new().decode(&mut wire.to_vec()), Err(FrameError::Malformed { .. }))
    }

    #[test]
    fn lengths_are_written_without_leading_zeros() {
        for (len, header) in [(0, "0:"), (9, "9:"), (10, "10:"), (105, "105:")] {
            let mut out = BytesMut::new();
            Netstring::new().encode(&vec![b'x'; len], &mut out).unwrap();
            assert_eq!(out, format!("{header}{},", "x".repeat(len)));
        }
    }

    #[test]
    fn what_is_no_netstring_is_refused_with_the_byte_that_shows_it() {
        for wire in
            [&b":"[..], b"00", b"01", b"-", b"+", b" ", b"1;", b"1:a;", b"0:x", b"x", b"99999999999999999999"]
        {
            assert!(refused(wire), "{}", wire.escape_ascii());
            let waits = wire.len() == 1 || !refused(&wire[..wire.len() - 1]);
            assert!(waits, "{} is refused early", wire.escape_ascii());
        }
    }

    #[test]
    fn the_largest_length_of_19_digits_is_refused_and_not_wrapped() {
        let wire = b"9999999999999999999:";
        let error = FrameError::too_long(9_999_999_999_999_999_999, 1 << 20, wire);
        assert_eq!(Netstring::new().decode(&mut wire.to_vec()), Err(error));
        assert_eq!(Netstring::new().decode(&mut wire[..19].to_vec()), Ok(None));
    }

    #[test]
    fn a_discarded_netstring_still_has_to_end_in_a_comma() {
        for piece in 1..8 {
            for (wire, is_good) in [(&b"5:hello,2:ok,"[..], true), (b"5:hello;2:ok,", false)] {
                let mut framing = Netstring::new().max(3).oversize(Oversize::Discard);
                let (mut held, mut seen) = (Vec::new(), Ok(None));
                for chunk in wire.chunks(piece) {
                    held.extend_from_slice(chunk);
                    while !held.is_empty() && seen.is_ok() {
                        seen = framing.decode(&mut held);
                        let Ok(Some(decoded)) = &seen else { break };
                        let (Decoded::Packet { consumed, .. }
                        | Decoded::Skipped { consumed }
                        | Decoded::Rejected { consumed, .. }) = decoded;
                        held.drain(..consumed);
                    }
                }
                assert_eq!(seen.is_ok(), is_good, "{piece}: {seen:?}");
            }
        }
    }

    #[test]
    fn the_longest_frame_counts_length_colon_and_comma() {
        assert_eq!(Netstring::new().max(100).max_frame(), Some(105));
        assert_eq!(Netstring::new().max(1).max_frame(), Some(20), "a length is read before it is refused");
    }
}

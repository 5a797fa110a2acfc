//! The Redis wire format (RESP 2) as a framing: one request is one packet.

use bytes::BytesMut;
use framewire::{Decoded, EncodeError, FrameError, Framing};

/// The shortest argument: `$0\r\n\r\n`.
const SHORTEST: u64 = 6;
/// The longest request that is not an array, in bytes; as in Redis.
const INLINE: usize = 64 * 1024;

/// Finds whole requests: arrays of bulk strings, or lines for people with `nc`.
///
/// ```text
/// wire    | *2\r\n $3\r\n GET\r\n $1\r\n k\r\n | PING\r\n | *2\r\n $3\r\n GE
///         '------------- request -------------'- inline -'
/// packets   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^   ^^^^^^^^
///                                                          ~~~~~~~~~~~~~~~~~ `at`: is not looked at again
/// ```
///
/// A packet is a request in its wire format, and replies are sent in theirs. Arguments are bulk
/// strings: an array within an array is malformed. A request is at most as long as the server's limit of a frame; one
/// that has to become longer, by what its lengths announce, is refused at the first byte that says so.
#[derive(Debug, Clone)]
pub(crate) struct Resp {
    max: usize,
    /// Where the next argument begins (or, in a line, how far there is no line feed).
    at: usize,
    /// Arguments that are still to come.
    left: u64,
}

impl Resp {
    pub(crate) fn new() -> Self {
        Self { max: 1 << 20, at: 0, left: 0 }
    }

    /// ≤ `max`: `at` + `SHORTEST` × `left`.
    fn array(&mut self, buf: &[u8]) -> Result<Option<Decoded>, FrameError> {
        if self.at == 0 {
            let Some((count, end)) = self.length(buf, 1, SHORTEST, 0)? else { return Ok(None) };
            if count == 0 {
                return Ok(Some(Decoded::Skipped { consumed: end }));
            }
            (self.at, self.left) = (end, count);
        }
        while self.left > 0 {
            let Some(end) = self.argument(buf)? else { return Ok(None) };
            self.at = end;
            self.left -= 1;
        }
        Ok(Some(self.whole(self.at)))
    }

    /// Returns where the argument at `at` ends, if it is complete.
    fn argument(&self, buf: &[u8]) -> Result<Option<usize>, FrameError> {
        match buf.get(self.at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(_) => return Err(FrameError::malformed("an argument that is no bulk string", buf)),
        }
        let behind = 2 + (self.left - 1) * SHORTEST;
        let Some((len, start)) = self.length(buf, self.at + 1, 1, behind)? else { return Ok(None) };
        let end = start + len as usize;
        match buf.get(end..) {
            Some([b'\r', b'\n', ..]) => Ok(Some(end + 2)),
            None | Some([] | [b'\r']) => Ok(None),
            Some(_) => Err(FrameError::malformed("a bulk string longer than its length", buf)),
        }
    }

    /// The number at `from`, of things of `unit` bytes with `behind` bytes after them, and where its line ends.
    fn length(
        &self,
        buf: &[u8],
        from: usize,
        unit: u64,
        behind: u64,
    ) -> Result<Option<(u64, usize)>, FrameError> {
        let line = buf.get(from..).unwrap_or_default();
        let mut number = 0;
        for (at, byte) in line.iter().enumerate() {
            match byte {
                b'0'..=b'9' if at == 0 || number > 0 => number = number * 10 + u64::from(byte - b'0'),
                b'\r' if at > 0 => {
                    return match line.get(at + 1) {
                        None => Ok(None),
                        Some(b'\n') => Ok(Some((number, from + at + 2))),
                        Some(_) => Err(FrameError::malformed("a length without line feed", buf)),
                    };
                }
                _ => return Err(FrameError::malformed("a length that is no number", buf)),
            }
            // It only grows by further digits, so it cannot overflow, and the line cannot be long.
            let least = (from + at + 3) as u64 + number * unit + behind;
            if least > self.max as u64 {
                return Err(FrameError::too_long(least, self.max as u64, buf));
            }
        }
        Ok(None)
    }

    fn inline(&mut self, buf: &[u8]) -> Result<Option<Decoded>, FrameError> {
        let max = INLINE.min(self.max);
        let fresh = buf.get(self.at..).unwrap_or_default();
        let found = memchr::memchr(b'\n', fresh).map(|at| self.at + at + 1);
        let seen = found.unwrap_or(buf.len());
        if seen > max || (found.is_none() && seen == max) {
            return Err(FrameError::too_long(seen as u64, max as u64, buf));
        }
        self.at = seen;
        Ok(found.map(|end| self.whole(end)))
    }

    fn whole(&mut self, end: usize) -> Decoded {
        self.at = 0;
        Decoded::Packet { payload: 0..end, consumed: end }
    }
}

impl Framing for Resp {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        match buf.first() {
            Some(b'*') => self.array(buf),
            _ => self.inline(buf),
        }
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        if payload.len() > self.max {
            return Err(EncodeError::too_long(payload.len() as u64, self.max as u64));
        }
        out.extend_from_slice(payload);
        Ok(())
    }

    fn offer_max(&mut self, max: usize) {
        self.max = max;
    }

    fn max_frame(&self) -> Option<usize> {
        Some(self.max)
    }
}

/// The arguments of a whole request, in place.
#[derive(Debug, Clone)]
pub(crate) enum Arguments<'a> {
    Array(&'a [u8]),
    Inline(&'a [u8]),
}

impl<'a> Arguments<'a> {
    /// Of a packet that [`Resp`] has found.
    pub(crate) fn of(packet: &'a [u8]) -> Self {
        match (packet.first(), memchr::memchr(b'\n', packet)) {
            (Some(b'*'), Some(end)) => Self::Array(packet.get(end + 1..).unwrap_or_default()),
            _ => Self::Inline(packet),
        }
    }
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Self::Array(rest) => {
                let (argument, behind) = bulk(rest)?;
                *rest = behind;
                Some(argument)
            }
            Self::Inline(rest) => {
                *rest = rest.trim_ascii();
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                let (argument, behind) = rest.split_at_checked(end).filter(|(word, _)| !word.is_empty())?;
                *rest = behind;
                Some(argument)
            }
        }
    }
}

/// The bulk string at the front of `wire`, and what comes after it.
pub(crate) fn bulk(wire: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len = 0_usize;
    let mut line = wire.strip_prefix(b"$")?.iter();
    for byte in line.by_ref().take_while(|byte| **byte != b'\r') {
        len = len.checked_mul(10)?.checked_add(usize::from(byte.wrapping_sub(b'0')))?;
    }
    let (data, rest) = line.as_slice().get(1..)?.split_at_checked(len)?;
    Some((data, rest.get(2..)?))
}

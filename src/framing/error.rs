use std::{fmt, sync::Arc};

use thiserror::Error;

use crate::{decode::bounded, wire::WireError};

/// What the peer sent violates the framing.
///
/// Every variant says what was seen; [`Display`](fmt::Display) adds a hint if the bytes look like another protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame is longer than the maximum.
    #[error("frame of {len} bytes is over the maximum of {max}{seen}")]
    #[non_exhaustive]
    TooLong {
        /// The announced length, or the bytes seen so far if the framing announces none.
        len: u64,
        /// The maximum in force, in the same unit.
        max: u64,
        /// The first bytes of the frame.
        seen: BytesPreview,
    },
    /// The bytes cannot begin a frame: an impossible length, a forbidden byte.
    #[error("malformed frame: {what}{seen}")]
    #[non_exhaustive]
    Malformed {
        /// What is wrong, as text for people.
        what: &'static str,
        /// The first bytes of the frame.
        seen: BytesPreview,
    },
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame, {have} bytes into it{seen}")]
    #[non_exhaustive]
    Truncated {
        /// How many bytes of the unfinished frame there are.
        have: usize,
        /// The first of them.
        seen: BytesPreview,
    },
    /// The framing itself is at fault: it returned a range outside of the buffer, or made no progress.
    #[error("the framing answered with {what}; this is a defect of the framing, not of the peer")]
    InvalidDecode {
        /// What it returned.
        what: &'static str,
    },
}

impl FrameError {
    /// Creates the error of a frame of `len` bytes above a maximum of `max`; `buf` is the front of the frame.
    #[must_use]
    pub fn too_long(len: u64, max: u64, buf: &[u8]) -> Self {
        Self::TooLong { len, max, seen: BytesPreview::new(buf) }
    }

    /// Creates the error of bytes that cannot begin a frame; `what` says why, in lower case, and `buf` is the front of
    /// them.
    #[must_use]
    pub fn malformed(what: &'static str, buf: &[u8]) -> Self {
        Self::Malformed { what, seen: BytesPreview::new(buf) }
    }

    /// Creates the error of a stream that ended with `buf` left over.
    #[must_use]
    pub fn truncated(buf: &[u8]) -> Self {
        Self::Truncated { have: buf.len(), seen: BytesPreview::new(buf) }
    }

    pub(crate) fn is_too_long(&self) -> bool {
        matches!(self, Self::TooLong { .. })
    }
}

/// A packet that was to be sent cannot be encoded or framed. The fault is the sender's: nothing is sent, and the session
/// goes on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload is longer than the framing's maximum, or than its length field can express.
    #[error("payload of {len} bytes is over the maximum of {max}")]
    #[non_exhaustive]
    TooLong {
        /// Its length (or that of its frame), in bytes, counted as the maximum is.
        len: u64,
        /// The maximum in force, in bytes.
        max: u64,
    },
    /// The payload cannot be written in this framing: a forbidden byte, or not the one length that every frame has.
    #[error("{what}")]
    #[non_exhaustive]
    Unencodable {
        /// What is wrong, as text for people.
        what: &'static str,
    },
    /// The value that was to be sent has no payload: its format cannot express it, or its own code failed.
    #[error("{why}")]
    #[non_exhaustive]
    Value {
        /// What is wrong, as text for people.
        why: Arc<str>,
    },
}

impl From<WireError> for EncodeError {
    /// What [`wire`](crate::wire) returns: its text is kept, as errors of the hot path are to stay small.
    fn from(error: WireError) -> Self {
        Self::because(error)
    }
}

impl From<fmt::Error> for EncodeError {
    /// What `write!` returns.
    fn from(_: fmt::Error) -> Self {
        Self::unencodable("a Display implementation returned an error")
    }
}

impl EncodeError {
    /// Creates the error of a payload (or its frame) of `len` bytes above a maximum of `max`.
    #[must_use]
    pub fn too_long(len: u64, max: u64) -> Self {
        Self::TooLong { len, max }
    }

    /// Creates the error of a payload that the framing cannot write; `what` says why, in lower case.
    #[must_use]
    pub fn unencodable(what: &'static str) -> Self {
        Self::Unencodable { what }
    }

    /// Creates the error of a value that has no payload; `why` is shown as it is, up to 200 bytes of it.
    pub fn because(why: impl fmt::Display) -> Self {
        Self::Value { why: bounded(why) }
    }
}

/// The first bytes of what a peer sent (at most 16), kept in an error.
///
/// Shown in hex, with a hint if they look like HTTP, TLS, SSH or a PROXY protocol header.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BytesPreview {
    len: u8,
    bytes: [u8; 16],
}

impl BytesPreview {
    /// Keeps the first 16 bytes of `buf`.
    #[must_use]
    pub fn new(buf: &[u8]) -> Self {
        let mut seen = Self::default();
        for (to, from) in seen.bytes.iter_mut().zip(buf) {
            *to = *from;
            seen.len += 1;
        }
        seen
    }

    /// Returns the bytes that were kept, at most 16.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Returns what the bytes look like, if that is a well-known protocol.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        const HTTP: [&[u8]; 8] =
            [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT "];
        let b = self.as_bytes();
        if HTTP.iter().any(|verb| b.starts_with(verb)) || b.starts_with(b"PRI * HTTP/2") {
            Some("this looks like an HTTP request")
        } else if b.starts_with(&[0x16, 0x03]) {
            Some("this looks like a TLS handshake")
        } else if b.starts_with(b"PROXY ") || b.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            Some("this looks like a PROXY protocol header")
        } else if b.starts_with(b"SSH-") {
            Some("this looks like an SSH greeting")
        } else {
            None
        }
    }
}

impl fmt::Display for BytesPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == 0 {
            return Ok(());
        }
        write!(f, "; it begins with")?;
        for byte in self.as_bytes() {
            write!(f, " {byte:02x}")?;
        }
        self.hint().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl fmt::Debug for BytesPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BytesPreview(\"{}\")", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_first_bytes_and_what_they_look_like() {
        let error = FrameError::too_long(0x4745_5420, 1 << 20, b"GET / HTTP/1.1\r\nHost: x\r\n");
        assert_eq!(
            error.to_string(),
            "frame of 1195725856 bytes is over the maximum of 1048576; it begins with 47 45 54 20 2f 20 48 54 54 50 \
             2f 31 2e 31 0d 0a (this looks like an HTTP request)"
        );
        assert!(FrameError::malformed("x", &[0x16, 3, 1, 2, 0]).to_string().ends_with("a TLS handshake)"));
        assert!(FrameError::malformed("x", b"PROXY TCP4 ").to_string().contains("PROXY protocol"));
    }

    #[test]
    fn an_error_of_encoding_is_returned_in_three_words() {
        assert!(size_of::<EncodeError>() <= 24, "{}", size_of::<EncodeError>());
    }

    #[test]
    fn an_error_without_bytes_shows_none() {
        assert_eq!(FrameError::truncated(&[]).to_string(), "stream ended inside a frame, 0 bytes into it");
    }
}

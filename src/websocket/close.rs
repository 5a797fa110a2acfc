use std::{error::Error, fmt};

use thiserror::Error;

use crate::error::{CloseReason, LayerError};

/// Why a WebSocket is closed, as its close frame says: RFC 6455, section 7.4.
///
/// It is an error, so that a handler closes with a code of its own by
/// [`Session::close_with`](crate::Session::close_with), or by `?`:
///
/// ```
/// use framewire::{packet_fn, websocket::CloseFrame};
///
/// let handler = packet_fn(|session, packet| {
///     if packet.is_empty() {
///         return Err(CloseFrame::new(4001, "say something").into());
///     }
///     Ok(session.send(packet)?)
/// });
/// ```
///
/// What the peer has sent is in [`Session::peer_close`](crate::Session::peer_close) in `on_end`, and in
/// [`SessionInfo::peer_close`](crate::SessionInfo::peer_close) in `on_closing` and `on_close`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    code: u16,
    reason: Box<str>,
}

/// The most bytes of a reason: a control frame has 125, and the code takes two.
const MOST_REASON: usize = 123;

/// The code of a close frame without one: RFC 6455, section 7.1.5. It is never sent.
const NO_CODE: u16 = 1005;

impl CloseFrame {
    /// A close frame with a `code` and a `reason`, of which 123 bytes are sent at most. 4000 to 4999 are for private use.
    /// A code that must not be sent (as 1005, 1006, or above 4999) goes out as 1008.
    #[must_use]
    pub fn new(code: u16, reason: impl Into<Box<str>>) -> Self {
        let (mut reason, code): (Box<str>, _) = (reason.into(), if may_be_sent(code) { code } else { 1008 });
        if reason.len() > MOST_REASON {
            let end = (0..=MOST_REASON).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or_default();
            reason = reason.get(..end).unwrap_or_default().into();
        }
        Self { code, reason }
    }

    /// What this side says of the end of a session.
    pub(super) fn of(reason: &CloseReason) -> Self {
        let code = match reason {
            CloseReason::Handler(error) => match error.downcast_ref::<Self>() {
                Some(own) => return own.clone(),
                None => 1008,
            },
            CloseReason::Local | CloseReason::PeerClosed => 1000,
            CloseReason::Frame(error) if error.is_too_long() => 1009,
            CloseReason::Frame(_) => 1002,
            CloseReason::Send(_) | CloseReason::Panicked { .. } => 1011,
            CloseReason::SlowPacket(_) | CloseReason::FirstPacket(_) => 1008,
            CloseReason::Memory { .. } => 1013,
            CloseReason::LinkLost { .. } => 1014,
            _ => 1001,
        };
        Self::new(code, "")
    }

    /// Reads the payload of a close frame.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Violation> {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return if payload.is_empty() {
                Ok(Self { code: NO_CODE, reason: Box::default() })
            } else {
                Err(Violation::protocol("a close frame with half a code"))
            };
        };
        let code = u16::from_be_bytes(*code);
        if !may_be_sent(code) {
            return Err(Violation::protocol("a close frame with a code that must not be sent"));
        }
        let reason = std::str::from_utf8(reason)
            .map_err(|_| Violation { code: 1007, what: "the reason of a close frame is not UTF-8" })?;
        Ok(Self { code, reason: reason.into() })
    }

    /// Returns the payload, 125 bytes at most.
    pub(super) fn payload(&self) -> Vec<u8> {
        if self.code == NO_CODE {
            return Vec::new();
        }
        [&self.code.to_be_bytes(), self.reason.as_bytes()].concat()
    }

    /// Returns the code; 1005 if the peer has sent none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Returns the reason; empty if none was given.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebSocket closed with {}", self.code)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason.escape_debug()) }
    }
}

impl Error for CloseFrame {}

/// The codes of RFC 6455, section 7.4, and of its registry, without those that only stand for something.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Why a WebSocket failed. A session that ends with it has
/// [`CloseReason::Layer`](crate::CloseReason::Layer) with [`LayerError::Other`], of which this is the source.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The peer broke the protocol; it was sent this code.
    #[error("WebSocket: {what} (closed with {code})")]
    #[non_exhaustive]
    Violated {
        /// The code of the close frame that was sent.
        code: u16,
        /// What was wrong.
        what: &'static str,
    },
    /// An HTTP request was answered with a response: it asked for no WebSocket, or was refused.
    #[error("answered an HTTP request with status {status}")]
    #[non_exhaustive]
    Answered {
        /// The status.
        status: u16,
    },
    /// The server that was dialled has refused the WebSocket.
    #[error("the server refused the WebSocket with status {status}")]
    #[non_exhaustive]
    Refused {
        /// The status of its response.
        status: u16,
    },
    /// The server that was dialled has answered with something that is no WebSocket handshake.
    #[error("not a WebSocket handshake: {what}")]
    #[non_exhaustive]
    Handshake {
        /// What was wrong.
        what: &'static str,
    },
}

impl From<WebSocketError> for LayerError {
    fn from(error: WebSocketError) -> Self {
        Self::other(error)
    }
}

/// A breach of the protocol, with the code that tells the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) code: u16,
    pub(super) what: &'static str,
}

impl Violation {
    pub(super) const fn protocol(what: &'static str) -> Self {
        Self { code: 1002, what }
    }
}

impl From<Violation> for LayerError {
    fn from(Violation { code, what }: Violation) -> Self {
        WebSocketError::Violated { code, what }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_has_125_bytes_at_most_and_ends_with_a_whole_character() {
        let frame = CloseFrame::new(4000, "é".repeat(100));
        assert_eq!((frame.reason().len(), frame.payload().len()), (122, 124));
        assert_eq!(CloseFrame::new(4000, "a".repeat(123)).payload().len(), 125);
        assert_eq!(CloseFrame::parse(&frame.payload()), Ok(frame));
    }

    #[test]
    fn codes_that_only_stand_for_something_are_neither_sent_nor_accepted() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(CloseFrame::new(code, "").code(), 1008);
            assert_eq!(CloseFrame::parse(&code.to_be_bytes()).map_err(|violation| violation.code), Err(1002));
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseFrame::new(code, "").code(), code);
            assert_eq!(CloseFrame::parse(&code.to_be_bytes()).map(|frame| frame.code()), Ok(code));
        }
    }

    #[test]
    fn a_reason_of_the_peer_is_escaped_where_it_is_shown() {
        let shown = CloseFrame::new(1000, "bye\n\u{1b}[2J").to_string();
        assert_eq!(shown, "WebSocket closed with 1000: bye\\n\\u{1b}[2J");
    }
}

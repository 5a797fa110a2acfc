//! What goes over the wire.
//!
//! All integers are little-endian. A link, which is one connection between the gateway and a client or a server, carries
//! frames:
//!
//! ```text
//! LENGTH u32 │ CONN_ID u32 │ payload (LENGTH - 4 bytes)        LENGTH counts CONN_ID and payload, not itself
//! CONN_ID = 0:  payload = TYPE u8 │ ARGS                       a command
//! ```
//!
//! | type | name | who sends it | ARGS |
//! |---|---|---|---|
//! | 0 | New | an endpoint | – |
//! | 1 | Open | the gateway, in reply to New | connection ID |
//! | 2 | Dial | an endpoint | connection ID, remote ID |
//! | 3 | Refuse | the gateway, to the dialer | connection ID |
//! | 4 | Accept | the gateway, to both ends | connection ID, ID of the other end |
//! | 5 | Close | anybody | connection ID |
//! | 6 | Ping | both ways | – |
//!
//! This is the protocol of fastway at its revision of September 2016; later revisions have renumbered the commands and
//! cannot talk to it.

use std::fmt;

use bytes::{BufMut, BytesMut};
use framewire::{Decoded, Encode, EncodeError, FrameError, Framing};
use thiserror::Error;

/// The default maximum of LENGTH, in bytes: a larger frame ends its link.
pub const DEFAULT_MAX_LENGTH: u32 = 524_288;

/// Bytes of the field LENGTH.
pub(crate) const LENGTH: usize = 4;
/// Bytes of a frame before its payload: LENGTH and CONN_ID.
pub(crate) const HEADER: usize = 8;
/// The longest frame of a command: header, type and two IDs.
const LONGEST_COMMAND: usize = HEADER + 1 + 8;

/// A command: a frame whose connection ID is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// An endpoint asks for a connection ID.
    New,
    /// The gateway answers New with an ID that may be dialed.
    Open {
        /// The new connection ID.
        conn: u32,
    },
    /// An endpoint opens a virtual connection.
    Dial {
        /// An ID that Open has given to this endpoint.
        conn: u32,
        /// A server's ID if a client dials, a client's ID if a server does.
        remote: u32,
    },
    /// The gateway does not open the connection. Its ID may be dialed again.
    Refuse {
        /// The connection that was dialed.
        conn: u32,
    },
    /// The connection is open.
    Accept {
        /// The connection.
        conn: u32,
        /// The ID of the other end.
        remote: u32,
    },
    /// The connection is closed.
    Close {
        /// The connection.
        conn: u32,
    },
    /// A sign of life. An endpoint answers that of the gateway with one of its own.
    Ping,
}

/// A command that breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// A frame without a connection ID and without a type.
    #[error("a command without a type")]
    Empty,
    /// Its arguments are cut off.
    #[error("a command of type {kind} with {have} bytes of arguments, which needs {need}")]
    #[non_exhaustive]
    Short {
        /// The type.
        kind: u8,
        /// Bytes of arguments that are there.
        have: usize,
        /// Bytes of arguments that the type needs.
        need: usize,
    },
    /// There is no such type.
    #[error("a command of type {0}, which does not exist")]
    Unknown(u8),
}

impl Command {
    /// Reads the payload of a frame whose connection ID is 0. Bytes behind the arguments are ignored.
    ///
    /// # Errors
    /// The link has to end: the payload is empty, too short for its type, or of an unknown type.
    pub fn decode(payload: &[u8]) -> Result<Self, CommandError> {
        let (&kind, args) = payload.split_first().ok_or(CommandError::Empty)?;
        let short = |need| CommandError::Short { kind, have: args.len(), need };
        let conn = || u32_at(args, 0).ok_or(short(4));
        let pair = || u32_at(args, 0).zip(u32_at(args, 4)).ok_or(short(8));
        match kind {
            0 => Ok(Self::New),
            1 => Ok(Self::Open { conn: conn()? }),
            2 => pair().map(|(conn, remote)| Self::Dial { conn, remote }),
            3 => Ok(Self::Refuse { conn: conn()? }),
            4 => pair().map(|(conn, remote)| Self::Accept { conn, remote }),
            5 => Ok(Self::Close { conn: conn()? }),
            6 => Ok(Self::Ping),
            _ => Err(CommandError::Unknown(kind)),
        }
    }

    /// Returns the command as a whole frame.
    #[must_use]
    pub fn frame(self) -> CommandFrame {
        let (kind, args) = match self {
            Self::New => (0, [None, None]),
            Self::Open { conn } => (1, [Some(conn), None]),
            Self::Dial { conn, remote } => (2, [Some(conn), Some(remote)]),
            Self::Refuse { conn } => (3, [Some(conn), None]),
            Self::Accept { conn, remote } => (4, [Some(conn), Some(remote)]),
            Self::Close { conn } => (5, [Some(conn), None]),
            Self::Ping => (6, [None, None]),
        };
        let mut bytes = [0; LONGEST_COMMAND];
        let mut rest = &mut bytes[..];
        let length = 5 + 4 * args.iter().flatten().count() as u32;
        rest.put_u32_le(length);
        rest.put_u32_le(0);
        rest.put_u8(kind);
        args.iter().flatten().for_each(|arg| rest.put_u32_le(*arg));
        CommandFrame { bytes, len: LENGTH + length as usize }
    }
}

/// The bytes of a command's frame; dereferences to them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommandFrame {
    bytes: [u8; LONGEST_COMMAND],
    len: usize,
}

impl std::ops::Deref for CommandFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for CommandFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandFrame({:02x?})", &**self)
    }
}

/// Appends a frame of a virtual connection to `out`.
///
/// # Errors
/// [`EncodeError::TooLong`] if the frame's LENGTH (the payload and 4 bytes) would be over `max_length`. Nothing is
/// appended then.
pub fn put_frame(conn: u32, payload: &[u8], max_length: u32, out: &mut BytesMut) -> Result<(), EncodeError> {
    let length = payload.len() as u64 + 4;
    match u32::try_from(length) {
        Ok(field) if field <= max_length => {
            out.put_u32_le(field);
            out.put_u32_le(conn);
            out.put_slice(payload);
            Ok(())
        }
        _ => Err(EncodeError::too_long(length, max_length.into())),
    }
}

/// Splits a whole frame into its connection ID and its payload; `None` if it is shorter than its header.
pub(crate) fn split(frame: &[u8]) -> Option<(u32, &[u8])> {
    Some((u32_at(frame, LENGTH)?, frame.get(HEADER..)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Cuts a link into whole frames, header included, so that they are forwarded as they came. What is sent are whole
/// frames as well, one or several at once, which nothing is added to.
#[derive(Debug, Clone)]
pub struct WholeFrames {
    max_length: u32,
    /// Bytes before the first frame that are one packet by themselves: an answer to a challenge.
    preamble: usize,
}

impl WholeFrames {
    /// Refuses frames whose LENGTH is over `max_length`, as soon as that has come.
    #[must_use]
    pub fn new(max_length: u32) -> Self {
        Self { max_length, preamble: 0 }
    }

    /// The first `bytes` bytes of the stream are handed out as a packet of their own, before any frame.
    #[must_use]
    pub fn after(self, bytes: usize) -> Self {
        Self { preamble: bytes, ..self }
    }
}

impl Framing for WholeFrames {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        let whole = if self.preamble > 0 {
            self.preamble
        } else {
            let Some(length) = u32_at(buf, 0) else { return Ok(None) };
            if length < 4 {
                return Err(FrameError::malformed("LENGTH is below 4, the size of a connection ID", buf));
            }
            if length > self.max_length {
                return Err(FrameError::too_long(length.into(), self.max_length.into(), buf));
            }
            LENGTH + length as usize
        };
        if buf.len() < whole {
            return Ok(None);
        }
        self.preamble = 0;
        Ok(Some(Decoded::Packet { payload: 0..whole, consumed: whole }))
    }

    fn encode(&self, frames: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        out.extend_from_slice(frames);
        Ok(())
    }

    fn encode_with(
        &self,
        frames: &dyn Encode,
        _scratch: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        frames.append_to(out).map(drop)
    }

    fn max_frame(&self) -> Option<usize> {
        Some(self.preamble.max(LENGTH + self.max_length as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the protocol: connection 4, server 1, client 4.
    const EXAMPLES: [(Command, &[u8]); 8] = [
        (Command::New, &[5, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Command::Open { conn: 4 }, &[9, 0, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0]),
        (Command::Dial { conn: 4, remote: 1 }, &[13, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 1, 0, 0, 0]),
        (Command::Refuse { conn: 4 }, &[9, 0, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0]),
        (Command::Accept { conn: 4, remote: 1 }, &[13, 0, 0, 0, 0, 0, 0, 0, 4, 4, 0, 0, 0, 1, 0, 0, 0]),
        (Command::Accept { conn: 4, remote: 4 }, &[13, 0, 0, 0, 0, 0, 0, 0, 4, 4, 0, 0, 0, 4, 0, 0, 0]),
        (Command::Close { conn: 4 }, &[9, 0, 0, 0, 0, 0, 0, 0, 5, 4, 0, 0, 0]),
        (Command::Ping, &[5, 0, 0, 0, 0, 0, 0, 0, 6]),
    ];

    #[test]
    fn commands_are_the_documented_bytes_both_ways() {
        for (command, bytes) in EXAMPLES {
            assert_eq!(&*command.frame(), bytes, "{command:?}");
            assert_eq!(Command::decode(&bytes[HEADER..]), Ok(command));
        }
    }

    #[test]
    fn bytes_behind_the_arguments_are_ignored() {
        for (command, bytes) in EXAMPLES {
            let longer = [&bytes[HEADER..], b"\0more"].concat();
            assert_eq!(Command::decode(&longer), Ok(command));
        }
    }

    #[test]
    fn a_command_that_is_cut_off_or_unknown_is_an_error() {
        assert_eq!(Command::decode(&[]), Err(CommandError::Empty));
        for (command, bytes) in EXAMPLES {
            let payload = &bytes[HEADER..];
            for have in 0..payload.len() - 1 {
                let error = CommandError::Short { kind: payload[0], have, need: payload.len() - 1 };
                assert_eq!(Command::decode(&payload[..=have]), Err(error), "{command:?}");
            }
        }
        for kind in 7..=u8::MAX {
            assert_eq!(Command::decode(&[kind, 0, 0, 0, 0, 0, 0, 0, 0]), Err(CommandError::Unknown(kind)));
        }
    }

    fn cut(framing: &mut WholeFrames, bytes: &[u8]) -> Result<Option<Decoded>, FrameError> {
        framing.decode(&mut bytes.to_vec())
    }

    #[test]
    fn frames_come_out_whole_and_the_limit_is_exact() {
        let mut framing = WholeFrames::new(10);
        let frame = [&[10, 0, 0, 0][..], &[7, 0, 0, 0], b"123456"].concat();
        for short in 0..frame.len() {
            assert_eq!(cut(&mut framing, &frame[..short]), Ok(None));
        }
        let whole = Ok(Some(Decoded::Packet { payload: 0..14, consumed: 14 }));
        assert_eq!(cut(&mut framing, &[&frame[..], b"next"].concat()), whole);
        let over = cut(&mut framing, &[11, 0, 0, 0]);
        assert!(matches!(over, Err(FrameError::TooLong { len: 11, max: 10, .. })), "{over:?}");
        let empty = [4, 0, 0, 0, 7, 0, 0, 0];
        assert_eq!(cut(&mut framing, &empty), Ok(Some(Decoded::Packet { payload: 0..8, consumed: 8 })));
        for length in 0..4 {
            let error = cut(&mut framing, &[length, 0, 0, 0]);
            assert!(matches!(error, Err(FrameError::Malformed { .. })), "{length}: {error:?}");
        }
        assert!(matches!(cut(&mut framing, &[0xff; 4]), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn the_first_frame_may_ride_behind_the_preamble() {
        let mut framing = WholeFrames::new(100).after(20);
        let stream = [&[9; 20][..], &Command::New.frame()].concat();
        assert_eq!(cut(&mut framing, &stream[..19]), Ok(None));
        let first = Ok(Some(Decoded::Packet { payload: 0..20, consumed: 20 }));
        assert_eq!(cut(&mut framing, &stream), first);
        assert_eq!(
            cut(&mut framing, &stream[20..]),
            Ok(Some(Decoded::Packet { payload: 0..9, consumed: 9 }))
        );
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_where_it_is_sent() {
        let mut out = BytesMut::new();
        assert_eq!(put_frame(3, b"12345", 8, &mut out), Err(EncodeError::too_long(9, 8)));
        assert!(out.is_empty());
        assert_eq!(put_frame(3, b"1234", 8, &mut out), Ok(()));
        assert_eq!(split(&out), Some((3, &b"1234"[..])));
        assert_eq!(split(&out[..7]), None);
    }
}

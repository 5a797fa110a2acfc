//! Finding frames in a byte stream.
//!
//! A *frame* is what is on the wire, a *packet* is what the user gets: the frame without its header or separator.
//! A [`Framing`] is the rule that turns one into the other. It is a pure state machine: no socket, no clock, no thread.
//!
//! ```text
//! wire    | 00 00 00 05 | h  e  l  l  o | 00 00 00 02 | h  i | 00 00
//!         '----------- frame -----------'-------- frame -----' tail, waits for more
//! packets                 ^^^^^^^^^^^^^                 ^^^^
//! ```

mod any;
mod closure;
mod config_error;
mod deframer;
mod error;
mod fill_in;
mod fixed;
mod length_field;
mod length_header;
mod length_prefix;
#[cfg(feature = "websocket")]
mod messages;
mod netstring;
mod policy;
mod raw;
mod separator;
mod until_eof;
mod varint;

pub use closure::{FramingFn, framing_fn};
pub use config_error::FramingConfigError;
pub use deframer::{Deframed, Deframer};
pub use error::{BytesPreview, EncodeError, FrameError};
pub use fixed::FixedLength;
pub use length_field::{ByteOrder, LengthField, LengthFieldBuilder};
#[doc(hidden)]
pub use length_header::LengthHeader;
pub(crate) use length_header::U32Header;
pub use length_prefix::LengthPrefix;
#[cfg(feature = "websocket")]
pub use messages::{MessageKind, Messages};
pub use netstring::Netstring;
pub use policy::DEFAULT_MAX_FRAME;
pub use raw::Raw;
pub use separator::{MAX_SEPARATOR, MAX_SEPARATORS, Separator};
pub use until_eof::UntilEof;
pub use varint::VarintPrefix;

pub(crate) use any::AnyFraming;
pub(crate) use deframer::{Found, NoPacket, Stage, no_packet, packet};

#[cfg(feature = "websocket")]
pub(crate) use messages::PartHeader;

use std::ops::Range;

use bytes::BytesMut;

use crate::encode::Encode;

/// The rule that cuts a byte stream into frames.
///
/// Each session has a value of its own (the server clones the one that it was given), so it may remember how far it has
/// scanned: `buf` always begins at the first byte that was not consumed yet, and after a call that consumed nothing, it
/// only grows at its end.
///
/// `decode` returns a range of `buf`, not a borrow of it. A range outside of `buf`, or a frame that consumes no bytes
/// or more than `buf` holds, ends the session with [`FrameError::InvalidDecode`]; it does not cause a panic.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no framing",
    note = "a server is given one before it is served: `Server::bind(..)?.framing(Separator::lines())`"
)]
pub trait Framing {
    /// Looks for one whole frame at the front of `buf`. Returns `None` while the frame is not complete.
    ///
    /// `buf` is never empty. The frame may be unescaped in place once it is whole.
    ///
    /// # Errors
    /// What the peer sent is not a frame, and cannot become one. The session ends.
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError>;

    /// Looks for a last frame when the stream has ended: `buf` is what is left, for which `decode` has returned `None`,
    /// or is empty.
    ///
    /// Called until it returns `None` or an error. By default, an empty `buf` is a clean end.
    ///
    /// # Errors
    /// By default, [`FrameError::Truncated`] when bytes are left.
    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if buf.is_empty() { Ok(None) } else { Err(FrameError::truncated(buf)) }
    }

    /// Appends `payload` as one frame to `out`.
    ///
    /// The frame must depend on nothing but the payload and the settings. On an error, the caller removes whatever was
    /// appended.
    ///
    /// # Errors
    /// The payload cannot be framed: it is longer than the maximum or than its length field can express, or contains
    /// what the framing cannot carry.
    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError>;

    /// Appends what `packet` encodes to as one frame to `out`: the same frame that [`encode`](Self::encode) makes of its
    /// payload.
    ///
    /// By default, the payload is first written to `scratch`, whose content does not matter before or after. A framing
    /// can do better that fills in its header when the payload is there, as those of this crate do: they put it behind
    /// room for the header with [`Encode::append_to`], where it is sent from.
    ///
    /// # Errors
    /// As for `encode`, and what [`Encode::encode`] returns. The caller then removes whatever was appended.
    fn encode_with(
        &self,
        packet: &dyn Encode,
        scratch: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        if let Some(payload) = packet.as_payload() {
            return self.encode(payload, out);
        }
        scratch.clear();
        packet.encode(scratch)?;
        self.encode(scratch, out)
    }

    /// Returns the header, for a framing whose frames are a length and the payload and nothing else, while it discards
    /// no frame. A session then finds and writes such frames by itself, with the same result as
    /// [`decode`](Self::decode) and [`encode`](Self::encode) at less cost. By default `None`; only framings of this
    /// crate have one.
    #[doc(hidden)]
    fn length_header(&self) -> Option<&LengthHeader> {
        None
    }

    /// Returns the framing itself, if it is that of WebSocket messages.
    #[cfg(feature = "websocket")]
    #[doc(hidden)]
    fn messages(&self) -> Option<&Messages> {
        None
    }

    /// As `messages`, to be changed.
    #[cfg(feature = "websocket")]
    #[doc(hidden)]
    fn messages_mut(&mut self) -> Option<&mut Messages> {
        None
    }

    /// Offers the limit of the server ([`Limits::frame`](crate::Limits::frame), in bytes), once, before the first byte.
    ///
    /// The framings of this crate use it as their maximum unless they were given one with `max`. By default it is
    /// ignored.
    fn offer_max(&mut self, max: usize) {
        let _ = max;
    }

    /// Returns the most bytes that one whole frame can take on the wire, header and separator included; `None`, the
    /// default, if the framing does not know.
    ///
    /// A session never holds more than this of an unfinished frame (or more than the server's limit, if it is `None`).
    fn max_frame(&self) -> Option<usize> {
        None
    }

    /// Returns `true` while a frame that was refused is still being skipped: its end has not come yet.
    ///
    /// Called after each [`Decoded::Rejected`] and [`Decoded::Skipped`]. While it returns `true`,
    /// [`Limits::packet_timeout`](crate::Limits::packet_timeout) runs as it does for a frame that is kept. By default
    /// `false`, which is right for framings that never need more than one call to skip a frame.
    fn is_discarding(&self) -> bool {
        false
    }
}

/// What [`Framing::decode`] found at the front of the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// One whole frame.
    Packet {
        /// The range of the packet, which must lie within the buffer.
        payload: Range<usize>,
        /// How many bytes the frame takes, to be dropped from the front; at least 1.
        consumed: usize,
    },
    /// Bytes that belong to no packet (a heartbeat, padding, more of a frame that is being discarded).
    Skipped {
        /// How many bytes to drop from the front; at least 1.
        consumed: usize,
    },
    /// A frame that is refused, but after which the stream goes on ([`Oversize::Discard`]): reported once, to
    /// [`PacketHandler::on_rejected`](crate::PacketHandler::on_rejected). More of its bytes may follow as `Skipped`.
    Rejected {
        /// How many bytes to drop from the front; 0 is allowed here, but only once for the same bytes.
        consumed: usize,
        /// Why the frame is refused.
        error: FrameError,
    },
}

/// What a framing does with a frame over its maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oversize {
    /// The session ends with [`FrameError::TooLong`]. The default: such a frame is usually hostile, or of another
    /// protocol.
    #[default]
    Close,
    /// The frame is skipped without being buffered and reported once; then the next frame is decoded.
    Discard,
}

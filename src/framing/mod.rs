//! Finding frames in a byte stream.
//!
//! A *frame* is what is on the wire, a *packet* is what the user gets: the frame less its header or separator.
//! A [`Framing`] is the rule that turns one into the other. It is a pure machine: no socket, no clock, no thread.
//!
//! ```text
//! wire    | 00 00 00 05 | h  e  l  l  o | 00 00 00 02 | h  i | 00 00
//!         '----------- frame -----------'-------- frame -----' tail, waits for more
//! packets                 ^^^^^^^^^^^^^                 ^^^^
//! ```

mod closure;
mod config_error;
mod deframer;
mod error;
mod fixed;
mod length_field;
mod length_header;
mod length_prefix;
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
pub use length_prefix::LengthPrefix;
pub use netstring::Netstring;
pub use policy::DEFAULT_MAX_FRAME;
pub use raw::Raw;
pub use separator::{MAX_SEPARATOR, MAX_SEPARATORS, Separator};
pub use until_eof::UntilEof;
pub use varint::VarintPrefix;

pub(crate) use deframer::{NoPacket, Stage, no_packet, packet};

use std::ops::Range;

use bytes::BytesMut;

/// The rule that cuts a byte stream into frames.
///
/// One value belongs to one session (the server clones its prototype for each), so it may remember how far it has
/// scanned: `buf` always begins at the first byte that was not yet consumed, and only ever grows at its end between
/// two calls that consume nothing.
///
/// `decode` answers with a range of `buf`, not with a borrow of it. A range outside of `buf`, and a frame that consumes
/// nothing or more than there is, ends the session with [`FrameError::InvalidDecode`]; it never panics.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no framing",
    note = "a server is given one before it is served: `Server::bind(..)?.framing(Separator::lines())`"
)]
pub trait Framing {
    /// Looks for one whole frame at the front of `buf`; `None` means "not yet".
    ///
    /// `buf` is never empty. The frame may be unescaped in place once it is whole.
    ///
    /// # Errors
    /// What the peer sent cannot be, or not become, a frame. The session ends.
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError>;

    /// The stream has ended: `buf` is what is left and `decode` has answered `None` for it (or it is empty).
    ///
    /// Called until it returns `None`, at last with an empty `buf`. By default an empty rest is a clean end.
    ///
    /// # Errors
    /// By default, [`FrameError::Truncated`] when bytes are left.
    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if buf.is_empty() { Ok(None) } else { Err(FrameError::truncated(buf)) }
    }

    /// Appends `payload` as one frame to `out`.
    ///
    /// It depends on nothing but the payload and the settings, so that a broadcast is encoded once and shared. On an
    /// error, whatever was appended is taken away again by the caller.
    ///
    /// # Errors
    /// The payload has no frame: it is longer than the maximum or than its length field can say.
    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError>;

    /// The header, for a framing whose frames are a length and the payload and nothing else, as long as it does not discard one.
    /// A session then finds, and writes, such frames by itself, which means the same as [`decode`](Self::decode) and
    /// [`encode`](Self::encode) and costs less. By default there is none; only framings of this crate have one.
    #[doc(hidden)]
    fn length_header(&self) -> Option<&LengthHeader> {
        None
    }

    /// Offers the limit of the server ([`Limits::frame`](crate::Limits::frame), bytes), once, before the first byte.
    ///
    /// The framings of this crate take it as their maximum, unless they were given one with `max`.
    fn offer_max(&mut self, max: usize) {
        let _ = max;
    }

    /// The most bytes that one whole frame can take on the wire, header and separator included; `None` when the
    /// framing does not know.
    ///
    /// A session never holds more than this of an unfinished frame (or the server's limit, when it is `None`).
    fn max_frame(&self) -> Option<usize> {
        None
    }

    /// Whether a frame that was refused is still being skipped: its end has not come.
    ///
    /// Asked after each [`Decoded::Rejected`] and [`Decoded::Skipped`]. While it answers yes,
    /// [`Limits::packet_timeout`](crate::Limits::packet_timeout) runs as it does for a frame that is kept. By default no,
    /// which is right for framings that skip nothing over more than one call.
    fn is_discarding(&self) -> bool {
        false
    }
}

/// What [`Framing::decode`] found at the front of the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// One frame: `payload` is where its packet stands in the buffer, `consumed` how many bytes the frame took.
    Packet {
        /// Where the packet stands. It must lie within the buffer.
        payload: Range<usize>,
        /// How many bytes to drop from the front; at least 1.
        consumed: usize,
    },
    /// Bytes that belong to no packet (a heartbeat, padding, more of a frame that is being discarded).
    Skipped {
        /// How many bytes to drop from the front; at least 1.
        consumed: usize,
    },
    /// A frame that is refused, but behind which the stream goes on ([`Oversize::Discard`]): reported once, to
    /// [`PacketHandler::on_rejected`](crate::PacketHandler::on_rejected). More of its bytes may follow as `Skipped`.
    Rejected {
        /// How many bytes to drop from the front; 0 is allowed here, once for the same bytes.
        consumed: usize,
        /// Why.
        error: FrameError,
    },
}

/// What a framing does with a frame over its maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oversize {
    /// The session ends with [`FrameError::TooLong`]. The default: every other peer of that length is hostile or lost.
    #[default]
    Close,
    /// The frame is skipped without being buffered, reported once, and the next frame is found again.
    Discard,
}

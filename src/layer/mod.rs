//! Layers transform bytes between the socket and the framing: TLS, compression, a PROXY header, a WebSocket handshake.
//!
//! ```text
//! socket ──wire──▶ layer 0 ──plain──▶ layer 1 ──plain──▶ framing ──▶ PacketHandler
//! socket ◀──wire── layer 0 ◀──plain── layer 1 ◀──plain── framing ◀── Session::send
//! ```
//!
//! A connection gets its layers when it arrives ([`Server::layer`](crate::Server::layer)), or later, in mid-stream
//! ([`Session::push_layer`](crate::Session::push_layer)). Each new layer is placed between the previous ones and the
//! framing; a session has 8 at most.

#[cfg(feature = "deflate")]
mod deflate;
mod factories;
mod io;
mod proxy_protocol;
mod sniff;

#[cfg(feature = "deflate")]
pub use deflate::{Deflate, DeflateWindow};
pub use io::LayerIo;
pub use proxy_protocol::{ProxyHeader, ProxyProtocol, Untrusted};
pub use sniff::{Sniff, SniffLayer, Sniffed};

pub(crate) use factories::LayerFactories;
pub(crate) use io::LayerRequests;
#[cfg(feature = "websocket")]
pub(crate) use io::WebSocketNews;
use proxy_protocol::HeaderSender;

use bytes::BytesMut;

use crate::error::{CloseReason, LayerError};

/// Transforms the bytes of one connection, in both directions. It may write while it reads, as a handshake does.
///
/// A layer is *opening* until it calls [`LayerIo::open`] or passes on its first plain bytes. For a session that begins
/// with layers, [`on_open`](crate::PacketHandler::on_open) is called when all of them are open. They have
/// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout) for that, together. Until then no packet is sent
/// through them: packets wait in the outbox.
///
/// An error closes the session with [`CloseReason::Layer`](crate::CloseReason::Layer), a panic with
/// [`CloseReason::Panicked`](crate::CloseReason::Panicked). What the layer has written to the wire before, such as an
/// alert, is still sent.
///
/// A layer of one session gets its share of a turn, as its packets do: it is called 64 times at most before others are
/// served. [`testing::LayerDriver`](crate::testing::LayerDriver) drives a layer in a test, and has an example of one
/// that transforms bytes.
///
/// ```
/// use bytes::BytesMut;
/// use framewire::{Layer, LayerError, LayerIo};
///
/// /// Takes a line off the front of the stream, and leaves.
/// struct Greeting;
///
/// impl Layer for Greeting {
///     fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
///         match wire.iter().position(|byte| *byte == b'\n') {
///             Some(end) => {
///                 io.done(); // what follows the line goes to the framing as it is
///                 Ok(end + 1)
///             }
///             None if wire.len() > 100 => Err(LayerError::malformed("no greeting", wire)),
///             None => Ok(0), // more of it is to come
///         }
///     }
///
///     fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
///         wire.extend_from_slice(plain);
///         Ok(())
///     }
/// }
/// ```
pub trait Layer: Send {
    /// Called with bytes from below. Returns how many of them the layer has consumed; the rest is passed in again,
    /// followed by what is received next.
    ///
    /// The first call comes when the layer begins, possibly without any bytes: a layer that speaks first writes to the
    /// wire then, and one without a handshake calls [`LayerIo::open`]. This is called again, possibly without new
    /// bytes, after the layer has used up the [`room`](LayerIo::room) for plain bytes, and after it has consumed some
    /// bytes but not all. A layer that consumes nothing, or everything, and leaves room waits for more bytes: if it holds
    /// plain bytes itself, it must pass on as many of them as there is room for. It may leave at most 128 KiB unread;
    /// once it is open, [`Limits::frame`](crate::Limits::frame) bytes if that is more.
    ///
    /// Bytes that an open layer leaves unread are the beginning of a block, which has
    /// [`Limits::packet_timeout`](crate::Limits::packet_timeout) to become whole. After [`LayerIo::end`] this is not
    /// called again.
    ///
    /// # Errors
    /// If the peer's bytes are invalid. The session is closed.
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError>;

    /// Called when the peer has ended its side, and [`received`](Self::received) has consumed everything before. Not
    /// called for a layer that is still opening or has left bytes unread; there the session is closed with
    /// [`LayerError::Truncated`].
    ///
    /// # Errors
    /// If the stream must not end here, because it was cut. By default it may end anywhere.
    fn received_end(&mut self) -> Result<(), LayerError> {
        Ok(())
    }

    /// Transforms `plain` and appends the result to `wire`. `plain` holds frames and may begin and end within one. The
    /// layer may keep bytes back until [`flush`](Self::flush).
    ///
    /// # Errors
    /// If the bytes cannot be sent. The session is closed, and what this call has appended is discarded.
    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError>;

    /// Appends what [`send`](Self::send) has kept back. Called once after each batch of sends, and before
    /// [`end`](Self::end). By default this does nothing.
    ///
    /// # Errors
    /// As for `send`.
    fn flush(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        let _ = wire;
        Ok(())
    }

    /// Called before [`end`](Self::end) if the session closes, with the reason, for a protocol that tells the peer why (as
    /// WebSocket does). Not called if only our side ends. By default this does nothing.
    fn closing(&mut self, reason: &CloseReason) {
        let _ = reason;
    }

    /// Called when everything was sent and we end our side: appends the last block, or a `close_notify`. Also called
    /// for a layer that is still opening, and for those below one whose [`received`](Self::received) has failed; not
    /// called after an error of another method of its own than [`received_end`](Self::received_end). By default this does
    /// nothing.
    ///
    /// # Errors
    /// As for `send`.
    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        let _ = wire;
        Ok(())
    }

    /// Returns how many bytes of memory the layer holds in buffers, for
    /// [`Limits::shard_memory`](crate::Limits::shard_memory). Called after each of the other methods that add to them, so
    /// it should be cheap. Default 0.
    fn buffered(&self) -> usize {
        0
    }

    /// Returns what TLS has agreed on with the peer, for [`Session::tls`](crate::Session::tls): a layer of your own that
    /// wraps a [`Tls`](crate::Tls) passes it on. Default `None`.
    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<crate::tls::TlsInfo<'_>> {
        None
    }
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        (**self).received(wire, io)
    }

    fn received_end(&mut self) -> Result<(), LayerError> {
        (**self).received_end()
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        (**self).send(plain, wire)
    }

    fn flush(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        (**self).flush(wire)
    }

    fn closing(&mut self, reason: &CloseReason) {
        (**self).closing(reason);
    }

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        (**self).end(wire)
    }

    fn buffered(&self) -> usize {
        (**self).buffered()
    }

    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<crate::tls::TlsInfo<'_>> {
        (**self).tls()
    }
}

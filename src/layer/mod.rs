//! Bytes transformed between the socket and the framing: TLS, compression, a PROXY header, a WebSocket handshake.
//!
//! ```text
//! socket ──wire──▶ layer 0 ──plain──▶ layer 1 ──plain──▶ framing ──▶ PacketHandler
//! socket ◀──wire── layer 0 ◀──plain── layer 1 ◀──plain── framing ◀── Session::send
//! ```
//!
//! Layers are given to connections as they arrive ([`Server::layer`](crate::Server::layer)), or pushed in mid-stream
//! ([`Session::push_layer`](crate::Session::push_layer)). Each new one stands between those before it and the framing.

mod io;

pub use io::LayerIo;

pub(crate) use io::LayerRequests;

use bytes::BytesMut;

use crate::error::LayerError;

/// Transforms the bytes of one connection, in both directions. It may write while it reads, as a handshake does.
///
/// A layer is *opening* until it has called [`LayerIo::open`] (or given its first plain bytes). A session that begins with
/// layers has its [`on_open`](crate::PacketHandler::on_open) when all of them are open, and each is given
/// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout) for that. Until then nothing is sent through it: packets
/// wait in the outbox. An error, or a panic, ends the session with [`CloseReason::Layer`](crate::CloseReason::Layer) (or
/// `Panicked`); what the layer has written to the wire before, an alert, still goes out.
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
    /// Bytes came from below. Returns how many of them are done with; the rest is shown again, with what comes behind it.
    ///
    /// It is first called when the layer begins, perhaps without any bytes: who speaks first speaks then, and a layer without
    /// a handshake calls [`LayerIo::open`]. It is called again, perhaps without new bytes, after it has used up all the
    /// [`room`](LayerIo::room) for plain bytes, and after it has consumed some bytes but not all. Where it consumes none and
    /// leaves room it waits for more; it may leave [`Limits::frame`](crate::Limits::frame) bytes (at least 128 KiB) unread,
    /// and 128 KiB before it is open.
    ///
    /// # Errors
    /// The peer's bytes cannot be: the session ends.
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError>;

    /// The peer has ended its side, and everything before was shown to [`received`](Self::received) and consumed. Not called
    /// for a layer that is opening, or has left bytes unread: that is an error in itself.
    ///
    /// # Errors
    /// The stream must not end here: it was cut. By default it may.
    fn received_end(&mut self) -> Result<(), LayerError> {
        Ok(())
    }

    /// Appends what becomes of `plain`, frames of packets cut anywhere, to `wire`. It may keep some back until
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// It cannot be sent: the session ends, and nothing is appended.
    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError>;

    /// The batch is over: appends what [`send`](Self::send) has kept back. Called once per batch of sends.
    ///
    /// # Errors
    /// As `send`.
    fn flush(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        let _ = wire;
        Ok(())
    }

    /// We end our side, and everything was sent: appends the last block, or a `close_notify`. Also called for a layer that
    /// is still opening; not after an error.
    ///
    /// # Errors
    /// As `send`.
    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        let _ = wire;
        Ok(())
    }

    /// Bytes of memory that the layer holds beside itself, for [`Limits::shard_memory`](crate::Limits::shard_memory).
    fn buffered(&self) -> usize {
        0
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

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        (**self).end(wire)
    }

    fn buffered(&self) -> usize {
        (**self).buffered()
    }
}

use std::{error::Error, sync::Arc};

use thiserror::Error;

use crate::{addr::Addr, framing::BytesPreview};

/// Why a [`Layer`](crate::Layer) failed, which closes its session with
/// [`CloseReason::Layer`](crate::CloseReason::Layer).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The peer's bytes do not follow the protocol of the layer.
    #[error("{what}{seen}")]
    #[non_exhaustive]
    Malformed {
        /// What is wrong, as a text for people.
        what: &'static str,
        /// The first of the bytes at fault.
        seen: BytesPreview,
    },
    /// The stream ended inside a handshake or a block.
    #[error("{}", if *have == 0 {
        "the stream was cut: it ended before the last block of a layer".to_owned()
    } else {
        format!("the stream was cut: it ended {have} bytes into a handshake or a block of a layer")
    })]
    #[non_exhaustive]
    Truncated {
        /// Bytes received of the incomplete handshake or block; 0 if it ended between two of them.
        have: usize,
    },
    /// A layer left more bytes unread than it may.
    #[error("a layer left {held} bytes unread, {max} at most")]
    #[non_exhaustive]
    TooLong {
        /// Bytes left unread.
        held: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The connection does not come from a proxy that is trusted, see [`ProxyProtocol`](crate::ProxyProtocol).
    #[error("{peer} is no trusted proxy; trust its network, or let it connect without one")]
    #[non_exhaustive]
    Untrusted {
        /// Where it comes from.
        peer: Addr,
    },
    /// A layer has found out who the peer is, and that peer has as many connections as
    /// [`Limits::connections_per_peer`](crate::Limits::connections_per_peer) allows. The connection is reset, and counted
    /// by [`RefusalCause::PeerLimit`](crate::RefusalCause::PeerLimit).
    #[error("the peer has {limit} connections already, the limit")]
    #[non_exhaustive]
    PeerLimit {
        /// The limit.
        limit: usize,
    },
    /// The peer's compressed bytes stand for more than they may.
    #[error(
        "compressed bytes stand for more than {max_ratio} times their length and {allowance} bytes beyond that"
    )]
    #[non_exhaustive]
    Expansion {
        /// The most plain bytes for each compressed one.
        max_ratio: u32,
        /// The most plain bytes beyond that.
        allowance: usize,
    },
    /// [`Session::push_layer`](crate::Session::push_layer) was called when no layer could be pushed.
    #[error("cannot push a layer: {0}")]
    Misplaced(&'static str),
    /// Any other error of the layer.
    #[error("{0}")]
    Other(#[source] Arc<dyn Error + Send + Sync>),
}

impl LayerError {
    /// Creates an error from a text or from any error.
    ///
    /// ```
    /// use framewire::LayerError;
    /// assert_eq!(LayerError::other("no common cipher").to_string(), "no common cipher");
    /// ```
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into().into())
    }

    /// Creates the error for bytes that do not follow the protocol of the layer: `what` says what is wrong, in lower
    /// case, and `buf` begins with the bytes at fault.
    #[must_use]
    pub fn malformed(what: &'static str, buf: &[u8]) -> Self {
        Self::Malformed { what, seen: BytesPreview::new(buf) }
    }

    /// Creates the error for a stream that ended `have` bytes into a handshake or a block, or that lacks its last block
    /// (`have` is 0 then).
    #[must_use]
    pub fn truncated(have: usize) -> Self {
        Self::Truncated { have }
    }
}

impl From<std::io::Error> for LayerError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(Arc::new(error))
    }
}

use std::{error::Error, sync::Arc};

use thiserror::Error;

use crate::framing::BytesPreview;

/// Why a layer gave up on its connection.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The peer's bytes are not what the layer speaks.
    #[error("{what}{seen}")]
    #[non_exhaustive]
    Malformed {
        /// What is wrong, for a person.
        what: &'static str,
        /// The first bytes of it.
        seen: BytesPreview,
    },
    /// The stream ended inside a handshake or a block.
    #[error("the stream ended inside a handshake or a block of a layer, {have} bytes into it")]
    #[non_exhaustive]
    Truncated {
        /// Bytes of what is not complete.
        have: usize,
    },
    /// More was received without making up a block than a layer may leave unread.
    #[error("a layer left {held} bytes unread, {max} at most")]
    #[non_exhaustive]
    TooLong {
        /// Bytes that wait.
        held: usize,
        /// The maximum.
        max: usize,
    },
    /// [`Session::push_layer`](crate::Session::push_layer) was called when that cannot be.
    #[error("cannot push a layer: {0}")]
    Misplaced(&'static str),
    /// An error of the layer's own.
    #[error("{0}")]
    Other(#[source] Arc<dyn Error + Send + Sync>),
}

impl LayerError {
    /// An error of the layer's own: a text or any error.
    ///
    /// ```
    /// use framewire::LayerError;
    /// assert_eq!(LayerError::other("no common cipher").to_string(), "no common cipher");
    /// ```
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into().into())
    }

    /// Bytes that the layer does not speak; `what` says why, in lower case, and `buf` is the front of them.
    #[must_use]
    pub fn malformed(what: &'static str, buf: &[u8]) -> Self {
        Self::Malformed { what, seen: BytesPreview::new(buf) }
    }

    /// The stream ended, `have` bytes into a handshake or a block.
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

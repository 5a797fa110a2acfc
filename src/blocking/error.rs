use std::{error::Error, io, sync::Arc, time::Duration};

use thiserror::Error;

use crate::{
    error::{Failure, LayerError},
    framing::{EncodeError, FrameError},
};

/// Why a call of a [`Client`](super::Client) or a [`Listener`](super::Listener) failed. Each variant says what can still be
/// done with the client. Clones share the details.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The text is not an address that can be connected to.
    #[error("{text:?} is no address to connect to: {why}; give host:port, [v6]:port or unix:/path")]
    #[non_exhaustive]
    Address {
        /// The text.
        text: Box<str>,
        /// What is wrong with it.
        why: Box<str>,
    },
    /// No connection was made: the peer refused it, it cannot be reached, or the time was up. Of several addresses, this
    /// is the last.
    #[error("cannot connect to {addr}: {source}")]
    #[non_exhaustive]
    Connect {
        /// The address.
        addr: Box<str>,
        /// The error of the system call; of the kind `TimedOut` when the time was up.
        source: Arc<io::Error>,
    },
    /// No connection could be accepted, for example because the process has no descriptor left. The listener can still be
    /// used.
    #[error("cannot accept a connection: {0}")]
    Accept(#[source] Arc<io::Error>),
    /// No whole packet came in time. Nothing is lost: what has come of the next packet is kept, and the next call continues
    /// behind it.
    #[error("no packet within {after:?}; {held} bytes of an unfinished one wait for the rest")]
    #[non_exhaustive]
    RecvTimedOut {
        /// The timeout.
        after: Duration,
        /// Bytes received of the packet that is not whole yet.
        held: usize,
    },
    /// The peer did not read: the kernel had no room for a byte of the packet in time. None of it is sent, and the client
    /// can still be used.
    #[error("the peer does not read: none of the packet could be sent within {0:?}")]
    SendTimedOut(Duration),
    /// The peer stopped reading: the time was up when the kernel had taken only a part of the packet. The client cannot
    /// send any more, since whatever came next would be taken for the rest of this packet; it can still receive.
    #[error(
        "the peer stopped reading: {sent} of the {len} bytes of a packet were sent within {after:?}, and nothing can be sent behind a part of a packet"
    )]
    #[non_exhaustive]
    CutOff {
        /// Bytes of the frame that were sent.
        sent: usize,
        /// The length of the frame, in bytes.
        len: usize,
        /// The timeout.
        after: Duration,
    },
    /// What the peer sent violates the framing, or ended in the midst of a frame. Nothing more can be received; the packets
    /// before were. The client can still send.
    #[error("{0}")]
    Frame(#[source] Box<FrameError>),
    /// The peer sent a frame that is skipped ([`Oversize::Discard`](crate::Oversize::Discard)). The next call returns the
    /// packet behind it.
    #[error("a frame was skipped: {0}")]
    Rejected(#[source] Box<FrameError>),
    /// The packet cannot be encoded or framed. Nothing of it is sent, and the client can still be used.
    #[error("packet cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    /// The peer answered none of so many beats, see [`Heartbeat::lost_after`](crate::Heartbeat::lost_after). The client can
    /// still be used, and counts anew.
    #[error("no answer to {beats} heartbeats, nothing received for {silence:?}")]
    #[non_exhaustive]
    HeartbeatLost {
        /// Beats in a row that were sent and had no answer.
        beats: u16,
        /// How long ago the last byte was received or, if none was, the heartbeat was set.
        silence: Duration,
    },
    /// The connection failed: the peer or the network reset it, or a system call failed.
    #[error("connection failed: {0}")]
    Io(#[source] Arc<io::Error>),
    /// TLS failed: the handshake, or later. [`TlsError::of`](crate::TlsError) finds out more. The client can send nothing any
    /// more.
    #[error("{0}")]
    Layer(#[source] Box<LayerError>),
    /// This side was ended with [`Client::end`](super::Client::end): nothing more can be sent.
    #[error("this side was ended; send before `end`")]
    Ended,
    /// The peer did not end its side within this time after [`Client::close`](super::Client::close). The connection is
    /// closed all the same; whether the peer has read everything is not known.
    #[error("the peer did not end its side within {0:?}; the connection was closed all the same")]
    PeerStays(Duration),
    /// The closure given to [`Client::process`](super::Client::process) failed with this error. The client can still be
    /// used.
    #[error("handler: {0}")]
    Handler(#[source] Arc<dyn Error + Send + Sync>),
}

impl ClientError {
    /// Returns `true` if the time was up before anything happened: [`RecvTimedOut`](Self::RecvTimedOut),
    /// [`SendTimedOut`](Self::SendTimedOut), or [`Connect`](Self::Connect) for that reason. The call can be made again.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::RecvTimedOut { .. } | Self::SendTimedOut(_) => true,
            Self::Connect { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    pub(super) fn io(error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match error.get_ref().and_then(|inner| inner.downcast_ref::<LayerError>()) {
            Some(error) => Self::Layer(Box::new(error.clone())),
            None => Self::Io(Arc::new(error)),
        }
    }

    /// The error of a closure: its own, if it passed on one of its replies.
    pub(super) fn failed(failure: Failure) -> Self {
        let error = failure.into_inner();
        match error.downcast_ref::<Self>() {
            Some(error) => error.clone(),
            None => Self::Handler(error),
        }
    }
}

impl From<LayerError> for ClientError {
    fn from(error: LayerError) -> Self {
        Self::Layer(Box::new(error))
    }
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        Self::Frame(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<ClientError>() <= 40, "{} bytes", size_of::<ClientError>());
    }

    #[test]
    fn an_error_of_a_reply_comes_back_as_itself() {
        let error = ClientError::failed(ClientError::Ended.into());
        assert!(matches!(error, ClientError::Ended), "{error:?}");
        let error = ClientError::failed(Failure::because("no such user"));
        assert_eq!(error.to_string(), "handler: no such user");
    }
}

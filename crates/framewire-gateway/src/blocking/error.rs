use std::{io, sync::Arc, time::Duration};

use thiserror::Error;

/// What can go wrong at an endpoint.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The gateway cannot be reached, or does not begin as it should.
    #[error("cannot connect to the gateway: {0}")]
    Connect(Arc<io::Error>),
    /// The gateway refuses to open a connection.
    #[error("the gateway refuses a connection to {remote}: nobody has that ID, or a limit is reached")]
    #[non_exhaustive]
    Refused {
        /// The ID that was dialed.
        remote: u32,
    },
    /// What was waited for did not come in time.
    #[error("nothing came within {0:?}")]
    TimedOut(Duration),
    /// The connection is closed.
    #[error("the virtual connection is closed")]
    Closed,
    /// The message is longer than the gateway forwards.
    #[error("a message of {len} bytes is over the maximum of {max}")]
    #[non_exhaustive]
    TooLong {
        /// Its length.
        len: usize,
        /// The longest message: LENGTH without the 4 bytes of the connection's ID.
        max: usize,
    },
    /// The link has ended.
    #[error("the link to the gateway has ended: {why}")]
    #[non_exhaustive]
    Ended {
        /// Why.
        why: Arc<str>,
    },
}

impl EndpointError {
    pub(super) fn connect(error: io::Error) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl From<io::Error> for EndpointError {
    fn from(error: io::Error) -> Self {
        Self::connect(error)
    }
}

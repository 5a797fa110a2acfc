use std::time::Duration;

use thiserror::Error;

/// Why a virtual connection was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VirtualDialError {
    /// The gateway refuses it.
    #[error("the gateway refuses a connection to {remote}: there is no such ID, or a limit is reached")]
    #[non_exhaustive]
    Refused {
        /// The ID that was dialed.
        remote: u32,
    },
    /// The gateway did not answer in time.
    #[error("the gateway has not answered within {0:?}")]
    TimedOut(Duration),
    /// There is no link to the gateway now, or to any.
    #[error("there is no link to a gateway; dial again when there is")]
    NotConnected,
    /// The link ended before the gateway had answered.
    #[error("the link to the gateway has ended meanwhile")]
    LinkLost,
    /// As many dials of one link as there may be wait for an answer: 1,024. Those that were given up do not count.
    #[error("{0} dials wait for the gateway, as many as there may be")]
    TooMany(usize),
    /// The endpoint has more to do than it can take, or has stopped.
    #[error("the endpoint is too busy, or has stopped")]
    Busy,
}

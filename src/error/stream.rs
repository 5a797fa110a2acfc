use thiserror::Error;

/// Why a carrier's stream was not opened, or a packet for it was not taken, see [`Streams`](crate::Streams).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The carried service has no shard on the thread of the carrier.
    #[error(
        "the carried service is not on this thread; add it to the Reactor of the carrier, with SingleReactor or WorkerPool"
    )]
    Elsewhere,
    /// The carried service has stopped, or is stopping.
    #[error("the carried service takes no more streams: it is stopping")]
    Stopped,
    /// The carrier is closing: it carries nothing more.
    #[error("the carrier is closing")]
    Closed,
    /// What the carriers of this thread have received for streams in this step of the event loop is as much as
    /// [`Limits::mailbox_commands`](crate::Limits::mailbox_commands) or [`Limits::mailbox_bytes`](crate::Limits::mailbox_bytes)
    /// of their service allow.
    #[error(
        "too much for streams at once: {packets} packets of {bytes} bytes; raise limits.mailbox_* of the carriers"
    )]
    #[non_exhaustive]
    Full {
        /// Packets, and other events, that are on their way.
        packets: usize,
        /// Bytes that are on their way.
        bytes: usize,
    },
}

use std::time::Duration;

use thiserror::Error;

use super::{CloseKind, SendError};

/// What became of a tracked packet. `Ok` means that the kernel has taken all of it; only a reply shows that the peer's
/// program has read it.
pub type Outcome = Result<(), TicketError>;

/// Why a tracked packet is not known to be written. See [`SendTicket::wait`](crate::SendTicket::wait).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The session ended before the whole packet was written to the kernel, for a reason of this kind;
    /// [`CloseKind::Shutdown`] also if its shard ended without closing its sessions, which only a defect of the library
    /// does.
    #[error("the session closed before the packet was written: {0:?}")]
    Closed(CloseKind),
    /// The packet was dropped to make room for others, or replaced by a later one, as its
    /// [`Overflow`](crate::Overflow), or that of its session, allowed. Or, over UDP, because the kernel refused it, or took
    /// none for so long that too many waited.
    #[error("dropped before it was written")]
    Dropped,
    /// The packet was not written within this time. It may still be written later.
    #[error("not written within {0:?}")]
    TimedOut(Duration),
    /// The packet was not queued. The session stays open.
    #[error("refused: {0}")]
    Refused(#[from] SendError),
    /// The wait was begun on a thread that runs a shard, as all callbacks do: it might wait for itself. Use
    /// [`SessionHandle::send_then`](crate::SessionHandle::send_then) there.
    #[error(
        "waited within a callback, which might wait for itself; use send_then, or wait on another thread"
    )]
    WouldDeadlock,
}

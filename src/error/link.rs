use thiserror::Error;

use crate::id::SessionId;

/// Why two sessions were not [linked](crate::Session::link). Both are left as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The session that was to be linked is closing, or its peer has ended its side and
    /// [`on_end`](crate::PacketHandler::on_end) was called.
    #[error("session closed, or ended by its peer")]
    Closed,
    /// A session cannot be linked to itself.
    #[error("a session cannot be linked to itself")]
    Itself,
    /// The session is linked already.
    #[error("the session is linked to {partner} already")]
    #[non_exhaustive]
    Linked {
        /// The session that it is linked to.
        partner: SessionId,
    },
    /// The other session lives on another thread, or belongs to another server. Sessions are linked on one thread: dial
    /// from within the callback, or use a [`SingleReactor`](crate::SingleReactor).
    #[error(
        "session {other} is not on this thread, so it cannot be linked; dial it from this one, or use a SingleReactor"
    )]
    #[non_exhaustive]
    Elsewhere {
        /// The other session.
        other: SessionId,
    },
    /// The mailbox of the other session's shard is full, see
    /// [`Limits::mailbox_commands`](crate::Limits::mailbox_commands).
    #[error("mailbox of the other session's shard full; try again later, or raise limits.mailbox_commands")]
    MailboxFull,
}
